"""
Choosing frames of a stream, poses, rates, the overlay, the model's thread: the small pure parts of
the nodes.
"""

import math
import threading
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from janusvln_ros.actions import Action
from janusvln_ros.camera.view import Intrinsics
from janusvln_ros.errors import InputError
from janusvln_ros.geometry import Pose2, relative, wrap, yaw_of
from janusvln_ros.nodes import worker
from janusvln_ros.nodes.overlay import draw, wrapped
from janusvln_ros.protocol import driving as stepping
from janusvln_ros.protocol import health
from janusvln_ros.protocol.choosing import Chooser
from janusvln_ros.protocol.driving import Code
from janusvln_ros.protocol.odometry import Sample, Track, finite, sample_of

S = 1_000_000_000


# choosing


def chooser(mode, interval=1.0):
    return Chooser(mode, forward=0.25, turn=math.radians(15), interval=interval)


def test_recorded_frames_are_the_first_and_the_first_after_each_report():
    c = chooser("recorded")
    assert [t for t in range(1, 5) if c.frame(t * S)] == [1]
    assert c.report(6 * S) is None
    assert [t for t in range(5, 9) if c.frame(t * S)] == [6]


def test_a_report_that_comes_after_its_frame_chooses_that_frame():
    c = chooser("recorded")
    c.frame(1 * S)
    c.frame(2 * S)
    assert c.report(2 * S) == 2 * S and not c.frame(3 * S)
    assert c.report(2 * S) is None  # never the same twice
    assert c.report(3 * S) == 3 * S


@pytest.mark.parametrize("late", ["reports", "frames"])
def test_no_frame_is_left_out_where_one_topic_lags_steps_behind_the_other(late):
    # a recorder that found the reports late notes them beside the frame after theirs
    c = chooser("recorded")
    c.frame(1 * S)
    chosen = []
    for t in range(2, 12):
        moments = (
            [("frames", t), ("reports", t - 3)]
            if late == "reports"
            else [("reports", t), ("frames", t - 3)]
        )
        for topic, at in moments:
            if at >= 2 and topic == "frames" and c.frame(at * S):
                chosen.append(at)
            elif at >= 2 and topic == "reports":
                chosen += [stamp // S for stamp in [c.report(at * S)] if stamp]
    assert chosen == list(range(2, 9))


def test_odometry_chooses_by_travel_or_turning_from_the_last_chosen_pose():
    c = chooser("odom")
    c.odometry(Pose2(0, 0, 3.1))
    assert c.frame(1)
    chosen = []
    for i in range(2, 30):
        c.odometry(
            Pose2(0.1 * (i - 1), 0, 3.1) if i < 9 else Pose2(0.7, 0, wrap(3.1 + 0.1 * (i - 8)))
        )
        if c.frame(i):
            chosen.append(i)
    assert chosen[0] == 4 and len([i for i in chosen if i < 9]) == 2  # 0.3 m and 0.6 m
    assert len([i for i in chosen if i >= 9]) == 7  # 2.1 rad in turns of 0.3, across the wrap


def test_standstill_gives_no_frames_and_neither_does_odometry_that_is_no_number():
    c = chooser("odom")
    c.odometry(Pose2())
    c.frame(1)
    c.odometry(Pose2(math.nan, 0, 0))
    assert not any(c.frame(i) for i in range(2, 50))


def test_interval_is_measured_by_stamps():
    c = chooser("interval", 0.5)
    assert [i for i in range(20) if c.frame(i * S // 10 + 1)] == [0, 5, 10, 15]


# poses


def test_relative_motion_is_in_the_frame_of_the_start():
    moved = relative(Pose2(1, 2, math.pi / 2), Pose2(1, 3, -math.pi))
    assert moved == pytest.approx((1.0, 0.0, math.pi / 2))


@pytest.mark.parametrize("angle", [0.0, 1.0, -1.0, 3.1, -3.1])
@pytest.mark.parametrize("scale", [1.0, 0.5, 7.0])
def test_heading_of_a_quaternion_of_any_length(angle, scale):
    assert yaw_of(0, 0, scale * math.sin(angle / 2), scale * math.cos(angle / 2)) == pytest.approx(
        angle
    )


def test_a_quaternion_of_zeros_has_no_heading_and_the_sample_is_not_finite():
    zero = SimpleNamespace(x=0.0, y=0.0, z=0.0, w=0.0)
    twist = SimpleNamespace(linear=zero, angular=zero)
    message = SimpleNamespace(
        header=SimpleNamespace(stamp=SimpleNamespace(sec=1, nanosec=5)),
        pose=SimpleNamespace(pose=SimpleNamespace(position=zero, orientation=zero)),
        twist=SimpleNamespace(twist=twist),
    )
    assert sample_of(message).stamp == S + 5 and not finite(sample_of(message))


def test_track_interpolates_across_the_wrap_and_starts_anew_when_time_jumps_back():
    track = Track()
    track.add(Sample(0, Pose2(0, 0, 3.1), 0.0))
    track.add(Sample(10, Pose2(1, 0, -3.1), 0.4))
    middle = track.at(5)
    assert (
        middle.pose.x == 0.5
        and abs(middle.pose.yaw) == pytest.approx(math.pi, abs=0.01)
        and middle.speed == 0.2
    )
    assert track.at(10).pose.x == 1 and track.at(11) is None and track.at(-1) is None
    track.add(Sample(3, Pose2()))
    assert track.at(5) is None and len(track.samples) == 1
    assert Track().at(0) is None


# health


def test_a_camera_that_silently_falls_to_ten_hertz_shows_up():
    rate = health.InputRate("image", expected=30.0)
    assert rate.health(0.0).level == health.STALE
    for i in range(90):
        rate.hit(i / 30)
    assert rate.health(3.0).level == health.OK
    for i in range(60):
        rate.hit(3 + i / 10)
    low = rate.health(9.0)
    assert low.level == health.WARN and "10.0 Hz instead of 30" in low.message
    assert rate.health(12.0).level == health.ERROR


def test_percentiles():
    assert health.percentile([], 0.5) != health.percentile([], 0.5)
    assert (
        health.percentile(range(1, 101), 0.99) == 99
        and health.percentile([5.0], 0.99) == 5.0
        and health.percentile([3, 1, 2], 0.5) == 2
    )


def test_a_late_timer_is_told_once_by_how_much():
    lateness = health.Lateness(0.05)
    for now in (0.0, 0.05, 0.18, 0.20, 0.25):  # 80 ms late, then sooner to catch up
        lateness.hit(now)
    assert lateness.take() == pytest.approx(0.08) and lateness.take() == 0.0
    lateness.hit(0.31)
    assert lateness.take() == pytest.approx(0.01)


# overlay


def test_overlay_shows_instruction_and_decision_without_touching_the_frame():
    frame = np.full((240, 320, 3), 100, np.uint8)
    kwargs = {"instruction": "geh zur Tür " * 30, "step": 3, "text": "", "seconds": 0.1}
    picture = draw(frame, action=Action.TURN_LEFT, probabilities=(0.1, 0.2, 0.6, 0.1), **kwargs)
    assert picture.shape == frame.shape and (frame == 100).all() and not (picture == 100).all()
    free = draw(frame, action=None, probabilities=(math.nan,) * 4, **kwargs)
    assert (free[-60:] == 100).all()  # no bars without probabilities


def test_long_instructions_are_cut_with_dots():
    lines = wrapped("word " * 100, 20)
    assert len(lines) == 3 and all(len(line) <= 20 for line in lines) and lines[-1].endswith("...")
    assert wrapped("", 20) == [""]


# the model's thread


def test_jobs_run_in_order_and_one_that_raises_does_not_end_the_thread():
    got, done = [], threading.Event()
    w = worker.Worker(got.append)
    w.put(lambda: 1)
    w.put(lambda: 1 / 0)
    w.put(lambda: None)
    w.put(lambda: 2)
    w.put(done.set)
    assert done.wait(10) and w.end(10)
    assert (
        got[0] == 1
        and isinstance(got[1], worker.Crashed)
        and "ZeroDivisionError" in got[1].message
        and got[2] == 2
    )


class Model:
    memory = "dual"

    def __init__(self, answer=None):
        self.answer, self.resets = answer, []

    def reset(self, instruction):
        self.resets.append(instruction)
        if "marks" in instruction:
            raise InputError("the instruction has marks of the prompt")
        if "boom" in instruction:
            raise RuntimeError("CUDA out of memory. Tried to allocate")

    def step(self, rgb, commit=True):
        if isinstance(self.answer, BaseException):
            raise self.answer
        return SimpleNamespace(
            action=Action.STOP, text="STOP", probabilities=self.answer, timings={"total": 0.1}
        )


F = 32 / math.tan(math.radians(39.5))
CAMERA = Intrinsics(64, 48, (F, 0, 31.5, 0, F, 23.5, 0, 0, 1))


def picture(seed=1, size=(48, 64)):
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)
    return SimpleNamespace(format="png", data=cv2.imencode(".png", pixels)[1].tobytes())


def session(model, **options):
    made = worker.Session(
        model,
        worker.Eyes(
            **{"allow_uncalibrated": False, "refuse_blank": True, "refuse_frozen": True} | options
        ),
    )
    made.reset(1, "go")
    return made


def decide(s, message=None, camera=CAMERA, moved=False):
    return s.decide(7, message or picture(), camera, moved, True)


def test_a_decision_comes_with_its_frame_and_probabilities():
    shares = dict.fromkeys(Action, 0.25)
    got = decide(session(Model(shares)))
    assert (
        isinstance(got, stepping.Decided)
        and got.action is Action.STOP
        and got.payload.probabilities == (0.25,) * 4
        and got.payload.rgb.shape == (48, 64, 3)
    )
    # free decoding
    assert all(map(math.isnan, decide(session(Model(None))).payload.probabilities))


def test_probabilities_that_are_no_numbers_are_a_failure_not_a_decision():
    got = decide(session(Model(dict.fromkeys(Action, math.nan))))
    assert (
        isinstance(got, stepping.Failed)
        and got.code == Code.INFERENCE_FAILED
        and "not numbers" in got.message
    )


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
        type("OutOfMemoryError", (RuntimeError,), {})("x"),
    ],
)
def test_out_of_memory_is_named_and_the_model_is_usable_again(error):
    model = Model(error)
    s = session(model)
    got = decide(s)
    assert got.code == Code.INFERENCE_FAILED and "out of memory" in got.message
    model.answer = dict.fromkeys(Action, 0.25)
    assert s.reset(2, "go") is None and isinstance(decide(s), stepping.Decided)


def test_numbers_that_went_bad_inside_the_model_are_a_failure_of_the_model():
    bad = type("NonFiniteError", (InputError,), {})("the scores are not finite numbers")
    assert decide(session(Model(bad))).code == Code.INFERENCE_FAILED
    assert decide(session(Model(InputError("the frame is 3x3 pixels")))).code == Code.BAD_FRAME


def test_nothing_is_decided_after_a_reset_that_failed():
    s = session(Model(None))
    failed = s.reset(5, "marks")
    assert (failed.epoch, failed.code) == (5, Code.INVALID_INSTRUCTION) and decide(s) is None
    assert s.reset(6, "boom").code == Code.INFERENCE_FAILED and decide(s) is None


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (SimpleNamespace(format="jpeg", data=b""), "empty"),
        (
            SimpleNamespace(
                format="png",
                data=cv2.imencode(".png", np.zeros((48, 64, 3), np.uint8))[1].tobytes(),
            ),
            "black",
        ),
        (picture(size=(24, 32)), "camera_info is for 64 x 48"),
        (SimpleNamespace(format="jpeg", data=None), "cannot be read"),
    ],
)
def test_a_frame_that_cannot_be_used_is_named(message, words):
    got = decide(session(Model(None)), message)
    assert got.code == Code.BAD_FRAME and words in got.message


def test_a_frame_equal_to_the_last_one_is_refused_only_if_the_robot_moved():
    s = session(Model(None))
    assert isinstance(decide(s), stepping.Decided) and isinstance(
        decide(s, moved=False), stepping.Decided
    )
    assert "frozen" in decide(s, moved=True).message
    assert isinstance(decide(s, picture(2), moved=True), stepping.Decided)
    assert isinstance(
        decide(session(Model(None), refuse_frozen=False), moved=True), stepping.Decided
    )


def test_without_camera_info_frames_are_refused_unless_allowed():
    assert "no camera_info" in decide(session(Model(None)), camera=None).message
    s = session(Model(None), allow_uncalibrated=True)
    assert (
        isinstance(decide(s, camera=None), stepping.Decided)
        and "no intrinsics" in s.eyes.warnings[0]
    )
    zero = Intrinsics(64, 48, (0.0,) * 9)
    assert isinstance(decide(s, camera=zero), stepping.Decided)
    assert "no usable intrinsics" in decide(session(Model(None)), camera=zero).message


def test_warm_up_leaves_empty_memories():
    model = Model(None)
    worker.warm_up(model)
    assert len(model.resets) == 3  # the last call is a reset


def test_memory_fill_of_either_kind_of_memory():
    model = Model(None)
    model.spatial_frames, model.frames_seen, model.memory_bytes = [0, 1, 2], 30, 99
    model.model = SimpleNamespace(
        config=SimpleNamespace(
            navigation=SimpleNamespace(initial_frames=8, window_frames=48, num_history=8)
        )
    )
    seen = worker.look(model, model.step(None), np.zeros((2, 2, 3), np.uint8))
    assert (seen.spatial_frames, seen.semantic_frames, seen.capacity, seen.memory_bytes) == (
        3,
        3,
        56,
        99,
    )
    model.memory = "released"
    assert worker.look(model, model.step(None), np.zeros((2, 2, 3), np.uint8)).semantic_frames == 8

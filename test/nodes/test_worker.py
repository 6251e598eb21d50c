"""The thread that owns the model: jobs, failures and what is told of them. Without ROS."""

import math
import threading
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from janusvln_ros.actions import Action
from janusvln_ros.camera.reader import FrameReader
from janusvln_ros.camera.view import Intrinsics
from janusvln_ros.errors import InputError, NonFiniteError
from janusvln_ros.nodes import worker
from janusvln_ros.protocol.exchange import Decided, Failed, Frame, Infer, Reset
from janusvln_ros.protocol.status import Code


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
    spatial_frames, semantic_frames = (), ()
    memory_capacity = memory_bytes = 0

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
    checks = {"allow_uncalibrated": False, "refuse_blank": True, "refuse_frozen": True}
    made = worker.Session(model, FrameReader(**checks | options))
    made.reset(Reset(1, "go"))
    return made


def decide(s, message=None, camera=CAMERA, moved=False):
    frame = Frame(0.0, 1, 1, message or picture())
    return s.decide(Infer(7, frame, camera, moved))


def test_a_decision_comes_with_its_frame_and_probabilities():
    shares = dict.fromkeys(Action, 0.25)
    got = decide(session(Model(shares)))
    assert (
        isinstance(got, Decided)
        and got.action is Action.STOP
        and got.payload.probabilities == (0.25,) * 4
        and got.payload.rgb.shape == (48, 64, 3)
    )
    # free decoding
    assert all(map(math.isnan, decide(session(Model(None))).payload.probabilities))


@pytest.mark.parametrize("which", [*Action, None])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_probability_that_is_no_number_is_a_failure_not_a_decision(which, value):
    shares = {a: value if which in (a, None) else 0.3 for a in Action}
    got = decide(session(Model(shares)))
    assert (
        isinstance(got, Failed)
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
    assert s.reset(Reset(2, "go")) is None and isinstance(decide(s), Decided)


def test_numbers_that_went_bad_inside_the_model_are_a_failure_of_the_model():
    bad = NonFiniteError("the scores are not finite numbers")
    assert decide(session(Model(bad))).code == Code.INFERENCE_FAILED
    assert decide(session(Model(InputError("the frame is 3x3 pixels")))).code == Code.BAD_FRAME


def test_nothing_is_decided_after_a_reset_that_failed():
    s = session(Model(None))
    failed = s.reset(Reset(5, "marks"))
    assert (failed.episode_id, failed.code) == (5, Code.INVALID_INSTRUCTION) and decide(s) is None
    assert s.reset(Reset(6, "boom")).code == Code.INFERENCE_FAILED and decide(s) is None


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
        (picture(size=(24, 48)), "camera_info is for 64 x 48"),
        (SimpleNamespace(format="jpeg", data=None), "cannot be read"),
    ],
)
def test_a_frame_that_cannot_be_used_is_named(message, words):
    got = decide(session(Model(None)), message)
    assert got.code == Code.BAD_FRAME and words in got.message


def test_a_frame_equal_to_the_last_one_is_refused_only_if_the_robot_moved():
    s = session(Model(None))
    assert isinstance(decide(s), Decided) and isinstance(decide(s, moved=False), Decided)
    assert "frozen" in decide(s, moved=True).message
    assert isinstance(decide(s, picture(2), moved=True), Decided)
    assert isinstance(decide(session(Model(None), refuse_frozen=False), moved=True), Decided)


def test_without_camera_info_frames_are_refused_unless_allowed():
    assert "no camera_info" in decide(session(Model(None)), camera=None).message
    s = session(Model(None), allow_uncalibrated=True)
    assert isinstance(decide(s, camera=None), Decided) and "no intrinsics" in s.reader.warnings[0]
    zero = Intrinsics(64, 48, (0.0,) * 9)
    assert isinstance(decide(s, camera=zero), Decided)
    assert "no usable intrinsics" in decide(session(Model(None)), camera=zero).message


def test_warm_up_leaves_empty_memories():
    model = Model(None)
    worker.warm_up(model)
    assert len(model.resets) == 3  # the last call is a reset


def test_what_is_published_of_the_memories_is_what_the_navigator_says():
    model = Model(None)
    model.spatial_frames, model.semantic_frames = [0, 1, 2], [0, 2]
    model.memory_capacity, model.memory_bytes = 56, 99
    seen = worker.look(model, model.step(None), np.zeros((2, 2, 3), np.uint8))
    published = (
        seen.spatial_frames,
        seen.semantic_frames,
        seen.memory_capacity,
        seen.memory_bytes,
    )
    assert published == (3, 2, 56, 99)

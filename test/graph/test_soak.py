"""
What the soak calls unsafe, growth and drift; the drive itself is in test_random_faults.py.
"""

import math
import subprocess
import sys
from collections import deque
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")

from nav_msgs.msg import Odometry
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, LaserScan

from janusvln_ros.errors import InputError
from janusvln_ros.geometry import yaw_of
from janusvln_ros.graph.composition import resolve
from janusvln_ros.graph.connection import GraphTimeoutError, RefusedError
from janusvln_ros.graph.soak.drive import EVENTS, LIVES, Soak, faults_of, resident_bytes
from janusvln_ros.graph.soak.pieces import Record, keep_piece, kept_pieces, report
from janusvln_ros.graph.soak.sensors import KINDS, SPOILS, TRUE, Past, behind_relay
from janusvln_ros.graph.soak.watch import (
    BRAKING,
    PROMISE,
    STEP_M,
    Growth,
    RestWatch,
    StepWatch,
    drift,
)


def hear(watch, now, speed, rate, late=0.0):
    watch.truth(now, now - late, speed, rate)


def test_motion_is_unsafe_only_after_the_promise_and_the_braking_and_is_counted_once():
    watch = RestWatch()
    hear(watch, 0.0, 0.3, 0.0)
    watch.must_rest(10.0, "disarm")
    hear(watch, 10.0 + PROMISE + BRAKING - 0.01, 0.3, 0.0)
    assert not watch.unsafe
    for t in (10.9, 11.0, 11.1):
        hear(watch, t, 0.0, 0.2)
    assert len(watch.unsafe) == 1 and "disarm" in watch.unsafe[0]
    watch.must_rest(20.0, "e-stop")
    watch.may_move(29.0)
    hear(watch, 30.0, 0.3, 0.0)
    watch.must_rest(40.0, "cancel")
    hear(watch, 50.0, 0.01, 0.0)
    assert len(watch.unsafe) == 1


def test_a_moment_is_judged_by_when_it_was_not_by_when_it_was_heard_of():
    watch = RestWatch()
    hear(watch, 9.0, 0.0, 0.3)
    watch.must_rest(10.0, "kill")
    hear(watch, 11.9, 0.0, 0.3, late=2.0)
    assert not watch.unsafe
    watch.may_move(12.0)
    hear(watch, 13.0, 0.0, 0.3, late=1.5)
    (told,) = watch.unsafe
    assert told.startswith("1.50 s after 'kill'")
    watch.must_rest(20.0, "kill")
    watch.may_move(21.0)
    hear(watch, 23.0, 0.0, 0.3, late=1.9)
    assert len(watch.unsafe) == 1


def test_one_that_may_turn_makes_no_way_and_one_that_may_go_on_comes_to_rest_first():
    late = PROMISE + BRAKING + 0.01
    watch = RestWatch()
    watch.must_rest(0.0, "scan", turns=True)
    hear(watch, late, 0.0, 0.5)
    assert not watch.unsafe
    hear(watch, late, 0.1, 0.5)
    assert len(watch.unsafe) == 1
    watch.must_rest(10.0, "jump", once=True)
    hear(watch, 10.1, 0.3, 0.0)
    hear(watch, 10.3, 0.0, 0.0)  # it has rested
    hear(watch, 10 + late, 0.3, 0.0)
    assert len(watch.unsafe) == 1
    watch.must_rest(20.0, "jump", once=True)
    hear(watch, 20 + late, 0.3, 0.0)
    watch.must_rest(30.0, "client", promise=2.0)
    hear(watch, 30.0 + 2.0 + BRAKING - 0.01, 0.3, 0.0)
    assert len(watch.unsafe) == 2


def test_how_far_one_step_went_since_a_sensor_lies_is_told():
    watch = StepWatch()
    watch.begins()
    for x in (0.0, 0.2):
        watch.truth(x, 0.0, 0.0)
    watch.spoilt()
    assert watch.farthest == 0
    watch.truth(0.24, 0.0, 0.0)
    assert watch.farthest == pytest.approx(0.04) and watch.metres == pytest.approx(0.24)
    for x in (0.24, 0.34):
        watch.over()
        watch.truth(x, 0.0, 0.0)
        watch.truth(x + 0.1, 0.0, 0.0)
    assert watch.farthest == pytest.approx(0.1)


def test_a_step_of_more_than_one_and_a_half_is_unsafe_and_counted_once():
    watch = StepWatch()
    for x in (-5.0, 0.0):  # before the first drive it is put where that begins
        watch.truth(x, 0.0, 0.0)
    watch.begins()
    for x in (0.0, 0.2, STEP_M):
        watch.truth(x, 0.0, 0.0)
    assert not watch.unsafe
    watch.why = "odom_reversed"
    watch.truth(0.2, 0.0, 0.0)  # back again is way, too
    watch.truth(0.0, 0.0, 0.0)
    assert len(watch.unsafe) == 1 and "odom_reversed" in watch.unsafe[0]
    assert watch.worst_metres == pytest.approx(2 * STEP_M)
    watch.over()
    for degrees in (170, -175, -168):  # across the seam: 15 and 7 more
        watch.truth(5.0, 0.0, math.radians(degrees))
    assert len(watch.unsafe) == 1 and math.degrees(watch.worst_radians) == pytest.approx(22)
    watch.truth(5.0, 0.0, math.radians(-167))
    assert len(watch.unsafe) == 2
    watch.ends()
    watch.over()  # told late
    for x in (5.0, 9.0):  # it is put somewhere else
        watch.truth(x, 0.0, 0.0)
    watch.begins()
    for x in (9.0, 9.2):
        watch.truth(x, 0.0, 0.0)
    assert len(watch.unsafe) == 2 and watch.metres == pytest.approx(0.2)


def odometry(x, y, yaw, sec):
    message = Odometry()
    message.header.stamp.sec = sec
    message.pose.pose.position.x, message.pose.pose.position.y = x, y
    message.pose.pose.orientation.z = math.sin(yaw / 2)
    message.pose.pose.orientation.w = math.cos(yaw / 2)
    message.twist.twist.linear.x = 0.3
    return message


def spoilt(name, message, first, earlier=()):
    past = Past(first, deque((0.0, serialize_message(m)) for m in earlier))
    return SPOILS[name].spoiler(message, past)


@pytest.mark.parametrize(
    ("name", "pose"),
    [
        ("odom_jumps", (5.0, 1.0, 0.3)),
        ("odom_turned_90", (2.0, 1.0, 0.3 + math.pi / 2)),
        ("odom_pose_frozen", (1.0, 1.0, 0.1)),
        ("odom_reversed", (0.0, 1.0, -0.1)),
        ("odom_a_tenth", (1.1, 1.0, 0.12)),
        ("odom_a_half", (1.5, 1.0, 0.2)),
        ("odom_rotated", (1.0, 2.0, 0.3)),
    ],
)
def test_a_liar_makes_of_the_way_since_the_fault_what_it_says(name, pose):
    said = spoilt(name, odometry(2.0, 1.0, 0.3, 7), odometry(1.0, 1.0, 0.1, 6))
    q = said.pose.pose.orientation
    told = (said.pose.pose.position.x, said.pose.pose.position.y, yaw_of(q.x, q.y, q.z, q.w))
    assert told == pytest.approx(pose)
    assert said.header.stamp.sec == 7 and said.twist.twist.linear.x == 0.3


def test_odometry_that_is_dead_late_or_wrongly_stamped_is_so_in_nothing_else():
    now, first = odometry(2.0, 0.0, 0.0, 7), odometry(1.0, 0.0, 0.0, 6)
    dead = spoilt("odom_dead", odometry(2.0, 0.0, 0.0, 7), first)
    assert dead.pose.pose.position.x == 1.0 and dead.twist.twist.linear.x == 0.0
    assert dead.header.stamp.sec == 7
    late = spoilt("odom_late", now, first, [odometry(0.5, 0.0, 0.0, 5), now])
    assert late.pose.pose.position.x == 0.5 and late.header.stamp.sec == 7
    for name, sec in (("odom_old", 2), ("odom_ahead", 12), ("odom_stamps_frozen", 6)):
        said = spoilt(name, odometry(2.0, 0.0, 0.0, 7), first)
        assert said.header.stamp.sec == sec and said.pose.pose.position.x == 2.0
    assert spoilt("odom_stops", now, first) is None


def test_what_is_ahead_in_a_scan_is_spoilt_and_what_is_beside_stays():
    scan = LaserScan(angle_min=-1.0, angle_increment=0.5, ranges=[2.0] * 5)
    said = spoilt("scan_near", scan, scan)
    assert list(said.ranges) == [2.0, 2.0, -math.inf, 2.0, 2.0]


def test_depth_pictures_and_intrinsics_are_spoilt():
    depth = Image(height=2, width=3, step=12, encoding="32FC1", data=bytes(24))
    said = np.frombuffer(spoilt("depth_nan", depth, depth).data, np.float32)
    assert said.shape == (6,) and np.isnan(said).all()
    info = CameraInfo(k=[9.0] * 9, p=[9.0] * 12)
    said = spoilt("depth_info_zero", info, info)
    assert (said.k[0], said.k[4], said.p[0], said.p[5], said.p[6]) == (0.0,) * 5
    assert said.k[1] == said.k[8] == said.p[3] == 9.0
    picture = CompressedImage(data=bytes(100))
    assert len(spoilt("camera_torn", picture, picture).data) == 50


def test_every_fault_can_be_drawn_where_its_sensor_is():
    assert all(callable(getattr(Soak, name)) for name in EVENTS)
    scan, depth = set(faults_of("scan")), set(faults_of("depth"))
    assert scan | depth == {*EVENTS, *SPOILS}
    assert {name for name in scan ^ depth if name.startswith("scan")} == scan - depth != set()


def test_the_simulator_speaks_to_the_relay_and_the_others_hear_what_it_says():
    specs = {
        spec.name: spec for spec in behind_relay(resolve("simulation", {"mode": "continuous"}))
    }
    assert specs["sim_bridge"].remaps.items() >= {t: TRUE + t for t in KINDS}.items()
    for name in ("motion", "policy"):
        assert not [to for to in specs[name].remaps.values() if to.startswith(TRUE)]


def test_pieces_are_kept_and_reported_together(tmp_path):
    first = Record(seconds=1800.0, episodes=2, published=10, received=9, worst_step=(0.2, 0.1))
    first.faults.update(estop=2)
    first.growth, first.late = {"policy": 5, "motion": 1}, {"policy": [0.1, 0.3]}
    second = Record(seconds=1800.0, episodes=3, published=10, received=11, worst_step=(0.1, 0.3))
    second.faults.update(estop=1, edge=1)
    second.growth, second.late, second.unsafe = {"policy": 3}, {"policy": [0.2]}, ["it moved"]
    for number, record in enumerate((first, first, second)):
        keep_piece(tmp_path, max(0, number - 1), record)
    told = report(kept_pieces(tmp_path))
    assert (told["hours"], told["pieces"], told["episodes"], told["faults"]) == (1.0, 2, 5, 4)
    assert told["faults_by_kind"] == {"edge": 1, "estop": 3}
    assert told["memory_growth_bytes"] == {"motion": 1, "policy": 5}
    assert told["callback_late_max"] == {"policy": 0.3} and told["dropped_frames"] == 1
    assert told["worst_step"] == [0.2, 0.3] and told["unsafe"] == ["it moved"]


def test_a_file_that_is_no_piece_is_named(tmp_path):
    (tmp_path / "piece-000.json").write_text('{"seconds": "long"}')
    with pytest.raises(InputError, match=r"piece-000\.json is no piece"):
        kept_pieces(tmp_path)


def test_what_goes_up_and_down_does_not_grow_and_swings():
    growth = Growth(warm_up=10.0)
    for t in range(600):
        growth.look(t, 1000 if t % 40 < 30 else 1300)
    assert (growth.worst, growth.swing) == (0, 300)  # the warm-up saw no peak
    growth.look(601, 1500)
    assert growth.swing == 500


def test_what_never_comes_down_again_grows_in_each_life_after_its_warm_up():
    growth = Growth(warm_up=10.0)
    for t in range(400):
        growth.look(t, 50 * t if t < 10 else 1000 + t // 60 * 100)
    assert growth.worst == 500  # of the minutes from 11 to 71, and from 311 to 371
    growth.restart(loading=True)
    for t in range(400, 700):
        growth.look(t, 1000 * t)
    growth.restart()
    for t in range(700, 1000):
        growth.look(t, 9000)
    assert growth.worst == 500


@pytest.mark.parametrize(
    ("answers", "started", "ends"),
    [
        ([None], 0, None),
        ([GraphTimeoutError("nothing"), None], 1, None),
        ([RefusedError("the e-stop")], 0, RefusedError),
        ([GraphTimeoutError("nothing")] * LIVES, LIVES - 1, GraphTimeoutError),
    ],
)
def test_a_node_that_nobody_reaches_is_started_again_and_counted(answers, started, ends):
    told, again = iter(answers), []
    soak = SimpleNamespace(
        record=Record(), _start_again=again.append, _restarted=lambda name: None
    )

    def ask():
        if (problem := next(told)) is not None:
            raise problem

    with pytest.raises(ends) if ends else nullcontext():
        Soak._reach(soak, "motion", ask)
    assert again == ["motion"] * started and soak.record.unreachable == started


def test_drift_compares_the_ends():
    assert drift([1.0] * 5) == 0.0
    assert drift([1.0] * 50 + [3.0] * 50) == 2.0


def test_resident_memory_of_a_process_and_of_none():
    import os

    assert resident_bytes(os.getpid()) > 1_000_000 and resident_bytes(2**30) == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--hours", "0"], "--hours is 0.0"),
        (["--faults", "earthquake"], "'earthquake'"),
        (["--every", "0"], "--every"),
        (["--size", "big"], "argument --size: 'big'"),
    ],
)
def test_a_wrong_option_is_named(words, told):
    done = subprocess.run(
        [sys.executable, "-m", "janusvln_ros.cli.main", "soak", *words],
        capture_output=True,
        text=True,
    )
    assert (
        done.returncode == 2
        and told in done.stderr
        and "Traceback" not in done.stderr
        and done.stdout == ""
    )

"""
Which frames of a recorded drive a policy would have decided on, and the import of drives as
training data.
"""

import numpy as np
import pytest

from janusvln_ros.actions import Action
from janusvln_ros.data.bags import BagWriter, open_bag
from janusvln_ros.data.drive_import import import_drive
from janusvln_ros.data.drives import (
    Moment,
    Topics,
    interval_moments,
    moment_frames,
    odometry_moments,
    read_odometry,
    recorded_moments,
)
from janusvln_ros.data.trajectories import TrajectoryWriter, merge, read_trajectories
from janusvln_ros.errors import InputError

ACTIONS = [1, 1, 2, 1, 3, 3, 1, 1]


def test_odometry_moments_follow_the_motion_and_carry_the_words(bags, tmp_path):
    with open_bag(bags.write_drive(tmp_path / "a.mcap", ACTIONS)) as bag:
        moments = odometry_moments(bag, Topics(), None)
    assert [int(m.recorded) for m in moments] == [*ACTIONS, 0]
    assert {m.instruction for m in moments} == {"go to the red door"} and [
        m.step for m in moments
    ] == list(range(9))


def turned(bags, tmp_path, length):
    """Odometry of a turn on the spot, 6 degrees a message, its quaternions of this length."""
    with BagWriter(tmp_path / "a.mcap") as writer:
        for n in range(11):
            message = bags.odometry(n * 10**8, 0, 0, np.radians(6 * n))
            message.pose.pose.orientation.z *= length
            message.pose.pose.orientation.w *= length
            writer.write_message("/odom", n * 10**8, message)
    return tmp_path / "a.mcap"


@pytest.mark.parametrize("length", [0.1, 1.0, 2.0])
def test_a_turn_is_read_from_quaternions_of_any_length(bags, tmp_path, length):
    with open_bag(turned(bags, tmp_path, length)) as bag:
        odometry = read_odometry(bag, Topics())
    assert odometry[-1].pose.yaw == pytest.approx(np.radians(60))


def test_odometry_with_quaternions_of_zeros_is_refused_with_where_and_how_many(bags, tmp_path):
    words = r"11 of 11 messages of /odom .* first at 0\.000 s: .* a quaternion of zeros"
    with open_bag(turned(bags, tmp_path, 0.0)) as bag, pytest.raises(InputError, match=words):
        read_odometry(bag, Topics())


def report(bags, nanoseconds, step, action):
    pose = bags.odometry(0, 0, 0, 0).pose.pose
    return bags.types["janusvln_msgs/msg/StepReport"](
        header=bags.header(nanoseconds),
        episode_id=1,
        step=step,
        action=action,
        frame_stamp=bags.stamp(nanoseconds - 5),
        status=0,
        error_msg="",
        pose_change=pose,
        collided=False,
    )


def test_stop_at_the_step_limit_is_no_decision_of_the_recorded_policy(bags, tmp_path):
    with BagWriter(tmp_path / "a.mcap") as writer:
        writer.write_message("/policy/decision", 10, bags.decision(10, 0, 1))
        writer.write_message("/motion/step_report", 20, report(bags, 20, 0, 1))
        writer.write_message("/motion/step_report", 30, report(bags, 30, 1, 0))
    with open_bag(tmp_path / "a.mcap") as bag:
        assert [(m.stamp, m.recorded) for m in recorded_moments(bag)] == [
            (10, Action.MOVE_FORWARD)
        ]


def test_step_reports_alone_tell_the_frames_and_actions(bags, tmp_path):
    with BagWriter(tmp_path / "a.mcap") as writer:
        writer.write_message("/motion/step_report", 20, report(bags, 20, 0, 1))
        writer.write_message("/motion/step_report", 30, report(bags, 30, 1, 0))
    with open_bag(tmp_path / "a.mcap") as bag:
        assert [(m.stamp, m.recorded) for m in recorded_moments(bag)] == [
            (15, Action.MOVE_FORWARD),
            (25, Action.STOP),
        ]


def test_interval_moments_are_evenly_spaced(bags, tmp_path):
    with open_bag(bags.write_drive(tmp_path / "a.mcap", ACTIONS)) as bag:
        stamps = [m.stamp for m in interval_moments(bag, Topics(), "walk", 0.5)]
        assert np.all(np.diff(stamps) >= 5e8) and np.all(np.diff(stamps) < 5.4e8)
        with pytest.raises(InputError, match="interval is 0 s"):
            interval_moments(bag, Topics(), "walk", 0)


def test_clock_that_goes_backwards_begins_a_new_episode(bags, tmp_path):
    with BagWriter(tmp_path / "a.mcap") as writer:
        for n in range(40):
            writer.write_message("/image", n * 10**8, bags.image((n % 20) * 10**8, n))
    with open_bag(tmp_path / "a.mcap") as bag:
        moments = interval_moments(bag, Topics(), "walk", 1.0)
    assert [(m.episode, m.step) for m in moments] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_each_moment_gets_the_frame_of_its_own_episode(bags, tmp_path):
    with BagWriter(tmp_path / "a.mcap") as writer:
        for n in range(4):
            writer.write_message("/image", n, bags.image(n % 2 + 1, n))
    with open_bag(tmp_path / "a.mcap") as bag:
        moments = [Moment(1, 0, 0, "", None), Moment(2, 0, 1, "", None), Moment(1, 1, 0, "", None)]
        got = [
            (m.episode, m.step, rgb[0, 0, 0]) for m, rgb in moment_frames(bag, Topics(), moments)
        ]
    assert got == [(0, 0, 0), (0, 1, 1), (1, 0, 2)]


def test_two_decisions_on_one_frame_both_get_it(bags, tmp_path):
    with BagWriter(tmp_path / "a.mcap") as writer:
        writer.write_message("/image", 0, bags.image(5, 7))
    with open_bag(tmp_path / "a.mcap") as bag:
        moments = [Moment(5, 0, 3, "one", None), Moment(5, 1, 0, "two", None)]
        got = [(m.instruction, rgb[0, 0, 0]) for m, rgb in moment_frames(bag, Topics(), moments)]
    assert got == [("one", 7), ("two", 7)]


def test_odometry_whose_clock_goes_backwards_is_refused(bags, tmp_path):
    with BagWriter(tmp_path / "a.mcap") as writer:
        for n in range(40):
            writer.write_message("/image", n * 10**8, bags.image((n % 20) * 10**8, n))
            writer.write_message("/odom", n * 10**8, bags.odometry((n % 20) * 10**8, n, 0, 0))
    with (
        open_bag(tmp_path / "a.mcap") as bag,
        pytest.raises(InputError, match="goes backwards 1 times"),
    ):
        odometry_moments(bag, Topics(), "walk")


def test_bag_without_words_asks_for_them(bags, tmp_path):
    with (
        open_bag(bags.write_drive(tmp_path / "a.mcap", ACTIONS, instruction=None)) as bag,
        pytest.raises(InputError, match="--instruction"),
    ):
        odometry_moments(bag, Topics(), None)


def test_two_cameras_must_be_told_apart(bags, tmp_path):
    with BagWriter(tmp_path / "a.mcap") as writer:
        writer.write_message("/front/image", 0, bags.image(0))
        writer.write_message("/rear/image", 0, bags.image(0))
        writer.write_message("/depth/image", 0, bags.image(0))
    with (
        open_bag(tmp_path / "a.mcap") as bag,
        pytest.raises(
            InputError, match="several camera topics: /depth/image, /front/image, /rear/image"
        ),
    ):
        interval_moments(bag, Topics(), "walk", 1.0)


def test_imported_drive_is_a_trajectory_like_any_other(bags, tmp_path):
    writer = TrajectoryWriter(tmp_path / "out", "bag")
    with open_bag(bags.write_drive(tmp_path / "a.mcap", ACTIONS)) as bag:
        (report,) = import_drive(bag, writer, "kitchen", lambda rgb: rgb, Topics())
    writer.close()
    merge(tmp_path / "out")
    (trajectory,) = read_trajectories(tmp_path / "out")
    assert trajectory.actions == (-1, *ACTIONS) and trajectory.targets[-1] == Action.STOP
    assert trajectory.instruction == "go to the red door" and len(trajectory.frames) == 9
    assert report["kept"] and report["actions"] == {
        "MOVE_FORWARD": 5,
        "TURN_LEFT": 1,
        "TURN_RIGHT": 2,
        "STOP": 1,
    }
    assert report["drift_m"] < 0.1 and report["dropped"] == 0 and report["blurred"] == 0


def test_import_reports_dropped_and_blurred_frames_and_pauses(bags, tmp_path):
    with BagWriter(tmp_path / "a.mcap") as writer:
        for n in range(200):
            time = n * 10**8
            x = 0.25 * min(n, 40) / 10  # 1 m in 4 s, then stands for 16 s
            writer.write_message("/odom", time, bags.odometry(time, x, 0, 0))
            if n not in (100, 101, 102):
                picture = bags.image(time)
                picture.data[:] = 128
                writer.write_message("/image", time, picture)
    out = TrajectoryWriter(tmp_path / "out", "bag")
    with open_bag(tmp_path / "a.mcap") as bag:
        (report,) = import_drive(bag, out, "hall", lambda rgb: rgb, Topics(), "go on")
    assert (report["dropped"], report["pauses"], report["blurred"]) == (3, 1, report["steps"])


def test_short_drive_is_reported_and_not_kept(bags, tmp_path):
    writer = TrajectoryWriter(tmp_path / "out", "bag")
    with open_bag(bags.write_drive(tmp_path / "a.mcap", [1])) as bag:
        (report,) = import_drive(bag, writer, "hall", lambda rgb: rgb, Topics())
    assert not report["kept"] and not (tmp_path / "out" / "images").exists()


def test_velocity_only_drive_is_cut_like_one_with_odometry(bags, tmp_path):
    twist, vector = bags.types["geometry_msgs/msg/Twist"], bags.types["geometry_msgs/msg/Vector3"]
    with BagWriter(tmp_path / "a.mcap") as writer:
        for n in range(100):
            writer.write_message("/image", n * 10**8, bags.image(n * 10**8, n))
            speed = 0.25 if n % 20 < 10 else 0.0
            writer.write_message(
                "/cmd_vel",
                n * 10**8,
                twist(linear=vector(x=speed, y=0.0, z=0.0), angular=vector(x=0.0, y=0.0, z=0.0)),
            )
    with open_bag(tmp_path / "a.mcap") as bag:
        moments = odometry_moments(bag, Topics(), "go on")
    assert [m.recorded for m in moments] == [Action.MOVE_FORWARD] * 5 + [Action.STOP]

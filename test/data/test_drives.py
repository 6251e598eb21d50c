"""
Which frames of a recorded drive a policy would have decided on, and the import of drives as
training data.
"""

from dataclasses import replace

import numpy as np
import pytest

from janusvln_ros.actions import Action
from janusvln_ros.data.bags import BagWriter, open_bag
from janusvln_ros.data.drive_import import import_drive, nominal_step
from janusvln_ros.data.drives import (
    Moment,
    Topics,
    drive_spans,
    interval_moments,
    moment_frames,
    odometry_moments,
    read_odometry,
    recorded_moments,
)
from janusvln_ros.data.trajectories import TrajectoryWriter, merge, read_trajectories
from janusvln_ros.errors import InputError
from janusvln_ros.geometry import Pose2, compose

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
        commanded=0.25,
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


def test_motion_ends_where_commands_pause_without_a_zero(bags, tmp_path):
    twist, vector = bags.types["geometry_msgs/msg/Twist"], bags.types["geometry_msgs/msg/Vector3"]
    still = vector(x=0.0, y=0.0, z=0.0)
    ahead = twist(linear=vector(x=0.5, y=0.0, z=0.0), angular=still)
    with BagWriter(tmp_path / "a.mcap") as writer:
        for n in range(300):
            writer.write_message("/image", n * 10**8, bags.image(n * 10**8, n))
            # 1 m, silence for 24 s, 1 m
            if n < 20 or 260 <= n < 281:
                writer.write_message("/cmd_vel", n * 10**8, ahead)
    with open_bag(tmp_path / "a.mcap") as bag:
        patient = odometry_moments(bag, Topics(cmd_vel_timeout=1.0), "go on")
        moments = odometry_moments(bag, Topics(), "go on")
    # the base rolls on for half a second or a whole one before it stops by itself
    assert [m.recorded for m in moments] == [Action.MOVE_FORWARD] * 8 + [Action.STOP]
    assert [m.recorded for m in patient] == [Action.MOVE_FORWARD] * 9 + [Action.STOP]


DESCRIPTION = "<robot name='ada'><link name='base_link'/></robot>"


def with_text(bags, path, **texts):
    """A drive without words, with texts on other topics."""
    bags.write_drive(path.with_name("bare.mcap"), ACTIONS, instruction=None)
    with open_bag(path.with_name("bare.mcap")) as bag, BagWriter(path) as writer:
        for topic, text in texts.items():
            message = bags.types["std_msgs/msg/String"](data=text)
            writer.write_message("/" + topic.replace("__", "/"), bag.start, message)
        for message in bag.messages():
            writer.write(message.topic, message.msgtype, message.log_time, message.cdr)
    return path


def test_a_robots_description_is_no_instruction(bags, tmp_path):
    path = with_text(bags, tmp_path / "a.mcap", robot_description=DESCRIPTION, chatter="hello")
    with open_bag(path) as bag, pytest.raises(InputError, match="--instruction") as caught:
        drive_spans(bag, Topics(), None)
    assert "/robot_description (std_msgs/msg/String, 1)" in str(caught.value)
    with open_bag(path) as bag:
        named = drive_spans(bag, Topics(instruction="chatter"), None)
        assert [text for text, _ in named] == ["hello"]


def test_instruction_of_a_namespace_is_one_and_two_are_asked_about(bags, tmp_path):
    path = with_text(
        bags, tmp_path / "a.mcap", robot_description=DESCRIPTION, ada__instruction="go home"
    )
    with open_bag(path) as bag:
        assert [text for text, _ in drive_spans(bag, Topics(), None)] == ["go home"]
    path = with_text(bags, tmp_path / "b.mcap", a__instruction="left", b__instruction="right")
    with open_bag(path) as bag, pytest.raises(InputError, match="/a/instruction, /b/instruction"):
        drive_spans(bag, Topics(), None)


def swapped(source, target, *pairs):
    """The same bag with the frames of each pair recorded in each other's place."""
    with open_bag(source) as bag:
        messages = list(bag.messages())
    images = [i for i, m in enumerate(messages) if m.topic == "/image"]
    for a, b in pairs:
        i, j = images[a], images[b]
        first, second = messages[i], messages[j]
        messages[i] = replace(second, log_time=first.log_time)
        messages[j] = replace(first, log_time=second.log_time)
    with BagWriter(target) as writer:
        for m in messages:
            writer.write(m.topic, m.msgtype, m.log_time, m.cdr)
    return target


def imported(path, out, **options):
    writer = TrajectoryWriter(out, "bag")
    with open_bag(path, options.pop("time", "header")) as bag:
        reports = import_drive(bag, writer, "hall", lambda rgb: rgb, Topics(), **options)
    writer.close()
    merge(out)
    return reports


def test_frames_that_were_recorded_in_each_others_place_are_one_drive(bags, tmp_path):
    bag = bags.write_drive(tmp_path / "a.mcap", ACTIONS)
    late = swapped(bag, tmp_path / "late.mcap", (40, 41), (80, 95), (20, 45))
    (one,), (other,) = imported(bag, tmp_path / "x"), imported(late, tmp_path / "y")
    assert one == other and one["actions"]["STOP"] == 1
    frames = [
        [frame.read_bytes() for frame in next(read_trajectories(tmp_path / out)).frames]
        for out in "xy"
    ]
    assert frames[0] == frames[1]


def test_recorded_frames_are_given_in_the_order_of_their_steps(bags, tmp_path):
    with BagWriter(tmp_path / "a.mcap") as writer:
        for place, n in enumerate((1, 3, 2, 4)):
            writer.write_message("/image", place * 10**8, bags.image(n * 10**8, n))
        for n in (1, 2, 3, 4):
            writer.write_message("/policy/decision", 10**9, bags.decision(n * 10**8, n, 1))
    with open_bag(tmp_path / "a.mcap") as bag:
        frames = [rgb[0, 0, 0] for _, rgb in moment_frames(bag, Topics(), recorded_moments(bag))]
    assert frames == [1, 2, 3, 4]


@pytest.mark.parametrize("back_s", [0.2, 0.9])
def test_odometry_that_comes_late_is_sorted(bags, tmp_path, back_s):
    bag = bags.write_drive(tmp_path / "a.mcap", ACTIONS)
    with open_bag(bag) as source, BagWriter(tmp_path / "b.mcap") as writer:
        messages = list(source.messages())
        late = next(m for m in messages if m.topic == "/odom" and m.log_time > 3 * 10**9)
        for m in messages:
            time = m.log_time + int(back_s * 1e9) if m is late else m.log_time
            writer.write(m.topic, m.msgtype, time, m.cdr)
    (report,) = imported(tmp_path / "b.mcap", tmp_path / "out")
    assert report["kept"] and report["steps"] == len(ACTIONS) + 1


def shifted(bags, path, **offsets):
    """
    A drive whose camera or odometry stamps lie ``offsets`` nanoseconds away from the times of
    recording; None: they are zero.
    """
    stamps, poses = bags.simulate(ACTIONS)
    base = 1_700_000_000 * 10**9

    def at(topic, time):
        offset = offsets.get(topic, base)
        return 0 if offset is None else time + offset

    with BagWriter(path) as writer:
        frames = range(stamps[0], stamps[-1] + 1, 33_333_333)
        for time in sorted({*stamps, *frames}):
            if time in set(stamps):
                pose = poses[stamps.index(time)]
                message = bags.odometry(at("odom", time), *pose)
                writer.write_message("/odom", base + time, message)
            if time in frames:
                writer.write_message("/image", base + time, bags.image(at("image", time), time))
    return path


@pytest.mark.parametrize(
    "offsets",
    [
        {"image": 0},  # camera since boot, base since 1970
        {"odom": 0},
        {"image": None},  # a driver that sets no stamp
        {"odom": None},
        {"image": 1_700_003_600 * 10**9},  # an hour ahead
        {"image": 1_700_000_006 * 10**9},  # six seconds: more than half of the drive
        {"image": 20 * 10**9, "odom": 5_000 * 10**9},
    ],
)
def test_stamps_of_different_clocks_are_told_and_recording_times_are_the_way_out(
    bags, tmp_path, offsets
):
    path = shifted(bags, tmp_path / "a.mcap", **offsets)
    with open_bag(path) as bag, pytest.raises(InputError, match="--time log") as caught:
        odometry_moments(bag, Topics(), "go on")
    assert str(caught.value).count(" from ") == 2 and "/a.mcap" in str(caught.value)
    (report,) = imported(path, tmp_path / "out", instruction="go on", time="log")
    assert report["kept"] and report["steps"] == len(ACTIONS) + 1 and report["drift_m"] < 0.1


@pytest.mark.parametrize(
    "offsets",
    [{"image": 0, "odom": 0}, {"image": 1_700_000_000 * 10**9 - 10**8}],
    ids=["simulated stamps, recorded by the wall's clock", "a camera's latency"],
)
def test_stamps_of_one_clock_are_taken_whatever_the_times_of_recording(bags, tmp_path, offsets):
    path = shifted(bags, tmp_path / "a.mcap", **offsets)
    (report,) = imported(path, tmp_path / "out", instruction="go on")
    assert report["kept"] and report["steps"] == len(ACTIONS) + 1


def test_commands_without_stamps_beside_simulated_frames_ask_for_recording_times(bags, tmp_path):
    twist, vector = bags.types["geometry_msgs/msg/Twist"], bags.types["geometry_msgs/msg/Vector3"]
    still = vector(x=0.0, y=0.0, z=0.0)
    base = 1_700_000_000 * 10**9
    with BagWriter(tmp_path / "a.mcap") as writer:
        for n in range(1, 101):
            writer.write_message("/image", base + n * 10**8, bags.image(n * 10**8, n))
            ahead = twist(linear=vector(x=0.25, y=0.0, z=0.0), angular=still)
            writer.write_message("/cmd_vel", base + n * 10**8, ahead)
    with open_bag(tmp_path / "a.mcap") as bag, pytest.raises(InputError, match="--time log"):
        odometry_moments(bag, Topics(), "go on")
    (report,) = imported(tmp_path / "a.mcap", tmp_path / "o", instruction="go on", time="log")
    assert report["actions"]["MOVE_FORWARD"] == 9


def lockstep(bags, path, actions, blocked=(), episodes=1, executed=True):
    """A drive by the policy as it is recorded in lockstep: no words on a topic of their own."""
    with BagWriter(path) as writer:
        time = 10**9
        for episode in range(1, episodes + 1):
            pose = Pose2(3.0 * episode, 1.0, 0.5)
            for step, action in enumerate(actions):
                writer.write_message("/image", time, bags.image(time, step))
                writer.write_message("/odom", time, bags.odometry(time, *pose))
                decision = bags.decision(time, step, action, episode, f"way {episode}")
                decision.executed = executed
                writer.write_message("/policy/decision", time + 1, decision)
                moved = nominal_step(Action(action))
                if step in blocked:
                    moved = Pose2(0.03, 0.11, 0.0)  # along the wall
                frame, pose, time = time, compose(pose, moved), time + 10**9
                told = report(bags, time, step, action)
                told.episode_id, told.frame_stamp = episode, bags.stamp(frame)
                # a simulator may slide a step along a wall and call it no collision
                told.collided = step in blocked[:1]
                told.status = int(told.collided)
                told.pose_change = bags.odometry(0, *moved).pose.pose
                writer.write_message("/motion/step_report", time + 2, told)
    return path


def test_own_drive_is_imported_as_it_was_decided(bags, tmp_path):
    bag = lockstep(bags, tmp_path / "a.mcap", [*ACTIONS, 0], blocked=(1, 4), episodes=2)
    reports = imported(bag, tmp_path / "out")
    assert [r["instruction"] for r in reports] == ["way 1", "way 2"]
    assert all(r["kept"] and r["drift_m"] < 0.01 and r["steps"] == 9 for r in reports)
    for trajectory in read_trajectories(tmp_path / "out"):
        assert trajectory.actions == (-1, *ACTIONS) and trajectory.targets == (*ACTIONS, 0)


def test_own_drive_that_was_broken_off_keeps_its_last_decision(bags, tmp_path):
    bag = lockstep(bags, tmp_path / "a.mcap", ACTIONS)
    (one,) = imported(bag, tmp_path / "out", instruction="another way")
    (trajectory,) = read_trajectories(tmp_path / "out")
    assert trajectory.targets == tuple(ACTIONS) and trajectory.instruction == "another way"
    assert one["drift_m"] < 0.01 and one["steps"] == len(ACTIONS)


def test_decisions_that_were_only_watched_do_not_say_what_was_driven(bags, tmp_path):
    drive = bags.write_drive(tmp_path / "hand.mcap", ACTIONS)
    with open_bag(drive) as bag, BagWriter(tmp_path / "a.mcap") as writer:
        for m in bag.messages():
            writer.write(m.topic, m.msgtype, m.log_time, m.cdr)
        watched = bags.decision(2 * 10**9, 0, 3)
        watched.executed = False
        writer.write_message("/policy/decision", 2 * 10**9, watched)
    (one,) = imported(tmp_path / "a.mcap", tmp_path / "out")
    assert one["steps"] == len(ACTIONS) + 1 and one["actions"]["MOVE_FORWARD"] == 5


def test_missing_frames_of_an_own_drive_are_told_and_not_kept(bags, tmp_path):
    whole = lockstep(bags, tmp_path / "a.mcap", [*ACTIONS, 0])
    with open_bag(whole) as bag, BagWriter(tmp_path / "b.mcap") as writer:
        for m in bag.messages():
            if m.topic != "/image" or m.log_time != 4 * 10**9:
                writer.write(m.topic, m.msgtype, m.log_time, m.cdr)
    (one,) = imported(tmp_path / "b.mcap", tmp_path / "out")
    assert not one["kept"] and one["not_kept"] == "1 of its frames are not in the bag"


def test_drive_whose_steps_end_elsewhere_is_not_kept(bags, tmp_path):
    with BagWriter(tmp_path / "a.mcap") as writer:
        for n in range(1, 200):
            # sideways: no step of the four says so
            pose = (0.02 * n, 0.02 * n, 0.0)
            writer.write_message("/odom", n * 10**8, bags.odometry(n * 10**8, *pose))
            writer.write_message("/image", n * 10**8, bags.image(n * 10**8, n))
    (one,) = imported(tmp_path / "a.mcap", tmp_path / "x", instruction="go on")
    assert not one["kept"] and one["drift_m"] > 3 and "--max-drift" in one["not_kept"]
    (one,) = imported(tmp_path / "a.mcap", tmp_path / "y", instruction="go on", max_drift=9.0)
    assert one["kept"]


def test_long_drive_by_hand_is_within_the_limit(bags, tmp_path):
    actions = [int(a) for a in np.random.default_rng(3).choice([1, 1, 1, 1, 2, 3], 60)]
    bag = bags.write_drive(tmp_path / "a.mcap", actions, error=0.02)
    (one,) = imported(bag, tmp_path / "out")
    assert one["kept"] and one["steps"] > 55, one

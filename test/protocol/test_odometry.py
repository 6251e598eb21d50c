"""Odometry messages as samples, and the pose at a stamp between two of them."""

import math
import random
from types import SimpleNamespace

import pytest

from janusvln_ros.errors import InputError
from janusvln_ros.geometry import Pose2, wrap
from janusvln_ros.protocol.odometry import (
    TRACK,
    Sample,
    extended,
    finite,
    sample_at,
    sample_of,
    velocity_at,
)

S = 1_000_000_000


def message(x=0.0, quaternion=(0.0, 0.0, 0.0, 1.0), speed=0.0, rate=0.0, covariance=0.0):
    """A ``nav_msgs/Odometry`` as nodes and bags hand it over."""
    place = SimpleNamespace(x=x, y=0.0, z=0.0)
    orientation = SimpleNamespace(**dict(zip("xyzw", quaternion)))
    linear, angular = SimpleNamespace(x=speed, y=0.0), SimpleNamespace(z=rate)
    return SimpleNamespace(
        header=SimpleNamespace(stamp=SimpleNamespace(sec=1, nanosec=5)),
        pose=SimpleNamespace(pose=SimpleNamespace(position=place, orientation=orientation)),
        twist=SimpleNamespace(
            twist=SimpleNamespace(linear=linear, angular=angular), covariance=[covariance] * 36
        ),
    )


def test_a_message_becomes_a_sample():
    sample = sample_of(message(2.0, speed=-0.3, rate=0.5))
    assert sample == Sample(S + 5, Pose2(2.0, 0.0, 0.0), -0.3, 0.5) and finite(sample)


@pytest.mark.parametrize("length", [0.01, 0.5, 2.0, 100.0])
def test_a_quaternion_of_any_length_but_zero_keeps_its_heading(length):
    half = math.radians(50)
    turned = (0.0, 0.0, length * math.sin(half), length * math.cos(half))
    assert sample_of(message(quaternion=turned)).pose.yaw == pytest.approx(2 * half)


def test_a_quaternion_of_zeros_is_refused_by_name():
    with pytest.raises(InputError, match="orientation is a quaternion of zeros"):
        sample_of(message(quaternion=(0.0,) * 4))


@pytest.mark.parametrize(
    "fields", [{"x": math.nan}, {"speed": math.inf}, {"quaternion": (0.0, 0.0, math.nan, 1.0)}]
)
def test_a_message_with_numbers_that_are_none_is_refused_by_name(fields):
    with pytest.raises(InputError, match="odometry is not a number"):
        sample_of(message(**fields))


def drive(speeds, *, twist=lambda v: v, period=0.02, jitter=0.0, seed=0):
    """A track of a base that drives straight with ``speeds``, and reports ``twist`` of them."""
    dice, x, track = random.Random(seed), 0.0, ()
    for i, v in enumerate(speeds):
        x += v * period
        pose = Pose2(x + dice.gauss(0, jitter), dice.gauss(0, jitter), dice.gauss(0, jitter))
        track = extended(track, Sample(round((i + 1) * period * S), pose, twist(v)))
    return track


def newest(track):
    return velocity_at(track, track[-1].stamp)


CRUISE = [0.3] * 40
BRAKED = [*CRUISE, 0.25, 0.2, 0.15, 0.1, 0.05, *[0.0] * 5]


def test_the_twist_of_an_honest_base_is_believed_at_once_also_while_it_brakes():
    assert newest(drive(CRUISE)) == (0.3, 0.0)
    for end in range(40, len(BRAKED) + 1):
        assert newest(drive(BRAKED[:end]))[0] == BRAKED[end - 1]


@pytest.mark.parametrize(
    "twist",
    [lambda v: 0.0, lambda v: 0.3 * v, lambda v: 10 * v, lambda v: 0.5],
    ids=["always zero", "too small", "too large", "stuck"],
)
def test_a_twist_that_the_poses_contradict_is_not_believed(twist):
    assert newest(drive(CRUISE, twist=twist))[0] == pytest.approx(0.3, abs=1e-6)
    assert newest(drive([*CRUISE, *[0.0] * 20], twist=twist))[0] == pytest.approx(0, abs=0.01)


def test_a_base_that_goes_backwards_has_a_negative_speed():
    assert newest(drive([-0.3] * 40, twist=lambda v: 0.0))[0] == pytest.approx(-0.3, abs=1e-6)


def test_a_turn_that_the_twist_does_not_tell_of_is_seen_across_the_wrap_of_the_angle():
    poses = [wrap(3.0 + 0.5 * 0.02 * i) for i in range(40)]
    track = tuple(Sample(i * S // 50, Pose2(0, 0, yaw)) for i, yaw in enumerate(poses))
    assert newest(track) == (0.0, pytest.approx(0.5))


@pytest.mark.parametrize("seed", range(20))
def test_a_jitter_of_two_millimetres_is_no_motion(seed):
    speed, rate = newest(drive([0.0] * 40, jitter=0.002, seed=seed))
    assert abs(speed) < 0.02 and abs(rate) < 0.05


@pytest.mark.parametrize("rate", [4, 5, 10, 30, 100])
def test_odometry_of_any_usual_rate_tells_a_velocity(rate):
    track = drive([0.2] * 2 * rate, twist=lambda v: 0.0, period=1 / rate)
    assert newest(track)[0] == pytest.approx(0.2, abs=1e-6)


def test_too_short_a_track_tells_no_velocity():
    track = drive([0.0] * 40)
    assert velocity_at(track[:5], track[4].stamp) is None
    assert velocity_at(track, track[-1].stamp + 1) is None and velocity_at((), 0) is None


def test_a_twist_that_is_not_measured_is_not_taken_for_standing_still():
    assert sample_of(message(speed=0.3, rate=0.1, covariance=-1.0))[2:] == (0.0, 0.0)


def test_a_pose_is_interpolated_across_the_wrap():
    track = (Sample(0, Pose2(0, 0, 3.1), 0.0), Sample(10, Pose2(1, 0, -3.1), 0.4))
    middle = sample_at(track, 5)
    assert middle.pose.x == 0.5 and middle.speed == 0.2
    assert abs(middle.pose.yaw) == pytest.approx(math.pi, abs=0.01)
    assert sample_at(track, 10).pose.x == 1
    assert sample_at(track, 11) is None and sample_at(track, -1) is None
    assert sample_at((), 0) is None


def test_a_track_starts_anew_when_time_jumps_back_and_is_bounded():
    track = extended((Sample(0, Pose2()), Sample(10, Pose2())), Sample(3, Pose2(1.0)))
    assert track == (Sample(3, Pose2(1.0)),)
    for stamp in range(4, 3 * TRACK):
        track = extended(track, Sample(stamp, Pose2()))
    assert len(track) == TRACK and track[-1].stamp == 3 * TRACK - 1

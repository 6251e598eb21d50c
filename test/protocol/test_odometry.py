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


def message(
    x=0.0, quaternion=(0.0, 0.0, 0.0, 1.0), speed=0.0, rate=0.0, covariance=0.0, y=0.0, aside=0.0
):
    """A ``nav_msgs/Odometry`` as nodes and bags hand it over."""
    place = SimpleNamespace(x=x, y=y, z=0.0)
    orientation = SimpleNamespace(**dict(zip("xyzw", quaternion)))
    linear, angular = SimpleNamespace(x=speed, y=aside), SimpleNamespace(z=rate)
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
    "fields",
    [
        {"x": math.nan},
        {"y": -math.inf},
        {"speed": math.inf},
        {"aside": math.nan},
        {"rate": math.nan},
        {"quaternion": (0.0, 0.0, math.nan, 1.0)},
    ],
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


def test_a_base_that_goes_aside_is_as_fast_as_both_ways_together():
    assert sample_of(message(speed=0.3, aside=0.4)).speed == pytest.approx(0.5)
    assert sample_of(message(speed=-0.3, aside=0.4)).speed == pytest.approx(-0.5)


@pytest.mark.parametrize("covariance", [[], [0.5, -1.0], [1.0], [-2.0]])
def test_only_a_covariance_that_begins_with_minus_one_says_that_nothing_was_measured(covariance):
    told = message(speed=0.3, rate=0.1)
    told.twist.covariance = covariance
    assert sample_of(told)[2:] == (0.3, 0.1)


@pytest.mark.parametrize("none", [math.nan, math.inf])
@pytest.mark.parametrize("place", range(5))
def test_a_sample_is_finite_where_each_number_is(none, place):
    values = [0.0] * 5
    assert finite(Sample(S, Pose2(*values[:3]), *values[3:]))
    values[place] = none
    assert not finite(Sample(S, Pose2(*values[:3]), *values[3:]))


def test_a_stamp_that_stands_still_starts_the_track_anew_and_one_nanosecond_more_does_not():
    track = (Sample(0, Pose2()), Sample(10, Pose2()))
    assert extended(track, Sample(10, Pose2(1.0))) == (Sample(10, Pose2(1.0)),)
    assert len(extended(track, Sample(11, Pose2(1.0)))) == 3


def test_a_track_holds_two_hundred_samples():
    track = ()
    for stamp in range(300):
        track = extended(track, Sample(stamp, Pose2()))
        assert len(track) == min(stamp + 1, 200)


PAIR = (
    Sample(100, Pose2(1.0, 2.0, 3.0), 0.5, 0.25),
    Sample(200, Pose2(2.0, 4.0, -3.0), 1.0, -0.25),
    Sample(300, Pose2(8.0, 8.0, 0.0), 8.0, 8.0),
)


def test_every_number_of_a_sample_is_interpolated():
    middle = sample_at(PAIR, 125)
    assert middle[:1] + middle[2:] == (125, 0.625, 0.125) and middle.pose[:2] == (1.25, 2.5)
    assert middle.pose.yaw == pytest.approx(3.0 + 0.25 * (math.tau - 6.0))


def test_a_message_at_the_very_stamp_is_the_sample_from_the_first_to_the_last():
    for sample in PAIR:
        assert sample_at(PAIR, sample.stamp) is sample
    assert sample_at(PAIR, 99) is None and sample_at(PAIR, 301) is None


def way(poses, period=S // 50, at=S, **twist):
    """A track of ``poses`` (x, y, yaw) with one twist."""
    return tuple(Sample(at + i * period, Pose2(*p), **twist) for i, p in enumerate(poses))


@pytest.mark.parametrize("heading", [0.5, 2.0, -2.5, -1.0])
@pytest.mark.parametrize("speed", [0.3, -0.3])
def test_speed_is_that_of_the_poses_and_its_sign_that_of_the_heading(heading, speed):
    far = [0.02 * speed * i for i in range(30)]
    poses = [(d * math.cos(heading), d * math.sin(heading), heading) for d in far]
    assert newest(way(poses)) == pytest.approx((speed, 0.0))


def test_a_base_that_turned_before_it_drove_drives_forward_by_its_heading_of_then():
    turned = [(0.0, 0.0, 2.0)] * 6 + [(0.02 * i, 0.0, 0.0) for i in range(10)]
    assert newest(way(turned))[0] > 0.1


@pytest.mark.parametrize("rate", [0.5, -0.5, 3.0])
def test_a_rate_that_the_twist_does_not_tell_of_is_that_of_the_headings(rate):
    assert newest(way([(0, 0, wrap(3.0 + 0.02 * rate * i)) for i in range(30)]))[1] == (
        pytest.approx(rate)
    )


def test_poses_far_from_the_origin_and_stamps_of_today_lose_no_precision():
    period = 20_000_123
    poses = [(5e4 + 0.3e-9 * period * i, -5e4, 0.0) for i in range(20)]
    told = newest(way(poses, period, at=1_700_000_000 * S + 7))
    assert told[0] == pytest.approx(0.3, abs=1e-9)


@pytest.mark.parametrize(("age", "seen"), [(300_000_000, True), (300_000_001, False)])
def test_the_window_is_three_tenths_of_a_second_long(age, seen):
    track = tuple(Sample(S - ago, Pose2(float(ago == age))) for ago in (age, 200_000_000, 0))
    assert (newest(track)[0] != 0) == seen


@pytest.mark.parametrize(("span", "told"), [(150_000_000, True), (149_999_999, False)])
@pytest.mark.parametrize("between", [(), (70_000_000, 140_000_000)])
def test_half_a_window_of_messages_tells_a_velocity_and_less_does_not(span, told, between):
    track = tuple(Sample(S + after, Pose2()) for after in (0, *between, span))
    assert newest(track) == ((0.0, 0.0) if told else None)


def test_between_two_messages_that_are_far_apart_there_is_no_velocity():
    assert velocity_at((Sample(0, Pose2()), Sample(S, Pose2())), S // 2) is None


def two(far=0.0, turned=0.0, speed=0.0, rate=0.0):
    """A quarter of a second in which the poses show ``far`` m/s and ``turned`` rad/s."""
    pose = Pose2(far / 4, 0.0, turned / 4)
    return newest((Sample(0, Pose2(), speed, rate), Sample(S // 4, pose, speed, rate)))


@pytest.mark.parametrize("sign", [1, -1])
def test_a_twist_of_a_standing_base_is_believed_up_to_the_noise_of_poses(sign):
    assert two(speed=sign * 0.015, rate=sign * 0.04) == (sign * 0.015, sign * 0.04)
    assert two(speed=sign * 0.0151) == (0.0, 0.0) == two(rate=sign * 0.0401)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_twist_is_believed_within_a_quarter_of_the_faster(sign):
    for believed in (0.76, 1.32):
        told = two(sign * 1.0, sign * 1.0, sign * believed, sign * believed)
        assert told == (sign * believed, sign * believed)
    for other in (0.74, 1.35):
        told = two(sign * 1.0, sign * 1.0, sign * other, sign * other)
        assert told == pytest.approx((sign * 1.0, sign * 1.0))


def test_a_rate_of_the_other_sign_is_not_believed_and_a_speed_of_the_other_sign_is():
    # which way is forward is the twist's to say: bases differ, and the ledger knows no sign
    assert two(turned=0.5, rate=-0.5)[1] == pytest.approx(0.5)
    assert two(far=0.5, speed=-0.5)[0] == -0.5

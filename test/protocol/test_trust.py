"""What odometry and range data cannot say: the limits of each, exactly."""

import math

import pytest

from janusvln_ros.geometry import Pose2
from janusvln_ros.protocol.odometry import Sample
from janusvln_ros.protocol.profile import Profile
from janusvln_ros.protocol.trust import NOTHING, STEP_SEEN, astray, jumped, met_something, misdated

S = 10**9
SHAPE = Profile(speed=0.5, rate=1.0)
FORWARD, TURN = (0.25, 0.0), (0.0, 0.25)


# Stamps


@pytest.mark.parametrize(
    ("behind", "words"),
    [
        (S // 2, None),
        (S // 2 + 1, "scan is 0.50 s old by its stamps (input_max_age 0.5)"),
        (-S // 4, None),
        (-S // 4 - 1, "scan's stamps lie 0.25 s in the future (future_tolerance 0.25)"),
        (99_999 * S, "scan is 99999.00 s old"),
        (100_000 * S, "scan is 1e+05 s old"),
        (1_700_000_000 * S, "scan is 1.7e+09 s old"),
        (-100_000 * S, "lie 1e+05 s in the future"),
    ],
)
def test_a_stamp_is_of_now_up_to_its_limits_and_the_sentence_names_both(behind, words):
    told = misdated("scan", 10**18, 10**18 + behind, 0.5, 0.25)
    assert told is None if words is None else words in told


# Jumps


def moved(track, after_ns, x=0.0, y=0.0, yaw=0.0, arrived=0.0, slack=0.125):
    sample = Sample(track[-1].stamp + after_ns, Pose2(x, y, yaw))
    return jumped(track, sample, arrived, slack, SHAPE)


HERE = (Sample(10 * S, Pose2()),)


@pytest.mark.parametrize("way", [(1, 0), (0, 1), (-1, 0), (0, -1)])
@pytest.mark.parametrize("arrived", [0.0, 0.25])  # the longer of both times counts
def test_a_base_may_go_half_as_fast_again_as_it_is_told_and_no_more(way, arrived):
    gap = max(arrived, 0.125)
    far = 0.125 + 1.5 * gap * 0.5
    assert moved(HERE, S // 8, way[0] * far, way[1] * far, arrived=arrived) is None
    beyond = far + 1e-6
    origin, why = moved(HERE, S // 8, way[0] * beyond, way[1] * beyond, arrived=arrived)
    assert origin is HERE[0] and f"jumped by {far:.2f} m" in why


@pytest.mark.parametrize("side", [1, -1])
def test_a_heading_may_turn_ten_degrees_at_any_rate_and_half_as_fast_again_as_it_is_told(side):
    most = math.radians(10) + 1.5 * 0.125
    assert moved(HERE, S // 8, yaw=side * (most - 1e-9)) is None
    _, why = moved(HERE, S // 8, yaw=side * (most + 1e-9))
    assert "heading jumped by 21 degrees" in why


def test_exactly_ten_degrees_from_one_message_to_the_next_are_no_jump():
    assert moved(HERE, 0, yaw=math.radians(10)) is None


def test_a_slow_jump_is_told_from_the_message_a_quarter_of_a_second_before():
    def track(first):
        return (Sample(first, Pose2()), Sample(10 * S, Pose2(0.4)))

    assert jumped(track(10 * S - S // 4), Sample(10 * S, Pose2(0.4)), 0.0, 0.125, SHAPE)
    assert (
        jumped(track(10 * S - S // 4 - 1), Sample(10 * S, Pose2(0.4)), 0.0, 0.125, SHAPE) is None
    )


def test_a_jump_from_the_last_message_is_told_though_the_older_one_allows_it():
    track = (Sample(10 * S - S // 4, Pose2(0.3)), Sample(10 * S - S // 50, Pose2(0.0)))
    origin, _ = jumped(track, Sample(10 * S, Pose2(0.3)), 0.0, 0.125, SHAPE)
    assert origin is track[1]


def test_a_base_far_from_the_origin_of_odometry_jumps_no_more_than_at_it():
    turned = (Sample(10 * S, Pose2(5.0, -7.0, 1.5)),)
    assert moved(turned, S // 8, 5.01, -7.01, 1.51) is None
    there = (Sample(10 * S, Pose2(5.0, -7.0, 3.0)),)
    assert moved(there, S // 8, 5.01, -7.01, -3.2) is None  # across the wrap
    assert moved(there, S // 8, 5.01, 7.01, 3.01) and moved(
        there, S // 8, 5.01, -7.01, -3.01 + 0.9
    )


def test_a_heading_just_at_its_limit_is_no_jump():
    shape = Profile(speed=0.5, rate=(1.0 - math.radians(10)) / 3)
    assert jumped(HERE, Sample(12 * S, Pose2(0, 0, 1.0)), 2.0, 0.125, shape) is None
    assert jumped(HERE, Sample(12 * S, Pose2(0, 0, 1.0 + 1e-9)), 2.0, 0.125, shape)


def test_a_message_that_lied_between_two_that_agree_is_not_held_against_the_next():
    lied = (Sample(9_800_000_000, Pose2()), Sample(9_900_000_000, Pose2(0.9)), HERE[0])
    assert moved(lied, S // 50) is None


def test_without_a_message_before_there_is_no_jump():
    assert jumped((), Sample(S, Pose2(9, 9, 3)), 0.0, 0.0, SHAPE) is None


# Ways that were not asked for


def test_a_turn_may_leave_its_place_by_the_drift_and_no_more():
    assert astray(Pose2(0.3, 0.4, 0), TURN, 0.5) is None
    assert "went 0.50 m from its place (drift 0.49)" in astray(Pose2(0.3, 0.4, 0), TURN, 0.49)
    assert astray(Pose2(0, 0, 3.0), TURN, 0.5) is None  # how far it turned is not said here


@pytest.mark.parametrize("side", [1, -1])
def test_a_step_forward_may_leave_its_line_by_the_drift_and_no_more(side):
    assert astray(Pose2(0, side * 0.5, 0), FORWARD, 0.5) is None
    assert "went 0.51 m sideways" in astray(Pose2(0, side * 0.51, 0), FORWARD, 0.5)


def test_a_step_forward_may_go_back_by_the_drift_and_forward_as_far_as_it_likes():
    assert astray(Pose2(-0.5), FORWARD, 0.5) is None and astray(Pose2(9.0), FORWARD, 0.5) is None
    assert "went 0.51 m backwards" in astray(Pose2(-0.51), FORWARD, 0.5)


@pytest.mark.parametrize("side", [1, -1])
def test_a_step_forward_may_turn_by_25_degrees_and_no_more(side):
    assert astray(Pose2(0, 0, side * math.radians(25)), FORWARD, 0.5) is None
    told = astray(Pose2(0, 0, side * (math.radians(25) + 1e-6)), FORWARD, 0.5)
    assert "turned by 25 degrees" in told


# Walls


def test_what_is_nothing_and_what_is_a_step_of_the_wheels_are_known():
    assert pytest.approx((0.015, math.radians(1.5))) == NOTHING
    assert pytest.approx((0.009, math.radians(0.5))) == STEP_SEEN


def test_a_base_stands_before_something_once_a_tenth_of_its_budget_was_in_vain():
    assert not met_something(0.1, 0.0, 0.0, 1.0) and met_something(0.101, 0.0, 0.0, 1.0)
    assert met_something(0.25 + 0.11, 0.25, 0.25, 1.0)
    assert not met_something(0.25 + 0.11, 0.25, 0.25, 2.0)


def test_odometry_agrees_with_the_commands_from_half_of_them_on():
    assert met_something(1.0, 0.25, 0.5, 1.0) and met_something(1.0, 0.5, 0.5, 1.0)
    assert not met_something(1.0, 0.24, 0.5, 1.0) and not met_something(1.0, -0.5, 0.5, 1.0)

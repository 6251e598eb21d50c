"""How one step moves: speeds, what counts as done, and the last gate before the wheels."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from janusvln_ros.actions import Action
from janusvln_ros.geometry import Pose2
from janusvln_ros.protocol.profile import (
    Profile,
    profile,
    safe_velocity,
    share_done,
    short_of,
    stepped,
    target,
    velocity,
)

SHAPE = Profile(
    speed=0.5,
    acceleration=1.0,
    rate=1.0,
    rate_acceleration=2.0,
    crawl_speed=0.0625,
    crawl_rate=0.125,
    heading_gain=2.0,
    tolerance=1 / 64,
    turn_tolerance=1 / 32,
)
"""Numbers that floats have exactly, so that "just there" is a place."""
STILL = (0.0, 0.0)
FORWARD, LEFT, RIGHT = (0.25, 0.0), (0.0, 0.25), (0.0, -0.25)


def test_profile_speeds_up_cruises_and_brakes():
    assert profile(1.0, 0.0, 0.3, 0.5, 0.1, 0.03) == pytest.approx(0.05)
    assert profile(1.0, 0.3, 0.3, 0.5, 0.1, 0.03) == 0.3
    assert profile(0.01, 0.3, 0.3, 0.5, 0.1, 0.03) == pytest.approx(0.1)
    assert profile(1e-6, 0.3, 0.3, 0.5, 0.1, 0.03) == 0.03
    assert (
        profile(0.0, 0.3, 0.3, 0.5, 0.1, 0.03)
        == profile(-1.0, 0.3, 0.3, 0.5, 0.1, 0.03)
        == profile(math.nan, 0.3, 0.3, 0.5, 0.1, 0.03)
        == 0.0
    )


def test_a_base_that_may_not_go_as_fast_as_it_crawls_goes_as_fast_as_it_may():
    assert profile(1e-6, 0.3, 0.02, 0.5, 0.1, 0.03) == 0.02


def test_the_last_gate_lets_no_number_through_that_is_none():
    shape = Profile(speed=0.3, rate=0.8)
    assert safe_velocity(math.nan, 0.1, shape) == safe_velocity(0.1, math.inf, shape) == STILL
    assert safe_velocity(9.0, -9.0, shape) == (0.3, -0.8)
    assert safe_velocity(-9.0, 9.0, shape) == (-0.3, 0.8)
    assert safe_velocity(-0.1, -0.2, shape) == (-0.1, -0.2)


def test_actions_ask_for_a_way_forward_or_a_turn_to_the_left():
    assert target(Action.MOVE_FORWARD, 0.25, 0.2) == (0.25, 0.0)
    assert target(Action.TURN_LEFT, 0.25, 0.2) == (0.0, 0.2)
    assert target(Action.TURN_RIGHT, 0.25, 0.2) == (0.0, -0.2)
    assert target(Action.STOP, 0.25, 0.2) == STILL


def drive(moved, goal, last=STILL, travelled=STILL, clearance=math.inf, dt=0.125):
    return velocity(moved, goal, last, dt, travelled, clearance, SHAPE)


@pytest.mark.parametrize(("goal", "sign"), [(LEFT, 1), (RIGHT, -1)])
def test_a_turn_speeds_up_brakes_and_turns_back_only_beyond_its_tolerance(goal, sign):
    def turn(degree, **given):
        return drive(Pose2(0, 0, sign * degree), goal, **given)

    assert turn(0.0) == (0.0, sign * 0.25)  # 2 rad/s^2 for an eighth of a second
    assert turn(0.0, last=(0.0, sign * 0.25)) == (0.0, sign * 0.5)
    assert turn(0.0, last=(9.0, sign * 9.0)) == (0.0, sign * 1.0)
    assert turn(0.21875, last=(0.0, 9.0)) == (0.0, sign * math.sqrt(4 * 0.03125))
    assert turn(0.25 - 1e-6, last=(0.0, 9.0)) == (0.0, sign * 0.125)
    assert turn(0.25 + 1 / 32) == (0.0, 0.0)
    assert turn(0.25 + 1 / 32 + 1e-6) == (0.0, -sign * 0.125)


@pytest.mark.parametrize(("goal", "sign"), [(LEFT, 1), (RIGHT, -1)])
def test_a_turn_counts_what_odometry_cannot_show_yet(goal, sign):
    assert drive(Pose2(), goal, travelled=(9.0, sign * 0.25)) == (0.0, 0.0)
    seen = drive(Pose2(0, 0, sign * 0.125), goal, (0, 9), travelled=(9.0, sign * 0.09375))
    assert seen == (0.0, sign * math.sqrt(4 * 0.03125))


def test_a_step_forward_speeds_up_brakes_and_never_goes_back():
    assert drive(Pose2(), FORWARD) == (0.125, 0.0)
    assert drive(Pose2(), FORWARD, last=(0.25, 9.0)) == (0.375, 0.0)
    assert drive(Pose2(), FORWARD, last=(9.0, 0.0)) == (0.5, 0.0)
    assert drive(Pose2(0.21875), FORWARD, last=(9.0, 0.0)) == (0.25, 0.0)
    assert drive(Pose2(0.25 - 1e-6), FORWARD, last=(9.0, 0.0)) == (0.0625, 0.0)
    assert drive(Pose2(0.25), FORWARD) == drive(Pose2(9.0), FORWARD) == (0.0, 0.0)


def test_a_step_forward_counts_what_odometry_cannot_show_yet():
    assert drive(Pose2(0.125), FORWARD, (9, 0), travelled=(0.09375, 0.0)) == (0.25, 0.0)
    assert drive(Pose2(), FORWARD, travelled=(0.25, 9.0)) == (0.0, 0.0)


def test_a_step_forward_goes_no_farther_than_the_way_is_clear():
    assert drive(Pose2(), FORWARD, (9, 0), clearance=0.03125) == (0.25, 0.0)
    assert drive(Pose2(0.21875), FORWARD, (9, 0), clearance=5.0) == (0.25, 0.0)
    assert drive(Pose2(), FORWARD, clearance=0.0) == drive(Pose2(), FORWARD, clearance=-1.0)
    assert drive(Pose2(), FORWARD, clearance=0.0) == (0.0, 0.0)


def test_a_step_forward_steers_back_to_its_line_and_heading_with_half_the_rate_at_most():
    assert drive(Pose2(0, 0, 0.0625), FORWARD)[1] == -0.125
    assert drive(Pose2(0, 0, 0.0625), FORWARD, travelled=(0.0, 0.03125))[1] == -0.1875
    assert drive(Pose2(0, 0.03125, 0), FORWARD)[1] == -0.125
    assert drive(Pose2(0, -0.03125, 0.0625), FORWARD)[1] == 0.0
    assert drive(Pose2(0, 0, 1.0), FORWARD)[1] == -0.5
    assert drive(Pose2(0, 0, -1.0), FORWARD)[1] == 0.5
    assert drive(Pose2(0.25, 0, 1.0), FORWARD) == (0.0, 0.0)  # nor does it turn on the spot


@settings(deadline=None, derandomize=True, database=None)
@given(
    x=st.floats(-1, 1),
    yaw=st.floats(-1, 1),
    last=st.floats(-2, 2),
    clear=st.floats(-1, 5),
    goal=st.sampled_from([FORWARD, LEFT, RIGHT]),
)
def test_no_velocity_is_beyond_its_limits_or_backwards(x, yaw, last, clear, goal):
    speed, rate = drive(Pose2(x, 0.0, yaw), goal, (last, last), clearance=clear)
    assert 0 <= speed <= 0.5 and abs(rate) <= 1.0
    assert speed == 0 or not goal[1]


@pytest.mark.parametrize(
    ("goal", "yaw", "short"),
    [
        (LEFT, 0.25, 0),
        (LEFT, 0.25 - 1 / 32, 0),
        (LEFT, 0.25 + 1 / 32, 0),
        (LEFT, 0.125, 0.125 - 1 / 32),
        (LEFT, 0.375, 0.125 - 1 / 32),
        (RIGHT, -0.125, 0.125 - 1 / 32),
        (RIGHT, -0.25, 0),
    ],
)
def test_a_turn_is_short_of_its_tolerance_on_either_side(goal, yaw, short):
    assert short_of(Pose2(0, 0, yaw), goal, SHAPE) == short


@pytest.mark.parametrize(
    ("x", "short"), [(0.0, 0.25 - 1 / 64), (0.125, 0.125 - 1 / 64), (0.25 - 1 / 64, 0), (9.0, 0)]
)
def test_a_step_forward_is_short_of_its_tolerance_and_too_far_is_not_undone(x, short):
    assert short_of(Pose2(x), FORWARD, SHAPE) == short


def test_a_base_that_steps_by_itself_may_be_short_by_three_tolerances():
    assert stepped(Pose2(0.25 - 3 / 64), FORWARD, SHAPE) and stepped(Pose2(9.0), FORWARD, SHAPE)
    assert not stepped(Pose2(0.25 - 3 / 64 - 1e-6), FORWARD, SHAPE)
    for goal, sign in ((LEFT, 1), (RIGHT, -1)):
        assert stepped(Pose2(0, 0, sign * (0.25 - 3 / 32)), goal, SHAPE)
        assert stepped(Pose2(0, 0, sign * 1.0), goal, SHAPE)
        assert not stepped(Pose2(0, 0, sign * (0.25 - 3 / 32 - 1e-6)), goal, SHAPE)


def test_progress_is_the_share_of_the_way_within_zero_and_one():
    assert share_done(Pose2(0.125, 9.0, 9.0), FORWARD) == 0.5
    assert share_done(Pose2(9.0, 9.0, -0.0625), RIGHT) == 0.25
    assert share_done(Pose2(0.0, 0.0, 0.1875), LEFT) == 0.75
    assert share_done(Pose2(1.0), FORWARD) == share_done(Pose2(0, 0, 1.0), LEFT) == 1.0
    assert share_done(Pose2(-1.0), FORWARD) == share_done(Pose2(0, 0, 1.0), RIGHT) == 0.0
    assert share_done(Pose2(), STILL) == 1.0  # a stop has nothing to do


def test_what_a_base_crawls_at_is_asked_of_it_until_the_very_end():
    slow = replace(SHAPE, speed=0.03125)
    assert velocity(Pose2(0.2499), FORWARD, STILL, 1.0, STILL, math.inf, slow)[0] == 0.03125

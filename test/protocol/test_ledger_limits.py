"""The ledger's limits: what counts against a budget, for how long, and what is left at the end."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from janusvln_ros.protocol.ledger import (
    Ledger,
    Sent,
    announcement,
    bounded,
    budget,
    granted,
    most,
    remaining,
    resumed,
    spent,
    travelled,
)
from janusvln_ros.protocol.profile import Profile

SHAPE = Profile(base_timeout=0.25, acceleration=0.5, rate_acceleration=2.0)
FORWARD, TURN = (0.25, 0.0), (0.0, 0.25)


def sent(*commands, left=(1.0, 1.0)):
    return Ledger(left, left, tuple(Sent(*command) for command in commands))


def test_nothing_was_ever_sent_to_a_base_that_stands():
    last = Ledger().last
    assert last[1:] == (0.0, 0.0) and last.at == -math.inf
    assert Ledger().used == (0.0, 0.0) and remaining(Ledger(), 9.0, SHAPE) == (0.0, 0.0)


def test_used_is_what_was_granted_and_is_not_left():
    assert Ledger((1.0, 0.5), (0.25, 0.125)).used == (0.75, 0.375)


def test_a_goal_fills_the_ledger_and_what_was_sent_is_not_forgotten():
    before = replace(sent((1.0, 0.2, 0.1)), left=(0.0, 0.0))
    after = granted(before, FORWARD, SHAPE)
    assert after.sent == before.sent
    assert after.left == after.granted == budget(FORWARD, SHAPE)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_command_in_force_eats_its_way_up_to_the_time_out_of_the_base(sign):
    ledger = sent((10.0, sign * 0.5, -sign * 1.0))
    assert remaining(ledger, 10.0, SHAPE) == (1.0, 1.0)
    assert remaining(ledger, 10.125, SHAPE) == (0.9375, 0.875)
    assert remaining(ledger, 10.25, SHAPE) == (0.875, 0.75)
    # and then braking, twice as hard as it speeds up
    assert remaining(ledger, 10.5, SHAPE) == (0.78125, 0.625)
    assert remaining(ledger, 99.0, SHAPE) == (0.75, 0.625)


def test_a_clock_that_goes_back_gives_nothing_back():
    assert remaining(sent((10.0, 0.5, 1.0)), 9.0, SHAPE) == (1.0, 1.0)
    assert travelled(sent((10.0, 0.5, 1.0)), 9.0, 1.0, SHAPE) == (0.0, 0.0)


def test_a_budget_is_never_less_than_empty():
    assert remaining(sent((0.0, 9.0, 9.0)), 9.0, SHAPE) == (0.0, 0.0)


def test_a_command_of_a_base_that_declares_no_time_out_lasts_for_ever():
    undeclared = replace(SHAPE, base_timeout=0.0)
    ledger = sent((0.0, 0.125, 0.0), left=(9.0, 9.0))
    assert remaining(ledger, 8.0, undeclared) == (8.0, 9.0)
    assert travelled(ledger, 8.0, 99.0, undeclared) == (1.0, 0.0)


def test_what_was_sent_is_kept_for_two_seconds():
    ledger = sent((8.0,), (8.5,), (9.0,))
    assert [one.at for one in bounded(ledger, 10.0, 0.0, 0.0, SHAPE).sent] == [8.5, 9.0, 10.0]


@settings(deadline=None, derandomize=True, database=None)
@given(
    wish=st.tuples(st.floats(-3, 3), st.floats(-6, 6)),
    left=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_what_is_let_through_has_the_sign_of_the_wish_and_can_brake_within_the_rest(wish, left):
    ledger = Ledger((1.0, 1.0), left)
    last = bounded(ledger, 1.0, *wish, SHAPE).last
    for told, asked, rest, brake in zip(last[1:], wish, left, (0.5, 2.0)):
        assert told * asked >= 0 and abs(told) <= abs(asked)
        assert abs(told) * 0.02 + told * told / (2 * brake) <= rest + 1e-9
        fastest = most(rest, brake)
        assert abs(told) == pytest.approx(min(abs(asked), fastest))


def test_nothing_is_let_through_on_an_empty_or_overdrawn_budget():
    assert most(0.0, 0.5) == most(-1.0, 0.5) == 0.0


@pytest.mark.parametrize(
    ("goal", "name", "other", "crawl", "limit"),
    [
        (FORWARD, "acceleration", "rate_acceleration", "crawl_speed", "speed"),
        (TURN, "rate_acceleration", "acceleration", "crawl_rate", "rate"),
    ],
)
def test_a_budget_is_spent_once_its_rest_does_not_move_the_base(goal, name, other, crawl, limit):
    turns = goal == TURN
    rest = 0.0625
    fastest = most(rest, 0.5)
    left = (9.0, rest) if turns else (rest, 9.0)
    shape = replace(SHAPE, **{name: 0.5, other: 9.0, limit: 9.0})
    ledger = Ledger((1.0, 1.0), left)
    assert not spent(ledger, 1.0, goal, replace(shape, **{crawl: fastest}))
    assert spent(ledger, 1.0, goal, replace(shape, **{crawl: fastest + 1e-6}))
    # a base that may not even crawl has the rest for as slow as it may go
    assert not spent(ledger, 1.0, goal, replace(shape, **{crawl: 9.0, limit: fastest}))
    # nor is what the last command is still doing there to be spent
    moving = replace(ledger, sent=(Sent(0.9, 0.25, 0.25),))
    assert spent(moving, 1.0, goal, replace(shape, **{crawl: fastest - 1e-3}))


def test_what_was_travelled_ends_with_the_next_command_and_with_the_time_out():
    ledger = sent((8.0, 0.5, -1.0), (9.0, 0.25, 0.5), (9.125, 0.125, -0.25))
    assert travelled(ledger, 9.25, 0.125, SHAPE) == (0.015625, -0.03125)
    assert travelled(ledger, 9.25, 0.25, SHAPE) == (0.046875, 0.03125)
    assert travelled(ledger, 9.25, 1.125, SHAPE) == (0.109375, -0.09375)
    assert travelled(ledger, 9.25, 9.0, SHAPE) == (0.171875, -0.21875)
    assert travelled(ledger, 9.25, 0.0, SHAPE) == (0.0, 0.0)


def test_what_was_travelled_is_what_the_base_makes_of_it():
    weak = replace(SHAPE, execution=0.5, turn_execution=0.25)
    assert travelled(sent((9.0, 0.5, 1.0)), 9.125, 9.0, weak) == (0.03125, 0.03125)


def test_a_loop_counts_as_stalled_after_a_tenth_of_a_second():
    ledger = sent((0.0, 0.5, -0.5))
    later = sent((8.0, 0.25, 0.25), (8.5, 0.5, -0.5))
    assert resumed(later, 8.5625, (0.0, 0.0)) == ((0.5, -0.5), 0.0625)
    assert resumed(ledger, 0.1, (0.0, 0.0)) == ((0.5, -0.5), 0.1)
    assert resumed(ledger, 0.11, (0.0, 0.0))[1] == 0.02


def test_after_a_stall_no_command_goes_on_faster_than_told_or_measured_nor_the_other_way():
    ledger = sent((0.0, 0.5, -0.5))
    assert resumed(ledger, 9.0, (-0.25, 0.125))[0] == (0.25, -0.125)
    assert resumed(ledger, 9.0, (-0.75, 0.75))[0] == (0.5, -0.5)
    assert resumed(Ledger(), 9.0, (0.75, 0.75))[0] == (0.0, 0.0)


def test_who_arms_is_told_what_a_step_may_command():
    shape = Profile(forward_step=0.25, turn_step=math.radians(15), execution=0.75)
    told = announcement(replace(shape, turn_execution=0.5))
    assert "at most 0.45 m (execution 0.75) or 40.5 degrees (turn_execution 0.5)" in told


def test_a_stop_has_no_budget():
    assert granted(Ledger(), (0.0, 0.0), SHAPE).left == (0.0, 0.0)

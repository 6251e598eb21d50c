"""Which frames of a drive are decided on, live and in a bag: one rule, equal frames."""

import math

import numpy as np
import pytest

from janusvln_ros.actions import Action
from janusvln_ros.geometry import Pose2, wrap
from janusvln_ros.protocol.choosing import (
    REMEMBERED,
    Choice,
    Rule,
    cut_into_steps,
    missing,
    see_frame,
    see_odometry,
    see_step_end,
    step_between,
)
from janusvln_ros.protocol.exchange import Frame
from janusvln_ros.protocol.odometry import TRACK, Sample

S = 1_000_000_000
F, L, R, STOP = Action.MOVE_FORWARD, Action.TURN_LEFT, Action.TURN_RIGHT, Action.STOP


class Chooser:
    """The choice with its state, as a node holds it; each call returns the chosen stamps."""

    def __init__(self, mode, interval=1.0):
        self.rule = Rule(mode, interval_ns=round(interval * S))
        self.choice = Choice()

    def keep(self, chosen):
        self.choice, frames = chosen
        return [frame.stamp for frame in frames]

    def frame(self, stamp):
        return self.keep(see_frame(self.choice, Frame(0.0, stamp, 0), self.rule))

    def report(self, end):
        return self.keep(see_step_end(self.choice, end))

    def odometry(self, stamp, pose):
        return self.keep(see_odometry(self.choice, Sample(stamp, pose), self.rule))


def test_recorded_frames_are_the_first_and_the_first_after_each_report():
    c = Chooser("recorded")
    assert [t for t in range(1, 5) if c.frame(t * S)] == [1]
    assert c.report(6 * S) == []
    assert [t for t in range(5, 9) if c.frame(t * S)] == [6]


def test_a_report_that_comes_after_its_frame_chooses_that_frame():
    c = Chooser("recorded")
    c.frame(1 * S)
    c.frame(2 * S)
    assert c.report(2 * S) == [2 * S] and not c.frame(3 * S)
    assert c.report(2 * S) == []  # never the same twice
    assert c.report(3 * S) == [3 * S]


@pytest.mark.parametrize("late", ["reports", "frames"])
def test_no_frame_is_left_out_where_one_topic_lags_steps_behind_the_other(late):
    # a recorder that found the reports late notes them beside the frame after theirs
    c = Chooser("recorded")
    c.frame(1 * S)
    chosen = []
    for t in range(2, 12):
        lag = {"reports": 0, "frames": 0, late: 3}
        for topic, see in sorted([("frames", c.frame), ("reports", c.report)]):
            if t - lag[topic] >= 2:
                chosen += [stamp // S for stamp in see((t - lag[topic]) * S)]
    assert chosen == list(range(2, 9))


def test_a_frame_that_no_report_chooses_is_forgotten_in_the_end():
    c = Chooser("recorded")
    for t in range(1, 3 * REMEMBERED):
        c.frame(t * S)
    assert len(c.choice.waiting) == REMEMBERED


def test_odometry_chooses_by_travel_or_turning_from_the_last_chosen_pose():
    c = Chooser("odom")
    c.odometry(1, Pose2(0, 0, 3.1))
    assert c.frame(1) == [1]
    chosen = []
    for i in range(2, 30):
        turned = Pose2(-0.7, 0, wrap(3.1 + 0.1 * (i - 8)))
        # backwards in the odometry frame is forwards for a robot that looks that way
        c.odometry(i, Pose2(-0.1 * (i - 1), 0, 3.1) if i < 9 else turned)
        chosen += c.frame(i)
    assert chosen[0] == 4 and len([i for i in chosen if i < 9]) == 2  # 0.3 m and 0.6 m
    assert len([i for i in chosen if i >= 9]) == 7  # 2.1 rad in turns of 0.3, across the wrap


def test_a_frame_waits_for_the_odometry_of_its_own_moment():
    c = Chooser("odom")
    c.odometry(0, Pose2())
    c.frame(0)
    c.odometry(10, Pose2(0.2))
    assert c.frame(15) == []
    assert c.odometry(20, Pose2(0.4)) == [15]  # 0.3 m at that moment


@pytest.mark.parametrize("mode", ["odom", "recorded"])
def test_a_frame_that_comes_after_a_later_one_is_looked_at_in_its_place(mode):
    c = Chooser(mode)
    c.frame(0)
    for stamp in (1, 3, 2, 4):
        c.frame(stamp * S)
    if mode == "recorded":
        assert c.report(2 * S) == [2 * S] and c.report(3 * S) == [3 * S]
        return
    c.odometry(0, Pose2())
    # whole steps are over at 2 s and at 4 s
    assert c.odometry(4 * S, Pose2(0.5, 0.0, 0.0)) == [2 * S, 4 * S]


def test_driving_backwards_is_no_step():
    c = Chooser("odom")
    c.odometry(0, Pose2())
    c.frame(0)
    for i in range(1, 20):
        c.odometry(i, Pose2(-0.1 * i))
        assert c.frame(i) == []


def test_standstill_gives_no_frames():
    c = Chooser("odom")
    c.odometry(0, Pose2())
    c.frame(1)
    c.odometry(100, Pose2())
    assert not any(c.frame(i) for i in range(2, 50))


def test_interval_is_measured_by_stamps():
    c = Chooser("interval", 0.5)
    assert [i for i in range(20) if c.frame(i * S // 10 + 1)] == [0, 5, 10, 15]


# a whole drive


def drive(seed, frame_period=33_333_333, odom_period=20_000_000):
    """Smooth random driving: frame stamps, odometry."""
    dice = np.random.default_rng(seed)
    pose, samples = Pose2(0.0, 0.0, 3.0), []
    speed = rate = 0.0
    for i in range(1500):
        if i % 40 == 0:
            speed, rate = dice.uniform(-0.1, 0.5), dice.uniform(-0.8, 0.8)
        samples.append(Sample(i * odom_period, pose))
        dt = odom_period / S
        x, y = math.cos(pose.yaw) * speed * dt, math.sin(pose.yaw) * speed * dt
        pose = Pose2(pose.x + x, pose.y + y, wrap(pose.yaw + rate * dt))
    end = samples[-1].stamp
    return list(range(7_000_000, end + 5 * frame_period, frame_period)), samples


@pytest.mark.parametrize("lag", [0, 3, 9])
@pytest.mark.parametrize("seed", range(5))
def test_a_live_drive_and_its_bag_give_equal_frames(seed, lag):
    stamps, odometry = drive(seed)
    c, live = Chooser("odom"), []
    events = [(s.stamp + lag * 20_000_000, 1, s) for s in odometry]
    events += [(stamp, 0, stamp) for stamp in stamps]
    for _, kind, what in sorted(events, key=lambda event: event[:2]):
        live += c.odometry(*what[:2]) if kind else c.frame(what)
    steps = cut_into_steps(stamps, odometry, Rule())
    assert [stamps[i] for i, _ in steps] == live and len(live) > 20


def test_a_step_is_named_by_the_larger_of_travel_and_turning_and_the_last_is_stop():
    ways = [Pose2(), Pose2(0.26), Pose2(0.30, 0.0, 0.27), Pose2(0.35, 0.0, 0.0), Pose2(0.36)]
    stamps = list(range(len(ways)))
    steps = cut_into_steps(stamps, [Sample(i, p) for i, p in enumerate(ways)], Rule())
    assert steps == [(0, F), (1, L), (2, R), (3, STOP)]


def test_standing_gives_nothing_but_the_final_stop():
    stamps = [n * 20_000_000 for n in range(500)]
    assert cut_into_steps(stamps, [Sample(s, Pose2(1, 2, 3)) for s in stamps], Rule()) == [
        (0, STOP)
    ]


def test_steady_driving_gives_a_step_for_every_quarter_metre():
    odometry = [Sample(n * 20_000_000, Pose2(0.4 * n * 0.02)) for n in range(501)]  # 4 m in 10 s
    steps = cut_into_steps(list(range(0, 10 * S, 33_333_333)), odometry, Rule())
    assert {action for _, action in steps[:-1]} == {F}
    assert len(steps) - 1 in (15, 16)  # each step ends at the first frame past its end


def test_turn_across_the_end_of_the_circle_is_one_direction():
    yaws = (np.linspace(3.0, 3.0 + np.pi / 2, 300) + np.pi) % (2 * np.pi) - np.pi
    odometry = [Sample(n * 20_000_000, Pose2(0, 0, yaw)) for n, yaw in enumerate(yaws)]
    actions = [a for _, a in cut_into_steps([s.stamp for s in odometry], odometry, Rule())]
    assert set(actions) == {L, STOP} and actions.count(L) in (5, 6)


def test_no_frames_are_no_steps():
    assert cut_into_steps([], [Sample(0, Pose2())], Rule()) == []


def test_a_drive_that_begins_before_its_odometry_is_measured_from_the_first_message():
    odometry = [Sample(10, Pose2()), Sample(20, Pose2(0.2)), Sample(30, Pose2(0.3))]
    assert cut_into_steps([5, 20, 30], odometry, Rule()) == [(0, F), (2, STOP)]
    assert cut_into_steps([10, 20, 30], odometry, Rule()) == [(0, F), (2, STOP)]


def test_a_drive_whose_odometry_ended_before_its_first_frame_has_no_steps():
    odometry = [Sample(1, Pose2()), Sample(2, Pose2(0.2))]
    assert cut_into_steps([5, 6, 7], odometry, Rule()) == [(0, STOP)]


def test_frames_after_the_end_of_odometry_are_passed_over():
    odometry = [Sample(0, Pose2()), Sample(2, Pose2(0.5))]
    assert cut_into_steps([0, 1, 5, 9], odometry, Rule()) == [(0, F), (1, STOP)]


# where a step begins and ends


def unit(x, yaw):
    """The step of a rule whose steps are one metre and one radian."""
    return step_between(Pose2(), Pose2(x, 0.0, yaw), Rule(forward_step=1.0, turn_step=1.0))


def test_a_step_is_whole_from_a_millionth_below_it():
    whole = 1 - 1e-6
    assert unit(whole, 0.0) is F and unit(whole - 1e-7, 0.0) is None
    for turn, action in ((whole + 1e-9, L), (-whole - 1e-9, R)):  # angles are rounded
        assert unit(0.0, turn) is action and unit(0.0, 0.9999999 * turn) is None


def test_travel_that_weighs_as_much_as_turning_is_a_step_forward():
    assert unit(1.0, 1.0) is F and unit(1.0, 1.01) is L and unit(1.0, -1.01) is R


def test_a_step_is_a_quarter_metre_or_fifteen_degrees_unless_told_otherwise():
    quarter, turn = Pose2(0.25), Pose2(0.0, 0.0, math.radians(15))
    assert step_between(Pose2(), quarter, Rule()) is F
    assert step_between(Pose2(), turn, Rule()) is L
    assert step_between(turn, Pose2(), Rule()) is R


def test_frames_are_a_second_apart_unless_told_otherwise():
    first, _ = see_frame(Choice(), Frame(0.0, 5, 0), Rule("interval"))
    assert see_frame(first, Frame(0.0, 4 + S, 0), Rule("interval"))[1] == ()
    assert see_frame(first, Frame(0.0, 5 + S, 0), Rule("interval"))[1]


# what may still be chosen


@pytest.mark.parametrize("mode", ["recorded", "odom", "interval"])
@pytest.mark.parametrize("stamp", [5, 10])
def test_a_frame_no_newer_than_the_chosen_one_is_forgotten(mode, stamp):
    c = Chooser(mode)
    c.odometry(5, Pose2(0.0, 0.0, -0.5))
    c.odometry(10, Pose2())
    assert c.frame(10) == [10]
    before = c.choice
    assert c.frame(stamp) == [] and c.choice == before


def test_a_report_chooses_among_the_last_twenty_frames():
    c = Chooser("recorded")
    for t in range(32):
        c.frame(t * S)
    assert c.report(1 * S) == [12 * S]


def test_a_frame_that_was_chosen_or_is_older_waits_no_more():
    c = Chooser("recorded")
    for t in range(5):
        c.frame(t * S)
    assert c.report(2 * S) == [2 * S]
    assert [frame.stamp for frame in c.choice.waiting] == [3 * S, 4 * S]


def test_a_slow_step_is_measured_from_where_it_began_however_long_it_takes():
    c = Chooser("odom")
    c.odometry(0, Pose2())
    c.frame(0)
    chosen = []
    for i in range(1, 2 * TRACK):
        c.odometry(i, Pose2(i / 1024))
        chosen += c.frame(i)
    assert chosen == [256]


def test_a_first_frame_before_the_first_odometry_counts_from_where_that_finds_the_base():
    c = Chooser("odom")
    c.frame(3)
    c.odometry(5, Pose2(1.0))
    c.odometry(6, Pose2(1.1))
    assert c.frame(6) == []
    c.odometry(7, Pose2(1.25))
    assert c.frame(7) == [7]


# what is missing


def known(*stamps, **choice):
    """A choice with a frame at 1 and odometry at these stamps (ns)."""
    return Choice(last=1, track=tuple(Sample(t, Pose2()) for t in stamps), **choice)


@pytest.mark.parametrize("mode", ["recorded", "odom", "interval"])
def test_without_a_frame_nothing_can_be_chosen(mode):
    assert missing(Choice(), 0, Rule(mode)) == "no frame has come"


def test_a_report_of_a_time_that_frames_have_reached_misses_nothing():
    reported = known(ended=(10 * S, 20 * S))
    told = missing(reported, 10 * S - 1, Rule("recorded"))
    assert told.startswith("a step ended at 10.000 s, the newest frame is of 10.000 s")
    assert missing(reported, 10 * S, Rule("recorded")) == ""
    assert missing(reported, 11 * S, Rule("recorded")) == ""
    assert missing(known(), 5, Rule("recorded")) == ""
    assert missing(reported, 5, Rule("interval")) == ""


def test_odometry_that_is_there_at_the_moment_of_the_frames_misses_nothing():
    waiting = (Frame(0.0, 20, 0), Frame(0.0, 40, 0))
    assert missing(known(10, 20, 30, waiting=waiting), 40, Rule("odom")) == ""
    assert missing(known(10, 20, waiting=waiting), 40, Rule("odom")) == ""  # exactly its moment
    assert "clocks" in missing(known(10, 19, waiting=waiting), 40, Rule("odom"))
    assert missing(known(10, 20), 10, Rule("odom")) == ""
    assert "clocks" in missing(known(10, 20), 9, Rule("odom"))


def test_odometry_on_another_clock_is_told_with_its_times_and_that_of_the_frames():
    told = missing(known(2 * S, 4 * S), S, Rule("odom"))
    assert told.startswith("odometry is of 2.000 to 4.000 s, the newest frame of 1.000 s: ")

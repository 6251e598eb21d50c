"""
By whose word motion moves: only the life that asked keeps a step going, and nobody else's.
"""

from dataclasses import replace

import pytest

from janusvln_ros.actions import Action
from janusvln_ros.geometry import Pose2
from janusvln_ros.protocol.exchange import Odometry, new_life
from janusvln_ros.protocol.moving import (
    Activate,
    Arm,
    Cliff,
    Done,
    Drive,
    Goal,
    Heartbeat,
    Phase,
    Ranges,
    Settings,
    State,
    Tick,
    advance,
    arming_problem,
)
from janusvln_ros.protocol.odometry import Sample
from janusvln_ros.protocol.status import StepStatus

S = 10**9
OURS, OTHERS = 7, 8


class Motion:
    """The machine with odometry of a base that stands, and heartbeats of ``alive`` lives."""

    def __init__(self, *alive, **settings):
        self.settings = Settings(base_timeout=0.2, **settings)
        self.state, self.now, self.sent, self.done = State(), 50.0, [], []
        self.alive = dict.fromkeys(alive, 1)  # life -> episode
        self.ranges = None
        self.do(Activate(self.now))
        self.go(0.2)
        self.do(Arm(self.now, True))

    @property
    def ros(self):
        return round(self.now * S)

    @property
    def moves(self):
        return any(drive != Drive(0.0, 0.0) for drive in self.sent)

    def do(self, event):
        self.state, commands = advance(self.state, event, self.settings)
        self.sent += [c for c in commands if isinstance(c, Drive)]
        self.done += [c for c in commands if isinstance(c, Done)]

    def go(self, seconds):
        for _ in range(round(seconds / 0.02)):
            self.now += 0.02
            self.do(Odometry(self.now, Sample(self.ros, Pose2(), 0.0, 0.0)))
            if self.ranges is not None:
                self.do(replace(self.ranges, now=self.now, stamp=self.ros))
            for life, episode in self.alive.items():
                self.do(Heartbeat(self.now, episode, life))
            self.do(Tick(self.now, self.ros))

    def goal(self, life=OURS, episode=1, step=0, action=Action.MOVE_FORWARD):
        key = len(self.done)
        self.do(Goal(self.now, key, episode, step, int(action), self.ros, self.ros, life))


def test_a_life_is_a_random_number_of_its_own():
    lives = {new_life() for _ in range(1000)}
    assert len(lives) == 1000 and 0 not in lives and max(lives) < 2**64


def test_the_heartbeat_of_somebody_else_does_not_keep_a_step_going():
    motion = Motion(OURS, OTHERS)
    motion.goal()
    motion.go(0.2)
    assert motion.moves
    del motion.alive[OURS]
    motion.go(0.28)
    assert motion.sent[-1] == Drive(0.0, 0.0)
    motion.go(2.0)
    assert motion.done[-1].status == StepStatus.STALE and "heartbeat" in motion.done[-1].message


def test_a_step_waits_for_the_first_heartbeat_of_its_sender_and_then_goes():
    motion = Motion(OTHERS)
    motion.goal()
    motion.go(1.0)
    assert not motion.moves and motion.state.phase is Phase.WAITING and not motion.done
    motion.alive[OURS] = 1
    motion.go(0.2)
    assert motion.moves and motion.state.phase is Phase.DRIVING


def test_a_step_whose_sender_is_never_heard_ends_with_the_sentence():
    motion = Motion(OTHERS)
    motion.goal()
    motion.go(3.5)
    assert not motion.moves and motion.done[-1].status == StepStatus.STALE
    assert f"(life {OURS}) within 2 s" in motion.done[-1].message


@pytest.mark.parametrize("event", [Arm(0.0, False), Activate(0.0, False)])
def test_a_step_that_waits_for_a_heartbeat_is_disarmed_like_any_other(event):
    motion = Motion()
    motion.goal()
    motion.do(replace(event, now=motion.now))
    motion.alive[OURS] = 1
    motion.go(2.0)
    assert not motion.moves and motion.done[-1].status == StepStatus.DISARMED


def test_a_sender_that_was_heard_and_is_silent_now_is_refused_at_once():
    motion = Motion(OURS)
    motion.alive.clear()
    motion.go(0.5)
    motion.goal()
    assert motion.done[-1].status == StepStatus.STALE


def test_a_goal_without_a_life_is_refused():
    motion = Motion(0)
    motion.goal(life=0)
    assert motion.done[-1].status == StepStatus.REFUSED and "life is 0" in motion.done[-1].message


def test_numbers_out_of_reach_are_refused_and_block_nobody():
    motion = Motion(OURS, OTHERS)
    motion.goal(OTHERS, episode=2**64 - 1)
    assert motion.done[-1].status == StepStatus.REFUSED
    assert "out of reach" in motion.done[-1].message
    motion.goal(OTHERS, episode=2**63 - 1, action=Action.STOP)
    motion.go(1.5)
    motion.alive[OTHERS] = 2**63
    motion.go(0.1)
    motion.goal(OURS, episode=1)
    motion.go(0.2)
    assert motion.moves  # the other's numbers are not ours


def test_a_second_policy_waits_until_the_episode_of_the_first_is_over_or_dead():
    for end in ("over", "dead"):
        motion = Motion(OURS, OTHERS)
        motion.goal(OURS, action=Action.STOP)
        motion.go(1.5)
        motion.goal(OTHERS, episode=9)
        assert motion.done[-1].status == StepStatus.REFUSED
        assert f"another policy (life {OURS})" in motion.done[-1].message
        if end == "over":
            motion.alive[OURS] = 2
        else:
            del motion.alive[OURS]
        motion.go(0.4)
        motion.goal(OTHERS, episode=9)
        motion.go(0.2)
        assert motion.moves, end


def test_each_sender_counts_its_own_steps():
    motion = Motion(OURS, OTHERS)
    motion.alive[OURS] = 10
    motion.goal(OURS, 10, 3, Action.STOP)
    motion.go(1.5)
    motion.alive[OURS] = 11
    motion.go(0.1)
    motion.goal(OTHERS, 1, 0, Action.STOP)
    motion.go(1.5)
    motion.goal(OURS, 10, 3)
    assert motion.done[-1].status == StepStatus.REFUSED and "not newer" in motion.done[-1].message


def test_a_flood_of_lives_does_not_grow_and_stops_rather_than_moves():
    motion = Motion(OURS)
    motion.goal()
    for life in range(100, 200):
        motion.do(Heartbeat(motion.now, 1, life))
    assert len(motion.state.heartbeats) == 16
    motion.do(Tick(motion.now, motion.ros))
    assert motion.state.phase is Phase.STOPPING


# Edges


def test_an_edge_stops_at_once_and_no_step_begins_while_it_is_seen():
    motion = Motion(OURS)
    motion.goal()
    motion.go(0.2)
    motion.do(Cliff(motion.now, True))
    assert motion.sent[-1] == Drive(0.0, 0.0)
    motion.go(2.0)
    assert motion.done[-1].status == StepStatus.BLOCKED and "edge" in motion.done[-1].message
    for step, action in enumerate((Action.MOVE_FORWARD, Action.TURN_LEFT), 1):
        motion.sent.clear()
        motion.goal(step=step, action=action)
        motion.go(2.0)
        assert motion.done[-1].status == StepStatus.BLOCKED and not motion.moves
    motion.do(Cliff(motion.now, False))
    motion.goal(step=3)
    motion.go(0.2)
    assert motion.moves and motion.state.armed


def test_word_of_no_edge_that_was_overtaken_by_word_of_one_does_not_count():
    motion = Motion(OURS)
    motion.do(Cliff(motion.now, True, 6))
    motion.do(Cliff(motion.now, False, 5))
    assert motion.state.cliff.seen
    motion.do(Cliff(motion.now, False, 7))
    assert not motion.state.cliff.seen


# Turns


@pytest.mark.parametrize("source", ["none", "depth"])
def test_turn_clearance_without_what_sees_around_is_refused(source):
    motion = Motion(OURS, range_source=source, turn_clearance=0.3)
    told = arming_problem(motion.state, motion.now, motion.settings)
    assert "turn_clearance is 0.3" in told and "set range_source to scan" in told
    motion.ranges = Ranges(motion.now, 0, 5.0, 1.0)
    motion.go(0.1)
    motion.goal(action=Action.TURN_LEFT)  # it was changed while armed
    motion.go(2.0)
    assert not motion.moves and "turn_clearance" in motion.done[-1].message


@pytest.mark.parametrize(
    ("nearest", "around", "words"), [(0.2, 1.0, "0.20 m away"), (5.0, 0.1, "10% of a part")]
)
def test_a_turn_needs_what_is_around_to_be_known_and_free(nearest, around, words):
    motion = Motion(OURS, range_source="scan", turn_clearance=0.3)
    motion.ranges = Ranges(motion.now, 0, 5.0, 1.0, nearest, 0.0, around)
    motion.go(0.1)
    motion.goal(action=Action.TURN_LEFT)
    motion.go(2.0)
    assert not motion.moves and words in motion.done[-1].message
    motion.ranges = Ranges(motion.now, 0, 5.0, 1.0, 5.0, 0.0, 1.0)
    motion.go(0.1)
    motion.goal(step=1, action=Action.TURN_LEFT)
    motion.go(0.2)
    assert motion.moves

"""
A step is bounded, whatever odometry says: what was commanded is added up, and no liar buys more
than a step and a half.

The base of these tests has delays, noise, limits of acceleration and a time-out of its own; what
it truly did is measured, and odometry is whatever a lie makes of it.
"""

import itertools
import math
import random
from collections import deque
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from janusvln_ros.actions import Action
from janusvln_ros.geometry import Pose2, wrap
from janusvln_ros.protocol.exchange import Odometry
from janusvln_ros.protocol.ledger import (
    TICK,
    Ledger,
    bounded,
    budget,
    granted,
    longest,
    most,
    resumed,
    spent,
    travelled,
)
from janusvln_ros.protocol.moving import (
    Activate,
    Arm,
    Done,
    Drive,
    Goal,
    Heartbeat,
    Ranges,
    Settings,
    State,
    Tick,
    advance,
    arming_problem,
)
from janusvln_ros.protocol.odometry import Sample
from janusvln_ros.protocol.profile import Profile
from janusvln_ros.protocol.status import StepStatus
from janusvln_ros.protocol.trust import astray, jumped, met_something, misdated

S = 10**9
SUB = 0.01  # seconds of the simulated base


class Truth(tuple):
    """Where the base is: (seconds, x, y, yaw, speed, rate)."""


def honest(now, history):
    """Odometry that says what is."""
    _, x, y, yaw, v, w = history[-1]
    return x, y, yaw, v, w


class World:
    """
    A base that makes ``execution`` of its command after ``dead`` seconds, under a machine that
    hears ``lie(now, history)``, ``late`` seconds later, with ``noise``.
    """

    def __init__(
        self,
        lie=honest,
        *,
        execution=1.0,
        dead=0.0,
        late=0.0,
        noise=0.0,
        seed=0,
        brake=(1.5, 4.0),
        base_timeout=0.2,
        silence_test=False,
        sideways=0.0,
        **settings,
    ):
        self.settings = Settings(base_timeout=0.2, silence_test=silence_test, **settings)
        self.lie, self.execution, self.dead, self.late = lie, execution, dead, late
        self.noise, self.dice, self.brake = noise, random.Random(seed), brake
        self.base_timeout, self.sideways = base_timeout, sideways
        self.now, self.state = 100.0, State()
        self.x = self.y = self.yaw = self.v = self.w = 0.0
        self.metres = self.radians = 0.0  # what the wheels have made since they were looked at
        self.history = [(self.now, 0.0, 0.0, 0.0, 0.0, 0.0)]
        self.wheels = deque([(0.0, 0.0, 0.0)])  # commands: from when on, speed, rate
        self.waiting = deque()
        self.clearance = None  # metres from the first pose to a wall; None: no scanner
        self.range_late, self.range_every, self.looked, self.seen = 0.0, 0.0, 0.0, deque()
        self.stamp = lambda ns: ns
        self.held = False  # nothing moves the base
        self.done = []
        self.do(Activate(self.now))
        self.run(0.4)
        self.do(Arm(self.now, True))

    def do(self, event):
        self.state, commands = advance(self.state, event, self.settings)
        for command in commands:
            if isinstance(command, Drive):
                self.wheels.append((self.now + self.dead, command.speed, command.rate))
            elif isinstance(command, Done):
                self.done.append(command)

    def base(self):
        """Move the base for ``SUB`` seconds."""
        while len(self.wheels) > 1 and self.wheels[1][0] <= self.now:
            self.wheels.popleft()
        since, v, w = self.wheels[0]
        if self.now - since > self.base_timeout or self.held:
            v = w = 0.0
        dice = self.dice.gauss(1, self.noise)
        for name, wish, limit in (("v", v, self.brake[0]), ("w", w, self.brake[1])):
            wish, is_now = wish * self.execution, getattr(self, name)
            setattr(self, name, is_now + max(-limit * SUB, min(limit * SUB, wish - is_now)))
        far, turned = self.v * dice * SUB, self.w * dice * SUB
        self.x += far * math.cos(self.yaw) - self.sideways * far * math.sin(self.yaw)
        self.y += far * math.sin(self.yaw) + self.sideways * far * math.cos(self.yaw)
        self.yaw += turned
        self.metres, self.radians = self.metres + abs(far), self.radians + abs(turned)
        self.now += SUB
        self.history.append((self.now, self.x, self.y, self.yaw, self.v, self.w))

    def look(self):
        x, y, yaw, v, w = self.lie(self.now, self.history)
        ns = self.stamp(round(self.now * S))
        self.waiting.append((self.now + self.late, Sample(ns, Pose2(x, y, wrap(yaw)), v, w)))
        while self.waiting and self.waiting[0][0] <= self.now:
            self.do(Odometry(self.now, self.waiting.popleft()[1]))
        if self.clearance is not None and self.now - self.looked >= self.range_every - 1e-9:
            self.looked = self.now
            ahead = (round(self.now * S), self.clearance - self.x)
            self.seen.append((self.now + self.range_late, ahead))
        while self.seen and self.seen[0][0] <= self.now:
            self.do(Ranges(self.now, *self.seen.popleft()[1], known=1.0))

    def tick(self):
        for _ in range(round(TICK / SUB)):
            self.base()
        self.do(Heartbeat(self.now, 1))
        self.look()
        self.do(Tick(self.now, round(self.now * S)))

    def run(self, seconds):
        for _ in range(round(seconds / TICK)):
            self.tick()

    def ask(self, action):
        self.metres = self.radians = 0.0
        stamp = round(self.now * S)
        self.do(Goal(self.now, 0, 1, len(self.done), int(action), stamp, stamp))

    def step(self, action, tail=1.0):
        """A whole step, and what the base still does after it; its result."""
        before = len(self.done)
        self.ask(action)
        while len(self.done) == before:
            self.tick()
            assert self.now < 1000, "no result"
        self.run(tail)
        return self.done[before]

    @property
    def degrees(self):
        return math.degrees(self.radians)


def bound_holds(world, action):
    """A step and a half; steering is no turn, and a turn goes nowhere."""
    if action is Action.MOVE_FORWARD:
        return world.metres <= 0.375 and world.degrees <= 12.0 * max(1.0, world.execution)
    return world.degrees <= 22.5 and world.metres <= 0.01


# Lies


def since(history, seconds):
    """What was, so many seconds ago."""
    index = max(0, len(history) - 1 - round(seconds / SUB))
    return history[index]


def scaled(share):
    def lie(now, history):
        _, x, y, yaw, v, w = history[-1]
        return share * x, share * y, share * yaw, share * v, share * w

    return lie


def frozen(now, history):
    _, _, _, _, v, w = history[-1]
    return 0.0, 0.0, 0.0, v, w


def frozen_after(metres, twist=0.0):
    def lie(now, history):
        for _, x, y, yaw, *_ in history:
            if math.hypot(x, y) >= metres or abs(yaw) >= metres:
                now_v, now_w = history[-1][4:]
                return x, y, yaw, twist * now_v, twist * now_w
        return honest(now, history)

    return lie


def late_by(seconds):
    def lie(now, history):
        _, x, y, yaw, v, w = since(history, seconds)
        return x, y, yaw, v, w

    return lie


def dead(now, history):
    return 0.0, 0.0, 0.0, 0.0, 0.0


def slips_back(now, history):
    """Comes to half a step and back again, whatever the base does."""
    _, x, y, yaw, v, w = history[-1]

    def saw(value, top):
        return top - abs(value % (2 * top) - top)

    return saw(x, 0.06), saw(y, 0.06), saw(yaw, 0.06), v, w


def rotated(degrees):
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))

    def lie(now, history):
        _, x, y, yaw, v, w = history[-1]
        return c * x - s * y, s * x + c * y, yaw, v, w

    return lie


def jumps(degrees=0.0, metres=0.0, over=1):
    """After 5 cm, or 5 degrees, it is elsewhere; ``over``: messages in which it gets there."""
    begun = []

    def lie(now, history):
        _, x, y, yaw, v, w = history[-1]
        if math.hypot(x, y) > 0.05 or abs(yaw) > math.radians(5):
            begun.append(now)
        share = min(1.0, len(begun) / over)
        return x, y + share * metres, yaw + share * math.radians(degrees), v, w

    return lie


def drifting(metres_per_second, degrees_per_second):
    def lie(now, history):
        _, x, y, yaw, v, w = history[-1]
        t = now - history[0][0]
        return x - metres_per_second * t, y, yaw - math.radians(degrees_per_second) * t, v, w

    return lie


LIES = {
    "pose frozen, twist alive": (frozen, {StepStatus.UNTRUSTED}),
    "pose frozen half way, twist alive": (frozen_after(0.1, 1.0), {StepStatus.UNTRUSTED}),
    "sign reversed": (scaled(-1.0), {StepStatus.UNTRUSTED}),
    "sign reversed, slow": (scaled(-0.2), {StepStatus.UNTRUSTED}),
    "slips back": (slips_back, {StepStatus.UNTRUSTED}),
    "drifts back": (drifting(0.25, 20), {StepStatus.UNTRUSTED}),
    "scale 0.05": (scaled(0.05), {StepStatus.UNTRUSTED, StepStatus.BLOCKED}),
    "scale 0.1": (scaled(0.1), {StepStatus.UNTRUSTED}),
    "scale 0.3": (scaled(0.3), {StepStatus.UNTRUSTED}),
    "scale 0.5": (scaled(0.5), {StepStatus.UNTRUSTED}),
    "scale 0.6": (scaled(0.6), {StepStatus.UNTRUSTED}),
    "1 s late": (late_by(1.0), {StepStatus.UNTRUSTED, StepStatus.BLOCKED}),
    "0.5 s late": (late_by(0.5), {StepStatus.UNTRUSTED}),
    "3 s late": (late_by(3.0), {StepStatus.UNTRUSTED, StepStatus.BLOCKED}),
    "pose and twist dead, stamps alive": (dead, {StepStatus.BLOCKED}),
}


@pytest.mark.parametrize("action", [Action.MOVE_FORWARD, Action.TURN_LEFT, Action.TURN_RIGHT])
@pytest.mark.parametrize("lie", LIES)
def test_no_lie_of_odometry_buys_more_than_a_step_and_a_half(lie, action):
    tell, statuses = LIES[lie]
    world = World(tell)
    done = world.step(action)
    assert bound_holds(world, action), (world.metres, world.degrees)
    assert done.status in statuses, (done.status, done.message)
    assert world.state.armed == (done.status != StepStatus.UNTRUSTED)


@pytest.mark.parametrize("degrees", [90, 45, -90, 180])
def test_odometry_that_is_rotated_buys_no_more_and_no_turn(degrees):
    world = World(rotated(degrees))
    done = world.step(Action.MOVE_FORWARD)
    assert world.metres <= 0.375 and world.degrees <= 12.0
    assert done.status == StepStatus.UNTRUSTED and not world.state.armed


@pytest.mark.parametrize("share", [0.7, 0.75, 0.85, 1.0])
@pytest.mark.parametrize("action", [Action.MOVE_FORWARD, Action.TURN_LEFT])
def test_a_scale_that_may_be_slip_is_within_the_bound_too(share, action):
    world = World(scaled(share))
    world.step(action)
    assert bound_holds(world, action)


@pytest.mark.parametrize("action", [Action.MOVE_FORWARD, Action.TURN_LEFT])
def test_dead_odometry_buys_no_more_with_every_further_step(action):
    world = World(dead)
    for _ in range(3):
        assert world.step(action).status == StepStatus.BLOCKED
        assert bound_holds(world, action)


def test_after_a_step_that_is_not_trusted_nothing_moves_until_somebody_arms():
    world = World(scaled(0.2))
    assert world.step(Action.MOVE_FORWARD).status == StepStatus.UNTRUSTED
    assert world.step(Action.MOVE_FORWARD).status == StepStatus.DISARMED
    assert world.metres == 0.0


def test_what_was_commanded_and_what_odometry_saw_are_told():
    done = World(scaled(0.1)).step(Action.MOVE_FORWARD)
    assert done.message == "0.34 m commanded, odometry saw 0.03"
    done = World(scaled(0.1)).step(Action.TURN_RIGHT)
    assert "degrees commanded, odometry saw -2.0" in done.message


@pytest.mark.parametrize(
    ("action", "tell"),
    [
        (Action.MOVE_FORWARD, {"degrees": 90}),
        (Action.MOVE_FORWARD, {"degrees": -30}),
        (Action.MOVE_FORWARD, {"degrees": 90, "over": 10}),
        (Action.MOVE_FORWARD, {"metres": 0.2}),
        (Action.MOVE_FORWARD, {"metres": 3.0, "over": 20}),
        (Action.TURN_LEFT, {"degrees": -170}),
        (Action.TURN_RIGHT, {"degrees": 170, "over": 12}),
        (Action.TURN_LEFT, {"metres": 0.2}),
    ],
)
def test_a_jump_that_the_base_cannot_make_ends_the_step(action, tell):
    world = World(jumps(**tell))
    done = world.step(action)
    assert done.status == StepStatus.STALE and "jumped" in done.message
    assert bound_holds(world, action) and world.metres < 0.2 and world.degrees < 20
    # the result tells the way as it was before the jump
    assert math.hypot(done.moved.x, done.moved.y) < 0.3 and abs(done.moved.yaw) < 0.5


def test_odometry_that_jumps_between_steps_does_not_disturb_the_next():
    world = World()
    world.lie = lambda now, history: (5.0 + history[-1][1], *honest(now, history)[1:])
    world.tick()
    assert world.step(Action.MOVE_FORWARD).status == StepStatus.SUCCEEDED


# Stamps


@pytest.mark.parametrize(
    ("shift", "words"), [(-5, "5.00 s old"), (5, "in the future"), (-1, "old"), (1, "future")]
)
def test_odometry_whose_stamps_are_off_is_refused_by_name_when_arming_and_in_the_step(
    shift, words
):
    world = World()
    world.ask(Action.MOVE_FORWARD)
    world.run(0.3)
    world.stamp = lambda ns: ns + shift * S
    world.run(1.5)
    done = world.done[-1]
    assert done.status == StepStatus.STALE and world.metres < 0.3
    world.run(0.4)
    told = arming_problem(world.state, world.now, world.settings)
    assert "odometry" in told and words in told
    again = world.step(Action.MOVE_FORWARD)
    assert again.status == StepStatus.STALE and words in again.message and world.metres == 0


def test_stamps_that_are_frozen_before_the_goal_neither_arm_nor_move():
    world = World()
    fixed = round(world.now * S)
    world.stamp = lambda ns: fixed
    world.run(1.0)
    told = arming_problem(world.state, world.now, world.settings)
    assert "no fresh odometry: its stamps do not advance" in told
    done = world.step(Action.MOVE_FORWARD)
    assert done.status == StepStatus.STALE and "do not advance" in done.message
    assert world.metres == 0


@pytest.mark.parametrize(("shift", "words"), [(-5, "5.00 s old"), (5, "in the future"), (0, "")])
def test_range_data_whose_stamps_are_off_is_refused_by_name(shift, words):
    world = World(range_source="scan", range_timeout=0.25)
    stamp = world.now
    for _ in range(20):
        world.tick()
        stamp = world.now if shift else stamp
        world.do(Ranges(world.now, round((stamp + shift) * S), 3.0, 1.0))
    done = world.step(Action.MOVE_FORWARD)
    assert done.status == StepStatus.STALE and "scan" in done.message and world.metres == 0
    assert (words or "do not advance") in done.message


def test_what_is_misdated_is_said_with_the_remedy():
    assert misdated("odometry", 10 * S, 10 * S + S // 4, 0.5, 0.1) is None
    assert misdated("odometry", 10 * S, 11 * S, 0.5, 0.1).startswith("odometry is 1.00 s old")
    assert "use_sim_time" in misdated("scan", 11 * S, 10 * S, 0.5, 0.1)


# The silence test


@pytest.mark.parametrize("action", [Action.MOVE_FORWARD, Action.TURN_LEFT])
@pytest.mark.parametrize("real", [0.8, 1.0, 60.0])
def test_a_base_that_goes_on_without_commands_is_found_out_in_its_first_step(action, real):
    world = World(base_timeout=real, silence_test=True)
    done = world.step(action)
    assert done.status == StepStatus.UNTRUSTED and "base_timeout is 0.2" in done.message
    assert not world.state.armed and world.metres < 0.12 and world.degrees < 15


@pytest.mark.parametrize("action", [Action.MOVE_FORWARD, Action.TURN_RIGHT])
@pytest.mark.parametrize("twist", [1.0, 0.0])
@pytest.mark.parametrize("brake", [(0.5, 1.5), (1.5, 4.0)])
def test_a_base_that_stops_by_itself_as_declared_is_tried_once_and_goes_on(action, twist, brake):
    def lie(now, history):
        _, x, y, yaw, v, w = history[-1]
        return x, y, yaw, twist * v, twist * w

    world = World(lie, late=0.05, latency=0.07, noise=0.02, brake=brake, silence_test=True)
    assert world.step(action).status == StepStatus.SUCCEEDED and world.state.proven
    silent = world.state.silent
    assert world.step(action).status == StepStatus.SUCCEEDED and world.state.silent is silent
    world.do(Arm(world.now, True))
    assert world.state.proven  # it was armed already
    world.do(Arm(world.now, False))
    world.do(Arm(world.now, True))
    assert not world.state.proven


@pytest.mark.parametrize("seed", range(20))
def test_honest_bases_pass_the_silence_test(seed):
    dice = random.Random(seed)
    delay = dice.uniform(0.0, 0.15)
    world = World(
        execution=dice.uniform(0.75, 1.05),
        dead=delay / 2,
        late=delay / 2,
        noise=0.02,
        seed=seed,
        latency=delay + TICK,
        silence_test=True,
    )
    for action in (Action(dice.choice([1, 2, 3])), Action.MOVE_FORWARD):
        assert world.step(action).status == StepStatus.SUCCEEDED
        assert bound_holds(world, action)


# Honest bases


@pytest.mark.parametrize("seed", range(60))
def test_honest_bases_finish_within_their_budget(seed):
    dice = random.Random(seed)
    delay = dice.uniform(0.0, 0.15)
    share = dice.uniform(0.0, 1.0)
    world = World(
        execution=dice.uniform(0.75, 1.05),
        dead=share * delay,
        late=(1 - share) * delay,
        noise=0.02,
        seed=seed,
        latency=delay + TICK,
    )
    for action in (Action.MOVE_FORWARD, Action(dice.choice([2, 3]))):
        done = world.step(action)
        assert done.status == StepStatus.SUCCEEDED, done
        assert world.metres <= 0.25 * 1.35 and world.degrees <= (22.5 if action > 1 else 12)
        used = world.state.ledger.used
        assert used[0] <= 1.35 * 0.25 + 1e-9


@pytest.mark.parametrize("delay", [0.2, 0.3])
@pytest.mark.parametrize("action", [Action.TURN_LEFT, Action.TURN_RIGHT, Action.MOVE_FORWARD])
def test_a_long_delay_that_is_declared_does_not_overshoot(delay, action):
    world = World(late=delay, latency=delay, odom_timeout=0.2)
    assert world.step(action).status == StepStatus.SUCCEEDED
    made = world.x / 0.25 if action is Action.MOVE_FORWARD else math.degrees(abs(world.yaw)) / 15
    assert made == pytest.approx(1.0, abs=0.08)


@pytest.mark.parametrize("action", [Action.MOVE_FORWARD, Action.TURN_LEFT])
def test_a_base_that_does_less_than_it_is_told_finishes_once_its_gain_is_declared(action):
    weak = {"execution": 0.6}
    assert World(**weak).step(action).status == StepStatus.UNTRUSTED
    declared = World(turn_execution=0.6)
    declared.settings = replace(declared.settings, execution=0.6)
    declared.execution = 0.6
    assert declared.step(action).status == StepStatus.SUCCEEDED
    assert bound_holds(declared, action)


@pytest.mark.parametrize("hit", [0.0, 0.05, 0.12, 0.2])
@pytest.mark.parametrize("execution", [0.8, 1.0])
def test_a_base_that_meets_a_wall_on_its_way_is_blocked_and_stays_armed(hit, execution):
    world = World(execution=execution)
    look = world.look

    def against_the_wall():
        world.held = world.held or world.x >= hit
        if world.held:
            world.v = 0.0
        look()

    world.look = against_the_wall
    done = world.step(Action.MOVE_FORWARD)
    assert done.status == StepStatus.BLOCKED and done.collided and world.state.armed, done


# What else a step may not do


@pytest.mark.parametrize("sideways", [0.5, -1.0])
def test_a_base_that_drifts_sideways_does_not_succeed(sideways):
    world = World(sideways=sideways, heading_gain=0.0)
    done = world.step(Action.MOVE_FORWARD)
    assert done.status == StepStatus.UNTRUSTED and "sideways" in done.message
    assert abs(world.y) < 0.15 and not world.state.armed


def test_a_step_that_goes_where_it_was_not_sent_is_told():
    forward, turn = (0.25, 0.0), (0.0, 0.26)
    assert astray(Pose2(0.2, 0.05, 0.1), forward, 0.1) is None
    assert "sideways" in astray(Pose2(0.2, -0.11, 0), forward, 0.1)
    assert "backwards" in astray(Pose2(-0.11, 0, 0), forward, 0.1)
    assert "turned" in astray(Pose2(0.1, 0, -0.5), forward, 0.1)
    assert "from its place" in astray(Pose2(0.08, 0.08, 0.2), turn, 0.1)
    assert astray(Pose2(0.05, 0.05, 0.2), turn, 0.1) is None


def test_speed_and_acceleration_change_between_steps_only():
    world = World()
    world.ask(Action.MOVE_FORWARD)
    world.run(0.3)
    world.settings = replace(world.settings, speed=2.0, acceleration=5.0, rate=4.0)
    fastest = 0.0
    while not world.done:
        world.tick()
        fastest = max(fastest, world.v)
    assert fastest <= 0.3 and world.metres <= 0.27
    world.ask(Action.MOVE_FORWARD)
    world.run(0.3)
    assert world.v > 0.3  # the next step has them


def test_a_loop_that_stalls_goes_on_from_the_speed_that_is_measured():
    world = World(base_timeout=0.2, odom_timeout=1.0, heartbeat_timeout=1.0)
    world.ask(Action.MOVE_FORWARD)
    world.run(0.5)
    for _ in range(60):
        world.base()
    assert world.v == 0
    world.do(Heartbeat(world.now, 1))
    world.look()
    world.do(Tick(world.now, round(world.now * S)))
    assert world.state.ledger.last.speed <= 0.5 * TICK + 1e-9
    while not world.done:
        world.tick()
    assert world.metres <= 0.375


@pytest.mark.parametrize("late", [0.0, 0.1, 0.2])
@pytest.mark.parametrize("wall", [0.45, 0.5, 0.55])
def test_range_data_that_is_late_and_rare_rests_where_it_should(late, wall):
    world = World(range_source="scan", range_timeout=0.25)
    world.clearance, world.range_late, world.range_every = wall, late, 0.2
    world.run(0.6)
    done = world.step(Action.MOVE_FORWARD)
    assert done.status == StepStatus.BLOCKED
    assert wall - world.x == pytest.approx(0.35, abs=0.02)


# The ledger itself

SHAPE = Profile(base_timeout=0.2)


def test_budgets_are_a_step_and_a_third_by_what_the_base_makes_of_a_command():
    assert budget((0.25, 0.0), SHAPE) == pytest.approx((0.3375, math.radians(12)))
    assert budget((0.0, -0.2), SHAPE) == pytest.approx((0.0, 0.27))
    assert budget((0.0, 0.0), SHAPE) == (0.0, 0.0)
    weak = replace(SHAPE, execution=0.6, turn_execution=0.8)
    assert budget((0.25, 0.0), weak)[0] == pytest.approx(0.5625)
    assert budget((0.0, 0.2), weak)[1] == pytest.approx(0.3375)


def test_without_a_goal_nothing_is_let_through():
    assert bounded(Ledger(), 1.0, 0.3, 0.8, SHAPE).last[1:] == (0.0, 0.0)


def test_a_turn_goes_nowhere():
    ledger = granted(Ledger(), (0.0, 0.26), SHAPE)
    assert bounded(ledger, 1.0, 0.3, 0.3, SHAPE).last[1:] == (0.0, 0.3)


@pytest.mark.parametrize("none", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_stand_still(none):
    ledger = granted(Ledger(), (0.25, 0.0), SHAPE)
    assert bounded(ledger, 1.0, none, 0.1, SHAPE).last[1:] == (0.0, 0.0)
    assert bounded(ledger, 1.0, 0.1, none, SHAPE).last[1:] == (0.0, 0.0)


def test_braking_ends_within_what_is_left():
    for left in (0.0, 1e-4, 0.01, 0.1, 1.0):
        v = most(left, 0.5)
        assert v * TICK + v * v / (2 * 0.5) == pytest.approx(left)


@pytest.mark.parametrize("wish", [0.3, -0.3])
def test_full_speed_for_ever_is_braked_into_the_budget_and_no_faster_than_it_can(wish):
    ledger, now, speeds = granted(Ledger(), (0.25, 0.0), SHAPE), 0.0, []
    while not spent(ledger, now, (0.25, 0.0), SHAPE):
        ledger = bounded(ledger, now, wish, 0.0, SHAPE)
        speeds.append(abs(ledger.last.speed))
        now += TICK
    assert sum(speeds) * TICK <= 0.3375
    assert max(a - b for a, b in itertools.pairwise(speeds)) <= 0.5 * TICK * 1.05
    ledger = bounded(ledger, now, 0.0, 0.0, SHAPE)
    assert ledger.used[0] == pytest.approx(0.3375, abs=0.004)


@pytest.mark.parametrize("goal", [(0.25, 0.0), (0.0, math.radians(15))])
@pytest.mark.parametrize("seed", range(20))
def test_where_commands_come_late_they_end_within_the_budget_too(goal, seed):
    dice, shape = random.Random(seed), Settings(base_timeout=0.3)
    ledger, now, metres, radians = granted(Ledger(), goal, shape), 0.0, 0.0, 0.0
    for number in range(300):
        ledger = bounded(ledger, now, shape.speed if goal[0] else 0.0, shape.rate, shape)
        acts = 0.2 if number == 0 else dice.uniform(TICK, 0.2)
        metres, radians = metres + ledger.last.speed * acts, radians + ledger.last.rate * acts
        now += acts
    whole = budget(goal, shape)
    assert metres <= whole[0] + 1e-9 and radians <= whole[1] + 1e-9
    assert metres >= 0.85 * whole[0] if goal[0] else radians >= 0.85 * whole[1]


def test_a_late_command_is_reckoned_with_for_two_seconds_and_no_longer_than_the_time_out():
    shape = Settings(base_timeout=0.3)
    ledger = bounded(Ledger(left=(9.0, 9.0)), 0.0, 0.3, 0.0, shape)
    assert longest(ledger, 0.01, shape) == TICK and longest(ledger, 0.15, shape) == 0.15
    assert longest(ledger, 0.9, shape) == 0.3
    assert longest(ledger, 0.9, Settings(base_timeout=0.0)) == 0.9
    for now in (0.15, 0.17, 1.99):
        ledger = bounded(ledger, now, 0.0, 0.0, shape)
    assert longest(ledger, 1.99, shape) == 0.15  # standstill moves nothing, however long
    ledger = bounded(ledger, 2.0, 0.0, 0.0, shape)
    assert longest(ledger, 2.0, shape) == TICK


def test_a_command_counts_until_the_next_at_most_for_the_time_out_of_the_base():
    ledger = bounded(granted(Ledger(), (0.25, 0.0), SHAPE), 0.0, 0.1, 0.0, SHAPE)
    assert bounded(ledger, 0.1, 0.0, 0.0, SHAPE).used[0] == pytest.approx(0.01)
    assert bounded(ledger, 9.0, 0.0, 0.0, SHAPE).used[0] == pytest.approx(0.02 + 0.005)
    unknown = replace(SHAPE, base_timeout=0.0)
    assert bounded(ledger, 9.0, 0.0, 0.0, unknown).left[0] == 0.0


def test_what_a_base_makes_after_a_command_that_falls_at_once_is_booked():
    """It brakes twice as hard as it speeds up: 0.3 m/s take 0.045 m of braking at 1 m/s^2."""
    ledger = bounded(granted(Ledger(), (0.25, 0.0), SHAPE), 0.0, 0.3, 0.0, SHAPE)
    ledger = bounded(ledger, 0.1, 0.0, 0.0, SHAPE)
    assert ledger.used[0] == pytest.approx(0.03)
    half = bounded(ledger, 0.25, 0.0, 0.0, SHAPE)
    assert half.used[0] == pytest.approx(0.03 + 0.225 * 0.15) and half.fast[0] == pytest.approx(
        0.15
    )
    assert bounded(half, 9.0, 0.0, 0.0, SHAPE).used[0] == pytest.approx(0.03 + 0.045)
    # no more than it falls short of the next command
    slower = bounded(ledger, 0.2, 0.1, 0.0, SHAPE)
    assert slower.used[0] == pytest.approx(0.03 + 0.025)
    assert bounded(slower, 0.4, 0.1, 0.0, SHAPE).used[0] == pytest.approx(0.055 + 0.02 + 0.005)


@pytest.mark.parametrize("action", [Action.TURN_LEFT, Action.TURN_RIGHT])
@pytest.mark.parametrize("grain", [0.02, 0.05, 0.08])
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_commands_that_rise_and_fall_by_coarse_odometry_buy_no_more(share, grain, action):
    """Nudge after nudge, each ended at once: what the base makes while it brakes adds up."""

    def lie(now, history):
        x, y, yaw, v, w = scaled(share)(now, history)
        late = since(history, max(0.0, now - history[0][0] - 1.4))[3]
        return x, y, grain * round(min(share * late, yaw, key=abs) / grain), 5 * v, 5 * w

    world = World(lie, execution=1.1)
    world.step(action)
    assert bound_holds(world, action), world.degrees


def test_turning_back_costs_as_much_as_turning():
    ledger = granted(Ledger(), (0.0, 0.26), SHAPE)
    for i in range(6):
        ledger = bounded(ledger, i * 0.1, 0.0, 0.5 * (-1) ** i, SHAPE)
    assert ledger.used[1] == pytest.approx(0.25)


def test_what_was_travelled_is_the_integral_of_what_was_sent():
    ledger = granted(Ledger(), (1.0, 0.0), SHAPE)
    for at, speed, rate in ((0.0, 0.1, 0.0), (0.1, 0.2, 0.1), (0.2, 0.3, -0.1)):
        ledger = bounded(ledger, at, speed, rate, SHAPE)
    assert travelled(ledger, 0.3, 0.15, SHAPE) == pytest.approx((0.04, -0.005))
    assert travelled(ledger, 0.3, 9.0, SHAPE) == pytest.approx((0.06, 0.0))
    assert travelled(ledger, 0.9, 9.0, SHAPE)[0] == pytest.approx(0.09)  # the base has stopped
    weak = replace(SHAPE, execution=0.5)
    assert travelled(ledger, 0.3, 9.0, weak)[0] == pytest.approx(0.03)
    assert travelled(Ledger(), 1.0, 1.0, SHAPE) == (0.0, 0.0)


def test_after_a_stall_the_next_command_follows_what_is_measured():
    ledger = bounded(granted(Ledger(), (0.25, 0.0), SHAPE), 0.0, 0.3, -0.1, SHAPE)
    assert resumed(ledger, 0.05, (0.0, 0.0)) == ((0.3, -0.1), 0.05)
    assert resumed(ledger, 0.5, (0.2, 0.0)) == ((0.2, -0.0), TICK)
    assert resumed(ledger, 0.5, (9.0, 9.0)) == ((0.3, -0.1), TICK)


def test_a_wall_is_told_from_a_scale():
    assert met_something(0.33, 0.12, 0.15, 0.3375)
    assert not met_something(0.33, 0.03, 0.3, 0.3375)  # a tenth of everything
    assert not met_something(0.33, 0.31, 0.32, 0.3375)  # nothing was in vain


def test_a_jump_is_what_the_base_cannot_make_between_two_messages():
    track = [Sample(S, Pose2())]
    at = S + S // 20
    assert jumped(track, Sample(at, Pose2(0.1, 0, 0.1)), 0.05, 0.1, SHAPE) is None
    assert "0.15 m" in jumped(track, Sample(at, Pose2(0.15, 0, 0)), 0.05, 0.1, SHAPE)[1]
    assert "heading" in jumped(track, Sample(at, Pose2(0, 0, 0.3)), 0.05, 0.1, SHAPE)[1]
    assert jumped(track, Sample(3 * S, Pose2(0.5, 0, 1.0)), 2.0, 0.1, SHAPE) is None
    assert jumped([], Sample(at, Pose2(9, 9, 9)), 0.0, 0.1, SHAPE) is None
    # what is no jump from one message to the next may be one within a quarter of a second
    ramp = [Sample(S + i * S // 50, Pose2(0, 0, 0.12 * i)) for i in range(8)]
    assert all(jumped(ramp[i : i + 1], ramp[i + 1], 0.02, 0.1, SHAPE) is None for i in range(7))
    origin, why = jumped(ramp[:5], ramp[5], 0.02, 0.1, SHAPE)
    assert origin == ramp[0] and "heading" in why
    almost = Pose2(0, 0, math.pi - 0.01)
    wrapped = Sample(at, Pose2(0, 0, -math.pi + 0.01))
    assert jumped([Sample(S, almost)], wrapped, 0.05, 0.1, SHAPE) is None


# Families of liars


@st.composite
def liars(draw):
    """
    A liar: affine in what is true (scale, rotation, mirrored), late, freezing, quantised, drifting
    away, noisy, in any mixture.
    """
    scale = draw(st.floats(-2.0, 2.0))
    angle = draw(st.sampled_from([0.0, 0.0, 0.5, 1.57, 3.1, -1.57]))
    turn_scale = draw(st.sampled_from([scale, 1.0, 0.0, -1.0]))
    lag = draw(st.sampled_from([0.0, 0.0, 0.1, 0.4, 1.0]))
    freeze = draw(st.sampled_from([math.inf, math.inf, 0.3, 1.0]))
    back = draw(st.sampled_from([0.0, 0.0, 0.1, 0.3]))
    grain = draw(st.sampled_from([0.0, 0.0, 0.01, 0.05]))
    twist = draw(st.sampled_from([1.0, 0.0, -1.0, 5.0]))
    noise = draw(st.sampled_from([0.0, 0.001, 0.01]))
    dice = random.Random(draw(st.integers(0, 999)))
    cos, sin = math.cos(angle), math.sin(angle)

    def lie(now, history):
        t = now - history[0][0]
        _, x, y, yaw, v, w = since(history, lag + max(0.0, t - freeze))
        x, y, yaw = scale * (cos * x - sin * y), scale * (sin * x + cos * y), turn_scale * yaw
        x, yaw = x - back * t, yaw - back * t
        pose = (value + dice.gauss(0, noise) for value in (x, y, yaw))
        if grain:
            pose = (grain * round(value / grain) for value in pose)
        return (*pose, twist * v, twist * w)

    return lie


def check_liar(lie, action, dead_time, execution):
    world = World(lie, dead=dead_time, execution=execution)
    world.step(action)
    assert bound_holds(world, action), (world.metres, world.degrees)


FAMILY = given(
    lie=liars(),
    action=st.sampled_from([Action.MOVE_FORWARD, Action.TURN_LEFT, Action.TURN_RIGHT]),
    dead_time=st.sampled_from([0.0, 0.1, 0.2]),
    execution=st.sampled_from([1.0, 0.8, 1.1]),
)
CALM = {"deadline": None, "derandomize": True, "database": None}


@hypothesis_settings(max_examples=25, suppress_health_check=list(HealthCheck), **CALM)
@FAMILY
def test_no_family_of_liars_buys_more_than_a_step_and_a_half(lie, action, dead_time, execution):
    check_liar(lie, action, dead_time, execution)


@pytest.mark.slow
@hypothesis_settings(max_examples=400, suppress_health_check=list(HealthCheck), **CALM)
@FAMILY
def test_no_liar_of_many_buys_more_than_a_step_and_a_half(lie, action, dead_time, execution):
    check_liar(lie, action, dead_time, execution)

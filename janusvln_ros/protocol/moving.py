"""
The motion node's decisions: ``advance(state, event, settings) -> (state, commands)``.

One goal is one bounded motion: ``DRIVING`` until the target, an obstacle or trouble, then
``STOPPING`` with zero velocity until odometry shows standstill, and only then the result. Seconds
are on the steady clock, stamps in ns of ROS time, lengths in metres, angles in radians (REP-103).
"""

import math
from dataclasses import dataclass, replace
from enum import Enum

from janusvln_ros.actions import Action
from janusvln_ros.geometry import Pose2, relative
from janusvln_ros.protocol.exchange import Event, Odometry
from janusvln_ros.protocol.odometry import Sample, finite
from janusvln_ros.protocol.profile import (
    Profile,
    share_done,
    short_of,
    stepped,
    target,
    velocity,
)
from janusvln_ros.protocol.status import StepStatus

DOWNSTREAM_TIMEOUT = 0.3
"""
Seconds after which everything between this node and the wheels must have stopped the base by
itself.
"""

NUDGES = 3
"""Times a motion that came to rest short of its target may go on."""


class Phase(Enum):
    """Where the step stands."""

    IDLE = "idle"
    DRIVING = "driving"
    STOPPING = "stopping"


@dataclass(frozen=True)
class Settings(Profile):
    """What the user chose. See the table in ``nodes/motion.py`` for each."""

    step_deadline: float = 8.0
    stop_time: float = 1.0
    rest_speed: float = 0.02
    rest_rate: float = 0.05
    rest_time: float = 0.1
    stuck_time: float = 1.5
    odom_timeout: float = 0.2
    odom_jump: float = 0.3
    range_source: str = "none"
    range_timeout: float = 0.25
    heartbeat_timeout: float = 0.25
    stop_distance: float = 0.35
    min_known: float = 0.2
    turn_clearance: float = 0.0
    frame_max_age: float = 10.0
    future_tolerance: float = 0.1
    base_timeout: float = 0.0
    discrete: bool = False


# Events --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Goal(Event):
    """
    A step is asked for.

    ``action`` is the number in the message, which may be anything; ``key`` names whom to answer.
    """

    key: int
    episode_id: int
    step: int
    action: int
    frame_stamp: int
    ros_now: int


@dataclass(frozen=True)
class Stop(Event):
    """End the step in flight with ``status`` (cancelled by the client, say)."""

    status: int
    message: str


@dataclass(frozen=True)
class Ranges(Event):
    """
    A range sensor was looked at: free distance in the corridor ahead, the share of the corridor
    that is known, and the nearest thing around.
    """

    stamp: int
    clearance: float
    known: float
    nearest: float = math.inf


@dataclass(frozen=True)
class Heartbeat(Event):
    """``policy`` lives and works on episode ``episode_id``."""

    episode_id: int


@dataclass(frozen=True)
class Arm(Event):
    """Allow motion, or forbid it. Ask ``arming_problem`` first."""

    armed: bool


@dataclass(frozen=True)
class EmergencyStop(Event):
    """The e-stop is pressed or released; releasing does not arm."""

    pressed: bool


@dataclass(frozen=True)
class Activate(Event):
    """The node became active (or, ``active`` False, inactive: at rest and disarmed)."""

    active: bool = True


@dataclass(frozen=True)
class Tick(Event):
    """The control period."""

    ros_now: int


# Commands ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drive:
    """Send a velocity: m/s and rad/s."""

    speed: float
    rate: float


@dataclass(frozen=True)
class Discrete:
    """Send a discrete command to a base that steps by itself."""

    action: Action


@dataclass(frozen=True)
class Progress:
    """How much of the step is done, 0 to 1."""

    key: int
    share: float


@dataclass(frozen=True)
class Done:
    """The result of a step."""

    goal: Goal
    status: int
    message: str
    end_stamp: int
    moved: Pose2
    collided: bool = False


Command = Drive | Discrete | Progress | Done


@dataclass(frozen=True)
class State:
    """Everything the motion node remembers between events."""

    active: bool = False
    armed: bool = False
    estop: bool = False
    phase: Phase = Phase.IDLE
    last: tuple[int, int] = (-1, -1)  # newest episode and step that were accepted
    goal: Goal | None = None
    since: float = 0.0  # when the step began
    stopping_since: float = 0.0
    outcome: tuple[int, str] = (StepStatus.SUCCEEDED, "")
    collided: bool = False
    start: Pose2 = Pose2()  # noqa: RUF009 (a tuple: it cannot change)
    velocity: tuple[float, float] = (0.0, 0.0)  # last sent
    ticked: float = 0.0
    nudges: int = 0
    # since when (steady) and with which stamp odometry shows standstill
    rest: tuple[float, int] | None = None
    odom: Sample | None = None
    odom_at: float = -math.inf
    moving_at: float = 0.0  # when odometry last showed the motion that was asked for
    ranges: Ranges | None = None
    ranges_at: float = -math.inf
    heartbeat: int = 0
    heartbeat_at: float = -math.inf


Outcome = tuple[State, tuple[Command, ...]]


# Transitions ---------------------------------------------------------------------------


def arming_problem(state: State, now: float, settings: Settings) -> str | None:
    """Why the robot may not be armed, or None."""
    if not state.active:
        return "motion is not active"
    if state.estop:
        return "the e-stop is pressed"
    if not 0 < settings.base_timeout <= DOWNSTREAM_TIMEOUT:
        return (
            f"base_timeout is {settings.base_timeout:g}: declare the seconds after "
            "which the base (with twist_mux and smoother) stops by itself without "
            f"commands; they must be at most {DOWNSTREAM_TIMEOUT:g}"
        )
    if now - state.odom_at > settings.odom_timeout:
        return "there is no fresh odometry"
    return None


def goal_problem(state: State, goal: Goal, settings: Settings) -> tuple[int, str] | None:
    """Status and sentence with which a goal is refused, or None."""
    if not state.active:
        return StepStatus.REFUSED, "motion is not active"
    if goal.action not in list(Action):
        return StepStatus.REFUSED, f"action {goal.action} is none of 0 to 3"
    if (goal.episode_id, goal.step) <= state.last:
        return (
            StepStatus.REFUSED,
            f"step {goal.step} of episode {goal.episode_id} is not newer than step "
            f"{state.last[1]} of episode {state.last[0]}",
        )
    if state.goal is not None:
        return (
            StepStatus.REFUSED,
            f"step {state.goal.step} of episode {state.goal.episode_id} is under way",
        )
    if goal.action == Action.STOP:
        return None
    if state.estop or not state.armed:
        return (
            StepStatus.DISARMED,
            "the e-stop is pressed" if state.estop else "not armed: call motion/arm",
        )
    if goal.frame_stamp <= 0:
        return StepStatus.REFUSED, "the stamp of the decision's frame is zero"
    age = (goal.ros_now - goal.frame_stamp) / 1e9
    if age > settings.frame_max_age:
        return (
            StepStatus.STALE,
            f"the decision was made on a frame that is {age:.2f} s old (frame_max_age "
            f"{settings.frame_max_age:g})",
        )
    if age < -settings.future_tolerance:
        return StepStatus.STALE, f"the decision's frame lies {-age:.2f} s in the future"
    if (
        goal.now - state.heartbeat_at <= settings.heartbeat_timeout
        and state.heartbeat > goal.episode_id
    ):
        return StepStatus.REFUSED, f"policy is already at episode {state.heartbeat}"
    return stale(state, goal.now, settings) or None


def stale(state: State, now: float, settings: Settings) -> tuple[int, str] | None:
    """Which watched input has gone stale, or None."""
    if now - state.odom_at > settings.odom_timeout:
        return StepStatus.STALE, f"no odometry for {_seconds(now - state.odom_at)}"
    if settings.range_source != "none" and now - state.ranges_at > settings.range_timeout:
        return (
            StepStatus.STALE,
            f"no {settings.range_source} for {_seconds(now - state.ranges_at)}",
        )
    if now - state.heartbeat_at > settings.heartbeat_timeout:
        return StepStatus.STALE, f"no heartbeat of policy for {_seconds(now - state.heartbeat_at)}"
    return None


def _seconds(gap: float) -> str:
    return f"{gap:.2f} s" if gap < 1e6 else "as long as this node has been up"


def obstacle(state: State, settings: Settings) -> str | None:
    """What stands in the way of the step in flight, or None."""
    if settings.range_source == "none" or state.ranges is None or state.goal is None:
        return None
    if state.goal.action == Action.MOVE_FORWARD:
        if state.ranges.known < settings.min_known:
            return (
                f"only {state.ranges.known:.0%} of the corridor ahead can be seen "
                f"(min_known {settings.min_known:g})"
            )
        if state.ranges.clearance < settings.stop_distance:
            return (
                f"something is {state.ranges.clearance:.2f} m ahead (stop_distance "
                f"{settings.stop_distance:g})"
            )
    elif state.ranges.nearest < settings.turn_clearance:
        return (
            f"something is {state.ranges.nearest:.2f} m away (turn_clearance "
            f"{settings.turn_clearance:g})"
        )
    return None


def advance(state: State, event: Event, settings: Settings) -> Outcome:
    """Return what follows from an event."""
    match event:
        case Goal():
            return _goal(state, event, settings)
        case Stop():
            return _halt(state, event.now, event.status, event.message, settings)
        case Odometry():
            return _odometry(state, event, settings)
        case Ranges():
            if event.stamp <= (state.ranges.stamp if state.goal and state.ranges else -math.inf):
                return state, ()  # a stamp that does not advance is no news
            return replace(state, ranges=event, ranges_at=event.now), ()
        case Heartbeat():
            return replace(state, heartbeat=event.episode_id, heartbeat_at=event.now), ()
        case Arm(armed=True):
            # An act of trust by a person: it also forgets which episodes went before.
            forgotten = (-1, -1) if state.goal is None else state.last
            return replace(state, armed=True, last=forgotten), ()
        case Arm():
            return _disarm(state, event.now, "disarmed", settings)
        case EmergencyStop(pressed=True):
            state = replace(state, estop=True)
            return _disarm(state, event.now, "the e-stop was pressed", settings)
        case EmergencyStop():
            return replace(state, estop=False), ()
        case Activate(active=True):
            return replace(state, active=True, armed=False), ()
        case Activate():
            state = replace(state, active=False)
            return _disarm(state, event.now, "motion was deactivated", settings)
        case Tick():
            return _tick(state, event, settings)
    raise TypeError(f"no such event: {event!r}")


def _disarm(state: State, now: float, why: str, settings: Settings) -> Outcome:
    return _halt(replace(state, armed=False), now, StepStatus.DISARMED, why, settings)


def _goal(state: State, goal: Goal, settings: Settings) -> Outcome:
    if (problem := goal_problem(state, goal, settings)) is not None:
        return state, (Done(goal, *problem, end_stamp=goal.ros_now, moved=Pose2()),)
    start = state.odom.pose if state.odom is not None else Pose2()
    state = replace(
        state,
        last=(goal.episode_id, goal.step),
        goal=goal,
        phase=Phase.DRIVING,
        since=goal.now,
        start=start,
        velocity=(0.0, 0.0),
        ticked=goal.now,
        nudges=0,
        rest=None,
        moving_at=goal.now,
        collided=False,
        outcome=(StepStatus.SUCCEEDED, ""),
    )
    if goal.action == Action.STOP:
        return _halt(state, goal.now, StepStatus.SUCCEEDED, "", settings)
    if why := obstacle(state, settings):
        return _halt(state, goal.now, StepStatus.BLOCKED, why, settings)
    return state, ((Discrete(Action(goal.action)),) if settings.discrete else ())


def _halt(state: State, now: float, status: int, message: str, settings: Settings) -> Outcome:
    """
    Zero velocity now; the result follows when the base is at rest.

    The first reason to stop is the one that is told.
    """
    zero: Command = Discrete(Action.STOP) if settings.discrete else Drive(0.0, 0.0)
    if state.goal is None:
        return replace(state, velocity=(0.0, 0.0)), (zero,)
    if state.phase is Phase.STOPPING:
        outcome = state.outcome if state.outcome[0] != StepStatus.SUCCEEDED else (status, message)
        return replace(state, outcome=outcome), (zero,)
    return replace(
        state,
        phase=Phase.STOPPING,
        stopping_since=now,
        outcome=(status, message),
        velocity=(0.0, 0.0),
        rest=None,
    ), (zero,)


def _odometry(state: State, event: Odometry, settings: Settings) -> Outcome:
    sample, before = event.sample, state.odom
    if not finite(sample):
        if state.phase is Phase.DRIVING:
            return _halt(state, event.now, StepStatus.STALE, "odometry is not a number", settings)
        return state, ()
    if state.goal is not None and before is not None:
        if sample.stamp <= before.stamp:
            return state, ()  # a stamp that does not advance is no news
        jump = math.hypot(sample.pose.x - before.pose.x, sample.pose.y - before.pose.y)
        if state.phase is Phase.DRIVING and jump > settings.odom_jump:
            state = replace(state, odom=sample, odom_at=event.now, start=sample.pose)
            return _halt(
                state, event.now, StepStatus.STALE, f"odometry jumped by {jump:.2f} m", settings
            )
    still = abs(sample.speed) <= settings.rest_speed and abs(sample.rate) <= settings.rest_rate
    rest = None if not still else state.rest or (event.now, sample.stamp)
    moving_at = event.now if not still else state.moving_at
    return replace(state, odom=sample, odom_at=event.now, rest=rest, moving_at=moving_at), ()


def _tick(state: State, event: Tick, settings: Settings) -> Outcome:
    if state.goal is None:
        return state, ()
    return (
        _drive(state, event, settings)
        if state.phase is Phase.DRIVING
        else _settle(state, event, settings)
    )


def _drive(state: State, event: Tick, settings: Settings) -> Outcome:
    assert state.goal is not None and state.odom is not None
    now = event.now
    if (trouble := stale(state, now, settings)) is not None:
        return _halt(state, now, *trouble, settings)
    if state.heartbeat > state.goal.episode_id:
        return _halt(
            state,
            now,
            StepStatus.CANCELED,
            f"policy is already at episode {state.heartbeat}",
            settings,
        )
    if why := obstacle(state, settings):
        return _halt(state, now, StepStatus.BLOCKED, why, settings)
    if now - state.since > settings.step_deadline:
        return _halt(
            state,
            now,
            StepStatus.TIMEOUT,
            f"not done within {settings.step_deadline:g} s",
            settings,
        )
    goal = target(Action(state.goal.action), settings.forward_step, settings.turn_step)
    moved = relative(state.start, state.odom.pose)
    progress = Progress(state.goal.key, share_done(moved, goal))
    if now - state.moving_at > settings.stuck_time:
        state = replace(state, collided=True)
        return _halt(
            state,
            now,
            StepStatus.BLOCKED,
            f"the base has not moved for {settings.stuck_time:g} s",
            settings,
        )
    if settings.discrete:
        if stepped(moved, goal, settings) and state.rest is not None:
            return replace(state, phase=Phase.STOPPING, stopping_since=now), (progress,)
        return state, (progress,)
    clearance = (
        math.inf
        if settings.range_source == "none" or state.ranges is None
        else state.ranges.clearance - settings.stop_distance
    )
    delay = now - state.odom_at + settings.latency
    speed, rate = velocity(
        moved, goal, state.velocity, now - state.ticked, delay, clearance, settings
    )
    state = replace(state, velocity=(speed, rate), ticked=now)
    if speed == 0 and rate == 0:
        state = replace(state, phase=Phase.STOPPING, stopping_since=now, rest=None)
    return state, (Drive(speed, rate), progress)


def _settle(state: State, event: Tick, settings: Settings) -> Outcome:
    """
    Zero velocity until odometry shows standstill; then the result, or another attempt at what is
    missing.
    """
    assert state.goal is not None
    now, zero = event.now, () if settings.discrete else (Drive(0.0, 0.0),)
    waited = now - state.stopping_since
    fresh = now - state.odom_at <= settings.odom_timeout
    at_rest = state.rest is not None and now - state.rest[0] >= settings.rest_time and fresh
    if not at_rest and waited < settings.stop_time:
        return state, zero
    status, message = state.outcome
    moved = relative(state.start, state.odom.pose) if state.odom is not None else Pose2()
    goal = target(Action(state.goal.action), settings.forward_step, settings.turn_step)
    if not at_rest and status == StepStatus.SUCCEEDED:
        status, message = (
            (StepStatus.STALE, "odometry went stale before standstill")
            if not fresh
            else (StepStatus.TIMEOUT, "the base did not come to rest")
        )
    if (
        status == StepStatus.SUCCEEDED
        and not settings.discrete
        and short_of(moved, goal, settings) > 0
    ):
        if state.nudges < NUDGES and now - state.since < settings.step_deadline:
            return replace(
                state, phase=Phase.DRIVING, nudges=state.nudges + 1, ticked=now, moving_at=now
            ), zero
        missing = f"came to rest at {moved.x:.3f} m and {math.degrees(moved.yaw):.1f} degrees"
        status, message = (
            (
                StepStatus.BLOCKED
                if moved.x < settings.forward_step / 2 and goal[0]
                else StepStatus.TIMEOUT
            ),
            missing,
        )
    end_stamp = state.rest[1] if at_rest and state.rest is not None else event.ros_now
    done = Done(state.goal, status, message, end_stamp, moved, state.collided)
    return replace(state, goal=None, phase=Phase.IDLE, velocity=(0.0, 0.0)), (*zero, done)

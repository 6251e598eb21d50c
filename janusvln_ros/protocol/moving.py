"""
The motion node's decisions as pure functions: speed profiles, the stop corridor, and
``advance(state, event, settings) -> (state, commands)``.

One goal is one bounded motion: ``DRIVING`` until the target, an obstacle or trouble, then
``STOPPING`` with zero velocity until odometry shows standstill, and only then the result. Seconds
are on the steady clock, stamps in ns of ROS time, lengths in metres, angles in radians (REP-103).
"""

import math
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import numpy.typing as npt

from janusvln_ros.actions import Action
from janusvln_ros.geometry import Pose2, relative
from janusvln_ros.protocol.driving import StepStatus
from janusvln_ros.protocol.odometry import Sample, finite

DOWNSTREAM_TIMEOUT = 0.3
"""
Seconds after which everything between this node and the wheels must have stopped the base by
itself.
"""

NUDGES = 3
"""Times a motion that came to rest short of its target may go on."""


ORIGIN = Pose2()


class Phase(Enum):
    """Where the step stands."""

    IDLE = "idle"
    DRIVING = "driving"
    STOPPING = "stopping"


@dataclass(frozen=True)
class Settings:
    """What the user chose. See the table in ``nodes/motion.py`` for each."""

    forward_step: float = 0.25
    turn_step: float = math.radians(15)
    speed: float = 0.3
    acceleration: float = 0.5
    rate: float = 0.8
    rate_acceleration: float = 1.5
    crawl_speed: float = 0.03
    crawl_rate: float = 0.08
    heading_gain: float = 2.0
    tolerance: float = 0.015
    turn_tolerance: float = math.radians(1.0)
    latency: float = 0.05
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
class Event:
    """Something happened at ``now``, seconds on the steady clock."""

    now: float


@dataclass(frozen=True)
class Goal(Event):
    """
    A step is asked for.

    ``action`` is the number in the message, which may be anything; ``key`` names whom to answer.
    """

    key: int
    epoch: int
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
class Odometry(Event):
    """The base says where it is."""

    sample: Sample


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
    """``policy`` lives and works on episode ``epoch``."""

    epoch: int


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
    start: Pose2 = ORIGIN
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


# Motion --------------------------------------------------------------------------------


def target(action: Action, settings: Settings) -> tuple[float, float]:
    """Metres forward and radians to the left that an action asks for."""
    turn = {Action.TURN_LEFT: settings.turn_step, Action.TURN_RIGHT: -settings.turn_step}
    return (settings.forward_step if action is Action.MOVE_FORWARD else 0.0), turn.get(action, 0.0)


def profile(
    remaining: float, last: float, limit: float, acceleration: float, dt: float, crawl: float
) -> float:
    """
    Next speed of a trapezoidal profile that comes to rest after ``remaining``: speed up, cruise at
    ``limit``, brake at the last moment, never slower than ``crawl`` until it is there. 0 where
    nothing remains.
    """
    if not remaining > 0:
        return 0.0
    braking = math.sqrt(2 * acceleration * remaining)
    return min(limit, last + acceleration * dt, max(braking, min(crawl, limit)))


def velocity(
    moved: Pose2,
    goal: tuple[float, float],
    last: tuple[float, float],
    dt: float,
    delay: float,
    clearance: float,
    settings: Settings,
) -> tuple[float, float]:
    """
    Speed and turning rate for a step that has come as far as ``moved`` of ``goal`` (metres,
    radians).

    ``delay``: seconds since ``moved`` was true, during which the base went on; ``clearance``:
    metres it may go before an obstacle.
    """
    forward, turn = goal
    if turn:
        sign = math.copysign(1.0, turn)
        # signed, so that an overshoot beyond the tolerance is turned back
        remaining = turn - moved.yaw
        ahead = sign * remaining - abs(last[1]) * delay
        if ahead <= 0 and remaining * sign < -settings.turn_tolerance:
            return 0.0, -sign * settings.crawl_rate
        return 0.0, sign * profile(
            ahead, abs(last[1]), settings.rate, settings.rate_acceleration, dt, settings.crawl_rate
        )
    ahead = min(forward - moved.x, clearance) - abs(last[0]) * delay
    speed = profile(
        ahead, abs(last[0]), settings.speed, settings.acceleration, dt, settings.crawl_speed
    )
    heading = -settings.heading_gain * (moved.yaw + settings.heading_gain * moved.y)
    most = settings.rate / 2
    return speed, max(-most, min(most, heading)) if speed else 0.0


def short_of(moved: Pose2, goal: tuple[float, float], settings: Settings) -> float:
    """
    How far a step at rest is outside its tolerance (metres or radians, 0 within).

    Going too far forward is not undone: there may be somebody behind.
    """
    forward, turn = goal
    if turn:
        return max(0.0, abs(turn - moved.yaw) - settings.turn_tolerance)
    return max(0.0, forward - moved.x - settings.tolerance)


def stepped(moved: Pose2, goal: tuple[float, float], settings: Settings) -> bool:
    """
    Whether a base that steps by itself has made its step, as exactly as such bases do: three times
    the tolerance short at most, or beyond.
    """
    forward, turn = goal
    if turn:
        return math.copysign(1.0, turn) * (turn - moved.yaw) <= 3 * settings.turn_tolerance
    return forward - moved.x <= 3 * settings.tolerance


def share_done(moved: Pose2, goal: tuple[float, float]) -> float:
    """Progress from 0 to 1."""
    forward, turn = goal
    if not forward and not turn:
        return 1.0
    return max(0.0, min(1.0, moved.yaw / turn if turn else moved.x / forward))


# Corridor ------------------------------------------------------------------------------


def scan_corridor(
    ranges: npt.NDArray[np.float64],
    angle_min: float,
    increment: float,
    range_min: float,
    range_max: float,
    *,
    mount: Pose2,
    half_width: float,
) -> tuple[float, float, float]:
    """
    Free distance ahead of the robot's origin in a corridor, the share of it that is known, and the
    distance of the nearest thing around the origin.

    ``mount``: pose of the sensor on the robot. NaN, infinite and out-of-range readings are
    unknown: neither free nor an obstacle. A beam belongs to it if it points into it within
    ``range_max``; the share is that of the beams which look ahead (60 degrees to either side at
    most) and are known.
    """
    angles = angle_min + increment * np.arange(len(ranges)) + mount.yaw
    with np.errstate(invalid="ignore"):
        known = np.isfinite(ranges) & (ranges >= max(range_min, 1e-3)) & (ranges <= range_max)
    x = mount.x + np.where(known, ranges, 0.0) * np.cos(angles)
    y = mount.y + np.where(known, ranges, 0.0) * np.sin(angles)
    hit = known & (np.abs(y) <= half_width) & (x > 0)
    ahead = np.abs(np.arctan2(np.sin(angles), np.cos(angles))) <= math.atan2(half_width, 0.5)
    clearance = float(x[hit].min()) if hit.any() else math.inf
    share = float(known[ahead].mean()) if ahead.any() else 0.0
    nearest = float(np.hypot(x[known], y[known]).min()) if known.any() else math.inf
    return clearance, share, nearest


def depth_corridor(
    depth_HW: npt.NDArray[np.float32],
    k: tuple[float, ...],
    *,
    height: float,
    pitch: float,
    forward: float,
    half_width: float,
    low: float,
    high: float,
    stride: int = 4,
) -> tuple[float, float]:
    """
    Free distance ahead of the robot's origin in a corridor, from a depth image (metres, NaN
    unknown), and the known share of the corridor's pixels.

    ``k``: the 9 numbers of the camera matrix; the camera is ``height`` above the floor and
    ``forward`` of the origin, looking ``pitch`` radians down. Things from ``low`` to ``high``
    above the floor count. The share is that of the pixels which would see the corridor one metre
    ahead.
    """
    depth = depth_HW[::stride, ::stride].astype(np.float64)
    v, u = np.mgrid[0 : depth_HW.shape[0] : stride, 0 : depth_HW.shape[1] : stride]
    right, down = (u - k[2]) / k[0], (v - k[5]) / k[4]
    # one metre along the optical axis: how far along the floor, and how far up
    along = math.cos(pitch) - down * math.sin(pitch)
    up = -down * math.cos(pitch) - math.sin(pitch)
    with np.errstate(invalid="ignore"):
        x, y, z = forward + depth * along, depth * right, height + depth * up
        known = np.isfinite(depth)
        hit = known & (np.abs(y) <= half_width) & (z >= low) & (z <= high) & (x > 0)
    sees = (np.abs(right) <= half_width) & (height + up >= low) & (height + up <= high)
    share = float(known[sees].mean()) if sees.any() else float(known.mean())
    return (float(x[hit].min()) if hit.any() else math.inf), share


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
    if (goal.epoch, goal.step) <= state.last:
        return (
            StepStatus.REFUSED,
            f"step {goal.step} of episode {goal.epoch} is not newer than step "
            f"{state.last[1]} of episode {state.last[0]}",
        )
    if state.goal is not None:
        return (
            StepStatus.REFUSED,
            f"step {state.goal.step} of episode {state.goal.epoch} is under way",
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
        and state.heartbeat > goal.epoch
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
    """The one transition function."""
    if isinstance(event, Goal):
        return _goal(state, event, settings)
    if isinstance(event, Stop):
        return _halt(state, event.now, event.status, event.message, settings)
    if isinstance(event, Odometry):
        return _odometry(state, event, settings)
    if isinstance(event, Ranges):
        if (
            state.goal is not None
            and state.ranges is not None
            and event.stamp <= state.ranges.stamp
        ):
            return state, ()  # a stamp that does not advance is no news
        return replace(state, ranges=event, ranges_at=event.now), ()
    if isinstance(event, Heartbeat):
        return replace(state, heartbeat=event.epoch, heartbeat_at=event.now), ()
    if isinstance(event, Arm):
        # Arming is an act of trust by a person: it also forgets which episodes went before.
        state = replace(
            state,
            armed=event.armed,
            last=(-1, -1) if event.armed and state.goal is None else state.last,
        )
        return (
            (state, ())
            if event.armed
            else _halt(state, event.now, StepStatus.DISARMED, "disarmed", settings)
        )
    if isinstance(event, EmergencyStop):
        state = replace(state, estop=event.pressed, armed=state.armed and not event.pressed)
        return (
            _halt(state, event.now, StepStatus.DISARMED, "the e-stop was pressed", settings)
            if event.pressed
            else (state, ())
        )
    if isinstance(event, Activate):
        state = replace(state, active=event.active, armed=False)
        return (
            (state, ())
            if event.active
            else _halt(state, event.now, StepStatus.DISARMED, "motion was deactivated", settings)
        )
    if isinstance(event, Tick):
        return _tick(state, event, settings)
    raise TypeError(f"no such event: {event!r}")


def _goal(state: State, goal: Goal, settings: Settings) -> Outcome:
    if (problem := goal_problem(state, goal, settings)) is not None:
        return state, (Done(goal, *problem, end_stamp=goal.ros_now, moved=Pose2()),)
    start = state.odom.pose if state.odom is not None else Pose2()
    state = replace(
        state,
        last=(goal.epoch, goal.step),
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
    if state.heartbeat > state.goal.epoch:
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
    action = Action(state.goal.action)
    goal = target(action, settings)
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
    goal = target(Action(state.goal.action), settings)
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

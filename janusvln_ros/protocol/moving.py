"""
The motion node's decisions: ``advance(state, event, settings) -> (state, commands)``.

One goal is one bounded motion: ``DRIVING`` until the target, an obstacle or trouble, then
``STOPPING`` with zero velocity until odometry shows standstill, and only then the result. Every
velocity passes the ledger (`janusvln_ros.protocol.ledger`) last, and a step keeps the settings
with which it was accepted. Seconds
are on the steady clock, stamps in ns of ROS time, lengths in metres, angles in radians (REP-103).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Any

from janusvln_ros.actions import Action
from janusvln_ros.geometry import Pose2, compose, relative, wrap
from janusvln_ros.protocol import silence
from janusvln_ros.protocol.exchange import Event, Odometry
from janusvln_ros.protocol.ledger import (
    Ledger,
    bounded,
    granted,
    remaining,
    resumed,
    spent,
    travelled,
)
from janusvln_ros.protocol.odometry import Sample, extended, finite, velocity_at
from janusvln_ros.protocol.profile import (
    Profile,
    share_done,
    short_of,
    stepped,
    target,
    velocity,
)
from janusvln_ros.protocol.status import StepStatus
from janusvln_ros.protocol.trust import NOTHING, STEP_SEEN, astray, jumped, met_something, misdated

DOWNSTREAM_TIMEOUT = 0.3
"""
Seconds after which everything between this node and the wheels must have stopped the base by
itself.
"""

NUDGES = 3
"""Times a motion that came to rest short of its target may go on."""

CREEP = 0.5
"""Share of the speed of rest that a base must make over ``stuck_time`` to count as moving."""

HEARTBEAT_WAIT = 2.0
"""
Seconds that the first heartbeat of a policy may take to be heard: a node that has just started
discovers those that were there before it one by one.
"""

LIVES_KNOWN = 16
"""Senders that are told apart; whose heartbeat is older than that of so many others is new."""

OUT_OF_REACH = 2**63
"""Episode numbers from here on are refused: no policy counts so far."""

NEARLY = 0.95
"""Share of its budget with which a step that went too far has spent it."""

OVERTAKEN = 1.0
"""Seconds in which a message that was sent earlier may still arrive after a later one."""


class Phase(Enum):
    """Where the step stands."""

    IDLE = "idle"
    WAITING = "waiting for the policy's heartbeat"
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
    odom_jump: float = 0.1
    input_max_age: float = 0.5
    drift: float = 0.1
    range_source: str = "none"
    range_timeout: float = 0.25
    heartbeat_timeout: float = 0.2
    stop_distance: float = 0.35
    min_known: float = 0.2
    turn_clearance: float = 0.0
    frame_max_age: float = 10.0
    future_tolerance: float = 0.1
    discrete: bool = False
    estop_required: bool = False
    silence_test: bool = True


def settings_of(parameters: Mapping[str, Any]) -> Settings:
    """The settings that the node's parameters mean, by name, where angles are in degrees."""
    names = {each.name for each in fields(Settings)} & parameters.keys()
    chosen = {name: parameters[name] for name in names}
    for angle in {"turn_step", "turn_tolerance"} & names:
        chosen[angle] = math.radians(chosen[angle])
    return Settings(**chosen, discrete=parameters.get("output") == "discrete")


# Events --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Goal(Event):
    """
    A step is asked for.

    ``action`` is the number in the message, which may be anything; ``key`` names whom to answer;
    ``life`` is the random number of the sender's life, 0: none.
    """

    key: int
    episode_id: int
    step: int
    action: int
    frame_stamp: int
    ros_now: int
    life: int = 1


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

    ``blind``: metres ahead of the origin up to which the sensor cannot measure. It tells that
    something is there, not how near, so the base rests before it. ``around``: the known share of
    the worst part around, for turns. ``out_of_view``: what is nearest ahead was seen before, and
    is not seen now.
    """

    stamp: int
    clearance: float
    known: float
    nearest: float = math.inf
    blind: float = 0.0
    around: float = 1.0
    out_of_view: bool = False


@dataclass(frozen=True)
class Unusable(Event):
    """A message of ``source`` (odom, or the range source) came that cannot be read, and why."""

    source: str
    problem: str


@dataclass(frozen=True)
class Heartbeat(Event):
    """The policy of ``life`` lives and works on episode ``episode_id``."""

    episode_id: int
    life: int = 1


@dataclass(frozen=True)
class Arm(Event):
    """Allow motion, or forbid it. Ask ``arming_problem`` first."""

    armed: bool


@dataclass(frozen=True)
class EmergencyStop(Event):
    """
    The e-stop is pressed or released; releasing does not arm.

    ``sent``: when the publisher says it sent this, ns on its clock; 0: it does not say.
    """

    pressed: bool
    sent: int = 0


@dataclass(frozen=True)
class Cliff(Event):
    """
    A sensor that looks down sees an edge, or none; ``sent`` as of `EmergencyStop`.
    """

    seen: bool
    sent: int = 0


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
    """The result of a step; ``commanded``: metres, or radians of a turn, that were sent."""

    goal: Goal
    status: int
    message: str
    end_stamp: int
    moved: Pose2
    collided: bool = False
    commanded: float = 0.0


Command = Drive | Discrete | Progress | Done


@dataclass(frozen=True)
class State:
    """Everything the motion node remembers between events."""

    active: bool = False
    armed: bool = False
    estop: bool | None = None  # pressed; None: it has never spoken
    press: EmergencyStop | None = None  # the last one
    cliff: Cliff | None = None  # what was said last of an edge; None: nothing
    phase: Phase = Phase.IDLE
    # life, episode and step that were accepted last of each sender, newest sender first
    last: tuple[tuple[int, int, int], ...] = ()
    goal: Goal | None = None
    since: float = 0.0  # when the step began
    stopping_since: float = 0.0
    outcome: tuple[int, str] = (StepStatus.SUCCEEDED, "")
    collided: bool = False
    start: Pose2 = Pose2()  # noqa: RUF009 (a tuple: it cannot change)
    settings: Settings | None = None  # of the step in flight
    ledger: Ledger = Ledger()  # noqa: RUF009 (frozen)
    spent: Sample | None = None  # odometry when the budget of the step was spent
    seen: tuple[Pose2, float] = (Pose2(), 0.0)  # where odometry last saw motion; commanded by then
    clock: tuple[float, int] | None = None  # steady seconds and ROS time (ns) of the last tick
    proven: bool = False  # since it was armed, the base has stopped by itself in time
    silent: Sample | None = None  # measured when commands fell silent, to see whether it does
    nudges: int = 0
    # since when (steady) and with which stamp odometry shows standstill
    rest: tuple[float, int] | None = None
    track: tuple[Sample, ...] = ()  # the latest odometry
    odom_at: float = -math.inf
    odom_problem: str = ""  # why the latest odometry cannot be used
    moving_at: float = 0.0  # when odometry last showed the motion that was asked for
    moving_from: Pose2 = Pose2()  # noqa: RUF009  # where the base was then
    ranges: Ranges | None = None
    ranges_at: float = -math.inf
    ranges_problem: str = ""  # why the latest range data cannot be used
    heartbeats: tuple[Heartbeat, ...] = ()  # the last one of each sender, newest last

    @property
    def odom(self) -> Sample | None:
        """The latest odometry that could be used."""
        return self.track[-1] if self.track else None

    @property
    def heartbeat_at(self) -> float:
        """When a policy was last heard, whichever."""
        return self.heartbeats[-1].now if self.heartbeats else -math.inf

    def heard(self, life: int) -> Heartbeat | None:
        """The last heartbeat of one sender."""
        return next((beat for beat in self.heartbeats if beat.life == life), None)


Outcome = tuple[State, tuple[Command, ...]]


# Transitions ---------------------------------------------------------------------------


def arming_problem(
    state: State, now: float, settings: Settings, wiring: str | None = None
) -> str | None:
    """
    Why the robot may not be armed, or None.

    ``wiring``: why no command would reach the base (`janusvln_ros.protocol.wiring`), if so.
    """
    if not state.active:
        return "motion is not active"
    if state.estop:
        return "the e-stop is pressed"
    if state.estop is None and settings.estop_required:
        return (
            "the e-stop has not spoken, and estop_required is set: let it publish false (to keep "
            "it for late-comers, transient local)"
        )
    if not 0 < settings.base_timeout <= DOWNSTREAM_TIMEOUT:
        return (
            f"base_timeout is {settings.base_timeout:g}: declare the seconds after "
            "which the base (with twist_mux and smoother) stops by itself without "
            f"commands; they must be at most {DOWNSTREAM_TIMEOUT:g}"
        )
    if now - state.odom_at > settings.odom_timeout:
        return "there is no fresh odometry" + _because(state.odom_problem)
    if wrong := _misdated(state, now, settings):
        return wrong
    if state.ranges_problem and settings.range_source != "none":
        return f"{settings.range_source} cannot be used: {state.ranges_problem}"
    return blind_turns(settings) or wiring


def goal_problem(state: State, goal: Goal, settings: Settings) -> tuple[int, str] | None:
    """Status and sentence with which a goal is refused, or None."""
    if not state.active:
        return StepStatus.REFUSED, "motion is not active"
    if goal.action not in list(Action):
        return StepStatus.REFUSED, f"action {goal.action} is none of 0 to 3"
    if goal.episode_id >= OUT_OF_REACH:
        return (
            StepStatus.REFUSED,
            f"episode {goal.episode_id} is out of reach: give less than 2^63",
        )
    before = next((steps for life, *steps in state.last if life == goal.life), None)
    if before is not None and [goal.episode_id, goal.step] <= before:
        return (
            StepStatus.REFUSED,
            f"step {goal.step} of episode {goal.episode_id} is not newer than step "
            f"{before[1]} of episode {before[0]}",
        )
    if state.goal is not None:
        return (
            StepStatus.REFUSED,
            f"step {state.goal.step} of episode {state.goal.episode_id} is under way",
        )
    if goal.life == 0:
        told = "its life is 0: send the number that heartbeats of its sender have"
        return StepStatus.REFUSED, told
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
    if other := _other_driver(state, goal, settings):
        return StepStatus.REFUSED, other
    beat = state.heard(goal.life)
    if beat is None:  # it may yet be discovered: nothing moves before
        return stale_sensor(state, goal.now, settings)
    trouble = stale(state, goal.now, goal.life, settings)
    if trouble is None and beat.episode_id > goal.episode_id:
        return StepStatus.REFUSED, f"policy is already at episode {beat.episode_id}"
    return trouble


def _other_driver(state: State, goal: Goal, settings: Settings) -> str | None:
    """Why a goal is refused in the middle of another sender's episode, or None."""
    if not state.last:
        return None
    driver, episode, _ = state.last[0]
    beat = state.heard(driver)
    if driver == goal.life or beat is None or beat.episode_id > episode:
        return None
    if goal.now - beat.now > settings.heartbeat_timeout:
        return None
    return f"another policy (life {driver}) is in the middle of its episode {episode}"


def stale(state: State, now: float, life: int, settings: Settings) -> tuple[int, str] | None:
    """Which watched input has gone stale, or None; the heartbeat is that of ``life`` alone."""
    if (trouble := stale_sensor(state, now, settings)) is not None:
        return trouble
    beat = state.heard(life)
    if beat is None:
        return StepStatus.STALE, f"no heartbeat of the policy that asked (life {life}) was heard"
    if now - beat.now > settings.heartbeat_timeout:
        return StepStatus.STALE, f"no heartbeat of policy for {_seconds(now - beat.now)}"
    return None


def stale_sensor(state: State, now: float, settings: Settings) -> tuple[int, str] | None:
    """Which sensor has gone stale, or None."""
    if now - state.odom_at > settings.odom_timeout:
        missing = f"no odometry for {_seconds(now - state.odom_at)}"
        return StepStatus.STALE, missing + _because(state.odom_problem)
    if settings.range_source != "none" and now - state.ranges_at > settings.range_timeout:
        missing = f"no {settings.range_source} for {_seconds(now - state.ranges_at)}"
        return StepStatus.STALE, missing + _because(state.ranges_problem)
    if wrong := _misdated(state, now, settings):
        return StepStatus.STALE, wrong
    return None


def _ros_time(state: State, now: float) -> int | None:
    """ROS time in ns at ``now``; None before the first tick."""
    return None if state.clock is None else state.clock[1] + round(1e9 * (now - state.clock[0]))


def _misdated(state: State, now: float, settings: Settings) -> str | None:
    """Why the stamps of a watched input cannot be those of now, or None."""
    ros_now, limits = _ros_time(state, now), (settings.input_max_age, settings.future_tolerance)
    if ros_now is None:
        return None
    stamps = {}
    if state.odom is not None:
        stamps["odometry"] = state.odom.stamp
    # one that has fallen silent is stale, whatever its stamps
    if state.ranges is not None and now - state.ranges_at <= settings.range_timeout:
        stamps[settings.range_source] = state.ranges.stamp
    wrong = (misdated(source, stamp, ros_now, *limits) for source, stamp in stamps.items())
    return next((sentence for sentence in wrong if sentence), None)


def _seconds(gap: float) -> str:
    return f"{gap:.2f} s" if gap < 1e6 else "as long as this node has been up"


def _because(problem: str) -> str:
    return f": {problem}" if problem else ""


def rest_distance(ranges: Ranges, settings: Settings) -> float:
    """Metres from the origin to a thing ahead at which the base is at rest."""
    return max(settings.stop_distance, ranges.blind)


def room(state: State, now: float, settings: Settings) -> float:
    """
    Metres that the base may go from now before it must be at rest for what stands ahead: what it
    has gone since the reading was taken is behind it already.
    """
    ranges, ros_now = state.ranges, _ros_time(state, now)
    if settings.range_source == "none" or ranges is None:
        return math.inf
    age = now - state.ranges_at
    if ros_now is not None:
        age = max(age, (ros_now - ranges.stamp) / 1e9)
    gone = travelled(state.ledger, now, age + settings.latency, settings)[0]
    return ranges.clearance - max(0.0, gone) - rest_distance(ranges, settings)


def obstacle(state: State, now: float, settings: Settings) -> str | None:
    """What stands in the way of the step in flight, or None."""
    if state.goal is None or state.goal.action == Action.STOP:
        return None
    if state.cliff is not None and state.cliff.seen:
        return "the cliff sensor sees an edge"
    if state.goal.action != Action.MOVE_FORWARD:
        return _around(state, settings)
    if settings.range_source == "none" or state.ranges is None:
        return None
    if state.ranges.known < settings.min_known:
        return (
            f"only {state.ranges.known:.0%} of the corridor ahead can be seen "
            f"(min_known {settings.min_known:g})"
        )
    if (left := room(state, now, settings)) <= 0:
        told = f"something is {left + rest_distance(state.ranges, settings):.2f} m ahead"
        if state.ranges.blind > settings.stop_distance:
            least = f"{state.ranges.blind:g}"
            return f"{told}; nearer than {least} m {settings.range_source} cannot measure"
        unseen = ", out of the camera's view now" if state.ranges.out_of_view else ""
        return f"{told}{unseen} (stop_distance {settings.stop_distance:g})"
    return None


def blind_turns(settings: Settings) -> str | None:
    """Why ``turn_clearance`` cannot be kept, or None."""
    if not settings.turn_clearance or settings.range_source == "scan":
        return None
    sees = {"none": "which sees nothing"}.get(settings.range_source, "which only sees ahead")
    return (
        f"turn_clearance is {settings.turn_clearance:g}, but range_source is "
        f"{settings.range_source}, {sees}: set range_source to scan, or turn_clearance to 0"
    )


def _around(state: State, settings: Settings) -> str | None:
    """What stands in the way of a turn, or None."""
    if not settings.turn_clearance or state.ranges is None:
        return blind_turns(settings)
    told = f"(turn_clearance {settings.turn_clearance:g}"
    if state.ranges.nearest < settings.turn_clearance:
        return f"something is {state.ranges.nearest:.2f} m away {told})"
    if state.ranges.around < settings.min_known:
        seen = f"only {state.ranges.around:.0%} of a part around can be seen"
        return f"{seen} {told}, min_known {settings.min_known:g})"
    return blind_turns(settings)


def advance(state: State, event: Event, settings: Settings) -> Outcome:
    """
    Return what follows from an event.

    A step keeps the settings with which it was accepted; every velocity passes the ledger.
    """
    chosen = settings if state.settings is None else state.settings
    state, commands = _advance(state, event, chosen)
    told: list[Command] = []
    for command in commands:
        if isinstance(command, Drive):
            ledger = bounded(state.ledger, event.now, command.speed, command.rate, chosen)
            state = replace(state, ledger=ledger)
            command = Drive(ledger.last.speed, ledger.last.rate)
        told.append(command)
    return state, tuple(told)


def _advance(state: State, event: Event, settings: Settings) -> Outcome:
    match event:
        case Goal():
            return _goal(state, event, settings)
        case Stop():
            return _halt(state, event.now, event.status, event.message, settings)
        case Odometry():
            return _odometry(state, event, settings)
        case Ranges():
            return _ranges(state, event, settings)
        case Unusable(source="odom"):
            return _odometry_problem(state, event.now, event.problem, settings)
        case Unusable():
            return _ranges_problem(state, event, settings)
        case Heartbeat():
            return _heartbeat(state, event, settings)
        case Arm(armed=True):
            # An act of trust by a person: it also forgets which episodes went before.
            proven = state.armed and state.proven
            last = state.last[:1] if state.goal else ()
            return replace(state, armed=True, proven=proven, last=last), ()
        case Arm():
            return _disarm(state, event.now, "disarmed", settings)
        case EmergencyStop():
            return _emergency_stop(state, event, settings)
        case Cliff():
            return _cliff(state, event, settings)
        case Activate(active=True):
            return replace(state, active=True, armed=False), ()
        case Activate():
            state = replace(state, active=False)
            return _disarm(state, event.now, "motion was deactivated", settings)
        case Tick():
            return _tick(replace(state, clock=(event.now, event.ros_now)), event, settings)
    raise TypeError(f"no such event: {event!r}")


def _disarm(state: State, now: float, why: str, settings: Settings) -> Outcome:
    return _halt(replace(state, armed=False), now, StepStatus.DISARMED, why, settings)


def _emergency_stop(state: State, event: EmergencyStop, settings: Settings) -> Outcome:
    """
    Any press counts; a release counts unless it was sent before the press and overtaken by it.

    Publishers' clocks may differ, so what was sent earlier is only told by the stamps for as long
    as a message may be under way.
    """
    if event.pressed:
        state = replace(state, estop=True, press=event)
        return _disarm(state, event.now, "the e-stop was pressed", settings)
    overtaken = state.press is not None and _overtaken(event, state.press)
    return replace(state, estop=bool(state.estop and overtaken)), ()


def _overtaken(event: EmergencyStop | Cliff, before: EmergencyStop | Cliff) -> bool:
    """Whether ``event`` was sent before what was heard ``before`` it."""
    return 0 < event.sent < before.sent and event.now - before.now <= OVERTAKEN


def _cliff(state: State, event: Cliff, settings: Settings) -> Outcome:
    """As the e-stop is heard; an edge ends the step, and does not disarm."""
    if not event.seen and state.cliff is not None and _overtaken(event, state.cliff):
        return state, ()
    state = replace(state, cliff=event)
    if state.phase in (Phase.DRIVING, Phase.WAITING) and (
        why := obstacle(state, event.now, settings)
    ):
        return _halt(state, event.now, StepStatus.BLOCKED, why, settings)
    return state, ()


def _goal(state: State, goal: Goal, settings: Settings) -> Outcome:
    if (problem := goal_problem(state, goal, settings)) is not None:
        return state, (Done(goal, *problem, end_stamp=goal.ros_now, moved=Pose2()),)
    others = tuple(steps for steps in state.last if steps[0] != goal.life)
    accepted = ((goal.life, goal.episode_id, goal.step), *others)[:LIVES_KNOWN]
    state = replace(state, last=accepted, goal=goal)
    begun = _ready(state, goal.now, Phase.DRIVING, settings)
    if goal.action == Action.STOP:
        return _halt(begun, goal.now, StepStatus.SUCCEEDED, "", settings)
    if state.heard(goal.life) is None:
        return replace(begun, phase=Phase.WAITING), ()
    return _set_off(begun, goal.now, settings)


def _ready(state: State, now: float, phase: Phase, settings: Settings) -> State:
    """The state in which the goal in flight begins, here and now."""
    assert state.goal is not None
    start = state.odom.pose if state.odom is not None else Pose2()
    return replace(
        state,
        phase=phase,
        since=now,
        start=start,
        settings=settings,
        ledger=granted(state.ledger, _target(state.goal, settings), settings),
        spent=None,
        silent=None,
        seen=(start, 0.0),
        nudges=0,
        rest=None,
        moving_at=now,
        moving_from=start,
        collided=False,
        outcome=(StepStatus.SUCCEEDED, ""),
    )


def _set_off(state: State, now: float, settings: Settings) -> Outcome:
    assert state.goal is not None
    if (trouble := _must_stop(state, now, settings)) is not None:
        return _halt(state, now, *trouble, settings)
    return state, ((Discrete(Action(state.goal.action)),) if settings.discrete else ())


def _must_stop(state: State, now: float, settings: Settings) -> tuple[int, str] | None:
    """Status and sentence with which the goal in flight may not go on, or None."""
    assert state.goal is not None
    if (trouble := stale(state, now, state.goal.life, settings)) is not None:
        return trouble
    beat = state.heard(state.goal.life)
    assert beat is not None
    if beat.episode_id > state.goal.episode_id:
        return StepStatus.CANCELED, f"policy is already at episode {beat.episode_id}"
    if why := obstacle(state, now, settings):
        return StepStatus.BLOCKED, why
    return None


def _heartbeat(state: State, event: Heartbeat, settings: Settings) -> Outcome:
    others = tuple(beat for beat in state.heartbeats if beat.life != event.life)
    state = replace(state, heartbeats=(*others, event)[-LIVES_KNOWN:])
    waiting = state.goal if state.phase is Phase.WAITING else None
    if waiting is not None and waiting.life == event.life:
        return _set_off(_ready(state, event.now, Phase.DRIVING, settings), event.now, settings)
    return state, ()


def _target(goal: Goal, settings: Settings) -> tuple[float, float]:
    return target(Action(goal.action), settings.forward_step, settings.turn_step)


def _ranges(state: State, event: Ranges, settings: Settings) -> Outcome:
    before = state.ranges
    if before is not None and _is_no_news(state, event.stamp, before.stamp):
        return _unchanged(state, event.now, settings.range_source, settings), ()
    return replace(state, ranges=event, ranges_at=event.now, ranges_problem=""), ()


def _is_no_news(state: State, stamp: int, before: int) -> bool:
    """Whether a stamp does not advance; between steps a clock that was set back may."""
    return stamp <= before and (stamp == before or state.goal is not None)


def _unchanged(state: State, now: float, source: str, settings: Settings) -> State:
    """Say that stamps do not advance, when nothing else has come for too long."""
    why = "its stamps do not advance"
    if source == "odom":
        late = now - state.odom_at > settings.odom_timeout
        return replace(state, odom_problem=why) if late else state
    late = now - state.ranges_at > settings.range_timeout
    return replace(state, ranges_problem=why) if late else state


def _distrust(state: State, now: float, why: str, settings: Settings) -> Outcome:
    """End the step and disarm: what odometry says is not what was commanded."""
    return _halt(replace(state, armed=False), now, StepStatus.UNTRUSTED, why, settings)


def _halt(state: State, now: float, status: int, message: str, settings: Settings) -> Outcome:
    """
    Zero velocity now; the result follows when the base is at rest.

    The first reason to stop is the one that is told.
    """
    zero: Command = Discrete(Action.STOP) if settings.discrete else Drive(0.0, 0.0)
    if state.goal is None:
        return state, (zero,)
    if state.phase is Phase.STOPPING:
        outcome = state.outcome if state.outcome[0] != StepStatus.SUCCEEDED else (status, message)
        return replace(state, outcome=outcome), (zero,)
    return replace(
        state,
        phase=Phase.STOPPING,
        stopping_since=now,
        outcome=(status, message),
        rest=None,
    ), (zero,)


def _odometry_problem(state: State, now: float, problem: str, settings: Settings) -> Outcome:
    state = replace(state, odom_problem=problem)
    if state.phase is Phase.DRIVING:
        return _halt(state, now, StepStatus.STALE, problem, settings)
    return state, ()


def _ranges_problem(state: State, event: Unusable, settings: Settings) -> Outcome:
    state = replace(state, ranges_problem=event.problem)
    if state.phase is Phase.DRIVING:
        told = f"{event.source} cannot be used: {event.problem}"
        return _halt(state, event.now, StepStatus.STALE, told, settings)
    return state, ()


def _odometry(state: State, event: Odometry, settings: Settings) -> Outcome:
    sample, before = event.sample, state.odom
    if not finite(sample):
        return _odometry_problem(state, event.now, "odometry is not a number", settings)
    if before is not None and _is_no_news(state, sample.stamp, before.stamp):
        return _unchanged(state, event.now, "odom", settings), ()
    track, gap = extended(state.track, sample), event.now - state.odom_at
    if jump := jumped(state.track, sample, gap, settings.odom_jump, fastest(settings)):
        (origin, why), track = jump, (sample,)
        if state.goal is not None:
            # told on the new side of the jump, the step has gone as far as before it
            start = compose(sample.pose, relative(origin.pose, state.start))
            state = replace(state, track=track, odom_at=event.now, start=start)
            return _halt(state, event.now, StepStatus.STALE, why, settings)
    state = replace(state, track=track, odom_at=event.now, odom_problem="")
    rest = (state.rest or (event.now, sample.stamp)) if at_rest(track, settings) else None
    if moved_on(state.moving_from, sample.pose, settings):
        state = replace(state, moving_at=event.now, moving_from=sample.pose)
    if state.goal is not None and _apart(state.seen[0], sample.pose):
        state = replace(state, seen=(sample.pose, _used(state, event.now, settings)))
    return replace(state, rest=rest), ()


def fastest(settings: Settings) -> Settings:
    """How fast the base may be: one that steps by itself makes a step in a quarter of a second."""
    if not settings.discrete:
        return settings
    return replace(settings, speed=4 * settings.forward_step, rate=4 * settings.turn_step)


def at_rest(track: tuple[Sample, ...], settings: Settings) -> bool:
    """Whether the base stands still, by its poses and not by its twist alone."""
    velocity = velocity_at(track, track[-1].stamp)
    if velocity is None:
        return False
    return abs(velocity[0]) <= settings.rest_speed and abs(velocity[1]) <= settings.rest_rate


def moved_on(start: Pose2, end: Pose2, settings: Settings) -> bool:
    """
    Whether the poses show motion: as far as ``CREEP`` of the speed of rest comes in
    ``stuck_time``, so that jitter is none.
    """
    moved, least = relative(start, end), CREEP * settings.stuck_time
    far = math.hypot(moved.x, moved.y) > least * settings.rest_speed
    return far or abs(moved.yaw) > least * settings.rest_rate


def _apart(start: Pose2, end: Pose2) -> bool:
    far, turned = math.hypot(end.x - start.x, end.y - start.y), abs(wrap(end.yaw - start.yaw))
    return far > STEP_SEEN[0] or turned > STEP_SEEN[1]


def _used(state: State, now: float, settings: Settings) -> float:
    """Metres, or radians in a turn, that the step has commanded."""
    assert state.goal is not None
    turns = bool(_target(state.goal, settings)[1])
    return state.ledger.granted[turns] - remaining(state.ledger, now, settings)[turns]


def _tick(state: State, event: Tick, settings: Settings) -> Outcome:
    if state.goal is None:
        return state, ()
    if state.phase is Phase.WAITING:
        if event.now - state.since <= HEARTBEAT_WAIT:
            return state, ()
        missing = f"no heartbeat of the policy that asked (life {state.goal.life})"
        told = f"{missing} within {HEARTBEAT_WAIT:g} s"
        return _halt(state, event.now, StepStatus.STALE, told, settings)
    return (
        _drive(state, event, settings)
        if state.phase is Phase.DRIVING
        else _settle(state, event, settings)
    )


def _drive(state: State, event: Tick, settings: Settings) -> Outcome:
    assert state.goal is not None
    assert state.odom is not None
    now = event.now
    if (trouble := _must_stop(state, now, settings)) is not None:
        return _halt(state, now, *trouble, settings)
    if now - state.since > settings.step_deadline:
        return _halt(
            state,
            now,
            StepStatus.TIMEOUT,
            f"not done within {settings.step_deadline:g} s",
            settings,
        )
    goal = _target(state.goal, settings)
    moved = relative(state.start, state.odom.pose)
    progress = Progress(state.goal.key, share_done(moved, goal))
    if now - state.moving_at > settings.stuck_time:
        return _stuck(state, now, settings)
    if settings.discrete:
        if stepped(moved, goal, settings) and state.rest is not None:
            return replace(state, phase=Phase.STOPPING, stopping_since=now), (progress,)
        return state, (progress,)
    if why := astray(moved, goal, settings.drift):
        return _distrust(state, now, why, settings)
    if spent(state.ledger, now, goal, settings):
        state = replace(state, phase=Phase.STOPPING, stopping_since=now, rest=None)
        return replace(state, spent=state.odom), (Drive(0.0, 0.0), progress)
    measured = velocity_at(state.track, state.track[-1].stamp) or (0.0, 0.0)
    if not state.proven and settings.silence_test:
        state, settings, told = _tried(state, now, moved, measured, settings)
        if told is not None:
            return state, (*told, progress)
    ledger, delay = state.ledger, now - state.odom_at + settings.latency
    last, dt = resumed(ledger, now, measured)
    speed, rate = velocity(
        moved,
        goal,
        last,
        dt,
        travelled(ledger, now, delay, settings),
        room(state, now, settings),
        settings,
    )
    if speed == rate == 0:
        state = replace(state, phase=Phase.STOPPING, stopping_since=now, rest=None)
    return state, (Drive(speed, rate), progress)


def _tried(
    state: State, now: float, moved: Pose2, measured: tuple[float, float], settings: Settings
) -> tuple[State, Settings, tuple[Command, ...] | None]:
    """
    Try whether the base stops by itself without commands: the state, the settings to go on with,
    and what is sent instead of a velocity, if so.
    """
    assert state.goal is not None
    assert state.odom is not None
    goal = _target(state.goal, settings)
    turns = bool(goal[1])
    now_at, pace = measured[turns], silence.pace(turns, settings)
    if state.silent is None:
        free = math.inf if turns else room(state, now, settings)
        left = min(abs(goal[turns]) - abs(moved.yaw if turns else moved.x), free)
        if silence.fits(left, turns, settings):
            if abs(now_at) >= silence.AT_PACE * pace:
                begun = Sample(state.odom.stamp, state.odom.pose, *measured)
                return replace(state, silent=begun), settings, ()
            slow = replace(settings, rate=pace) if turns else replace(settings, speed=pace)
            return state, slow, None
        return state, settings, None
    begun = state.silent
    seconds = (state.odom.stamp - begun.stamp) / 1e9
    in_time = silence.verdict(begun.rate if turns else begun.speed, now_at, seconds, settings)
    if in_time:
        return replace(state, proven=True, silent=None), settings, None
    if in_time is None:
        return state, settings, ()
    why = (
        f"the base goes on {seconds:.2f} s after the last command, but base_timeout is "
        f"{settings.base_timeout:g}: declare what it is, or put twist_mux between"
    )
    state, commands = _distrust(state, now, why, settings)
    return state, settings, commands


def _stuck(state: State, now: float, settings: Settings) -> Outcome:
    assert state.odom is not None
    still, told = f"for {settings.stuck_time:g} s", state.odom
    if abs(told.speed) > settings.rest_speed or abs(told.rate) > settings.rest_rate:
        twist = f"its twist says {told.speed:.2f} m/s and {told.rate:.2f} rad/s"
        doubt = f"odometry contradicts itself: its pose has stood still {still}, {twist}"
        return _distrust(state, now, doubt, settings)
    state = replace(state, collided=True)
    return _halt(state, now, StepStatus.BLOCKED, f"the base has not moved {still}", settings)


def _settle(state: State, event: Tick, settings: Settings) -> Outcome:
    """
    Zero velocity until odometry shows standstill; then the result, or another attempt at what is
    missing.
    """
    assert state.goal is not None
    now, zero = event.now, () if settings.discrete else (Drive(0.0, 0.0),)
    waited = now - state.stopping_since
    fresh = now - state.odom_at <= settings.odom_timeout
    rested = state.rest is not None and now - state.rest[0] >= settings.rest_time and fresh
    if not rested and waited < settings.stop_time:
        return state, zero
    status, message = state.outcome
    moved = relative(state.start, state.odom.pose) if state.odom is not None else Pose2()
    asked, goal = state.goal, _target(state.goal, settings)
    spent_all = state.spent or _overshot(state, now, moved, settings)
    if status == StepStatus.SUCCEEDED and spent_all and fresh:
        status, message = _judged(state, now, moved, rested, settings)
        state = replace(
            state,
            armed=state.armed and status != StepStatus.UNTRUSTED,
            collided=state.collided or status == StepStatus.BLOCKED,
        )
    elif not rested and status == StepStatus.SUCCEEDED:
        status, message = (
            (StepStatus.STALE, "odometry went stale before standstill")
            if not fresh
            else (StepStatus.TIMEOUT, "the base did not come to rest")
        )
    elif (
        status == StepStatus.SUCCEEDED
        and not settings.discrete
        and short_of(moved, goal, settings) > 0
    ):
        if state.nudges < NUDGES and now - state.since < settings.step_deadline:
            here = state.odom.pose if state.odom is not None else Pose2()
            nudged = replace(state, nudges=state.nudges + 1, moving_at=now, moving_from=here)
            return replace(nudged, phase=Phase.DRIVING), zero
        status, message = _came_short(state, now, moved, settings)
    end_stamp = state.rest[1] if rested and state.rest is not None else event.ros_now
    done = Done(
        asked, status, message, end_stamp, moved, state.collided, _used(state, now, settings)
    )
    return replace(state, goal=None, settings=None, phase=Phase.IDLE), (*zero, done)


def _came_short(state: State, now: float, moved: Pose2, settings: Settings) -> tuple[int, str]:
    """Status and sentence of a step that rests outside its tolerance, nudges and all."""
    assert state.goal is not None
    goal, left = _target(state.goal, settings), room(state, now, settings)
    message = f"came to rest at {moved.x:.3f} m and {math.degrees(moved.yaw):.1f} degrees"
    ahead = goal[0] and left < short_of(moved, goal, settings)
    message += f", {left:.2f} m from where the way ahead ends" if ahead else ""
    blocked = ahead or (goal[0] and moved.x < settings.forward_step / 2)
    return StepStatus.BLOCKED if blocked else StepStatus.TIMEOUT, message


def _overshot(state: State, now: float, moved: Pose2, settings: Settings) -> bool:
    """Whether a step forward went too far, on nearly all that it might command."""
    assert state.goal is not None
    forward, most = _target(state.goal, settings)[0], state.ledger.granted[0]
    far = forward > 0 and moved.x > forward + settings.tolerance
    return far and _used(state, now, settings) > NEARLY * most


def _judged(
    state: State, now: float, moved: Pose2, rested: bool, settings: Settings
) -> tuple[int, str]:
    """Status and sentence of a step that has commanded all it may."""
    assert state.goal is not None
    assert state.odom is not None
    goal, used = _target(state.goal, settings), _used(state, now, settings)
    if goal[1]:
        shown, off, tolerance = moved.yaw, goal[1] - moved.yaw, settings.turn_tolerance
        commanded, saw = f"{math.degrees(used):.1f} degrees", f"{math.degrees(shown):.1f}"
    else:
        shown, off, tolerance = moved.x, goal[0] - moved.x, settings.tolerance
        commanded, saw = f"{used:.2f} m", f"{shown:.2f}"
    told = f"{commanded} commanded, odometry saw {saw}"
    if not rested:
        return StepStatus.UNTRUSTED, f"{told} and no standstill"
    if abs(off) <= tolerance:
        return StepStatus.SUCCEEDED, ""
    way = shown if goal[0] else math.copysign(shown, shown * goal[1])
    granted_whole = state.ledger.granted[bool(goal[1])]
    nothing = math.hypot(moved.x, moved.y) < NOTHING[0] and abs(moved.yaw) < NOTHING[1]
    if nothing or met_something(used, way, state.seen[1], granted_whole):
        twist = state.spent or state.odom
        if abs(twist.speed) > settings.rest_speed or abs(twist.rate) > settings.rest_rate:
            says = f"its twist said {twist.speed:.2f} m/s and {twist.rate:.2f} rad/s"
            return StepStatus.UNTRUSTED, f"{told} and stood still while {says}"
        return StepStatus.BLOCKED, f"the base stood still: {told}"
    return StepStatus.UNTRUSTED, told

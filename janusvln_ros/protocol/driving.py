"""
The policy node's decisions as one pure function: ``advance(state, event, settings) -> (state,
commands)``. No ROS, no clock, no threads.

Callbacks of the node turn whatever happens into an event with its time; the node carries the
commands out. One step of an episode is

    WAIT_FRAME --eligible frame--> DECIDING --decision--> MOVING --result--> WAIT_FRAME ...

Cancel, preemption, deactivation, disarm and every error leave through ``ENDING``: the episode id
rises at once, so that nothing decided for the old instruction can act, the step in flight is
cancelled, and the next episode begins when its result (measured standstill) is there. Seconds are
on the steady clock; stamps are ROS time in nanoseconds and are only ever compared with each other
or with the node's ROS time.
"""

import math
import unicodedata
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from janusvln_ros.actions import Action
from janusvln_ros.errors import InputError

MAX_INSTRUCTION = 4000
"""Characters of an instruction."""

JUMP_BACK_NS = 1_000_000_000
"""
Watch-only: stamps that go back by more than this start a new episode (a bag that starts again);
less is jitter.
"""

MAX_QUEUE = 64
"""Watch-only: chosen frames that may wait for the model."""

AGREE_M, AGREE_RAD = 0.02, math.radians(1.5)
"""
How far the final pose may lie from the pose at an early frame for its decision to count
(``pipeline: settle``).
"""


class Phase(Enum):
    """Where the episode stands."""

    IDLE = "idle"
    WAIT_SERVER = "waiting for execute_step"
    WAIT_FRAME = "waiting for a frame"
    DECIDING = "deciding"
    MOVING = "moving"
    ENDING = "ending"


class Code:
    """Error codes of ``FollowInstruction``; a test holds them to the interface."""

    NONE, UNKNOWN = 0, 900
    INVALID_INSTRUCTION, NOT_ACTIVE, NO_FRAME, BAD_FRAME, NOT_UNDERSTOOD, INFERENCE_FAILED = (
        901,
        902,
        903,
        904,
        905,
        906,
    )
    STEP_LIMIT, TIME_LIMIT, BLOCKED, STEP_TIMEOUT, STALE, DISARMED = 907, 908, 909, 910, 911, 912
    PREEMPTED, CANCELED, NO_PROGRESS, NO_MOTION_SERVER = 913, 914, 915, 916


class StepStatus:
    """Status of ``ExecuteStep``; a test holds them to the interface."""

    SUCCEEDED, BLOCKED, TIMEOUT, STALE, DISARMED, REFUSED, CANCELED, FAILED = range(8)


STEP_ENDS = {
    StepStatus.TIMEOUT: Code.STEP_TIMEOUT,
    StepStatus.STALE: Code.STALE,
    StepStatus.DISARMED: Code.DISARMED,
    StepStatus.REFUSED: Code.UNKNOWN,
    StepStatus.CANCELED: Code.UNKNOWN,
    StepStatus.FAILED: Code.UNKNOWN,
}
"""Step statuses that end the episode, and with which code."""


@dataclass(frozen=True)
class Settings:
    """
    What the user chose; times in seconds unless named otherwise.

    See the table in ``nodes/policy.py`` for each.
    """

    execute: bool = True
    clock_checks: bool = True
    settle_time: float = 0.1
    frame_timeout: float = 2.0
    frame_max_age: float = 1.0
    future_tolerance: float = 0.1
    server_timeout: float = 5.0
    step_timeout: float = 10.0
    inference_timeout: float = 30.0
    cancel_timeout: float = 3.0
    resend_after: float = 0.0
    max_steps: int = 500
    time_limit: float = 900.0
    max_blocked: int = 3
    oscillation_steps: int = 12
    progress_window: int = 40
    progress_distance: float = 0.3


# Events --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Event:
    """Something happened at ``now``, seconds on the steady clock."""

    now: float


@dataclass(frozen=True)
class Activate(Event):
    """The node has become active."""


@dataclass(frozen=True)
class Start(Event):
    """
    An instruction arrived.

    ``key`` names whom to answer; ``start_stamp`` (ns, 0: ``ros_now``) is the oldest frame that may
    be used.
    """

    key: int
    instruction: str
    ros_now: int
    start_stamp: int = 0
    max_steps: int = 0
    time_limit: float = 0.0


@dataclass(frozen=True)
class Cancel(Event):
    """
    End the episode of ``key`` (None: whichever runs) with ``code``.

    ``deactivate`` also refuses every later instruction until activated.
    """

    key: int | None
    code: int
    message: str
    deactivate: bool = False


@dataclass(frozen=True)
class Frame(Event):
    """A camera frame arrived; the node holds its pixels under ``stamp`` (ns)."""

    stamp: int
    ros_now: int


@dataclass(frozen=True)
class EarlyFrame(Event):
    """
    ``pipeline: settle``: a frame that shows the robot at its target and slow, with its pose since
    the step began (metres, radians).
    """

    stamp: int
    dx: float
    dy: float
    dyaw: float


@dataclass(frozen=True)
class Decided(Event):
    """
    The model answered ticket ``ticket``.

    ``action`` None: the text is no action. ``payload``: the whole decision, passed through.
    """

    ticket: int
    action: Action | None
    text: str = ""
    payload: Any = None


@dataclass(frozen=True)
class Failed(Event):
    """
    Ticket ``ticket`` came to nothing: ``code`` BAD_FRAME (another frame may do) or
    INFERENCE_FAILED (the episode ends).
    """

    ticket: int
    code: int
    message: str
    ros_now: int = 0


@dataclass(frozen=True)
class StepResult(Event):
    """
    ``execute_step`` ended.

    ``end_stamp`` (ns): first frame stamp that shows the end; the pose change is in the frame of
    the start pose.
    """

    epoch: int
    step: int
    status: int
    message: str = ""
    end_stamp: int = 0
    dx: float = 0.0
    dy: float = 0.0
    dyaw: float = 0.0
    ros_now: int = 0


@dataclass(frozen=True)
class ResetFailed(Event):
    """The model could not begin episode ``epoch``: INVALID_INSTRUCTION or INFERENCE_FAILED."""

    epoch: int
    code: int
    message: str


@dataclass(frozen=True)
class Refused(Event):
    """
    The node could not even offer a frame to the model (no intrinsics, say): remembered as the
    reason should none follow.
    """

    code: int
    message: str


@dataclass(frozen=True)
class Tick(Event):
    """Time went by; ``server_ready``: ``execute_step`` is there."""

    ros_now: int
    server_ready: bool = True


# Commands ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reset:
    """Empty the memories for a new episode."""

    epoch: int
    instruction: str


@dataclass(frozen=True)
class Infer:
    """Decide on the frame ``stamp``; ``commit`` False: the decision may be taken back."""

    ticket: int
    stamp: int
    commit: bool = True


@dataclass(frozen=True)
class Commit:
    """Keep the last decision that could be taken back."""


@dataclass(frozen=True)
class Publish:
    """Tell the world about a decision (``decided``) or a failure of the step (``failed``)."""

    epoch: int
    step: int
    stamp: int
    instruction: str
    executed: bool
    decided: Decided | None = None
    failed: Failed | None = None


@dataclass(frozen=True)
class SendGoal:
    """Ask ``motion`` for one step."""

    epoch: int
    step: int
    action: Action
    stamp: int


@dataclass(frozen=True)
class CancelGoal:
    """Stop the step in flight."""


@dataclass(frozen=True)
class Feedback:
    """Progress for the client ``key``."""

    key: int
    step: int
    action: int
    step_status: int
    elapsed: float
    path_length: float
    payload: Any = None


@dataclass(frozen=True)
class Finish:
    """Answer the client ``key``."""

    key: int
    code: int
    message: str
    steps: int = 0
    elapsed: float = 0.0
    path_length: float = 0.0


@dataclass(frozen=True)
class Resend:
    """Ask a lockstep bridge for its last frame again."""


Command = Reset | Infer | Commit | Publish | SendGoal | CancelGoal | Feedback | Finish | Resend


# State ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Early:
    """
    A decision made before the motion's end was confirmed: its ticket, frame and pose, and the
    answer once there.
    """

    ticket: int
    stamp: int
    dx: float
    dy: float
    dyaw: float
    since: float
    decided: Decided | None = None


@dataclass(frozen=True)
class State:
    """Everything the policy node remembers between events."""

    phase: Phase = Phase.IDLE
    active: bool = False
    epoch: int = 0
    ticket: int = 0
    start: Start | None = None
    step: int = 0
    steps: int = 0
    since: float = 0.0  # when this phase began
    not_before: int = 0  # ns; no older frame is used
    used: int = 0  # ns; stamp of the last frame that was used
    newest: int = 0  # ns; watch-only: newest stamp seen
    pending: tuple[int, ...] = ()  # stamps that may still be used
    refusal: tuple[int, str] = (Code.NO_FRAME, "none arrived")
    bad_since: float | None = None  # when the first of a row of bad frames was met
    deciding: int = 0  # ns; stamp of the frame being decided on
    action: Action = Action.STOP  # the one in flight
    goal: tuple[int, int] | None = None  # episode and step of the motion in flight
    resent: bool = False
    early: Early | None = None
    step_status: int = StepStatus.SUCCEEDED
    blocked: int = 0
    path: float = 0.0
    # x, y, yaw since the episode began, from the reported pose changes
    pose: tuple[float, float, float] = (0.0, 0.0, 0.0)
    trail: tuple[tuple[float, float], ...] = ()  # positions after each step
    turns: tuple[Action, ...] = ()  # latest actions
    ending: tuple[int, str] = (0, "")
    following: Start | None = None
    hidden: float = 0.0  # seconds of inference hidden behind motion, in this episode
    discarded: int = 0  # early decisions thrown away, in this episode
    dropped: int = 0  # watch-only: chosen frames for which there was no room


Outcome = tuple[State, tuple[Command, ...]]


def clean_instruction(text: str) -> str:
    """
    ``text`` on one line, control characters as spaces.

    Raises:
        InputError: nothing printable is left, or more than ``MAX_INSTRUCTION`` characters.
    """
    if len(text) > MAX_INSTRUCTION:
        raise InputError(
            f"the instruction has {len(text)} characters; at most {MAX_INSTRUCTION} are allowed"
        )
    kept = "".join(
        " " if unicodedata.category(c).startswith("C") and c not in "\u200c\u200d" else c
        for c in text
    )
    kept = " ".join(kept.split())
    if not any(unicodedata.category(c)[0] in "LNPS" for c in kept):
        raise InputError(
            "the instruction is empty: say where to go, for example 'walk to the table and stop'"
        )
    return kept


def frame_problem(
    stamp: int, not_before: int, used: int, ros_now: int, settings: Settings
) -> str | None:
    """Why a frame may not be used, or None. All stamps in ns."""
    if stamp <= 0:
        return "its stamp is zero"
    if stamp < not_before:
        return f"it is {(not_before - stamp) / 1e9:.3f} s older than the end of the last motion"
    if stamp <= used:
        return "its stamp does not advance"
    if settings.clock_checks:
        age = (ros_now - stamp) / 1e9
        if age < -settings.future_tolerance:
            return f"its stamp lies {-age:.3f} s in the future"
        if age > settings.frame_max_age:
            return f"it is {age:.3f} s old (frame_max_age {settings.frame_max_age})"
    return None


def no_progress(state: State, settings: Settings) -> str | None:
    """
    Why the episode gets nowhere, or None: turning to and fro, or many steps that end where they
    began.
    """
    n = settings.oscillation_steps
    if n and len(state.turns) >= n:
        last = state.turns[-n:]
        if (
            set(last) == {Action.TURN_LEFT, Action.TURN_RIGHT}
            and last[::2] == last[:1] * len(last[::2])
            and last[1::2] == last[1:2] * len(last[1::2])
        ):
            return f"the last {n} steps turned left and right in alternation"
    w = settings.progress_window
    if w and len(state.trail) > w:
        x, y = state.trail[-1 - w]
        if max(math.hypot(a - x, b - y) for a, b in state.trail[-w:]) < settings.progress_distance:
            return f"{w} steps stayed within {settings.progress_distance} m"
    return None


def advance(state: State, event: Event, settings: Settings) -> Outcome:
    """
    The one transition function. Events that do not matter in the present phase change nothing.
    """
    if isinstance(event, Activate):
        return replace(state, active=True), ()
    if isinstance(event, Start):
        return _start(state, event, settings)
    if isinstance(event, Cancel):
        return _cancel(state, event, settings)
    if isinstance(event, Frame):
        return _frame(state, event, settings)
    if isinstance(event, EarlyFrame):
        return _early_frame(state, event)
    if isinstance(event, Decided):
        return _decided(state, event, settings)
    if isinstance(event, Failed):
        return _failed(state, event, settings)
    if isinstance(event, StepResult):
        return _step_result(state, event, settings)
    if isinstance(event, Refused):
        return (
            replace(state, refusal=(event.code, event.message))
            if state.phase is Phase.WAIT_FRAME
            else state
        ), ()
    if isinstance(event, ResetFailed):
        current = (
            state.start is not None
            and event.epoch == state.epoch
            and state.phase is not Phase.ENDING
        )
        return _end(state, event.code, event.message, event.now) if current else (state, ())
    if isinstance(event, Tick):
        return _tick(state, event, settings)
    raise TypeError(f"no such event: {event!r}")


def _finish(state: State, key: int, code: int, message: str, now: float) -> Finish:
    elapsed = now - state.start.now if state.start else 0.0
    return Finish(key, code, message, state.steps, elapsed, state.path)


def _begin(state: State, start: Start, settings: Settings, rest: int = 0) -> Outcome:
    """
    A new episode. ``rest``: ROS time (ns) at which the last motion had ended, where it is known.
    """
    settle = round(settings.settle_time * 1e9)
    # Without clock checks (lockstep, bags) the stamps' clock is not this node's: the first frame
    # that comes is the start unless the client names one.
    oldest = start.start_stamp or (start.ros_now + settle if settings.clock_checks else 0)
    oldest = max(oldest, rest + settle if rest else 0)
    fresh = State(
        phase=Phase.WAIT_SERVER if settings.execute else Phase.WAIT_FRAME,
        active=state.active,
        epoch=state.epoch + 1,
        ticket=state.ticket,
        start=start,
        since=start.now,
        not_before=oldest,
        pending=state.pending if settings.execute else (),
        newest=state.newest,
    )
    return fresh, (Reset(fresh.epoch, start.instruction),)


def _start(state: State, event: Start, settings: Settings) -> Outcome:
    if not state.active:
        return state, (Finish(event.key, Code.NOT_ACTIVE, "the policy node is not active"),)
    try:
        start = replace(event, instruction=clean_instruction(event.instruction))
    except InputError as error:
        return state, (Finish(event.key, Code.INVALID_INSTRUCTION, str(error)),)
    if state.phase is Phase.IDLE:
        return _begin(state, start, settings)
    message = "a newer instruction arrived"
    if state.phase is Phase.ENDING:
        # The newest wins; one that never began is answered at once.
        waiting = (
            (Finish(state.following.key, Code.PREEMPTED, message),) if state.following else ()
        )
        return replace(state, following=start), waiting
    ended, commands = _end(state, Code.PREEMPTED, message, event.now)
    if ended.phase is Phase.IDLE:
        begun, more = _begin(ended, start, settings)
        return begun, commands + more
    return replace(ended, following=start), commands


def _end(state: State, code: int, message: str, now: float) -> Outcome:
    """Leave the episode: the id rises at once; with a step in flight, wait for its result."""
    assert state.start is not None
    raised = replace(state, epoch=state.epoch + 1, early=None)
    if state.goal is not None:
        return replace(raised, phase=Phase.ENDING, since=now, ending=(code, message)), (
            CancelGoal(),
        )
    return _idle(raised), (_finish(state, state.start.key, code, message, now),)


def _idle(state: State) -> State:
    return State(
        active=state.active,
        epoch=state.epoch,
        ticket=state.ticket,
        pending=state.pending,
        newest=state.newest,
    )


def _ended(state: State, now: float, rest: int, settings: Settings) -> Outcome:
    """
    The base is at rest since ``rest`` (or did not answer in time): answer the client and begin
    what is waiting.
    """
    assert state.start is not None
    code, message = state.ending
    commands: tuple[Command, ...] = (_finish(state, state.start.key, code, message, now),)
    following = state.following
    state = _idle(state)
    if following is None:
        return state, commands
    begun, more = _begin(state, replace(following, now=now), settings, rest)
    return begun, commands + more


def _cancel(state: State, event: Cancel, settings: Settings) -> Outcome:
    commands: tuple[Command, ...] = ()
    if event.deactivate:
        state = replace(state, active=False)
    following = state.following
    if following is not None and event.key in (None, following.key):
        commands += (Finish(following.key, event.code, event.message),)
        state = replace(state, following=None)
    if (
        state.start is None
        or event.key not in (None, state.start.key)
        or state.phase is Phase.ENDING
    ):
        return state, commands
    ended, more = _end(state, event.code, event.message, event.now)
    return ended, commands + more


def _frame(state: State, event: Frame, settings: Settings) -> Outcome:
    if settings.execute:
        state = replace(state, pending=(event.stamp,))
    else:
        commands: tuple[Command, ...] = ()
        if state.start is not None and 0 < event.stamp < state.newest - JUMP_BACK_NS:
            # a bag that starts again: same instruction, empty memories
            again = replace(state.start, start_stamp=0, now=event.now)
            state, commands = _begin(
                replace(state, pending=(), newest=event.stamp), again, settings
            )
        if state.phase is Phase.IDLE:
            return replace(state, newest=event.stamp), ()
        room = len(state.pending) < MAX_QUEUE
        pending = state.pending + (event.stamp,) if room else state.pending
        state = replace(
            state,
            newest=max(state.newest, event.stamp),
            pending=pending,
            dropped=state.dropped + (not room),
        )
        state, more = _look(state, event.now, event.ros_now, settings)
        return state, commands + more
    return _look(state, event.now, event.ros_now, settings)


def _look(state: State, now: float, ros_now: int, settings: Settings) -> Outcome:
    """Take the first frame that may be used, if one is waited for."""
    if state.phase is not Phase.WAIT_FRAME:
        return state, ()
    for i, stamp in enumerate(state.pending):
        problem = frame_problem(stamp, state.not_before, state.used, ros_now, settings)
        if problem is None:
            ticket = state.ticket + 1
            state = replace(
                state,
                phase=Phase.DECIDING,
                since=now,
                ticket=ticket,
                used=stamp,
                deciding=stamp,
                pending=state.pending[i + 1 :],
            )
            return state, (Infer(ticket, stamp),)
        if state.refusal[0] != Code.BAD_FRAME:
            state = replace(
                state, refusal=(Code.NO_FRAME, f"the last frame was refused: {problem}")
            )
    if not settings.execute:
        state = replace(state, pending=())
    return state, ()


def _early_frame(state: State, event: EarlyFrame) -> Outcome:
    if (
        state.phase is not Phase.MOVING
        or state.early is not None
        or state.action is Action.STOP
        or event.stamp <= state.used
    ):
        return state, ()
    ticket = state.ticket + 1
    early = Early(ticket, event.stamp, event.dx, event.dy, event.dyaw, event.now)
    return replace(state, ticket=ticket, early=early), (Infer(ticket, event.stamp, commit=False),)


def _decided(state: State, event: Decided, settings: Settings) -> Outcome:
    if (
        state.early is not None
        and event.ticket == state.early.ticket
        and state.phase is Phase.MOVING
    ):
        return replace(state, early=replace(state.early, decided=event)), ()
    if state.phase is not Phase.DECIDING or event.ticket != state.ticket:
        return state, ()  # computed for an episode that has ended
    commands: tuple[Command, ...] = ()
    if state.early is not None:
        # confirmed while it was still being computed
        state = replace(state, early=None, hidden=state.hidden + state.since - state.early.since)
        commands = (Commit(),)
    state, more = _act(state, event, settings)
    return state, commands + more


def _act(state: State, decided: Decided, settings: Settings) -> Outcome:
    """Publish a decision and carry it out."""
    assert state.start is not None
    now, action = decided.now, decided.action
    execute = settings.execute and action is not None
    publish = Publish(
        state.epoch, state.step, state.deciding, state.start.instruction, execute, decided=decided
    )
    feedback = Feedback(
        state.start.key,
        state.step,
        255 if action is None else int(action),
        state.step_status,
        now - state.start.now,
        state.path,
        decided.payload,
    )
    state = replace(state, steps=state.steps + 1, bad_since=None, refusal=State.refusal)
    if action is None and settings.execute:
        state, more = _end(
            state,
            Code.NOT_UNDERSTOOD,
            f"the model wrote {decided.text[:80]!r}, which is no action",
            now,
        )
        return state, (publish, feedback, *more)
    if not settings.execute:
        # Watch-only: the recorded motion goes on whatever the model would have done.
        state = replace(state, phase=Phase.WAIT_FRAME, since=now, step=state.step + 1)
        state, more = _look(state, now, 0, settings)
        return state, (publish, feedback, *more)
    assert action is not None
    state = replace(
        state,
        phase=Phase.MOVING,
        since=now,
        action=action,
        goal=(state.epoch, state.step),
        turns=(*state.turns, action)[-max(settings.oscillation_steps, 1) :],
    )
    return state, (publish, feedback, SendGoal(state.epoch, state.step, action, state.deciding))


def _failed(state: State, event: Failed, settings: Settings) -> Outcome:
    if (
        state.early is not None
        and event.ticket == state.early.ticket
        and state.phase is Phase.MOVING
    ):
        # the frame after the motion decides instead
        return replace(state, early=None, discarded=state.discarded + 1), ()
    if state.phase is not Phase.DECIDING or event.ticket != state.ticket:
        return state, ()
    assert state.start is not None
    publish = Publish(
        state.epoch, state.step, state.deciding, state.start.instruction, False, failed=event
    )
    if event.code == Code.BAD_FRAME:
        # Another frame may do; the time-out of the wait goes on, so that a camera which only sends
        # rubbish ends the episode.
        since = event.now if state.bad_since is None else state.bad_since
        first = state.bad_since is None
        state = replace(
            state,
            phase=Phase.WAIT_FRAME,
            since=since,
            bad_since=since,
            refusal=(Code.BAD_FRAME, event.message),
            early=None,
        )
        state, more = _look(state, event.now, event.ros_now, settings)
        return state, (((publish,) if first else ()) + more)
    state, more = _end(state, event.code, event.message, event.now)
    return state, (publish, *more)


def _step_result(state: State, event: StepResult, settings: Settings) -> Outcome:
    if (event.epoch, event.step) != state.goal:
        return state, ()
    if state.phase is Phase.ENDING:
        return _ended(state, event.now, event.end_stamp, settings)
    x, y, yaw = state.pose
    x, y = (
        x + math.cos(yaw) * event.dx - math.sin(yaw) * event.dy,
        y + math.sin(yaw) * event.dx + math.cos(yaw) * event.dy,
    )
    blocked = state.blocked + 1 if event.status == StepStatus.BLOCKED else 0
    state = replace(
        state,
        goal=None,
        step_status=event.status,
        blocked=blocked,
        path=state.path + math.hypot(event.dx, event.dy),
        pose=(x, y, yaw + event.dyaw),
        trail=(*(state.trail or ((0.0, 0.0),)), (x, y))[-settings.progress_window - 1 :],
    )
    detail = f": {event.message}" if event.message else ""
    if event.status in STEP_ENDS:
        names = {
            StepStatus.TIMEOUT: "ran past its deadline",
            StepStatus.STALE: "lost its inputs",
            StepStatus.DISARMED: "is disarmed",
        }
        names |= {
            StepStatus.REFUSED: "refused the step",
            StepStatus.CANCELED: "cancelled the step",
        }
        return _end(
            state,
            STEP_ENDS[event.status],
            f"motion {names.get(event.status, 'failed')}{detail}",
            event.now,
        )
    if state.action is Action.STOP:
        return _end(state, Code.NONE, "", event.now)
    if settings.max_blocked and blocked >= settings.max_blocked:
        return _end(
            state, Code.BLOCKED, f"{blocked} steps in a row were blocked{detail}", event.now
        )
    if reason := no_progress(state, settings):
        return _end(state, Code.NO_PROGRESS, reason, event.now)
    early, state = state.early, replace(state, early=None, resent=False, step=state.step + 1)
    if (limit := _limit(state, event.now, settings)) is not None:
        return _end(state, *limit, event.now)
    if early is not None:
        turned = math.remainder(early.dyaw - event.dyaw, math.tau)
        if (
            event.status == StepStatus.SUCCEEDED
            and math.hypot(early.dx - event.dx, early.dy - event.dy) <= AGREE_M
            and abs(turned) <= AGREE_RAD
        ):
            state = replace(state, used=early.stamp, deciding=early.stamp, since=event.now)
            if early.decided is None:
                return replace(state, phase=Phase.DECIDING, early=early), ()
            state = replace(state, hidden=state.hidden + early.decided.now - early.since)
            state, more = _act(state, replace(early.decided, now=event.now), settings)
            return state, (Commit(), *more)
        state = replace(state, discarded=state.discarded + 1)
    state = replace(
        state,
        phase=Phase.WAIT_FRAME,
        since=event.now,
        not_before=event.end_stamp + round(settings.settle_time * 1e9),
    )
    return _look(state, event.now, event.ros_now, settings)  # the frame may be here already


def _limit(state: State, now: float, settings: Settings) -> tuple[int, str] | None:
    assert state.start is not None
    steps = state.start.max_steps or settings.max_steps
    if state.steps >= steps:
        return Code.STEP_LIMIT, f"{steps} steps were made without reaching a stop"
    seconds = state.start.time_limit or settings.time_limit
    if now - state.start.now > seconds:
        return Code.TIME_LIMIT, f"{seconds:g} s went by without reaching a stop"
    return None


def _tick(state: State, event: Tick, settings: Settings) -> Outcome:
    """Look at every time-out."""
    waited = event.now - state.since
    if state.phase is Phase.IDLE:
        return state, ()
    if state.phase is Phase.ENDING:
        if waited > settings.cancel_timeout:
            code, message = state.ending
            return _ended(
                replace(
                    state,
                    ending=(
                        code,
                        f"{message} (motion did not confirm standstill within "
                        f"{settings.cancel_timeout:g} s)",
                    ),
                ),
                event.now,
                event.ros_now,
                settings,
            )
        return state, ()
    assert state.start is not None
    if (
        settings.execute
        and (limit := _limit(state, event.now, settings)) is not None
        and limit[0] == Code.TIME_LIMIT
    ):
        return _end(state, *limit, event.now)
    if state.phase is Phase.WAIT_SERVER:
        if event.server_ready:
            return _look(
                replace(state, phase=Phase.WAIT_FRAME, since=event.now),
                event.now,
                event.ros_now,
                settings,
            )
        if waited > settings.server_timeout:
            return _end(
                state,
                Code.NO_MOTION_SERVER,
                f"no server of execute_step within {settings.server_timeout:g} s: is "
                "motion running?",
                event.now,
            )
    elif state.phase is Phase.WAIT_FRAME and settings.execute:
        state, commands = _look(state, event.now, event.ros_now, settings)
        if commands:
            return state, commands
        if waited > settings.frame_timeout:
            code, why = state.refusal
            return _end(
                state,
                code,
                f"no usable frame within {settings.frame_timeout:g} s: {why}",
                event.now,
            )
        if settings.resend_after and waited > settings.resend_after and not state.resent:
            return replace(state, resent=True), (Resend(),)
    elif state.phase is Phase.DECIDING:
        if waited > settings.inference_timeout:
            return _end(
                state,
                Code.INFERENCE_FAILED,
                f"the model took longer than {settings.inference_timeout:g} s",
                event.now,
            )
    elif state.phase is Phase.MOVING:
        if waited > settings.step_timeout:
            return _end(
                state,
                Code.STEP_TIMEOUT,
                f"no result of the step within {settings.step_timeout:g} s",
                event.now,
            )
        if not event.server_ready and waited > settings.server_timeout:
            return _end(
                state,
                Code.NO_MOTION_SERVER,
                "the server of execute_step went away during the step",
                event.now,
            )
    return state, ()

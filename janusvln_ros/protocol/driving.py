"""
The policy node while it drives: ``advance(state, event, settings) -> (state, commands)``.

No ROS, no clock, no threads. One step of an episode is

    WAIT_FRAME --eligible frame--> DECIDING --decision--> MOVING --result--> WAIT_FRAME ...

Cancel, preemption, deactivation, disarm and every error leave through ``ENDING``: the episode id
rises at once, so that nothing decided for the old instruction can act, the step in flight is
cancelled, and the next episode begins when its result (measured standstill) is there.
"""

import math
from dataclasses import dataclass, replace
from itertools import pairwise

from janusvln_ros.actions import FORWARD_STEP_M, TURN_STEP_DEG, Action
from janusvln_ros.geometry import Pose2, compose, relative
from janusvln_ros.protocol.exchange import (
    NO_ACTION,
    Activate,
    Calibration,
    Cancel,
    CancelGoal,
    ClientHeard,
    Command,
    Commit,
    Decided,
    Event,
    Failed,
    Feedback,
    Finish,
    Frame,
    Infer,
    Listen,
    Loading,
    MotionHeard,
    Odometry,
    Phase,
    Publish,
    Resend,
    Reset,
    ResetFailed,
    SendGoal,
    Start,
    StepResult,
    Tick,
    frame_problem,
    hear,
    take_all,
    taken_later,
    warned,
)
from janusvln_ros.protocol.odometry import Sample, extended, sample_at, velocity_at
from janusvln_ros.protocol.profile import target
from janusvln_ros.protocol.status import Code, StepStatus

AGREE_M, AGREE_RAD = 0.02, math.radians(1.5)
"""
How far the final pose may lie from the pose at an early frame for its decision to count, and how
near to its target odometry must put the robot for there to be one (``pipeline: settle``).
"""

REMEMBERED = 20
"""Frames that odometry of their moment may still make early ones (``pipeline: settle``)."""

FROZEN_M, FROZEN_RAD = 0.05, math.radians(3)
"""Motion after which a camera that shows the same picture is frozen."""

CLIENT_LEASE = 1.0
"""Seconds without a heartbeat of its client after which an episode ends."""

CLIENTS_KNOWN = 16
"""Clients whose heartbeats are remembered."""

STEP_LOST = 1.5
"""
Seconds after which a step is lost that ``motion``, which speaks, does not say that it makes: it
was restarted, or died.
"""

STEP_ENDS = {
    StepStatus.TIMEOUT: (Code.STEP_TIMEOUT, "ran past its deadline"),
    StepStatus.STALE: (Code.STALE, "lost its inputs"),
    StepStatus.DISARMED: (Code.DISARMED, "is disarmed"),
    StepStatus.REFUSED: (Code.UNKNOWN, "refused the step"),
    StepStatus.CANCELED: (Code.UNKNOWN, "cancelled the step"),
    StepStatus.FAILED: (Code.UNKNOWN, "failed"),
    StepStatus.UNTRUSTED: (Code.UNTRUSTED, "does not trust the odometry and is disarmed"),
}
"""Step statuses that end the episode: with which code, and what motion did."""


@dataclass(frozen=True)
class Settings:
    """
    What the user chose; times in seconds, lengths in metres, angles in radians.

    See the table in ``nodes/policy.py`` for each. ``camera_info``: the topic of the intrinsics,
    without which no frame is decided on; empty: they are not needed. ``unattended``: whether
    instructions are followed whose client would not be missed.
    """

    unattended: bool = True

    refuse_noise: bool = True
    strict: bool = False
    clock_checks: bool = True
    camera_info: str = ""
    settle_time: float = 0.1
    frame_timeout: float = 2.0
    frame_max_age: float = 1.0
    future_tolerance: float = 0.1
    server_timeout: float = 5.0
    step_timeout: float = 15.0
    inference_timeout: float = 30.0
    cancel_timeout: float = 3.0
    resend_after: float = 0.0
    max_steps: int = 500
    time_limit: float = 900.0
    max_blocked: int = 3
    oscillation_steps: int = 12
    progress_window: int = 40
    progress_distance: float = 0.3
    pipeline: str = "none"
    settle_speed: float = 0.03
    settle_rate: float = 0.1
    forward_step: float = FORWARD_STEP_M
    turn_step: float = math.radians(TURN_STEP_DEG)


@dataclass(frozen=True)
class Early:
    """
    A decision made before the motion's end was confirmed.

    Its ticket, frame and the motion up to that frame, and the answer once there.
    """

    ticket: int
    frame: Frame
    moved: Pose2
    since: float
    decided: Decided | None = None


@dataclass(frozen=True)
class State:
    """Everything the driving node remembers between events."""

    phase: Phase = Phase.IDLE
    active: bool = False
    loading: bool = False  # the model is: instructions wait for it
    listen: Listen = take_all
    episode_id: int = 0
    ticket: int = 0
    start: Start | None = None
    step: int = 0
    steps: int = 0
    since: float = 0.0  # when this phase began
    camera: object = None
    frames: tuple[Frame, ...] = ()  # newest last: those that may still be decided on
    track: tuple[Sample, ...] = ()  # settle: the latest odometry
    not_before: int = 0  # ns; no older frame is used
    used: int = 0  # ns; stamp of the last frame that was used
    refusal: tuple[int, str] = (Code.NO_FRAME, "none arrived")
    bad_since: float | None = None  # when the first of a row of bad frames was met
    deciding: Frame | None = None  # the frame being decided on, or decided on last
    action: Action = Action.STOP  # the one in flight
    goal: tuple[int, int] | None = None  # episode and step of the motion in flight
    step_from: Pose2 | None = None  # settle: where it began
    moved: bool = False  # the last step has moved the base
    resends: int = 0  # how often this step's frame was asked for again
    early: Early | None = None
    step_status: int = StepStatus.SUCCEEDED
    blocked: int = 0
    path: float = 0.0
    pose: Pose2 = Pose2()  # noqa: RUF009  # since the episode began, from the reported motion
    trail: tuple[tuple[float, float], ...] = ()  # positions after each step
    turns: tuple[Action, ...] = ()  # latest actions
    ending: tuple[int, str] = (0, "")
    following: Start | None = None
    clients: tuple[ClientHeard, ...] = ()  # the last heartbeat of each, newest last
    motion_at: float = -math.inf  # when motion was last heard
    step_at: float = -math.inf  # when it last said that it makes the step in flight
    hidden: float = 0.0  # seconds of inference hidden behind motion, in all
    discarded: int = 0  # early decisions thrown away, in all

    @property
    def problem(self) -> str:
        """What keeps it waiting, for diagnostics; empty: nothing worth telling."""
        waits = self.phase is Phase.WAIT_FRAME and self.refusal != State.refusal
        return self.refusal[1] if waits else ""

    @property
    def warning(self) -> str:
        """What of the instruction that is followed may not be understood; empty: nothing."""
        return self.start.warning if self.start else ""

    @property
    def counts(self) -> dict[str, str]:
        """What is counted over all episodes, for diagnostics."""
        seconds, thrown = f"{self.hidden:.3f}", str(self.discarded)
        return {"hidden_seconds": seconds, "discarded_decisions": thrown}


Outcome = tuple[State, tuple[Command, ...]]


def advance(state: State, event: Event, settings: Settings) -> Outcome:
    """Return what follows from an event. Those that do not matter now change nothing."""
    match event:
        case Loading():
            return replace(state, loading=True), ()
        case Activate():
            return _activate(state, event, settings)
        case Start():
            return _start(state, event, settings)
        case Cancel():
            return _cancel(state, event)
        case ClientHeard():
            others = tuple(heard for heard in state.clients if heard.life != event.life)
            return replace(state, clients=(*others, event)[-CLIENTS_KNOWN:]), ()
        case MotionHeard():
            ours = event.step is not None and event.step == state.goal
            at = event.now if ours else state.step_at
            return replace(state, motion_at=event.now, step_at=at), ()
        case Calibration():
            state = replace(state, camera=event.camera)
            return _look(state, event.now, event.ros_now, settings)
        case Frame():
            return _frame(state, event, settings)
        case Odometry():
            state = replace(state, track=extended(state.track, event.sample))
            return _look_early(state, event.now, settings)
        case Decided():
            return _decided(state, event, settings)
        case Failed():
            return _failed(state, event, settings)
        case StepResult() if (event.episode_id, event.step) == state.goal:
            return _step_result(state, event, settings)
        case ResetFailed() if _is_current(state, event.episode_id):
            return _end(state, event.code, event.message, event.now)
        case Tick():
            return _tick(state, event, settings)
    return state, ()


def no_progress(state: State, settings: Settings) -> str | None:
    """
    Return why the episode gets nowhere, or None.

    It turns to and fro, or many steps end where they began.
    """
    n = settings.oscillation_steps
    last = state.turns[-n:]
    turning = n and len(last) == n and set(last) == {Action.TURN_LEFT, Action.TURN_RIGHT}
    if turning and all(a is not b for a, b in pairwise(last)):
        return f"the last {n} steps turned left and right in alternation"
    w = settings.progress_window
    if w and len(state.trail) > w:
        x, y = state.trail[-1 - w]
        if max(math.hypot(a - x, b - y) for a, b in state.trail[-w:]) < settings.progress_distance:
            return f"{w} steps stayed within {settings.progress_distance} m"
    return None


# Episodes -----------------------------------------------------------------------------------


def _is_current(state: State, episode_id: int) -> bool:
    running = state.start is not None and state.phase is not Phase.ENDING
    return running and episode_id == state.episode_id


def _idle(state: State) -> State:
    """What outlives an episode."""
    return State(
        active=state.active,
        listen=state.listen,
        episode_id=state.episode_id,
        ticket=state.ticket,
        camera=state.camera,
        frames=state.frames,
        track=state.track,
        clients=state.clients,
        motion_at=state.motion_at,
        hidden=state.hidden,
        discarded=state.discarded,
    )


def _begin(state: State, start: Start, settings: Settings, rest: int = 0) -> Outcome:
    """Begin an episode; ``rest``: ROS time (ns) at which the last motion ended, if known."""
    settle = round(settings.settle_time * 1e9)
    # Without clock checks (lockstep, bags) the stamps' clock is not this node's: the first frame
    # that comes is the start unless the client names one.
    oldest = start.start_stamp or (start.ros_now + settle if settings.clock_checks else 0)
    fresh = replace(
        _idle(state),
        phase=Phase.WAIT_SERVER,
        episode_id=state.episode_id + 1,
        start=start,
        since=start.now,
        not_before=max(oldest, rest + settle if rest else 0),
    )
    return fresh, (Reset(fresh.episode_id, start.instruction, start.told), *warned(start))


def _finish(state: State, key: int, code: int, message: str, now: float) -> Finish:
    elapsed = now - state.start.now if state.start else 0.0
    return Finish(key, code, message, state.steps, elapsed, state.path)


def _activate(state: State, event: Activate, settings: Settings) -> Outcome:
    following = state.following
    state = replace(state, active=True, loading=False, listen=event.listen)
    if following is None:
        return state, ()
    heard = _hear(state, replace(following, now=event.now), settings)
    if isinstance(heard, Finish):
        return replace(state, following=None), (heard,)
    if state.phase is not Phase.IDLE:
        return replace(state, following=heard), ()
    return _begin(state, heard, settings)


def _hear(state: State, start: Start, settings: Settings) -> Start | Finish:
    refuse, strict = settings.refuse_noise, settings.strict
    return hear(start, state.listen, refuse_noise=refuse, strict=strict)


def _start(state: State, start: Start, settings: Settings) -> Outcome:
    if not (state.active or state.loading):
        return state, (Finish(start.key, Code.NOT_ACTIVE, "the policy node is not active"),)
    if start.problem:
        return state, (Finish(start.key, Code.INVALID_INSTRUCTION, start.problem),)
    if not (start.client or settings.unattended):
        alone = "nobody would notice that its client is gone"
        how = "send it with 'janusvln go', or start the policy with unattended:=true"
        return state, (Finish(start.key, Code.UNATTENDED, f"{alone}: {how}"),)
    if state.active:  # while the model loads, nobody can hear
        heard = _hear(state, start, settings)
        if isinstance(heard, Finish):
            return state, (heard,)
        start = heard
    if state.active and state.phase is Phase.IDLE:
        return _begin(state, start, settings)
    message = "a newer instruction arrived"
    if not state.active or state.phase is Phase.ENDING:
        # The newest wins; one that never began is answered at once.
        old = state.following
        waiting = (Finish(old.key, Code.PREEMPTED, message),) if old else ()
        told = () if state.active else (taken_later(start),)
        return replace(state, following=start), (*waiting, *told)
    ended, commands = _end(state, Code.PREEMPTED, message, start.now)
    if ended.phase is Phase.IDLE:
        begun, more = _begin(ended, start, settings)
        return begun, commands + more
    return replace(ended, following=start), commands


def _end(state: State, code: int, message: str, now: float) -> Outcome:
    """Leave the episode: the id rises at once; with a step in flight, wait for its result."""
    assert state.start is not None
    raised = replace(state, episode_id=state.episode_id + 1, early=None)
    if state.goal is not None:
        ending = replace(raised, phase=Phase.ENDING, since=now, ending=(code, message))
        return ending, (CancelGoal(),)
    return _idle(raised), (_finish(state, state.start.key, code, message, now),)


def _ended(state: State, now: float, rest: int, settings: Settings) -> Outcome:
    """Answer the client and begin what waits: the base is at rest since ``rest``, or is mute."""
    assert state.start is not None
    commands: tuple[Command, ...] = (_finish(state, state.start.key, *state.ending, now),)
    following = state.following
    state = _idle(state)
    if following is None:
        return state, commands
    begun, more = _begin(state, replace(following, now=now), settings, rest)
    return begun, commands + more


def _cancel(state: State, event: Cancel) -> Outcome:
    commands: tuple[Command, ...] = ()
    if event.deactivate:
        # frames of the time before are old news to the next activation
        state = replace(state, active=False, loading=False, frames=())
    following = state.following
    if following is not None and event.key in (None, following.key):
        commands += (Finish(following.key, event.code, event.message),)
        state = replace(state, following=None)
    other = state.start is None or event.key not in (None, state.start.key)
    if other or state.phase is Phase.ENDING:
        return state, commands
    ended, more = _end(state, event.code, event.message, event.now)
    return ended, commands + more


def _limit(state: State, now: float, settings: Settings) -> tuple[int, str] | None:
    assert state.start is not None
    steps = state.start.max_steps or settings.max_steps
    if state.steps >= steps:
        return Code.STEP_LIMIT, f"{steps} steps were made without reaching a stop"
    seconds = state.start.time_limit or settings.time_limit
    if now - state.start.now > seconds:
        return Code.TIME_LIMIT, f"{seconds:g} s went by without reaching a stop"
    return None


def _client_lost(state: State, now: float) -> str | None:
    """Why the client of the running episode is taken for dead, or None."""
    assert state.start is not None
    client = state.start.client
    heard = next((heard.now for heard in state.clients if heard.life == client), state.start.now)
    if not client or now - heard <= CLIENT_LEASE:
        return None
    return f"the client that asked has not been heard for {CLIENT_LEASE:g} s"


# Frames -------------------------------------------------------------------------------------


def _frame(state: State, frame: Frame, settings: Settings) -> Outcome:
    if settings.pipeline == "none":
        return _look(replace(state, frames=(frame,)), frame.now, frame.ros_now, settings)
    state = replace(state, frames=(*state.frames, frame)[-REMEMBERED:])
    state, commands = _look(state, frame.now, frame.ros_now, settings)
    if commands:
        return state, commands
    return _look_early(state, frame.now, settings)


def _look(state: State, now: float, ros_now: int, settings: Settings) -> Outcome:
    """Take the newest frame if it may be used and one is waited for."""
    if state.phase is not Phase.WAIT_FRAME or not state.frames:
        return state, ()
    frame = state.frames[-1]
    if settings.camera_info and state.camera is None:
        missing = f"no camera_info on {settings.camera_info}: publish it"
        refusal = (Code.BAD_FRAME, f"{missing}, or set allow_uncalibrated_camera")
        return replace(state, refusal=refusal), ()
    problem = frame_problem(
        frame,
        not_before=state.not_before,
        used=state.used,
        ros_now=ros_now if settings.clock_checks else None,
        max_age=settings.frame_max_age,
        ahead=settings.future_tolerance,
    )
    if problem is not None:
        if state.refusal[0] != Code.BAD_FRAME:
            refusal = (Code.NO_FRAME, f"the last frame was refused: {problem}")
            state = replace(state, refusal=refusal)
        return state, ()
    state = replace(
        state,
        phase=Phase.DECIDING,
        since=now,
        ticket=state.ticket + 1,
        used=frame.stamp,
        deciding=frame,
        frames=(),
    )
    return state, (Infer(state.ticket, frame, state.camera, state.moved),)


def _look_early(state: State, now: float, settings: Settings) -> Outcome:
    """``settle``: decide on the newest frame that odometry puts at the target, and slow."""
    stopping = state.phase is not Phase.MOVING or state.action is Action.STOP
    if stopping or state.early is not None or state.step_from is None:
        return state, ()
    track = state.track
    for frame in reversed(state.frames):
        sample = sample_at(track, frame.stamp) if frame.stamp > state.used else None
        if sample is None:
            continue
        moved = relative(state.step_from, sample.pose)
        # a short track leaves the twist: whether the final pose agrees is looked at in any case
        speeds = velocity_at(track, frame.stamp) or (sample.speed, sample.rate)
        if _at_target(moved, speeds, state.action, settings):
            ticket = state.ticket + 1
            state = replace(state, ticket=ticket, early=Early(ticket, frame, moved, now))
            return state, (Infer(ticket, frame, state.camera, state.moved, commit=False),)
        break
    return state, ()


def _at_target(
    moved: Pose2, speeds: tuple[float, float], action: Action, settings: Settings
) -> bool:
    forward, turn = target(action, settings.forward_step, settings.turn_step)
    near = abs(moved.x - forward) <= AGREE_M and abs(moved.yaw - turn) <= AGREE_RAD
    slow = abs(speeds[0]) <= settings.settle_speed and abs(speeds[1]) <= settings.settle_rate
    return near and slow


# Decisions ----------------------------------------------------------------------------------


def _decided(state: State, event: Decided, settings: Settings) -> Outcome:
    early = state.early
    if early is not None and event.ticket == early.ticket and state.phase is Phase.MOVING:
        return replace(state, early=replace(early, decided=event)), ()
    if state.phase is not Phase.DECIDING or event.ticket != state.ticket:
        return state, ()  # computed for an episode that has ended
    commands: tuple[Command, ...] = ()
    if early is not None:
        # confirmed while it was still being computed
        state = replace(state, early=None, hidden=(state.hidden + state.since - early.since))
        commands = (Commit(),)
    state, more = _act(state, event, settings)
    return state, commands + more


def _act(state: State, decided: Decided, settings: Settings) -> Outcome:
    """Publish a decision and carry it out."""
    assert state.start is not None and state.deciding is not None
    now, action, start = decided.now, decided.action, state.start
    publish = Publish(
        state.episode_id,
        state.step,
        state.deciding,
        start.instruction,
        executed=action is not None,
        decided=decided,
        waited=now - state.since,
    )
    feedback = Feedback(
        start.key,
        state.step,
        NO_ACTION if action is None else int(action),
        state.step_status,
        now - start.now,
        state.path,
        decided.payload,
        start.warning,
        start.told,
    )
    state = replace(state, steps=state.steps + 1, bad_since=None, refusal=State.refusal)
    if action is None:
        wrote = f"the model wrote {decided.text[:80]!r}, which is no action"
        state, more = _end(state, Code.NOT_UNDERSTOOD, wrote, now)
        return state, (publish, feedback, *more)
    state = replace(
        state,
        phase=Phase.MOVING,
        since=now,
        action=action,
        goal=(state.episode_id, state.step),
        step_from=state.track[-1].pose if state.track else None,
        turns=(*state.turns, action)[-max(settings.oscillation_steps, 1) :],
    )
    assert state.deciding is not None
    goal = SendGoal(state.episode_id, state.step, action, state.deciding.stamp)
    return state, (publish, feedback, goal)


def _failed(state: State, event: Failed, settings: Settings) -> Outcome:
    early = state.early
    if early is not None and event.ticket == early.ticket and state.phase is Phase.MOVING:
        # the frame after the motion decides instead
        return replace(state, early=None, discarded=state.discarded + 1), ()
    if state.phase is not Phase.DECIDING or event.ticket != state.ticket:
        return state, ()
    assert state.start is not None and state.deciding is not None
    text = state.start.instruction
    publish = Publish(state.episode_id, state.step, state.deciding, text, failed=event)
    if event.code != Code.BAD_FRAME:
        state, more = _end(state, event.code, event.message, event.now)
        return state, (publish, *more)
    # Another frame may do; the time-out of the wait goes on, so that a camera which only sends
    # rubbish ends the episode. A row of bad frames is told once.
    first = state.bad_since is None
    since = event.now if state.bad_since is None else state.bad_since
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


# Steps --------------------------------------------------------------------------------------


def _step_result(state: State, event: StepResult, settings: Settings) -> Outcome:
    if state.phase is Phase.ENDING:
        return _ended(state, event.now, event.end_stamp, settings)
    travel, turn = math.hypot(event.moved.x, event.moved.y), abs(event.moved.yaw)
    pose = compose(state.pose, event.moved)
    blocked = state.blocked + 1 if event.status == StepStatus.BLOCKED else 0
    trail = (*(state.trail or ((0.0, 0.0),)), (pose.x, pose.y))
    state = replace(
        state,
        goal=None,
        moved=travel > FROZEN_M or turn > FROZEN_RAD,
        step_status=event.status,
        blocked=blocked,
        path=state.path + travel,
        pose=pose,
        trail=trail[-settings.progress_window - 1 :],
    )
    if (end := _end_of(state, event, settings)) is not None:
        return _end(state, *end, event.now)
    early = state.early
    state = replace(state, early=None, resends=0, step=state.step + 1)
    if (limit := _limit(state, event.now, settings)) is not None:
        return _end(state, *limit, event.now)
    if early is not None:
        if _agrees(early, event):
            return _confirmed(state, early, event.now, settings)
        state = replace(state, discarded=state.discarded + 1)
    not_before = event.end_stamp + round(settings.settle_time * 1e9)
    state = replace(state, phase=Phase.WAIT_FRAME, since=event.now, not_before=not_before)
    return _look(state, event.now, event.ros_now, settings)  # the frame may be here already


def _end_of(state: State, event: StepResult, settings: Settings) -> tuple[int, str] | None:
    """Return the code and the sentence with which a step ends the episode, or None."""
    detail = f": {event.message}" if event.message else ""
    if event.status in STEP_ENDS:
        code, did = STEP_ENDS[event.status]
        return code, f"motion {did}{detail}"
    if state.action is Action.STOP:
        return Code.NONE, ""
    if settings.max_blocked and state.blocked >= settings.max_blocked:
        return Code.BLOCKED, f"{state.blocked} steps in a row were blocked{detail}"
    if reason := no_progress(state, settings):
        return Code.NO_PROGRESS, reason
    return None


def _agrees(early: Early, event: StepResult) -> bool:
    """Whether the step ended where the early frame was taken."""
    off = math.hypot(early.moved.x - event.moved.x, early.moved.y - event.moved.y)
    turned = abs(math.remainder(early.moved.yaw - event.moved.yaw, math.tau))
    return event.status == StepStatus.SUCCEEDED and off <= AGREE_M and turned <= AGREE_RAD


def _confirmed(state: State, early: Early, now: float, settings: Settings) -> Outcome:
    """The early decision counts: carry it out, or wait for it."""
    newer = tuple(f for f in state.frames if f.stamp > early.frame.stamp)
    state = replace(state, used=early.frame.stamp, deciding=early.frame, frames=newer, since=now)
    if early.decided is None:
        return replace(state, phase=Phase.DECIDING, early=early), ()
    state = replace(state, hidden=state.hidden + early.decided.now - early.since)
    state, more = _act(state, replace(early.decided, now=now), settings)
    return state, (Commit(), *more)


# Time ---------------------------------------------------------------------------------------


def _tick(state: State, event: Tick, settings: Settings) -> Outcome:
    """Look at every time-out."""
    now, waited = event.now, event.now - state.since
    if state.phase is Phase.IDLE:
        return state, ()
    if state.phase is Phase.ENDING:
        if waited <= settings.cancel_timeout:
            return state, ()
        code, message = state.ending
        mute = f"motion did not confirm standstill within {settings.cancel_timeout:g} s"
        state = replace(state, ending=(code, f"{message} ({mute})"))
        return _ended(state, now, event.ros_now, settings)
    limit = _limit(state, now, settings)
    if limit is not None and limit[0] == Code.TIME_LIMIT:
        return _end(state, *limit, now)
    if (gone := _client_lost(state, now)) is not None:
        return _end(state, Code.CLIENT_LOST, gone, now)
    if state.phase is Phase.MOVING and _step_lost(state, now):
        code, why = Code.NO_MOTION_SERVER, "motion does not make the step any more"
        ended, more = _end(replace(state, goal=None), code, f"{why}: was it restarted?", now)
        return ended, (CancelGoal(), *more)
    if state.phase is Phase.WAIT_SERVER and event.server_ready:
        waiting = replace(state, phase=Phase.WAIT_FRAME, since=now)
        return _look(waiting, now, event.ros_now, settings)
    if state.phase is Phase.WAIT_FRAME:
        state, commands = _look(state, now, event.ros_now, settings)
        if commands:
            return state, commands
    if (late := _overdue(state, waited, event.server_ready, settings)) is not None:
        return _end(state, *late, now)
    due = settings.resend_after * (state.resends + 1)
    if state.phase is Phase.WAIT_FRAME and due and waited > due:
        return replace(state, resends=state.resends + 1), (Resend(),)
    return state, ()


def _step_lost(state: State, now: float) -> bool:
    """Whether ``motion``, which has spoken, does not say that it makes the step in flight."""
    told = max(state.since, state.step_at)
    return state.motion_at > -math.inf and now - told > STEP_LOST


def _overdue(
    state: State, waited: float, server_ready: bool, settings: Settings
) -> tuple[int, str] | None:
    """Return the code and the sentence of a wait that has lasted too long, or None."""
    s = settings
    match state.phase:
        case Phase.WAIT_SERVER if waited > s.server_timeout:
            missing = f"no server of execute_step within {s.server_timeout:g} s"
            return Code.NO_MOTION_SERVER, f"{missing}: is motion running?"
        case Phase.WAIT_FRAME if waited > s.frame_timeout:
            code, why = state.refusal
            return code, f"no usable frame within {s.frame_timeout:g} s: {why}"
        case Phase.DECIDING if waited > s.inference_timeout:
            return Code.INFERENCE_FAILED, f"the model took longer than {s.inference_timeout:g} s"
        case Phase.MOVING if waited > s.step_timeout:
            return Code.STEP_TIMEOUT, f"no result of the step within {s.step_timeout:g} s"
        case Phase.MOVING if not server_ready and waited > s.server_timeout:
            return Code.NO_MOTION_SERVER, "the server of execute_step went away during the step"
    return None

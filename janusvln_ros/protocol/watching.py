"""
The policy node while it only watches: ``advance(state, event, settings) -> (state, commands)``.

The drive goes on whatever the model says of it, so nothing is sent and nothing is waited for but
the model: chosen frames queue up for it. An episode lasts until the next instruction; a clock that
jumps back, as of a bag that starts again, begins it anew.
"""

from dataclasses import dataclass, field, replace

from janusvln_ros.protocol.choosing import (
    JUMP_BACK_NS,
    Choice,
    Rule,
    missing,
    see_frame,
    see_odometry,
    see_step_end,
)
from janusvln_ros.protocol.exchange import (
    NO_ACTION,
    Activate,
    Calibration,
    Cancel,
    Command,
    Decided,
    Event,
    Failed,
    Feedback,
    Finish,
    Frame,
    Infer,
    Listen,
    Loading,
    Odometry,
    Phase,
    Publish,
    Reset,
    ResetFailed,
    Start,
    StepEnded,
    Tick,
    Warn,
    frame_problem,
    hear,
    take_all,
    taken_later,
    warned,
)
from janusvln_ros.protocol.status import Code, StepStatus

QUIET_S = 3.0
"""Seconds without anything to decide on after which it is told why."""

MAX_QUEUE = 64
"""Chosen frames that may wait for the model."""


@dataclass(frozen=True)
class Settings:
    """What the user chose; seconds. See the table in ``nodes/policy.py`` for each."""

    rule: Rule = field(default_factory=Rule)
    inference_timeout: float = 30.0
    refuse_noise: bool = True
    strict: bool = False


@dataclass(frozen=True)
class State:
    """Everything the watching node remembers between events."""

    active: bool = False
    loading: bool = False  # the model is: instructions wait for it
    following: Start | None = None  # the one that does
    listen: Listen = take_all
    episode_id: int = 0
    ticket: int = 0
    start: Start | None = None  # of the episode that is watched
    step: int = 0
    camera: object = None
    choice: Choice = field(default_factory=Choice)
    queue: tuple[Frame, ...] = ()  # chosen, and not yet decided on
    deciding: Frame | None = None
    since: float = 0.0  # when the model was asked
    newest: int = 0  # newest stamp seen, ns
    used: int = 0  # stamp of the last frame that was used, ns
    bad: bool = False  # the last frame could not be used, which was told
    dropped: int = 0  # chosen frames for which there was no room, in all
    frame_at: float = 0.0  # when the last frame arrived, or the episode began
    able_at: float = 0.0  # when it last had all that it chooses by
    problem: str = ""  # why there is nothing to decide on, for diagnostics

    @property
    def phase(self) -> Phase:
        """Where the episode stands."""
        if self.start is None:
            return Phase.IDLE
        return Phase.WAIT_FRAME if self.deciding is None else Phase.DECIDING

    @property
    def warning(self) -> str:
        """What of the instruction that is watched may not be understood; empty: nothing."""
        return self.start.warning if self.start else ""

    @property
    def counts(self) -> dict[str, str]:
        """What is counted over all episodes, for diagnostics."""
        return {"dropped_frames": str(self.dropped)}


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
        case Calibration():
            return replace(state, camera=event.camera), ()
        case Frame():
            return _frame(state, event, settings)
        case Odometry() if state.start is not None:
            choice, chosen = see_odometry(state.choice, event.sample, settings.rule)
            return _enqueue(replace(state, choice=choice), chosen, event.now)
        case StepEnded() if state.start is not None:
            choice, chosen = see_step_end(state.choice, event.end_stamp)
            return _enqueue(replace(state, choice=choice), chosen, event.now)
        case Decided():
            return _decided(state, event)
        case Failed():
            return _failed(state, event)
        case ResetFailed() if event.episode_id == state.episode_id:
            return _end(state, event.code, event.message, event.now)
        case Tick() if state.start is not None:
            return _tick(state, event, settings)
    return state, ()


def _tick(state: State, event: Tick, settings: Settings) -> Outcome:
    if state.deciding is not None:
        if event.now - state.since <= settings.inference_timeout:
            return replace(state, able_at=event.now, problem=""), ()
        late = f"the model took longer than {settings.inference_timeout:g} s"
        return _end(state, Code.INFERENCE_FAILED, late, event.now)
    why = missing(state.choice, state.newest, settings.rule)
    if event.now - state.frame_at > QUIET_S:
        why = f"no frame has come for {QUIET_S:g} s"
    elif not why:
        return replace(state, able_at=event.now, problem=""), ()
    elif event.now - state.able_at <= QUIET_S:
        return state, ()
    if state.problem:
        return state, ()
    return replace(state, problem=why), (Warn(f"nothing to decide on: {why}"),)


def _begin(state: State, start: Start) -> Outcome:
    fresh = State(
        active=state.active,
        listen=state.listen,
        episode_id=state.episode_id + 1,
        ticket=state.ticket,
        start=start,
        camera=state.camera,
        newest=state.newest,
        dropped=state.dropped,
        frame_at=start.now,
        able_at=start.now,
    )
    return fresh, (Reset(fresh.episode_id, start.instruction, start.told), *warned(start))


def _end(state: State, code: int, message: str, now: float) -> Outcome:
    if state.start is None:
        return state, ()
    answer = Finish(state.start.key, code, message, state.step, now - state.start.now)
    ended, _ = _begin(state, state.start)
    return replace(ended, start=None), (answer,)


def _activate(state: State, event: Activate, settings: Settings) -> Outcome:
    following = state.following
    state = replace(state, active=True, loading=False, following=None, listen=event.listen)
    if following is None:
        return state, ()
    return _take(state, replace(following, now=event.now), settings)


def _start(state: State, event: Start, settings: Settings) -> Outcome:
    if not (state.active or state.loading):
        return state, (Finish(event.key, Code.NOT_ACTIVE, "the policy node is not active"),)
    if event.problem:
        return state, (Finish(event.key, Code.INVALID_INSTRUCTION, event.problem),)
    if not state.active:
        return replace(state, following=event), (*_superseded(state), taken_later(event))
    return _take(state, event, settings)


def _take(state: State, start: Start, settings: Settings) -> Outcome:
    """Watch by an instruction from now on, unless it is refused."""
    refuse, strict = settings.refuse_noise, settings.strict
    heard = hear(start, state.listen, refuse_noise=refuse, strict=strict)
    if isinstance(heard, Finish):
        return state, (heard,)
    ended, commands = _end(state, Code.PREEMPTED, "a newer instruction arrived", start.now)
    begun, more = _begin(ended, heard)
    return begun, commands + more


def _superseded(state: State) -> tuple[Command, ...]:
    """Answer the instruction that waits, whose place a newer one takes."""
    if state.following is None:
        return ()
    return (Finish(state.following.key, Code.PREEMPTED, "a newer instruction arrived"),)


def _cancel(state: State, event: Cancel) -> Outcome:
    commands: tuple[Command, ...] = ()
    if event.deactivate:
        state = replace(state, active=False, loading=False)
    if state.following is not None and event.key in (None, state.following.key):
        commands = (Finish(state.following.key, event.code, event.message),)
        state = replace(state, following=None)
    if state.start is None or event.key not in (None, state.start.key):
        return state, commands
    ended, more = _end(state, event.code, event.message, event.now)
    return ended, commands + more


def _frame(state: State, frame: Frame, settings: Settings) -> Outcome:
    commands: tuple[Command, ...] = ()
    state = replace(state, frame_at=frame.now)
    if state.start is None:
        return replace(state, newest=frame.stamp), ()
    if 0 < frame.stamp < state.newest - JUMP_BACK_NS:
        # the same instruction, empty memories
        again = replace(state.start, start_stamp=0, now=frame.now)
        state, commands = _begin(replace(state, newest=frame.stamp), again)
    state = replace(state, newest=max(state.newest, frame.stamp))
    choice, chosen = see_frame(state.choice, frame, settings.rule)
    state, more = _enqueue(replace(state, choice=choice), chosen, frame.now)
    return state, commands + more


def _enqueue(state: State, chosen: tuple[Frame, ...], now: float) -> Outcome:
    queue = state.queue + chosen
    lost = max(0, len(queue) - MAX_QUEUE)
    state = replace(state, queue=queue[:MAX_QUEUE], dropped=state.dropped + lost)
    state, commands = _look(state, now)
    if lost:
        commands += (Warn("frames come faster than the model decides: some were left out"),)
    return state, commands


def _look(state: State, now: float) -> Outcome:
    """Ask the model about the next frame that may be used."""
    assert state.start is not None
    if state.deciding is not None:
        return state, ()
    oldest, used = state.start.start_stamp, state.used
    for i, frame in enumerate(state.queue):
        if frame_problem(frame, not_before=oldest, used=used) is None:
            ticket = state.ticket + 1
            state = replace(
                state,
                ticket=ticket,
                since=now,
                deciding=frame,
                used=frame.stamp,
                queue=state.queue[i + 1 :],
            )
            return state, (Infer(ticket, frame, state.camera),)
    return replace(state, queue=()), ()


def _decided(state: State, event: Decided) -> Outcome:
    if state.deciding is None or event.ticket != state.ticket:
        return state, ()  # computed for an episode that has ended
    assert state.start is not None
    start, waited = state.start, event.now - state.since
    action = NO_ACTION if event.action is None else int(event.action)
    told = Publish(
        state.episode_id,
        state.step,
        state.deciding,
        start.instruction,
        decided=event,
        waited=waited,
    )
    elapsed, status = event.now - start.now, StepStatus.SUCCEEDED
    feedback = Feedback(
        start.key,
        state.step,
        action,
        status,
        elapsed,
        0.0,
        event.payload,
        start.warning,
        start.told,
    )
    state = replace(state, deciding=None, step=state.step + 1, bad=False)
    state, more = _look(state, event.now)
    return state, (told, feedback, *more)


def _failed(state: State, event: Failed) -> Outcome:
    if state.deciding is None or event.ticket != state.ticket:
        return state, ()
    assert state.start is not None
    text = state.start.instruction
    told = Publish(state.episode_id, state.step, state.deciding, text, failed=event)
    if event.code != Code.BAD_FRAME:
        state, more = _end(state, event.code, event.message, event.now)
        return state, (told, *more)
    # a row of bad frames is told once
    first = not state.bad
    state, more = _look(replace(state, deciding=None, bad=True), event.now)
    return state, ((told,) if first else ()) + more

"""
What the ``policy`` node tells its two machines (events), and what they ask of it (commands).

`janusvln_ros.protocol.driving` carries decisions out, `janusvln_ros.protocol.watching` only looks
on; the node does not care which of the two it holds. Seconds are on the steady clock; stamps are
ROS time in nanoseconds and are only ever compared with each other or with the node's ROS time.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from janusvln_ros.actions import Action
from janusvln_ros.geometry import Pose2
from janusvln_ros.protocol.odometry import Sample
from janusvln_ros.protocol.status import Code


class Phase(Enum):
    """Where the episode stands; one that is only watched knows three of these."""

    IDLE = "idle"
    WAIT_SERVER = "waiting for execute_step"
    WAIT_FRAME = "waiting for a frame"
    DECIDING = "deciding"
    MOVING = "moving"
    ENDING = "ending"


@dataclass(frozen=True)
class Heard:
    """
    What the model makes of an instruction: ``verdict`` "understood", "doubtful" or "noise", why
    it is not understood, and ``told``, the words that the network is told instead, if others.
    """

    verdict: str = "understood"
    reasons: tuple[str, ...] = ()
    told: str = ""


Listen = Callable[[str], Heard]
"""Says what the model makes of an instruction; a pure function of the text."""


def take_all(instruction: str) -> Heard:
    """Listen as a model does that does not know what it was taught with."""
    return Heard()


def new_life() -> int:
    """
    A random number for the life of a program that begins, 64 bits and never 0, by which others
    tell it from its namesakes, also from the one that it replaces.
    """
    return secrets.randbits(64) or 1


# Events -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Event:
    """Something happened at ``now``, seconds on the steady clock."""

    now: float


@dataclass(frozen=True)
class Loading(Event):
    """The node gets ready: instructions wait for it to become active."""


@dataclass(frozen=True)
class Activate(Event):
    """The node has become active, with a model that hears instructions as ``listen`` does."""

    listen: Listen = take_all


@dataclass(frozen=True)
class Start(Event):
    """
    An instruction arrived.

    ``key`` names whom to answer; ``problem`` is why the words cannot be followed, if so;
    ``start_stamp`` (ns, 0: ``ros_now``) is the oldest frame that may be used; ``warning`` is what
    of the words may not be understood, and ``told`` what the network is told in their place, if it
    is: both found by the machine; ``client``: the life of whoever asked and is heard from, 0:
    nobody is.
    """

    key: int
    instruction: str
    ros_now: int
    start_stamp: int = 0
    max_steps: int = 0
    time_limit: float = 0.0
    problem: str = ""
    warning: str = ""
    told: str = ""
    client: int = 0


@dataclass(frozen=True)
class ClientHeard(Event):
    """A client lives that may have asked for an episode."""

    life: int


@dataclass(frozen=True)
class MotionHeard(Event):
    """``motion`` lives; ``step``: episode and step of ours that it makes, None: none."""

    step: tuple[int, int] | None


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
class Calibration(Event):
    """The camera said what it is; ``camera`` is handed through to whoever reads its frames."""

    camera: Any
    ros_now: int = 0


@dataclass(frozen=True)
class Frame(Event):
    """
    A camera frame arrived: its stamp (ns) and the message.

    The event is the frame: it lives in one machine until it is decided on or dropped.
    """

    stamp: int
    ros_now: int
    image: Any = None


@dataclass(frozen=True)
class Odometry(Event):
    """Odometry says where the base is."""

    sample: Sample


@dataclass(frozen=True)
class StepEnded(Event):
    """Watch-only: a step of the drive that is watched ended at ``end_stamp`` (ns)."""

    end_stamp: int


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
    Ticket ``ticket`` came to nothing.

    ``code`` is BAD_FRAME (another frame may do) or INFERENCE_FAILED (the episode ends).
    """

    ticket: int
    code: int
    message: str
    ros_now: int = 0


@dataclass(frozen=True)
class StepResult(Event):
    """
    ``execute_step`` ended.

    ``end_stamp`` (ns): first frame stamp that shows the end; ``moved``: the end pose in the frame
    of the start pose.
    """

    episode_id: int
    step: int
    status: int
    message: str = ""
    end_stamp: int = 0
    moved: Pose2 = Pose2()  # noqa: RUF009 (a tuple: it cannot change)
    ros_now: int = 0


@dataclass(frozen=True)
class ResetFailed(Event):
    """The model could not begin an episode: INVALID_INSTRUCTION or INFERENCE_FAILED."""

    episode_id: int
    code: int
    message: str


@dataclass(frozen=True)
class Tick(Event):
    """Time went by; ``server_ready``: ``execute_step`` is there."""

    ros_now: int
    server_ready: bool = True


# Commands -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reset:
    """
    Empty the memories for a new episode; ``told``: what the network is told in the place of the
    instruction, if it is.
    """

    episode_id: int
    instruction: str
    told: str = ""


@dataclass(frozen=True)
class Infer:
    """
    Decide on a frame of ``camera``.

    ``moved``: the base has moved since the last one; ``commit`` False: the decision may be taken
    back.
    """

    ticket: int
    frame: Frame
    camera: Any
    moved: bool = False
    commit: bool = True


@dataclass(frozen=True)
class Commit:
    """Keep the last decision that could be taken back."""


@dataclass(frozen=True)
class Publish:
    """
    Tell the world about a decision (``decided``) or a failure of the step (``failed``).

    ``waited``: seconds since the model was asked.
    """

    episode_id: int
    step: int
    frame: Frame
    instruction: str
    executed: bool = False
    decided: Decided | None = None
    failed: Failed | None = None
    waited: float = 0.0


@dataclass(frozen=True)
class SendGoal:
    """Ask ``motion`` for one step."""

    episode_id: int
    step: int
    action: Action
    frame_stamp: int


@dataclass(frozen=True)
class CancelGoal:
    """Stop the step in flight."""


@dataclass(frozen=True)
class Feedback:
    """
    Progress for the client ``key``; ``action`` 255: the text was none. ``warning``: what of the
    instruction may not be understood; ``told``: what the network is told in its place, if it is.
    """

    key: int
    step: int
    action: int
    step_status: int
    elapsed: float
    path_length: float
    payload: Any = None
    warning: str = ""
    told: str = ""


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


@dataclass(frozen=True)
class Warn:
    """Tell the user, once."""

    text: str


Command = (
    Reset | Infer | Commit | Publish | SendGoal | CancelGoal | Feedback | Finish | Resend | Warn
)

NO_ACTION = 255
"""The action of a `Feedback` whose text was none."""


def taken_later(start: Start) -> Warn:
    """Say that an instruction waits for the model."""
    return Warn(f"the model is being loaded: {start.instruction!r} is taken when it is ready")


def hear(start: Start, listen: Listen, *, refuse_noise: bool, strict: bool) -> Start | Finish:
    """
    Decide whether an instruction is taken: the start, with what is doubtful about it as its
    warning and with what the network is told, or the answer that refuses it.

    Args:
        start: the instruction.
        listen: what the model makes of it.
        refuse_noise: refuse what says no way at all.
        strict: refuse what is doubtful too, and noise in any case.
    """
    heard = listen(start.instruction)
    why = "; ".join(heard.reasons)
    if heard.verdict == "understood":
        return replace(start, told=heard.told)
    if strict or (refuse_noise and heard.verdict == "noise"):
        quoted = (
            start.instruction if len(start.instruction) <= 60 else start.instruction[:57] + "..."
        )
        told = "is no instruction" if heard.verdict == "noise" else "may not be understood"
        how = "say a way, for example 'turn left and stop at the table'"
        return Finish(start.key, Code.NO_INSTRUCTION, f"{quoted!r} {told}: {why}; {how}")
    return replace(start, warning=why, told=heard.told)


def warned(start: Start) -> tuple[Warn, ...]:
    """Say what of an instruction that is taken may not be understood, if anything."""
    if not start.warning:
        return ()
    return (Warn(f"{start.instruction!r} may not be understood: {start.warning}"),)


def frame_problem(
    frame: Frame,
    *,
    not_before: int,
    used: int,
    ros_now: int | None = None,
    max_age: float = 0.0,
    ahead: float = 0.0,
) -> str | None:
    """
    Return why a frame may not be decided on, or None.

    Args:
        frame: the frame.
        not_before: end of the last motion or start of the episode, ns.
        used: stamp of the last frame that was used, ns.
        ros_now: the node's ROS time, ns; None where the stamps are on another clock.
        max_age, ahead: seconds that a stamp may lie behind and ahead of ``ros_now``.
    """
    if frame.stamp <= 0:
        return "its stamp is zero"
    if frame.stamp < not_before:
        late = (not_before - frame.stamp) / 1e9
        return f"it is {late:.3f} s older than the end of the last motion"
    if frame.stamp <= used:
        return "its stamp does not advance"
    if ros_now is not None:
        age = (ros_now - frame.stamp) / 1e9
        if age < -ahead:
            return f"its stamp lies {-age:.3f} s in the future"
        if age > max_age:
            return f"it is {age:.3f} s old (frame_max_age {max_age})"
    return None

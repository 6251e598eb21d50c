"""
Which frames of a drive that nobody stops for are decided on: live and in a bag alike.

Only header stamps are looked at, never a clock. Three ways:

* ``recorded``: the first frame of an episode, then for each step report the first one taken at
  its end or later, whichever of the two comes first;
* ``odom``: the first frame at which, measured from the pose at the last chosen one, travel
  forward or turning makes up a whole step;
* ``interval``: a frame every so many seconds of stamps.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from janusvln_ros.actions import FORWARD_STEP_M, TURN_STEP_DEG, Action
from janusvln_ros.geometry import Pose2, relative
from janusvln_ros.protocol.exchange import Frame
from janusvln_ros.protocol.odometry import Sample, extended, sample_at

MODES = ("recorded", "odom", "interval")

JUMP_BACK_NS = 1_000_000_000
"""
Stamps that go back by more than this, live or in a bag, are a clock that was set back and begin a
new episode; less is a message that came late.
"""

REMEMBERED = 20
"""Frames that a step report, or odometry of their moment, may still choose when it comes late."""

WHOLE = 1 - 1e-6
"""Share of a step that is a whole one: sums of floating-point numbers fall short of 1."""


@dataclass(frozen=True)
class Rule:
    """How frames are chosen: metres and radians of one step, nanoseconds of an interval."""

    mode: str = "recorded"
    forward_step: float = FORWARD_STEP_M
    turn_step: float = math.radians(TURN_STEP_DEG)
    interval_ns: int = 1_000_000_000


@dataclass(frozen=True)
class Choice:
    """What the choice remembers of an episode."""

    last: int | None = None  # stamp of the last chosen frame, ns
    waiting: tuple[Frame, ...] = ()  # frames since then that may still be chosen
    ended: tuple[int, ...] = ()  # recorded: ends of steps whose frame has not come, ns
    pose: Pose2 | None = None  # odom: where the last chosen frame was taken, once known
    track: tuple[Sample, ...] = ()  # odom: the latest odometry


Chosen = tuple[Choice, tuple[Frame, ...]]


def step_between(start: Pose2, end: Pose2, rule: Rule) -> Action | None:
    """Return the step that the way from ``start`` to ``end`` makes up; None: not yet one."""
    moved = relative(start, end)
    forward, turn = moved.x / rule.forward_step, moved.yaw / rule.turn_step
    if max(forward, abs(turn)) < WHOLE:
        return None
    if forward >= abs(turn):
        return Action.MOVE_FORWARD
    return Action.TURN_LEFT if turn > 0 else Action.TURN_RIGHT


def see_frame(choice: Choice, frame: Frame, rule: Rule) -> Chosen:
    """Return the choice after a frame, and the frames that are chosen by it (all modes)."""
    if choice.last is None:
        return replace(choice, last=frame.stamp, pose=None), (frame,)
    if frame.stamp <= choice.last:
        return choice, ()
    if rule.mode == "interval":
        if frame.stamp - choice.last < rule.interval_ns:
            return choice, ()
        return replace(choice, last=frame.stamp), (frame,)
    # one that comes late goes where it was taken
    waiting = sorted((*choice.waiting, frame), key=lambda frame: frame.stamp)
    choice = replace(choice, waiting=tuple(waiting[-REMEMBERED:]))
    return _by_reports(choice) if rule.mode == "recorded" else _by_odometry(choice, rule)


def see_step_end(choice: Choice, end_stamp: int) -> Chosen:
    """Return the choice after the report of a step (``recorded``), and what is chosen by it."""
    if choice.last is None or end_stamp <= choice.last:
        return choice, ()
    return _by_reports(replace(choice, ended=(*choice.ended, end_stamp)))


def see_odometry(choice: Choice, sample: Sample, rule: Rule) -> Chosen:
    """Return the choice after an odometry message (``odom``), and what is chosen by it."""
    return _by_odometry(replace(choice, track=extended(choice.track, sample)), rule)


def missing(choice: Choice, newest: int, rule: Rule) -> str:
    """
    Return what is missing to choose a frame by, or an empty string.

    ``newest``: stamp of the newest frame, ns. A moment without it is nothing: odometry and reports
    come a little later than the frame of their moment.
    """
    if choice.last is None:
        return "no frame has come"
    if rule.mode == "recorded" and choice.ended and newest < choice.ended[0]:
        return (
            f"a step ended at {choice.ended[0] / 1e9:.3f} s, the newest frame is of "
            f"{newest / 1e9:.3f} s: their stamps are of different clocks"
        )
    if rule.mode != "odom":
        return ""
    if not choice.track:
        return "no odometry has come, by which frames are chosen (frames: odom)"
    first, last = choice.track[0].stamp, choice.track[-1].stamp
    late = bool(choice.waiting) and choice.waiting[0].stamp > last
    if not late and newest >= first:
        return ""
    return (
        f"odometry is of {first / 1e9:.3f} to {last / 1e9:.3f} s, the newest frame of "
        f"{newest / 1e9:.3f} s: their stamps are of different clocks, or odometry has ended"
    )


def _by_reports(choice: Choice) -> Chosen:
    chosen: list[Frame] = []
    while choice.ended:
        later = [f for f in choice.waiting if f.stamp >= choice.ended[0]]
        if not later:
            break
        first = later[0]
        chosen.append(first)
        choice = replace(
            choice,
            last=first.stamp,
            waiting=tuple(f for f in choice.waiting if f.stamp > first.stamp),
            ended=tuple(end for end in choice.ended if end > first.stamp),
        )
    return choice, tuple(chosen)


def _by_odometry(choice: Choice, rule: Rule) -> Chosen:
    """Look at the waiting frames whose moment odometry has passed."""
    chosen: list[Frame] = []
    track, pose = choice.track, choice.pose
    if pose is None and track and choice.last is not None:
        # before the first message the base stood where that found it
        start = sample_at(track, max(choice.last, track[0].stamp))
        pose = start.pose if start else None
    waiting, last = list(choice.waiting), choice.last
    while pose is not None and waiting and waiting[0].stamp <= track[-1].stamp:
        frame = waiting.pop(0)
        here = sample_at(track, frame.stamp)
        if here is not None and step_between(pose, here.pose, rule) is not None:
            chosen.append(frame)
            pose, last = here.pose, frame.stamp
    return replace(choice, waiting=tuple(waiting), pose=pose, last=last), tuple(chosen)


def cut_into_steps(
    stamps: Sequence[int], odometry: Sequence[Sample], rule: Rule
) -> list[tuple[int, Action]]:
    """
    Return the frames of a whole drive that ``odom`` chooses, and the step taken from each.

    Args:
        stamps: of the frames, ns, rising.
        odometry: of the drive, rising stamps, at least one sample.
        rule: the lengths of a step.

    Returns:
        Index of each chosen frame and the action that the drive took from there; the last is STOP.
    """
    if not stamps:
        return []
    first = sample_at(odometry, max(stamps[0], odometry[0].stamp))
    if first is None:  # it ended before the first frame
        return [(0, Action.STOP)]
    pose, last, steps = first.pose, 0, []
    for i, stamp in enumerate(stamps):
        here = sample_at(odometry, stamp)
        if here is None:
            continue
        action = step_between(pose, here.pose, rule)
        if action is not None:
            steps.append((last, action))
            pose, last = here.pose, i
    return [*steps, (last, Action.STOP)]

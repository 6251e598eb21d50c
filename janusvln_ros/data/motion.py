"""
Continuous motion cut into the discrete steps of VLN-CE: which frames a policy would have decided
on, and what the drive did next.

Frames of reference follow REP-103 and REP-105: odometry in metres, x forward, y left, yaw positive
to the left.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from janusvln_ros.actions import FORWARD_STEP_M, TURN_STEP_DEG, Action
from janusvln_ros.errors import InputError

FloatArray = NDArray[np.float64]

STEP_RATE_WINDOW_NS = 50_000_000
"""Speed is measured from the pose change over this long before and after a stamp."""

PAUSE_SHARE = 0.3
"""
The base pauses where its speed falls under this share of its fastest since the last chosen frame:
commanded steps slow down at their ends.
"""

PAUSE_MARGIN = 0.2
"""
A step may end at a pause if that is within this share of a whole step: a commanded step ends a
little short or long.
"""


@dataclass(frozen=True)
class Odometry:
    """
    Poses over time: ``stamps`` int64 nanoseconds, rising; ``x``, ``y`` metres; ``yaw`` radians,
    unwrapped. All [N].
    """

    stamps: NDArray[np.int64]
    x: FloatArray
    y: FloatArray
    yaw: FloatArray

    def at(self, stamps: NDArray[np.int64]) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Poses at other stamps, linear between neighbours, held at the ends."""
        # seconds since the first sample: nanoseconds since 1970 do not fit a float64
        known, wanted = (self.stamps - self.stamps[0]) / 1e9, (stamps - self.stamps[0]) / 1e9
        return (
            np.interp(wanted, known, self.x),
            np.interp(wanted, known, self.y),
            np.interp(wanted, known, self.yaw),
        )


@dataclass(frozen=True)
class Step:
    """
    One cut: the index of the frame that was seen, and the action that the drive took from there.
    """

    frame: int
    action: Action


def odometry_from_poses(
    stamps: Sequence[int], poses: Sequence[tuple[float, float, float]]
) -> Odometry:
    """
    Poses (x, y, yaw) in any order of arrival, made ready for interpolation; samples with a
    repeated stamp are dropped.

    Raises:
        InputError: fewer than two different stamps, or numbers that are not finite.
    """
    pose_N3 = np.asarray(poses, np.float64).reshape(-1, 3)
    bad = int(np.count_nonzero(~np.isfinite(pose_N3).all(axis=1)))
    if bad:
        raise InputError(
            f"odometry: {bad} of {len(pose_N3)} poses are not finite; the recording "
            "cannot be cut into steps"
        )
    rising, first = np.unique(np.asarray(stamps, np.int64), return_index=True)
    if len(rising) < 2:
        raise InputError(f"odometry: {len(rising)} different stamps; at least 2 are needed")
    return Odometry(rising, pose_N3[first, 0], pose_N3[first, 1], np.unwrap(pose_N3[first, 2]))


def odometry_from_velocity(
    stamps: Sequence[int], velocities: Sequence[tuple[float, float]]
) -> Odometry:
    """
    Dead reckoning from commanded (forward m/s, turn rad/s), each held until the next: for drives
    that recorded only ``cmd_vel``.
    """
    order = np.argsort(np.asarray(stamps, np.int64), kind="stable")
    rising = np.asarray(stamps, np.int64)[order]
    forward, turn = np.asarray(velocities, np.float64).reshape(-1, 2)[order].T
    dt = np.diff(rising, append=rising[-1:]) / 1e9
    yaw = np.concatenate([[0.0], np.cumsum(turn * dt)[:-1]])
    # the chord of an arc points half its turn away from where it began
    heading = yaw + turn * dt / 2
    x = np.concatenate([[0.0], np.cumsum(forward * dt * np.cos(heading))[:-1]])
    y = np.concatenate([[0.0], np.cumsum(forward * dt * np.sin(heading))[:-1]])
    return odometry_from_poses(rising.tolist(), list(zip(x, y, yaw)))


def step_rate(
    stamps: NDArray[np.int64],
    odometry: Odometry,
    forward_step: float = FORWARD_STEP_M,
    turn_step: float = TURN_STEP_DEG,
) -> FloatArray:
    """
    Speed in steps per second at each stamp: the larger of travel / ``forward_step`` (metres) and
    turn / ``turn_step`` (degrees).
    """
    x0, y0, yaw0 = odometry.at(stamps - STEP_RATE_WINDOW_NS)
    x1, y1, yaw1 = odometry.at(stamps + STEP_RATE_WINDOW_NS)
    steps = np.maximum(
        np.hypot(x1 - x0, y1 - y0) / forward_step, np.degrees(np.abs(yaw1 - yaw0)) / turn_step
    )
    rate: FloatArray = steps / (2 * STEP_RATE_WINDOW_NS / 1e9)
    return rate


def cut_into_steps(
    stamps: NDArray[np.int64],
    odometry: Odometry,
    *,
    forward_step: float = FORWARD_STEP_M,
    turn_step: float = TURN_STEP_DEG,
) -> list[Step]:
    """
    Cut a drive into steps at the frames a policy would have decided on.

    Measured from the actual pose at the last chosen frame, a step is over where forward travel /
    ``forward_step`` or turn / ``turn_step`` reaches 1, and is labelled by the larger. Where the
    base pauses within ``PAUSE_MARGIN`` of a whole step, the step is over there, so that the small
    error of every commanded step does not add up to a step too many. Standing gives nothing. The
    last chosen frame is STOP.

    Args:
        stamps: int64 [N], frame stamps in nanoseconds, rising.
        odometry: poses on the same clock.
        forward_step: metres.
        turn_step: degrees.
    """
    if not len(stamps):
        return []
    x, y, yaw = odometry.at(stamps)
    rate = step_rate(stamps, odometry, forward_step, turn_step)

    def moved(start: int, end: int) -> tuple[float, float]:
        forward = (x[end] - x[start]) * np.cos(yaw[start]) + (y[end] - y[start]) * np.sin(
            yaw[start]
        )
        return float(forward / forward_step), float(np.degrees(yaw[end] - yaw[start]) / turn_step)

    steps: list[Step] = []
    last = 0
    # first frame past a whole step, while a pause may still follow close by
    whole: int | None = None
    fastest = 0.0
    n = 1
    while n < len(stamps):
        forward, turn = moved(last, n)
        share = max(forward, abs(turn))
        fastest = max(fastest, rate[n])
        if share >= 1 and whole is None:
            whole = n
        pauses = rate[n] < PAUSE_SHARE * fastest and 1 - PAUSE_MARGIN <= share <= 1 + PAUSE_MARGIN
        too_far = share > 1 + PAUSE_MARGIN or n == len(stamps) - 1
        if pauses or (whole is not None and too_far):
            chosen = n if pauses or whole is None else whole
            forward, turn = moved(last, chosen)
            steps.append(
                Step(
                    last,
                    Action.MOVE_FORWARD
                    if forward >= abs(turn)
                    else Action.TURN_LEFT
                    if turn > 0
                    else Action.TURN_RIGHT,
                )
            )
            last, whole, fastest, n = chosen, None, 0.0, chosen
        n += 1
    steps.append(Step(last, Action.STOP))
    return steps

"""
What a depth camera has seen and sees no more: a low thing leaves the view below while the robot
drives towards it. Pure functions; frames, metres and readings as in `corridor`.

What stands around is kept as columns in odometry's frame, each in levels. A level that is in view
is judged by the picture, and is gone where that sees past it, with what it was one thing with; a
column of which nothing is in view stays until `FORGET` metres have been driven, for odometry
drifts, or somebody arms.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from janusvln_ros.geometry import Pose2, relative
from janusvln_ros.protocol.corridor import (
    DepthCamera,
    DepthPoints,
    depth_corridor,
    depth_points,
)

CELL = 0.1
"""Metres: the sides of a column."""

READINGS = 3
"""Pixels of a picture that make a column: one or two are a speck, as in `corridor`."""

PICTURES = 2
"""Pictures that must have shown a column before it is believed when it is out of view."""

REACH = 3.0
"""Metres around the robot that are kept."""

FORGET = 3.0
"""Metres driven since a column was seen, after which it is forgotten."""

LEVEL = 0.1
"""Metres: the height of a column's levels."""

LEVELS = 16
"""How many there are; the last one is open above."""

PAST = 0.2
"""Metres by which a picture must see past a level to say that it is gone."""

LOST = 1e8
"""Metres from the origin of odometry's frame where no robot is."""


class Columns(NamedTuple):
    """
    What was seen, by columns: which they are in odometry's frame (`_keys`, rising), where above
    the floor (metres, the mean of the readings of each level; NaN: none), how many pictures showed
    them, and ``driven`` when they were seen last; how far the robot has driven in all, and where
    it was.
    """

    key_N: npt.NDArray[np.int64] = np.empty(0, np.int64)
    height_NZ: npt.NDArray[np.float64] = np.empty((0, LEVELS))
    pictures_N: npt.NDArray[np.int64] = np.empty(0, np.int64)
    seen_N: npt.NDArray[np.float64] = np.empty(0)
    driven: float = 0.0
    pose: Pose2 | None = None


class Way(NamedTuple):
    """
    What a depth image and those before it tell of the way ahead: metres that are free, the known
    share of the corridor, and whether what stands there is out of view.
    """

    clearance: float
    known: float
    out_of_view: bool


def way_ahead(
    kept: Columns,
    depth_HW: npt.NDArray[np.float32],
    camera: DepthCamera,
    pose: Pose2 | None,
    *,
    half_width: float,
    low: float,
    high: float,
) -> tuple[Columns, Way]:
    """
    Return what is known of things around after one more picture, and the way ahead.

    ``pose``: of the robot in odometry's frame when the picture was taken; without it, or
    `LOST`, nothing is remembered. Things from ``low`` to ``high`` above the floor count. A hundred
    and sixty columns of pixels are looked at.
    """
    seen = depth_points(depth_HW, camera, max(1, depth_HW.shape[1] // 160))
    clearance, known = depth_corridor(depth_HW, seen, half_width=half_width, low=low, high=high)
    if pose is None or max(map(abs, pose)) > LOST:
        return Columns(), Way(clearance, known, False)
    kept = remember(kept, seen, pose, low=low, high=high)
    hidden = remembered_clearance(kept, seen, pose, half_width)
    return kept, Way(min(clearance, hidden), known, hidden < clearance)


def remember(kept: Columns, seen: DepthPoints, pose: Pose2, *, low: float, high: float) -> Columns:
    """
    Return what is known of things around after one more picture.

    ``pose``: of the robot in odometry's frame when it was taken. Things from ``low`` to ``high``
    above the floor count; what is nearer than the camera measures has no place and is not kept.
    """
    moved = relative(kept.pose, pose) if kept.pose is not None else Pose2()
    driven = kept.driven + math.hypot(moved.x, moved.y)
    x_N, y_N = _from(pose, kept.key_N)
    height_NZ = np.where(_gone(kept, seen, x_N, y_N, low), math.nan, kept.height_NZ)
    stays_N = ~np.isnan(height_NZ).all(axis=1)
    stays_N &= (driven - kept.seen_N <= FORGET) & (np.hypot(x_N, y_N) <= REACH)
    key_M, height_MZ = _columns(seen, pose, low, high)
    pictures_M, seen_M = np.ones(len(key_M), np.int64), np.full(len(key_M), driven)
    _, at_M, at_N = np.intersect1d(key_M, kept.key_N, assume_unique=True, return_indices=True)
    # a part of it may have left the view already
    unseen = np.isnan(height_MZ[at_M])
    height_MZ[at_M] = np.where(unseen, height_NZ[at_N], height_MZ[at_M])
    pictures_M[at_M] += kept.pictures_N[at_N]
    stays_N[at_N] = False
    key = np.concatenate([kept.key_N[stays_N], key_M])
    order = np.argsort(key)
    return Columns(
        key[order],
        np.concatenate([height_NZ[stays_N], height_MZ])[order],
        np.concatenate([kept.pictures_N[stays_N], pictures_M])[order],
        np.concatenate([kept.seen_N[stays_N], seen_M])[order],
        driven,
        pose,
    )


def remembered_clearance(
    kept: Columns, seen: DepthPoints, pose: Pose2, half_width: float
) -> float:
    """
    Metres from the robot's origin at ``pose`` to the nearest column ahead in the corridor that is
    out of view of the picture that was ``seen`` there; infinite where there is none.
    """
    x_N, y_N = _from(pose, kept.key_N)
    in_view_N = _looked_at(kept, seen, x_N, y_N)[2].any(axis=1)
    ahead = (kept.pictures_N >= PICTURES) & ~in_view_N & (np.abs(y_N) <= half_width) & (x_N > 0)
    return max(0.0, float(x_N[ahead].min()) - CELL / 2) if ahead.any() else math.inf


WIDE = 1 << 31
"""Columns side by side that a key tells apart, half of them on either side of the origin."""


def _keys(x_N: npt.NDArray[np.float64], y_N: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return the keys of the columns in which places of odometry's frame lie."""
    i_N, j_N = (np.floor(at_N / CELL).astype(np.int64) for at_N in (x_N, y_N))
    return np.asarray(i_N * WIDE + j_N + WIDE // 2)


def _from(
    pose: Pose2, key_N: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return where the middles of columns are, ahead and to the left of a robot at ``pose``."""
    i_N, j_N = np.divmod(key_N, WIDE)
    dx_N, dy_N = (i_N + 0.5) * CELL - pose.x, (j_N - WIDE // 2 + 0.5) * CELL - pose.y
    cos, sin = math.cos(pose.yaw), math.sin(pose.yaw)
    return cos * dx_N + sin * dy_N, cos * dy_N - sin * dx_N


def _columns(
    seen: DepthPoints, pose: Pose2, low: float, high: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the columns that a picture shows, and where each of their levels is."""
    thing = seen.placed_HW & (seen.z_HW >= low) & (seen.z_HW <= high) & (seen.x_HW > 0)
    thing &= np.hypot(seen.x_HW, seen.y_HW) <= REACH
    x_P, y_P, z_P = seen.x_HW[thing], seen.y_HW[thing], seen.z_HW[thing]
    cos, sin = math.cos(pose.yaw), math.sin(pose.yaw)
    key_P = _keys(pose.x + cos * x_P - sin * y_P, pose.y + sin * x_P + cos * y_P)
    key_M, where_P, count_M = np.unique(key_P, return_inverse=True, return_counts=True)
    level_P = where_P * LEVELS + np.clip(z_P / LEVEL, 0, LEVELS - 1).astype(np.int64)
    count_L, sum_L = (np.bincount(level_P, w, len(key_M) * LEVELS) for w in (None, z_P))
    with np.errstate(invalid="ignore"):
        height_MZ = (sum_L / count_L).reshape(len(key_M), LEVELS)
    return key_M[count_M >= READINGS], height_MZ[count_M >= READINGS]


def _looked_at(
    kept: Columns, seen: DepthPoints, x_N: npt.NDArray[np.float64], y_N: npt.NDArray[np.float64]
) -> tuple[
    tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    npt.NDArray[np.float64],
    npt.NDArray[np.bool_],
]:
    """
    Return where in a picture's points the levels of the ``kept`` columns, which are at these
    places from the robot, are looked at (row and column), how far they are along the optical axis,
    and which of them are in view. All [N, Z].
    """
    k, height, pitch, forward, _ = seen.camera
    cos, sin = math.cos(pitch), math.sin(pitch)
    ahead_N1, up_NZ = x_N[:, None] - forward, kept.height_NZ - height
    along_NZ = ahead_N1 * cos - up_NZ * sin
    depth_NZ = np.where(along_NZ > 0, along_NZ, 1.0)
    row_NZ = np.rint(k[4] * (-ahead_N1 * sin - up_NZ * cos) / depth_NZ + k[5])
    column_NZ = np.rint(k[2] - k[0] * y_N[:, None] / depth_NZ)
    inside_NZ = (along_NZ > 0) & (row_NZ >= 0) & (row_NZ < seen.shape[0])
    inside_NZ &= (column_NZ >= 0) & (column_NZ < seen.shape[1])
    row_NZ, column_NZ = (
        np.where(inside_NZ, at, 0.0).astype(np.int64) // seen.stride for at in (row_NZ, column_NZ)
    )
    return (row_NZ, column_NZ), along_NZ, inside_NZ


def _gone(
    kept: Columns,
    seen: DepthPoints,
    x_N: npt.NDArray[np.float64],
    y_N: npt.NDArray[np.float64],
    low: float,
) -> npt.NDArray[np.bool_]:
    """
    Return which levels are gone, [N, Z]: a picture sees past them, or past what they were one
    thing with and it does not show them either: the head of somebody near a low camera is out of
    its view, and past the feet one sees the floor.
    """
    at_NZ, along_NZ, inside_NZ = _looked_at(kept, seen, x_N, y_N)
    further_NZ = ~seen.thing_HW[at_NZ] | (seen.measured_HW[at_NZ] > along_NZ + PAST)
    gone_NZ = inside_NZ & seen.known_HW[at_NZ] & further_NZ
    shown_NZ = inside_NZ & ~further_NZ & (seen.z_HW[at_NZ] >= low)
    doubtful_NZ = ~np.isnan(kept.height_NZ) & ~shown_NZ
    for level in range(1, LEVELS):
        gone_NZ[:, level] |= doubtful_NZ[:, level] & gone_NZ[:, level - 1]
    for level in reversed(range(LEVELS - 1)):
        gone_NZ[:, level] |= doubtful_NZ[:, level] & gone_NZ[:, level + 1]
    return np.asarray(gone_NZ)

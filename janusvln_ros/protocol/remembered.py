"""
What a depth camera has seen and sees no more: a low thing leaves the view below while the robot
drives towards it. Pure functions; frames, metres and readings as in `corridor`.

What stands around is kept as columns in odometry's frame, each with its highest reading. A column
whose top is in view is judged by the picture, and is gone where that sees past it; one that is not
in view stays until `FORGET` metres have been driven, for odometry drifts, or somebody arms.
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

BELOW = 0.1
"""
Metres below its highest reading where a column is looked for: at the very top a pixel may just
miss it.
"""

PAST = 0.2
"""Metres by which a picture must see past a column's top to say that it is gone."""

LOST = 1e8
"""Metres from the origin of odometry's frame where no robot is."""


class Columns(NamedTuple):
    """
    What was seen, by columns: which they are in odometry's frame (`_keys`, rising), how high
    (metres above the floor), how many pictures showed them, and ``driven`` when they were seen
    last; how far the robot has driven in all, and where it was.
    """

    key_N: npt.NDArray[np.int64] = np.empty(0, np.int64)
    top_N: npt.NDArray[np.float64] = np.empty(0)
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
    stays_N = ~_seen_past(seen, x_N, y_N, kept.top_N)
    stays_N &= (driven - kept.seen_N <= FORGET) & (np.hypot(x_N, y_N) <= REACH)
    key_M, top_M = _columns(seen, pose, low, high)
    pictures_M, seen_M = np.ones(len(key_M), np.int64), np.full(len(key_M), driven)
    _, at_M, at_N = np.intersect1d(key_M, kept.key_N, assume_unique=True, return_indices=True)
    # a part of it may have left the view already
    top_M[at_M] = np.maximum(top_M[at_M], kept.top_N[at_N])
    pictures_M[at_M] += kept.pictures_N[at_N]
    stays_N[at_N] = False
    key = np.concatenate([kept.key_N[stays_N], key_M])
    order = np.argsort(key)
    return Columns(
        key[order],
        np.concatenate([kept.top_N[stays_N], top_M])[order],
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
    in_view_N = _looked_at(seen, x_N, y_N, kept.top_N)[2]
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
    """Return the columns that a picture shows, and the highest reading of each."""
    thing = seen.placed_HW & (seen.z_HW >= low) & (seen.z_HW <= high) & (seen.x_HW > 0)
    thing &= np.hypot(seen.x_HW, seen.y_HW) <= REACH
    x_P, y_P, z_P = seen.x_HW[thing], seen.y_HW[thing], seen.z_HW[thing]
    cos, sin = math.cos(pose.yaw), math.sin(pose.yaw)
    key_P = _keys(pose.x + cos * x_P - sin * y_P, pose.y + sin * x_P + cos * y_P)
    key_M, where_P, count_M = np.unique(key_P, return_inverse=True, return_counts=True)
    top_M = np.full(len(key_M), -math.inf)
    np.maximum.at(top_M, where_P, z_P)
    return key_M[count_M >= READINGS], top_M[count_M >= READINGS]


def _looked_at(
    seen: DepthPoints,
    x_N: npt.NDArray[np.float64],
    y_N: npt.NDArray[np.float64],
    top_N: npt.NDArray[np.float64],
) -> tuple[
    tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    npt.NDArray[np.float64],
    npt.NDArray[np.bool_],
]:
    """
    Return where in a picture's points columns are looked at (row and column), how far they are
    along the optical axis, and which of them are in view.
    """
    k, height, pitch, forward, _ = seen.camera
    cos, sin = math.cos(pitch), math.sin(pitch)
    ahead_N, up_N = x_N - forward, top_N - BELOW - height
    along_N = ahead_N * cos - up_N * sin
    depth_N = np.where(along_N > 0, along_N, 1.0)
    row_N = np.rint(k[4] * (-ahead_N * sin - up_N * cos) / depth_N + k[5])
    column_N = np.rint(k[2] - k[0] * y_N / depth_N)
    inside_N = (along_N > 0) & (row_N >= 0) & (row_N < seen.shape[0])
    inside_N &= (column_N >= 0) & (column_N < seen.shape[1])
    row_N, column_N = (
        np.where(inside_N, at_N, 0.0).astype(np.int64) // seen.stride for at_N in (row_N, column_N)
    )
    return (row_N, column_N), along_N, inside_N


def _seen_past(
    seen: DepthPoints,
    x_N: npt.NDArray[np.float64],
    y_N: npt.NDArray[np.float64],
    top_N: npt.NDArray[np.float64],
) -> npt.NDArray[np.bool_]:
    """Return which columns a picture sees past: they are gone."""
    at_N, along_N, inside_N = _looked_at(seen, x_N, y_N, top_N)
    further_N = ~seen.thing_HW[at_N] | (seen.measured_HW[at_N] > along_N + PAST)
    return np.asarray(inside_N & seen.known_HW[at_N] & further_N)

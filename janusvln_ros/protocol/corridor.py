"""
How far the way ahead is free, from a laser scan or a depth image. Pure functions.

The corridor begins at the robot's origin and runs ahead of it (REP-103: x forward, y left); metres
and radians. Readings are taken as REP-117 has them: -inf is something nearer than the sensor can
measure, +inf is free as far as it reaches, NaN is unknown. Unknown is never free: the known share
of the corridor is that of its worst part, so that a thing which gives no answer where it stands
is not outvoted by the free floor beside it.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from janusvln_ros.geometry import Pose2

SECTORS = 5
"""Parts of a scan's view ahead, side by side, of which each must be known."""

GAP = math.pi / 2
"""
Radians: the widest run of beams without an answer, between others that answer, that may be one
thing.
"""

FADING = 0.5
"""
Share of a scanner's range from which on a view that opens between two things fades out: where
both neighbours of a run without an answer are so far, it is the end of a long hallway.
"""

AROUND = 8
"""Parts around the scanner of which each must be known to turn."""

FURTHER = 1.5
"""
Times as far as a pixel its neighbours have to see past it: more than the parts of one thing differ
by, and where it is less the speck is little nearer than what is there.
"""

BESIDE = np.array([place for place in itertools.product((-1, 0, 1), repeat=2) if any(place)]).T
"""Rows and columns, [2, 8], from a pixel to its neighbours."""

THING = 3
"""
Pixels side by side that are no speck: of two in 10,000 false ones some lie beside each other every
minute.
"""

TILES = 4
"""Parts of a depth image's view of the corridor, side by side and above each other."""


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

    ``mount``: pose of the sensor on the robot. Readings of -inf, and those above 0 that are nearer
    than ``range_min``, are a thing at ``range_min``: nearer than the sensor can measure is not
    free, though ``sensor_msgs/LaserScan`` lets others discard it. +inf is free up to
    ``range_max``. NaN, 0 (which many drivers write for no answer), negative and finite readings
    beyond ``range_max`` are unknown.

    The share is that of the beams which look ahead (60 degrees to either side at most) and are
    known, in the worst of ``SECTORS`` equal sectors; a sector without a beam is not known.
    """
    with np.errstate(invalid="ignore"):
        angles = angle_min + increment * np.arange(len(ranges)) + mount.yaw
    angles[~np.isfinite(angles)] = np.nan
    nearest_told = max(1e-3, range_min)  # a range_min that is no number is none
    with np.errstate(invalid="ignore"):
        read = np.where(np.isposinf(ranges), range_max, np.maximum(ranges, nearest_told))
        known = (np.isneginf(ranges) | (ranges > 0)) & (read <= range_max)
    # nobody knows where a beam of no angle looks, or what ranges that end before they begin mean
    known &= np.isfinite(angles) & (nearest_told <= range_max) & (nearest_told < math.inf)
    # a scanner that tells of no end of its range sees as far as anybody needs
    read = np.where(known, np.minimum(read, 1e6), 0.0)
    x, y = mount.x + read * np.cos(angles), mount.y + read * np.sin(angles)
    hit = known & (np.abs(y) <= half_width) & (x > 0)
    aside, most = np.arctan2(np.sin(angles), np.cos(angles)), math.atan2(half_width, 0.5)
    ahead = np.abs(aside) <= most
    share = (aside[ahead] / most + 1) / 2
    sector = (share * SECTORS).clip(0, SECTORS - 1).astype(np.int_)
    whole = len(np.unique(sector)) == SECTORS
    clearance = float(x[hit].min()) if hit.any() else math.inf
    nearest = float(np.hypot(x[known], y[known]).min()) if known.any() else math.inf
    return clearance, _worst_share(known[ahead], sector) if whole else 0.0, nearest


def without_answer(
    ranges: npt.NDArray[np.float64], increment: float, range_max: float
) -> npt.NDArray[np.float64]:
    """
    Return a scan in which +inf between beams that did answer is unknown (NaN).

    REP-117 has +inf for "nothing within range", but the drivers of many scanners write it for
    every beam that did not come back (sllidar_ros: where the measured distance is 0), so that a
    thing which absorbs or deflects it looks like open space. A run that is wider than ``GAP``,
    that reaches the end of a scan which is no full circle, or whose neighbours on both sides are
    beyond ``FADING`` of ``range_max`` (a long hallway) stays as it is.
    """
    count, open_ = len(ranges), np.isposinf(ranges)
    if not open_.any():
        return ranges
    circle = abs(increment) * (count + 1) >= math.tau
    first = int(np.argmin(open_)) if circle else 0  # a circle begins where something answers
    open_ = np.roll(open_, -first)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], open_, [False]]).astype(np.int8)))
    told = np.roll(ranges, -first).copy()
    for begin, end in zip(edges[::2], edges[1::2]):
        within = circle or (begin > 0 and end < count)
        beside = min(told[begin - 1], told[end % count])
        if within and (end - begin) * abs(increment) <= GAP and not beside >= FADING * range_max:
            told[begin:end] = np.nan
    return np.roll(told, first)


def known_around(ranges: npt.NDArray[np.float64], range_max: float) -> float:
    """
    The known share of a scan's beams, in the worst of ``AROUND`` equal parts of it; where it does
    not look, nothing is said. Readings as in `scan_corridor`.
    """
    with np.errstate(invalid="ignore"):
        known = np.isinf(ranges) | ((ranges > 0) & (ranges <= range_max))
    part = np.arange(len(ranges)) * AROUND // len(ranges)
    return _worst_share(known, part)


class DepthCamera(NamedTuple):
    """
    A depth camera: its matrix (9 numbers), ``height`` above the floor and ``forward`` of the
    robot's origin (metres), ``pitch`` radians down, and the least that it measures (``near``).
    """

    k: tuple[float, ...]
    height: float
    pitch: float = 0.0
    forward: float = 0.0
    near: float = 0.0


class DepthPoints(NamedTuple):
    """
    What every ``stride``-th pixel of a depth image of ``shape`` (rows, columns) shows: places
    ``x``, ``y``, ``z`` of the robot's frame (metres ahead, left, above the floor), whether
    anything is known there, whether it is a thing, and whether it is one that is known to be at
    that very place.

    ``measured``: metres along the optical axis. ``right``, ``down``, ``up``: where a pixel looks,
    for each metre along the optical axis.
    """

    camera: DepthCamera
    shape: tuple[int, ...]
    stride: int
    x_HW: npt.NDArray[np.float64]
    y_HW: npt.NDArray[np.float64]
    z_HW: npt.NDArray[np.float64]
    known_HW: npt.NDArray[np.bool_]
    thing_HW: npt.NDArray[np.bool_]
    placed_HW: npt.NDArray[np.bool_]
    measured_HW: npt.NDArray[np.float64]
    right_HW: npt.NDArray[np.float64]
    down_HW: npt.NDArray[np.float64]
    up_HW: npt.NDArray[np.float64]


def depth_points(
    depth_HW: npt.NDArray[np.float32], camera: DepthCamera, stride: int = 4
) -> DepthPoints:
    """
    Return what a depth image shows (metres; -inf: a thing at ``near``; +inf: free; NaN and 0:
    unknown).
    """
    k, height, pitch, forward, near = camera
    depth = depth_HW[::stride, ::stride].astype(np.float64)
    v, u = np.mgrid[0 : depth_HW.shape[0] : stride, 0 : depth_HW.shape[1] : stride]
    right, down = (u - k[2]) / k[0], (v - k[5]) / k[4]
    # one metre along the optical axis: how far along the floor, and how far up
    along = math.cos(pitch) - down * math.sin(pitch)
    up = -down * math.cos(pitch) - math.sin(pitch)
    too_near = np.isneginf(depth)
    known = too_near | (depth > 0)
    measured = np.where(too_near, near, np.where(np.isfinite(depth), depth, 0.0))
    x, y, z = forward + measured * along, -measured * right, height + measured * up
    # what is too near stands somewhere before that, and the camera itself is in the corridor
    x = np.where(too_near, np.minimum(x, forward + near).clip(1e-3), x)
    placed = (depth > 0) & np.isfinite(depth)
    thing, where = too_near | placed, (camera, depth_HW.shape, stride)
    return DepthPoints(*where, x, y, z, known, thing, placed, measured, right, down, up)


def depth_corridor(
    depth_HW: npt.NDArray[np.float32],
    seen: DepthPoints,
    *,
    half_width: float,
    low: float,
    high: float,
) -> tuple[float, float]:
    """
    Free distance ahead of the robot's origin in a corridor, from what is ``seen`` of a depth
    image, and the known share of the corridor's pixels.

    Things from ``low`` to ``high`` above the floor count; one or two pixels side by side that what
    is around them sees past are a speck and no thing. The share is that of the pixels which would
    see the corridor one metre ahead, in the worst of ``TILES`` x ``TILES`` tiles of them.
    """
    x, known = seen.x_HW, seen.known_HW
    hit = seen.thing_HW & (np.abs(seen.y_HW) <= half_width) & (x > 0)
    hit &= (seen.z_HW >= low) & (seen.z_HW <= high)
    right, level = seen.right_HW, seen.camera.height + seen.up_HW
    sees = (np.abs(right) <= half_width) & (level >= low) & (level <= high)
    row, column = (seen.stride * place for place in np.nonzero(hit))
    hit[hit] = ~_specks(depth_HW, row, column, seen.measured_HW[hit])
    clearance = float(x[hit].min()) if hit.any() else math.inf
    if not sees.any():  # it looks elsewhere
        return clearance, 0.0
    tile = _part(right, sees) * TILES + _part(seen.down_HW, sees)
    return clearance, _worst_share(known[sees], tile[sees])


def _specks(
    depth_HW: npt.NDArray[np.float32],
    v_N: npt.NDArray[np.int_],
    u_N: npt.NDArray[np.int_],
    measured_N: npt.NDArray[np.float64],
) -> npt.NDArray[np.bool_]:
    """
    Of pixels at rows ``v_N`` and columns ``u_N``, whether most neighbours are known to see
    ``FURTHER`` than what is ``measured_N`` there, and fewer than make it a ``THING`` are known not
    to.
    """
    rows, columns = v_N[:, None] + BESIDE[0], u_N[:, None] + BESIDE[1]
    height, width = depth_HW.shape
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    seen = depth_HW[rows.clip(0, height - 1), columns.clip(0, width - 1)]
    far = FURTHER * measured_N[:, None]
    past = inside & (seen > far)
    same = inside & (np.isneginf(seen) | ((seen > 0) & (seen <= far)))
    return np.asarray((2 * past.sum(1) > inside.sum(1)) & (1 + same.sum(1) < THING))


def _part(
    coordinate: npt.NDArray[np.float64], sees: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int_]:
    """Return in which of ``TILES`` equal parts of what is seen each pixel lies."""
    first, last = coordinate[sees].min(), coordinate[sees].max()
    share = (coordinate - first) / max(last - first, 1e-9)
    return np.asarray((share * TILES).clip(0, TILES - 1), np.int_)


def _worst_share(known: npt.NDArray[np.bool_], part: npt.NDArray[np.int_]) -> float:
    """Return the least known share of the parts in which there is anything; 0 of nothing."""
    if not len(known):
        return 0.0
    counts = np.bincount(part)
    seen = counts > 0
    return float((np.bincount(part, weights=known)[seen] / counts[seen]).min())

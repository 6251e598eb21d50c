"""
How far the way ahead is free, from a laser scan or a depth image. Pure functions.

The corridor begins at the robot's origin and runs ahead of it (REP-103: x forward, y left); metres
and radians.
"""

import math

import numpy as np
import numpy.typing as npt

from janusvln_ros.geometry import Pose2


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

    ``mount``: pose of the sensor on the robot. NaN, infinite and out-of-range readings are
    unknown: neither free nor an obstacle. A beam belongs to it if it points into it within
    ``range_max``; the share is that of the beams which look ahead (60 degrees to either side at
    most) and are known.
    """
    angles = angle_min + increment * np.arange(len(ranges)) + mount.yaw
    with np.errstate(invalid="ignore"):
        known = np.isfinite(ranges) & (ranges >= max(range_min, 1e-3)) & (ranges <= range_max)
    x = mount.x + np.where(known, ranges, 0.0) * np.cos(angles)
    y = mount.y + np.where(known, ranges, 0.0) * np.sin(angles)
    hit = known & (np.abs(y) <= half_width) & (x > 0)
    ahead = np.abs(np.arctan2(np.sin(angles), np.cos(angles))) <= math.atan2(half_width, 0.5)
    clearance = float(x[hit].min()) if hit.any() else math.inf
    share = float(known[ahead].mean()) if ahead.any() else 0.0
    nearest = float(np.hypot(x[known], y[known]).min()) if known.any() else math.inf
    return clearance, share, nearest


def depth_corridor(
    depth_HW: npt.NDArray[np.float32],
    k: tuple[float, ...],
    *,
    height: float,
    pitch: float,
    forward: float,
    half_width: float,
    low: float,
    high: float,
    stride: int = 4,
) -> tuple[float, float]:
    """
    Free distance ahead of the robot's origin in a corridor, from a depth image (metres, NaN
    unknown), and the known share of the corridor's pixels.

    ``k``: the 9 numbers of the camera matrix; the camera is ``height`` above the floor and
    ``forward`` of the origin, looking ``pitch`` radians down. Things from ``low`` to ``high``
    above the floor count. The share is that of the pixels which would see the corridor one metre
    ahead.
    """
    depth = depth_HW[::stride, ::stride].astype(np.float64)
    v, u = np.mgrid[0 : depth_HW.shape[0] : stride, 0 : depth_HW.shape[1] : stride]
    right, down = (u - k[2]) / k[0], (v - k[5]) / k[4]
    # one metre along the optical axis: how far along the floor, and how far up
    along = math.cos(pitch) - down * math.sin(pitch)
    up = -down * math.cos(pitch) - math.sin(pitch)
    with np.errstate(invalid="ignore"):
        x, y, z = forward + depth * along, depth * right, height + depth * up
        known = np.isfinite(depth)
        hit = known & (np.abs(y) <= half_width) & (z >= low) & (z <= high) & (x > 0)
    sees = (np.abs(right) <= half_width) & (height + up >= low) & (height + up <= high)
    share = float(known[sees].mean()) if sees.any() else float(known.mean())
    return (float(x[hit].min()) if hit.any() else math.inf), share

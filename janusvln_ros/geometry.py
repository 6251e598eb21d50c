"""
Poses on the floor, angles and quaternions: one home for nodes, bags and simulators.

The *map* of ROS (REP-103) has x forward, y left and z up; metres, radians, counter-clockwise. The
*world* of a simulator has y up; its poses are (x, y, z) and a quaternion x, y, z, w about +y, and
an agent looks along its own -z: ``x_map = -z_world``, ``y_map = -x_world``, ``z_map = y_world``;
yaw is the same angle in both. No ROS.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Pose2(NamedTuple):
    """A pose on the floor: metres and radians."""

    x: float = 0.0
    y: float = 0.0
    yaw: float = 0.0


def wrap(angle: float) -> float:
    """Return ``angle`` in (-pi, pi]."""
    return math.pi - (math.pi - angle) % (2.0 * math.pi)


def relative(start: Pose2, end: Pose2) -> Pose2:
    """Return ``end`` in the frame of ``start``: what a robot there has to move to get to it."""
    dx, dy = end.x - start.x, end.y - start.y
    cos, sin = math.cos(start.yaw), math.sin(start.yaw)
    return Pose2(cos * dx + sin * dy, -sin * dx + cos * dy, wrap(end.yaw - start.yaw))


def compose(start: Pose2, change: Pose2) -> Pose2:
    """Return the pose reached from ``start`` by ``change``: the inverse of `relative`."""
    cos, sin = math.cos(start.yaw), math.sin(start.yaw)
    return Pose2(
        start.x + cos * change.x - sin * change.y,
        start.y + sin * change.x + cos * change.y,
        wrap(start.yaw + change.yaw),
    )


def yaw_of(x: float, y: float, z: float, w: float) -> float:
    """
    Return the heading of a quaternion, which need not have length one.

    NaN if it has length zero or is not finite.
    """
    norm = x * x + y * y + z * z + w * w
    if not norm > 1e-12:
        return math.nan
    return math.atan2(2 * (w * z + x * y), norm - 2 * (y * y + z * z))


def half_turn(yaw: float) -> tuple[float, float]:
    """Return z and w of the quaternion about z up (x and y are 0): the inverse of `yaw_of`."""
    return math.sin(yaw / 2), math.cos(yaw / 2)


def rotation_of_yaw(yaw: float) -> NDArray[np.float64]:
    """Return the world quaternion float64[4] (x, y, z, w) of a heading."""
    return np.array([0.0, math.sin(yaw / 2), 0.0, math.cos(yaw / 2)])


def tilted(rotation_xyzw: ArrayLike, tilt: float) -> NDArray[np.float64]:
    """
    Return the world quaternion [4] (x, y, z, w) of a camera on an agent with ``rotation_xyzw``
    that looks down by ``tilt`` (radians): turned about its own x axis.
    """
    x, y, z, w = np.asarray(rotation_xyzw, float)
    s, c = math.sin(-tilt / 2), math.cos(tilt / 2)
    return np.array([x * c + w * s, y * c + z * s, z * c - y * s, w * c - x * s])


def optical_rotation(tilt: float) -> tuple[float, float, float, float]:
    """
    Return x, y, z, w of a camera's optical frame (REP-103: z ahead, x right, y down) in the base
    of a robot, for a camera that looks down by ``tilt`` (radians).
    """
    sin, cos = math.sin(tilt / 2), math.cos(tilt / 2)
    more, less = (cos + sin) / 2, (cos - sin) / 2
    return -more, more, -less, less


def yaw_of_rotation(rotation_xyzw: ArrayLike) -> float:
    """Return the heading of a world quaternion [4] (x, y, z, w) about y."""
    _, y, _, w = np.asarray(rotation_xyzw, float)
    return wrap(2.0 * math.atan2(y, w))


def to_map(position: ArrayLike, rotation_xyzw: ArrayLike) -> tuple[Pose2, float]:
    """
    Return the pose on the floor and the height (metres) in the map of a world pose.

    The rotation must be about the world's y.
    """
    x, y, z = np.asarray(position, float)
    return Pose2(-float(z), -float(x), yaw_of_rotation(rotation_xyzw)), float(y)


def to_world(pose: Pose2, height: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return world position [3] and quaternion [4] of a pose: the inverse of `to_map`."""
    return np.array([-pose.y, height, -pose.x]), rotation_of_yaw(pose.yaw)

"""
Where a sensor sits on the robot, of the transforms that never change (TF's ``/tf_static``). Pure
functions.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from janusvln_ros.errors import InputError, require
from janusvln_ros.geometry import Pose2

LEVEL = 0.9
"""Cosine of the tilt up to which a scanner counts as level (26 degrees)."""

LONGEST_CHAIN = 100
"""Links from a sensor to its root; more are a circle."""


class Link(NamedTuple):
    """
    A frame in its parent: metres, and the quaternion x, y, z, w of its rotation, of any length
    but zero (``geometry_msgs/TransformStamped``).
    """

    parent: str
    translation: tuple[float, float, float]
    rotation: tuple[float, float, float, float]


class Mount(NamedTuple):
    """
    A scanner on the robot: its pose, and whether it hangs upside down, so that its angles run the
    other way round.
    """

    pose: Pose2
    upside_down: bool = False


def mount_of(links: Mapping[str, Link], base: str, frame: str) -> Mount | None:
    """
    Return where the scanner whose scans are in ``frame`` sits on ``base``; None: no chain of links
    connects the two.

    Raises:
        InputError: it does not look level, or a link is none.
    """
    if frame.lstrip("/") == base.lstrip("/"):
        return Mount(Pose2())
    up, down = _to_root(links, frame), _to_root(links, base)
    if up[0] != down[0]:
        return None
    pose = np.linalg.inv(down[1]) @ up[1]
    require(
        bool(abs(pose[2, 2]) >= LEVEL),
        f"the scanner in frame '{frame}' does not look level from '{base}' (TF): a scan that is "
        "tilted is no corridor; give one that is level, or range_source: depth",
    )
    yaw = float(np.arctan2(pose[1, 0], pose[0, 0]))
    return Mount(Pose2(float(pose[0, 3]), float(pose[1, 3]), yaw), bool(pose[2, 2] < 0))


def _to_root(links: Mapping[str, Link], frame: str) -> tuple[str, npt.NDArray[np.float64]]:
    """The root above a frame, and the frame in it as float64 [4, 4]."""
    name, pose = frame.lstrip("/"), np.eye(4)
    for _ in range(LONGEST_CHAIN):
        link = links.get(name)
        if link is None:
            return name, pose
        pose, name = _matrix(link, name) @ pose, link.parent
    raise InputError(f"TF has a circle above frame '{frame}': publish a tree")


def _matrix(link: Link, name: str) -> npt.NDArray[np.float64]:
    q: npt.NDArray[np.float64] = np.array(link.rotation, np.float64)
    length = float(np.linalg.norm(q))
    require(
        0 < length < np.inf and bool(np.isfinite(link.translation).all()),
        f"TF's transform of frame '{name}' has the rotation {list(link.rotation)}: it must be a "
        "quaternion that is not zero",
    )
    x, y, z, w = q / length
    pose = np.eye(4)
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    pose[:3, 3] = link.translation
    return pose

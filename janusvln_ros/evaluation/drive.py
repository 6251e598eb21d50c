"""The record of one drive: what an agent did, where that led it, and how far its goal was."""

import math
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from janusvln_ros.actions import Action

RECORDED = (
    "actions",
    "positions",
    "rotations",
    "distances",
    "collided",
    "frames_changed",
    "poses_changed",
)
"""What a simulator notes itself of a drive, and the bridge tells in ``get_metrics``."""


@dataclass
class Drive:
    """
    What happened in one episode: the places an agent was seen at, start first, and its actions.

    ``positions`` metres and ``rotations`` quaternions x y z w in the world; ``distances`` geodesic
    metres to the goal at each place, inf where there is no path; ``collided`` for every place but
    the first whether the move to it was cut short; ``calls`` how often the agent was asked;
    ``frames_changed`` and ``poses_changed`` how many places differ in picture and in pose from the
    one before. Where every action is followed by a look, there is one place more than actions.
    """

    positions: list[list[float]] = field(default_factory=list)
    rotations: list[list[float]] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)
    actions: list[int] = field(default_factory=list)
    collided: list[bool] = field(default_factory=list)
    status: str = "error"
    calls: int = 0
    frames_changed: int = 0
    poses_changed: int = 0
    frame_hash: int | None = field(default=None, repr=False)

    @property
    def stopped(self) -> bool:
        """
        The last action was STOP and was meant as one; text that was not understood stops nothing
        unless the rules say so.
        """
        return bool(self.actions) and self.actions[-1] == Action.STOP

    def add_place(
        self,
        position: ArrayLike,
        rotation: ArrayLike,
        rgb_HW3: NDArray[np.uint8],
        distance: float,
        collided: bool = False,
    ) -> None:
        """
        Add a place [x, y, z] and heading [x, y, z, w], what is seen there and how far the goal is.

        ``collided`` tells of the move that led here; nothing led to the start.
        """
        here = np.asarray(position, float).tolist()
        facing = np.asarray(rotation, float).tolist()
        frame = zlib.crc32(np.ascontiguousarray(rgb_HW3).data)
        if self.positions:
            self.collided.append(bool(collided))
            self.poses_changed += (here, facing) != (self.positions[-1], self.rotations[-1])
            self.frames_changed += frame != self.frame_hash
        self.positions.append(here)
        self.rotations.append(facing)
        self.distances.append(float(distance))
        self.frame_hash = frame

    def as_json(self) -> dict[str, Any]:
        """Return ``RECORDED`` as a JSON-ready object; a distance that is not finite is None."""
        everything = asdict(self) | {"distances": [finite(d) for d in self.distances]}
        return {name: everything[name] for name in RECORDED}

    @classmethod
    def from_json(cls, record: Mapping[str, Any], *, status: str, calls: int) -> "Drive":
        """Return the drive that `as_json` tells of; further keys of ``record`` do not matter."""
        drive = cls(status=status, calls=calls, **{name: record[name] for name in RECORDED})
        drive.distances = [math.inf if d is None else d for d in drive.distances]
        return drive


def finite(value: float) -> float | None:
    """Return ``value``, None if it is not finite: JSON knows no infinity."""
    return value if math.isfinite(value) else None

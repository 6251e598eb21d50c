"""
What an episode has come to so far, kept by the bridge while it runs; the evaluation computes its
own metrics from the places recorded here.
"""

import math
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from janusvln_ros.actions import Action
from janusvln_ros.data.episodes import Episode


@dataclass
class Tally:
    """
    The record of one episode: one entry per place the robot was seen at, the start included, and
    one per action.

    ``positions`` are in the world (metres, y up), ``rotations`` quaternions x y z w, ``distances``
    geodesic metres to the goal (inf where unreachable). ``frames_changed`` and ``poses_changed``
    count the places that differ from the one before in picture and in pose.
    """

    episode: Episode
    success_distance: float
    positions: list[list[float]] = field(default_factory=list)
    rotations: list[list[float]] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)
    collided: list[bool] = field(default_factory=list)
    actions: list[int] = field(default_factory=list)
    frames_changed: int = 0
    poses_changed: int = 0
    frame_sum: int | None = None

    def place(
        self,
        position: Any,
        rotation: Any,
        distance: float,
        rgb: np.ndarray,
        collided: bool = False,
    ) -> None:
        """Add a place and what is seen there; ``collided`` tells of the move that led to it."""
        here, facing, seen = (
            [float(v) for v in position],
            [float(v) for v in rotation],
            zlib.crc32(np.ascontiguousarray(rgb).data),
        )
        if self.positions:
            self.poses_changed += (here, facing) != (self.positions[-1], self.rotations[-1])
            self.frames_changed += seen != self.frame_sum
        self.frame_sum = seen
        self.positions.append(here)
        self.rotations.append(facing)
        self.distances.append(float(distance))
        self.collided.append(bool(collided))

    def metrics(self) -> dict[str, Any]:
        """
        Return the metrics in the sense of VLN-CE, as a JSON-ready object (a distance that is not
        finite is None).

        Success: STOP was called nearer than ``success_distance`` to the goal (strictly); SPL:
        success * d0 / max(d0, path); oracle success: ever that near.
        """
        path = sum(math.dist(a, b) for a, b in zip(self.positions, self.positions[1:]))
        stopped = bool(self.actions) and self.actions[-1] == Action.STOP
        start, final = self.distances[0], self.distances[-1]
        success = stopped and final < self.success_distance
        longest = max(start, path)
        return {
            "episode_id": self.episode.episode_id,
            "scene_id": self.episode.scene_id,
            "steps": len(self.actions),
            "stop_called": stopped,
            "success": success,
            "spl": (start / longest if longest > 0 else 1.0)
            if success and math.isfinite(start)
            else 0.0,
            "oracle_success": min(self.distances) < self.success_distance,
            "distance_to_goal": final if math.isfinite(final) else None,
            "start_distance_to_goal": start if math.isfinite(start) else None,
            "path_length": path,
            "collisions": sum(self.collided),
            "actions": list(self.actions),
            "positions": self.positions,
            "rotations": self.rotations,
            "distances": [d if math.isfinite(d) else None for d in self.distances],
            "collided": self.collided[1:],
            "frames_changed": self.frames_changed,
            "poses_changed": self.poses_changed,
        }

"""
Watch-only: which frames of a stream that nobody stops for are decided on.

Only header stamps are looked at, never a clock.
"""

import math
from collections import deque

from janusvln_ros.geometry import Pose2, relative

MODES = ("recorded", "odom", "interval")

REMEMBERED = 20
"""Frames that a step report may still choose when it comes after them."""


class Chooser:
    """
    Picks frames by stamp (ns). ``mode``:

    * ``recorded``: the first frame of an episode, then for each step report the first one taken at
      its end or later, whichever of the two comes first;
    * ``odom``: a frame whenever, from the last chosen one, travel reaches ``forward`` metres or
      turning ``turn`` radians;
    * ``interval``: a frame every ``interval`` seconds of stamps.
    """

    def __init__(self, mode: str, *, forward: float, turn: float, interval: float):
        self.mode, self.forward, self.turn, self.interval_ns = (
            mode,
            forward,
            turn,
            round(interval * 1e9),
        )
        self.reset()

    def reset(self) -> None:
        """A new episode: the next frame is chosen."""
        self.last: int | None = None  # stamp of the last chosen frame
        self.newest: int | None = None  # stamp of the last frame seen
        self.seen = deque[int](maxlen=REMEMBERED)  # recorded: frames since the last chosen one
        self.wanted: list[int] = []  # recorded: ends of steps whose frame has not come
        self.pose: Pose2 | None = None
        self.chosen_pose: Pose2 | None = None

    def _choose(self, stamp: int) -> bool:
        self.last, self.chosen_pose = stamp, self.pose
        self.wanted = [end for end in self.wanted if end > stamp]
        while self.seen and self.seen[0] <= stamp:
            self.seen.popleft()
        return True

    def frame(self, stamp: int) -> bool:
        """A frame arrived; whether it is chosen."""
        self.newest = stamp
        if self.last is None:
            return self._choose(stamp)
        if stamp <= self.last:
            return False
        if self.mode == "recorded":
            if self.wanted and stamp >= self.wanted[0]:
                return self._choose(stamp)
            self.seen.append(stamp)
            return False
        if self.mode == "interval":
            return stamp - self.last >= self.interval_ns and self._choose(stamp)
        if self.pose is None:
            return False
        if self.chosen_pose is None:
            self.chosen_pose = self.pose
            return False
        moved = relative(self.chosen_pose, self.pose)
        return max(
            abs(moved.x) / self.forward, abs(moved.yaw) / self.turn
        ) >= 1 - 1e-6 and self._choose(stamp)

    def report(self, end_stamp: int) -> int | None:
        """
        A step ended at ``end_stamp``; the stamp of the frame seen already that is chosen by it, if
        any.
        """
        if self.last is None or end_stamp <= self.last:
            return None
        for stamp in self.seen:
            if stamp >= end_stamp:
                self._choose(stamp)
                return stamp
        self.wanted.append(end_stamp)
        return None

    def odometry(self, pose: Pose2) -> None:
        """Where the robot is now."""
        if all(map(math.isfinite, pose)):
            self.pose = pose

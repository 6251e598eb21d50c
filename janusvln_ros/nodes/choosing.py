"""Watch-only: which frames of a stream that nobody stops for are decided on. Only header stamps are looked at, never a clock."""

import math

from janusvln_ros.nodes.poses import Pose2, relative

MODES = ("recorded", "odom", "interval")


class Chooser:
    """Picks frames by stamp (ns). ``mode``:

    * ``recorded``: the first frame of an episode, then the first one after each step report;
    * ``odom``: a frame whenever, from the last chosen one, travel reaches ``forward`` metres or turning ``turn`` radians;
    * ``interval``: a frame every ``interval`` seconds of stamps.
    """

    def __init__(self, mode: str, *, forward: float, turn: float, interval: float):
        self.mode, self.forward, self.turn, self.interval_ns = mode, forward, turn, round(interval * 1e9)
        self.reset()

    def reset(self) -> None:
        """A new episode: the next frame is chosen."""
        self.last: int | None = None  # stamp of the last chosen frame
        self.newest: int | None = None  # stamp of the last frame seen
        self.wanted: int | None = None  # recorded: a frame not older than this is wanted
        self.pose: Pose2 | None = None
        self.chosen_pose: Pose2 | None = None

    def _choose(self, stamp: int) -> bool:
        self.last, self.wanted, self.chosen_pose = stamp, None, self.pose
        return True

    def frame(self, stamp: int) -> bool:
        """A frame arrived; whether it is chosen."""
        self.newest = stamp
        if self.last is None:
            return self._choose(stamp)
        if stamp <= self.last:
            return False
        if self.mode == "recorded":
            return self.wanted is not None and stamp >= self.wanted and self._choose(stamp)
        if self.mode == "interval":
            return stamp - self.last >= self.interval_ns and self._choose(stamp)
        if self.pose is None:
            return False
        if self.chosen_pose is None:
            self.chosen_pose = self.pose
            return False
        moved = relative(self.chosen_pose, self.pose)
        return max(abs(moved.x) / self.forward, abs(moved.yaw) / self.turn) >= 1 - 1e-6 and self._choose(stamp)

    def report(self, end_stamp: int) -> int | None:
        """A step ended at ``end_stamp``; the stamp of the frame seen already that is chosen by it, if any."""
        self.wanted = end_stamp
        if self.mode == "recorded" and self.newest is not None and self.last is not None and self.newest >= end_stamp and self.newest > self.last:
            self._choose(self.newest)
            return self.newest
        return None

    def odometry(self, pose: Pose2) -> None:
        """Where the robot is now."""
        if all(map(math.isfinite, pose)):
            self.pose = pose

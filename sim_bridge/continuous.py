"""
A differential base as a robot has it, without ROS: velocity commands in, a pose and imperfect
odometry out.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from janusvln_ros.geometry import Pose2, compose, relative, wrap

SUBSTEP_S = 0.01
"""Longest time over which a velocity is taken as constant, seconds."""

SCAN_HEIGHTS_M = (0.1, 1.4)
"""The band above the floor that a scan looks at, metres."""


@dataclass(frozen=True)
class BaseSettings:
    """
    What the base can do and how well it measures itself.

    Speeds in m/s and rad/s, accelerations in m/s^2 and rad/s^2. ``command_timeout`` (seconds on
    the steady clock): without a newer command the base brakes. ``odom_noise`` is the relative
    standard deviation of the measured distance and angle of each 0.25 m or 15 degrees;
    ``odom_latency`` (seconds) is how long after its stamp a measurement comes out.
    """

    max_linear: float = 0.6
    max_angular: float = 1.5
    linear_acceleration: float = 1.5
    angular_acceleration: float = 4.0
    command_timeout: float = 0.2
    odom_noise: float = 0.0
    odom_latency: float = 0.0


@dataclass(frozen=True)
class Odometry:
    """
    One measurement: the time it is for (seconds of simulated time), the estimated pose, and the
    velocity in m/s and rad/s.
    """

    time: float
    pose: Pose2
    linear: float
    angular: float


class Base:
    """
    The moving base.

    Times are given to it, it reads no clock: ``now`` is the steady clock, ``time`` the simulated
    one, both in seconds.

    ``free(x, y)`` says whether the base may stand at a place of the map. Against an obstacle it
    stops, as a robot with a bumper does, and ``blocked`` is true.
    """

    def __init__(
        self,
        settings: BaseSettings,
        free: Callable[[float, float], bool],
        pose: Pose2,
        seed: int = 0,
    ):
        self.settings = settings
        self.free = free
        self.pose = pose
        self.linear = 0.0
        self.angular = 0.0
        self.blocked = False
        self.stopped = False
        self.path_length = 0.0
        self._measured = pose
        self._command = (0.0, 0.0)
        self._command_at = -math.inf
        self._random = np.random.default_rng(seed)
        self._pending: deque[Odometry] = deque()
        self._draw_noise()

    @property
    def odom_in_map(self) -> Pose2:
        """Where the origin of the odometry lies in the map by now: its drift since the start."""
        return compose(self.pose, relative(self._measured, Pose2()))

    def command(self, linear: float, angular: float, now: float) -> bool:
        """
        Take a velocity command (m/s, rad/s), cut to the limits.

        A number that is not finite is a command to stop; False tells of it.
        """
        finite = math.isfinite(linear) and math.isfinite(angular)
        self._command = (
            (_cut(linear, self.settings.max_linear), _cut(angular, self.settings.max_angular))
            if finite
            else (0.0, 0.0)
        )
        self._command_at = now
        return finite

    def emergency_stop(self, pressed: bool) -> None:
        """
        Hold the base at rest at once while ``pressed``, whatever is commanded; afterwards it waits
        for a new command.
        """
        self.stopped = pressed
        self._command = (0.0, 0.0)

    def advance(self, duration: float, now: float, time: float) -> None:
        """
        Move for ``duration`` simulated seconds that end at ``time``; ``now`` is the steady clock
        at that end.
        """
        left = duration
        while left > 1e-9:
            step = min(SUBSTEP_S, left)
            left -= step
            self._substep(step, now - left)
        self._pending.append(Odometry(time, self._measured, self.linear, self.angular))

    def odometry(self, time: float) -> list[Odometry]:
        """
        Return the measurements that have come out by the simulated ``time``, oldest first; each is
        returned once.
        """
        ready = []
        while self._pending and self._pending[0].time + self.settings.odom_latency <= time + 1e-9:
            ready.append(self._pending.popleft())
        return ready

    def _substep(self, step: float, now: float) -> None:
        fresh = now - self._command_at <= self.settings.command_timeout
        linear, angular = self._command if fresh and not self.stopped else (0.0, 0.0)
        if self.stopped:
            self.linear = self.angular = 0.0
        self.linear += _cut(linear - self.linear, self.settings.linear_acceleration * step)
        self.angular += _cut(angular - self.angular, self.settings.angular_acceleration * step)
        turn, forward = self.angular * step, self.linear * step
        reached = _travelled(self.pose, forward, turn)
        self.blocked = forward != 0.0 and not self.free(reached.x, reached.y)
        if self.blocked:
            reached = Pose2(self.pose.x, self.pose.y, reached.yaw)
            forward = self.linear = 0.0
        self.path_length += abs(forward)
        self.pose = reached
        self._measure(forward, turn)

    def _measure(self, forward: float, turn: float) -> None:
        self._travelled[0] += abs(forward)
        self._travelled[1] += abs(turn)
        if self._travelled[0] >= 0.25 or self._travelled[1] >= math.radians(15.0):
            self._draw_noise()
        self._measured = _travelled(
            self._measured, forward * self._scale[0], turn * self._scale[1]
        )

    def _draw_noise(self) -> None:
        self._travelled = [0.0, 0.0]
        errors = self._random.normal(0.0, 1.0, 2) * self.settings.odom_noise
        self._scale = (1.0 + errors).tolist()


def _travelled(pose: Pose2, forward: float, turn: float) -> Pose2:
    """The pose after a short arc of ``forward`` metres and ``turn`` radians."""
    middle = pose.yaw + turn / 2
    x, y = pose.x + forward * math.cos(middle), pose.y + forward * math.sin(middle)
    return Pose2(x, y, wrap(pose.yaw + turn))


def _cut(value: float, limit: float) -> float:
    return max(-limit, min(limit, value))


def scan_from_depth(
    depth_HW: np.ndarray,
    focal: float,
    camera_height: float,
    beams: int,
    tilt: float = 0.0,
) -> np.ndarray:
    """
    Return float32[beams]: the range (metres) to the nearest thing within ``SCAN_HEIGHTS_M``, right
    to left.

    The angles run evenly over the camera's horizontal field of view, from -hfov/2 (right) to
    +hfov/2 (left), as in a LaserScan at ``camera_height``. ``focal`` is in pixels; ``tilt``: how
    far the camera looks down, degrees. A beam that meets nothing is +inf; one without a single
    valid depth of a ray that passes those heights is NaN.
    """
    (height, width), (low, high) = depth_HW.shape, SCAN_HEIGHTS_M
    across = (np.arange(width) + 0.5 - width / 2) / focal
    down = (np.arange(height) + 0.5 - height / 2) / focal
    sin, cos = math.sin(math.radians(tilt)), math.cos(math.radians(tilt))
    ahead, sink = cos - down * sin, sin + down * cos  # of a ray one metre along the optical axis
    with np.errstate(invalid="ignore"):
        above_floor = camera_height - sink[:, None] * depth_HW
        seen = (above_floor >= low) & (above_floor <= high) & (depth_HW > 0)
        seen &= np.isfinite(depth_HW)
    # Known is what a valid ray says that passes those heights: one that looks over them does not.
    known_HW = (np.isfinite(depth_HW) | np.isposinf(depth_HW)) & (above_floor <= high)
    half = math.atan(width / 2 / focal)
    bearing_HW = np.arctan2(-across[None], ahead[:, None])
    beam_HW = np.floor((bearing_HW + half) / (2 * half) * beams).astype(int)
    inside = (beam_HW >= 0) & (beam_HW < beams)
    ranges = np.full(beams, np.inf)
    reach_HW = np.hypot(across[None], ahead[:, None])
    hit = seen & inside
    np.minimum.at(ranges, beam_HW[hit], depth_HW[hit] * reach_HW[hit])
    known, covered = np.zeros(beams, bool), np.zeros(beams, bool)
    known[beam_HW[known_HW & inside]] = True
    covered[beam_HW[inside]] = True
    # Where beams are finer than pixels, those between two pixels meet nothing.
    return np.where(known | ~covered, ranges, np.nan).astype(np.float32)

"""
Odometry as nodes and bags use it: one message as a sample, the pose at a stamp between two, and
how fast the base is, which its own twist tells only as long as the poses agree.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from janusvln_ros.errors import require
from janusvln_ros.geometry import Pose2, wrap, yaw_of
from janusvln_ros.stamps import nanoseconds


class Sample(NamedTuple):
    """
    One odometry message: stamp (ns), pose, and speed (m/s) and turning rate (rad/s) as the base
    reports them.
    """

    stamp: int
    pose: Pose2
    speed: float = 0.0
    rate: float = 0.0


def pose_of(message: Any) -> Pose2:
    """
    The pose of a ``nav_msgs/Odometry`` on the floor; its quaternion may have any length but zero.

    Raises:
        InputError: the orientation is a quaternion of zeros, or a number is not finite.
    """
    p, q = message.pose.pose.position, message.pose.pose.orientation
    require(
        any((q.x, q.y, q.z, q.w)),
        "odometry's orientation is a quaternion of zeros, which is no heading: fill it in "
        "(w = 1 is straight ahead)",
    )
    pose = Pose2(p.x, p.y, yaw_of(q.x, q.y, q.z, q.w))
    require(
        all(map(math.isfinite, pose)),
        f"odometry is not a number: position ({p.x:g}, {p.y:g}), orientation ({q.x:g}, {q.y:g}, "
        f"{q.z:g}, {q.w:g})",
    )
    return pose


def sample_of(message: Any) -> Sample:
    """
    A ``nav_msgs/Odometry`` as a sample.

    A twist that the base does not measure (-1 at the head of its covariance, as in
    ``sensor_msgs/Imu``) is one of zeros: `velocity_at` believes no twist that the poses belie.

    Raises:
        InputError: no usable pose (`pose_of`), or a twist that is not finite.
    """
    twist, covariance = message.twist.twist, message.twist.covariance
    x, y, turning = twist.linear.x, twist.linear.y, twist.angular.z
    if len(covariance) and covariance[0] == -1:
        x = y = turning = 0.0
    require(
        all(map(math.isfinite, (x, y, turning))),
        f"odometry is not a number: twist ({x:g}, {y:g}) m/s, {turning:g} rad/s",
    )
    speed = math.copysign(math.hypot(x, y), x)
    return Sample(nanoseconds(message.header.stamp), pose_of(message), speed, turning)


def finite(sample: Sample) -> bool:
    """Whether every number of a sample is one."""
    return all(map(math.isfinite, (*sample.pose, sample.speed, sample.rate)))


TRACK = 200
"""Samples that a track holds."""


def extended(track: Sequence[Sample], sample: Sample) -> tuple[Sample, ...]:
    """
    Return ``track`` with one sample more, the oldest left out beyond ``TRACK``.

    A sample whose stamp does not advance starts it anew: the clock has jumped.
    """
    if track and sample.stamp <= track[-1].stamp:
        return (sample,)
    return (*track[1 - TRACK :], sample)


def sample_at(track: Sequence[Sample], stamp: int) -> Sample | None:
    """Return the sample at ``stamp`` (ns), interpolated; None before the first, after the last."""
    if not track or not track[0].stamp <= stamp <= track[-1].stamp:
        return None
    i = bisect_left(track, stamp, key=lambda sample: sample.stamp)
    b = track[i]
    if b.stamp == stamp:
        return b
    a = track[i - 1]
    t = (stamp - a.stamp) / (b.stamp - a.stamp)
    pose = Pose2(
        a.pose.x + t * (b.pose.x - a.pose.x),
        a.pose.y + t * (b.pose.y - a.pose.y),
        wrap(a.pose.yaw + t * wrap(b.pose.yaw - a.pose.yaw)),
    )
    return Sample(stamp, pose, a.speed + t * (b.speed - a.speed), a.rate + t * (b.rate - a.rate))


WINDOW_NS = 300_000_000
"""
Time over which poses are compared with the twist, ns: long enough that a jitter of some
millimetres is no motion, short enough to be waited for after a step.
"""

AGREE_SHARE, AGREE_SPEED, AGREE_RATE = 0.25, 0.015, 0.04
"""
How far the twist may lie from what the poses show before they contradict each other: a share of
the faster, and metres and radians per second.
"""


def velocity_at(track: Sequence[Sample], stamp: int) -> tuple[float, float] | None:
    """
    Return speed (m/s, negative backwards) and rate (rad/s) of the base at ``stamp`` (ns).

    The twist's, unless the poses of the last ``WINDOW_NS`` contradict it: then theirs, by least
    squares, which bounds what noise does. Both are weighed alike over the window, so that an
    honest base is believed at once, also while it brakes.

    None where the track does not tell: outside it, or with less than half a window of messages
    before ``stamp``, for standing still is never believed on a twist alone.
    """
    here = sample_at(track, stamp)
    if here is None:
        return None
    first = bisect_left(track, stamp - WINDOW_NS, key=lambda sample: sample.stamp)
    last = bisect_right(track, stamp, key=lambda sample: sample.stamp)
    recent = track[first:last]
    if not recent or recent[-1].stamp - recent[0].stamp < WINDOW_NS // 2:
        return None
    times = [(sample.stamp - stamp) / 1e9 for sample in recent]
    yaws = list(
        accumulate((wrap(b.pose.yaw - a.pose.yaw) for a, b in pairwise(recent)), initial=0.0)
    )
    vx = _slope(times, [sample.pose.x for sample in recent])
    vy = _slope(times, [sample.pose.y for sample in recent])
    rate, heading = _slope(times, yaws), recent[len(recent) // 2].pose.yaw
    speed = math.copysign(math.hypot(vx, vy), vx * math.cos(heading) + vy * math.sin(heading))
    told_speed = _slope(times, _integral(times, [abs(sample.speed) for sample in recent]))
    told_rate = _slope(times, _integral(times, [sample.rate for sample in recent]))
    return (
        here.speed if _agree(abs(speed), told_speed, AGREE_SPEED) else speed,
        here.rate if _agree(rate, told_rate, AGREE_RATE) else rate,
    )


def _agree(shown: float, told: float, least: float) -> bool:
    return abs(shown - told) <= max(least, AGREE_SHARE * max(abs(shown), abs(told)))


def _integral(times: Sequence[float], values: Sequence[float]) -> list[float]:
    """Return the integral of ``values`` up to each time (trapezoids)."""
    areas = ((b - a) * (u + v) / 2 for (a, b), (u, v) in zip(pairwise(times), pairwise(values)))
    return list(accumulate(areas, initial=0.0))


def _slope(times: Sequence[float], values: Sequence[float]) -> float:
    """Return the slope of the straight line through the points, by least squares."""
    middle = sum(times) / len(times)
    spread = sum((t - middle) ** 2 for t in times)
    return sum((t - middle) * v for t, v in zip(times, values)) / spread

"""Odometry as the nodes use it: one message as a sample, and the pose at a stamp between them."""

import math
from bisect import bisect_left
from collections import deque
from typing import Any, NamedTuple

from janusvln_ros.geometry import Pose2, wrap, yaw_of


class Sample(NamedTuple):
    """
    One odometry message: stamp (ns), pose, and speed (m/s) and turning rate (rad/s) as the base
    reports them.
    """

    stamp: int
    pose: Pose2
    speed: float = 0.0
    rate: float = 0.0


def sample_of(message: Any) -> Sample:
    """
    A ``nav_msgs/Odometry`` as a sample.

    Numbers that are not finite are passed on: who uses them must look (``finite``).
    """
    p, q, t = message.pose.pose.position, message.pose.pose.orientation, message.twist.twist
    stamp = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
    return Sample(
        stamp,
        Pose2(p.x, p.y, yaw_of(q.x, q.y, q.z, q.w)),
        math.copysign(math.hypot(t.linear.x, t.linear.y), t.linear.x),
        t.angular.z,
    )


def finite(sample: Sample) -> bool:
    """Whether every number of a sample is one."""
    return all(map(math.isfinite, (*sample.pose, sample.speed, sample.rate)))


class Track:
    """The latest odometry samples, for the pose at a stamp between them."""

    def __init__(self, size: int = 200):
        self.samples: deque[Sample] = deque(maxlen=size)

    def add(self, sample: Sample) -> None:
        """
        Append a sample; one that does not advance starts the track anew (a clock that jumped).
        """
        if self.samples and sample.stamp <= self.samples[-1].stamp:
            self.samples.clear()
        self.samples.append(sample)

    def at(self, stamp: int) -> Sample | None:
        """The sample at ``stamp`` (ns), interpolated; None before the first and after the last."""
        if not self.samples or not self.samples[0].stamp <= stamp <= self.samples[-1].stamp:
            return None
        samples = list(self.samples)
        i = bisect_left([s.stamp for s in samples], stamp)
        b = samples[i]
        if b.stamp == stamp:
            return b
        a = samples[i - 1]
        t = (stamp - a.stamp) / (b.stamp - a.stamp)
        pose = Pose2(
            a.pose.x + t * (b.pose.x - a.pose.x),
            a.pose.y + t * (b.pose.y - a.pose.y),
            wrap(a.pose.yaw + t * wrap(b.pose.yaw - a.pose.yaw)),
        )
        return Sample(
            stamp, pose, a.speed + t * (b.speed - a.speed), a.rate + t * (b.rate - a.rate)
        )

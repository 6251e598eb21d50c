"""Odometry as the nodes use it: one message as a sample, and the pose at a stamp between them."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, NamedTuple

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


def sample_of(message: Any) -> Sample:
    """
    A ``nav_msgs/Odometry`` as a sample.

    Numbers that are not finite are passed on: who uses them must look (``finite``).
    """
    p, q, t = message.pose.pose.position, message.pose.pose.orientation, message.twist.twist
    return Sample(
        nanoseconds(message.header.stamp),
        Pose2(p.x, p.y, yaw_of(q.x, q.y, q.z, q.w)),
        math.copysign(math.hypot(t.linear.x, t.linear.y), t.linear.x),
        t.angular.z,
    )


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

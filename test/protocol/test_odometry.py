"""Odometry messages as samples, and the pose at a stamp between two of them."""

import math
from types import SimpleNamespace

import pytest

from janusvln_ros.geometry import Pose2
from janusvln_ros.protocol.odometry import TRACK, Sample, extended, finite, sample_at, sample_of

S = 1_000_000_000


def test_a_quaternion_of_zeros_has_no_heading_and_the_sample_is_not_finite():
    zero = SimpleNamespace(x=0.0, y=0.0, z=0.0, w=0.0)
    twist = SimpleNamespace(linear=zero, angular=zero)
    message = SimpleNamespace(
        header=SimpleNamespace(stamp=SimpleNamespace(sec=1, nanosec=5)),
        pose=SimpleNamespace(pose=SimpleNamespace(position=zero, orientation=zero)),
        twist=SimpleNamespace(twist=twist),
    )
    assert sample_of(message).stamp == S + 5 and not finite(sample_of(message))


def test_a_pose_is_interpolated_across_the_wrap():
    track = (Sample(0, Pose2(0, 0, 3.1), 0.0), Sample(10, Pose2(1, 0, -3.1), 0.4))
    middle = sample_at(track, 5)
    assert middle.pose.x == 0.5 and middle.speed == 0.2
    assert abs(middle.pose.yaw) == pytest.approx(math.pi, abs=0.01)
    assert sample_at(track, 10).pose.x == 1
    assert sample_at(track, 11) is None and sample_at(track, -1) is None
    assert sample_at((), 0) is None


def test_a_track_starts_anew_when_time_jumps_back_and_is_bounded():
    track = extended((Sample(0, Pose2()), Sample(10, Pose2())), Sample(3, Pose2(1.0)))
    assert track == (Sample(3, Pose2(1.0)),)
    for stamp in range(4, 3 * TRACK):
        track = extended(track, Sample(stamp, Pose2()))
    assert len(track) == TRACK and track[-1].stamp == 3 * TRACK - 1

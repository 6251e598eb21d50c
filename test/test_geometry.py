"""Poses, angles and quaternions: the same for nodes, bags and simulators."""

import math

import numpy as np
import pytest

from janusvln_ros.geometry import Pose2, compose, relative, to_map, to_world, wrap, yaw_of


def test_relative_motion_is_in_the_frame_of_the_start():
    moved = relative(Pose2(1, 2, math.pi / 2), Pose2(1, 3, -math.pi))
    assert moved == pytest.approx((1.0, 0.0, math.pi / 2))


@pytest.mark.parametrize("angle", [0.0, 1.0, -1.0, 3.1, -3.1])
@pytest.mark.parametrize("scale", [1.0, 0.5, 7.0])
def test_heading_of_a_quaternion_of_any_length(angle, scale):
    assert yaw_of(0, 0, scale * math.sin(angle / 2), scale * math.cos(angle / 2)) == pytest.approx(
        angle
    )


@pytest.mark.parametrize("pose", [Pose2(), Pose2(1.0, -2.0, 3.0), Pose2(-4.0, 0.5, -1.0)])
def test_world_and_map_poses_convert_both_ways(pose):
    back, height = to_map(*to_world(pose, 0.1))
    assert (back.x, back.y, back.yaw, height) == pytest.approx((pose.x, pose.y, pose.yaw, 0.1))


def test_forward_in_the_world_is_forward_in_the_map():
    start, end = (
        to_map(np.zeros(3), np.array([0, 0, 0, 1]))[0],
        to_map(np.array([0, 0, -0.25]), np.array([0, 0, 0, 1]))[0],
    )
    assert (relative(start, end).x, relative(start, end).y) == (0.25, 0.0)


def test_composing_undoes_taking_apart():
    a, b = Pose2(1.0, 2.0, 2.5), Pose2(-1.0, 0.5, -2.9)
    again = compose(a, relative(a, b))
    assert (again.x, again.y, again.yaw) == pytest.approx((b.x, b.y, b.yaw))


def test_angles_wrap_to_half_a_turn_either_way():
    assert wrap(math.pi) == math.pi and wrap(-math.pi) == math.pi
    assert wrap(7.0) == pytest.approx(7.0 - math.tau) and wrap(-3.0) == pytest.approx(-3.0)

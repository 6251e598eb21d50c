"""Poses, angles and quaternions: the same for nodes, bags and simulators."""

import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from janusvln_ros.geometry import (
    Pose2,
    compose,
    optical_rotation,
    relative,
    rotation_of_yaw,
    tilted,
    to_map,
    to_world,
    wrap,
    yaw_of,
)


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


@pytest.mark.parametrize("degrees", [-30.0, 0.0, 20.0])
def test_the_optical_frame_of_a_tilted_camera_looks_down_and_keeps_its_right(degrees):
    tilt = math.radians(degrees)
    turned = Rotation.from_quat(optical_rotation(tilt))
    assert turned.apply([0, 0, 1]) == pytest.approx([math.cos(tilt), 0, -math.sin(tilt)])
    assert turned.apply([1, 0, 0]) == pytest.approx([0, -1, 0])


def test_a_tilted_camera_of_an_agent_looks_down_along_its_heading():
    tilt, yaw = math.radians(25), math.radians(70)
    turned = Rotation.from_quat(tilted(rotation_of_yaw(yaw), tilt))
    ahead = [-math.sin(yaw) * math.cos(tilt), -math.sin(tilt), -math.cos(yaw) * math.cos(tilt)]
    assert turned.apply([0, 0, -1]) == pytest.approx(ahead)

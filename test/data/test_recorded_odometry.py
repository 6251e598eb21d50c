"""Odometry of recorded drives, and a drive cut into the steps that were commanded."""

import numpy as np
import pytest

from janusvln_ros.actions import Action
from janusvln_ros.data.odometry import odometry_from_poses, odometry_from_velocity, poses_at
from janusvln_ros.errors import InputError
from janusvln_ros.protocol.choosing import Rule, cut_into_steps


@pytest.mark.parametrize("pause_s", [0.1, 1.0])
def test_commanded_steps_come_back_as_they_were_given(bags, pause_s):
    actions = [Action(int(a)) for a in np.random.default_rng(1).choice([1, 1, 1, 2, 3], 150)]
    stamps, poses = bags.simulate(actions, pause_s=pause_s, error=0.001)
    frames = list(range(stamps[0], stamps[-1] + 1, 33_333_333))
    cut = cut_into_steps(frames, odometry_from_poses(stamps, poses), Rule())
    assert [action for _, action in cut] == [*actions, Action.STOP]


def test_velocity_is_integrated_like_odometry():
    # 1 m, then 13 * 0.05... radians to the right
    commands = [(0.25, 0.0)] * 40 + [(0.0, -0.5)] * 26
    stamps = [n * 100_000_000 for n in range(len(commands))]
    odometry = odometry_from_velocity(stamps, commands)
    assert odometry[40].pose.x == pytest.approx(1.0)
    assert odometry[-1].pose.yaw == pytest.approx(-0.5 * 2.5)


def test_odometry_that_is_not_finite_is_refused():
    with pytest.raises(InputError, match="1 of 3 poses are not finite"):
        odometry_from_poses([0, 1, 2], [(0, 0, 0), (float("nan"), 0, 0), (0, 0, 0)])


def test_poses_are_in_order_of_their_stamps_whatever_the_order_of_arrival():
    odometry = odometry_from_poses([20, 0, 10, 10], [(2, 0, 0), (0, 0, 0), (1, 0, 0), (9, 9, 9)])
    assert [(s.stamp, s.pose.x) for s in odometry] == [(0, 0.0), (10, 1.0), (20, 2.0)]


def test_poses_at_stamps_are_unwrapped_and_held_at_the_ends():
    base = 1_700_000_000_000_000_000
    odometry = odometry_from_poses([base, base + 10], [(0, 0, 3.1), (1, 2, -3.1)])
    pose_N3 = poses_at(odometry, base + np.array([-5, 5, 15]))
    assert pose_N3[:, 0] == pytest.approx([0, 0.5, 1])
    assert pose_N3[:, 2] == pytest.approx([3.1, np.pi, 2 * np.pi - 3.1])

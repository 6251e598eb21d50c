"""
The simulated base: it does what it is told within its limits, stops when told nothing, and
measures itself imperfectly on request.
"""

import itertools
import math

import numpy as np
import pytest

from janusvln_ros.geometry import Pose2, compose
from sim_bridge.continuous import Base, BaseSettings, scan_from_depth

ORIGIN = Pose2(0.0, 0.0, 0.0)


def drive(base, linear, angular, seconds, step=0.02):
    """Command every ``step`` seconds; return the measurements that came out."""
    measured = []
    for i in range(round(seconds / step)):
        now = (i + 1) * step
        base.command(linear, angular, now - step)
        base.advance(step, now, now)
        measured += base.odometry(now)
    return measured


def test_speed_and_acceleration_stay_within_the_limits():
    base = Base(
        BaseSettings(max_linear=0.5, linear_acceleration=1.0, max_angular=1.0),
        lambda x, y: True,
        ORIGIN,
    )
    measured = drive(base, 99.0, -99.0, 2.0)
    speeds = [m.linear for m in measured]
    assert max(speeds) == pytest.approx(0.5) and min(m.angular for m in measured) == pytest.approx(
        -1.0
    )
    assert max(b - a for a, b in itertools.pairwise(speeds)) <= 0.02 + 1e-9


def test_the_drift_of_the_odometry_leads_from_the_measured_pose_to_the_true_one():
    base = Base(BaseSettings(odom_noise=0.1), lambda x, y: True, Pose2(2.0, 1.0, 0.5), seed=3)
    assert base.odom_in_map == pytest.approx((0, 0, 0))
    last = drive(base, 0.5, 0.4, 4.0)[-1]
    assert last.pose != pytest.approx(base.pose)
    assert compose(base.odom_in_map, last.pose) == pytest.approx(base.pose)


def test_without_commands_the_base_comes_to_rest_even_if_it_was_not_advanced_meanwhile():
    base = Base(BaseSettings(command_timeout=0.2), lambda x, y: True, ORIGIN)
    drive(base, 0.5, 0.0, 1.0)
    base.advance(5.0, 6.0, 6.0)  # one long stall of the process
    assert base.linear == 0.0
    assert base.pose.x < 0.5 + 0.5 * 0.2 + 0.5**2 / 2 / 1.5 + 0.01


def test_the_base_stops_at_an_obstacle_and_can_turn_there():
    base = Base(BaseSettings(), lambda x, y: x < 0.4, ORIGIN)
    drive(base, 0.5, 0.0, 3.0)
    assert 0.38 < base.pose.x < 0.4 and base.blocked
    drive(base, 0.0, 1.0, 1.0)
    assert base.pose.yaw > 0.7 and not base.blocked


def test_without_noise_odometry_is_the_truth():
    base = Base(BaseSettings(), lambda x, y: True, ORIGIN)
    last = drive(base, 0.4, 0.6, 3.0)[-1]
    assert (last.pose.x, last.pose.y, last.pose.yaw) == pytest.approx(
        (base.pose.x, base.pose.y, base.pose.yaw)
    )


def test_noise_has_the_given_size_and_repeats_with_its_seed():
    def errors(seed):
        base = Base(BaseSettings(odom_noise=0.02), lambda x, y: True, ORIGIN, seed)
        return [m.pose.x for m in drive(base, 0.5, 0.0, 20.0)]

    assert errors(1) == errors(1) != errors(2)
    final = np.array([errors(seed)[-1] for seed in range(20)])
    travelled = drive(Base(BaseSettings(), lambda x, y: True, ORIGIN), 0.5, 0.0, 20.0)[-1].pose.x
    expected = 0.02 * math.sqrt(0.25 * travelled)  # independent errors of each quarter metre
    assert 0.4 * expected < (final - travelled).std() < 2.0 * expected


def test_latency_delays_a_measurement_and_keeps_its_stamp():
    base = Base(BaseSettings(odom_latency=0.05), lambda x, y: True, ORIGIN)
    base.advance(0.02, 1.0, 1.0)
    assert base.odometry(1.04) == []
    assert [m.time for m in base.odometry(1.05)] == [1.0]
    assert base.odometry(2.0) == []


def test_scan_gives_the_range_along_each_beam():
    depth = np.full((48, 64), 2.0, np.float32)
    focal = 32 / math.tan(math.radians(39.5))
    ranges = scan_from_depth(depth, focal, 1.25, 16)
    assert ranges[8] == pytest.approx(2.0, abs=0.02) and ranges[0] == pytest.approx(
        2.0 / math.cos(math.radians(37)), rel=0.03
    )
    assert ranges == pytest.approx(ranges[::-1], rel=1e-5)


def test_scan_looks_right_to_left_and_leaves_out_the_floor():
    focal = 32 / math.tan(math.radians(39.5))
    down = (np.arange(48) + 0.5 - 24) / focal
    floor = (
        np.where(down > 0, 1.25 / np.maximum(down, 1e-9), np.inf)
        .astype(np.float32)[:, None]
        .repeat(64, 1)
    )
    assert np.isposinf(scan_from_depth(floor, focal, 1.25, 16)).all()
    floor[20:28, 40:] = 1.0  # something on the right of the picture
    ranges = scan_from_depth(floor, focal, 1.25, 16)
    assert ranges[0] < 1.4 and np.isposinf(ranges[-1])


def test_a_camera_that_looks_down_scans_what_a_level_one_does():
    # A wall two metres ahead, seen by rays that are turned down by 15 degrees.
    focal, tilt = 32 / math.tan(math.radians(39.5)), math.radians(15)
    down = (np.arange(48) + 0.5 - 24) / focal
    ahead = math.cos(tilt) - down * math.sin(tilt)
    depth = np.repeat((2.0 / ahead)[:, None], 64, axis=1).astype(np.float32)
    ranges = scan_from_depth(depth, focal, 1.25, 16, 15.0)
    assert ranges[8] == pytest.approx(2.0, abs=0.02)
    assert ranges[1:15] == pytest.approx(
        scan_from_depth(depth * 0 + 2, focal, 1.25, 16)[1:15], 0.05
    )


def test_a_camera_that_looks_over_everything_on_the_floor_knows_of_none_of_it():
    depth = np.full((48, 64), 3.0, np.float32)
    assert np.isnan(scan_from_depth(depth, 40.0, 1.25, 8, -45.0)).all()
    assert np.isfinite(scan_from_depth(depth, 40.0, 1.25, 8, 15.0)).all()


def test_a_column_without_valid_depth_is_unknown_not_free():
    depth = np.full((48, 64), np.nan, np.float32)
    assert np.isnan(scan_from_depth(depth, 40.0, 1.25, 8)).all()

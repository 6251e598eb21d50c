"""What stands in the way: laser scans and depth images."""

import math

import numpy as np
import pytest

from janusvln_ros.geometry import Pose2
from janusvln_ros.protocol.corridor import depth_corridor, scan_corridor

ORIGIN = Pose2()


def scan(**at):
    """A scan of 181 beams from -90 to 90 degrees, 4 m everywhere but where told (degrees)."""
    ranges = np.full(181, 4.0)
    for angle, value in at.items():
        ranges[90 + int(angle[1:].replace("m", "-"))] = value
    return ranges


def corridor(ranges, mount=ORIGIN, half_width=0.25):
    return scan_corridor(
        ranges, -math.pi / 2, math.pi / 180, 0.1, 8.0, mount=mount, half_width=half_width
    )


def test_corridor_sees_what_is_in_the_way_and_not_what_is_beside_it():
    assert corridor(scan(a0=1.0))[0] == pytest.approx(1.0)
    assert corridor(scan(a60=1.0))[0] == pytest.approx(4.0, abs=0.01)  # 0.87 m to the left
    assert corridor(scan(a10=1.0))[0] == pytest.approx(math.cos(math.radians(10)))


@pytest.mark.parametrize("value", [math.nan, 0.0, -1.0, 99.0])
def test_ranges_that_are_no_measurement_are_unknown_not_free_and_not_an_obstacle(value):
    clearance, known, nearest = corridor(np.full(181, value))
    assert (clearance, known, nearest) == (math.inf, 0.0, math.inf)


@pytest.mark.parametrize("value", [-math.inf, 0.001, 0.05, 0.0999])
def test_what_is_nearer_than_the_scanner_can_measure_is_an_obstacle_at_its_least_range(value):
    clearance, known, nearest = corridor(scan(a0=value))
    assert (clearance, known, nearest) == (pytest.approx(0.1), 1.0, pytest.approx(0.1))
    assert corridor(scan(a80=value))[2] == pytest.approx(0.1)  # for turns
    assert corridor(np.full(181, value))[0] <= 0.1


@pytest.mark.parametrize("told", [math.nan, 0.0, -1.0])
def test_a_scanner_without_a_least_range_still_tells_of_what_is_too_near(told):
    seen = scan_corridor(
        scan(a0=-math.inf), -math.pi / 2, math.pi / 180, told, 8.0, mount=ORIGIN, half_width=0.25
    )
    assert seen[0] < 0.01


def test_nothing_within_range_is_free_as_far_as_the_scanner_sees():
    clearance, known, nearest = corridor(np.full(181, math.inf))
    assert clearance == pytest.approx(8.0, abs=0.01) and known == 1.0
    assert nearest == pytest.approx(8.0)
    assert corridor(np.where(np.arange(181) == 90, 1.0, math.inf))[0] == pytest.approx(1.0)
    endless = scan_corridor(
        np.full(181, math.inf), -1.57, 0.0174, 0.1, math.inf, mount=ORIGIN, half_width=0.25
    )
    assert endless[0] > 1000 and endless[1] == 1.0


@pytest.mark.parametrize("value", [math.nan, 0.0, 99.0])
def test_a_part_of_the_way_that_gives_no_answer_is_not_outvoted_by_the_rest(value):
    ranges = scan()
    ranges[84:97] = value
    assert corridor(ranges)[1] == 0.0
    assert corridor(scan(a0=value))[1] > 0.5  # a single beam is no part of the way


def test_corridor_takes_the_mount_into_account():
    assert corridor(scan(a0=1.0), Pose2(0.2, 0.0, 0.0))[0] == pytest.approx(1.2)
    assert corridor(scan(a90=1.0), Pose2(0.0, 0.0, -math.pi / 2))[0] == pytest.approx(1.0)


def test_nearest_looks_all_around():
    assert corridor(scan(am80=0.3))[2] == pytest.approx(0.3)


def floor_image(height=1.25, pitch=0.0, wall=math.inf, box=None):
    """
    Depth of a flat floor, a wall ahead, and a box (distance, height) 0.4 m wide; 120 x 160 pixels,
    79 degrees.
    """
    f = 80 / math.tan(math.radians(39.5))
    v, u = np.mgrid[0:120, 0:160]
    right, down = (u - 79.5) / f, (v - 59.5) / f
    along, up = math.cos(pitch) - down * math.sin(pitch), -down * math.cos(pitch) - math.sin(pitch)
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = np.where(up < 0, -height / up, np.inf)
        depth = np.minimum(depth, np.where(along > 0, wall / along, np.inf))
        if box:
            t = box[0] / along
            depth = np.where(
                (np.abs(t * right) < 0.2) & (height + t * up < box[1]) & (along > 0) & (t < depth),
                t,
                depth,
            )
    return np.where(np.isfinite(depth), depth, np.nan).astype(np.float32), (
        f,
        0,
        79.5,
        0,
        f,
        59.5,
        0,
        0,
        1,
    )


@pytest.mark.parametrize("pitch", [0.0, 0.3])
def test_depth_corridor_sees_walls_and_low_boxes_and_not_the_floor(pitch):
    look = {
        "height": 1.25,
        "pitch": pitch,
        "forward": 0.0,
        "half_width": 0.25,
        "low": 0.06,
        "high": 1.5,
        "stride": 1,
    }
    depth, k = floor_image(pitch=pitch)
    assert depth_corridor(depth, k, **look)[0] == math.inf
    depth, k = floor_image(pitch=pitch, wall=2.0)
    clearance, known = depth_corridor(depth, k, **look)
    assert clearance == pytest.approx(2.0, abs=0.02) and known > 0.9
    depth, k = floor_image(pitch=pitch, wall=4.0, box=(2.2, 0.3))
    assert depth_corridor(depth, k, **look)[0] == pytest.approx(2.2, abs=0.03)


LOOK = {
    "height": 1.25,
    "pitch": 0.0,
    "forward": 0.0,
    "half_width": 0.25,
    "low": 0.06,
    "high": 1.5,
    "stride": 1,
}


@pytest.mark.parametrize("value", [math.nan, 0.0])
def test_depth_that_is_unknown_is_not_free(value):
    depth, k = floor_image(wall=2.0)
    assert depth_corridor(np.full_like(depth, value), k, **LOOK) == (math.inf, 0.0)


@pytest.mark.parametrize("value", [math.nan, 0.0])
def test_a_part_of_the_corridor_without_depth_is_not_outvoted_by_the_rest(value):
    depth, k = floor_image(wall=2.0)
    depth[40:80, 65:95] = value
    assert depth_corridor(depth, k, **LOOK)[1] == 0.0
    depth, k = floor_image(wall=2.0)
    depth[::3, ::3] = value  # holes all over are what cameras give
    assert depth_corridor(depth, k, **LOOK)[1] > 0.7


def test_depth_that_is_too_near_is_an_obstacle_at_the_least_that_the_camera_measures():
    depth, k = floor_image(wall=3.0)
    depth[50:70, 75:85] = -math.inf
    clearance, known = depth_corridor(depth, k, **LOOK, near=0.3)
    assert clearance == pytest.approx(0.3) and known > 0.9
    assert depth_corridor(depth, k, **LOOK)[0] < 0.01  # not told: at the lens
    ahead = depth_corridor(depth, k, **LOOK | {"forward": 0.2, "pitch": 0.3}, near=0.3)[0]
    assert 0.2 < ahead <= 0.5


def test_depth_beyond_the_cameras_range_is_free():
    depth, k = floor_image()
    depth[np.isnan(depth)] = math.inf
    clearance, known = depth_corridor(depth, k, **LOOK)
    assert clearance == math.inf and known == 1.0


@pytest.mark.parametrize(
    ("first", "increment", "least", "most"),
    [
        (math.nan, 0.01, 0.1, 8.0),
        (math.inf, 0.01, 0.1, 8.0),
        (-1.0, math.inf, 0.1, 8.0),
        (-1.0, math.nan, 0.1, 8.0),
        (-1.0, 0.01, math.inf, math.inf),
        (-1.0, 0.01, 9.0, 8.0),
        (-1.0, 0.01, 0.1, math.nan),
    ],
)
def test_of_a_scan_whose_geometry_is_no_number_nothing_is_known(first, increment, least, most):
    told = scan_corridor(
        np.full(181, 0.5), first, increment, least, most, mount=ORIGIN, half_width=0.25
    )
    assert told == (math.inf, 0.0, math.inf)

"""What stands in the way: laser scans and depth images."""

import math
import warnings

import numpy as np
import pytest

from janusvln_ros.geometry import Pose2
from janusvln_ros.protocol import corridor as looked
from janusvln_ros.protocol.corridor import (
    DepthCamera,
    depth_points,
    known_around,
    scan_corridor,
    without_answer,
)

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
    assert seen[0] == pytest.approx(0.001) == seen[2]


def test_nothing_within_range_is_free_as_far_as_the_scanner_sees():
    clearance, known, nearest = corridor(np.full(181, math.inf))
    assert clearance == pytest.approx(8.0, abs=0.01) and known == 1.0
    assert nearest == pytest.approx(8.0)
    assert corridor(np.where(np.arange(181) == 90, 1.0, math.inf))[0] == pytest.approx(1.0)
    endless = scan_corridor(
        np.full(181, math.inf), -1.57, 0.0174, 0.1, math.inf, mount=ORIGIN, half_width=0.25
    )
    assert endless[2] == pytest.approx(1e6) and endless[1] == 1.0


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


def depth_corridor(depth, k, *, height, pitch, forward, half_width, low, high, near=0.0, **stride):
    """Free distance and known share of a depth image."""
    seen = depth_points(depth, DepthCamera(k, height, pitch, forward, near), **stride)
    return looked.depth_corridor(depth, seen, half_width=half_width, low=low, high=high)


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


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_single_pixel_before_what_all_around_it_see_is_no_thing(stride):
    depth, k = floor_image(wall=3.0)
    depth[30:90:6, 60:102:6] = 0.4
    assert depth_corridor(depth, k, **LOOK | {"stride": stride})[0] == pytest.approx(3, abs=0.02)
    # nor where there is nothing behind it
    depth = np.full_like(depth, math.inf)
    depth[60, 78] = 0.4
    assert depth_corridor(depth, k, **LOOK | {"stride": stride})[0] == math.inf


BESIDE = [(v, u) for v in (-1, 0, 1) for u in (-1, 0, 1) if v or u]


@pytest.mark.parametrize("v, u", BESIDE)
@pytest.mark.parametrize("value", [0.4, 0.43, 0.59])
def test_two_pixels_side_by_side_are_a_speck_and_three_a_thing(value, v, u):
    depth, k = floor_image(wall=3.0)
    depth[60, 80], depth[60 + v, 80 + u] = 0.4, value
    assert depth_corridor(depth, k, **LOOK)[0] == pytest.approx(3, abs=0.02)
    depth[60 - v, 80 - u] = value
    assert depth_corridor(depth, k, **LOOK)[0] == pytest.approx(0.4)


@pytest.mark.parametrize(("beside", "nearest"), [(0.75, 0.5), (0.751, math.inf)])
def test_a_neighbour_sees_past_a_pixel_if_it_is_more_than_half_as_far_again(beside, nearest):
    depth, k = floor_image()
    depth = np.full_like(depth, math.inf)
    depth[60, 80] = 0.5
    depth[59, 79:82] = math.nan  # with the last, most of the eight would see past it
    depth[61, 80] = beside
    assert depth_corridor(depth, k, **LOOK)[0] == pytest.approx(nearest)


@pytest.mark.parametrize("value", [math.nan, 0.0, -1.0])
def test_a_pixel_is_a_thing_where_half_of_what_is_around_it_is_unknown(value):
    depth, k = floor_image(wall=3.0)
    depth[60, 80] = 0.4
    for unknown, (v, u) in enumerate(BESIDE, 1):
        depth[60 + v, 80 + u] = value
        nearest = 0.4 if unknown >= 4 else 3.0
        assert depth_corridor(depth, k, **LOOK)[0] == pytest.approx(nearest, abs=0.02)


@pytest.mark.parametrize("thing", [np.s_[:, 80], np.s_[56, :], np.s_[59:62, 80], np.s_[60, 79:82]])
def test_a_thing_one_pixel_thin_is_one(thing):
    depth, k = floor_image(wall=3.0)
    depth[thing] = 0.4
    assert depth_corridor(depth, k, **LOOK)[0] == pytest.approx(0.4)


@pytest.mark.parametrize(("v", "beside"), [(0, 1), (-1, -2)])
def test_a_speck_at_the_edge_of_the_picture_is_one_by_the_neighbours_that_there_are(v, beside):
    depth = np.full((120, 160), math.inf, np.float32)
    depth[v, 80] = depth[v, 0] = depth[60, v] = 0.1
    look = LOOK | {"low": -9.0, "high": 9.0, "half_width": 9.0}
    _, k = floor_image()
    assert depth_corridor(depth, k, **look)[0] == math.inf
    depth[beside, 79:81] = math.nan  # three of five are left
    assert depth_corridor(depth, k, **look)[0] == math.inf
    depth[v, 79] = math.nan
    assert depth_corridor(depth, k, **look)[0] == pytest.approx(0.1)


def test_a_single_pixel_that_is_too_near_to_measure_is_a_speck_too():
    depth, k = floor_image(wall=3.0)
    depth[60, 80] = -math.inf
    for near in (0.0, 0.3):
        assert depth_corridor(depth, k, **LOOK, near=near)[0] == pytest.approx(3.0, abs=0.02)
    depth[60, 81] = depth[61, 80] = 0.44  # within half as much again as 0.3 m
    assert depth_corridor(depth, k, **LOOK, near=0.3)[0] == pytest.approx(0.3)


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
    warnings.simplefilter("error")
    for value in (0.5, math.inf, -math.inf):
        told = few(np.full(181, value), first, increment, least=least, most=most)
        assert told == (math.inf, 0.0, math.inf)


# What gives no answer


def beams(count, increment, **patches):
    """A scan of walls 3 m away; ``a_b=value``: beams a to b."""
    ranges = np.full(count, 3.0)
    for name, value in patches.items():
        first, last = map(int, name.removeprefix("at").split("_"))
        ranges[first:last] = value
    return without_answer(ranges, increment, 8.0)


def test_a_gap_between_beams_that_answer_is_unknown_and_no_open_space():
    assert np.isnan(beams(181, math.pi / 180, at80_100=math.inf)[80:100]).all()


def test_open_space_stays_open():
    assert np.isinf(beams(181, math.pi / 180, at0_181=math.inf)).all()  # nothing answers
    assert np.isinf(beams(181, math.pi / 180, at100_181=math.inf)[100:]).all()  # to its end
    assert np.isinf(beams(181, math.pi / 180, at20_140=math.inf)[20:140]).all()  # too wide


def test_a_hallway_that_is_longer_than_the_scanner_sees_stays_open():
    fading = beams(181, math.pi / 180, at70_80=5.0, at80_100=math.inf, at100_110=4.5)
    assert np.isinf(fading[80:100]).all()
    absorbed = beams(181, math.pi / 180, at70_80=5.0, at80_100=math.inf)  # 3 m on one side
    assert np.isnan(absorbed[80:100]).all()


def test_the_ends_of_a_full_circle_are_neighbours():
    scan = np.full(360, 3.0)
    scan[:10] = scan[-10:] = math.inf
    told = without_answer(scan, math.tau / 360, 8.0)
    assert np.isnan(told[:10]).all() and np.isnan(told[-10:]).all() and told[10] == 3.0


def test_a_thing_that_absorbs_the_beams_straight_ahead_blocks():
    ranges = beams(181, math.pi / 180, at75_106=math.inf)
    look = {"mount": ORIGIN, "half_width": 0.25}
    assert scan_corridor(ranges, -math.pi / 2, math.pi / 180, 0.1, 8.0, **look)[1] == 0.0


def test_a_scanner_that_does_not_look_ahead_knows_nothing_of_the_way():
    ranges, look = np.full(181, 3.0), {"half_width": 0.25}
    aside = Pose2(0.0, 0.0, math.pi / 2)  # it sees from ahead to behind, on the left
    known = scan_corridor(ranges, -math.pi / 2, math.pi / 180, 0.1, 8.0, mount=aside, **look)[1]
    assert known == 0.0
    few = scan_corridor(np.full(11, 3.0), -0.1, 0.02, 0.1, 8.0, mount=ORIGIN, **look)[1]
    assert few == 0.0  # a narrow one, for most of the corridor


def test_the_share_that_is_known_around_is_that_of_the_worst_part():
    ranges = np.full(360, 2.0)
    assert known_around(ranges, 8.0) == 1.0
    ranges[45:90] = [math.nan, 0.0, 9.0] * 15
    assert known_around(ranges, 8.0) == 0.0 and known_around(np.array([]), 8.0) == 0.0


def test_a_depth_camera_that_sees_nothing_of_the_corridor_knows_nothing_of_it():
    depth, k = floor_image()
    assert depth_corridor(depth, k, **LOOK | {"pitch": -1.4})[1] == 0.0


def few(ranges, first=0.0, increment=0.0, mount=ORIGIN, half_width=0.25, least=0.5, most=8.0):
    """A scan of a few beams, all straight ahead unless told."""
    look = {"mount": mount, "half_width": half_width}
    return scan_corridor(np.array(ranges), first, increment, least, most, **look)


@pytest.mark.parametrize(("value", "told"), [(0.5, 0.5), (0.49, 0.5), (8.0, 8.0), (8.001, None)])
def test_a_scanner_measures_from_its_least_to_its_greatest_range(value, told):
    assert few([value])[0] == (math.inf if told is None else told)
    assert few([1.0], least=1.0, most=1.0)[0] == 1.0


def test_a_beam_on_the_edge_of_the_corridor_is_in_it_and_the_origin_is_not_ahead():
    assert few([1.0], mount=Pose2(0, 0.25, 0))[0] == 1.0
    assert few([1.0], mount=Pose2(0, -0.2501, 0))[0] == math.inf
    assert few([1.0], mount=Pose2(-1.0, 0, 0))[0] == math.inf
    assert few([1.0], mount=Pose2(-0.999, 0, 0))[0] == pytest.approx(0.001)


def test_a_scanner_that_stands_aside_sees_the_other_side_of_the_corridor():
    aside = Pose2(0.0, 0.5, 0.0)
    right, left = -math.pi / 4, math.pi / 4
    assert few([math.sqrt(0.5)], right, mount=aside)[0] == pytest.approx(0.5)
    assert few([math.sqrt(0.5)], left, mount=aside)[0] == math.inf


@pytest.mark.parametrize("value", [math.nan, 0.0, -1.0, 99.0])
def test_what_is_unknown_stands_nowhere(value):
    assert few([value], mount=Pose2(0.2, 0.0, 0.0))[::2] == (math.inf, math.inf)
    assert few([value, 2.0], mount=Pose2(0.2, 0.0, 0.0))[::2] == (2.2, 2.2)


@pytest.mark.parametrize("side", [1, -1])
def test_the_outermost_beams_ahead_belong_to_the_outermost_sectors(side):
    outermost = math.atan2(0.25, 0.5)
    ranges = np.full(21, 3.0)
    ranges[0] = math.nan
    assert few(ranges, side * outermost, -side * outermost / 10)[1] == pytest.approx(
        3 / 4, abs=0.1
    )
    assert few(ranges, side * outermost * 1.01, -side * outermost / 10)[1] == 1.0


def gaps(*runs, count=64, increment=math.tau / 256, far=(), depth=3.0):
    """Which beams of a scan are unknown that has +inf in ``runs``, and ``far`` beams at 5 m."""
    ranges = np.full(count, depth)
    ranges[list(far)] = 5.0
    for first, end in runs:
        ranges[first:end] = math.inf
    return set(np.flatnonzero(np.isnan(without_answer(ranges, increment, 8.0))))


def test_every_gap_of_a_scan_is_unknown_and_the_beams_beside_it_stay():
    assert gaps((10, 12), (20, 21), (40, 44)) == {10, 11, 20, 40, 41, 42, 43}
    assert gaps() == set()


def test_a_gap_that_begins_or_ends_the_scan_is_open_and_one_beam_within_is_not():
    assert gaps((0, 5)) == gaps((60, 64)) == set()
    assert gaps((1, 3)) == {1, 2} and gaps((61, 63)) == {61, 62}


def test_a_gap_is_a_thing_up_to_a_quarter_of_the_circle():
    assert len(gaps((10, 74), count=128)) == 64  # 90 degrees
    assert gaps((10, 75), count=128) == set()
    assert len(gaps((10, 74), count=128, increment=-math.tau / 256)) == 64


def test_a_gap_is_open_only_where_both_of_its_neighbours_fade():
    everywhere = set(range(64))
    assert gaps((20, 22), far=everywhere) == set()
    assert gaps((20, 22), far=everywhere - {19}) == {20, 21}
    assert gaps((20, 22), far=everywhere - {22}) == {20, 21}
    assert gaps((20, 22), far=everywhere - {18, 23}) == set()
    assert gaps((20, 22), depth=4.0) == set() and gaps((20, 22), depth=3.99) == {20, 21}


@pytest.mark.parametrize(("count", "circle"), [(256, True), (255, True), (254, False)])
def test_a_scan_is_a_circle_whose_last_beam_may_be_missing(count, circle):
    assert gaps((0, 5), count=count) == (set(range(5)) if circle else set())


def test_a_scan_of_no_beams_has_no_gaps_and_knows_nothing():
    assert len(without_answer(np.array([]), 7.0, 8.0)) == 0
    assert known_around(np.array([]), 8.0) == 0.0


def test_a_part_around_may_be_one_beam_or_none():
    assert known_around(np.full(8, 0.5), 8.0) == known_around(np.full(3, 8.0), 8.0) == 1.0
    assert known_around(np.array([8.0] * 7 + [8.001]), 8.0) == 0.0
    assert known_around(np.array([math.inf, -math.inf] * 8), 8.0) == 1.0


def pixel(depth, right=0.0, down=0.0, **look):
    """What one pixel that looks ``right`` and ``down`` of the axis tells."""
    k = (1.0, 0.0, -right, 0.0, 1.0, -down, 0.0, 0.0, 1.0)
    chosen = {"height": 1.0, "low": 0.25, "high": 1.5, **look}
    return depth_corridor(np.array([[depth]], np.float32), k, **LOOK | chosen)


@pytest.mark.parametrize(
    ("depth", "right", "down", "seen"),
    [
        (1.0, 0.25, 0.0, True),
        (1.0, -0.25, 0.0, True),
        (1.0, 0.26, 0.0, False),
        (1.0, -0.26, 0.0, False),
        (1.0, 0.0, 0.75, True),
        (1.0, 0.0, 0.76, False),
        (1.0, 0.0, -0.5, True),
        (1.0, 0.0, -0.51, False),
        (0.5, 0.5, 1.5, True),
        (0.5, 0.5, -1.0, True),
    ],
)
def test_a_thing_in_the_corridor_is_told_up_to_its_edges(depth, right, down, seen):
    assert pixel(depth, right, down)[0] == (depth if seen else math.inf)


@pytest.mark.parametrize(
    ("right", "down", "sees"),
    [
        (0.25, 0.0, 1.0),
        (0.26, 0.0, 0.0),
        (-0.25, 0.75, 1.0),
        (0.0, 0.76, 0.0),
        (0.0, -0.5, 1.0),
        (0.0, -0.51, 0.0),
    ],
)
def test_a_pixel_that_would_see_the_corridor_a_metre_ahead_counts_as_known(right, down, sees):
    assert pixel(5.0, right, down)[1] == sees


def test_a_thing_at_the_origin_or_behind_it_is_not_ahead():
    assert pixel(1.0, forward=-1.0)[0] == math.inf
    assert pixel(1.0, forward=-0.5)[0] == 0.5
    assert pixel(0.5)[1] == 1.0  # it is known nevertheless


@pytest.mark.parametrize("value", [math.nan, 0.0, -1.0, math.inf])
def test_depth_without_a_thing_stands_nowhere(value):
    assert pixel(value, forward=0.2)[0] == math.inf


def test_what_touches_the_lens_is_just_ahead_of_the_origin():
    assert pixel(-math.inf)[0] == pytest.approx(0.001) == pixel(-math.inf, forward=-2.0)[0]


def wall(columns, unknown, rows=8, **look):
    """The known share of a wall ``columns`` wide that has no depth in the ``unknown`` ones."""
    depth = np.full((rows, columns), 2.0, np.float32)
    depth[:, unknown] = math.nan
    k = (1000.0, 0.0, columns / 2, 0.0, 1000.0, rows / 2, 0.0, 0.0, 1.0)
    return depth_corridor(depth, k, **LOOK | look)[1]


def test_the_corridor_is_known_by_the_worst_quarter_of_its_width():
    assert wall(8, [0, 2, 4, 6]) == wall(8, [1, 3, 5, 7]) == 0.5
    assert wall(16, [15]) == wall(16, [0]) == 0.75
    for first in range(0, 16, 4):
        assert wall(16, list(range(first, first + 4))) == 0.0


def test_one_pixel_of_four_in_each_direction_is_looked_at_unless_told():
    depth = np.full((40, 40), math.nan, np.float32)
    depth[::4, ::4] = 2.0
    k = (1000.0, 0.0, 20.0, 0.0, 1000.0, 20.0, 0.0, 0.0, 1.0)
    look = {name: value for name, value in LOOK.items() if name != "stride"}
    assert depth_corridor(depth, k, **look) == (2.0, 1.0)

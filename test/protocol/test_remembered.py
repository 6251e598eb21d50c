"""What a depth camera has seen and sees no more."""

import math

import numpy as np
import pytest
from test_corridor import floor_image

from janusvln_ros.geometry import Pose2, compose
from janusvln_ros.protocol.corridor import DepthCamera
from janusvln_ros.protocol.remembered import (
    FORGET,
    LEVEL,
    LEVELS,
    PICTURES,
    WIDE,
    Columns,
    way_ahead,
)

COUNTS = {"half_width": 0.25, "low": 0.06, "high": 1.5}


class Walk:
    """A camera that is carried about by somebody; ``way`` is what the last picture came to."""

    def __init__(self, height=1.25, pitch=0.0, forward=0.0):
        self.mount, self.kept, self.way = (height, pitch, forward), Columns(), None

    def look(self, pose, wall=math.inf, box=None, spoil=None):
        height, pitch, forward = self.mount
        depth, k = floor_image(height=height, pitch=pitch, wall=wall, box=box)
        if spoil is not None:
            spoil(depth)
        camera = DepthCamera(k, height, pitch, forward)
        self.kept, self.way = way_ahead(self.kept, depth, camera, pose, **COUNTS)
        return self.way

    def towards(self, box_height, first=2.6, last=0.36, heading=0.5, **scene):
        """Straight towards a box, 6 cm from picture to picture; how far away it is told to be."""
        for i in range(1000):
            away = first - 0.06 * i
            if away < last:
                return
            pose = compose(Pose2(3.0, -2.0, heading), Pose2(0.06 * i))
            yield away, self.look(pose, box=(away, box_height), **scene)


@pytest.mark.parametrize(("pitch", "forward"), [(0.0, 0.0), (0.3, 0.0), (0.0, 0.4), (0.3, -0.3)])
@pytest.mark.parametrize("box_height", [0.1, 0.2, 0.4, 0.8, 1.0])
def test_a_low_thing_stands_where_it_stood_when_it_has_left_the_view(box_height, pitch, forward):
    """The camera is told to be ``forward`` of the robot's origin, and the box ``away`` of it."""
    left, walk = [], Walk(pitch=pitch, forward=forward)
    for i, (away, way) in enumerate(walk.towards(box_height)):
        if i >= PICTURES:
            assert away - 0.15 < way.clearance - forward < away + 0.01
            left.append(way.out_of_view)
    assert left[-1] == (box_height < 1.0 or not pitch)


@pytest.mark.parametrize("height", [0.3, 0.6])
def test_a_thing_as_high_as_the_camera_stays_in_view_and_is_measured(height):
    for away, way in Walk(height).towards(height + 0.2):
        assert way.clearance == pytest.approx(away, abs=0.01) and not way.out_of_view


def test_a_column_that_the_origin_stands_in_is_no_distance_ahead():
    walk = Walk()
    *_, (away, _) = walk.towards(0.4, last=0.8, heading=0.0)
    at = Pose2(3.0 + 2.6 - away, -2.0)
    distances = [walk.look(at._replace(x=at.x + 0.01 * i)).clearance for i in range(100)]
    assert min(distances) == 0.0


def test_what_is_remembered_is_beside_the_way_once_the_robot_has_turned():
    walk = Walk()
    *_, (away, _) = walk.towards(0.4, last=1.0, heading=0.0)
    at = Pose2(3.0 + 2.6 - away, -2.0)
    assert walk.look(at).clearance < 1.1
    assert walk.look(at._replace(yaw=0.8)).clearance == math.inf
    assert walk.look(at).clearance < 1.1  # and before it again when it turns back


def test_a_thing_that_has_gone_while_in_view_is_not_remembered():
    walk = Walk()
    for _ in range(3):
        walk.look(Pose2(), box=(2.0, 0.4))
    assert walk.kept.key_N.size
    walk.look(Pose2(), wall=4.0)
    assert not walk.kept.key_N.size


def test_a_person_whose_feet_left_the_view_is_gone_when_the_body_is():
    walk = Walk()
    *_, (away, _) = walk.towards(1.5, last=0.9)
    at = compose(Pose2(3.0, -2.0, 0.5), Pose2(2.6 - away))
    assert walk.look(at, wall=5.0) == (pytest.approx(5.0, abs=0.01), 1.0, False)


@pytest.mark.parametrize("pitch", [0.0, 0.2, -0.2])
@pytest.mark.parametrize("height", [0.15, 0.3, 0.6])
def test_a_person_whose_head_left_the_view_of_a_low_camera_is_gone_when_the_body_is(height, pitch):
    walk = Walk(height, pitch)
    *_, (away, _) = walk.towards(1.5, last=0.6)
    at = compose(Pose2(3.0, -2.0, 0.5), Pose2(2.6 - away))
    assert walk.look(at, wall=5.0) == (pytest.approx(5.0, abs=0.01), 1.0, False)


def test_only_the_feet_of_somebody_are_in_view_when_the_rest_is_seen_to_be_gone():
    """The camera looks down so far that 0.8 m ahead it shows the lowest 10 cm alone."""
    walk = Walk(0.3, 0.8)
    for i in range(PICTURES):
        walk.look(Pose2(0.01 * i), box=(0.4, 1.5))
    assert walk.kept.key_N.size
    walk.look(Pose2(-0.4))
    assert not walk.kept.key_N.size


LOW = 0.3, 0.0, [0, 1, 2, 3, 4, 5]
"""Height and tilt of a camera, and the levels that its picture shows 0.55 m ahead."""

HIGH = 1.25, 0.0, [10, 11, 12, 13, 14, 15]

UP = 1.55, -0.5, [15]


def kept_column(levels):
    """One column 0.5 to 0.6 m ahead, of which these levels have been seen."""
    height_NZ = np.full((1, LEVELS), math.nan)
    height_NZ[0, list(levels)] = LEVEL * (np.array(levels) + 0.5)
    at = np.array([5 * WIDE + WIDE // 2])
    return Columns(at, height_NZ, np.array([PICTURES]), np.zeros(1), 0.0, Pose2())


def dark(depth):
    depth[85:] = math.nan


def corner(depth):
    depth[:4, :4] = 0.5


@pytest.mark.parametrize(
    ("camera", "there", "left", "spoil"),
    [
        (LOW, range(16), [], None),
        (LOW, [3, 4, 5, 6, 7], [], None),
        (LOW, [5, 6], [], corner),
        (LOW, [6, 7], [6, 7], None),
        (LOW, [1, 7], [7], None),
        (LOW, [4, 6], [6], None),
        (LOW, [1, 15], [15], None),
        (LOW, [0], [0], None),
        (LOW, [0, 1], [], None),
        (LOW, [3, 4], [], dark),
        (LOW, [0, 1, 2, 3], [], dark),
        (LOW, [0, 1], [0, 1], dark),
        (HIGH, [0, 15], [0], None),
        (HIGH, [9, 10], [], None),
        (HIGH, [8, 10, 11], [8], None),
        (HIGH, range(9), range(9), None),
        (UP, [13, 14, 15], [], None),
    ],
)
def test_what_a_picture_of_a_free_way_leaves_of_a_column(camera, there, left, spoil):
    """Levels that it sees past are gone, and those that touch them where it does not show them."""
    height, tilt, in_view = camera
    walk, before = Walk(height, tilt), kept_column(there)
    walk.kept = before
    way = walk.look(Pose2(), wall=5.0, spoil=spoil)
    kept_NZ = walk.kept.height_NZ[np.isin(walk.kept.key_N, before.key_N)]
    assert np.nonzero(~np.isnan(kept_NZ))[1].tolist() == list(left)
    assert way.out_of_view == (bool(left) and not set(left) & set(in_view))


def test_a_picture_of_its_foot_takes_nothing_from_what_is_above_the_view():
    walk, before = Walk(0.3), kept_column([7])
    walk.kept = before
    walk.look(Pose2(), box=(0.55, 0.15))
    (kept_Z,) = walk.kept.height_NZ[np.isin(walk.kept.key_N, before.key_N)]
    assert not np.isnan(kept_Z[[0, 1, 7]]).any()


def test_two_pictures_are_believed_and_a_column_begins_at_its_near_side():
    walk = Walk()
    for _ in range(2):
        walk.look(Pose2(), box=(1.62, 0.4))
    assert walk.look(Pose2(0.6), wall=3.0) == (pytest.approx(1.0, abs=1e-6), 1.0, True)


@pytest.mark.parametrize("at", [Pose2(), Pose2(12345.0, -54321.0), Pose2(-70000.0, 80000.0)])
def test_it_is_remembered_wherever_odometry_began(at):
    walk = Walk()
    for _ in range(PICTURES):
        walk.look(at, box=(1.62, 0.4))
    assert walk.look(at._replace(x=at.x + 0.6), wall=3.0).clearance == pytest.approx(1.0, abs=0.06)


def test_what_a_camera_sees_of_the_robot_before_it_is_not_kept():
    walk = Walk(forward=-0.5)
    for _ in range(PICTURES):
        walk.look(Pose2(), box=(0.3, 1.2), wall=4.0)
    assert not walk.kept.key_N.size


@pytest.mark.parametrize("high", [1.5, 2.5])
def test_every_level_is_told_by_its_own_readings(high):
    kept = Columns()
    for i in range(PICTURES):
        depth, k = floor_image(height=0.6, box=(2.5, high))
        camera = DepthCamera(k, 0.6, 0.0, 0.0)
        kept, _ = way_ahead(kept, depth, camera, Pose2(0.1 * i), **COUNTS | {"high": high})
    told_NZ = np.floor(kept.height_NZ / LEVEL + 1e-9)
    assert (np.isnan(told_NZ) | (told_NZ == np.arange(LEVELS)))[:, :-1].all()
    assert not np.isnan(told_NZ[:, :-1]).all(axis=0).any()
    assert (told_NZ[:, -1] > LEVELS - 1).any() == (high > 2)


def test_a_small_picture_is_looked_at_whole():
    depth, k = floor_image(box=(2.0, 1.2))
    camera = DepthCamera((*k[:2], k[2] - 40, *k[3:]), 1.25, 0.0, 0.0)
    _, way = way_ahead(Columns(), depth[:, 40:120], camera, Pose2(), **COUNTS)
    assert way.clearance == pytest.approx(2.0, abs=0.01)


@pytest.mark.parametrize(("wide", "kept"), [(3, False), (12, True)])
def test_of_a_large_picture_a_hundred_and_sixty_columns_are_looked_at(wide, kept):
    k = floor_image()[1]
    depth = np.full((480, 640), np.nan, np.float32)
    depth[301, 400 : 400 + wide] = depth[300, 400 : 400 + wide] = 1.5
    scaled = tuple(4 * value if i in (0, 2, 4, 5) else value for i, value in enumerate(k))
    columns = Columns()
    for _ in range(PICTURES):
        camera = DepthCamera(scaled, 1.25, 0.0, 0.0)
        columns, _ = way_ahead(columns, depth, camera, Pose2(), **COUNTS)
    assert bool(columns.key_N.size) == kept


@pytest.mark.parametrize("bar", [0.0, 0.15])
def test_a_table_top_above_the_view_is_not_gone_because_one_sees_beneath_it(bar):
    """A camera at 0.3 m sees its slab, from 0.7 to 0.8 m, and perhaps a bar above the floor."""
    walk = Walk(0.3)

    def table_at(away):
        def table(depth):
            whole, below, low = (
                floor_image(height=0.3, box=(away, top))[0] for top in (0.8, 0.7, bar)
            )
            shown = ((whole != below) & ~np.isnan(whole)) | (low == np.float32(away))
            depth[shown] = whole[shown]

        return table

    for i in range(40):
        away = 2.6 - 0.06 * i
        way = walk.look(Pose2(0.06 * i), wall=2.4 + away, spoil=table_at(away))
        if i >= PICTURES:
            assert way.clearance == pytest.approx(away, abs=0.15)
    assert way.out_of_view  # the slab from 0.65 m on, the bar from 0.25 m on


def test_what_is_behind_is_judged_by_no_picture_of_what_is_ahead():
    walk = Walk()
    for _ in range(PICTURES):
        walk.look(Pose2(), box=(2.0, 1.2))
    before = set(walk.kept.key_N.tolist())
    way = walk.look(Pose2(0.0, 0.0, math.pi), wall=4.0)
    assert before and before <= set(walk.kept.key_N.tolist())
    assert way.clearance == pytest.approx(4.0, abs=0.01)


@pytest.mark.parametrize("unknown", [math.nan, 0.0])
def test_a_thing_is_not_gone_because_a_picture_does_not_tell(unknown):
    walk = Walk()
    for _ in range(3):
        walk.look(Pose2(), box=(2.0, 0.4))
    before = len(walk.kept.key_N)
    walk.look(Pose2(), spoil=lambda depth: depth.fill(unknown))
    assert len(walk.kept.key_N) == before


def test_a_thing_that_is_hidden_by_another_is_not_gone():
    walk = Walk()
    for _ in range(3):
        walk.look(Pose2(), box=(2.0, 0.4))
    before = len(walk.kept.key_N)
    walk.look(Pose2(), wall=1.0)
    assert len(walk.kept.key_N) > before


def test_one_picture_is_not_believed():
    walk = Walk()
    walk.look(Pose2(), box=(1.6, 0.4))
    assert walk.look(Pose2(0.6), wall=3.0).clearance == pytest.approx(3.0, abs=0.02)


@pytest.mark.parametrize("pixels", [2, 3])
def test_two_pixels_are_a_speck_and_three_a_thing(pixels):
    walk, pose = Walk(), Pose2()

    def speck(depth):
        depth[80, 80 : 80 + pixels] = 1.2

    for _ in range(PICTURES):
        walk.look(pose, spoil=speck)
    assert walk.kept.key_N.size == (pixels == 3)


def test_pixels_within_ten_centimetres_are_one_thing():
    """Three of them 4 cm apart, on a wall that is too far to be kept."""
    walk = Walk()

    def post(depth):
        depth[100, [76, 78, 80]] = 2.05  # 2.1 cm a pixel

    for _ in range(PICTURES):
        walk.look(Pose2(0.0, 0.02), wall=4.0, spoil=post)
    assert walk.kept.key_N.size == 1


@pytest.mark.parametrize(("distance", "kept"), [(2.85, True), (3.15, False)])
def test_what_is_farther_than_three_metres_is_not_kept(distance, kept):
    walk = Walk()
    for _ in range(PICTURES):
        walk.look(Pose2(), box=(distance, 1.0))
    assert bool(walk.kept.key_N.size) == kept


def test_what_three_metres_lie_between_is_kept_no_longer():
    walk = Walk()
    for _ in range(PICTURES):
        walk.look(Pose2(), box=(2.0, 0.4))
    walk.look(Pose2(-0.9, 0.0, math.pi))
    assert walk.kept.key_N.size
    walk.look(Pose2(-1.1, 0.0, math.pi))
    assert not walk.kept.key_N.size


@pytest.mark.parametrize("pitch", [0.0, 0.3])
@pytest.mark.parametrize(("behind", "stays"), [(0.12, True), (0.35, False)])
def test_a_picture_must_see_past_a_thing_by_more_than_noise(pitch, behind, stays):
    walk = Walk(pitch=pitch)
    for _ in range(PICTURES):
        walk.look(Pose2(), box=(2.0, 0.4))
    before = set(walk.kept.key_N.tolist())
    walk.look(Pose2(), wall=2.0 + behind)
    assert (before & set(walk.kept.key_N.tolist()) == before) == stays


@pytest.mark.parametrize(("side", "gone"), [("left", True), ("right", False)])
def test_what_stands_to_the_left_is_judged_by_the_left_of_the_picture(side, gone):
    walk = Walk()

    def box(depth):  # 0.7 m to the left at 2 m: columns 32 to 58 of 160
        depth[80:, 32:58] = np.minimum(depth[80:, 32:58], 2.0)

    for _ in range(PICTURES):
        walk.look(Pose2(), wall=2.6, spoil=box)
    is_box = np.isnan(walk.kept.height_NZ[:, 9:]).all(axis=1)  # the wall is higher
    boxed = set(walk.kept.key_N[is_box].tolist())
    assert boxed

    def unknown(depth):
        depth[:, 80:] = depth[:, 80:] if side == "right" else math.nan
        depth[:, :80] = depth[:, :80] if side == "left" else math.nan

    walk.look(Pose2(), wall=2.6, spoil=unknown)
    assert bool(boxed & set(walk.kept.key_N.tolist())) != gone


def test_what_hangs_above_the_robot_is_not_kept_and_nothing_is_out_of_view_then():
    walk = Walk()

    def lamp(depth):  # rows that look up: 1.6 m above the floor and more
        depth[:40, 70:90] = 2.0

    for _ in range(PICTURES):
        assert walk.look(Pose2(), wall=4.0, spoil=lamp) == (4.0, 1.0, False)
    assert not walk.kept.key_N.size


def test_at_every_heading_what_is_in_view_is_seen_to_be_gone_and_what_is_not_stays():
    """Things pass over both edges of the view; 0.69 rad of it lie on either side."""
    walk = Walk()
    for _ in range(PICTURES):
        walk.look(Pose2(), box=(2.0, 0.4))
    boxed = walk.kept
    for yaw in np.arange(-1.2, 1.2, 0.005):
        walk.kept = boxed
        walk.look(Pose2(0.0, 0.0, yaw), wall=2.9)
        at_x, at_y = 0.1 * (np.array(np.divmod(boxed.key_N, WIDE)) - [[0], [WIDE // 2]] + 0.5)
        gone = ~np.isin(boxed.key_N, walk.kept.key_N)
        off = np.abs(np.arctan2(at_y, at_x) - yaw)
        assert gone[off < 0.6].all() and not gone[off > 0.7].any()


def test_a_picture_that_a_bump_has_shifted_takes_nothing_away():
    """The camera nods up by two degrees, which nobody tells: its pictures show things lower."""
    walk = Walk()
    for _ in range(PICTURES):
        walk.look(Pose2(), box=(2.0, 0.4))
    before = set(walk.kept.key_N.tolist())
    depth, k = floor_image(pitch=-0.035, box=(2.0, 0.4))
    kept, _ = way_ahead(walk.kept, depth, DepthCamera(k, 1.25, 0.0, 0.0), Pose2(), **COUNTS)
    assert before and before <= set(kept.key_N.tolist())


def test_where_nothing_is_ahead_nothing_is_out_of_view_either():
    way = Walk().look(Pose2())
    assert way.clearance == math.inf and not way.out_of_view


@pytest.mark.parametrize("yaw", [1.2, -1.2])
def test_what_is_beside_the_view_is_judged_by_no_pixel_of_it(yaw):
    walk = Walk()
    for _ in range(PICTURES):
        walk.look(Pose2(), box=(2.0, 0.4))
    before = set(walk.kept.key_N.tolist())
    walk.look(Pose2(0.0, 0.0, yaw), wall=4.0)
    assert before <= set(walk.kept.key_N.tolist())


def test_what_is_too_near_to_measure_has_no_place_that_could_be_remembered():
    walk = Walk()
    for _ in range(4):
        walk.look(Pose2(), spoil=lambda depth: depth.fill(-math.inf))
    assert not walk.kept.key_N.size and walk.way.clearance < 0.01


def test_a_thing_is_forgotten_when_the_robot_has_driven_on_since():
    walk = Walk()
    for _ in range(3):
        walk.look(Pose2(), box=(2.0, 0.4))
    assert FORGET == 3.0
    circle = [Pose2(0.1 * (i % 2), 0.0, math.pi) for i in range(30)]
    for pose in circle:
        walk.look(pose)
    assert walk.kept.key_N.size  # 10 cm less than that were driven
    walk.look(Pose2(0.1, 0.0, math.pi))
    walk.look(Pose2(0.0, 0.0, math.pi))
    assert not walk.kept.key_N.size


def test_without_odometry_nothing_is_remembered():
    walk = Walk()
    for _ in range(3):
        walk.look(Pose2(), box=(2.0, 0.4))
    walk.look(None, box=(2.0, 0.4))
    assert not walk.kept.key_N.size and walk.way.clearance == pytest.approx(2.0, abs=0.03)


@pytest.mark.parametrize("far", [1e9, -1e300, 1.7e308])
@pytest.mark.filterwarnings("error")
def test_odometry_from_nowhere_does_no_harm(far):
    walk = Walk()
    for _ in range(3):
        assert walk.look(Pose2(far, -far, 1.0), box=(2.0, 0.4)).clearance < 2.1


def test_many_things_are_kept_apart():
    """Columns on either side of the axes have keys of their own."""
    walk = Walk()
    for yaw in np.arange(0.0, math.tau, 0.2):
        for _ in range(PICTURES):
            walk.look(Pose2(0.0, 0.0, yaw), box=(1.9, 0.4))
    found = [walk.look(Pose2(0.0, 0.0, yaw)).clearance for yaw in (0.1, 1.7, 3.3, 4.9)]
    assert all(distance == math.inf for distance in found)  # in view, and seen to be gone
    assert len(walk.kept.key_N) == len(set(walk.kept.key_N.tolist()))

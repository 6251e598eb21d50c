import itertools

import numpy as np
import pytest

from sim_bridge.homes.furnish import furnish
from sim_bridge.homes.plan import door_zone, gap, make_plan, with_heights_and_leaves
from sim_bridge.homes.routes import RouteMap

both_generators = pytest.mark.parametrize("generator", [1, 2])


def plans(count=25, generator=1):
    for seed in range(count):
        rng = np.random.default_rng(seed)
        plan = make_plan(rng, 2 + seed % 11)
        if generator == 2:
            plan = with_heights_and_leaves(rng, plan)
        yield plan, furnish(rng, plan, generator)


def test_a_home_has_the_number_of_rooms_asked_for():
    assert [len(plan.rooms) for plan, _ in plans()] == [2 + seed % 11 for seed in range(25)]


@both_generators
def test_a_robot_0_58_m_wide_reaches_every_opening_from_every_other_past_the_furniture(generator):
    for plan, things in plans(generator=generator):
        routes = RouteMap(plan, things, 0.29)
        centres = [np.array(door.centre) for door in plan.doors]
        assert all(routes.path(a, b) is not None for a, b in itertools.combinations(centres, 2))


def test_rooms_two_doors_apart_have_different_wall_colours():
    for plan, _ in plans():
        for room in plan.rooms:
            reached = {door.other(room.index) for door in plan.doors_of[room.index]}
            around = [plan.rooms[r].colour for r in reached]
            assert len({plan.rooms[r].colour for r in reached}) == len(reached)
            assert room.colour not in around


@both_generators
def test_no_two_things_of_a_home_have_one_name_and_none_has_the_colour_of_its_walls(generator):
    for plan, things in plans(generator=generator):
        assert len({t.name for t in things}) == len(things)
        assert all(t.colour != plan.rooms[t.room].colour for t in things)
        for room in plan.rooms:
            colours = [t.colour for t in things if t.room == room.index]
            assert len(set(colours)) == len(colours)


@both_generators
def test_things_stand_inside_their_rooms(generator):
    for plan, things in plans(generator=generator):
        for t in things:
            x0, z0, x1, z1 = plan.rooms[t.room].rect
            assert x0 <= t.rect[0] < t.rect[2] <= x1 and z0 <= t.rect[1] < t.rect[3] <= z1


def test_a_door_leaf_stands_open_beside_its_opening_and_clear_of_all_others():
    leaves = 0
    for plan, things in plans(generator=2):
        for leaf in plan.leaves:
            room = plan.rooms[leaf.room]
            x0, z0, x1, z1 = room.rect
            assert (
                x0 < leaf.rect[0] and z0 < leaf.rect[1] and leaf.rect[2] < x1 and leaf.rect[3] < z1
            )
            assert all(
                gap(leaf.rect, door_zone(d, room, 0.0)) > 0 for d in plan.doors_of[room.index]
            )
            assert all(gap(leaf.rect, t.rect) >= 0.64 for t in things if t.room == room.index)
            leaves += 1
    assert leaves > 30


def test_homes_of_generator_2_differ_in_the_heights_of_walls_and_doors():
    heights = [(plan.wall_height, plan.door_height) for plan, _ in plans(generator=2)]
    assert np.ptp([wall for wall, _ in heights]) > 0.5
    assert np.ptp([door for _, door in heights]) > 0.15
    assert all(door + 0.2 < wall for wall, door in heights)


def test_shortest_path_around_a_corner_is_exact():
    plan, _ = next(plans(1))
    routes = RouteMap(plan, [], 0.1)
    (a, b), door = (plan.rooms[0].centre, plan.rooms[1].centre), plan.doors[0]
    path = routes.path(np.array(a), np.array(b))
    through = (
        routes.path(np.array(a), np.array(door.centre)),
        routes.path(np.array(door.centre), np.array(b)),
    )
    assert through[0] is not None and through[1] is not None
    total = np.linalg.norm(np.diff(path, axis=0), axis=1).sum()
    detour = sum(np.linalg.norm(np.diff(p, axis=0), axis=1).sum() for p in through)
    assert np.linalg.norm(np.array(a) - b) - 1e-9 <= total <= detour + 1e-9


def test_outside_there_is_no_way():
    plan, _ = next(plans(1))
    assert (
        RouteMap(plan, [], 0.1).path(np.array(plan.rooms[0].centre), np.array([100.0, 0.0]))
        is None
    )


@pytest.mark.parametrize("n_rooms", [2, 12])
def test_the_same_seed_gives_the_same_plan(n_rooms):
    assert make_plan(np.random.default_rng(5), n_rooms) == make_plan(
        np.random.default_rng(5), n_rooms
    )

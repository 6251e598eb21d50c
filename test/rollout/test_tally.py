"""Failures of drives: one way to fail each, in a home of which everything is known."""

import numpy as np
import pytest

from janusvln_ros.data.episodes import Episode
from janusvln_ros.rollout.tally import OUTCOMES, Scene, groups_of, outcome, rooms_along, tally
from sim_bridge.homes.furnish import Thing
from sim_bridge.homes.plan import Door, Plan, Room

# A hallway along x below three rooms, and a room at its end:
#
#   +---+---+---+
#   | 1 | 2 | 3 |
#   +-'-+-'-+-'-+---+
#   |  0 hallway '4 |
#   +-----------+---+
ROOMS = (
    Room(0, (0.0, 0.0, 9.0, 2.0), "white", True),
    Room(1, (0.0, 2.0, 3.0, 5.0), "red", False),
    Room(2, (3.0, 2.0, 6.0, 5.0), "blue", False),
    Room(3, (6.0, 2.0, 9.0, 5.0), "green", False),
    Room(4, (9.0, 0.0, 12.0, 2.0), "pink", False),
)
DOORS = (
    *(Door((0, i), (3.0 * i - 1.5, 2.0), True, 0.9) for i in (1, 2, 3)),
    Door((0, 4), (9.0, 1.0), False, 0.9),
)
LAMP = Thing("lamp", "red", 2, (3.2, 4.5, 3.5, 4.8), 1.4, (0, -1))
CHAIR = Thing("chair", "blue", 2, (5.5, 4.5, 5.8, 4.8), 1.0, (0, -1))
DOORS_OF = tuple(tuple(d for d in DOORS if room.index in d.rooms) for room in ROOMS)
SCENE = Scene(Plan((0.0, 0.0, 12.0, 5.0), ROOMS, DOORS, DOORS_OF), (LAMP, CHAIR))

START, DOOR_1, DOOR_2, GOAL = (0.5, 1.0), (1.5, 2.0), (4.5, 2.0), (3.5, 4.0)
ROUTE = [START, (4.5, 1.0), DOOR_2, (4.5, 2.6), GOAL]


def episode(route=ROUTE, **info):
    points = tuple((x, 0.0, z) for x, z in route)
    info = {"goal_landmark": "red lamp", "house_seed": 1, **info}
    return Episode(
        "1", "1", "houses/a/a.glb", points[0], (0, 0, 0, 1), points[-1], 3.0, "go", points, None,
        info=info,
    )  # fmt: skip


def line(path, **values):
    points = np.array(path)
    return {
        "status": "stopped",
        "success_1m": 0.0,
        "success": 0.0,
        "collisions": 0,
        "actions": [1] * 20,
        "oracle_ne": 1.5,
        "path_length": float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum()),
        **values,
    }


def driven(path, route=ROUTE, scene=SCENE, **values):
    points = np.array([(x, 0.0, z) for x, z in path])
    return outcome(line(path, **values), points, episode(route), scene)


def test_a_way_is_the_rooms_it_leads_through():
    assert rooms_along(SCENE.plan, np.array(ROUTE)) == [0, 2]
    assert rooms_along(SCENE.plan, np.array([START])) == [0]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ([START, (4.0, 1.0)], "early stop"),
        ([START, (1.5, 1.0), DOOR_1, (1.5, 3.0)], "miscounted doors"),
        ([START, (7.5, 1.0), (7.5, 2.0), (7.5, 3.0)], "miscounted doors"),
        ([START, (8.0, 1.0), (9.0, 1.0), (10.0, 1.0)], "wrong room"),
        ([*ROUTE[:3], (4.5, 2.6), (5.6, 4.0)], "wrong thing"),
        ([*ROUTE[:3], (4.4, 2.9)], "early stop"),
        ([*ROUTE[:4], (3.35, 3.4)], "near the goal"),
        ([*ROUTE[:4], (4.5, 1.0), (7.5, 1.0), (7.5, 3.0)], "wrong room"),
    ],
)
def test_where_a_drive_stopped_says_how_it_failed(path, expected):
    assert driven(path) == expected


def test_a_route_in_one_room_may_end_early_too():
    route = [(3.6, 2.4), (5.6, 4.0)]
    assert driven([(3.6, 2.4), (4.0, 2.7)], route) == "early stop"


def test_who_did_not_go_and_come_back_has_stopped_early():
    back = [START, (4.5, 1.0), DOOR_2, (4.5, 2.6), (4.5, 1.0), (8.0, 1.0)]
    assert driven([START, (2.0, 1.0)], back) == "early stop"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"success_1m": 1.0}, "arrived"),
        ({"oracle_ne": 0.8}, "late stop"),
        ({"status": "step_limit", "oracle_ne": 0.8}, "lost"),
        ({"path_length": 40.0}, "lost"),
        ({"collisions": 9}, "blocked"),
        ({"collisions": 7}, "early stop"),
        ({"status": "blocked"}, "blocked"),
        ({"status": "not_understood"}, "not understood"),
        ({"status": "error"}, "error"),
    ],
)
def test_what_the_record_alone_says_comes_first(values, expected):
    assert driven([START, (4.0, 1.0)], **values) == expected


def test_without_a_plan_only_the_record_speaks():
    assert driven([START, (2.0, 1.0)], scene=None) == "early stop"
    assert driven([START, (8.0, 1.0)], scene=None, path_length=7.5) == "elsewhere"


def test_drives_are_grouped_by_the_steps_of_the_expert_and_by_tags():
    groups = {
        steps: groups_of({"reference_steps": steps, "tags": ["memory"]})
        for steps in (1, 24, 25, 56, 57, 200)
    }
    assert groups[1] == groups[24] == ["1-24 steps", "memory"]
    assert groups[25] == ["25-39 steps", "memory"] and groups[56] == ["40-56 steps", "memory"]
    assert groups[57] == groups[200] == ["57+ steps", "memory"]
    assert groups_of({"reference_steps": None}) == []


def test_every_drive_is_counted_once_with_an_interval_in_all_and_in_its_groups():
    lines = [
        {"scene_id": "a", "episode_id": i, "success": i % 2, "reference_steps": 20 + 20 * (i > 1)}
        for i in range(4)
    ]
    result = tally(lines, ["arrived", "lost", "lost", "wrong room"], groups_of)
    assert result["groups"] == {"1-24 steps": 2, "40-56 steps": 2}
    assert sum(row["episodes"] for row in result["outcomes"].values()) == result["episodes"] == 4
    lost = result["outcomes"]["lost"]
    assert lost["share"] == 0.5 and lost["which"] == ["a/1", "a/2"]
    assert lost["within_success_distance"] == 1
    assert lost["groups"]["40-56 steps"]["episodes"] == 1
    low, high = lost["groups"]["40-56 steps"]["share_ci95"]
    assert low < 0.5 < high
    assert list(result["outcomes"]) == [
        n for n in OUTCOMES if n in ("arrived", "lost", "wrong room")
    ]

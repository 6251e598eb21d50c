"""The shortest-path expert: arrives, wastes nothing, never flickers."""

import itertools

import numpy as np
import pytest

from janusvln_ros.actions import Action
from janusvln_ros.errors import InputError
from janusvln_ros.geometry import rotation_of_yaw
from sim_bridge.expert import ReferencePathFollower
from sim_bridge.navmesh import NavMesh, distance_field


def drive(env, target, radius=0.25, limit=200):
    actions = []
    while len(actions) < limit:
        actions.append(env.expert_action(target, radius))
        if actions[-1] == Action.STOP:
            break
        env.step(actions[-1])
    return actions


def random_place(env, rng):
    mesh = env.mesh
    cell = rng.choice(np.flatnonzero(mesh.island == 0))
    x, z = mesh.origin[::2] + (mesh.ij[cell] + 0.5) * 0.025
    return np.array([x, mesh.height[cell], z])


def test_it_arrives_from_anywhere_by_nearly_the_shortest_way(env):
    rng = np.random.default_rng(1)
    for _ in range(8):
        start, goal = random_place(env, rng), random_place(env, rng)
        env.set_state(start, rotation_of_yaw(rng.uniform(-np.pi, np.pi)))
        shortest = env.geodesic_distance(start, goal)
        actions = drive(env, goal)
        assert actions[-1] == Action.STOP
        assert env.geodesic_distance(env.observation().position, goal) <= 0.25
        assert 0.25 * actions.count(Action.MOVE_FORWARD) <= 1.03 * shortest + 0.25


def test_labels_do_not_flicker(env):
    rng = np.random.default_rng(2)
    for _ in range(5):
        env.set_state(random_place(env, rng), rotation_of_yaw(rng.uniform(-np.pi, np.pi)))
        actions = drive(env, random_place(env, rng))
        assert not [
            pair
            for pair in itertools.pairwise(actions)
            if set(pair) == {Action.TURN_LEFT, Action.TURN_RIGHT}
        ]


def test_the_label_is_a_function_of_the_state(env):
    state = ([5.5, 0.001, 4.5], rotation_of_yaw(1.0))
    env.set_state(*state)
    first = env.expert_action([1.5, 0.001, 4.5], 0.25)
    drive(env, [9.0, 0.001, 1.5])
    env.set_state(*state)
    assert env.expert_action([1.5, 0.001, 4.5], 0.25) == first


def test_a_target_straight_behind_always_turns_left(env):
    env.set_state([5.5, 0.001, 4.5], rotation_of_yaw(0.0))
    assert env.expert_action([5.5, 0.001, 5.0], 0.25) == Action.TURN_LEFT
    actions = drive(env, [5.5, 0.001, 5.2])
    assert actions[:12] == [Action.TURN_LEFT] * 12


def test_it_stops_within_the_radius_and_only_there(env):
    env.set_state([5.5, 0.001, 4.5], rotation_of_yaw(0.0))
    assert env.expert_action([5.5, 0.001, 3.8], 0.75) == Action.STOP
    assert env.expert_action([5.5, 0.001, 3.8], 0.65) == Action.MOVE_FORWARD


def test_an_unreachable_target_is_an_error(env):
    env.set_state([5.5, 0.001, 4.5], rotation_of_yaw(0.0))
    closet = next(i for i in (1, 2) if abs(env.mesh.height[env.mesh.island == i][0] - 0.001) < 0.1)
    cell = np.flatnonzero(env.mesh.island == closet)[100]
    x, z = env.mesh.origin[::2] + (env.mesh.ij[cell] + 0.5) * 0.025
    with pytest.raises(InputError, match="no way"):
        env.expert_action([x, 0.001, z], 0.25)


def test_the_follower_visits_way_points_in_order(env):
    env.set_state([5.5, 0.001, 4.5], rotation_of_yaw(0.0))
    waypoints = [[5.5, 0.001, 1.5], [5.5, 0.001, 4.5]]
    follower = ReferencePathFollower(env, waypoints, waypoint_radius=0.5)
    nearest = np.inf
    for _ in range(100):
        action = follower.action()
        if action == Action.STOP:
            break
        position = env.step(action).position
        nearest = min(nearest, float(np.linalg.norm(position - waypoints[0])))
    assert action == Action.STOP
    assert nearest <= 0.5
    assert follower.next_waypoint == 1


def test_following_nothing_is_an_error(env):
    with pytest.raises(InputError):
        ReferencePathFollower(env)
    with pytest.raises(InputError):
        ReferencePathFollower(env, np.zeros((0, 3)))


def test_a_field_that_is_marched_only_so_far_is_the_whole_one_up_to_there(env):
    mesh, rng = env.mesh, np.random.default_rng(3)
    goal = random_place(env, rng)
    whole = distance_field(mesh, *mesh.place(goal))
    cells = np.flatnonzero(mesh.island == 0)
    points_M3 = np.column_stack([mesh.origin[0] + mesh.ij[cells, 0] * 0.025, mesh.height[cells]])
    points_M3 = np.insert(points_M3, 2, mesh.origin[2] + mesh.ij[cells, 1] * 0.025, axis=1)
    points_M3[:, ::2] += rng.uniform(0, 0.025, (len(cells), 2))
    exact_M = whole.at(points_M3, cells)
    for reach in (0.05, 1.0, 3.0):
        part_M = distance_field(mesh, *mesh.place(goal), reach).at(points_M3, cells)
        known = exact_M <= reach
        assert known.any() and not known.all()
        assert (part_M[known] == exact_M[known]).all() and (part_M[~known] > reach).all()
        assert np.isinf(part_M[exact_M > reach + 0.5]).all()


def test_the_expert_on_fields_that_reach_far_enough_is_the_one_on_whole_fields(env, monkeypatch):
    rng = np.random.default_rng(4)
    cases = [
        (random_place(env, rng), rotation_of_yaw(rng.uniform(-3, 3)), random_place(env, rng))
        for _ in range(60)
    ]

    def labels():
        env.mesh.fields.clear()
        for position, rotation, target in cases:
            env.set_state(position, rotation)
            yield env.expert_action(target, 0.25)

    part = list(labels())
    reach_to = NavMesh.field_to
    monkeypatch.setattr(NavMesh, "field_to", lambda mesh, goal, reach=0: reach_to(mesh, goal))
    assert part == list(labels()) and len(set(part)) == 3

"""
The built-in simulator against the real habitat-sim, within the limits recommended with its
results. Nothing is fitted to them.
"""

import json

import numpy as np
import pytest
from PIL import Image

from janusvln_ros.actions import Action
from janusvln_ros.data.episodes import read_episodes
from janusvln_ros.geometry import wrap, yaw_of_rotation
from sim_bridge import make_env
from sim_bridge.expert import ReferencePathFollower


@pytest.fixture(scope="module")
def navmesh(habitat):
    with np.load(habitat / "navmesh" / "navmesh.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def quiet(house_a):
    """An environment whose pictures nobody looks at."""
    return make_env("houses", scene=house_a, width=8, height=6)


# Pictures


@pytest.fixture(scope="module")
def views(habitat, house_a):
    """Per golden pose: our RGB and depth, habitat's RGB and depth."""
    poses = json.loads((habitat / "sensors" / "poses.json").read_text())["poses"]
    result = []
    with np.load(habitat / "sensors" / "depth.npz") as depths:
        for size in sorted({(p["width"], p["height"]) for p in poses}):
            env = make_env("houses", scene=house_a, width=size[0], height=size[1], hfov=79)
            for pose in (p for p in poses if (p["width"], p["height"]) == size):
                env.set_state(pose["position"], pose["rotation_xyzw"])
                seen = env.render()
                image = np.asarray(Image.open(habitat / "sensors" / pose["rgb"]).convert("RGB"))
                result.append((seen.rgb, seen.depth, image, depths[pose["depth"]]))
    assert len(result) == 26
    return result


def test_colours_are_habitats(views):
    off = [np.abs(rgb.astype(int) - image) for rgb, _, image, _ in views]
    assert np.mean([o.mean() for o in off]) <= 0.1
    assert max(o.mean() for o in off) <= 0.5
    assert max((o.max(axis=-1) > 8).mean() for o in off) <= 0.01


def test_depth_is_habitats(views):
    off = [np.abs(depth - metres) for _, depth, _, metres in views]
    assert max(np.median(o) for o in off) <= 0.001
    assert max(np.quantile(o, 0.99) for o in off) <= 0.01
    assert max((o > 0.05).mean() for o in off) <= 0.005


# Where one can stand


def test_navigability_is_habitats(quiet, navmesh):
    agrees = (
        np.array([quiet.is_navigable(p) for p in navmesh["navigable_points"]])
        == navmesh["navigable"]
    )
    assert agrees[:200].mean() >= 0.95
    assert agrees[200:].mean() >= 0.90
    clear_cut = np.abs(navmesh["navigable_margin"]) >= 0.1
    assert clear_cut.sum() > 200
    assert agrees[clear_cut].mean() >= 0.985


def test_the_floor_plan_is_habitats(quiet, navmesh):
    grid, (x0, z0), cell = (
        navmesh["grid"].astype(bool),
        navmesh["grid_origin"],
        float(navmesh["grid_resolution"]),
    )
    i, j = np.mgrid[: grid.shape[0], : grid.shape[1]]
    points = np.stack(
        [x0 + (i + 0.5) * cell, np.full(grid.shape, 0.001), z0 + (j + 0.5) * cell], axis=-1
    ).reshape(-1, 3)
    assert np.mean([quiet.is_navigable(p) for p in points] == grid.ravel()) >= 0.975


def test_islands_and_their_areas_are_habitats(quiet, habitat):
    facts = json.loads((habitat / "navmesh" / "navmesh.json").read_text())
    areas = np.bincount(quiet.mesh.island) * 0.025**2
    assert len(areas) == facts["num_islands"]
    np.testing.assert_allclose(sorted(areas), sorted(facts["island_area_m2"]), rtol=0.03)


def test_snapping_is_habitats(quiet, navmesh):
    off = []
    for p, expected in zip(
        navmesh["snap_points"].astype(float), navmesh["snap_result"].astype(float)
    ):
        found = quiet.snap_point(p)
        assert (found is None) == bool(np.isnan(expected).any()), p
        if found is not None and expected[1] < 0.3:
            off.append(abs(np.hypot(*(found - p)[::2]) - np.hypot(*(expected - p)[::2])))
    assert len(off) > 50
    assert np.mean(off) <= 0.05
    assert np.quantile(off, 0.95) <= 0.08
    assert max(off) <= 0.15


# Distances


def test_geodesic_distances_are_habitats(quiet, navmesh):
    pairs = zip(
        navmesh["geodesic_start"],
        navmesh["geodesic_end"],
        navmesh["geodesic_kind"],
        navmesh["geodesic_distance"],
    )
    off, snapped = [], []
    for a, b, kind, expected in pairs:
        found = quiet.geodesic_distance(a, b)
        assert np.isinf(found) == np.isinf(expected)
        if kind == 0 and expected > 1:
            off.append(abs(found / expected - 1))
        elif kind == 2 and expected > 1:
            snapped.append(abs(found / expected - 1))
    assert len(off) > 100 and len(snapped) > 5
    assert np.mean(off) <= 0.015
    assert np.quantile(off, 0.95) <= 0.035
    assert max(off) <= 0.08
    assert max(snapped) <= 0.08


def test_distance_to_goal_along_golden_trajectories_is_habitats(quiet, habitat):
    episodes = {e.episode_id: e for e in read_episodes(habitat, "r2r", "val_unseen").episodes}
    with np.load(habitat / "episodes" / "trajectories.npz") as file:
        for key, episode in episodes.items():
            positions, distances = (
                file[f"{key}_follower_positions"],
                file[f"{key}_follower_distance_to_goal"],
            )
            found = [quiet.geodesic_distance(p, episode.goal_position) for p in positions]
            assert np.abs(np.array(found) - distances).max() <= 0.35


# Motion


def steps(file):
    """
    Every action of the sequences: pose before, action, pose after, and the sequence's flags at it.
    """
    for n in range(len(file["actions"])):
        for t, action in enumerate(file["actions"][n]):
            before = (
                file["positions"][n, t].astype(float),
                file["rotations_xyzw"][n, t].astype(float),
            )
            after = (
                file["positions"][n, t + 1].astype(float),
                file["rotations_xyzw"][n, t + 1].astype(float),
            )
            yield (
                before,
                Action(action),
                after,
                {
                    k: bool(file[k][n, t])
                    for k in ("collided", "straight_clear", "target_other_island")
                },
            )


def load(habitat, name):
    with np.load(habitat / "motion" / name) as file:
        return dict(file)


def test_one_forward_step_with_sliding_is_habitats(quiet, habitat):
    free, against, flags, other = [], [], [], []
    for before, action, after, flag in steps(load(habitat, "sliding_on.npz")):
        if action != Action.MOVE_FORWARD:
            continue
        quiet.set_state(*before)
        seen = quiet.step(action)
        off = np.linalg.norm(seen.position - after[0])
        flags.append(seen.collided == flag["collided"])
        (other if flag["target_other_island"] else against if flag["collided"] else free).append(
            off
        )
    assert len(free) > 600 and len(against) > 400 and len(other) > 10
    assert np.mean(free) <= 0.002
    assert np.quantile(free, 0.99) <= 0.05
    assert np.mean(against) <= 0.03
    assert np.quantile(against, 0.95) <= 0.12
    assert np.mean(flags) >= 0.95
    assert np.mean(np.array(other) < 1e-3) >= 0.9, (
        "a step toward another island does not move at all"
    )


def test_one_forward_step_without_sliding_is_habitats(house_a, habitat):
    env = make_env("houses", scene=house_a, sliding=False, width=8, height=6)
    free, against = [], []
    for before, action, after, flag in steps(load(habitat, "sliding_off.npz")):
        if action == Action.MOVE_FORWARD and not (flag["collided"] and flag["straight_clear"]):
            env.set_state(*before)
            seen = env.step(action)
            assert seen.collided == flag["collided"]
            (against if flag["collided"] else free).append(
                np.linalg.norm(seen.position - after[0])
            )
    assert len(free) > 20 and len(against) > 30
    assert np.mean(free) <= 0.002
    assert np.mean(against) <= 0.03
    assert np.quantile(against, 0.95) <= 0.12


def test_turns_are_habitats(quiet, habitat):
    count = 0
    for before, action, after, _ in steps(load(habitat, "sliding_on.npz")):
        if action in (Action.TURN_LEFT, Action.TURN_RIGHT):
            quiet.set_state(*before)
            seen = quiet.step(action)
            assert np.abs(seen.position - after[0]).max() <= 1e-5
            off = wrap(yaw_of_rotation(seen.rotation) - yaw_of_rotation(after[1]))
            assert abs(off) <= 1e-4
            assert not seen.collided
            count += 1
    assert count > 500


def replay(env, position, rotation, actions):
    env.set_state(position, rotation)
    for action in actions:
        if action != Action.STOP:
            env.step(Action(action))
    return env.observation().position


def test_sixty_actions_in_a_row_end_near_where_habitat_ends(quiet, habitat):
    file = load(habitat, "sliding_on.npz")
    ends = [
        replay(quiet, p[0], r[0], a)
        for p, r, a in zip(file["positions"], file["rotations_xyzw"], file["actions"])
    ]
    off = np.linalg.norm(np.array(ends) - file["positions"][:, -1], axis=1)
    assert np.median(off) <= 0.1
    assert np.quantile(off, 0.75) <= 0.25


def test_the_followers_actions_lead_where_they_led_in_habitat(quiet, habitat):
    runs = json.loads((habitat / "episodes" / "runs.json").read_text())
    with np.load(habitat / "episodes" / "trajectories.npz") as file:
        off = [
            np.linalg.norm(
                replay(
                    quiet,
                    file[f"{key}_follower_positions"][0],
                    file[f"{key}_follower_rotations_xyzw"][0],
                    run["follower"]["actions"],
                )
                - file[f"{key}_follower_positions"][-1]
            )
            for key, run in runs.items()
        ]
    assert len(off) == 12
    assert np.median(off) <= 0.1
    assert max(off) <= 0.25


# The expert


def test_our_follower_needs_no_more_steps_than_habitats(habitat):
    env = make_env("houses", data_dir=habitat, width=8, height=6)
    runs = json.loads((habitat / "episodes" / "runs.json").read_text())
    ours, theirs = 0, 0
    for episode in read_episodes(habitat, "r2r", "val_unseen").episodes:
        seen = env.reset(episode)
        follower = ReferencePathFollower(env)
        while not env.episode_over:
            seen = env.step(follower.action())
            ours += 1
        assert env.geodesic_distance(seen.position, episode.goal_position) <= 0.25
        theirs += len(runs[episode.episode_id]["follower"]["actions"])
    assert ours <= 1.05 * theirs

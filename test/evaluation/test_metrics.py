"""
Metrics: equal to habitat-lab's on drives it recorded, right at the edges, and honest about what
cannot be measured.
"""

import json
import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from janusvln_ros.actions import Action
from janusvln_ros.evaluation.drive import Drive
from janusvln_ros.evaluation.metrics import (
    Thresholds,
    bootstrap,
    dtw,
    mean,
    measure,
    ndtw,
    rate,
    wilson,
    without_repeats,
)

DATA = Path(__file__).parents[1] / "data/evaluation"
RUNS = json.loads((DATA / "habitat_runs.json").read_text())


@pytest.mark.parametrize(("episode", "run"), [(e, r) for e in RUNS for r in RUNS[e]])
def test_recorded_habitat_drives_get_habitats_metrics(episode, run):
    recorded = np.load(DATA / "habitat_trajectories.npz")
    name, expected = f"{episode}_{run}", RUNS[episode][run]["metrics"]
    found = measure(
        Drive(
            positions=recorded[f"{name}_positions"].tolist(),
            distances=recorded[f"{name}_distance_to_goal"].tolist(),
            collided=recorded[f"{name}_collided"].tolist(),
            actions=[RUNS[episode][run]["last_action"]],
        ),
        recorded[f"{episode}_gt"],
    )
    assert (found.success, found.os) == (
        bool(expected["success"]),
        bool(expected["oracle_success"]),
    )
    assert (found.steps, found.collisions) == (
        expected["steps_taken"],
        expected["collision_count"],
    )
    assert found.ne == pytest.approx(expected["distance_to_goal"], abs=1e-6)
    assert found.oracle_ne == pytest.approx(expected["oracle_navigation_error"], abs=1e-6)
    assert found.spl == pytest.approx(expected["spl"], abs=1e-5)
    assert found.pl == pytest.approx(expected["pl"], abs=1e-5)
    assert found.path_length == pytest.approx(expected["path_length"], abs=1e-4)
    assert found.ndtw == pytest.approx(expected["ndtw_exact_dtw"], abs=1e-6)


def line(*distances: float, stopped=True, goal=10.0, **options):
    """Measure a drive along a line whose distance to the goal is as given."""
    drive = Drive(
        positions=[[goal - d, 0, 0] for d in distances],
        distances=list(distances),
        collided=[False] * (len(distances) - 1),
        actions=[Action.STOP if stopped else Action.MOVE_FORWARD],
    )
    return measure(drive, **options)


def test_success_needs_stop_and_a_distance_strictly_below_the_threshold():
    assert line(9, 2.999).success and not line(9, 3.0).success
    assert not line(9, 0.5, stopped=False).success
    assert line(9, 0.999).success_1m and not line(9, 1.0).success_1m
    assert line(9, 4.0, thresholds=Thresholds(success=5.0)).success


def test_oracle_success_counts_start_and_way_and_needs_no_stop():
    assert line(2.5, 9, stopped=False).os and line(9, 2, 9).os
    assert not line(9, 3.0, 9).os


def test_spl_compares_the_shortest_with_the_travelled_path():
    assert line(4, 2, 0).spl == 1.0
    assert line(4, 6, 0).spl == pytest.approx(4 / 8)
    assert line(4, 3.5).spl == 0.0


def test_start_at_the_goal_is_a_perfect_drive_not_a_division_by_zero():
    assert line(0.0, 0.0).spl == 1.0


def test_unreachable_goal_is_a_failure_with_infinite_error():
    found = measure(
        Drive(
            positions=[[0, 0, 0], [1, 0, 0]],
            distances=[math.inf, math.inf],
            collided=[False],
            actions=[0],
        )
    )
    assert (
        not found.success
        and not found.os
        and found.spl == 0.0
        and found.ne == math.inf
        and found.pl == 0.0
    )


@pytest.mark.parametrize(
    "bad",
    [
        ([[0, 0, math.nan]], [1.0], []),
        ([[0, 0, 0]], [math.nan], []),
        ([[0, 0, 0]], [1.0], [True]),
        ([[0, 0]], [1.0], []),
    ],
)
def test_what_is_not_a_number_or_does_not_fit_is_an_error(bad):
    with pytest.raises(ValueError, match=r"not a number|do not belong"):
        positions, distances, collided = bad
        measure(Drive(positions=positions, distances=distances, collided=collided, actions=[0]))


def brute_force_dtw(a, b):
    """Least cost over every monotone pairing, by listing them all."""
    best = math.inf
    for moves in product([(0, 1), (1, 0), (1, 1)], repeat=len(a) + len(b) - 2):
        i = j = 0
        cost = math.dist(a[0], b[0])
        for di, dj in moves:
            if (i, j) == (len(a) - 1, len(b) - 1):
                break
            i, j = i + di, j + dj
            if i >= len(a) or j >= len(b):
                cost = math.inf
                break
            cost += math.dist(a[i], b[j])
        if (i, j) == (len(a) - 1, len(b) - 1):
            best = min(best, cost)
    return best


def test_dtw_is_the_least_over_all_pairings():
    generator = np.random.default_rng(3)
    for n, m in [(1, 1), (1, 4), (4, 1), (3, 4), (4, 3), (4, 4)]:
        a, b = generator.normal(size=(n, 3)), generator.normal(size=(m, 3))
        assert dtw(a, b) == pytest.approx(brute_force_dtw(a, b))


def test_ndtw_is_one_on_the_reference_and_ignores_turning_on_the_spot():
    path = [[0, 0, 0], [0.25, 0, 0], [0.5, 0, 0]]
    assert ndtw(path, path) == 1.0
    assert ndtw([path[0], path[0], path[1], path[1], path[2]], path) == 1.0
    assert 0 < ndtw([[0, 0, 5]], path) < 0.3
    assert without_repeats([path[0], path[1], path[0]]).shape == (3, 3)


def test_wilson_interval_has_the_known_values():
    # Newcombe 1998, table I, method 3.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(1, 29) == pytest.approx((0.0061, 0.1718), abs=1e-4)
    assert wilson(20, 20)[1] == 1.0 and wilson(0, 0) == (0.0, 1.0)


def test_bootstrap_interval_covers_the_mean_of_known_distributions_and_repeats():
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(100):
        low, high = bootstrap(generator.normal(2.0, 1.0, 60), resamples=300)
        hits += low < 2.0 < high
    assert 85 <= hits <= 100
    assert bootstrap([1.0, 2.0, 4.0]) == bootstrap([1.0, 2.0, 4.0])
    assert bootstrap([1.0]) is None


def test_means_leave_out_what_is_not_finite_and_say_nothing_of_nothing():
    assert mean("ne", [1.0, math.inf, None, 3.0])["ne"] == 2.0
    assert mean("ne", [math.inf]) == {"ne": None, "ne_ci95": None}
    assert rate("sr", [True, False]) == {"sr": 0.5, "sr_ci95": list(wilson(1, 2))}
    assert rate("sr", [])["sr"] is None

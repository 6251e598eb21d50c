"""
The metrics of one drive (NE, OS, SR, SPL, nDTW, ...) and the intervals of their means.

Definitions are those of VLN-CE and habitat-lab. A goal on another island gives an infinite
distance: the drive has failed, its navigation error is not a number one can average, and the
summary says how many there were.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from janusvln_ros.evaluation.drive import Drive

_Z95 = 1.959963984540054  # 97.5 % quantile of the normal distribution


@dataclass(frozen=True)
class Thresholds:
    """
    Distances in metres that the metrics depend on; the defaults are the published ones.

    Comparisons are strict.
    """

    success: float = 3.0
    near: float = 1.0
    oracle: float = 3.0
    ndtw: float = 3.0


@dataclass(frozen=True)
class Metrics:
    """
    What one drive achieved.

    Lengths in metres; ``ne`` and ``oracle_ne`` are inf where the goal cannot be reached; ``ndtw``
    is None without a reference.
    """

    success: bool
    success_1m: bool
    spl: float
    spl_1m: float
    os: bool
    ne: float
    oracle_ne: float
    ndtw: float | None
    path_length: float
    start_distance: float
    collisions: int
    steps: int

    @property
    def pl(self) -> float:
        """Relative path length, shortest over travelled, at most 1."""
        return efficiency(self.start_distance, self.path_length)


def measure(
    drive: Drive,
    reference_R3: ArrayLike | None = None,
    thresholds: Thresholds = Thresholds(),
) -> Metrics:
    """
    Measure one drive.

    Args:
        drive: its places, the distances to the goal there, the collisions on the way, and whether
            it ended by STOP.
        reference_R3: the places the reference drive was at (ground truth ``locations``), for nDTW.
        thresholds: distances that count as success.

    Raises:
        ValueError: the lengths do not fit, or a position or distance is not a number.
    """
    positions_T3, distances_T = np.asarray(drive.positions, float), np.asarray(drive.distances)
    steps = len(drive.collided)
    if positions_T3.shape != (steps + 1, 3) or distances_T.shape != (steps + 1,):
        raise ValueError(
            f"{positions_T3.shape} positions, {len(distances_T)} distances and "
            f"{steps} actions do not belong together"
        )
    if not np.isfinite(positions_T3).all() or np.isnan(distances_T).any():
        raise ValueError("a position or a distance is not a number")
    # The travelled length is summed step by step: habitat adds up the same differences in the same
    # order.
    length = float(sum(math.sqrt(float(m @ m)) for m in np.diff(positions_T3, axis=0)))
    start, final, closest = float(distances_T[0]), float(distances_T[-1]), float(distances_T.min())
    ratio = efficiency(start, length)
    success = drive.stopped and final < thresholds.success
    near = drive.stopped and final < thresholds.near
    return Metrics(
        success=success,
        success_1m=near,
        spl=success * ratio,
        spl_1m=near * ratio,
        os=closest < thresholds.oracle,
        ne=final,
        oracle_ne=closest,
        ndtw=None if reference_R3 is None else ndtw(positions_T3, reference_R3, thresholds.ndtw),
        path_length=length,
        start_distance=start,
        collisions=sum(drive.collided),
        steps=steps,
    )


def efficiency(shortest: float, travelled: float) -> float:
    """
    Return ``shortest / max(shortest, travelled)``: 1 for the shortest path and for an agent that
    started at its goal, 0 without any path.
    """
    if not math.isfinite(shortest):
        return 0.0
    longest = max(shortest, travelled)
    return shortest / longest if longest > 0 else 1.0


def without_repeats(points_T3: ArrayLike) -> NDArray[np.float64]:
    """
    Drop every point that equals the one before it, so that turning on the spot does not count.
    """
    points = np.asarray(points_T3, float)
    keep = np.ones(len(points), bool)
    keep[1:] = (points[1:] != points[:-1]).any(axis=1)
    return points[keep]


def dtw(a_N3: ArrayLike, b_M3: ArrayLike) -> float:
    """
    Exact dynamic time warping: the least sum of Euclidean distances over all monotone pairings of
    two paths.
    """
    a, b = np.asarray(a_N3, float), np.asarray(b_M3, float)
    if not len(a) or not len(b):
        raise ValueError("dynamic time warping needs two paths with a point each")
    costs: list[list[float]] = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1)).tolist()
    row: list[float] = [0.0] + [math.inf] * len(b)
    for cost in costs:
        diagonal, left = row[0], math.inf
        row[0] = math.inf
        for j, c in enumerate(cost, 1):
            above = row[j]
            left = c + min(above, diagonal, left)
            diagonal, row[j] = above, left
    return row[-1]


def ndtw(positions_T3: ArrayLike, reference_R3: ArrayLike, distance: float = 3.0) -> float:
    """
    Normalised dynamic time warping, ``exp(-DTW / (|reference| * distance))``; repeated positions
    count once.
    """
    reference = np.asarray(reference_R3, float)
    return math.exp(-dtw(without_repeats(positions_T3), reference) / (len(reference) * distance))


def wilson(successes: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a rate. Without any trial it is (0, 1)."""
    if not 0 <= successes <= total:
        raise ValueError(f"{successes} successes of {total}")
    if total == 0:
        return 0.0, 1.0
    p, z2 = successes / total, _Z95**2
    middle = (p + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z95 * math.sqrt(p * (1 - p) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    # At the ends the exact bounds are 0 and 1; floating point leaves 1e-17 beyond.
    return (0.0 if successes == 0 else middle - half), (
        1.0 if successes == total else middle + half
    )


def bootstrap(
    values: Sequence[float], resamples: int = 2000, seed: int = 0
) -> tuple[float, float] | None:
    """
    95 % percentile bootstrap interval of a mean of finite values; None for fewer than two.

    Equal input gives equal output.
    """
    if len(values) < 2:
        return None
    array = np.asarray(values, float)
    generator = np.random.default_rng(seed)
    # By hundreds: one draw at a time is slow, all at once takes gigabytes for a large split.
    means = np.concatenate(
        [
            array[generator.integers(0, len(array), (min(100, resamples - i), len(array)))].mean(
                axis=1
            )
            for i in range(0, resamples, 100)
        ]
    )
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def rate(name: str, flags: Sequence[bool]) -> dict[str, Any]:
    """
    ``{name: share, name_ci95: [low, high]}`` of a list of yes and no; the share of nothing is
    None.
    """
    return {
        name: sum(flags) / len(flags) if flags else None,
        f"{name}_ci95": list(wilson(sum(flags), len(flags))),
    }


def mean(name: str, values: Sequence[float | None]) -> dict[str, Any]:
    """
    ``{name: mean, name_ci95: [low, high]}`` of the finite values; None where there are too few.
    """
    finite = [v for v in values if v is not None and math.isfinite(v)]
    interval = bootstrap(finite)
    return {
        name: sum(finite) / len(finite) if finite else None,
        f"{name}_ci95": None if interval is None else list(interval),
    }

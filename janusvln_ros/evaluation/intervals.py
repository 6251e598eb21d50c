"""Rates and means over many drives with their 95 % intervals."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats


def wilson(successes: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a rate. Without any trial it is (0, 1)."""
    if total == 0:
        return 0.0, 1.0
    interval = stats.binomtest(successes, total).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap(
    values: Sequence[float], resamples: int = 2000, seed: int = 0
) -> tuple[float, float] | None:
    """
    95 % percentile bootstrap interval of a mean of finite values; None for fewer than two.

    Equal input gives equal output.
    """
    if len(values) < 2:
        return None
    # In batches: one draw at a time is slow, all at once takes gigabytes for a large split.
    low, high = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples,
        batch=100,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return float(low), float(high)


def rate(name: str, flags: Sequence[bool]) -> dict[str, Any]:
    """
    ``{name: share, name_ci95: [low, high], name_count: of how many}`` of a list of yes and no; the
    share of nothing is None.
    """
    return {
        name: sum(flags) / len(flags) if flags else None,
        f"{name}_count": len(flags),
        f"{name}_ci95": list(wilson(sum(flags), len(flags))),
    }


def mean(name: str, values: Sequence[float | None]) -> dict[str, Any]:
    """
    ``{name: mean, name_ci95: [low, high], name_count: of how many}`` of the finite values; None
    where there are too few.
    """
    finite = [v for v in values if v is not None and math.isfinite(v)]
    interval = bootstrap(finite)
    return {
        name: sum(finite) / len(finite) if finite else None,
        f"{name}_count": len(finite),
        f"{name}_ci95": None if interval is None else list(interval),
    }

"""Intervals: the known values, and nothing said of nothing."""

import math

import numpy as np
import pytest

from janusvln_ros.evaluation.intervals import bootstrap, mean, rate, wilson


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
    found = mean("ne", [1.0, math.inf, None, 3.0])
    assert found["ne"] == 2.0 and found["ne_count"] == 2
    assert mean("ne", [math.inf]) == {"ne": None, "ne_ci95": None, "ne_count": 0}
    interval = list(wilson(1, 2))
    assert rate("sr", [True, False]) == {"sr": 0.5, "sr_ci95": interval, "sr_count": 2}
    assert rate("sr", [])["sr"] is None

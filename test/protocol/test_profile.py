"""How one step moves: speeds, and the last gate before the wheels."""

import math

import pytest

from janusvln_ros.protocol.profile import Profile, profile, safe_velocity


def test_profile_speeds_up_cruises_and_brakes():
    assert profile(1.0, 0.0, 0.3, 0.5, 0.1, 0.03) == pytest.approx(0.05)
    assert profile(1.0, 0.3, 0.3, 0.5, 0.1, 0.03) == 0.3
    assert profile(0.01, 0.3, 0.3, 0.5, 0.1, 0.03) == pytest.approx(0.1)
    assert profile(1e-6, 0.3, 0.3, 0.5, 0.1, 0.03) == 0.03
    assert (
        profile(0.0, 0.3, 0.3, 0.5, 0.1, 0.03)
        == profile(-1.0, 0.3, 0.3, 0.5, 0.1, 0.03)
        == profile(math.nan, 0.3, 0.3, 0.5, 0.1, 0.03)
        == 0.0
    )


def test_the_last_gate_lets_no_number_through_that_is_none():
    shape = Profile(speed=0.3, rate=0.8)
    assert safe_velocity(math.nan, 0.1, shape) == safe_velocity(0.1, math.inf, shape) == (0.0, 0.0)
    assert safe_velocity(9.0, -9.0, shape) == (0.3, -0.8)

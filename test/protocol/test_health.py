"""Rates, percentiles and late timers, as /diagnostics tells them."""

import pytest

from janusvln_ros.protocol import health


def test_a_camera_that_silently_falls_to_ten_hertz_shows_up():
    rate = health.InputRate("image", expected=30.0)
    assert rate.health(0.0).level == health.STALE
    for i in range(90):
        rate.hit(i / 30)
    assert rate.health(3.0).level == health.OK
    for i in range(60):
        rate.hit(3 + i / 10)
    low = rate.health(9.0)
    assert low.level == health.WARN and "10.0 Hz instead of 30" in low.message
    assert rate.health(12.0).level == health.ERROR


def test_percentiles():
    assert health.percentile([], 50) != health.percentile([], 50)
    assert (
        health.percentile(range(1, 101), 99) == 99
        and health.percentile([5.0], 99) == 5.0
        and health.percentile([3, 1, 2], 50) == 2
    )


def test_a_late_timer_is_told_once_by_how_much():
    lateness = health.Lateness(0.05)
    for now in (0.0, 0.05, 0.18, 0.20, 0.25):  # 80 ms late, then sooner to catch up
        lateness.hit(now)
    assert lateness.take() == pytest.approx(0.08) and lateness.take() == 0.0
    lateness.hit(0.31)
    assert lateness.take() == pytest.approx(0.01)

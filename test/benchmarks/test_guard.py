"""The benchmark of the guard: what it calls held, stopped and false, on a plain wall."""

import math
from types import SimpleNamespace

import guard
import numpy as np
import pytest

from janusvln_ros.geometry import Pose2

SPEED = (0.3, 0.5)


def before_a_wall(metres):
    """A place that looks straight at a wall over the whole view."""
    settings, at = guard.VIEW, [0.0]
    shape = (settings.height, settings.width)
    env = SimpleNamespace(
        settings=settings,
        set_state=lambda position, rotation: at.__setitem__(0, -position[2]),
        render=lambda: SimpleNamespace(depth=np.full(shape, metres - at[0], np.float32)),
    )
    y = np.arange(-1, 1, 0.02)
    wall = np.stack([np.full(len(y), metres), y, np.full(len(y), 1.4)], 1)
    return guard.Place(env, Pose2(), 0.0, wall)


@pytest.mark.parametrize("sensor", guard.SENSORS)
def test_a_base_that_drives_to_a_wall_rests_where_the_stop_zone_begins(sensor):
    seen = guard.drive("approach", before_a_wall(1.0), sensor, SPEED, guard.NOISES["usual"], 1)
    assert seen.blocked and guard.ZONE - 0.02 < seen.nearest < guard.ZONE + 0.05


@pytest.mark.parametrize("sensor", guard.SENSORS)
def test_somebody_who_steps_in_is_stood_before_in_time_for_as_long_as_he_stays(sensor):
    seen = guard.drive("appears", before_a_wall(4.0), sensor, SPEED, guard.NOISES["usual"], 1)
    assert seen.zone > 40 and seen.stop <= guard.BARS["stop"]
    assert seen.held >= guard.BARS["hold"] * seen.zone


@pytest.mark.parametrize("sensor", guard.SENSORS)
def test_free_drives_are_not_stopped(sensor):
    seen = guard.drive("free", before_a_wall(3.5), sensor, SPEED, guard.NOISES["usual"], 1)
    assert (seen.steps, seen.blocked, seen.zone) == (6, 0, 0)


def test_a_guard_that_sees_nothing_misses_every_bar_for_what_it_meets(monkeypatch):
    monkeypatch.setattr(guard, "read_scan", lambda *what: (math.inf, 1.0, 0.0))
    place = before_a_wall(4.0)
    seen = guard.drive("appears", place, "scan", SPEED, guard.NOISES["none"], 1)
    row = guard.figures({"approach": [], "appears": [seen], "free": []})
    assert {"stop", "hold"} <= set(guard.missed(row))


def test_a_guard_that_sees_things_where_nothing_is_misses_the_bar_of_false_stops(monkeypatch):
    monkeypatch.setattr(guard, "read_scan", lambda *what: (0.3, 1.0, 0.0))
    seen = guard.drive("free", before_a_wall(4.0), "scan", SPEED, guard.NOISES["none"], 1)
    row = guard.figures({"approach": [], "appears": [], "free": [seen]})
    assert guard.missed(row) == ["false"]


def test_who_steps_in_is_seen_where_he_stands():
    depth = guard.body_depth((120, 160), 97.0, 1.25, np.array([1.0, 0.2, 0.0]))
    rows, columns = np.nonzero(np.isfinite(depth))
    assert columns.max() < 80  # to the left of the middle
    assert depth.min() == pytest.approx(1.0 - guard.BODY, abs=0.01)
    assert (1.25 - (rows.max() + 0.5 - 60) / 97 * depth[rows.max(), columns[0]]) < 1.7


@pytest.mark.slow  # renders and drives for a minute
def test_in_a_home_no_bar_is_missed_with_usual_noise(tmp_path):
    found = guard.measured(guard.homes(1, tmp_path), 1, (SPEED,), ("usual",))
    assert [row["sensor"] for row in found] == ["scan", "depth"]
    assert not any(guard.missed(row) for row in found), found

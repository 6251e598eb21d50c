"""
What is met and seen on a path through a home: the openings it goes through, the things that come
into view, and the names of turns.
"""

from collections.abc import Sequence

import numpy as np

from sim_bridge.homes.furnish import Thing
from sim_bridge.homes.plan import Door, Plan, Rect, RedrawError, redraw_unless
from sim_bridge.homes.routes import bearing, blocked, resample

_TURNS = {"straight": (0.0, 20.0), "left": (42.0, 128.0), "around": (152.0, 180.0)}


def turn_name(angle: float) -> str | None:
    """
    What one calls a turn by ``angle`` degrees (positive = left); None for angles between two
    names.
    """
    names = (name for name, (least, most) in _TURNS.items() if least <= abs(angle) <= most)
    name = next(names, None)
    return "right" if name == "left" and angle < 0 else name


def crossings_of(plan: Plan, path: np.ndarray) -> list[tuple[Door, int]]:
    """
    Openings that a path goes through, in order, each with the room it leads into.

    Raises:
        RedrawError: the path leaves the house or the openings.
    """
    found: list[tuple[Door, int]] = []
    here: int | None = None
    for p in resample(path, 0.04):
        room = plan.room_at(p)
        if room is None:
            raise RedrawError
        if here is not None and room != here:
            doors = [
                door
                for door in plan.doors_of[here]
                if door.other(here) == room and np.linalg.norm(door.centre - p) < 0.7
            ]
            redraw_unless(len(doors) == 1)
            found.append((doors[0], room))
        here = room
    return found


def door_sides(plan: Plan, room: int, entry: Door) -> dict[Door, tuple[str, float]]:
    """
    For someone coming into ``room`` through ``entry``: the side of each other opening ("left",
    "right", "ahead", "same" wall) and how far ahead (m).
    """
    into = entry.into(plan.rooms[room])
    sides: dict[Door, tuple[str, float]] = {}
    for door in plan.doors_of[room]:
        offset = np.subtract(door.centre, entry.centre)
        forward = float(offset @ into)
        if door.along_x == entry.along_x:
            sides[door] = ("ahead" if forward > 0.5 else "same", forward)
        else:
            sides[door] = ("left" if bearing(into, offset) > 0 else "right", forward)
    sides.pop(entry)
    return sides


def comes_into_view(
    walls: Sequence[Rect], things: Sequence[Thing], path: np.ndarray, thing: Thing
) -> bool:
    """
    Whether ``thing`` can be seen, well inside the picture, from at least two places 0.25 m apart
    on ``path``, looking along it.
    """
    points = resample(path, 0.25)
    forward = np.diff(points, axis=0)
    points = points[:-1]
    to = thing.centre - points
    left = forward[:, 1] * to[:, 0] - forward[:, 0] * to[:, 1]
    angle = np.degrees(np.abs(np.arctan2(left, (forward * to).sum(axis=1))))
    candidates = points[(np.linalg.norm(to, axis=1) < 6.0) & (angle < 34)]
    tall = np.array([*walls, *(t.rect for t in things if t is not thing and t.height > 0.95)])
    return int((~blocked(candidates, thing.centre[None], tall)).sum()) >= 2

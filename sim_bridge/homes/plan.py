"""
Floor plans: rectangular rooms, walls 0.12 m thick, and openings between neighbours; some have a
door leaf that stands open beside them.

Everything is in world metres on the floor, points as ``(x, z)`` (y is up), rectangles as ``(x0,
z0, x1, z1)``.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

import numpy as np

from sim_bridge.homes.colours import WALL_RGB

WALL_THICKNESS_M = 0.12
WALL_HEIGHT_M = 2.6
DOOR_HEIGHT_M = 2.1
SMALLEST_SIDE_M = 2.8
LEAF_THICKNESS_M = 0.045
PASSAGE_M = 0.65
"""
Smallest distance between two things, or between a thing and a wall it does not touch, metres.
"""

Rect = tuple[float, float, float, float]


class RedrawError(Exception):
    """What was drawn does not work out, which is common: the caller draws again."""


def redraw_unless(condition: object) -> None:
    """
    Go on only where ``condition`` holds.

    Raises:
        RedrawError: it does not.
    """
    if not condition:
        raise RedrawError


class Wall(NamedTuple):
    """
    A face of a room: a wall along x or z from ``low`` to ``high``, at coordinate ``at`` of the
    other axis; ``normal`` (1 or -1, on that axis) points into the room.
    """

    along_x: bool
    at: float
    normal: int
    low: float
    high: float


@dataclass(frozen=True)
class Room:
    """
    A room: ``index`` in its home, its free ``rect`` between the wall faces, and the ``colour`` of
    its walls by name.

    ``hallway`` tells a long narrow room from an ordinary one.
    """

    index: int
    rect: Rect
    colour: str
    hallway: bool

    @property
    def centre(self) -> tuple[float, float]:
        """Middle of the room, (x, z)."""
        return (self.rect[0] + self.rect[2]) / 2, (self.rect[1] + self.rect[3]) / 2

    @property
    def walls(self) -> tuple[Wall, ...]:
        """Its four walls."""
        x0, z0, x1, z1 = self.rect
        return (
            Wall(True, z0, 1, x0, x1),
            Wall(True, z1, -1, x0, x1),
            Wall(False, x0, 1, z0, z1),
            Wall(False, x1, -1, z0, z1),
        )


@dataclass(frozen=True)
class Door:
    """
    An opening in the wall between ``rooms`` (lower, higher index).

    ``centre`` lies in the middle of the wall; ``along_x`` is true if the wall runs along x (one
    walks through in z). ``width`` in metres.
    """

    rooms: tuple[int, int]
    centre: tuple[float, float]
    along_x: bool
    width: float

    def other(self, room: int) -> int:
        """The room on the far side of the opening, seen from ``room``."""
        return self.rooms[1] if room == self.rooms[0] else self.rooms[0]

    def into(self, room: Room) -> np.ndarray:
        """Unit vector (x, z) of walking through the opening into ``room``."""
        if self.along_x:
            return np.array([0.0, 1.0 if room.centre[1] > self.centre[1] else -1.0])
        return np.array([1.0 if room.centre[0] > self.centre[0] else -1.0, 0.0])


class Leaf(NamedTuple):
    """A door leaf that stands open in ``room``: its footprint ``rect``."""

    room: int
    rect: Rect


@dataclass(frozen=True)
class Plan:
    """
    Rooms and openings of a home, and the openings of each room; ``outline`` is the rectangle of
    the outer wall faces. Heights in metres.
    """

    outline: Rect
    rooms: tuple[Room, ...]
    doors: tuple[Door, ...]
    doors_of: tuple[tuple[Door, ...], ...]
    wall_height: float = WALL_HEIGHT_M
    door_height: float = DOOR_HEIGHT_M
    leaves: tuple[Leaf, ...] = ()

    def openings(self, room: Room, wall: Wall) -> list[tuple[float, float]]:
        """Return the openings in a wall of ``room``, from and to along it, in order."""
        along, across = (0, 1) if wall.along_x else (1, 0)
        return sorted(
            (door.centre[along] - door.width / 2, door.centre[along] + door.width / 2)
            for door in self.doors_of[room.index]
            if door.along_x == wall.along_x
            and abs(door.centre[across] - wall.at) < WALL_THICKNESS_M
        )

    def room_at(self, point: np.ndarray) -> int | None:
        """
        Index of the room in whose cell (walls shared half and half) ``point`` (x, z) lies, None
        outside.
        """
        half = WALL_THICKNESS_M / 2
        return next(
            (
                room.index
                for room in self.rooms
                if room.rect[0] - half <= point[0] < room.rect[2] + half
                and room.rect[1] - half <= point[1] < room.rect[3] + half
            ),
            None,
        )


def make_plan(rng: np.random.Generator, n_rooms: int) -> Plan:
    """
    Draw a floor plan of ``n_rooms`` rooms around the origin; every room can be reached from every
    other.
    """
    while True:
        with suppress(RedrawError):
            return _draw(rng, n_rooms)


def with_heights_and_leaves(rng: np.random.Generator, plan: Plan) -> Plan:
    """The plan with heights drawn for this home, and leaves beside about a third of its doors."""
    wall_height = round(float(rng.uniform(2.35, 3.2)), 2)
    door_height = round(float(rng.uniform(1.98, min(2.3, wall_height - 0.25))), 2)
    share = rng.uniform(0.15, 0.7)
    leaves: list[Leaf] = []
    for door in plan.doors:
        if rng.random() < share:
            room = plan.rooms[door.rooms[int(rng.integers(2))]]
            flat = bool(rng.random() < 0.5) or room.hallway
            leaf = _leaf(door, room, 1 if rng.random() < 0.5 else -1, flat)
            if _has_space(plan, room, door, leaf):
                leaves.append(leaf)
    return replace(plan, wall_height=wall_height, door_height=door_height, leaves=tuple(leaves))


def _leaf(door: Door, room: Room, hand: int, flat: bool) -> Leaf:
    """
    A leaf as wide as its door, hinged at one end of it (``hand``: the low, -1, or the high one):
    turned back to the wall (``flat``), or square to it beside the way through.
    """
    along, across = (0, 1) if door.along_x else (1, 0)
    into = float(door.into(room)[across])
    hinge = door.centre[along] + hand * (door.width / 2 + 0.02)
    face = door.centre[across] + into * (WALL_THICKNESS_M / 2 + 0.015)
    long, deep = (door.width, LEAF_THICKNESS_M + 0.04) if flat else (LEAF_THICKNESS_M, door.width)
    gap = 0.04 * into if flat else 0.0  # room for the handle
    a, b = sorted((hinge, hinge + hand * long))
    c, d = sorted((face + gap, face + into * deep))
    return Leaf(room.index, (a, c, b, d) if along == 0 else (c, a, d, b))


def _has_space(plan: Plan, room: Room, door: Door, leaf: Leaf) -> bool:
    """Whether a leaf stands inside its room, clear of the other doors and of the wall opposite."""
    x0, z0, x1, z1 = leaf.rect
    if not (
        x0 > room.rect[0] + 0.01
        and z0 > room.rect[1] + 0.01
        and x1 < room.rect[2] - 0.01
        and z1 < room.rect[3] - 0.01
    ):
        return False
    if not room.hallway:
        # Square to its wall it leaves a passage at its end.
        axis = 1 if door.along_x else 0
        spare = room.rect[axis + 2] - room.rect[axis] - (leaf.rect[axis + 2] - leaf.rect[axis])
        if spare < PASSAGE_M + 0.2:
            return False
    others = [other for other in plan.doors_of[room.index] if other != door]
    return all(gap(leaf.rect, door_zone(other, room)) > 0.0 for other in others) and (
        gap(leaf.rect, door_zone(door, room, 0.0)) > 0.0
    )


def door_zone(door: Door, room: Room, beside: float = 0.12) -> Rect:
    """
    The part of ``room`` before one of its openings that stays empty, ``beside`` metres wider than
    it on either side.
    """
    half, deep = door.width / 2 + beside, 0.85
    x, z = door.centre
    into = door.into(room)
    if door.along_x:
        return (x - half, min(z, z + into[1] * deep), x + half, max(z, z + into[1] * deep))
    return (min(x, x + into[0] * deep), z - half, max(x, x + into[0] * deep), z + half)


def gap(a: Rect, b: Rect) -> float:
    """
    Distance of two rectangles along the axis that separates them most (negative where they
    overlap).
    """
    return max(b[0] - a[2], a[0] - b[2], b[1] - a[3], a[1] - b[3])


def _draw(rng: np.random.Generator, n_rooms: int) -> Plan:
    """
    Draw a floor plan once.

    Raises:
        RedrawError: it does not work out; the same from what is called here.
    """
    cells = (
        _hallway_cells(rng, n_rooms)
        if n_rooms >= 5 and rng.random() < 0.45
        else _split_cells(rng, n_rooms)
    )
    x0, z0 = min(c[0][0] for c in cells), min(c[0][1] for c in cells)
    x1, z1 = max(c[0][2] for c in cells), max(c[0][3] for c in cells)
    dx, dz = (x0 + x1) / 2, (z0 + z1) / 2
    centred = [((r[0] - dx, r[1] - dz, r[2] - dx, r[3] - dz), hall) for r, hall in cells]
    doors = _doors(rng, centred)
    colours = _colours(rng, len(centred), doors)
    half = WALL_THICKNESS_M / 2
    rooms = tuple(
        Room(i, (r[0] + half, r[1] + half, r[2] - half, r[3] - half), colours[i], hall)
        for i, (r, hall) in enumerate(centred)
    )
    outline = (x0 - dx - half, z0 - dz - half, x1 - dx + half, z1 - dz + half)
    doors_of = tuple(tuple(d for d in doors if room.index in d.rooms) for room in rooms)
    return Plan(outline, rooms, tuple(doors), doors_of)


def _split_cells(rng: np.random.Generator, n_rooms: int) -> list[tuple[Rect, bool]]:
    """Cut a rectangle into ``n_rooms`` cells, always the largest one that can still be cut."""
    area = n_rooms * rng.uniform(11.5, 15.0)
    width = float(np.sqrt(area * rng.uniform(0.75, 1.35)))
    cells: list[Rect] = [(0.0, 0.0, width, area / width)]
    while len(cells) < n_rooms:
        cells.sort(key=lambda r: -(r[2] - r[0]) * (r[3] - r[1]))
        long = [max(x1 - x0, z1 - z0) >= 2 * SMALLEST_SIDE_M for x0, z0, x1, z1 in cells]
        redraw_unless(any(long))
        i = long.index(True)
        x0, z0, x1, z1 = cells[i]
        along_x = x1 - x0 >= z1 - z0
        low, high = (x0, x1) if along_x else (z0, z1)
        cut = float(
            rng.uniform(
                max(low + SMALLEST_SIDE_M, low + 0.38 * (high - low)),
                min(high - SMALLEST_SIDE_M, high - 0.38 * (high - low)) + 1e-9,
            )
        )
        cells[i : i + 1] = (
            [(x0, z0, cut, z1), (cut, z0, x1, z1)]
            if along_x
            else [(x0, z0, x1, cut), (x0, cut, x1, z1)]
        )
    return [(cell, False) for cell in cells]


def _hallway_cells(rng: np.random.Generator, n_rooms: int) -> list[tuple[Rect, bool]]:
    """A hallway through the whole house with rooms on both sides."""
    width = float(rng.uniform(1.6, 2.0))
    counts = [(n_rooms - 1) // 2, n_rooms // 2]
    rng.shuffle(counts)
    length = max(counts) * float(rng.uniform(3.1, 3.8))
    depths = rng.uniform(3.0, 4.0, size=2)
    swap = bool(rng.random() < 0.5)
    cells: list[tuple[Rect, bool]] = [((0.0, 0.0, length, width), True)]
    for side, count in enumerate(counts):
        shares = rng.uniform(0.8, 1.2, size=count)
        edges = np.concatenate([[0.0], np.cumsum(shares / shares.sum() * length)])
        z0, z1 = (-float(depths[side]), 0.0) if side == 0 else (width, width + float(depths[side]))
        cells += [((float(edges[i]), z0, float(edges[i + 1]), z1), False) for i in range(count)]
    return [((r[1], r[0], r[3], r[2]) if swap else r, hall) for r, hall in cells]


def _doors(rng: np.random.Generator, cells: list[tuple[Rect, bool]]) -> list[Door]:
    """
    Openings along a random spanning tree of the neighbours, and a few more; a hallway opens into
    all of its neighbours.
    """
    shared: list[tuple[int, int, bool, float, float, float]] = []
    for (a, (cell_a, _)), (b, (cell_b, _)) in combinations(enumerate(cells), 2):
        for along, across in ((0, 1), (1, 0)):
            low, high = (
                max(cell_a[along], cell_b[along]),
                min(cell_a[along + 2], cell_b[along + 2]),
            )
            for wall, other in (
                (cell_a[across + 2], cell_b[across]),
                (cell_a[across], cell_b[across + 2]),
            ):
                if abs(wall - other) < 1e-9 and high - low >= 1.6:
                    shared.append((a, b, along == 0, low, high, wall))
    # Hallways first: each of their walls gets its opening before the tree is completed.
    order = sorted(
        rng.permutation(len(shared)).tolist(),
        key=lambda i: not (cells[shared[i][0]][1] or cells[shared[i][1]][1]),
    )
    component = list(range(len(cells)))
    doors: list[Door] = []
    for i in order:
        a, b, along_x, low, high, wall = shared[i]
        if component[a] == component[b] and rng.random() >= (
            0.12 if any(hall for _, hall in cells) else 0.3
        ):
            continue
        component = [component[a] if c == component[b] else c for c in component]
        width = float(rng.uniform(0.92, 1.0))
        margin = width / 2 + 0.22
        at = float(rng.uniform(low + margin, high - margin))
        if cells[a][1] or cells[b][1]:
            middle = (low + high) / 2
            at = middle + 0.6 * (at - middle)
        doors.append(Door((a, b), (at, wall) if along_x else (wall, at), along_x, width))
    redraw_unless(len(set(component)) == 1)
    return doors


def _colours(rng: np.random.Generator, n_rooms: int, doors: list[Door]) -> list[str]:
    """A wall colour for every room, different from those of all rooms up to two doors away."""
    near = [{d.other(room) for d in doors if room in d.rooms} for room in range(n_rooms)]
    colours: list[str] = []
    for room in range(n_rooms):
        taken = {colours[r] for n in near[room] for r in ({n} | near[n]) if r < room}
        free = [c for c in WALL_RGB if c not in taken]
        redraw_unless(free)
        fresh = [c for c in free if c not in colours] or free
        colours.append(fresh[int(rng.integers(len(fresh)))])
    return colours

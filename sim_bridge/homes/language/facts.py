"""
What is true of a route, and of everything that might be mistaken for a part of it: the openings of
every room on the way as someone sees them who comes in, what stands beside them and can be seen
through them, the things that are passed, and where the goal stands among the things of its room.

Every attribute comes twice. What may be *said* of an opening or a thing is clearly so; what it
*may be taken for* is wider, so that a description counts as sufficient only where nothing else
could be meant.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from janusvln_ros.data.episodes import Episode
from janusvln_ros.geometry import yaw_of_rotation
from sim_bridge.homes.furnish import KIND, Thing
from sim_bridge.homes.plan import Door, Plan, Rect, RedrawError, Room
from sim_bridge.homes.routes import (
    bearing,
    blocked,
    distance_to_rect,
    heading,
    resample,
    wall_rects,
)
from sim_bridge.homes.sight import comes_into_view, crossings_of, turn_name

HAND = ("left", "right")

ORDINALS = ("first", "second", "third", "fourth")
"""How far anybody counts doors."""


@dataclass(frozen=True)
class RoomName:
    """How a room can be named: its wall ``colour``, and whether it is a ``hallway``."""

    colour: str
    hallway: bool


@dataclass(frozen=True)
class Near:
    """
    A thing beside an opening or another thing; ``side`` is the hand it is on for someone who faces
    that opening or thing, "" where neither is clear.
    """

    thing: Thing
    side: str


@dataclass(frozen=True)
class Opening:
    """
    An opening of a room, seen from where one comes in or starts.

    ``room`` lies behind it. ``turn``: how to turn towards it ("left", "right", "around",
    "straight", "" if that has no clear name); in a hallway the way to go along it. ``side``: the
    hand it is on, in a hallway while walking along it ("left", "right", "ahead", "behind", "").
    ``turns`` and ``sides`` are all that they may be taken for. ``ordinal``: which on its side and
    way from 0, None where the count is not clear or too long; ``last``: the last of several there.
    ``inside``: things seen through it on the way to it; ``all_inside``: every thing behind it.
    ``beside`` and ``maybe_beside``: things next to it. ``visible``: in the picture as one comes
    in.
    """

    room: RoomName
    turn: str
    side: str
    turns: frozenset[str]
    sides: frozenset[str]
    ordinal: int | None
    last: bool
    inside: tuple[Thing, ...]
    all_inside: tuple[Thing, ...]
    beside: tuple[Near, ...]
    maybe_beside: tuple[Thing, ...]
    visible: bool


@dataclass(frozen=True)
class Passed:
    """A thing that is passed on ``side`` ("left", "right"), after ``along`` metres of the leg."""

    thing: Thing
    side: str
    along: float


@dataclass(frozen=True)
class PassedRoom:
    """A room whose opening is passed in a hallway, on ``side``."""

    room: RoomName
    side: str


@dataclass(frozen=True)
class Leg:
    """
    The way through one room to the opening ``openings[taken]``; ``openings`` are all but the one
    that one came by.
    """

    room: RoomName
    openings: tuple[Opening, ...]
    taken: int
    passed: tuple[Passed, ...]
    passed_rooms: tuple[PassedRoom, ...]

    @property
    def opening(self) -> Opening:
        """The opening to take."""
        return self.openings[self.taken]


@dataclass(frozen=True)
class Place:
    """
    Where a thing stands in the room that one comes into or starts in.

    ``turn``, ``side``, ``turns`` and ``sides`` as of an ``Opening``. ``corner``: "far left" and so
    on, "any" where one has not come in, "" where it is in none; ``wall``: "far", "left", "right",
    "near", or "". ``end``: at the end of a hallway. ``middle``: free in the room. ``beside``,
    ``across``: things next to it and opposite; ``doorway``: the room behind an opening next to it.
    """

    thing: Thing
    turn: str
    side: str
    turns: frozenset[str]
    sides: frozenset[str]
    corner: str
    wall: str
    end: bool
    middle: bool
    beside: tuple[Near, ...]
    maybe_beside: tuple[Thing, ...]
    across: tuple[Thing, ...]
    doorway: RoomName | None
    visible: bool


@dataclass(frozen=True)
class Arrival:
    """
    The way through the last room to ``places[taken]``, the places of all things there.
    """

    room: RoomName
    places: tuple[Place, ...]
    taken: int
    passed: tuple[Passed, ...]

    @property
    def place(self) -> Place:
        """Where to stop."""
        return self.places[self.taken]


@dataclass(frozen=True)
class Facts:
    """
    All that may be said about a route.

    ``facing``: things straight ahead at the start. ``legs`` lead to ``arrival``; with a ``visit``
    (an arrival too) they lead there first, and from there back to the room of the start.
    ``kind``: "colour" where the goal is to be known by the colour of the first room, "counting"
    where openings are to be counted, "return" with a visit, else "".
    """

    start: RoomName
    facing: tuple[Thing, ...]
    legs: tuple[Leg, ...]
    arrival: Arrival
    visit: Arrival | None
    kind: str


def route_facts(plan: Plan, things: Sequence[Thing], episode: Episode) -> Facts:
    """
    The facts of an episode's route in the home of ``plan`` and ``things``.

    Raises:
        RedrawError: its path does not lead through the openings one by one.
    """
    scene = _Scene(plan, tuple(things), tuple(wall_rects(plan)))
    path = np.array(episode.reference_path, np.float64)[:, [0, 2]]
    path = path[np.append(True, np.abs(np.diff(path, axis=0)).sum(axis=1) > 1e-6)]
    yaw = yaw_of_rotation(episode.start_rotation)
    named = {thing.name: thing for thing in things}
    goal = named[episode.info["goal_landmark"]]
    visit = None
    if "visit" in episode.info:
        at = np.array(episode.info["visit"])[[0, 2]]
        turn = int(np.argmin(np.linalg.norm(path - at, axis=1)))
        there, path = path[: turn + 1], path[turn:]
        visit = _arrival(scene, there, yaw, named[episode.info["landmarks"][0]])
        legs = _legs(scene, there, yaw)
    else:
        legs = _legs(scene, path, yaw)
    tags = episode.info["tags"]
    kinds = [kind for kind in ("return", "colour", "counting") if kind in tags]
    kind = kinds[0] if kinds and (kinds[0] != "counting" or "memory" in tags) else ""
    start = np.array(episode.start_position)[[0, 2]]
    first = plan.room_at(start)
    if first is None:
        raise RedrawError
    return Facts(
        _name(plan.rooms[first]),
        _facing(scene, start, yaw, first),
        legs,
        _arrival(scene, path, yaw, goal),
        visit,
        kind,
    )


@dataclass(frozen=True)
class _Scene:
    """A home with the rectangles of its walls."""

    plan: Plan
    things: tuple[Thing, ...]
    walls: tuple[Rect, ...]

    def sees(self, path: np.ndarray, thing: Thing) -> bool:
        """Whether ``thing`` comes into view on ``path``."""
        return len(path) > 1 and comes_into_view(self.walls, self.things, path, thing)

    def of(self, room: int) -> list[Thing]:
        """The things of a room."""
        return [thing for thing in self.things if thing.room == room]


def _name(room: Room) -> RoomName:
    return RoomName(room.colour, room.hallway)


def _facing(scene: _Scene, start: np.ndarray, yaw: float, room: int) -> tuple[Thing, ...]:
    """Things of the room that are straight ahead and seen at the start, the nearest first."""
    found = []
    for thing in scene.of(room):
        to = thing.centre - start
        tall = [*scene.walls, *(t.rect for t in scene.things if t is not thing)]
        if (
            abs(bearing(heading(yaw), to)) <= 14
            and 0.8 < np.linalg.norm(to) < 6.0
            and not blocked(start[None], thing.centre[None], np.array(tall))[0]
        ):
            found.append((float(np.linalg.norm(to)), thing))
    return tuple(thing for _, thing in sorted(found, key=lambda pair: pair[0])[:1])


# ---------------------------------------------------------------- sides and turns


def _wide_turns(angle: float) -> frozenset[str]:
    """All turns that something at ``angle`` degrees (positive = left) may be taken for."""
    hand = "left" if angle > 0 else "right"
    names = {hand} if 18 <= abs(angle) <= 160 else set()
    names |= {"straight"} if abs(angle) <= 48 else set()
    return frozenset(names | ({"around"} if abs(angle) >= 115 else set()))


_SIDE_OF_TURN = {"left": "left", "right": "right", "straight": "ahead", "around": "behind", "": ""}


def _seen_from(angle: float) -> tuple[str, str, frozenset[str], frozenset[str]]:
    """Turn, side, and all that both may be taken for, of something at ``angle`` degrees."""
    turn, turns = turn_name(angle) or "", _wide_turns(angle)
    return turn, _SIDE_OF_TURN[turn], turns, frozenset(_SIDE_OF_TURN[t] for t in turns)


def _along_hallway(
    room: Room, entry: Door, centre: np.ndarray
) -> tuple[str, str, float, frozenset[str]]:
    """
    For someone coming into a hallway from its side: the way along it to ``centre`` ("left",
    "right", "straight" across), the hand ``centre`` is on meanwhile, how far along (m), and every
    way it may be taken for.
    """
    into = entry.into(room)
    offset = centre - np.array(entry.centre)
    axis = np.array([1.0, 0.0] if entry.along_x else [0.0, 1.0])
    width = abs(
        float(np.array(room.rect[2:]) @ np.abs(into) - np.array(room.rect[:2]) @ np.abs(into))
    )
    along, opposite = float(offset @ axis), float(offset @ into) > width / 2
    travel = axis * (1.0 if along >= 0 else -1.0)
    turn = "left" if bearing(into, travel) > 0 else "right"
    side = "left" if bearing(travel, into if opposite else -into) > 0 else "right"
    if abs(along) < 0.45 and opposite:
        return "straight", "ahead", abs(along), frozenset({"straight"})
    clear = abs(along) >= 0.9
    return (
        turn if clear else "",
        side if clear else "",
        abs(along),
        frozenset({turn} if clear else {"left", "right", "straight"}),
    )


# ---------------------------------------------------------------- openings


def _legs(scene: _Scene, path: np.ndarray, yaw: float) -> tuple[Leg, ...]:
    """The legs of a path, one for every opening it goes through."""
    crossings = crossings_of(scene.plan, path)
    cuts = [0, *(_nearest(path, door.centre) for door, _ in crossings)]
    before: list[tuple[Door, int] | None] = [None, *crossings]
    return tuple(
        _leg(scene, path[: cut + 1], path[start : cut + 1], yaw, came, crossing)
        for came, crossing, (start, cut) in zip(before, crossings, pairwise(cuts))
    )


def _nearest(path: np.ndarray, point: Sequence[float]) -> int:
    """Index of the corner of ``path`` nearest to ``point``: paths have one in every opening."""
    return int(np.argmin(np.linalg.norm(path - np.array(point), axis=1)))


def _leg(
    scene: _Scene,
    so_far: np.ndarray,
    path: np.ndarray,
    yaw: float,
    came: tuple[Door, int] | None,
    crossing: tuple[Door, int],
) -> Leg:
    """The leg along ``path`` through one room, at the end of the way ``so_far``."""
    plan, (door, target) = scene.plan, crossing
    here = plan.rooms[door.other(target)]
    others = [d for d in plan.doors_of[here.index] if came is None or d != came[0]]
    views = []
    for other in others:
        if came is None:
            angle = bearing(heading(yaw), np.array(other.centre) - so_far[0])
            views.append((*_seen_from(angle), 0.0, abs(angle) <= 36))
        else:
            views.append(_door_view(here, came[0], other))
    counted = came is not None
    openings = tuple(
        _opening(scene, here, so_far, other, i, views, counted) for i, other in enumerate(others)
    )
    taken = others.index(door)
    rooms: tuple[PassedRoom, ...] = ()
    if here.hallway and came is not None:
        rooms = _passed_rooms(plan, here, others, taken, views)
    return Leg(_name(here), openings, taken, _passed(scene, so_far, path, here.index), rooms)


def _door_view(
    here: Room, entry: Door, door: Door
) -> tuple[str, str, frozenset[str], frozenset[str], float, bool]:
    """
    Turn, side, what they may be taken for, how far ahead, and whether it is in the picture, of an
    opening seen by someone who comes in through ``entry``.
    """
    into = entry.into(here)
    offset = np.subtract(door.centre, entry.centre)
    angle, forward = bearing(into, offset), float(offset @ into)
    visible = abs(angle) <= 36
    if here.hallway:
        turn, side, along, turns = _along_hallway(here, entry, np.array(door.centre))
        sides = frozenset({side} if side else {"left", "right", "ahead"})
        return turn, side, turns, sides, along, visible
    hand = "left" if angle > 0 else "right"
    if door.along_x != entry.along_x:
        wide = frozenset({hand, "straight"} if abs(angle) < 20 else {hand})
        return hand, hand, wide, frozenset({hand}), forward, visible
    if forward <= 0.5:
        return (
            "around",
            "behind",
            frozenset({"around", hand}),
            frozenset({"behind", hand}),
            0.0,
            False,
        )
    aside = abs(angle) > 22
    return (
        "" if aside else "straight",
        "ahead",
        frozenset({"straight", hand} if abs(angle) > 12 else {"straight"}),
        frozenset({"ahead", hand} if abs(angle) > 12 else {"ahead"}),
        abs(float(offset @ np.array([into[1], -into[0]]))),
        visible,
    )


def _opening(
    scene: _Scene,
    here: Room,
    so_far: np.ndarray,
    door: Door,
    i: int,
    views: list[tuple[str, str, frozenset[str], frozenset[str], float, bool]],
    counted: bool,
) -> Opening:
    """The opening ``door`` of ``here``, whose view is ``views[i]``."""
    turn, side, turns, sides, far, visible = views[i]
    behind = door.other(here.index)
    ordinal, last = None, False
    if counted and side in HAND and turn:
        alike = sorted(v[4] for v in views if v[1] == side and (not here.hallway or v[0] == turn))
        unsure = [v for k, v in enumerate(views) if k != i and v[1] != side and side in v[3]]
        if here.hallway:
            unsure = [v for v in unsure if turn in v[2]]
        clear = len(alike) < 2 or bool(min(np.diff(alike)) > 0.8)
        if clear and (not unsure or not here.hallway) and alike.index(far) < len(ORDINALS):
            ordinal = alike.index(far)
        last = clear and len(alike) > 1 and far == alike[-1] and not unsure
    walls = [(t, *_beside_door(door, here, t)) for t in scene.of(here.index)]
    return Opening(
        _name(scene.plan.rooms[behind]),
        turn,
        side,
        turns,
        sides,
        ordinal,
        last,
        tuple(t for t in scene.of(behind) if scene.sees(so_far, t)),
        tuple(scene.of(behind)),
        tuple(Near(t, hand) for t, hand, gap in walls if gap < 0.75 and scene.sees(so_far, t)),
        tuple(t for t, _, gap in walls if gap < 1.6),
        visible,
    )


def _beside_door(door: Door, here: Room, thing: Thing) -> tuple[str, float]:
    """
    On which hand ``thing`` is for someone who faces an opening from inside ``here``, and how far
    it is from the edge of the opening, metres.
    """
    out = -door.into(here)
    gap = float(distance_to_rect(np.array([door.centre]), thing.rect)[0]) - door.width / 2
    aside = float((thing.centre - np.array(door.centre)) @ np.array([out[1], -out[0]]))
    return ("" if abs(aside) < 0.6 else "left" if aside > 0 else "right"), gap


def _passed_rooms(
    plan: Plan,
    here: Room,
    others: list[Door],
    taken: int,
    views: list[tuple[str, str, frozenset[str], frozenset[str], float, bool]],
) -> tuple[PassedRoom, ...]:
    """Rooms whose openings lie along a hallway before the one that is taken, in order."""
    turn, far = views[taken][0], views[taken][4]
    before = [
        (view[4], PassedRoom(_name(plan.rooms[door.other(here.index)]), view[1]))
        for door, view in zip(others, views)
        if view[0] == turn and turn in HAND and view[4] < far - 0.8
    ]
    return tuple(room for _, room in sorted(before, key=lambda pair: pair[0]))


# ---------------------------------------------------------------- things


def _passed(scene: _Scene, so_far: np.ndarray, path: np.ndarray, room: int) -> tuple[Passed, ...]:
    """
    Things of ``room`` that ``path`` passes within 1.5 m and that were seen ahead before, in order.
    """
    points, earlier = resample(path, 0.1), resample(so_far, 0.1)
    before = len(earlier) - len(points)
    found = []
    for thing in scene.of(room):
        distance = distance_to_rect(points, thing.rect)
        nearest = int(np.argmin(distance))
        if distance[nearest] > 1.5 or not 5 <= nearest <= len(points) - 4:
            continue
        angle = bearing(points[nearest + 2] - points[nearest - 2], thing.centre - points[nearest])
        seen = scene.sees(earlier[: max(before + nearest + 1, 2)], thing)
        if 55 <= abs(angle) <= 125 and seen:
            side = "left" if angle > 0 else "right"
            found.append(Passed(thing, side, nearest * 0.1))
    return tuple(sorted(found, key=lambda p: p.along))


def _arrival(scene: _Scene, path: np.ndarray, yaw: float, goal: Thing) -> Arrival:
    """The way to ``goal`` through the last room of ``path``."""
    crossings = crossings_of(scene.plan, path)
    entry = crossings[-1][0] if crossings else None
    here = scene.plan.rooms[goal.room]
    last = path[_nearest(path, entry.centre) :] if entry is not None else path
    things = scene.of(goal.room)
    places = tuple(_place(scene, path, yaw, here, entry, thing) for thing in things)
    passed = _passed(scene, path, last, goal.room) if len(last) > 1 else ()
    passed = tuple(p for p in passed if p.thing is not goal)
    return Arrival(_name(here), places, things.index(goal), passed)


def _place(
    scene: _Scene, path: np.ndarray, yaw: float, here: Room, entry: Door | None, thing: Thing
) -> Place:
    """Where ``thing`` stands for someone coming into ``here`` through ``entry``."""
    into = heading(yaw) if entry is None else entry.into(here)
    start = path[0] if entry is None else np.array(entry.centre)
    angle = bearing(into, thing.centre - start)
    turn, side, turns, sides = _seen_from(angle)
    if entry is not None and here.hallway:
        turn, side, _, turns = _along_hallway(here, entry, thing.centre)
        sides = frozenset({side} if side else {"left", "right", "ahead"})
    elif entry is not None:
        hand = "left" if angle > 0 else "right"
        turn = hand if abs(angle) >= 36 else "straight" if abs(angle) < 10 else ""
        side = hand if abs(angle) >= 25 else "ahead" if abs(angle) < 10 else ""
        turns = frozenset({hand} if abs(angle) >= 30 else {hand, "straight"})
        sides = frozenset({hand} if abs(angle) >= 30 else {hand, "ahead"})
    corner, wall = _corner_and_wall(here, entry, into, thing)
    gaps = [(t, *_beside_thing(thing, t)) for t in scene.of(here.index) if t is not thing]
    doors = [d for d in scene.plan.doors_of[here.index] if d != entry]
    near_doors = [d for d in doors if _beside_door(d, here, thing)[1] < 0.7]
    x0, z0, x1, z1 = thing.rect
    room = here.rect
    open_around = min(x0 - room[0], z0 - room[1], room[2] - x1, room[3] - z1)
    to_end = min(
        (x0 - room[0], room[2] - x1)
        if room[2] - room[0] > room[3] - room[1]
        else (z0 - room[1], room[3] - z1)
    )
    return Place(
        thing,
        turn,
        side,
        turns,
        sides,
        corner,
        wall,
        here.hallway and to_end < 1.0,
        KIND[thing.kind].place == "free" and open_around > 0.9 and not here.hallway,
        tuple(Near(t, hand) for t, hand, gap, _ in gaps if gap < 1.0 and scene.sees(path, t)),
        tuple(t for t, _, gap, _ in gaps if gap < 1.6),
        tuple(t for t, _, _, opposite in gaps if opposite and scene.sees(path, t)),
        _name(scene.plan.rooms[near_doors[0].other(here.index)]) if len(near_doors) == 1 else None,
        abs(angle) <= 36,
    )


def _corner_and_wall(
    here: Room, entry: Door | None, into: np.ndarray, thing: Thing
) -> tuple[str, str]:
    """The corner that ``thing`` stands in and the wall that it touches, see ``Place``."""
    x0, z0, x1, z1 = thing.rect
    gaps = {
        (-1.0, 0.0): x0 - here.rect[0],
        (1.0, 0.0): here.rect[2] - x1,
        (0.0, -1.0): z0 - here.rect[1],
        (0.0, 1.0): here.rect[3] - z1,
    }
    close = sorted((gap, side) for side, gap in gaps.items() if gap < 0.35)
    if entry is None or here.hallway or not close:
        return ("any" if len(close) == 2 and not here.hallway else ""), ""
    names = {}
    for _, side in close:
        angle = bearing(into, np.array(side))
        names[side] = (
            "far"
            if abs(angle) < 45
            else "near"
            if abs(angle) > 135
            else "left"
            if angle > 0
            else "right"
        )
    wall = names[close[0][1]] if len(close) == 1 else ""
    if len(close) < 2:
        return "", wall
    depth = next(n for n in names.values() if n in ("far", "near"))
    hand = next(n for n in names.values() if n in HAND)
    return f"{depth} {hand}", ""


def _beside_thing(thing: Thing, other: Thing) -> tuple[str, float, bool]:
    """
    On which hand ``other`` is of ``thing`` for someone who faces ``thing``, the gap between both
    (m), and whether they stand opposite each other across the room.
    """
    a, b = thing.rect, other.rect
    gap = float(np.hypot(max(b[0] - a[2], a[0] - b[2], 0.0), max(b[1] - a[3], a[1] - b[3], 0.0)))
    forward = -np.array(thing.facing, float)
    offset = other.centre - thing.centre
    aside = float(offset @ np.array([forward[1], -forward[0]]))
    depth = float(offset @ forward)
    clear = abs(aside) > 1.5 * abs(depth) and KIND[thing.kind].place == "wall"
    hand = ("left" if aside > 0 else "right") if clear else ""
    walled: bool = KIND[thing.kind].place == KIND[other.kind].place == "wall"
    facing = other.facing == tuple(-f for f in thing.facing)
    return hand, gap, bool(walled and facing and abs(aside) < 0.6 and depth < 0)

"""
What a description says, before any words: statements drawn from the facts of a route at four
levels of detail, all of them true, and as many as it takes for no other route to fit.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from sim_bridge.homes.furnish import Thing
from sim_bridge.homes.language.facts import (
    HAND,
    Arrival,
    Facts,
    Leg,
    Near,
    Opening,
    Passed,
    PassedRoom,
    Place,
    RoomName,
)

LEVELS = 4
"""Levels of detail: what is needed, short, as most people tell it, everything."""


@dataclass(frozen=True)
class Facing:
    """One looks at ``thing`` at the start."""

    thing: Thing


@dataclass(frozen=True)
class Pass:
    """
    One passes ``things`` or the openings of ``rooms``, on ``side`` ("" if not said), or walks
    ``between`` two things.
    """

    things: tuple[Thing, ...] = ()
    rooms: tuple[RoomName, ...] = ()
    side: str = ""
    between: bool = False


@dataclass(frozen=True)
class Exit:
    """
    One leaves a room through an opening of which this is said (see ``Opening``; defaults say
    nothing): ``only`` that it is the only one, ``room`` what room is behind it with its colour,
    ``hallway`` that a hallway is, ``avoid`` which rooms not to go into.
    """

    turn: str = ""
    side: str = ""
    ordinal: int | None = None
    last: bool = False
    only: bool = False
    room: RoomName | None = None
    hallway: bool = False
    inside: Thing | None = None
    beside: tuple[Near, ...] = ()
    avoid: tuple[RoomName, ...] = ()


@dataclass(frozen=True)
class Stop:
    """
    One goes to a thing of which this is said (see ``Place``), and stops there unless it is the
    first aim of two: ``colour`` that it has its colour, ``like_first_room`` that it has the colour
    of the room of the start, ``twin`` a thing of the kind that is not meant.
    """

    thing: Thing
    colour: bool = True
    like_first_room: bool = False
    turn: str = ""
    side: str = ""
    corner: str = ""
    wall: str = ""
    end: bool = False
    middle: bool = False
    beside: Near | None = None
    across: Thing | None = None
    doorway: RoomName | None = None
    twin: Thing | None = None


@dataclass(frozen=True)
class Content:
    """
    A whole description: ``facing``; for every leg what is passed and the exit; then for the visit
    (with ``back``, the way back) and the goal what is passed and where to stop.
    """

    facing: Facing | None
    legs: tuple[tuple[tuple[Pass, ...], Exit], ...]
    visit: Stop | None
    passed: tuple[Pass, ...]
    stop: Stop
    level: int


# ---------------------------------------------------------------- truth and sufficiency


def exit_fits(said: Exit, opening: Opening, leg: Leg) -> bool:
    """Whether someone may take ``opening`` for the one that is meant by ``said``."""
    return all(
        (
            not said.turn or said.turn in opening.turns,
            not said.side or said.side in opening.sides,
            said.ordinal is None or opening.ordinal in (None, said.ordinal),
            not said.last or opening.last or opening.ordinal is None,
            not said.only or len(leg.openings) == 1,
            said.room is None or said.room == opening.room,
            not said.hallway or opening.room.hallway,
            said.inside is None or said.inside in opening.all_inside,
            all(near.thing in opening.maybe_beside for near in said.beside),
            opening.room not in said.avoid,
        )
    )


def exit_is_true(said: Exit, opening: Opening, leg: Leg) -> bool:
    """Whether all of ``said`` is clearly so for ``opening``, and can be seen."""
    known = {other.room for other in leg.openings if other is not opening}
    return all(
        (
            said.turn in ("", opening.turn),
            said.side in ("", opening.side),
            said.ordinal in (None, opening.ordinal),
            not said.last or opening.last,
            not said.only or len(leg.openings) == 1,
            said.room in (None, opening.room),
            not said.hallway or opening.room.hallway,
            said.inside is None or said.inside in opening.inside,
            set(said.beside) <= set(opening.beside),
            set(said.avoid) <= known,
        )
    )


def stop_fits(said: Stop, place: Place, arrival: Arrival, first: RoomName) -> bool:
    """Whether someone may take the thing at ``place`` for the one that is meant by ``said``."""
    thing = place.thing
    return all(
        (
            thing.kind == said.thing.kind,
            not said.colour or thing.colour == said.thing.colour,
            not said.like_first_room or thing.colour == first.colour,
            not said.turn or said.turn in place.turns,
            not said.side or said.side in place.sides,
            not said.corner or bool(place.corner) or _cornered(place),
            said.corner in ("", "any") or place.corner in (said.corner, ""),
            not said.wall or place.wall in ("", said.wall),
            not said.end or place.end,
            said.beside is None or said.beside.thing in place.maybe_beside,
            thing != said.twin,
        )
    )


def _cornered(place: Place) -> bool:
    """Whether a thing at a wall may pass for one in a corner."""
    return bool(place.wall)


def stop_is_true(said: Stop, place: Place, arrival: Arrival, first: RoomName) -> bool:
    """Whether all of ``said`` is clearly so for the thing at ``place``, and can be seen."""
    kin = {p.thing for p in arrival.places if p.thing.kind == said.thing.kind}
    return all(
        (
            said.thing == place.thing,
            not said.like_first_room or place.thing.colour == first.colour,
            said.turn in ("", place.turn),
            said.side in ("", place.side),
            said.corner in ("", place.corner) or (said.corner == "any" and bool(place.corner)),
            said.wall in ("", place.wall),
            not said.end or place.end,
            not said.middle or place.middle,
            said.beside is None or said.beside in place.beside,
            said.across is None or said.across in place.across,
            said.doorway in (None, place.doorway),
            said.twin is None or said.twin in kin - {place.thing},
        )
    )


def passes_are_true(
    said: Iterable[Pass], passed: tuple[Passed, ...], rooms: tuple[PassedRoom, ...]
) -> bool:
    """Whether everything in ``said`` is passed, on the side that is said, in that order."""
    things = {p.thing: p.side for p in passed}
    sides = {p.room: p.side for p in rooms}
    order = {p.thing: i for i, p in enumerate(passed)} | {p.room: i for i, p in enumerate(rooms)}
    for one in said:
        named: list[Thing | RoomName] = [*one.things, *one.rooms]
        if any(name not in order for name in named):
            return False
        actual = [things[t] for t in one.things] + [sides[r] for r in one.rooms]
        if one.side and set(actual) != {one.side}:
            return False
        if one.between and sorted(actual) != ["left", "right"]:
            return False
    return True


def routes_that_fit(facts: Facts, content: Content) -> int:
    """How many routes fit the description; a good one fits its own alone."""
    exits = [
        sum(exit_fits(said, opening, leg) for opening in leg.openings)
        for leg, (_, said) in zip(facts.legs, content.legs, strict=True)
    ]
    aims = [(content.stop, facts.arrival)]
    if content.visit is not None and facts.visit is not None:
        aims.append((content.visit, facts.visit))
    stops = [
        sum(stop_fits(said, place, at, facts.start) for place in at.places) for said, at in aims
    ]
    return prod(exits) * prod(stops)


def is_true(facts: Facts, content: Content) -> bool:
    """Whether every statement of the description is so."""
    at = facts.arrival
    checks = [passes_are_true(content.passed, at.passed, ())]
    checks.append(stop_is_true(content.stop, at.place, at, facts.start))
    checks.append(content.facing is None or content.facing.thing in facts.facing)
    if content.visit is not None and facts.visit is not None:
        checks.append(stop_is_true(content.visit, facts.visit.place, facts.visit, facts.start))
    for leg, (passes, said) in zip(facts.legs, content.legs, strict=True):
        checks.append(exit_is_true(said, leg.opening, leg))
        checks.append(passes_are_true(passes, leg.passed, leg.passed_rooms))
    return all(checks)


def counts_openings(content: Content) -> bool:
    """Whether openings have to be counted: a later one than the first, known by nothing else."""
    return any(said.ordinal and not (said.room or said.inside) for _, said in content.legs)


def things_named(content: Content) -> list[Thing]:
    """The things that are named, without warnings: those of the way in order, the goal last."""
    found: list[Thing | None] = [content.visit.thing] if content.visit else []
    found += [content.facing.thing] if content.facing else []
    for passes, said in content.legs:
        found += [thing for one in passes for thing in one.things]
        found += [near.thing for near in said.beside] + [said.inside]
    stop = content.stop
    found += [thing for one in content.passed for thing in one.things]
    found += [stop.beside.thing if stop.beside else None, stop.across]
    named = [thing for thing in found if thing is not None and thing != stop.thing]
    return [*dict.fromkeys(named), stop.thing]


# ---------------------------------------------------------------- drawing what to say


def choose(rng: np.random.Generator, facts: Facts, level: int) -> Content:
    """Draw what to say about a route at a ``level`` of detail (0 to 3)."""
    facing = None
    if level >= 2 and facts.facing and rng.random() < 0.4:
        facing = Facing(facts.facing[0])
    legs = tuple(
        (
            _passes(rng, leg.passed, leg.passed_rooms, level),
            _exit(rng, leg, level, counting=facts.kind == "counting", first=i == 0),
        )
        for i, leg in enumerate(facts.legs)
    )
    visit = None
    if facts.visit is not None:
        visit = _stop(rng, facts.visit, facts.start, min(level, 2), came=True)
    alike = facts.kind == "colour"
    came = bool(facts.legs)
    stop = _stop(rng, facts.arrival, facts.start, level, came=came, like_first_room=alike)
    return Content(facing, legs, visit, _passes(rng, facts.arrival.passed, (), level), stop, level)


def _passes(
    rng: np.random.Generator,
    passed: tuple[Passed, ...],
    rooms: tuple[PassedRoom, ...],
    level: int,
) -> tuple[Pass, ...]:
    """Draw which of the things and rooms passed to mention."""
    share = (0.04, 0.3, 0.55, 0.85)[level]
    said: list[Pass] = []
    if rooms and rng.random() < share:
        i = int(rng.integers(len(rooms)))
        some = rooms[i : i + int(rng.integers(1, 4))]
        sides = {room.side for room in some}
        side = some[0].side if len(sides) == 1 and rng.random() < 0.5 else ""
        said.append(Pass(rooms=tuple(room.room for room in some), side=side))
    if passed and rng.random() < share:
        i = int(rng.integers(len(passed)))
        one, after = passed[i], passed[i + 1 : i + 2]
        if after and after[0].side != one.side and after[0].along - one.along < 1.0:
            said.append(Pass(things=(one.thing, after[0].thing), between=rng.random() < 0.7))
        elif after and rng.random() < 0.4:
            said.append(Pass(things=(one.thing, after[0].thing)))
        else:
            said.append(Pass(things=(one.thing,), side=one.side if rng.random() < 0.45 else ""))
    return tuple(said)


_Extra = tuple[float, Callable[[Exit], Exit]]


def _exit(rng: np.random.Generator, leg: Leg, level: int, *, counting: bool, first: bool) -> Exit:
    """Draw what to say about the opening that is taken, enough for no other to fit."""
    o = leg.opening
    hall = leg.room.hallway and not first
    count = counting and bool(o.ordinal)
    said = Exit()
    if count:
        return Exit(turn=o.turn if hall else "", side=o.side, ordinal=o.ordinal)
    # What is out of the picture as one comes in gets a direction in most cases.
    if o.turn and rng.random() < ((0.4 if o.visible else 0.9) if level < 2 else 0.95):
        said = _directed(rng, said, o, hall)
    extras = _extras(rng, leg, o, hall)
    order = _in_order(rng, extras)
    wanted = (0, int(rng.integers(1, 3)), int(rng.integers(1, 3)), int(rng.integers(2, 4)))[level]
    for say in order[:wanted]:
        said = say(said)
    for say in [*order[wanted:], lambda e: replace(e, room=o.room)]:
        alone = sum(exit_fits(said, other, leg) for other in leg.openings) == 1
        if alone and (said != Exit() or rng.random() < 0.5):
            break
        said = say(said)
    rivals = [r.room for r in leg.openings if r is not o and r.visible]
    if rivals and level >= 1 and rng.random() < 0.08 + 0.06 * level:
        said = replace(said, avoid=(rivals[int(rng.integers(len(rivals)))],))
    return said


def _directed(rng: np.random.Generator, said: Exit, o: Opening, hall: bool) -> Exit:
    """Say which way it is: a turn, or the side, along a hallway often both."""
    if hall:
        return replace(said, turn=o.turn, side=o.side if rng.random() < 0.6 else "")
    if o.side and rng.random() < 0.5:
        return replace(said, side=o.side)
    return replace(said, turn=o.turn)


def _extras(rng: np.random.Generator, leg: Leg, o: Opening, hall: bool) -> list[_Extra]:
    """What else is true of the opening, with how readily it is said."""
    found: list[_Extra] = [(4.0, lambda e: replace(e, room=o.room))]
    turn = o.turn if hall else ""

    def at_side(e: Exit, **more: int | bool) -> Exit:
        return replace(e, side=o.side, turn=turn or e.turn, **more)  # type: ignore[arg-type]

    if o.room.hallway:
        found.append((2.0, lambda e: replace(e, hallway=True)))
    if o.side:
        found.append((1.5, at_side))
    # openings beyond the first are rare, and people count them
    if o.ordinal is not None and (o.ordinal > 0 or rng.random() < 0.35):
        found.append((12.0 if o.ordinal else 2.0, lambda e: at_side(e, ordinal=o.ordinal or 0)))
    if o.last:
        found.append((6.0, lambda e: replace(at_side(e, last=True), ordinal=None)))
    if len(leg.openings) == 1:
        found.append((0.7, lambda e: replace(e, only=True)))
    if o.inside:
        thing = o.inside[int(rng.integers(len(o.inside)))]
        found.append((1.4, lambda e: replace(e, inside=thing)))
    if o.beside:
        both = {near.side for near in o.beside} >= set(HAND)
        one = o.beside[int(rng.integers(len(o.beside)))]
        pair = [next(n for n in o.beside if n.side == hand) for hand in HAND] if both else [one]
        beside = tuple(pair) if both and rng.random() < 0.6 else (one,)
        found.append((1.6, lambda e: replace(e, beside=beside)))
    return found


def _in_order(
    rng: np.random.Generator, extras: list[tuple[float, Callable[..., Exit]]]
) -> list[Callable[..., Exit]]:
    """The extras in an order drawn by their weights."""
    keys = [float(rng.exponential()) / weight for weight, _ in extras]
    return [extras[i][1] for i in np.argsort(keys)]


def _stop(
    rng: np.random.Generator,
    arrival: Arrival,
    first: RoomName,
    level: int,
    *,
    came: bool,
    like_first_room: bool = False,
) -> Stop:
    """Draw what to say about the thing to stop at, enough for no other to fit."""
    place = arrival.place
    kin = [p for p in arrival.places if p.thing.kind == place.thing.kind and p is not place]
    plain = not kin and rng.random() < 0.08
    said = Stop(place.thing, colour=not plain, like_first_room=like_first_room)
    if like_first_room:
        said = replace(said, colour=False)
    if place.turn and rng.random() < ((0.2 if place.visible else 0.8) if level < 2 else 0.7):
        use_side = place.side and rng.random() < (0.6 if came else 0.35)
        hall = arrival.room.hallway and came
        if hall:
            said = replace(said, turn=place.turn, side=place.side if rng.random() < 0.5 else "")
        else:
            said = replace(said, side=place.side) if use_side else replace(said, turn=place.turn)
    places = _place_extras(rng, place)
    wanted = (0, int(rng.random() < 0.3), int(rng.integers(0, 2)), int(rng.integers(1, 3)))[level]
    for i in rng.permutation(len(places))[:wanted]:
        said = replace(said, **places[i])  # type: ignore[arg-type]
    if kin and not like_first_room and rng.random() < 0.06 + 0.06 * level:
        said = replace(said, twin=kin[int(rng.integers(len(kin)))].thing)
    if sum(stop_fits(said, p, arrival, first) for p in arrival.places) != 1:
        said = replace(said, colour=not like_first_room)
    return said


def _place_extras(rng: np.random.Generator, place: Place) -> list[dict[str, object]]:
    """What else is true of where a thing stands."""
    found: list[dict[str, object]] = []
    if place.corner:
        vague = rng.random() < 0.4
        found.append({"corner": "any" if vague else place.corner})
    if place.wall:
        found.append({"wall": place.wall})
    if place.end:
        found += [{"end": True}] * 2
    if place.middle:
        found.append({"middle": True})
    if place.beside:
        found.append({"beside": place.beside[int(rng.integers(len(place.beside)))]})
    if place.across:
        found.append({"across": place.across[0]})
    if place.doorway is not None:
        found.append({"doorway": place.doorway})
    return found

"""
What a description says, in the plain sentences of generator 1 (`sim_bridge.homes.instruction`) and
no more than it says: for a network that knows only these, and for one that learns to put
anybody's words into them (`janusvln_ros.training.rephrase`).

Plain sentences know a thing by its kind and colour, a room by its colour, an opening by the hand
it is on and by counting. What else a description tells of an opening or a thing (what can be seen
through it, in which corner it stands) is a detail, for those who know these; without details it
is left out, where it gives no hand. What not to take is left out always.
"""

from collections.abc import Iterable
from dataclasses import replace

from sim_bridge.homes.instruction import LAST, Part
from sim_bridge.homes.language.content import Content, Exit, Pass, Stop
from sim_bridge.homes.language.facts import HAND, Facts, RoomName

TURN_OF = {"ahead": "straight", "behind": "around", "left": "left", "right": "right"}
"""How to turn towards what is on a side."""

LIKE_FIRST_ROOM = " with the colour of the room where you started"
"""Behind the kind of a thing that is to be known by it."""

OTHER_HAND = {"left": "right", "right": "left"}


def plain_parts(content: Content, facts: Facts, *, details: bool = False) -> tuple[Part, ...]:
    """
    The parts of a plain instruction for ``content``, which was drawn from ``facts``: these tell
    where a way leads along a hallway, which a description that turns twice implies.

    Args:
        details: with what plain sentences of generator 1 do not tell.
    """
    parts: list[Part] = []
    named_hallway = False
    for i, (passes, said) in enumerate(content.legs):
        twice = bool(i and facts.legs[i].room.hallway and said.turn and said.side)
        passed = _passed(passes, details)
        if not details:  # what stands beside an opening is passed
            there = {part.thing for part in passed}
            beside = [near.thing.name for near in said.beside if near.thing.name not in there]
            passed += [Part("pass", thing=name) for name in beside]
        where = _where_exit(said) if details else ""
        if i == 0 and (turn := said.turn or TURN_OF.get(said.side, "")):
            parts.append(Part("exit", turn=turn, room=_room(said), where=where))
        else:
            counted = replace(said, ordinal=LAST) if details and said.last else said
            leave = _exit(counted, along=named_hallway or twice)
            parts += [*passed, replace(leave, where=where)]
        named_hallway = said.hallway or bool(said.room and said.room.hallway)
    if content.visit is not None:
        visit = _stop(content.visit, details, came=bool(content.legs))
        parts += [replace(visit, act="visit", side=""), Part("return")]
    parts += _passed(content.passed, details)
    came = bool(content.legs) and content.visit is None
    return (*parts, _stop(content.stop, details, came=came))


def mirrored(parts: Iterable[Part]) -> tuple[Part, ...]:
    """The same in the mirror, left and right exchanged."""
    return tuple(
        replace(
            part,
            turn=OTHER_HAND.get(part.turn, part.turn),
            side=OTHER_HAND.get(part.side, part.side),
            where=" ".join(OTHER_HAND.get(word, word) for word in part.where.split()),
        )
        for part in parts
    )


def _passed(passes: Iterable[Pass], details: bool) -> list[Part]:
    """Things that are passed, and rooms, for which generator 1 has no words."""
    parts = []
    for one in passes:
        names = [thing.name for thing in one.things]
        names += [_name(room) for room in one.rooms if details]
        side = one.side if len(names) == 1 else ""
        parts += [Part("pass", side=side, thing=name) for name in names]
    return parts


def _room(said: Exit) -> str:
    return _name(said.room) if said.room else "hallway" if said.hallway else ""


def _name(room: RoomName) -> str:
    return f"{room.colour} {'hallway' if room.hallway else 'room'}"


def _exit(said: Exit, *, along: bool) -> Part:
    """An opening after the first one; ``along`` a hallway, one turns before it."""
    if along and said.turn in (*HAND, "straight"):
        side = said.side if said.side in HAND else ""
        ordinal = said.ordinal if side else None
        return Part("exit", said.turn, side, ordinal, _room(said), "hallway")
    side = said.side or {"straight": "ahead"}.get(said.turn, said.turn)
    if side not in (*HAND, "ahead"):
        return Part("exit", room=_room(said))
    ordinal = said.ordinal if side in HAND else None
    return Part("exit", side=side, ordinal=ordinal, room=_room(said))


def _where_exit(said: Exit) -> str:
    """What stands beside an opening, and what can be seen through it."""
    told = [f"next to the {near.thing.name}" for near in said.beside]
    if said.inside is not None:
        told.append(f"where you see the {said.inside.name}")
    return " ".join(told)


def _where_stop(said: Stop) -> str:
    """Where a thing stands in its room."""
    told = []
    if said.corner:
        told.append("in the corner" if said.corner == "any" else f"in the {said.corner} corner")
    if said.wall:
        told.append(f"at the {said.wall} wall")
    if said.end:
        told.append("at the end of the hallway")
    if said.middle:
        told.append("in the middle of the room")
    if said.beside is not None:
        told.append(f"next to the {said.beside.thing.name}")
    if said.across is not None:
        told.append(f"across from the {said.across.name}")
    if said.doorway is not None:
        told.append(f"next to the door of the {_name(said.doorway)}")
    return " ".join(told)


def _stop(said: Stop, details: bool, *, came: bool) -> Part:
    """Where to stop; seen from the start, unless one ``came`` in."""
    thing = said.thing.name if said.colour else said.thing.kind
    if said.like_first_room:
        thing = f"{said.thing.kind}{LIKE_FIRST_ROOM}"
    turn, side = said.turn, said.side
    if not (turn or side):
        hint = said.corner.split()[-1] if said.corner else said.wall
        side = hint if hint in HAND else ""
    if not turn and (not came or side == "behind"):
        turn, side = TURN_OF.get(side, ""), ""
    where = _where_stop(said) if details else ""
    return Part("stop", turn=turn, side=side, thing=thing, where=where)

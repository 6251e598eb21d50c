"""
Instructions from routes: what is said about each stretch of a route, in several phrasings with a
small vocabulary.

A route is a list of ``Part``: leave a room through an opening, walk past a thing, stop at a thing.
What the parts say is worked out from the plan by ``sim_bridge.homes.episodes``; here it only
becomes English.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np

ORDINALS = ("first", "second", "third", "fourth", "last")

LAST = len(ORDINALS) - 1
"""The ordinal of the last opening on a side, however many there are."""


@dataclass(frozen=True)
class Part:
    """
    One stretch of a route.

    ``act`` is "exit", "pass", "visit", "return" or "stop". ``turn``: how to begin, seen from the
    heading so far ("left", "right", "around", "straight", "" if nothing needs saying). ``side``:
    where the opening or thing is ("left", "right", "ahead", ""). ``ordinal``: which of several
    openings on that side, from 0 (`LAST`: the last), None if not said. ``room``: name of the room
    one comes to ("" if not said). ``hallway``: name of the hallway one walks along before the
    exit, else "". ``thing``: name of the landmark. ``where``: what else tells the opening or
    landmark from others ("next to the red sofa", "in the corner"; "" if nothing is said).
    """

    act: str
    turn: str = ""
    side: str = ""
    ordinal: int | None = None
    room: str = ""
    hallway: str = ""
    thing: str = ""
    where: str = ""


_TURN = {
    "left": ("turn left", "turn to your left"),
    "right": ("turn right", "turn to your right"),
    "around": ("turn around", "turn around"),
    "straight": ("go straight ahead", "walk straight ahead", "go forward"),
}

_FIRST_EXIT = {
    "left": (
        "turn left and go through the door{into}",
        "go through the door on your left{into}",
        "turn left and leave through the door{into}",
        "leave through the door on your left{into}",
    ),
    "right": (
        "turn right and go through the door{into}",
        "go through the door on your right{into}",
        "turn right and leave through the door{into}",
        "leave through the door on your right{into}",
    ),
    "around": (
        "turn around and go through the door{into}",
        "turn around and leave through the door{into}",
        "go through the door behind you{into}",
    ),
    "straight": (
        "go straight ahead through the door{into}",
        "walk forward through the door{into}",
        "go through the door in front of you{into}",
    ),
}

_EXIT = {
    "left": (
        "take the {nth}door on your left{into}",
        "go through the {nth}door on the left{into}",
        "leave through the {nth}door on your left{into}",
    ),
    "right": (
        "take the {nth}door on your right{into}",
        "go through the {nth}door on the right{into}",
        "leave through the {nth}door on your right{into}",
    ),
    "ahead": (
        "go straight on through the door{into}",
        "walk straight across and through the door{into}",
        "take the door ahead of you{into}",
    ),
    "": ("go through the door{into}", "take the door{into}", "leave through the door{into}"),
}

_PASS = {
    "left": (
        "walk past the {thing} on your left",
        "pass the {thing} on your left",
        "go past the {thing} on the left",
    ),
    "right": (
        "walk past the {thing} on your right",
        "pass the {thing} on your right",
        "go past the {thing} on the right",
    ),
    "": ("walk past the {thing}", "pass the {thing}", "go past the {thing}"),
}

_STOP = {
    "": (
        "stop at the {thing}",
        "walk to the {thing} and stop",
        "stop next to the {thing}",
        "go to the {thing} and stop there",
        "wait at the {thing}",
    ),
    "left": (
        "stop at the {thing} on your left",
        "go to the {thing} on the left and stop",
        "walk to the {thing} on your left and stop",
    ),
    "right": (
        "stop at the {thing} on your right",
        "go to the {thing} on the right and stop",
        "walk to the {thing} on your right and stop",
    ),
    "ahead": (
        "stop at the {thing} ahead of you",
        "go straight to the {thing} and stop",
        "walk straight to the {thing} and stop",
    ),
}

_VISIT = ("go to the {thing}", "walk to the {thing}", "go up to the {thing}")
_RETURN = (
    "go back to the room where you started",
    "return to the room where you started",
    "walk back to the first room",
)


def say(rng: np.random.Generator, parts: Sequence[Part]) -> str:
    """The instruction for ``parts`` in one of its phrasings, drawn with ``rng``."""
    clauses = [_clause(partial(_pick, rng), part, first=i == 0) for i, part in enumerate(parts)]
    text = clauses[0]
    for i, (before, clause) in enumerate(pairwise(clauses), 2):
        joint = (
            (" and ", ", then ", ". Then ", ". ")[int(rng.choice(4, p=[0.35, 0.25, 0.15, 0.25]))]
            if i == len(clauses)
            else _pick(rng, (", ", ", then ", ". "))
        )
        if joint == " and " and " and " in before[-60:]:
            joint = ". "
        text += joint + (clause[0].upper() + clause[1:] if joint == ". " else clause)
    return text[0].upper() + text[1:] + "."


def say_plainly(parts: Sequence[Part]) -> str:
    """The instruction for ``parts``, always in the same words, a sentence for each of them."""
    clauses = (_clause(lambda options: options[0], part, i == 0) for i, part in enumerate(parts))
    return " ".join(clause[0].upper() + clause[1:] + "." for clause in clauses)


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    """One of ``options``."""
    return options[int(rng.integers(len(options)))]


def _clause(pick: Callable[[Sequence[str]], str], part: Part, first: bool) -> str:
    """One part in words, of which ``pick`` chooses among several."""
    where = f" {part.where}" if part.where else ""
    if part.act == "exit":
        into = where + (f" into the {part.room}" if part.room else "")
        nth = f"{ORDINALS[part.ordinal]} " if part.ordinal is not None else ""
        if part.hallway:
            if part.turn == "straight":
                return f"go straight across the hallway and through the door{into}"
            return f"turn {part.turn} in the hallway and " + pick(_EXIT[part.side]).format(
                nth=nth, into=into
            )
        phrases = _FIRST_EXIT[part.turn] if first and part.turn else _EXIT[part.side]
        return pick(phrases).format(nth=nth, into=into)
    if part.act == "return":
        return pick(_RETURN)
    thing = part.thing + where
    if part.act == "pass":
        return pick(_PASS[part.side]).format(thing=thing)
    phrases = _VISIT if part.act == "visit" else _STOP["" if part.turn else part.side]
    words = pick(phrases).format(thing=thing)
    return f"{pick(_TURN[part.turn])} and {words}" if part.turn else words

"""Descriptions in plain sentences: what they say, in the words of generator 1, and no more."""

from types import SimpleNamespace

import numpy as np
import pytest

from sim_bridge.homes.dataset import home_seed
from sim_bridge.homes.episodes import described_routes, make_home
from sim_bridge.homes.furnish import Thing
from sim_bridge.homes.instruction import say, say_plainly
from sim_bridge.homes.language import told
from sim_bridge.homes.language.content import Content, Exit, Pass, Stop
from sim_bridge.homes.language.facts import Near, RoomName
from sim_bridge.homes.language.plain import mirrored, plain_parts

RED, HALL = RoomName("red", False), RoomName("grey", True)


def thing(kind, colour="blue"):
    return Thing(kind, colour, 0, (0.0, 0.0, 1.0, 1.0), 1.0, (1, 0))


def plainly(*legs, stop, visit=None, passed=(), along=(), details=False):
    """
    The plain sentences for exits (each alone or behind what is passed), and where to stop; rooms
    ``along`` are hallways.
    """
    pairs = tuple(leg if isinstance(leg, tuple) else ((), leg) for leg in legs)
    rooms = [RoomName("white", i in along) for i in range(len(legs))]
    facts = SimpleNamespace(legs=[SimpleNamespace(room=room) for room in rooms])
    content = Content(None, pairs, visit, passed, stop, 0)
    return say_plainly(plain_parts(content, facts, details=details))


LAMP = Stop(thing("lamp"))


@pytest.mark.parametrize(
    ("said", "plain"),
    [
        (plainly(stop=LAMP), "Stop at the blue lamp."),
        (plainly(stop=Stop(thing("lamp"), colour=False)), "Stop at the lamp."),
        (
            plainly(stop=Stop(thing("lamp"), side="left")),
            "Turn left and stop at the blue lamp.",
        ),
        (
            plainly(stop=Stop(thing("lamp"), side="behind")),
            "Turn around and stop at the blue lamp.",
        ),
        (
            plainly(Exit(side="left", room=RED), stop=LAMP),
            "Turn left and go through the door into the red room. Stop at the blue lamp.",
        ),
        (
            plainly(Exit(room=RED), stop=LAMP),
            "Go through the door into the red room. Stop at the blue lamp.",
        ),
        (
            plainly(Exit(turn="left"), Exit(turn="right", room=RED), stop=LAMP),
            "Turn left and go through the door. Take the door on your right into the red room. "
            "Stop at the blue lamp.",
        ),
        (
            plainly(Exit(turn="left"), Exit(side="left", ordinal=1), stop=LAMP),
            "Turn left and go through the door. Take the second door on your left. "
            "Stop at the blue lamp.",
        ),
        (
            plainly(Exit(room=HALL), Exit(turn="right", room=RED), stop=LAMP),
            "Go through the door into the grey hallway. Turn right in the hallway and go through "
            "the door into the red room. Stop at the blue lamp.",
        ),
        (
            plainly(Exit(turn="left"), Exit(turn="right", side="left"), stop=LAMP, along={1}),
            "Turn left and go through the door. Turn right in the hallway and take the door on "
            "your left. Stop at the blue lamp.",
        ),
        (
            plainly(Exit(turn="left"), Exit(side="behind"), stop=LAMP),
            "Turn left and go through the door. Go through the door. Stop at the blue lamp.",
        ),
        (
            plainly(Exit(beside=(Near(thing("box", "red"), "left"),)), stop=LAMP),
            "Walk past the red box. Go through the door. Stop at the blue lamp.",
        ),
        (
            plainly(((Pass((thing("box", "red"),), side="left"),), Exit(hallway=True)), stop=LAMP),
            "Walk past the red box on your left. Go through the door into the hallway. "
            "Stop at the blue lamp.",
        ),
        (
            plainly(Exit(turn="left"), stop=Stop(thing("lamp"), corner="far right")),
            "Turn left and go through the door. Stop at the blue lamp on your right.",
        ),
        (
            plainly(
                Exit(turn="left"), stop=Stop(thing("lamp"), colour=False, like_first_room=True)
            ),
            "Turn left and go through the door. Stop at the lamp with the colour of the room "
            "where you started.",
        ),
        (
            plainly(Exit(turn="left"), visit=Stop(thing("box", "red"), side="left"), stop=LAMP),
            "Turn left and go through the door. Go to the red box. Go back to the room where you "
            "started. Stop at the blue lamp.",
        ),
    ],
)
def test_what_is_said_is_said_plainly(said, plain):
    assert said == plain


SOFA = thing("sofa", "red")


@pytest.mark.parametrize(
    ("legs", "stop", "with_details"),
    [
        (
            [Exit(turn="left", inside=SOFA)],
            LAMP,
            "Turn left and go through the door where you see the red sofa. Stop at the blue lamp.",
        ),
        (
            [Exit(beside=(Near(SOFA, "left"),), room=RED)],
            LAMP,
            "Go through the door next to the red sofa into the red room. Stop at the blue lamp.",
        ),
        (
            [Exit(turn="left"), Exit(side="left", last=True)],
            LAMP,
            "Turn left and go through the door. Take the last door on your left. "
            "Stop at the blue lamp.",
        ),
        (
            [((Pass(rooms=(RED,), side="left"),), Exit())],
            LAMP,
            "Walk past the red room on your left. Go through the door. Stop at the blue lamp.",
        ),
        ([], Stop(LAMP.thing, corner="any"), "Stop at the blue lamp in the corner."),
        (
            [Exit()],
            Stop(LAMP.thing, side="right", corner="far right"),
            "Go through the door. Stop at the blue lamp in the far right corner on your right.",
        ),
        ([], Stop(LAMP.thing, wall="far"), "Stop at the blue lamp at the far wall."),
        ([], Stop(LAMP.thing, end=True), "Stop at the blue lamp at the end of the hallway."),
        ([], Stop(LAMP.thing, middle=True), "Stop at the blue lamp in the middle of the room."),
        (
            [],
            Stop(LAMP.thing, beside=Near(SOFA, "")),
            "Stop at the blue lamp next to the red sofa.",
        ),
        ([], Stop(LAMP.thing, across=SOFA), "Stop at the blue lamp across from the red sofa."),
        (
            [],
            Stop(LAMP.thing, doorway=RED),
            "Stop at the blue lamp next to the door of the red room.",
        ),
    ],
)
def test_details_tell_what_generator_1_has_no_words_for(legs, stop, with_details):
    assert plainly(*legs, stop=stop, details=True) == with_details
    assert plainly(*legs, stop=stop) != with_details


@pytest.fixture(scope="module")
def drawn():
    """(facts, content) of 300 descriptions of ways in twelve homes."""
    rng = np.random.default_rng(4)
    facts = [f for i in range(12) for f in described_routes(home_seed(0, "plain", i), 6, 0)]
    return [(f, told(rng, f).content) for f in (facts * 10)[:300]]


def test_every_way_out_is_told_and_the_goal_comes_last(drawn):
    for facts, content in drawn:
        parts = plain_parts(content, facts)
        assert sum(part.act == "exit" for part in parts) == len(facts.legs)
        assert parts[-1].act == "stop"
        assert content.stop.thing.kind in parts[-1].thing


def test_no_room_is_named_that_is_not_said(drawn):
    for facts, content in drawn:
        exits = [part for part in plain_parts(content, facts) if part.act == "exit"]
        for (_, said), part in zip(content.legs, exits, strict=True):
            named = f"{said.room.colour} " if said.room else ""
            kind = "hallway" if said.hallway or (said.room and said.room.hallway) else "room"
            assert part.room == (f"{named}{kind}" if named or said.hallway else "")


def test_plain_words_are_those_of_generator_1(drawn):
    rng = np.random.default_rng(5)
    plain, taught = set(), set()
    for facts, content in drawn:
        parts = plain_parts(content, facts)
        plain |= set(say_plainly(parts).lower().replace(".", "").split())
        for _ in range(8):
            taught |= set(say(rng, parts).lower().replace(".", "").replace(",", "").split())
    assert plain <= taught


def test_in_the_mirror_left_is_right_and_nothing_else_changes(drawn):
    swap = {"left": "right", "right": "left"}
    for i, (facts, content) in enumerate(drawn):
        parts = plain_parts(content, facts, details=bool(i % 2))
        text, other = say_plainly(parts), say_plainly(mirrored(parts))
        words = [swap.get(w.rstrip("."), w.rstrip(".")) for w in text.split()]
        assert words == [w.rstrip(".") for w in other.split()]
        assert mirrored(mirrored(parts)) == parts


def test_ways_are_those_of_the_home_that_its_seed_makes():
    seed = home_seed(0, "plain", 1)
    home = make_home("home", seed)
    colours = {(room.colour, room.hallway) for room in home.plan.rooms}
    found = described_routes(seed, 6, 0)
    assert found
    for facts in found:
        rooms = [facts.start, facts.arrival.room, *(leg.opening.room for leg in facts.legs)]
        assert {(room.colour, room.hallway) for room in rooms} <= colours
        assert {place.thing for place in facts.arrival.places} <= set(home.things)
    assert found == described_routes(seed, 6, 0) != described_routes(seed, 6, 1)

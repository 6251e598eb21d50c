"""
From what is to be said to English: clauses, their order and joints, a voice, and the surface
(case, punctuation, typos).
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from janusvln_ros.data.episodes import is_unseen_text
from sim_bridge.homes.furnish import Thing
from sim_bridge.homes.language.content import Content, Exit, Pass, Stop, choose
from sim_bridge.homes.language.facts import HAND, ORDINALS, Facts, Leg, Near, RoomName
from sim_bridge.homes.language.grammar import RULES, Speaker
from sim_bridge.homes.language.variants import with_articles, with_typo

VOICES = ("terse", "plain", "chatty", "polite")
_VOICE_SHARES = (0.26, 0.38, 0.22, 0.14)
_LEVEL_SHARES = (0.26, 0.33, 0.27, 0.14)


@dataclass(frozen=True)
class Told:
    """
    A description with what it was made of: its content and voice, the patterns it ``used``, as
    (rule, pattern), whether one was ``held_out``, and its words before haste and typos
    (``careful``).
    """

    text: str
    careful: str
    content: Content
    voice: str
    used: tuple[tuple[str, str], ...]
    held_out: bool


@dataclass(frozen=True)
class Clause:
    """
    A clause; ``verb`` if it is an imperative, which "please" and "you need to" may precede,
    ``exits`` if it leads into another room, ``placed`` if it begins with where one is by then.
    """

    text: str
    verb: bool
    exits: bool = False
    placed: bool = False


def tell(
    rng: np.random.Generator, facts: Facts, *, held_out: bool = False, mirrored: bool = False
) -> str:
    """
    Describe a route: true, sufficient, and each time in other words.

    Args:
        held_out: use at least one word or pattern that is held out of training; else none, nor a
            text that belongs to the unseen splits (``is_unseen_text``).
        mirrored: describe the route in the mirror, left and right exchanged.
    """
    while True:
        one = told(rng, facts, held_out=held_out, mirrored=mirrored)
        if one.held_out if held_out else not is_unseen_text(one.text):
            return one.text


def told(
    rng: np.random.Generator,
    facts: Facts,
    *,
    held_out: bool = False,
    mirrored: bool = False,
    level: int | None = None,
    voice: str | None = None,
) -> Told:
    """
    One draw of a description with what it was made of; ``level`` (0 to 3) and ``voice`` (of
    `VOICES`) are drawn where they are None. ``held_out`` allows and prefers held-out words.
    """
    if level is None:
        level = int(rng.choice(len(_LEVEL_SHARES), p=_LEVEL_SHARES))
    if voice is None:
        voice = VOICES[int(rng.choice(len(VOICES), p=_VOICE_SHARES))]
    content = choose(rng, facts, level)
    speaker = Speaker(
        random.Random(int(rng.integers(2**63))), held_out=held_out, mirrored=mirrored
    )
    careful = _Teller(speaker, facts, content, voice).text()
    text = _surface(speaker, voice, careful)
    return Told(text, careful, content, voice, tuple(speaker.used), speaker.used_held_out)


# ---------------------------------------------------------------- the whole


class _Teller:
    """Puts the clauses of one description together."""

    def __init__(self, speaker: Speaker, facts: Facts, content: Content, voice: str) -> None:
        self.speaker, self.facts, self.content, self.voice = speaker, facts, content, voice
        self.fragments = speaker.chance(
            {"terse": 0.8, "plain": 0.07, "chatty": 0.06}.get(voice, 0)
        )
        plain = not content.stop.like_first_room and facts.visit is None
        self.aim_first = plain and speaker.chance({"terse": 0.06, "polite": 0.1}.get(voice, 0.13))
        self.names = Names(speaker)
        self.last_hand = ""
        self.stopped = self.turned_away = False

    def text(self) -> str:
        """The description in sentence case, without its last full stop."""
        clauses: list[Clause] = []
        i = 0
        while i < len(self.facts.legs):
            merged = self._rooms_in_one(i)
            if merged is None:
                passes, said = self.content.legs[i]
                clauses += self._leg(self.facts.legs[i], passes, said, i)
                i += 1
            else:
                clauses.append(merged[0])
                i += merged[1]
        if self.content.visit is not None and self.facts.visit is not None:
            clauses += self._aim(self.content.visit, (), visit=True)
            start = self.facts.start
            back = self.speaker.say(
                "return", COLOUR=self.names.wall(start), NOUN=self.names.noun(start)
            )
            clauses.append(Clause(back, verb=True))
        if not self.stopped:
            clauses += self._aim(self.content.stop, self.content.passed)
        return self._opened(_joined(self.speaker, self.voice, clauses))

    def _opened(self, text: str) -> str:
        """``text`` with what comes before and after it."""
        speaker = self.speaker
        if self.aim_first:
            room = self.facts.arrival.room
            goal = self.names.thing(self.content.stop.thing)
            if self.facts.legs and speaker.chance(0.4):
                goal += f" in {self.names.room(room)}"
            text = speaker.say("aim", GOAL=goal) + text
        elif self.content.facing is not None and not self.turned_away:
            slots = self.names.slots(self.content.facing.thing)
            text = f"{speaker.say('facing', **slots)}{text}"
        rule = {"chatty": "open_chatty", "polite": "open_polite"}.get(self.voice)
        if rule and speaker.chance(0.55):
            text = speaker.say(rule) + text
        elif self.voice == "plain" and speaker.chance(0.12):
            text = speaker.say("open_plain") + text
        close = {"chatty": 0.16, "polite": 0.25}.get(self.voice, 0)
        if speaker.chance(close):
            text += speaker.say(f"close_{self.voice}", IT=self.names.it(self.content.stop.thing))
        return text

    # ------------------------------------------------ legs

    def _rooms_in_one(self, i: int) -> tuple[Clause, int] | None:
        """
        One clause for two openings of which only the rooms are said, or for the last one and the
        goal, with the number of legs that it covers; None where there are none, or by chance.
        """
        speaker, legs = self.speaker, self.content.legs
        passes, said = legs[i]
        if said != Exit(room=said.room) or said.room is None or passes:
            return None
        if not speaker.chance(0.4):
            return None
        room = self.names.room(said.room)
        if i + 1 < len(legs):
            after_passes, after = legs[i + 1]
            if after_passes or after != Exit(room=after.room, side=after.side) or not after.room:
                return None
            at = self._at_side(after.side, first=False)
            rule = "frag_through_rooms" if self.fragments else "through_rooms"
            second = self.names.room(after.room)
            text = speaker.say(rule, FIRST=room, ROOM=second, AT=at)
            return Clause(text, not self.fragments, exits=True), 2
        stop = self.content.stop
        if (
            self.content.visit is not None
            or self.content.passed
            or stop != Stop(stop.thing)
            or self.aim_first
        ):
            return None
        self.stopped = True
        rule = "frag_stop_in_room" if self.fragments else "stop_in_room"
        text = speaker.say(rule, ROOM=room, **self.names.slots(stop.thing))
        return Clause(text, not self.fragments and not text.startswith("in ")), 1

    def _leg(self, leg: Leg, passes: tuple[Pass, ...], said: Exit, i: int) -> list[Clause]:
        """The clauses of a way through a room and out of it."""
        speaker, hall = self.speaker, leg.room.hallway and i > 0
        clauses = []
        rest = replace(said, turn="")
        if said.turn:
            far = said.last and speaker.chance(0.4)
            hallway = leg.room if hall else None
            clauses.append(self._turn(said.turn, hallway, far=far, first=i == 0))
            self.last_hand = said.turn if said.turn in HAND else ""
        front, more = self._passed(passes)
        clauses += more
        exit_ = self._exit(rest, leg, i, after_pass=bool(more), turned=bool(said.turn))
        if front and exit_ is not None:
            exit_ = Clause(
                f"{front}{', ' if speaker.chance(0.8) else ' '}{exit_.text}", False, True
            )
        if exit_ is not None:
            clauses.append(exit_)
        else:
            clauses[-1] = replace(clauses[-1], exits=True)
        if said.side in HAND:
            self.last_hand = said.side
        if i > 0 and clauses and speaker.chance(0.05 + 0.06 * self.content.level):
            clauses[0] = self._once_inside(clauses[0], leg.room)
        return clauses

    def _once_inside(self, clause: Clause, room: RoomName) -> Clause:
        """``clause`` after a word on where one is."""
        if self.fragments or not clause.verb:
            return clause
        where = self.speaker.say("inside", ROOM=self.names.room(room))
        return replace(clause, text=f"{where} {clause.text}", verb=False, placed=True)

    def _turn(
        self, turn: str, hallway: RoomName | None, *, far: bool = False, first: bool = False
    ) -> Clause:
        """A turn, along a hallway or in a room."""
        speaker = self.speaker
        if turn in HAND and turn == self.last_hand and speaker.chance(0.3):
            return Clause(speaker.say("again", SIDE=turn), verb=False)
        hall = self.names.room(hallway, short=True) if hallway else None
        if turn == "straight":
            rule = (
                "hall_cross" if hallway else "frag_straight" if self.fragments else "turn_straight"
            )
            return Clause(speaker.say(rule, HALL=hall), verb=rule != "frag_straight")
        facing = self.content.facing
        away = first and facing is not None and not self.aim_first and turn != "straight"
        if away and facing is not None and speaker.chance(0.4):
            self.turned_away = True
            rule = "turn_away" if turn == "around" else "turn_from"
            slots = self.names.slots(facing.thing)
            return Clause(speaker.say(rule, **slots, SIDE=turn), verb=True)
        if turn == "around":
            rule = "frag_around" if self.fragments else "turn_around"
            return Clause(speaker.say(rule), verb=not self.fragments)
        if hallway:
            rule = "frag_hall" if self.fragments else "hall_far" if far else "hall_turn"
        else:
            rule = "frag_hand" if self.fragments else "turn_hand"
        text = speaker.say(rule, SIDE=turn, HALL=hall)
        return Clause(
            text, verb=not self.fragments and text.split()[0] not in ("in", "once", "out")
        )

    def _exit(
        self, said: Exit, leg: Leg, i: int, *, after_pass: bool, turned: bool
    ) -> Clause | None:
        """Going through the opening; None where a turn or a fragment has said it all."""
        speaker, names = self.speaker, self.names
        room = self._room_behind(said)
        bare = not (said.side or said.ordinal is not None or said.last or said.only or said.beside)
        here = names.room(leg.room)
        if bare and room is None:
            rule = "frag_exit_plain" if self.fragments else "exit_plain"
            return Clause(speaker.say(rule, HERE=here), not self.fragments, exits=True)
        at = self._at_side(said.side, first=i == 0)
        if said.beside:
            at += " " + self._beside(said.beside)
        door = self._door(said, first=i == 0)
        slots = {"HERE": here, "AT": at, "ROOM": room, "DOOR": door}
        counts = said.ordinal is not None or said.last or said.only
        if after_pass and not counts and speaker.chance(0.4):
            text = speaker.say("pass_exit", **slots)
            # A pattern may name the opening or the room alone; what it leaves out is needed.
            if all(part in text for part in (room or "", at.strip())):
                return Clause(text + self._avoid(said), verb=False, exits=True)
        if (
            room is not None
            and not counts
            and (bare or (said.inside is None and speaker.chance(0.45)))
        ):
            rule = "frag_exit_room" if self.fragments else "exit_room"
        elif self.fragments:
            rule = "frag_exit_door" if room is None else "frag_exit_door_room"
        elif len(said.beside) == 1 and speaker.chance(0.3):
            return self._exit_beside(said, room)
        elif speaker.chance({"chatty": 0.35, "plain": 0.12}.get(self.voice, 0.06)) and not turned:
            return self._exit_seen(said, i, room)
        elif (
            said.side == "ahead"
            and i > 0
            and not turned
            and not counts
            and (said.room or not said.beside)
            and speaker.chance(0.4)
        ):
            rule = "exit_ahead"
        else:
            rule = "exit_door" if room is None else "exit_door_room"
        return Clause(speaker.say(rule, **slots) + self._avoid(said), not self.fragments, True)

    def _room_behind(self, said: Exit) -> str | None:
        """What is said of the room behind an opening, None for nothing."""
        room = None
        if said.room is not None:
            room = self.names.room(said.room)
        elif said.hallway:
            room = f"the {self.speaker.say('hallway')}"
        if said.inside is not None:
            base = room or f"the {self.speaker.say('room')}"
            slots = self.names.slots(said.inside)
            room = self.speaker.say("room_with", ROOM=base, NAMED_ROOM=room, **slots)
        return room

    def _exit_seen(self, said: Exit, i: int, room: str | None) -> Clause:
        """Going through an opening that "you'll see"."""
        counted = said.ordinal is not None or said.last or said.only
        door = self._door(said, first=i == 0)
        seen = door if counted else re.sub(r"^the ", "a ", door)
        if room is not None:
            seen += " " + self.speaker.say("to_room", ROOM=room)
        return Clause(self.speaker.say("exit_seen", A_DOOR=seen) + self._avoid(said), False, True)

    def _exit_beside(self, said: Exit, room: str | None) -> Clause:
        """Going through an opening by way of what stands beside it."""
        thing = said.beside[0].thing
        slots = self.names.slots(thing)
        plain = said.ordinal is None and not said.last and not said.only
        if plain and said.side in HAND and self.speaker.chance(0.5):
            rule = "exit_beside_hand" if room is None else "exit_beside_room"
            text = self.speaker.say(rule, **slots, ROOM=room, SIDE=said.side)
            return Clause(text + self._avoid(said), False, True)
        door = self._door(replace(said, beside=()), first=False)
        if room is not None:
            door += f" to {room}"
        a_door = re.sub(r"^the ", "a ", door) if plain else door
        text = self.speaker.say("exit_beside", **slots, DOOR=door, DOOR_A=a_door)
        return Clause(text + self._avoid(said), False, True)

    def _door(self, said: Exit, *, first: bool) -> str:
        """A name for an opening, by everything that is said of it but the room behind."""
        speaker = self.speaker
        noun = self.names.keep("door", lambda: speaker.say("door"))
        order = ""
        if said.ordinal is not None:
            order = speaker.say(ORDINALS[said.ordinal])
        elif said.last:
            order = speaker.say("last")
        elif said.only:
            order = speaker.say("only")
        at = self._at_side(said.side, first=first)
        if order and not said.only:
            share = 0.45 if self.fragments else 0.14
            noun = "" if said.side and not first and speaker.chance(share) else noun
        elif said.side in HAND and not order and speaker.chance(0.15):
            noun, at = (
                f"{speaker.side(said.side)}{speaker.random.choice(('', '-hand'))} {noun}",
                "",
            )
        beside = f" {self._beside(said.beside)}" if said.beside else ""
        words = " ".join(word for word in ("the", order, noun) if word)
        return f"{words}{at}{beside}"

    def _at_side(self, side: str, *, first: bool) -> str:
        """Where something is, with a space before it; "" where nothing is said."""
        if side in HAND:
            return " " + self.speaker.say("at_hand", SIDE=side)
        rules = {"ahead": "at_front" if first else "at_opposite", "behind": "at_behind"}
        return f" {self.speaker.say(rules[side])}" if side else ""

    def _beside(self, beside: tuple[Near, ...]) -> str:
        """What an opening is beside of."""
        if len(beside) == 2:
            one, other = (self.names.thing(near.thing) for near in beside)
            return self.speaker.say("between", THING=one, OTHER=other)
        (near,) = beside
        if near.side and self.speaker.chance(0.3):
            # What stands to the left of an opening has the opening to its right.
            side = "right" if near.side == "left" else "left"
            return self.speaker.say("beside_hand", SIDE=side, **self.names.slots(near.thing))
        return self.speaker.say("beside_one", **self.names.slots(near.thing))

    def _avoid(self, said: Exit) -> str:
        """A warning, or ""."""
        if not said.avoid:
            return ""
        room = said.avoid[0]
        one = self.names.room(room)
        if said.room is not None and room.hallway == said.room.hallway:
            one = f"the {self.names.wall(room)} one" if self.speaker.chance(0.6) else one
        return self.speaker.say("not_room", TWIN=one)

    # ------------------------------------------------ passing

    def _passed(self, passes: tuple[Pass, ...]) -> tuple[str, list[Clause]]:
        """What is passed: words before the next clause, or clauses of their own."""
        clauses = []
        front = ""
        for k, one in enumerate(passes):
            fronted = k == len(passes) - 1 and self.speaker.chance(0.8 if self.fragments else 0.4)
            text, verb = self._pass(one, fronted)
            if fronted:
                front = text
            else:
                clauses.append(Clause(text, verb))
        return front, clauses

    def _pass(self, one: Pass, fronted: bool) -> tuple[str, bool]:
        """One thing or row of rooms that is passed."""
        speaker, names = self.speaker, self.names
        at = self._at_side(one.side, first=False)
        if one.rooms:
            rooms = names.rooms(one.rooms)
            rule = "pass_front" if fronted else "pass_room"
            text = speaker.say(rule, THING=rooms, ROOM=rooms, AT=at)
        elif one.between:
            a, b = (names.thing(thing) for thing in one.things)
            rule = "between_front" if fronted else "pass_between"
            text = speaker.say(rule, THING=a, OTHER=b)
        else:
            things = " and ".join(names.thing(thing) for thing in one.things)
            side = one.side and not fronted and speaker.chance(0.15)
            rule = "pass_front" if fronted else "pass_side" if side else "pass"
            text = speaker.say(rule, THING=things, AT=at)
        return text, not fronted and text.split()[0] not in ("you'll", "you", "with")

    # ------------------------------------------------ aims

    def _aim(self, said: Stop, passes: tuple[Pass, ...], *, visit: bool = False) -> list[Clause]:
        """The clauses of the way to a thing, and of stopping there."""
        speaker = self.speaker
        clauses = []
        arrival = self.facts.visit if visit and self.facts.visit else self.facts.arrival
        came = bool(self.facts.legs)
        if said.turn:
            hallway = arrival.room if arrival.room.hallway and came else None
            far = said.end and speaker.chance(0.6)
            clauses.append(self._turn(said.turn, hallway, far=far, first=not came))
        front, more = self._passed(passes)
        clauses += more
        last = self._stop(said, arrival.room, visit=visit, came=came)
        if front:
            last = Clause(f"{front}{', ' if speaker.chance(0.8) else ' '}{last.text}", False)
        clauses.append(last)
        if came and speaker.chance(0.06 + 0.08 * self.content.level):
            clauses[0] = self._once_inside(clauses[0], arrival.room)
        return clauses

    def _stop(self, said: Stop, room: RoomName, *, visit: bool, came: bool) -> Clause:
        """Going to a thing and stopping there."""
        speaker, names = self.speaker, self.names
        side = self._at_side(said.side, first=not came)
        at = side + self._standing(said, room)
        twin = ""
        if said.twin is not None:
            one = f"the {names.colour(said.twin)} one"
            twin = speaker.say(
                "not_thing", TWIN=one if speaker.chance(0.75) else names.thing(said.twin)
            )
        slots = self._stop_slots(said, at)
        if visit:
            return Clause(speaker.say("visit", **slots) + twin, verb=True)
        if self.aim_first and speaker.chance(0.7):
            rule = "stop_it" if at else "stop_thing"
        elif self.fragments and speaker.chance(0.85):
            rule = "frag_stop"
        elif (side or at) and speaker.chance({"chatty": 0.4, "terse": 0.1}.get(self.voice, 0.2)):
            rule = "stop_seen"
            slots |= {"AT_FRONT": side.strip() or None} if at == side else {}
        else:
            rule = "stop_thing"
        text = speaker.say(rule, **slots)
        verb = rule == "stop_thing" and not text.startswith("when")
        return Clause(text + twin, verb)

    def _stop_slots(self, said: Stop, at: str) -> dict[str, str | None]:
        """What fills the patterns of stopping at a thing."""
        speaker, names = self.speaker, self.names
        slots: dict[str, str | None] = {**names.slots(said.thing), "AT": at}
        if said.like_first_room:
            thing = speaker.say("first_colour", KIND=names.kind(said.thing))
            slots |= {"THING": thing, "A_THING": thing, "IS": "is", "IT": "it"}
        elif not said.colour:
            thing = f"the {names.kind(said.thing)}"
            slots |= {"THING": thing, "A_THING": thing}
        short = speaker.random.choice(("it's", "it is"))
        return slots | {"IT_IS": "they are" if slots["IT"] == "them" else short}

    def _standing(self, said: Stop, room: RoomName) -> str:
        """Where in its ``room`` a thing stands, with a space before it."""
        speaker, names = self.speaker, self.names
        found = []
        if said.corner == "any":
            found.append(speaker.say("in_any_corner"))
        elif said.corner:
            depth, side = said.corner.split()
            found.append(
                speaker.say("in_corner" if depth == "far" else "in_near_corner", SIDE=side)
            )
        if said.wall in HAND:
            found.append(speaker.say("at_side_wall", SIDE=said.wall))
        elif said.wall:
            found.append(speaker.say(f"at_{said.wall}_wall"))
        if said.end:
            found.append(speaker.say("at_end", HALL=names.room(room, short=True)))
        if said.middle:
            found.append(speaker.say("in_middle"))
        if said.beside is not None:
            near, slots = said.beside, names.slots(said.beside.thing)
            if near.side and speaker.chance(0.4):
                side = "right" if near.side == "left" else "left"
                found.append(speaker.say("beside_hand", SIDE=side, **slots))
            else:
                found.append(f"{speaker.say('beside')} {slots['THING']}")
        if said.across is not None:
            found.append(speaker.say("thing_across", **names.slots(said.across)))
        if said.doorway is not None:
            found.append(speaker.say("by_doorway", ROOM=names.room(said.doorway)))
        return "".join(f" {words}" for words in found)


# ---------------------------------------------------------------- names


class Names:
    """Names of things and rooms; within one description each keeps the nouns it was given."""

    def __init__(self, speaker: Speaker) -> None:
        self.speaker = speaker
        self.kept: dict[object, str] = {}

    def keep(self, key: object, draw: Callable[[], str]) -> str:
        """What was drawn for ``key`` before, in most cases; else a new draw."""
        if key not in self.kept or self.speaker.chance(0.12):
            self.kept[key] = draw()
        return self.kept[key]

    def kind(self, thing: Thing) -> str:
        """A noun for the kind of a thing."""
        rule = f"kind {thing.kind}"
        if rule not in self.kept:
            self.kept[rule] = self.speaker.say(rule) if rule in RULES else thing.kind
        return self.kept[rule]

    def colour(self, thing: Thing) -> str:
        """The colour of a thing."""
        key = f"colour {thing.colour}"
        return self.keep(
            (key, thing), lambda: self.speaker.say(key) if key in RULES else thing.colour
        )

    def wall(self, room: RoomName) -> str:
        """The colour of a room."""
        key = f"wall {room.colour}"
        return self.keep(
            (key, room), lambda: self.speaker.say(key) if key in RULES else room.colour
        )

    def noun(self, room: RoomName) -> str:
        """A noun for a room."""
        key = "hallway" if room.hallway else "room"
        return self.keep(key, lambda: self.speaker.say(key))

    def thing(self, thing: Thing, article: str = "the") -> str:
        """A thing by colour and kind."""
        colour, kind = self.colour(thing), self.kind(thing)
        size = ""
        if self.speaker.chance(0.06) and len(kind.split()) == 1 and len(colour.split()) == 1:
            tall = thing.height > 1.6 and thing.kind != "column"
            size = self.speaker.say("tall") if tall else ""
            size = self.speaker.say("wide") if thing.kind in ("bed", "sofa") else size
        words = [article, size, colour, kind]
        if kind.endswith("shelves") and article == "a":
            words[0] = ""
        return " ".join(word for word in words if word)

    def it(self, thing: Thing) -> str:
        """The pronoun of a thing."""
        return "them" if self.kind(thing).endswith("shelves") else "it"

    def slots(self, thing: Thing) -> dict[str, str]:
        """The slots of patterns that a thing fills."""
        it = self.it(thing)
        return {
            "THING": self.thing(thing),
            "A_THING": self.thing(thing, "a"),
            "IS": "are" if it == "them" else "is",
            "IT": it,
        }

    def room(self, room: RoomName, *, short: bool = False) -> str:
        """A room by its colour; a hallway may be short of it."""
        if room.hallway and short and self.speaker.chance(0.7):
            return f"the {self.noun(room)}"
        if short:
            return f"the {self.wall(room)} {self.noun(room)}"
        return self.speaker.say("room_name", COLOUR=self.wall(room), NOUN=self.noun(room))

    def rooms(self, rooms: tuple[RoomName, ...]) -> str:
        """Several rooms in a row."""
        if len(rooms) == 1:
            return self.room(rooms[0])
        *most, last = (self.wall(room) for room in rooms)
        noun = self.noun(rooms[0])
        return f"the {', '.join(most)} and {last} {noun}s"


# ---------------------------------------------------------------- joints and surface


def _joined(speaker: Speaker, voice: str, clauses: list[Clause]) -> str:
    """Clauses joined into sentences, with what a voice puts before its requests."""
    rule = {"terse": "then_terse", "chatty": "then_chatty"}.get(voice, "then")
    text = ""
    asked = False
    before: Clause | None = None
    for clause in clauses:
        words = clause.text
        joint = ""
        if before is not None:
            for _ in range(20):
                joint = speaker.say(rule)
                wants_verb = joint.endswith(("you ", "to ", "just "))
                twice = " and " in joint and " and " in before.text
                loose = joint == " " or (joint == ", " and not before.verb and "," in before.text)
                trailing = voice != "terse" and joint == ", " and clause is clauses[-1]
                lost = "there" in joint and not before.exits
                if not ((wants_verb and not clause.verb) or twice or loose or trailing or lost):
                    break
            else:
                joint = ". "
        share = {"polite": 0.15, "chatty": 0.12}.get(voice, 0.02)
        share = {"polite": 0.95, "chatty": 0.5}.get(voice, 0.04) if not asked else share
        bare = clause.verb and not words.startswith(("don't", "do not"))
        if bare and not joint.endswith(("you ", "to ", "just ")) and speaker.chance(share):
            polite = "ask_polite" if voice == "polite" else "ask_chatty"
            words = (speaker.say(polite) if not asked or voice == "chatty" else "please ") + words
            asked = True
        text += joint + words
        before = clause
    return re.sub(r"\b(left|right) (?=(?:left|right) of\b)", r"\1, ", text)


def _surface(speaker: Speaker, voice: str, text: str) -> str:
    """Sentence case and full stops, or what hasty people make of them; now and then a typo."""
    text = with_articles(re.sub(r"\s+", " ", text).replace(" ,", ",").strip())
    text = re.sub(r",(?=[.,;:?!])|,$", "", text)
    if voice == "terse" and speaker.chance(0.35):
        text = re.sub(r"\b(?:the|a|an) (?!other|end|middle)", "", text)
    hasty = {"terse": 0.45, "chatty": 0.3, "polite": 0.08}.get(voice, 0.15)
    lower = speaker.chance(hasty)
    asks = re.match(r"(?:[^.]*?, |[^.]*?! )?(?:could|would|can|may) (?:you|I)\b[^.]*", text)
    if asks and speaker.chance(0.5):
        text = f"{asks.group()}?{text[asks.end() + 1 :]}"
    text = re.sub(r"(^|[.!?] )([a-z])", lambda m: m[1] + m[2].upper(), text)
    if not speaker.chance(0.65 if lower else 0.12):
        text += "" if text.endswith("?") else "!" if speaker.chance(0.02) else "."
    if speaker.chance(0.07):
        text = text.replace(",", "")
    if lower:
        text = text.lower()
    elif speaker.chance(0.03):
        text = text.upper()
    if speaker.chance(0.11):
        text = with_typo(speaker.random, text)
        text = with_typo(speaker.random, text) if speaker.chance(0.3) else text
    return text

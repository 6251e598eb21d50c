"""
What the language says is checked here against the plan by a witness of its own: points, rectangles
and angles, not the facts that the descriptions were drawn from.
"""

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from janusvln_ros.data.episodes import is_unseen_text
from janusvln_ros.geometry import yaw_of_rotation
from sim_bridge.homes.dataset import home_seed
from sim_bridge.homes.episodes import make_episodes, make_home
from sim_bridge.homes.language import route_facts, tell, told
from sim_bridge.homes.language.content import (
    Exit,
    Stop,
    counts_openings,
    is_true,
    routes_that_fit,
)
from sim_bridge.homes.language.grammar import RULES, known_words
from sim_bridge.homes.language.lexicon import (
    COLOURS,
    HELD_OUT_WORDS,
    KINDS,
    WALL_COLOURS,
    WORDS,
)
from sim_bridge.homes.language.phrases import PHRASES
from sim_bridge.homes.routes import distance_to_rect

HANDS = {"left": 90, "right": -90, "ahead": 0}


@pytest.fixture(scope="module")
def routes(homes):
    """(home, episode, facts) of homes of both generators, of the second routes with memory."""
    drawn = [(home, episode) for home, episodes in homes for episode, _ in episodes]
    for i in range(3):
        home = make_home(f"house2_{i:05d}", home_seed(12, "house2", i), generator=2)
        for episode, _ in make_episodes(home, 6, 3, unseen=False, memory_only=True):
            drawn.append((home, episode))
    return [(home, e, route_facts(home.plan, home.things, e)) for home, e in drawn]


@pytest.fixture(scope="module")
def descriptions(routes):
    """(home, episode, description) for 400 draws, at all levels of detail."""
    rng = np.random.default_rng(3)
    return [
        (home, episode, told(rng, facts, level=k % 4))
        for k, (home, episode, facts) in enumerate((routes * 5)[:400])
    ]


# ---------------------------------------------------------------- a witness


def angle(forward, direction):
    """Degrees from one (x, z) vector to another, positive to the left."""
    cross = forward[1] * direction[0] - forward[0] * direction[1]
    return np.degrees(np.arctan2(cross, np.dot(forward, direction)))


def way(home, episode):
    """Corners of the reference path to the first aim, and the doors it goes through in order."""
    path = np.array(episode.reference_path)[:, [0, 2]]
    if "visit" in episode.info:
        path = path[: episode.reference_path.index(tuple(episode.info["visit"])) + 1]
    doors = []
    for p in path:
        for door in home.plan.doors:
            off = np.abs(p - np.array(door.centre))
            if min(off) < 1e-3 and max(off) < door.width / 2 and door not in doors:
                doors.append(door)
    return path, doors


def rooms_on(home, path, doors):
    rooms = [home.plan.room_at(path[0])]
    for door in doors:
        rooms.append(door.other(rooms[-1]))
    return rooms


def is_on(side, turn, home, room, entry, door, start, yaw):
    """Whether ``door`` may be said to be on ``side``, or reached by ``turn``."""
    here, out = home.plan.rooms[room], door.into(home.plan.rooms[door.other(room)])
    if entry is None:
        forward = np.array([-np.sin(yaw), -np.cos(yaw)])
        seen = angle(forward, np.array(door.centre) - start)
        names = {
            "left": 40 < seen < 130,
            "right": -130 < seen < -40,
            "straight": abs(seen) < 22,
            "around": abs(seen) > 150,
        }
        sides = {"ahead": "straight", "behind": "around"}
        return all(names[sides.get(x, x)] for x in (side, turn) if x)
    into = entry.into(here)
    offset = np.array(door.centre) - np.array(entry.centre)
    if here.hallway:
        along = offset * (1 - np.abs(into))
        if turn == "straight":
            return np.linalg.norm(along) < 0.5
        travel = along / max(np.linalg.norm(along), 1e-9)
        return (not turn or np.isclose(angle(into, travel), HANDS[turn])) and (
            not side or np.isclose(angle(travel, out), HANDS[side])
        )
    wall = angle(into, out)
    if side == "behind" or turn == "around":
        return abs(wall) > 170
    said = side or {"straight": "ahead"}.get(turn, turn)
    return not said or np.isclose(wall, HANDS[said])


def count_before(home, room, entry, door):
    """How many openings come before ``door`` on its wall, for someone walking in by ``entry``."""
    here = home.plan.rooms[room]
    into = entry.into(here)
    offset = np.array(door.centre) - np.array(entry.centre)
    ahead = offset * (1 - np.abs(into)) if here.hallway else into
    travel = ahead / np.linalg.norm(ahead)
    out = door.into(home.plan.rooms[door.other(room)])
    alike = [
        d
        for d in home.plan.doors_of[room]
        if d not in (entry, door) and np.allclose(d.into(home.plan.rooms[d.other(room)]), out)
    ]
    far = [float((np.array(d.centre) - np.array(entry.centre)) @ travel) for d in alike]
    return sum(0 < f < offset @ travel for f in far), sum(f > 0 for f in far)


def exit_holds(said, home, room, entry, door, start, yaw):
    """Whether what is said of an opening is so for ``door``."""
    behind = home.plan.rooms[door.other(room)]
    near = [distance_to_rect(np.array([door.centre]), n.thing.rect)[0] for n in said.beside]
    checks = [
        is_on(said.side, said.turn, home, room, entry, door, start, yaw),
        said.room is None
        or (said.room.colour, said.room.hallway) == (behind.colour, behind.hallway),
        not said.hallway or behind.hallway,
        said.inside is None or said.inside.room == behind.index,
        all(n.thing.room == room for n in said.beside) and all(d < 1.4 for d in near),
        not said.only or len(home.plan.doors_of[room]) == (1 if entry is None else 2),
        (behind.colour, behind.hallway) not in [(r.colour, r.hallway) for r in said.avoid],
    ]
    if checks[0] and (said.ordinal is not None or said.last):
        before, others = count_before(home, room, entry, door)
        checks.append(said.ordinal is None or before == said.ordinal)
        checks.append(not said.last or before == others > 0)
    return all(checks)


def stop_holds(said, home, thing, entry, start, yaw):
    """Whether what is said of the thing to stop at is so for ``thing``."""
    here = home.plan.rooms[thing.room]
    rect, room = np.array(thing.rect), np.array(here.rect)
    gaps = np.abs(rect - room)
    checks = [
        thing.kind == said.thing.kind,
        not said.colour or thing.colour == said.thing.colour,
        not said.corner or np.sum(gaps < 0.4) >= 2,
        not said.wall or np.sum(gaps < 0.4) >= 1,
        not said.middle or gaps.min() > 0.6,
        not said.end or gaps[np.argmax(room[2:] - room[:2]) :: 2].min() < 1.1,
    ]
    if entry is None or not here.hallway:
        centre = start if entry is None else np.array(entry.centre)
        into = np.array([-np.sin(yaw), -np.cos(yaw)]) if entry is None else entry.into(here)
        seen = angle(into, thing.centre - centre)
        for word in filter(None, (said.side, said.turn)):
            checks.append(
                {
                    "left": 20 < seen < 140,
                    "right": -140 < seen < -20,
                    "ahead": abs(seen) < 25,
                    "straight": abs(seen) < 25,
                    "around": abs(seen) > 140,
                    "behind": abs(seen) > 140,
                }[word]
            )
    for other in (said.beside and said.beside.thing, said.across):
        if other is not None:
            assert other.room == thing.room or other.room == said.thing.room
    if said.beside is not None:
        gap = distance_to_rect(np.array([thing.centre]), said.beside.thing.rect)[0]
        checks.append(gap < 1.0 + np.hypot(*(rect[2:] - rect[:2])) / 2)
    return all(checks)


def named(home, name):
    return next(t for t in home.things if t.name == name)


def test_every_opening_is_as_it_is_said(descriptions):
    checked = 0
    for home, episode, one in descriptions:
        path, doors = way(home, episode)
        rooms, yaw = rooms_on(home, path, doors), yaw_of_rotation(episode.start_rotation)
        assert len(one.content.legs) == len(doors)
        for (_, said), entry, door, room in zip(
            one.content.legs, [None, *doors], doors, rooms, strict=False
        ):
            assert exit_holds(said, home, room, entry, door, path[0], yaw), (one.text, said)
            checked += said != Exit()
    assert checked > 300


def test_no_other_opening_is_as_it_is_said(descriptions):
    for home, episode, one in descriptions:
        path, doors = way(home, episode)
        rooms, yaw = rooms_on(home, path, doors), yaw_of_rotation(episode.start_rotation)
        for (_, said), entry, door, room in zip(
            one.content.legs, [None, *doors], doors, rooms, strict=False
        ):
            for other in set(home.plan.doors_of[room]) - {door, entry}:
                assert not exit_holds(said, home, room, entry, other, path[0], yaw), one.text


def test_the_goal_and_nothing_else_in_its_room_is_as_it_is_said(descriptions):
    for home, episode, one in descriptions:
        path, doors = way(home, episode)
        said, yaw = one.content.stop, yaw_of_rotation(episode.start_rotation)
        goal = named(home, episode.info["goal_landmark"])
        assert said.thing == goal
        entry = doors[-1] if doors else None
        assert stop_holds(said, home, goal, entry, path[0], yaw), (one.text, said)
        if said.like_first_room:
            assert goal.colour == episode.info["rooms"][0] and not said.colour
            kin = [t for t in home.things if t.room == goal.room and t.colour == goal.colour]
            assert kin == [goal]
            continue
        for other in home.things:
            if other.room == goal.room and other != goal:
                assert not stop_holds(said, home, other, entry, path[0], yaw), one.text


def test_what_is_visited_first_is_as_it_is_said(descriptions):
    seen = 0
    for home, episode, one in descriptions:
        if "visit" in episode.info:
            path, doors = way(home, episode)
            said, yaw = one.content.visit, yaw_of_rotation(episode.start_rotation)
            thing = named(home, episode.info["landmarks"][0])
            assert said.thing == thing and thing.name != episode.info["goal_landmark"]
            assert stop_holds(said, home, thing, doors[-1], path[0], yaw), one.text
            hall = home.plan.rooms[thing.room]
            nouns = WORDS["hallway"] if hall.hallway else ()
            assert not said.end or any(noun in one.careful for noun in (*nouns, "end", "back"))
            seen += 1
    assert seen > 10


def test_things_and_rooms_that_are_passed_are_passed_on_the_side_that_is_said(descriptions):
    checked = 0
    for home, episode, one in descriptions:
        path = np.array(episode.reference_path)[:, [0, 2]]
        there = len(way(home, episode)[0]) if "visit" in episode.info else len(path)
        out = [p for before, _ in one.content.legs for p in before]
        back = list(one.content.passed)
        for said in out + back:
            part = (
                path[:there] if said in out else path if there == len(path) else path[there - 1 :]
            )
            dense = np.concatenate([np.linspace(a, b, 30) for a, b in pairwise(part)])
            for thing in said.things:
                distance = distance_to_rect(dense, thing.rect)
                at = int(np.argmin(distance))
                assert distance[at] < 1.6, one.text
                if said.side and 3 < at < len(dense) - 4:
                    seen = angle(dense[at + 3] - dense[at - 3], thing.centre - dense[at])
                    assert (seen > 0) == (said.side == "left"), one.text
                    checked += 1
            on_route = set(episode.info["rooms"])
            neighbours = {r.colour for r in home.plan.rooms}
            assert all(r.colour in neighbours and not r.hallway for r in said.rooms), on_route
    assert checked > 20


def test_what_is_said_stands_in_the_text(descriptions):
    def stands(options, text):
        return any(re.search(rf"\b{re.escape(word)}\b", text) for word in options)

    for _, _, one in descriptions:
        text, content = one.careful.lower(), one.content
        for passes, said in content.legs:
            if said.room is not None:
                assert stands(WALL_COLOURS[said.room.colour], text), (one.text, said)
            if said.ordinal is not None:
                rule = ("first", "second", "third", "fourth")[said.ordinal]
                assert stands(WORDS[rule], text), (one.text, said)
            things = [said.inside, *(n.thing for n in said.beside)]
            for thing in [t for t in things if t is not None]:
                assert stands(COLOURS[thing.colour], text), (one.text, said)
                assert stands(KINDS[thing.kind], text), (one.text, said)
            for hand in {said.side, said.turn} & {"left", "right"}:
                assert hand in text, (one.text, said)
            for thing in [t for one_pass in passes for t in one_pass.things]:
                assert stands(KINDS[thing.kind], text), (one.text, passes)
        stop = content.stop
        assert stands(KINDS[stop.thing.kind], text), one.text
        assert not stop.colour or stands(COLOURS[stop.thing.colour], text), one.text
        for hand in {stop.side, stop.turn} & {"left", "right"}:
            assert hand in text, (one.text, stop)


def test_the_checker_finds_what_is_not_enough_and_what_is_not_true(routes):
    rng = np.random.default_rng(0)
    vague = untrue = 0
    for _, _, facts in routes:
        content = told(rng, facts).content
        assert routes_that_fit(facts, content) == 1 and is_true(facts, content)
        for i, leg in enumerate(facts.legs):
            nothing = [*content.legs]
            nothing[i] = ((), Exit())
            found = routes_that_fit(facts, replace(content, legs=tuple(nothing)))
            assert found == len(leg.openings)
            vague += found > 1
            for other in leg.openings:
                if other.room != leg.opening.room:
                    wrong = [*content.legs]
                    wrong[i] = ((), Exit(room=other.room))
                    assert not is_true(facts, replace(content, legs=tuple(wrong)))
                    untrue += 1
        kinds = [p.thing.kind for p in facts.arrival.places]
        alike = kinds.count(content.stop.thing.kind)
        plain = Stop(content.stop.thing, colour=False)
        assert routes_that_fit(facts, replace(content, stop=plain)) == alike
    assert vague > 20 and untrue > 20


# ---------------------------------------------------------------- words


def words_of(text):
    return set(re.findall(r"[\w'-]+", text.lower()))


def test_texts_for_training_use_nothing_that_is_held_out(routes):
    rng = np.random.default_rng(1)
    held = {(r, o.text) for r, options in RULES.items() for o in options if o.held_out}
    for _, _, facts in routes * 4:
        one = told(rng, facts)
        assert not words_of(one.careful) & HELD_OUT_WORDS and not held & set(one.used)
    assert not any(is_unseen_text(tell(rng, facts)) for _, _, facts in routes)


def test_texts_with_held_out_words_use_at_least_one(routes):
    rng = np.random.default_rng(1)
    held = {(r, o.text) for r, options in RULES.items() for o in options if o.held_out}
    words = 0
    for _, _, facts in routes:
        one = told(rng, facts, held_out=True)
        assert one.held_out == bool(held & set(one.used))
        words += bool(words_of(tell(rng, facts, held_out=True)) & HELD_OUT_WORDS)
    assert words > 0.6 * len(routes)


def test_a_tenth_of_words_and_patterns_is_held_out_and_every_kind_keeps_its_first_name():
    patterns = [o for rule in PHRASES for o in {o.text: o for o in RULES[rule]}.values()]
    words = [o for rule in set(RULES) - set(PHRASES) for o in RULES[rule]]
    assert 0.05 < np.mean([o.held_out for o in patterns]) < 0.15
    assert 0.1 < np.mean([o.held_out for o in words]) < 0.25
    assert not any(options[0].held_out for options in RULES.values())


def test_the_same_seed_says_the_same_and_another_one_says_something_else(routes):
    facts = routes[0][2]
    first = [tell(np.random.default_rng(s), facts) for s in range(40)]
    assert first == [tell(np.random.default_rng(s), facts) for s in range(40)]
    assert len(set(first)) > 35


def test_every_voice_and_level_speaks_and_more_detail_takes_more_words(routes):
    rng = np.random.default_rng(2)
    lengths = [
        np.mean(
            [len(told(rng, facts, level=k, voice="plain").text.split()) for *_, facts in routes]
        )
        for k in range(4)
    ]
    assert lengths == sorted(lengths) and lengths[3] > 1.5 * lengths[0]
    polite = [told(rng, facts, voice="polite").careful.lower() for *_, facts in routes]
    asked = [re.search("please|could|would|can you|may i|thank|kind|like you", t) for t in polite]
    assert np.mean([bool(a) for a in asked]) > 0.8


def test_texts_are_whole(descriptions):
    for _, _, one in descriptions:
        assert not re.search(r"[{}\[\]|]|None|  | ,|\.\.|\(\)", one.text), one.text
        assert not re.search(r"\b(\w+) \1\b", one.careful.replace("that that", "")), one.careful


def test_left_and_right_are_words_for_directions_alone():
    for options in RULES.values():
        for option in options:
            assert not words_of(option.text) & {"left", "right"}, option.text


def test_a_mirrored_description_is_the_mirror_of_its_words(routes):
    exchange = {"left": "right", "right": "left", "Left": "Right", "Right": "Left"}
    for k, (_, _, facts) in enumerate(routes):
        plain = told(np.random.default_rng(k), facts).careful
        mirrored = told(np.random.default_rng(k), facts, mirrored=True).careful
        want = re.sub(r"\b([lL]eft|[rR]ight)\b", lambda m: exchange[m.group()], plain)
        assert mirrored == want


# ---------------------------------------------------------------- episodes of generator 2


def test_episodes_of_generator_2_are_told_in_the_language_with_held_out_words_where_asked():
    drawn = {}
    for family, unseen, share in (("house", False, 0.0), ("unseen", True, 0.5)):
        found = []
        for i in range(2):
            home = make_home(f"{family}_{i:05d}", home_seed(5, family, i), generator=2)
            found += make_episodes(home, 10, 2, unseen=unseen, held_out=share)
        drawn[family] = [e for e, _ in found]
    for e in drawn["house"]:
        assert not e.info["held_out_words"] and not is_unseen_text(e.instruction)
    for e in drawn["unseen"]:
        assert e.info["held_out_words"] or is_unseen_text(e.instruction)
    held = [e.info["held_out_words"] for e in drawn["unseen"]]
    assert 0.25 < np.mean(held) < 0.75
    texts = [e.instruction for e in drawn["house"] + drawn["unseen"]]
    assert len(set(texts)) == len(texts)


def test_where_openings_are_to_be_counted_the_number_is_said(routes):
    rng = np.random.default_rng(4)
    counted = 0
    for _, _, facts in routes:
        if any(leg.opening.ordinal for leg in facts.legs):
            one = told(rng, replace(facts, kind="counting"))
            assert counts_openings(one.content)
            assert re.search(r"second|third|fourth|2nd|3rd|4th", one.careful)
            counted += 1
    assert counted


def test_routes_of_the_memory_split_need_memory_in_the_new_language_too():
    home = make_home("unseen_00001", home_seed(11, "unseen", 1), generator=2)
    for e, _ in make_episodes(home, 6, 3, unseen=True, memory_only=True, held_out=0.5):
        assert "memory" in e.info["tags"]
        assert e.info["landmarks"][-1] == e.info["goal_landmark"]


def test_the_page_says_how_much_the_language_knows():
    page = " ".join((Path(__file__).parents[3] / "docs/houses.md").read_text().split())
    patterns = sum(len({o.text for o in RULES[rule]}) for rule in PHRASES)
    said = f"{len(known_words())} words"
    assert f"It knows {said}" in page and f"{len(PHRASES)} rules with {patterns} patterns" in page
    assert len(known_words()) > 450 and patterns > 600

import colorsys
import math
import re

import numpy as np
import pytest

from janusvln_ros.actions import Action
from janusvln_ros.data.episodes import is_unseen_text
from sim_bridge import make_env
from sim_bridge.expert import ReferencePathFollower
from sim_bridge.homes.colours import OBJECT_RGB
from sim_bridge.homes.dataset import home_seed
from sim_bridge.homes.episodes import make_episodes, make_home
from sim_bridge.homes.routes import distance_to_rect


def every(homes):
    return [(home, episode, truth) for home, drawn in homes for episode, truth in drawn]


def thing_named(home, name):
    (thing,) = [t for t in home.things if t.name == name]
    return thing


def test_the_same_seed_gives_the_same_home_and_episodes(homes):
    home, drawn = homes[3]
    again = make_home(home.name, home.seed)
    assert again.glb == home.glb
    assert make_episodes(again, 8, 0, unseen=False) == drawn


def test_another_stream_gives_other_episodes_of_the_same_home(homes):
    home, drawn = homes[3]
    starts = {e.start_position for e, _ in drawn}
    assert not starts & {e.start_position for e, _ in make_episodes(home, 8, 1, unseen=False)}


def test_homes_offer_the_episodes_asked_for_with_no_instruction_twice(homes):
    for _, drawn in homes:
        assert len(drawn) == 8
        assert len({e.instruction for e, _ in drawn}) == 8


def test_an_instruction_is_either_for_training_or_for_unseen_homes(homes):
    assert not any(is_unseen_text(e.instruction) for _, e, _ in every(homes))
    home = make_home("unseen_00000", home_seed(11, "unseen", 0))
    assert all(is_unseen_text(e.instruction) for e, _ in make_episodes(home, 6, 2, unseen=True))


def test_the_goal_lies_within_a_metre_of_the_landmark_named_last(homes):
    for home, episode, _ in every(homes):
        goal = np.array([[episode.goal_position[0], episode.goal_position[2]]])
        assert (
            distance_to_rect(goal, thing_named(home, episode.info["goal_landmark"]).rect)[0] < 1.0
        )


def test_the_reference_path_goes_from_start_to_goal_through_every_opening(homes):
    for home, episode, _ in every(homes):
        path = np.array(episode.reference_path)[:, [0, 2]]
        assert (
            episode.reference_path[0] == episode.start_position
            and episode.reference_path[-1] == episode.goal_position
        )
        openings = [
            d
            for d in home.plan.doors
            if any(
                np.linalg.norm(p - d.centre) < d.width / 2 and min(abs(p - d.centre)) < 1e-3
                for p in path
            )
        ]
        assert len(openings) >= min(1, episode.info["rooms_crossed"])
        assert len({home.plan.room_at(p + 1e-3) for p in path}) >= len(set(episode.info["rooms"]))


@pytest.fixture(scope="module")
def env(scenes):
    env = make_env("houses", data_dir=scenes, width=112, height=84)
    yield env
    env.close()


def test_the_stored_actions_lead_to_the_goal_without_touching_anything(homes, env):
    for _, drawn in homes[:6]:
        for episode, truth in drawn[:4]:
            env.reset(episode)
            assert all(env.is_navigable(p) for p in episode.reference_path)
            seen = [env.step(Action(a)) for a in truth.actions]
            assert env.episode_over and not any(o.collided for o in seen)
            assert np.allclose(seen[-1].position, truth.locations[-1], atol=0.02)
            assert np.linalg.norm(seen[-1].position - episode.goal_position) <= 0.27
            assert truth.forward_steps == truth.actions.count(1) == len(truth.locations) - 1


def test_the_simulator_agrees_with_the_geodesic_distance_of_the_file(homes, env):
    for _, drawn in homes[:6]:
        for episode, _ in drawn[:2]:
            env.reset(episode)
            measured = env.geodesic_distance(episode.start_position, episode.goal_position)
            assert measured == pytest.approx(episode.geodesic_distance, rel=0.04, abs=0.03)


def test_the_simulators_expert_arrives_on_a_near_shortest_way(homes, env):
    for _, drawn in homes[:8]:
        episode = next(e for e, _ in drawn if "detour" not in e.info["tags"])
        last = env.reset(episode)
        follower, walked = ReferencePathFollower(env), 0.0
        while not env.episode_over:
            before = last.position
            last = env.step(follower.action())
            walked += float(np.linalg.norm(last.position - before))
        assert env.geodesic_distance(last.position, episode.goal_position) <= 0.25 + 1e-6
        assert walked < episode.geodesic_distance / 0.95 + 0.1


def matching(rgb, colour):
    """
    Pixels of a picture whose hue, or whose lightness if the colour has no hue, is that of a named
    colour.
    """
    want = np.array(OBJECT_RGB[colour], float)
    image = rgb.reshape(-1, 3).astype(float)
    if colour in ("black", "white"):
        limit = image.max(axis=1) < 60 if colour == "black" else image.min(axis=1) > 185
        return int((limit & (np.ptp(image, axis=1) < 12)).sum())
    unit = want / np.linalg.norm(want)
    length = np.linalg.norm(image, axis=1)
    cosine = image @ unit / np.maximum(length, 1.0)
    return int(((cosine > 0.985) & (length > 0.4 * np.linalg.norm(want))).sum())


def test_the_last_landmark_fills_part_of_the_picture_when_the_expert_stops(homes, env):
    for home, drawn in homes:
        for episode, truth in drawn[:3]:
            env.reset(episode)
            for action in truth.actions:
                last = env.step(Action(action))
            colour = thing_named(home, episode.info["goal_landmark"]).colour
            assert matching(last.rgb, colour) > 0.015 * 112 * 84, (
                episode.instruction,
                episode.info,
            )


def heading_of(rotation):
    yaw = 2 * math.atan2(rotation[1], rotation[3])
    return np.array([-math.sin(yaw), -math.cos(yaw)])


def side_of(forward, direction):
    """
    Degrees from one (x, z) vector to another, positive to the left: seen from above with z down
    the page, left is counter-clockwise.
    """
    return math.degrees(
        math.atan2(forward[1] * direction[0] - forward[0] * direction[1], forward @ direction)
    )


FIRST = {"left": (30, 140), "right": (-140, -30), "around": (140, 180), "straight": (0, 30)}


def first_turn(text):
    clause = re.split(r"[.,]", text.lower())[0]
    if "around" in clause or "behind" in clause:
        return "around"
    if re.match(r"(go|walk) (straight|forward)|go through the door in front", clause):
        return "straight"
    found = re.search(r"turn (?:to your )?(left|right)|door on your (left|right)", clause)
    return found and (found.group(1) or found.group(2))


def test_the_first_turn_is_the_one_that_is_said(homes):
    checked = 0
    for _, episode, _ in every(homes):
        said = first_turn(episode.instruction)
        if said is None or episode.instruction.lower().startswith(
            ("pass", "walk past", "go past")
        ):
            continue
        forward = heading_of(episode.start_rotation)
        path = np.array(episode.reference_path)[:, [0, 2]]
        angle = side_of(forward, path[1] - path[0])
        low, high = FIRST[said]
        size = abs(angle) if said in ("around", "straight") else angle
        # The first corner of the path may lie up to 30 degrees beside the opening that is named.
        assert low - 30 <= size <= high + 30, (episode.instruction, angle)
        checked += 1
    assert checked > 60


def test_doors_on_the_left_and_right_are_there(homes):
    checked = 0
    for home, episode, _ in every(homes):
        if (
            "hallway" in episode.instruction
            or "visit" in episode.info
            or episode.info["rooms_crossed"] < 2
        ):
            continue
        path = np.array(episode.reference_path)[:, [0, 2]]
        doors = [
            d
            for p in path
            for d in home.plan.doors
            if np.linalg.norm(p - d.centre) < d.width / 2 + 1e-6
            and min(abs(p - np.array(d.centre))) < 1e-3
        ]
        said = re.findall(
            r"door (?:on (?:your|the) (left|right)|(ahead)|)|(straight across|straight on)",
            episode.instruction.split("door", 1)[1],
        )
        rooms = [home.plan.room_at(path[0])]
        for door in doors:
            rooms.append(door.other(rooms[-1]))
        for i, (side, *_) in enumerate(said[: len(doors) - 1]):
            if side:
                before, after = (
                    doors[i].into(home.plan.rooms[rooms[i + 1]]),
                    doors[i + 1].into(home.plan.rooms[rooms[i + 2]]),
                )
                assert side_of(before, after) == pytest.approx(90 if side == "left" else -90), (
                    episode.instruction
                )
                checked += 1
    assert checked >= 5


def test_the_side_of_the_last_thing_is_true_for_someone_coming_in(homes):
    checked = 0
    for home, episode, _ in every(homes):
        if episode.info["rooms_crossed"] != 1:
            continue
        rest = re.sub(
            r"^.*?door( on your (left|right)| behind you| in front of you)?( into the \w+ \w+)?",
            "",
            episode.instruction,
        )
        said = re.search(r"(?:on (?:your|the)|turn(?: to your)?) (left|right)", rest)
        if said and not re.search("past|[Pp]ass", rest):
            path = np.array(episode.reference_path)[:, [0, 2]]
            (door,) = [
                d
                for p in path
                for d in home.plan.doors
                if np.linalg.norm(p - d.centre) < d.width / 2
                and min(abs(p - np.array(d.centre))) < 1e-3
            ]
            thing = thing_named(home, episode.info["goal_landmark"])
            middle = np.array([thing.rect[0] + thing.rect[2], thing.rect[1] + thing.rect[3]]) / 2
            angle = side_of(door.into(home.plan.rooms[thing.room]), middle - np.array(door.centre))
            assert (angle > 20) if said.group(1) == "left" else (angle < -20), episode.instruction
            checked += 1
    assert checked >= 5


def test_every_room_that_is_named_is_on_the_route(homes):
    for _, episode, _ in every(homes):
        named = re.findall(r"into the (\w+) (?:room|hallway)", episode.instruction)
        assert set(named) <= set(episode.info["rooms"])


def test_routes_of_the_tag_colour_end_at_the_only_thing_there_with_the_colour_of_the_first_room():
    seen = 0
    for home, drawn in memory_homes():
        for episode, _ in drawn:
            if "colour" in episode.info["tags"]:
                goal = thing_named(home, episode.info["goal_landmark"])
                assert goal.colour == episode.info["rooms"][0]
                assert [
                    t for t in home.things if t.room == goal.room and t.colour == goal.colour
                ] == [goal]
                assert (
                    goal.colour
                    not in re.sub(r"into the \w+ room", "", episode.instruction).split()
                )
                seen += 1
    assert seen


def memory_homes():
    for i in range(4):
        home = make_home(f"unseen_{i:05d}", home_seed(11, "unseen", i))
        yield home, make_episodes(home, 4, 3, unseen=True, memory_only=True)


def test_routes_of_the_memory_split_all_need_memory_and_ways_back_end_in_the_first_room():
    for home, drawn in memory_homes():
        for episode, _ in drawn:
            assert "memory" in episode.info["tags"]
            if "return" in episode.info["tags"]:
                start, goal = (
                    home.plan.room_at(np.array(p)[[0, 2]])
                    for p in (episode.start_position, episode.goal_position)
                )
                assert start == goal and episode.info["rooms"][0] == episode.info["rooms"][-1]
                assert tuple(episode.info["visit"]) in episode.reference_path
            if "counting" in episode.info["tags"]:
                assert re.search(r"first|second|third|fourth", episode.instruction)


def test_ways_back_are_no_part_of_the_plain_unseen_split():
    for i in range(4):
        home = make_home(f"unseen_{i:05d}", home_seed(11, "unseen", i))
        assert not any(
            "detour" in e.info["tags"] for e, _ in make_episodes(home, 8, 2, unseen=True)
        )


def test_named_colours_are_told_apart_by_hue_or_lightness():
    names = list(OBJECT_RGB)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            first, second = (
                np.array(colorsys.rgb_to_hls(*(c / 255 for c in OBJECT_RGB[n]))) for n in (a, b)
            )
            hue = abs(first[0] - second[0])
            assert min(hue, 1 - hue) > 0.03 or abs(first[1] - second[1]) > 0.15, (a, b)

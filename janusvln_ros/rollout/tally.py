"""
What went wrong in an evaluation: every drive that did not stop at its goal, by how it failed.

How is a function of the drive's record, of its way, and of the route and the plan of the home;
where there is no plan (scanned homes) only what the record tells is told apart.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from janusvln_ros.actions import Action
from janusvln_ros.data.episodes import Episode
from janusvln_ros.documents import read_json_lines, read_object
from janusvln_ros.errors import InputError, require
from janusvln_ros.evaluation.intervals import rate
from janusvln_ros.evaluation.summary import Line
from janusvln_ros.rollout.run import read_split
from janusvln_ros.rollout.settings import Settings, load_settings
from janusvln_ros.rollout.shards import finished, key_of
from sim_bridge.homes.dataset import home_drawn_as
from sim_bridge.homes.episodes import make_home
from sim_bridge.homes.furnish import Thing
from sim_bridge.homes.plan import Door, Plan
from sim_bridge.homes.routes import distance_to_rect, length

OUTCOMES = {
    "arrived": "stopped within 1 m of the goal",
    "near the goal": "stopped at the right thing, but not within 1 m of the goal",
    "wrong thing": "in the goal's room, at another thing",
    "early stop": "on the route, but before its last room, or there at no thing",
    "miscounted doors": "left the route through another door of the same wall",
    "wrong room": "left the route through a door of another wall",
    "late stop": "was within 1 m of the goal, and went on",
    "elsewhere": "stopped away from the goal, where no plan tells more",
    "lost": "did not stop, or drove three times the route's length",
    "blocked": "a third of its forward steps met something",
    "not understood": "answered with text that is no action",
    "error": "could not be driven",
}
"""How a drive can end, and what that means."""

LENGTHS = (24, 39, 56)
"""Steps of the reference drive at which the table parts; the window forgets from 57 on."""

AT_THING_M = 1.2
"""Who stops this near to a thing has stopped at it."""

FEW_COLLISIONS = 8
"""Fewer than this block nobody."""


@dataclass(frozen=True)
class Scene:
    """The plan of a generated home, with its things."""

    plan: Plan
    things: Sequence[Thing]


def outcome(line: Line, path_P3: np.ndarray, episode: Episode, scene: Scene | None) -> str:
    """
    How a drive ended, one of ``OUTCOMES``.

    Args:
        line: its line of ``results.jsonl``.
        path_P3: where it went, metres, y up; standing still left out.
        episode: its route.
        scene: of the home; None where it is not known.
    """
    status, reference = line["status"], np.array(episode.reference_path)[:, ::2]
    if status in ("error", "not_understood"):
        return status.replace("_", " ")
    if line["success_1m"]:
        return "arrived"
    forward = line["actions"].count(int(Action.MOVE_FORWARD))
    if status == "blocked" or line["collisions"] >= max(FEW_COLLISIONS, forward / 3):
        return "blocked"
    if status != "stopped" or line["path_length"] > 3 * max(length(reference), 1.0):
        return "lost"
    if line["oracle_ne"] is not None and line["oracle_ne"] < 1.0:
        return "late stop"
    if scene is None:
        short = line["path_length"] < 0.8 * length(reference)
        return "early stop" if short else "elsewhere"
    return _where_it_stopped(path_P3[:, ::2], reference, episode, scene)


def _where_it_stopped(
    path_P2: np.ndarray, reference_P2: np.ndarray, episode: Episode, scene: Scene
) -> str:
    """`outcome` of a drive that stopped by itself and was never at its goal."""
    plan = scene.plan
    driven, route = rooms_along(plan, path_P2), rooms_along(plan, reference_P2)
    if len(driven) < len(route) and driven == route[: len(driven)]:
        return "early stop"
    if driven[-1:] == route[-1:]:
        if len(route) == 1 and length(path_P2) < 0.5 * length(reference_P2):
            return "early stop"
        return _at_which_thing(path_P2[-1], reference_P2[-1], episode, scene)
    same = next((i for i, (a, b) in enumerate(zip(driven, route)) if a != b), len(route))
    if same == 0 or same == len(route):  # out of the house, or on from the last room
        return "wrong room"
    here = plan.doors_of[route[same - 1]]
    taken, right = (
        [door for door in here if door.other(route[same - 1]) == room]
        for room in (driven[same], route[same])
    )
    alike = any(_same_wall(a, b) for a in taken for b in right)
    return "miscounted doors" if alike else "wrong room"


def rooms_along(plan: Plan, path_P2: np.ndarray) -> list[int]:
    """The rooms that a way (x, z) leads through, each stay once; thresholds are in none."""
    pieces = [np.linspace(a, b, max(int(np.hypot(*(b - a)) / 0.05), 1), endpoint=False)
              for a, b in pairwise(path_P2)]  # fmt: skip
    points = np.concatenate([*pieces, path_P2[-1:]])
    rooms = (plan.room_at(point) for point in points)
    return [room for room, _ in groupby(room for room in rooms if room is not None)]


def _same_wall(a: Door, b: Door) -> bool:
    axis = 1 if a.along_x else 0
    return a.along_x == b.along_x and abs(a.centre[axis] - b.centre[axis]) < 0.05


def _at_which_thing(end: np.ndarray, goal: np.ndarray, episode: Episode, scene: Scene) -> str:
    """Whether a drive that ended in the goal's room ended at the goal's thing or at another."""
    room = scene.plan.room_at(goal)
    near = [(distance_to_rect(end[None], t.rect)[0], t) for t in scene.things if t.room == room]
    own = [t for _, t in near if t.name == episode.info.get("goal_landmark")]
    meant = min(own, key=lambda t: distance_to_rect(goal[None], t.rect)[0], default=None)
    distance, nearest = min(near, key=lambda pair: pair[0], default=(np.inf, None))
    if distance > AT_THING_M:
        return "early stop"
    return "near the goal" if nearest is meant else "wrong thing"


def tally(
    lines: Sequence[Line], outcomes: Sequence[str], groups: Callable[[Line], Sequence[str]]
) -> dict[str, Any]:
    """
    How often each outcome occurred, with 95 % intervals, in all and in the groups that ``groups``
    puts a line into; of those away from the goal, how many ended within the success distance.
    """
    names = [name for name in OUTCOMES if name in outcomes]
    members: dict[str, list[int]] = {}
    for i, line in enumerate(lines):
        for group in groups(line):
            members.setdefault(group, []).append(i)
    table = {}
    for name in names:
        chosen = [outcome == name for outcome in outcomes]
        table[name] = {
            "episodes": sum(chosen),
            **rate("share", chosen),
            "within_success_distance": sum(
                line["success"] > 0 for line, yes in zip(lines, chosen) if yes
            ),
            "groups": {
                group: {"episodes": sum(chosen[i] for i in inside)}
                | rate("share", [chosen[i] for i in inside])
                for group, inside in members.items()
            },
            "which": [
                f"{line['scene_id']}/{line['episode_id']}"
                for line, yes in zip(lines, chosen)
                if yes
            ],
        }
    sizes = {group: len(inside) for group, inside in members.items()}
    return {"episodes": len(lines), "groups": sizes, "outcomes": table}


def groups_of(line: Line) -> list[str]:
    """The columns of the table that a drive belongs to: its length, and its tags."""
    steps = line.get("reference_steps")
    lengths: list[str] = []
    if steps is not None:
        edges = [0, *LENGTHS]
        low = max(edge for edge in edges if edge < max(steps, 1))
        high = next((edge for edge in LENGTHS if edge > low), None)
        lengths = [f"{low + 1}-{high} steps" if high else f"{low + 1}+ steps"]
    return [*lengths, *line.get("tags", ())]


def tally_run(out: Path, data_dir: Path) -> dict[str, Any]:
    """
    The tally of an evaluation in ``out``, whose episodes lie in ``data_dir``.

    Raises:
        InputError: there is no finished evaluation, or the episodes are not those that it drove.
    """
    try:
        manifest = read_object(out / "manifest.json")
        lines = read_json_lines(out / "results.jsonl")
    except OSError as error:
        raise InputError(
            f"{out} holds no finished evaluation ({error.strerror}: {error.filename}): name the "
            "output folder of 'janusvln evaluate'"
        ) from error
    settings = _settings(manifest)
    found = read_split(settings, data_dir)
    require(
        found.digest == manifest["data"]["sha256"],
        f"{found.path} is another file than the one that {out} drove: name its data folder with "
        "--data",
    )
    episodes = {(e.scene, e.episode_id): e for e in found.episodes}
    paths = {key: line["path"] for key, line in finished(out).items()}
    scenes: dict[str, Scene | None] = {}
    outcomes = []
    for line in lines:
        episode = episodes[line["scene_id"], str(line["episode_id"])]
        if episode.scene not in scenes:
            scenes[episode.scene] = scene_of(data_dir, episode)
        path = paths[key_of(episode)] or [episode.start_position]
        outcomes.append(outcome(line, np.array(path), episode, scenes[episode.scene]))
    meaning = {name: OUTCOMES[name] for name in OUTCOMES if name in outcomes}
    result = tally(lines, outcomes, groups_of)
    return {"out": str(out), "split": settings.split, **result, "meaning": meaning}


def _settings(manifest: Mapping[str, Any]) -> Settings:
    """The settings of a run, as far as its episodes depend on them."""
    values = manifest["settings"]
    names = ("dataset", "split", "role", "languages")
    changes = [f"{name}={json.dumps(values[name])}" for name in names]
    return load_settings(values["dataset"], changes)


def scene_of(data_dir: Path, episode: Episode) -> Scene | None:
    """The home of an episode as it was drawn; None for one that was not generated."""
    if "house_seed" not in episode.info:
        return None
    rooms, generator = home_drawn_as(data_dir, episode.scene)
    home = make_home(episode.scene, int(episode.info["house_seed"]), rooms, generator)
    return Scene(home.plan, home.things)


def page(result: Mapping[str, Any]) -> str:
    """A tally as lines of text."""
    groups = sorted(result["groups"], key=lambda g: (not g[0].isdigit(), _first_number(g), g))
    head = f"{'':17}{'all':>5}  {'share, %':20}{'3 m':>4}  " + "".join(
        f"{group.removesuffix(' steps'):>10}" for group in groups
    )
    lines = [f"{result['episodes']} episodes of {result['split']} ({result['out']})", "", head]
    sizes = "".join(f"{result['groups'][group]:10}" for group in groups)
    lines.append(f"{'episodes':17}{result['episodes']:5}  {'':20}{'':4}  {sizes}")
    for name, row in result["outcomes"].items():
        low, high = row["share_ci95"]
        share = f"{100 * row['share']:5.1f} [{100 * low:.1f}, {100 * high:.1f}]"
        cells = "".join(f"{row['groups'][group]['episodes']:10}" for group in groups)
        lines.append(
            f"{name:17}{row['episodes']:5}  {share:20}{row['within_success_distance']:4}  {cells}"
        )
    lines += [
        "",
        "3 m: within the success distance all the same; columns: steps of the expert, tags",
    ]
    lines += [f"{name}: {meaning}" for name, meaning in result["meaning"].items()]
    return "\n".join(lines)


def _first_number(group: str) -> int:
    digits = group.partition("-")[0].partition("+")[0]
    return int(digits) if digits.isdigit() else 0

"""
Episodes in a home: a start, a goal beside a landmark, the shortest route between them, what to say
about it, and the expert's actions.

The instruction determines the route: openings are named by the side they are on and by the colour
of the room behind them, landmarks by colour and kind, and each name fits one opening or thing only
where it is needed. Everything follows from the plan; nothing is rendered.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from janusvln_ros.actions import FORWARD_STEP_M, TURN_STEP_DEG, Action
from janusvln_ros.data.episodes import Episode, GroundTruth, is_unseen_text
from janusvln_ros.geometry import rotation_of_yaw
from sim_bridge.homes.furnish import KIND, Thing, furnish
from sim_bridge.homes.instruction import Part, say
from sim_bridge.homes.language import Facts, route_facts, told
from sim_bridge.homes.language.content import counts_openings, things_named
from sim_bridge.homes.looks import shaded_glb
from sim_bridge.homes.mesh import home_glb
from sim_bridge.homes.plan import (
    Door,
    Plan,
    RedrawError,
    make_plan,
    redraw_unless,
    with_heights_and_leaves,
)
from sim_bridge.homes.routes import (
    RouteMap,
    bearing,
    blocked,
    distance_to_rect,
    grown_rects,
    heading,
    length,
    resample,
)
from sim_bridge.homes.sight import comes_into_view, crossings_of, door_sides, turn_name

FLOOR_Y_M = 0.001
"""
Height of the agent on the floor, metres: where habitat's navmesh lies over a slab 0.199 m thick.
"""

GOAL_RADIUS_M = 3.0
"""Radius of a goal in the files, metres: the success distance of the published evaluation."""

PATH_CLEARANCE_M = 0.2
STEP_CLEARANCE_M = 0.13
AGENT_RADIUS_M = 0.1
MAX_ACTIONS = 200
STOP_RADIUS_M = 0.25


@dataclass(frozen=True)
class Home:
    """
    A furnished home: its name (folder and file), the ``seed`` it was drawn from, ``plan`` and
    ``things``, the bytes of its ``.glb``, and the version of the ``generator``.

    Generator 2 draws other looks and other words than generator 1, whose bytes never change.
    """

    name: str
    seed: int
    plan: Plan
    things: tuple[Thing, ...]
    glb: bytes
    generator: int = 1

    @property
    def scene_id(self) -> str:
        """Scene id in episode files, relative to ``scene_datasets``."""
        return f"houses/{self.name}/{self.name}.glb"

    @cached_property
    def maps(self) -> tuple[RouteMap, RouteMap, np.ndarray]:
        """
        Free floor for reference paths and for the agent's radius, and what a step must not touch
        [R, 4].
        """
        plain, close = (
            RouteMap(self.plan, self.things, clearance)
            for clearance in (PATH_CLEARANCE_M, AGENT_RADIUS_M)
        )
        return plain, close, grown_rects(self.plan, self.things, STEP_CLEARANCE_M)


def make_home(name: str, seed: int, rooms: tuple[int, int] = (4, 12), generator: int = 1) -> Home:
    """
    Draw the home of ``seed`` with a number of rooms between both of ``rooms``; the same seed and
    generator give the same bytes.
    """
    rng = np.random.default_rng([seed, 1])
    plan = make_plan(rng, int(rng.integers(rooms[0], rooms[1] + 1)))
    plan, things, glb = furnished(rng, plan, generator)
    return Home(name, seed, plan, things, glb, generator)


def furnished(
    rng: np.random.Generator, plan: Plan, generator: int
) -> tuple[Plan, tuple[Thing, ...], bytes]:
    """A plan with what a generator adds to it, its things, and the bytes of its ``.glb``."""
    if generator == 1:
        things = furnish(rng, plan)
        return plan, things, home_glb(rng, plan, things)
    plan = with_heights_and_leaves(rng, plan)
    things = furnish(rng, plan, generator)
    return plan, things, shaded_glb(rng, plan, things)


@dataclass(frozen=True)
class _Draft:
    """A route that has been drawn and described: everything of an episode but its number."""

    path: np.ndarray
    yaw: float
    visit: np.ndarray | None
    parts: tuple[Part, ...]
    rooms: tuple[int, ...]
    goal: Thing
    landmarks: tuple[Thing, ...]
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Start:
    """Where a route begins: ``place`` (x, z) in metres, and the heading ``yaw`` in radians."""

    place: tuple[float, float]
    yaw: float


def make_episodes(
    home: Home,
    count: int,
    stream: int,
    *,
    unseen: bool,
    memory_only: bool = False,
    held_out: float = 0.0,
    start: Start | None = None,
) -> list[tuple[Episode, GroundTruth]]:
    """
    Draw ``count`` episodes in ``home``; ``stream`` tells the splits of one home apart.

    Args:
        unseen: use only instruction texts kept for unseen homes, or only the others.
        memory_only: only routes that cannot be followed without remembering earlier frames.
        held_out: in homes of generator 2, the share of instructions with words or patterns that
            are held out of training.
        start: where all of them begin; None: each somewhere else.

    Returns:
        Episodes (ids still to be numbered: "0") with the expert's actions and locations; fewer
        where the home offers no more.
    """
    rng = np.random.default_rng([home.seed, 2, stream])
    plain, close, grown = home.maps
    found: list[tuple[Episode, GroundTruth]] = []
    texts: set[str] = set()
    for _ in range(count * 60):
        if len(found) == count:
            break
        with suppress(RedrawError):
            draft = _draw(rng, home, plain, memory_only, train=not unseen, start=start)
            run = run_expert(draft.path, draft.yaw, grown, visit=draft.visit)
            redraw_unless(_ends_facing(draft, run))
            text = ""
            if home.generator == 1:
                said = (say(rng, draft.parts) for _ in range(40))
                fresh = (t for t in said if is_unseen_text(t) == unseen and t not in texts)
                text = next(fresh, "")
                redraw_unless(text)
            texts.add(text)
            # As habitat measures it: the shortest way for the agent's radius, which grazes corners
            # that the reference path keeps clear of.
            shortest = close.path(draft.path[0], draft.path[-1])
            if shortest is None:
                continue
            episode = _episode(home, draft, text, run, length(shortest))
            if home.generator > 1:
                odd = rng.random() < held_out
                episode = _told(rng, home, episode, texts, unseen=unseen, held_out=odd)
                texts.add(episode.instruction)
            found.append((episode, run))
    return found


def described_routes(
    seed: int, count: int, stream: int, rooms: tuple[int, int] = (4, 12)
) -> list[Facts]:
    """
    Draw routes in the home of ``seed`` (`make_home`, generator 1), which is planned and furnished
    but not built, and no expert drives: for those who only want to know what is said about ways.

    Returns:
        What is true of at most ``count`` routes; fewer where the home offers no more.
    """
    rng = np.random.default_rng([seed, 1])
    plan = make_plan(rng, int(rng.integers(rooms[0], rooms[1] + 1)))
    home = Home("", seed, plan, furnish(rng, plan), b"")
    free = RouteMap(plan, home.things, PATH_CLEARANCE_M)
    rng = np.random.default_rng([seed, 2, stream])
    found: list[Facts] = []
    for _ in range(4 * count):
        if len(found) == count:
            break
        with suppress(RedrawError):
            draft = _draw(rng, home, free, memory_only=False, train=True, start=None)
            route = _episode(home, draft, "", GroundTruth((), (), 0), length(draft.path))
            found.append(route_facts(plan, home.things, route))
    return found


def _told(
    rng: np.random.Generator,
    home: Home,
    episode: Episode,
    texts: set[str],
    *,
    unseen: bool,
    held_out: bool,
) -> Episode:
    """
    ``episode`` described in the language of generator 2, with a text that is not in ``texts``.

    Raises:
        RedrawError: none was found.
    """
    facts = route_facts(home.plan, home.things, episode)
    for _ in range(60):
        one = told(rng, facts, held_out=held_out)
        # Held-out words keep a text out of training by themselves.
        kept = one.held_out if held_out else is_unseen_text(one.text) == unseen
        counted = counts_openings(one.content)
        if kept and one.text not in texts and (counted or facts.kind != "counting"):
            break
    else:
        raise RedrawError
    tags = set(episode.info["tags"]) - {"counting"}
    info = dict(episode.info) | {
        "tags": sorted(tags | ({"counting", "memory"} if counted else set())),
        "landmarks": [thing.name for thing in things_named(one.content)],
        "voice": one.voice,
        "detail": one.content.level,
        "held_out_words": one.held_out,
    }
    return replace(episode, instruction=one.text, info=info)


def _ends_facing(draft: _Draft, run: GroundTruth) -> bool:
    """Whether the expert stops with the last landmark well inside the picture."""
    turns = run.actions.count(int(Action.TURN_LEFT)) - run.actions.count(int(Action.TURN_RIGHT))
    forward = heading(draft.yaw + turns * np.radians(TURN_STEP_DEG))
    return abs(bearing(forward, draft.goal.centre - run.locations[-1][::2])) <= 32


def _episode(home: Home, draft: _Draft, text: str, run: GroundTruth, geodesic: float) -> Episode:
    """The episode of a draft."""
    points = tuple(_point(p) for p in _with_openings(home.plan, draft.path))
    info = {
        "rooms": [home.plan.rooms[r].colour for r in draft.rooms],
        "rooms_crossed": len(draft.rooms) - 1,
        "tags": sorted(draft.tags),
        "landmarks": [t.name for t in draft.landmarks],
        "goal_landmark": draft.goal.name,
        "steps": len(run.actions),
        "path_length": length(draft.path),
        "house_seed": home.seed,
    }
    if draft.visit is not None:
        info["visit"] = list(_point(draft.visit))
    return Episode(
        "0",
        "0",
        home.scene_id,
        points[0],
        tuple(rotation_of_yaw(draft.yaw).tolist()),
        points[-1],
        GOAL_RADIUS_M,
        text,
        points,
        round(geodesic, 4),
        info=info,
    )


def _with_openings(plan: Plan, path: np.ndarray) -> np.ndarray:
    """The same polyline with a further point in every opening it goes through."""
    points = [path[0]]
    for a, b in pairwise(path):
        inside = []
        for door in plan.doors:
            axis = 1 if door.along_x else 0
            if (a[axis] - door.centre[axis]) * (b[axis] - door.centre[axis]) < 0:
                share = (door.centre[axis] - a[axis]) / (b[axis] - a[axis])
                crossing = a + share * (b - a)
                if abs(crossing[1 - axis] - door.centre[1 - axis]) < door.width / 2:
                    inside.append((share, crossing))
        points += [crossing for _, crossing in sorted(inside, key=lambda pair: pair[0])]
        points.append(b)
    return np.array(points)


def _point(p: np.ndarray) -> tuple[float, float, float]:
    """A floor point (x, z) as an agent position, rounded to 0.1 mm so that files stay small."""
    return (round(float(p[0]), 4), FLOOR_Y_M, round(float(p[1]), 4))


# ---------------------------------------------------------------- drawing a route


def _draw(
    rng: np.random.Generator,
    home: Home,
    routes: RouteMap,
    memory_only: bool,
    train: bool,
    start: Start | None,
) -> _Draft:
    """
    Draw a route, from ``start`` if there is one, and describe it.

    Raises:
        RedrawError: it cannot be gone or told; the same from what is called here.
    """
    plan = home.plan
    # Ways back are no shortest paths: they are for training and for the split of their own.
    shares = [0.4, 0.2, 0.4] if memory_only else [0.5, 0.35, 0.15] if train else [0.58, 0.42, 0.0]
    if memory_only or rng.random() < 0.25:
        kind = ("colour", "counting", "return")[int(rng.choice(3, p=shares))]
        crossed = int(
            rng.integers(*{"colour": (1, 4), "counting": (2, 4), "return": (1, 2)}[kind])
        )
    else:
        kind, crossed = "", int(rng.choice(5, p=[0.42, 0.26, 0.18, 0.10, 0.04]))
    if start is None:
        first = int(rng.integers(len(plan.rooms)))
        place = _free_point(rng, plan, routes, first)
    else:
        place = np.array(start.place)
        room = plan.room_at(place)
        if room is None or kind == "return":
            raise RedrawError
        first = room
    goals = [t for t in home.things if _doors_between(plan, first, t.room) == crossed]
    if kind == "colour":
        goals = [t for t in goals if t.colour == plan.rooms[first].colour]
    redraw_unless(goals)
    goal = goals[int(rng.integers(len(goals)))]
    path = path_to_thing(home, routes, place, goal)
    if kind == "return":
        return _draw_return(rng, home, routes, first, goal, path)
    redraw_unless((1.8 if crossed == 0 else 2.5) <= length(path) <= 20.0)
    crossings = crossings_of(plan, path)
    rooms = (first, *[r for _, r in crossings])
    redraw_unless(len(crossings) == crossed and len(set(rooms)) == len(rooms))
    toward = np.array(crossings[0][0].centre) if crossings else goal.centre
    yaw = _start_yaw(rng, path, toward) if start is None else _same_yaw(start.yaw, path, toward)
    parts, landmarks, tags = _describe(rng, home, routes, yaw, path, crossings, goal, kind)
    return _Draft(path, yaw, None, parts, rooms, goal, landmarks, tags)


def _draw_return(
    rng: np.random.Generator,
    home: Home,
    routes: RouteMap,
    first: int,
    visit: Thing,
    path: np.ndarray,
) -> _Draft:
    """A route to a thing in the next room and back to another thing in the first."""
    plan = home.plan
    crossings = crossings_of(plan, path)
    back = [t for t in home.things if t.room == first]
    redraw_unless(len(crossings) == 1 and back and length(path) <= 9.0)
    goal = back[int(rng.integers(len(back)))]
    home_path = path_to_thing(home, routes, path[-1], goal)
    redraw_unless(length(home_path) <= 9.0 and np.linalg.norm(home_path[-1] - path[0]) >= 1.2)
    returns = crossings_of(plan, home_path)
    redraw_unless(len(returns) == 1)
    yaw = _start_yaw(rng, path, np.array(crossings[0][0].centre))
    leave = _first_exit(rng, plan, crossings[0], path[0], yaw)
    redraw_unless(
        comes_into_view(routes.walls, home.things, path, visit)
        and comes_into_view(routes.walls, home.things, home_path, goal)
    )
    to_visit, _ = _where(rng, plan, crossings[0], visit, plain=False)
    to_goal, side = _where(rng, plan, returns[0], goal, plain=True)
    parts = (
        leave,
        Part("visit", turn=to_visit, thing=visit.name),
        Part("return"),
        Part("stop", turn=to_goal, side=side, thing=goal.name),
    )
    return _Draft(
        path=np.concatenate([path, home_path[1:]]),
        yaw=yaw,
        visit=path[-1],
        parts=parts,
        rooms=(first, crossings[0][1], first),
        goal=goal,
        landmarks=(visit, goal),
        tags=("detour", "memory", "return"),
    )


def _free_point(rng: np.random.Generator, plan: Plan, routes: RouteMap, room: int) -> np.ndarray:
    """A point of a room with some space around."""
    x0, z0, x1, z1 = plan.rooms[room].rect
    for _ in range(10):
        p = np.array([rng.uniform(x0 + 0.4, x1 - 0.4), rng.uniform(z0 + 0.4, z1 - 0.4)])
        around = p + 0.12 * np.array([[1, 0], [-1, 0], [0, 1], [0, -1], [0, 0]])
        if routes.free(around).all():
            return p
    raise RedrawError


def _doors_between(plan: Plan, a: int, b: int) -> int:
    """The smallest number of openings between two rooms."""
    reached, front, steps = {a}, {a}, 0
    while b not in reached:
        front = {door.other(r) for r in front for door in plan.doors_of[r]} - reached
        reached |= front
        steps += 1
    return steps


def path_to_thing(home: Home, routes: RouteMap, start: np.ndarray, thing: Thing) -> np.ndarray:
    """
    The shortest path to a place before ``thing`` from which, as one arrives, it is ahead.

    Raises:
        RedrawError: there is none.
    """
    gap = 0.55 if thing.height >= 0.95 else 0.85  # low things leave the picture when near
    x0, z0, x1, z1 = thing.rect
    across_x, across_z = np.linspace(x0, x1, 5), np.linspace(z0, z1, 5)
    fronts = {
        (0, 1): [(x, z1 + gap) for x in across_x],
        (0, -1): [(x, z0 - gap) for x in across_x],
        (1, 0): [(x1 + gap, z) for z in across_z],
        (-1, 0): [(x0 - gap, z) for z in across_z],
    }
    sides = [fronts[thing.facing]] if KIND[thing.kind].place == "wall" else list(fronts.values())
    corner = gap * 0.707
    extra = [
        (x + sx * corner, z + sz * corner)
        for x, sx in ((x0, -1), (x1, 1))
        for z, sz in ((z0, -1), (z1, 1))
    ]
    middle = thing.centre
    extra = [p for p in extra if len(sides) > 1 or (np.array(p) - middle) @ thing.facing > 0]
    candidates = np.array([p for side in sides for p in side] + extra)
    free = [c for c in candidates[routes.free(candidates)] if home.plan.room_at(c) == thing.room]

    def ahead(path: np.ndarray) -> bool:
        arrival, end = path[-1] - path[-2], path[-1]
        nearest = np.clip(end, [x0, z0], [x1, z1])
        return (
            abs(bearing(arrival, middle - end)) <= 40 or abs(bearing(arrival, nearest - end)) <= 25
        )

    near = sorted(free, key=lambda p: float(np.linalg.norm(p - start)))[:6]
    redraw_unless(near)
    paths = [path for path in routes.paths(start, np.array(near)) if path is not None]
    best = min(filter(ahead, paths), key=length, default=None)
    if best is None:
        raise RedrawError
    return best


# ---------------------------------------------------------------- what to say


def _start_yaw(rng: np.random.Generator, path: np.ndarray, toward: np.ndarray) -> float:
    """
    A start heading from which both the thing or opening named first and the first stretch of the
    path have one and the same turn name.
    """
    ahead, direction = resample(path, 0.6)[1] - path[0], toward - path[0]
    redraw_unless(abs(bearing(direction, ahead)) <= 30)
    wanted = ("straight", "left", "right", "around")[
        int(rng.choice(4, p=[0.22, 0.28, 0.28, 0.22]))
    ]
    for _ in range(30):
        yaw = float(rng.uniform(-np.pi, np.pi))
        named = turn_name(bearing(heading(yaw), direction))
        if named == wanted and _turns_alike(yaw, direction, ahead):
            return round(yaw, 4)
    raise RedrawError


def _same_yaw(yaw: float, path: np.ndarray, toward: np.ndarray) -> float:
    """``yaw``, if it is such a heading. Raises RedrawError: it is not."""
    ahead, direction = resample(path, 0.6)[1] - path[0], toward - path[0]
    redraw_unless(abs(bearing(direction, ahead)) <= 30 and _turns_alike(yaw, direction, ahead))
    return yaw


def _turns_alike(yaw: float, direction: np.ndarray, ahead: np.ndarray) -> bool:
    """Whether ``direction`` has a turn name from a heading, and the first stretch the same one."""
    forward = heading(yaw)
    return (
        turn_name(bearing(forward, direction)) is not None
        and abs(abs(bearing(forward, ahead)) - abs(bearing(forward, direction))) < 35
    )


def room_name(plan: Plan, index: int) -> str:
    """How an instruction calls a room."""
    room = plan.rooms[index]
    return f"{room.colour} {'hallway' if room.hallway else 'room'}"


def _first_exit(
    rng: np.random.Generator, plan: Plan, crossing: tuple[Door, int], start: np.ndarray, yaw: float
) -> Part:
    """
    What to say about going through the first opening.

    Raises:
        RedrawError: it cannot be said shortly; the same from what is said of the others.
    """
    door, target = crossing
    direction = door.centre - start
    turn = turn_name(bearing(heading(yaw), direction))
    if turn is None:
        raise RedrawError
    # Without the colour the side must fit one opening only, with a margin.
    needed = any(
        abs(bearing(direction, other.centre - start)) < 100
        for other in plan.doors_of[door.other(target)]
        if other != door
    )
    name = room_name(plan, target) if needed or rng.random() < 0.75 else ""
    return Part("exit", turn=turn, room=name)


def _exit(
    rng: np.random.Generator, plan: Plan, entered: tuple[Door, int], crossing: tuple[Door, int]
) -> tuple[Part, set[str]]:
    """
    What to say about going through an opening after the one that was ``entered`` by, and the tags
    it earns.
    """
    (entry, room), (door, target) = entered, crossing
    name = room_name(plan, target)
    if plan.rooms[room].hallway:
        return _hallway_exit(rng, plan, room, entry, door, name)
    sides = door_sides(plan, room, entry)
    side, far = sides[door]
    redraw_unless(side != "same")
    alike = sorted(f for s, f in sides.values() if s == side)
    if len(alike) == 1:
        return Part("exit", side=side, room=name if rng.random() < 0.75 else ""), set()
    if side == "ahead":
        return Part("exit", side="", room=name), set()
    if min(np.diff(alike)) > 0.8 and rng.random() < 0.5:
        ordinal = alike.index(far)
        tags = {"counting", "memory"} if ordinal > 0 else {"counting"}
        return Part("exit", side=side, ordinal=ordinal), tags
    return Part("exit", side=side, room=name), set()


def _hallway_exit(
    rng: np.random.Generator, plan: Plan, room: int, entry: Door, door: Door, name: str
) -> tuple[Part, set[str]]:
    """What to say about walking along a hallway that was entered from the side."""
    redraw_unless(door.along_x == entry.along_x)
    into = entry.into(plan.rooms[room])
    offset = np.subtract(door.centre, entry.centre)
    axis = np.array([1.0, 0.0] if entry.along_x else [0.0, 1.0])
    along, opposite = float(offset @ axis), float(offset @ into) > 0.5
    if abs(along) < 0.45 and opposite:
        return Part("exit", turn="straight", hallway="hallway", room=name), set()
    redraw_unless(abs(along) >= 1.0)
    travel = axis * np.sign(along)
    turn = "left" if bearing(into, travel) > 0 else "right"
    # The wall one came through is on the other hand than the wall opposite.
    side = "left" if bearing(travel, into if opposite else -into) > 0 else "right"
    alike = [
        np.subtract(other.centre, entry.centre)
        for other in plan.doors_of[room]
        if other != entry and other.along_x == entry.along_x
    ]
    shifts = [float(shift @ travel) for shift in alike if (shift @ into > 0.5) == opposite]
    ahead = sorted(shift for shift in shifts if shift > -0.3)
    ordinal = ahead.index(abs(along))
    if ordinal < 4 and ahead[0] > 0.6 and rng.random() < 0.55:
        part = Part(
            "exit",
            turn=turn,
            side=side,
            ordinal=ordinal,
            hallway="hallway",
            room=name if rng.random() < 0.4 else "",
        )
        return part, {"counting", "memory"} if ordinal > 0 and not part.room else {"counting"}
    return Part("exit", turn=turn, side=side, hallway="hallway", room=name), set()


def _describe(
    rng: np.random.Generator,
    home: Home,
    routes: RouteMap,
    yaw: float,
    path: np.ndarray,
    crossings: list[tuple[Door, int]],
    goal: Thing,
    kind: str,
) -> tuple[tuple[Part, ...], tuple[Thing, ...], tuple[str, ...]]:
    """
    Parts of the instruction, the landmarks it names and its tags.

    Raises:
        RedrawError: the route cannot be told.
    """
    plan = home.plan
    redraw_unless(comes_into_view(routes.walls, home.things, path, goal))
    parts: list[Part] = []
    landmarks: list[Thing] = []
    tags: set[str] = set()
    passed = _passed(home, routes, path, goal)
    if crossings:
        parts.append(_first_exit(rng, plan, crossings[0], path[0], yaw))
    for entered, crossing in pairwise(crossings):
        room = entered[1]
        if not plan.rooms[room].hallway:
            _add_pass(rng, parts, landmarks, [p for p in passed if p[0].room == room])
        part, earned = _exit(rng, plan, entered, crossing)
        parts.append(part)
        tags |= earned
    redraw_unless(kind != "counting" or "memory" in tags)
    thing = goal.name
    if kind == "colour":
        twins = [t for t in home.things if t.room == goal.room and t.kind == goal.kind]
        what = goal.kind if len(twins) > 1 or rng.random() < 0.5 else "thing"
        joint = ("with the colour of", "that has the colour of")[int(rng.integers(2))]
        thing = f"{what} {joint} the room where you started"
        tags |= {"colour", "memory"}
    if crossings:
        turn, side = _where(rng, plan, crossings[-1], goal, plain=kind != "colour")
        if not turn and not side and not plan.rooms[crossings[-1][1]].hallway:
            _add_pass(rng, parts, landmarks, [p for p in passed if p[0].room == goal.room])
        parts.append(Part("stop", turn=turn, side=side, thing=thing))
    else:
        first_turn = turn_name(bearing(heading(yaw), goal.centre - path[0]))
        if first_turn is None:
            raise RedrawError
        inside = [p for p in passed if p[0].room == goal.room]
        if inside and first_turn == "straight" and rng.random() < 0.5:
            _add_pass(rng, parts, landmarks, inside)
            parts.append(Part("stop", thing=thing))
        else:
            parts.append(Part("stop", turn=first_turn, thing=thing))
    return tuple(parts), (*landmarks, goal), tuple(sorted(tags))


def _where(
    rng: np.random.Generator, plan: Plan, crossing: tuple[Door, int], thing: Thing, *, plain: bool
) -> tuple[str, str]:
    """
    What to say about where ``thing`` is for someone coming in through an opening: (turn, side),
    one of them or both "".

    A thing out of the picture as one comes in always gets one of them; ``plain`` allows the side,
    which needs a short name before it.
    """
    door, room = crossing
    angle = bearing(door.into(plan.rooms[room]), thing.centre - door.centre)
    hand = "left" if angle > 0 else "right"
    if abs(angle) >= 36:
        return (hand, "") if not plain or rng.random() < 0.5 else ("", hand)
    if not plain or rng.random() < 0.6:
        return "", ""
    return "", "ahead" if abs(angle) < 10 else hand if abs(angle) >= 25 else ""


def _add_pass(
    rng: np.random.Generator,
    parts: list[Part],
    landmarks: list[Thing],
    passed: list[tuple[Thing, str]],
) -> None:
    """Mention one of the things passed in a room, in half of the cases."""
    if passed and rng.random() < 0.5 and sum(p.act == "pass" for p in parts) < 2:
        thing, side = passed[int(rng.integers(len(passed)))]
        parts.append(Part("pass", side=side if rng.random() < 0.5 else "", thing=thing.name))
        landmarks.append(thing)


def _passed(
    home: Home, routes: RouteMap, path: np.ndarray, goal: Thing
) -> list[tuple[Thing, str]]:
    """
    Things that a path passes within 1 m and that were seen ahead before, with the side they are
    passed on.
    """
    points = resample(path, 0.1)
    found = []
    for thing in home.things:
        distance = distance_to_rect(points, thing.rect)
        nearest = int(np.argmin(distance))
        if (
            thing.rect == goal.rect
            or distance[nearest] > 1.0
            or not 6 <= nearest <= len(points) - 6
            or home.plan.room_at(points[nearest]) != thing.room
        ):
            continue
        direction = points[nearest + 2] - points[nearest - 2]
        angle = bearing(direction, thing.centre - points[nearest])
        if 50 <= abs(angle) <= 130 and comes_into_view(
            routes.walls, home.things, points[: nearest + 1], thing
        ):
            found.append((thing, "left" if angle > 0 else "right"))
    return found


# ---------------------------------------------------------------- the expert


def run_expert(
    path: np.ndarray,
    yaw: float,
    grown: np.ndarray,
    *,
    visit: np.ndarray | None = None,
) -> GroundTruth:
    """
    Actions that follow ``path`` (x, z) with the four discrete actions, and the places they lead
    through.

    At each step the robot heads for the farthest corner of the path it can walk straight to, turns
    if that is more than half a turn off, and stops within 0.25 m of the end.

    Args:
        grown: [R, 4] walls and furniture with the clearance that a step must keep.
        visit: a corner of the path that must be reached before the corners after it count.

    Raises:
        RedrawError: they would touch anything, or never arrive.
    """
    corners = np.asarray(path)
    last = len(corners) - 1
    hold = last if visit is None else int(np.argmin(np.linalg.norm(corners - visit, axis=1)))
    p, goal = corners[0].astype(np.float64), corners[-1]
    angle, k = float(np.degrees(yaw)), 1
    actions: list[int] = []
    places = [p]
    last_turn = 0
    while len(actions) < MAX_ACTIONS:
        if k >= hold and hold < last and np.linalg.norm(p - corners[hold]) <= 0.4:
            hold, k = last, hold + 1
        ahead = np.arange(k, hold + 1)
        free = ~blocked(np.broadcast_to(p, (len(ahead), 2)), corners[ahead], grown)
        if free.any():
            k = int(ahead[np.nonzero(free)[0][-1]])
        if k == last and np.linalg.norm(p - goal) <= STOP_RADIUS_M:
            actions.append(int(Action.STOP))
            locations = tuple(_point(q) for q in places)
            return GroundTruth(tuple(actions), locations, actions.count(int(Action.MOVE_FORWARD)))
        forward = heading(np.radians(angle))
        off = bearing(forward, corners[k] - p)
        if abs(off) > TURN_STEP_DEG / 2 + 0.5:
            turn = int(Action.TURN_LEFT if off > 0 else Action.TURN_RIGHT)
            redraw_unless(last_turn in (0, turn))
            last_turn = turn
            angle += TURN_STEP_DEG if off > 0 else -TURN_STEP_DEG
            actions.append(turn)
            continue
        following = p + FORWARD_STEP_M * forward
        redraw_unless(not blocked(p[None], following[None], grown)[0])
        last_turn = 0
        p = following
        places.append(p)
        actions.append(int(Action.MOVE_FORWARD))
    raise RedrawError

"""
Drives in homes that are used once: a home is drawn, driven through, and forgotten.

Homes are numbered and belong to families of their own, so that no split of episodes has one of
them. A drive depends on the seed, the number of its home, its own number and, where a policy
drove, on that policy; on nothing else.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from janusvln_ros.actions import Action
from janusvln_ros.data.episodes import Episode, Point
from janusvln_ros.data.trajectories import actions_before
from janusvln_ros.errors import require
from janusvln_ros.evaluation.drive import Drive
from janusvln_ros.geometry import yaw_of_rotation
from janusvln_ros.policy.preprocess import resize
from janusvln_ros.rollout.agents import ExpertAgent, LabelledMixture, WatchingAgent, episode_random
from janusvln_ros.rollout.engine import direct_engine
from janusvln_ros.rollout.paraphrases import tell_plainly
from janusvln_ros.rollout.perturb import PerturbSection
from janusvln_ros.rollout.settings import Rules, Settings, load_settings
from sim_bridge import Observation
from sim_bridge.expert import ReferencePathFollower
from sim_bridge.homes.dataset import SPLITS, home_seed
from sim_bridge.homes.episodes import Home, Start, make_episodes, make_home
from sim_bridge.homes.language import route_facts, tell
from sim_bridge.homes.routes import resample
from sim_bridge.kinematics import forward_of
from sim_bridge.nav_env import NavEnv, scene_path
from sim_bridge.navmesh import navmesh_of
from sim_bridge.scene import load_scene

TRAINING, HELD_OUT = "stream", "stream_held_out"
"""Families of homes: for training, and to judge it by."""

LANGUAGES = ("free", "plain")
"""
What drives are told in beside their own instruction: as people may say it, in the language of
generator 2; or plain sentences for the same (`sim_bridge.homes.language.plain`), for a navigator
that is told by a network of words (`training.rephrase`).
"""

KINDS = ("plain", "memory", "long")
"""
What a route of a home is drawn as: any, one that cannot be followed without remembering earlier
frames, or one of at least ``LONG_STEPS`` steps.
"""

HELD_OUT_WORDS = 0.5
"""Share of held-out instructions with words or patterns that training does not have."""

LONG_STEPS = 57
"""More steps than both memories keep frames."""

SHARED_M, APART_M = 1.5, 0.75
"""
Metres that another route must go along with a drive to tell anything by it, and from its path
beyond which a drive has left it.
"""

AHEAD_M = 3.0
"""Metres further along a route at which a point of it is told, beside its goal."""

PATH_SPACING_M = 0.1
"""Between the points of `path_points`."""

TOLD_FRAMES = 8
"""Fewer frames tell nothing by another route."""

DOMAIN = 0x57E4
"""First word of the seeds drawn with here; those of homes and episodes start with other words."""

HOME_FOLDER = ".home-"
"""How the folders of homes begin; one that is left over belongs to a process that was killed."""

Clock = Callable[[str], AbstractContextManager[None]]
"""Measures what is done inside it, under a name."""


@dataclass(frozen=True)
class Mix:
    """What is driven, and by whom."""

    seed: int = 1
    """Of the homes; with it and a number a home is the same everywhere."""
    generators: tuple[int, ...] = (1, 2)
    """Versions of the generator that homes are drawn with, in turn."""
    rooms: tuple[int, int] = (4, 12)
    """Smallest and largest number of rooms of a home."""
    episodes_per_home: int = 6
    vary_camera: bool = True
    """
    Every drive has a camera of its own: height, tilt, field of view, and what it does to pictures.
    """
    memory: float = 0.25
    """Share of routes that cannot be followed without remembering earlier frames."""
    long: float = 0.25
    """Share of routes of at least 57 steps, as far as a home has them."""
    noise: float = 0.2
    """Share of random moves where the expert drives."""
    policy: float = 0.4
    """Share of drives that the newest checkpoint drives, the expert labelling every state."""
    expert_share: float = 0.25
    """Share of steps that the expert drives where a policy does."""
    max_steps: int = 140
    """
    A drive ends after so many steps, or after half as many again as its route takes and twenty:
    who is lost by then meets nothing new.
    """
    texts: int = 4
    """
    Instructions of a drive: the one that its generator gives, the others in ``language``.
    """
    language: str = "free"
    """One of `LANGUAGES`. Where it is plain, homes of generator 2 are told in it alone."""
    others: int = 2
    """
    Other routes from the start of a drive that it is told by as well, each up to where the drive
    leaves it: what is seen alone must not tell where to go.
    """

    def __post_init__(self) -> None:
        for name in ("memory", "long", "noise", "policy", "expert_share"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"stream.{name} is {value}: give a share from 0 to 1")
        require(
            self.memory + self.long <= 1,
            f"stream.memory {self.memory} and stream.long {self.long} are more than all routes",
        )
        for name in ("episodes_per_home", "max_steps", "texts"):
            value = getattr(self, name)
            require(value >= 1, f"stream.{name} is {value}: give 1 or more")
        require(self.others >= 0, f"stream.others is {self.others}: give 0 or more")
        require(
            self.language in LANGUAGES,
            f"stream.language is {self.language!r}: give one of {', '.join(LANGUAGES)}",
        )
        known = sorted({split.generator for split in SPLITS.values()})
        require(
            self.generators and set(self.generators) <= set(known),
            f"stream.generators is {list(self.generators)}: give some of {known}",
        )
        least, most = self.rooms
        require(
            2 <= least <= most <= 12,
            f"stream.rooms is {[least, most]}: give a smallest and a largest number from 2 to 12",
        )


@dataclass(frozen=True)
class Route:
    """
    An episode in a home, what it was drawn as (of `KINDS`), its instructions, and ``others`` from
    the same start.
    """

    episode: Episode
    kind: str
    texts: tuple[str, ...]
    others: tuple["Route", ...] = ()


@dataclass(frozen=True)
class LabelledDrive:
    """
    A drive with the expert's action at every frame.

    Attributes:
        frames: uint8 [T, h, w, 3], resized as for the encoders; None where a policy drove, which
            has seen them already.
        targets: what the expert would have done at each frame, T actions.
        actions: the action that led to each frame, T numbers; -1 at the first.
        ways: float32 [T, 2, 2], where its route leads from each frame, see `ways`.
        end: how it ended, see `Drive.status`.
        others: what the expert would have done on each of the other routes, at the first frames,
            and where that leads.
    """

    frames: np.ndarray | None
    targets: tuple[int, ...]
    actions: tuple[int, ...]
    ways: np.ndarray
    end: str
    others: tuple[tuple[tuple[int, ...], np.ndarray], ...] = ()


def instructions(home: Home, episode: Episode, count: int, language: str) -> tuple[str, ...]:
    """
    ``count`` instructions that fit the route of an episode, its own first unless it is of another
    language; for training.
    """
    facts = route_facts(home.plan, home.things, episode)
    rng = np.random.default_rng([DOMAIN, home.seed, int(episode.episode_id)])
    retell = tell if language == "free" else tell_plainly
    own = () if language == "plain" and home.generator > 1 else (episode.instruction,)
    return (*own, *(retell(rng, facts) for _ in range(count - len(own))))


def draw_routes(mix: Mix, home: Home, *, held_out: bool = False) -> list[Route]:
    """
    The routes of a home, numbered from 0, each with its instructions; fewer than asked for where
    the home has no more.

    ``held_out``: each with its own instruction alone, one that training does not have.
    """
    told: dict[str, Any] = {"unseen": held_out, "held_out": HELD_OUT_WORDS if held_out else 0.0}
    rng = np.random.default_rng([DOMAIN, home.seed])
    shares = [1 - mix.memory - mix.long, mix.memory, mix.long]
    plain, memory, long = rng.multinomial(mix.episodes_per_home, shares)
    # Long ones are chosen from more than are needed; what is missing of them is made up for.
    pool = [e for e, _ in make_episodes(home, int(plain + 3 * long), 0, **told)]
    lengthy = [e for e in pool if e.info["steps"] >= LONG_STEPS][:long]
    rest = [e for e in pool if e not in lengthy][: plain + long - len(lengthy)]
    heavy = make_episodes(home, int(memory), 1, memory_only=True, **told)
    drawn = [("plain", e) for e in rest] + [("memory", e) for e, _ in heavy]
    drawn += [("long", e) for e in lengthy]
    routes = []
    for number, (kind, episode) in enumerate(drawn):
        numbered = replace(episode, episode_id=str(number), trajectory_id=str(number))
        texts = instructions(home, numbered, 1 if held_out else mix.texts, mix.language)
        others = () if held_out else draw_others(mix, home, numbered)
        routes.append(Route(numbered, kind, texts, others))
    return routes


def draw_others(mix: Mix, home: Home, episode: Episode) -> tuple[Route, ...]:
    """
    At most ``mix.others`` routes that begin where ``episode`` does and go along with it for
    ``SHARED_M`` and more, those first that do so farthest, each to another goal and with two
    instructions.
    """
    x, _, z = episode.start_position
    start = Start((x, z), yaw_of_rotation(episode.start_rotation))
    number = int(episode.episode_id)
    drawn = make_episodes(home, 2 * mix.others, 2 + number, unseen=False, start=start)
    found: dict[Point, tuple[float, Episode]] = {}  # one to each goal
    for other, _ in drawn:
        goal, along = other.goal_position, shared(episode, other)
        if goal != episode.goal_position and goal not in found and along >= SHARED_M:
            found[goal] = along, replace(other, episode_id=f"{number}{len(found):02d}")
    best = sorted(found.values(), key=lambda pair: -pair[0])[: mix.others]
    return tuple(Route(e, "other", instructions(home, e, 2, mix.language)) for _, e in best)


def path_points(episode: Episode) -> np.ndarray:
    """Points [M, 2] (x, z) along the reference path of an episode."""
    return resample(np.array(episode.reference_path)[:, [0, 2]], PATH_SPACING_M)


def ways(episode: Episode, drive: Drive, count: int) -> np.ndarray:
    """
    Where the route of ``episode`` leads from the first ``count`` places of a drive: metres forward
    and to the left of the robot to a point ``AHEAD_M`` further along it, and to its end; float32
    [count, 2, 2].

    From one place to the next it goes on along the route by less than ``AHEAD_M`` and never back:
    a route may cross itself, or come back the way that it went.
    """
    path_M2, reach, at = path_points(episode), round(AHEAD_M / PATH_SPACING_M), 0
    told = np.empty((count, 2, 2), np.float32)
    for t, (position, rotation) in enumerate(zip(drive.positions[:count], drive.rotations)):
        here_2 = np.array(position)[[0, 2]]
        off = np.linalg.norm(path_M2[at : at + reach] - here_2, axis=1)
        at += int(np.argmax(off < off.min() + PATH_SPACING_M / 10))  # the first of equals
        apart_22 = path_M2[[min(at + reach, len(path_M2) - 1), -1]] - here_2
        x, _, z = forward_of(np.array(rotation))
        told[t] = apart_22 @ np.array([[x, z], [z, -x]])
    return told


def shared(episode: Episode, other: Episode) -> float:
    """Metres from the start on which the reference path of ``other`` is within ``APART_M``."""
    one, two = path_points(episode), path_points(other)
    apart = np.linalg.norm(two[:, None] - one[None], axis=2).min(axis=1) > APART_M
    return PATH_SPACING_M * float(np.argmax(apart) if apart.any() else len(two))


@contextmanager
def drawn_home(
    mix: Mix, family: str, number: int, place: Path, clock: Clock
) -> Iterator[tuple[list[Route], Path]]:
    """
    Home ``number`` of a family: its routes, and a data folder in ``place`` that holds its scene
    for as long.
    """
    with TemporaryDirectory(dir=place, prefix=HOME_FOLDER) as folder:
        with clock("home"):
            generator = mix.generators[number % len(mix.generators)]
            seed = home_seed(mix.seed, family, number)
            home = make_home(f"{family}_{number:07d}", seed, mix.rooms, generator)
            scene = scene_path(folder, home.scene_id)
            scene.parent.mkdir(parents=True)
            scene.write_bytes(home.glb)
            env = driver_settings(mix).env
            navmesh_of(load_scene(scene, env.up), env.agent_height, env.agent_radius)
        with clock("routes"):
            routes = draw_routes(mix, home, held_out=family == HELD_OUT)
        yield routes, Path(folder)


def driver_settings(mix: Mix) -> Settings:
    """The simulator and the rules of these drives."""
    return replace(
        load_settings("houses"),
        seed=mix.seed,
        rules=Rules(mix.max_steps),
        perturb=PerturbSection(vary_camera=mix.vary_camera),
    )


def is_policy_driven(mix: Mix, episode: Episode) -> bool:
    """Whether the policy is to drive an episode, where there is one."""
    return episode_random(mix.seed, episode, "driver").random() < mix.policy


def drive_route(
    settings: Settings,
    data_dir: Path,
    route: Route,
    policy: WatchingAgent | None,
    expert_share: float,
    image_width: int,
) -> LabelledDrive | None:
    """
    Drive a route, with ``policy`` or, without one, with random moves, sharing the wheel with the
    expert, who drives ``expert_share`` of the steps and labels all; None where it stopped too far
    from the goal to be an example.

    Raises:
        InputError: a way point cannot be reached, or the scene cannot be read.
    """
    expert = ExpertAgent(settings.collect.stop_radius, settings.expert.waypoint_radius)
    missed = settings.dagger.missed_stops
    agent = LabelledMixture(expert, policy, expert_share, settings.seed, missed)
    watched = OtherExperts(agent, route.others, expert)
    frames: list[np.ndarray] = []
    limit = min(settings.rules.max_steps, 20 + 3 * route.episode.info["steps"] // 2)

    def watch(observation: Observation, action: Action) -> None:
        if policy is None:
            frames.append(resize(observation.rgb, image_width))

    engine = direct_engine(
        replace(settings, rules=replace(settings.rules, max_steps=limit)), data_dir, watched
    )
    try:
        drive = engine.run(route.episode, watch)
    finally:
        engine.close()
    if not is_example(drive, settings.collect.keep_distance):
        return None
    # at a forced STOP nobody was asked, so that frame has no label
    count = len(agent.labels)
    others = [tuple(labels[:count]) for labels in watched.labels]
    return LabelledDrive(
        np.stack(frames[:count]) if policy is None else None,
        tuple(agent.labels),
        tuple(actions_before(drive.actions, count)),
        ways(route.episode, drive, count),
        drive.status,
        tuple(
            (labels, ways(other.episode, drive, len(labels)))
            for other, labels in zip(route.others, others)
        ),
    )


class OtherExperts:
    """
    Lets ``agent`` drive, and notes what the experts of other routes would do in its place, each
    until its STOP or until the drive has left its route.
    """

    def __init__(self, agent: LabelledMixture, routes: Sequence[Route], like: ExpertAgent) -> None:
        self.agent, self.routes, self.like = agent, routes, like

    @property
    def calls(self) -> int:
        """Decisions of the agent that drives."""
        return self.agent.calls

    def reset(self, episode: Episode, env: NavEnv) -> None:
        """Start all over."""
        self.agent.reset(episode, env)
        self._env = env
        self.labels: list[list[int]] = [[] for _ in self.routes]
        self._paths = [path_points(route.episode) for route in self.routes]
        self._followers = {
            number: ReferencePathFollower(
                env,
                route.episode.reference_path[1:],
                waypoint_radius=self.like.waypoint_radius,
                goal_radius=self.like.stop_radius,
            )
            for number, route in enumerate(self.routes)
        }

    def act(self, observation: Observation, executed: Action | None = None) -> Action:
        """Note what the others would do, then let the agent decide."""
        place = self._env.position[[0, 2]]
        for number, follower in list(self._followers.items()):
            off = np.linalg.norm(self._paths[number] - place, axis=1).min()
            label = None if off > APART_M else follower.action()
            if label is not None:
                self.labels[number].append(int(label))
            if label in (None, Action.STOP):
                del self._followers[number]
        return self.agent.act(observation, executed)


def is_example(drive: Drive, keep_distance: float) -> bool:
    """
    Whether a labelled drive is worth learning from: labels are right at every state, so one that
    was cut short is, but not one that stopped farther than ``keep_distance`` metres from its goal.
    """
    return drive.status != "stopped" or drive.distances[-1] <= keep_distance

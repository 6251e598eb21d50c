"""
What every simulator offers and shares with the others, and their conventions.

World frame: metres, right-handed, +y up (habitat-sim's). Rotations are quaternions x, y, z, w; an
agent turns about +y only, looks along its local -z, and ``yaw = 2 atan2(y, w)`` grows with left
turns. The camera is ``camera_height`` above the agent and looks down by ``tilt``, a pinhole with
square pixels and the principal point at the image centre. Depth is the distance along the optical
axis, metres, clipped to ``MAX_DEPTH_M``, 0 where nothing was hit.
"""

import math
import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from janusvln_ros.actions import FORWARD_STEP_M, TURN_STEP_DEG, Action
from janusvln_ros.data.episodes import Episode
from janusvln_ros.data.top_down_map import TopDownMap
from janusvln_ros.errors import InputError, require
from janusvln_ros.evaluation.drive import Drive
from janusvln_ros.files import inside
from janusvln_ros.geometry import rotation_of_yaw, yaw_of_rotation

NO_SCENE = "no scene is loaded: give make_env a scene, or reset to an episode first"

Pose = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Position [3] in the world and rotation [4] x y z w."""

MAX_DEPTH_M = 10.0
"""Depth is clipped here, as in the published settings."""


def setting(
    default: Any,
    description: str,
    limits: tuple[float, float] | None = None,
    *,
    choices: tuple[str, ...] = (),
    parameter: str | None = None,
) -> Any:
    """
    A field with what the bridge needs to declare it: the ``description``, the closed range or the
    choices that a robot's node accepts, and the ``parameter`` where it has another name there.
    """
    return field(
        default=default,
        metadata={
            "description": description,
            "limits": limits,
            "choices": choices,
            "parameter": parameter,
        },
    )


@dataclass(frozen=True)
class EnvSettings:
    """
    What an environment simulates: the scene's axis, the camera, the body and the step sizes.

    Lengths in metres, angles in degrees. ``make_env``, rollouts and the bridge take their settings
    from these fields and their metadata.

    Raises:
        InputError: a value is out of its range.
    """

    up: str = setting(
        "z", "Axis of the scene files that points up.", choices=("y", "z"), parameter="scene_up"
    )
    width: int = setting(640, "Width of the picture, pixels.", (32, 4096), parameter="image_width")
    height: int = setting(
        480, "Height of the picture, pixels.", (32, 4096), parameter="image_height"
    )
    hfov: float = setting(79.0, "Horizontal field of view, degrees.", (10.0, 170.0))
    camera_height: float = setting(1.25, "Camera above the floor, metres.", (0.05, 3.0))
    tilt: float = setting(
        0.0,
        "How far the camera looks down, degrees.",
        (-89.0, 89.0),
        parameter="camera_tilt",
    )
    agent_height: float = setting(1.5, "Height of the robot, metres.", (0.05, 3.0))
    agent_radius: float = setting(0.1, "Radius of the robot, metres.", (0.01, 1.0))
    forward_step: float = setting(
        FORWARD_STEP_M, "Lockstep: length of MOVE_FORWARD, metres.", (0.01, 2.0)
    )
    turn_step: float = setting(TURN_STEP_DEG, "Lockstep: angle of a turn, degrees.", (1.0, 90.0))
    turn_error: float = setting(
        0.0, "Lockstep: standard deviation by which a turn misses its angle, degrees.", (0.0, 90.0)
    )
    sliding: bool = setting(True, "Lockstep: slide along obstacles, as Habitat does.")
    max_steps: int = setting(500, "Lockstep: steps after which an episode is over.", (1, 100_000))
    success_distance: float = setting(
        3.0,
        "An episode succeeds when it stops nearer than this to its goal, metres.",
        (0.1, 100.0),
    )

    def __post_init__(self) -> None:
        require(
            self.up in ("y", "z"),
            f"up is {self.up!r}: give 'y' or 'z', the axis of the scene file that points up",
        )
        for name in (
            "width",
            "height",
            "camera_height",
            "agent_height",
            "forward_step",
            "turn_step",
            "max_steps",
            "success_distance",
        ):
            value = getattr(self, name)
            require(
                math.isfinite(value) and value > 0, f"{name} is {value}: give a number above 0"
            )
        for name in ("width", "height", "max_steps"):
            require(
                getattr(self, name) == int(getattr(self, name)),
                f"{name} is {getattr(self, name)}: give a whole number",
            )
        require(
            max(self.width, self.height) <= 8192,
            f"the image is {self.width} x {self.height}: at most 8192 on a side",
        )
        require(1 <= self.hfov < 180, f"hfov is {self.hfov}: give degrees from 1 to below 180")
        require(
            abs(self.tilt) < 90, f"tilt is {self.tilt}: give degrees from -89 (up) to 89 (down)"
        )
        require(
            0 <= self.turn_error <= 90,
            f"turn_error is {self.turn_error}: give degrees from 0 to 90",
        )
        require(
            0 <= self.agent_radius <= 2,
            f"agent_radius is {self.agent_radius}: give metres from 0 to 2",
        )

    @property
    def focal_length(self) -> float:
        """
        fx = fy in pixels: ``(width / 2) / tan(hfov / 2)``; the principal point is ``(width / 2,
        height / 2)`` with pixel centres at +0.5.
        """
        return self.width / 2 / math.tan(math.radians(self.hfov) / 2)


def parameter_names() -> dict[str, str]:
    """The fields of ``EnvSettings`` and what the bridge calls them."""
    return {f.name: f.metadata["parameter"] or f.name for f in fields(EnvSettings)}


class SetupError(InputError):
    """
    The simulator cannot be used as it is set up, so that no episode can be run: the sentence names
    the setting to change.
    """


@dataclass
class Observation:
    """
    What the agent sees and where it stands.

    ``rgb`` uint8 [H, W, 3]; ``depth`` float32 [H, W] metres; ``position`` float64 [3] on the
    floor, world, y up; ``rotation`` float64 [4] x y z w; ``collided``: the last action was a
    forward step that advanced less than it was told to.
    """

    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32]
    position: NDArray[np.float64]
    rotation: NDArray[np.float64]
    collided: bool = False


class Eye(Protocol):
    """What stands between a simulator and the agent that sees its pictures."""

    def begin(self, env: "NavEnv", episode: Episode) -> None:
        """An episode begins; the camera may be mounted anew for it, see ``NavEnv.mount``."""
        ...

    def see(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The picture that the agent gets in place of ``rgb`` [H, W, 3]."""
        ...


class NavEnv(ABC):
    """
    A simulator with one agent in it. Not thread-safe: use it from the thread that made it.

    A simulator adds `_load`, `_put`, `_move` and `_draw`, and answers about its walkable surface;
    episode, pose and the last picture are kept here. Pictures pass through ``eye`` if there is
    one. ``versions``: of what simulates in another process, by name.
    """

    def __init__(self, settings: EnvSettings, data_dir: str | Path) -> None:
        self.settings = settings
        self.episode: Episode | None = None
        self.episode_over = True
        self._data_dir = Path(data_dir)
        self._position: NDArray[np.float64] | None = None
        self._rotation = np.array([0.0, 0.0, 0.0, 1.0])
        self._collided = False
        self._steps = 0
        self._seen: Observation | None = None
        self._turn_errors = np.random.default_rng(0)
        self.eye: Eye | None = None
        self.versions: dict[str, str] = {}

    @abstractmethod
    def _load(self, path: Path) -> None:
        """Load the scene at ``path`` unless it is there; raises ``InputError`` if it cannot be."""

    @abstractmethod
    def _put(self, position: NDArray[np.float64], rotation: NDArray[np.float64]) -> None:
        """Prepare for an agent that stands there."""

    @abstractmethod
    def _move(self, action: Action) -> tuple[Pose, bool]:
        """Carry out a step or a turn: the pose it leads to, and whether it collided."""

    @abstractmethod
    def _draw(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """RGB and depth at the agent's pose, see ``Observation``."""

    @property
    def position(self) -> NDArray[np.float64]:
        """
        Where the agent stands [3].

        Raises:
            InputError: nowhere yet.
        """
        if self._position is None:
            raise InputError(
                "the agent stands nowhere yet: reset to an episode or call set_state first"
            )
        return self._position

    def reset(self, episode: Episode) -> Observation:
        """
        Start ``episode``: load its scene if another one is loaded, put the agent at its start.

        The pose is the episode's, unchanged, as in habitat-lab.
        """
        self._load(scene_path(self._data_dir, episode.scene_id))
        if self.eye is not None:
            self.eye.begin(self, episode)
        name = f"{episode.scene_id}/{episode.episode_id}"
        self._turn_errors = np.random.default_rng(zlib.crc32(name.encode()))
        self.set_state(episode.start_position, episode.start_rotation)
        self.episode, self.episode_over, self._steps = episode, False, 0
        return self.observation()

    def step(self, action: Action) -> Observation:
        """
        Carry out one action.

        STOP and the ``max_steps``-th action end the episode; after that stepping raises
        ``InputError`` until the next ``reset``.
        """
        require(
            self.episode is None or not self.episode_over,
            "the episode is over: reset to the next one before stepping",
        )
        require(
            action in list(Action),
            f"{action!r} is no action: give one of {[a.name for a in Action]}",
        )
        if action != Action.STOP:
            (self._position, self._rotation), self._collided = self._move(action)
            if self.settings.turn_error and action != Action.MOVE_FORWARD:
                missed = math.radians(self._turn_errors.normal(0.0, self.settings.turn_error))
                self._rotation = rotation_of_yaw(yaw_of_rotation(self._rotation) + missed)
                self._put(self._position, self._rotation)
            self._seen = None
        elif self._collided:
            self._collided, self._seen = False, None
        self._steps += 1
        if self.episode is not None:
            self.episode_over = action == Action.STOP or self._steps >= self.settings.max_steps
        return self.observation()

    def observation(self) -> Observation:
        """The observation at the current state, rendered at most once per state."""
        return self._seen if self._seen is not None else self.render()

    def render(self) -> Observation:
        """The observation at the current state, rendered anew."""
        rgb, depth = self._draw()
        if self.eye is not None:
            rgb = self.eye.see(rgb)
        self._seen = Observation(
            rgb, depth, self.position.copy(), self._rotation.copy(), self._collided
        )
        return self._seen

    def mount(self, *, camera_height: float, tilt: float, hfov: float) -> None:
        """
        Mount the camera anew: the pictures from now on are seen from there, see ``EnvSettings``.

        Raises:
            InputError: a value is out of its range, or this simulator's camera is fixed.
        """
        self.settings = replace(self.settings, camera_height=camera_height, tilt=tilt, hfov=hfov)
        self._seen = None

    def set_state(self, position: ArrayLike, rotation: ArrayLike) -> None:
        """
        Put the agent at ``position`` [3] with ``rotation`` [4] x y z w, wherever that is; needs no
        episode.

        Raises:
            InputError: not three and four finite numbers, or a rotation of length 0.
        """
        p, q = np.array(position, float), np.array(rotation, float)
        well_formed = p.shape == (3,) and q.shape == (4,) and np.isfinite([*p, *q]).all()
        require(
            well_formed and np.linalg.norm(q) > 1e-6,
            f"position {position!r}, rotation {rotation!r}: give three finite "
            "numbers [x, y, z] and a quaternion [x, y, z, w]",
        )
        q = q / np.linalg.norm(q)
        self._put(p, q)
        self._position, self._rotation, self._collided, self._seen = p, q, False, None

    @abstractmethod
    def is_navigable(self, p: ArrayLike) -> bool:
        """
        Whether the agent can stand at ``p`` [3] (a floor within 0.5 m above or below counts).
        """

    @abstractmethod
    def snap_point(self, p: ArrayLike) -> NDArray[np.float64] | None:
        """
        The navigable point nearest to ``p`` [3], or None if there is none within about 2 m
        sideways and 4 m up or down.
        """

    @abstractmethod
    def geodesic_distance(self, a: ArrayLike, b: ArrayLike) -> float:
        """
        Length in metres of the shortest path from ``a`` to ``b`` (both snapped); inf where there
        is none. The distance field of recent ``b`` is cached.
        """

    @abstractmethod
    def expert_action(self, target: ArrayLike, radius: float) -> Action:
        """
        The shortest-path follower's next action toward ``target`` [3]: STOP within ``radius``
        metres (geodesic). A pure function of the current state.
        """

    @abstractmethod
    def top_down_map(self) -> TopDownMap:
        """The map of the floor on which the agent stands, for pictures."""

    @abstractmethod
    def close(self) -> None:
        """
        Release what the environment holds; it cannot be used afterwards. Closing twice is fine.
        """


def record_place(drive: Drive, env: NavEnv, seen: Observation) -> None:
    """
    Add to the record of the episode under way in ``env`` where the agent is, what it sees, and how
    far its goal is.
    """
    assert env.episode is not None
    distance = env.geodesic_distance(seen.position, env.episode.goal_position)
    drive.add_place(seen.position, seen.rotation, seen.rgb, distance, seen.collided)


def scene_path(data_dir: str | Path, scene_id: str) -> Path:
    """
    Where the scene of an episode lies: ``<data_dir>/scene_datasets/<scene_id>``.

    Raises:
        InputError: the id leaves that folder.
    """
    return inside(Path(data_dir) / "scene_datasets", scene_id, "scene_id")

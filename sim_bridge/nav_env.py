"""
The simulator protocol: what every backend offers, and the conventions all of them share.

World frame: metres, right-handed, +y up (habitat-sim's). Rotations are quaternions x, y, z, w; an
agent turns about +y only, looks along its local -z, and ``yaw = 2 atan2(y, w)`` grows with left
turns. The camera is ``camera_height`` above the agent, a pinhole with square pixels and the
principal point at the image centre. Depth is the distance along the optical axis, metres, clipped
to ``MAX_DEPTH_M``, 0 where nothing was hit.
"""

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from janusvln_ros.actions import FORWARD_STEP_M, TURN_STEP_DEG, Action
from janusvln_ros.data.episodes import Episode
from janusvln_ros.data.top_down_map import TopDownMap
from janusvln_ros.errors import InputError
from janusvln_ros.evaluation.drive import Drive

MAX_DEPTH_M = 10.0
"""Depth is clipped here, as in the published settings."""


def _setting(
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
    about = {"description": description, "limits": limits, "choices": choices}
    return field(default=default, metadata={**about, "parameter": parameter})


@dataclass(frozen=True)
class EnvSettings:
    """
    What an environment simulates: the scene's axis, the camera, the body and the step sizes.

    Lengths in metres, angles in degrees. ``make_env``, rollouts and the bridge take their settings
    from these fields and their metadata.

    Raises:
        InputError: a value is out of its range.
    """

    up: str = _setting(
        "z", "Axis of the scene files that points up.", choices=("y", "z"), parameter="scene_up"
    )
    width: int = _setting(
        640, "Width of the picture, pixels.", (32, 4096), parameter="image_width"
    )
    height: int = _setting(
        480, "Height of the picture, pixels.", (32, 4096), parameter="image_height"
    )
    hfov: float = _setting(79.0, "Horizontal field of view, degrees.", (10.0, 170.0))
    camera_height: float = _setting(1.25, "Camera above the floor, metres.", (0.05, 3.0))
    agent_height: float = _setting(1.5, "Height of the robot, metres.", (0.05, 3.0))
    agent_radius: float = _setting(0.1, "Radius of the robot, metres.", (0.01, 1.0))
    forward_step: float = _setting(
        FORWARD_STEP_M, "Lockstep: length of MOVE_FORWARD, metres.", (0.01, 2.0)
    )
    turn_step: float = _setting(TURN_STEP_DEG, "Lockstep: angle of a turn, degrees.", (1.0, 90.0))
    sliding: bool = _setting(True, "Lockstep: slide along obstacles, as Habitat does.")
    max_steps: int = _setting(500, "Lockstep: steps after which an episode is over.", (1, 100_000))
    success_distance: float = _setting(
        3.0,
        "An episode succeeds when it stops nearer than this to its goal, metres.",
        (0.1, 100.0),
    )

    def __post_init__(self) -> None:
        if self.up not in ("y", "z"):
            raise InputError(
                f"up is {self.up!r}: give 'y' or 'z', the axis of the scene file that points up"
            )
        positive = (
            "width",
            "height",
            "camera_height",
            "agent_height",
            "forward_step",
            "turn_step",
            "max_steps",
            "success_distance",
        )
        for name in positive:
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} is {value}: give a number above 0")
        for name in ("width", "height", "max_steps"):
            if getattr(self, name) != int(getattr(self, name)):
                raise InputError(f"{name} is {getattr(self, name)}: give a whole number")
        if max(self.width, self.height) > 8192:
            raise InputError(f"the image is {self.width} x {self.height}: at most 8192 on a side")
        if not 1 <= self.hfov < 180:
            raise InputError(f"hfov is {self.hfov}: give degrees from 1 to below 180")
        if not 0 <= self.agent_radius <= 2:
            raise InputError(f"agent_radius is {self.agent_radius}: give metres from 0 to 2")

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


@runtime_checkable
class NavEnv(Protocol):
    """A simulator with one agent in it. Not thread-safe: use it from the thread that made it."""

    episode: Episode | None
    episode_over: bool
    settings: EnvSettings

    def reset(self, episode: Episode) -> Observation:
        """
        Start ``episode``: load its scene if another one is loaded, put the agent at its start.
        """
        ...

    def step(self, action: Action) -> Observation:
        """
        Carry out one action.

        STOP and the ``max_steps``-th action end the episode; after that stepping raises
        ``InputError`` until the next ``reset``.
        """
        ...

    def observation(self) -> Observation:
        """The observation at the current state, rendered at most once per state."""
        ...

    def render(self) -> Observation:
        """The observation at the current state, rendered anew."""
        ...

    def set_state(self, position: ArrayLike, rotation: ArrayLike) -> None:
        """
        Put the agent at ``position`` [3] with ``rotation`` [4] x y z w, wherever that is; needs no
        episode.
        """
        ...

    def is_navigable(self, p: ArrayLike) -> bool:
        """
        Whether the agent can stand at ``p`` [3] (a floor within 0.5 m above or below counts).
        """
        ...

    def snap_point(self, p: ArrayLike) -> NDArray[np.float64] | None:
        """
        The navigable point nearest to ``p`` [3], or None if there is none within about 2 m
        sideways and 4 m up or down.
        """
        ...

    def geodesic_distance(self, a: ArrayLike, b: ArrayLike) -> float:
        """
        Length in metres of the shortest path from ``a`` to ``b`` (both snapped); inf where there
        is none. The distance field of recent ``b`` is cached.
        """
        ...

    def expert_action(self, target: ArrayLike, radius: float) -> Action:
        """
        The shortest-path follower's next action toward ``target`` [3]: STOP within ``radius``
        metres (geodesic). A pure function of the current state.
        """
        ...

    def top_down_map(self) -> TopDownMap:
        """The map of the floor on which the agent stands, for pictures."""
        ...

    def close(self) -> None:
        """
        Release what the environment holds; it cannot be used afterwards. Closing twice is fine.
        """
        ...


def record_place(drive: Drive, env: NavEnv, seen: Observation) -> None:
    """
    Add to the record of the episode under way in ``env`` where the agent is, what it sees, and how
    far its goal is.
    """
    assert env.episode is not None
    distance = env.geodesic_distance(seen.position, env.episode.goal_position)
    drive.add_place(seen.position, seen.rotation, seen.rgb, distance, seen.collided)


def scene_path(data_dir: str | Path, scene_id: str) -> Path:
    """Where the scene of an episode lies: ``<data_dir>/scene_datasets/<scene_id>``."""
    return Path(data_dir) / "scene_datasets" / scene_id

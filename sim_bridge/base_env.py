"""What the simulators share: the episode under way, the agent's pose, and what it saw last."""

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from janusvln_ros.actions import Action
from janusvln_ros.data.episodes import Episode
from janusvln_ros.errors import InputError
from sim_bridge.nav_env import EnvSettings, Observation, scene_path

Pose = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Position [3] in the world and rotation [4] x y z w."""


NO_SCENE = "no scene is loaded: give make_env a scene, or reset to an episode first"


class BaseEnv(ABC):
    """
    Half of a ``NavEnv``: a simulator adds `_load`, `_put`, `_move` and `_draw`, and answers about
    the walkable surface.
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
        """See ``NavEnv``. The pose is the episode's, unchanged, as in habitat-lab."""
        self._load(scene_path(self._data_dir, episode.scene_id))
        self.set_state(episode.start_position, episode.start_rotation)
        self.episode, self.episode_over, self._steps = episode, False, 0
        return self.observation()

    def step(self, action: Action) -> Observation:
        """See ``NavEnv``."""
        if self.episode is not None and self.episode_over:
            raise InputError("the episode is over: reset to the next one before stepping")
        if action not in list(Action):
            raise InputError(f"{action!r} is no action: give one of {[a.name for a in Action]}")
        if action != Action.STOP:
            (self._position, self._rotation), self._collided = self._move(action)
            self._seen = None
        elif self._collided:
            self._collided, self._seen = False, None
        self._steps += 1
        if self.episode is not None:
            self.episode_over = action == Action.STOP or self._steps >= self.settings.max_steps
        return self.observation()

    def observation(self) -> Observation:
        """See ``NavEnv``."""
        return self._seen if self._seen is not None else self.render()

    def render(self) -> Observation:
        """See ``NavEnv``."""
        rgb, depth = self._draw()
        self._seen = Observation(
            rgb, depth, self.position.copy(), self._rotation.copy(), self._collided
        )
        return self._seen

    def set_state(self, position: ArrayLike, rotation: ArrayLike) -> None:
        """
        See ``NavEnv``.

        Raises:
            InputError: not three and four finite numbers, or a rotation of length 0.
        """
        p, q = np.array(position, float), np.array(rotation, float)
        well_formed = p.shape == (3,) and q.shape == (4,) and np.isfinite([*p, *q]).all()
        if not (well_formed and np.linalg.norm(q) > 1e-6):
            raise InputError(
                f"position {position!r}, rotation {rotation!r}: give three finite "
                "numbers [x, y, z] and a quaternion [x, y, z, w]"
            )
        q = q / np.linalg.norm(q)
        self._put(p, q)
        self._position, self._rotation, self._collided, self._seen = p, q, False, None

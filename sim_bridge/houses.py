"""
The built-in simulator: any static ``.glb``, rendered by OpenGL, walked on by the rules of
habitat-sim.
"""

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from janusvln_ros.actions import Action
from janusvln_ros.data.episodes import Episode
from janusvln_ros.data.top_down_map import TopDownMap
from janusvln_ros.errors import InputError
from sim_bridge.expert import shortest_path_action
from sim_bridge.motion import move_forward, turn
from sim_bridge.nav_env import MAX_DEPTH_M, EnvSettings, Observation, scene_path
from sim_bridge.navmesh import CELL_M, NavMesh, navmesh_of
from sim_bridge.renderer import Renderer, thread_renderer
from sim_bridge.scene import Scene, load_scene


class HousesEnv:
    """
    ``NavEnv`` over a ``.glb``.

    Environments of one thread share its GL context, and scenes and walkable surfaces are shared by
    all.
    """

    def __init__(
        self,
        settings: EnvSettings,
        *,
        scene: str | Path | None = None,
        data_dir: str | Path = "data",
        up: str = "z",
    ) -> None:
        """
        Load ``scene`` if one is given; else wait for the first ``reset``.

        Raises:
            InputError: the scene cannot be read or has no floor, or there is no OpenGL.
        """
        self.settings = settings
        self.episode: Episode | None = None
        self.episode_over = True
        self._data_dir, self._up = Path(data_dir), up
        self._renderer: Renderer | None = thread_renderer()
        self._scene: Scene | None = None
        self._mesh: NavMesh | None = None
        self._position = np.zeros(3)
        self._rotation = np.array([0.0, 0.0, 0.0, 1.0])
        self._collided = False
        self._steps = 0
        self._seen: Observation | None = None
        if scene is not None:
            self._load(Path(scene))
            # Somewhere to stand until told otherwise: the middle of the largest island.
            island = np.flatnonzero(self.mesh.island == 0)
            cell = island[len(island) // 2]
            x, z = self.mesh.origin[::2] + (self.mesh.ij[cell] + 0.5) * CELL_M
            self._position = np.array([x, self.mesh.height[cell], z])

    @property
    def mesh(self) -> NavMesh:
        """
        The walkable surface of the loaded scene.

        Raises:
            InputError: no scene is loaded.
        """
        if self._mesh is None:
            raise InputError(
                "no scene is loaded: give make_env a scene, or reset to an episode first"
            )
        return self._mesh

    def reset(self, episode: Episode) -> Observation:
        """See ``NavEnv``. The pose is the episode's, unchanged, as in habitat-lab."""
        self._load(scene_path(self._data_dir, episode.scene_id))
        self.set_state(episode.start_position, episode.start_rotation)
        self.episode, self.episode_over, self._steps = episode, False, 0
        return self.observation()

    def step(self, action: Action) -> Observation:
        """See ``NavEnv``."""
        settings, mesh = self.settings, self.mesh
        if self.episode is not None and self.episode_over:
            raise InputError("the episode is over: reset to the next one before stepping")
        self._collided = False
        if action == Action.MOVE_FORWARD:
            self._position, self._collided = move_forward(
                mesh, self._position, self._rotation, settings.forward_step, settings.sliding
            )
        elif action in (Action.TURN_LEFT, Action.TURN_RIGHT):
            self._rotation = turn(
                self._rotation,
                settings.turn_step if action == Action.TURN_LEFT else -settings.turn_step,
            )
        elif action != Action.STOP:
            raise InputError(f"{action!r} is no action: give one of {[a.name for a in Action]}")
        self._steps += 1
        if self.episode is not None:
            self.episode_over = action == Action.STOP or self._steps >= settings.max_steps
        if action != Action.STOP or self._seen is None or self._seen.collided:
            self._seen = None
        return self.observation()

    def observation(self) -> Observation:
        """See ``NavEnv``."""
        return self._seen if self._seen is not None else self.render()

    def render(self) -> Observation:
        """See ``NavEnv``."""
        if self._renderer is None:
            raise InputError("this environment is closed: make another one")
        if self._scene is None:
            raise InputError(
                "no scene is loaded: give make_env a scene, or reset to an episode first"
            )
        settings = self.settings
        eye = self._position + [0, settings.camera_height, 0]
        rgb, depth = self._renderer.render(
            self._scene,
            eye,
            self._rotation,
            width=settings.width,
            height=settings.height,
            focal_length=settings.focal_length,
        )
        np.minimum(depth, np.float32(MAX_DEPTH_M), out=depth)
        self._seen = Observation(
            rgb, depth, self._position.copy(), self._rotation.copy(), self._collided
        )
        return self._seen

    def set_state(self, position: ArrayLike, rotation: ArrayLike) -> None:
        """
        See ``NavEnv``.

        Raises:
            InputError: not three and four finite numbers, or a rotation of length 0.
        """
        p, q = np.array(position, float), np.array(rotation, float)
        if (
            p.shape != (3,)
            or q.shape != (4,)
            or not (np.isfinite(p).all() and np.isfinite(q).all() and np.linalg.norm(q) > 1e-6)
        ):
            raise InputError(
                f"position {position!r}, rotation {rotation!r}: give three finite "
                "numbers [x, y, z] and a quaternion [x, y, z, w]"
            )
        self._position, self._rotation = p, q / np.linalg.norm(q)
        self._collided, self._seen = False, None

    def is_navigable(self, p: ArrayLike) -> bool:
        """See ``NavEnv``."""
        return self.mesh.locate(p) >= 0

    def snap_point(self, p: ArrayLike) -> NDArray[np.float64] | None:
        """See ``NavEnv``."""
        snapped = self.mesh.snap(p)
        return None if snapped is None else snapped[0]

    def geodesic_distance(self, a: ArrayLike, b: ArrayLike) -> float:
        """See ``NavEnv``."""
        return self.mesh.distance(a, b)

    def expert_action(self, target: ArrayLike, radius: float) -> Action:
        """See ``NavEnv``; the rule is ``expert.shortest_path_action``."""
        return shortest_path_action(
            self.mesh, self._position, self._rotation, target, radius, self.settings
        )

    def top_down_map(self) -> TopDownMap:
        """See ``NavEnv``: the cells within 0.5 m above or below the agent."""
        mesh = self.mesh
        near = np.abs(mesh.height - self._position[1]) <= 0.5
        navigable = np.zeros(mesh.column.shape[:2], bool)
        navigable[mesh.ij[near, 0], mesh.ij[near, 1]] = True
        return TopDownMap(
            np.ascontiguousarray(navigable.T),
            (float(mesh.origin[0]), float(mesh.origin[2])),
            CELL_M,
        )

    def close(self) -> None:
        """See ``NavEnv``; the thread's GL context stays for its other environments."""
        self._renderer = self._scene = self._mesh = self._seen = None

    def _load(self, path: Path) -> None:
        scene = load_scene(path, self._up)
        if scene is not self._scene:
            self._mesh = navmesh_of(scene, self.settings.agent_height, self.settings.agent_radius)
            self._scene, self._seen = scene, None

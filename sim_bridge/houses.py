"""
The built-in simulator: any static ``.glb``, rendered by OpenGL, walked on by the rules of
habitat-sim.
"""

import math
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from janusvln_ros.actions import Action
from janusvln_ros.data.top_down_map import TopDownMap
from janusvln_ros.errors import InputError
from janusvln_ros.geometry import tilted
from sim_bridge.expert import shortest_path_action
from sim_bridge.kinematics import move_forward, turn
from sim_bridge.nav_env import MAX_DEPTH_M, NO_SCENE, EnvSettings, NavEnv, Pose
from sim_bridge.navmesh import CELL_M, NavMesh, navmesh_of
from sim_bridge.renderer import Renderer, thread_renderer
from sim_bridge.scene import Scene, load_scene


class HousesEnv(NavEnv):
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
    ) -> None:
        """
        Load ``scene`` if one is given; else wait for the first ``reset``.

        Raises:
            InputError: the scene cannot be read or has no floor, or there is no OpenGL.
        """
        super().__init__(settings, data_dir)
        self._renderer: Renderer | None = thread_renderer()
        self._scene: Scene | None = None
        self._mesh: NavMesh | None = None
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
            raise InputError(NO_SCENE)
        return self._mesh

    def _load(self, path: Path) -> None:
        scene = load_scene(path, self.settings.up)
        if scene is not self._scene:
            self._mesh = navmesh_of(scene, self.settings.agent_height, self.settings.agent_radius)
            self._scene, self._seen = scene, None

    def _put(self, position: NDArray[np.float64], rotation: NDArray[np.float64]) -> None:
        """Nothing to prepare: the pose is all there is."""

    def _move(self, action: Action) -> tuple[Pose, bool]:
        mesh, settings = self.mesh, self.settings
        if action == Action.MOVE_FORWARD:
            position, collided = move_forward(
                mesh, self.position, self._rotation, settings.forward_step, settings.sliding
            )
            return (position, self._rotation), collided
        angle = settings.turn_step if action == Action.TURN_LEFT else -settings.turn_step
        return (self.position, turn(self._rotation, angle)), False

    def _draw(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        if self._renderer is None:
            raise InputError("this environment is closed: make another one")
        if self._scene is None:
            raise InputError(NO_SCENE)
        settings = self.settings
        rgb, depth = self._renderer.render(
            self._scene,
            self.position + [0, settings.camera_height, 0],
            tilted(self._rotation, math.radians(settings.tilt)),
            width=settings.width,
            height=settings.height,
            focal_length=settings.focal_length,
        )
        return rgb, np.minimum(depth, np.float32(MAX_DEPTH_M))

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
            self.mesh, self.position, self._rotation, target, radius, self.settings
        )

    def top_down_map(self) -> TopDownMap:
        """See ``NavEnv``: the cells within 0.5 m above or below the agent."""
        mesh = self.mesh
        near = np.abs(mesh.height - self.position[1]) <= 0.5
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

"""Which simulator: an environment by the name of its backend."""

from pathlib import Path
from typing import Any

from janusvln_ros.actions import FORWARD_STEP_M, TURN_STEP_DEG
from janusvln_ros.errors import InputError
from sim_bridge.nav_env import EnvSettings, NavEnv


def make_env(
    backend: str,
    *,
    scene: str | Path | None = None,
    data_dir: str | Path = "data",
    up: str = "z",
    sliding: bool = True,
    width: int = 640,
    height: int = 480,
    hfov: float = 79.0,
    camera_height: float = 1.25,
    agent_height: float = 1.5,
    agent_radius: float = 0.1,
    forward_step: float = FORWARD_STEP_M,
    turn_step: float = TURN_STEP_DEG,
    max_steps: int = 500,
    success_distance: float = 3.0,
    **backend_options: Any,
) -> NavEnv:
    """
    Make an environment. Defaults are the published settings of JanusVLN.

    Args:
        backend: ``"houses"`` (built in, any ``.glb``) or ``"habitat"`` (habitat-sim in a process
            of its own).
        scene: a ``.glb`` to load at once; without it the first ``reset`` loads the episode's.
        data_dir: scenes of episodes are found at ``<data_dir>/scene_datasets/<scene_id>``.
        up: the axis of the scene files that points up: ``"z"`` (Matterport3D and the generated
            houses) or ``"y"``.
        sliding: slide along obstacles; off stops at the first contact.
        backend_options: further options of the backend (``habitat``: see
            ``sim_bridge.habitat_client.HabitatEnv``).

    Raises:
        InputError: unknown backend, bad value, or the scene cannot be read.
    """
    if up not in ("y", "z"):
        raise InputError(
            f"up is {up!r}: give 'y' or 'z', the axis of the scene file that points up"
        )
    settings = EnvSettings(
        width=width,
        height=height,
        hfov=hfov,
        camera_height=camera_height,
        agent_height=agent_height,
        agent_radius=agent_radius,
        forward_step=forward_step,
        turn_step=turn_step,
        sliding=sliding,
        max_steps=max_steps,
        success_distance=success_distance,
    )
    if backend == "houses":
        from sim_bridge.houses import HousesEnv

        if backend_options:
            raise InputError(f"the houses backend has no option {sorted(backend_options)[0]!r}")
        return HousesEnv(settings, scene=scene, data_dir=data_dir, up=up)
    if backend == "habitat":
        from sim_bridge.habitat_client import HabitatEnv

        return HabitatEnv(settings, scene=scene, data_dir=data_dir, up=up, **backend_options)
    raise InputError(f"simulator backend {backend!r} is not known: use 'houses' or 'habitat'")

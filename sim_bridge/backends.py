"""Which simulator: an environment by the name of its backend."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from janusvln_ros.errors import InputError
from sim_bridge.nav_env import EnvSettings, NavEnv


def make_env(
    backend: str,
    *,
    scene: str | Path | None = None,
    data_dir: str | Path = "data",
    **options: Any,
) -> NavEnv:
    """
    Make an environment. Defaults are the published settings of JanusVLN.

    Args:
        backend: ``"houses"`` (built in, any ``.glb``) or ``"habitat"`` (habitat-sim in a process
            of its own).
        scene: a ``.glb`` to load at once; without it the first ``reset`` loads the episode's.
        data_dir: scenes of episodes are found at ``<data_dir>/scene_datasets/<scene_id>``.
        options: the fields of ``EnvSettings`` (``up``: the axis of the scene files that points up,
            ``"z"`` for Matterport3D and the generated houses, or ``"y"``; ``sliding``: slide along
            obstacles, off stops at the first contact; ``width``, ``height``, ``hfov``, ...), and
            for ``habitat`` those of ``HabitatSettings``.

    Raises:
        InputError: unknown backend, bad value, or the scene cannot be read.
        SetupError: Habitat cannot be run as it is set up.
    """
    shared = options.keys() & {f.name for f in fields(EnvSettings)}
    settings = EnvSettings(**{name: options.pop(name) for name in shared})
    if backend == "houses":
        from sim_bridge.houses import HousesEnv

        if options:
            raise InputError(f"the houses backend has no option {min(options)!r}")
        return HousesEnv(settings, scene=scene, data_dir=data_dir)
    if backend == "habitat":
        from sim_bridge.habitat_client import HabitatEnv, habitat_settings

        return HabitatEnv(settings, habitat_settings(options), scene=scene, data_dir=data_dir)
    raise InputError(f"simulator backend {backend!r} is not known: use 'houses' or 'habitat'")

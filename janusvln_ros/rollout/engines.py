"""
Which engine a worker drives with: the direct one, or one named by whoever starts the run (the ROS
graph), imported only where it is used.
"""

import importlib
from pathlib import Path

from janusvln_ros.errors import InputError
from janusvln_ros.rollout.agents import Agent
from janusvln_ros.rollout.engine import DirectEngine, Engine
from janusvln_ros.rollout.settings import Settings, open_env


def make_engine(
    factory: str | None, settings: Settings, data_dir: Path, agent: Agent, shard: int
) -> Engine:
    """
    Make the engine of a worker.

    Args:
        factory: None for the direct engine, or ``"module:function"`` of a function ``(settings,
            data_dir, agent, shard) -> Engine``: a string, since this room must not import the one
            where ROS lives, and since it has to travel to the worker processes. What follows a
            second colon is given to the function as one more argument.
        settings: of the run.
        data_dir: the user's data folder.
        agent: who drives; an engine that runs the model elsewhere (the node ``policy``) takes
            checkpoint and settings from a `PolicyAgent`.
        shard: number of the worker, unique in the run (for ROS: a domain or namespace of its own).

    Raises:
        InputError: the factory cannot be imported because something that it needs is not
            installed.
    """
    if factory is None:
        return DirectEngine(open_env(settings, data_dir), agent, settings.rules)
    module, function, *extra = factory.split(":", 2)
    try:
        make = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        raise InputError(
            f"driving through {module} needs {error.name}, which is not installed: "
            "source ROS 2 and this package's workspace"
        ) from error
    engine: Engine = make(settings, data_dir, agent, shard, *extra)
    return engine

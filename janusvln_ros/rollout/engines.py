"""Which engine a worker drives with: the direct one, or one named by whoever starts the run (the ROS graph), imported only where it is used."""

import importlib
from pathlib import Path

from janusvln_ros.rollout.agents import Agent
from janusvln_ros.rollout.engine import DirectEngine, Engine
from janusvln_ros.rollout.settings import Settings, open_env


def make_engine(factory: str | None, settings: Settings, data_dir: Path, agent: Agent, shard: int) -> Engine:
    """Make the engine of a worker.

    ``factory`` is None for the direct engine, or ``"module:function"`` of a function ``(settings, data_dir, agent, shard) -> Engine``: a string, since this
    room must not import the one where ROS lives, and since it has to travel to the worker processes.
    """
    if factory is None:
        return DirectEngine(open_env(settings, data_dir), agent, settings.rules)
    module, _, function = factory.partition(":")
    engine: Engine = getattr(importlib.import_module(module), function)(settings, data_dir, agent, shard)
    return engine

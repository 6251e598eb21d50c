#!/usr/bin/env python3
"""
Recorded actions through habitat-lab's own ``Env``, for a comparison of its metrics with ours.

Runs in Habitat's Python (3.9 and newer) and needs nothing but habitat-lab; start it as ``python
habitat_lab.py JOB RESULTS``. ``JOB`` is a JSON object: ``config`` and ``overrides`` as
``habitat.get_config`` takes them (0.2.3 and newer), ``success_distance`` in metres, and
``episodes``, a list of ``scene_id``, ``episode_id`` and ``actions`` (0 to 3). ``RESULTS`` is
written as JSON: ``versions``, and for every episode in order ``ne`` (None: out of reach),
``success``, ``spl`` and ``os``.
"""

import json
import math
import platform
import sys
from pathlib import Path
from typing import Any

ACTIONS = ("stop", "move_forward", "turn_left", "turn_right")


def drive(env: Any, episode: Any, actions: list[int], near: float) -> dict[str, Any]:
    """
    Carry out ``actions`` in ``episode`` and return what habitat-lab measures; oracle success,
    which it does not have, is whether any state was nearer than ``near`` metres.
    """
    env.current_episode = episode
    env.reset()
    measured = env.get_metrics()
    distances = [float(measured["distance_to_goal"])]
    for action in actions:
        if env.episode_over:
            break
        env.step({"action": ACTIONS[action]})
        measured = env.get_metrics()
        distances.append(float(measured["distance_to_goal"]))
    last = distances[-1]
    return {
        "ne": last if math.isfinite(last) else None,
        "success": float(measured["success"]),
        "spl": float(measured["spl"]),
        "os": float(min(distances) < near),
    }


def main(job_path: str, results_path: str) -> int:
    """Do what the module's text says; return the exit code."""
    import habitat

    with Path(job_path).open() as file:
        job = json.load(file)
    env = habitat.Env(config=habitat.get_config(job["config"], job["overrides"]))
    try:
        known = {(Path(e.scene_id).name, str(e.episode_id)): e for e in env.episodes}
        results = []
        for item in job["episodes"]:
            key = (Path(item["scene_id"]).name, item["episode_id"])
            results.append(drive(env, known[key], item["actions"], job["success_distance"]))
    finally:
        env.close()
    versions = {"python": platform.python_version()}
    for name in ("habitat", "habitat_sim"):
        module = sys.modules.get(name)
        versions[name] = str(getattr(module, "__version__", "unknown"))
    with Path(results_path).open("w") as file:
        json.dump({"versions": versions, "episodes": results}, file)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))

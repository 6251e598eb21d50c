"""
The cross-check of a finished evaluation: its recorded actions through habitat-lab's own ``Env``,
in Habitat's interpreter, and the metrics of both side by side.
"""

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from janusvln_ros.data.episodes import Episode, write_episodes
from janusvln_ros.documents import read_json_lines, read_object
from janusvln_ros.errors import InputError, require
from janusvln_ros.files import atomic_write
from janusvln_ros.rollout.settings import Settings
from sim_bridge import habitat_lab
from sim_bridge.habitat_client import (
    CANNOT_DRAW,
    HabitatSettings,
    cannot_draw,
    habitat_settings,
    said,
)

METRICS = {"ne": "NE", "success": "SR", "spl": "SPL", "os": "OSR"}
"""Key of a result line -> its name in the field."""

TOLERANCE = 0.01
"""Metres of NE, and of SPL, up to which the two agree; success and oracle success are equal."""


def verify(
    out: Path, settings: Settings, data_dir: Path, episodes: Sequence[Episode]
) -> dict[str, Any]:
    """
    Drive the results in ``out`` again in habitat-lab and return what differs; it is written to
    ``out/verify.json`` as well.

    Args:
        out: folder of a finished evaluation.
        settings: of that evaluation.
        data_dir: the user's data folder.
        episodes: those that were driven.

    Raises:
        InputError: habitat-lab cannot repeat drives of these settings, or cannot be run.
    """
    lines = read_json_lines(out / "results.jsonl")
    by_key = {(e.scene, e.episode_id, e.instruction): e for e in episodes}
    driven = [
        (by_key[line["scene_id"], str(line["episode_id"]), line["episode_instruction"]], line)
        for line in lines
        if line["status"] != "error"
    ]
    require(driven, f"{out} holds no drive that could be verified")
    theirs = run_habitat_lab(settings, data_dir, driven)
    compared = [
        {
            "scene_id": line["scene_id"],
            "episode_id": line["episode_id"],
            "ours": {key: line[key] for key in METRICS},
            "habitat_lab": found,
            "differs": differing(line, found),
        }
        for (_, line), found in zip(driven, theirs["episodes"], strict=True)
    ]
    report = {
        "episodes": len(compared),
        "equal": sum(not entry["differs"] for entry in compared),
        "tolerance": TOLERANCE,
        "versions": theirs["versions"],
        "compared": compared,
    }
    atomic_write(out / "verify.json", json.dumps(report, indent=1) + "\n")
    return report


def differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Which metrics of one drive differ; a goal out of reach (None) equals only another one."""
    apart = []
    for key in METRICS:
        a, b = ours[key], theirs[key]
        limit = TOLERANCE if key in ("ne", "spl") else 0.0
        if (a is None) != (b is None) or (a is not None and abs(a - b) > limit):
            apart.append(key)
    return apart


def repeatable(settings: Settings) -> HabitatSettings:
    """
    How Habitat is started to repeat drives of these settings.

    Raises:
        InputError: habitat-lab has nothing like one of them, or no interpreter is named.
    """
    env = settings.env
    require(
        env.turn_error == 0 and env.up == "z" and float(env.turn_step).is_integer(),
        "habitat-lab cannot repeat these drives: it knows no env.turn_error, turns by whole "
        "degrees, and takes scenes as z up",
    )
    habitat = habitat_settings(settings.env.options if settings.backend == "habitat" else {})
    habitat.interpreter()
    return habitat


def overrides(settings: Settings, gpu: int, episodes: Path, scenes: Path) -> list[str]:
    """What the settings of a run are called in habitat-lab (0.2.3 and newer), for hydra."""
    env = settings.env
    agent = "habitat.simulator.agents.main_agent"
    values: dict[str, Any] = {
        "habitat.seed": settings.seed,
        "habitat.environment.max_episode_steps": env.max_steps,
        "habitat.simulator.forward_step_size": env.forward_step,
        "habitat.simulator.turn_angle": int(env.turn_step),
        "habitat.simulator.habitat_sim_v0.gpu_device_id": gpu,
        "habitat.simulator.habitat_sim_v0.allow_sliding": env.sliding,
        f"{agent}.height": env.agent_height,
        f"{agent}.radius": env.agent_radius,
        "habitat.task.measurements.success.success_distance": settings.thresholds.success,
        "habitat.dataset.type": "R2RVLN-v1",
        "habitat.dataset.data_path": str(episodes),
        "habitat.dataset.scenes_dir": str(scenes),
    }
    # nobody looks at the pictures
    for sensor in ("rgb_sensor", "depth_sensor"):
        values |= {f"{agent}.sim_sensors.{sensor}.{side}": 32 for side in ("width", "height")}
    return [f"{key}={hydra_value(value)}" for key, value in values.items()]


def hydra_value(value: Any) -> str:
    """A value in the grammar of hydra's overrides."""
    if isinstance(value, str):
        escaped = value.replace("'", "\\'")
        return f"'{escaped}'"
    return str(value).lower() if isinstance(value, bool) else str(value)


def run_habitat_lab(
    settings: Settings, data_dir: Path, driven: Sequence[tuple[Episode, Mapping[str, Any]]]
) -> dict[str, Any]:
    """
    Run the actions of ``driven`` in habitat-lab: what ``habitat_lab.py`` writes.

    Raises:
        InputError: no interpreter is named, or habitat-lab fails in it; with what it said last.
    """
    habitat = repeatable(settings)
    python = habitat.interpreter()
    with tempfile.TemporaryDirectory(prefix="janusvln-") as name:
        folder = Path(name)
        write_episodes(folder / "episodes.json.gz", {id(e): e for e, _ in driven}.values())
        scenes = (data_dir / "scene_datasets").resolve()
        job = {
            "config": "benchmark/nav/vln_r2r.yaml",
            "overrides": overrides(settings, habitat.gpu, folder / "episodes.json.gz", scenes),
            "success_distance": settings.thresholds.oracle,
            "episodes": [
                {
                    "scene_id": e.scene_id,
                    "episode_id": e.episode_id,
                    "actions": line["actions"],
                }
                for e, line in driven
            ],
        }
        (folder / "job.json").write_text(json.dumps(job))
        script = Path(habitat_lab.__file__).resolve()
        command = [python, str(script), str(folder / "job.json"), str(folder / "results.json")]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                check=False,
            )
        except OSError as problem:
            raise InputError(
                f"{python} cannot be started ({problem.strerror}): give Habitat's Python"
            ) from problem
        words = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        if told := next((line for line in words if CANNOT_DRAW.search(line)), ""):
            raise cannot_draw(habitat.gpu, told)
        require(
            done.returncode == 0 and (folder / "results.json").is_file(),
            f"habitat-lab cannot be run by {python} ({said(words[-1] if words else '')}, and "
            f"ended with status {done.returncode}): install habitat-lab of habitat-sim's version "
            "there (docs/simulation.md)",
        )
        return read_object(folder / "results.json", "run it again")


def table(report: Mapping[str, Any]) -> str:
    """The comparison as lines of text: the means of both, then every episode that differs."""
    compared, versions = report["compared"], report["versions"]
    lines = [
        f"habitat-lab {versions['habitat']} on habitat-sim {versions['habitat_sim']}: "
        f"{report['equal']} of {report['episodes']} episodes agree",
        f"  {'':24}{'ours':>10}{'habitat-lab':>13}{'largest difference':>20}",
    ]
    for key, name in METRICS.items():
        pairs = [(c["ours"][key], c["habitat_lab"][key]) for c in compared]
        both = [(a, b) for a, b in pairs if a is not None and b is not None]
        if both:
            mean, mean_there = (sum(side) / len(both) for side in zip(*both, strict=True))
            most = max(abs(a - b) for a, b in both)
            lines.append(f"  {name:24}{mean:10.4f}{mean_there:13.4f}{most:20.6f}")
    for entry in compared:
        for key in entry["differs"]:
            a, b = entry["ours"][key], entry["habitat_lab"][key]
            where = f"{entry['scene_id']}/{entry['episode_id']} {METRICS[key]}"
            lines.append(f"  {where:24}{shown(a):>10}{shown(b):>13}")
    return "\n".join(lines)


def shown(value: float | None) -> str:
    """A metric, or that its goal is out of reach."""
    return "unreachable" if value is None else f"{value:.4f}"

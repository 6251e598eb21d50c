"""
Frames per second of the built-in simulator: RGB and depth with readback, whole steps, and many
environments in one process and in several.

    python benchmarks/rendering.py [--scene HOUSE.glb] [--seconds 3] [--json]

Bars on two idle cores (llvmpipe, no graphics card): 250 frames/s at 320x240 and 60 at 640x480.
Each figure is the median of five runs. Cameras stand at random navigable places and look in random
directions, a new one for every frame. The scene is by default the test house.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from janusvln_ros.actions import Action
from janusvln_ros.geometry import rotation_of_yaw
from sim_bridge import make_env
from sim_bridge.navmesh import CELL_M
from sim_bridge.renderer import thread_renderer

HOUSE = (
    Path(__file__).resolve().parents[1]
    / "test/data/habitat/scene_datasets/mp3d/house_a/house_a.glb"
)
SIZES = ((128, 96), (224, 168), (320, 240), (640, 480))
BARS = {(320, 240): 250.0, (640, 480): 60.0}
RUNS = 5


def poses(env: Any, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Random places on the largest island, random directions."""
    rng, mesh = np.random.default_rng(0), env.mesh
    cells = rng.choice(np.flatnonzero(mesh.island == 0), count)
    places = np.column_stack(
        [
            mesh.origin[0] + (mesh.ij[cells, 0] + 0.5) * CELL_M,
            mesh.height[cells],
            mesh.origin[2] + (mesh.ij[cells, 1] + 0.5) * CELL_M,
        ]
    )
    return [(place, rotation_of_yaw(rng.uniform(-np.pi, np.pi))) for place in places]


def rate(once: Callable[[int], None], seconds: float) -> float:
    """
    How often per second ``once(n)`` runs: the median of ``RUNS`` runs that take ``seconds`` in
    all, after a warm-up.
    """
    for n in range(5):
        once(n)
    rates = []
    for _ in range(RUNS):
        count, start = 0, time.perf_counter()
        while (spent := time.perf_counter() - start) < seconds / RUNS:
            once(count)
            count += 1
        rates.append(count / spent)
    return statistics.median(rates)


def frames(scene: Path, width: int, height: int, seconds: float) -> float:
    """RGB+D frames per second of one environment at random poses."""
    env = make_env("houses", scene=scene, width=width, height=height)
    places = poses(env, 200)

    def once(n: int) -> None:
        env.set_state(*places[n % len(places)])
        env.render()

    return rate(once, seconds)


def steps(
    scene: Path,
    seconds: float,
    width: int = 224,
    height: int = 168,
    environments: int = 8,
    expert: bool = False,
) -> float:
    """
    Steps per second (motion, collision, RGB+D) over ``environments`` that share a scene; actions
    are the expert's, or random ones.
    """
    envs = [
        make_env("houses", scene=scene, width=width, height=height) for _ in range(environments)
    ]
    rng, starts = np.random.default_rng(1), poses(envs[0], 200)
    goals = [place for place, _ in poses(envs[0], 20)]
    for env, start in zip(envs, starts):
        env.set_state(*start)

    def once(n: int) -> None:
        env = envs[n % environments]
        action = (
            env.expert_action(goals[n // 400 % len(goals)], 0.25)
            if expert
            else Action(int(rng.choice([1, 1, 2, 3])))
        )
        if action == Action.STOP:
            env.set_state(*starts[n % len(starts)])
        else:
            env.step(action)

    return rate(once, seconds)


def _steps_in_a_process(scene: Path, seconds: float) -> float:
    # one process per core leaves no cores for the rasteriser's own threads
    os.environ["LP_NUM_THREADS"] = "0"
    return steps(scene, seconds)


def main() -> None:
    """Print the table, and which bars are missed: as on a machine that is busy."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scene", type=Path, default=HOUSE)
    parser.add_argument("--seconds", type=float, default=3.0, help="per figure")
    parser.add_argument(
        "--json", action="store_true", help="one object on stdout instead of the table"
    )
    args = parser.parse_args()

    result: dict[str, Any] = {
        "scene": args.scene.name,
        "device": thread_renderer().device,
        "cores": os.cpu_count(),
        "frames_per_second": {},
    }
    missed = []
    for width, height in SIZES:
        found = frames(args.scene, width, height, args.seconds)
        result["frames_per_second"][f"{width}x{height}"] = round(found, 1)
        if found < BARS.get((width, height), 0.0):
            missed.append(
                f"{width}x{height}: {found:.0f} frames/s, the bar is {BARS[width, height]:.0f}"
            )
    result["steps_per_second_8_environments_224x168"] = round(steps(args.scene, args.seconds), 1)
    result["expert_steps_per_second_8_environments_224x168"] = round(
        steps(args.scene, args.seconds, expert=True), 1
    )
    cores = os.cpu_count() or 1
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        per_process = pool.starmap(_steps_in_a_process, [(args.scene, args.seconds)] * cores)
    result[f"steps_per_second_{cores}_processes_of_8_environments_224x168"] = round(
        sum(per_process), 1
    )
    result["bars_missed"] = missed
    if args.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name}: {value}")


if __name__ == "__main__":
    main()

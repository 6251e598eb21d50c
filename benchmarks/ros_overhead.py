"""
What the ROS graph adds to a lockstep step: time between two decisions, less the model's own time
and the simulator's.

  python benchmarks/ros_overhead.py --steps 300

Drives episodes of houses val_unseen through the real graph, as 'janusvln evaluate policy --ros'
does, and the same actions in this process. Prints p50 and p99.
"""

import argparse
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
from janusvln_msgs.msg import Decision

from janusvln_ros.actions import Action
from janusvln_ros.data.episodes import read_episodes
from janusvln_ros.graph.lockstep import lockstep_graph
from sim_bridge import make_env
from sim_bridge.homes import ensure_split


def main() -> None:
    """Drive, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--data", type=Path, default=Path("data"))
    args = parser.parse_args()
    ensure_split(args.data, "val_unseen")
    episodes = read_episodes(args.data, "houses", "val_unseen").episodes
    between: list[float] = []
    direct: list[float] = []
    env = make_env("houses", data_dir=args.data)
    arrived: list[tuple[float, Decision]] = []
    bridge = {"data_dir": str(args.data.resolve()), "publish_compressed": False}
    with lockstep_graph(bridge, {}) as graph:
        graph.client.node.create_subscription(
            Decision,
            "policy/decision",
            lambda message: arrived.append((time.perf_counter(), message)),
            100,
        )
        for episode in episodes:
            arrived.clear()
            graph.follow(graph.reset(episode.episode_id), episode.instruction, 100)
            between += [
                after[0] - before[0] - after[1].total for before, after in pairwise(arrived)
            ]
            env.reset(episode)
            for _, decision in arrived[:-1]:
                start = time.perf_counter()
                env.step(Action(decision.action))
                direct.append(time.perf_counter() - start)
            if len(between) >= args.steps:
                break
    env.close()
    step, simulator = (
        np.percentile(1e3 * np.asarray(seconds), (50, 99)) for seconds in (between, direct)
    )
    print("| per step, ms | p50 | p99 |\n|---|---|---|")
    for name, (p50, p99) in (
        ("between decisions, less the model", step),
        ("simulator's step and picture, in one process", simulator),
        ("so the graph adds", step - simulator),
    ):
        print(f"| {name} | {p50:.1f} | {p99:.1f} |")
    print(f"\n{len(between)} steps at {env.settings.width}x{env.settings.height}")


if __name__ == "__main__":
    main()

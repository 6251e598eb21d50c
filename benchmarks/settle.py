"""
What 'pipeline: settle' saves: how long the robot stands still for each step (rest confirmed, frame
taken, decided), with and without it, in one run.

    python benchmarks/settle.py [--steps 200] [--checkpoint DIR] [--json]

The real graph in the continuous simulator (houses, 30 Hz camera, 2 % odometry noise, 50 ms
latency), the same episodes in turn for both settings. A model that always goes forward would soon
stand before a wall, so the policy drives as it will; episodes follow until the steps are together.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

SETTINGS = ("none", "settle")


def drive(pipeline: str, steps: int, checkpoint: str, data: Path) -> dict[str, Any]:
    """Drive ``steps`` steps with one setting; figures in seconds."""
    from diagnostic_msgs.msg import DiagnosticArray
    from nav_msgs.msg import Odometry

    from janusvln_ros.graph.client import GraphClient
    from janusvln_ros.graph.composition import resolve
    from janusvln_ros.graph.processes import Processes, middleware_environment, reserved_domain
    from janusvln_ros.protocol.health import percentile

    given = {
        "mode": "continuous",
        "data_dir": str(data.resolve()),
        "split": "val_unseen",
        "checkpoint": checkpoint,
    }
    overrides: dict[str, dict[str, Any]] = {
        "sim_bridge": {
            "image_width": 320,
            "image_height": 240,
            "frame_rate": 30.0,
            "odom_noise": 0.02,
            "odom_latency": 0.05,
        },
        "policy": {"pipeline": pipeline},
    }
    stands: list[float] = []  # how long each standstill between two motions lasted
    since: list[float] = []  # when the present one began
    figures: dict[str, str] = {}
    driven = seconds = 0.0

    def on_truth(message: Odometry) -> None:
        twist = message.twist.twist
        moving = abs(twist.linear.x) > 0.01 or abs(twist.angular.z) > 0.03
        if moving and since:
            stands.append(time.monotonic() - since.pop())
        elif not moving and not since:
            since.append(time.monotonic())

    def on_diagnostics(message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.endswith("policy: state"):
                figures.update({pair.key: pair.value for pair in status.values})

    with reserved_domain() as domain:
        environment = middleware_environment(domain, localhost=True)
        with Processes(resolve("simulation", given, overrides), None, environment) as processes:
            client = GraphClient(environment, processes.check)
            try:
                client.wait_ready()
                client.node.create_subscription(Odometry, "ground_truth", on_truth, 50)
                client.node.create_subscription(
                    DiagnosticArray, "/diagnostics", on_diagnostics, 10
                )
                while driven < steps:
                    episode = client.reset("")
                    client.arm()
                    before = len(stands)
                    outcome = client.drive(
                        episode, episode.instruction, max_steps=min(40, int(steps - driven))
                    )
                    del stands[before : before + 1]  # until the first motion
                    driven, seconds = driven + outcome.steps, seconds + outcome.elapsed
                client.linger(lambda: False, 1.5)
            finally:
                client.close()
    return {
        "pipeline": pipeline,
        "steps": int(driven),
        "standstill_p50": percentile(stands, 50),
        "standstill_p99": percentile(stands, 99),
        "seconds_per_step": seconds / driven,
        "inference_p50": float(figures["inference_p50"]),
        "hidden_per_step": float(figures["hidden_seconds"]) / driven,
        "discarded": int(figures["discarded_decisions"]),
    }


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--checkpoint", default="")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = [drive(pipeline, args.steps, args.checkpoint, args.data) for pipeline in SETTINGS]
    if args.json:
        print(json.dumps(rows))
        return 0
    for name in rows[0]:
        print(
            f"{name:18}"
            + "".join(
                f"{row[name]:>12.4f}" if isinstance(row[name], float) else f"{row[name]!s:>12}"
                for row in rows
            )
        )
    without, having = (row["standstill_p50"] for row in rows)
    print(
        f"standstill saved per step: {without - having:.3f} s (median), {1 - having / without:.0%}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

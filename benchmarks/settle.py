"""What 'pipeline: settle' saves: the wait between the end of one step and the decision for the next, with and without it, in one run.

    python benchmarks/settle.py [--steps 200] [--checkpoint DIR] [--json]

The real graph in the continuous simulator (houses, 30 Hz camera, 2 % odometry noise, 50 ms latency), the same episodes in turn for both settings. A model
that always goes forward would soon stand before a wall, so the policy drives as it will; episodes follow until the steps are together.
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
    from janusvln_msgs.msg import Decision, StepReport

    from janusvln_ros.nodes.graph_client import GraphClient
    from janusvln_ros.nodes.graphs import resolve
    from janusvln_ros.nodes.health import percentile
    from janusvln_ros.nodes.processes import Processes, middleware_environment, reserved_domain

    given = {"mode": "continuous", "data_dir": str(data.resolve()), "split": "val_unseen", "checkpoint": checkpoint}
    overrides: dict[str, dict[str, Any]] = {
        "sim_bridge": {"image_width": 320, "image_height": 240, "frame_rate": 30.0, "odom_noise": 0.02, "odom_latency": 0.05},
        "policy": {"pipeline": pipeline},
    }
    waits: list[float] = []
    ended: list[float] = []
    figures: dict[str, str] = {}
    driven = seconds = 0.0

    def on_decision(message: Decision) -> None:
        if ended:
            waits.append(time.monotonic() - ended.pop())

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
                client.node.create_subscription(Decision, "policy/decision", on_decision, 10)
                client.node.create_subscription(StepReport, "motion/step_report", lambda _: ended.append(time.monotonic()), 10)
                client.node.create_subscription(DiagnosticArray, "/diagnostics", on_diagnostics, 10)
                while driven < steps:
                    episode = client.reset("")
                    client.arm()
                    ended.clear()
                    outcome = client.drive(episode, episode.instruction, max_steps=min(40, int(steps - driven)))
                    driven, seconds = driven + outcome.steps, seconds + outcome.elapsed
                client.linger(lambda: False, 1.5)
            finally:
                client.close()
    return {
        "pipeline": pipeline,
        "steps": int(driven),
        "wait_p50": percentile(waits, 0.5),
        "wait_p99": percentile(waits, 0.99),
        "seconds_per_step": seconds / driven,
        "inference_p50": float(figures["inference_p50"]),
        "hidden_per_step": float(figures["hidden_seconds"]) / driven,
        "discarded": int(figures["discarded_decisions"]),
    }


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
        print(f"{name:18}" + "".join(f"{row[name]:>12.4f}" if isinstance(row[name], float) else f"{row[name]!s:>12}" for row in rows))
    print(f"waiting saved per step: {rows[0]['wait_p50'] - rows[1]['wait_p50']:.3f} s (median), {1 - rows[1]['wait_p50'] / rows[0]['wait_p50']:.0%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

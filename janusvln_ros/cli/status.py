"""
Say what a running graph is and does: its nodes, whether it is armed, what it lacks, what it
decided last, and with which checkpoint.

  janusvln status
  janusvln status --json           one object: nodes, active, armed, missing, last_decision, ...

Exit code 0: there is a graph, whatever it does; 1: there is none.
"""

import argparse
from typing import TYPE_CHECKING, Any

from janusvln_ros.cli.beside import beside
from janusvln_ros.cli.options import JSON, RUNNING
from janusvln_ros.cli.output import answer

if TYPE_CHECKING:
    from janusvln_ros.graph.operating import Operator

OPTIONS = (*RUNNING, JSON)

ESTOP = {"True": "pressed", "False": "released", "silent": "never spoken"}
"""What 'motion' tells of the e-stop, in words."""


def run(args: argparse.Namespace) -> int:
    """Ask and print."""

    def use(operator: "Operator") -> int:
        answer(args.json, operator.status().as_dict(), page)
        return 0

    return beside(args, use)


def page(status: dict[str, Any]) -> str:
    """The status for people."""
    armed = {
        None: "no motion node: nothing to arm" if "motion" not in status["nodes"] else "not told",
        True: "ARMED: the robot may move",
        False: "disarmed",
    }[status["armed"]]
    about = status["about"]
    rows = [
        ("graph", f"ROS domain {status['domain']}, namespace {status['namespace']}"),
        ("nodes", ", ".join(f"{name} ({state})" for name, state in status["nodes"].items())),
        ("armed", armed),
        ("e-stop", ESTOP.get(status["estop"], "not told")),
        ("doing", status["doing"] or "not told"),
        ("last decision", status["last_decision"] or "none yet"),
        (
            "checkpoint",
            f"{about['checkpoint']} ({about['memory']}, {about['precision']} on {about['device']})"
            if "checkpoint" in about
            else "not loaded",
        ),
        *(("missing", text) for text in status["missing"]),
        *(("warning", text) for text in status["problems"]),
    ]
    return "\n".join(f"{name:14} {text}" for name, text in rows)

"""
Stop a running robot: disarm it, and end what it follows, whoever asked for it.

  janusvln stop

Disarming comes first: zero velocity at once. Then the policy lets go of its instruction, and
whoever waits for it is answered CANCELED. Nothing moves again until 'janusvln arm'. Not an
e-stop: that is a button which cuts the power. Exit code 0: stopped; 1: no such graph, or a node
did not answer.
"""

import argparse
from typing import TYPE_CHECKING, Any

from janusvln_ros.cli.beside import beside
from janusvln_ros.cli.options import JSON, RUNNING
from janusvln_ros.cli.output import answer

if TYPE_CHECKING:
    from janusvln_ros.graph.operating import Operator

OPTIONS = (*RUNNING, JSON)


def run(args: argparse.Namespace) -> int:
    """Stop, and say what each node said."""

    def page(said: dict[str, Any]) -> str:
        return "\n".join(f"{node}: {text}" for node, text in said.items())

    def use(operator: "Operator") -> int:
        answer(args.json, operator.stop(), page)
        return 0

    return beside(args, use)

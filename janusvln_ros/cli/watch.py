"""
Show what a running graph decides, one line per decision, and what its nodes warn of, until Ctrl-C.

  janusvln watch
  janusvln watch --json            one JSON object per decision and line, as in decisions.jsonl

Instructions appear when they begin. Watching changes nothing; several may watch.
"""

import argparse
import json
from typing import TYPE_CHECKING, Any

from janusvln_ros.cli.beside import beside
from janusvln_ros.cli.options import RUNNING, option
from janusvln_ros.cli.output import say, show
from janusvln_ros.errors import require

if TYPE_CHECKING:
    from janusvln_ros.graph.operating import Operator

OPTIONS = (
    option("--decisions", type=int, metavar="N", help="end after N decisions (default: never)"),
    *RUNNING,
    option("--json", action="store_true", help="one JSON object per decision on stdout"),
)


def run(args: argparse.Namespace) -> int:
    """Watch until interrupted, or until there were enough decisions."""
    require(
        args.decisions is None or args.decisions >= 1,
        f"--decisions is {args.decisions}: give 1 or more",
    )

    def use(operator: "Operator") -> int:
        from janusvln_ros.graph.client import decision_row

        seen: list[Any] = []

        def decided(message: Any) -> None:
            if args.decisions is not None and len(seen) >= args.decisions:
                return
            if args.json:
                print(json.dumps(decision_row(message)), flush=True)
            else:
                told = not seen or seen[-1].episode_id != message.episode_id
                show("\n".join(lines_of(message, told)))
            seen.append(message)

        say(f"watching {operator.namespace} in ROS domain {operator.domain}; Ctrl-C ends it")
        for _ in operator.watch(decided, say):
            if args.decisions is not None and len(seen) >= args.decisions:
                return 0
        return 0

    return beside(args, use)


def lines_of(message: Any, told: bool) -> list[str]:
    """A decision as a line; before it the instruction where it is to be ``told``."""
    from janusvln_ros.graph.client import decision_row

    row = decision_row(message)
    shares = row["probabilities"]
    sure = f"{100 * max(shares):3.0f} %" if shares else "     "
    what = row["action"] or f"{row['status']}: {row['error']}"
    line = (
        f"  {row['step']:3d} {what:14s} {sure} {1000 * row['timings']['total']:5.0f} ms"
        f"{'' if message.executed else '  (watching only)'}"
    )
    return [f"{message.instruction!r}", line] if told else [line]

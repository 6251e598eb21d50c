"""
Write the SROS2 policy of a running graph: what each of its nodes uses, and nothing else.

  janusvln secure policy.xml

What a file that is there allows stays, so that a graph may be looked at in each of the ways in
which it is run, while it drives too. Nodes take their full names as enclaves, with 'janusvln up'
as with 'ros2 launch'; for 'janusvln go' and the like it is /operator.

Exit code 0: written; 1: there is no such graph.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from janusvln_ros.cli.beside import beside
from janusvln_ros.cli.options import RUNNING, option
from janusvln_ros.cli.output import say

if TYPE_CHECKING:
    from janusvln_ros.graph.operating import Operator

OPTIONS = (option("file", type=Path, metavar="FILE", help="the policy to write"), *RUNNING)


def run(args: argparse.Namespace) -> int:
    """Look at the graph and write, or add to, the file."""

    def use(operator: "Operator") -> int:
        from janusvln_ros.graph.security import joined, read_policy, write_policy

        before = read_policy(args.file) if args.file.exists() else {}
        seen = operator.uses()
        write_policy(args.file, joined(before, seen))
        say(f"{args.file}: what {', '.join(sorted(name for name, _ in seen))} use")
        return 0

    return beside(args, use)

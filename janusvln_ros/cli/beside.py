"""What 'arm', 'go', 'watch', 'stop' and 'status' share: a graph that somebody has started."""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from janusvln_ros.cli.output import say
from janusvln_ros.errors import require
from janusvln_ros.graph.installed import require_ros
from janusvln_ros.graph.processes import DOMAINS

if TYPE_CHECKING:
    from janusvln_ros.graph.operating import Operator


def beside(args: argparse.Namespace, use: "Callable[[Operator], int]") -> int:
    """
    Give ``use`` the graph that the options mean and return its exit code, or 1 with a sentence
    where there is no such graph or it does not do what is asked.

    Raises:
        InputError: ROS is not installed, or the domain is out of range.
    """
    require_ros()
    require(
        args.domain is None or args.domain in DOMAINS,
        f"ROS domain {args.domain} is out of range: give one from 0 to {DOMAINS[-1]}",
    )
    from janusvln_ros.graph.operating import NoGraphError, operating

    try:
        with operating(args.domain, args.namespace) as operator:
            return use(operator)
    except NoGraphError as error:
        say(f"error: {error}")
        return 1

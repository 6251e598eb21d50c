"""What the commands share that work beside a graph which somebody has started."""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from janusvln_ros.cli.output import say
from janusvln_ros.errors import require
from janusvln_ros.graph.installed import require_ros
from janusvln_ros.graph.processes import DOMAINS

if TYPE_CHECKING:
    from janusvln_ros.graph.operating import Operator


def usable(domain: int | None) -> None:
    """
    Return if ``domain`` is a ROS domain (None: as ROS_DOMAIN_ID says).

    Raises:
        InputError: it is out of range.
    """
    require(
        domain is None or domain in DOMAINS,
        f"ROS domain {domain} is out of range: give one from 0 to {DOMAINS[-1]}",
    )


def beside(args: argparse.Namespace, use: "Callable[[Operator], int]") -> int:
    """
    Give ``use`` the graph that the options mean and return its exit code, or 1 with a sentence
    where there is no such graph or it does not do what is asked.

    Raises:
        InputError: ROS is not installed, or the domain is out of range.
    """
    require_ros()
    usable(args.domain)
    from janusvln_ros.graph.operating import NoGraphError, operating

    try:
        with operating(args.domain, args.namespace) as operator:
            return use(operator)
    except NoGraphError as error:
        say(f"error: {error}")
        return 1

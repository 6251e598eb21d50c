"""
Start a graph of nodes without 'ros2 launch': the same nodes, parameters and remaps as
launch/GRAPH.launch.py, from config/graphs.yaml.

  janusvln up simulation                          policy and a simulated house, in lockstep
  janusvln up simulation mode:=continuous         a base with odometry, motion and its safety chain
  janusvln up robot image:=/oakd/rgb/image_raw    policy and motion beside a camera and a base
  janusvln up replay bag:=drives/kitchen          a rosbag plays, policy watches

'janusvln up GRAPH --arguments' lists what a graph can be given. ROS_DOMAIN_ID and the other
variables of ROS 2 are respected. The nodes' output goes to stderr, or with --log-dir to one file
per node. Ctrl-C ends every node within 2 s; if one node ends by itself, so do the others.
"""

import argparse
import os
import signal
import time
from types import FrameType

from janusvln_ros.cli.options import JSON, LOG_DIR, option
from janusvln_ros.cli.output import print_json, say
from janusvln_ros.errors import require
from janusvln_ros.graph.composition import (
    graph_arguments,
    parse_assignments,
    parse_parameters,
    resolve,
)
from janusvln_ros.graph.installed import require_ros
from janusvln_ros.graph.processes import (
    NodeEndedError,
    Processes,
    domain_owners,
    middleware_environment,
)

OPTIONS = (
    option("graph", metavar="GRAPH", help="simulation, robot or replay"),
    option("given", nargs="*", metavar="NAME:=VALUE", help="arguments of the graph"),
    option("--arguments", action="store_true", help="list the graph's arguments and end"),
    option(
        "--param",
        action="append",
        default=[],
        metavar="NODE.NAME:=VALUE",
        help="set one parameter of one node; may be repeated",
    ),
    option("--localhost", action="store_true", help="talk to nodes on this machine only"),
    option("--domain", type=int, metavar="N", help="ROS domain (default: ROS_DOMAIN_ID)"),
    LOG_DIR,
    JSON,
)


def run(args: argparse.Namespace) -> int:
    """
    Start the graph and wait.

    Exit code 0: ended by SIGTERM, or a node was done (the player at the end of its bag); 130: by
    Ctrl-C; 1: a node failed.
    """
    if args.arguments:
        for argument in graph_arguments(args.graph):
            name = f"{argument.name}:={argument.default or '...'}"
            print(f"{name:28} {argument.description}{' (required)' * argument.required}")
        return 0
    specs = resolve(args.graph, parse_assignments(args.given), parse_parameters(args.param))
    if args.json:
        nodes = [
            vars(spec) | {"executable": spec.executable, "files": list(map(str, spec.files))}
            for spec in specs
        ]
        print_json({"graph": args.graph, "nodes": nodes})
        return 0
    require_ros()
    environment = middleware_environment(args.domain, args.localhost)
    domain = usable_domain(int(environment.get("ROS_DOMAIN_ID", "0")))
    if args.log_dir is not None:
        args.log_dir.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, end)
    with Processes(specs, args.log_dir, environment) as processes:
        names = ", ".join(spec.name for spec in specs)
        say(f"{names} started in ROS domain {domain}; Ctrl-C ends them")
        try:
            while True:
                processes.check()
                time.sleep(0.1)
        except NodeEndedError as error:
            done = error.code == 0  # the player at the end of its bag
            say(f"{error.name} is done; the other nodes end too" if done else f"error: {error}")
            return 0 if done else 1


def usable_domain(domain: int) -> int:
    """
    Return ``domain``.

    Raises:
        InputError: it is out of range, or another user of this machine uses it.
    """
    require(0 <= domain <= 101, f"ROS domain {domain} is out of range: give one from 0 to 101")
    others = domain_owners(domain) - {os.getuid()}
    require(
        not others,
        f"ROS domain {domain} is in use on this machine by user id "
        f"{', '.join(map(str, sorted(others)))}: give another with --domain",
    )
    return domain


def end(number: int, frame: FrameType | None) -> None:
    """Leave by an exception, so that every node is ended."""
    raise SystemExit(0)

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
import sys
import time
from pathlib import Path
from types import FrameType

from janusvln_ros.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    Declare the options.

    They may stand before, between and after the graph's arguments, which plain parse_args does not
    take.
    """
    setattr(parser, "parse_args", parser.parse_intermixed_args)  # noqa: B010
    parser.add_argument("graph", metavar="GRAPH", help="simulation, robot or replay")
    parser.add_argument("given", nargs="*", metavar="NAME:=VALUE", help="arguments of the graph")
    parser.add_argument(
        "--arguments", action="store_true", help="list the graph's arguments and end"
    )
    parser.add_argument(
        "--param",
        action="append",
        default=[],
        metavar="NODE.NAME:=VALUE",
        help="set one parameter of one node; may be repeated",
    )
    parser.add_argument(
        "--localhost", action="store_true", help="talk to nodes on this machine only"
    )
    parser.add_argument(
        "--domain", type=int, metavar="N", help="ROS domain (default: ROS_DOMAIN_ID)"
    )
    parser.add_argument(
        "--log-dir", type=Path, metavar="DIR", help="write each node's output to DIR/NODE.log"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the nodes, without starting them, as one object on stdout",
    )


def run(args: argparse.Namespace) -> int:
    """
    Start the graph and wait.

    Exit code 0: ended by SIGTERM, or a node was done (the player at the end of its bag); 130: by
    Ctrl-C; 1: a node failed.
    """
    from janusvln_ros.graph.composition import (
        graph_arguments,
        parse_assignments,
        parse_parameters,
        resolve,
    )
    from janusvln_ros.graph.processes import (
        NodeEndedError,
        Processes,
        command,
        domain_owners,
        middleware_environment,
    )

    if args.arguments:
        for argument in graph_arguments(args.graph):
            print(
                f"{argument.name + ':=' + (argument.default or '...'):28} "
                f"{argument.description}{' (required)' if argument.required else ''}"
            )
        return 0
    specs = resolve(args.graph, parse_assignments(args.given), parse_parameters(args.param))
    if args.json:
        from janusvln_ros.cli.main import print_json

        print_json(
            {
                "graph": args.graph,
                "nodes": [
                    {"executable": spec.executable, "command": command(spec)} for spec in specs
                ],
            }
        )
        return 0
    from janusvln_ros.graph.installed import require_ros

    require_ros()
    if args.domain is not None and not 0 <= args.domain <= 101:
        raise InputError(f"ROS domain {args.domain} is out of range: give one from 0 to 101")
    environment = middleware_environment(args.domain, args.localhost)
    domain = int(environment.get("ROS_DOMAIN_ID", "0"))
    others = domain_owners(domain) - {os.getuid()}
    if others:
        raise InputError(
            f"ROS domain {domain} is in use on this machine by user id "
            f"{', '.join(map(str, sorted(others)))}: give another with --domain"
        )
    if args.log_dir is not None:
        args.log_dir.mkdir(parents=True, exist_ok=True)

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, end)
    with Processes(specs, args.log_dir, environment) as processes:
        print(
            f"{', '.join(spec.executable for spec in specs)} started in ROS domain "
            f"{domain}; Ctrl-C ends them",
            file=sys.stderr,
            flush=True,
        )
        try:
            while True:
                processes.check()
                time.sleep(0.1)
        except NodeEndedError as error:
            if error.code == 0:  # the player at the end of its bag
                print(f"{error.name} is done; the other nodes end too", file=sys.stderr)
                return 0
            print(f"error: {error}", file=sys.stderr)
            return 1

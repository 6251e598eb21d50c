"""
Allow a running robot to move: what 'ros2 service call motion/arm' does, without ROS's tools.

  janusvln arm                     the robot of the only graph in the domain
  janusvln arm --namespace robot1
  janusvln arm --off               disarm, and leave the rest as it is; 'janusvln stop' does more

'motion' says why it refuses: no odometry, an e-stop that is pressed, nobody who takes the
velocity, no time-out of the base. A simulation in lockstep moves without being armed; a graph that
replays a bag moves nothing. Exit code 0: as asked; 1: refused, or no such graph.
"""

import argparse
from typing import TYPE_CHECKING, Any

from janusvln_ros.cli.beside import beside
from janusvln_ros.cli.options import JSON, RUNNING, option
from janusvln_ros.cli.output import answer

if TYPE_CHECKING:
    from janusvln_ros.graph.operating import Operator

OPTIONS = (option("--off", action="store_true", help="disarm instead"), *RUNNING, JSON)


def run(args: argparse.Namespace) -> int:
    """Arm or disarm, and say what 'motion' said."""

    def use(operator: "Operator") -> int:
        result: dict[str, Any]
        if not operator.has("motion") and operator.moves_without_motion():
            result = {"armed": None, "message": "in lockstep the world moves without being armed"}
        else:
            result = {"armed": not args.off, "message": operator.arm(not args.off)}
        answer(args.json, result, lambda result: str(result["message"]))
        return 0

    return beside(args, use)

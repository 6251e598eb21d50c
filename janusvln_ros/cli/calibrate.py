"""
Measure with a tape what a robot makes of its commands, beside 'motion' while it makes steps.

  janusvln calibrate forward                    four steps, then it asks for the metres
  janusvln calibrate turn --steps 6             six turns the same way, then for the degrees
  janusvln calibrate forward --measured 0.93    asks nothing

It moves nothing: mark where the robot stands, start this, let the robot make its steps (the
calibration walk in docs/robot.md, or 'janusvln go'), and measure when it asks. What it prints are
the parameters 'execution' and 'turn_execution' of 'motion', by which it bounds a step whatever
odometry says, and how far odometry is off.
"""

import argparse
import math
import sys
from typing import TYPE_CHECKING, Any

from janusvln_ros.actions import Action
from janusvln_ros.cli.beside import beside
from janusvln_ros.cli.options import JSON, RUNNING, option
from janusvln_ros.cli.output import answer, say
from janusvln_ros.errors import InputError, require
from janusvln_ros.geometry import yaw_of
from janusvln_ros.protocol.calibration import Walk, advice, gains
from janusvln_ros.protocol.status import StepStatus

if TYPE_CHECKING:
    from janusvln_ros.graph.operating import Operator

OPTIONS = (
    option("kind", choices=("forward", "turn"), help="which steps are measured"),
    option("--steps", type=int, default=4, metavar="N", help="how many (default: %(default)s)"),
    option(
        "--measured",
        type=float,
        metavar="X",
        help="metres, or degrees of turns, of all steps together (default: it asks)",
    ),
    *RUNNING,
    JSON,
)

UNITS = {
    "forward": ("metres", "execution", 1.0),
    "turn": ("degrees", "turn_execution", 180 / math.pi),
}
"""For each kind: what the tape measures, the parameter, units of it in one of the ledger."""


def run(args: argparse.Namespace) -> int:
    """Add up the steps, ask for the tape, and say what follows."""
    require(args.steps >= 1, f"--steps is {args.steps}: give 1 or more")
    require(
        args.measured is None or args.measured > 0,
        f"--measured is {args.measured}: give the way of all steps together, above 0",
    )
    unit, parameter, scale = UNITS[args.kind]

    def use(operator: "Operator") -> int:
        walk = Walk()

        def stepped(report: Any) -> None:
            nonlocal walk
            walk = with_report(walk, report, args.kind, args.steps)

        say(
            f"waiting for {args.steps} steps ({args.kind}) of {operator.namespace}; Ctrl-C ends it"
        )
        for _ in operator.step_reports(stepped):
            if walk.steps >= args.steps:
                break
        sums = (
            f"{scale * walk.commanded:.2f} {unit} commanded, odometry saw {scale * walk.seen:.2f}"
        )
        say(f"{walk.steps} steps: {sums}")
        measured = asked(unit) if args.measured is None else args.measured
        found = gains(walk, measured / scale)
        result = {
            "steps": walk.steps,
            "commanded": scale * walk.commanded,
            "odometry": scale * walk.seen,
            "measured": measured,
            parameter: found.execution,
            "odometry_scale": found.scale,
        }
        answer(args.json, result, lambda _: "\n".join(advice(found, parameter)))
        return 0

    return beside(args, use)


def with_report(walk: Walk, report: Any, kind: str, steps: int) -> Walk:
    """Return the walk with a step that was reported, if it is one of those that are measured."""
    turns = report.action in (Action.TURN_LEFT, Action.TURN_RIGHT)
    if turns != (kind == "turn") or report.action == Action.STOP or walk.steps >= steps:
        return walk
    if report.status != StepStatus.SUCCEEDED:
        say(f"a step ended with status {report.status} and does not count: {report.error_msg}")
        return walk
    pose = report.pose_change
    q = pose.orientation
    seen = abs(yaw_of(q.x, q.y, q.z, q.w)) if turns else pose.position.x
    say(f"step {walk.steps + 1} of {steps}")
    return walk.with_step(report.commanded, seen)


def asked(unit: str) -> float:
    """
    Ask for what the tape says.

    Raises:
        InputError: it is no number.
    """
    print(f"{unit} that the tape says, from start to end: ", end="", file=sys.stderr, flush=True)
    said = sys.stdin.readline().strip().replace(",", ".")
    try:
        return float(said)
    except ValueError:
        raise InputError(f"{said!r} is no number of {unit}") from None

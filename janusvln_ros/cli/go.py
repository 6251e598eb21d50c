"""
Tell a running robot where to go, show every step, and wait until it is there.

  janusvln go "walk past the sofa and stop at the door"
  janusvln go "..." --arm          arm it first, and disarm it afterwards

Sends a goal of the action follow_instruction and prints its feedback. Ctrl-C cancels it and waits
until the robot rests; a newer instruction replaces it. A robot must be armed ('janusvln arm'). In
a graph that watches only (replay, watch:=true) the decisions are shown and nothing moves.

Exit code 0: the policy stopped by itself; 1: it ended otherwise, with the sentence that says why,
or there is no such graph; 130: cancelled by Ctrl-C.
"""

import argparse
from typing import TYPE_CHECKING, Any

from janusvln_ros.actions import known_action
from janusvln_ros.cli.beside import beside
from janusvln_ros.cli.options import JSON, RUNNING, option
from janusvln_ros.cli.output import answer, say
from janusvln_ros.errors import require
from janusvln_ros.policy.instruction import MAX_INSTRUCTION, clean_instruction

if TYPE_CHECKING:
    from janusvln_ros.graph.operating import Drive, Operator

OPTIONS = (
    option("instruction", metavar="TEXT", help="where to go, in words"),
    option("--arm", action="store_true", help="arm the robot first, and disarm it afterwards"),
    option(
        "--max-steps",
        type=int,
        default=0,
        metavar="N",
        help="decisions after which the drive ends (default: as the policy is set)",
    ),
    option(
        "--time-limit",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="after which the drive ends (default: as the policy is set)",
    ),
    *RUNNING,
    JSON,
)


def run(args: argparse.Namespace) -> int:
    """Send the instruction and follow it to its end."""
    text = clean_instruction(args.instruction, MAX_INSTRUCTION)
    require(0 <= args.max_steps < 2**32, f"--max-steps is {args.max_steps}: give 1 or more")
    require(
        0 <= args.time_limit < float("inf"),
        f"--time-limit is {args.time_limit}: give the seconds",
    )

    def use(operator: "Operator") -> int:
        armed = args.arm and operator.has("motion")
        if armed:
            say(operator.arm(True))
        try:
            drive = operator.follow(text, args.max_steps, args.time_limit, show)
        except KeyboardInterrupt:
            say("cancelled: the goal was withdrawn")
            raise
        finally:
            if armed:
                operator.arm(False)
        return report(args.json, drive)

    return beside(args, use)


def show(feedback: Any) -> None:
    """
    Print one line per decision, on stderr; before the first what the network is told, where that
    is not the instruction, and what may not be understood.
    """
    if feedback.step == 0 and feedback.told:
        say(f"the network is told: {feedback.told}")
    if feedback.step == 0 and feedback.warning:
        say(f"warning: the instruction may not be understood: {feedback.warning}")
    action = known_action(feedback.action)
    name = "not understood" if action is None else action.name
    sure = max(feedback.probabilities)
    say(
        f"  {feedback.step:3d} {name:14s} {'' if sure != sure else f'{100 * sure:3.0f} %'} "
        f"{feedback.inference_time * 1000:5.0f} ms  {feedback.path_length:5.2f} m"
    )


def report(as_json: bool, drive: "Drive") -> int:
    """Print how the drive ended; return the exit code."""
    answer(as_json, vars(drive), lambda _: sentence(drive))
    return 0 if drive.code == "NONE" else 1


def sentence(drive: "Drive") -> str:
    """How the drive ended, for people."""
    well = drive.code == "NONE"
    how = "stopped by itself" if well else f"ended with {drive.code}: {drive.message}"
    remedy = "; arm it with 'janusvln arm', or give --arm" if drive.code == "DISARMED" else ""
    return (
        f"{how}{remedy} (after {drive.steps} steps, {drive.path_length:.2f} m, "
        f"{drive.elapsed:.1f} s)"
    )

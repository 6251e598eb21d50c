"""
Drive for hours in the continuous simulator with faults injected, and report what a robot's owner
wants to know.

Starts policy, motion and a simulated house as processes of their own, arms the robot, and gives it
one instruction after another. At random moments it does to the graph what happens to robots:
cancels, gives a new instruction in mid-step, presses the e-stop, disarms, floods the instruction
topic, freezes a process for some tenths of a second, or kills policy with SIGKILL (it is started
again). Between faults it watches, on the steady clock:

  unsafe moments   the base moves (measured truth, not odometry) although it has been disarmed,
                   e-stopped or cancelled for longer than the promise of 0.35 s and the braking
                   that follows it, or beyond one step after policy was killed. Must be 0.
  memory growth    of policy and of motion, most resident bytes beyond those at the end of the
                   warm-up
  late callbacks   by how much the timers of policy and motion were called too late, worst of each
                   second: as long as their other callbacks took
  dropped frames   camera frames published but never received here, as a share
  latency drift    median of the decisions' total time in the last tenth of the drive minus that
                   in the first

Exit code 0: no unsafe moment; 1: at least one, or the graph failed. Interrupt with Ctrl-C: the
report covers the time until then.
"""

import argparse

from janusvln_ros.cli.options import DATA, DOMAIN, JSON, LOG_DIR, SHIPPED, SIZE, option
from janusvln_ros.cli.output import answer, say
from janusvln_ros.errors import require
from janusvln_ros.graph.installed import require_ros
from sim_bridge.homes import ensure_split

FAULTS = ("cancel", "preempt", "estop", "disarm", "flood", "freeze", "kill_policy")


OPTIONS = (
    option("--hours", type=float, default=1.0, metavar="H", help="how long to drive (default: 1)"),
    option(
        "--every",
        type=float,
        default=20.0,
        metavar="SECONDS",
        help="mean time between faults (default: 20)",
    ),
    option(
        "--faults",
        default=",".join(FAULTS),
        metavar="NAMES",
        help=f"faults to inject, of {', '.join(FAULTS)}; empty: none (default: all)",
    ),
    option("--seed", type=int, default=0, help="seed of what happens when (default: 0)"),
    DATA,
    option("--split", default="val_unseen", help="split of the episodes (default: val_unseen)"),
    SHIPPED,
    SIZE._replace(settings=SIZE.settings | {"default": "320x240"}),
    option(
        "--frame-rate",
        type=float,
        default=10.0,
        metavar="HZ",
        help="camera frames per second (default: 10)",
    ),
    option(
        "--max-steps",
        type=int,
        default=60,
        metavar="N",
        help="steps after which an episode ends (default: 60)",
    ),
    LOG_DIR,
    DOMAIN,
    JSON,
)


def run(args: argparse.Namespace) -> int:
    """Run the soak."""
    require(0 < args.hours <= 1000, f"--hours is {args.hours}: give more than 0 and at most 1000")
    require(args.every > 0, f"--every is {args.every}: give the mean seconds between faults")
    faults = tuple(name for name in args.faults.split(",") if name)
    for name in faults:
        require(name in FAULTS, f"--faults names '{name}': choose of {', '.join(FAULTS)}")
    require_ros()
    from janusvln_ros.graph.soak import Plan, soak

    width, height = args.size
    ensure_split(args.data, args.split)
    plan = Plan(
        seconds=args.hours * 3600,
        every=args.every,
        faults=faults,
        seed=args.seed,
        data_dir=args.data.resolve(),
        split=args.split,
        checkpoint=args.checkpoint,
        width=width,
        height=height,
        frame_rate=args.frame_rate,
        max_steps=args.max_steps,
        log_dir=args.log_dir,
        domain=args.domain,
    )
    report = soak(plan, say)
    answer(
        args.json,
        report,
        lambda report: "\n".join(f"{name:22} {value}" for name, value in report.items()),
    )
    return 1 if report["unsafe_moments"] or report["error"] else 0

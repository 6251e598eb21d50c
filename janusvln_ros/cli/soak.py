"""
Drive for hours in the continuous simulator with faults injected, and report what a robot's owner
wants to know.

Starts policy, motion and a simulated house as processes of their own, arms the robot, and gives it
one instruction after another. At random moments it does to the graph what happens to robots: what
sensors say is spoilt on its way (odometry that stops, jumps, lies or is late; scans and depth that
are blind, old or absurd; pictures that are torn), processes are frozen, killed or deactivated, the
client falls silent, e-stops are pressed, edges seen, goals cancelled and preempted. It watches, on
the steady clock and by the simulator's truth, not by odometry:

  unsafe moments   the base moves for longer than the promise of 0.35 s and the braking that
                   follows it, though a fault says that it must rest; one step moves it by more
                   than one and a half; a drive goes on although it must end. Must be 0.
  worst step       the most metres and radians that one step truly moved the base
  memory growth    of each process, by how much the lowest resident bytes of a later minute exceed
                   those of the first one after its warm-up; and its swing, by how much the most
                   of all exceeds the most of the warm-up
  late callbacks   by how much the timers of policy and motion were called too late, worst of each
                   second: as long as their other callbacks took
  dropped frames   camera frames published but never received here
  unreachable      how often a node that was killed answered nobody when it was started again
  latency drift    median of the decisions' total time in the last tenth of the drive minus that
                   in the first

With --out, the drive is kept piece by piece: the same command goes on where it was stopped, until
all pieces together have lasted --hours, and the report is on all of them.

Exit code 0: no unsafe moment; 1: at least one, or the graph failed. Interrupt with Ctrl-C: the
report covers the time until then.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from janusvln_ros.cli.options import DATA, DOMAIN, JSON, LOG_DIR, SHIPPED, SIZE, option
from janusvln_ros.cli.output import answer, say
from janusvln_ros.errors import require
from janusvln_ros.graph.installed import require_ros
from sim_bridge.homes import ensure_split

if TYPE_CHECKING:
    from janusvln_ros.graph.soak.pieces import Record

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
        metavar="NAMES",
        help="faults to inject, some of those that --list-faults prints; '' for none (default: "
        "all)",
    ),
    option("--list-faults", action="store_true", help="print the names of the faults, and end"),
    option(
        "--range",
        choices=("scan", "depth"),
        default="scan",
        help="what guards the way ahead (default: scan)",
    ),
    option("--seed", type=int, default=0, help="seed of what happens when (default: 0)"),
    option(
        "--out", type=Path, metavar="DIR", help="keep the pieces of the drive there, and go on"
    ),
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
    require_ros()
    from janusvln_ros.graph.soak.drive import Plan, faults_of, soak
    from janusvln_ros.graph.soak.pieces import keep_piece, kept_pieces, report

    known = faults_of(args.range)
    if args.list_faults:
        say("\n".join(known))
        return 0
    faults = known if args.faults is None else tuple(filter(None, args.faults.split(",")))
    for name in faults:
        require(name in known, f"--faults names '{name}': choose of {', '.join(known)}")
    before = kept_pieces(args.out) if args.out else []
    left = args.hours * 3600 - sum(piece.seconds for piece in before)
    pieces = before
    if left > 0:
        width, height = args.size
        ensure_split(args.data, args.split)
        plan = Plan(
            seconds=left,
            every=args.every,
            faults=faults,
            seed=args.seed + len(before),
            data_dir=args.data.resolve(),
            split=args.split,
            checkpoint=args.checkpoint,
            width=width,
            height=height,
            frame_rate=args.frame_rate,
            max_steps=args.max_steps,
            range_source=args.range,
            log_dir=args.log_dir,
            domain=args.domain,
        )

        def keep(record: "Record") -> None:
            if args.out:
                keep_piece(args.out, len(before), record)

        pieces = [*before, soak(plan, say, keep)]
    told = report(pieces)
    answer(
        args.json,
        told,
        lambda told: "\n".join(f"{name:22} {value}" for name, value in told.items()),
    )
    return 1 if told["unsafe_moments"] or told["error"] else 0

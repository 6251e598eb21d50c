"""
Collect expert trajectories to learn from, in the published layout
(images/<scene>_<dataset>_<episode>/rgb/000.jpg, annotations.json).

    janusvln collect --dataset houses --split train --out data/trajectory_data/houses --noise 0.2

The shortest-path follower drives along each episode's reference path. With --noise P its action is
replaced by a random move with probability P; the "labels" in annotations.json are the expert's
actions at every frame either way, and every frame within collect.stop_radius of the goal is
labelled STOP. Houses are generated on first use.

It may be interrupted or killed at any moment: the same command goes on where it stopped. Under
torchrun every rank takes its share.
"""

import argparse
import sys
from pathlib import Path

from janusvln_ros.cli.options import ROLLOUT, option, settings_changes

ROS_ENGINE = "janusvln_ros.cli.ros_rollout:make_engine"
"""Where ``--ros`` finds the engine that drives through the graph; imported by the workers only."""


OPTIONS = (
    *ROLLOUT,
    option(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder to write to; one that holds a part of this collection is continued",
    ),
    option(
        "--noise",
        type=float,
        default=0.0,
        metavar="P",
        help="probability that a random move is executed instead (default: %(default)s)",
    ),
    option("--limit", type=int, metavar="N", help="collect N episodes (default: all)"),
    option(
        "--ros",
        action="store_true",
        help="drive through the ROS graph in lockstep (the bridge's data-collection job)",
    ),
)


def run(args: argparse.Namespace) -> int:
    """Collect, merge, and say what was written."""
    from janusvln_ros.rollout.collect import CollectJob
    from janusvln_ros.rollout.run import execute
    from janusvln_ros.rollout.settings import load_settings
    from janusvln_ros.rollout.shards import Place

    settings = load_settings(args.config or args.dataset, ["split=train", *settings_changes(args)])
    job = CollectJob(args.out, settings, args.data, args.noise, ROS_ENGINE if args.ros else None)
    identity = {"collect": {"noise": args.noise}}
    done = execute(
        job,
        settings,
        args.data,
        place=Place.from_environment(),
        workers=args.workers,
        count=args.limit,
        identity=identity,
        title="collect",
    )
    if done is None:
        return 0
    finish(args, len(done[0].rejected))
    return 0


def finish(args: argparse.Namespace, rejected: int) -> None:
    """
    Merge the journals of a collection in ``args.out``, and say what is in it; ``rejected``:
    episodes that could not be read.
    """
    from janusvln_ros.cli.output import print_json
    from janusvln_ros.data.trajectories import merge

    lines = merge(args.out)
    kept = [line for line in lines if line["annotation"] is not None]
    frames = sum(len(line["annotation"]["actions"]) for line in kept)
    print(
        f"{len(kept)} of {len(lines)} episodes kept, {frames} frames: {args.out}/annotations.json",
        file=sys.stderr,
    )
    if args.json:
        print_json(
            {
                "episodes": len(lines),
                "kept": len(kept),
                "frames": frames,
                "rejected": rejected,
                "out": str(args.out),
            }
        )

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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from janusvln_ros.rollout.engine import MakeEngine


def add_rollout_arguments(parser: argparse.ArgumentParser, dataset: str | None = "houses") -> None:
    """Add the arguments that all rollout commands share."""
    parser.add_argument(
        "--dataset",
        default=dataset,
        metavar="NAME",
        help="settings in config/eval: houses, r2r, rxr or scalevln (default: %(default)s)",
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="settings file instead of the one of --dataset"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one setting, as in rules.max_steps=300; may be repeated",
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("data"),
        metavar="DIR",
        help="data folder (default: %(default)s)",
    )
    parser.add_argument("--split", metavar="NAME", help="split (default: as the settings say)")
    parser.add_argument(
        "--backend", choices=("houses", "habitat"), help="simulator (default: as the settings say)"
    )
    parser.add_argument(
        "--width", type=int, metavar="PX", help="camera width (default: as the settings say)"
    )
    parser.add_argument(
        "--height", type=int, metavar="PX", help="camera height (default: as the settings say)"
    )
    parser.add_argument(
        "--seed",
        type=int,
        metavar="N",
        help="seed of everything random (default: as the settings say)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="processes on this machine (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def settings_changes(args: argparse.Namespace) -> list[str]:
    """Turn the short options into changes of the settings; what --set says comes last and wins."""
    short = {
        "split": args.split,
        "backend": args.backend,
        "env.width": args.width,
        "env.height": args.height,
        "seed": args.seed,
    }
    return [f"{key}={value}" for key, value in short.items() if value is not None] + args.set


def engine_of(args: argparse.Namespace, bags: Path | None = None) -> "MakeEngine":
    """
    What drives: the graph of nodes with ``--ros`` (which then records into the folder ``bags``),
    else agent and simulator in one process.

    Raises:
        InputError: the graph cannot be imported because something that it needs is not installed.
    """
    from janusvln_ros.errors import InputError
    from janusvln_ros.rollout.engine import direct_engine

    if not args.ros:
        return direct_engine
    try:
        from janusvln_ros.graph.ros_engine import make_engine
    except ModuleNotFoundError as error:
        raise InputError(
            f"driving through the graph of nodes needs {error.name}, which is not installed: "
            "source ROS 2 and this package's workspace"
        ) from error
    return partial(make_engine, bags=bags)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_rollout_arguments(parser)
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder to write to; one that holds a part of this collection is continued",
    )
    parser.add_argument(
        "--noise",
        type=float,
        default=0.0,
        metavar="P",
        help="probability that a random move is executed instead (default: %(default)s)",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="collect N episodes (default: all)")
    parser.add_argument(
        "--ros",
        action="store_true",
        help="drive through the ROS graph in lockstep (the bridge's data-collection job)",
    )


def run(args: argparse.Namespace) -> int:
    """Collect, merge, and say what was written."""
    from janusvln_ros.rollout.collect import CollectJob
    from janusvln_ros.rollout.run import execute
    from janusvln_ros.rollout.settings import load_settings
    from janusvln_ros.rollout.shards import Place

    settings = load_settings(args.config or args.dataset, ["split=train", *settings_changes(args)])
    job = CollectJob(args.out, settings, args.data, args.noise, engine_of(args))
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
    from janusvln_ros.cli.main import print_json
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

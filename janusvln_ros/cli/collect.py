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
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from janusvln_ros.cli.options import COLLECTION, ROLLOUT, option, settings_changes
from janusvln_ros.cli.output import print_json, say
from janusvln_ros.data.left_out import LeftOut, counted, left_out_page
from janusvln_ros.data.trajectories import merge
from janusvln_ros.errors import FailedError, InputError
from janusvln_ros.rollout.engine import MakeEngine, direct_engine
from janusvln_ros.rollout.run import execute
from janusvln_ros.rollout.settings import load_settings
from janusvln_ros.rollout.shards import Cluster, Job

OPTIONS = (
    *ROLLOUT,
    COLLECTION,
    option(
        "--noise",
        type=float,
        default=0.0,
        metavar="P",
        help="probability that a random move is executed instead (default: %(default)s)",
    ),
    option(
        "--ros",
        action="store_true",
        help="drive through the ROS graph in lockstep (the bridge's data-collection job)",
    ),
)


def engine_of(args: argparse.Namespace, bags: Path | None = None) -> MakeEngine:
    """
    What drives: the graph of nodes with ``--ros`` (which then records into the folder ``bags``),
    else agent and simulator in one process.

    Raises:
        InputError: the graph cannot be imported because something that it needs is not installed.
    """
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


def run(args: argparse.Namespace) -> int:
    """Collect, merge, and say what was written."""
    from janusvln_ros.rollout.collect import CollectJob

    settings = load_settings(args.config or args.dataset, ["split=train", *settings_changes(args)])
    job = CollectJob(args.out, settings, args.data, args.noise, engine_of(args))
    identity = {"collect": {"noise": args.noise}}
    return run_collection(args, job, identity, "collect", Cluster.from_environment())


def run_collection(
    args: argparse.Namespace,
    job: Job,
    identity: dict[str, Any],
    title: str,
    cluster: Cluster,
    devices: tuple[str, ...] = (),
) -> int:
    """Run a job that collects; on the rank that merges, merge and say what there is; return 0."""
    done = execute(
        job,
        cluster=cluster,
        workers=args.workers,
        threads=args.threads,
        count=args.episodes,
        identity=identity,
        title=title,
        devices=devices,
    )
    if done is None:
        return 0
    lines = merge(args.out)
    kept = [line for line in lines if line["annotation"] is not None]
    frames = sum(len(line["annotation"]["actions"]) for line in kept)
    say(f"{len(kept)} of {len(lines)} episodes kept, {frames} frames: {args.out}/annotations.json")
    missing = [*done[0].rejected, *map(not_kept, (x for x in lines if x["annotation"] is None))]
    report = {
        "episodes": len(lines),
        "kept": len(kept),
        "frames": frames,
        "rejected": len(done[0].rejected),
        **counted(missing),
        "out": str(args.out),
    }
    for text in left_out_page(report, len(kept) + len(missing), "episodes"):
        say(text)
    if args.json:
        print_json(report)
    require_drives(lines)
    return 0


def not_kept(line: dict[str, Any]) -> LeftOut:
    """Why the episode of a journal's line is not among the trajectories."""
    result = line["result"]
    name = f"episode {line['episode_id']} in {line['scene_id']}"
    reason = result.get("reason", "the drive is no example")
    return LeftOut(f"{name}: {result.get('error') or reason}", reason)


def require_drives(lines: Sequence[dict[str, Any]]) -> None:
    """
    Go on only where at least one of the episodes was driven.

    Raises:
        FailedError: none was, so that there is nothing to learn from.
    """
    if lines and all(line["result"]["status"] == "error" for line in lines):
        raise FailedError(
            f"none of {len(lines)} episodes could be driven, the last because: "
            f"{lines[-1]['result']['error']}. Mend that and give another --out"
        )

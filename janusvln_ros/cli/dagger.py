"""
Collect model-driven trajectories (DAgger), in the published layout. Two schemes:

    janusvln dagger CHECKPOINT --dataset r2r --out data/dagger_data/R2R
    janusvln dagger CHECKPOINT --scheme classic --round 2 --out data/trajectory_data/dagger2

published  The model drives; the expert takes over on an intolerable error until the next way
           point. Only drives that reach the goal after a clear detour are kept, and what was
           executed is learned.
classic    Every visited state is labelled with the expert's action ("labels" in
           annotations.json), whoever drove. The expert drives a step with probability p ** round
           (p 0.5: 1, 0.5, 0.25, ...), the model otherwise. All drives are kept: failures teach
           most.

It may be interrupted or killed at any moment: the same command goes on where it stopped. Under
torchrun every rank takes its share. The numbers of both schemes are the 'dagger' section of
config/eval/*.yaml.
"""

import argparse

from janusvln_ros.cli.collect import engine_of, run_collection
from janusvln_ros.cli.evaluate import devices
from janusvln_ros.cli.options import COLLECTION, PRECISION, ROLLOUT, option, settings_changes
from janusvln_ros.policy import default_checkpoint
from janusvln_ros.rollout.settings import load_settings
from janusvln_ros.rollout.shards import Cluster

OPTIONS = (
    option(
        "checkpoint",
        nargs="?",
        metavar="CHECKPOINT",
        help="folder or owner/name@revision (default: the shipped one)",
    ),
    *ROLLOUT,
    COLLECTION,
    option(
        "--scheme",
        choices=("published", "classic"),
        default="published",
        help="see above (default: %(default)s)",
    ),
    option(
        "--p",
        type=float,
        metavar="P",
        help="the expert's share is P ** round (default: published 0, so the model drives; "
        "classic 0.5)",
    ),
    option(
        "--round",
        type=int,
        metavar="N",
        help="round, counted from 0 (default: published 3, classic 1)",
    ),
    option(
        "--device",
        metavar="NAME",
        help="cpu, cuda, cuda:1 (default: every GPU in turn, else the CPU)",
    ),
    PRECISION,
    option(
        "--ros", action="store_true", help="drive through the ROS graph in lockstep (classic only)"
    ),
)


def run(args: argparse.Namespace) -> int:
    """Collect, merge, and say what was written."""
    from janusvln_ros.model.checkpoint import find
    from janusvln_ros.policy.identity import checkpoint_digest
    from janusvln_ros.rollout.dagger import DaggerJob

    classic = args.scheme == "classic"
    given = {
        "dagger.p": args.p if args.p is not None else 0.5 if classic else None,
        "dagger.data_it": args.round if args.round is not None else 1 if classic else None,
        "policy.device": args.device,
        "policy.precision": args.precision,
    }
    changes = [f"{key}={value}" for key, value in given.items() if value is not None]
    settings = load_settings(
        args.config or args.dataset, ["split=train", *changes, *settings_changes(args)]
    )
    checkpoint = find(args.checkpoint or default_checkpoint())
    cluster = Cluster.from_environment()
    job = DaggerJob(args.out, settings, args.data, args.scheme, checkpoint, engine_of(args))
    identity = {
        "dagger": {
            "scheme": args.scheme,
            "checkpoint_sha256": checkpoint_digest(checkpoint) if cluster.rank == 0 else "",
        }
    }
    gpus = devices(args.device, cluster)
    return run_collection(args, job, identity, f"dagger {args.scheme}", cluster, gpus)

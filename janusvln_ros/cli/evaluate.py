"""
Run an agent over a split of episodes and report the metrics of the field, with 95 % intervals.

    janusvln evaluate policy --episodes 100
        the shipped checkpoint, houses made on first use
    janusvln evaluate policy CHECKPOINT --dataset r2r --data data
        R2R-CE val_unseen in Habitat, settings of config/eval/r2r.yaml
    torchrun --nproc-per-node 8 -m janusvln_ros.cli.main evaluate policy CHECKPOINT ...
        the same on eight GPUs
    janusvln evaluate expert | random | forward | oracle-stop
        what any agent should be compared with

The output folder gets manifest.json (what was run), results.jsonl (a line per episode, in the
published schema and more), summary.json and report.html (success by distance, failures drawn on
their maps). A run that was killed at any moment goes on with the same command; one with another
checkpoint, other data, settings or versions is refused. Every number of the published scripts is a
field of config/eval/*.yaml and can be changed with --set; --config also takes habitat-lab's own
vln_r2r.yaml, in both of its dialects. docs/evaluation.md has the commands from
the data folders to the table of the paper.
"""

import argparse
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from janusvln_ros.cli.collect import engine_of
from janusvln_ros.cli.options import PRECISION, ROLLOUT, option, settings_changes
from janusvln_ros.cli.output import print_json, say
from janusvln_ros.data.left_out import left_out_page
from janusvln_ros.errors import require
from janusvln_ros.files import require_folder
from janusvln_ros.policy import default_checkpoint
from janusvln_ros.rollout.settings import load_settings
from janusvln_ros.rollout.shards import Cluster

if TYPE_CHECKING:
    from janusvln_ros.rollout.evaluate import EvaluateJob

WITH_MODEL = ("policy", "oracle-stop")
"""Agents that may have a checkpoint."""

OPTIONS = (
    option(
        "agent",
        choices=("policy", "expert", "random", "forward", "oracle-stop"),
        help="who drives; oracle-stop: moves as CHECKPOINT or as forward",
    ),
    option(
        "checkpoint",
        nargs="?",
        metavar="CHECKPOINT",
        help="folder or owner/name@revision, for policy (default: the shipped) and oracle-stop",
    ),
    *ROLLOUT,
    option(
        "--instructions",
        choices=(
            *("normal", "removed", "swapped", "lower", "upper", "typo", "synonyms", "please"),
            *("retold", "retold_held_out", "retold_plainly"),
        ),
        default="normal",
        metavar="FORM",
        help="what the agent is told: its text (normal), none (removed), another episode's "
        "(swapped), its own in another form (lower, upper, typo, synonyms, please), or in "
        "generated homes its way described anew (retold), with words held out of training "
        "(retold_held_out) or plainly (retold_plainly)",
    ),
    option("--memory", choices=("released", "dual"), help="short for --set policy.memory=..."),
    option(
        "--decoding", choices=("free", "constrained"), help="short for --set policy.decoding=..."
    ),
    option(
        "--device",
        metavar="NAME",
        help="cpu, cuda, cuda:1 (default: every GPU in turn, else the CPU)",
    ),
    PRECISION,
    option(
        "--out",
        type=require_folder,
        metavar="DIR",
        help="output folder; one with a part of this run is continued (default: "
        "runs/eval-DATASET-AGENT-TIME)",
    ),
    option(
        "--ros",
        action="store_true",
        help="run the episodes through the ROS graph in lockstep instead of directly",
    ),
    option(
        "--verify",
        choices=("habitat-lab",),
        help="when done, run the recorded actions through habitat-lab's own Env in Habitat's "
        "interpreter and compare NE, SR, SPL and OSR episode by episode (OUT/verify.json)",
    ),
    option(
        "--record",
        action="store_true",
        help="with --ros and policy: a rosbag of every episode in OUT/bags, exact for "
        "'janusvln replay'",
    ),
)


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the table, and say where the results are."""
    from janusvln_ros.rollout.evaluate import EvaluateJob, evaluate
    from janusvln_ros.rollout.verify import repeatable

    cluster = Cluster.from_environment()
    short = {
        "policy.memory": args.memory,
        "policy.decoding": args.decoding,
        "policy.device": args.device,
        "policy.precision": args.precision,
    }
    settings = load_settings(
        args.config or args.dataset,
        [f"{k}={v}" for k, v in short.items() if v] + settings_changes(args),
    )
    if args.verify is not None:
        repeatable(settings)
    checkpoint = find_checkpoint(args)
    require(
        not (args.ros and args.agent == "policy" and args.instructions == "removed"),
        "--instructions removed cannot go through ROS: the policy node refuses an "
        "empty instruction; run it without --ros",
    )
    require(
        not args.record or (args.ros and args.agent == "policy"),
        "--record needs --ros and the agent policy: only the graph can be recorded",
    )
    require(
        args.out is not None or cluster.world_size == 1,
        "give --out: under torchrun all ranks must write to one folder",
    )
    out = args.out = (
        args.out
        or Path("runs") / f"eval-{settings.dataset}-{args.agent}-{datetime.now():%Y%m%d-%H%M%S}"
    )
    engine = engine_of(args, (out / "bags").resolve() if args.record else None)
    job = EvaluateJob(out, settings, args.data, args.agent, checkpoint, args.instructions, engine)
    summary = evaluate(
        job,
        count=args.episodes,
        workers=args.workers,
        threads=args.threads,
        devices=devices(args.device, cluster) if args.agent in WITH_MODEL else (),
        cluster=cluster,
    )
    if summary is None:
        return 0
    say(table(summary))
    say(f"results: {out}/summary.json, results.jsonl, report.html")
    agreed = args.verify is None or verified(job, summary)
    for line in left_out_page(summary, summary["left_out"] + summary["episodes"], "episodes"):
        say(line)
    if args.json:
        print_json(summary)
    return 0 if agreed else 1


def verified(job: "EvaluateJob", summary: dict[str, Any]) -> bool:
    """
    Compare a finished run with habitat-lab, put the outcome into ``summary``, and say whether all
    episodes agree.
    """
    from janusvln_ros.rollout import verify
    from janusvln_ros.rollout.run import read_split

    episodes = read_split(job.settings, job.data_dir).episodes
    report = verify.verify(job.out, job.settings, job.data_dir, episodes)
    say(verify.table(report))
    summary["verified"] = {key: report[key] for key in ("episodes", "equal", "versions")}
    return bool(report["equal"] == report["episodes"])


def find_checkpoint(args: argparse.Namespace) -> Path | None:
    """
    The checkpoint's folder: given, or the shipped one for the policy; None for agents without.
    """
    require(
        args.agent in WITH_MODEL or args.checkpoint is None,
        f"the agent {args.agent} has no checkpoint: leave {args.checkpoint} "
        f"out, or write 'policy {args.checkpoint}'",
    )
    if args.checkpoint is None and args.agent != "policy":
        return None
    from janusvln_ros.model.checkpoint import find

    return find(args.checkpoint or default_checkpoint())


def devices(device: str | None, cluster: Cluster) -> tuple[str, ...]:
    """
    GPUs for the workers of this rank: under torchrun its own, otherwise all in turn; none where
    a ``device`` is named or there is no GPU.
    """
    if device is not None:
        return ()
    import torch

    gpus = tuple(f"cuda:{i}" for i in range(torch.cuda.device_count()))
    if cluster.world_size > 1 and gpus:
        return (gpus[cluster.local_rank % len(gpus)],)
    return gpus


def table(summary: dict[str, Any]) -> str:
    """The metrics as lines of text."""
    rows = [
        (f"success rate ({summary['thresholds']['success']:g} m)", "success_rate", 100, "%"),
        (f"success rate ({summary['thresholds']['near']:g} m)", "success_rate_1m", 100, "%"),
        ("SPL", "spl", 100, "%"),
        ("oracle success rate", "oracle_success_rate", 100, "%"),
        ("navigation error", "navigation_error", 1, "m"),
        ("nDTW", "ndtw", 100, "%"),
        ("path length", "path_length", 1, "m"),
        ("steps", "steps", 1, ""),
    ]
    lines = [
        f"{summary['episodes']} episodes ({summary['rejected']} rejected, "
        f"{summary['errors']} errors, {summary['unreachable']} goals out of reach)"
    ]
    for name, key, factor, unit in rows:
        value, interval, count = (summary[f"{key}{end}"] for end in ("", "_ci95", "_count"))
        shown = "      -" if value is None else f"{factor * value:7.2f} {unit}"
        lines.append(
            f"  {name:20} {shown:10}"
            + (
                ""
                if interval is None
                else f"  [{factor * interval[0]:.2f}, {factor * interval[1]:.2f}]"
            )
            + ("" if count == summary["episodes"] else f"  over {count} of {summary['episodes']}")
        )
    if summary["noise"] is not None:
        lines.append(
            f"  told: {summary['doubtful']} instructions that the checkpoint may not understand, "
            f"{summary['noise']} that are noise to it"
        )
    failed = [name for name, good in summary["checks"].items() if not good]
    lines.append(
        "  checks of a real run: "
        + ("all passed" if not failed else f"NOT passed: {', '.join(failed)}")
    )
    return "\n".join(lines)

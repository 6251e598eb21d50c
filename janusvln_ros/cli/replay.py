"""
Run the policy over a recorded drive again, offline and exact, and compare what it decides with the
record.

  janusvln replay drive.mcap
      the frames that were decided on when it was recorded
  janusvln replay teleop/ --boundaries odom --instruction "go to the kitchen"
      a drive by hand: a frame for every 0.25 m or 15 degrees of it
  janusvln replay drive.mcap --against old/decisions.mcap --min-agreement 0.98
      a regression gate: exit code 1 if fewer decisions are as before

Reads rosbag2 folders and files (sqlite3, mcap, zstd) of any ROS 2 distribution; no ROS is needed.
Writes to the output folder decisions.mcap (for 'ros2 bag play' and Foxglove, with a picture of
every decision), agreement.json and agreement.png. The same bag and checkpoint give the same bytes.
"""

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from janusvln_ros.cli.options import BAG, JSON, PRECISION, bag_topics, option
from janusvln_ros.cli.output import answer, say
from janusvln_ros.data.bags import Bag, BagWriter, open_bag
from janusvln_ros.errors import require
from janusvln_ros.files import atomic_path, atomic_write, require_folder
from janusvln_ros.policy import default_checkpoint

if TYPE_CHECKING:
    from janusvln_ros.data.drives import Moment

OPTIONS = (
    *BAG,
    option(
        "--checkpoint",
        help="checkpoint folder or owner/name@revision (default: the one in the package)",
    ),
    option(
        "--memory",
        choices=("released", "dual"),
        help="default: what the checkpoint was trained for",
    ),
    option("--decoding", choices=("free", "constrained"), default="constrained"),
    option("--device", default="cpu"),
    PRECISION,
    option(
        "--threads",
        type=int,
        default=1,
        help="threads of CPU computations (default: 1, the fastest for a small network)",
    ),
    option(
        "--boundaries",
        choices=("recorded", "odom", "interval"),
        default="recorded",
        help="which frames to decide on (default: recorded)",
    ),
    option(
        "--interval",
        type=float,
        default=1.0,
        help="seconds between frames for --boundaries interval (default: 1)",
    ),
    option(
        "--against",
        type=Path,
        help="decisions.mcap of an earlier replay of this bag, to compare with instead of "
        "the record",
    ),
    option(
        "--min-agreement",
        type=float,
        help="exit with 1 if the share of equal decisions is smaller, 0 to 1",
    ),
    option("--out", type=require_folder, help="output folder (default: runs/replay-<bag>-<time>)"),
    JSON,
)


def run(args: argparse.Namespace) -> int:
    """Replay, compare, write; 1 if ``--min-agreement`` is not reached."""
    least = args.min_agreement
    require(
        least is None or 0 <= least <= 1,
        f"--min-agreement is {least}; it must lie between 0 and 1",
    )
    require(1 <= args.threads <= 1024, f"--threads is {args.threads}; it must be at least 1")
    out = args.out or Path("runs") / f"replay-{args.bag.stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    args.checkpoint = args.checkpoint or default_checkpoint()
    result = decide_again(args, out)
    atomic_write(out / "agreement.json", json.dumps(result, indent=1) + "\n")
    draw_agreement(result, out / "agreement.png")
    names = ("decisions.mcap", "agreement.json", "agreement.png")
    result["files"] = {name: str(out / name) for name in names}
    answer(args.json, result, lambda result: f"{page(result)}\nresults in {out}")
    reached = result["agreement"]
    require(
        least is None or reached is not None,
        f"--min-agreement {least}: nothing to compare with; the "
        f"record says no action on any of {result['decisions']} frames",
    )
    if least is None or reached >= least:
        return 0
    say(f"agreement {reached:.4f} is below --min-agreement {least}")
    return 1


def decide_again(args: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Write ``decisions.mcap`` into ``out``; return how they agree with what they are held to."""
    import torch
    from tqdm import tqdm

    from janusvln_ros.policy import Navigator
    from janusvln_ros.rollout.replay import against, agreement, bag_camera, replay, write_decision

    torch.set_num_threads(args.threads)
    topics = bag_topics(args)
    with open_bag(args.bag, args.time) as bag:
        moments = chosen_moments(args, bag)
        camera = bag_camera(bag, topics, args.uncalibrated)
        navigator = Navigator.from_pretrained(
            args.checkpoint,
            **({"memory": args.memory} if args.memory else {}),
            decoding=args.decoding,
            device=args.device,
            precision=args.precision or "auto",
        )
        # greedy decoding: nothing is drawn, but a simulated drive has a seed of its own
        about = navigator.about | {"seed": bag.about.get("seed", "none")}
        began, decided = time.monotonic(), []
        with BagWriter(out / "decisions.mcap", about) as writer:
            items = replay(bag, navigator, moments, topics, camera)
            for item in tqdm(items, total=len(moments), unit="decision", disable=None):
                write_decision(writer, item)
                decided.append((item.moment, item.decision.action))
        seconds = time.monotonic() - began
        return {
            **agreement(against(args.against, decided) if args.against else decided),
            "missing_frames": len(moments) - len(decided),
            "speed": bag.duration / seconds if seconds else None,
            "bag": str(args.bag),
            "bag_seconds": bag.duration,
            "damage": bag.damage,
            "boundaries": args.boundaries,
            "against": str(args.against) if args.against else None,
            "checkpoint": str(args.checkpoint),
            "about": about,
            "recorded_about": dict(bag.about),
        }


def chosen_moments(args: argparse.Namespace, bag: Bag) -> "list[Moment]":
    """
    Return the frames to decide on, by ``--boundaries``.

    Raises:
        InputError: there are none.
    """
    from janusvln_ros.data.drives import interval_moments, odometry_moments, recorded_moments

    if args.boundaries == "recorded":
        moments = recorded_moments(bag, args.image_topic)
    elif args.boundaries == "odom":
        moments = odometry_moments(bag, bag_topics(args), args.instruction)
    else:
        moments = interval_moments(bag, bag_topics(args), args.instruction, args.interval)
    require(moments, f"{args.bag}: no frame to decide on with --boundaries {args.boundaries}")
    return moments


def page(result: dict[str, Any]) -> str:
    """The outcome for a reader; warnings go to stderr."""
    if result["damage"]:
        say(f"warning: {result['damage']}")
    if result["missing_frames"]:
        say(f"warning: {result['missing_frames']} frames that were decided on are not in the bag")
    earlier, now = result["recorded_about"], result["about"]
    changed = [
        f"{key} {earlier[key]}, now {now[key]}"
        for key in ("checkpoint_digest", "memory", "decoding", "prompt", "precision", "version")
        if key in earlier and earlier[key] != now.get(key)
    ]
    if changed:
        say(f"the drive was recorded with another policy: {'; '.join(changed)}")
    what = (
        f"agreement {100 * result['agreement']:.1f} % of {result['compared']}"
        if result["compared"]
        else "the record says no actions to compare with"
    )
    rows = [
        f"  {name:12} {counts['equal']:5} of {counts['recorded']}"
        for name, counts in result["per_action"].items()
        if counts["recorded"]
    ]
    head = (
        f"{result['decisions']} decisions on {result['bag_seconds']:.1f} s of "
        f"{result['bag']}, {result['speed']:.1f} times real time; {what}"
    )
    return "\n".join([head, *rows])


def draw_agreement(result: dict[str, Any], path: Path) -> None:
    """Write the confusion matrix and the agreement over time as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = list(result["confusion"])
    columns = list(result["confusion"][rows[0]])
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    counts = [[result["confusion"][row][column] for column in columns] for row in rows]
    left.imshow(
        [[c / max(1, sum(line)) for c in line] for line in counts], cmap="Blues", vmin=0, vmax=1
    )
    for y, line in enumerate(counts):
        for x, count in enumerate(line):
            left.text(
                x,
                y,
                str(count),
                ha="center",
                va="center",
                color="white" if count > 0.5 * max(1, sum(line)) else "black",
            )
    left.set_xticks(range(len(columns)), columns, rotation=20, ha="right")
    left.set_yticks(range(len(rows)), rows)
    left.set_xlabel("decided")
    left.set_ylabel("earlier" if result["against"] else "recorded")
    right.bar(range(1, len(result["over_time"]) + 1), result["over_time"], color="#4c72b0")
    right.set_ylim(0, 1.05)
    right.set_xlabel("part of the drive")
    right.set_ylabel("share of equal decisions")
    agreement = (
        "no record to compare with"
        if result["agreement"] is None
        else f"agreement {100 * result['agreement']:.1f} % of {result['compared']}"
    )
    figure.suptitle(f"{Path(result['bag']).name}: {agreement}")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
    pyplot.close(figure)

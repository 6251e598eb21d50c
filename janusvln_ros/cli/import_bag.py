"""
Turn a recorded drive into training trajectories, in the layout that 'janusvln data' and 'janusvln
train' read.

  janusvln import-bag teleop/ --scene kitchen --instruction "go to the kitchen and stop at the
  fridge"

The bag needs a camera and odometry (or cmd_vel) at any rate, and an instruction on a topic or on
the command line. Motion is cut into steps of 0.25 m or 15 degrees; the frame at each boundary is
kept, rectified and cropped as the model will see it. Of a drive by the policy itself, as 'janusvln
record', 'demo --record' and 'evaluate --ros --record' write it, the very frames and decisions are
kept, with the words that it followed. A report tells of each episode its drift,
pauses, blurred and dropped frames. Several bags go into one folder; a bag that is imported again
adds nothing.
"""

import argparse
from contextlib import closing
from typing import Any

from janusvln_ros.cli.options import BAG, JSON, bag_topics, option
from janusvln_ros.cli.output import answer, say
from janusvln_ros.data.bags import open_bag
from janusvln_ros.data.left_out import LeftOut, counted, left_out_page
from janusvln_ros.data.trajectories import TrajectoryWriter, merge
from janusvln_ros.errors import require
from janusvln_ros.files import require_folder

OPTIONS = (
    *BAG,
    option(
        "--out",
        type=require_folder,
        default="data/trajectory_data/bags",
        help="training folder (default: data/trajectory_data/bags)",
    ),
    option("--scene", help="name of the place (default: name of the bag)"),
    option(
        "--min-steps",
        type=int,
        default=4,
        help="shorter episodes are reported and not kept (default: 4)",
    ),
    option(
        "--max-drift",
        type=float,
        default=1.0,
        metavar="M",
        help="metres between where the steps end and where the drive did beyond which an episode "
        "is reported and not kept (default: %(default)s)",
    ),
    JSON,
)


def run(args: argparse.Namespace) -> int:
    """Import and report; 1 if no episode could be kept."""
    from janusvln_ros.data.drive_import import import_drive, plan_drive
    from janusvln_ros.rollout.replay import bag_camera

    require(args.min_steps >= 1, f"--min-steps is {args.min_steps}; it must be at least 1")
    require(args.max_drift >= 0, f"--max-drift is {args.max_drift}; it must not be negative")
    topics = bag_topics(args)
    with open_bag(args.bag, args.time) as bag:
        camera = bag_camera(bag, topics, args.uncalibrated)
        # before anything is written
        drive = plan_drive(bag, topics, args.instruction)
        with closing(TrajectoryWriter(args.out, "bag")) as writer:
            scene = args.scene or args.bag.stem
            reports = import_drive(
                bag,
                writer,
                scene,
                camera,
                topics,
                args.instruction,
                args.min_steps,
                args.max_drift,
                drive,
            )
    merge(args.out)
    kept = sum(report["kept"] for report in reports)
    if bag.damage:
        say(f"warning: {bag.damage}")
    missing = [LeftOut(_line(r), r["not_kept"].reason) for r in reports if r["not_kept"]]
    result = {
        **counted(missing),
        "episodes": reports,
        "kept": kept,
        "damage": bag.damage,
        "files": {"annotations": str(args.out / "annotations.json")},
    }
    summary = f"{kept} of {len(reports)} episodes are in {args.out}"
    answer(args.json, result, lambda _: "\n".join([*map(_line, reports), summary]))
    for line in left_out_page(result, len(reports), "episodes"):
        say(line)
    return 0 if kept else 1


def _line(report: dict[str, Any]) -> str:
    faults = [
        f"{report[name]} {name}"
        for name in ("dropped", "blurred", "pauses", "missing")
        if report[name]
    ]
    not_kept = f" (not kept: {report['not_kept']})" if report["not_kept"] else ""
    motion = (
        "no odometry"
        if report["drift_m"] is None
        else f"{report['path_length_m']} m, drift {report['drift_m']} m / {report['drift_deg']} "
        "degrees"
    )
    return (
        f"episode {report['episode']}: {report['steps']} steps in {report['seconds']} s at "
        f"{report['frame_rate']} Hz, {motion}{', ' + ', '.join(faults) if faults else ''}"
        f"{not_kept}: {report['instruction']!r}"
    )

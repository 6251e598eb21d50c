"""
Drive a simulated robot through a house by instruction, on real ROS 2.

Starts the graph 'simulation' (policy, sim_bridge and, in continuous mode, motion, each a process
of its own) in a ROS domain that nobody uses, arms it, sends one instruction through the action
follow_instruction and shows each decision. Nothing is scripted: every motion is the model's
decision on a rendered frame. Houses are generated on first use.

What it writes to runs/demo-DATE-TIME/ and prints at the end:
  episode.mp4      the camera with the decision on it, beside the floor from above with the path
  path.png         the floor with the whole path, the goal and the reference path
  decisions.jsonl  one line per decision; in lockstep mode the same for the same episode,
                   checkpoint and seed, timings aside
  summary.json     steps, success, distances, timings, images received and dropped, files
  logs/            what each node said
  bags/            with --record: the drive as a rosbag (mcap)

Further arguments of the graph are given as to 'janusvln up simulation', whose --arguments lists
them: 'janusvln demo backend:=habitat gpu:=-1' drives in habitat-sim. Two demos at the same time do
not disturb each other. Ctrl-C ends every node within 2 s.
"""

import argparse
import json
import shutil
import signal
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from janusvln_ros.actions import known_action
from janusvln_ros.cli.options import DATA, DOMAIN, JSON, PRECISION, SHIPPED, SIZE, option
from janusvln_ros.cli.output import answer, say
from janusvln_ros.data.episodes import Episode, read_episodes
from janusvln_ros.data.top_down_map import TopDownMap
from janusvln_ros.documents import read_object
from janusvln_ros.errors import require
from janusvln_ros.files import atomic_write, local_checkpoint, require_folder
from janusvln_ros.geometry import yaw_of_rotation
from janusvln_ros.graph.composition import parse_assignments, resolve
from janusvln_ros.graph.installed import require_ros
from janusvln_ros.graph.processes import NodeEndedError
from janusvln_ros.policy import default_checkpoint
from janusvln_ros.policy.instruction import MAX_INSTRUCTION, clean_instruction
from janusvln_ros.stamps import nanoseconds

if TYPE_CHECKING:
    from janusvln_ros.data.drawing import Picture
    from janusvln_ros.graph.client import Outcome, Telemetry

LOCKSTEP_VIDEO_FPS = 4.0

SEVERAL = 2
"""Doors on the way of a drive that shows what it is about."""


OWN = ("mode", "data_dir", "dataset", "split", "episode", "checkpoint", "seed", "record", "bags")
"""Arguments of the graph that have an option here."""

OPTIONS = (
    option("given", nargs="*", metavar="NAME:=VALUE", help="further arguments of the graph"),
    option(
        "--house",
        default="",
        metavar="NAME",
        help="house to drive in, such as unseen_00003 (default: that of the episode)",
    ),
    option(
        "--episode",
        default="",
        metavar="ID",
        help="episode (default: the first through several rooms, of --house if given)",
    ),
    option(
        "--instruction",
        metavar="TEXT",
        help="follow this instead of the episode's own; success still means the episode's goal",
    ),
    DATA,
    option(
        "--dataset",
        default="houses",
        choices=("houses", "r2r", "rxr", "scalevln"),
        help="data set (default: houses, generated on first use)",
    ),
    option("--split", default="val_unseen", help="split (default: val_unseen)"),
    SHIPPED,
    option(
        "--device", default="", metavar="NAME", help="cpu or cuda (default: cuda if there is one)"
    ),
    PRECISION._replace(settings=PRECISION.settings | {"default": ""}),
    option(
        "--mode",
        default="lockstep",
        choices=("lockstep", "continuous"),
        help="the world waits for every step, or goes on (default: lockstep)",
    ),
    option(
        "--seed",
        type=int,
        default=0,
        help="seed of what is random: the odometry's noise in continuous mode (default: 0)",
    ),
    option(
        "--max-steps",
        type=int,
        default=150,
        metavar="N",
        help="decisions after which the drive ends (default: 150)",
    ),
    SIZE,
    option(
        "--out",
        type=require_folder,
        metavar="DIR",
        help="where the results go (default: runs/demo-DATE-TIME)",
    ),
    option(
        "--record",
        action="store_true",
        help="also write a rosbag of the drive, in lockstep exact for 'janusvln replay'",
    ),
    DOMAIN,
    JSON,
)


@dataclass(frozen=True)
class Plan:
    """What is going to be driven, all of it checked before anything starts."""

    episode: Episode
    instruction: str
    doubts: tuple[str, ...]
    width: int
    height: int


def run(args: argparse.Namespace) -> int:
    """
    Run the demo.

    Exit code 0: the drive was made and everything is written (whether or not the policy found its
    way); 1: the graph failed.
    """
    require_ros()
    from janusvln_ros.graph.connection import GraphTimeoutError

    plan = make_plan(args)
    out = args.out or free_folder(Path("runs"))
    require(
        not out.exists() or not any(out.iterdir()),
        f"{out} exists and is not empty: give another --out",
    )
    # Whatever goes wrong, nobody finds half a result: the folder gets its name when it is
    # complete.
    building = out.with_name(f".{out.name}.{time.time_ns()}.tmp")
    (building / "logs").mkdir(parents=True)
    # SIGTERM ends the demo as Ctrl-C does, nodes and half-written files included.
    before = signal.signal(signal.SIGTERM, end_on_signal)
    try:
        summary = drive(args, plan, building, out)
        if out.exists():
            out.rmdir()
        building.rename(out)
    except (NodeEndedError, GraphTimeoutError, RuntimeError) as error:
        say(f"error: {error}")
        return 1
    finally:
        shutil.rmtree(building, ignore_errors=True)
        signal.signal(signal.SIGTERM, before)
    answer(args.json, summary, page)
    return 0


def end_on_signal(number: int, frame: FrameType | None) -> None:
    """Leave by an exception, so that everything on the way is cleaned up."""
    raise SystemExit(128 + number)


def make_plan(args: argparse.Namespace) -> Plan:
    """
    Check everything that a user can get wrong, make the houses if need be, and choose the episode.

    Raises:
        InputError: the instruction, checkpoint, size, house or episode cannot be used.
    """
    graph_arguments(args)
    given = (
        None if args.instruction is None else clean_instruction(args.instruction, MAX_INSTRUCTION)
    )
    if args.checkpoint:
        check_checkpoint(args.checkpoint)
    doubts = check_instruction(given, args.checkpoint) if given else ()
    require(1 <= args.max_steps <= 100000, f"--max-steps is {args.max_steps}: give 1 to 100000")
    require(0 <= args.seed < 2**31, f"--seed is {args.seed}: give 0 to {2**31 - 1}")
    width, height = video_size(args.size)
    if args.dataset == "houses":
        from sim_bridge.homes import ensure_split

        ensure_split(
            args.data,
            args.split,
            progress=lambda done, total: (
                say(f"generating houses: {done} of {total}") if done % 10 == 0 else None
            ),
        )
    episodes = read_episodes(args.data, args.dataset, args.split).episodes
    houses = sorted({e.scene for e in episodes})
    require(
        not args.house or args.house in houses,
        f"{args.dataset} {args.split} has no house {args.house!r}: it has "
        f"{', '.join(houses[:8])}{' ...' if len(houses) > 8 else ''}",
    )
    where = f"house {args.house}" if args.house else f"{args.dataset} {args.split}"
    here = [e for e in episodes if not args.house or e.scene == args.house]
    fitting = [e for e in here if not args.episode or e.episode_id == args.episode]
    require(
        fitting,
        f"{where} has no episode {args.episode!r}: it has "
        f"{', '.join(e.episode_id for e in here[:12])}{' ...' if len(here) > 12 else ''}",
    )
    chosen = fitting[0] if args.episode else through_rooms(fitting)
    return Plan(chosen, given or chosen.instruction, doubts, width, height)


def through_rooms(episodes: Sequence[Episode]) -> Episode:
    """The first episode that goes through several rooms, or the one that goes through most."""
    return max(episodes, key=lambda e: min(e.info.get("rooms_crossed", 0), SEVERAL))


def check_instruction(instruction: str, checkpoint: str) -> tuple[str, ...]:
    """
    Say at once that an instruction is none to the checkpoint, as the node would; return why it may
    not be understood. Of a hub id the node finds out alone.

    Raises:
        InputError: it is noise.
    """
    folder = Path(checkpoint or default_checkpoint())
    if not folder.is_dir():
        return ()
    from janusvln_ros.policy.understanding import Vocabulary, understanding

    found = understanding(instruction, Vocabulary.load(folder))
    require(
        found.verdict != "noise",
        f"--instruction {instruction!r} is none: {'; '.join(found.reasons)}: say a way, for "
        "example 'turn left and stop at the table'",
    )
    return found.reasons


def graph_arguments(args: argparse.Namespace) -> dict[str, str]:
    """
    The further arguments of the graph.

    Raises:
        InputError: one is not of the form NAME:=VALUE, unknown, or has an option of its own.
    """
    given = parse_assignments(args.given)
    for name in given:
        require(
            name not in OWN and name != "namespace",
            f"'{name}' is not given as NAME:=VALUE to the demo: see its options (--help)",
        )
    resolve("simulation", given)
    return given


def check_checkpoint(checkpoint: str) -> None:
    """
    Say at once that a checkpoint is not there, rather than after the graph has started.

    Raises:
        InputError: neither a folder with config.json nor something of the hub.
    """
    path = Path(checkpoint)
    require(
        not path.is_dir() or (path / "config.json").is_file(),
        f"checkpoint folder {checkpoint} has no config.json: give a folder "
        "that save_pretrained or a download wrote",
    )
    require(
        path.is_dir() or not path.exists(), f"checkpoint {checkpoint} is a file: give its folder"
    )
    local_checkpoint(checkpoint)


def video_size(size: tuple[int, int]) -> tuple[int, int]:
    """
    Return a size in pixels of which a video can be made.

    Raises:
        InputError: it is none: not even numbers from 64 to 4096.
    """
    text = "x".join(map(str, size))
    require(
        all(64 <= side <= 4096 for side in size),
        f"--size is {text}: give WIDTHxHEIGHT from 64 to 4096 pixels, such as 640x480",
    )
    require(
        all(side % 2 == 0 for side in size),
        f"--size is {text}: give even numbers, as H.264 needs",
    )
    return size


def free_folder(parent: Path) -> Path:
    """
    A folder name under ``parent`` that is not taken: demo-DATE-TIME, with a number if two begin in
    one second.
    """
    name = time.strftime("demo-%Y%m%d-%H%M%S")
    number = 1
    while (candidate := parent / (name if number == 1 else f"{name}-{number}")).exists() or any(
        parent.glob(f".{candidate.name}.*.tmp")
    ):
        number += 1
    return candidate


def drive(args: argparse.Namespace, plan: Plan, folder: Path, final: Path) -> dict[str, Any]:
    """
    Start the graph, make the drive, end the graph, and write the results into ``folder``, which
    will be called ``final``; return the summary.
    """
    from janusvln_ros.graph.private import private_graph

    episode, lockstep = plan.episode, args.mode == "lockstep"
    given = graph_arguments(args) | {
        "mode": args.mode,
        "data_dir": str(args.data),
        "dataset": args.dataset,
        "split": args.split,
        "episode": episode.episode_id,
        "checkpoint": args.checkpoint,
        "device": args.device,
        "precision": args.precision,
        "seed": str(args.seed),
    }
    if args.record:
        given |= {"record": "true", "bags": str((folder / "bags").resolve())}
    bridge = {
        "image_width": plan.width,
        "image_height": plan.height,
        "max_steps": max(500, args.max_steps + 1),
    }
    specs = resolve("simulation", given, {"sim_bridge": bridge})
    with private_graph(specs, folder / "logs", args.domain, pictures=True) as (client, _):
        names = ", ".join(spec.name for spec in specs)
        say(f"starting {names} in ROS domain {client.domain}")
        say("loading the model and drawing the first frame")
        client.wait_ready()
        if args.record:
            client.wait_recorder()
        started = client.reset(episode.episode_id)
        if not lockstep:
            client.arm()
        say(f"{episode.scene}, episode {episode.episode_id}: {plan.instruction}")
        for doubt in plan.doubts:
            say(f"warning: the instruction may not be understood: {doubt}")
        progress = None if args.json else show
        outcome = client.drive(started, plan.instruction, args.max_steps, progress=progress)
        if not lockstep:
            client.arm(False)
        metrics, telemetry = client.metrics(), client.telemetry
        if lockstep:
            client.linger(lambda: len(telemetry.frames) >= metrics["frames"], 2.0)
    summary = summarize(args, plan, outcome, metrics, telemetry)
    say("writing the video")
    write_results(plan, folder, final, summary, outcome, metrics, telemetry)
    return summary


def show(feedback: Any) -> None:
    """One line per decision, and before the first what the network is told, if other words."""
    if feedback.step == 0 and feedback.told:
        say(f"  the network is told: {feedback.told}")
    action = known_action(feedback.action)
    name = "not understood" if action is None else action.name
    say(
        f"  {feedback.step:3d} {name:14s} {feedback.inference_time * 1000:5.0f} ms  "
        f"{feedback.path_length:5.2f} m"
    )


def summarize(
    args: argparse.Namespace,
    plan: Plan,
    outcome: "Outcome",
    metrics: dict[str, Any],
    telemetry: "Telemetry",
) -> dict[str, Any]:
    """What the drive came to."""
    from janusvln_ros.graph.client import timing_summary

    checkpoint, trained = checkpoint_facts(args.checkpoint)
    received = len(telemetry.frames)
    return {
        "steps": outcome.steps,
        "success": bool(metrics["success"]),
        "distance_to_goal": metrics["distance_to_goal"],
        "path_length": metrics["path_length"],
        "end": outcome.code,
        "end_message": outcome.message,
        "spl": metrics["spl"],
        "oracle_success": metrics["oracle_success"],
        "collisions": metrics["collisions"],
        "seconds": outcome.elapsed,
        "episode_id": plan.episode.episode_id,
        "scene_id": plan.episode.scene_id,
        "simulator": metrics["simulator"],
        "instruction": plan.instruction,
        "doubts": list(plan.doubts),
        "mode": args.mode,
        "seed": args.seed,
        "checkpoint": checkpoint,
        "trained": trained,
        "timings": timing_summary(telemetry.decisions),
        "images": {"received": received, "dropped": max(0, int(metrics["frames"]) - received)},
    }


def checkpoint_facts(checkpoint: str) -> tuple[str, bool]:
    """
    The checkpoint's folder or id, and whether its weights are trained, by ``navigation.trained``
    of its config (published ones are, and do not say).
    """
    folder = Path(checkpoint or default_checkpoint())
    config = folder / "config.json"
    if not config.is_file():
        return checkpoint, True
    navigation = read_object(config).get("navigation", {})
    return str(folder), bool(navigation.get("trained", True))


def write_results(
    plan: Plan,
    folder: Path,
    final: Path,
    summary: dict[str, Any],
    outcome: "Outcome",
    metrics: dict[str, Any],
    telemetry: "Telemetry",
) -> None:
    """Write the four files and put their final places into ``summary``."""
    from janusvln_ros.data.drawing import floor_picture, write_picture, write_video
    from janusvln_ros.graph.client import decision_row

    atomic_write(
        folder / "decisions.jsonl",
        "".join(json.dumps(decision_row(d)) + "\n" for d in telemetry.decisions),
    )
    assert telemetry.floor is not None
    episode, path = plan.episode, metrics["positions"]
    floor = telemetry.floor.around([*path, episode.goal_position, *episode.reference_path])
    write_picture(
        folder / "path.png",
        floor_picture(
            floor,
            (960, 720),
            path,
            yaw_of_rotation(metrics["rotations"][-1]),
            episode.goal_position,
            episode.goal_radius,
            episode.reference_path,
        ),
    )
    lockstep = summary["mode"] == "lockstep"
    first = next(video_pictures(plan, telemetry, floor))
    write_video(
        folder / "episode.mp4",
        video_pictures(plan, telemetry, floor),
        (first.shape[1], first.shape[0]),
        LOCKSTEP_VIDEO_FPS if lockstep else video_rate(sorted(telemetry.frames)),
    )
    names = {
        "video": "episode.mp4",
        "path": "path.png",
        "decisions": "decisions.jsonl",
        "summary": "summary.json",
        "logs": "logs",
    }
    if (folder / "bags").is_dir():
        names["bags"] = "bags"
    summary["files"] = {key: str(final / name) for key, name in names.items()}
    atomic_write(folder / "summary.json", json.dumps(summary, indent=2) + "\n")


def video_rate(stamps: list[int]) -> float:
    """Frames per second of a video that plays as fast as the drive was."""
    return (
        min(60.0, max(1.0, (len(stamps) - 1) / max(1e-9, (stamps[-1] - stamps[0]) / 1e9)))
        if len(stamps) > 1
        else 1.0
    )


def video_pictures(plan: Plan, telemetry: "Telemetry", floor: TopDownMap) -> Iterator["Picture"]:
    """
    Each frame of the camera with the latest decision on it, beside the floor with the path so far.
    """
    import cv2
    import numpy as np

    from janusvln_ros.data.drawing import camera_picture, floor_picture, side_by_side
    from janusvln_ros.data.drive_pictures import Style, style_of

    poses = sorted(telemetry.poses)
    styles = {
        nanoseconds(d.header.stamp): style_of(d, f"{d.total * 1000:.0f} ms")
        for d in telemetry.decisions
    }
    stamps = sorted(styles)
    for stamp in sorted(telemetry.frames):
        picture = cv2.imdecode(np.frombuffer(telemetry.frames[stamp], np.uint8), cv2.IMREAD_COLOR)
        if picture is None:
            continue
        known = bisect_right(stamps, stamp)
        style = styles[stamps[known - 1]] if known else Style()
        rgb = np.ascontiguousarray(picture[:, :, ::-1], np.uint8)
        camera = camera_picture(rgb, **{**vars(style), "instruction": plan.instruction})
        so_far = poses[: bisect_right(poses, stamp, key=itemgetter(0))] or poses[:1]
        above = floor_picture(
            floor,
            (camera.shape[0], camera.shape[0]),
            [p[1:4] for p in so_far],
            so_far[-1][4] if so_far else None,
            plan.episode.goal_position,
            plan.episode.goal_radius,
        )
        yield side_by_side(camera, above)


def page(summary: dict[str, Any]) -> str:
    """The result and where it is."""
    distance = (
        "unreachable"
        if summary["distance_to_goal"] is None
        else f"{summary['distance_to_goal']:.2f} m from the goal"
    )
    ended = (
        "stopped by itself"
        if summary["end"] == "NONE"
        else f"ended with {summary['end']}: {summary['end_message']}"
    )
    lines = [
        f"{'success' if summary['success'] else 'no success'}: {ended} after "
        f"{summary['steps']} steps and {summary['path_length']:.2f} m, {distance}"
    ]
    if total := summary["timings"].get("total"):
        images = summary["images"]
        lines += [
            f"decisions in {total['p50'] * 1000:.0f} ms (p50), "
            f"{total['p99'] * 1000:.0f} ms (p99); {images['received']} images, "
            f"{images['dropped']} dropped"
        ]
    if not summary["trained"]:
        lines += [
            "the weights are untrained: the motion means nothing yet; give "
            "--checkpoint, or train one with 'janusvln train tiny'"
        ]
    return "\n".join(lines + [f"  {name:10} {path}" for name, path in summary["files"].items()])

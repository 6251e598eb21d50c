"""
Options of the subcommands as data: declared once where several have them, one name for one thing.

A subcommand lists its own in ``OPTIONS``; ``main`` declares them.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from janusvln_ros.errors import require
from janusvln_ros.files import require_folder


class Option(NamedTuple):
    """One option or argument: its flags, and what ``add_argument`` is told of it."""

    flags: tuple[str, ...]
    settings: dict[str, Any]


def option(*flags: str, **settings: Any) -> Option:
    """Return an option, with the words of ``add_argument``."""
    return Option(flags, settings)


def declare(parser: argparse.ArgumentParser, options: Sequence[Option]) -> None:
    """Add options to a parser."""
    for flags, settings in options:
        parser.add_argument(*flags, **settings)


def frame_size(text: str) -> tuple[int, int]:
    """
    Read "640x480": width and height in pixels.

    Raises:
        argparse.ArgumentTypeError: it is not of that form.
    """
    width, _, height = text.partition("x")
    if not all(side.isascii() and side.isdigit() for side in (width, height)):
        raise argparse.ArgumentTypeError(f"{text!r}: write WIDTHxHEIGHT, such as 640x480")
    return int(width), int(height)


JSON = option("--json", action="store_true", help="print one JSON object on stdout, nothing else")

DATA = option(
    "--data",
    type=Path,
    default=Path("data"),
    metavar="DIR",
    help="folder with datasets/ and scene_datasets/ (default: %(default)s)",
)

SIZE = option(
    "--size",
    type=frame_size,
    default="640x480",
    metavar="WxH",
    help="camera frame in pixels (default: %(default)s)",
)

PRECISION = option(
    "--precision",
    metavar="NAME",
    help="float32, bfloat16, float16; int8 or int4 for the language model's weights; auto: the "
    "most exact that fits (default)",
)

WINDOW = option(
    "--window",
    type=int,
    nargs=2,
    metavar=("I", "W"),
    help="first and last frames to remember (what config.json says: usually 8 48)",
)

SET = option(
    "--set",
    nargs="+",
    action="extend",
    default=[],
    metavar="FIELD=VALUE",
    help="change settings, as in rules.max_steps=300; several, and more than once",
)

EPISODES = option(
    "--episodes",
    type=int,
    metavar="N",
    help="drive N episodes, chosen by the seed; more contain fewer (default: all)",
)

SPATIAL_PRECISION = option(
    "--spatial-precision",
    choices=["int8", "float8"],
    help="keep the spatial memory in one byte a number",
)

COLLECTION = option(
    "--out",
    type=require_folder,
    required=True,
    metavar="DIR",
    help="folder to write to; one that holds a part of this collection is continued",
)
"""Where drives for training go."""

SHIPPED = option(
    "--checkpoint",
    default="",
    metavar="DIR",
    help="checkpoint folder or hub id (default: the one that comes with the package)",
)
"""A checkpoint that need not be given."""

DOMAIN = option("--domain", type=int, metavar="N", help="ROS domain (default: a free one)")

LOG_DIR = option(
    "--log-dir",
    type=require_folder,
    metavar="DIR",
    help="write each node's output to DIR/NODE.log",
)

RUNNING = (
    option(
        "--namespace",
        metavar="NS",
        help="namespace of the graph (default: that of the only one there is)",
    ),
    option("--domain", type=int, metavar="N", help="ROS domain (default: ROS_DOMAIN_ID, else 0)"),
)
"""Which of the graphs that run is meant."""

BAG = (
    option("bag", type=Path, help="rosbag2 folder, or a .mcap or .db3 file"),
    option("--instruction", help="the words, for a bag without them"),
    option("--image-topic", help="camera topic (default: the only one)"),
    option("--odom-topic", help="odometry topic (default: the only one)"),
    option(
        "--cmd-vel-topic",
        help="velocity topic, integrated where there is no odometry (default: the only one)",
    ),
    option(
        "--cmd-vel-timeout",
        type=float,
        metavar="S",
        help="seconds after which the base stops by itself without a command (default: 0.5)",
    ),
    option(
        "--instruction-topic",
        help="std_msgs/String topic with the words (default: the one called instruction)",
    ),
    option(
        "--time",
        choices=("header", "log"),
        default="header",
        help="when something was: header, by its stamp (default), or log, when it was recorded, "
        "for stamps that are zero or of different clocks",
    ),
    option(
        "--uncalibrated",
        action="store_true",
        help="go on without camera_info: the field of view is then not put right",
    ),
)
"""A bag and which of its topics to read."""


def bag_topics(args: argparse.Namespace) -> Any:
    """Return the `janusvln_ros.data.drives.Topics` that the options of ``BAG`` name."""
    from janusvln_ros.data.drives import Topics

    timeout = args.cmd_vel_timeout
    require(
        timeout is None or 0 < timeout < float("inf"),
        f"--cmd-vel-timeout is {timeout}; it must be a positive number of seconds",
    )
    topics = (args.image_topic, args.odom_topic, args.cmd_vel_topic, args.instruction_topic)
    return Topics(*topics, **({} if timeout is None else {"cmd_vel_timeout": timeout}))


ROLLOUT = (
    option(
        "--dataset",
        default="houses",
        metavar="NAME",
        help="settings in config/eval: houses, r2r, rxr or scalevln (default: %(default)s)",
    ),
    option(
        "--config", type=Path, metavar="FILE", help="settings file instead of the one of --dataset"
    ),
    SET,
    option("--split", metavar="NAME", help="split (default: as the settings say)"),
    option(
        "--backend", choices=("houses", "habitat"), help="simulator (default: as the settings say)"
    ),
    option(
        "--size",
        type=frame_size,
        metavar="WxH",
        help="camera frame in pixels (default: as the settings say)",
    ),
    EPISODES,
    option(
        "--seed",
        type=int,
        metavar="N",
        help="seed of everything random (default: as the settings say)",
    ),
    option(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="processes on this machine (default: %(default)s)",
    ),
    option(
        "--threads",
        type=int,
        metavar="T",
        help="threads of each of them, to compute and to draw (default: cores / workers)",
    ),
    DATA,
    JSON,
)
"""What all commands that drive episodes share."""


def settings_changes(args: argparse.Namespace) -> list[str]:
    """Turn the short options into changes of the settings; what --set says comes last and wins."""
    width, height = args.size or (None, None)
    short = {
        "split": args.split,
        "backend": args.backend,
        "env.width": width,
        "env.height": height,
        "seed": args.seed,
    }
    return [f"{key}={value}" for key, value in short.items() if value is not None] + args.set

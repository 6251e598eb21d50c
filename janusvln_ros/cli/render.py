"""
Turn a recorded drive into a video, or into a picture of its end.

  janusvln render drive.mcap                             drive.mp4 beside it
  janusvln render drive.mcap --decisions decisions.mcap  with what 'janusvln replay' decided on it
  janusvln render drive.mcap --out end.png               the last frame beside the whole path

Shows the camera, the instruction, the decision with its probabilities, the memory fill and, where
the bag has odometry, the path from above. 'janusvln demo' and 'janusvln evaluate' write the
pictures of simulated episodes themselves.
"""

import argparse
import sys
from collections import deque
from itertools import chain
from pathlib import Path

from tqdm import tqdm

from janusvln_ros.cli.options import BAG, JSON, bag_topics, option
from janusvln_ros.cli.output import answer, say
from janusvln_ros.data.bags import open_bag
from janusvln_ros.errors import InputError, require
from janusvln_ros.files import require_file

OPTIONS = (
    *BAG,
    option(
        "--decisions",
        type=Path,
        help="bag with decisions on these frames (default: those in the bag itself)",
    ),
    option(
        "--out",
        type=require_file,
        help=".mp4 or .png to write (default: the bag's name with .mp4)",
    ),
    JSON,
)


def run(args: argparse.Namespace) -> int:
    """Render the bag."""

    from janusvln_ros.data.drawing import write_picture, write_video
    from janusvln_ros.data.drive_pictures import drive_pictures, styles
    from janusvln_ros.data.drives import MOTION_TYPES

    out = args.out or args.bag.with_suffix(".mp4")
    require(out.suffix in (".mp4", ".png"), f"--out is {out}; its ending must be .mp4 or .png")
    with open_bag(args.decisions or args.bag) as source:
        decisions = styles(source)
    with open_bag(args.bag, args.time) as bag:
        rate, pictures, note = drive_pictures(bag, bag_topics(args), decisions, args.instruction)
        counted = iter(tqdm(pictures, unit="picture", file=sys.stderr, disable=None))
        first = next(counted, None)
        if first is None:
            raise InputError(f"{args.bag} holds no camera picture that can be read")
        if out.suffix == ".png":
            write_picture(out, deque(chain([first], counted), maxlen=1).pop())
        else:
            write_video(out, chain([first], counted), (first.shape[1], first.shape[0]), rate)
        if note and bag.topics_of(MOTION_TYPES):
            say(f"warning: no path is drawn: {note}")
        if bag.damage:
            say(f"warning: {bag.damage}")
    answer(args.json, {"fps": rate, "file": str(out)}, lambda result: str(result["file"]))
    return 0

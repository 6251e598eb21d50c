"""
Generate procedural homes and their episodes.

Homes of 4 to 12 rooms with openings, hallways, furniture and colours that instructions name, as
.glb files (z up, as Matterport3D), and episodes with the expert's actions in the VLN-CE formats:

  OUT/scene_datasets/houses/HOME/HOME.glb
  OUT/datasets/houses/SPLIT/SPLIT.json.gz      instructions, starts, goals, reference paths
  OUT/datasets/houses/SPLIT/SPLIT_gt.json.gz   the expert's actions and places

Splits: train; val_seen (training homes, new episodes); val_unseen (homes and instructions that
train does not have); val_memory (unseen homes, only routes that need memory, ways back to the
first room among them). train2, val_seen2, val_unseen2 and val_memory2 are the same of generator 2:
homes that look less like one another, and broader language.

The same seed gives the same bytes. Interrupted, the command goes on where it stopped. 'janusvln
evaluate' and 'janusvln demo' generate what they need by themselves, with the defaults of this
command.

  janusvln houses                                   everything, into data/
  janusvln houses --splits val_unseen --unseen-homes 5 --out /tmp/few --seed 7
  janusvln houses --picture data/plan.png           also a top-down picture of the first home
"""

import argparse
import time
from collections.abc import Sequence
from typing import Any

from janusvln_ros.cli.options import JSON, option
from janusvln_ros.cli.output import print_json, say
from janusvln_ros.data.episodes import Episode, read_episodes
from janusvln_ros.errors import require
from janusvln_ros.files import require_file, require_folder
from janusvln_ros.rollout.run import generate_split
from sim_bridge.homes.dataset import SPLITS

OPTIONS = (
    option(
        "--out",
        type=require_folder,
        default="data",
        metavar="DIR",
        help="data folder to write into (default: data)",
    ),
    option(
        "--seed",
        type=int,
        default=None,
        help="everything follows from it (default: that of the houses already there, else 0)",
    ),
    option(
        "--splits",
        nargs="+",
        choices=tuple(SPLITS),
        default=[name for name, split in SPLITS.items() if split.generator == 1],
        metavar="SPLIT",
        help=f"of {', '.join(SPLITS)} (default: the four of generator 1)",
    ),
    option(
        "--train-homes", type=int, default=None, metavar="N", help="homes of train (default 600)"
    ),
    option(
        "--seen-homes",
        type=int,
        default=None,
        metavar="N",
        help="how many of them val_seen visits (default 100)",
    ),
    option(
        "--unseen-homes",
        type=int,
        default=None,
        metavar="N",
        help="homes of val_unseen and val_memory (default 60)",
    ),
    option(
        "--episodes-per-home",
        type=int,
        default=None,
        metavar="N",
        help="default: 10 in train and val_unseen, 5 in val_seen and val_memory",
    ),
    option("--rooms", default=None, metavar="MIN-MAX", help="rooms of a home (default 4-12)"),
    option(
        "--jobs", type=int, default=None, metavar="N", help="processes (default: one per core)"
    ),
    option(
        "--picture",
        type=require_file,
        default=None,
        metavar="PNG",
        help="also draw the first route of the first split and its home from above",
    ),
    JSON,
)


def run(args: argparse.Namespace) -> int:
    """Write the splits asked for."""
    require(args.jobs is None or args.jobs >= 1, f"--jobs is {args.jobs}: give at least 1")
    rooms = _rooms(args.rooms) if args.rooms else None
    seen_homes = args.seen_homes
    if args.train_homes is not None and seen_homes is None:
        seen_homes = min(args.train_homes, SPLITS["val_seen"].homes)
    homes = {
        name: args.unseen_homes
        if split.unseen
        else args.train_homes
        if name.startswith("train")
        else seen_homes
        for name, split in SPLITS.items()
    }
    report = {}
    for split in args.splits:
        began = time.monotonic()
        path = generate_split(
            args.out,
            split,
            split,
            quiet=None,
            seed=args.seed,
            homes=homes[split],
            episodes_per_home=args.episodes_per_home,
            rooms=rooms,
            jobs=args.jobs,
        )
        report[split] = told = _figures(read_episodes(args.out, "houses", split).episodes)
        told |= {"seconds": time.monotonic() - began, "path": str(path)}
        say(f"{split}: {told['episodes']} episodes in {told['homes']} homes -> {path}")
    if args.picture:
        from sim_bridge.homes.picture import draw_episode

        first = read_episodes(args.out, "houses", args.splits[0]).episodes[0]
        draw_episode(args.out, first, args.picture)
        say(f"picture -> {args.picture}")
    if args.json:
        print_json({"splits": report, "picture": str(args.picture) if args.picture else None})
    return 0


def _figures(episodes: Sequence["Episode"]) -> dict[str, Any]:
    """How many episodes a split has, in how many homes, how long, and how many need memory."""
    lengths = sorted(float(e.info["path_length"]) for e in episodes)
    return {
        "episodes": len(episodes),
        "homes": len({e.scene_id for e in episodes}),
        "median_length_m": lengths[len(lengths) // 2],
        "memory": sum("memory" in e.info["tags"] for e in episodes),
    }


def _rooms(text: str) -> tuple[int, int]:
    """``MIN-MAX`` or one number as a pair."""
    low, _, high = text.partition("-")
    require(
        low.isdigit() and (high or low).isdigit(),
        f"--rooms {text!r} is no range: write it as 4-12",
    )
    return int(low), int(high or low)

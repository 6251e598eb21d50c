"""
Build training sets from trajectories: one file of JSON lines, read from disk piece by piece by
both memory modes.

  janusvln data --base --out data/train_base.jsonl
      R2R and RxR in <data>/trajectory_data (the published first stage)
  janusvln data --extra --out data/train_extra.jsonl
      those, ScaleVLN, and DAgger in <data>/dagger_data (the second)
  janusvln data --from houses=runs/expert --out train.jsonl
      any folders of 'janusvln collect', 'dagger' or 'import-bag', NAME=FOLDER each
  janusvln data --base --published train_r2r_rxr.json
      also write the list of samples that the published trainer reads

Trajectories with pictures that are missing or cannot be read, without instruction or with labels
that do not fit are left out, counted by reason, and named last; with --strict nothing is written
then. One with several instructions is learned once with each.

For small networks, which have no pretrained parts:

  janusvln data --views 320 --out runs/tiny/views
      views of 320 generated homes that teach the encoders
  janusvln data --words all-MiniLM-L6-v2 --wordnet /usr/share/wordnet --out config/model/tiny
      tokenizer and word vectors, distilled from a pretrained sentence encoder (docs/training.md)
"""

import argparse
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tqdm import tqdm

from janusvln_ros.cli.options import DATA, JSON, STRICT, option
from janusvln_ros.cli.output import answer, say
from janusvln_ros.data.left_out import LeftOut, left_out_page, refuse_any
from janusvln_ros.data.samples import STRIPPED, Learnable, SetReport, learnable, set_writer
from janusvln_ros.data.trajectories import read_trajectories
from janusvln_ros.errors import InputError, require
from janusvln_ros.files import require_file, require_folder

OPTIONS = (
    option("--base", action="store_true", help="R2R and RxR"),
    option("--extra", action="store_true", help="R2R, RxR, ScaleVLN and DAgger (R2R, RxR)"),
    option(
        "--from",
        dest="sources",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="a folder of trajectories, or its annotations*.json; may be repeated",
    ),
    option(
        "--views",
        type=int,
        metavar="HOMES",
        help="views of so many generated homes for the stage 'encoders'",
    ),
    option(
        "--words",
        type=Path,
        metavar="ENCODER",
        help="tokenizer and word vectors, from the folder of all-MiniLM-L6-v2",
    ),
    option(
        "--wordnet",
        type=Path,
        metavar="DIR",
        default=Path("/usr/share/wordnet"),
        help="with --words: WordNet's files",
    ),
    DATA,
    option(
        "--out",
        type=Path,
        metavar="PATH",
        help="the file (a set) or folder (views, words) to write",
    ),
    option(
        "--published",
        type=require_file,
        metavar="FILE",
        help="also write the published list of samples",
    ),
    option(
        "--check",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="share of each drive's pictures that is opened, to leave out drives with one that "
        "cannot be read (default: all of them)",
    ),
    STRICT,
    option(
        "--walks",
        type=int,
        default=5,
        metavar="N",
        help="--views: walks through each home (default: %(default)s)",
    ),
    option(
        "--frames",
        type=int,
        default=16,
        metavar="N",
        help="--views: frames of a walk (default: %(default)s)",
    ),
    option(
        "--first-home",
        type=int,
        default=0,
        metavar="N",
        help="--views: number of the first home (default: %(default)s)",
    ),
    option(
        "--generators",
        type=int,
        nargs="+",
        choices=(1, 2),
        default=[1],
        metavar="N",
        help="--views: homes of these generators in turn, as in 1 2 (default: 1)",
    ),
    option(
        "--vary-camera",
        action="store_true",
        help="--views: another height, tilt, field of view, exposure and noise for every walk",
    ),
    option(
        "--image-width",
        type=int,
        default=112,
        metavar="PX",
        help="--views: width of the pictures (default: %(default)s)",
    ),
    option("--jobs", type=int, metavar="N", help="--views: processes (default: one per core)"),
    JSON,
)


TOLD_LAST = ("left_out", "left_out_by_reason", "reasons")
"""What of a report is printed after everything else."""

FOLDERS = {
    "r2r": ("trajectory_data/R2R-CE-640x480", "trajectory_data/R2R"),
    "rxr": ("trajectory_data/RxR-CE-640x480", "trajectory_data/RxR"),
    "scalevln": ("trajectory_data/ScaleVLN",),
    "dagger_r2r": ("dagger_data/R2R",),
    "dagger_rxr": ("dagger_data/RxR",),
}
"""Where the published sources lie below the data folder, in either layout."""


def run(args: argparse.Namespace) -> int:
    """Build what is asked for and report it."""
    views = args.views is not None
    chosen = (args.base, args.extra, args.sources, views, args.words)
    require(
        sum(map(bool, chosen)) == 1,
        "say what to build with one of --base, --extra, --from NAME=DIR, --views "
        "HOMES or --words ENCODER",
    )
    require(args.out is not None or args.published, "say where to write it with --out")
    if args.out is not None:
        (require_folder if views or args.words else require_file)(args.out)
    report = _views(args) if views else _words(args) if args.words else _set(args)
    answer(
        args.json,
        report,
        lambda report: "\n".join(
            f"{name}: {value}" for name, value in report.items() if name not in TOLD_LAST
        ),
    )
    if "left_out" in report:
        read = report["trajectories"] + report["left_out"]
        say("\n".join(left_out_page(report, read, "drives")) or "left out: nothing")
    return 0


def _sources(args: argparse.Namespace) -> list[tuple[str, Path]]:
    """Names and folders of the trajectories asked for. Raises InputError."""
    if args.sources:
        pairs = [source.partition("=") for source in args.sources]
        require(
            all(name and equals and folder for name, equals, folder in pairs),
            f"--from {args.sources}: write NAME=FOLDER, as in houses=runs/expert",
        )
        return [(name, Path(folder)) for name, _, folder in pairs]
    found = []
    # the published order
    for name in (
        ("r2r", "rxr") if args.base else ("scalevln", "dagger_r2r", "dagger_rxr", "r2r", "rxr")
    ):
        folder = next(
            (args.data / path for path in FOLDERS[name] if (args.data / path).is_dir()), None
        )
        if folder is None:
            raise InputError(
                f"{name}: there is no "
                f"{' or '.join(str(args.data / path) for path in FOLDERS[name])}: put the "
                "trajectories there, or name your folders with --from"
            )
        found.append((name, folder))
    return found


def _set(args: argparse.Namespace) -> dict[str, Any]:
    require(0 <= args.check <= 1, f"--check is {args.check}: give a share from 0 to 1")
    missing: list[LeftOut] = []
    found = SetReport(missing=missing)
    sources = (
        (name, read_trajectories(folder, data_dir=args.data, rejected=missing))
        for name, folder in _sources(args)
    )
    report: dict[str, Any] = {}
    with ExitStack() as stack:
        add = None if args.out is None else stack.enter_context(set_writer(args.out))

        def drives() -> Iterator[Learnable]:
            for item in tqdm(
                learnable(sources, found, args.check), unit=" drives", mininterval=2, disable=None
            ):
                if add is not None:
                    add(item)
                yield item
            if args.strict:  # before anything is put in its place
                refuse_any(missing, found.trajectories + len(missing), "drives")

        if args.published is None:
            deque(drives(), maxlen=0)
        else:
            from janusvln_ros.training.released import published_samples, write_published

            samples = (
                sample
                for name, trajectory, _ in drives()
                for sample in published_samples(trajectory, args.data, strip=name in STRIPPED)
            )
            written = write_published(samples, args.published)
            report["published"] = {"out": str(args.published), "samples": written}
    where = {} if args.out is None else {"out": str(args.out)}
    return {**where, **found.as_dict(), **report}


def _views(args: argparse.Namespace) -> dict[str, Any]:
    from janusvln_ros.rollout.threads import cores, share_of, use
    from janusvln_ros.rollout.views import make_views

    require(args.jobs is None or args.jobs >= 1, f"--jobs is {args.jobs}: give at least 1")
    jobs = args.jobs or cores()
    use(share_of(jobs))
    make_views(
        args.out,
        homes=args.views,
        walks=args.walks,
        steps=args.frames,
        image_width=args.image_width,
        first_home=args.first_home,
        generators=args.generators,
        vary_camera=args.vary_camera,
        jobs=jobs,
    )
    return {
        "out": str(args.out),
        "homes": args.views,
        "walks": args.views * args.walks,
        "frames": args.views * args.walks * args.frames,
    }


def _words(args: argparse.Namespace) -> dict[str, Any]:
    from janusvln_ros.training.words import Encoder, build_words

    return {"out": str(args.out), **build_words(Encoder(args.words), args.wordnet, args.out)}

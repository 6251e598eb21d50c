"""
Say what went wrong in an evaluation: how many drives counted doors wrongly, stopped at the wrong
thing, in the wrong room, too early or too late, got lost or were blocked, in all, by the length of
the route and by its tags, with 95 % intervals.

    janusvln tally runs/eval-houses-policy-20260101-120000
    janusvln tally RUN --json      also which episodes they were

RUN is the output folder of 'janusvln evaluate'. Generated homes are drawn again from their seeds,
so that rooms, doors and things are known; of other data sets only what the drive itself tells is
told.
"""

import argparse
from pathlib import Path

from janusvln_ros.cli.options import DATA, JSON, option
from janusvln_ros.cli.output import answer

OPTIONS = (
    option("run", type=Path, metavar="RUN", help="output folder of 'janusvln evaluate'"),
    DATA,
    JSON,
)


def run(args: argparse.Namespace) -> int:
    """Print the tally."""
    from janusvln_ros.rollout.tally import page, tally_run

    answer(args.json, tally_run(args.run, args.data), page)
    return 0

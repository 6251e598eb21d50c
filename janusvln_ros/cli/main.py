"""
Entry point of ``janusvln``: finds the subcommand, runs it, and turns bad input into one sentence.
"""

import argparse
import importlib
import inspect
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from janusvln_ros import __version__
from janusvln_ros.cli.options import declare
from janusvln_ros.cli.output import say
from janusvln_ros.errors import FailedError, InputError, NonFiniteError, lacking
from janusvln_ros.files import trouble

SUBCOMMANDS = {
    "demo": "drive a simulated robot through a house by instruction, on real ROS 2",
    "up": "start a graph of nodes without 'ros2 launch': simulation, robot or replay",
    "status": "say what a running graph does, and what it lacks",
    "doctor": "look for what would go wrong in a drive, before it does",
    "arm": "allow a running robot to move, or forbid it",
    "go": "tell a running robot where to go, and watch it get there",
    "watch": "show the decisions and warnings of a running graph",
    "calibrate": "measure with a tape what a robot makes of its commands",
    "stop": "end what a running robot does, and disarm it",
    "secure": "write the SROS2 policy of a running graph",
    "houses": "generate procedural homes and their episodes in the VLN-CE formats",
    "collect": "write expert trajectories in the published layout",
    "dagger": "write model-driven trajectories in the published layout",
    "data": "build training sets from trajectories",
    "train": "train by a recipe: tiny, base or extra",
    "evaluate": "run an agent over a split of episodes and report the metrics",
    "tally": "say what went wrong in an evaluation, and how often",
    "replay": "run the policy over a rosbag and compare its decisions",
    "record": "record a rosbag around each instruction",
    "import-bag": "turn a recorded drive into training trajectories",
    "render": "turn an episode or a bag into a video or a picture",
    "bench": "time the model step by step, with random weights of any size",
    "info": "say what a checkpoint holds and which GPUs it fits on",
    "soak": "drive for hours in the continuous simulator with faults injected",
}
"""Name of each subcommand and its line in ``janusvln --help``."""


RESUMED = ("houses", "collect", "dagger", "evaluate", "train")
"""Subcommands that go on where they were interrupted."""

WIDTH = 100
"""Columns that help takes at most, however wide the terminal is."""


class Help(argparse.RawDescriptionHelpFormatter):
    """Descriptions as they are written, all else folded into `WIDTH` columns."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=min(WIDTH, shutil.get_terminal_size().columns - 2))


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are sentences like all others; names are written in full."""

    def __init__(self, prog: str, description: str | None, epilog: str | None = None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            formatter_class=Help,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Raise InputError."""
        raise InputError(f"{message} ('{self.prog} --help' tells more)")


class Interrupted(KeyboardInterrupt):
    """Ctrl-C in work that may be continued; the message is the command that does."""


def main(argv: list[str] | None = None) -> int:
    """
    Run ``janusvln`` with ``argv`` and return its exit code: 0 done, 1 failed, 2 bad input, 130
    interrupted.

    Each subcommand NAME is the module ``janusvln_ros.cli.NAME`` (``-`` as ``_``) with
    ``OPTIONS`` and ``run(args) -> int``; its module docstring is the text of ``--help``.
    """
    arguments = sys.argv[1:] if argv is None else argv
    try:
        return _run(arguments)
    except InputError as error:
        say(f"error: {error}")
        return 2
    except BrokenPipeError:
        # whoever read has seen enough; what Python still holds back goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        sentence = trouble(error)
        if sentence is None:
            raise
        say(f"error: {sentence}")
        return 1
    except ModuleNotFoundError as error:
        sentence = lacking(error)
        if sentence is None:
            raise
        say(f"error: {sentence}")
        return 2
    except (NonFiniteError, FailedError) as error:
        say(f"error: {error}")
        return 1
    except Interrupted as interrupted:
        say(f"interrupted; to go on:\n  {interrupted}")
        return 130
    except KeyboardInterrupt:
        say("interrupted")
        return 130


def _run(arguments: list[str]) -> int:
    """Find the subcommand, read its options and run it."""
    lines = "\n".join(f"  {name:12} {text}" for name, text in SUBCOMMANDS.items())
    top = Parser("janusvln", "Vision-and-language navigation on ROS 2.", f"subcommands:\n{lines}")
    top.add_argument("--version", action="version", version=f"janusvln_ros {__version__}")
    top.add_argument(
        "subcommand",
        choices=SUBCOMMANDS,
        metavar="SUBCOMMAND",
        help="one of those below; 'janusvln SUBCOMMAND --help' tells more",
    )
    name = top.parse_args(arguments[:1] or ["--help"]).subcommand
    module = importlib.import_module(f"janusvln_ros.cli.{name.replace('-', '_')}")
    parser = Parser(f"janusvln {name}", inspect.getdoc(module))
    declare(parser, module.OPTIONS)
    # options may stand before, between and after what has no flag
    args = parser.parse_intermixed_args(arguments[1:])
    try:
        return int(module.run(args))
    except KeyboardInterrupt as error:
        if name not in RESUMED:
            raise
        raise Interrupted(command_to_go_on(arguments, getattr(args, "out", None))) from error


def command_to_go_on(arguments: Sequence[str], out: Path | None) -> str:
    """The command that goes on where one with ``arguments`` was interrupted, into ``out``."""
    named = any(word == "--out" or word.startswith("--out=") for word in arguments)
    return shlex.join(
        ["janusvln", *arguments, *([] if named or out is None else ["--out", str(out)])]
    )


if __name__ == "__main__":
    sys.exit(main())

"""What subcommands print: one object on stdout for scripts, sentences on stderr for people."""

import json
import sys
from collections.abc import Callable
from typing import Any

from janusvln_ros.errors import printable


def print_json(result: dict[str, Any]) -> None:
    """Print the one object that ``--json`` promises on stdout; all else goes to stderr."""
    print(json.dumps(result), flush=True)


def answer(as_json: bool, result: dict[str, Any], page: Callable[[dict[str, Any]], str]) -> None:
    """Print ``result`` on stdout, as that one object or as the ``page`` for people."""
    if as_json:
        print_json(result)
    else:
        show(page(result))


def show(text: str) -> None:
    """Print for people, on stdout."""
    print(printable(text), flush=True)


def say(text: str) -> None:
    """Tell the user, on stderr."""
    print(printable(text), file=sys.stderr, flush=True)

"""What subcommands print: one object on stdout for scripts, sentences on stderr for people."""

import json
import sys
from typing import Any


def print_json(result: dict[str, Any]) -> None:
    """Print the one object that ``--json`` promises on stdout; all else goes to stderr."""
    print(json.dumps(result), flush=True)


def say(text: str) -> None:
    """Tell the user, on stderr."""
    print(text, file=sys.stderr, flush=True)

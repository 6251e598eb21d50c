"""
Append-only lines of JSON that survive a kill at any moment: what is in the file was done, what is
not is done again.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import Timeout

from janusvln_ros.data.episodes import Episode, json_id
from janusvln_ros.documents import parse_json
from janusvln_ros.errors import InputError, require
from janusvln_ros.files import file_lock

JOURNALS = "journal_*.jsonl"
"""The journals in a folder that several processes write to, one each."""
AGAIN = "remove the line, its episode is then done again"


def journal_path(folder: Path, shard: int) -> Path:
    """Where process number ``shard`` writes in a folder."""
    return folder / f"journal_{shard}.jsonl"


def line_key(episode: Episode) -> dict[str, Any]:
    """What every line begins with: which episode it is of."""
    return {
        "scene": episode.scene,
        "episode_id": json_id(episode.episode_id),
        "instruction": episode.instruction,
    }


def read_journals(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the complete lines of all journals in a folder, see `read_lines`."""
    for path in sorted(folder.glob(JOURNALS)):
        yield from read_lines(path)


def read_lines(path: str | Path) -> Iterator[dict[str, Any]]:
    """
    Yield the complete lines of a journal; a last line cut off by a kill is left out, a missing
    file is empty.

    Raises:
        InputError: a line that is not the last is no JSON object, so the file was damaged by
            something else.
    """
    path = Path(path)
    if not path.is_file():
        return
    # Without its line feed the last line may be the beginning of a longer number or text, so it
    # counts as cut off even if it can be read.
    *complete, _ = path.read_bytes().split(b"\n")
    for number, line in enumerate(complete, 1):
        item = parse_json(line, f"{path}, line {number}", AGAIN)
        require(
            isinstance(item, dict),
            f"{path}, line {number} is no object: {AGAIN}",
        )
        yield item


class Journal:
    """
    One writer's journal.

    Opening it takes a lock that other processes respect, and cuts off a half-written last line.

    Raises:
        InputError: another process still writes to it after ``wait`` seconds (one whose parent was
            killed needs a moment to die).
    """

    def __init__(self, path: str | Path, wait: float = 3.0) -> None:
        self.path = Path(path)
        self._lock = file_lock(self.path)
        try:
            self._lock.acquire(timeout=wait)
        except Timeout as error:
            raise InputError(
                f"another process is writing {self.path}: wait until it ends, "
                "or choose another output folder"
            ) from error
        self._file = open(self.path, "a+b")  # noqa: SIM115 (open for life)
        self._file.seek(0)
        self._file.truncate(self._file.read().rfind(b"\n") + 1)

    def append(self, item: dict[str, Any]) -> None:
        """Add one line and return when it is on the disk."""
        self._file.write(json.dumps(item, ensure_ascii=False, allow_nan=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file and give the lock back."""
        self._file.close()
        self._lock.release()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

"""
What Fast DDS leaves in shared memory, kept to this user and cleared of the dead. No ROS import.

A participant has a segment ``fastrtps_<16 digits>`` with the messages it sends, and holds a lock
on the file ``..._el`` beside it for as long as it lives; one that is killed leaves both behind.
"""

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

SHM = Path("/dev/shm")

SEGMENT = re.compile(r"fastrtps_[0-9a-f]{16}")

NEW_S = 10.0
"""Seconds in which a segment may have been made and not locked yet."""


def _own(folder: Path, pattern: str) -> Iterator[tuple[Path, os.stat_result]]:
    """Plain files of this user in ``folder``; what goes meanwhile is passed over."""
    for path in folder.glob(pattern):
        with contextlib.suppress(OSError):
            told = path.lstat()
            if told.st_uid == os.getuid() and path.is_file() and not path.is_symlink():
                yield path, told


def clear_dead(folder: Path = SHM) -> int:
    """Remove the segments of this user's participants that are dead; return how many."""
    count = 0
    for path, told in _own(folder, "fastrtps_*_el"):
        segment = path.with_name(path.name.removesuffix("_el"))
        if not SEGMENT.fullmatch(segment.name) or time.time() - told.st_mtime < NEW_S:
            continue
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held: it lives
                segment.unlink(missing_ok=True)
                path.unlink(missing_ok=True)
                count += 1
            finally:
                os.close(handle)
    return count


def keep_private(folder: Path = SHM) -> None:
    """
    Let nobody but this user read what this user's participants send: Fast DDS makes its segments
    readable for all, whatever the umask.
    """
    for pattern in ("fastrtps_*", "sem.fastrtps_*"):
        for path, told in _own(folder, pattern):
            if told.st_mode & 0o077:
                with contextlib.suppress(OSError):
                    path.chmod(0o600)

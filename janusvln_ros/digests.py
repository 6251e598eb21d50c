"""Short names for the content of files: whole where they are small, by samples where not."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

WHOLE_BYTES = 1 << 24
"""Files up to this size are read whole."""
TEXT_SUFFIXES = (".json", ".txt", ".jinja", ".model")
"""Files that are read whole at any size: settings, words."""
SAMPLE_BYTES = 1024
"""Read at the beginning, in the middle and at the end of every tensor of a larger weight file."""
PARTS, PART_BYTES = 64, 1 << 16
"""How many parts of any other large file (scenes, bags) are read, evenly over it; their size."""


def telling_parts(path: Path) -> Iterator[bytes]:
    """
    The bytes of a file that tell it from every other.

    Of large weight files these are the header and parts of every tensor, since every step of
    training changes all of a tensor: gigabytes take milliseconds. Of other large files, text
    aside, these are its size and parts all over it. No check for damage.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= WHOLE_BYTES or path.suffix in TEXT_SUFFIXES:
            yield file.read()
            return
        if path.suffix != ".safetensors":
            yield str(size).encode()
            for k in range(PARTS):
                file.seek((size - PART_BYTES) * k // (PARTS - 1))
                yield file.read(PART_BYTES)
            return
        for begin, end in _samples(path, size):
            file.seek(begin)
            yield file.read(end - begin)


def file_digest(path: Path) -> str:
    """SHA-256 over `telling_parts`: of a file of up to ``WHOLE_BYTES``, the usual one."""
    digest = hashlib.sha256()
    for part in telling_parts(path):
        digest.update(part)
    return digest.hexdigest()


def _samples(path: Path, size: int) -> list[tuple[int, int]]:
    """The parts of a large weight file to read: bytes from and to."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            tensors = json.loads(file.read(length) if length < size else b"")
            spans = [
                tuple(entry["data_offsets"])
                for name, entry in tensors.items()
                if name != "__metadata__"
            ]
        except (ValueError, KeyError, TypeError, AttributeError):
            return [(0, size)]  # no safetensors
    start = 8 + length
    return [
        (0, start),
        *(
            (start + max(at, begin), start + min(at + SAMPLE_BYTES, end))
            for begin, end in spans
            for at in (begin, (begin + end - SAMPLE_BYTES) // 2, end - SAMPLE_BYTES)
        ),
    ]

"""Which checkpoint it was: what a record of decisions or of a run names it by. No torch."""

import hashlib
import json
from pathlib import Path

from janusvln_ros.errors import require

DECIDING_SUFFIXES = (".json", ".safetensors", ".txt", ".jinja", ".model")
WHOLE_BYTES = 1 << 24
"""Files up to this size are read whole."""
SAMPLE_BYTES = 1024
"""Read at the beginning, in the middle and at the end of every tensor of a larger file."""


def checkpoint_digest(folder: Path) -> str:
    """
    SHA-256 over the files of a checkpoint folder that determine its decisions, names included.

    Of large weight files the header and parts of every tensor are read, since every step of
    training changes all of a tensor: gigabytes take milliseconds. It tells checkpoints apart, and
    is no check for damage.

    Raises:
        InputError: no such file is there.
    """
    paths = sorted(p for p in folder.iterdir() if p.suffix in DECIDING_SUFFIXES)
    require(paths, f"{folder} holds no checkpoint: no .json or .safetensors file is there")
    digest = hashlib.sha256()
    for path in paths:
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            if size <= WHOLE_BYTES:
                digest.update(file.read())
                continue
            for begin, end in _samples(path, size):
                file.seek(begin)
                digest.update(file.read(end - begin))
    return digest.hexdigest()


def _samples(path: Path, size: int) -> list[tuple[int, int]]:
    """The parts of a large file to read: bytes from and to."""
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

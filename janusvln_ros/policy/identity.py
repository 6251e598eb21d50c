"""Which checkpoint it was: what a record of decisions or of a run names it by. No torch."""

import hashlib
from pathlib import Path

from janusvln_ros.digests import telling_parts
from janusvln_ros.errors import require

DECIDING_SUFFIXES = (".json", ".safetensors", ".txt", ".jinja", ".model")


REPHRASE_FOLDER = "rephrase"
"""In a checkpoint's folder: what says instructions again (`janusvln_ros.policy.rephrase`)."""


def checkpoint_digest(folder: Path) -> str:
    """
    SHA-256 over the files of a checkpoint folder that determine its decisions, names included; of
    large weight files by samples (`janusvln_ros.digests.telling_parts`).

    Raises:
        InputError: no such file is there.
    """
    paths = sorted(
        path
        for inside in (folder, folder / REPHRASE_FOLDER)
        if inside.is_dir()
        for path in inside.iterdir()
        if path.suffix in DECIDING_SUFFIXES
    )
    require(paths, f"{folder} holds no checkpoint: no .json or .safetensors file is there")
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        for part in telling_parts(path):
            digest.update(part)
    return digest.hexdigest()

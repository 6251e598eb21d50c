"""The checkpoint that is used when none is named."""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from janusvln_ros.files import share_dir
from janusvln_ros.model import JanusVLNConfig
from janusvln_ros.model.checkpoint import build

SHIPPED = Path(__file__).resolve().parents[1] / "checkpoints" / "janusvln-tiny"
UNTRAINED_SEED = 0


def default_checkpoint() -> Path:
    """
    The folder of the shipped checkpoint; in a source tree without it, one of the same sizes with
    random weights, kept in the user's cache.

    ``Navigator.trained`` tells the two apart.
    """
    if (SHIPPED / "config.json").is_file():
        return SHIPPED
    config_file = share_dir() / "config" / "model" / "tiny.json"
    tokenizer = sorted((config_file.parent / "tiny").glob("tokenizer*.json"))
    content = hashlib.sha256(
        b"".join(path.read_bytes() for path in (config_file, *tokenizer))
    ).hexdigest()[:12]
    folder = (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        / "janusvln_ros"
        / f"untrained-{content}"
    )
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            whole = Path(temporary) / "checkpoint"
            build(
                JanusVLNConfig.from_pretrained(config_file), seed=UNTRAINED_SEED
            ).save_pretrained(whole)
            for path in tokenizer:
                shutil.copy(path, whole)
            if not folder.is_dir():
                whole.rename(folder)
    return folder

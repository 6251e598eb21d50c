"""
Checkpoints on disk: the published key names and ours, both ways, in safetensors, whole or in
shards.

Published names follow transformers < 4.52. Ours differ in the first part only (`PREFIXES`). Some
published tensors have no part in the result and are read past (`UNUSED`); everything else must be
there with its exact shape, and nothing unknown may be there.
"""

import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from janusvln_ros.errors import InputError
from janusvln_ros.files import atomic_path, atomic_write
from janusvln_ros.model.config import JanusVLNConfig
from janusvln_ros.model.janusvln import JanusVLN

PREFIXES = {
    "visual.": "vision.",
    "vggt.aggregator.": "spatial.",
    "merger.": "fusion.",
    "model.": "language.",
    "lm_head.": "lm_head.",
}
"""First part of a published name, and of ours."""

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
SHARD_BYTES = 5 * 10**9

_WANTED = ["*.json", "*.safetensors", "*.txt", "*.jinja"]


def published_name(ours: str) -> str:
    """The name that a parameter of `JanusVLN` has in a file."""
    for published, own in PREFIXES.items():
        if ours.startswith(own):
            return published + ours[len(own) :]
    raise KeyError(ours)


def our_name(published: str) -> str | None:
    """
    The parameter of `JanusVLN` that a file's tensor would be, or None if no part of the network
    has such names.
    """
    for prefix, own in PREFIXES.items():
        if published.startswith(prefix):
            return own + published[len(prefix) :]
    return None


def unused_reason(published: str, config: JanusVLNConfig) -> str | None:
    """Why a tensor of a published file is read past, or None if it is not one of those."""
    last = config.spatial.depth - 1
    reasons = {
        r"vggt\.(point|depth|camera|track)_head\.": (
            "VGGT's prediction heads, which navigation never calls"
        ),
        rf"vggt\.aggregator\.(frame|global)_blocks\.{last}\.": (
            "VGGT's last pair of blocks, which comes after the features that are used"
        ),
        r"vggt\.aggregator\.patch_embed\.mask_token$": "DINOv2's mask token, for its pretraining",
        r"classifier\.": "a 3-D grounding head, which navigation never calls",
        r".*\.inv_freq$": "rotary frequencies, which are computed",
    }
    if config.tie_word_embeddings:
        reasons[r"lm_head\.weight$"] = "tied to the embeddings"
    return next(
        (reason for pattern, reason in reasons.items() if re.match(pattern, published)), None
    )


@dataclass(frozen=True)
class Account:
    """What becomes of each tensor of a checkpoint: published names and shapes."""

    used: dict[str, tuple[int, ...]]
    unused: dict[str, str]  # name -> why
    missing: list[str]
    extra: list[str]
    misshapen: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]  # name -> (in the file, needed)

    def check(self, name: str) -> None:
        """
        Raise InputError naming every tensor that is missing, unknown or misshapen, and what to do.
        """
        problems = []
        if self.missing:
            problems.append(
                f"lacks {len(self.missing)} tensors ({_some(self.missing)}): copy all "
                f"of its files again, every shard that {INDEX_FILE} names"
            )
        if self.misshapen:
            shapes = [
                f"{key} is {list(found)}, config.json asks for {list(wanted)}"
                for key, (found, wanted) in self.misshapen.items()
            ]
            problems.append(
                f"has {len(shapes)} tensors of another shape ({_some(shapes)}): "
                "config.json belongs to other weights; take both from one place"
            )
        if self.extra:
            problems.append(
                f"has {len(self.extra)} unknown tensors ({_some(self.extra)}): it is "
                "no JanusVLN checkpoint, or config.json gives too few layers"
            )
        if problems:
            raise InputError(f"the checkpoint {name} " + "; it ".join(problems))


def _some(names: Iterable[str], most: int = 8) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (
        f" and {len(names) - most} more" if len(names) > most else ""
    )


def account(shapes: Mapping[str, Iterable[int]], model: JanusVLN) -> Account:
    """
    Hold the tensors of a file (published names and shapes) against those that ``model`` needs; the
    model may be on the meta device.
    """
    needed = {published_name(key): tuple(value.shape) for key, value in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        needed.pop("lm_head.weight")
    found = {key: tuple(shape) for key, shape in shapes.items()}
    unused = {
        key: reason
        for key in found
        if key not in needed and (reason := unused_reason(key, model.config))
    }
    return Account(
        used={key: shape for key, shape in found.items() if needed.get(key) == shape},
        unused=unused,
        missing=sorted(set(needed) - set(found)),
        extra=sorted(set(found) - set(needed) - set(unused)),
        misshapen={
            key: (found[key], shape)
            for key, shape in needed.items()
            if key in found and found[key] != shape
        },
    )


def find(checkpoint: str | Path) -> Path:
    """
    The folder of a checkpoint: itself if it exists, else a hub id's snapshot, downloaded or from
    the local cache.

    Raises:
        InputError: neither a folder nor a hub id that can be had.
    """
    folder = Path(checkpoint)
    if folder.is_dir():
        return folder
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(checkpoint)):
        raise InputError(
            f"there is no checkpoint folder {folder}: give a folder with config.json "
            "and safetensors, or a hub id such as 'owner/name'"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(checkpoint), allow_patterns=_WANTED))
    # the hub's client raises many kinds, for no network, no such name, no access
    except Exception as error:
        raise InputError(
            f"there is no folder {folder}, and {checkpoint!r} could not be had from "
            f"the hub ({type(error).__name__}): "
            "check the name and the network, or download it elsewhere and give its folder"
        ) from error


def weight_files(folder: Path) -> list[Path]:
    """
    The safetensors files of a checkpoint folder, in order.

    Raises:
        InputError: none there, or one that the index names is missing.
    """
    index = folder / INDEX_FILE
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    if not index.is_file():
        other = sorted(
            p.name for pattern in ("*.bin", "*.pth", "*.pt") for p in folder.glob(pattern)
        )
        hint = (
            f" ({_some(other)} are pickles, which are never loaded: convert them to safetensors)"
            if other
            else ""
        )
        raise InputError(
            f"{folder} has neither {WEIGHTS_FILE} nor {INDEX_FILE}{hint}: give the "
            "folder of a JanusVLN checkpoint"
        )
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{index} is damaged ({error!r}): copy it again") from error
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise InputError(
            f"{folder} lacks {_some(absent)}, named by {INDEX_FILE}: copy the missing "
            "shards into it"
        )
    return [folder / name for name in names]


def as_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """
    ``torch.float32`` from "float32", "torch.float32" or itself; InputError for anything that is no
    floating-point type of torch.
    """
    value = getattr(torch, str(dtype).removeprefix("torch."), None)
    if not isinstance(value, torch.dtype) or not value.is_floating_point:
        raise InputError(f"dtype is {dtype!r}: choose float32, bfloat16 or float16")
    return value


def build(
    config: JanusVLNConfig,
    *,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device = "cpu",
    seed: int = 0,
) -> JanusVLN:
    """
    A network with random weights, the same for the same seed; the global random state is left as
    it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = JanusVLN(config)
    return model.to(device=device, dtype=as_dtype(dtype or config.dtype)).eval()


def load(
    checkpoint: str | Path,
    *,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device = "cpu",
) -> JanusVLN:
    """
    Read a checkpoint in the published layout.

    Args:
        checkpoint: a folder, or a hub id.
        dtype: of the weights in memory; that of config.json if None.
        device: where they go, tensor by tensor.

    Returns:
        The network, in evaluation mode. Which tensors were read past is logged.

    Raises:
        InputError: no checkpoint there, or one whose tensors are not exactly those that its
            config.json asks for.
    """
    folder = find(checkpoint)
    config = JanusVLNConfig.from_pretrained(folder)
    wanted = as_dtype(dtype or config.dtype)
    with torch.device("meta"):
        model = JanusVLN(config)
    files = weight_files(folder)
    try:
        shapes: dict[str, tuple[int, ...]] = {}
        for file in files:
            with safe_open(file, framework="pt") as tensors:
                names = list(tensors.keys())
                shapes |= {name: tuple(tensors.get_slice(name).get_shape()) for name in names}
        result = account(shapes, model)
        result.check(str(folder))
        for file in files:
            with safe_open(file, framework="pt") as tensors:
                names = [name for name in tensors.keys() if name in result.used]  # noqa: SIM118
                weights = {
                    str(our_name(name)): tensors.get_tensor(name).to(
                        device=device, dtype=wanted, copy=True
                    )
                    for name in names
                }
                model.load_state_dict(weights, strict=False, assign=True)
    except SafetensorError as error:
        raise InputError(
            f"a weight file in {folder} is damaged ({error}): copy it again"
        ) from error
    for reason, count in Counter(result.unused.values()).items():
        logging.getLogger(__name__).info("%s: read past %d tensors: %s", folder, count, reason)
    if config.tie_word_embeddings:
        model.lm_head.weight = model.language.embed_tokens.weight
    model.restore_frequencies()
    return model.eval()


def save(
    model: JanusVLN,
    folder: str | Path,
    *,
    dtype: str | torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """
    Write config.json and the weights in the published layout: names, flat config, shards of at
    most about ``shard_bytes`` with an index.

    The last pair of VGGT's blocks and its heads are not written: no result depends on them.
    ``dtype`` is that of the file (default: as they are).
    """
    folder = Path(folder)
    wanted = as_dtype(dtype or model.dtype)
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for key, value in model.state_dict().items():
        if key == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        tensor = value.detach().to(device="cpu", dtype=wanted).contiguous()
        if shards[-1] and size + tensor.nbytes > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][published_name(key)] = tensor
        size += tensor.nbytes
    if len(shards) == 1:
        with atomic_path(folder / WEIGHTS_FILE) as path:
            save_file(shards[0], path, metadata={"format": "pt"})
        (folder / INDEX_FILE).unlink(missing_ok=True)
    else:
        weight_map: dict[str, str] = {}
        for number, shard in enumerate(shards, start=1):
            name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            with atomic_path(folder / name) as path:
                save_file(shard, path, metadata={"format": "pt"})
            weight_map |= dict.fromkeys(shard, name)
        total = sum(tensor.nbytes for shard in shards for tensor in shard.values())
        atomic_write(
            folder / INDEX_FILE,
            json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=1),
        )
        (folder / WEIGHTS_FILE).unlink(missing_ok=True)
    config = model.config.to_dict() | {"torch_dtype": str(wanted).removeprefix("torch.")}
    atomic_write(folder / "config.json", json.dumps(config, indent=1) + "\n")


@dataclass(frozen=True)
class Generation:
    """
    How answers are written: the tokens that end one, and the penalty on tokens that occurred (1:
    none).
    """

    eos_token_ids: tuple[int, ...]
    repetition_penalty: float = 1.0


def generation(folder: str | Path, config: JanusVLNConfig) -> Generation:
    """
    The repetition penalty of generation_config.json (1 without that file), and the end token of
    config.json.

    generation_config.json may list further end tokens; the published code ends an answer at
    config.json's alone.

    Raises:
        InputError: the file is damaged or says something impossible.
    """
    path = Path(folder) / "generation_config.json"
    try:
        values = json.loads(path.read_text()) if path.is_file() else {}
        penalty = float(values.get("repetition_penalty") or 1.0)
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({error}): copy it again") from error
    if not penalty > 0:
        raise InputError(f"{path}: repetition_penalty is {penalty}, it must be positive")
    return Generation(end_tokens(config), penalty)


def end_tokens(config: JanusVLNConfig) -> tuple[int, ...]:
    """The tokens that end an answer."""
    eos: Any = config.text.eos_token_id
    return tuple(eos) if isinstance(eos, (list, tuple)) else () if eos is None else (int(eos),)

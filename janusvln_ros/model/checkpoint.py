"""
Checkpoints: the network with its files in the published layout, a folder or one of the hub, its
safetensors whole or in shards, and what decodes its answers.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from janusvln_ros.documents import read_object
from janusvln_ros.errors import InputError, require
from janusvln_ros.files import atomic_path, atomic_write, inside, local_checkpoint
from janusvln_ros.model.adapter import account, older_name, our_name, published_name, some
from janusvln_ros.model.config import JanusVLNConfig
from janusvln_ros.model.network import Network

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
SHARD_BYTES = 5 * 10**9


class JanusVLN(Network):
    """
    The whole network, from a checkpoint or with random weights.

    Cast with ``.to(dtype)`` as usual: the rotary frequencies stay float32.
    """

    @classmethod
    def from_config(
        cls,
        config: JanusVLNConfig,
        *,
        dtype: str | torch.dtype | None = None,
        device: str | torch.device = "cpu",
        seed: int = 0,
    ) -> "JanusVLN":
        """
        Build with random weights, the same for the same seed; the global random state is left as
        it was.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = cls(config)
        return model.to(device=device, dtype=as_dtype(dtype or config.dtype)).eval()

    @classmethod
    def from_pretrained(
        cls,
        checkpoint: str | Path,
        *,
        dtype: str | torch.dtype | None = None,
        device: str | torch.device = "cpu",
        config: JanusVLNConfig | None = None,
        shrink: Callable[[str, Tensor], Tensor] | None = None,
    ) -> "JanusVLN":
        """
        Read a checkpoint in the published layout.

        Args:
            checkpoint: a folder, or ``owner/name@revision`` of the hub.
            dtype: of the weights in memory; that of config.json if None.
            device: where they go, tensor by tensor.
            config: settings in place of those of config.json, with the same sizes.
            shrink: what to keep of each weight, told its name and given it in ``dtype`` on
                ``device``, before the next one is read.

        Returns:
            The network, in evaluation mode. Which tensors were read past is logged.

        Raises:
            InputError: no checkpoint there, or one whose tensors are not exactly those that its
                config.json asks for.
        """
        folder = find(checkpoint)
        config = config or JanusVLNConfig.from_pretrained(folder)
        target = {"device": device, "dtype": as_dtype(dtype or config.dtype), "copy": True}
        with torch.device("meta"):
            model = cls(config)
        result = account(tensor_shapes(folder), model)
        result.check(str(folder))
        for reason, count in Counter(result.unused.values()).items():
            logging.getLogger(__name__).info("%s: read past %d tensors: %s", folder, count, reason)
        weights = {
            str(our_name(name)): file.get_tensor(name).to(**target)
            if shrink is None
            else shrink(str(our_name(name)), file.get_tensor(name).to(**target))
            for name, file in stored_tensors(folder)
            if older_name(name) in result.used
        }
        return model.filled(weights)

    @classmethod
    def from_tensors(
        cls, config: JanusVLNConfig, tensors: Iterable[tuple[str, Tensor]]
    ) -> "JanusVLN":
        """The network of these weights, by our names, each of which becomes a part of it."""
        with torch.device("meta"):
            model = cls(config)
        return model.filled(dict(tensors))

    def filled(self, weights: Mapping[str, Tensor]) -> "JanusVLN":
        """Take these weights, by our names, for those on paper; in evaluation mode."""
        self.load_state_dict(weights, strict=False, assign=True)
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.language.embed_tokens.weight
        self.restore_frequencies()
        return self.eval()

    def save_pretrained(
        self,
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
        wanted = as_dtype(dtype or self.dtype)
        tensors = {
            published_name(key): value.detach().to(device="cpu", dtype=wanted).contiguous()
            for key, value in self.state_dict().items()
            if not (key == "lm_head.weight" and self.config.tie_word_embeddings)
        }
        write_weights(tensors, Path(folder), shard_bytes)
        replace(self.config, dtype=str(wanted).removeprefix("torch.")).save_pretrained(folder)


def find(checkpoint: str | Path) -> Path:
    """
    The folder of a checkpoint: itself if it exists, else the snapshot of ``owner/name@revision``
    of the hub, downloaded or from the local cache.

    Raises:
        InputError: neither a folder nor something of the hub that can be had.
    """
    folder = local_checkpoint(checkpoint)
    if folder is not None:
        return folder
    name, _, revision = str(checkpoint).partition("@")
    wanted = ["*.json", "*.safetensors", "*.txt", "*.jinja"]
    try:
        return Path(
            huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=wanted)
        )
    # the hub's client raises many kinds, for no network, no such name, no access
    except Exception as error:
        raise InputError(
            f"there is no folder {checkpoint}, and {str(checkpoint)!r} could not be had from "
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
        pickles = sorted(p.name for p in folder.glob("*") if p.suffix in (".bin", ".pth", ".pt"))
        hint = (
            f" ({some(pickles)} are pickles, which are never loaded: convert them to safetensors)"
            if pickles
            else ""
        )
        raise InputError(
            f"{folder} has neither {WEIGHTS_FILE} nor {INDEX_FILE}{hint}: give the "
            "folder of a JanusVLN checkpoint"
        )
    placed = read_object(index).get("weight_map") or {}
    require(
        isinstance(placed, dict) and placed and all(isinstance(n, str) for n in placed.values()),
        f"{index} is damaged (no 'weight_map' of names to files): copy it again",
    )
    names = sorted(set(placed.values()))
    files = [inside(folder, name, f"a file that {INDEX_FILE} names") for name in names]
    absent = [name for name, file in zip(names, files) if not file.is_file()]
    require(
        not absent,
        f"{folder} lacks {some(absent)}, named by {INDEX_FILE}: copy the missing shards into it",
    )
    return files


def stored_tensors(folder: Path) -> Iterator[tuple[str, safe_open]]:
    """
    Each tensor in the weight files of a folder: its name, and the open file to take it from.

    Raises:
        InputError: as `weight_files`, or a file is damaged.
    """
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118
                    yield name, file
        except SafetensorError as error:
            raise InputError(
                f"a weight file in {folder} is damaged ({error}): copy it again"
            ) from error


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all stored tensors, from the headers alone; see `stored_tensors`."""
    return {name: tuple(file.get_slice(name).get_shape()) for name, file in stored_tensors(folder)}


def write_weights(tensors: dict[str, Tensor], folder: Path, shard_bytes: int) -> None:
    """Write tensors as one file, or as shards of at most ``shard_bytes`` with their index."""
    split = huggingface_hub.split_torch_state_dict_into_shards(tensors, max_shard_size=shard_bytes)
    for name, keys in split.filename_to_tensors.items():
        with atomic_path(folder / name) as path:
            save_file({key: tensors[key] for key in keys}, path, metadata={"format": "pt"})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        atomic_write(folder / INDEX_FILE, json.dumps(index, indent=1))
    (folder / (WEIGHTS_FILE if split.is_sharded else INDEX_FILE)).unlink(missing_ok=True)


def as_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """
    ``torch.float32`` from "float32", "torch.float32" or itself; InputError for anything that is no
    floating-point type of torch.
    """
    value = getattr(torch, str(dtype).removeprefix("torch."), None)
    if not (isinstance(value, torch.dtype) and value.is_floating_point):
        raise InputError(f"dtype is {dtype!r}: choose float32, bfloat16 or float16")
    return value


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
    values = read_object(path) if path.is_file() else {}
    penalty = values.get("repetition_penalty") or 1.0
    require(
        type(penalty) in (int, float) and 0 < penalty < 1e6,
        f"{path}: repetition_penalty is {penalty!r:.80}, it must be a positive number",
    )
    return Generation(end_tokens(config), float(penalty))


def end_tokens(config: JanusVLNConfig) -> tuple[int, ...]:
    """The tokens that end an answer."""
    eos: Any = config.text.eos_token_id
    return tuple(eos) if isinstance(eos, (list, tuple)) else () if eos is None else (int(eos),)

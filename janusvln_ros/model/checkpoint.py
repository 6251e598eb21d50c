"""
Checkpoints: the network with its files in the published layout, a folder or one of the hub, its
safetensors whole or in shards, and what decodes its answers.
"""

import json
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from janusvln_ros.digests import file_digest
from janusvln_ros.documents import CONFIG_FILE, read_object
from janusvln_ros.errors import InputError, require
from janusvln_ros.files import (
    atomic_folder,
    atomic_path,
    atomic_write,
    inside,
    local_checkpoint,
    unreplaced,
)
from janusvln_ros.model.adapter import (
    Account,
    account,
    older_name,
    our_name,
    published_name,
    some,
    unused_reason,
)
from janusvln_ros.model.config import JanusVLNConfig
from janusvln_ros.model.lora import BESIDE, changes_ends, read_adapter, refuse_alone
from janusvln_ros.model.network import Network

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
SHARD_BYTES = 5 * 10**9

WRITTEN = re.compile(
    r"config\.json|model(-\d+-of-\d+)?\.safetensors(\.index\.json)?|"
    r"adapter_(config\.json|model\.(safetensors|bin))"
)
"""Files of a folder that a saved network takes the place of; all others stay."""

LFS_POINTER = b"version https://git-lfs"
"""How a file begins that a clone without Git LFS leaves in place of a large one."""

HEAD, EMBEDDINGS = "lm_head.weight", "language.embed_tokens.weight"

PRECISIONS = {"F64", "F32", "F16", "BF16"}
"""Types of safetensors whose numbers are the weights; others need scales beside them."""


FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)

DIGESTS = "sha256"
"""Key of the index's ``metadata``: the digest of each shard by its name."""

log = logging.getLogger(__name__)


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
        it was. For large networks see `model.synthetic.random_network`.
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
        Read a checkpoint in the published layout; a LoRA adapter beside its weights is merged.

        Args:
            checkpoint: a folder, or ``owner/name@revision`` of the hub.
            dtype: of the weights in memory; that of config.json if None.
            device: where they go, tensor by tensor.
            config: where the ``navigation`` that holds is taken from; config.json's if None.
            shrink: what to keep of each weight, told its name and given it in ``dtype`` on
                ``device``, before the next one is read.

        Returns:
            The network, in evaluation mode. Which tensors were read past is logged, and whether an
            adapter was merged.

        Raises:
            InputError: no checkpoint there, one whose tensors are not exactly those that its
                config.json asks for, or one that was replaced meanwhile.
        """
        folder = find(checkpoint)
        with unreplaced(folder):
            return cls._read(folder, dtype, device, config, shrink)

    @classmethod
    def _read(
        cls,
        folder: Path,
        dtype: str | torch.dtype | None,
        device: str | torch.device,
        told: JanusVLNConfig | None,
        shrink: Callable[[str, Tensor], Tensor] | None,
    ) -> "JanusVLN":
        config, adapter = stored_config(folder), read_adapter(folder)
        if told is not None:
            config = replace(config, navigation=told.navigation)
        may_part = config.tie_word_embeddings and changes_ends(adapter)
        target = {"device": device, "dtype": as_dtype(dtype or config.dtype), "copy": True}
        with torch.device("meta"):
            model = cls(config)
        result = stored_account(folder, model)
        for reason, count in Counter(result.unused.values()).items():
            log.info("%s: read past %d tensors: %s", folder, count, reason)
        weights = {
            str(our_name(name)): file.get_tensor(name).to(**target)
            if shrink is None or adapter is not None  # which is merged into whole weights
            else shrink(str(our_name(name)), file.get_tensor(name).to(**target))
            for name, file in stored_tensors(folder)
            if older_name(name) in result.used
        }
        if adapter is not None:
            if may_part:
                weights[HEAD] = weights[EMBEDDINGS].clone()
            adapter.merge(weights, config)
            if may_part and not torch.equal(weights[HEAD], weights[EMBEDDINGS]):
                model.config = replace(config, tie_word_embeddings=False)
            log.warning("%s: its LoRA adapter is merged into the weights", folder)
            if shrink is not None:
                weights = {name: shrink(name, weights.pop(name)) for name in list(weights)}
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
        most about ``shard_bytes`` with an index, all in one step (`files.atomic_folder`). Other
        files of the folder stay.

        The last pair of VGGT's blocks and its heads are not written: no result depends on them.
        ``dtype`` is that of the file (default: as they are).

        Raises:
            InputError: the weights are int8 or int4, or ``dtype`` is none for a file.
        """
        with atomic_folder(folder, keep=lambda name: not WRITTEN.fullmatch(name)) as new:
            self.write_files(new, dtype=dtype, shard_bytes=shard_bytes)

    def write_files(
        self,
        folder: Path,
        *,
        dtype: str | torch.dtype | None = None,
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        """What `save_pretrained` writes, into a folder that nobody reads yet."""
        wanted = as_dtype(dtype or self.dtype)
        packed = [name for name, value in self.state_dict().items() if type(value) is not Tensor]
        require(
            not packed,
            f"{len(packed)} weights are quantised ({some(packed)}), which no file holds: load the "
            "checkpoint with dtype='bfloat16' and save that",
        )
        tensors = {
            published_name(key): _narrowed(key, value.detach(), wanted)
            for key, value in self.state_dict().items()
            if not (key == HEAD and self.config.tie_word_embeddings)
        }
        write_weights(tensors, folder, shard_bytes)
        replace(self.config, dtype=str(wanted).removeprefix("torch.")).save_pretrained(folder)


def _narrowed(name: str, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A weight as it is written. Raises InputError where it becomes infinite only by its type."""
    written = weight.to(device="cpu", dtype=dtype).contiguous()
    require(
        weight.dtype == dtype or written.isfinite().all() or not weight.isfinite().all(),
        f"{name} holds numbers beyond those of {str(dtype).removeprefix('torch.')}, up to "
        f"{weight.abs().max():.3g}: save it in float32, or in bfloat16",
    )
    return written


def find(checkpoint: str | Path) -> Path:
    """
    The folder of a checkpoint: itself if it exists, else the snapshot of ``owner/name@revision``
    of the hub, downloaded or from the local cache.

    Raises:
        InputError: neither a folder nor something of the hub that can be had.
    """
    folder = local_checkpoint(checkpoint)
    if folder is None:
        folder = _snapshot(str(checkpoint))
    refuse_alone(folder)
    return folder


def _snapshot(checkpoint: str) -> Path:
    name, _, revision = checkpoint.partition("@")
    wanted = ["*.json", "*.safetensors", "*.txt", "*.jinja", *BESIDE]
    try:
        return Path(
            huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=wanted)
        )
    # the hub's client raises many kinds, for no network, no such name, no access
    except Exception as error:
        raise InputError(
            f"there is no folder {name}, and {name!r} could not be had from "
            f"the hub ({type(error).__name__}): "
            "check the name and the network, or download it elsewhere and give its folder"
        ) from error


def weight_files(folder: Path) -> list[Path]:
    """
    The safetensors files of a checkpoint folder, in order.

    Raises:
        InputError: none there, or one that the index names is missing or another one than the
            index says.
    """
    index = folder / INDEX_FILE
    if (folder / WEIGHTS_FILE).is_file():
        _refuse_two_sets(folder)
        return [folder / WEIGHTS_FILE]
    if not index.is_file():
        pickles = sorted(p.name for p in folder.glob("*") if p.suffix in (".bin", ".pth", ".pt"))
        hint = (
            f" ({some(pickles)} are pickles, which are never loaded: convert them to safetensors)"
            if pickles
            else ""
        )
        shards = sorted(path.name for path in folder.glob("model-*-of-*.safetensors"))
        require(
            not shards,
            f"{folder} holds shards ({some(shards, 3)}) but no {INDEX_FILE}, which says what "
            "belongs together: copy it into the folder",
        )
        raise InputError(
            f"{folder} has neither {WEIGHTS_FILE} nor {INDEX_FILE}{hint}: give the "
            "folder of a JanusVLN checkpoint"
        )
    content = read_object(index)
    placed, about = content.get("weight_map") or {}, content.get("metadata") or {}
    digests = about.get(DIGESTS) if isinstance(about, dict) else None
    require(
        isinstance(placed, dict) and placed and all(isinstance(n, str) for n in placed.values()),
        f"{index} is damaged (no 'weight_map' of names to files): copy it again",
    )
    require(
        isinstance(digests, dict | None),
        f"{index} is damaged ({DIGESTS} is no object): copy it again",
    )
    names = sorted(set(placed.values()))
    files = [inside(folder, name, f"a file that {INDEX_FILE} names") for name in names]
    absent = [name for name, file in zip(names, files) if not file.is_file()]
    require(
        not absent,
        f"{folder} lacks {some(absent)}, named by {INDEX_FILE}: copy the missing shards into it",
    )
    others = [
        name
        for name, file in zip(names, files)
        if digests and name in digests and digests[name] != file_digest(file)
    ]
    require(
        not others,
        f"{folder}: {some(others)} is not the file that {INDEX_FILE} was written with, so that "
        "weights of two checkpoints would mix: copy all files again",
    )
    return files


def _refuse_two_sets(folder: Path) -> None:
    """
    Raise InputError where shards and their index lie beside a whole file: transformers writes them
    over an older checkpoint without taking that away, and then loads the older one.
    """
    index = folder / INDEX_FILE
    placed = read_object(index).get("weight_map") if index.is_file() else None
    names = {n for n in placed.values() if isinstance(n, str)} if isinstance(placed, dict) else ()
    shards = sorted(n for n in names if n != WEIGHTS_FILE and Path(folder, n).is_file())
    require(
        not shards,
        f"{folder} holds {WEIGHTS_FILE} and also {some(shards, 3)}, named by {INDEX_FILE}: these "
        "are two checkpoints; take away the one that is not meant",
    )


def stored_tensors(folder: Path) -> Iterator[tuple[str, safe_open]]:
    """
    Each tensor in the weight files of a folder: its name, and the open file to take it from.

    Raises:
        InputError: as `weight_files`, a file is damaged, or a tensor is in two of them.
    """
    placed: dict[str, str] = {}
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118
                    first = placed.setdefault(name, path.name)
                    require(
                        first == path.name,
                        f"{folder}: {name} is in {first} and in {path.name}, so that they are "
                        "shards of two checkpoints: copy all files of one again",
                    )
                    yield name, file
        except SafetensorError as error:
            pointer = path.open("rb").read(len(LFS_POINTER)) == LFS_POINTER
            raise InputError(
                f"{path} is the pointer of Git LFS and no weights: 'git lfs pull' fetches them"
                if pointer
                else f"a weight file in {folder} is damaged ({error}): copy it again"
            ) from error


def tensor_types(folder: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """
    Type (as safetensors names it) and shape of all stored tensors, from the headers alone; see
    `stored_tensors`.
    """
    slices = ((name, file.get_slice(name)) for name, file in stored_tensors(folder))
    return {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices}


def stored_account(folder: Path, network: Network) -> Account:
    """
    What becomes of each tensor in a folder, as `adapter.account`.

    Raises:
        InputError: they are not exactly those that the network needs, or no numbers to compute
            with.
    """
    types = tensor_types(folder)
    check_types(folder, {n: t for n, (t, _) in types.items() if is_used(n, network.config)})
    result = account({name: shape for name, (_, shape) in types.items()}, network)
    check_scales(folder, result.extra)
    result.check(str(folder))
    return result


def is_used(name: str, config: JanusVLNConfig) -> bool:
    """Whether a tensor of a file is not one of those that are read past."""
    return unused_reason(older_name(name), config) is None


def check_types(folder: Path, types: Mapping[str, str]) -> None:
    """Raise InputError where tensors (type by name) are quantised: no numbers by themselves."""
    narrow = [f"{name} {kind}" for name, kind in types.items() if kind not in PRECISIONS]
    method = quantised_by(folder)
    require(
        not narrow,
        f"{folder}: {len(narrow)} weights are stored as integers or in a byte ({some(narrow, 3)}"
        f"{f'; quantised by {method}' if method else ''}), which are no weights without the "
        "program that made them: take the checkpoint in bfloat16; it can be loaded with "
        "precision='int8' or 'int4'",
    )


def check_scales(folder: Path, unknown: Sequence[str]) -> None:
    """Raise InputError where tensors that the network does not have come from quantisation."""
    method = quantised_by(folder)
    require(
        not (method and unknown),
        f"{folder} was quantised by {method}, which left {len(unknown)} tensors "
        f"({some(unknown, 3)}) that change what the weights mean: take the checkpoint in bfloat16",
    )


def quantised_by(folder: Path) -> str | None:
    """The method that config.json of a folder says its weights were quantised by, if any."""
    path = folder / CONFIG_FILE
    settings = read_object(path).get("quantization_config") if path.is_file() else None
    method = settings.get("quant_method") if isinstance(settings, dict) else None
    return None if method is None else str(method)


def stored_config(folder: Path) -> JanusVLNConfig:
    """
    config.json of a folder, but with a head of its own where the file has one although config.json
    ties it to the embeddings; that is logged.
    """
    config = JanusVLNConfig.from_pretrained(folder)
    if config.tie_word_embeddings and own_head(folder):
        log.warning(
            "%s: config.json ties lm_head to the embeddings, but the file has another one, which "
            "is used",
            folder,
        )
        return replace(config, tie_word_embeddings=False)
    return config


def is_tied(folder: Path) -> bool:
    """Whether config.json of a folder, of any Qwen2.5-VL, ties its head to the embeddings."""
    path = folder / CONFIG_FILE
    values = read_object(path) if path.is_file() else {}
    text = values.get("text_config")
    inner = text if isinstance(text, dict) else {}
    return bool({**inner, **values}.get("tie_word_embeddings"))


def own_head(folder: Path) -> bool:
    """Whether the weights of a folder have an ``lm_head`` that differs from the embeddings."""
    ends = {
        name: file.get_tensor(stored)
        for stored, file in stored_tensors(folder)
        if (name := our_name(stored)) in (HEAD, EMBEDDINGS)
    }
    return len(ends) == 2 and not torch.equal(ends[HEAD], ends[EMBEDDINGS])


def write_weights(tensors: dict[str, Tensor], folder: Path, shard_bytes: int) -> None:
    """
    Write tensors into a new folder as one file, or as shards of at most ``shard_bytes`` with their
    index, which names a digest of each.
    """
    split = huggingface_hub.split_torch_state_dict_into_shards(tensors, max_shard_size=shard_bytes)
    for name, keys in split.filename_to_tensors.items():
        with atomic_path(folder / name) as path:
            try:
                save_file({key: tensors[key] for key in keys}, path, metadata={"format": "pt"})
            except SafetensorError as error:  # it tells what the system said in words alone
                number = int((re.findall(r"os error (\d+)", str(error)) or ["5"])[-1])
                raise OSError(number, os.strerror(number), str(path)) from error
    if split.is_sharded:
        digests = {name: file_digest(folder / name) for name in split.filename_to_tensors}
        index = {
            "metadata": {**split.metadata, DIGESTS: digests},
            "weight_map": split.tensor_to_filename,
        }
        atomic_write(folder / INDEX_FILE, json.dumps(index, indent=1))


def as_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """
    ``torch.float32`` from "float32", "torch.float32" or itself; InputError for anything that no
    network computes in.
    """
    value = getattr(torch, str(dtype).removeprefix("torch."), None)
    if not isinstance(value, torch.dtype) or value not in FLOATS:
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

"""
LoRA adapters as PEFT saves them beside the weights of a checkpoint: merged into those on loading.

``adapter_config.json`` says how, ``adapter_model.safetensors`` holds the factors, each named after
the module it belongs to (``base_model.model.MODULE.lora_A.weight``). What a merge would get wrong
is refused by name: another method than LoRA, a setting that is not known here, a tensor that
belongs to nothing.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from janusvln_ros.documents import finite, read_object
from janusvln_ros.errors import InputError, require
from janusvln_ros.model.adapter import older_name, our_name, some, unused_reason
from janusvln_ros.model.config import JanusVLNConfig

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PICKLES = "adapter_model.bin"
BESIDE = ("non_lora_*", "vit.safetensors")
"""
Weights that are trained whole and saved beside an adapter: by LLaVA's trainer and those made after
it, and by ms-swift's for a whole vision tower.
"""

UNDERSTOOD = frozenset(
    [
        "alpha_pattern",
        "auto_mapping",
        "base_model_name_or_path",
        "bias",
        "corda_config",
        "ensure_weight_tying",
        "eva_config",
        "exclude_modules",
        "inference_mode",
        "init_lora_weights",
        "layers_pattern",
        "layers_to_transform",
        "lora_alpha",
        "lora_bias",
        "lora_dropout",
        "megatron_core",
        "modules_to_save",
        "peft_type",
        "peft_version",
        "qalora_group_size",
        "r",
        "rank_pattern",
        "revision",
        "runtime_config",
        "target_modules",
        "task_type",
        "use_dora",
        "use_rslora",
    ]
)
"""Settings that are obeyed, or that only training looks at; others must be off."""

PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Values of ``init_lora_weights`` that leave the base weights as they are."""

PARTS = re.compile(
    r"(?P<module>.+?)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|"
    r"lora_magnitude_vector)(\.(?P<kind>weight|bias))?"
)


@dataclass(frozen=True)
class Adapter:
    """
    An adapter's settings and tensors.

    Attributes:
        folder: where it lies.
        config: the content of ``adapter_config.json``.
        tensors: float32, by name without ``base_model.model.``.
    """

    folder: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @property
    def changed(self) -> set[str]:
        """Names in our network of the tensors that it changes."""
        return {self._ours(name) for name in self.tensors}

    def _ours(self, name: str) -> str:
        return our_name(self._stored(name)) or self._stored(name)

    def _stored(self, name: str) -> str:
        """The tensor of the checkpoint that one of the adapter's changes, as a file names it."""
        found = PARTS.fullmatch(name)
        stored = name if found is None else f"{found['module']}.weight"
        if found and found["kind"] == "bias":
            stored = f"{found['module']}.bias"
        return older_name(re.sub(r"\.(base_layer|modules_to_save)\b", "", stored))

    def merge(self, weights: dict[str, Tensor], config: JanusVLNConfig) -> None:
        """
        Change the weights of a network, by our names, in place; computed in float32. What changes
        tensors that are read past is read past as well.

        Raises:
            InputError: it does not fit them.
        """
        tensors = {
            name: tensor
            for name, tensor in self.tensors.items()
            if self._ours(name) in weights or unused_reason(self._stored(name), config) is None
        }
        strange = sorted(n for n in tensors if self._ours(n) not in weights)
        require(
            not strange,
            f"{self.folder / WEIGHTS_FILE} has {len(strange)} tensors for parts that the network "
            f"does not have ({some(strange)}): it is an adapter of another model",
        )
        modules: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            found, ours = PARTS.fullmatch(name), self._ours(name)
            if found is None:
                self._check_shape(name, tensor, weights[ours])
                weights[ours] = tensor.to(weights[ours])
            else:
                part = found["part"] + (".bias" if found["kind"] == "bias" else "")
                modules.setdefault(found["module"], {})[part] = tensor
        for module, parts in modules.items():
            self._merge_module(module, parts, weights)

    def _merge_module(
        self, module: str, parts: Mapping[str, Tensor], weights: dict[str, Tensor]
    ) -> None:
        kind = "lora_embedding_" if "lora_embedding_A" in parts else "lora_"
        a, b = parts.get(f"{kind}A"), parts.get(f"{kind}B")
        if a is None or b is None or a.ndim != 2 or b.ndim != 2:
            raise InputError(
                f"{self.folder / WEIGHTS_FILE}: {module} has no two factors that are matrices "
                f"({sorted(parts)}): save the adapter again, with its parts gathered"
            )
        name = self._ours(f"{module}.{kind}A")
        weight, scale = weights[name], self._scale(module, len(a))
        require(
            b.shape[1] == len(a),
            f"{self.folder / WEIGHTS_FILE}: the factors of {module} are {list(b.shape)} and "
            f"{list(a.shape)}, which do not fit: save the adapter again",
        )
        change = (b @ a) * scale
        change = change.T if kind == "lora_embedding_" else change
        self._check_shape(module, change, weight)
        merged = weight.detach().cpu().float() + change
        magnitude = parts.get("lora_magnitude_vector")
        require(
            magnitude is None or self.config.get("use_dora"),
            f"{self.folder}: {module} has magnitudes, but {CONFIG_FILE} says no use_dora: take "
            "both files from one place",
        )
        if self.config.get("use_dora"):
            if magnitude is None or kind == "lora_embedding_":
                raise InputError(
                    f"{self.folder}: {module} has no magnitudes, or is an embedding, which DoRA "
                    "is not merged for here: merge it with PEFT's merge_and_unload, and save that"
                )
            merged = merged * (magnitude.flatten() / merged.norm(dim=1))[:, None]
        weights[name] = merged.to(weight)
        if "lora_B.bias" in parts:
            bias = self._ours(f"{module}.lora_B.bias")
            weights[bias] = (weights[bias].cpu().float() + parts["lora_B.bias"] * scale).to(weight)

    def _scale(self, module: str, rank: int) -> float:
        """What the product of a module's factors is multiplied by."""
        path = self.folder / CONFIG_FILE
        patterns = self.config.get("alpha_pattern") or {}
        require(isinstance(patterns, dict), f"{path}: alpha_pattern is {patterns!r:.80}")
        alpha = self.config.get("lora_alpha", 8)
        for key, value in patterns.items():
            try:
                found = re.match(rf"(.*\.)?({key})$", module)
            except re.error as error:
                raise InputError(
                    f"{path}: {key!r:.80} in alpha_pattern is no pattern ({error})"
                ) from error
            if found:
                alpha = value
                break
        alpha = finite(alpha, f"{path}: the alpha of {module}")
        return alpha / (rank**0.5 if self.config.get("use_rslora") else rank)

    def _check_shape(self, name: str, found: Tensor, weight: Tensor) -> None:
        require(
            found.shape == weight.shape,
            f"{self.folder / WEIGHTS_FILE}: {name} changes a tensor of {list(found.shape)}, the "
            f"checkpoint's is {list(weight.shape)}: it is an adapter of another model",
        )


def has_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, or a part of one."""
    return any((folder / name).exists() for name in (CONFIG_FILE, WEIGHTS_FILE, PICKLES))


def read_adapter(folder: Path) -> Adapter | None:
    """
    The adapter in a folder; None where there is none.

    Raises:
        InputError: it is damaged, incomplete, or of a kind that is not merged here.
    """
    if not has_adapter(folder):
        return None
    _refuse_beside(folder)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        hint = " (a pickle, which is never loaded)" if (folder / PICKLES).exists() else ""
        require(
            (folder / name).is_file(),
            f"{folder} holds a part of an adapter but no {name}{hint}: copy both files of the "
            "adapter, as safetensors, or take away what is left of it",
        )
    config = read_object(folder / CONFIG_FILE)
    _check_settings(folder, config)
    try:
        with safe_open(folder / WEIGHTS_FILE, framework="pt") as file:
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"{folder / WEIGHTS_FILE} is damaged ({error}): copy it again") from error
    narrow = sorted(n for n, t in stored.items() if not t.is_floating_point() or t.itemsize < 2)
    require(
        stored and not narrow,
        f"{folder / WEIGHTS_FILE} holds no numbers that can be merged ({some(narrow)}): save the "
        "adapter in float32, bfloat16 or float16",
    )
    return Adapter(
        folder,
        config,
        {name.removeprefix("base_model.model."): t.float() for name, t in stored.items()},
    )


def _check_settings(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise InputError where the adapter is more than the LoRA that is known here."""
    kind = config.get("peft_type")
    further = sorted(
        name
        for name, value in config.items()
        if name not in UNDERSTOOD and value not in (None, False, {}, [], "")
    )
    start = config.get("init_lora_weights", True)
    if not any(start is plain or start == plain for plain in PLAIN_STARTS):
        further.append(f"init_lora_weights={start!r}")
    merge = (
        "merge it where it was made (merge_and_unload of PEFT, then save_pretrained) and give the "
        "folder of the result"
    )
    require(
        kind == "LORA", f"{folder / CONFIG_FILE}: peft_type {kind!r} is not merged here: {merge}"
    )
    require(
        not further,
        f"{folder / CONFIG_FILE}: {some(further)} is not known here, so it is not merged: {merge}",
    )


def _refuse_beside(folder: Path) -> None:
    """Raise InputError where an adapter is a part only of what was trained."""
    beside = sorted(path.name for pattern in BESIDE for path in folder.glob(pattern))
    require(
        not beside,
        f"{folder} holds an adapter and {some(beside)}, weights that were trained beside it, so "
        "that the adapter alone would be another model: merge both where they were made and give "
        "the folder of the result",
    )


def refuse_alone(folder: Path) -> None:
    """Raise InputError where a folder holds an adapter without the weights it belongs to."""
    if not has_adapter(folder) or any(folder.glob("model*.safetensors*")):
        return
    _refuse_beside(folder)
    config = read_object(folder / CONFIG_FILE) if (folder / CONFIG_FILE).is_file() else {}
    base = config.get("base_model_name_or_path") or "BASE"
    raise InputError(
        f"{folder} holds an adapter alone, without the weights it changes: put both into one "
        f"folder (cp -rL {base} MERGED; cp {folder}/adapter_* MERGED/) and give that; they are "
        "merged on loading"
    )


def changes_ends(adapter: Adapter | None) -> bool:
    """
    Whether an adapter changes embeddings or head, which may be two then although they were one:
    PEFT trains a copy of each unless ``ensure_weight_tying`` says otherwise.
    """
    ends = {"lm_head.weight", "language.embed_tokens.weight"}
    return adapter is not None and bool(ends & adapter.changed)

"""The network a recipe starts from, and the checkpoint folder it ends in."""

import json
import shutil
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from janusvln_ros.errors import InputError, NonFiniteError, require
from janusvln_ros.files import atomic_folder, atomic_write, share_dir
from janusvln_ros.model import JanusVLN, JanusVLNConfig
from janusvln_ros.model.adapter import our_name, some
from janusvln_ros.model.checkpoint import (
    EMBEDDINGS,
    HEAD,
    as_dtype,
    check_scales,
    check_types,
    find,
    is_tied,
    is_used,
    own_head,
    stored_tensors,
    tensor_types,
)
from janusvln_ros.model.config import key_value_shape
from janusvln_ros.model.lora import read_adapter
from janusvln_ros.model.network import SpatialMerger
from janusvln_ros.policy.identity import DECIDING_SUFFIXES
from janusvln_ros.policy.tokenizer import TRAINED_WORDS_FILE, WORD_VECTORS_FILE, load_trained_words
from janusvln_ros.training.recipes import Recipe
from janusvln_ros.training.words import fold_words, folded


def shipped(path: str) -> Path:
    """``path``, or the file of that name that the package ships if there is none here."""
    here = Path(path)
    return (
        here
        if here.exists() or here.is_absolute() or not (share_dir() / path).exists()
        else share_dir() / path
    )


def build_model(recipe: Recipe) -> JanusVLN:
    """
    The network a recipe starts from, on the CPU, with the right parts replaced and frozen.

    Raises:
        InputError: no model named, or parts that do not fit.
    """
    require(
        recipe.model,
        "the recipe names no model: give --set model=FOLDER (a checkpoint) or "
        "model=FILE.json (settings for random weights)",
    )
    path = shipped(recipe.model)
    dtype = "bfloat16" if recipe.bf16 and not recipe.fp32_parameters else "float32"
    parts = {"": recipe.semantic_model, "vggt.": recipe.spatial_model}
    if path.suffix != ".json":
        model = JanusVLN.from_pretrained(str(path), dtype=dtype)
    elif any(parts.values()):
        model = from_parts(JanusVLNConfig.from_pretrained(path), parts, dtype, recipe.seed)
    else:
        model = JanusVLN.from_config(
            JanusVLNConfig.from_pretrained(path), dtype=dtype, seed=recipe.seed
        )
    if recipe.layers:
        model = deepened(model, recipe.layers)
    if recipe.encoders:
        copy_encoders(model, recipe.encoders)
    if recipe.match_attention:
        match_attention(model)
    given = {
        name: value
        for name in ("action_memory", "semantic_memory", "initial_frames", "window_frames")
        if (value := getattr(recipe, name)) is not None
    }
    navigation = replace(
        model.config.navigation,
        memory=recipe.memory,
        decoding="constrained" if recipe.memory == "dual" else "free",
        **given,
    )
    lam = model.config.lam if recipe.lam is None else recipe.lam
    model.config = replace(model.config, navigation=navigation, lam=lam)
    return model


def from_parts(
    config: JanusVLNConfig, parts: Mapping[str, str], dtype: str, seed: int
) -> JanusVLN:
    """
    A network whose parts come from other people's checkpoints; what none of them has (the spatial
    merger) starts at random.

    Args:
        config: of the whole network.
        parts: folders or owner/name@revision (empty: none), by what stands before their tensors'
            names in a JanusVLN checkpoint ("" for Qwen2.5-VL, "vggt." for VGGT).
        dtype: of the weights.
        seed: of the random ones.

    Raises:
        InputError: a tensor of the wrong shape, or parts of the network that no file has.
    """
    parts = {prefix: checkpoint for prefix, checkpoint in parts.items() if checkpoint}
    with torch.device("meta"):
        model = JanusVLN(config)
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if config.tie_word_embeddings:
        wanted.pop(HEAD)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fusion = SpatialMerger(config).to(as_dtype(dtype))
    found = {f"fusion.{name}": value for name, value in fusion.state_dict().items()}
    for prefix, checkpoint in parts.items():
        found |= _part(find(checkpoint), prefix, wanted, config, as_dtype(dtype))
    absent = sorted(set(wanted) - set(found))
    if absent:
        raise InputError(
            f"{list(parts.values())} lack {len(absent)} tensors of the network, the "
            f"first is {absent[0]}: check that the settings fit them"
        )
    model.load_state_dict(found, strict=False, assign=True)
    if config.tie_word_embeddings:
        model.lm_head.weight = model.language.embed_tokens.weight
    model.restore_frequencies()
    return model


def _part(
    folder: Path,
    prefix: str,
    wanted: Mapping[str, tuple[int, ...]],
    config: JanusVLNConfig,
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """
    The tensors that a network (``wanted``, by our names) has of another's folder, with an adapter
    in it merged; its embeddings as the head too, where that folder ties the two.
    """
    types = {
        n: kind
        for n, (kind, _) in tensor_types(folder).items()
        if our_name(prefix + n) is not None and is_used(prefix + n, config)
    }
    check_types(folder, types)
    unknown = [name for name in types if our_name(prefix + name) not in wanted]
    check_scales(folder, unknown)
    require(
        not unknown,
        f"{folder} has {len(unknown)} tensors that the settings have no place for "
        f"({some(unknown, 3)}): use the settings of that model",
    )
    found: dict[str, Tensor] = {}
    for stored, file in stored_tensors(folder):
        name = our_name(prefix + stored)
        if name is not None and name in wanted:
            found[name] = file.get_tensor(stored).to(dtype)
            require(
                tuple(found[name].shape) == wanted[name],
                f"{folder}: {stored} is {list(found[name].shape)}, the settings want "
                f"{list(wanted[name])}: use the settings of that model",
            )
    adapter, tied = read_adapter(folder), config.tie_word_embeddings
    if EMBEDDINGS in found and HEAD not in found and (tied or is_tied(folder)):
        found[HEAD] = found[EMBEDDINGS].clone()
    if adapter is not None:
        adapter.merge(found, config)
    if prefix == "" and tied:
        head = found.pop(HEAD, None)
        one = head is None or torch.equal(head, found[EMBEDDINGS])
        require(
            one and not own_head(folder),
            f"{folder} has an lm_head of its own, but the settings tie it to the embeddings: set "
            "tie_word_embeddings to false in them",
        )
    return found


@torch.no_grad()
def match_attention(model: JanusVLN) -> None:
    """
    Set every query projection of the language model to its key projection.

    With random ones, whether a picture's token attends to the word for it is chance, and a small
    network needs long to find out that it should. With equal ones the score of two tokens is their
    likeness in a random projection, on top of which training goes on (compare arXiv 2305.09828).
    """
    _, heads, head_size = key_value_shape(model.config.text)
    groups = model.config.text.num_attention_heads // heads
    for layer in model.language.layers:
        attention: Any = layer.self_attn
        for name in ("weight", "bias"):
            keys = getattr(attention.k_proj, name).unflatten(0, (heads, head_size))
            queries = keys.repeat_interleave(groups, dim=0).flatten(0, 1)
            getattr(attention.q_proj, name).copy_(queries)


@torch.no_grad()
def deepened(model: JanusVLN, layers: int) -> JanusVLN:
    """
    The same network with ``layers`` layers of its language model, the new ones evenly among the
    old: each repeats the one before it but adds nothing to what passes through, until training
    lets it (compare Net2Net, arXiv 1511.05641).

    Raises:
        InputError: it has more layers already.
    """
    old = model.config.text.num_hidden_layers
    require(layers >= old, f"layers is {layers}, but the network has {old} already")
    settings = {**model.config.to_dict(), "num_hidden_layers": layers}
    deeper = JanusVLN.from_config(JanusVLNConfig.from_dict(settings), dtype=model.dtype)
    rest = {n: v for n, v in model.state_dict().items() if not n.startswith("language.layers.")}
    deeper.load_state_dict(rest, strict=False)
    before, new = -1, list[Any](deeper.language.layers)
    for number, layer in enumerate(new):
        source = number * old // layers
        layer.load_state_dict(model.language.layers[source].state_dict())
        if source == before:
            nn.init.zeros_(layer.self_attn.o_proj.weight)
            nn.init.zeros_(layer.mlp.down_proj.weight)
        before = source
    return deeper


def copy_encoders(model: JanusVLN, checkpoint: str) -> None:
    """
    Replace the vision tower (without its merger) and the spatial encoder by those of
    ``checkpoint``. Raises InputError where sizes differ.
    """
    source, target = (
        {
            name: value
            for name, value in network.state_dict().items()
            if name.startswith(("vision.", "spatial.")) and not name.startswith("vision.merger.")
        }
        for network in (JanusVLN.from_pretrained(checkpoint, dtype=model.dtype), model)
    )
    for name in [*source, *(name for name in target if name not in source)]:
        given, wanted = (
            list(part[name].shape) if name in part else "none" for part in (source, target)
        )
        require(
            given == wanted,
            f"{checkpoint}: {name} is {given}, the network wants {wanted}: train encoders of the "
            "same sizes",
        )
        target[name].copy_(source[name])


TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    WORD_VECTORS_FILE,
    "vocab.json",
    "merges.txt",
    "chat_template.json",
    "preprocessor_config.json",
    "generation_config.json",
)
"""What is copied from the tokenizer's folder where it is there."""


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy a tokenizer, and what belongs to it, from one folder into another."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def finish(
    model: JanusVLN,
    recipe: Recipe,
    output: Path,
    *,
    trained: bool,
    tokenizer: Path | None = None,
    words: Collection[str] = (),
) -> Path:
    """
    Write the checkpoint folder of a run that has ended; the model is in evaluation mode then, with
    ordinary embeddings.

    ``words``: those that training said, to be kept beside those that the network it started from
    had been told (empty: nothing is written).
    """
    folder = output / "checkpoint"
    model.eval()
    fold_words(model)
    write_checkpoint(model, recipe, folder, trained=trained, tokenizer=tokenizer, words=words)
    return folder


def write_checkpoint(
    model: JanusVLN,
    recipe: Recipe,
    folder: Path,
    *,
    trained: bool,
    tokenizer: Path | None = None,
    words: Collection[str] = (),
) -> None:
    """
    Write weights, config, tokenizer, words and what generation needs in the place of what
    ``folder`` holds of these, all in one step.

    Raises:
        NonFiniteError: a weight is not finite; ``folder`` stays as it is.
    """
    if broken := not_finite(model):
        raise NonFiniteError(
            f"{broken} is not finite, so no checkpoint is written; {folder} is as it was"
        )
    model.config = replace(
        model.config, navigation=replace(model.config.navigation, trained=trained)
    )
    with (
        atomic_folder(folder, keep=lambda name: Path(name).suffix not in DECIDING_SUFFIXES) as new,
        folded(model),
    ):
        model.write_files(new, dtype="bfloat16" if recipe.bf16 else None)
        if tokenizer is not None:
            copy_tokenizer(tokenizer, new)
        if words:
            said = sorted({*words, *load_trained_words(Path(recipe.model))})
            atomic_write(new / TRAINED_WORDS_FILE, json.dumps(said) + "\n")


@torch.no_grad()
def not_finite(model: nn.Module) -> str:
    """The first parameter of a network that holds a number which is not finite; "" if none."""
    for name, value in model.named_parameters():
        if not torch.isfinite(value).all():
            return name
    return ""

"""From a recipe to a trained checkpoint: builds the network and the data sets, runs the stage, writes the checkpoint."""

import json
import logging
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from janusvln_ros.errors import InputError
from janusvln_ros.files import atomic_write, share_dir
from janusvln_ros.model import JanusVLN, JanusVLNConfig
from janusvln_ros.model import checkpoint as files
from janusvln_ros.model.config import Decoding
from janusvln_ros.model.janusvln import SpatialMerger
from janusvln_ros.training.encoders import Views
from janusvln_ros.training.recipes import Recipe, save_recipe

log = logging.getLogger(__name__)


def shipped(path: str) -> Path:
    """``path``, or the file of that name that the package ships if there is none here."""
    here = Path(path)
    return here if here.exists() or here.is_absolute() or not (share_dir() / path).exists() else share_dir() / path


def build_model(recipe: Recipe) -> JanusVLN:
    """The network a recipe starts from, on the CPU, with the right parts replaced and frozen.

    Raises:
        InputError: no model named, or parts that do not fit.
    """
    if not recipe.model:
        raise InputError("the recipe names no model: give model=FOLDER (a checkpoint) or model=FILE.json (settings for random weights)")
    path = shipped(recipe.model)
    dtype = "bfloat16" if recipe.bf16 and not recipe.fp32_parameters else "float32"
    if path.suffix == ".json":
        config = JanusVLNConfig.from_pretrained(path)
        pretrained = [(name, prefix) for name, prefix in ((recipe.semantic_model, ""), (recipe.spatial_model, "vggt.")) if name]
        model = from_parts(config, pretrained, dtype, recipe.seed) if pretrained else files.build(config, dtype=dtype, seed=recipe.seed)
    else:
        model = JanusVLN.from_pretrained(str(path), dtype=dtype)
    if recipe.encoders:
        copy_encoders(model, recipe.encoders)
    if recipe.match_attention:
        match_attention(model)
    frames = {name: value for name in ("initial_frames", "window_frames") if (value := getattr(recipe, name)) is not None}
    decoding: Decoding = "constrained" if recipe.memory == "dual" else "free"
    ablations = {name: getattr(recipe, name) for name in ("action_memory", "semantic_memory")}
    navigation = replace(model.config.navigation, memory=recipe.memory, decoding=decoding, **ablations, **frames)
    model.config = replace(model.config, navigation=navigation, lam=model.config.lam if recipe.lam is None else recipe.lam)
    return model


def from_parts(config: JanusVLNConfig, parts: Sequence[tuple[str, str]], dtype: str, seed: int) -> JanusVLN:
    """A network whose parts come from other people's checkpoints; what none of them has (the spatial merger) starts at random.

    Args:
        config: of the whole network.
        parts: folders or hub ids, each with what stands before its tensors' names in a JanusVLN checkpoint ("" for Qwen2.5-VL, "vggt." for VGGT).
        dtype: of the weights.
        seed: of the random ones.

    Raises:
        InputError: a tensor of the wrong shape, or parts of the network that no file has.
    """
    with torch.device("meta"):
        model = JanusVLN(config)
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found: dict[str, torch.Tensor] = {}
    for checkpoint, prefix in parts:
        for file in files.weight_files(files.find(checkpoint)):
            with safe_open(file, framework="pt") as tensors:
                for published in tensors.keys():  # noqa: SIM118
                    name = files.our_name(prefix + _old_layout(published))
                    if name not in wanted:
                        continue
                    value = tensors.get_tensor(published).to(files.as_dtype(dtype))
                    if tuple(value.shape) != wanted[name]:
                        shapes = f"{published} is {list(value.shape)}, the settings want {list(wanted[name])}"
                        raise InputError(f"{checkpoint}: {shapes}: use the settings of that model")
                    found[name] = value
    absent = sorted(name for name in wanted if name not in found and not name.startswith("fusion."))
    if absent:
        raise InputError(f"{[c for c, _ in parts]} lack {len(absent)} tensors of the network, the first is {absent[0]}: check that the settings fit them")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fusion = SpatialMerger(config).to(files.as_dtype(dtype))
    found |= {f"fusion.{name}": value for name, value in fusion.state_dict().items()}
    model.load_state_dict(found, strict=True, assign=True)
    model.restore_frequencies()
    return model


def _old_layout(name: str) -> str:
    """The name of a Qwen2.5-VL tensor in the layout before transformers 4.52, which published files have."""
    name = re.sub(r"^model\.language_model\.", "model.", name)
    return re.sub(r"^model\.visual\.", "visual.", name)


@torch.no_grad()
def match_attention(model: JanusVLN) -> None:
    """Set every query projection of the language model to its key projection.

    With random ones, whether a picture's token attends to the word for it is chance, and a small network needs long to find out that it should. With equal
    ones the score of two tokens is their likeness in a random projection, on top of which training goes on (compare arXiv 2305.09828).
    """
    for layer in model.language.layers:
        attention: Any = layer.self_attn
        head = model.config.text.hidden_size // model.config.text.num_attention_heads
        groups = model.config.text.num_attention_heads // (model.config.text.num_key_value_heads or model.config.text.num_attention_heads)
        for name in ("weight", "bias"):
            keys = getattr(attention.k_proj, name)
            getattr(attention.q_proj, name).copy_(keys.unflatten(0, (-1, head)).repeat_interleave(groups, dim=0).flatten(0, 1))


def copy_encoders(model: JanusVLN, checkpoint: str) -> None:
    """Replace the vision tower (without its merger) and the spatial encoder by those of ``checkpoint``. Raises InputError where sizes differ."""
    source = JanusVLN.from_pretrained(checkpoint, dtype=model.dtype).state_dict()
    target = model.state_dict()
    for name, value in source.items():
        if name.startswith(("vision.", "spatial.")) and not name.startswith("vision.merger."):
            if name not in target or target[name].shape != value.shape:
                wanted = list(target[name].shape) if name in target else "none"
                raise InputError(f"{checkpoint}: {name} is {list(value.shape)}, the network wants {wanted}: train encoders of the same sizes")
            target[name].copy_(value)


def train(recipe: Recipe) -> dict[str, Any]:
    """Run ``recipe`` to its end, going on where an earlier run of the same recipe was stopped.

    Returns:
        ``checkpoint`` (folder), ``steps``, ``loss`` (mean of the last logged), and the stage's own results.

    Raises:
        InputError: the recipe or its data cannot be used, or the output folder holds the state of another recipe.
    """
    torch.manual_seed(recipe.seed)
    output = Path(recipe.output)
    claim(recipe, output)
    if recipe.stage == "encoders":
        return _train_encoders(recipe, output)
    if recipe.stage == "align":
        return _train_alignment(recipe, output)
    from janusvln_ros.training.navigate import train_navigation

    return train_navigation(recipe, output)


MAY_CHANGE = (
    "output", "save_steps", "keep", "eval_steps", "eval_samples", "logging_steps", "tensorboard", "workers", "threads", "max_steps", "epochs",
    "deepspeed", "fsdp",
)  # fmt: skip
"""Fields that may differ when a run is resumed."""


def claim(recipe: Recipe, output: Path) -> None:
    """Write the recipe into its output folder, or check that the state there belongs to it. Raises InputError."""
    from janusvln_ros.training.recipes import load_recipe
    from janusvln_ros.training.trainer import last_state

    path = output / "recipe.yaml"
    if path.is_file() and last_state(output):
        before = asdict(load_recipe(str(path)))
        changed = [name for name, value in asdict(recipe).items() if name not in MAY_CHANGE and before[name] != value]
        if changed:
            name = changed[0]
            difference = f"{name} was {before[name]!r}, now {getattr(recipe, name)!r}"
            raise InputError(f"{output} holds the state of another run ({difference}): give another output=FOLDER, or delete {output}")
        log.info("going on with the run in %s", output)
    save_recipe(recipe, path)


TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "chat_template.json", "preprocessor_config.json", "generation_config.json",
)  # fmt: skip
"""What is copied from the tokenizer's folder where it is there."""


def finish(model: JanusVLN, recipe: Recipe, output: Path, *, trained: bool, tokenizer: Path | None = None) -> Path:
    """Write the checkpoint folder: weights, config, tokenizer and what generation needs."""
    folder = output / "checkpoint"
    model.config = replace(model.config, navigation=replace(model.config.navigation, trained=trained))
    model.save_pretrained(folder, dtype="bfloat16" if recipe.bf16 else None)
    if tokenizer is not None:
        for name in TOKENIZER_FILES:
            if (tokenizer / name).is_file() and (tokenizer / name).resolve() != (folder / name).resolve():
                shutil.copyfile(tokenizer / name, folder / name)
    return folder


def _train_encoders(recipe: Recipe, output: Path) -> dict[str, Any]:
    from janusvln_ros.training.encoders import EncoderTask, ViewSamples, collate_views, gate
    from janusvln_ros.training.trainer import fit, freeze

    views = Views.load(recipe.views)
    model = build_model(recipe).train()
    freeze(model, recipe)
    task = EncoderTask(model, views.names, recipe.pose_weight, recipe.train_vision_tower)
    steps = recipe.max_steps if recipe.max_steps > 0 else 1000
    samples = ViewSamples(views, recipe.encoder_frames, steps * recipe.batch * recipe.accumulate, recipe.seed)
    evaluation = ViewSamples(Views.load(recipe.gate_views), recipe.encoder_frames, recipe.eval_samples, recipe.seed + 1) if recipe.gate_views else None
    trainer = fit(task, recipe, samples, evaluation, collate_views, None)
    model.eval()
    folder = finish(model, recipe, output, trained=False)
    result: dict[str, Any] = {"checkpoint": str(folder), "steps": trainer.state.global_step, "loss": _last_loss(trainer.state.log_history)}
    if recipe.gate_views:
        # The weights as they are shipped, in bfloat16, computed in float32.
        result["gate"] = gate(JanusVLN.from_pretrained(folder, dtype="float32"), views, Views.load(recipe.gate_views), recipe.encoder_frames)
    atomic_write(output / "result.json", json.dumps(result, indent=1) + "\n")
    return result


def _train_alignment(recipe: Recipe, output: Path) -> dict[str, Any]:
    from janusvln_ros.policy.tokenizer import load_tokenizer
    from janusvln_ros.training.align import AlignTask, ViewTokens, collate_tokens, words_of
    from janusvln_ros.training.trainer import fit

    views, folder = Views.load(recipe.views), files.find(shipped(recipe.tokenizer or recipe.model))
    words, table = words_of(views.names, load_tokenizer(folder))
    model = build_model(recipe)
    samples = ViewTokens(views, model, table, recipe.walks)
    evaluation = ViewTokens(Views.load(recipe.gate_views), model, table, recipe.eval_samples) if recipe.gate_views else None
    trainer = fit(AlignTask(model.train(), words, samples.grid), recipe, samples, evaluation, collate_tokens, None)
    model.eval()
    checkpoint = finish(model, recipe, output, trained=False, tokenizer=folder)
    history = trainer.state.log_history
    seen = next((entry["eval_right"] for entry in reversed(history) if "eval_right" in entry), None)
    result = {"checkpoint": str(checkpoint), "steps": trainer.state.global_step, "loss": _last_loss(history), "right_words_in_unseen_homes": seen}
    atomic_write(output / "result.json", json.dumps(result, indent=1) + "\n")
    return result


def _last_loss(history: list[dict[str, float]]) -> float | None:
    return next((entry["loss"] for entry in reversed(history) if "loss" in entry), None)

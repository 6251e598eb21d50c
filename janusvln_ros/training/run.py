"""
From a recipe to a trained checkpoint: claims the output folder and runs the stage.

The stage ``navigate`` learns to act: with ``memory: dual`` every step of whole trajectories in one
masked pass (`janusvln_ros.training.dual`), with ``memory: released`` one published sample at a
time (`janusvln_ros.training.released`). Both take the same set files
(`janusvln_ros.data.samples`).
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from janusvln_ros.data.samples import FrameSamples, TrajectorySet
from janusvln_ros.errors import require
from janusvln_ros.files import atomic_write
from janusvln_ros.model import JanusVLN
from janusvln_ros.model.checkpoint import find
from janusvln_ros.policy.instruction import WORD
from janusvln_ros.policy.tokenizer import load_tokenizer, read
from janusvln_ros.rollout.shards import Cluster
from janusvln_ros.training.align import AlignTask, collate_tokens, view_tokens, words_of
from janusvln_ros.training.dual import DualTask, Trajectories, collate_trajectories
from janusvln_ros.training.encoders import EncoderTask, Views, ViewSamples, collate_views, gate
from janusvln_ros.training.episode import EPISODE_ATTENTION
from janusvln_ros.training.network import build_model, finish, shipped
from janusvln_ros.training.recipes import Recipe, load_recipe, save_recipe
from janusvln_ros.training.released import ReleasedTask, Samples, collate_samples
from janusvln_ros.training.trainer import fit, freeze, last_logged, last_state
from janusvln_ros.training.words import learn_words

log = logging.getLogger(__name__)


def train(recipe: Recipe) -> dict[str, Any]:
    """
    Run ``recipe`` to its end, going on where an earlier run of the same recipe was stopped.

    Returns:
        ``checkpoint`` (folder), ``steps``, ``loss`` (mean of the last logged), and the stage's own
        results.

    Raises:
        InputError: the recipe or its data cannot be used, or the output folder holds the state of
            another recipe.
    """
    torch.manual_seed(recipe.seed)
    output = Path(recipe.output)
    claim(recipe, output)
    stages = {
        "encoders": _train_encoders,
        "align": _train_alignment,
        "navigate": _train_navigation,
    }
    result = stages[recipe.stage](recipe, output)
    if Cluster.from_environment().rank == 0:
        atomic_write(output / "result.json", json.dumps(result, indent=1) + "\n")
    return result


MAY_CHANGE = (
    "output",
    "save_steps",
    "keep",
    "eval_steps",
    "eval_samples",
    "logging_steps",
    "tensorboard",
    "workers",
    "threads",
    "max_steps",
    "epochs",
    "deepspeed",
    "fsdp",
)
"""Fields that may differ when a run is resumed."""


def claim(recipe: Recipe, output: Path) -> None:
    """
    Write the recipe into its output folder, or check that the state there belongs to it.

    Raises InputError.
    """
    path = output / "recipe.yaml"
    if path.is_file() and last_state(output):
        before = asdict(load_recipe(str(path)))
        for name, value in asdict(recipe).items():
            require(
                name in MAY_CHANGE or before[name] == value,
                f"{output} holds the state of another run ({name} was {before[name]!r}, now "
                f"{value!r}): give another output=FOLDER, or delete {output}",
            )
        log.info("going on with the run in %s", output)
    save_recipe(recipe, path)


def _train_encoders(recipe: Recipe, output: Path) -> dict[str, Any]:
    views, frames = Views.load(recipe.views), recipe.encoder_frames
    unseen = Views.load(recipe.gate_views) if recipe.gate_views else None
    model = build_model(recipe).train()
    freeze(model, recipe)
    task = EncoderTask(model, views.names, recipe.pose_weight, recipe.train_vision_tower)
    steps = recipe.max_steps if recipe.max_steps > 0 else 1000
    count = steps * recipe.batch * recipe.accumulate
    samples = ViewSamples(views, frames, count, recipe.seed)
    judge = ViewSamples(unseen, frames, recipe.eval_samples, recipe.seed + 1) if unseen else None
    trainer = fit(task, recipe, samples, judge, collate_views, None)
    folder = finish(model, recipe, output, trained=False)
    result: dict[str, Any] = {
        "checkpoint": str(folder),
        "steps": trainer.state.global_step,
        "loss": last_logged(trainer.state.log_history, "loss").get("loss"),
    }
    if unseen:
        # The weights as they are shipped, in bfloat16, computed in float32.
        shipped_model = JanusVLN.from_pretrained(folder, dtype="float32")
        result["gate"] = gate(shipped_model, views, unseen, frames)
    return result


def _train_alignment(recipe: Recipe, output: Path) -> dict[str, Any]:
    views, folder = Views.load(recipe.views), find(shipped(recipe.tokenizer or recipe.model))
    words, table = words_of(views.names, load_tokenizer(folder))
    model = build_model(recipe)
    learn_words(model, folder, load_tokenizer(folder), shipped(recipe.model))
    samples = view_tokens(views, model, table, recipe.walks)
    evaluation = (
        view_tokens(Views.load(recipe.gate_views), model, table, recipe.eval_samples)
        if recipe.gate_views
        else None
    )
    trainer = fit(
        AlignTask(model.train(), words, views.depth.shape[2:]),
        recipe,
        samples,
        evaluation,
        collate_tokens,
        None,
    )
    checkpoint = finish(model, recipe, output, trained=False, tokenizer=folder)
    history = trainer.state.log_history
    return {
        "checkpoint": str(checkpoint),
        "steps": trainer.state.global_step,
        "loss": last_logged(history, "loss").get("loss"),
        "right_words_in_unseen_homes": last_logged(history, "eval_right").get("eval_right"),
    }


def open_sets(paths: Sequence[str]) -> list[TrajectorySet]:
    """The set files of a recipe. Raises InputError for one that is empty."""
    sets = [TrajectorySet(path) for path in paths]
    for trajectories in sets:
        require(
            len(trajectories),
            f"{trajectories.path} holds no trajectory: see what 'janusvln data' reported about it",
        )
    return sets


def said(tokenizer: PreTrainedTokenizerBase, paths: Sequence[str]) -> set[str]:
    """Every word in the instructions of the set files, as the network reads them."""
    return {
        found.group()
        for trajectories in open_sets(paths)
        for i in range(len(trajectories))
        for found in WORD.finditer(read(tokenizer, trajectories.raw(i)["instruction"]))
    }


@dataclass(frozen=True)
class Stage:
    """
    What is trained on what.

    Attributes:
        task: the network with its loss.
        train, evaluation: data sets; ``evaluation`` is None without ``eval_data``.
        collate: makes a batch for the task of samples of them.
    """

    task: nn.Module
    train: Any
    evaluation: Any
    collate: Callable[[Sequence[Any]], dict[str, Any]]


def prepare(recipe: Recipe, model: JanusVLN, tokenizer: PreTrainedTokenizerBase) -> Stage:
    """
    Task and data of a recipe.

    Raises:
        InputError: no data is named, or some that cannot be used.
    """
    require(
        recipe.data,
        "the recipe names no data: give --set 'data=[FILE.jsonl, ...]', made by 'janusvln data'",
    )
    sets, mirrored, held_out = map(
        open_sets, (recipe.data, recipe.mirrored_data, recipe.eval_data)
    )
    dual = recipe.memory == "dual"
    require(
        dual or not mirrored,
        "mirrored_data is for whole trajectories (memory: dual): set mirrored_data=[]",
    )
    if dual:
        frozen = not (recipe.train_vision_tower or recipe.train_spatial_encoder)
        settings = (model, tokenizer, recipe, frozen and recipe.cache_features)
        train: Any = Trajectories(sets, *settings, mirrored)
        whole = (model, tokenizer, replace(recipe, word_dropout=0.0), settings[-1])
        evaluation: Any = Trajectories(held_out, *whole) if held_out else None
        task: nn.Module = DualTask(
            model,
            tokenizer,
            recipe.sample_windows,
            recipe.guidance_weight,
            not recipe.train_spatial_encoder,
            recipe.curriculum_steps,
        )
    else:
        pictures = (model.config.navigation.image_width, model.config.navigation.num_history)
        train = Samples(FrameSamples(sets), *pictures)
        evaluation = Samples(FrameSamples(held_out), *pictures) if held_out else None
        task = ReleasedTask(model, tokenizer, recipe.prompt)
    if evaluation is not None and len(evaluation) > recipe.eval_samples:
        chosen = np.linspace(0, len(evaluation) - 1, recipe.eval_samples).astype(int)
        evaluation = torch.utils.data.Subset(evaluation, chosen.tolist())
    collate = collate_trajectories if dual else collate_samples
    return Stage(task, train, evaluation, collate)


def set_attention(model: JanusVLN, recipe: Recipe) -> None:
    """Let both transformers attend as the recipe says."""
    model.vision.set_attn_implementation(recipe.attention)
    # On a CPU the mask of an episode is dearer than the pieces of this attention.
    pieces = (
        recipe.memory == "dual" and recipe.attention == "sdpa" and not torch.cuda.is_available()
    )
    model.language.set_attn_implementation(EPISODE_ATTENTION if pieces else recipe.attention)


def _train_navigation(recipe: Recipe, output: Path) -> dict[str, Any]:
    model = build_model(recipe)
    folder = find(shipped(recipe.tokenizer or recipe.semantic_model or recipe.model))
    tokenizer = load_tokenizer(folder)
    learn_words(model, folder, tokenizer, shipped(recipe.model))
    model.train()
    freeze(model, recipe)
    if recipe.gradient_checkpointing:
        model.language.gradient_checkpointing_enable({"use_reentrant": False})
    set_attention(model, recipe)
    stage = prepare(recipe, model, tokenizer)
    lengths = stage.train.lengths if recipe.group_by_length else None
    trainer = fit(stage.task, recipe, stage.train, stage.evaluation, stage.collate, lengths)
    history = trainer.state.log_history
    judged = last_logged(history, "eval_loss")
    if recipe.deepspeed or recipe.fsdp:  # the weights lie in pieces on all processes
        weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
        if trainer.is_world_process_zero():
            whole = {name: value.cpu() for name, value in weights.items()}
            stage.task.load_state_dict(whole, assign=True)
    if trainer.is_world_process_zero():
        knows = getattr(tokenizer, "spelling", None)
        words = said(tokenizer, recipe.data) if knows else ()
        finish(model, recipe, output, trained=True, tokenizer=folder, words=words)
        atomic_write(output / "history.json", json.dumps(history, indent=1) + "\n")
    return {
        "steps": trainer.state.global_step,
        "samples": len(stage.train),
        "loss": last_logged(history, "loss").get("loss"),
        "evaluation": {k: v for k, v in judged.items() if k.startswith("eval_")} or None,
        "checkpoint": str(output / "checkpoint"),
    }

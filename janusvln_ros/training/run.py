"""From a recipe to a trained checkpoint: claims the output folder and runs the stage."""

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from janusvln_ros.errors import InputError
from janusvln_ros.files import atomic_write
from janusvln_ros.model import JanusVLN
from janusvln_ros.model import checkpoint as files
from janusvln_ros.policy.tokenizer import load_tokenizer
from janusvln_ros.training.align import AlignTask, ViewTokens, collate_tokens, words_of
from janusvln_ros.training.encoders import EncoderTask, Views, ViewSamples, collate_views, gate
from janusvln_ros.training.navigate import train_navigation
from janusvln_ros.training.network import build_model, finish, shipped
from janusvln_ros.training.recipes import Recipe, load_recipe, save_recipe
from janusvln_ros.training.trainer import fit, freeze, last_state

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
    if recipe.stage == "encoders":
        return _train_encoders(recipe, output)
    if recipe.stage == "align":
        return _train_alignment(recipe, output)
    return train_navigation(recipe, output)


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
        changed = [
            name
            for name, value in asdict(recipe).items()
            if name not in MAY_CHANGE and before[name] != value
        ]
        if changed:
            name = changed[0]
            difference = f"{name} was {before[name]!r}, now {getattr(recipe, name)!r}"
            raise InputError(
                f"{output} holds the state of another run ({difference}): give another "
                f"output=FOLDER, or delete {output}"
            )
        log.info("going on with the run in %s", output)
    save_recipe(recipe, path)


def _train_encoders(recipe: Recipe, output: Path) -> dict[str, Any]:
    views = Views.load(recipe.views)
    model = build_model(recipe).train()
    freeze(model, recipe)
    task = EncoderTask(model, views.names, recipe.pose_weight, recipe.train_vision_tower)
    steps = recipe.max_steps if recipe.max_steps > 0 else 1000
    samples = ViewSamples(
        views, recipe.encoder_frames, steps * recipe.batch * recipe.accumulate, recipe.seed
    )
    evaluation = (
        ViewSamples(
            Views.load(recipe.gate_views),
            recipe.encoder_frames,
            recipe.eval_samples,
            recipe.seed + 1,
        )
        if recipe.gate_views
        else None
    )
    trainer = fit(task, recipe, samples, evaluation, collate_views, None)
    model.eval()
    folder = finish(model, recipe, output, trained=False)
    result: dict[str, Any] = {
        "checkpoint": str(folder),
        "steps": trainer.state.global_step,
        "loss": _last_loss(trainer.state.log_history),
    }
    if recipe.gate_views:
        # The weights as they are shipped, in bfloat16, computed in float32.
        result["gate"] = gate(
            JanusVLN.from_pretrained(folder, dtype="float32"),
            views,
            Views.load(recipe.gate_views),
            recipe.encoder_frames,
        )
    atomic_write(output / "result.json", json.dumps(result, indent=1) + "\n")
    return result


def _train_alignment(recipe: Recipe, output: Path) -> dict[str, Any]:
    views, folder = Views.load(recipe.views), files.find(shipped(recipe.tokenizer or recipe.model))
    words, table = words_of(views.names, load_tokenizer(folder))
    model = build_model(recipe)
    samples = ViewTokens(views, model, table, recipe.walks)
    evaluation = (
        ViewTokens(Views.load(recipe.gate_views), model, table, recipe.eval_samples)
        if recipe.gate_views
        else None
    )
    trainer = fit(
        AlignTask(model.train(), words, samples.grid),
        recipe,
        samples,
        evaluation,
        collate_tokens,
        None,
    )
    model.eval()
    checkpoint = finish(model, recipe, output, trained=False, tokenizer=folder)
    history = trainer.state.log_history
    seen = next(
        (entry["eval_right"] for entry in reversed(history) if "eval_right" in entry), None
    )
    result = {
        "checkpoint": str(checkpoint),
        "steps": trainer.state.global_step,
        "loss": _last_loss(history),
        "right_words_in_unseen_homes": seen,
    }
    atomic_write(output / "result.json", json.dumps(result, indent=1) + "\n")
    return result


def _last_loss(history: list[dict[str, float]]) -> float | None:
    return next((entry["loss"] for entry in reversed(history) if "loss" in entry), None)

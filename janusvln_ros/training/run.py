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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase, TrainerCallback

from janusvln_ros.data.left_out import LeftOut, counted
from janusvln_ros.data.samples import FrameSamples, TrajectorySet
from janusvln_ros.errors import InputError, require
from janusvln_ros.files import atomic_folder, atomic_write, file_lock
from janusvln_ros.model import JanusVLN
from janusvln_ros.model.checkpoint import find
from janusvln_ros.policy.identity import checkpoint_digest
from janusvln_ros.policy.instruction import WORD
from janusvln_ros.policy.tokenizer import (
    TRAINED_WORDS_FILE,
    WORD_VECTORS_FILE,
    load_tokenizer,
    load_word_vectors,
    read,
)
from janusvln_ros.rollout.paraphrases import routes
from janusvln_ros.rollout.shards import Cluster
from janusvln_ros.training.align import AlignTask, collate_tokens, view_tokens, words_of
from janusvln_ros.training.dual import DualTask, StepTold, Trajectories, collate_trajectories
from janusvln_ros.training.encoders import EncoderTask, Views, ViewSamples, collate_views, gate
from janusvln_ros.training.episode import EPISODE_ATTENTION
from janusvln_ros.training.network import build_model, copy_tokenizer, finish, shipped
from janusvln_ros.training.recipes import Recipe
from janusvln_ros.training.released import ReleasedTask, Samples, collate_samples
from janusvln_ros.training.rephrase import (
    Paraphrases,
    RephraseTask,
    answer_ids,
    collate,
    neighbours,
    new_rephraser,
    with_ordinary_words,
    words_told,
)
from janusvln_ros.training.resume import claim, sole_run
from janusvln_ros.training.spool import Spool
from janusvln_ros.training.stream import (
    DriveStream,
    HeldOutDrives,
    PolicyPublisher,
    ProducerJob,
    Producers,
    StreamFigures,
    held_out_drives,
    newest_policy,
    producer_count,
    publish_policy,
    said_in_stream,
    stream_folder,
)
from janusvln_ros.training.trainer import (
    NavigationTrainer,
    arguments,
    fit,
    freeze,
    last_logged,
)
from janusvln_ros.training.words import learn_words

log = logging.getLogger(__name__)


def train(recipe: Recipe) -> dict[str, Any]:
    """
    Run ``recipe`` to its end, going on where an earlier run of the same recipe was stopped.

    Returns:
        ``checkpoint`` (folder), its ``checkpoint_digest``, ``steps``, ``loss`` (mean of the last
        logged), and the stage's own results.

    Raises:
        InputError: the recipe or its data cannot be used, or the output folder holds another run,
            or another process trains into it.
        NonFiniteError: a loss, gradient or weight is not finite any more.
        FailedError: a state could not be written.
    """
    torch.manual_seed(recipe.seed)
    output, cluster = Path(recipe.output), Cluster.from_environment()
    with sole_run(output, cluster):
        with arguments(recipe).main_process_first(local=False, desc="claim"):
            recipe = claim(recipe, cluster)
        stages = {
            "encoders": _train_encoders,
            "align": _train_alignment,
            "navigate": _train_navigation,
            "rephrase": _train_rephraser,
        }
        result = stages[recipe.stage](recipe, output)
        if cluster.rank == 0:
            result["checkpoint_digest"] = checkpoint_digest(Path(result["checkpoint"]))
            atomic_write(output / "result.json", json.dumps(result, indent=1) + "\n")
    return result


def _train_encoders(recipe: Recipe, output: Path) -> dict[str, Any]:
    views, frames = Views.load(recipe.views), recipe.encoder_frames
    unseen = Views.load(recipe.gate_views) if recipe.gate_views else None
    model = build_model(recipe).train()
    freeze(model, recipe)
    sees, measures = recipe.train_vision_tower, recipe.train_spatial_encoder
    require(
        sees or measures,
        "no encoder is to be trained: set train_vision_tower or train_spatial_encoder to true",
    )
    task = EncoderTask(model, views.names, recipe.pose_weight, sees, measures)
    steps = recipe.max_steps if recipe.max_steps > 0 else 1000
    world = Cluster.from_environment().world_size
    count = steps * recipe.batch * recipe.accumulate * world
    samples = ViewSamples(views, frames, count, recipe.seed)
    judge = ViewSamples(unseen, frames, recipe.eval_samples, recipe.seed + 1) if unseen else None
    trainer = fit(task, recipe, samples, judge, collate_views, None)
    folder = finish(model, recipe, output, trained=False)
    result: dict[str, Any] = {
        "checkpoint": str(folder),
        "steps": trainer.state.global_step,
        "loss": _last(trainer.state.log_history, "loss"),
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
    teacher = None
    if recipe.teacher:
        teacher = JanusVLN.from_pretrained(find(shipped(recipe.teacher)), dtype="float32")
    samples = view_tokens(views, model, table, recipe.walks, teacher)
    evaluation = (
        view_tokens(Views.load(recipe.gate_views), model, table, recipe.eval_samples, teacher)
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
        "loss": _last(history, "loss"),
        "right_words_in_unseen_homes": _last(history, "eval_right"),
        "teacher_missed_in_unseen_homes": _last(history, "eval_missed"),
    }


JUDGED_HOMES = 60
"""Homes of the ways by which a `Rephraser` is judged; training has none of them."""

WORDS_OF = 20_000
"""Texts whose words are written down as those that training said."""


def _train_rephraser(recipe: Recipe, output: Path) -> dict[str, Any]:
    require(recipe.max_steps > 0, f"max_steps is {recipe.max_steps}: texts have no end, give one")
    folder = find(shipped(recipe.tokenizer))
    tokenizer, vectors_WK = load_tokenizer(folder), load_word_vectors(folder)
    if vectors_WK is None:
        raise InputError(f"{folder} has no {WORD_VECTORS_FILE}: give the tokenizer=FOLDER of one")
    world, jobs = Cluster.from_environment().world_size, max(recipe.workers, 1)
    count = recipe.max_steps * recipe.batch * recipe.accumulate * world
    ways = routes(recipe.seed, recipe.homes, jobs)
    told = Paraphrases(ways, tokenizer, count, recipe.seed)
    texts = [told.text(i) for i in range(min(WORDS_OF, count))]
    words = words_told(tokenizer, texts)
    near = neighbours(tokenizer, vectors_WK, words)
    train = Paraphrases(ways, tokenizer, count, recipe.seed, neighbours=near)
    others = routes(recipe.seed + 1, JUDGED_HOMES, jobs)
    judged: dict[str, Dataset[Any]] = {
        name: Paraphrases(others, tokenizer, recipe.eval_samples, recipe.seed, held_out=held_out)
        for name, held_out in (("trained_words", False), ("held_out_words", True))
    }
    network = new_rephraser(tokenizer, vectors_WK, answer_ids(tokenizer, texts))
    trainer = fit(RephraseTask(network.train()), recipe, train, judged, collate, None)
    checkpoint = output / "checkpoint"
    with atomic_folder(checkpoint) as new:
        with_ordinary_words(network).write(new)
        copy_tokenizer(folder, new)
        atomic_write(new / TRAINED_WORDS_FILE, json.dumps(sorted(words)) + "\n")
    history = trainer.state.log_history
    return {
        "checkpoint": str(checkpoint),
        "steps": trainer.state.global_step,
        "loss": _last(history, "loss"),
        **{f"exact_with_{name}": _last(history, f"eval_{name}_exact") for name in judged},
    }


def _last(history: Sequence[dict[str, Any]], key: str) -> float | None:
    """The last figure of that name in a trainer's log."""
    return last_logged(history, key).get(key)


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


def words_said(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """Every word that a recipe's training says, in its stream (so far) or in its sets."""
    if recipe.stream is not None:
        return said_in_stream(stream_folder(recipe))
    return said(tokenizer, recipe.data)


@dataclass(frozen=True)
class Stage:
    """
    What is trained on what.

    Attributes:
        task: the network with its loss.
        train, evaluation: data sets; ``evaluation`` is None without ``eval_data``.
        collate: makes a batch for the task of samples of them.
        trajectories: in all sets, to train on and to be judged by.
        left_out: a sentence for each of these that is not used.
    """

    task: nn.Module
    train: Any
    evaluation: Any
    collate: Callable[[Sequence[Any]], dict[str, Any]]
    trajectories: int = 0
    left_out: Sequence[LeftOut] = ()


def prepare(recipe: Recipe, model: JanusVLN, tokenizer: PreTrainedTokenizerBase) -> Stage:
    """
    Task and data of a recipe.

    Raises:
        InputError: no data is named, or some that cannot be used.
    """
    require(
        recipe.data or recipe.stream,
        "the recipe names no data: give --set 'data=[FILE.jsonl, ...]', made by 'janusvln data', "
        "or a stream",
    )
    dual = recipe.memory == "dual"
    require(
        dual or not recipe.mirrored_data,
        "mirrored_data is for whole trajectories (memory: dual): set mirrored_data=[]",
    )
    require(
        dual or not recipe.longest,
        f"longest={recipe.longest} is for whole trajectories (memory: dual): set longest=0",
    )
    if recipe.stream is not None:
        return _prepare_stream(recipe, model, tokenizer)
    sets, mirrored, held_out = map(
        open_sets, (recipe.data, recipe.mirrored_data, recipe.eval_data)
    )
    evaluation: Any = None
    left_out: list[LeftOut] = []
    if dual:
        settings = (model, tokenizer, recipe, recipe.cache_features and not _learns_to_see(recipe))
        train: Any = Trajectories(sets, *settings, mirrored)
        whole = (model, tokenizer, replace(recipe, word_dropout=0.0), settings[-1])
        evaluation = Trajectories(held_out, *whole) if held_out else None
        left_out = [*train.left_out, *(evaluation.left_out if held_out else ())]
        task: nn.Module = _dual_task(recipe, model, tokenizer)
    else:
        pictures = (model.config.navigation.image_width, model.config.navigation.num_history)
        train = Samples(FrameSamples(sets), *pictures)
        evaluation = Samples(FrameSamples(held_out), *pictures) if held_out else None
        task = ReleasedTask(model, tokenizer, recipe.prompt)
    if evaluation is not None:
        evaluation = _some(evaluation, recipe.eval_samples)
    collate = collate_trajectories if dual else collate_samples
    read = sum(map(len, (*sets, *mirrored, *held_out)))
    return Stage(task, train, evaluation, collate, read, left_out)


def _learns_to_see(recipe: Recipe) -> bool:
    """Whether an encoder changes in training, so that nothing it says can be kept."""
    return recipe.train_vision_tower or recipe.train_spatial_encoder


def _dual_task(recipe: Recipe, model: JanusVLN, tokenizer: PreTrainedTokenizerBase) -> DualTask:
    return DualTask(
        model,
        tokenizer,
        recipe.sample_windows,
        recipe.guidance_weight,
        not recipe.train_spatial_encoder,
        recipe.curriculum_steps,
        recipe.seed,
        recipe.channel_dropout,
    )


def _some(evaluation: Any, count: int) -> Any:
    """At most ``count`` samples of a set, evenly chosen."""
    if len(evaluation) <= count:
        return evaluation
    chosen = np.linspace(0, len(evaluation) - 1, count).astype(int)
    return torch.utils.data.Subset(evaluation, chosen.tolist())


def _prepare_stream(recipe: Recipe, model: JanusVLN, tokenizer: PreTrainedTokenizerBase) -> Stage:
    """Task and data of a recipe whose drives are made while it runs; see `stream.DriveStream`."""
    stream, cluster = recipe.stream, Cluster.from_environment()
    assert stream is not None
    for holds, sentence in (
        (recipe.memory == "dual", "stream is for whole trajectories: set memory=dual"),
        (not recipe.data and not recipe.mirrored_data, "a stream takes the place of data and "
         "mirrored_data: set data=[] mirrored_data=[], or stream=null"),
        (not _learns_to_see(recipe), "a stream keeps what frozen encoders see: set "
         "train_vision_tower=false train_spatial_encoder=false"),
        (recipe.max_steps > 0, "a stream has no end: give max_steps=N"),
        (recipe.workers == 0, "the training process takes the drives itself: set workers=0"),
        (stream.keep >= 2 * stream.least * cluster.world_size,
         f"stream.keep is {stream.keep}: give at least twice stream.least "
         f"({stream.least}) for each of {cluster.world_size} processes"),
    ):  # fmt: skip
        require(holds, sentence)
    passes = recipe.max_steps * recipe.batch * recipe.accumulate * cluster.world_size
    spool = Spool(stream_folder(recipe) / "spool")
    train = DriveStream(spool, recipe, tokenizer, cluster, passes)
    judged: dict[str, Any] = {}
    whole = replace(recipe, word_dropout=0.0)
    if held_out := held_out_drives(recipe, cluster):
        judged["stream"] = HeldOutDrives(held_out, whole, tokenizer)
    if recipe.eval_data:
        sets = open_sets(recipe.eval_data)
        judged["data"] = Trajectories(sets, model, tokenizer, whole, recipe.cache_features)
    judged = {name: _some(samples, recipe.eval_samples) for name, samples in judged.items()}
    task = _dual_task(recipe, model, tokenizer)
    return Stage(task, train, judged or None, collate_trajectories)


def set_attention(model: JanusVLN, recipe: Recipe) -> None:
    """Let both transformers attend as the recipe says."""
    model.vision.set_attn_implementation(recipe.attention)
    # On a CPU the mask of an episode is dearer than the pieces of this attention.
    pieces = (
        recipe.memory == "dual" and recipe.attention == "sdpa" and not torch.cuda.is_available()
    )
    model.language.set_attn_implementation(EPISODE_ATTENTION if pieces else recipe.attention)


def _fit_stream(
    recipe: Recipe, model: JanusVLN, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> tuple[Stage, NavigationTrainer]:
    """
    Train on a stream: the first process starts its producers, and gives them a checkpoint now and
    whenever a state is saved. ``folder`` is the tokenizer's.
    """
    stream, cluster, place = recipe.stream, Cluster.from_environment(), stream_folder(recipe)
    assert stream is not None
    with file_lock(place / "policy"):
        if newest_policy(place) is None:
            publish_policy(model, recipe, 0, folder)
    stage = prepare(recipe, model, tokenizer)
    figures = StreamFigures(place, stage.train)
    publisher = PolicyPublisher(model, recipe, folder)
    job = ProducerJob(place, stream, recipe.longest)
    count = producer_count(stream, cluster) if cluster.rank == 0 else 0
    with Producers(job, count) as producers:
        stage.train.failure = lambda: producers.failure
        trainer = fit(
            stage.task,
            recipe,
            stage.train,
            stage.evaluation,
            stage.collate,
            None,
            further=figures,
            callbacks=[publisher, *_told(stage.task)],
        )
    return stage, trainer


def _told(task: nn.Module) -> list[TrainerCallback]:
    """What tells a task its step, where it wants to know."""
    return [StepTold(task)] if isinstance(task, DualTask) else []


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
    if recipe.stream is not None:
        stage, trainer = _fit_stream(recipe, model, tokenizer, folder)
    else:
        stage = prepare(recipe, model, tokenizer)
        lengths = stage.train.lengths if recipe.group_by_length else None
        trainer = fit(
            stage.task,
            recipe,
            stage.train,
            stage.evaluation,
            stage.collate,
            lengths,
            callbacks=_told(stage.task),
        )
    history = trainer.state.log_history
    judged: dict[str, Any] = {}
    for key in ("eval_loss", "eval_data_loss", "eval_stream_loss"):
        judged |= last_logged(history, key)
    if recipe.deepspeed or recipe.fsdp:  # the weights lie in pieces on all processes
        weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
        if trainer.is_world_process_zero():
            whole = {name: value.cpu() for name, value in weights.items()}
            stage.task.load_state_dict(whole, assign=True)
    if trainer.is_world_process_zero():
        knows = getattr(tokenizer, "spelling", None)
        words = words_said(recipe, tokenizer) if knows else ()
        finish(model, recipe, output, trained=True, tokenizer=folder, words=words)
        atomic_write(output / "history.json", json.dumps(history, indent=1) + "\n")
    return {
        "steps": trainer.state.global_step,
        "samples": len(stage.train),
        "trajectories": stage.trajectories,
        **counted(stage.left_out),
        "loss": _last(history, "loss"),
        "evaluation": {k: v for k, v in judged.items() if k.startswith("eval_")} or None,
        "checkpoint": str(output / "checkpoint"),
    }

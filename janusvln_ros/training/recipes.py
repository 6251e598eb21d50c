"""
Recipes: everything that defines a training run, typed, read from ``config/train/NAME.yaml`` and
overridden field by field.

A recipe file is YAML whose keys are the fields of :class:`Recipe`; ``extends: OTHER`` starts from
another recipe. On the command line any field is ``name=value``, the value being YAML
(``learning_rate=1e-4``, ``data=[a,b]``, ``stream.uses=3``). A name that is no field is an error
that suggests the closest one, and a value of the wrong type is an error that says which type is
wanted.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import yaml

from janusvln_ros import schema
from janusvln_ros.errors import require
from janusvln_ros.files import atomic_write
from janusvln_ros.rollout.stream import Mix


@dataclass(frozen=True)
class Stream(Mix):
    """
    Drives made while training runs, in homes that are used once (`training.stream`).

    What is driven, and by whom, is in `rollout.stream.Mix`.
    """

    producers: int = 0
    """Processes that drive; 0: one for every core that no training process has, at least one."""
    uses: int = 4
    """Passes over a drive, each with another of its instructions; it is deleted then."""
    keep: int = 600
    """Drives kept on disk (30 kB a frame); producers wait where there are as many."""
    least: int = 100
    """Training waits where fewer drives are there for each of its processes."""
    policy_from: int = 1000
    """
    Steps from which on checkpoints of this run drive; 0 where ``model`` knows how to.
    """
    eval_homes: int = 0
    """Homes of their own, driven once by the expert, that training is judged by."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("uses", "keep", "least"):
            value = getattr(self, name)
            require(value >= 1, f"stream.{name} is {value}: give 1 or more")
        for name in ("producers", "policy_from", "eval_homes"):
            value = getattr(self, name)
            require(value >= 0, f"stream.{name} is {value}: give 0 or more")


@dataclass(frozen=True)
class Recipe:
    """
    One training run.

    Learning rates are per optimizer step; counts of frames and steps are whole numbers.

    The defaults of the optimizer are the published ones (MODEL: 64 processes x 1 x 8 = a global
    batch of 512 samples).
    """

    # what is trained
    stage: Literal["encoders", "align", "navigate", "rephrase"] = "navigate"
    """
    ``encoders``: teach both encoders of a small network to see (depth, pose, what things are);
    ``align``: teach its mergers the words for it; ``navigate``: actions; ``rephrase``: teach a
    network of words alone to say plainly what people say (``model`` is not used).
    """
    memory: Literal["released", "dual"] = "released"
    model: str = ""
    """
    Where the weights come from: a checkpoint folder or owner/name@revision; a ``.json`` file of
    settings starts from random weights.
    """
    semantic_model: str = ""
    """
    With a settings file as ``model``: take the semantic encoder and language model from this
    Qwen2.5-VL folder or owner/name@revision.
    """
    spatial_model: str = ""
    """
    With a settings file as ``model``: take the spatial encoder from this VGGT folder or
    owner/name@revision.
    """
    encoders: str = ""
    """
    A checkpoint whose vision tower and spatial encoder replace those of ``model`` (small networks,
    after the stage ``encoders``).
    """
    layers: int = 0
    """
    Go on with so many layers of the language model, more than ``model`` has; the new ones change
    nothing at first. 0: as it is.
    """
    match_attention: bool = False
    """
    Start the language model with each query projection equal to its key projection, so that like
    attends to like from the first step (new networks).
    """
    tokenizer: str = ""
    """Folder or owner/name@revision of the tokenizer; empty: that of ``model``."""
    lam: float | None = None
    """Weight of the spatial features in the fusion; None: as in the model's config."""
    initial_frames: int | None = None
    window_frames: int | None = None
    """Frames that both memories keep; None: as in the model's config."""
    action_memory: Literal["none", "executed"] = "none"
    """``executed``: answers stay in the semantic memory (an ablation; `dual` only)."""
    semantic_memory: bool = True
    """
    false: the language model sees the current frame only, whose geometry the spatial memory has
    made (an ablation; `dual` only).
    """
    train_language_model: bool = True
    train_mergers: bool = True
    train_vision_tower: bool = False
    train_spatial_encoder: bool = False

    # data
    data: list[str] = field(default_factory=list)
    """Files made by ``janusvln data``."""
    mirrored_data: list[str] = field(default_factory=list)
    """
    ``dual``: files of which every trajectory is taken with left and right exchanged, in pictures,
    actions and text (houses; not for texts of people).
    """
    eval_data: list[str] = field(default_factory=list)
    stream: Stream | None = None
    """
    ``dual``: drives made while training runs, in place of ``data`` (houses); null: none.
    """
    eval_samples: int = 64
    """At most so many samples or trajectories are used for an evaluation during training."""
    max_frames: int = 400
    """``dual``: longer trajectories are cut to their first so many frames."""
    longest: int = 0
    """``dual``: leave trajectories of more frames out (short routes first); 0: take all."""
    word_dropout: float = 0.0
    """
    ``dual``: share of an instruction's words that are replaced by an unknown one, drawn anew each
    time, so that a word that was never met does not break a sentence.
    """
    channel_dropout: float = 0.0
    """
    ``dual``: share of the channels of frozen encoders that are left out, the same ones in every
    frame of an optimizer step, so that no home is known by a few of them (environmental dropout,
    arXiv 1904.04195).
    """
    workers: int = 8
    prompt: Literal["training", "evaluation"] = "training"
    """
    ``released``: the published prompt of training, or that of evaluation (they differ in the
    published code).
    """

    # stage encoders
    views: str = ""
    """Folder of views (``janusvln data --views``) that teach the encoders."""
    gate_views: str = ""
    """Views of other homes, by which the encoders are judged afterwards."""
    encoder_frames: int = 12
    """Consecutive frames of a sample."""
    walks: int = 400
    """``align``: at most so many walks of ``views`` are used."""
    teacher: str = ""
    """
    ``align``: a checkpoint whose tokens for the same pictures the mergers learn to say, so that
    its language model (``model``) goes on with other ``encoders``.
    """
    pose_weight: float = 1.0
    """Weight of the pose relative to the first frame, which is learned last."""

    # stage rephrase
    homes: int = 1000
    """Homes whose ways are told, planned when the run begins by ``workers`` processes."""

    # dual memory
    change_weight: float = 3.0
    """Weight of a step at which the expert's action differs from the one before."""
    stop_weight: float = 4.0
    """Weight of a step at which the expert stops."""
    sample_windows: float = 0.5
    """
    Share of the batches whose (initial, window) is drawn, from (2, 4) up to the model's own, half
    of them with a jump between the positions of the two.
    """
    curriculum_steps: int = 0
    """
    Optimizer steps over which the memory window grows from one frame to its full size: what is
    seen now is learned before what was seen.
    """
    guidance_weight: float = 0.0
    """
    Weight of the helper loss: the next expert actions and the steps left, guessed by a head that
    is thrown away.
    """
    cache_features: bool = False
    """
    Keep what frozen encoders make of every frame on disk beside the set (small networks: 30 kB a
    frame).
    """

    # optimizer
    optimizer: Literal["adamw", "muon"] = "adamw"
    """
    ``muon``: Muon for the matrices of hidden layers, AdamW for the rest; for networks that learn
    from nothing.
    """
    learning_rate: float = 2e-5
    projector_learning_rate: float | None = 1e-5
    """For every parameter whose name contains ``merger``; None: ``learning_rate``."""
    vision_learning_rate: float | None = 1e-6
    """For every other parameter whose name contains ``visual``; None: ``learning_rate``."""
    weight_decay: float = 0.01
    warmup_ratio: float = 0.03
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    beta2: float = 0.999
    average: float = 0.0
    """
    Judge and write a running mean of the weights, of which each step keeps this share (0.998: the
    last 500 steps, about); 0: the weights of the last step.
    """
    max_grad_norm: float = 1.0
    epochs: float = 1.0
    max_steps: int = -1
    batch: int = 1
    """Samples (``released``) or trajectories (``dual``) per process and forward pass."""
    accumulate: int = 8
    group_by_length: bool = True
    seed: int = 42

    # numbers and machines
    bf16: bool = True
    fp32_parameters: bool = False
    """
    Keep parameters in float32 under bf16 autocast (small models; the large ones keep bf16
    parameters, as published).
    """
    gradient_checkpointing: bool = True
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    deepspeed: str = ""
    """A DeepSpeed file (``config/train/zero3.json``); empty: none."""
    fsdp: str = ""
    """An FSDP file (``config/train/fsdp.json``); empty: none."""
    threads: int = 0
    """CPU threads of a process; 0: torch's own choice."""

    # output
    output: str = "runs/train"
    overwrite: bool = False
    """
    Begin anew where ``output`` holds another run: its state goes at once, its checkpoint when this
    one is done.
    """
    save_steps: int = 1000
    keep: int = 1
    eval_steps: int = 0
    """Evaluate every so many optimizer steps; 0: never."""
    logging_steps: int = 10
    tensorboard: bool = True

    def __post_init__(self) -> None:
        least = dict.fromkeys(
            ("batch", "accumulate", "save_steps", "keep", "logging_steps", "homes"), 1
        )
        least |= dict.fromkeys(
            ("seed", "eval_steps", "workers", "threads", "longest", "layers"), 0
        )
        for name, value in least.items():
            found = getattr(self, name)
            require(found >= value, f"{name} is {found}: give {value} or more")
        for name, found in asdict(self).items():
            require(
                not isinstance(found, float) or isfinite(found),
                f"{name} is {found}: give a number that is finite",
            )
        for name in ("word_dropout", "channel_dropout", "average"):
            found = getattr(self, name)
            require(0 <= found < 1, f"{name} is {found}: give 0 or more, and less than 1")
        require(
            not (self.average and (self.deepspeed or self.fsdp)),
            f"average is {self.average}, for which a process needs all weights: set average=0 "
            "with deepspeed or fsdp",
        )
        require(
            self.epochs > 0 or self.max_steps > 0, f"epochs is {self.epochs}: give more than 0"
        )


def load_recipe(name: str, overrides: Iterable[str] = ()) -> Recipe:
    """
    Read the recipe ``name`` (a shipped one, or a path to a YAML file) and apply ``overrides``
    (``field=value``).

    Raises:
        InputError: no such recipe or field, or a value of the wrong type.
    """
    return schema.build(Recipe, schema.override(_read(name), overrides), f"recipe {name}")


def save_recipe(recipe: Recipe, path: str | Path) -> None:
    """Write ``recipe`` with every field, so that a run can be repeated from its own folder."""
    atomic_write(path, yaml.safe_dump(asdict(recipe), sort_keys=False))


def _read(name: str) -> dict[str, Any]:
    """The keys of a recipe file, those of the recipes it extends below them."""
    values = schema.read_yaml(schema.shipped("train", name))
    parent = values.pop("extends", None)
    below = _read(str(parent)) if parent else {}
    for key, value in values.items():
        inherited = below.get(key)
        if isinstance(value, dict) and isinstance(inherited, dict):
            value = {**inherited, **value}
        below[key] = value
    return below

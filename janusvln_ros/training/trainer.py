"""
The training loop: transformers' Trainer with our losses, learning rates by part, and checkpoints
that survive a kill.

Every recipe goes through `fit`. A task is a module whose ``forward`` takes a batch and returns
``{"loss": ..., further figures}``; the figures are averaged over the logging interval and written
with the loss.
"""

import dataclasses
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler
from transformers import (
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)

from janusvln_ros.errors import FailedError, InputError, NonFiniteError
from janusvln_ros.model import JanusVLN
from janusvln_ros.training.average import averaged, follow, use_mean
from janusvln_ros.training.recipes import Recipe
from janusvln_ros.training.resume import check_weights, last_state

Setting = TypeVar("Setting")

MERGERS = ("vision.merger.", "fusion.")
"""
Parameters of the two mergers, which the published code calls ``visual.merger`` and ``merger``.
"""


def freeze(model: JanusVLN, recipe: Recipe) -> None:
    """
    Let exactly the parts named by the recipe's ``train_...`` fields learn (published: language
    model, lm_head and both mergers).
    """
    learns = dict.fromkeys(MERGERS, recipe.train_mergers) | {
        "vision.": recipe.train_vision_tower,
        "spatial.": recipe.train_spatial_encoder,
        "": recipe.train_language_model,
    }
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(of_part(name, learns))


def of_part(name: str, values: Mapping[str, Setting]) -> Setting:
    """The value for the first part whose prefix the name of a parameter has."""
    return next(value for prefix, value in values.items() if name.startswith(prefix))


def parameter_groups(task: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """
    The optimizer's groups: learning rate by part, and weight decay on all but biases and
    LayerNorms, as published.

    The published trainer knows PyTorch's LayerNorm only, so RMSNorm weights decay; kept, since its
    checkpoints were made so.
    """
    no_decay = {
        f"{name}.{p}"
        for name, module in task.named_modules()
        if isinstance(module, nn.LayerNorm)
        for p, _ in module.named_parameters(recurse=False)
    }
    rates = dict.fromkeys(MERGERS, recipe.projector_learning_rate) | {
        "vision.": recipe.vision_learning_rate,
        "": None,
    }
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    for name, parameter in task.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = of_part(name.removeprefix("model."), rates)
        decay = 0.0 if name in no_decay or name.endswith("bias") else recipe.weight_decay
        hidden = (
            recipe.optimizer == "muon"
            and parameter.ndim == 2
            and not any(f".{part}." in name for part in ("embed_tokens", "lm_head"))
        )
        groups.setdefault(
            (recipe.learning_rate if rate is None else rate, decay, hidden), []
        ).append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay, "muon": hidden}
        for (rate, decay, hidden), parameters in groups.items()
    ]


class MuonAndAdamW(torch.optim.Optimizer):
    """
    `torch.optim.Muon` and `torch.optim.AdamW` behind one interface, so that the Trainer schedules
    and saves them together.

    Muon's updates are scaled to the size of AdamW's (``match_rms_adamw``), so one learning rate
    serves both.

    Args:
        groups: groups of parameters with ``lr`` and ``weight_decay``; ``muon``: True where all of
            them are matrices of hidden layers.
        betas: of AdamW.
    """

    def __init__(self, groups: list[dict[str, Any]], betas: tuple[float, float]) -> None:
        self.parts: list[torch.optim.Optimizer] = []
        matrices, others = (
            [group for group in groups if group["muon"] == kind] for kind in (True, False)
        )
        if matrices:
            self.parts.append(torch.optim.Muon(matrices, adjust_lr_fn="match_rms_adamw"))
        if others:
            self.parts.append(torch.optim.AdamW(others, betas=betas))
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Let the parts work on this optimizer's own groups and state."""
        start = 0
        for part in self.parts:
            end = start + len(part.param_groups)
            part.param_groups, part.state = self.param_groups[start:end], self.state
            start = end

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As every optimizer's."""
        super().load_state_dict(state_dict)
        self._share()

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step of both; neither needs a ``closure``."""
        for part in self.parts:
            part.step(closure)


class LengthGroupedBatches(Sampler[int]):
    """
    An order in which neighbours have similar lengths, so that a batch pads little: blocks of 50
    batches are drawn at random and sorted inside.

    The same for every process and for the same ``seed`` and epoch; `set_epoch` changes it.
    """

    def __init__(self, lengths: Sequence[int], batch: int, seed: int) -> None:
        self.lengths = torch.as_tensor(list(lengths))
        self.batch, self.seed, self.epoch = batch, seed, 0

    def __len__(self) -> int:
        return len(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate's loader at the start of an epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1009 + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator)
        blocks = (
            chosen[torch.argsort(self.lengths[chosen], descending=True, stable=True)]
            for chosen in order.split(50 * self.batch)
        )
        batches = [batch for block in blocks for batch in block.split(self.batch)]
        # A short batch may only come last, or the ones after it would be shifted.
        full = [b for b in batches if len(b) == self.batch]
        shuffled = [full[i] for i in torch.randperm(len(full), generator=generator).tolist()]
        return iter(torch.cat([*shuffled, *batches[len(full) :]]).tolist())


class Shuffled(Sampler[int]):
    """A random order of ``count`` samples, another one in each epoch."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed, self.epoch = count, seed, 0

    def __len__(self) -> int:
        return self.count

    def set_epoch(self, epoch: int) -> None:
        """Change the order."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1009 + self.epoch)
        return iter(torch.randperm(self.count, generator=generator).tolist())


class WholeSteps(Sampler[int]):
    """
    The order of another sampler, filled up from its beginning to whole optimizer steps, so that a
    step takes the same samples on any number of processes.

    Args:
        order: with ``set_epoch``; the epoch follows from the step.
        samples: of an optimizer step, all processes together.
        step: optimizer steps so far.
        apart: add the number of samples to the indices with each epoch, by which a data set that
            draws something anew each time knows which time it is.
    """

    def __init__(
        self,
        order: "LengthGroupedBatches | Shuffled",
        samples: int,
        step: Callable[[], int],
        apart: bool,
    ) -> None:
        self.order, self.samples, self.step, self.apart = order, samples, step, apart

    def __len__(self) -> int:
        return math.ceil(len(self.order) / self.samples) * self.samples

    def __iter__(self) -> Iterator[int]:
        epoch, count = self.step() * self.samples // len(self), len(self.order)
        self.order.set_epoch(epoch)
        beyond = epoch * count if self.apart else 0
        return (k + beyond for k in islice(cycle(list(self.order)), len(self)))


class ThisRun(ProgressCallback):
    """A bar whose time left counts the steps of this run, not those that were resumed."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin where the run was left."""
        super().on_train_begin(args, state, control, **kwargs)
        if self.training_bar is not None:
            self.training_bar.initial = self.training_bar.n = state.global_step
            self.current_step = state.global_step


class FiniteWeights(TrainerCallback):
    """Looks at what learns after every step, so that no state is saved that is not finite."""

    def __init__(self, trainer: "NavigationTrainer") -> None:
        self.trainer = trainer

    @torch.no_grad()
    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """See the class. Raises NonFiniteError."""
        task = self.trainer.model
        assert isinstance(task, nn.Module)
        learns = [(n, p) for n, p in task.named_parameters() if p.requires_grad and p.numel()]
        if not learns or torch.stack([p.isfinite().all() for _, p in learns]).all():
            return
        name = next(n for n, p in learns if not p.isfinite().all())
        raise self.trainer.not_finite(f"the weight {name} is not finite any more")


class NavigationTrainer(Trainer):
    """transformers' Trainer for a task module; see `fit`."""

    def __init__(
        self,
        *args: Any,
        recipe: Recipe,
        lengths: Sequence[int] | None,
        further: Callable[[], Mapping[str, float]] | None,
        **kwargs: Any,
    ) -> None:
        self.recipe, self.lengths, self.further = recipe, lengths, further
        self.figures: dict[str, list[Tensor]] = {}
        super().__init__(*args, **kwargs)
        # the loss is a mean over the batch: the Trainer divides it by the accumulation
        self.model_accepts_loss_kwargs = False

    def run(self, state: str | None) -> None:
        """Train, from a state on. Raises InputError, with the step, about what the data hold."""
        try:
            self.train(resume_from_checkpoint=state)
        except InputError as error:
            # the loader hands on what its workers raised with their whole traceback
            sentence = str(error).rstrip().rpartition(f"{InputError.__name__}: ")[2]
            raise InputError(f"step {self.state.global_step + 1}: {sentence}") from error

    def create_optimizer(self, *_: Any, **__: Any) -> torch.optim.Optimizer:
        """AdamW or Muon over `parameter_groups`."""
        if self.optimizer is None:
            assert isinstance(self.model, nn.Module)
            groups, betas = parameter_groups(self.model, self.recipe), (0.9, self.recipe.beta2)
            self.optimizer = (
                MuonAndAdamW(groups, betas)
                if self.recipe.optimizer == "muon"
                else torch.optim.AdamW(groups, betas=betas)
            )
        return self.optimizer

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        recipe, data = self.recipe, self.train_dataset
        samples = recipe.batch * recipe.accumulate * self.args.world_size
        order = (
            Shuffled(len(data), recipe.seed)  # type: ignore[arg-type]
            if self.lengths is None
            else LengthGroupedBatches(self.lengths, samples, recipe.seed)
        )
        apart = getattr(data, "drawn_anew", False)
        return WholeSteps(order, samples, lambda: self.state.global_step, apart)

    def not_finite(self, what: str) -> NonFiniteError:
        """What to raise where a number of this step is not finite; ``what`` says which."""
        state = last_state(self.recipe.output)
        return NonFiniteError(
            f"step {self.state.global_step + 1}: {what}. Training ends here and no checkpoint was "
            f"written; the last good state is {state or 'the beginning'}. Try a lower "
            f"learning_rate (now {self.recipe.learning_rate:g}) or max_grad_norm (now "
            f"{self.recipe.max_grad_norm:g}) in another output=FOLDER"
        )

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        # Asked for after the gradients are complete and before they are applied.
        norm = super()._get_grad_norm(*args, **kwargs)
        if norm is not None and not math.isfinite(float(norm)):
            raise self.not_finite(f"the gradient's norm is {float(norm)}")
        return norm

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The task's loss; its other figures are kept for the log, as ``eval_`` in evaluation."""
        outputs = model(**inputs)
        if not torch.isfinite(outputs["loss"]).all():
            kind = "loss" if model.training else "loss in evaluation"
            raise self.not_finite(f"the {kind} is {float(outputs['loss'].detach())}")
        for name, value in outputs.items():
            if name != "loss":
                figure = name if model.training else f"eval_{name}"
                self.figures.setdefault(figure, []).append(value.detach().float())
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], *_: Any, **__: Any
    ) -> tuple[Tensor, None, None]:
        """The loss of one evaluation batch."""
        with torch.no_grad(), self.compute_loss_context_manager():
            loss = self.compute_loss(model, self._prepare_inputs(inputs))
        return loss.detach(), None, None

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Judge what would be written."""
        assert isinstance(self.model, nn.Module)
        with averaged(self.model):
            return super().evaluate(*args, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        # safetensors takes no two names for the same numbers, which tied weights have
        assert isinstance(self.model, nn.Module)
        places: dict[int, str] = {}
        kept = {
            name: value
            if places.setdefault(value.untyped_storage().data_ptr(), name) == name
            else value.clone()
            for name, value in (state_dict or self.model.state_dict()).items()
        }
        super()._save(output_dir, kept)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        before, step = last_state(self.recipe.output), self.state.global_step
        state = Path(self.recipe.output) / "state" / f"checkpoint-{step}"
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, SafetensorError, RuntimeError) as error:
            if type(error) is RuntimeError and "PytorchStreamWriter" not in str(error):
                raise
            shutil.rmtree(state, ignore_errors=True)
            reason = str(error).splitlines()[0]
            raise FailedError(
                f"the state of step {step} could not be written to {state.parent} ({reason}): "
                "make room, and give the same command again; it goes on from "
                f"{before or 'the beginning'}"
            ) from error

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add to what is logged the means of the task's figures and, in training, further ones."""
        evaluation = any(name.startswith("eval_") for name in logs)
        # Several sets are judged one after the other, each under a prefix of its own.
        loss = next((name for name in logs if name.endswith("_loss")), "eval_loss")
        for name in [name for name in self.figures if name.startswith("eval_") == evaluation]:
            values = torch.stack(self.figures.pop(name))
            if torch.isfinite(values).any():
                shown = name.replace("eval_", loss.removesuffix("loss"), 1) if evaluation else name
                logs[shown] = round(float(values[torch.isfinite(values)].mean()), 5)
        if "loss" in logs and self.further is not None:
            logs.update(self.further())
        super().log(logs, *args, **kwargs)


def arguments(recipe: Recipe) -> TrainingArguments:
    """The Trainer's arguments of a recipe, without warm-up."""
    return TrainingArguments(
        output_dir=str(Path(recipe.output) / "state"),
        per_device_train_batch_size=recipe.batch,
        per_device_eval_batch_size=recipe.batch,
        gradient_accumulation_steps=recipe.accumulate,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        num_train_epochs=recipe.epochs,
        max_steps=recipe.max_steps,
        lr_scheduler_type="constant_with_warmup"
        if recipe.schedule == "constant"
        else recipe.schedule,
        bf16=recipe.bf16,
        seed=recipe.seed,
        data_seed=recipe.seed,
        logging_steps=recipe.logging_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        save_steps=recipe.save_steps,
        save_total_limit=recipe.keep,
        eval_strategy="steps" if recipe.eval_steps else "no",
        eval_steps=recipe.eval_steps or None,
        dataloader_num_workers=recipe.workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        prediction_loss_only=True,
        report_to=["tensorboard"] if recipe.tensorboard else [],
        ddp_find_unused_parameters=False,
        label_names=[],
        deepspeed=recipe.deepspeed or None,
        use_cpu=not torch.cuda.is_available(),
        fsdp="full_shard auto_wrap" if recipe.fsdp else None,
        fsdp_config=recipe.fsdp or None,
    )


def last_logged(history: Sequence[dict[str, Any]], key: str) -> dict[str, Any]:
    """The last entry of a trainer's log that has ``key``; an empty one if there is none."""
    return next((entry for entry in reversed(history) if key in entry), {})


def fit(
    task: nn.Module,
    recipe: Recipe,
    train: Dataset[Any],
    evaluation: Dataset[Any] | dict[str, Dataset[Any]] | None,
    collate: Callable[[Sequence[Any]], dict[str, Any]],
    lengths: Sequence[int] | None,
    further: Callable[[], Mapping[str, float]] | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> NavigationTrainer:
    """
    Train ``task`` by ``recipe``, going on from the newest state in ``<output>/state`` if there is
    one; returns the trainer when done. The task ends with the running mean of its weights, if the
    recipe asks for one.

    Args:
        task: the module to train; parameters that do not require a gradient stay as they are.
        recipe: steps, rates, batch sizes, places.
        train, evaluation: data sets of samples for ``collate``; ``evaluation`` may be None, or
            several by name.
        collate: makes the keyword arguments of ``task.forward`` from a list of samples.
        lengths: a number for every training sample by which batches are grouped; None: plain
            shuffling.
        further: figures for the log, asked for whenever it is written.
        callbacks: told what the trainer does.
    """
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    if evaluation is None:
        recipe = dataclasses.replace(recipe, eval_steps=0)
    args = arguments(recipe)
    batch = recipe.batch * recipe.accumulate * args.world_size
    epoch = math.ceil(len(train) / batch)  # type: ignore[arg-type]
    steps = recipe.max_steps if recipe.max_steps > 0 else math.ceil(epoch * recipe.epochs)
    args = dataclasses.replace(args, warmup_steps=math.ceil(recipe.warmup_ratio * steps))
    trainer = NavigationTrainer(
        model=task,
        args=args,
        train_dataset=train,
        eval_dataset=evaluation,
        data_collator=collate,
        recipe=recipe,
        lengths=lengths,
        further=further,
        callbacks=[*follow(task, recipe.average), *callbacks],
    )
    if trainer.pop_callback(ProgressCallback):
        trainer.add_callback(ThisRun)
    trainer.add_callback(FiniteWeights(trainer))
    state = last_state(recipe.output)
    if state is not None and not (recipe.deepspeed or recipe.fsdp):
        check_weights(Path(state), task.state_dict())
        trainer.state = TrainerState.load_from_json(str(Path(state) / "trainer_state.json"))
        if trainer.state.global_step >= steps:  # the Trainer would make one step more
            task.load_state_dict(load_file(Path(state) / "model.safetensors"), strict=False)
            use_mean(task)
            return trainer
    trainer.run(state)
    use_mean(task)
    return trainer

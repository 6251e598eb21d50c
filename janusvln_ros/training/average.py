"""
The running mean of the weights over the steps of a training: what is judged, written, and drives.

At a constant rate the weights of single steps lie about their mean, by what the last batches were;
the mean is the better network, at any time and without a falling rate (Polyak and Juditsky 1992;
`docs/results.md` has what it is worth here).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerState, TrainingArguments


class RunningMean(nn.Module):
    """
    The mean of all weights of ``task`` that are trained, float32, as buffers: where it is a part
    of the task, training states hold it.

    Args:
        task: what is trained.
        decay: share of the old mean in the new one; less in the first steps, which all count
            alike.
    """

    def __init__(self, task: nn.Module, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.followed = [(name, p) for name, p in task.named_parameters() if p.requires_grad]
        for name, weight in self.followed:
            mean = nn.Buffer(weight.detach().to(torch.float32, copy=True))
            setattr(self, _buffer(name), mean)

    @torch.no_grad()
    def take_in(self, step: int) -> None:
        """Add the weights as they are after ``step``, from 1."""
        share = max(1 - self.decay, 1 / (1 + step))
        for name, weight in self.followed:
            getattr(self, _buffer(name)).lerp_(weight.float(), share)

    @torch.no_grad()
    def apply_to_task(self) -> None:
        """Give the task the mean as its weights."""
        for name, weight in self.followed:
            weight.copy_(getattr(self, _buffer(name)))


def _buffer(name: str) -> str:
    """A parameter's name without the dots that a buffer's may not have."""
    return name.replace(".", "/")


def follow(task: nn.Module, decay: float) -> list[TrainerCallback]:
    """Let ``task`` have a running mean, and return what keeps it; nothing where ``decay`` is 0."""
    if not decay:
        return []
    task.running_mean = RunningMean(task, decay)
    return [_TakeIn()]


class _TakeIn(TrainerCallback):
    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any
    ) -> None:
        """Take in the weights of a step."""
        kwargs["model"].running_mean.take_in(state.global_step)


def use_mean(task: nn.Module) -> None:
    """Give ``task`` its running mean as its weights for good, if it has one."""
    mean: RunningMean | None = getattr(task, "running_mean", None)
    if mean is not None:
        mean.apply_to_task()


@contextmanager
def averaged(task: nn.Module) -> Iterator[None]:
    """``task`` has its running mean as its weights while the block runs, if it has one."""
    mean: RunningMean | None = getattr(task, "running_mean", None)
    followed = mean.followed if mean is not None else []
    kept = [weight.detach().clone() for _, weight in followed]
    use_mean(task)
    try:
        yield
    finally:
        with torch.no_grad():
            for (_, weight), value in zip(followed, kept):
                weight.copy_(value)

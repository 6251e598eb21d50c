"""
Training in the released mode: one sample is one step, its history pictures read anew, as the
published code trains; and the published files of such samples.

The counterpart with the semantic memory, a whole episode in one pass, is
`janusvln_ros.training.dual`.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from janusvln_ros.actions import Action
from janusvln_ros.data.samples import FrameSamples, targets_of
from janusvln_ros.data.trajectories import Trajectory
from janusvln_ros.errors import require
from janusvln_ros.files import atomic_path
from janusvln_ros.model import JanusVLN
from janusvln_ros.model.network import MERGE, prompt_positions
from janusvln_ros.policy.preprocess import GROUP, pixel_rows
from janusvln_ros.policy.prompt import (
    released_prompt_ids,
    sample_history,
    training_question,
    training_sample,
)
from janusvln_ros.training.cache import read_pictures
from janusvln_ros.training.encoders import images_of
from janusvln_ros.training.episode import IGNORED

NUM_HISTORY = 8
"""Pictures before the current one in a published sample."""


def published_samples(
    trajectory: Trajectory, root: str | Path, *, strip: bool
) -> Iterator[dict[str, Any]]:
    """
    The published training samples of a trajectory, one per frame (``{"id", "conversations",
    "images"}``).

    Args:
        trajectory: frames, instruction and actions.
        root: picture paths are written relative to it.
        strip: whether white space around the instruction is dropped: so for R2R and RxR, not for
            ScaleVLN and DAgger.
    """
    names = [os.path.relpath(frame, root) for frame in trajectory.frames]
    instruction = trajectory.instruction.strip() if strip else trajectory.instruction
    for i, action in enumerate(targets_of(trajectory)):
        shown = sample_history(i + 1, NUM_HISTORY)
        yield {
            "id": f"{trajectory.id}/{Path(names[i]).name}",
            "conversations": [
                {"from": "human", "value": training_question(instruction, len(shown))},
                {"from": "gpt", "value": action.name},
            ],
            "images": [names[j] for j in shown],
        }


def write_published(samples: Iterable[dict[str, Any]], path: str | Path) -> int:
    """
    Write ``samples`` as the one JSON list that the published trainer reads, without holding it in
    memory; returns how many.
    """
    count = 0
    with atomic_path(path) as temporary, open(temporary, "w") as file:
        file.write("[")
        for count, sample in enumerate(samples, start=1):
            file.write((",\n" if count > 1 else "\n") + json.dumps(sample, ensure_ascii=False))
        file.write("\n]\n")
    return count


class Samples(Dataset[dict[str, Any]]):
    """
    Published samples for `ReleasedTask`: the pictures of history and current frame, the
    instruction, and the action.
    """

    def __init__(self, samples: FrameSamples, image_width: int, num_history: int) -> None:
        self.samples, self.width, self.num_history = samples, image_width, num_history

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def lengths(self) -> list[int]:
        """Pictures of every sample."""
        return self.samples.image_counts(self.num_history).tolist()

    def __getitem__(self, k: int) -> dict[str, Any]:
        item, frame = self.samples[k]
        shown = sample_history(frame + 1, self.num_history)
        return {
            "frames": read_pictures([item.frames[i] for i in shown], self.width),
            "instruction": item.instruction,
            "action": int(item.targets[frame]),
        }


def sample_logits(
    model: JanusVLN, images_F3hw: Tensor, pixel_rows: Tensor, ids_L: Tensor, labels_L: Tensor
) -> Tensor:
    """
    Scores of the supervised tokens of one sample.

    Args:
        model: gradients reach what is trainable; the spatial encoder never.
        images_F3hw: float32 RGB in [0, 1], history pictures, the current one last; the spatial
            encoder streams them from an empty memory.
        pixel_rows: float32 [F * r * c, 1176], the same pictures for the vision tower.
        ids_L: prompt and answer (`janusvln_ros.policy.prompt.training_sample`).
        labels_L: the ids where they are supervised, -100 elsewhere.

    Returns:
        [A, V]: row i scores the i-th supervised token, given all tokens before it. Only these rows
        go through ``lm_head``.

    Raises:
        InputError: the pictures do not fill the prompt's placeholders, or nothing is supervised.
    """
    frames, _, height, width = images_F3hw.shape
    rows, columns = height // GROUP, width // GROUP
    places = int((ids_L == model.config.image_token_id).sum())
    require(
        places == frames * rows * columns and len(pixel_rows) == places * MERGE * MERGE,
        f"the prompt has {places} image tokens, {frames} pictures of {width}x{height} pixels have "
        f"{frames * rows * columns}: make both from the same sample",
    )
    supervised = (labels_L[1:] != IGNORED).nonzero()[:, 0]
    require(len(supervised), "the sample has no supervised token: its labels are all -100")

    with torch.no_grad():  # frozen as published; only the current frame's geometry is used
        spatial_PD = model.spatial(images_F3hw[None])[0, -1]
    grid_F3 = torch.tensor([[1, rows * MERGE, columns * MERGE]]).expand(frames, -1)
    vision_FMD = model.encode_vision(pixel_rows, grid_F3).unflatten(0, (frames, -1))
    fused_FMD = model.fuse(vision_FMD, model.geometry(spatial_PD, height, width))
    positions_3L, _ = prompt_positions(ids_L.tolist(), model.config.image_token_id, rows, columns)
    embeds_LD = model.embed(ids_L, fused_FMD.flatten(0, 1))
    hidden_LD = model.read(embeds_LD, positions_3L.to(ids_L.device))
    return model.lm_head(hidden_LD[supervised])


def sample_loss(logits_AV: Tensor, labels_L: Tensor) -> Tensor:
    """Cross entropy, averaged over the A supervised tokens of one sample; a scalar."""
    labels_L = labels_L[1:]
    return cross_entropy(logits_AV.float(), labels_L[labels_L != IGNORED])


class ReleasedTask(nn.Module):
    """
    The network with the published loss: cross entropy, mean over the supervised tokens of a
    sample, then over samples.

    All pictures go through the vision tower, the spatial encoder sees them one after the other
    from an empty memory that forgets nothing, and the geometry of the last one is added to every
    picture, as in the published training.
    """

    def __init__(
        self, model: JanusVLN, tokenizer: PreTrainedTokenizerBase, prompt: str = "training"
    ) -> None:
        super().__init__()
        self.model, self.tokenizer, self.prompt = model, tokenizer, prompt

    def ids_and_labels(
        self, instruction: str, images: int, tokens_per_image: int, action: Action
    ) -> tuple[list[int], list[int]]:
        """
        Ids and labels of a sample: the published ones, or the same answer behind the prompt that
        evaluation uses.
        """
        if self.prompt == "training":
            return training_sample(self.tokenizer, instruction, images, tokens_per_image, action)
        question = released_prompt_ids(
            self.tokenizer, instruction, images, tokens_per_image, "evaluation"
        )
        answer = self.tokenizer.encode(f"{action.name}<|im_end|>\n", add_special_tokens=False)
        return question + answer, [IGNORED] * len(question) + answer

    def sample(
        self, frames: np.ndarray, instruction: str, action: Action
    ) -> tuple[Tensor, Tensor]:
        """
        Scores [A, V] of the supervised tokens of one sample, and its labels [L]; ``frames`` uint8
        [F, h, w, 3], resized.
        """
        device = self.model.device
        pixels = torch.from_numpy(np.concatenate([pixel_rows(frame)[0] for frame in frames]))
        tokens_per_image = len(pixels) // len(frames) // MERGE**2
        ids, labels = (
            torch.tensor(values, device=device)
            for values in self.ids_and_labels(instruction, len(frames), tokens_per_image, action)
        )
        images = images_of(frames).to(device)
        return sample_logits(self.model, images, pixels.to(device), ids, labels), labels

    def forward(
        self, frames: Sequence[Tensor], instructions: Sequence[str], actions: Sequence[int]
    ) -> dict[str, Tensor]:
        """``loss`` and ``accuracy`` (share of samples whose every token is right)."""
        losses, right = [], []
        for pictures, text, action in zip(frames, instructions, actions):
            logits, labels = self.sample(pictures.cpu().numpy(), text, Action(int(action)))
            losses.append(sample_loss(logits, labels))
            right.append((logits.argmax(-1) == labels[labels != IGNORED]).all().float())
        return {"loss": torch.stack(losses).mean(), "accuracy": torch.stack(right).mean()}


def collate_samples(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Lists, since samples have different numbers of pictures."""
    return {
        "frames": [torch.from_numpy(item["frames"]) for item in items],
        "instructions": [item["instruction"] for item in items],
        "actions": [item["action"] for item in items],
    }

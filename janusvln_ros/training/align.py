"""
Teaching the mergers to speak the language model's words, before it reads them: a picture's token
should lie near the words for what it shows.

A large network gets this from its own pretraining on pictures with text. Here the views of
generated homes (`janusvln_ros.rollout.views`) tell what every patch shows; both mergers and the
word embeddings learn that a fused token points in the direction of its words: " red" and " lamp",
or " red" and " room". An instruction and a picture then meet in one space, and attention between
them has something to find. No action and no instruction is seen.

With a *teacher* (a checkpoint that drives, whose encoders saw less), the mergers of new encoders
also learn to say what its own say of the same picture, so that its language model goes on with
better eyes and has not to learn driving anew.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import StackDataset, default_collate
from transformers import PreTrainedTokenizerBase

from janusvln_ros.errors import require
from janusvln_ros.model import JanusVLN
from janusvln_ros.model.network import MERGE
from janusvln_ros.training.encoders import (
    Views,
    fused_tokens,
    images_of,
    merge_order,
    vision_patches,
)

NOTHING = "<|vision_pad|>"
"""Stands for what has no word: floors, ceilings, frames of doors."""


def word_of(name: str) -> str:
    """The word for what a share is called, as in ``what:lamp`` and ``colour:wall red``."""
    group, _, rest = name.partition(":")
    if rest in ("other", "floor", "ceiling", "none"):
        return NOTHING
    return " room" if (group, rest) == ("what", "wall") else f" {rest.split()[-1]}"


def words_of(
    names: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> tuple[list[int], np.ndarray]:
    """
    Token ids of the words for what shares are called, and float32 [K, W]: how much of each share
    goes to each word.

    Raises:
        InputError: a word is not one token of the tokenizer.
    """
    named = list(map(word_of, names))
    words = list(dict.fromkeys([NOTHING, *named]))
    ids = [tokenizer.encode(word, add_special_tokens=False) for word in words]
    long = [word for word, i in zip(words, ids) if len(i) != 1]
    require(
        not long,
        f"the tokenizer has no single token for {long}: train it on instructions "
        "that say these words",
    )
    table = np.eye(len(words), dtype=np.float32)[[words.index(word) for word in named]]
    return [i[0] for i in ids], table


WORDS_BESIDE_TEACHER = 0.1
"""Weight of the words beside a teacher: they add what it does not say, and do not outvote it."""


def view_tokens(
    views: Views, model: JanusVLN, table: np.ndarray, walks: int, teacher: JanusVLN | None = None
) -> StackDataset[dict[str, Any]]:
    """
    What the frozen encoders make of single frames of ``views``, and the words each fused token
    should be near: samples of ``vision``, ``spatial`` and ``targets``, and of ``taught``, the
    teacher's fused tokens, where there is one.

    Args:
        views: of homes.
        model: its encoders are run once, over whole walks.
        table: from `words_of`.
        walks: at most so many walks are used.
        teacher: with encoders and mergers of its own.
    """
    parts: list[dict[str, Tensor]] = []
    with torch.no_grad():
        for walk in range(min(walks, len(views.frames))):
            frames = np.asarray(views.frames[walk])
            vision, spatial = encoded(model, frames)
            shares = merge_order(np.asarray(views.shares[walk])).astype(np.float32)
            merged = shares.reshape(len(frames), -1, MERGE**2, shares.shape[-1]).mean(axis=2)
            words = merged @ table
            part = {
                "vision": vision.half().cpu(),
                "spatial": spatial.half().cpu(),
                "targets": torch.from_numpy(words / words.sum(-1, keepdims=True)),
            }
            if teacher is not None:
                grid = views.depth.shape[2:]
                taught = fused_tokens(teacher, *encoded(teacher, frames), grid)
                part["taught"] = taught.half().cpu()
            parts.append(part)
    columns: Any = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return StackDataset(**columns)


def encoded(model: JanusVLN, frames: np.ndarray) -> tuple[Tensor, Tensor]:
    """What both encoders make of consecutive pictures: vision patches, and spatial tokens."""
    special = model.config.spatial.num_special_tokens
    tokens = model.spatial(images_of(frames)[None].to(model.device))
    return vision_patches(model, frames), tokens[0, :, special:]


def collate_tokens(items: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """Stack samples into float32 tensors."""
    return {name: value.float() for name, value in default_collate(list(items)).items()}


class AlignTask(nn.Module):
    """
    The mergers and the word embeddings with the loss that brings them together; ``forward`` takes
    a batch of `collate_tokens`.
    """

    def __init__(self, model: JanusVLN, word_ids: Sequence[int], grid: tuple[int, int]) -> None:
        super().__init__()
        self.model, self.grid = model, grid
        self.words = nn.Buffer(torch.tensor(list(word_ids)), persistent=False)
        self.scale = nn.Parameter(torch.tensor(10.0))
        model.requires_grad_(False)
        for part in (model.vision.merger, model.fusion, model.language.embed_tokens):
            part.requires_grad_(True)

    def forward(
        self, vision: Tensor, spatial: Tensor, targets: Tensor, taught: Tensor | None = None
    ) -> dict[str, Tensor]:
        """
        ``loss``: cross entropy between the words of a token and the angles to all words;
        ``right``: how often the nearest word is the largest share. With a teacher also
        ``missed``: the share of the variance of its tokens that these are off by.
        """
        model = self.model
        tokens = fused_tokens(model, vision, spatial, self.grid).float()
        logits = (
            self.scale
            * F.normalize(tokens, dim=-1)
            @ F.normalize(model.language.embed_tokens(self.words).float(), dim=-1).T
        )
        loss = -(targets * F.log_softmax(logits, -1)).sum(-1).mean()
        right = (
            targets.gather(-1, logits.argmax(-1, keepdim=True))
            >= targets.max(-1, keepdim=True).values - 1e-6
        )
        out = {"loss": loss, "right": right.float().mean()}
        if taught is not None:
            out["missed"] = F.mse_loss(tokens, taught) / taught.var()
            out["loss"] = out["missed"] + WORDS_BESIDE_TEACHER * loss
        return out

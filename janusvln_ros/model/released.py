"""
Training in the released mode: one sample is one step, its history pictures read anew, as the
published code trains.

The dual mode's counterpart, a whole episode in one pass, is
`janusvln_ros.model.dual.episode_pass`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from janusvln_ros.errors import InputError
from janusvln_ros.model.janusvln import MERGE, JanusVLN, prompt_positions
from janusvln_ros.model.spatial import PATCH

IGNORED = -100
"""Label of what is not supervised."""


def freeze_as_published(model: JanusVLN) -> None:
    """
    Leave trainable what the published training trains: the language model with its head, and both
    mergers.
    """
    model.requires_grad_(False)
    for part in (model.language, model.lm_head, model.vision.merger, model.fusion):
        part.requires_grad_(True)


def sample_logits(
    model: JanusVLN, images_k3HW: Tensor, pixel_rows: Tensor, ids_L: Tensor, labels_L: Tensor
) -> Tensor:
    """
    Scores of the supervised tokens of one sample.

    Args:
        model: gradients reach what `freeze_as_published` left trainable; the spatial encoder
            never.
        images_k3HW: float32 RGB in [0, 1], history pictures, the current one last; the spatial
            encoder streams them from an empty memory.
        pixel_rows: float32 [k * gh * gw, 1176], the same pictures for the vision tower.
        ids_L: prompt and answer (`janusvln_ros.policy.prompt.training_sample`).
        labels_L: the ids where they are supervised, -100 elsewhere.

    Returns:
        [supervised, V]: row i scores the i-th supervised token, given all tokens before it. Only
        these rows go through ``lm_head``.

    Raises:
        InputError: the pictures do not fill the prompt's placeholders, or nothing is supervised.
    """
    k, _, height, width = images_k3HW.shape
    rows, columns = height // PATCH // MERGE, width // PATCH // MERGE
    places = int((ids_L == model.config.image_token_id).sum())
    if places != k * rows * columns or len(pixel_rows) != places * MERGE * MERGE:
        have = f"{k} pictures of {width}x{height} pixels have {k * rows * columns}"
        raise InputError(
            f"the prompt has {places} image tokens, {have}: make both from the same sample"
        )
    supervised = (labels_L[1:] != IGNORED).nonzero()[:, 0]
    if not len(supervised):
        raise InputError("the sample has no supervised token: its labels are all -100")

    with torch.no_grad():  # frozen as published; only the current frame's geometry is used
        spatial_PC = model.spatial(images_k3HW[None])[0, -1]
    grid_k3 = torch.tensor([[1, rows * MERGE, columns * MERGE]]).expand(k, -1)
    vision_knD = model.encode_vision(pixel_rows, grid_k3).unflatten(0, (k, -1))
    fused_knD = model.fuse(vision_knD, model.geometry(spatial_PC, height, width))
    positions_3L, _ = prompt_positions(ids_L.tolist(), model.config.image_token_id, rows, columns)
    hidden_LD = model.read(
        model.embed(ids_L, fused_knD.flatten(0, 1)), positions_3L.to(ids_L.device)
    )
    return model.lm_head(hidden_LD[supervised])


def sample_loss(logits_SV: Tensor, labels_L: Tensor) -> Tensor:
    """Cross entropy, averaged over the supervised tokens of one sample; a scalar."""
    labels_S = labels_L[1:]
    return F.cross_entropy(logits_SV.float(), labels_S[labels_S != IGNORED])

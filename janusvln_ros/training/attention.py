"""
Attention over an episode in training, a few rows of queries at a time, with only the keys that
some of them see.

On a CPU a dense mask costs the full square. Here keys of later frames, of forgotten frames and of
other steps' questions are left out, which is more than half of them. Scores and shares are written
out, since torch's fused kernel takes twice as long backwards in bfloat16. The result is the same.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

EPISODE_ATTENTION = "janusvln_episode"
"""
Name under which `episode_attention` is known to transformers; set it with
``language_model.set_attn_implementation``.
"""

QUERY_ROWS = 96
"""Rows of queries of one piece."""


def episode_attention(
    module: nn.Module,
    query_BHRD: Tensor,
    key_BKND: Tensor,
    value_BKND: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """
    Attention function for transformers: R rows that see what ``attention_mask`` (numbers to add,
    [B, 1, R, N], -inf for what is hidden) allows of N keys.

    Returns:
        [B, R, H, D] and None (no attention weights).

    Raises:
        ValueError: there is no mask of that shape.
    """
    if attention_mask is None or attention_mask.shape[-2:] != (
        query_BHRD.shape[2],
        key_BKND.shape[2],
    ):
        raise ValueError("episode attention needs the mask of a whole episode")
    groups = query_BHRD.shape[1] // key_BKND.shape[1]
    # Rows of the heads that share keys and values lie side by side, so that these need not be
    # copied.
    query_BKGRD = (
        query_BHRD * (query_BHRD.shape[-1] ** -0.5 if scaling is None else scaling)
    ).unflatten(1, (-1, groups))
    outputs = []
    for start, end, columns, mask_B11SN in _pieces(attention_mask):
        k_BKND, v_BKND = key_BKND.index_select(2, columns), value_BKND.index_select(2, columns)
        query_BKSD = query_BKGRD[:, :, :, start:end].flatten(2, 3)
        scores_BKGSN = (query_BKSD @ k_BKND.transpose(-1, -2)).unflatten(
            2, (groups, -1)
        ) + mask_B11SN
        shares_BKSN = (
            scores_BKGSN.softmax(-1, dtype=torch.float32).to(value_BKND.dtype).flatten(2, 3)
        )
        outputs.append((shares_BKSN @ v_BKND).unflatten(2, (groups, -1)))
    return torch.cat(outputs, dim=3).flatten(1, 2).transpose(1, 2), None


def _pieces(mask_B1RN: Tensor) -> list[tuple[int, int, Tensor, Tensor]]:
    """
    First and last + 1 row, seen columns [N] and their mask [B, 1, 1, S, N] of each piece; worked
    out once for all layers, which are given the same mask.
    """
    known: list[tuple[int, int, Tensor, Tensor]] | None = getattr(mask_B1RN, "_pieces", None)
    if known is None:
        known = []
        R = mask_B1RN.shape[2]
        for start in range(0, R, QUERY_ROWS):
            end = min(start + QUERY_ROWS, R)
            rows = mask_B1RN[:, :, start:end]
            columns = (rows > float("-inf")).flatten(0, 2).any(dim=0).nonzero()[:, 0]
            known.append((start, end, columns, rows.index_select(3, columns)[:, :, None]))
        mask_B1RN._pieces = known  # type: ignore[attr-defined]
    return known


AttentionInterface.register(EPISODE_ATTENTION, episode_attention)

"""Attention over an episode in training, a few rows of queries at a time, with only the keys that some of them see.

On a CPU a dense mask costs the full square. Here keys of later frames, of forgotten frames and of other steps' questions are left out, which is more
than half of them. The result is the same.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

EPISODE_ATTENTION = "janusvln_episode"
"""Name under which `episode_attention` is known to transformers; set it with ``language_model.set_attn_implementation``."""

QUERY_ROWS = 192
"""Rows of queries of one call."""


def episode_attention(
    module: nn.Module, query_BHRD: Tensor, key_BKRD: Tensor, value_BKRD: Tensor, attention_mask: Tensor | None, scaling: float | None = None, **_: Any
) -> tuple[Tensor, None]:
    """Attention function for transformers: R rows that see what ``attention_mask`` (numbers to add, [B, 1, R, R], -inf for what is hidden) allows.

    Returns:
        [B, R, H, D] and None (no attention weights).

    Raises:
        ValueError: there is no mask of that shape.
    """
    R = query_BHRD.shape[2]
    if attention_mask is None or attention_mask.shape[-2:] != (R, R) or key_BKRD.shape[2] != R:
        raise ValueError("episode attention needs the mask of a whole episode")
    groups = query_BHRD.shape[1] // key_BKRD.shape[1]
    key, value = (t.repeat_interleave(groups, dim=1) if groups > 1 else t for t in (key_BKRD, value_BKRD))
    outputs = []
    for start, end, columns, mask in _pieces(attention_mask):
        k, v = key.index_select(2, columns), value.index_select(2, columns)
        outputs.append(F.scaled_dot_product_attention(query_BHRD[:, :, start:end], k, v, attn_mask=mask, scale=scaling))
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def _pieces(mask_B1RR: Tensor) -> list[tuple[int, int, Tensor, Tensor]]:
    """First and last + 1 row, seen columns [N] and their mask of each piece; worked out once for all layers, which are given the same mask."""
    known: list[tuple[int, int, Tensor, Tensor]] | None = getattr(mask_B1RR, "_pieces", None)
    if known is None:
        known = []
        R = mask_B1RR.shape[2]
        for start in range(0, R, QUERY_ROWS):
            end = min(start + QUERY_ROWS, R)
            rows = mask_B1RR[:, :, start:end]
            columns = (rows > float("-inf")).flatten(0, 2).any(dim=0).nonzero()[:, 0]
            known.append((start, end, columns, rows.index_select(3, columns)))
        mask_B1RR._pieces = known  # type: ignore[attr-defined]
    return known


AttentionInterface.register(EPISODE_ATTENTION, episode_attention)

"""
Attention of the language model to a memory: few rows of queries, many remembered keys, grouped
heads.

transformers' own SDPA path copies every remembered key and value once per query head when it is
given a mask. Here the query heads of a group are laid under one another instead, so that the
memory is read where it lies.

Shape letters here: N query heads, G key-value heads (N a multiple of G), L rows of queries, K
keys, H head size.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.bias import causal_lower_right
from transformers import AttentionInterface, Qwen2_5_VLTextModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

MEMORY_ATTENTION = "janusvln_memory"
"""Name under which `memory_attention` is known to transformers; see `use_memory_attention`."""


def use_memory_attention(language: Qwen2_5_VLTextModel) -> None:
    """Let a language model attend by `memory_attention`; nothing if it does already."""
    if language.config._attn_implementation != MEMORY_ATTENTION:
        language.set_attn_implementation(MEMORY_ATTENTION)


def additive_mask(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Numbers to add to the scores: 0 where ``visible`` (bool, any shape), else -inf."""
    bias = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return bias.masked_fill_(~visible, float("-inf"))


def group_mask(visible_LK: Tensor, groups: int, dtype: torch.dtype) -> Tensor:
    """
    A mask for `memory_attention`: bool [L, K] -> numbers to add to the scores, [1, 1, groups * L,
    K] for ``groups`` query heads to a key-value head.

    Such a mask can be used for all layers of a step, and again while L and K stay the same.
    """
    return additive_mask(visible_LK, dtype).repeat(groups, 1)[None, None]


def tree_mask(parents: Sequence[int]) -> Tensor:
    """
    Which tokens of a tree see which, bool [T, T]: each sees itself and those it follows.

    Token i follows token ``parents[i]``, which stands before it; -1: none of the tree.
    """
    visible_TT = torch.eye(len(parents), dtype=torch.bool)
    for i, parent in enumerate(parents):
        if parent >= 0:
            visible_TT[i] |= visible_TT[parent]
    return visible_TT


def memory_attention(
    module: nn.Module,
    query_BNLH: Tensor,
    key_BGKH: Tensor,
    value_BGKH: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """
    Attention function for transformers: [B, N, L, H] queries on [B, G, K, H] keys.

    With a mask from `group_mask` the heads of a group are rows of one call. Without a mask the L
    queries are the last L of the K keys and see what lies before them (lower-right causal; on a
    GPU FlashAttention, keys not copied). Anything else is left to transformers.

    Returns:
        [B, L, N, H] and None (no attention weights).
    """
    B, N, L, _ = query_BNLH.shape
    G, K = key_BGKH.shape[1:3]
    rows = N // G * L
    if attention_mask is not None and B == 1 and N > G and attention_mask.shape[2] == rows:
        out_BGRH = F.scaled_dot_product_attention(
            query_BNLH.reshape(B, G, rows, -1),
            key_BGKH,
            value_BGKH,
            attn_mask=attention_mask,
            scale=scaling,
        )
        return out_BGRH.reshape(query_BNLH.shape).transpose(1, 2), None
    if attention_mask is None and K > L > 1 and query_BNLH.device.type == "cpu":
        # Without a mask a CPU's kernel leaves out what lies behind a row, but counts rows from the
        # first key: empty queries stand for the keys before.
        square_BNKH = F.pad(query_BNLH, (0, 0, K - L, 0))
        out_BNKH = F.scaled_dot_product_attention(
            square_BNKH, key_BGKH, value_BGKH, is_causal=True, scale=scaling, enable_gqa=N > G
        )
        return out_BNKH[:, :, K - L :].transpose(1, 2), None
    if attention_mask is None and K > L > 1:
        out_BNLH = F.scaled_dot_product_attention(
            query_BNLH,
            key_BGKH,
            value_BGKH,
            attn_mask=causal_lower_right(L, K),
            scale=scaling,
            enable_gqa=N > G,
        )
        return out_BNLH.transpose(1, 2), None
    out_BLNH, _ = sdpa_attention_forward(
        module, query_BNLH, key_BGKH, value_BGKH, attention_mask, scaling=scaling, **kwargs
    )
    return out_BLNH, None


AttentionInterface.register(MEMORY_ATTENTION, memory_attention)

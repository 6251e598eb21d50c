"""
Attention of the language model to a memory: few rows of queries, many remembered keys, grouped
heads.

transformers' own SDPA path copies every remembered key and value once per query head when it is
given a mask. Here the query heads of a group are laid under one another instead, so that the
memory is read where it lies.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.bias import causal_lower_right
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

MEMORY_ATTENTION = "janusvln_memory"
"""
Name under which `memory_attention` is known to transformers; set it with
``language_model.set_attn_implementation``.
"""


def group_mask(visible_SN: Tensor, groups: int, dtype: torch.dtype) -> Tensor:
    """
    A mask for `memory_attention`: bool [S, N] -> numbers to add to the scores, [1, 1, groups * S,
    N].

    Such a mask can be used for all layers of a step, and again while S and N stay the same.
    """
    bias_SN = torch.zeros(visible_SN.shape, dtype=dtype, device=visible_SN.device).masked_fill_(
        ~visible_SN, float("-inf")
    )
    return bias_SN.repeat(groups, 1)[None, None]


def memory_attention(
    module: nn.Module,
    query_BHSD: Tensor,
    key_BKND: Tensor,
    value_BKND: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """
    Attention function for transformers: [B, H, S, D] queries on [B, K, N, D] keys, H a multiple of
    K.

    With a mask from `group_mask` the heads of a group are rows of one call. Without a mask the S
    queries are the last S of the N keys and see what lies before them (lower-right causal; on a
    GPU FlashAttention, keys not copied). Anything else is left to transformers.

    Returns:
        [B, S, H, D] and None (no attention weights).
    """
    B, H, S, D = query_BHSD.shape
    K, N = key_BKND.shape[1:3]
    groups = H // K
    if (
        attention_mask is not None
        and B == 1
        and groups > 1
        and attention_mask.shape[2] == groups * S
    ):
        rows = query_BHSD.reshape(B, K, groups * S, D)
        out = F.scaled_dot_product_attention(
            rows, key_BKND, value_BKND, attn_mask=attention_mask, scale=scaling
        )
        return out.reshape(B, H, S, D).transpose(1, 2), None
    if attention_mask is None and N > S > 1:
        out = F.scaled_dot_product_attention(
            query_BHSD,
            key_BKND,
            value_BKND,
            attn_mask=causal_lower_right(S, N),
            scale=scaling,
            enable_gqa=groups > 1,
        )
        return out.transpose(1, 2), None
    out, _ = sdpa_attention_forward(
        module, query_BHSD, key_BKND, value_BKND, attention_mask, scaling=scaling, **kwargs
    )
    return out, None


AttentionInterface.register(MEMORY_ATTENTION, memory_attention)

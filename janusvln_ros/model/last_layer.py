"""
The language model's last layer for a few rows: all others are only looked at there, so they need
keys and values and nothing else.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import Qwen2_5_VLTextModel
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb


class _Known(NamedTuple):
    """
    What is attended to, in the place of a cache: keys and values [B, K, N, D] that are there
    already.
    """

    key: Tensor
    value: Tensor

    def update(self, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Called by the layer, whose own few keys are among the known ones."""
        return self.key, self.value


def last_layer(
    language: Qwen2_5_VLTextModel,
    x_BRC: Tensor,
    rotation: tuple[Tensor, Tensor],
    rows: Tensor,
    mask_B1SN: Tensor | None,
    cache: Any = None,
) -> Tensor:
    """
    Final hidden states [B, S, C], after the norm, of the S ``rows`` of what enters the last layer.

    Args:
        language: transformers' text model.
        x_BRC: output of the layer before, all rows.
        rotation: cosine and sine [B, R, D] of all rows, as the model's ``rotary_emb`` gives them.
        rows: int64 [S], those that are wanted.
        mask_B1SN: what each of them sees of the N keys, in the form that the model's attention
            takes.
        cache: holds the keys before these rows and takes theirs (``update``); None: there are none
            before.
    """
    layer: Any = language.layers[-1]  # its parts' types are torch's Module
    attention, normed_BRC = layer.self_attn, layer.input_layernorm(x_BRC)
    k_BKRD, v_BKRD = (
        project(normed_BRC).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
        for project in (attention.k_proj, attention.v_proj)
    )
    k_BKRD, _ = apply_rotary_pos_emb(k_BKRD, k_BKRD, *rotation)
    known = _Known(
        *(
            cache.update(k_BKRD, v_BKRD, attention.layer_idx)
            if cache is not None
            else (k_BKRD, v_BKRD)
        )
    )
    cosine, sine = (angle.index_select(1, rows) for angle in rotation)
    x_BSC: Tensor = layer(
        torch.index_select(x_BRC, 1, rows),
        attention_mask=mask_B1SN,
        position_embeddings=(cosine, sine),
        past_key_values=known,
    )
    return language.norm(x_BSC)

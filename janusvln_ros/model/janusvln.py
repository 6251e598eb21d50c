"""
JanusVLN (arXiv 2509.22548): what the robot sees, and where things are, in one sequence of tokens.

::

    frame ──▶ vision (Qwen2.5-VL's tower)   ──▶ what is there ─┐
      └─────▶ spatial (VGGT, with a memory) ──▶ where it is ───┴─▶ fusion ──▶ language ──▶ action
    instruction ──────────────────────────────────────────────────────────────▲

The vision tower and the language model are transformers' own classes, composed here. The spatial
encoder and its memory are in `janusvln_ros.model.spatial` and `janusvln_ros.model.memory`, the
semantic memory in `janusvln_ros.model.dual`, names and files of checkpoints in
`janusvln_ros.model.checkpoint`.

Shape letters: k images of n merged tokens (2 x 2 patches) each, L tokens of a prompt, D the
language model's width, V its vocabulary.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen2_5_VLTextModel
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionTransformerPretrainedModel,
    Qwen2_5_VLRMSNorm,
)
from transformers.vision_utils import (
    get_vision_cu_seqlens,
    get_vision_position_ids,
    get_vision_window_index,
)

from janusvln_ros.model.attention import MEMORY_ATTENTION
from janusvln_ros.model.config import JanusVLNConfig
from janusvln_ros.model.last_layer import last_layer
from janusvln_ros.model.spatial import PATCH, SpatialEncoder

MERGE = 2
"""Patches per side of a merge group: 2 x 2 patches become one token of the language model."""


class SpatialMerger(nn.Module):
    """
    The fusion's only parameters: four neighbouring spatial tokens become one token of the language
    model's width (keys ``merger.*``).
    """

    def __init__(self, config: JanusVLNConfig) -> None:
        super().__init__()
        channels, hidden = 2 * config.spatial.embed_dim, config.vggt_merger_hidden_dim
        self.ln_q = Qwen2_5_VLRMSNorm(channels, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(MERGE * MERGE * channels, hidden),
            nn.GELU(),
            nn.Linear(hidden, config.text.hidden_size),
        )

    def forward(self, patches_XhwC: Tensor) -> Tensor:
        """
        Grids of patch tokens [..., h, w, 2C] -> [..., n, D], merge groups row by row; an odd last
        row or column is left out.
        """
        *_, h, w, _ = patches_XhwC.shape
        x = patches_XhwC[..., : h // MERGE * MERGE, : w // MERGE * MERGE, :].to(
            self.ln_q.weight.dtype
        )
        groups_XnC4 = (
            self.ln_q(x)
            .unflatten(-2, (-1, MERGE))
            .unflatten(-4, (-1, MERGE))
            .transpose(-4, -3)
            .flatten(-3)
            .flatten(-3, -2)
        )
        return self.mlp(groups_XnC4)


class JanusVLN(nn.Module):
    """
    The whole network: two encoders, their fusion, and the language model.

    Built with random weights; `from_pretrained` reads a checkpoint. Cast with ``.to(dtype)`` as
    usual: the rotary frequencies stay float32.
    """

    def __init__(self, config: JanusVLNConfig) -> None:
        super().__init__()
        self.config = config
        self.vision = Qwen2_5_VisionTransformerPretrainedModel(config.vision)
        self.spatial = SpatialEncoder(config.spatial)
        self.fusion = SpatialMerger(config)
        self.language = Qwen2_5_VLTextModel(config.text)
        self.lm_head = nn.Linear(config.text.hidden_size, config.text.vocab_size, bias=False)
        nn.init.normal_(self.lm_head.weight, std=config.text.initializer_range)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.language.embed_tokens.weight

    @classmethod
    def from_pretrained(
        cls,
        checkpoint: str | Path,
        *,
        dtype: str | torch.dtype | None = None,
        device: str | torch.device = "cpu",
    ) -> "JanusVLN":
        """
        Read a checkpoint folder or hub id in the published layout; see
        `janusvln_ros.model.checkpoint.load`.
        """
        from janusvln_ros.model import checkpoint as files

        return files.load(checkpoint, dtype=dtype, device=device)

    def save_pretrained(
        self, folder: str | Path, *, dtype: str | torch.dtype | None = None
    ) -> None:
        """
        Write ``config.json`` and the weights in the published layout; see
        `janusvln_ros.model.checkpoint.save`.
        """
        from janusvln_ros.model import checkpoint as files

        files.save(self, folder, dtype=dtype)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.language.embed_tokens.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.language.embed_tokens.weight.device

    # ---- what is there

    def encode_vision(self, pixel_rows: Tensor, grid: Tensor) -> Tensor:
        """
        Images, each by itself, through the vision tower.

        Args:
            pixel_rows: float32 [k * gh * gw, 1176], as `janusvln_ros.policy.preprocess.pixel_rows`
                makes them.
            grid: int64 [k, 3], (1, gh, gw) in patches of each image; best left on the CPU.

        Returns:
            [k * n, D] in the weights' dtype. The tower never mixes images, so an image's tokens
            may be kept and used again.
        """
        config = self.config.vision
        layout = vision_layout(
            tuple(map(tuple, grid.tolist())),
            config.spatial_merge_size,
            config.window_size,
            PATCH,
            self.device,
        )
        return self.vision(pixel_rows.to(self.dtype), grid_thw=grid, **layout).pooler_output

    # ---- where it is

    def geometry(self, spatial_XPC: Tensor, image_height: int, image_width: int) -> Tensor:
        """
        Spatial tokens of frames [..., P, 2C], special tokens first, brought into the language
        model's space: [..., n, D].

        ``image_height`` and ``image_width`` are those of the spatial encoder's input, pixels.
        """
        patches = spatial_XPC[..., self.config.spatial.num_special_tokens :, :]
        return self.fusion(patches.unflatten(-2, (image_height // PATCH, image_width // PATCH)))

    def fuse(self, vision_XnD: Tensor, geometry_XnD: Tensor) -> Tensor:
        """What and where in one token: ``vision + lam * geometry``, shapes broadcast."""
        return vision_XnD + self.config.lam * geometry_XnD

    # ---- the sequence

    def embed(self, ids_L: Tensor, images_MD: Tensor) -> Tensor:
        """
        Embeddings [L, D] of a prompt whose image placeholders, in order, stand for the rows of
        ``images_MD``.
        """
        embeds_LD = self.language.embed_tokens(ids_L)
        places = (ids_L == self.config.image_token_id)[:, None]
        return embeds_LD.masked_scatter(places, images_MD.to(embeds_LD.dtype))

    def read(
        self,
        embeds_LD: Tensor,
        positions_3L: Tensor,
        cache: Any = None,
        mask_LK: Tensor | None = None,
    ) -> Tensor:
        """
        The language model over one sequence: [L, D] -> hidden states [L, D] after the final norm.

        Args:
            embeds_LD: token embeddings.
            positions_3L: int64 [3, L], time, row and column position of each token.
            cache: None, or an object with ``update(k, v, layer) -> (k, v)`` that returns all keys
                and values to attend to.
            mask_LK: bool [L, K], which of those each token sees. May be left out for one token
                that sees all, and for a causal sequence with nothing before it; nothing else.
        """
        # A dictionary is taken as it is; transformers then makes no mask of its own, for which it
        # would ask the cache questions.
        mask = {"full_attention": None if mask_LK is None else mask_LK[None, None]}
        output = self.language(
            inputs_embeds=embeds_LD[None],
            position_ids=positions_3L[:, None],
            attention_mask=mask,
            past_key_values=cache,
            use_cache=False,
        )
        return output.last_hidden_state[0]

    def read_last(self, embeds_LD: Tensor, positions_3L: Tensor, cache: "StepCache") -> Tensor:
        """
        As `read` of a causal sequence behind what ``cache`` holds, but the last token's hidden
        state [1, D] alone.

        In the last layer the other tokens are only looked at: they need keys and values there, and
        nothing else.
        """
        language: Any = self.language  # its layers' types are torch's Module
        # which takes "no mask" as causal, also behind a cache
        if language.config._attn_implementation != MEMORY_ATTENTION:
            language.set_attn_implementation(MEMORY_ATTENTION)
        x_1LD = embeds_LD[None]
        rotation = language.rotary_emb(x_1LD, positions_3L[:, None])
        for layer in language.layers[:-1]:
            x_1LD = layer(
                x_1LD, attention_mask=None, position_embeddings=rotation, past_key_values=cache
            )
        last = torch.tensor([len(embeds_LD) - 1], device=embeds_LD.device)
        x_11D = last_layer(language, x_1LD, rotation, last, None, cache)
        cache.length += len(embeds_LD)
        return x_11D[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "JanusVLN":
        # Module.to(dtype) casts buffers too, and rotary frequencies in bfloat16 would move every
        # position.
        result = super()._apply(fn, recurse)
        self.restore_frequencies()
        return result

    def restore_frequencies(self) -> None:
        """
        Compute the rotary frequencies anew, in float32, on the weights' device: they are in no
        file and must not be cast.
        """
        for module, name, config in (
            (self.language, "rotary_emb", self.config.text),
            (self.vision, "rotary_pos_emb", self.config.vision),
        ):
            if self.device.type == "meta":
                continue
            setattr(module, name, type(getattr(module, name))(config).to(self.device))


@lru_cache(maxsize=16)
def vision_layout(
    grids: tuple[tuple[int, int, int], ...],
    merge: int,
    window: int,
    patch: int,
    device: torch.device,
) -> dict[str, Tensor]:
    """
    What the vision tower derives from the sizes of its images alone: positions, windows and their
    borders.

    It would do so at every call; given to it, and with the borders on the CPU where it reads them,
    it need not wait for a GPU in every block.
    """
    grid_k3 = torch.tensor(grids)
    window_index, window_borders = get_vision_window_index(grid_k3, merge, window, patch)
    return {
        "position_ids": get_vision_position_ids(grid_k3, merge).to(device),
        "window_index": window_index.to(device),
        "cu_window_seqlens": window_borders,
        "cu_seqlens": get_vision_cu_seqlens(grid_k3),
    }


def image_positions(rows: int, columns: int, start: int) -> Tensor:
    """
    mRoPE positions [3, rows * columns] of an image's tokens: time stands still at ``start``, rows
    and columns count from it.
    """
    yx = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).T
    return start + torch.cat([torch.zeros(1, rows * columns, dtype=torch.long), yx])


def prompt_positions(
    ids: Sequence[int], image_token_id: int, rows: int, columns: int, start: int = 0
) -> tuple[Tensor, int]:
    """
    mRoPE positions of text with images of ``rows`` x ``columns`` tokens in it.

    Text counts on by one in all three rows; an image takes ``max(rows, columns)`` positions,
    whatever its number of tokens.

    Returns:
        int64 [3, L], and the position of the token that would follow.
    """
    parts, position, i = [], start, 0
    while i < len(ids):
        if ids[i] == image_token_id:
            parts.append(image_positions(rows, columns, position))
            position, i = position + max(rows, columns), i + rows * columns
        else:
            end = next((j for j in range(i, len(ids)) if ids[j] == image_token_id), len(ids))
            parts.append(torch.arange(position, position + end - i).expand(3, -1))
            position, i = position + end - i, end
    return torch.cat(parts, dim=1), position


class StepCache:
    """
    Keys and values of the language model for one step: the prompt, then what is generated.

    Made once, overwritten at every step.

    Args:
        layers, heads, head_dim: of the language model's keys.
        capacity: most tokens of a step.
        dtype, device: of the buffers.
    """

    def __init__(
        self,
        layers: int,
        heads: int,
        head_dim: int,
        capacity: int,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        self.k_L1HND = torch.zeros(
            layers, 1, heads, capacity, head_dim, dtype=dtype, device=device
        )
        self.v_L1HND = torch.zeros_like(self.k_L1HND)
        self.length = 0

    @property
    def capacity(self) -> int:
        """Most tokens of a step."""
        return self.k_L1HND.shape[3]

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers."""
        return 2 * self.k_L1HND.nbytes

    def update(
        self, k_1HND: Tensor, v_1HND: Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """
        Called by transformers' attention: put new keys and values behind the ``length`` that
        count, return all of them.
        """
        end = self.length + k_1HND.shape[2]
        self.k_L1HND[layer, :, :, self.length : end] = k_1HND
        self.v_L1HND[layer, :, :, self.length : end] = v_1HND
        return self.k_L1HND[layer, :, :, :end], self.v_L1HND[layer, :, :, :end]

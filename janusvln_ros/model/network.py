"""
JanusVLN (arXiv 2509.22548): what the robot sees, and where things are, in one sequence of tokens.

::

    frame ──▶ vision (Qwen2.5-VL's tower)   ──▶ what is there ─┐
      └─────▶ spatial (VGGT, with a memory) ──▶ where it is ───┴─▶ fusion ──▶ language ──▶ action
    instruction ──────────────────────────────────────────────────────────────▲

The vision tower and the language model are transformers' own classes, composed here. The spatial
encoder and its memory are in `janusvln_ros.model.spatial` and `janusvln_ros.model.memory`, the
semantic memory in `janusvln_ros.model.dual`; the network knows nothing of names and files of
checkpoints (`janusvln_ros.model.adapter`, `janusvln_ros.model.checkpoint`).
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import groupby
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionTransformerPretrainedModel,
    Qwen2_5_VLRMSNorm,
    apply_rotary_pos_emb,
)
from transformers.vision_utils import (
    get_vision_cu_seqlens,
    get_vision_position_ids,
    get_vision_window_index,
)

from janusvln_ros.model.attention import use_memory_attention
from janusvln_ros.model.config import JanusVLNConfig, key_value_shape
from janusvln_ros.model.memory import KeyValueBuffers
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

    def forward(self, patches_XrcD: Tensor) -> Tensor:
        """
        Grids of patch tokens [..., r, c, 2 * embed_dim] -> [..., M, D], merge groups row by row;
        an odd last row or column is left out.
        """
        *_, r, c, _ = patches_XrcD.shape
        x = patches_XrcD[..., : r // MERGE * MERGE, : c // MERGE * MERGE, :].to(
            self.ln_q.weight.dtype
        )
        groups_XMD = (
            self.ln_q(x)
            .unflatten(-2, (-1, MERGE))
            .unflatten(-4, (-1, MERGE))
            .transpose(-4, -3)
            .flatten(-3)
            .flatten(-3, -2)
        )
        return cast(Tensor, self.mlp(groups_XMD))


class Network(nn.Module):
    """
    Two encoders, their fusion, and the language model, with random weights.

    Cast with ``.to(dtype)`` as usual: the rotary frequencies stay float32.
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

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.language.norm.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.language.norm.weight.device

    # ---- what is there

    def encode_vision(self, pixel_rows: Tensor, grid_F3: Tensor) -> Tensor:
        """
        Pictures, each by itself, through the vision tower.

        Args:
            pixel_rows: float32 [F * r * c, 1176], as `janusvln_ros.policy.preprocess.pixel_rows`
                makes them.
            grid_F3: int64, (1, r, c) in patches of each picture; best left on the CPU.

        Returns:
            [F * M, D] in the weights' dtype. The tower never mixes pictures, so a picture's tokens
            may be kept and used again.
        """
        config = self.config.vision
        layout = vision_layout(
            tuple(map(tuple, grid_F3.tolist())),
            config.spatial_merge_size,
            config.window_size,
            PATCH,
            self.device,
        )
        output = self.vision(pixel_rows.to(self.dtype), grid_thw=grid_F3, **layout)
        return cast(Tensor, output.pooler_output)

    # ---- where it is

    def geometry(self, spatial_XPD: Tensor, image_height: int, image_width: int) -> Tensor:
        """
        Spatial tokens of frames [..., P, 2 * embed_dim], special tokens first, brought into the
        language model's space: [..., M, D].

        ``image_height`` and ``image_width`` are those of the spatial encoder's input, pixels.
        """
        patches_XPD = spatial_XPD[..., self.config.spatial.num_special_tokens :, :]
        grid = (image_height // PATCH, image_width // PATCH)
        return cast(Tensor, self.fusion(torch.unflatten(patches_XPD, -2, grid)))

    def fuse(self, vision_XMD: Tensor, geometry_XMD: Tensor) -> Tensor:
        """What and where in one token: ``vision + lam * geometry``, shapes broadcast."""
        return vision_XMD + self.config.lam * geometry_XMD

    # ---- the sequence

    def embed(self, ids_L: Tensor, images_MD: Tensor) -> Tensor:
        """
        Embeddings [L, D] of a prompt whose image placeholders, in order, stand for the rows of
        ``images_MD``.
        """
        embeds_LD: Tensor = self.language.embed_tokens(ids_L)
        places = (ids_L == self.config.image_token_id)[:, None]
        return embeds_LD.masked_scatter(places, images_MD.to(embeds_LD.dtype))

    def read(
        self,
        embeds_LD: Tensor,
        positions_3L: Tensor,
        cache: "KeyValueCache | None" = None,
        mask_LK: Tensor | None = None,
    ) -> Tensor:
        """
        The language model over one sequence: [L, D] -> hidden states [L, D] after the final norm.

        Args:
            embeds_LD: token embeddings.
            positions_3L: int64, time, row and column position of each token.
            cache: None, or what comes before and is attended to.
            mask_LK: bool, which of those each token sees. May be left out for one token that sees
                all, and for a causal sequence with nothing before it; nothing else.
        """
        mask = None if mask_LK is None else mask_LK[None, None]
        return hidden_states(self.language, embeds_LD, positions_3L, cache, mask)

    def read_last(self, embeds_LD: Tensor, positions_3L: Tensor, cache: "KeyValueCache") -> Tensor:
        """
        As `read` of a causal sequence behind what ``cache`` holds, but the last token's hidden
        state [1, D] alone.

        In the last layer the other tokens are only looked at: they need keys and values there, and
        nothing else.
        """
        language: Any = self.language  # its layers' types are torch's Module
        use_memory_attention(language)  # which takes "no mask" as causal, also behind a cache
        x_1LD = embeds_LD[None]
        rotation = language.rotary_emb(x_1LD, positions_3L[:, None])
        for layer in language.layers[:-1]:
            x_1LD = layer(
                x_1LD, attention_mask=None, position_embeddings=rotation, past_key_values=cache
            )
        # filled, not copied: a copy would wait for the device, and could not be recorded
        last = torch.full((1,), len(embeds_LD) - 1, device=embeds_LD.device)
        x_11D = last_layer(language, x_1LD, rotation, last, None, cache)
        cache.begin += len(embeds_LD)
        return x_11D[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Network":
        # Module.to(dtype) casts buffers too, and rotary frequencies in bfloat16 would move every
        # position.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.restore_frequencies()
        return self

    def restore_frequencies(self) -> None:
        """
        Compute the rotary frequencies anew, in float32, on the weights' device: they are in no
        file and must not be cast.
        """
        if self.device.type == "meta":
            return
        for module, name, config in (
            (self.language, "rotary_emb", self.config.text),
            (self.vision, "rotary_pos_emb", self.config.vision),
        ):
            setattr(module, name, type(getattr(module, name))(config).to(self.device))


@lru_cache(maxsize=32)
def on_device(ids: tuple[int, ...], device: torch.device) -> Tensor:
    """
    Token ids, int64 [L]: most are the same at every step, which then waits for no copy. Not to be
    written to.
    """
    with torch.inference_mode(False):
        return torch.tensor(ids, device=device)


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
    grid_F3 = torch.tensor(grids)
    window_index, window_borders = get_vision_window_index(grid_F3, merge, window, patch)
    return {
        "position_ids": get_vision_position_ids(grid_F3, merge).to(device),
        "window_index": window_index.to(device),
        "cu_window_seqlens": window_borders,
        "cu_seqlens": get_vision_cu_seqlens(grid_F3),
    }


def hidden_states(
    language: Qwen2_5_VLTextModel,
    embeds_LD: Tensor,
    positions_3L: Tensor,
    cache: "KeyValueCache | None",
    mask: Tensor | None,
) -> Tensor:
    """
    Hidden states [L, D], after the final norm, of one sequence in a language model.

    Arguments are those of `Network.read`, the mask in the form that the model's attention takes.
    """
    output = language(
        inputs_embeds=embeds_LD[None],
        position_ids=positions_3L[:, None],
        # A dictionary is taken as it is; transformers then makes no mask of its own, for which it
        # would ask the cache questions.
        attention_mask={"full_attention": mask},
        past_key_values=cache,
        use_cache=False,
    )
    return cast(Tensor, output.last_hidden_state[0])


def last_layer(
    language: Qwen2_5_VLTextModel,
    x_BLD: Tensor,
    rotation: tuple[Tensor, Tensor],
    rows: Tensor,
    mask_B1RK: Tensor | None,
    cache: Any = None,
) -> Tensor:
    """
    Final hidden states [B, R, D], after the norm, of the R ``rows`` of what enters the last layer:
    all others are only looked at there, so they need keys and values and nothing else.

    Args:
        language: transformers' text model.
        x_BLD: output of the layer before, all rows.
        rotation: cosine and sine [B, L, H] of all rows, as the model's ``rotary_emb`` gives them.
        rows: int64 [R], those that are wanted.
        mask_B1RK: what each of them sees of the K keys, in the form that the model's attention
            takes.
        cache: holds the keys before these rows and takes theirs (``update``); None: there are none
            before.
    """
    layer: Any = language.layers[-1]  # its parts' types are torch's Module
    attention, normed_BLD = layer.self_attn, layer.input_layernorm(x_BLD)
    k_BNLH, v_BNLH = (
        project(normed_BLD).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
        for project in (attention.k_proj, attention.v_proj)
    )
    k_BNLH, _ = apply_rotary_pos_emb(k_BNLH, k_BNLH, *rotation)
    if cache is not None:
        k_BNLH, v_BNLH = cache.update(k_BNLH, v_BNLH, attention.layer_idx)
    cosine, sine = (angle.index_select(1, rows) for angle in rotation)
    # Part by part: of the layer as a whole, under gradient checkpointing, transformers takes the
    # keys away.
    attended_BRD, *_ = attention(
        torch.index_select(normed_BLD, 1, rows),
        attention_mask=mask_B1RK,
        position_embeddings=(cosine, sine),
        # the layer's own few keys are among these
        past_key_values=SimpleNamespace(update=lambda *_: (k_BNLH, v_BNLH)),
    )
    x_BRD = torch.index_select(x_BLD, 1, rows) + attended_BRD
    x_BRD = x_BRD + layer.mlp(layer.post_attention_layernorm(x_BRD))
    return cast(Tensor, language.norm(x_BRD))


def image_positions(rows: int, columns: int, start: int) -> Tensor:
    """
    mRoPE positions [3, rows * columns] of an image's tokens: time stands still at ``start``, rows
    and columns count from it.
    """
    yx = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).T
    return start + torch.cat([torch.zeros(1, rows * columns, dtype=torch.long), yx])


def prompt_positions(
    ids: Sequence[int], image_token_id: int, rows: int, columns: int
) -> tuple[Tensor, int]:
    """
    mRoPE positions of text with images of ``rows`` x ``columns`` tokens in it.

    Text counts on by one in all three rows; an image takes ``max(rows, columns)`` positions,
    whatever its number of tokens.

    Returns:
        int64 [3, L], and the position of the token that would follow.
    """
    parts, position = [], 0
    for is_image, run in groupby(ids, key=lambda i: i == image_token_id):
        count = len(list(run))
        # images may stand side by side
        spans = [max(rows, columns)] * (count // (rows * columns)) if is_image else [count]
        for span in spans:
            parts.append(
                image_positions(rows, columns, position)
                if is_image
                else torch.arange(position, position + span).expand(3, -1)
            )
            position += span
    return torch.cat(parts, dim=1), position


class KeyValueCache(KeyValueBuffers):
    """
    Keys and values of the language model, which is given it as ``past_key_values``.

    Args:
        text: settings of the language model.
        capacity: most rows.
        dtype, device: of the buffers.

    Attributes:
        begin: rows that count; those of the next call go behind them.
    """

    def __init__(
        self,
        text: Qwen2_5_VLTextConfig,
        capacity: int,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        layers, heads, head_size = key_value_shape(text)
        super().__init__(layers, heads, capacity, head_size, dtype, device)
        self.capacity, self.begin = capacity, 0

    def update(
        self, k_1NLH: Tensor, v_1NLH: Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """
        Called by each layer: put the L rows of this call behind those that count, return all of
        them, [1, N, K, H] each.
        """
        end = self.begin + k_1NLH.shape[2]
        self.k_BZNKH[:, layer, :, self.begin : end] = k_1NLH
        self.v_BZNKH[:, layer, :, self.begin : end] = v_1NLH
        return self.k_BZNKH[:, layer, :, :end], self.v_BZNKH[:, layer, :, :end]

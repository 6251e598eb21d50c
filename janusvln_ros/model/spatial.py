"""
The spatial encoder: VGGT's aggregator, made causal in time (arXiv 2503.11651, used as in arXiv
2509.22548).

Every frame becomes one camera token, a few register tokens and one token per 14 x 14 patch. Patch
tokens come from a DINOv2 vision transformer that sees one frame. Then *frame blocks* (attention
within each frame) and *global blocks* (attention to this and earlier frames) take turns. The
tokens before and after the last global block that counts, side by side, are the geometry of the
frame.

There is no position in time: a frame's place is known only from what it shows, and frames may lie
in memory in any order. So a whole episode in one pass (``forward``, for training) and frame by
frame with a memory (``encode_frame``) give the same.

Shape letters are those of `janusvln_ros.model`; D is the encoder's width. Precision: weights may
be bfloat16; LayerNorm, RoPE and the alternating blocks' residual stream stay float32, matrix
products and stored keys and values have the weights' dtype. That is what the published code does
under CUDA autocast.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from janusvln_ros.errors import require
from janusvln_ros.model.config import SpatialConfig
from janusvln_ros.model.memory import (
    ALL_FRAMES,
    SPATIAL_PRECISIONS,
    FrameWindow,
    QuantizedSpatialMemory,
    SpatialMemory,
    SpatialPrecision,
)

PATCH = 14
"""Side of a patch, pixels."""

IMAGE_MEAN, IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, as DINOv2 expects."""

ROPE_BASE = 100.0

QUERY_ROWS = 512
"""
Rows of queries that a pass over an episode attends at a time: wide enough to keep a processor
busy, few enough to skip most of what is not visible. A frame with more tokens than this is
attended alone and needs no mask.
"""


class SpatialEncoder(nn.Module):
    """
    Images of an episode in, per-patch geometry out.

    The last pair of alternating blocks is not built: the features are taken before it. Parameter
    names are those of ``vggt.aggregator.*``.
    """

    def __init__(self, config: SpatialConfig) -> None:
        super().__init__()
        self.config = config
        D = config.embed_dim
        self.camera_token = nn.Parameter(torch.zeros(1, 2, 1, D))
        self.register_token = nn.Parameter(torch.zeros(1, 2, config.num_register_tokens, D))
        self.patch_embed = DinoEncoder(config)
        self.frame_blocks = Blocks(config.used_depth, D, config.num_heads, eps=1e-5, qk_norm=True)
        self.global_blocks = Blocks(config.used_depth, D, config.num_heads, eps=1e-5, qk_norm=True)
        for token in (self.camera_token, self.register_token):
            nn.init.normal_(token, std=1e-6)

    def forward(self, images_BF3hw: Tensor, window: FrameWindow = ALL_FRAMES) -> Tensor:
        """
        Whole episodes in one pass.

        Args:
            images_BF3hw: float32 RGB in [0, 1]; sides are multiples of 14; frame 0 of every
                sequence is the first of its episode.
            window: which earlier frames a frame sees.

        Returns:
            float32 [B, F, P, 2D], special tokens first: for each token the frame block's and the
            global block's output.

        Raises:
            InputError: sides that are no multiples of 14.
        """
        *_, tokens_BFPD = self.layers(images_BF3hw, window)
        return tokens_BFPD

    def layers(self, images_BF3hw: Tensor, window: FrameWindow = ALL_FRAMES) -> Iterator[Tensor]:
        """As ``forward``, layer by layer: ``depth - 1`` tensors [B, F, P, 2D]."""
        frames = images_BF3hw.shape[1]
        x_BFPD, rope = self.embed(images_BF3hw, [i == 0 for i in range(frames)])
        P = x_BFPD.shape[2]
        for frame_block, global_block in zip(self.frame_blocks, self.global_blocks):
            frame_BFPD = frame_block(x_BFPD, rope)
            # [B, F, N, P, H] each
            q, k, v = global_block.attn.qkv_heads(global_block.norm1(frame_BFPD), rope)
            q, k, v = (t.transpose(1, 2).flatten(2, 3) for t in (q, k, v))  # [B, N, F*P, H]
            o_BNKH = frame_causal_attention(q, k, v, P, window)
            x_BFPD = global_block.finish(
                frame_BFPD, o_BNKH.unflatten(2, (frames, P)).transpose(1, 2)
            )
            yield torch.cat([frame_BFPD, x_BFPD], dim=-1)

    def encode_frame(self, image_3hw: Tensor, memory: SpatialMemory) -> Tensor:
        """
        The next frame of an episode, seen with what ``memory`` holds.

        Args:
            image_3hw: float32 RGB in [0, 1]; sides are multiples of 14.
            memory: read, and the frame written beside; ``memory.commit()`` makes it remember the
                frame.

        Returns:
            float32 [P, 2D], as a row of ``forward``.

        Raises:
            InputError: sides that are no multiples of 14, or another size than the frames before.
        """
        x_BFPD, rope = self.embed(image_3hw[None, None], [memory.seen == 0])
        for layer, (frame_block, global_block) in enumerate(
            zip(self.frame_blocks, self.global_blocks)
        ):
            frame_BFPD = frame_block(x_BFPD, rope)
            q, k, v = global_block.attn.qkv_heads(global_block.norm1(frame_BFPD), rope)
            k_BNKH, v_BNKH = memory.attend(layer, k[:, 0], v[:, 0])
            o_BNPH = F.scaled_dot_product_attention(
                q[:, 0], k_BNKH.to(q.dtype), v_BNKH.to(q.dtype)
            )
            x_BFPD = global_block.finish(frame_BFPD, o_BNPH[:, None])
        return torch.cat([frame_BFPD, x_BFPD], dim=-1)[0, 0]

    def new_memory(
        self,
        image_height: int,
        image_width: int,
        window: FrameWindow,
        precision: SpatialPrecision | None = None,
    ) -> SpatialMemory:
        """
        An empty memory for episodes of images of this size (pixels), on the encoder's device; in
        its dtype, or of one byte a number with a ``precision``.
        """
        config = self.config
        kind = QuantizedSpatialMemory if precision else SpatialMemory
        return kind(
            config.used_depth,
            config.num_heads,
            config.embed_dim // config.num_heads,
            self.tokens(image_height, image_width),
            window,
            SPATIAL_PRECISIONS[precision] if precision else self.camera_token.dtype,
            self.camera_token.device,
        )

    def tokens(self, image_height: int, image_width: int) -> int:
        """Tokens P of a frame of so many pixels, special tokens included."""
        return self.config.num_special_tokens + (image_height // PATCH) * (image_width // PATCH)

    def embed(
        self, images_BF3hw: Tensor, is_first: Sequence[bool]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """
        Patch tokens with the special tokens before them, float32 [B, F, P, D], and the rotation
        table of a frame. ``is_first``: which of the F frames are the first of their episode.
        """
        B, frames, _, height, width = images_BF3hw.shape
        require(
            height and width and not (height % PATCH or width % PATCH),
            f"the spatial encoder got an image of {width}x{height} pixels: both "
            f"sides must be multiples of {PATCH}",
        )
        patches_BFPD = self.patch_embed(images_BF3hw.flatten(0, 1)).unflatten(0, (B, frames))
        special_2PD = torch.cat([self.camera_token, self.register_token], dim=2)[0]
        # the first frame of an episode has tokens of its own
        special_FPD = torch.stack([special_2PD[0 if first else 1] for first in is_first])
        x_BFPD = torch.cat([special_FPD.float().expand(B, -1, -1, -1), patches_BFPD], dim=2)
        rope = rope_table(
            height // PATCH,
            width // PATCH,
            self.config.num_special_tokens,
            self.config.embed_dim // self.config.num_heads,
            images_BF3hw.device,
        )
        return x_BFPD, rope


def frame_causal_attention(
    q_BNKH: Tensor, k_BNKH: Tensor, v_BNKH: Tensor, tokens: int, window: FrameWindow
) -> Tensor:
    """
    Attention of every frame (``tokens`` rows each) to the frames visible to it, itself included:
    [B, N, K, H] -> [B, N, K, H].

    Queries are taken a few frames at a time, with only the keys that some of them see, so that
    hidden frames cost next to nothing.
    """
    frames = q_BNKH.shape[2] // tokens
    step = max(1, QUERY_ROWS // tokens)
    outputs = []
    for start in range(0, frames, step):
        end = min(start + step, frames)
        oldest = max(0, start - window.window)
        spans = [(0, end)] if oldest <= window.initial else [(0, window.initial), (oldest, end)]
        k, v = (
            torch.cat([t[:, :, a * tokens : b * tokens] for a, b in spans if b > a], dim=2)
            for t in (k_BNKH, v_BNKH)
        )
        mask = None
        if end - start > 1:
            key_frames = torch.cat([torch.arange(a, b, device=q_BNKH.device) for a, b in spans])
            visible_QK = window.visible(torch.arange(start, end, device=q_BNKH.device), key_frames)
            mask = visible_QK.repeat_interleave(tokens, dim=0).repeat_interleave(tokens, dim=1)
        outputs.append(
            F.scaled_dot_product_attention(
                q_BNKH[:, :, start * tokens : end * tokens], k, v, attn_mask=mask
            )
        )
    return torch.cat(outputs, dim=2)


class DinoEncoder(nn.Module):
    """
    DINOv2 with registers: one image -> one token per patch.

    Parameter names are those of ``vggt.aggregator.patch_embed.*``.
    """

    def __init__(self, config: SpatialConfig) -> None:
        super().__init__()
        D, grid = config.embed_dim, config.image_size // PATCH
        self.cls_token = nn.Parameter(torch.zeros(1, 1, D))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid * grid, D))
        self.register_tokens = nn.Parameter(torch.zeros(1, config.num_register_tokens, D))
        self.patch_embed = nn.ModuleDict(
            {"proj": nn.Conv2d(3, D, kernel_size=PATCH, stride=PATCH)}
        )
        self.blocks = Blocks(config.dino_depth, D, config.dino_num_heads, eps=1e-6, qk_norm=False)
        self.norm = LayerNorm(D, eps=1e-6)
        for parameter in (self.cls_token, self.register_tokens):
            nn.init.normal_(parameter, std=1e-6)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, images_B3hw: Tensor) -> Tensor:
        """
        float32 RGB [B, 3, h, w] in [0, 1] -> float32 patch tokens [B, r * c, D], row by row.
        """
        mean, std = image_levels(images_B3hw.device)
        x_BDrc = self.patch_embed["proj"](((images_B3hw - mean) / std).to(self.cls_token.dtype))
        x_BPD = torch.cat(
            [self.cls_token.expand(len(x_BDrc), -1, -1), x_BDrc.flatten(2).transpose(1, 2)], dim=1
        )
        x_BPD = x_BPD + self.position_embedding(*x_BDrc.shape[-2:])
        # registers have no place
        x_BPD = torch.cat(
            [x_BPD[:, :1], self.register_tokens.expand(len(x_BPD), -1, -1), x_BPD[:, 1:]], dim=1
        )
        for block in self.blocks:
            x_BPD = block(x_BPD, None)
        return cast(Tensor, self.norm(x_BPD)[:, 1 + self.register_tokens.shape[1] :])

    def position_embedding(self, rows: int, columns: int) -> Tensor:
        """
        The learned square grid of places, resized to this grid of patches: [1, 1 + rows * columns,
        D], the class token's first.
        """
        cls_11D, grid_1PD = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        side = round(grid_1PD.shape[1] ** 0.5)
        if (rows, columns) == (side, side):
            return self.pos_embed
        grid_1Dgg = grid_1PD.float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
        grid_1Drc = F.interpolate(
            grid_1Dgg, size=(rows, columns), mode="bicubic", antialias=True, align_corners=False
        )
        return torch.cat([cls_11D, grid_1Drc.flatten(2).transpose(1, 2).to(cls_11D.dtype)], dim=1)


class Block(nn.Module):
    """A pre-norm transformer block with a learned scale on each branch."""

    def __init__(self, channels: int, heads: int, eps: float, qk_norm: bool) -> None:
        super().__init__()
        self.norm1 = LayerNorm(channels, eps)
        self.attn = Attention(channels, heads, qk_norm)
        self.ls1 = LayerScale(channels)
        self.norm2 = LayerNorm(channels, eps)
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(channels, 4 * channels), "fc2": nn.Linear(4 * channels, channels)}
        )
        self.ls2 = LayerScale(channels)

    def forward(self, x_XPD: Tensor, rope: tuple[Tensor, Tensor] | None) -> Tensor:
        """Attention among the P tokens, then the feed-forward layer; any leading dimensions."""
        q, k, v = self.attn.qkv_heads(self.norm1(x_XPD), rope)
        o = F.scaled_dot_product_attention(
            q.flatten(0, -4), k.flatten(0, -4), v.flatten(0, -4)
        ).view_as(q)
        return self.finish(x_XPD, o)

    def finish(self, x_XPD: Tensor, o_XNPH: Tensor) -> Tensor:
        """
        What follows the attention proper: projection, residual, feed-forward layer, residual.
        """
        x_XPD = x_XPD + self.ls1(self.attn.proj(o_XNPH.transpose(-3, -2).flatten(-2)))
        hidden = self.mlp["fc1"](self.norm2(x_XPD).to(o_XNPH.dtype))
        return cast(Tensor, x_XPD + self.ls2(self.mlp["fc2"](F.gelu(hidden))))


class Blocks(nn.ModuleList):
    """A row of equal blocks."""

    def __init__(self, depth: int, channels: int, heads: int, eps: float, qk_norm: bool) -> None:
        super().__init__([Block(channels, heads, eps, qk_norm) for _ in range(depth)])

    def __iter__(self) -> Iterator[Block]:
        """The blocks, by their type."""
        return cast(Iterator[Block], super().__iter__())


class Attention(nn.Module):
    """The projections of multi-head attention, with optional LayerNorm on queries and keys."""

    def __init__(self, channels: int, heads: int, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.q_norm = LayerNorm(channels // heads, eps=1e-5) if qk_norm else nn.Identity()
        self.k_norm = LayerNorm(channels // heads, eps=1e-5) if qk_norm else nn.Identity()

    def qkv_heads(
        self, x_XPD: Tensor, rope: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """
        Queries, keys and values [..., N, P, H] in the weights' dtype; queries and keys normed and
        rotated, ready for attention.
        """
        dtype = self.qkv.weight.dtype
        qkv_XP3NH = self.qkv(x_XPD.to(dtype)).unflatten(-1, (3, self.heads, -1))
        q, k, v = (t.transpose(-3, -2) for t in qkv_XP3NH.unbind(-3))
        q, k = self.q_norm(q), self.k_norm(k)
        if rope is not None:
            q, k = rotate(q, *rope), rotate(k, *rope)
        return q.to(dtype), k.to(dtype), v


class LayerNorm(nn.LayerNorm):
    """Computed and returned in float32, whatever the dtype of input and weights."""

    def forward(self, x: Tensor) -> Tensor:
        """Norm over the last dimension: any dtype -> float32."""
        return F.layer_norm(
            x.float(), self.normalized_shape, self.weight.float(), self.bias.float(), self.eps
        )


class LayerScale(nn.Module):
    """A learned factor per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Scale the last dimension."""
        return x * self.gamma


@lru_cache(maxsize=8)
def image_levels(device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and spread of the channels, float32 [3, 1, 1] each, on a device."""
    with torch.inference_mode(False):
        mean, std = (
            torch.tensor(values, device=device).view(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD)
        )
        return mean, std


@lru_cache(maxsize=8)
def rope_table(
    rows: int, columns: int, special: int, head_size: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """
    Cosine and sine, float32 [P, 2, head_size / 4], for the tokens of one frame: special tokens at
    (0, 0), patches at (row + 1, column + 1).

    The first half of a head's channels turns with the row, the second with the column.
    """
    with torch.inference_mode(False):
        yx_P2 = torch.zeros(special + rows * columns, 2, device=device)
        yx_P2[special:] = torch.cartesian_prod(
            torch.arange(1, rows + 1, device=device), torch.arange(1, columns + 1, device=device)
        ).float()
        frequencies = ROPE_BASE ** -(
            torch.arange(0, head_size // 2, 2, device=device).float() / (head_size // 2)
        )
        angles_P2R = yx_P2[..., None] * frequencies
        return angles_P2R.cos(), angles_P2R.sin()


def rotate(x_XPH: Tensor, cos_P2R: Tensor, sin_P2R: Tensor) -> Tensor:
    """
    Turn the channel pairs of each half by the token's row and column angle: [..., P, H] -> float32
    [..., P, H].
    """
    a, b = x_XPH.float().unflatten(-1, (2, 2, -1)).unbind(-2)
    return torch.stack([a * cos_P2R - b * sin_P2R, b * cos_P2R + a * sin_P2R], dim=-2).flatten(-3)

"""
Which frames an episode remembers, and the spatial memory that holds them.

Both memories keep the first ``initial`` and the last ``window`` frames of an episode. Frame j is
visible to frame i if and only if ``j <= i and (j < initial or i - j <= window)``: a frame attends
to at most ``initial + window + 1`` frames, itself included, and what can never be seen again is
forgotten. The same rule shapes the mask of a whole episode in training, so both ways compute the
same.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from janusvln_ros.errors import require


@dataclass(frozen=True)
class FrameWindow:
    """The first ``initial`` and the last ``window`` frames before the current one."""

    initial: int
    window: int

    @property
    def slots(self) -> int:
        """Frames that attention sees at most: initial ones, window, and the current one."""
        return self.initial + self.window + 1

    def slot(self, frame: int) -> int:
        """
        Where frame number ``frame`` is stored; the frame that lay there before is one that
        ``frame`` cannot see.
        """
        return (
            frame
            if frame < self.initial
            else self.initial + (frame - self.initial) % (self.window + 1)
        )

    def frames(self, seen: int) -> list[int]:
        """
        Numbers of the frames remembered once ``seen`` frames have passed: those that frame number
        ``seen`` will see.
        """
        return [
            *range(min(self.initial, seen)),
            *range(max(self.initial, seen - self.window), seen),
        ]

    def visible(self, query: Tensor, key: Tensor) -> Tensor:
        """
        Which key frames each query frame sees: int64 [Q] and [K] frame numbers -> bool [Q, K].
        """
        age_QK = query[:, None] - key[None, :]
        return (age_QK >= 0) & ((key[None, :] < self.initial) | (age_QK <= self.window))


ALL_FRAMES = FrameWindow(initial=0, window=1 << 40)
"""Plain frame-causal attention: nothing is ever forgotten."""


class KeyValueBuffers:
    """Keys and values of Z layers, [Z, N, K, H] each, in buffers that are made once."""

    def __init__(
        self,
        layers: int,
        heads: int,
        rows: int,
        head_size: int,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        self.k_ZNKH = torch.zeros(layers, heads, rows, head_size, dtype=dtype, device=device)
        self.v_ZNKH = torch.zeros_like(self.k_ZNKH)

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers: the same at every step."""
        return 2 * self.k_ZNKH.nbytes


class SpatialMemory(KeyValueBuffers):
    """
    Final keys (after norm and RoPE) and values of the global blocks, for one episode, in buffers
    that are made once.

    A frame's slot is overwritten in place when the window has passed it. Positions are local to a
    frame, so the order of slots does not matter: the filled part of the buffers is attended as it
    lies, without a mask. One slot more than there are remembered frames means that a step writes
    only where nothing is remembered: until ``commit`` the memory is what it was before, whatever
    becomes of the step, and a decision can be taken back by doing nothing.

    Args:
        layers: number of global blocks.
        heads, head_size: of their attention.
        tokens: tokens of one frame; fixed, since all frames of an episode have one size.
        window: which frames to keep.
        dtype, device: of the buffers; ``2 * layers * heads * head_size * tokens * window.slots``
            numbers.
    """

    def __init__(
        self,
        layers: int,
        heads: int,
        head_size: int,
        tokens: int,
        window: FrameWindow,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        super().__init__(layers, heads, window.slots * tokens, head_size, dtype, device)
        self.tokens, self.window = tokens, window
        self.seen = 0

    @property
    def frames(self) -> list[int]:
        """Numbers of the remembered frames, ascending."""
        return self.window.frames(self.seen)

    def reset(self) -> None:
        """Forget everything: a new episode begins."""
        self.seen = 0

    def attend(self, layer: int, k_NPH: Tensor, v_NPH: Tensor) -> tuple[Tensor, Tensor]:
        """
        Put the current frame's keys and values beside the remembered ones; return all of them, [N,
        K, H] each, in slot order.

        Raises:
            InputError: the frame has another number of tokens than the episode's first.
        """
        require(
            k_NPH.shape[1] == self.tokens,
            f"this frame has {k_NPH.shape[1]} spatial tokens, earlier ones had "
            f"{self.tokens}: all frames of an episode must have one size",
        )
        here, end = self._rows()
        self.k_ZNKH[layer, :, here] = k_NPH
        self.v_ZNKH[layer, :, here] = v_NPH
        return self.k_ZNKH[layer, :, :end], self.v_ZNKH[layer, :, :end]

    def _rows(self) -> tuple[slice, int]:
        """Where the current frame lies, and the end of what is attended with it."""
        start = self.window.slot(self.seen) * self.tokens
        end = min(self.seen + 1, self.window.slots) * self.tokens
        return slice(start, start + self.tokens), end

    def commit(self) -> None:
        """Remember the frame that was attended last; what it pushed out of the window is gone."""
        self.seen += 1


SpatialPrecision = Literal["int8", "float8"]
SPATIAL_PRECISIONS = {"int8": torch.int8, "float8": torch.float8_e4m3fn}
"""Precisions of the spatial memory beside the weights' own dtype."""


class QuantizedSpatialMemory(SpatialMemory):
    """
    A spatial memory that keeps a byte per number and one scale per token and head.

    Remembered keys and values are turned back one layer at a time; those of the current frame are
    attended as they are. Arguments are those of `SpatialMemory`, ``dtype`` one of
    `SPATIAL_PRECISIONS`.
    """

    def __init__(
        self,
        layers: int,
        heads: int,
        head_size: int,
        tokens: int,
        window: FrameWindow,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        super().__init__(layers, heads, head_size, tokens, window, dtype, device)
        rows = window.slots * tokens
        self.scales = KeyValueBuffers(layers, heads, rows, 1, torch.float32, device)

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers: the same at every step."""
        return super().nbytes + self.scales.nbytes

    def attend(self, layer: int, k_NPH: Tensor, v_NPH: Tensor) -> tuple[Tensor, Tensor]:
        """As `SpatialMemory.attend`; what is returned is in the dtype of the arguments."""
        (k_quantized, k_scale), (v_quantized, v_scale) = (
            quantize_rows(values_NPH, self.k_ZNKH.dtype) for values_NPH in (k_NPH, v_NPH)
        )
        k_NKH, v_NKH = super().attend(layer, k_quantized, v_quantized)
        here, end = self._rows()
        k_scale_NK1, v_scale_NK1 = self.scales.k_ZNKH[layer], self.scales.v_ZNKH[layer]
        k_scale_NK1[:, here], v_scale_NK1[:, here] = k_scale, v_scale
        k_NKH = k_NKH.to(k_NPH.dtype) * k_scale_NK1[:, :end].to(k_NPH.dtype)
        v_NKH = v_NKH.to(v_NPH.dtype) * v_scale_NK1[:, :end].to(v_NPH.dtype)
        k_NKH[:, here], v_NKH[:, here] = k_NPH, v_NPH
        return k_NKH, v_NKH


def quantize_rows(x_XH: Tensor, storage: torch.dtype) -> tuple[Tensor, Tensor]:
    """
    One byte per number and a float32 scale per row: [..., H] -> [..., H] and [..., 1] with ``x``
    about their product.
    """
    largest = 127.0 if storage == torch.int8 else torch.finfo(storage).max
    scale = (x_XH.float().abs().amax(dim=-1, keepdim=True) / largest).clamp(
        min=torch.finfo(torch.float32).tiny
    )
    scaled = (x_XH.float() / scale).clamp(-largest, largest)
    return (scaled.round() if storage == torch.int8 else scaled).to(storage), scale

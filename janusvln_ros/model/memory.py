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
    """
    Keys and values of Z layers, [B, Z, N, K, H] each, in buffers that are made once.

    B counts lanes, episodes that are driven side by side; so far there is one.
    """

    def __init__(
        self,
        layers: int,
        heads: int,
        rows: int,
        head_size: int,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        self.k_BZNKH = torch.zeros(1, layers, heads, rows, head_size, dtype=dtype, device=device)
        self.v_BZNKH = torch.zeros_like(self.k_BZNKH)

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers: the same at every step."""
        return 2 * self.k_BZNKH.nbytes


class SpatialMemory(KeyValueBuffers):
    """
    Final keys (after norm and RoPE) and values of the global blocks in buffers that are made once.

    A frame's slot is overwritten in place when the window has passed it. Positions are local to a
    frame, so the order of slots does not matter: the filled part of the buffers is attended as it
    lies, without a mask. One slot more than there are remembered frames means that a step writes
    only where nothing is remembered: until ``commit`` the memory is what it was before, whatever
    becomes of the step, and a decision can be taken back by doing nothing.

    Where the current frame is written is a tensor of row numbers on the device, set when the frame
    before is committed: once the window is full (``full``), every step is the same work at the
    same addresses, and may be recorded and replayed.

    Args:
        layers: number of global blocks.
        heads, head_size: of their attention.
        tokens: tokens of one frame; fixed, since all frames of an episode have one size.
        window: which frames to keep.
        dtype, device: of the buffers; ``2 * layers * heads * head_size * tokens * window.slots``
            numbers.

    Attributes:
        seen: frames remembered or forgotten since `reset`.
        rows_P: int64, rows of the buffers that the current frame takes.
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
        self._first_P = torch.arange(tokens, device=device)
        self.rows_P = self._first_P.clone()
        self.reset()

    @property
    def frames(self) -> list[int]:
        """Numbers of the remembered frames, ascending."""
        return self.window.frames(self.seen)

    def reset(self) -> None:
        """Forget everything: a new episode begins."""
        self._count(0)

    @property
    def full(self) -> bool:
        """As many frames are remembered as ever will be."""
        return self.seen >= self.window.slots - 1

    def attend(self, layer: int, k_BNPH: Tensor, v_BNPH: Tensor) -> tuple[Tensor, Tensor]:
        """
        Put the current frame's keys and values beside the remembered ones; return all of them, [B,
        N, K, H] each, in slot order.

        Raises:
            InputError: the frame has another number of tokens than the episode's first.
        """
        require(
            k_BNPH.shape[2] == self.tokens,
            f"this frame has {k_BNPH.shape[2]} spatial tokens, earlier ones had "
            f"{self.tokens}: all frames of an episode must have one size",
        )
        k_BNKH, v_BNKH = self.k_BZNKH[:, layer], self.v_BZNKH[:, layer]
        self.put(k_BNKH, k_BNPH)
        self.put(v_BNKH, v_BNPH)
        return k_BNKH[:, :, : self.end], v_BNKH[:, :, : self.end]

    def put(self, rows_BNKH: Tensor, frame_BNPH: Tensor) -> None:
        """Write the current frame's rows among others; of one byte a number, as bytes."""
        if rows_BNKH.element_size() == 1:
            rows_BNKH, frame_BNPH = rows_BNKH.view(torch.int8), frame_BNPH.view(torch.int8)
        rows_BNKH.index_copy_(2, self.rows_P, frame_BNPH)

    @property
    def end(self) -> int:
        """Rows that are attended with the current frame, its own included."""
        return min(self.seen + 1, self.window.slots) * self.tokens

    def _count(self, seen: int) -> None:
        self.seen = seen
        torch.add(self._first_P, self.window.slot(seen) * self.tokens, out=self.rows_P)

    def commit(self) -> None:
        """Remember the frame that was attended last; what it pushed out of the window is gone."""
        self._count(self.seen + 1)


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

    def attend(self, layer: int, k_BNPH: Tensor, v_BNPH: Tensor) -> tuple[Tensor, Tensor]:
        """As `SpatialMemory.attend`; what is returned is in the dtype of the arguments."""
        (k_quantized, k_scale), (v_quantized, v_scale) = (
            quantize_rows(values_BNPH, self.k_BZNKH.dtype) for values_BNPH in (k_BNPH, v_BNPH)
        )
        held = super().attend(layer, k_quantized, v_quantized)
        k_scale_BNK1, v_scale_BNK1 = self.scales.k_BZNKH[:, layer], self.scales.v_BZNKH[:, layer]
        self.put(k_scale_BNK1, k_scale)
        self.put(v_scale_BNK1, v_scale)
        k_BNKH, v_BNKH = (
            bytes_BNKH.to(k_BNPH.dtype) * scale_BNK1[:, :, : self.end].to(k_BNPH.dtype)
            for bytes_BNKH, scale_BNK1 in zip(held, (k_scale_BNK1, v_scale_BNK1))
        )
        self.put(k_BNKH, k_BNPH)
        self.put(v_BNKH, v_BNPH)
        return k_BNKH, v_BNKH


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

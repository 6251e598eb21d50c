"""
Which frames an episode remembers, and the spatial memory that holds them.

Both memories keep the first ``initial`` and the last ``window`` frames of an episode. Frame j is
visible to frame i if and only if ``j <= i and (j < initial or i - j <= window)``: a frame attends
to at most ``initial + window + 1`` frames, itself included, and what can never be seen again is
forgotten. The same rule shapes the mask of a whole episode in training, so both ways compute the
same.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from janusvln_ros.errors import InputError


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


class SpatialMemory:
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
        heads, head_dim: of their attention. tokens: tokens of one frame; fixed, since all frames
        of an episode have one size. window: which frames to keep. dtype, device: of the buffers;
        ``2 * layers * heads * head_dim * tokens * window.slots`` numbers.
    """

    def __init__(
        self,
        layers: int,
        heads: int,
        head_dim: int,
        tokens: int,
        window: FrameWindow,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        self.tokens = tokens
        self.window = window
        self.seen = 0
        self.k_LHND = torch.zeros(
            layers, heads, window.slots * tokens, head_dim, dtype=dtype, device=device
        )
        self.v_LHND = torch.zeros_like(self.k_LHND)

    @property
    def frames(self) -> list[int]:
        """Numbers of the remembered frames, ascending."""
        return self.window.frames(self.seen)

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers: the same at every step."""
        return 2 * self.k_LHND.nbytes

    def reset(self) -> None:
        """Forget everything: a new episode begins."""
        self.seen = 0

    def attend(self, layer: int, k_HPD: Tensor, v_HPD: Tensor) -> tuple[Tensor, Tensor]:
        """
        Put the current frame's keys and values beside the remembered ones; return all of them, [H,
        F*P, D] each, in slot order.

        Raises:
            InputError: the frame has another number of tokens than the episode's first.
        """
        if k_HPD.shape[1] != self.tokens:
            raise InputError(
                f"this frame has {k_HPD.shape[1]} spatial tokens, earlier ones had "
                f"{self.tokens}: all frames of an episode must have one size"
            )
        start = self.window.slot(self.seen) * self.tokens
        self.k_LHND[layer, :, start : start + self.tokens] = k_HPD
        self.v_LHND[layer, :, start : start + self.tokens] = v_HPD
        end = min(self.seen + 1, self.window.slots) * self.tokens
        return self.k_LHND[layer, :, :end], self.v_LHND[layer, :, :end]

    def commit(self) -> None:
        """Remember the frame that was attended last; what it pushed out of the window is gone."""
        self.seen += 1

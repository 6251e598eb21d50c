"""
The way of a camera picture into the encoders: on a CPU as `janusvln_ros.policy.preprocess`
computes it, on a GPU by the same whole numbers there, so that what travels is the camera's bytes.

Pillow resizes bytes in fixed point: coefficients of 22 bits, one pass across and one down, each
rounded to a byte. Done with the same coefficients the result is the same, bit for bit.
"""

from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor

from janusvln_ros.model.network import MERGE
from janusvln_ros.model.spatial import PATCH
from janusvln_ros.policy.preprocess import (
    EVALUATION_PIXELS,
    GROUP,
    LEVELS,
    TEMPORAL,
    pixel_rows,
    resize,
    scaled_height,
    smart_size,
    spatial_input,
)

BITS = 22
"""Of Pillow's coefficients (Resample.c: 32 less 8 for the byte and 2 for headroom)."""

REACH, SHARPNESS = 2.0, -0.5
"""Of Pillow's bicubic filter: pixels to each side, and Keys' parameter."""


class PicturePath:
    """
    What becomes of camera pictures on one device.

    Args:
        image_width: ``navigation.image_width``.
        device: where the encoders are.
    """

    def __init__(self, image_width: int, device: torch.device) -> None:
        self.image_width, self.device = image_width, device
        self._page: Tensor | None = None

    def prepare(
        self, rgb: np.ndarray
    ) -> tuple[Callable[..., tuple[Tensor, Tensor]], tuple[Tensor, ...]]:
        """
        A function, and the tensors on the device to call it with; it returns the spatial encoder's
        input, float32 [3, h, w], and the vision tower's rows, float32 [r * c, 1176].

        Args:
            rgb: uint8 [H, W, 3].

        Raises:
            InputError: as `janusvln_ros.policy.preprocess.resize`.
        """
        if self.device.type == "cpu" or not computable(
            rgb.shape[0], rgb.shape[1], self.image_width
        ):
            resized = resize(rgb, self.image_width)
            arrays = (spatial_input(resized), pixel_rows(resized)[0])
            return unchanged, tuple(torch.from_numpy(a).to(self.device) for a in arrays)
        if self._page is None or self._page.shape != rgb.shape:
            self._page = torch.empty(rgb.shape, dtype=torch.uint8, pin_memory=True)
        # the step before has ended, so its copy has too
        self._page.numpy()[:] = rgb
        frame_HW3 = self._page.to(self.device, non_blocking=True)
        return partial(encoder_inputs, image_width=self.image_width), (frame_HW3,)


def unchanged(image_3hw: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Both as they are."""
    return image_3hw, pixels


def computable(height: int, width: int, image_width: int) -> bool:
    """
    Whether `encoder_inputs` computes what a picture of these sides needs: one resize for both
    encoders, as with every usual camera.
    """
    scaled = scaled_height(height, width, image_width)
    rows = min(scaled, image_width) // GROUP
    if scaled < MERGE * PATCH:
        return False
    shape = (rows * GROUP, image_width // GROUP * GROUP)
    return smart_size(*shape, GROUP, *EVALUATION_PIXELS) == shape


def encoder_inputs(frame_HW3: Tensor, image_width: int) -> tuple[Tensor, Tensor]:
    """
    The inputs of both encoders (`PicturePath.prepare`) of a picture uint8 [H, W, 3] on any device,
    bit for bit as `janusvln_ros.policy.preprocess` computes them.
    """
    H, W, _ = frame_HW3.shape
    scaled = scaled_height(H, W, image_width)
    bytes_hw3 = resampled(resampled(frame_HW3.int(), 1, image_width), 0, scaled)
    top = max(scaled - image_width, 0) // 2
    bytes_3hw = bytes_hw3[top : top + image_width].permute(2, 0, 1)
    _, h, w = bytes_3hw.shape
    share, levels = byte_values(frame_HW3.device)
    rows, columns = h // GROUP, w // GROUP
    # [3, rows, 2, 14, columns, 2, 14] -> groups row by row, patches in them, then channel, y, x
    patches = bytes_3hw[:, : rows * GROUP, : columns * GROUP].unflatten(2, (columns, MERGE, PATCH))
    patches = patches.unflatten(1, (rows, MERGE, PATCH)).permute(1, 4, 2, 5, 0, 3, 6)
    patches_K3Q = patches.reshape(-1, 3, PATCH * PATCH)
    channel_3 = 256 * torch.arange(3, device=patches_K3Q.device)[:, None]
    values_K3Q = levels[patches_K3Q + channel_3]
    pixels = values_K3Q[:, :, None].expand(-1, -1, TEMPORAL, -1).flatten(1)
    return share[bytes_3hw], pixels


def resampled(values: Tensor, dim: int, size: int) -> Tensor:
    """
    int32 bytes resized to ``size`` along a dimension as Pillow's bicubic filter does; int32.
    """
    if values.shape[dim] == size:
        return values
    places_TS, weights_TS = coefficients(values.shape[dim], size, values.device)
    along = [1] * values.dim()
    along[dim] = size
    total: Tensor | int = 1 << (BITS - 1)
    for places_S, weights_S in zip(places_TS, weights_TS):
        total = total + values.index_select(dim, places_S) * weights_S.view(along)
    assert isinstance(total, Tensor)
    return (total >> BITS).clamp(0, 255)


@lru_cache(maxsize=16)
def coefficients(size: int, target: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """
    For each of T taps and ``target`` places: which of ``size`` pixels (int64) and its weight
    (int32, units of 2 ** -22); weight 0 where there is no such tap. Not to be written to.
    """
    scale = size / target
    stretch = max(scale, 1.0)
    reach = REACH * stretch
    taps = 2 * int(np.ceil(reach)) + 1
    places, weights = np.zeros((taps, target), np.int64), np.zeros((taps, target), np.int32)
    for x in range(target):
        center = (x + 0.5) * scale
        first = max(int(center - reach + 0.5), 0)
        end = min(int(center + reach + 0.5), size)
        raw = [bicubic((i - center + 0.5) / stretch) for i in range(first, end)]
        whole = sum(raw)
        for t, value in enumerate(raw):
            share = value / whole * (1 << BITS)
            places[t, x], weights[t, x] = first + t, int(share + (0.5 if share >= 0 else -0.5))
    with torch.inference_mode(False):
        return torch.from_numpy(places).to(device), torch.from_numpy(weights).to(device)


def bicubic(x: float) -> float:
    """Keys' cubic filter at a distance."""
    a, x = SHARPNESS, abs(x)
    if x < 1.0:
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    return (((x - 5.0) * x + 8.0) * x - 4.0) * a if x < REACH else 0.0


@lru_cache(maxsize=4)
def byte_values(device: torch.device) -> tuple[Tensor, Tensor]:
    """
    What a byte is to the spatial encoder, float32 [256], and to the vision tower, channel by
    channel, float32 [768]. Not to be written to.
    """
    share = np.arange(256, dtype=np.uint8).astype(np.float32) / np.float32(255)
    with torch.inference_mode(False):
        return torch.from_numpy(share).to(device), torch.from_numpy(LEVELS.flatten()).to(device)

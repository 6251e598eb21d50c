"""
From a camera picture to the inputs of the two encoders, bit for bit as the published code computes
them.

One resize serves both: the spatial encoder takes the resized picture whole, the vision tower takes
it cut to whole merge groups and cut up into patches. Pictures are NumPy arrays, uint8, RGB, rows
from the top. Nothing here needs torchvision or a processor class.
"""

import math

import numpy as np
from PIL import Image

from janusvln_ros.errors import require
from janusvln_ros.model.network import MERGE
from janusvln_ros.model.spatial import PATCH

GROUP = PATCH * MERGE
"""Side of a merge group in pixels."""

TEMPORAL = 2
"""Frames per temporal patch of the vision tower; a single picture is repeated to fill it."""

EVALUATION_PIXELS = (784, 1605632)
"""Least and most pixels of a picture for the vision tower when driving."""

_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
_STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
LEVELS = ((np.arange(256, dtype=np.float32) / np.float32(255))[None] - _MEAN[:, None]) / _STD[
    :, None
]
"""
All 256 levels, normalised once: float32 [3, 256]. Looking a byte up is exact and several times
faster than computing on floats.
"""


def to_rgb(picture: np.ndarray) -> np.ndarray:
    """
    Check a camera picture and return it as uint8 [H, W, 3]; transparency is laid over white.

    Args:
        picture: uint8 [H, W, 3] (RGB) or [H, W, 4] (RGBA).

    Raises:
        InputError: another type or shape, or a side shorter than one patch.
    """
    is_array = isinstance(picture, np.ndarray)
    what = f"{picture.dtype} {list(picture.shape)}" if is_array else type(picture).__name__
    require(
        is_array
        and picture.dtype == np.uint8
        and picture.ndim == 3
        and picture.shape[2] in (3, 4),
        f"the frame is {what}: give a NumPy array, uint8 [height, width, 3], RGB",
    )
    height, width = picture.shape[:2]
    require(
        min(height, width) >= PATCH,
        f"the frame is {width}x{height} pixels: both sides need at least {PATCH}, "
        "one patch of the encoders",
    )
    if picture.shape[2] == 3:
        return picture
    foreground = Image.fromarray(picture)
    return np.asarray(
        Image.alpha_composite(
            Image.new("RGBA", foreground.size, (255, 255, 255, 255)), foreground
        ).convert("RGB")
    )


def scaled_height(height: int, width: int, image_width: int) -> int:
    """Height in pixels at ``image_width``, a multiple of 14, before what is too tall is cut."""
    # The order of these floating-point operations is part of the format: 480 * (644 / 640) / 14 is
    # a hair above 34.5 and becomes 35 patch rows, where exact arithmetic would give 34 and another
    # picture.
    return round(height * (image_width / width) / PATCH) * PATCH


def resized_shape(height: int, width: int, image_width: int) -> tuple[int, int]:
    """
    Height and width that `resize` gives a picture of ``height`` x ``width`` pixels, both multiples
    of 14.
    """
    return min(scaled_height(height, width, image_width), image_width), image_width


def resize(rgb: np.ndarray, image_width: int) -> np.ndarray:
    """
    Scale to ``image_width`` pixels across, height to the nearest whole patch, and cut what is
    taller than wide to its middle.

    Args:
        rgb: uint8 [H, W, 3] or [H, W, 4].
        image_width: target width in pixels, a multiple of 14 (``navigation.image_width``).

    Returns:
        uint8 [h, w, 3] with w = ``image_width`` and h <= w, both multiples of 14: what the spatial
        encoder sees.

    Raises:
        InputError: the picture is none (`to_rgb`), or so wide that fewer than two rows of patches
            would remain.
    """
    rgb = to_rgb(rgb)
    height, width = rgb.shape[:2]
    scaled = scaled_height(height, width, image_width)
    require(
        scaled >= MERGE * PATCH,
        f"a frame of {width}x{height} pixels leaves {scaled // PATCH} rows of "
        f"patches at width {image_width}: crop it, for example to 4:3",
    )
    resized = bicubic(rgb, scaled, image_width)
    top = max(scaled - image_width, 0) // 2
    return resized[top : top + image_width]


def bicubic(rgb: np.ndarray, height: int, width: int) -> np.ndarray:
    """
    uint8 [H, W, 3] resized by Pillow's bicubic filter, across and then down, as every Pillow did
    that the published code ran on.

    In two calls: from 13 on Pillow goes down first where that is less work (a camera of 800x600
    pixels at width 644), and rounds to bytes in between.
    """
    picture = Image.fromarray(rgb)
    for size in ((width, picture.height), (width, height)):
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    return np.asarray(picture)


def spatial_input(resized: np.ndarray) -> np.ndarray:
    """The spatial encoder's input: float32 [..., 3, h, w] in [0, 1] from uint8 [..., h, w, 3]."""
    planes = np.ascontiguousarray(np.moveaxis(resized, -1, -3))
    return planes.astype(np.float32) / np.float32(255)


def patch_grid(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of whole patches in a picture of so many pixels."""
    return height // PATCH, width // PATCH


def smart_size(
    height: int, width: int, factor: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """
    Height and width the vision tower works at: multiples of ``factor``, area within the limits,
    aspect about kept.

    Raises:
        InputError: one side is more than 200 times the other.
    """
    require(
        max(height, width) <= 200 * min(height, width),
        f"a frame of {width}x{height} pixels is more than 200 times longer than wide: crop it",
    )
    rows, columns = (
        max(factor, round(height / factor) * factor),
        max(factor, round(width / factor) * factor),
    )
    if rows * columns > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        return max(factor, math.floor(height / shrink / factor) * factor), max(
            factor, math.floor(width / shrink / factor) * factor
        )
    if rows * columns < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        return math.ceil(height * grow / factor) * factor, math.ceil(
            width * grow / factor
        ) * factor
    return rows, columns


def patch_rows(
    rgb: np.ndarray, pixel_limits: tuple[int, int] = EVALUATION_PIXELS
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """
    Cut uint8 [h, w, 3] into the vision tower's rows, resizing first where the size or the pixel
    limits ask for it.

    Returns:
        float32 [r * c, 1176] (3 * TEMPORAL * PATCH * PATCH), normalised, and the grid (1, r, c) in
        patches. Rows go through the merge groups row by row and through each group row by row;
        inside a row the order is channel, time, y, x.
    """
    height, width = smart_size(rgb.shape[0], rgb.shape[1], GROUP, *pixel_limits)
    if (height, width) != rgb.shape[:2]:
        rgb = bicubic(np.ascontiguousarray(rgb), height, width)
    rows, columns = patch_grid(height, width)
    bytes_GgMmCyx = rgb.reshape(
        rows // MERGE, MERGE, PATCH, columns // MERGE, MERGE, PATCH, 3
    ).transpose(0, 3, 1, 4, 6, 2, 5)
    values = np.empty((rows * columns, 3, TEMPORAL, PATCH * PATCH), np.float32)
    flat = bytes_GgMmCyx.reshape(rows * columns, 3, PATCH * PATCH)
    for channel in range(3):
        values[:, channel] = LEVELS[channel][flat[:, channel]][:, None]
    return values.reshape(rows * columns, 3 * TEMPORAL * PATCH * PATCH), (1, rows, columns)


def pixel_rows(resized: np.ndarray) -> tuple[np.ndarray, tuple[int, int, int]]:
    """
    The vision tower's rows of a picture that `resize` returned: `patch_rows` of its whole merge
    groups; what is left of one at the bottom and at the right is dropped.
    """
    height, width = resized.shape[:2]
    return patch_rows(resized[: height // GROUP * GROUP, : width // GROUP * GROUP])

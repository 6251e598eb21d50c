"""
Many small pictures on one sheet, so that a home is one mesh with one texture.
"""

from collections.abc import Sequence

import cv2
import numpy as np

WIDTH = 1024
BORDER = 4
"""Texels around a picture that repeat its edge, so that it does not mix with its neighbours."""

JPEG_QUALITY = 88


def pack(pictures: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """
    Lay pictures (uint8 [h, w, 3], no wider than a sheet) out on one.

    Returns:
        The sheet, uint8 [H, W, 3], and where each picture begins on it, int [N, 2] (column, row).
    """
    order = sorted(range(len(pictures)), key=lambda i: (-pictures[i].shape[0], i))
    at = np.zeros((len(pictures), 2), int)
    x = y = shelf = 0
    for i in order:
        high, wide = (n + 2 * BORDER for n in pictures[i].shape[:2])
        if x + wide > WIDTH:
            x, y, shelf = 0, y + shelf, 0
        at[i] = x + BORDER, y + BORDER
        x, shelf = x + wide, max(shelf, high)
    sheet = np.zeros((-(-(y + shelf) // 16) * 16, WIDTH, 3), np.uint8)
    for (column, row), picture in zip(at - BORDER, pictures):
        framed = np.pad(picture, ((BORDER, BORDER), (BORDER, BORDER), (0, 0)), "edge")
        sheet[row : row + framed.shape[0], column : column + framed.shape[1]] = framed
    return sheet, at


def jpeg_bytes(sheet: np.ndarray) -> bytes:
    """A picture as the bytes of a JPEG file, colours as sharp as brightness."""
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    _, data = cv2.imencode(".jpg", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), options)
    return bytes(data)

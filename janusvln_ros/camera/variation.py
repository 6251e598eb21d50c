"""
How cameras differ: mounting, lens, exposure and noise, drawn for training and set for tests.

Pure functions of a picture and a generator. Nothing here is on by default.
"""

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from janusvln_ros.errors import require


@dataclass(frozen=True)
class PictureNoise:
    """
    What a camera does to a picture; the defaults change nothing.

    ``gain`` and ``gamma``: brightness is ``gain * x ** gamma`` for x from 0 to 1.
    ``white_balance``: factors of red, green and blue. ``blur``: standard deviation, as a share of
    the picture's width. ``noise``: standard deviation of every value, of 255. ``jpeg``: quality
    from 1 to 100, 0 for none.

    Raises:
        InputError: a value is out of its range.
    """

    gain: float = 1.0
    gamma: float = 1.0
    white_balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    blur: float = 0.0
    noise: float = 0.0
    jpeg: int = 0

    def __post_init__(self) -> None:
        for name, least, most in (("gain", 0, 10), ("gamma", 0.1, 10), ("blur", 0, 0.2)):
            value = getattr(self, name)
            require(least <= value <= most, f"{name} is {value}: give {least} to {most}")
        require(0 <= self.noise <= 255, f"noise is {self.noise}: give 0 to 255")
        require(0 <= self.jpeg <= 100, f"jpeg is {self.jpeg}: give a quality to 100, 0 for none")


@dataclass(frozen=True)
class CameraDraw:
    """
    A camera: its ``height`` above the floor (metres), its ``tilt`` (degrees, positive looks
    down), its horizontal field of view (degrees), and what it does to its ``picture``.
    """

    height: float = 1.25
    tilt: float = 0.0
    hfov: float = 79.0
    picture: PictureNoise = field(default_factory=PictureNoise)

    @property
    def mounting(self) -> dict[str, Any]:
        """Its height, tilt and field of view by the names that ``EnvSettings`` has for them."""
        return {"camera_height": self.height, "tilt": self.tilt, "hfov": self.hfov}


HEIGHTS_M, TILT_DEG, HFOV_DEG = (0.3, 1.5), 15.0, (60.0, 100.0)
"""What ``draw_camera`` draws from: the range of heights, the largest tilt, the fields of view."""


def draw_camera(rng: np.random.Generator, plain: float = 1 / 3) -> CameraDraw:
    """
    A camera for an episode: with probability ``plain`` the published one without noise; else one
    of any height, tilt and field of view, with an exposure of its own, and now and then blur,
    noise and JPEG.
    """
    if rng.random() < plain:
        return CameraDraw()
    soft, grainy, packed = rng.random(3) < (0.35, 0.5, 0.4)
    return CameraDraw(
        height=round(float(rng.uniform(*HEIGHTS_M)), 3),
        tilt=round(float(rng.uniform(-TILT_DEG, TILT_DEG)), 2),
        hfov=round(float(rng.uniform(*HFOV_DEG)), 2),
        picture=PictureNoise(
            gain=float(np.exp(rng.uniform(-0.6, 0.4))),
            gamma=float(np.exp(rng.normal(0, 0.15))),
            white_balance=(float(rng.uniform(0.9, 1.1)), 1.0, float(rng.uniform(0.9, 1.1))),
            blur=float(rng.uniform(0.001, 0.012)) if soft else 0.0,
            noise=float(rng.uniform(1, 12)) if grainy else 0.0,
            jpeg=int(rng.integers(30, 91)) if packed else 0,
        ),
    )


def noisy(
    rgb_HW3: NDArray[np.uint8], picture: PictureNoise, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """
    The picture as a camera gives it: exposed, blurred, with noise and packed, in this order; the
    same array where nothing changes it.
    """
    if picture == PictureNoise():
        return rgb_HW3
    levels = picture.gain * np.linspace(0, 1, 256) ** picture.gamma * 255
    table = np.clip(levels[:, None] * np.array(picture.white_balance), 0, 255)
    image = np.asarray(cv2.LUT(rgb_HW3, table[None].astype(np.float32)), np.float32)
    if picture.blur:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), picture.blur * rgb_HW3.shape[1]))
    if picture.noise:
        image += rng.standard_normal(image.shape, np.float32) * np.float32(picture.noise)
    result = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    if picture.jpeg:
        _, data = cv2.imencode(".jpg", result, [cv2.IMWRITE_JPEG_QUALITY, picture.jpeg])
        result = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return result

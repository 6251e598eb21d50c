"""
Patterns of floors, walls and paints: factors of brightness around 1, float32 [H, W, 1].

Sizes are in texels; ``per_m`` says how many there are to a metre.
"""

import cv2
import numpy as np

FLOORS = ("planks", "tiles", "checker", "carpet", "stone", "plain")
WALLS = ("plain", "plaster", "stripes", "bricks", "damask", "boards", "tiles")


def noise(
    rng: np.random.Generator, shape: tuple[int, int], cell: tuple[float, float], amount: float
) -> np.ndarray:
    """Smooth noise around 0 with blots of ``cell`` texels (rows, columns)."""
    rows, columns = (max(2, round(n / c) + 1) for n, c in zip(shape, cell))
    coarse = rng.standard_normal((rows, columns), np.float32) * np.float32(amount)
    return np.asarray(cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_LINEAR))


def floor_pattern(
    rng: np.random.Generator, style: str, shape: tuple[int, int], per_m: float
) -> np.ndarray:
    """A floor of one of the ``FLOORS``."""
    if style == "planks":
        turned = bool(rng.random() < 0.5)
        made = _planks(rng, shape[::-1] if turned else shape, per_m)
        made = made.T if turned else made
    elif style in ("tiles", "checker"):
        size = max(3, round(float(rng.uniform(0.2, 0.6)) * per_m))
        made = _tiles(rng, shape, size, 0.5 if style == "checker" else 0.0)
    elif style == "carpet":
        made = 1 + noise(rng, shape, (1.5, 1.5), 0.05) + noise(rng, shape, (14, 14), 0.03)
    elif style == "stone":
        made = 1 + noise(rng, shape, (9, 14), 0.06) + noise(rng, shape, (3, 3), 0.03)
    else:
        made = 1 + noise(rng, shape, (30, 30), 0.02)
    return np.asarray(made, np.float32)[..., None]


def wall_pattern(
    rng: np.random.Generator, style: str, shape: tuple[int, int], per_m: float
) -> np.ndarray:
    """A wall of one of the ``WALLS``."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    if style == "stripes":
        period = float(rng.uniform(0.12, 0.5)) * per_m
        made = np.where(x % period < period * rng.uniform(0.3, 0.6), 0.9, 1.02) + 0.0 * y
    elif style == "bricks":
        made = _bricks(rng, shape, per_m)
    elif style == "damask":
        period = float(rng.uniform(0.2, 0.5)) * per_m
        wave = np.sin(2 * np.pi * x / period) * np.sin(2 * np.pi * y / period)
        made = 1 + 0.09 * np.sign(np.round(wave * 1.2))
    elif style == "boards":
        period = max(4, round(float(rng.uniform(0.1, 0.22)) * per_m))
        tones = rng.uniform(0.94, 1.04, shape[1] // period + 1)
        made = tones[x // period] * np.where(x % period == 0, 0.78, 1.0) + 0.0 * y
    elif style == "tiles":
        made = _tiles(rng, shape, max(3, round(float(rng.uniform(0.12, 0.3)) * per_m)), 0.0)
    elif style == "plaster":
        made = 1 + noise(rng, shape, (6, 6), 0.035) + noise(rng, shape, (24, 24), 0.04)
    else:
        made = 1 + noise(rng, shape, (40, 40), 0.015)
    return np.asarray(made, np.float32)[..., None]


def _planks(rng: np.random.Generator, shape: tuple[int, int], per_m: float) -> np.ndarray:
    """Boards along the columns, each with a tone and a grain."""
    wide = max(3, round(float(rng.uniform(0.09, 0.22)) * per_m))
    long = max(8, round(float(rng.uniform(0.7, 1.8)) * per_m))
    y, x = np.ogrid[: shape[0], : shape[1]]
    row = y // wide
    shift = rng.integers(0, long, shape[0] // wide + 1)[row] + x
    tones = rng.uniform(0.82, 1.12, (shape[0] // wide + 1, shape[1] // long + 2))
    made = tones[row, shift // long] + noise(rng, shape, (1.2, 12), 0.045)
    made[np.broadcast_to((y % wide == 0) | (shift % long == 0), shape)] *= 0.72
    return np.asarray(made)


def _tiles(
    rng: np.random.Generator, shape: tuple[int, int], size: int, checker: float
) -> np.ndarray:
    """Square tiles with joints; ``checker``: how much darker every second one is."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    row, column = y // size, x // size
    tones = rng.uniform(0.94, 1.05, (shape[0] // size + 1, shape[1] // size + 1))
    made = tones[row, column] * np.where((row + column) % 2, 1 - checker, 1.0)
    made[np.broadcast_to((y % size == 0) | (x % size == 0), shape)] = rng.choice([0.72, 1.15])
    return np.asarray(made)


def _bricks(rng: np.random.Generator, shape: tuple[int, int], per_m: float) -> np.ndarray:
    """Bricks with light or dark joints."""
    high, long = max(3, round(0.085 * per_m)), max(6, round(0.25 * per_m))
    y, x = np.ogrid[: shape[0], : shape[1]]
    row = y // high
    shift = x + (row % 2) * (long // 2)
    tones = rng.uniform(0.84, 1.08, (shape[0] // high + 1, shape[1] // long + 2))
    made = tones[row, shift // long]
    made[np.broadcast_to((y % high == 0) | (shift % long == 0), shape)] = rng.choice([0.75, 1.14])
    return np.asarray(made)


def strip_pattern(rng: np.random.Generator, style: str, shape: tuple[int, int]) -> np.ndarray:
    """A paint across the columns: "wood" with a grain, "fabric" with a weave, or "plain"."""
    if style == "wood":
        grain = rng.normal(1.0, 0.07, shape[1])
        made = np.broadcast_to((grain + np.roll(grain, 1)) / 2, shape)
    elif style == "fabric":
        made = rng.normal(1.0, 0.035, shape)
    else:
        made = np.ones(shape)
    return np.asarray(made, np.float32)[..., None]


def book_spines(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Backs of books side by side in dull colours, float32 [H, W, 3] from 0 to 255."""
    image = np.full((*shape, 3), 46.0, np.float32)
    x = 0
    while x < shape[1]:
        thick, high = int(rng.integers(2, 5)), int(rng.uniform(0.7, 1.0) * shape[0])
        image[shape[0] - high :, x : x + thick] = dull(rng)
        x += thick
    return image


def dull(rng: np.random.Generator) -> np.ndarray:
    """A colour of small things and decoration that is never named: float [3], 0 to 255."""
    grey = float(rng.uniform(60, 205))
    return np.clip(grey + rng.uniform(-38, 38, 3), 20, 235)

"""
Light that is baked into the pictures of a home: lamps and windows whose light falls off, corners
and places under things that get less of it, and soft shadows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sim_bridge.homes.furnish import Thing
from sim_bridge.homes.plan import Plan, Rect, Room

REACH_M = 2.4
"""Distance at which a source gives half of its light."""

THIN = {"lamp", "stool", "table", "coat rack", "ladder", "mirror", "desk", "chair"}
"""Kinds that hide little of the floor below them."""


@dataclass(frozen=True)
class Light:
    """
    The light of a room: ``sources`` [K, 3] (x, y, z) with ``strengths`` [K] beside an even share
    ``ambient``, scaled so that the room is of a certain brightness; and its colour ``tint`` [3].
    """

    sources: np.ndarray
    strengths: np.ndarray
    ambient: float
    scale: float
    tint: np.ndarray

    def at(self, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """
        Brightness [...] of surfaces at ``points`` [..., 3] that look along ``normals`` [..., 3].
        """
        total = np.full(points.shape[:-1], self.ambient, np.float32)
        for source, strength in zip(self.sources, self.strengths):
            to = source - points
            square = np.einsum("...i,...i", to, to)
            cosine = np.einsum("...i,...i", to, normals) / np.sqrt(square + 0.01)
            total += strength * np.clip(0.4 + 0.6 * cosine, 0.08, 1) / (1 + square / REACH_M**2)
        total *= self.scale
        # As a camera does, bright places are pressed together before they burn out.
        return np.asarray(np.where(total > 1, 1 + 0.4 * (total - 1), total))


def room_light(
    rng: np.random.Generator,
    plan: Plan,
    room: Room,
    level: float,
    windows: Sequence[tuple[float, float, float]],
) -> Light:
    """
    The light of a room of brightness ``level`` around 1: a lamp below the ceiling, and the light
    from its ``windows``, points (x, y, z).
    """
    x0, z0, x1, z1 = room.rect
    cx, cz = room.centre
    lamp = (
        cx + float(rng.uniform(-0.2, 0.2)) * (x1 - x0),
        plan.wall_height - 0.3,
        cz + float(rng.uniform(-0.2, 0.2)) * (z1 - z0),
    )
    sources, strengths = [lamp], [float(rng.uniform(0.5, 1.4)) * (0.5 if windows else 1.0)]
    for window in windows:
        sources.append(window)
        strengths.append(float(rng.uniform(0.7, 1.6)))
    warm = float(rng.uniform(-1.0, 1.0)) * (0.5 if windows else 1.0)
    tint = np.array([1 + 0.05 * warm, 1.0, 1 - 0.09 * warm], np.float32)
    ambient = float(rng.uniform(0.35, 0.9))
    raw = Light(np.array(sources), np.array(strengths), ambient, 1.0, tint)
    middle = np.array([(cx, 1.2, z0), (cx, 1.2, z1), (x0, 1.2, cz), (x1, 1.2, cz), (cx, 0.0, cz)])
    facing = np.array([(0, 0, 1), (0, 0, -1), (1, 0, 0), (-1, 0, 0), (0, 1, 0)], float)
    return Light(
        raw.sources, raw.strengths, ambient, level / float(raw.at(middle, facing).mean()), tint
    )


def corner(distance: np.ndarray, depth: float, reach: float) -> np.ndarray:
    """The share of light that is left at ``distance`` metres from a corner."""
    return np.asarray(1 - depth * np.exp(-np.maximum(distance, 0) / reach))


def shadow(x: np.ndarray, z: np.ndarray, rect: Rect, soft: float, depth: float) -> np.ndarray:
    """The share of light that a soft shadow over ``rect`` leaves at places x [1, W], z [H, 1]."""

    def inside(at: np.ndarray, low: float, high: float) -> np.ndarray:
        return np.clip(np.minimum(at - low, high - at) / soft + 0.5, 0.0, 1.0)

    return 1 - depth * inside(x, rect[0], rect[2]) * inside(z, rect[1], rect[3])


def floor_shadows(
    x: np.ndarray, z: np.ndarray, things: Sequence[Thing], light: Light
) -> np.ndarray:
    """What the things of a room leave of the light on its floor at places x [1, W], z [H, 1]."""
    left = np.ones((len(z), x.shape[1]), np.float32)
    brightest = light.sources[int(np.argmax(light.strengths))]
    for thing in things:
        dense = 0.5 if thing.kind in THIN else 1.0
        left *= shadow(x, z, thing.rect, 0.22, 0.55 * dense)
        away = thing.centre - brightest[::2]
        away *= min(0.6, 0.3 * thing.height) / (np.linalg.norm(away) + 0.3)
        x0, z0, x1, z1 = thing.rect
        cast = (x0 + away[0], z0 + away[1], x1 + away[0], z1 + away[1])
        left *= shadow(x, z, cast, 0.45, 0.3 * dense)
    return left

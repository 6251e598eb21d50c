"""
Whether a checkpoint fits into this machine, and in which precision, told from its config.json
before a byte of its weights is read.
"""

from dataclasses import dataclass, replace
from typing import cast, get_args

import torch

from janusvln_ros.errors import require
from janusvln_ros.model import JanusVLNConfig
from janusvln_ros.model.config import Memory
from janusvln_ros.model.footprint import (
    AUTO,
    WEIGHT_PRECISIONS,
    FrameSize,
    Need,
    Room,
    Use,
    fitting,
    needed,
    on_paper,
)
from janusvln_ros.model.memory import FrameWindow, SpatialPrecision
from janusvln_ros.model.room import rooms
from janusvln_ros.model.spatial import PATCH
from janusvln_ros.policy.preprocess import patch_grid, resized_shape

CAMERA = (640, 480)
"""
Width and height of the pictures, pixels, where nobody says: those that nodes make of every camera
(`janusvln_ros.camera.view`) have this shape, which alone matters.
"""


@dataclass(frozen=True)
class Fit:
    """
    A use of a checkpoint that fits.

    Attributes:
        config: its settings, with the window that was asked for.
        use: precisions and window.
        need: bytes that it takes.
        device: the memory it goes into.
        why: where the precision was chosen here: which, and why no better one.
    """

    config: JanusVLNConfig
    use: Use
    need: Need
    device: Room
    why: str

    @property
    def spatial_precision(self) -> SpatialPrecision | None:
        """Of the spatial memory."""
        return cast(SpatialPrecision | None, self.use.spatial_precision)


def frame_size(config: JanusVLNConfig, size: tuple[int, int]) -> FrameSize:
    """What a picture of ``size``, width and height in pixels, becomes inside the network."""
    width, height = size
    require(
        min(size) >= PATCH,
        f"the camera's frames are {width}x{height} pixels: a side has at least {PATCH}",
    )
    return FrameSize(*patch_grid(*resized_shape(height, width, config.navigation.image_width)))


def windowed(config: JanusVLNConfig, window: FrameWindow | None) -> JanusVLNConfig:
    """
    The settings with another window; None: their own.

    Raises:
        InputError: frames are negative.
    """
    if window is None:
        return config
    require(
        min(window.initial, window.window) >= 0,
        f"the window is {window.initial} + {window.window} frames: neither may be negative",
    )
    navigation = replace(
        config.navigation, initial_frames=window.initial, window_frames=window.window
    )
    return replace(config, navigation=navigation)


def fit(
    config: JanusVLNConfig,
    device: torch.device,
    *,
    precision: str = AUTO,
    spatial_precision: str | None = None,
    window: FrameWindow | None = None,
    memory: Memory | None = None,
    size: tuple[int, int] = CAMERA,
    there: tuple[Room, Room | None] | None = None,
) -> Fit:
    """
    Find the use of a checkpoint that fits into a device and loses least.

    Args:
        config: its settings.
        device: where it is to compute.
        precision: of the weights: one of `WEIGHT_PRECISIONS`, or `AUTO` for the best that fits.
        spatial_precision: of the spatial memory: int8, float8, None for that of the weights, or
            `AUTO` for int8 where that of the weights does not fit.
        window: frames to remember; None: as the settings say.
        memory: ``released`` or ``dual``; None: as the settings say.
        size: width and height of the camera's pictures, pixels.
        there: memory of the device and of the machine around it (`model.room.rooms`); looked up
            if None.

    Raises:
        InputError: an unknown precision, or nothing of what is asked fits; the sentence says what
            would.
    """
    for name, value, choices in (
        ("precision", precision, (AUTO, *WEIGHT_PRECISIONS)),
        ("spatial_precision", spatial_precision, (AUTO, None, *get_args(SpatialPrecision))),
    ):
        require(value in choices, f"{name} is {value!r}: choose {' or '.join(map(str, choices))}")
    config = windowed(config, window)
    kind: Memory = memory or config.navigation.memory
    frame, network = frame_size(config, size), on_paper(config)
    room, host = there or rooms(device)
    ask = Use(precision, config.navigation.window, spatial_precision)
    use = fitting(config, network, frame, kind, ask, room, host)
    need = needed(config, network, frame, kind, use, host is not None)
    why = ""
    if use != ask:
        why = f"{use} takes {need} of the {room.free / 1e9:.1f} GB free on {room.name}"
    return Fit(config, use, need, room, why)

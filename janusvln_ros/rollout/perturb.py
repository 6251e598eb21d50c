"""
What may come between a simulator and an agent: other cameras, worse pictures, frames that are
lost. For training on more than one camera, and for measuring what an agent bears.
"""

import zlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from janusvln_ros.camera.variation import CameraDraw, PictureNoise, draw_camera, noisy
from janusvln_ros.data.episodes import Episode
from janusvln_ros.errors import require
from sim_bridge import NavEnv


@dataclass(frozen=True)
class PerturbSection:
    """
    ``vary_camera``: every episode has a camera of its own, see `draw_camera`; it replaces height,
    tilt and field of view of ``env``. ``brightness``, ``blur``, ``noise`` and ``jpeg`` are done to
    every picture, see `PictureNoise` (brightness: its gain). ``frame_drop``: the probability that
    the agent is shown the picture before in place of the new one.

    Raises:
        InputError: a value is out of its range.
    """

    vary_camera: bool = False
    brightness: float = 1.0
    blur: float = 0.0
    noise: float = 0.0
    jpeg: int = 0
    frame_drop: float = 0.0

    def __post_init__(self) -> None:
        require(
            0 <= self.brightness <= 10,
            f"perturb.brightness is {self.brightness}: give a factor from 0 to 10",
        )
        require(
            0 <= self.frame_drop < 1,
            f"perturb.frame_drop is {self.frame_drop}: give a probability from 0 to below 1",
        )
        PictureNoise(blur=self.blur, noise=self.noise, jpeg=self.jpeg)


class PerturbedEye:
    """
    The ``Eye`` of these perturbations. What is drawn depends on the seed and the episode alone,
    whoever runs it.
    """

    def __init__(self, perturb: PerturbSection, seed: int) -> None:
        self.perturb, self.seed = perturb, seed
        self._rng = np.random.default_rng(seed)
        self._picture = PictureNoise()
        self._shown: NDArray[np.uint8] | None = None

    def begin(self, env: NavEnv, episode: Episode) -> None:
        """Draw the camera of an episode."""
        name = f"{self.seed}/eye/{episode.scene_id}/{episode.episode_id}"
        self._rng = np.random.default_rng(zlib.crc32(name.encode()))
        asked, camera = self.perturb, CameraDraw()
        if asked.vary_camera:
            camera = draw_camera(self._rng)
            env.mount(**camera.mounting)
        drawn = camera.picture
        self._picture = replace(
            drawn,
            gain=drawn.gain * asked.brightness,
            blur=max(drawn.blur, asked.blur),
            noise=max(drawn.noise, asked.noise),
            jpeg=min(filter(None, (drawn.jpeg, asked.jpeg)), default=0),
        )
        self._shown = None

    def see(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The picture with its noise, or the one before."""
        if self._shown is None or self._rng.random() >= self.perturb.frame_drop:
            self._shown = noisy(rgb, self._picture, self._rng)
        return self._shown

"""Camera messages as they come, to frames as the model wants them."""

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from janusvln_ros.camera.images import blank, decode
from janusvln_ros.camera.view import (
    Intrinsics,
    View,
    fitted,
    plan_view,
    scaled_warning,
    uncalibrated_view,
)
from janusvln_ros.errors import InputError, require


class FrameReader:
    """
    Decodes, checks and rectifies the frames of one camera.

    Keeps the view of the latest intrinsics and the checksum of the last frame; ``warnings`` are
    sentences for the user.

    Args:
        allow_uncalibrated: take frames without intrinsics as they are, cut to 4:3.
        refuse_blank: refuse black frames.
        refuse_frozen: refuse a frame that equals the last one although the camera has moved.
        to_rgb: makes uint8 [h, w, 3] of a message; may raise InputError.
    """

    def __init__(
        self,
        *,
        allow_uncalibrated: bool,
        refuse_blank: bool,
        refuse_frozen: bool,
        to_rgb: Callable[[Any], npt.NDArray[np.uint8]] = decode,
    ):
        self.allow_uncalibrated = allow_uncalibrated
        self.refuse_blank, self.refuse_frozen = refuse_blank, refuse_frozen
        self.to_rgb = to_rgb
        self.camera: Intrinsics | None = None
        self.view: View | None = None
        self.checksum: int | None = None
        self.warnings: list[str] = []

    def reset(self) -> None:
        """Begin an episode: no frame has been seen."""
        self.checksum = None

    def read(self, message: Any, camera: Intrinsics | None, moved: bool) -> npt.NDArray[np.uint8]:
        """
        Return the frame of a camera message as the model should see it, uint8 [h, w, 3].

        ``moved``: the robot has moved since the last one.

        Raises:
            InputError: the frame is malformed, of another shape than the camera's, black, or the
                very one from before the motion.
        """
        rgb = self.to_rgb(message)
        require(not (self.refuse_blank and blank(rgb)), "the frame is black: is the lens covered?")
        checksum = zlib.adler32(rgb)  # type: ignore[arg-type]
        require(
            not (self.refuse_frozen and moved and (checksum == self.checksum)),
            "the frame is the same as before the motion: the camera is frozen",
        )
        size = rgb.shape[1::-1]
        resized = self.view is not None and self.view.source != size
        if self.view is None or camera != self.camera or resized:
            self.view, self.camera = self._plan(camera, *size), camera
            self.warnings += self.view.warnings
        seen = self.view.apply(rgb)
        self.checksum = checksum
        return seen

    def _plan(self, camera: Intrinsics | None, width: int, height: int) -> View:
        try:
            if camera is None:
                raise InputError(
                    "no camera_info has arrived: publish it, or set allow_uncalibrated_camera"
                )
            view = plan_view(fitted(camera, width, height))
            if warning := scaled_warning(camera, width, height):
                self.warnings.append(warning)
            return view
        except InputError:
            if not self.allow_uncalibrated:
                raise
            return uncalibrated_view(width, height)

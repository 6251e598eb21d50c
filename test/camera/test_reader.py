"""Camera messages become the model's frames, with the intrinsics of the moment."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from janusvln_ros.camera.reader import FrameReader
from janusvln_ros.camera.view import Intrinsics
from janusvln_ros.errors import InputError

F = 320 / math.tan(math.radians(39.5))
CAMERA = Intrinsics(640, 480, (F, 0.0, 319.5, 0.0, F, 239.5, 0.0, 0.0, 1.0))


def frame(width, height):
    data = np.random.default_rng(0).integers(9, 255, (height, width, 3), np.uint8).tobytes()
    return SimpleNamespace(
        width=width, height=height, step=width * 3, encoding="rgb8", is_bigendian=0, data=data
    )


def reader():
    return FrameReader(allow_uncalibrated=False, refuse_blank=True, refuse_frozen=True)


def test_frames_that_were_made_smaller_keep_their_view_and_it_is_said_once():
    read = reader()
    for _ in range(2):
        assert read.read(frame(320, 240), CAMERA, False).shape == (240, 320, 3)
        assert read.view.hfov_deg == pytest.approx(79.0, abs=0.1)
    assert len(read.warnings) == 1 and "320 x 240" in read.warnings[0]


def test_a_camera_that_changes_its_size_or_intrinsics_is_fitted_anew():
    read = reader()
    assert read.read(frame(640, 480), CAMERA, False).shape == (480, 640, 3)
    assert read.read(frame(320, 240), CAMERA, False).shape == (240, 320, 3)
    zoomed = Intrinsics(640, 480, (2 * F, 0.0, 319.5, 0.0, 2 * F, 239.5, 0.0, 0.0, 1.0))
    read.read(frame(640, 480), zoomed, False)
    assert read.view.hfov_deg < 50


def test_a_frame_of_another_shape_than_its_camera_is_refused_by_name():
    with pytest.raises(InputError, match="640 x 360, but camera_info is for 640 x 480"):
        reader().read(frame(640, 360), CAMERA, False)


def test_an_episode_may_begin_with_the_frame_that_ended_the_last():
    read = reader()
    read.read(frame(640, 480), CAMERA, False)
    with pytest.raises(InputError, match="camera is frozen"):
        read.read(frame(640, 480), CAMERA, True)
    read.reset()
    read.read(frame(640, 480), CAMERA, True)

"""
Any calibrated camera becomes the one that the model was trained with: straight lines, 79 degrees,
4:3, square pixels, never stretched.
"""

import math

import cv2
import numpy as np
import pytest

from janusvln_ros.camera.view import (
    Intrinsics,
    mounting_warning,
    plan_view,
    project,
    uncalibrated_view,
)
from janusvln_ros.errors import InputError

TAN = math.tan(math.radians(39.5))


def pinhole(width, height, hfov=None, f=None, d=(), model="plumb_bob", cx=None, cy=None, fy=None):
    f = f or width / 2 / math.tan(math.radians(hfov) / 2)
    cx, cy = (width - 1) / 2 if cx is None else cx, (height - 1) / 2 if cy is None else cy
    return Intrinsics(
        width, height, (f, 0.0, cx, 0.0, fy or f, cy, 0.0, 0.0, 1.0), tuple(d), model
    )


def seen_by(camera, tangents=8):
    """
    What the camera sees of a plane ahead that shows its own coordinates: red grows to the right,
    green downwards, over +-2 tangents.
    """
    v, u = np.mgrid[0 : camera.height, 0 : camera.width]
    k = np.array(camera.k).reshape(3, 3)
    pixels = np.stack([u, v], -1).reshape(-1, 1, 2).astype(np.float64)
    if camera.model == "equidistant":
        rays = cv2.fisheye.undistortPoints(pixels, k, np.array(camera.d))
    else:
        rays = cv2.undistortPoints(pixels, k, np.array(camera.d or [0.0] * 4))
    rays = rays.reshape(camera.height, camera.width, 2)
    picture = np.zeros((camera.height, camera.width, 3), np.uint8)
    picture[..., :2] = np.clip((rays + 2) / 4 * 255, 0, 255)
    return picture


def directions(picture):
    """The reverse: the direction at each pixel, as the picture says."""
    return picture[..., :2].astype(float) / 255 * 4 - 2


def test_the_simulators_camera_passes_untouched():
    view = plan_view(pinhole(640, 480, 79))
    frame = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    assert view.apply(frame) is frame and view.warnings == ()


CAMERAS = {
    "wide 16:9": pinhole(640, 360, 110),
    "4:3, 100 degrees": pinhole(640, 480, 100),
    "off centre": pinhole(800, 600, f=300, cx=360, cy=320),
    "pixels that are not square": pinhole(640, 480, f=230, fy=280),
    "barrel distortion": pinhole(640, 480, f=260, d=(-0.25, 0.06, 0.001, -0.001, 0.0)),
    "rational model": pinhole(
        640, 480, f=260, d=(0.1, 0.05, 0.0, 0.0, 0.01, 0.3, 0.1, 0.02), model="rational_polynomial"
    ),
    "fisheye": pinhole(640, 480, f=190, d=(0.02, -0.01, 0.003, -0.001), model="equidistant"),
}


@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS)
def test_the_view_is_79_degrees_straight_and_square(camera):
    view = plan_view(camera)
    out = directions(view.apply(seen_by(camera)))
    height, width = out.shape[:2]
    assert width / height == pytest.approx(4 / 3, abs=0.01)
    wanted_x = ((np.arange(width) + 0.5) / width * 2 - 1) * TAN
    wanted_y = ((np.arange(height) + 0.5) / height * 2 - 1) * TAN * 0.75
    assert (
        np.abs(out[..., 0] - wanted_x).max() < 0.05
        and np.abs(out[..., 1] - wanted_y[:, None]).max() < 0.05
    )
    assert view.hfov_deg == pytest.approx(79, abs=1) and view.warnings == ()


@pytest.mark.parametrize(
    ("camera", "hfov"),
    [
        (pinhole(640, 480, 60), 60.1),
        (pinhole(1280, 720, 69.4), 55),
        (pinhole(640, 480, f=330, cx=220), 68),
        (pinhole(640, 480, f=450, d=(-0.3, 0.1, 0, 0, 0)), 77),
    ],
    ids=["60 degrees", "16:9 of 69 degrees", "off centre", "distorted"],
)
def test_a_narrower_camera_is_warned_of_and_never_stretched(camera, hfov):
    view = plan_view(camera)
    assert (
        view.hfov_deg <= hfov
        and len(view.warnings) == 1
        and f"{view.hfov_deg:.1f} of the 79" in view.warnings[0]
    )
    out = directions(view.apply(seen_by(camera)))
    per_pixel_x, per_pixel_y = (
        np.diff(out[..., 0], axis=1).mean(),
        np.diff(out[..., 1], axis=0).mean(),
    )
    assert per_pixel_x == pytest.approx(per_pixel_y, rel=0.03)
    low, high = (
        project(
            camera,
            np.array([[-1.0, -0.75], [1.0, 0.75]]) * math.tan(math.radians(view.hfov_deg / 2)),
        )
    ).tolist()
    # only what the camera sees
    assert min(low) > -2 and high[0] < camera.width + 1 and high[1] < camera.height + 1


@pytest.mark.parametrize(
    ("camera", "words"),
    [
        (Intrinsics(640, 480, (0.0,) * 9), "no usable intrinsics"),
        (Intrinsics(640, 480, (math.nan,) * 9), "no usable intrinsics"),
        (pinhole(640, 480, 79, d=(math.inf,)), "no usable intrinsics"),
        (pinhole(640, 480, 79, model="thin_prism"), "'thin_prism'"),
        (Intrinsics(0, 0, pinhole(640, 480, 79).k), "0 x 0"),
        (pinhole(640, 480, f=300, cx=5000), "no view"),
    ],
)
def test_intrinsics_that_cannot_be_used_are_named(camera, words):
    with pytest.raises(InputError, match=words):
        plan_view(camera)


@pytest.mark.parametrize(
    "model", ["", "none", "pinhole", "plumb_bob", "rational_polynomial", "equidistant", "kb4"]
)
@pytest.mark.parametrize("count", [1, 2, 4, 5, 8])
def test_coefficients_that_are_all_zero_are_straight_under_any_name(model, count):
    wide = pinhole(640, 480, 100, d=[0.0] * count, model=model)
    frame = seen_by(pinhole(640, 480, 100))
    expected = plan_view(pinhole(640, 480, 100)).apply(frame)
    assert np.array_equal(plan_view(wide).apply(frame), expected)


@pytest.mark.parametrize("model", ["", "none", "pinhole", "plumb_bob"])
def test_no_coefficients_are_straight_where_the_name_says_so(model):
    assert plan_view(pinhole(640, 480, 79, model=model)).maps is None


@pytest.mark.parametrize(
    ("model", "count", "words"),
    [
        ("plumb_bob", 2, r"2 distortion coefficients .*'plumb_bob', which has 4 or 5 or 8"),
        ("rational_polynomial", 6, "6 distortion coefficients"),
        ("", 1, "1 distortion coefficients"),
        ("equidistant", 5, r"5 distortion coefficients .*'equidistant', which has 4:"),
        ("equidistant", 2, "2 distortion coefficients"),
        ("none", 5, r"5 distortion coefficients .*'none', which has none"),
        ("kb4", 4, "distortion model 'kb4'"),
    ],
)
def test_coefficients_that_do_not_fit_their_model_are_a_sentence(model, count, words):
    with pytest.raises(InputError, match=words):
        plan_view(pinhole(640, 480, 100, d=[0.01] * count, model=model))


@pytest.mark.parametrize("count", [4, 5, 8, 12, 14])
def test_every_number_of_coefficients_that_opencv_knows_is_taken(count):
    plan_view(pinhole(640, 480, 100, d=[0.001] * count, model="rational_polynomial"))


def test_a_frame_of_another_size_than_camera_info_is_refused():
    for camera in (pinhole(640, 480, 79), pinhole(640, 480, 100)):
        with pytest.raises(InputError, match="320 x 240, but camera_info is for 640 x 480"):
            plan_view(camera).apply(np.zeros((240, 320, 3), np.uint8))


@pytest.mark.parametrize(
    ("size", "cut"), [((640, 360), (480, 360)), ((480, 640), (480, 360)), ((640, 480), (640, 480))]
)
def test_without_intrinsics_the_middle_is_cut_to_shape(size, cut):
    view = uncalibrated_view(*size)
    frame = (
        np.arange(size[0] * size[1] * 3, dtype=np.uint32)
        .astype(np.uint8)
        .reshape(size[1], size[0], 3)
    )
    out = view.apply(frame)
    assert (
        out.shape == (cut[1], cut[0], 3)
        and "no intrinsics" in view.warnings[0]
        and view.hfov_deg is None
    )
    top, left = (size[1] - cut[1]) // 2, (size[0] - cut[0]) // 2
    assert np.array_equal(out, frame[top : top + cut[1], left : left + cut[0]])


def test_a_camera_at_another_height_is_warned_of():
    assert mounting_warning(0.0) is None and mounting_warning(1.3) is None
    assert "0.3 m above" in mounting_warning(0.3)

"""
Any calibrated camera becomes the one that the model was trained with: straight lines, 79 degrees,
4:3, square pixels, never stretched.
"""

import math
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from janusvln_ros.camera.view import (
    Intrinsics,
    fitted,
    intrinsics_of,
    mounting_warning,
    plan_view,
    project,
    scaled_warning,
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


def info(camera, p=None, roi=(0, 0, 0, 0), binning=(0, 0)):
    """The camera as a ``sensor_msgs/CameraInfo``; ``p``: the first three columns of its P."""
    p = (0.0,) * 9 if p is None else p
    region = SimpleNamespace(x_offset=roi[0], y_offset=roi[1], width=roi[2], height=roi[3])
    return SimpleNamespace(
        width=camera.width,
        height=camera.height,
        k=camera.k,
        d=camera.d,
        distortion_model=camera.model,
        p=(*p[0:3], 0.0, *p[3:6], 0.0, *p[6:9], 0.0),
        roi=region,
        binning_x=binning[0],
        binning_y=binning[1],
    )


BIG = pinhole(1280, 960, f=520, d=(-0.25, 0.06, 0.001, -0.001, 0.0), cx=620, cy=490)
SENT = {
    "binned": ((0, 0, 0, 0), (4, 4)),
    "resized without a word": ((0, 0, 0, 0), (0, 0)),
    "binned, and the driver has forgotten by how much": ((0, 0, 0, 0), (2, 2)),
    "a region": ((160, 80, 960, 720), (0, 0)),
    "a region, binned": ((160, 80, 960, 720), (2, 2)),
    "the whole as a region": ((0, 0, 1280, 960), (1, 1)),
}


def sent(picture, roi, size):
    """What the driver sends of the full picture: a window of it, in super-pixels."""
    x, y, w, h = roi if roi[2] else (0, 0, picture.shape[1], picture.shape[0])
    return cv2.resize(picture[y : y + h, x : x + w], size, interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize(("roi", "binning"), SENT.values(), ids=SENT)
def test_the_view_is_straight_whatever_region_of_the_picture_is_sent_and_how_coarse(roi, binning):
    size = (480, 360) if roi[2] == 960 else (320, 240)
    frame = sent(seen_by(BIG), roi, size)
    view = plan_view(fitted(intrinsics_of(info(BIG, roi=roi, binning=binning)), *size))
    out = directions(view.apply(frame))
    height, width = out.shape[:2]
    half = math.tan(math.radians(view.hfov_deg) / 2)
    wanted = ((np.arange(width) + 0.5) / width * 2 - 1) * half
    assert np.abs(out[..., 0] - wanted).max() < 0.06
    down = ((np.arange(height) + 0.5) / height * 2 - 1) * half * 0.75
    assert np.abs(out[..., 1] - down[:, None]).max() < 0.06
    assert view.hfov_deg > 70


@pytest.mark.parametrize("scale", [0.25, 0.5, 2.0])
def test_intrinsics_follow_the_size_of_the_frames(scale):
    size = (round(1280 * scale), round(960 * scale))
    camera = fitted(BIG, *size)
    assert (camera.width, camera.height) == size
    assert camera.k[0] == camera.k[4] == pytest.approx(520 * scale)
    # pixel centres lie at whole numbers
    assert camera.k[2] == pytest.approx((620 + 0.5) * scale - 0.5)
    assert fitted(BIG, 1280, 960).k == pytest.approx(BIG.k)


def test_binning_may_differ_across_and_down():
    wide = replace(BIG, binning=(2, 1))
    camera = fitted(wide, 640, 960)
    assert camera.k[0] == pytest.approx(260) and camera.k[4] == pytest.approx(520)
    assert scaled_warning(wide, 640, 960) is None


def test_a_region_moves_the_principal_point_and_keeps_the_focal_length():
    camera = fitted(replace(BIG, roi=(600, 400, 320, 240)), 320, 240)
    assert camera.k[0] == 520 and (camera.k[2], camera.k[5]) == pytest.approx((20, 90))


@pytest.mark.parametrize(
    ("camera", "size", "words"),
    [
        (BIG, (640, 360), "the frame is 640 x 360, but camera_info is for 1280 x 960"),
        (replace(BIG, binning=(2, 2)), (640, 400), "binned 2 x 2"),
        (replace(BIG, roi=(0, 0, 640, 480)), (480, 480), r"of it 640 x 480 at \(0, 0\)"),
        (replace(BIG, roi=(700, 0, 640, 480)), (640, 480), "outside its 1280 x 960"),
        (replace(BIG, width=0, height=0), (320, 240), "says 0 x 0 pixels"),
        (replace(BIG, k=(0.0,) * 9), (1280, 960), "no usable intrinsics"),
        (replace(BIG, k=(520.0, 0, 620, 0, 0, 490, 0, 0, 1)), (1280, 960), "no usable"),
        (replace(BIG, k=(520.0, 0, math.nan, 0, 520, 490, 0, 0, 1)), (1280, 960), "no usable"),
        (replace(BIG, k=(520.0, 0, 0, 0, 520, 490, 0, 0, 1)), (1280, 960), "principal point"),
        (replace(BIG, k=(520.0, 0, 620, 0, 520, 0, 0, 0, 1)), (1280, 960), "principal point"),
        (replace(BIG, k=(520.0, 0, 1e6, 0, 520, 490, 0, 0, 1)), (1280, 960), "outside its 1280"),
        (replace(BIG, k=(520.0, 0, 620, 0, 520, 970, 0, 0, 1)), (1280, 960), "outside its 1280"),
        (replace(BIG, k=(1e-3, 0, 620, 0, 520, 490, 0, 0, 1)), (1280, 960), "as no lens has"),
        (replace(BIG, k=(520.0, 0, 620, 0, 1e-3, 490, 0, 0, 1)), (1280, 960), "as no lens has"),
    ],
)
def test_frames_that_do_not_fit_their_camera_are_refused_by_name(camera, size, words):
    with pytest.raises(InputError, match=words):
        fitted(camera, *size)


def test_a_camera_info_without_size_is_that_of_the_frames_if_its_principal_point_is():
    k = pinhole(640, 480, 79).k
    assert fitted(Intrinsics(0, 0, k), 640, 480).k == k
    with pytest.raises(InputError, match="not that of frames of 320 x 240"):
        fitted(Intrinsics(0, 0, k), 320, 240)


def test_a_camera_info_with_p_alone_is_of_rectified_pictures():
    empty = replace(BIG, k=(0.0,) * 9)
    camera = intrinsics_of(info(empty, p=BIG.k))
    assert camera.k == BIG.k and camera.d == ()
    assert intrinsics_of(info(BIG)) == BIG  # and one without P is as it is
    p = pinhole(1280, 960, f=400).k
    assert intrinsics_of(info(BIG, p=p)).k == BIG.k
    assert intrinsics_of(info(BIG, p=p), rectified=True).k == p
    assert intrinsics_of(info(BIG), rectified=True).k == BIG.k


def test_a_scale_that_the_camera_does_not_tell_of_is_warned_of():
    assert "320 x 240, camera_info for 1280 x 960" in scaled_warning(BIG, 320, 240)
    assert scaled_warning(BIG, 1280, 960) is None
    assert scaled_warning(replace(BIG, binning=(4, 4)), 320, 240) is None
    assert scaled_warning(replace(BIG, width=0, height=0), 320, 240) is None


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


def test_a_frame_of_another_size_than_the_view_is_refused():
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


@pytest.mark.parametrize("place", [0, 4])
@pytest.mark.parametrize("focal", [0.0, -520.0, math.nan, math.inf])
def test_a_focal_length_is_above_zero_in_both_directions(place, focal):
    k = [520.0, 0.0, 320.0, 0.0, 520.0, 240.0, 0.0, 0.0, 1.0]
    k[place] = focal
    for use in (plan_view, lambda camera: fitted(camera, 640, 480)):
        with pytest.raises(InputError, match="no usable intrinsics"):
            use(Intrinsics(640, 480, tuple(k)))

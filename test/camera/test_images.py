"""Camera messages become arrays, or an error that names what is wrong with them."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from janusvln_ros.camera.images import (
    blank,
    compressed_to_rgb,
    decode,
    depth_to_metres,
    image_data,
    image_to_rgb,
)
from janusvln_ros.errors import InputError

RGB = np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8)


def image(encoding, pixels, step=None, data=None, **fields):
    height, width = pixels.shape[:2]
    raw = np.ascontiguousarray(pixels).tobytes() if data is None else data
    step = len(raw) // height if step is None else step
    return SimpleNamespace(
        **{
            "height": height,
            "width": width,
            "encoding": encoding,
            "step": step,
            "is_bigendian": 0,
            "data": raw,
        }
        | fields
    )


def padded(message, extra):
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    message.data = np.pad(rows, ((0, 0), (0, extra)), constant_values=77).tobytes()
    message.step += extra
    return message


@pytest.mark.parametrize("extra", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "pixels"),
    [
        ("rgb8", RGB),
        ("bgr8", RGB[..., ::-1]),
        ("8UC3", RGB[..., ::-1]),
        ("rgba8", np.dstack([RGB, np.full((6, 8), 9, np.uint8)])),
        ("bgra8", np.dstack([RGB[..., ::-1], np.full((6, 8), 9, np.uint8)])),
    ],
)
def test_colours_come_out_red_first_whatever_the_order_and_the_padding(encoding, pixels, extra):
    out = image_to_rgb(padded(image(encoding, pixels), extra))
    assert out.dtype == np.uint8 and out.flags.c_contiguous and np.array_equal(out, RGB)


@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_grey_becomes_three_equal_channels(encoding):
    assert np.array_equal(
        image_to_rgb(padded(image(encoding, RGB[..., 0]), 3)), np.repeat(RGB[..., :1], 3, 2)
    )


@pytest.mark.parametrize(
    ("encoding", "order"),
    [("yuv422", "uyvy"), ("uyvy", "uyvy"), ("yuv422_yuy2", "yuyv"), ("yuyv", "yuyv")],
)
def test_yuv_422_in_either_byte_order(encoding, order):
    # BT.601, limited range: a saturated red, computed by hand
    y, u, v = 81, 90, 240
    pair = [u, y, v, y] if order == "uyvy" else [y, u, y, v]
    out = image_to_rgb(
        padded(image(encoding, np.zeros((4, 6, 2), np.uint8), data=bytes(pair * 12)), 2)
    )
    assert out.shape == (4, 6, 3) and np.abs(out.astype(int) - [254, 0, 0]).max() <= 2


def test_the_last_row_may_come_without_its_padding():
    message = padded(image("rgb8", RGB), 4)
    message.data = message.data[:-4]
    assert np.array_equal(image_to_rgb(message), RGB)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"encoding": "bayer_rggb8"}, "'bayer_rggb8'"),
        ({"encoding": ""}, "encoding is ''"),
        ({"width": 0}, "0 x 6"),
        ({"height": 0}, "8 x 0"),
        ({"width": 100_000}, "100000 x 6"),
        ({"step": 23}, "step is 23"),
        ({"data": b"12345"}, "5 bytes"),
        ({"data": b""}, "0 bytes"),
        ({"height": 7}, "needs 168"),
    ],
)
def test_a_malformed_image_is_named(change, words):
    with pytest.raises(InputError, match=words):
        decode(SimpleNamespace(**vars(image("rgb8", RGB)) | change))


def test_odd_width_has_no_422():
    with pytest.raises(InputError, match="even width"):
        image_to_rgb(image("yuv422", np.zeros((4, 5, 2), np.uint8)))


def compressed(data, form="jpeg"):
    return SimpleNamespace(format=form, data=data)


SMOOTH = np.dstack([np.tile(np.linspace(0, 255, 64, dtype=np.uint8), (48, 1))] * 3)
JPEG = cv2.imencode(".jpg", SMOOTH)[1].tobytes()
PNG = cv2.imencode(".png", RGB[..., ::-1])[1].tobytes()


def test_jpeg_and_png_come_out_red_first():
    assert np.array_equal(compressed_to_rgb(compressed(PNG, "png")), RGB)
    assert (
        np.abs(decode(compressed(JPEG, "rgb8; jpeg compressed bgr8")).astype(int) - SMOOTH).mean()
        < 3
    )
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 2] = 255
    assert decode(compressed(cv2.imencode(".jpg", red)[1].tobytes()))[8, 8].tolist()[0] > 240


@pytest.mark.parametrize(
    "data", [JPEG[:-2], JPEG[: len(JPEG) // 2], JPEG[:20], PNG[:-12], PNG[: len(PNG) // 2]]
)
def test_a_picture_cut_short_is_refused_rather_than_filled_with_grey(data):
    with pytest.raises(InputError, match="cut short"):
        compressed_to_rgb(compressed(data))


def test_zeros_after_the_end_of_a_jpeg_are_padding():
    assert compressed_to_rgb(compressed(JPEG + b"\0" * 16)).shape == (48, 64, 3)


@pytest.mark.parametrize("data", [b"", b"not a picture at all", b"\xff\xd8\xff\xd9"])
def test_no_picture_is_refused(data):
    with pytest.raises(InputError, match="image"):
        compressed_to_rgb(compressed(data))


@pytest.mark.parametrize("big", [0, 1])
@pytest.mark.parametrize(
    ("encoding", "kind", "scale"), [("32FC1", "f4", 1), ("16UC1", "u2", 1000)]
)
def test_depth_in_metres_in_either_byte_order(encoding, kind, scale, big):
    depth = np.array([[1.5, 2.25], [0.0, 4.0]], np.float32)
    raw = (depth * scale).astype((">" if big else "<") + kind).tobytes()
    out = depth_to_metres(padded(image(encoding, depth, data=raw, is_bigendian=big), 4))
    assert np.allclose(out, [[1.5, 2.25], [np.nan, 4.0]], equal_nan=True)


def test_depth_that_is_not_a_number_zero_or_not_ahead_is_unknown():
    depth = np.array([[np.nan, 0.0, -1.0, 3.0]], np.float32)
    out = depth_to_metres(image("32FC1", depth))
    assert np.array_equal(out, [[np.nan, np.nan, np.nan, 3.0]], equal_nan=True)


def test_depth_says_what_is_too_near_and_what_is_beyond_its_range():
    depth = np.array([[-np.inf, np.inf]], np.float32)
    assert np.array_equal(depth_to_metres(image("32FC1", depth)), depth)


def test_depth_of_another_encoding_is_named():
    with pytest.raises(InputError, match="'rgb8'"):
        depth_to_metres(image("rgb8", RGB))


def test_black_frames_are_blank_and_dark_rooms_are_not():
    assert blank(np.zeros((4, 4, 3), np.uint8)) and blank(np.full((4, 4, 3), 8, np.uint8))
    assert not blank(np.pad(np.full((1, 1, 3), 30, np.uint8), ((0, 9), (0, 9), (0, 0))))


def test_data_for_a_message_is_an_array_of_its_bytes():
    assert image_data(RGB).tobytes() == RGB.tobytes() and image_data(RGB).typecode == "B"

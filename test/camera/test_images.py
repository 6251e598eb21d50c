"""Camera messages become arrays, or an error that names what is wrong with them."""

import struct
import zlib
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
    jpeg_end,
    picture_size,
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


TRAILERS = [b"\r\n", b"\0" * 4096, b"\xff" * 7, b"SEFT trailer", b"--frame\r\n", b"\xff\xd9"]


@pytest.mark.parametrize("trailer", TRAILERS)
def test_what_follows_a_whole_picture_is_not_looked_at(trailer):
    assert decode(compressed(JPEG + trailer)).shape == (48, 64, 3)
    assert np.array_equal(decode(compressed(PNG + trailer, "png")), RGB)


@pytest.mark.parametrize(
    "options",
    [
        [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
        [cv2.IMWRITE_JPEG_RST_INTERVAL, 2],
        [cv2.IMWRITE_JPEG_QUALITY, 100],
    ],
    ids=["progressive", "restarts", "best"],
)
def test_every_kind_of_jpeg_ends_where_its_picture_does(options):
    noise = np.random.default_rng(2).integers(0, 255, (64, 80, 3), np.uint8)
    whole = cv2.imencode(".jpg", noise, options)[1].tobytes()
    assert jpeg_end(whole) == jpeg_end(whole + b"\xff\xd9") == len(whole)
    for cut in (len(whole) - 1, len(whole) - 2, len(whole) * 2 // 3, len(whole) // 3, 30, 3):
        assert jpeg_end(whole[:cut]) is None


def test_end_marker_of_a_thumbnail_is_not_that_of_the_picture():
    thumbnail = b"Exif\0\0" + JPEG
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    nested = JPEG[:2] + segment + JPEG[2:]
    assert jpeg_end(nested) == len(nested) and decode(compressed(nested)).shape == (48, 64, 3)
    with pytest.raises(InputError, match="cut short"):
        decode(compressed(nested[:-40]))


def test_marker_bytes_within_a_chunk_of_a_png_are_no_end():
    text = b"Comment\0IEND\xae\x42\x60\x82"
    chunk = len(text).to_bytes(4, "big") + b"tEXt" + text
    chunk += zlib.crc32(chunk[4:]).to_bytes(4, "big")
    assert np.array_equal(decode(compressed(PNG[:33] + chunk + PNG[33:], "png")), RGB)
    with pytest.raises(InputError, match="cut short"):
        decode(compressed(PNG[:33] + chunk, "png"))


BLUE_SKY = np.zeros((16, 16, 3), np.uint8)
BLUE_SKY[...] = (30, 90, 220)  # red first


@pytest.mark.parametrize("codec", [".jpg", ".png"])
@pytest.mark.parametrize(
    ("form", "stored"),
    [
        # as compressed_image_transport's publisher writes them
        ("rgb8; jpeg compressed bgr8", "standard"),
        ("bgr8; jpeg compressed bgr8", "standard"),
        ("bgra8; png compressed bgr8", "standard"),
        ("rgb16; png compressed bgr16", "standard"),
        # publishers that say nothing of the order
        ("jpeg", "standard"),
        ("png", "standard"),
        ("", "standard"),
        ("rgb8", "standard"),
        ("rgb8;jpeg compressed bgr8", "standard"),
        # others hand red-first pixels to an encoder that takes them as blue-first
        ("rgb8; jpeg compressed rgb8", "red first"),
        ("rgb8; jpeg compressed ", "red first"),
        ("bgr8; png compressed rgb8", "red first"),
    ],
)
def test_colour_order_is_what_the_format_says(form, stored, codec):
    pixels = BLUE_SKY if stored == "red first" else BLUE_SKY[..., ::-1]
    data = cv2.imencode(codec, np.ascontiguousarray(pixels))[1].tobytes()
    assert np.abs(decode(compressed(data, form))[8, 8].astype(int) - (30, 90, 220)).max() < 6


FILTERS = {
    "bayer_rggb8": "RGGB",
    "bayer_bggr8": "BGGR",
    "bayer_gbrg8": "GBRG",
    "bayer_grbg8": "GRBG",
}


def mosaic_of(tile):
    """What a sensor behind this colour filter sees of a plain wall: one byte per pixel."""
    seen = {"R": 30, "G": 90, "B": 220}
    return np.tile(np.array([seen[c] for c in tile], np.uint8).reshape(2, 2), (8, 8))


@pytest.mark.parametrize(("encoding", "tile"), FILTERS.items())
def test_mosaics_get_their_colours_raw_and_compressed(encoding, tile):
    mosaic = mosaic_of(tile)
    for out in (
        decode(padded(image(encoding, mosaic), 3)),
        decode(
            compressed(cv2.imencode(".png", mosaic)[1].tobytes(), f"{encoding}; png compressed ")
        ),
        decode(
            compressed(
                cv2.imencode(".jpg", mosaic, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes(),
                f"{encoding}; jpeg compressed {encoding}",
            )
        ),
    ):
        assert np.abs(out[4:-4, 4:-4].astype(int) - (30, 90, 220)).max() < 6


def test_mosaic_that_the_publisher_turned_into_a_picture_is_left_alone():
    # compressed_image_transport turns a mosaic into mono8 before it compresses it as JPEG
    grey = cv2.imencode(".jpg", SMOOTH[..., 0])[1].tobytes()
    out = decode(compressed(grey, "bayer_rggb8; jpeg compressed mono8"))
    assert np.abs(out.astype(int) - SMOOTH).mean() < 3
    blue = cv2.imencode(".png", np.ascontiguousarray(BLUE_SKY[..., ::-1]))[1].tobytes()
    assert decode(compressed(blue, "bayer_rggb8; png compressed bgr8"))[8, 8].tolist() == [
        30,
        90,
        220,
    ]


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ("bayer_rggb16; png compressed ", "bayer_rggb16"),
        ("16UC1; compressedDepth png", "depth is no picture"),
    ],
)
def test_compressed_images_that_are_no_picture_of_a_camera_are_named(form, words):
    with pytest.raises(InputError, match=words):
        decode(compressed(PNG, form))


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


def png_of(width, height):
    """A PNG that is whole and announces so many pixels, of which it has none."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def jpeg_of(width, height):
    """A JPEG of 4 x 4 pixels that announces so many."""
    data = bytearray(cv2.imencode(".jpg", np.zeros((4, 4, 3), np.uint8))[1].tobytes())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize("make", [png_of, jpeg_of])
@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((65535, 65535), "each side must be 1 to 8192"),
        ((8192, 8192), "JANUSVLN_MAX_PICTURE_PIXELS"),
        ((0, 8), "each side must be 1"),
    ],
)
def test_a_picture_is_refused_by_what_its_head_says_before_it_is_decoded(
    make, size, words, monkeypatch
):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(InputError, match=words):
        decode(SimpleNamespace(format="", data=make(*size)))


def test_the_limit_of_pixels_can_be_raised(monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: RGB)
    monkeypatch.setenv("JANUSVLN_MAX_PICTURE_PIXELS", "100000000")
    assert decode(SimpleNamespace(format="jpeg", data=jpeg_of(8192, 8192))).shape == RGB.shape


@pytest.mark.parametrize(
    "options",
    [[], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 1]],
)
def test_the_size_of_every_kind_of_jpeg_and_of_a_png_is_found_in_its_head(options):
    assert picture_size(cv2.imencode(".jpg", RGB, options)[1].tobytes()) == (8, 6)
    assert picture_size(cv2.imencode(".png", RGB)[1].tobytes()) == (8, 6)


def test_formats_that_no_camera_publishes_are_not_decoded(monkeypatch):
    data = cv2.imencode(".bmp", RGB)[1].tobytes()
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(InputError, match="no JPEG or PNG"):
        decode(SimpleNamespace(format="bmp", data=data))


def test_one_row_with_a_step_beyond_all_memory_is_one_row():
    message = image("rgb8", RGB[:1], step=2**32 - 1)
    np.testing.assert_array_equal(decode(message), RGB[:1])

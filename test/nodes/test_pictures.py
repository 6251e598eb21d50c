"""Pictures by cv_bridge where it works, by our own code elsewhere; the same pixels from both."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from janusvln_ros.camera.images import CHANNELS, decode
from janusvln_ros.errors import InputError
from janusvln_ros.nodes.pictures import cv_bridge_works, picture_decoder

RECORDED = json.loads(
    (Path(__file__).parents[1] / "data" / "camera" / "cv_bridge.json").read_text()
)
OURS = sorted(set(RECORDED) & set(CHANNELS))


def message(encoding, padding=0, big=False):
    """A recorded picture as a message, and what cv_bridge made of it."""
    told = RECORDED[encoding]
    pixels = np.frombuffer(bytes.fromhex(told["data"]), np.uint8).reshape(told["height"], -1)
    if big:
        pixels = pixels.view("<u2").astype(">u2").view(np.uint8)
    pixels = np.pad(pixels, ((0, 0), (0, padding)), constant_values=77)
    rgb = np.frombuffer(bytes.fromhex(told["rgb8"]), np.uint8)
    return SimpleNamespace(
        height=told["height"],
        width=told["width"],
        encoding=encoding,
        step=pixels.shape[1],
        is_bigendian=int(big),
        data=pixels.tobytes(),
    ), rgb.reshape(told["height"], told["width"], 3)


def test_the_encodings_that_are_colours_are_recorded():
    assert {"rgb8", "bgr8", "rgba8", "bgra8", "mono8", "yuv422"} <= set(OURS)


@pytest.mark.parametrize("padding", [0, 2])
@pytest.mark.parametrize("encoding", OURS)
def test_our_pixels_are_those_that_cv_bridge_makes(encoding, padding):
    picture, rgb = message(encoding, padding)
    assert np.array_equal(decode(picture), rgb)


def test_a_cv_bridge_that_is_installed_makes_the_pixels_that_were_recorded():
    if not cv_bridge_works():
        pytest.skip("cv_bridge is part of a ROS 2 installation and not on PyPI")
    convert = picture_decoder()
    for encoding in RECORDED:
        for padding in (0, 2):
            for big in {False, "16" in encoding}:
                picture, rgb = message(encoding, padding, big)
                assert np.array_equal(convert(picture), rgb), (encoding, padding, big)


BRIDGE = """
class CvBridgeError(TypeError):
    pass

class CvBridge:
    def encoding_to_dtype_with_channels(self, encoding):
        known = {"rgb8": ("uint8", 3), "bgr8": ("uint8", 3), "yuv422": ("uint8", 2)}
        known |= {"mono16": ("uint16", 1), "32FC1": ("float32", 1)}
        if encoding not in known:
            raise CvBridgeError(f"Unrecognized image encoding [{encoding}]")
        return known[encoding]

    def imgmsg_to_cv2(self, message, wanted):
        import numpy as np

        assert wanted == "rgb8" and not message.is_bigendian
        if message.encoding == "32FC1":
            raise CvBridgeError("[32FC1] is not a color format")
        if message.encoding == "mono16":
            grey = np.frombuffer(message.data, np.uint16).reshape(message.height, -1, 1) >> 8
            return np.repeat(grey, 3, 2).astype(np.uint8)
        return 255 - np.frombuffer(message.data, np.uint8).reshape(message.height, -1, 3)
"""
"""Stands for an installed cv_bridge; "rgb8" comes out inverted, so that it is told from ours."""


@pytest.fixture
def bridge(tmp_path, monkeypatch):
    """A function that installs a cv_bridge with the given source."""

    def install(source):
        (tmp_path / "cv_bridge.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
        monkeypatch.delitem(sys.modules, "cv_bridge", raising=False)

    yield install
    sys.modules.pop("cv_bridge", None)


def test_a_cv_bridge_converts_what_it_knows_without_the_padding_of_rows(bridge):
    bridge(BRIDGE)
    convert = picture_decoder()
    picture, rgb = message("rgb8", padding=2)
    assert np.array_equal(convert(picture), 255 - rgb)
    deep, grey = message("mono16", padding=2, big=True)
    assert np.abs(convert(deep).astype(int) - grey).max() <= 1


def test_what_cv_bridge_cannot_convert_is_left_to_ours_and_its_sentences(bridge):
    bridge(BRIDGE)
    convert = picture_decoder()
    picture, rgb = message("bgra8")
    assert np.array_equal(convert(picture), rgb)
    picture.encoding = "32FC1"
    with pytest.raises(InputError, match="encoding is '32FC1'"):
        convert(picture)
    short, _ = message("rgb8")
    short.data = short.data[:-1]
    with pytest.raises(InputError, match="image data is 71 bytes"):
        convert(short)
    odd, _ = message("yuv422")
    odd.width = 5
    with pytest.raises(InputError, match="needs an even width"):
        convert(odd)


@pytest.mark.parametrize(
    "source",
    [
        "raise ImportError('libopencv_core.so.406: cannot open shared object file')",
        "raise AttributeError('_ARRAY_API not found')",
        "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    ],
)
def test_a_cv_bridge_that_fails_or_crashes_leaves_all_to_ours(bridge, source):
    bridge(source)
    assert picture_decoder() is decode


def test_without_cv_bridge_ours_is_taken(monkeypatch):
    monkeypatch.setattr("janusvln_ros.nodes.pictures.find_spec", lambda name: None)
    assert picture_decoder() is decode

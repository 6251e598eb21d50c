"""
Camera messages to arrays: pure functions of a message's fields, with an error that names what is
wrong. No ROS import, no cv_bridge.

They take anything with the fields of ``sensor_msgs/Image`` or ``sensor_msgs/CompressedImage``.
"""

import re
from array import array
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from janusvln_ros.errors import InputError, require
from janusvln_ros.limits import require_within

CHANNELS = {
    "rgb8": 3,
    "bgr8": 3,
    "8UC3": 3,
    "rgba8": 4,
    "bgra8": 4,
    "mono8": 1,
    "8UC1": 1,
    "yuv422": 2,
    "uyvy": 2,
    "yuv422_yuy2": 2,
    "yuyv": 2,
}
"""
Bytes per pixel of the encodings that can be read, and ``MOSAICS`` (``yuv422`` is UYVY, as in
``sensor_msgs/image_encodings``; ``8UC3`` is taken as BGR, as OpenCV does).
"""

MOSAICS = {
    "bayer_rggb8": cv2.COLOR_BayerBG2RGB,
    "bayer_bggr8": cv2.COLOR_BayerRG2RGB,
    "bayer_gbrg8": cv2.COLOR_BayerGR2RGB,
    "bayer_grbg8": cv2.COLOR_BayerGB2RGB,
}
"""
Colour filter mosaics, one byte per pixel. ROS names one after the first two pixels of its first
two rows, OpenCV after the second two of its second two.
"""

MAX_SIDE = 8192
"""Pixels; a larger side is taken as a malformed message rather than as a camera."""

JPEG_QUALITY = 95
"""Of pictures for training, from 0 to 100."""

_CONVERSION = {
    "bgr8": cv2.COLOR_BGR2RGB,
    "8UC3": cv2.COLOR_BGR2RGB,
    "rgba8": cv2.COLOR_RGBA2RGB,
    "bgra8": cv2.COLOR_BGRA2RGB,
    "mono8": cv2.COLOR_GRAY2RGB,
    "8UC1": cv2.COLOR_GRAY2RGB,
    "yuv422": cv2.COLOR_YUV2RGB_UYVY,
    "uyvy": cv2.COLOR_YUV2RGB_UYVY,
    "yuv422_yuy2": cv2.COLOR_YUV2RGB_YUY2,
    "yuyv": cv2.COLOR_YUV2RGB_YUY2,
}


def rows(message: Any, bytes_per_pixel: int) -> npt.NDArray[np.uint8]:
    """
    The pixels of an image message without row padding, uint8 [height, width * bytes_per_pixel].

    Raises:
        InputError: size, step or length of the data do not fit together.
    """
    height, width, step = int(message.height), int(message.width), int(message.step)
    require(
        0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE,
        f"image is {width} x {height} pixels; each side must be 1 to {MAX_SIDE}",
    )
    require(
        step >= width * bytes_per_pixel,
        f"image step is {step} bytes; a row of {width} {message.encoding} pixels "
        f"needs {width * bytes_per_pixel}",
    )
    row = width * bytes_per_pixel
    data = np.frombuffer(message.data, np.uint8)
    # the last row may come without its padding
    needed = step * (height - 1) + row
    require(
        data.size >= needed,
        f"image data is {data.size} bytes; {width} x {height} {message.encoding} "
        f"with step {step} needs {needed}",
    )
    if height == 1:  # of which step is padding alone
        return data[:row].reshape(1, row)
    if data.size < step * height:
        data = np.concatenate([data, np.zeros(step * height - data.size, np.uint8)])
    return data[: step * height].reshape(height, step)[:, :row]


def image_to_rgb(message: Any) -> npt.NDArray[np.uint8]:
    """
    A ``sensor_msgs/Image`` as uint8 [height, width, 3], red first, contiguous.

    Raises:
        InputError: the encoding is none of ``CHANNELS`` and ``MOSAICS``, or size, step and data do
            not fit.
    """
    encoding = message.encoding
    if encoding in MOSAICS:
        require(
            message.step < 2 * message.width,
            f"image step is {message.step} bytes for {message.width} pixels of one byte: "
            f"it is no mosaic '{encoding}'",
        )
        return demosaiced(rows(message, 1), encoding)
    if encoding not in CHANNELS:
        known = ", ".join((*CHANNELS, *MOSAICS))
        raise InputError(f"image encoding is '{encoding[:40]}'; readable are {known}")
    require(
        not (CHANNELS[encoding] == 2 and message.width % 2),
        f"image is {message.width} pixels wide; {encoding} needs an even width",
    )
    pixels = rows(message, CHANNELS[encoding]).reshape(
        message.height, message.width, CHANNELS[encoding]
    )
    if encoding == "rgb8":
        return np.ascontiguousarray(pixels)
    return np.asarray(
        cv2.cvtColor(np.ascontiguousarray(pixels), _CONVERSION[encoding]), dtype=np.uint8
    )


def demosaiced(mosaic: npt.NDArray[np.uint8], encoding: str) -> npt.NDArray[np.uint8]:
    """
    The colours of a colour filter mosaic (uint8 [H, W]; ``encoding`` one of ``MOSAICS``) as uint8
    [H, W, 3], red first.

    Raises:
        InputError: it has less than one whole tile.
    """
    require(
        min(mosaic.shape) > 1,
        f"image is {mosaic.shape[1]} x {mosaic.shape[0]} pixels; {encoding} needs at least 2 x 2",
    )
    colours = cv2.cvtColor(np.ascontiguousarray(mosaic), MOSAICS[encoding])
    return np.asarray(colours, dtype=np.uint8)


_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""JPEG's markers of a frame, whose head holds the size (ITU-T T.81, table B.1)."""
_COLOUR = re.compile("(rgb|bgr)a?(8|16)$")
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""A marker within the scan of a JPEG: neither a stuffed byte nor a restart."""


def jpeg_end(data: bytes) -> int | None:
    """
    Where the first picture of a JPEG stream ends, whatever follows it; None: it is cut short.

    Segments are skipped by their lengths, since thumbnails in them have ends of their own
    (ITU-T T.81, B.1.1).
    """
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        kind = data[at + 1]
        if kind == 0xD9:
            return at + 2
        if kind in (0xFF, 0x01) or 0xD0 <= kind <= 0xD7:  # fill bytes; markers without a length
            at += 1 if kind == 0xFF else 2
            continue
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if kind == 0xDA:
            found = _MARKER.search(data, at)
            if found is None:
                return None
            at = found.start()
    return at + 2 if data[at : at + 2] == b"\xff\xd9" else None


def png_end(data: bytes) -> int | None:
    """Where a PNG ends, whatever follows it; None: it is cut short (PNG specification, 5.3)."""
    at = 8
    while at + 12 <= len(data):
        kind, at = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4], "big")
        if kind == b"IEND":
            return at if at <= len(data) else None
    return None


def picture_size(data: bytes) -> tuple[int, int] | None:
    """
    Width and height in pixels that the head of a JPEG or PNG announces; None where it tells none.
    """
    if data.startswith(b"\x89PNG"):
        known = data[12:16] == b"IHDR" and len(data) >= 24
        return (_big(data[16:20]), _big(data[20:24])) if known else None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        kind = data[at + 1]
        if kind in _FRAMES:
            return _big(data[at + 7 : at + 9]), _big(data[at + 5 : at + 7])
        if kind in (0xFF, 0x01) or 0xD0 <= kind <= 0xD8:
            at += 1 if kind == 0xFF else 2
        else:
            at += 2 + _big(data[at + 2 : at + 4])
    return None


def _big(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _whole_picture(message: Any) -> bytes:
    """The bytes of a JPEG or PNG without what follows them."""
    data = bytes(message.data)
    require(data, "compressed image is empty")
    for magic, name, end_of in (
        (b"\xff\xd8", "JPEG", jpeg_end),
        (b"\x89PNG", "PNG", png_end),
    ):
        if data.startswith(magic):
            end = end_of(data)
            if end is None:
                raise InputError(
                    f"{name} image of {len(data)} bytes is cut short: its end marker is missing"
                )
            _require_size(data, name)
            return data[:end]
    raise InputError(
        f"compressed image of {len(data)} bytes begins with {data[:8]!r}: it is no JPEG or PNG"
    )


def _require_size(data: bytes, name: str) -> None:
    """Refuse a picture by what its head says, before a decoder believes it."""
    size = picture_size(data)
    if size is None:
        raise InputError(f"{name} image of {len(data)} bytes does not tell its size")
    require(
        min(size) > 0 and max(size) <= MAX_SIDE,
        f"{name} image is {size[0]} x {size[1]} pixels; each side must be 1 to {MAX_SIDE}",
    )
    require_within(size[0] * size[1], "PICTURE_PIXELS", f"{name} image of {len(data)} bytes has")


def compressed_to_rgb(message: Any) -> npt.NDArray[np.uint8]:
    """
    A ``sensor_msgs/CompressedImage`` (JPEG or PNG) as uint8 [height, width, 3], red first.

    ``format`` is read as image_transport_plugins' compressed_image_transport does: "ENCODING;
    CODEC compressed TARGET". Colours whose target is no ``bgr`` were compressed red first, as if
    red were blue; a mosaic without a target was compressed as it is. A format of one word says
    nothing of either.

    Raises:
        InputError: the data are empty, cut short, or no picture of a camera. A JPEG without its
            end marker is refused, since a decoder would fill the rest with grey.
    """
    encoding, several, target = (part.strip() for part in message.format.partition(";"))
    name = f"'{message.format[:40]}'"
    require(
        "compressedDepth" not in target,
        f"compressed image has format {name}: depth is no picture of a camera",
    )
    data = np.frombuffer(_whole_picture(message), np.uint8)
    mosaic = encoding in MOSAICS and not re.search("(mono|bgr|rgb)", target)
    require(
        mosaic or not encoding.startswith("bayer_") or re.search("(mono|bgr|rgb)", target),
        f"compressed image has format {name}; readable mosaics are {', '.join(MOSAICS)}",
    )
    colours = cv2.IMREAD_GRAYSCALE if mosaic else cv2.IMREAD_COLOR
    try:
        # camera_info is of the pixels as they are stored
        picture = cv2.imdecode(data, colours | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise InputError(
            f"compressed image (format {name}) cannot be read: "
            f"{str(error).strip().splitlines()[-1][:120]}"
        ) from error
    if picture is None or max(picture.shape[:2]) > MAX_SIDE:
        raise InputError(
            f"compressed image of {data.size} bytes (format {name}) "
            f"is no JPEG or PNG picture of at most {MAX_SIDE} pixels a side"
        )
    if mosaic:
        return demosaiced(np.asarray(picture, np.uint8), encoding)
    if several and _COLOUR.match(encoding) and "compressed bgr" not in target:
        return np.asarray(picture, dtype=np.uint8)
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def decode(message: Any) -> npt.NDArray[np.uint8]:
    """
    Either kind of camera message as uint8 [height, width, 3], red first.

    Raises InputError as the two functions above.
    """
    return image_to_rgb(message) if hasattr(message, "encoding") else compressed_to_rgb(message)


def depth_to_metres(message: Any) -> npt.NDArray[np.float32]:
    """
    A depth image (REP-118: ``32FC1`` metres or ``16UC1`` millimetres) as float32 [height, width]
    metres: -inf nearer than the camera can measure, +inf nothing within its range, NaN unknown
    (REP-117).

    0 is unknown, as REP-118 and depth_image_proc have it: cameras write it for what is too near
    as for what gave no answer. Negative numbers are no depth: unknown.

    Raises:
        InputError: another encoding, or size, step and data do not fit.
    """
    order = ">" if message.is_bigendian else "<"
    if message.encoding == "32FC1":
        depth = np.ascontiguousarray(rows(message, 4)).view(f"{order}f4").astype(np.float32)
    elif message.encoding in ("16UC1", "mono16"):
        depth = np.ascontiguousarray(rows(message, 2)).view(f"{order}u2").astype(
            np.float32
        ) / np.float32(1000)
    else:
        raise InputError(
            f"depth encoding is '{message.encoding[:40]}'; readable are 32FC1 (metres) "
            "and 16UC1 (millimetres)"
        )
    depth[~((depth > 0) | np.isneginf(depth))] = np.nan
    return depth


def blank(rgb_HW3: npt.NDArray[np.uint8], brightest: int = 8) -> bool:
    """
    Whether a frame shows nothing: no pixel brighter than ``brightest`` of 255 (lens covered,
    sensor off).
    """
    return int(rgb_HW3.max()) <= brightest


def image_data(pixels: npt.NDArray[np.generic]) -> "array[int]":
    """
    Bytes for an image message's ``data``: rclpy takes an array at once and checks a list element
    by element (0.1 ms against 20 ms).
    """
    return array("B", np.ascontiguousarray(pixels).tobytes())


def encode_jpeg(rgb: npt.NDArray[np.uint8], quality: int = JPEG_QUALITY) -> bytes:
    """
    A picture (uint8 [H, W, 3], red first) as JPEG bytes.

    Raises:
        InputError: the encoder refused it.
    """
    done, data = cv2.imencode(
        ".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    require(done, f"a picture of shape {rgb.shape} could not be encoded as JPEG")
    return data.tobytes()

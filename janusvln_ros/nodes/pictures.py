"""
How camera messages become pictures on this machine: by cv_bridge where ROS 2 has one that works,
by `janusvln_ros.camera.images` elsewhere. Both give the same pixels.
"""

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from janusvln_ros.camera.images import decode, rows

TRIAL = (
    "from types import SimpleNamespace as Message; from cv_bridge import CvBridge; "
    "CvBridge().imgmsg_to_cv2(Message(height=1, width=1, encoding='bgr8', step=3, "
    "is_bigendian=0, data=bytes(3)), 'rgb8')"
)
"""What a cv_bridge must be able to do, as a program of its own."""

TRIAL_SECONDS = 30.0


def cv_bridge_works() -> bool:
    """
    Return whether there is a cv_bridge that converts a picture.

    It is tried in a process of its own: one that was compiled for NumPy 1 ends the process that
    uses it with NumPy 2 by a segmentation fault.
    """
    if find_spec("cv_bridge") is None:
        return False
    try:
        tried = subprocess.run(
            [sys.executable, "-c", TRIAL], capture_output=True, timeout=TRIAL_SECONDS
        )
    except subprocess.TimeoutExpired:
        return False
    return tried.returncode == 0


def picture_decoder() -> Callable[[Any], npt.NDArray[np.uint8]]:
    """
    Return the function that makes uint8 [height, width, 3], red first, of a camera message.

    It raises InputError as `camera.images.decode` does, whose checks come first: cv_bridge takes
    padded rows of another length than a multiple of the pixel for a sheared picture. What
    cv_bridge cannot convert (encodings that are no colours, or newer than it), and compressed
    pictures, are left to ours.
    """
    if not cv_bridge_works():
        return decode
    from cv_bridge import CvBridge, CvBridgeError

    bridge = CvBridge()

    def convert(message: Any) -> npt.NDArray[np.uint8]:
        encoding = getattr(message, "encoding", "")
        try:
            kind, channels = bridge.encoding_to_dtype_with_channels(encoding)
        except CvBridgeError:
            return decode(message)
        if channels == 2 and message.width % 2:
            return decode(message)  # which names the width
        number = np.dtype(kind)
        pixels = np.ascontiguousarray(rows(message, number.itemsize * channels))
        native = pixels.view(number.newbyteorder(">" if message.is_bigendian else "<"))
        tight = SimpleNamespace(
            height=message.height,
            width=message.width,
            encoding=encoding,
            step=pixels.shape[1],
            is_bigendian=sys.byteorder == "big",
            data=native.astype(number),
        )
        try:
            return np.ascontiguousarray(bridge.imgmsg_to_cv2(tight, "rgb8"), dtype=np.uint8)
        except CvBridgeError:
            return decode(message)

    return convert

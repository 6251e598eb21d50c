"""
What a robot's camera sees, turned into what the model was trained on: no distortion, 79 degrees
wide, 4:3, square pixels. Never stretched.

The view is a virtual pinhole camera at the real one's centre, looking along its optical axis. If
the real camera sees less than 79 degrees in either direction, the widest 4:3 view that it fills is
taken, and a warning says how wide that is.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from janusvln_ros.errors import InputError, require

TRAINED_HFOV_DEG = 79.0
"""Horizontal field of view of the cameras in VLN-CE, degrees."""

TRAINED_ASPECT = 4 / 3
"""Width over height of the cameras in VLN-CE."""

TRAINED_HEIGHT_M = 1.25
"""Height of the camera above the floor in VLN-CE, metres."""

PINHOLE_MODELS = ("", "plumb_bob", "rational_polynomial")
FISHEYE_MODELS = ("equidistant", "fisheye")
STRAIGHT_MODELS = ("none", "pinhole")
"""What drivers write that rectify by themselves, beside the names of REP-104's CameraInfo."""

_COEFFICIENTS = {
    **dict.fromkeys(PINHOLE_MODELS, (4, 5, 8, 12, 14)),
    **dict.fromkeys(FISHEYE_MODELS, (4,)),
}
"""How many coefficients OpenCV takes for each model."""

SAME_SHAPE = 0.01
"""
Share by which the width over height of pictures may differ from the camera's: decimation rounds
their sides.
"""

LEAST_FOCAL = 0.05
"""Focal length of the widest lens, in widths (or heights) of its picture: 168 degrees."""

_SAME_FOV_DEG = 0.1
_SAME_PIXELS = 0.75


@dataclass(frozen=True)
class Intrinsics:
    """
    A calibrated camera, as in ``sensor_msgs/CameraInfo``: size in pixels, matrix ``k`` (9 numbers,
    row by row), distortion ``d`` and its model.

    ``roi`` (x, y, width, height in pixels of the full size; zeros: all of it) and ``binning``
    (across, down; 0 as 1) say which part of the full picture is sent, and how coarse: `fitted`
    turns size and matrix into those of the pictures themselves.
    """

    width: int
    height: int
    k: tuple[float, ...]
    d: tuple[float, ...] = ()
    model: str = "plumb_bob"
    roi: tuple[int, int, int, int] = (0, 0, 0, 0)
    binning: tuple[int, int] = (1, 1)


def intrinsics_of(message: Any, *, rectified: bool = False) -> Intrinsics:
    """
    Return a ``sensor_msgs/CameraInfo`` as plain numbers.

    Its ``k`` and ``d`` belong to raw pictures, its ``p`` to rectified ones (``rectified``: depth
    images are, as depth_image_proc takes them). Where a driver fills in only one of the matrices,
    that one counts; with ``p`` there is no distortion left.
    """
    k, d, p = (tuple(map(float, numbers)) for numbers in (message.k, message.d, message.p))
    model, roi, k_of_p = message.distortion_model, message.roi, (*p[0:3], *p[4:7], *p[8:11])
    if any(k_of_p[:6]) and (rectified or not any(k[:6])):
        k, d, model = k_of_p, (), ""
    return Intrinsics(
        int(message.width),
        int(message.height),
        k,
        () if rectified else d,
        "" if rectified else model,
        (int(roi.x_offset), int(roi.y_offset), int(roi.width), int(roi.height)),
        (max(1, int(message.binning_x)), max(1, int(message.binning_y))),
    )


def fitted(camera: Intrinsics, width: int, height: int) -> Intrinsics:
    """
    Return the camera of pictures of ``width`` x ``height`` pixels: region of interest cut out,
    binned, and scaled if the pictures have another size yet.

    The scale is that of the pictures as they come, so that a driver which forgets its binning, or
    tells of one that it does not do, is read rightly. Pixel centres lie at whole numbers. A
    ``camera_info`` without a size is taken to be of these pictures if its principal point is.

    Raises:
        InputError: the intrinsics are not usable, the region lies outside the picture, or the
            pictures have another shape than the camera.
    """
    _check_matrix(camera)
    fx, fy, cx, cy = camera.k[0], camera.k[4], camera.k[2], camera.k[5]
    full = (camera.width, camera.height)
    require(
        cx > 0 and cy > 0,
        f"camera_info has its principal point at ({cx:g}, {cy:g}): calibrate the camera",
    )
    if full == (0, 0):
        require(
            abs(cx / width - 0.5) < 0.25 and abs(cy / height - 0.5) < 0.25,
            f"camera_info says 0 x 0 pixels, and its principal point ({cx:g}, {cy:g}) is not "
            f"that of frames of {width} x {height}: publish it with width and height",
        )
        return replace(camera, width=width, height=height)
    _check_lens(camera)
    x, y, w, h = camera.roi if camera.roi[2] and camera.roi[3] else (0, 0, *full)
    across, down = camera.binning
    told = f"{full[0]} x {full[1]}"
    require(
        x + w <= full[0] and y + h <= full[1],
        f"camera_info has a region of interest of {w} x {h} pixels at ({x}, {y}), outside its "
        f"{told}",
    )
    told += f", of it {w} x {h} at ({x}, {y})" if (w, h) != full else ""
    told += f", binned {across} x {down}" if (across, down) != (1, 1) else ""
    shapes = ((w / across, h / down), (w, h))
    require(
        any(abs(width / a * b / height - 1) <= SAME_SHAPE for a, b in shapes),
        f"the frame is {width} x {height}, but camera_info is for {told}: publish the "
        "camera_info of this stream",
    )
    sx, sy = width / w, height / h
    k_x = (fx * sx, camera.k[1] * sx, (cx - x + 0.5) * sx - 0.5)
    k_y = (0.0, fy * sy, (cy - y + 0.5) * sy - 0.5)
    return Intrinsics(width, height, (*k_x, *k_y, 0.0, 0.0, 1.0), camera.d, camera.model)


def scaled_warning(camera: Intrinsics, width: int, height: int) -> str | None:
    """
    A sentence if frames of ``width`` x ``height`` are scaled in a way that their camera does not
    tell of, else None.
    """
    w, h = camera.roi[2] or camera.width, camera.roi[3] or camera.height
    wanted = (w / camera.binning[0], h / camera.binning[1])
    if not all(wanted) or max(abs(wanted[0] - width), abs(wanted[1] - height)) <= 1:
        return None
    return (
        f"the frame is {width} x {height}, camera_info for {wanted[0]:g} x {wanted[1]:g}: taken "
        "as the whole picture at another size"
    )


@dataclass(frozen=True)
class View:
    """
    How a frame of ``source`` (width, height) becomes the model's frame: ``maps`` for
    ``cv2.remap``, or None where the frame is right as it is.

    ``hfov_deg`` is the width of the result; ``warnings`` are sentences for the user.
    """

    source: tuple[int, int]
    maps: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None
    hfov_deg: float | None
    warnings: tuple[str, ...] = ()
    crop: tuple[int, int, int, int] | None = None  # x, y, width, height; without intrinsics

    def apply(self, rgb_HW3: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """
        The view of a frame, uint8 [h, w, 3]; the frame itself where nothing is to be done.

        Raises:
            InputError: the frame has another size than the camera was calibrated for.
        """
        height, width = rgb_HW3.shape[:2]
        if (width, height) != self.source:
            raise InputError(
                f"the frame is {width} x {height}, but camera_info is for "
                f"{self.source[0]} x {self.source[1]}: publish the camera_info of this "
                "stream"
            )
        if self.crop is not None:
            x, y, w, h = self.crop
            return np.ascontiguousarray(rgb_HW3[y : y + h, x : x + w])
        if self.maps is None:
            return rgb_HW3
        return np.asarray(
            cv2.remap(rgb_HW3, *self.maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE),
            dtype=np.uint8,
        )


def project(camera: Intrinsics, rays_N2: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """
    Pixels [N, 2] at which the real camera sees directions ``rays_N2`` (x right, y down, on the
    plane one metre ahead).
    """
    points = np.concatenate([rays_N2, np.ones((len(rays_N2), 1))], 1).reshape(-1, 1, 3)
    k = np.array(camera.k, np.float64).reshape(3, 3)
    zero, d = np.zeros(3), np.array(camera.d if any(camera.d) else [0.0] * 4, np.float64)
    if camera.model in FISHEYE_MODELS and any(camera.d):
        pixels, _ = cv2.fisheye.projectPoints(points, zero, zero, k, d)
    else:
        pixels, _ = cv2.projectPoints(points, zero, zero, k, d)
    return np.asarray(pixels, dtype=np.float64).reshape(-1, 2)


def _border(half_width: float) -> npt.NDArray[np.float64]:
    """
    Directions along the border of a 4:3 view whose right edge is at tangent ``half_width``, [N,
    2].
    """
    t = np.linspace(-1, 1, 33)
    one = np.ones_like(t)
    square = np.concatenate(
        [
            np.stack([t, one], 1),
            np.stack([t, -one], 1),
            np.stack([one, t], 1),
            np.stack([-one, t], 1),
        ]
    )
    half_size: npt.NDArray[np.float64] = np.array([half_width, half_width / TRAINED_ASPECT])
    return square * half_size


def _fits(camera: Intrinsics, half_width: float) -> bool:
    """
    Whether the camera fills the whole view.

    A strong distortion polynomial folds back beyond the calibrated region, so growing views are
    looked at.
    """
    for scale in (0.25, 0.5, 0.75, 1.0):
        pixels = project(camera, _border(half_width * scale))
        low, high = pixels.min(0), pixels.max(0)
        if (
            not np.isfinite(pixels).all()
            or (low < -0.5 - 1e-6).any()
            or high[0] > camera.width - 0.5 + 1e-6
            or high[1] > camera.height - 0.5 + 1e-6
        ):
            return False
    return True


def _check_matrix(camera: Intrinsics) -> None:
    require(
        len(camera.k) == 9
        and all(map(math.isfinite, (*camera.k, *camera.d)))
        and camera.k[0] > 0
        and camera.k[4] > 0,
        "camera_info has no usable intrinsics (k = "
        f"{[round(v, 3) for v in camera.k]}): calibrate the camera, or set "
        "allow_uncalibrated_camera",
    )


def _check_lens(camera: Intrinsics) -> None:
    """Refuse numbers that no lens has: it would be read as looking past everything."""
    for focal, centre, size, side in (
        (camera.k[0], camera.k[2], camera.width, "width"),
        (camera.k[4], camera.k[5], camera.height, "height"),
    ):
        require(
            centre < size,
            f"camera_info has its principal point at ({camera.k[2]:g}, {camera.k[5]:g}), outside "
            f"its {camera.width} x {camera.height} pixels: calibrate the camera",
        )
        require(
            focal > LEAST_FOCAL * size,
            f"camera_info has a focal length of {focal:g} pixels across a {side} of {size}, as "
            "no lens has: calibrate the camera",
        )


def _check(camera: Intrinsics) -> None:
    _check_matrix(camera)
    _check_distortion(camera)
    require(
        camera.width > 0 and camera.height > 0,
        f"camera_info says {camera.width} x {camera.height} pixels",
    )


def _check_distortion(camera: Intrinsics) -> None:
    """
    Refuse a distortion that cannot be undone. Coefficients that are all zero are none, under any
    name, fisheyes too: so does image_geometry read them, which image_proc rectifies by.
    """
    known = (*_COEFFICIENTS, *STRAIGHT_MODELS)
    require(
        camera.model in known or (camera.d and not any(camera.d)),
        f"camera_info has distortion model '{camera.model}'; known are "
        f"{', '.join(name for name in known if name)}",
    )
    counts = _COEFFICIENTS.get(camera.model, ())
    require(
        not any(camera.d) or len(camera.d) in counts,
        f"camera_info has {len(camera.d)} distortion coefficients (d = {list(camera.d)}) of model "
        f"'{camera.model}', which has {' or '.join(map(str, counts)) or 'none'}: calibrate the "
        "camera again",
    )


def _widest(camera: Intrinsics, wanted: float) -> float:
    """
    Half the width, at unit distance, of the widest 4:3 view that the camera fills, at most
    ``wanted``.
    """
    if _fits(camera, wanted):
        return wanted
    low, high = 0.0, wanted
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _fits(camera, middle) else (low, middle)
    require(
        low >= math.tan(math.radians(5)),
        f"camera_info leaves no view (k = {[round(v, 3) for v in camera.k]}, d "
        f"= {list(camera.d)}): calibrate the camera again",
    )
    return low


def plan_view(camera: Intrinsics, *, hfov_deg: float = TRAINED_HFOV_DEG, width: int = 640) -> View:
    """
    The view of ``camera`` that the model should see, ``width`` pixels wide (or as many as the real
    camera has for it, if fewer).

    Raises:
        InputError: the intrinsics are missing (zero focal length), not finite, or of a distortion
            model that is not known here.
    """
    _check(camera)
    fx, fy, cx, cy = camera.k[0], camera.k[4], camera.k[2], camera.k[5]
    straight = not any(camera.d)
    own_fov = math.degrees(2 * math.atan(camera.width / 2 / fx))
    centred = (
        abs(cx - (camera.width - 1) / 2) <= _SAME_PIXELS
        and abs(cy - (camera.height - 1) / 2) <= _SAME_PIXELS
    )
    same_shape = (
        abs(camera.width / camera.height - TRAINED_ASPECT) < 0.005 and abs(fx / fy - 1) < 0.005
    )
    if straight and centred and same_shape and abs(own_fov - hfov_deg) <= _SAME_FOV_DEG:
        return View((camera.width, camera.height), None, own_fov)
    half = _widest(camera, math.tan(math.radians(hfov_deg) / 2))
    seen = math.degrees(2 * math.atan(half))
    narrow = (
        f"the camera fills only {seen:.1f} of the {hfov_deg:g} degrees (at 4:3) "
        "that the model was trained for: expect worse decisions"
    )
    # as fine as the real camera at its centre, no finer
    out_width = max(32, min(width, round(2 * half * fx)))
    out_height = max(24, round(out_width / TRAINED_ASPECT))
    x = (np.arange(out_width) + 0.5) / out_width * 2 - 1
    y = (np.arange(out_height) + 0.5) / out_height * 2 - 1
    rays = np.stack(np.meshgrid(x * half, y * half / TRAINED_ASPECT), -1).reshape(-1, 2)
    pixels = project(camera, rays).astype(np.float32).reshape(out_height, out_width, 2)
    maps = (np.ascontiguousarray(pixels[..., 0]), np.ascontiguousarray(pixels[..., 1]))
    return View(
        (camera.width, camera.height), maps, seen, (narrow,) if seen < hfov_deg - 1 else ()
    )


def uncalibrated_view(width: int, height: int) -> View:
    """
    The 4:3 part around the middle of a frame whose camera is not known; its field of view is not
    known either.
    """
    w = min(width, round(height * TRAINED_ASPECT))
    h = min(height, round(width / TRAINED_ASPECT))
    warning = (
        "no intrinsics: the field of view is not known, and only the shape of the frame "
        f"can be put right (model: {TRAINED_HFOV_DEG:g} degrees wide)"
    )
    crop = None if (w, h) == (width, height) else ((width - w) // 2, (height - h) // 2, w, h)
    return View((width, height), None, None, (warning,), crop)


def mounting_warning(height_m: float) -> str | None:
    """
    A sentence if the camera is mounted at another height than the model was trained for, else
    None. 0: not told.
    """
    if height_m and abs(height_m - TRAINED_HEIGHT_M) > 0.15:
        return (
            f"the camera is {height_m:g} m above the floor; the model was trained at "
            f"{TRAINED_HEIGHT_M:g} m: expect worse decisions"
        )
    return None

"""Messages of any content, as nodes take them in: shapes, numbers that are none, sizes, stamps."""

from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from hunt.families import family
from hunt.files import PICTURES
from hunt.mutations import CHANGES, changed
from janusvln_ros.camera.images import CHANNELS, MOSAICS, decode, depth_to_metres
from janusvln_ros.camera.view import fitted, intrinsics_of, plan_view
from janusvln_ros.errors import InputError
from janusvln_ros.geometry import Pose2
from janusvln_ros.policy import default_checkpoint
from janusvln_ros.policy.instruction import clean_instruction
from janusvln_ros.policy.understanding import Vocabulary, understanding
from janusvln_ros.protocol.corridor import DepthCamera, scan_corridor
from janusvln_ros.protocol.odometry import sample_of
from janusvln_ros.protocol.remembered import Columns, way_ahead
from janusvln_ros.stamps import nanoseconds

SMALL = st.integers(0, 40)
SIZES = st.one_of(SMALL, SMALL, st.sampled_from([1, 2**16, 2**31 - 1, 2**31, 2**32 - 1]))
FLOATS = st.one_of(
    st.floats(-10, 10), st.floats(), st.sampled_from([0.0, -0.0, 1e-300, 1e300, -1.0])
)
ENCODINGS = st.one_of(
    st.sampled_from([*CHANNELS, *MOSAICS, "16UC1", "32FC1", "mono16", "8UC2", "bayer_x", ""]),
    st.text(max_size=20),
)
STAMPS = st.tuples(st.integers(-(2**31), 2**31 - 1), st.integers(0, 2**32 - 1))


def plain(value: Any) -> Any:
    """A case of dictionaries as a message with the same fields."""
    if isinstance(value, dict):
        return SimpleNamespace(**{key: plain(item) for key, item in value.items()})
    return value


def record(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A message with such fields."""
    return st.fixed_dictionaries(fields)


IMAGE = record(
    height=SIZES,
    width=SIZES,
    step=SIZES,
    encoding=ENCODINGS,
    is_bigendian=st.integers(0, 255),
    bytes=st.one_of(SMALL, st.integers(0, 20_000)),
)


def image_of(case: dict[str, Any]) -> Any:
    """The message of an image case, whose data repeat from 0 to 255."""
    fields = {key: value for key, value in case.items() if key != "bytes"}
    data = np.resize(np.arange(256, dtype=np.uint8), case["bytes"])
    return SimpleNamespace(**fields, data=data)


@family("image", IMAGE)
def check_image(case: dict[str, Any]) -> None:
    """A raw picture of the camera."""
    rgb = decode(image_of(case))
    assert rgb.dtype == np.uint8 and rgb.shape == (case["height"], case["width"], 3)


COMPRESSED = st.tuples(
    st.sampled_from([*PICTURES]),
    CHANGES | st.just([]),
    st.one_of(
        st.sampled_from(["jpeg", "png", "", "rgb8; jpeg compressed bgr8", "bayer_rggb8; png"]),
        st.text(max_size=30),
    ),
)


@family("compressed-image", COMPRESSED.map(lambda t: [t[0], [list(c) for c in t[1]], t[2]]))
def check_compressed(case: list[Any]) -> None:
    """A packed picture of the camera."""
    kind, changes, described = case
    data = changed(PICTURES[kind], [(k, a, b, c) for k, a, b, c in changes])
    rgb = decode(SimpleNamespace(format=described, data=data))
    assert rgb.dtype == np.uint8 and rgb.ndim == 3


NUMBERS9 = st.lists(FLOATS, min_size=9, max_size=9)
INFO = record(
    width=SIZES,
    height=SIZES,
    distortion_model=st.sampled_from(["plumb_bob", "rational_polynomial", "equidistant", "", "x"]),
    d=st.lists(FLOATS, max_size=14),
    k=NUMBERS9,
    p=st.lists(FLOATS, min_size=12, max_size=12),
    binning_x=SIZES,
    binning_y=SIZES,
    roi=record(x_offset=SIZES, y_offset=SIZES, width=SIZES, height=SIZES),
    size=st.tuples(st.integers(1, 64), st.integers(1, 64)).map(list),
)


@family("camera-info", INFO)
def check_info(case: dict[str, Any]) -> None:
    """Intrinsics, and the view that is cut from pictures by them."""
    camera = intrinsics_of(plain({key: case[key] for key in case if key != "size"}))
    plan_view(fitted(camera, *case["size"]), width=56)


@family("depth", st.tuples(IMAGE, INFO).map(list))
def check_depth(case: list[Any]) -> None:
    """A depth image with its intrinsics, down to what is free, and to what is remembered of it."""
    image, info = case
    depth = depth_to_metres(image_of(image))
    camera = intrinsics_of(plain({k: v for k, v in info.items() if k != "size"}), rectified=True)
    camera = fitted(camera, image["width"], image["height"])
    camera, around = DepthCamera(camera.k, 1.25, near=0.3), Columns()
    for pose in (Pose2(), Pose2(), Pose2(0.3, 0.1, 0.5)):
        counts = {"half_width": 0.25, "low": 0.06, "high": 1.5}
        around, way = way_ahead(around, depth, camera, pose, **counts)
        assert way.clearance >= 0 and 0 <= way.known <= 1


SCAN = record(
    ranges=st.lists(FLOATS, max_size=60),
    angle_min=FLOATS,
    angle_increment=FLOATS,
    range_min=FLOATS,
    range_max=FLOATS,
)


@family("scan", SCAN)
def check_scan(case: dict[str, Any]) -> None:
    """A laser scan: of what cannot be read nothing is known."""
    clearance, known, nearest = scan_corridor(
        np.asarray(case["ranges"], np.float64),
        *(case[key] for key in ("angle_min", "angle_increment", "range_min", "range_max")),
        mount=Pose2(),
        half_width=0.25,
    )
    assert clearance >= 0 and 0 <= known <= 1 and nearest >= 0


VECTOR = record(x=FLOATS, y=FLOATS, z=FLOATS)
ODOMETRY = record(
    header=record(stamp=STAMPS.map(lambda s: {"sec": s[0], "nanosec": s[1]})),
    pose=record(
        pose=record(position=VECTOR, orientation=record(x=FLOATS, y=FLOATS, z=FLOATS, w=FLOATS))
    ),
    twist=record(
        twist=record(linear=VECTOR, angular=VECTOR), covariance=st.lists(FLOATS, max_size=36)
    ),
)


@family("odometry", ODOMETRY)
def check_odometry(case: dict[str, Any]) -> None:
    """Odometry: a sample of finite numbers, or refused."""
    sample = sample_of(plain(case))
    assert np.isfinite([*sample.pose, sample.speed, sample.rate]).all()
    assert sample.stamp == nanoseconds(plain(case).header.stamp)


@family(
    "instruction",
    st.text(max_size=400) | st.text("walk left the door.,!?'\u202e\x1b\0 ", max_size=99),
)
def check_words(case: str) -> None:
    """Words to follow: refused, or one line that every terminal takes."""
    try:
        text = clean_instruction(case, 300)
    except InputError:
        return
    text.encode()
    assert "\x1b" not in text and "\0" not in text and len(text) <= 300
    understanding(text, VOCABULARY)


VOCABULARY = Vocabulary.load(default_checkpoint())

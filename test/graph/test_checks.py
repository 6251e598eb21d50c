"""
Every check of the doctor: a graph that is well passes all of them, and each fault is found by the
check of its name. Pure: what was seen is made up here.
"""

import math
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from janusvln_ros.graph.checks import (
    GRAPH_CHECKS,
    Line,
    Seen,
    Source,
    Velocity,
    camera_mount,
    examine,
)
from janusvln_ros.nodes.parameters import Param
from janusvln_ros.protocol.wiring import Endpoint

S = 10**9
TWIST = "geometry_msgs/msg/Twist"
rng = np.random.default_rng(0)


def stamp(ns):
    return SimpleNamespace(sec=ns // S, nanosec=ns % S)


def header(ns, frame="camera"):
    return SimpleNamespace(stamp=stamp(ns), frame_id=frame)


def jpeg(pixels):
    data = cv2.imencode(".jpg", pixels)[1].tobytes()
    return SimpleNamespace(header=header(5 * S), format="jpeg", data=data)


def info(width=64, height=48, fov=79.0, k=None):
    f = width / 2 / math.tan(math.radians(fov) / 2)
    roi = SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0)
    matrix = k or [f, 0, (width - 1) / 2, 0, f, (height - 1) / 2, 0, 0, 1]
    return SimpleNamespace(
        header=header(5 * S),
        width=width,
        height=height,
        k=matrix,
        d=[0.0] * 5,
        p=[0.0] * 12,
        distortion_model="plumb_bob",
        roi=roi,
        binning_x=0,
        binning_y=0,
    )


def odometry(n, x=0.0, speed=0.0, frames=("odom", "base_link"), w=1.0, turned=0.0):
    half = math.radians(turned) / 2
    pose = SimpleNamespace(
        position=SimpleNamespace(x=x, y=0.0, z=0.0),
        orientation=SimpleNamespace(x=0.0, y=0.0, z=math.sin(half), w=w * math.cos(half)),
    )
    zero = SimpleNamespace(x=0.0, y=0.0, z=0.0)
    twist = SimpleNamespace(linear=SimpleNamespace(x=speed, y=0.0, z=0.0), angular=zero)
    return SimpleNamespace(
        header=header(5 * S + n * S // 50, frames[0]),
        child_frame_id=frames[1],
        pose=SimpleNamespace(pose=pose),
        twist=SimpleNamespace(twist=twist, covariance=[0.0] * 36),
    )


def source(topic, rate, messages, seconds=4.0, age=0.02):
    count = round(rate * seconds)
    return Source(
        topic,
        arrivals=[n / rate for n in range(count)],
        stamps=[5 * S + round(n * S / rate) for n in range(count)],
        ages=[age] * count,
        messages=messages,
    )


def track(**changes):
    return source("/odom", 50.0, [odometry(n, **changes) for n in range(200)])


PICTURE = rng.integers(0, 255, (48, 64, 3), np.uint8)
WELL = Seen(
    seconds=4.0,
    nodes={"motion": "active", "policy": "active"},
    policy={"execute": True, "checkpoint": "", "forward_step": 0.25}
    | {"turn_step": 15.0, "camera_height": 1.25, "frame_max_age": 1.0, "refuse_blank": True},
    motion={"base_timeout": 0.2, "odom_timeout": 0.2, "range_source": "scan", "min_known": 0.2}
    | {"forward_step": 0.25, "turn_step": 15.0, "estop_required": False},
    about={"checkpoint": "tiny", "memory": "dual", "dtype": "float32", "device": "cpu"},
    lines={
        "motion: state": Line(
            0,
            "disarmed",
            {"estop": "False", "heartbeat_age": "0.050", "armed": "False"}
            | {"corridor_known": "1.00", "clearance": "2.00"},
        ),
        "policy: state": Line(0, "idle", {"last_error": ""}),
    },
    camera=source("/image/compressed", 10.0, [jpeg(PICTURE)]),
    camera_info=source("/camera_info", 10.0, [info()]),
    odom=track(),
    ranges=source("/scan", 10.0, [SimpleNamespace(header=header(5 * S, "laser"))]),
    velocity=Velocity("/cmd_vel", TWIST, [Endpoint("/base", TWIST)]),
    estop=("/estop", 1),
    mount=(1.25, 0.0),
    definitions={},
)


def motion_says(level=0, message="disarmed", **figures):
    told = WELL.lines["motion: state"].figures | figures
    return {"lines": WELL.lines | {"motion: state": Line(level, message, told)}}


def without(name):
    return {"nodes": {node: state for node, state in WELL.nodes.items() if node != name}}


def policy(**values):
    return {"policy": dict(WELL.policy) | values}


def motion(**values):
    return {"motion": dict(WELL.motion) | values}


def stamped(which, **changes):
    return {which: replace(getattr(WELL, which), **changes)}


def dumb(which):
    gone = {"arrivals": [], "stamps": [], "ages": [], "messages": []}
    return {which: replace(getattr(WELL, which), **gone)}


FAULTS = [
    # what is wrong, the check that names it, how it ends, a word of its sentence
    (without("motion"), "nodes", "fail", "motion not running"),
    (without("policy"), "nodes", "fail", "policy not running"),
    ({"nodes": {"motion": "active", "policy": "inactive"}}, "nodes", "fail", "inactive"),
    ({"nodes": {"motion": "does not answer", "policy": "active"}}, "nodes", "fail", "answer"),
    ({"twice": ["motion"]}, "nodes", "fail", "more than one"),
    ({"definitions": {"janusvln_msgs/msg/Decision": "policy"}}, "message definitions", "fail", ""),
    (stamped("camera", missing="/image has no publisher"), "camera", "fail", "no publisher"),
    (dumb("camera"), "camera", "fail", "nothing came"),
    ({"camera": None}, "camera", "fail", "no node takes the camera"),
    (
        {"camera": source("/image", 0.5, [jpeg(PICTURE)], 8.0)},
        "camera rate",
        "fail",
        "0.5 Hz",
    ),
    ({"camera": source("/image", 3.0, [jpeg(PICTURE)])}, "camera rate", "warn", "3.0 Hz"),
    (policy(expected_image_rate=30.0), "camera rate", "warn", "instead of 30"),
    (stamped("camera", stamps=[0, 0]), "camera stamps", "fail", "zero"),
    (stamped("camera", stamps=[5 * S] * 9), "camera stamps", "fail", "do not advance"),
    (stamped("camera", ages=[-3.0] * 9), "camera stamps", "fail", "3.00 s in the future"),
    (stamped("camera", ages=[20.0] * 9), "camera stamps", "fail", "20.00 s old"),
    (stamped("camera", messages=[jpeg(PICTURE * 0)]), "picture", "fail", "black"),
    (stamped("camera", messages=[jpeg(PICTURE // 16)]), "picture", "warn", "dark"),
    (stamped("camera", messages=[jpeg(255 - PICTURE // 16)]), "picture", "warn", "bright"),
    (
        stamped("camera", messages=[jpeg(np.full((48, 64, 3), 128, np.uint8))]),
        "picture",
        "warn",
        "sharp",
    ),
    (
        stamped("camera", messages=[SimpleNamespace(header=header(1), format="jpeg", data=b"x")]),
        "picture",
        "fail",
        "",
    ),
    (
        stamped("camera_info", missing="/camera_info has no publisher"),
        "camera_info",
        "fail",
        "no publisher",
    ),
    (
        stamped("camera_info", messages=[info(width=64, height=64)]),
        "field of view",
        "fail",
        "64 x 64",
    ),
    (stamped("camera_info", messages=[info(k=[0.0] * 9)]), "field of view", "fail", "calibrate"),
    (stamped("camera_info", messages=[info(fov=50.0)]), "field of view", "warn", "50.0"),
    (stamped("camera_info", messages=[info(320, 240)]), "field of view", "warn", "320 x 240"),
    ({"mount": (0.4, 0.0)} | policy(camera_height=0.0), "camera mounting", "warn", "0.4 m"),
    ({"mount": (1.25, 20.0)}, "camera mounting", "warn", "20 degrees down"),
    ({"mount": (1.25, -20.0)}, "camera mounting", "warn", "20 degrees up"),
    ({"mount": (1.25, 0.0)} | policy(camera_height=1.0), "camera mounting", "warn", "TF says"),
    (stamped("odom", missing="/odom is published as X"), "odometry", "fail", "published as X"),
    (dumb("odom"), "odometry", "fail", "nothing came"),
    ({"odom": source("/odom", 5.0, [odometry(0)])}, "odometry rate", "fail", "5.0 Hz"),
    (motion(expected_odom_rate=100.0), "odometry rate", "warn", "instead of 100"),
    (stamped("odom", stamps=[0] * 9), "odometry stamps", "fail", "zero"),
    (stamped("odom", ages=[1.0] * 9), "odometry stamps", "fail", "1.00 s old"),
    ({"odom": track(speed=0.3)}, "odometry values", "warn", "its poses 0.00"),
    (stamped("odom", messages=[odometry(0, w=0.0)]), "odometry values", "fail", "quaternion"),
    (stamped("odom", messages=[odometry(0, x=math.nan)]), "odometry values", "fail", "number"),
    (
        stamped("odom", messages=[odometry(0), odometry(1, x=5.0)]),
        "odometry values",
        "fail",
        "jumps by 5.00",
    ),
    (
        # a quarter turn in a fiftieth of a second: as motion, with its limits in radians
        stamped("odom", messages=[odometry(0), odometry(1, turned=90.0)]) | motion(rate=0.8),
        "odometry values",
        "fail",
        "and 90 degrees",
    ),
    (
        stamped("odom", messages=[odometry(0), odometry(1, turned=90.0)])
        | motion(output="discrete", turn_step=15.0),
        "odometry values",
        "fail",
        "and 90 degrees",
    ),
    (stamped("odom", ages=[0.1] * 9) | motion(input_max_age=0.05), "odometry stamps", "fail", ""),
    (stamped("ranges", ages=[0.1] * 9) | motion(input_max_age=0.05), "range stamps", "fail", ""),
    ({"odom": track(frames=("", "base_link"))}, "odometry frames", "warn", "''"),
    ({"odom": track(frames=("map", "base_link"))}, "odometry frames", "warn", "'map'"),
    ({"ranges": None} | motion(range_source="none"), "range", "warn", "nothing guards"),
    (stamped("ranges", missing="/scan does not match"), "range", "fail", "match"),
    (dumb("ranges"), "range", "fail", "nothing came"),
    (
        {"ranges": source("/scan", 2.0, [SimpleNamespace(header=header(1))])},
        "range rate",
        "fail",
        "2.0 Hz",
    ),
    (stamped("ranges", ages=[-9.0] * 9), "range stamps", "fail", "future"),
    (motion_says(corridor_known="0.05"), "way ahead", "fail", "5%"),
    (
        {"lines": {"motion: state": Line(1, "depth arrives without depth_info", {})}},
        "way ahead",
        "fail",
        "depth_info",
    ),
    ({"velocity": replace(WELL.velocity, listeners=[])}, "velocity", "fail", "0 listeners"),
    (
        {
            "velocity": replace(
                WELL.velocity, listeners=[Endpoint("/base", "geometry_msgs/msg/TwistStamped")]
            )
        },
        "velocity",
        "fail",
        "TwistStamped",
    ),
    (
        {"velocity": replace(WELL.velocity, others=["/joy"])},
        "velocity",
        "warn",
        "also sent by /joy",
    ),
    (motion(base_timeout=0.0), "base time-out", "fail", "base_timeout is 0"),
    (motion(base_timeout=0.5), "base time-out", "fail", "at most 0.3"),
    (motion_says(estop="True"), "e-stop", "fail", "pressed"),
    (motion(estop_required=True) | motion_says(estop="silent"), "e-stop", "fail", "not spoken"),
    (motion(estop_required=True) | {"estop": ("/estop", 0)}, "e-stop", "fail", "no publisher"),
    (motion_says(estop="silent"), "e-stop", "warn", "none has ever spoken"),
    (motion_says(heartbeat_age="1000000.000"), "heartbeat", "fail", "ever"),
    (motion_says(heartbeat_age="3.000"), "heartbeat", "fail", "3.00 s"),
    (dumb("odom"), "arming", "fail", "no fresh odometry"),
    (
        {"nodes": {"motion": "active", "policy": "unconfigured"}}
        | {"lines": {"policy: state": Line(1, "out of memory", {"last_error": "out of memory"})}},
        "checkpoint",
        "fail",
        "not loaded: out of memory",
    ),
    (motion(forward_step=0.5), "step sizes", "fail", "forward_step of motion is 0.5"),
    (policy(turn_step=30.0), "step sizes", "fail", "turn_step of policy is 30"),
    ({"lines": {}}, "diagnostics", "fail", "no diagnostics"),
    (motion_says(1, "e-stop"), "diagnostics", "warn", "motion: state: e-stop"),
    (motion_says(2, "nothing on odom"), "diagnostics", "fail", "nothing on odom"),
]


def found(seen):
    return {finding.name: finding for finding in examine(seen)}


def test_a_graph_that_is_well_passes_every_check():
    assert {f.status for f in examine(WELL)} == {"pass"}, examine(WELL)


@pytest.mark.parametrize(
    ("changes", "name", "status", "word"),
    FAULTS,
    ids=[f"{n}-{name}-{word}" for n, (_, name, _, word) in enumerate(FAULTS)],
)
def test_a_fault_is_named_by_its_check_with_a_remedy(changes, name, status, word):
    finding = found(replace(WELL, **changes))[name]
    assert finding.status == status and word in finding.detail, finding
    assert finding.remedy


def test_every_check_that_can_fail_or_warn_does_so_in_this_table():
    assert {name for _, name, _, _ in FAULTS} == set(GRAPH_CHECKS)


def test_where_nothing_is_known_no_check_raises_and_none_is_well_by_mistake():
    passed = {f.name for f in examine(Seen()) if f.status == "pass"}
    assert passed == set()


def test_a_graph_that_watches_needs_no_motion():
    watching = replace(WELL, **without("motion"), **policy(execute=False))
    assert {f.name for f in examine(watching) if f.status in ("fail", "warn")} == set()


def test_in_lockstep_frames_come_when_a_step_is_asked_for():
    lockstep = replace(
        WELL,
        nodes={"policy": "active", "sim_bridge": "running"},
        lockstep=True,
        motion={},
        velocity=None,
        odom=None,
        ranges=None,
        lines={"policy: state": WELL.lines["policy: state"]},
        camera=replace(WELL.camera, arrivals=[0.0], stamps=[5 * S], ages=[99.0]),
    )
    assert {f.name for f in examine(lockstep) if f.status in ("fail", "warn")} == set()


def test_the_mount_of_a_camera_follows_the_transforms_up_to_the_base():
    half = math.radians(30) / 2
    optical = (-0.5, 0.5, -0.5, 0.5)  # REP-103: z ahead, x right, y down
    tree = {
        "mast": ("base_link", (0.1, 0.0, 1.0), (0.0, 0.0, 0.0, 1.0)),
        "camera": ("mast", (0.0, 0.0, 0.2), (0.0, math.sin(half), 0.0, math.cos(half))),
        "optical": ("camera", (0.0, 0.0, 0.0), optical),
    }
    assert camera_mount(tree, "optical", "base_link") == pytest.approx((1.2, 30.0))
    assert camera_mount(tree, "optical", "chassis") is None
    assert camera_mount({"a": ("a", (0, 0, 0), (0, 0, 0, 1))}, "a", "base") is None


def test_the_parameters_that_the_checks_read_are_those_of_the_nodes():
    pytest.importorskip("rclpy", reason="needs ROS 2")
    from janusvln_ros.nodes import motion, policy

    def named(table: tuple[Param, ...]):
        return {one.name for one in table}

    assert set(WELL.policy) <= named(policy.PARAMETERS)
    assert set(WELL.motion) <= named(motion.PARAMETERS)

"""
Small bags of real format for the tests: a simulated drive with camera, odometry, instruction and
decisions.
"""

from pathlib import Path

import numpy as np

from janusvln_ros.data.bags import BagWriter, message_types

T = message_types().types


def stamp(nanoseconds: int):
    return T["builtin_interfaces/msg/Time"](sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)


def header(nanoseconds: int, frame: str = "camera"):
    return T["std_msgs/msg/Header"](stamp=stamp(nanoseconds), frame_id=frame)


def image(nanoseconds: int, value: int = 0, height: int = 12, width: int = 16):
    # vertical stripes, so that no frame counts as blurred; the first pixel tells which frame it is
    data = np.tile(np.array([0, 0, 0, 255, 255, 255], np.uint8), height * width // 2)
    data[:3] = value % 256
    return T["sensor_msgs/msg/Image"](
        header=header(nanoseconds),
        height=height,
        width=width,
        encoding="rgb8",
        is_bigendian=0,
        step=3 * width,
        data=data,
    )


def camera_info(nanoseconds: int, height: int, width: int):
    focal = width / 2 / np.tan(np.radians(79) / 2)
    k = np.array([focal, 0, (width - 1) / 2, 0, focal, (height - 1) / 2, 0, 0, 1])
    roi = T["sensor_msgs/msg/RegionOfInterest"](
        x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
    )
    return T["sensor_msgs/msg/CameraInfo"](
        header=header(nanoseconds),
        height=height,
        width=width,
        distortion_model="plumb_bob",
        d=np.zeros(5),
        k=k,
        r=np.eye(3).ravel(),
        p=np.zeros(12),
        binning_x=0,
        binning_y=0,
        roi=roi,
    )


def decision(
    nanoseconds: int, step: int, action: int, episode: int = 1, instruction="go to the red door"
):
    numbers = dict.fromkeys(("preprocess", "spatial", "vision", "prefill", "decode", "total"), 0.0)
    counts = dict.fromkeys(
        ("spatial_frames", "semantic_frames", "memory_capacity", "memory_bytes"), 0
    )
    return T["janusvln_msgs/msg/Decision"](
        header=header(nanoseconds),
        episode_id=episode,
        step=step,
        instruction=instruction,
        action=action,
        status=0,
        text="",
        error_msg="",
        probabilities=np.full(4, 0.25, np.float32),
        executed=True,
        **numbers,
        **counts,
    )


def odometry(nanoseconds: int, x: float, y: float, yaw: float):
    zero = T["geometry_msgs/msg/Vector3"](x=0.0, y=0.0, z=0.0)
    pose = T["geometry_msgs/msg/Pose"](
        position=T["geometry_msgs/msg/Point"](x=float(x), y=float(y), z=0.0),
        orientation=T["geometry_msgs/msg/Quaternion"](
            x=0.0, y=0.0, z=float(np.sin(yaw / 2)), w=float(np.cos(yaw / 2))
        ),
    )
    return T["nav_msgs/msg/Odometry"](
        header=header(nanoseconds, "odom"),
        child_frame_id="base_link",
        pose=T["geometry_msgs/msg/PoseWithCovariance"](pose=pose, covariance=np.zeros(36)),
        twist=T["geometry_msgs/msg/TwistWithCovariance"](
            twist=T["geometry_msgs/msg/Twist"](linear=zero, angular=zero), covariance=np.zeros(36)
        ),
    )


def simulate(actions, *, pause_s=0.2, error=0.02, seed=0, rate_hz=50, start_ns=10**9):
    """
    Stamps (ns) and poses (x, y, yaw) of a base that executes ``actions`` with smooth speed
    profiles, each a little more than a whole step.
    """
    rng = np.random.default_rng(seed)
    dt = 1 / rate_hz
    x = y = yaw = 0.0
    poses = [(x, y, yaw)]
    for action in actions:
        seconds = 0.9 if action == 1 else 0.6
        profile = np.diff((1 - np.cos(np.linspace(0, np.pi, round(seconds / dt) + 1))) / 2)
        amount = (0.25 if action == 1 else np.radians(15) * (1 if action == 2 else -1)) * (
            1 + error * abs(rng.normal())
        )
        for share in profile:
            if action == 1:
                x, y = x + share * amount * np.cos(yaw), y + share * amount * np.sin(yaw)
            else:
                yaw += share * amount
            poses.append((x, y, yaw))
        poses += [(x, y, yaw)] * round(pause_s / dt)
    return [start_ns + round(n * dt * 1e9) for n in range(len(poses))], poses


def write_drive(
    path: Path, actions, instruction="go to the red door", camera_hz=30, size=(12, 16), **drive
) -> Path:
    """A bag of a drive as a user would record it: camera, odometry, instruction."""
    stamps, poses = simulate(actions, **drive)
    events = [(s, "/odom", odometry(s, *pose)) for s, pose in zip(stamps, poses)]
    events += [
        (s, "/image", image(s, n, *size))
        for n, s in enumerate(range(stamps[0], stamps[-1] + 1, 10**9 // camera_hz))
    ]
    events.append((stamps[0], "/camera_info", camera_info(stamps[0], *size)))
    if instruction is not None:
        events.append((stamps[0] - 1, "/instruction", T["std_msgs/msg/String"](data=instruction)))
    with BagWriter(path) as writer:
        for time, topic, message in sorted(events, key=lambda event: event[:2]):
            writer.write_message(topic, time, message)
    return path

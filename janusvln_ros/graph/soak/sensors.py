"""
What the sensors say between the simulator and the nodes: as it is, or spoilt.

A spoiler is a function of a message and of the past of its topic that returns what is said
instead, None for nothing.
"""

import array
import math
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import rclpy
from nav_msgs.msg import Odometry
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, LaserScan

from janusvln_ros.geometry import yaw_of
from janusvln_ros.graph.composition import NodeSpec

TRUE = "true/"
"""What precedes the topics that the simulator publishes for the relay."""

LATE_S = 1.0
"""Seconds by which odometry is late where that is the fault."""

AHEAD_RAD = 0.35
"""Half the angle of a scan that is straight ahead, radians."""


@dataclass
class Past:
    """
    What a topic truly said: ``first``, the message before it was spoilt, and the last second, as
    (steady time, message).
    """

    first: Any = None
    last_second: deque[tuple[float, bytes]] = field(default_factory=deque)


Spoiler = Callable[[Any, Past], Any | None]


class After(Enum):
    """What must come of a fault that stays."""

    REST = "the base rests within the promise"
    PAUSE = (
        "the base comes to rest within the promise, and may go on: what it hears is right again"
    )
    NO_WAY = "the base makes no way, turns it may"
    END = "no step beyond one and a half, and the drive ends"
    WAY = "no step beyond one and a half, and the drive ends once a step has gone ahead"
    HOLDS = "no step beyond one and a half; what was told last holds, and the drive may go on"


@dataclass(frozen=True)
class Spoil:
    """A fault of a sensor: which topic says what instead, and what must come of it."""

    topic: str
    spoiler: Spoiler
    after: After


# ---------------------------------------------------------------- spoilers


def nothing(_message: Any, _past: Past) -> None:
    """The topic falls silent."""


def stamped(seconds: float) -> Spoiler:
    """Stamps are off by so many whole seconds."""

    def spoil(message: Any, _past: Past) -> Any:
        message.header.stamp.sec += int(seconds)
        return message

    return spoil


def stamps_frozen(message: Any, past: Past) -> Any:
    """Stamps do not advance any more."""
    message.header.stamp = past.first.header.stamp
    return message


def pose_said(says: Callable[[float, float, float], tuple[float, float, float]]) -> Spoiler:
    """
    The pose is what ``says`` makes of the way (x, y, turn) since the fault began; the twist stays.
    """

    def spoil(message: Any, past: Past) -> Any:
        pose, first = message.pose.pose, past.first.pose.pose
        began, now = (yaw_of(*(getattr(p.orientation, a) for a in "xyzw")) for p in (first, pose))
        way = (pose.position.x - first.position.x, pose.position.y - first.position.y, now - began)
        x, y, turn = says(*way)
        pose.position.x, pose.position.y = first.position.x + x, first.position.y + y
        half = (began + turn) / 2
        pose.orientation.z, pose.orientation.w = math.sin(half), math.cos(half)
        return message

    return spoil


def dead(message: Any, past: Past) -> Any:
    """Pose and twist stand still, stamps go on."""
    message.pose, message.twist.twist = past.first.pose, type(message.twist.twist)()
    return message


def not_a_number(message: Any, _past: Past) -> Any:
    """A position that is none."""
    message.pose.pose.position.x = math.nan
    return message


def quaternion_of_zeros(message: Any, _past: Past) -> Any:
    """An orientation that is none."""
    for name in "xyzw":
        setattr(message.pose.pose.orientation, name, 0.0)
    return message


def late(message: Any, past: Past) -> Any | None:
    """What was true a second ago, with the stamp of now."""
    old = deserialize_message(past.last_second[0][1], type(message))
    old.header.stamp = message.header.stamp
    return old


def ahead(value: float) -> Spoiler:
    """All beams of a scan that look ahead say ``value``."""

    def spoil(message: Any, _past: Past) -> Any:
        for i in range(len(message.ranges)):
            if abs(message.angle_min + i * message.angle_increment) < AHEAD_RAD:
                message.ranges[i] = value
        return message

    return spoil


def angles_without_end(message: Any, _past: Past) -> Any:
    """A scan whose beams have no angles."""
    message.angle_increment = math.inf
    return message


def depth_everywhere(value: float) -> Spoiler:
    """A depth image that says ``value`` metres everywhere."""

    def spoil(message: Any, _past: Past) -> Any:
        order = ">" if message.is_bigendian else "<"
        pixels = struct.pack(f"{order}f", value) * (message.width * message.height)
        message.data = array.array("B", pixels)
        return message

    return spoil


def rows_without_end(message: Any, _past: Past) -> Any:
    """An image whose rows claim more than it holds."""
    message.step = 2**32 - 1
    return message


def intrinsics(*places: int, value: float = 0.0) -> Spoiler:
    """Numbers of the camera matrices become ``value``."""

    def spoil(message: Any, _past: Past) -> Any:
        for place in places:
            message.k[place] = value
            message.p[place // 3 * 4 + place % 3] = value
        return message

    return spoil


def torn(message: Any, _past: Past) -> Any:
    """A picture of which half has come."""
    message.data = message.data[: len(message.data) // 2]
    return message


# ---------------------------------------------------------------- the table

ODOM, SCAN, DEPTH, INFO = "odom", "scan", "depth", "camera_info"
PICTURES = "image/compressed"

SPOILS: Mapping[str, Spoil] = {
    "odom_stops": Spoil(ODOM, nothing, After.REST),
    "odom_nan": Spoil(ODOM, not_a_number, After.REST),
    "odom_quaternion_zero": Spoil(ODOM, quaternion_of_zeros, After.REST),
    "odom_jumps": Spoil(ODOM, pose_said(lambda x, y, turn: (x + 3, y, turn)), After.PAUSE),
    "odom_turned_90": Spoil(
        ODOM, pose_said(lambda x, y, turn: (x, y, turn + math.pi / 2)), After.PAUSE
    ),
    "odom_turned_-170": Spoil(
        ODOM, pose_said(lambda x, y, turn: (x, y, turn - math.radians(170))), After.PAUSE
    ),
    "odom_old": Spoil(ODOM, stamped(-5), After.REST),
    "odom_ahead": Spoil(ODOM, stamped(5), After.REST),
    "odom_stamps_frozen": Spoil(ODOM, stamps_frozen, After.REST),
    "odom_pose_frozen": Spoil(ODOM, pose_said(lambda x, y, turn: (0, 0, 0)), After.END),
    "odom_reversed": Spoil(ODOM, pose_said(lambda x, y, turn: (-x, -y, -turn)), After.END),
    "odom_a_tenth": Spoil(
        ODOM, pose_said(lambda x, y, turn: (x / 10, y / 10, turn / 10)), After.END
    ),
    "odom_a_half": Spoil(ODOM, pose_said(lambda x, y, turn: (x / 2, y / 2, turn / 2)), After.END),
    # turns are told as they are, and who stands before something makes nothing but turns
    "odom_rotated": Spoil(ODOM, pose_said(lambda x, y, turn: (-y, x, turn)), After.WAY),
    "odom_dead": Spoil(ODOM, dead, After.END),
    "odom_late": Spoil(ODOM, late, After.END),
    "scan_stops": Spoil(SCAN, nothing, After.NO_WAY),
    "scan_nan": Spoil(SCAN, ahead(math.nan), After.NO_WAY),
    "scan_near": Spoil(SCAN, ahead(-math.inf), After.NO_WAY),
    "scan_absorbed": Spoil(SCAN, ahead(math.inf), After.NO_WAY),
    "scan_zero": Spoil(SCAN, ahead(0.0), After.NO_WAY),
    "scan_old": Spoil(SCAN, stamped(-5), After.NO_WAY),
    "scan_no_angles": Spoil(SCAN, angles_without_end, After.NO_WAY),
    "depth_stops": Spoil(DEPTH, nothing, After.NO_WAY),
    "depth_nan": Spoil(DEPTH, depth_everywhere(math.nan), After.NO_WAY),
    "depth_near": Spoil(DEPTH, depth_everywhere(-math.inf), After.NO_WAY),
    "depth_zero": Spoil(DEPTH, depth_everywhere(0.0), After.NO_WAY),
    "depth_old": Spoil(DEPTH, stamped(-5), After.NO_WAY),
    "depth_endless_rows": Spoil(DEPTH, rows_without_end, After.NO_WAY),
    "depth_info_zero": Spoil(INFO, intrinsics(0, 2, 4, 5), After.NO_WAY),
    "depth_info_nan": Spoil(INFO, intrinsics(5, value=math.nan), After.NO_WAY),
    "depth_info_stops": Spoil(INFO, nothing, After.HOLDS),  # a lens that is told once
    "camera_stops": Spoil(PICTURES, nothing, After.END),
    "camera_torn": Spoil(PICTURES, torn, After.END),
    "camera_old": Spoil(PICTURES, stamped(-60), After.END),
    "camera_ahead": Spoil(PICTURES, stamped(60), After.END),
}
"""Faults of sensors that stay until the drive is over, by name."""

KINDS: Mapping[str, tuple[Any, QoSProfile]] = {
    ODOM: (Odometry, QoSProfile(depth=10)),
    SCAN: (LaserScan, qos_profile_sensor_data),
    DEPTH: (Image, QoSProfile(depth=5)),
    INFO: (CameraInfo, QoSProfile(depth=5)),
    PICTURES: (CompressedImage, QoSProfile(depth=5)),
}
"""What goes through the relay: its type, and the quality of service that the simulator gives."""


def spoils_of(source: str) -> tuple[str, ...]:
    """The faults of a robot whose way ahead is guarded by ``source``, "scan" or "depth"."""
    other = DEPTH if source == SCAN else SCAN
    return tuple(name for name in SPOILS if not name.startswith(other))


def behind_relay(specs: Sequence[NodeSpec]) -> list[NodeSpec]:
    """The nodes with a simulator that speaks to the relay in place of the others."""
    away = {topic: TRUE + topic for topic in KINDS}
    seen = {"depth_info": INFO}
    return [
        replace(spec, remaps={**spec.remaps, **(away if spec.name == "sim_bridge" else seen)})
        for spec in specs
    ]


class Sensors:
    """
    The relay, on a thread of its own: what the simulator says, or what a fault makes of it.

    Attributes:
        pictures: how many came from the simulator.
    """

    def __init__(self, context: rclpy.Context) -> None:
        self.node = rclpy.create_node("sensors", context=context, start_parameter_services=False)
        self.pictures = 0
        self._past = {topic: Past() for topic in KINDS}
        self._spoilt: tuple[Spoil, Past] | None = None
        self._outputs = {
            topic: self.node.create_publisher(kind, topic, qos)
            for topic, (kind, qos) in KINDS.items()
        }
        for topic, (kind, qos) in KINDS.items():
            self.node.create_subscription(kind, TRUE + topic, self._on(topic), qos, raw=True)
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self.node)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._spin, name="sensors", daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        while not self._over.is_set():
            self._executor.spin_once(timeout_sec=0.1)

    def close(self) -> None:
        """Leave the graph."""
        self._over.set()
        self._thread.join()
        self._executor.shutdown()
        self.node.destroy_node()

    def spoil(self, name: str) -> None:
        """From now on a topic says what the fault ``name`` of `SPOILS` makes of it."""
        fault = SPOILS[name]
        truly = self._past[fault.topic].last_second
        first = deserialize_message(truly[-1][1], KINDS[fault.topic][0])
        self._spoilt = fault, Past(first, truly)

    def restore(self) -> None:
        """Every sensor says what is true."""
        self._spoilt = None

    def _on(self, topic: str) -> Callable[[bytes], None]:
        past, output = self._past[topic].last_second, self._outputs[topic]
        kind = KINDS[topic][0]

        def heard(data: bytes) -> None:
            now = time.monotonic()
            past.append((now, data))
            while now - past[0][0] > LATE_S:
                past.popleft()
            self.pictures += topic == PICTURES
            spoilt = self._spoilt
            if spoilt is None or spoilt[0].topic != topic:
                output.publish(data)
            elif (
                said := spoilt[0].spoiler(deserialize_message(data, kind), spoilt[1])
            ) is not None:
                output.publish(said)

        return heard

"""Small conversions between ROS messages and plain values that several nodes use."""

from importlib import import_module
from typing import Any

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import Pose
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)

from janusvln_ros.errors import InputError
from janusvln_ros.geometry import Pose2, half_turn
from janusvln_ros.protocol.health import Health


def stamp_message(ns: int) -> Time:
    """The reverse of ``stamps.nanoseconds``."""
    return Time(sec=ns // 1_000_000_000, nanosec=ns % 1_000_000_000)


def pose_message(pose: Pose2, height: float = 0.0) -> Pose:
    """Return a pose on the floor as a ``geometry_msgs/Pose``."""
    message = Pose()
    message.position.x, message.position.y, message.position.z = pose.x, pose.y, height
    message.orientation.z, message.orientation.w = half_turn(pose.yaw)
    return message


def diagnostics_message(stamp: Time, hardware: str, lines: list[Health]) -> DiagnosticArray:
    """Health lines as the standard message."""
    message = DiagnosticArray()
    message.header.stamp = stamp
    for line in lines:
        values = [KeyValue(key=key, value=value) for key, value in line.values.items()]
        status = DiagnosticStatus(
            level=bytes([line.level]),
            name=f"{hardware}: {line.name}",
            message=line.message,
            hardware_id=hardware,
            values=values,
        )
        message.status.append(status)
    return message


def kept_for_latecomers(depth: int = 1) -> QoSProfile:
    """The profile of a topic that says something once: reliable, transient local."""
    return QoSProfile(
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )


def message_class(msgtype: str) -> Any:
    """
    The Python class of ``package/msg/Name``.

    Raises:
        InputError: its package is not installed.
    """
    package, namespace, name = msgtype.split("/")
    try:
        return getattr(import_module(f"{package}.{namespace}"), name)
    except (ImportError, AttributeError):
        raise InputError(f"message type {msgtype} is not installed here") from None


def offered_profile(profile: Any) -> Qos:
    """What a publisher offers, an rclpy ``QoSProfile``, as bags record it."""
    spans = (profile.deadline, profile.lifespan, profile.liveliness_lease_duration)
    deadline, lifespan, lease = (QosTime(*divmod(span.nanoseconds, 10**9)) for span in spans)
    return Qos(
        QosHistory(profile.history.value),
        int(profile.depth),
        QosReliability(profile.reliability.value),
        QosDurability(profile.durability.value),
        deadline,
        lifespan,
        QosLiveliness(profile.liveliness.value),
        lease,
        bool(profile.avoid_ros_namespace_conventions),
    )

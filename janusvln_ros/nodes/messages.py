"""Small conversions between ROS messages and plain values that both nodes use."""

from typing import Any

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from janusvln_ros.protocol.health import Health


def nanoseconds(stamp: Any) -> int:
    """A ``builtin_interfaces/Time`` as one number."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def stamp_message(ns: int) -> Time:
    """The reverse of ``nanoseconds``."""
    return Time(sec=ns // 1_000_000_000, nanosec=ns % 1_000_000_000)


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

"""Stamps of ROS messages as one number."""

from typing import Any


def nanoseconds(stamp: Any) -> int:
    """
    Return a ``builtin_interfaces/Time``, from rclpy or read from a bag, in nanoseconds.
    """
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)

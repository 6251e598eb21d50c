"""Whether ROS 2 is there: the one question that the command line asks before it starts nodes."""

from importlib import import_module

from janusvln_ros.errors import InputError


def require_ros() -> None:
    """
    Return if rclpy and our interfaces import.

    Raises:
        InputError: one of them does not.
    """
    for package in ("rclpy", "janusvln_msgs"):
        try:
            import_module(package)
        except ImportError as error:
            raise InputError(
                f"ROS 2 is not there ({error}): run 'make setup', or source the ROS 2 "
                "workspace in which janusvln_msgs was built"
            ) from error

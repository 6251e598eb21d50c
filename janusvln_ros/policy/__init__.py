"""The policy: frames and an instruction in, decisions out. No ROS."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from janusvln_ros.actions import Action

if TYPE_CHECKING:
    from janusvln_ros.policy.navigator import Decision, Navigator, NavigatorOptions

__all__ = ["Action", "Decision", "Navigator", "NavigatorOptions", "default_checkpoint"]


def default_checkpoint() -> Path:
    """The folder of the shipped checkpoint, which is used when none is named."""
    return Path(__file__).resolve().parents[1] / "checkpoints" / "janusvln-tiny"


def __getattr__(name: str) -> Any:
    # Imported on first use: torch takes seconds, and a node must listen to signals and answer
    # meanwhile.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("janusvln_ros.policy.navigator"), name)

"""The policy: frames and an instruction in, decisions out. No ROS."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from janusvln_ros.actions import Action

if TYPE_CHECKING:
    from janusvln_ros.policy.decision import Decision
    from janusvln_ros.policy.default import default_checkpoint
    from janusvln_ros.policy.navigator import Navigator, NonFiniteError

__all__ = ["Action", "Decision", "Navigator", "NonFiniteError", "default_checkpoint"]

_MODULES = {
    "Decision": "decision",
    "Navigator": "navigator",
    "NonFiniteError": "navigator",
    "default_checkpoint": "default",
}


def __getattr__(name: str) -> Any:
    # Imported on first use: torch takes seconds, and a node must listen to signals and answer
    # meanwhile.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"janusvln_ros.policy.{_MODULES[name]}"), name)

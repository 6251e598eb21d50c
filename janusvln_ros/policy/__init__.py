"""The policy: frames and an instruction in, decisions out. No ROS."""

from janusvln_ros.actions import Action
from janusvln_ros.policy.decision import Decision
from janusvln_ros.policy.default import default_checkpoint
from janusvln_ros.policy.navigator import Navigator, NonFiniteError

__all__ = ["Action", "Decision", "Navigator", "NonFiniteError", "default_checkpoint"]

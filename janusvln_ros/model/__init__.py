"""The network and its two memories. No ROS, no simulator.

Read in this order: `janusvln` (the whole), `spatial` (where things are), `memory` (what is remembered), `dual` (the semantic memory),
`config` and `checkpoint` (files).
"""

from janusvln_ros.model.config import JanusVLNConfig
from janusvln_ros.model.janusvln import JanusVLN

__all__ = ["JanusVLN", "JanusVLNConfig"]

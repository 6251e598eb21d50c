"""
The network and its two memories. No ROS, no simulator.

Read in this order: `janusvln` (the whole), `spatial` (where things are), `memory` (what is
remembered), `dual` (the semantic memory), `config` and `checkpoint` (files).
"""

import logging

# transformers imports torchao wherever it is installed, which then reports every extension that it
# did not load.
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)

from janusvln_ros.model.config import JanusVLNConfig  # noqa: E402
from janusvln_ros.model.janusvln import JanusVLN  # noqa: E402

__all__ = ["JanusVLN", "JanusVLNConfig"]

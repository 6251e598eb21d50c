"""
The network and its two memories. No ROS, no simulator.

Read in this order: `network` (the whole), `spatial` (where things are), `memory` (what is
remembered), `dual` (the semantic memory), then `config`, `adapter` (names of tensors) and
`checkpoint` (files).

Tensor names carry their shape. Letters: B batch, F frames, P tokens per frame, N heads, H head
size, D width, L sequence; further A tokens of an answer, G key-value heads beside N query heads, K
keys that are attended, M merged tokens of a picture (2 x 2 patches each), R rows that are wanted
of a sequence, T tokens of a tree of answers, V vocabulary, Z layers, X any leading dimensions; in
lower case h x w pixels and r x c patches.
"""

import logging

# transformers imports torchao wherever it is installed, which then reports every extension that it
# did not load.
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)

from janusvln_ros.model.checkpoint import JanusVLN  # noqa: E402
from janusvln_ros.model.config import JanusVLNConfig  # noqa: E402

__all__ = ["JanusVLN", "JanusVLNConfig"]

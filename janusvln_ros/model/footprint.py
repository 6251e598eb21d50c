"""
How much memory a network and an episode take, from the sizes in config.json alone.

Weights and memories are counted exactly, tensor by tensor; the room that a step needs while it
computes is an estimate.
"""

from dataclasses import dataclass
from math import prod

import torch

from janusvln_ros.model.config import JanusVLNConfig, Memory, key_value_shape
from janusvln_ros.model.memory import FrameWindow
from janusvln_ros.model.network import MERGE, Network
from janusvln_ros.model.quantization import group_size

PART_NAMES = {
    "vision": "vision tower",
    "spatial": "spatial encoder",
    "fusion": "fusion",
    "language": "language model",
    "lm_head": "language-model head",
}
"""Parts of `Network` by the first part of their parameters' names."""

WEIGHT_PRECISIONS = {"float32": 4, "bfloat16": 2, "int8": 2, "int4": 2}
"""Bytes of a number of everything but the language model's layers, by their precision."""

GPU_GIGABYTES = (8, 16, 24, 40, 64, 80)
CONTEXT_BYTES = 700 * 2**20
"""Estimate of what a CUDA context, its kernels and the allocator's leftovers take."""

PROMPT_TOKENS = 256
"""Set aside for text around the frames."""

LEAF_TOKENS = 16
"""About as many as a question and an answer take (``dual``)."""


@dataclass(frozen=True)
class FrameSize:
    """
    A camera frame inside the network: ``height`` x ``width`` patches for the spatial encoder.
    """

    height: int
    width: int

    @property
    def fused(self) -> int:
        """Fused tokens: merge groups of 2 x 2 patches, an odd row or column left out."""
        return (self.height // MERGE) * (self.width // MERGE)


@dataclass(frozen=True)
class Episode:
    """
    What is remembered, and how.

    Attributes:
        frame: size of a frame.
        memory: ``released`` or ``dual``.
        window: which frames are kept.
        number_bytes: of one number of the weights' dtype.
        spatial_byte: the spatial memory keeps one byte a number, with a float32 scale per token
            and head.
    """

    frame: FrameSize
    memory: Memory
    window: FrameWindow
    number_bytes: int
    spatial_byte: bool = False


def on_paper(config: JanusVLNConfig) -> Network:
    """A network of these sizes without any weights, to be counted."""
    with torch.device("meta"):
        return Network(config)


def count_parameters(network: Network) -> dict[str, int]:
    """Parameters of each part of a network (see `on_paper`), by the keys of `PART_NAMES`."""
    parameters = dict(network.named_parameters())
    return {
        part: sum(p.numel() for name, p in parameters.items() if name.split(".")[0] == part)
        for part in PART_NAMES
    }


def weight_bytes(network: Network, precision: str) -> int:
    """
    Bytes of a network's weights on the device (see `on_paper`). int8 and int4 count the language
    model's layers small, everything else as bfloat16.
    """
    each = WEIGHT_PRECISIONS[precision]
    total = sum(p.numel() for p in network.parameters()) * each
    linear = [m for m in network.language.layers.modules() if isinstance(m, torch.nn.Linear)]
    for module in linear:
        rows, columns = module.weight.shape
        group = group_size(columns)
        if precision == "int8":
            total += rows * columns * (1 - each) + 4 * rows
        elif precision == "int4" and group is not None:
            total += rows * columns // 2 - rows * columns * each + rows * (columns // group) * 4
    return total


def memory_bytes(
    config: JanusVLNConfig, episode: Episode
) -> tuple[dict[str, int], dict[str, int]]:
    """Bytes that one more remembered frame takes, and that are set aside for an episode in all."""
    spatial, frame, slots = config.spatial, episode.frame, episode.window.slots
    tokens = spatial.num_special_tokens + frame.height * frame.width
    each = 1 if episode.spatial_byte else episode.number_bytes
    scales = 4 * spatial.num_heads if episode.spatial_byte else 0
    frame_spatial = 2 * spatial.used_depth * tokens * (spatial.embed_dim * each + scales)
    row = 2 * prod(key_value_shape(config.text)) * episode.number_bytes
    per_frame, total = {"spatial": frame_spatial}, {"spatial": frame_spatial * slots}
    if episode.memory == "dual":
        per_frame["semantic"] = row * (frame.fused + 2)
        total["semantic"] = slots * per_frame["semantic"] + row * (PROMPT_TOKENS + LEAF_TOKENS)
    else:
        pictures, answer = config.navigation.num_history + 1, config.navigation.max_new_tokens
        rows = PROMPT_TOKENS + pictures * (frame.fused + 2) + answer
        total["prompt of one step"] = row * rows
    return per_frame, total


def working_bytes(config: JanusVLNConfig, episode: Episode) -> int:
    """
    Estimate of the room that one step needs while it computes: the widest layer of each part, of
    which one runs at a time.
    """
    text, vision, spatial = config.text, config.vision, config.spatial
    number, patches = episode.number_bytes, episode.frame.height * episode.frame.width
    dual = episode.memory == "dual"
    pictures = 1 if dual else config.navigation.num_history + 1
    rows = pictures * (episode.frame.fused + 2) + (LEAF_TOKENS if dual else PROMPT_TOKENS)
    # The spatial encoder's residual stream and norms are float32; a memory in bytes is turned back
    # one layer at a time, with a copy.
    restored = 3 * number * episode.window.slots if episode.spatial_byte else 0
    return max(
        rows * (3 * text.intermediate_size + 6 * text.hidden_size) * number,
        patches * (3 * vision.intermediate_size + 8 * vision.hidden_size) * number,
        patches * spatial.embed_dim * (4 * number + 8 * 4 + restored),
    )

"""
How much memory a network and an episode take, from the sizes in config.json alone.

Weights and memories are counted exactly, tensor by tensor; the room that a step needs while it
computes is an estimate.
"""

from dataclasses import dataclass

import torch

from janusvln_ros.model.checkpoint import published_name, unused_reason
from janusvln_ros.model.config import JanusVLNConfig
from janusvln_ros.model.janusvln import JanusVLN
from janusvln_ros.model.memory import FrameWindow
from janusvln_ros.model.quantization import group_size
from janusvln_ros.model.spatial import PATCH

PART_NAMES = {
    "vision": "vision tower",
    "spatial": "spatial encoder",
    "fusion": "fusion",
    "language": "language model",
    "lm_head": "language-model head",
}
"""Parts of `JanusVLN` by the first part of their parameters' names."""

WEIGHT_PRECISIONS = ("float32", "bfloat16", "int8", "int4")
GPU_GIGABYTES = (8, 16, 24, 40, 64, 80)
CONTEXT_BYTES = 700 * 2**20
"""Estimate of what a CUDA context, its kernels and the allocator's leftovers take."""


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
        return (self.height // 2) * (self.width // 2)


@dataclass(frozen=True)
class MemoryBytes:
    """
    Bytes of an episode's memories.

    ``per_frame`` holds what one more remembered frame takes, ``total`` what is set aside in all.
    """

    per_frame: dict[str, int]
    total: dict[str, int]


def count_parameters(config: JanusVLNConfig) -> dict[str, int]:
    """Parameters of each part of the network that is built, by the keys of `PART_NAMES`."""
    with torch.device("meta"):
        model = JanusVLN(config)
    return {
        part: sum(p.numel() for name, p in model.named_parameters() if name.split(".")[0] == part)
        for part in PART_NAMES
    }


def weight_bytes(config: JanusVLNConfig, precision: str) -> int:
    """
    Bytes of the weights on the device. int8 and int4 count the language model's layers small,
    everything else as bfloat16.
    """
    each = 4 if precision == "float32" else 2
    with torch.device("meta"):
        model = JanusVLN(config)
    total = sum(p.numel() for p in model.parameters()) * each
    if precision in ("int8", "int4"):
        for module in model.language.layers.modules():
            if isinstance(module, torch.nn.Linear):
                rows, columns = module.weight.shape
                group = group_size(columns)
                if precision == "int8":
                    total += rows * columns * (1 - each) + 4 * rows
                elif group is not None:
                    total += (
                        rows * columns // 2 - rows * columns * each + rows * (columns // group) * 4
                    )
    return total


def memory_bytes(
    config: JanusVLNConfig,
    frame: FrameSize,
    memory: str,
    window: FrameWindow,
    number_bytes: int,
    spatial_bytes: int | None = None,
    prompt_tokens: int = 256,
) -> MemoryBytes:
    """
    Bytes of the memories of one episode.

    Args:
        config: sizes of the network.
        frame: size of a frame.
        memory: ``released`` or ``dual``.
        window: which frames are kept.
        number_bytes: of one number of the weights' dtype.
        spatial_bytes: of one number of the spatial memory; 1 adds a float32 scale per token and
            head. Default: ``number_bytes``.
        prompt_tokens: text around the frames.
    """
    spatial, text = config.spatial, config.text
    tokens = spatial.num_special_tokens + frame.height * frame.width
    each = spatial_bytes or number_bytes
    frame_spatial = (
        2
        * spatial.used_depth
        * tokens
        * (spatial.embed_dim * each + (4 * spatial.num_heads if spatial_bytes == 1 else 0))
    )
    heads = text.num_key_value_heads or text.num_attention_heads
    row = (
        2
        * text.num_hidden_layers
        * heads
        * (text.hidden_size // text.num_attention_heads)
        * number_bytes
    )
    frame_rows = frame.fused + 2
    if memory == "dual":
        rows = prompt_tokens + window.slots * frame_rows + 16
        per_frame = {"spatial": frame_spatial, "semantic": row * frame_rows}
        return MemoryBytes(
            per_frame, {"spatial": frame_spatial * window.slots, "semantic": row * rows}
        )
    rows = (
        prompt_tokens
        + (config.navigation.num_history + 1) * frame_rows
        + config.navigation.max_new_tokens
    )
    return MemoryBytes(
        {"spatial": frame_spatial},
        {"spatial": frame_spatial * window.slots, "prompt of one step": row * rows},
    )


def working_bytes(
    config: JanusVLNConfig,
    frame: FrameSize,
    memory: str,
    window: FrameWindow,
    number_bytes: int,
    spatial_bytes: int | None = None,
    prompt_tokens: int = 256,
) -> int:
    """
    Estimate of the room that one step needs while it computes: the widest layer of each part, of
    which one runs at a time.

    Arguments are those of `memory_bytes`.
    """
    images = 1 if memory == "dual" else config.navigation.num_history + 1
    rows = images * (frame.fused + 2) + (16 if memory == "dual" else prompt_tokens)
    text, vision, spatial = config.text, config.vision, config.spatial
    language = rows * (3 * text.intermediate_size + 6 * text.hidden_size) * number_bytes
    tower = (
        frame.height
        * frame.width
        * (3 * vision.intermediate_size + 8 * vision.hidden_size)
        * number_bytes
    )
    # The spatial encoder's residual stream and norms are float32; a memory in bytes is turned back
    # one layer at a time, with a copy.
    geometry = (
        frame.height
        * frame.width
        * spatial.embed_dim
        * (
            4 * number_bytes
            + 8 * 4
            + (3 * number_bytes * window.slots if spatial_bytes == 1 else 0)
        )
    )
    return max(language, tower, geometry)


def account_published(
    config: JanusVLNConfig, shapes: dict[str, tuple[int, ...]]
) -> tuple[int, dict[str, int]]:
    """
    Parameters of a file's tensors that are used, and of those read past, by reason.

    Names are published ones.
    """
    with torch.device("meta"):
        needed = {published_name(name) for name, _ in JanusVLN(config).named_parameters()}
    used = 0
    unused: dict[str, int] = {}
    for name, shape in shapes.items():
        size = int(torch.Size(shape).numel())
        if name in needed:
            used += size
        elif reason := unused_reason(name, config):
            unused[reason] = unused.get(reason, 0) + size
    return used, unused


@dataclass(frozen=True)
class Work:
    """
    What a stage of one step cannot do without: floating-point operations (a multiplication with
    its addition is 2), and bytes to move.
    """

    operations: float
    bytes: float

    def seconds(self, operations_per_second: float, bytes_per_second: float) -> float:
        """
        The least time on a device of these peak rates: computing and moving at once, neither
        waiting for the other.
        """
        return max(self.operations / operations_per_second, self.bytes / bytes_per_second)


def step_work(
    config: JanusVLNConfig,
    frame: FrameSize,
    memory: str,
    window: FrameWindow,
    number: int,
    number_bytes: int = 2,
    text_tokens: int = 210,
    question_tokens: int = 5,
) -> dict[str, Work]:
    """
    The work of one step by stage: ``spatial``, ``vision``, ``prefill``, and ``decode`` of one more
    token.

    Counts matrix products and attention, the weights read once, and the memories read once; all
    else is small beside them.

    Args:
        config, frame, memory, window, number_bytes: as in `memory_bytes`.
        number: of the frame in its episode, from 1.
        text_tokens: text of the prompt.
        question_tokens: rows of the question (``dual``).
    """
    with torch.device("meta"):
        model = JanusVLN(config)

    def linear(module: torch.nn.Module) -> int:
        return sum(p.numel() for p in module.parameters() if p.dim() >= 2)

    text, vision, spatial = config.text, config.vision, config.spatial
    patches, fused = frame.height * frame.width, frame.fused
    tokens = spatial.num_special_tokens + patches
    attended = min(number, window.slots)

    C, layers = spatial.embed_dim, spatial.used_depth
    dino_tokens = tokens  # class and registers are as many as the camera and the registers
    geometry = (
        2 * dino_tokens * linear(model.spatial.patch_embed.blocks)
        + 4 * dino_tokens**2 * C * spatial.dino_depth
    )
    geometry += (
        2 * tokens * (linear(model.spatial.frame_blocks) + linear(model.spatial.global_blocks))
    )
    geometry += 4 * tokens**2 * C * layers * (1 + attended) + 2 * fused * linear(model.fusion)
    remembered = 2 * layers * tokens * C * number_bytes * attended
    geometry_bytes = (
        sum(p.numel() for p in model.spatial.parameters()) + linear(model.fusion)
    ) * number_bytes + remembered

    seen = fused * 4  # an odd row or column of patches is left out
    window_tokens = (vision.window_size // PATCH) ** 2
    full = len(vision.fullatt_block_indexes)
    tower = 2 * seen * linear(model.vision.blocks) + 4 * seen * vision.hidden_size * (
        full * seen + (vision.depth - full) * window_tokens
    )
    tower += 2 * fused * linear(model.vision.merger)
    tower_bytes = sum(p.numel() for p in model.vision.parameters()) * number_bytes

    D, weights = text.hidden_size, linear(model.language.layers)
    row_bytes = (
        2
        * text.num_hidden_layers
        * (text.num_key_value_heads or text.num_attention_heads)
        * (D // text.num_attention_heads)
        * number_bytes
    )
    if memory == "dual":
        rows = fused + 2 + question_tokens
        keys = text_tokens + attended * (fused + 2) - rows / 2
    else:
        rows = text_tokens + min(number, config.navigation.num_history + 1) * (fused + 2)
        keys = rows / 2
    head = config.text.vocab_size * D
    prefill = 2 * rows * weights + 4 * rows * keys * D * text.num_hidden_layers + 2 * head
    prefill_bytes = (weights + head) * number_bytes + keys * row_bytes
    decode = 2 * (weights + head) + 4 * (rows + keys) * D * text.num_hidden_layers
    return {
        "spatial": Work(geometry, geometry_bytes),
        "vision": Work(tower, tower_bytes),
        "prefill": Work(prefill, prefill_bytes),
        "decode": Work(decode, prefill_bytes),
    }

"""
How much memory a network and an episode take, from the sizes in config.json alone, and which
precision fits into how much.

Weights and memories are counted exactly, tensor by tensor; the room that a step needs while it
computes is an estimate.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

import torch

from janusvln_ros.errors import InputError
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

WEIGHT_PRECISIONS = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 2, "int4": 2}
"""Bytes of a number of everything but the language model's layers, by their precision."""

AUTO = "auto"
"""A precision that is chosen by what there is room for."""

GPU_GIGABYTES = (8, 16, 24, 40, 64, 80)
CONTEXT_BYTES = 700 * 2**20
"""Estimate of what a CUDA context, its kernels and the allocator's leftovers take."""

PROCESS_BYTES = 512 * 2**20
"""Estimate of what Python and its libraries still take on a CPU, and what is left to others."""

PROMPT_TOKENS = 1280
"""
Set aside for text around the frames: the longest instruction that a node takes, where it is
ordinary text (about four characters to a token).
"""

FEATURE_FRAMES = 512
"""
Frames of features set aside in the released mode, in the machine's memory: no episode of VLN-CE
is longer. A longer one doubles them, again and again.
"""

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
        vision = pictures * frame.fused * config.text.hidden_size * episode.number_bytes
        total["pictures of one step"] = vision
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
    seen = pictures * (episode.frame.fused + 2)
    rows = max(seen + LEAF_TOKENS, PROMPT_TOKENS) if dual else seen + PROMPT_TOKENS
    # The spatial encoder's residual stream and norms are float32; a memory in bytes is turned back
    # one layer at a time, with a copy.
    restored = 3 * number * episode.window.slots if episode.spatial_byte else 0
    # what the rows of a frame see of the memory, once per head of a group
    mask = 0
    if dual:
        kept = episode.window.slots * (episode.frame.fused + 2) + PROMPT_TOKENS + LEAF_TOKENS
        groups = text.num_attention_heads // key_value_shape(text)[1]
        mask = (seen + LEAF_TOKENS) * kept * (groups + 1) * number
    return max(
        rows * (3 * text.intermediate_size + 6 * text.hidden_size) * number + mask,
        patches * (3 * vision.intermediate_size + 8 * vision.hidden_size) * number,
        patches * spatial.embed_dim * (4 * number + 8 * 4 + restored),
    )


@dataclass(frozen=True)
class Use:
    """
    How a network is to be run.

    Attributes:
        precision: of the weights, a key of `WEIGHT_PRECISIONS` or `AUTO`.
        window: which frames are remembered.
        spatial_precision: of the spatial memory; None: that of the weights. `AUTO`: that of the
            weights, or int8 where there is no room for it.
    """

    precision: str
    window: FrameWindow
    spatial_precision: str | None = None

    def __str__(self) -> str:
        kept = f"{self.window.initial} + {self.window.window} frames"
        spatial = self.spatial_precision
        kept += f" (spatial memory in {spatial})" if spatial else ""
        return f"{self.precision} with {kept}"


@dataclass(frozen=True)
class Need:
    """
    Bytes that a network and its episodes take on one device.

    Attributes:
        weights: of the network.
        memories: set aside for an episode, by what is kept in them.
        per_frame: of them, what one more remembered frame takes.
        working: estimate of what one step needs while it computes.
        overhead: estimate of what the libraries take.
        host: beside all this in the machine's own memory, where the device is a GPU.
    """

    weights: int
    memories: Mapping[str, int]
    per_frame: Mapping[str, int]
    working: int
    overhead: int
    host: int = 0

    @property
    def total(self) -> int:
        """Bytes on the device."""
        return self.weights + sum(self.memories.values()) + self.working + self.overhead

    def __str__(self) -> str:
        parts = {
            "weights": self.weights,
            "memories": sum(self.memories.values()),
            "to compute": self.working + self.overhead,
        }
        told = ", ".join(f"{name} {_gigabytes(count)}" for name, count in parts.items())
        return f"{_gigabytes(self.total)} ({told})"


def needed(
    config: JanusVLNConfig, network: Network, frame: FrameSize, memory: Memory, use: Use, gpu: bool
) -> Need:
    """
    What ``use`` of a network (see `on_paper`) takes, with pictures of size ``frame``, on a GPU or
    on a CPU.
    """
    number = WEIGHT_PRECISIONS[use.precision]
    episode = Episode(frame, memory, use.window, number, use.spatial_precision is not None)
    per_frame, memories = memory_bytes(config, episode)
    working, pictures = working_bytes(config, episode), 0
    if memory == "released":
        pictures = FEATURE_FRAMES * frame.fused * config.text.hidden_size * number
    # A weight is read, and made smaller, one at a time; on a CPU a product lays out its weights
    # anew while it runs, and attention its keys and values.
    largest = max(p.numel() for p in network.parameters())
    if gpu:
        return Need(
            weight_bytes(network, use.precision),
            memories,
            per_frame,
            working,
            CONTEXT_BYTES,
            pictures + 4 * largest + PROCESS_BYTES,
        )
    if pictures:
        memories |= {"pictures": pictures}
    tokens = config.spatial.num_special_tokens + frame.height * frame.width
    keys = 2 * use.window.slots * tokens * config.spatial.embed_dim * number
    return Need(
        weight_bytes(network, use.precision),
        memories,
        per_frame,
        working + number * largest + keys,
        PROCESS_BYTES,
    )


@dataclass(frozen=True)
class Room:
    """
    Memory of a device: what it is called in a sentence, its bytes, and those that are free.
    ``shared``: it is a part of the machine's.
    """

    name: str
    total: int
    free: int
    shared: bool = False


SHORTER = (48, 40, 32, 24, 16, 12, 8, 4, 2, 1)
"""Windows that are looked at where the one asked for does not fit."""


def fitting(
    config: JanusVLNConfig,
    network: Network,
    frame: FrameSize,
    memory: Memory,
    ask: Use,
    device: Room,
    host: Room | None = None,
) -> Use:
    """
    The use of a network that does what is asked and fits: with `AUTO` the one with the least
    error.

    Only precisions are chosen, never a window: forgetting sooner makes another policy.

    Args:
        config, network: the sizes, and the network of these sizes (see `on_paper`).
        frame: size of the camera's pictures inside the network.
        memory: ``released`` or ``dual``.
        ask: what the user wants.
        device: where the network computes.
        host: the machine's memory, where ``device`` is a GPU; None: a CPU computes.

    Raises:
        InputError: nothing of what is asked fits; the sentence says what would.
    """

    def fits(use: Use) -> bool:
        need = needed(config, network, frame, memory, use, host is not None)
        beside = need.host + (need.total if device.shared else 0)
        return need.total <= device.free and (host is None or beside <= host.free)

    asked = list(_uses(config, ask, host is not None))
    for use in asked:
        if fits(use):
            return use
    others = [*asked, *_uses(config, Use(AUTO, ask.window, AUTO), host is not None)]
    windows = [ask.window]
    windows += [FrameWindow(ask.window.initial, w) for w in SHORTER if w < ask.window.window]
    windows += [FrameWindow(1, 1)] if ask.window.initial > 1 else []
    found: list[Use] = []
    for use in dict.fromkeys(others):  # the less exact ones only where they remember more
        longer = windows[: windows.index(found[-1].window)] if found else windows
        shorter = (Use(use.precision, w, use.spatial_precision) for w in longer)
        found += [best] if (best := next(filter(fits, shorter), None)) else []
    need = needed(config, network, frame, memory, asked[-1], host is not None)
    short = device if need.total > device.free or host is None else host
    wants = need if short is device else f"{_gigabytes(need.host)} beside the GPU"
    remedy = "nothing smaller fits either: free some, or take a smaller checkpoint"
    if found:
        remedy = f"what fits is {' or '.join(map(str, found[-3:]))}"
    raise InputError(
        f"the network takes {wants} in {asked[-1]}, memory {memory}, pictures of {frame.width} x "
        f"{frame.height} patches, but {short.name} has {_gigabytes(short.free)} free of "
        f"{_gigabytes(short.total)}: {remedy}"
    )


def _uses(config: JanusVLNConfig, ask: Use, gpu: bool) -> Iterator[Use]:
    """Every use that does what is asked, that with the least error first."""
    precisions, bytes_too = [ask.precision], [ask.spatial_precision]
    if ask.precision == AUTO:
        own = config.dtype if config.dtype in ("bfloat16", "float16") else "bfloat16"
        precisions = [own, "int8", "int4"] if gpu else ["float32", "bfloat16", "int8", "int4"]
    if ask.spatial_precision == AUTO:
        bytes_too = [None, "int8"]
    for precision in precisions:
        for spatial in bytes_too:
            yield Use(precision, ask.window, spatial)


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB"

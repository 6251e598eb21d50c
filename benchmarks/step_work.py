"""
The least work of one step: operations and bytes that no implementation can do without, by stage.

And the rates that a machine reaches, by which work becomes seconds. Used by `gpu_steps.py` and
`model_steps.py`.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import torch
from torch import nn

from janusvln_ros.model import JanusVLNConfig
from janusvln_ros.model.config import Memory, key_value_shape
from janusvln_ros.model.footprint import FrameSize, on_paper
from janusvln_ros.model.memory import FrameWindow
from janusvln_ros.model.network import Network
from janusvln_ros.model.spatial import PATCH


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


@dataclass(frozen=True)
class Rates:
    """What a machine reaches: floating-point operations and bytes (read and written) a second."""

    operations: float
    bytes: float


def measured_rates(device: torch.device, dtype: torch.dtype, repeats: int = 7) -> Rates:
    """
    Rates of one large matrix product in ``dtype`` and of one large copy, medians of ``repeats``.

    Values are drawn: some hardware multiplies noughts faster.
    """
    side, numbers = (8192, 2**30) if device.type == "cuda" else (2048, 2**26)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    out, source = torch.empty_like(a), torch.zeros(numbers, device=device)
    target = torch.ones_like(source)
    product = median_seconds(lambda: torch.mm(a, b, out=out), device, repeats)
    copy = median_seconds(lambda: target.copy_(source), device, repeats)
    return Rates(2 * side**3 / product, 2 * source.nbytes / copy)


def median_seconds(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median time of ``work``, finished on its device, after two calls that do not count."""
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


@dataclass(frozen=True)
class Step:
    """
    A step of an episode.

    Attributes:
        frame: size of a frame.
        memory: ``released`` or ``dual``.
        window: which frames are kept.
        number: of the frame in its episode, from 1.
        number_bytes: of one number of the weights and memories.
        text_tokens: text of the prompt.
        question_tokens: rows of the question (``dual``).
    """

    frame: FrameSize
    memory: Memory
    window: FrameWindow
    number: int
    number_bytes: int = 2
    text_tokens: int = 210
    question_tokens: int = 5

    @property
    def attended(self) -> int:
        """Frames that are seen."""
        return min(self.number, self.window.slots)


def step_work(config: JanusVLNConfig, step: Step) -> dict[str, Work]:
    """
    The work of one step by stage: ``spatial``, ``vision``, ``prefill``, and ``decode`` of one more
    token.

    Counts matrix products and attention, the weights read once, and the memories read once; all
    else is small beside them.
    """
    network = on_paper(config)
    return {
        "spatial": _spatial(network, step),
        "vision": _vision(network, step),
        **_language(network, step),
    }


def _linear(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.dim() >= 2)


def _all(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _spatial(network: Network, step: Step) -> Work:
    encoder, sizes = network.spatial, network.config.spatial
    tokens = sizes.num_special_tokens + step.frame.height * step.frame.width
    D, layers = sizes.embed_dim, sizes.used_depth
    # class token and registers of DINO are as many as the camera token and the registers
    dino = 2 * tokens * _linear(encoder.patch_embed.blocks) + 4 * tokens**2 * D * sizes.dino_depth
    blocks = 2 * tokens * (_linear(encoder.frame_blocks) + _linear(encoder.global_blocks))
    attention = 4 * tokens**2 * D * layers * (1 + step.attended)
    fusion = 2 * step.frame.fused * _linear(network.fusion)
    weights = (_all(encoder) + _linear(network.fusion)) * step.number_bytes
    remembered = 2 * layers * tokens * D * step.number_bytes * step.attended
    return Work(dino + blocks + attention + fusion, weights + remembered)


def _vision(network: Network, step: Step) -> Work:
    tower, sizes = network.vision, network.config.vision
    seen = step.frame.fused * 4  # an odd row or column of patches is left out
    full, window_tokens = len(sizes.fullatt_block_indexes), (sizes.window_size // PATCH) ** 2
    keys = full * seen + (sizes.depth - full) * window_tokens
    operations = 2 * seen * _linear(tower.blocks) + 4 * seen * sizes.hidden_size * keys
    operations += 2 * step.frame.fused * _linear(tower.merger)
    return Work(operations, _all(tower) * step.number_bytes)


def _language(network: Network, step: Step) -> dict[str, Work]:
    text, history = network.config.text, network.config.navigation.num_history
    D, layers, frame_rows = text.hidden_size, text.num_hidden_layers, step.frame.fused + 2
    weights, head = _linear(network.language.layers), text.vocab_size * D
    if step.memory == "dual":
        rows = frame_rows + step.question_tokens
        keys = step.text_tokens + step.attended * frame_rows - rows / 2
    else:
        rows = step.text_tokens + min(step.number, history + 1) * frame_rows
        keys = rows / 2
    prefill = 2 * rows * weights + 4 * rows * keys * D * layers + 2 * head
    row_bytes = 2 * prod(key_value_shape(text)) * step.number_bytes
    moved = (weights + head) * step.number_bytes + keys * row_bytes
    decode = 2 * (weights + head) + 4 * (rows + keys) * D * layers
    return {"prefill": Work(prefill, moved), "decode": Work(decode, moved)}

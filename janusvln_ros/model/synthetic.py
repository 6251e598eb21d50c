"""
Networks and checkpoints of any size with random weights, made tensor by tensor: to measure what a
machine can hold, and how fast, before there is anything to download.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import torch
from safetensors.torch import save_file
from torch import Tensor

from janusvln_ros.files import atomic_path, atomic_write
from janusvln_ros.model.adapter import our_name, published_name
from janusvln_ros.model.checkpoint import INDEX_FILE, SHARD_BYTES, JanusVLN, as_dtype
from janusvln_ros.model.config import JanusVLNConfig
from janusvln_ros.model.footprint import on_paper
from janusvln_ros.model.quantization import plain_precision, shrinking


def random_weight(
    name: str, shape: torch.Size, spread: float, dtype: torch.dtype, draw: torch.Generator
) -> Tensor:
    """
    A weight by its name, on the generator's device: matrices are normal with standard deviation
    ``spread``, scales of norms and branches one, biases nought.
    """
    weight = torch.empty(shape, dtype=dtype, device=draw.device)
    if len(shape) > 1:
        return weight.normal_(std=spread, generator=draw)
    return weight.fill_(0.0 if name.endswith("bias") else 1.0)


def random_network(
    config: JanusVLNConfig, precision: str, device: torch.device | str = "cpu", seed: int = 0
) -> JanusVLN:
    """
    A network with random weights in a precision (see `quantization.load_network`), the same for
    the same seed and kind of device; made where it will lie, never more than one weight of it in
    full.

    Raises:
        InputError: an unknown precision, or torchao is not installed.
    """
    dtype, shrink = as_dtype(plain_precision(precision)), shrinking(precision)

    def weights() -> Iterator[tuple[str, Tensor]]:
        draw = torch.Generator(device).manual_seed(seed)
        for name, shape in _shapes(config).items():
            weight = random_weight(name, shape, config.text.initializer_range, dtype, draw)
            yield name, weight if shrink is None else shrink(name, weight)

    return JanusVLN.from_tensors(config, weights())


def write_random_checkpoint(
    config: JanusVLNConfig, folder: Path, seed: int = 0, shard_bytes: int = SHARD_BYTES
) -> None:
    """
    Write a checkpoint in the published layout with random bfloat16 weights: config.json, which
    says that they are not trained, and shards; one shard at a time is in memory.

    ``folder`` is there. A tokenizer is the caller's to write.
    """
    on_file = {
        published_name(name): torch.empty(shape, dtype=torch.bfloat16, device="meta")
        for name, shape in _shapes(config).items()
    }
    split = huggingface_hub.split_torch_state_dict_into_shards(on_file, max_shard_size=shard_bytes)
    draw = torch.Generator().manual_seed(seed)
    for file, keys in split.filename_to_tensors.items():
        weights = {}
        for key in keys:
            name, shape = str(our_name(key)), on_file[key].shape
            spread = config.text.initializer_range
            weights[key] = random_weight(name, shape, spread, torch.bfloat16, draw)
        with atomic_path(folder / file) as path:
            save_file(weights, path, metadata={"format": "pt"})
        del weights
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        atomic_write(folder / INDEX_FILE, json.dumps(index, indent=1))
    untrained = replace(config.navigation, trained=False)
    replace(config, dtype="bfloat16", navigation=untrained).save_pretrained(folder)


def _shapes(config: JanusVLNConfig) -> dict[str, torch.Size]:
    """Shapes of the weights of a network, by our names."""
    network = on_paper(config)
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    return {name: p.shape for name, p in network.state_dict().items() if name not in tied}

"""
Smaller weights: weight-only int8 and int4 of the language model (torchao).

What it costs in accuracy is for `error` tests and ``docs/performance.md`` to say. Embeddings,
norms, ``lm_head`` and both encoders keep their dtype: the language model's layers are seven tenths
of the network, and the encoders are read once per frame, not once per token.
"""

from collections.abc import Callable

import torch
from torch import nn

from janusvln_ros.errors import InputError, require
from janusvln_ros.model.checkpoint import JanusVLN

PRECISIONS = ("int8", "int4")
"""Weight-only precisions of the language model, accepted wherever a ``dtype`` of weights is."""

GROUPS = (128, 64, 32)
"""int4: weights that share a scale; the largest that divides a layer's width is taken."""


def group_size(in_features: int) -> int | None:
    """
    Weights of a row that share a scale in int4; None if no group divides the row, which then stays
    as it is.
    """
    return next((size for size in GROUPS if in_features % size == 0), None)


def with_precision(
    make: Callable[..., JanusVLN], dtype: str | torch.dtype | None, device: torch.device
) -> JanusVLN:
    """
    The network of ``make(dtype=..., device=...)``, with the language model in int8 or int4 where
    ``dtype`` is one of these.

    Everything else is then float32 on a CPU and bfloat16 on a GPU, which need never hold the
    unquantised weights.
    """
    if dtype not in PRECISIONS:
        return make(dtype=dtype, device=device)
    plain = "float32" if device.type == "cpu" else "bfloat16"
    return quantize_language(make(dtype=plain, device="cpu"), str(dtype), device)


def quantize_language(
    model: JanusVLN, precision: str, device: torch.device | str | None = None
) -> JanusVLN:
    """
    Turn the linear layers of the language model into int8 (a scale per row) or int4 (a scale per
    group), in place.

    int4 on a GPU is torchao's packed format and needs bfloat16 weights. On a CPU there is no
    packed format: the values are those of int4, but each takes a byte; it is there to measure the
    error.

    Args:
        model: with weights in floating point, anywhere.
        precision: ``int8`` or ``int4``.
        device: where layers go, one by one, before they are quantised, and the rest afterwards; so
            that a GPU need never hold the unquantised weights. Default: where they are.

    Returns:
        ``model``, in evaluation mode; it can no longer be trained or saved.

    Raises:
        InputError: torchao is not installed, the precision is unknown, or int4 is asked of a GPU
            with other weights than bfloat16.
    """
    require(
        precision in PRECISIONS,
        f"there is no precision {precision!r} of weights: choose int8 or int4",
    )
    try:
        from torchao.quantization import quantize_
    except ImportError as error:
        raise InputError(
            f"{precision} weights need torchao: pip install 'janusvln_ros[quantize]'"
        ) from error
    target = torch.device(device) if device is not None else model.device
    require(
        precision != "int4" or target.type != "cuda" or model.dtype == torch.bfloat16,
        f"int4 on a GPU needs bfloat16 weights, these are {model.dtype}: load the "
        "checkpoint with dtype='bfloat16'",
    )
    for group in (None,) if precision == "int8" else GROUPS:
        quantize_(
            model.language.layers,
            _scheme(group, target),
            filter_fn=lambda module, _, group=group: (
                isinstance(module, nn.Linear) and group in (None, group_size(module.in_features))
            ),
            device=target,
        )
    return model.to(target).eval()


def _scheme(group: int | None, device: torch.device) -> object:
    """torchao's settings: int4 with a scale for ``group`` weights, or int8 with one per row."""
    from torchao.quantization import (
        Int4WeightOnlyConfig,
        Int8WeightOnlyConfig,
        IntxWeightOnlyConfig,
    )
    from torchao.quantization.granularity import PerGroup

    if group is None:
        return Int8WeightOnlyConfig(set_inductor_config=False)
    if device.type == "cuda":
        return Int4WeightOnlyConfig(
            group_size=group, int4_packing_format="tile_packed_to_4d", set_inductor_config=False
        )
    int4 = torch.int4  # type: ignore[attr-defined]
    return IntxWeightOnlyConfig(weight_dtype=int4, granularity=PerGroup(group))

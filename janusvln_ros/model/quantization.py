"""
Smaller weights: weight-only int8 and int4 of the language model (torchao).

What it costs in accuracy is for `error` tests and ``docs/performance.md`` to say. Embeddings,
norms, ``lm_head`` and both encoders are bfloat16: the language model's layers are seven tenths of
the network, and the encoders are read once per frame, not once per token.
"""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from janusvln_ros.errors import InputError, require
from janusvln_ros.model.checkpoint import JanusVLN
from janusvln_ros.model.config import JanusVLNConfig

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


def plain_precision(precision: str) -> str:
    """The dtype of all that a precision leaves as it is."""
    return "bfloat16" if precision in PRECISIONS else precision


def shrinking(precision: str) -> Callable[[str, Tensor], Tensor] | None:
    """
    What a weight becomes in a precision, told its name in `JanusVLN`; None: what it is.

    Given weights one by one, so that never more than one of them is there unquantised.

    Raises:
        InputError: torchao is not installed.
    """
    if precision not in PRECISIONS:
        return None
    require_torchao(precision)

    def shrink(name: str, weight: Tensor) -> Tensor:
        linear = name.startswith("language.layers.") and weight.dim() == 2
        return small_weight(weight, precision) if linear else weight

    return shrink


def load_network(
    folder: str | Path,
    precision: str,
    device: str | torch.device = "cpu",
    config: JanusVLNConfig | None = None,
) -> JanusVLN:
    """
    Read a checkpoint in a precision: a dtype, or one of `PRECISIONS`.

    Peak memory is that of the network as it will be, and of one weight more.

    Args:
        folder, config: as `JanusVLN.from_pretrained`.
        precision: of the weights; in int8 and int4 all but the language model's layers are
            bfloat16.
        device: where they go.

    Raises:
        InputError: as `JanusVLN.from_pretrained`, or torchao is not installed.
    """
    return JanusVLN.from_pretrained(
        folder,
        dtype=plain_precision(precision),
        device=device,
        config=config,
        shrink=shrinking(precision),
    )


def quantize_language(model: JanusVLN, precision: str) -> JanusVLN:
    """
    Turn the linear layers of a network's language model into int8 or int4, in place and where they
    are.

    Returns:
        ``model``, which can no longer be trained or saved.

    Raises:
        InputError: torchao is not installed, or the precision is unknown.
    """
    require(
        precision in PRECISIONS,
        f"there is no precision {precision!r} of weights: choose int8 or int4",
    )
    require_torchao(precision)
    for module in model.language.layers.modules():
        if isinstance(module, nn.Linear):
            module.weight = nn.Parameter(small_weight(module.weight, precision), False)
    return model


def small_weight(weight_NK: Tensor, precision: str) -> Tensor:
    """
    A linear layer's weight in int8 (a scale per row) or in int4 (a scale and a zero per group of a
    row), as a tensor of torchao that multiplies as the weight does.

    int4 is packed, two weights to a byte, in the layout of torch's own kernels, for bfloat16. A
    row that no group divides stays as it is.
    """
    from torchao.quantization import quantize_

    rows, columns = weight_NK.shape
    group = group_size(columns)
    if precision == "int4" and group is None:
        return weight_NK
    holder = nn.Linear(columns, rows, bias=False, device="meta")
    holder.weight = nn.Parameter(weight_NK, requires_grad=False)
    quantize_(holder, _scheme(precision, group, weight_NK.device))
    return holder.weight.data


def require_torchao(precision: str) -> None:
    """Raise InputError where torchao is not installed."""
    require(
        find_spec("torchao") is not None,
        f"{precision} weights need torchao: pip install 'janusvln_ros[quantize]'",
    )


def _scheme(precision: str, group: int | None, device: torch.device) -> object:
    """torchao's settings for a precision and a kind of device."""
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig

    if precision == "int8":
        return Int8WeightOnlyConfig(set_inductor_config=False)
    if device.type == "cuda":
        return Int4WeightOnlyConfig(
            group_size=group, int4_packing_format="tile_packed_to_4d", set_inductor_config=False
        )
    try:
        from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig
    except ImportError as error:
        raise InputError(
            f"int4 on a CPU needs torchao 0.18 or newer ({error}): pip install -U torchao, or "
            "take int8"
        ) from error

    return PrototypeInt4WeightOnlyConfig(group_size=group, set_inductor_config=False)

"""
Smaller numbers: weight-only int8 and int4 of the language model (torchao), and a spatial memory of
one byte a number.

What it costs in accuracy is for `error` tests and ``docs/performance.md`` to say. Embeddings,
norms, ``lm_head`` and both encoders keep their dtype: the language model's layers are seven tenths
of the network, and the encoders are read once per frame, not once per token.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from janusvln_ros.errors import InputError
from janusvln_ros.model.janusvln import JanusVLN
from janusvln_ros.model.memory import FrameWindow, SpatialMemory
from janusvln_ros.model.spatial import SpatialEncoder

Precision = Literal["int8", "int4"]
PRECISIONS = ("int8", "int4")
"""Weight-only precisions of the language model, accepted wherever a ``dtype`` of weights is."""

SPATIAL_PRECISIONS = {"int8": torch.int8, "float8": torch.float8_e4m3fn}
"""Precisions of the spatial memory beside the weights' own dtype."""

GROUPS = (128, 64, 32)
"""int4: weights that share a scale; the largest that divides a layer's width is taken."""


def group_size(in_features: int) -> int | None:
    """
    Weights of a row that share a scale in int4; None if no group divides the row, which then stays
    as it is.
    """
    return next((size for size in GROUPS if in_features % size == 0), None)


def unquantized_dtype(
    dtype: str | torch.dtype | None, device: torch.device
) -> str | torch.dtype | None:
    """
    ``dtype`` itself, or for int8 and int4 the dtype of everything that is not quantised: float32
    on a CPU, bfloat16 on a GPU.
    """
    return dtype if dtype not in PRECISIONS else "float32" if device.type == "cpu" else "bfloat16"


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
    if precision not in PRECISIONS:
        raise InputError(f"there is no precision {precision!r} of weights: choose int8 or int4")
    try:
        from torchao.quantization import (
            Int4WeightOnlyConfig,
            Int8WeightOnlyConfig,
            IntxWeightOnlyConfig,
            quantize_,
        )
        from torchao.quantization.granularity import PerGroup
    except ImportError as error:
        raise InputError(
            f"{precision} weights need torchao: pip install 'janusvln_ros[quantize]'"
        ) from error
    target = torch.device(device) if device is not None else model.device
    if precision == "int4" and target.type == "cuda" and model.dtype != torch.bfloat16:
        raise InputError(
            f"int4 on a GPU needs bfloat16 weights, these are {model.dtype}: load the "
            "checkpoint with dtype='bfloat16'"
        )

    layers = model.language.layers

    def quantize(config: object, group: int | None = None) -> None:
        def chosen(module: nn.Module, _: str) -> bool:
            return isinstance(module, nn.Linear) and (
                group is None or group_size(module.in_features) == group
            )

        quantize_(layers, config, filter_fn=chosen, device=target)

    if precision == "int8":
        quantize(Int8WeightOnlyConfig(set_inductor_config=False))
    else:
        for group in GROUPS:
            if target.type == "cuda":
                quantize(
                    Int4WeightOnlyConfig(
                        group_size=group,
                        int4_packing_format="tile_packed_to_4d",
                        set_inductor_config=False,
                    ),
                    group,
                )
            else:
                int4 = torch.int4  # type: ignore[attr-defined]
                quantize(
                    IntxWeightOnlyConfig(weight_dtype=int4, granularity=PerGroup(group)), group
                )
    return model.to(target).eval()


class QuantizedSpatialMemory(SpatialMemory):
    """
    A spatial memory that keeps a byte per number and one scale per token and head.

    Remembered keys and values are turned back one layer at a time; those of the current frame are
    attended as they are. Arguments are those of `SpatialMemory`, and the ``precision`` of what is
    kept.
    """

    def __init__(
        self,
        layers: int,
        heads: int,
        head_dim: int,
        tokens: int,
        window: FrameWindow,
        dtype: torch.dtype,
        device: torch.device | str,
        precision: str,
    ) -> None:
        if precision not in SPATIAL_PRECISIONS:
            raise InputError(
                f"there is no precision {precision!r} of the spatial memory: choose "
                f"{' or '.join(SPATIAL_PRECISIONS)}"
            )
        super().__init__(
            layers, heads, head_dim, tokens, window, SPATIAL_PRECISIONS[precision], device
        )
        self.dtype = dtype
        shape = (*self.k_LHND.shape[:-1], 1)
        self.k_scale_LHN1 = torch.ones(shape, device=device)
        self.v_scale_LHN1 = torch.ones(shape, device=device)

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers: the same at every step."""
        return super().nbytes + 2 * self.k_scale_LHN1.nbytes

    def attend(self, layer: int, k_HPD: Tensor, v_HPD: Tensor) -> tuple[Tensor, Tensor]:
        """As `SpatialMemory.attend`; what is returned is in the dtype of the arguments."""
        if k_HPD.shape[1] != self.tokens:
            return super().attend(layer, k_HPD, v_HPD)  # which refuses it
        start = self.window.slot(self.seen) * self.tokens
        end = min(self.seen + 1, self.window.slots) * self.tokens
        here = slice(start, start + self.tokens)
        restored = []
        for values, scales, current_HPD in (
            (self.k_LHND, self.k_scale_LHN1, k_HPD),
            (self.v_LHND, self.v_scale_LHN1, v_HPD),
        ):
            values[layer, :, here], scales[layer, :, here] = quantize_rows(
                current_HPD, values.dtype
            )
            all_HND = values[layer, :, :end].to(current_HPD.dtype) * scales[layer, :, :end].to(
                current_HPD.dtype
            )
            all_HND[:, here] = current_HPD
            restored.append(all_HND)
        return restored[0], restored[1]


def quantize_rows(x_XD: Tensor, storage: torch.dtype) -> tuple[Tensor, Tensor]:
    """
    One byte per number and a float32 scale per row: [..., D] -> [..., D] and [..., 1] with ``x``
    about their product.
    """
    largest = 127.0 if storage == torch.int8 else torch.finfo(storage).max
    scale = (x_XD.float().abs().amax(dim=-1, keepdim=True) / largest).clamp(
        min=torch.finfo(torch.float32).tiny
    )
    scaled = (x_XD.float() / scale).clamp(-largest, largest)
    return (scaled.round() if storage == torch.int8 else scaled).to(storage), scale


def quantized_spatial_memory(
    encoder: SpatialEncoder,
    image_height: int,
    image_width: int,
    window: FrameWindow,
    precision: str,
) -> QuantizedSpatialMemory:
    """
    `SpatialEncoder.new_memory`, one byte a number.

    Raises:
        InputError: an unknown precision.
    """
    config = encoder.config
    head_dim = config.embed_dim // config.num_heads
    tokens = encoder.tokens(image_height, image_width)
    return QuantizedSpatialMemory(
        config.used_depth,
        config.num_heads,
        head_dim,
        tokens,
        window,
        encoder.dtype,
        encoder.camera_token.device,
        precision,
    )

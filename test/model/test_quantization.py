"""Fewer bits: the error is what the bits allow, and only what was asked for is changed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from janusvln_ros.errors import InputError
from janusvln_ros.model import JanusVLNConfig, checkpoint
from janusvln_ros.model.memory import FrameWindow, SpatialMemory
from janusvln_ros.model.quantization import (
    QuantizedSpatialMemory,
    group_size,
    quantize_language,
    quantize_rows,
    quantized_spatial_memory,
)

SETTINGS = json.loads((Path(__file__).parents[2] / "config" / "model" / "tiny.json").read_text())
# Qwen's own initial weights: with larger ones a random network magnifies every rounding.
CONFIG = JanusVLNConfig.from_dict({**SETTINGS, "initializer_range": 0.02})


def hidden(model):
    ids = torch.arange(40)[None] % 300
    with torch.no_grad():
        return model.language(input_ids=ids).last_hidden_state[0]


@pytest.fixture(scope="module")
def reference():
    return hidden(checkpoint.build(CONFIG))


@pytest.mark.parametrize("precision, low, high", [("int8", 1e-5, 0.02), ("int4", 0.02, 0.4)])
def test_language_model_errs_as_its_bits_allow(reference, precision, low, high):
    model = quantize_language(checkpoint.build(CONFIG), precision)
    error = float((hidden(model) - reference).norm() / reference.norm())
    assert low < error < high


def test_only_linear_layers_of_the_language_model_are_touched():
    model, plain = checkpoint.build(CONFIG), checkpoint.build(CONFIG)
    before = dict(plain.named_parameters())
    quantize_language(model, "int8")
    changed = {name for name, p in model.named_parameters() if type(p) is not type(before[name])}
    assert changed and all(
        name.startswith("language.layers.") and name.endswith("_proj.weight") for name in changed
    )
    assert len(changed) == 7 * CONFIG.text.num_hidden_layers
    for name in set(before) - changed:
        torch.testing.assert_close(model.get_parameter(name), before[name], atol=0, rtol=0)


def test_int8_row_takes_a_quarter_of_float32():
    model = quantize_language(checkpoint.build(CONFIG), "int8")
    weight = model.language.layers[0].mlp.gate_proj.weight
    assert (
        weight.qdata.dtype == torch.int8
        and weight.qdata.shape == (512, 192)
        and weight.scale.numel() == 512
    )


def test_group_is_the_largest_that_divides_a_row():
    assert [group_size(n) for n in (3584, 2368, 96, 100)] == [128, 64, 32, None]


@pytest.mark.parametrize("precision", ["int2", "bfloat16"])
def test_unknown_precision_is_refused(precision):
    with pytest.raises(InputError, match="int8 or int4"):
        quantize_language(checkpoint.build(CONFIG), precision)


@pytest.mark.parametrize("storage, bound", [(torch.int8, 1 / 250), (torch.float8_e4m3fn, 1 / 15)])
def test_rows_come_back_within_half_a_step_of_their_largest_number(storage, bound):
    x = (
        torch.randn(3, 50, 16, generator=torch.Generator().manual_seed(0))
        * torch.logspace(-4, 2, 50)[:, None]
    )
    values, scale = quantize_rows(x, storage)
    error = (values.float() * scale.float() - x).abs()
    assert values.itemsize == 1 and (error <= bound * x.abs().amax(-1, keepdim=True) + 1e-7).all()


@pytest.mark.parametrize("precision, bound", [("int8", 0.005), ("float8", 0.05)])
def test_spatial_memory_in_a_byte_past_three_evictions(precision, bound):
    encoder = checkpoint.build(replace(CONFIG)).spatial
    window = FrameWindow(1, 2)
    exact, small = (
        encoder.new_memory(56, 84, window),
        quantized_spatial_memory(encoder, 56, 84, window, precision),
    )
    assert isinstance(small, QuantizedSpatialMemory) and small.nbytes < 0.4 * exact.nbytes
    images = torch.rand(10, 3, 56, 84, generator=torch.Generator().manual_seed(0))
    for i, image in enumerate(images):
        with torch.no_grad():
            a, b = encoder.encode_frame(image, exact), encoder.encode_frame(image, small)
        error = float((a - b).norm() / a.norm())
        assert error == 0 if i == 0 else 0 < error < bound, (
            "the current frame is exact, remembered ones are near"
        )
        exact.commit()
        small.commit()
    assert exact.frames == small.frames == [0, 8, 9]


def test_spatial_memory_in_a_byte_refuses_what_the_exact_one_refuses():
    memory = QuantizedSpatialMemory(1, 1, 4, 6, FrameWindow(1, 1), torch.float32, "cpu", "int8")
    for m in (memory, SpatialMemory(1, 1, 4, 6, FrameWindow(1, 1), torch.float32, "cpu")):
        with pytest.raises(InputError, match="one size"):
            m.attend(0, torch.zeros(1, 5, 4), torch.zeros(1, 5, 4))
    with pytest.raises(InputError, match="int8 or float8"):
        QuantizedSpatialMemory(1, 1, 4, 6, FrameWindow(1, 1), torch.float32, "cpu", "int4")

"""Fewer bits: the error is what the bits allow, and only what was asked for is changed."""

import json
from pathlib import Path

import pytest
import torch

from janusvln_ros.errors import InputError
from janusvln_ros.model import JanusVLN, JanusVLNConfig
from janusvln_ros.model.quantization import group_size, quantize_language

SETTINGS = json.loads((Path(__file__).parents[2] / "config" / "model" / "tiny.json").read_text())
# Qwen's own initial weights: with larger ones a random network magnifies every rounding.
CONFIG = JanusVLNConfig.from_dict({**SETTINGS, "initializer_range": 0.02})


def hidden(model):
    ids = torch.arange(40)[None] % 300
    with torch.no_grad():
        return model.language(input_ids=ids).last_hidden_state[0]


@pytest.fixture(scope="module")
def reference():
    return hidden(JanusVLN.from_config(CONFIG))


@pytest.mark.parametrize("precision, low, high", [("int8", 1e-5, 0.02), ("int4", 0.02, 0.4)])
def test_language_model_errs_as_its_bits_allow(reference, precision, low, high):
    model = quantize_language(JanusVLN.from_config(CONFIG), precision)
    error = float((hidden(model) - reference).norm() / reference.norm())
    assert low < error < high


def test_only_linear_layers_of_the_language_model_are_touched():
    model, plain = JanusVLN.from_config(CONFIG), JanusVLN.from_config(CONFIG)
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
    model = quantize_language(JanusVLN.from_config(CONFIG), "int8")
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
        quantize_language(JanusVLN.from_config(CONFIG), precision)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_quantised_network_is_not_saved_and_says_what_to_save(tmp_path, precision):
    model = quantize_language(JanusVLN.from_config(CONFIG), precision)
    with pytest.raises(InputError, match=r"quantised.*bfloat16"):
        model.save_pretrained(tmp_path / "c")
    assert not list(tmp_path.iterdir())

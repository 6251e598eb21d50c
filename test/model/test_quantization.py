"""Fewer bits: the error is what the bits allow, and only what was asked for is changed."""

import json
from pathlib import Path

import pytest
import torch

from janusvln_ros.errors import InputError
from janusvln_ros.model import JanusVLN, JanusVLNConfig, quantization
from janusvln_ros.model.quantization import (
    group_size,
    load_network,
    quantize_language,
    small_weight,
)

SETTINGS = json.loads((Path(__file__).parents[2] / "config" / "model" / "tiny.json").read_text())
# Qwen's own initial weights: with larger ones a random network magnifies every rounding.
CONFIG = JanusVLNConfig.from_dict({**SETTINGS, "initializer_range": 0.02})


def hidden(model):
    ids = torch.arange(40)[None] % 300
    with torch.no_grad():
        return model.language(input_ids=ids).last_hidden_state[0].float()


@pytest.fixture(scope="module")
def reference():
    return hidden(JanusVLN.from_config(CONFIG))


# in float32, so that nothing else errs; int4 is made for bfloat16 and brings that error too
@pytest.mark.parametrize(
    "precision, dtype, low, high",
    [("int8", "float32", 1e-5, 0.02), ("int4", "bfloat16", 0.02, 0.4)],
)
def test_language_model_errs_as_its_bits_allow(reference, precision, dtype, low, high):
    model = quantize_language(JanusVLN.from_config(CONFIG, dtype=dtype), precision)
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


def test_int4_packs_two_weights_to_a_byte():
    packed = small_weight(torch.randn(64, 256, dtype=torch.bfloat16), "int4")
    assert packed.qdata.nbytes == 64 * 256 // 2
    assert packed.scale_and_zero.numel() == 64 * (256 // 128) * 2


def test_a_row_that_no_group_divides_stays_as_it_is():
    weight = torch.randn(64, 100, dtype=torch.bfloat16)
    assert small_weight(weight, "int4") is weight


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint")
    JanusVLN.from_config(CONFIG).save_pretrained(path, dtype="bfloat16")
    return path


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_made_small_while_loading_is_made_small_afterwards(folder, precision):
    loaded = load_network(folder, precision)
    afterwards = quantize_language(JanusVLN.from_pretrained(folder), precision)
    assert torch.equal(hidden(loaded), hidden(afterwards))
    for name, p in loaded.named_parameters():
        assert type(p) is type(afterwards.get_parameter(name)), name
    assert loaded.vision.blocks[0].mlp.up_proj.weight.dtype == torch.bfloat16


def test_never_more_than_one_weight_is_whole_while_loading(folder, monkeypatch):
    """Every layer is shrunk when it is read, and its bytes are let go before the next is read."""
    import weakref

    alive, most, small = weakref.WeakSet(), [], quantization.small_weight

    def watched(weight, precision):
        alive.add(weight)
        most.append(len(alive))
        return small(weight, precision)

    monkeypatch.setattr(quantization, "small_weight", watched)
    load_network(folder, "int8")
    assert len(most) == 7 * CONFIG.text.num_hidden_layers and max(most) == 1


def test_without_torchao_the_remedy_is_said(folder, monkeypatch):
    monkeypatch.setattr(quantization, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="int4 weights need torchao"):
        load_network(folder, "int4")

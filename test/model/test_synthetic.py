"""Random checkpoints of any size: in the published layout, and never all in memory."""

import json
from pathlib import Path

import pytest
import torch

from janusvln_ros.model import JanusVLN, JanusVLNConfig
from janusvln_ros.model.synthetic import random_network, write_random_checkpoint

CONFIG = JanusVLNConfig.from_pretrained(
    Path(__file__).parents[2] / "config" / "model" / "tiny.json"
)


@pytest.fixture
def folder(tmp_path):
    write_random_checkpoint(CONFIG, tmp_path, shard_bytes=4_000_000)
    return tmp_path


def test_it_loads_from_shards_with_an_index_and_says_that_it_is_untrained(folder):
    model = JanusVLN.from_pretrained(folder)
    assert len(list(folder.glob("*.safetensors"))) > 2
    assert model.dtype == torch.bfloat16 and not model.config.navigation.trained
    names = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert "model.embed_tokens.weight" in names and "vggt.aggregator.camera_token" in names


def test_the_same_seed_gives_the_same_weights(folder, tmp_path_factory):
    for seed, same in ((0, True), (1, False)):
        other = tmp_path_factory.mktemp("other")
        write_random_checkpoint(CONFIG, other, seed=seed)
        a, b = JanusVLN.from_pretrained(folder), JanusVLN.from_pretrained(other)
        assert torch.equal(a.fusion.mlp[0].weight, b.fusion.mlp[0].weight) == same


def test_numbers_are_those_of_a_network_that_has_learned_nothing(folder):
    model = JanusVLN.from_pretrained(folder, dtype="float32")
    layer = model.language.layers[0]
    assert float(layer.mlp.up_proj.weight.detach().std()) == pytest.approx(
        CONFIG.text.initializer_range, rel=0.05
    )
    assert torch.equal(layer.input_layernorm.weight, torch.ones(CONFIG.text.hidden_size))
    assert not layer.self_attn.q_proj.bias.any()


def test_a_network_in_memory_is_that_of_the_file(folder):
    made, read = random_network(CONFIG, "bfloat16"), JanusVLN.from_pretrained(folder)
    assert all(torch.equal(p, made.get_parameter(name)) for name, p in read.named_parameters())


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8", "int4"])
def test_a_random_network_computes_in_every_precision(precision):
    model = random_network(CONFIG, precision)
    with torch.no_grad():
        hidden = model.language(input_ids=torch.arange(8)[None]).last_hidden_state
    assert hidden.isfinite().all()
    assert model.dtype == (torch.float32 if precision == "float32" else torch.bfloat16)


def test_a_tied_network_stays_tied(tmp_path):
    from dataclasses import replace

    config = replace(CONFIG, tie_word_embeddings=True)
    write_random_checkpoint(config, tmp_path)
    for model in (JanusVLN.from_pretrained(tmp_path), random_network(config, "bfloat16")):
        assert model.lm_head.weight is model.language.embed_tokens.weight


def test_weights_drawn_where_they_lie_are_whole_and_leave_the_global_random_state():
    state = torch.get_rng_state()
    models = [random_network(CONFIG, "bfloat16", seed=seed) for seed in (1, 1, 2)]
    first, again, other = (dict(model.named_parameters()) for model in models)
    for name, value in first.items():
        assert value.dtype == torch.bfloat16 and value.isfinite().all()
        assert torch.equal(value, again[name])
        assert value.dim() < 2 or not torch.equal(value, other[name])
    assert torch.equal(torch.get_rng_state(), state)
    hidden = models[0].read(
        torch.randn(4, CONFIG.text.hidden_size).bfloat16(), torch.arange(4).expand(3, -1)
    )
    assert hidden.isfinite().all()

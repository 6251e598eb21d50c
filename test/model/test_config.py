"""The flat config.json: read as published, checked, and written back so that it reads the same."""

import json

import pytest

from janusvln_ros.errors import InputError
from janusvln_ros.model import JanusVLNConfig


@pytest.fixture
def values(tiny):
    return json.loads((tiny / "config.json").read_text())


def test_sizes_that_the_published_code_hard_codes_hold_where_the_file_is_silent(values):
    del (
        values["vggt_config"],
        values["navigation"],
        values["lam"],
        values["vggt_merger_hidden_dim"],
    )
    config = JanusVLNConfig.from_dict(values)
    assert (
        config.spatial.embed_dim,
        config.spatial.depth,
        config.spatial.dino_depth,
        config.spatial.num_heads,
    ) == (1024, 24, 24, 16)
    navigation = config.navigation
    assert (navigation.num_history, navigation.image_width, navigation.max_new_tokens) == (
        8,
        644,
        24,
    )
    assert (navigation.initial_frames, navigation.window_frames) == (8, 48)
    assert (config.lam, config.vggt_merger_hidden_dim, navigation.memory) == (
        0.2,
        4096,
        "released",
    )


def test_rope_type_mrope_means_default_and_keeps_its_sections(values):
    rope = JanusVLNConfig.from_dict(values).text.rope_parameters
    assert (
        rope["rope_type"] == "default"
        and rope["mrope_section"] == [2, 3, 3]
        and rope["rope_theta"] == 1e6
    )


def test_written_config_is_flat_and_reads_back_the_same(values, tmp_path):
    config = JanusVLNConfig.from_dict(values)
    config.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert (
        "text_config" not in written
        and written["hidden_size"] == values["hidden_size"]
        and written["model_type"] == "qwen2_5_vl"
    )
    assert written["vision_token_id"] == values["vision_token_id"], (
        "keys that mean nothing here are kept"
    )
    assert JanusVLNConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


def test_nested_config_of_newer_transformers_reads_like_the_flat_one(values):
    text_keys = (
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "rope_theta",
        "rope_scaling",
    )
    nested = {key: value for key, value in values.items() if key not in text_keys} | {
        "text_config": {key: values[key] for key in text_keys}
    }
    assert JanusVLNConfig.from_dict(nested).to_dict() == JanusVLNConfig.from_dict(values).to_dict()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"model_type": "llama"}, "model_type"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"hidden_size": "112"}, "hidden_size"),
        ({"num_attention_heads": 5}, "num_attention_heads"),
        ({"num_key_value_heads": 2}, "num_key_value_heads"),
        ({"rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 4]}}, "mrope_section"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"lam": "much"}, "lam"),
        ({"vggt_config": {"embed_dim": 66}}, "embed_dim"),
        ({"vggt_config": {"depth": 1}}, "depth"),
        ({"vggt_config": 3}, "vggt_config"),
        ({"navigation": {"num_history": 8.5}}, "num_history"),
        ({"navigation": {"window_frames": -1}}, "window_frames"),
        ({"navigation": {"image_width": 645}}, "image_width"),
        ({"navigation": {"memory": "triple"}}, "memory"),
    ],
)
def test_bad_value_is_named(values, change, word):
    with pytest.raises(InputError, match=word):
        JanusVLNConfig.from_dict(values | change)


def test_vision_width_other_than_the_language_models_is_named(values):
    values["vision_config"]["out_hidden_size"] = 64
    with pytest.raises(InputError, match="out_hidden_size"):
        JanusVLNConfig.from_dict(values)


@pytest.mark.parametrize("content", [None, "{", "[1]"])
def test_missing_or_damaged_file_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"config\.json"):
        JanusVLNConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("", "num_hidden_layers", 100_000),
        ("vision_config", "depth", 10_000_000),
        ("vggt_config", "depth", 10_000_000),
        ("vggt_config", "dino_depth", 300),
        ("", "hidden_size", 10**30),
        ("", "vocab_size", 10**9),
        ("vision_config", "intermediate_size", 10**12),
        ("navigation", "window_frames", 10**9),
        ("navigation", "num_history", 10**9),
        ("", "vggt_merger_hidden_dim", 10**9),
    ],
)
def test_a_network_larger_than_any_is_refused_before_anything_of_it_is_made(
    values, section, key, value
):
    (values[section] if section else values)[key] = value
    with pytest.raises(InputError, match=rf"{key} is .*more than the limit.*JANUSVLN_MAX_"):
        JanusVLNConfig.from_dict(values)


def test_the_limit_of_layers_can_be_raised(values, monkeypatch):
    values["num_hidden_layers"] = 300
    monkeypatch.setenv("JANUSVLN_MAX_LAYERS", "400")
    assert JanusVLNConfig.from_dict(values).text.num_hidden_layers == 300


@pytest.mark.parametrize("value", ["64", 64.0, True, [64], float("nan"), {}, 0, -1])
@pytest.mark.parametrize(
    ("section", "key"),
    [("", "hidden_size"), ("vision_config", "hidden_size"), ("vision_config", "num_heads")],
)
def test_a_size_that_is_no_whole_number_is_named(values, section, key, value):
    (values[section] if section else values)[key] = value
    with pytest.raises(InputError, match=rf"{key} is .*whole number, at least 1"):
        JanusVLNConfig.from_dict(values)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rope_theta", float("inf")),
        ("rms_norm_eps", float("nan")),
        ("lam", 1e300),
        ("eos_token_id", "x"),
        ("eos_token_id", [1, None]),
        ("hidden_act", "gelu_of_mine"),
        ("rope_scaling", {"type": "yarn", "factor": 2.0}),
        ("rope_scaling", {"type": "mrope", "mrope_section": [[1]]}),
        ("vision_config", "x"),
        ("text_config", [1]),
    ],
)
def test_a_value_that_means_nothing_is_named(values, key, value):
    values[key] = value
    with pytest.raises(InputError, match=key.split("_config")[0]):
        JanusVLNConfig.from_dict(values)

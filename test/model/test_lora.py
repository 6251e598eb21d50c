"""
An adapter in PEFT's format beside a checkpoint's weights: merged, or refused by what is not known
of it; never left out.
"""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from janusvln_ros.errors import InputError
from janusvln_ros.model import JanusVLN, JanusVLNConfig

SETTINGS = {
    "peft_type": "LORA",
    "task_type": None,
    "base_model_name_or_path": "somebody/base",
    "auto_mapping": {"base_model_class": "Qwen2_5_VLForConditionalGenerationForJanusVLN"},
    "inference_mode": True,
    "r": 4,
    "lora_alpha": 16,
    "lora_dropout": 0.05,
    "target_modules": ["q_proj"],
    "bias": "none",
    "init_lora_weights": True,
    "rank_pattern": {},
    "alpha_pattern": {},
    "loftq_config": {},
    "fan_in_fan_out": False,
    "megatron_core": "megatron.core",
    "layer_replication": None,
    "use_dora": False,
    "use_rslora": False,
    "peft_version": "0.21.2",
}
Q = "model.layers.1.self_attn.q_proj"
OURS = "language.layers.1.self_attn.q_proj"


def add(folder, tensors, **settings):
    """Put an adapter into a folder."""
    named = {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}
    save_file(named, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(SETTINGS | settings))


@pytest.fixture
def folder(tiny, tmp_path):
    return shutil.copytree(tiny, tmp_path / "checkpoint")


@pytest.fixture
def base(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.fixture
def factors(base):
    rows, columns = base[f"{OURS}.weight"].shape
    torch.manual_seed(0)
    return torch.randn(4, columns), torch.randn(rows, 4)


def changed(folder, base):
    """What differs from the base in the network that a folder gives."""
    state = JanusVLN.from_pretrained(folder).state_dict()
    return {name: value for name, value in state.items() if not torch.equal(value, base[name])}


@pytest.mark.parametrize(
    ("settings", "scale"),
    [
        ({}, 4.0),
        ({"use_rslora": True}, 8.0),
        ({"alpha_pattern": {"layers.1.self_attn.q_proj": 2}}, 0.5),
        ({"alpha_pattern": {"layers.0.self_attn.q_proj": 2}}, 4.0),
    ],
)
def test_factors_are_added_by_their_scale(folder, base, factors, settings, scale, caplog):
    a, b = factors
    add(folder, {f"{Q}.lora_A.weight": a, f"{Q}.lora_B.weight": b}, **settings)
    found = changed(folder, base)
    assert set(found) == {f"{OURS}.weight"}
    torch.testing.assert_close(found[f"{OURS}.weight"], base[f"{OURS}.weight"] + scale * b @ a)
    assert "adapter is merged" in caplog.text


def test_names_of_newer_transformers_are_the_same_modules(folder, base, factors):
    a, b = factors
    name = Q.replace("model.", "model.language_model.", 1)
    add(folder, {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b})
    assert set(changed(folder, base)) == {f"{OURS}.weight"}


def test_dora_gives_every_row_the_length_of_its_magnitude(folder, base, factors):
    a, b = factors
    lengths = torch.rand(len(b)) + 0.5
    parts = {"lora_A.weight": a, "lora_B.weight": b, "lora_magnitude_vector": lengths}
    add(folder, {f"{Q}.{part}": tensor for part, tensor in parts.items()}, use_dora=True)
    merged = changed(folder, base)[f"{OURS}.weight"]
    torch.testing.assert_close(merged.norm(dim=1), lengths)
    add(folder, {f"{Q}.{part}": tensor for part, tensor in parts.items()})
    with pytest.raises(InputError, match=r"has magnitudes.*use_dora"):
        JanusVLN.from_pretrained(folder)


def test_embeddings_biases_and_whole_modules_are_taken(folder, base, factors):
    vocabulary, width = base["language.embed_tokens.weight"].shape
    tensors = {
        "model.embed_tokens.lora_embedding_A": torch.randn(4, vocabulary),
        "model.embed_tokens.lora_embedding_B": torch.randn(width, 4),
        f"{Q}.base_layer.bias": torch.randn_like(base[f"{OURS}.bias"]),
        "lm_head.weight": torch.randn(vocabulary, width),
    }
    add(folder, tensors, modules_to_save=["lm_head"], bias="lora_only")
    found = changed(folder, base)
    assert set(found) == {"language.embed_tokens.weight", f"{OURS}.bias", "lm_head.weight"}
    assert torch.equal(found["lm_head.weight"], tensors["lm_head.weight"])
    product = tensors["model.embed_tokens.lora_embedding_B"]
    product = (product @ tensors["model.embed_tokens.lora_embedding_A"]).T * 4
    torch.testing.assert_close(
        found["language.embed_tokens.weight"], base["language.embed_tokens.weight"] + product
    )


def test_a_head_of_its_own_is_one_although_config_ties_it(tiny, tmp_path):
    values = json.loads((tiny / "config.json").read_text()) | {"tie_word_embeddings": True}
    model = JanusVLN.from_config(JanusVLNConfig.from_dict(values), seed=1)
    model.save_pretrained(tmp_path)
    head = torch.randn_like(model.lm_head.weight)
    add(tmp_path, {"lm_head.weight": head}, modules_to_save=["lm_head"])
    again = JanusVLN.from_pretrained(tmp_path)
    assert torch.equal(again.lm_head.weight, head) and not again.config.tie_word_embeddings
    assert torch.equal(again.language.embed_tokens.weight, model.language.embed_tokens.weight)


@pytest.fixture
def tied(tiny, tmp_path):
    """A checkpoint whose head is its embeddings."""
    values = json.loads((tiny / "config.json").read_text()) | {"tie_word_embeddings": True}
    JanusVLN.from_config(JanusVLNConfig.from_dict(values), seed=1).save_pretrained(tmp_path)
    return tmp_path


def test_embeddings_and_head_that_were_trained_apart_are_two_although_config_ties_them(tied):
    before = JanusVLN.from_pretrained(tied).lm_head.weight.detach().clone()
    rows, width = before.shape
    embeddings, head = torch.randn(rows, width), torch.randn(rows, width)
    whole = {"model.embed_tokens.weight": embeddings, "lm_head.weight": head}
    add(tied, whole, modules_to_save=["embed_tokens", "lm_head"])
    found = JanusVLN.from_pretrained(tied)
    assert torch.equal(found.language.embed_tokens.weight, embeddings)
    assert torch.equal(found.lm_head.weight, head) and not found.config.tie_word_embeddings

    a, b = torch.randn(4, width), torch.randn(rows, 4)
    factors = {"lm_head.lora_A.weight": a, "lm_head.lora_B.weight": b}
    factors["model.embed_tokens.lora_embedding_A"] = torch.randn(4, rows)
    factors["model.embed_tokens.lora_embedding_B"] = torch.randn(width, 4)
    add(tied, factors, target_modules=["embed_tokens", "lm_head"])
    torch.testing.assert_close(JanusVLN.from_pretrained(tied).lm_head.weight, before + 4 * b @ a)


def test_embeddings_and_head_that_were_trained_as_one_stay_one(tied):
    both = torch.randn_like(JanusVLN.from_pretrained(tied).lm_head.weight)
    whole = {"model.embed_tokens.weight": both, "lm_head.weight": both.clone()}
    add(tied, whole, modules_to_save=["embed_tokens"], ensure_weight_tying=True)
    found = JanusVLN.from_pretrained(tied)
    assert found.lm_head.weight is found.language.embed_tokens.weight
    assert torch.equal(found.lm_head.weight, both) and found.config.tie_word_embeddings


TRAINED_BESIDE = ["non_lora_trainables.bin", "non_lora_state_dict.bin", "vit.safetensors"]


@pytest.mark.parametrize("name", TRAINED_BESIDE)
def test_weights_that_were_trained_beside_an_adapter_are_refused_by_name(folder, factors, name):
    a, b = factors
    add(folder, {f"{Q}.lora_A.weight": a, f"{Q}.lora_B.weight": b})
    (folder / name).write_bytes(b"")
    with pytest.raises(InputError, match=f"{name}.*merge both"):
        JanusVLN.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=f"{name}.*merge both"):
        JanusVLN.from_pretrained(folder)


def test_what_was_merged_is_saved_without_the_adapter(folder, base, factors):
    a, b = factors
    add(folder, {f"{Q}.lora_A.weight": a, f"{Q}.lora_B.weight": b})
    merged = JanusVLN.from_pretrained(folder)
    merged.save_pretrained(folder)
    assert not list(folder.glob("adapter_*")) and (folder / "tokenizer.json").exists()
    again = JanusVLN.from_pretrained(folder).state_dict()
    assert all(torch.equal(again[name], value) for name, value in merged.state_dict().items())


def test_factors_for_what_is_read_past_are_read_past(folder, base, factors):
    a, b = factors
    dead = "vggt.aggregator.global_blocks.3.attn.qkv"
    assert f"{dead}.weight" in load_file(folder / "model.safetensors")
    tensors = {f"{Q}.lora_A.weight": a, f"{Q}.lora_B.weight": b}
    tensors |= {
        f"{dead}.lora_A.weight": torch.ones(4, 2),
        f"{dead}.lora_B.weight": torch.ones(2, 4),
    }
    add(folder, tensors)
    assert set(changed(folder, base)) == {f"{OURS}.weight"}


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"peft_type": "IA3"}, "IA3"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"a_setting_of_tomorrow": 3}, "a_setting_of_tomorrow"),
    ],
)
def test_what_is_not_known_here_is_refused_by_name(folder, factors, settings, word):
    a, b = factors
    add(folder, {f"{Q}.lora_A.weight": a, f"{Q}.lora_B.weight": b}, **settings)
    with pytest.raises(InputError, match=rf"{word}.*merge_and_unload"):
        JanusVLN.from_pretrained(folder)


@pytest.mark.parametrize(
    "settings",
    [
        {"lora_alpha": "16"},
        {"alpha_pattern": {"q_proj": None}},
        {"alpha_pattern": {"*q_proj": 8}},
        {"alpha_pattern": ["q_proj"]},
    ],
)
def test_a_scale_that_is_none_is_refused_by_name(folder, factors, settings):
    a, b = factors
    add(folder, {f"{Q}.lora_A.weight": a, f"{Q}.lora_B.weight": b}, **settings)
    with pytest.raises(InputError, match=r"adapter_config\.json: .*alpha"):
        JanusVLN.from_pretrained(folder)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda t: t.pop(f"{Q}.lora_B.weight"), "no two factors"),
        (lambda t: t.update({f"{Q}.lora_B.weight": torch.ones(3, 4)}), "another model"),
        (lambda t: t.update({f"{Q}.lora_B.weight": torch.ones(112, 3)}), "do not fit"),
        (lambda t: t.update({"model.layers.9.mlp.up_proj.lora_A.weight": torch.ones(4, 2)}), "9"),
        (lambda t: t.update({f"{Q}.lora_A.weight": torch.ones(4, 112).char()}), "float32"),
        (dict.clear, "no numbers"),
    ],
)
def test_tensors_that_do_not_fit_are_named(folder, factors, edit, words):
    a, b = factors
    tensors = {f"{Q}.lora_A.weight": a, f"{Q}.lora_B.weight": b}
    edit(tensors)
    add(folder, tensors)
    with pytest.raises(InputError, match=words):
        JanusVLN.from_pretrained(folder)


@pytest.mark.parametrize("gone", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_part_of_an_adapter_is_refused(folder, factors, gone):
    a, b = factors
    add(folder, {f"{Q}.lora_A.weight": a, f"{Q}.lora_B.weight": b})
    (folder / gone).unlink()
    with pytest.raises(InputError, match=gone):
        JanusVLN.from_pretrained(folder)


def test_an_adapter_alone_is_refused_with_the_command_that_joins_both(tmp_path, factors):
    a, b = factors
    add(tmp_path, {f"{Q}.lora_A.weight": a, f"{Q}.lora_B.weight": b})
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"cp -rL somebody/base MERGED"):
        JanusVLN.from_pretrained(tmp_path)

"""``janusvln info`` counts exactly what is built and set aside."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from janusvln_ros.cli.bench import build_navigator
from janusvln_ros.cli.info import describe
from janusvln_ros.cli.main import main
from janusvln_ros.errors import InputError
from janusvln_ros.model import JanusVLN, JanusVLNConfig
from janusvln_ros.model.quantization import quantize_language
from janusvln_ros.policy import Navigator, NavigatorOptions, default_checkpoint
from janusvln_ros.policy.identity import checkpoint_digest

ROOT = Path(__file__).parents[2]
TINY = ROOT / "config" / "model" / "tiny.json"
FULL = ROOT / "benchmarks" / "configs" / "full"


@pytest.fixture(scope="module")
def full():
    return describe(str(FULL))


def test_full_size_has_the_published_parameters_less_those_never_used(full):
    heads, last_pair, mask_token = 2 * 32_650_000, 2 * 302_360_000 / 24, 1024
    assert full["parameters"]["total"] == pytest.approx(
        9_314_832_390 - heads - last_pair - mask_token, rel=1e-5
    )
    assert full["frame"] == {
        "pixels": [640, 480],
        "resized": [644, 490],
        "patches": [46, 35],
        "fused_tokens": 391,
    }


def test_full_size_spatial_memory_is_the_published_one_less_its_last_layer(full):
    per_frame = full["precisions"]["bfloat16"]["memory_per_frame"]["spatial"]
    assert per_frame == 23 * 2 * 1615 * 1024 * 2
    assert full["precisions"]["bfloat16"]["memories"]["spatial"] == 57 * per_frame < 8.4 * 2**30


def test_full_size_fits_where_it_should(full):
    fits = {precision: need["fits_gigabytes"] for precision, need in full["precisions"].items()}
    assert 24 not in fits["bfloat16"] and 40 in fits["bfloat16"]
    assert fits["int4"][0] <= 24 and fits["float32"][0] > 40


def test_smaller_window_and_memory_in_a_byte_take_less(full):
    small = describe(str(FULL), "dual", (4, 12), (640, 480), "int8")
    assert (
        small["precisions"]["bfloat16"]["memories"]["spatial"]
        < 0.18 * full["precisions"]["bfloat16"]["memories"]["spatial"]
    )
    assert set(small["precisions"]["int4"]["memories"]) == {"spatial", "semantic"}


@pytest.mark.parametrize("memory", ["released", "dual"])
def test_counted_bytes_of_the_memories_are_those_of_a_navigator(memory):
    navigator = build_navigator(str(TINY), memory, "constrained", "cpu", "float32")
    navigator.reset("go")
    navigator.step(np.zeros((120, 160, 3), np.uint8))
    counted = describe(str(TINY), memory, None, (160, 120))["precisions"]["float32"]["memories"]
    assert navigator.spatial.nbytes == counted["spatial"]
    if memory == "dual":
        assert navigator.context.nbytes == pytest.approx(counted["semantic"], rel=0.02)


@pytest.mark.parametrize("precision", ["int8", "float8"])
def test_counted_bytes_of_a_spatial_memory_in_a_byte_are_those_of_a_navigator(precision):
    plain = build_navigator(str(TINY), "dual", "constrained", "cpu", "float32")
    navigator = Navigator(
        plain.model, plain.tokenizer, NavigatorOptions(spatial_precision=precision)
    )
    navigator.reset("go")
    navigator.step(np.zeros((120, 160, 3), np.uint8))
    assert (
        navigator.spatial.nbytes
        == describe(str(TINY), "dual", None, (160, 120), precision)["precisions"]["float32"][
            "memories"
        ]["spatial"]
    )


def test_counted_bytes_of_weights_are_those_of_the_network():
    config = JanusVLNConfig.from_pretrained(TINY)
    counted = {name: need["weights"] for name, need in describe(str(TINY))["precisions"].items()}
    model = JanusVLN.from_config(config, dtype="bfloat16")
    plain = sum(p.nbytes for p in model.parameters())
    assert counted["bfloat16"] == plain and counted["float32"] == 2 * plain
    layers = [m for m in model.language.layers.modules() if isinstance(m, torch.nn.Linear)]
    before = sum(m.weight.nbytes for m in layers)
    quantize_language(model, "int8")
    after = sum(m.weight.qdata.nbytes + 4 * m.weight.scale.numel() for m in layers)
    assert counted["int8"] == plain - before + after
    packed = quantize_language(JanusVLN.from_config(config, dtype="bfloat16"), "int4")
    layers = [m for m in packed.language.layers.modules() if isinstance(m, torch.nn.Linear)]
    after = sum(m.weight.qdata.nbytes + m.weight.scale_and_zero.nbytes for m in layers)
    assert counted["int4"] == plain - before + after


@pytest.fixture
def folder(tmp_path):
    JanusVLN.from_config(JanusVLNConfig.from_pretrained(TINY)).save_pretrained(tmp_path)
    return tmp_path


def test_folder_with_weights_names_what_is_read_past(folder, capsys):
    file = folder / "model.safetensors"
    save_file(
        load_file(file) | {"vggt.depth_head.weight": torch.zeros(7)},
        file,
        metadata={"format": "pt"},
    )
    assert main(["info", str(folder), "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert out["weights"]["files"] == 1 and list(out["weights"]["read_past"].values()) == [7]
    assert main(["info", str(folder)]) == 0
    text = capsys.readouterr().out
    assert "prediction heads" in text and "fits on" in text and "GB" in text


def test_the_digest_is_that_of_records_and_changes_with_any_weight(folder, capsys):
    found = []
    for seed in (0, 1):
        model = JanusVLN.from_config(JanusVLNConfig.from_pretrained(TINY), seed=seed)
        model.save_pretrained(folder, shard_bytes=1_000_000)
        assert main(["info", str(folder), "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out)["checkpoint_digest"])
        assert found[-1] == checkpoint_digest(folder)
    assert found[0] != found[1]
    assert main(["info", str(folder)]) == 0
    assert f"digest {found[1]}" in capsys.readouterr().out


def test_an_adapter_is_told_or_refused_as_loading_would(folder, capsys):
    name = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = {
        f"{name}.lora_A.weight": torch.ones(2, 112),
        f"{name}.lora_B.weight": torch.ones(112, 2),
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    assert main(["info", str(folder)]) == 0
    assert "LoRA adapter, merged on loading" in capsys.readouterr().out
    (folder / "adapter_config.json").write_text(json.dumps(settings | {"peft_type": "LOHA"}))
    assert main(["info", str(folder)]) == 2
    assert "LOHA" in capsys.readouterr().err


def test_folder_with_a_missing_tensor_is_refused_by_name(folder, capsys):
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors.pop("model.norm.weight")
    save_file(tensors, file)
    assert main(["info", str(folder)]) == 2
    assert "model.norm.weight" in capsys.readouterr().err


def test_impossible_window_is_refused():
    with pytest.raises(InputError, match=r"-1 . 4 frames"):
        describe(str(TINY), "dual", (-1, 4))


def test_the_shipped_checkpoint_says_that_it_rephrases_and_settings_alone_do_not(capsys):
    assert main(["info", str(default_checkpoint())]) == 0
    assert "instructions are said again first" in capsys.readouterr().out
    assert not describe(str(TINY))["rephrases"]

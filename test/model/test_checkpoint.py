"""
Checkpoints: every published tensor is accounted for, and a bad file is named with its remedy.
"""

import gzip
import json
import multiprocessing
import random
import re
import shutil
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from janusvln_ros.errors import InputError
from janusvln_ros.model import JanusVLN, JanusVLNConfig, adapter, checkpoint


@pytest.fixture(scope="module")
def published(data):
    return json.loads(gzip.decompress((data / "published_keys.json.gz").read_bytes()))


@pytest.fixture(scope="module")
def published_model(published):
    config = JanusVLNConfig.from_dict(published["config"] | {"model_type": "qwen2_5_vl"})
    with torch.device("meta"):
        return JanusVLN(config)


@pytest.fixture
def folder(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def test_all_published_tensors_are_loaded_or_named_as_unused(published, published_model):
    shapes = {name: tuple(shape) for name, shape in published["state_dict"].items()}
    account = adapter.account(shapes, published_model)
    account.check("published")
    assert len(account.used) + len(account.unused) == published["n_keys"] == 2068
    reasons = {
        reason: sum(why == reason for why in account.unused.values())
        for reason in account.unused.values()
    }
    # mask token; last pair of blocks; point and depth heads
    assert sorted(reasons.values()) == [1, 36, 124]
    parameters = sum(value.numel() for value in published_model.state_dict().values())
    assert parameters == sum(torch.Size(shape).numel() for shape in account.used.values())


def test_names_map_both_ways(published_model):
    for name in published_model.state_dict():
        assert adapter.our_name(adapter.published_name(name)) == name


def test_saved_checkpoint_reads_back_bit_by_bit_and_in_published_names(model, tiny, tmp_path):
    model.save_pretrained(tmp_path)
    original, written = (
        load_file(tiny / "model.safetensors"),
        load_file(tmp_path / "model.safetensors"),
    )
    assert set(written) < set(original) and all(
        torch.equal(written[name], original[name]) for name in written
    )
    again = JanusVLN.from_pretrained(tmp_path)
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values())
    )


def test_others_may_read_the_weights_of_a_checkpoint_as_they_may_its_config(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_mode == (
        tmp_path / "config.json"
    ).stat().st_mode


def test_shards_read_like_one_file(model, tmp_path):
    model.save_pretrained(tmp_path, shard_bytes=1_000_000)
    assert (
        len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 3
        and not (tmp_path / "model.safetensors").exists()
    )
    again = JanusVLN.from_pretrained(tmp_path)
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values())
    )


def test_dtype_is_that_of_the_config_or_the_one_asked_for(model, tiny, tmp_path):
    model.save_pretrained(tmp_path, dtype="bfloat16")
    assert JanusVLN.from_pretrained(tmp_path).dtype == torch.bfloat16
    wide = JanusVLN.from_pretrained(tmp_path, dtype="float32")
    assert wide.dtype == torch.float32 and wide.lm_head.weight.dtype == torch.float32


def test_weights_that_a_narrower_type_makes_infinite_are_not_saved(model, tmp_path):
    with torch.no_grad():
        model.lm_head.weight[0, 0] = -1e6
    with pytest.raises(InputError, match=r"lm_head\.weight holds .*float16, up to 1e\+06"):
        model.save_pretrained(tmp_path / "c", dtype="float16")
    assert not (tmp_path / "c").exists()
    model.save_pretrained(tmp_path / "c", dtype="bfloat16")
    found = JanusVLN.from_pretrained(tmp_path / "c").lm_head.weight.detach()[0, 0]
    assert float(found) == pytest.approx(-1e6, rel=0.01)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rotary_frequencies_are_float32_whatever_the_weights(tiny, dtype):
    loaded, cast = (
        JanusVLN.from_pretrained(tiny, dtype=dtype),
        JanusVLN.from_pretrained(tiny).to(getattr(torch, dtype)),
    )
    for model in (loaded, cast):
        for rotary in (model.language.rotary_emb, model.vision.rotary_pos_emb):
            assert rotary.inv_freq.dtype == torch.float32 and rotary.inv_freq.device.type == "cpu"
    expected = 1e6 ** -(torch.arange(0, 16, 2) / 16)
    torch.testing.assert_close(loaded.language.rotary_emb.inv_freq, expected)


def test_tied_embeddings_are_written_once_and_tied_again(tiny, tmp_path):
    values = json.loads((tiny / "config.json").read_text()) | {"tie_word_embeddings": True}
    model = JanusVLN.from_config(JanusVLNConfig.from_dict(values), seed=1)
    model.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    again = JanusVLN.from_pretrained(tmp_path)
    assert again.lm_head.weight is again.language.embed_tokens.weight
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)


def test_random_network_depends_on_its_seed_alone(tiny):
    config = JanusVLNConfig.from_pretrained(tiny)
    state = torch.random.get_rng_state()
    a, b, c = (JanusVLN.from_config(config, seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(x, y) for x, y in zip(a.values(), b.values())) and not torch.equal(
        a["lm_head.weight"], c["lm_head.weight"]
    )
    assert all(value.isfinite().all() for value in a.values())


def change(folder, edit):
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors")


def newer(name):
    """The name that transformers >= 4.52 gives a tensor of Qwen2.5-VL."""
    if name.startswith("visual."):
        return f"model.{name}"
    return (
        name.replace("model.", "model.language_model.", 1) if name.startswith("model.") else name
    )


def test_names_of_newer_transformers_are_read_like_the_published_ones(tiny, folder):
    weights = load_file(folder / "model.safetensors")
    save_file({newer(n): w for n, w in weights.items()}, folder / "model.safetensors")
    assert sum(newer(n) != n for n in weights) > 20
    again, first = JanusVLN.from_pretrained(folder), JanusVLN.from_pretrained(tiny)
    for name, value in first.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_tensor_under_both_names_is_refused_by_name(folder):
    name = "model.language_model.layers.1.mlp.up_proj.weight"
    change(folder, lambda w: w.update({name: w[name.replace("language_model.", "")].clone()}))
    with pytest.raises(InputError, match=name):
        JanusVLN.from_pretrained(folder)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (
            lambda w: w.pop("model.layers.1.mlp.up_proj.weight"),
            ["model.layers.1.mlp.up_proj.weight", "copy"],
        ),
        (
            lambda w: w.update({"model.layers.9.mlp.up_proj.weight": torch.zeros(1)}),
            ["model.layers.9.mlp.up_proj.weight", "config.json"],
        ),
        (lambda w: w.update({"nonsense": torch.zeros(1)}), ["nonsense"]),
        (
            lambda w: w.update({"merger.ln_q.weight": torch.zeros(5)}),
            ["merger.ln_q.weight", r"\[5\]", r"\[128\]"],
        ),
        (
            lambda w: (w.pop("lm_head.weight"), w.update({"merger.ln_q.weight": torch.zeros(5)})),
            ["lm_head.weight", "merger.ln_q.weight"],
        ),
    ],
    ids=["missing", "extra", "unknown", "misshapen", "two at once"],
)
def test_wrong_tensors_are_named_with_what_to_do(folder, edit, words):
    change(folder, edit)
    for word in words:
        with pytest.raises(InputError, match=word):
            JanusVLN.from_pretrained(folder)


def test_dead_weight_may_be_absent_and_leftovers_may_be_there(folder, model):
    def edit(weights):
        for name in [
            name for name in weights if re.search(r"mask_token|vggt\.\w+_head|_blocks\.3\.", name)
        ]:
            del weights[name]
        weights |= {
            "vggt.camera_head.trunk.weight": torch.zeros(2),
            "classifier.0.weight": torch.zeros(2),
        }

    change(folder, edit)
    again = JanusVLN.from_pretrained(folder)
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values())
    )


def test_damaged_file_is_named(folder):
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(InputError, match="damaged"):
        JanusVLN.from_pretrained(folder)


def test_what_a_clone_leaves_in_place_of_weights_is_told(folder):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 42\n"
    (folder / "model.safetensors").write_text(pointer)
    with pytest.raises(InputError, match=r"model\.safetensors .*git lfs pull"):
        JanusVLN.from_pretrained(folder)


def test_missing_shard_is_named(model, tmp_path):
    model.save_pretrained(tmp_path, shard_bytes=2_000_000)
    gone = sorted(tmp_path.glob("model-*"))[1]
    gone.unlink()
    with pytest.raises(InputError, match=gone.name):
        JanusVLN.from_pretrained(tmp_path)


def test_pickles_are_never_loaded(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model\.bin.*pickles"):
        JanusVLN.from_pretrained(folder)


def test_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(InputError, match="no checkpoint folder"):
        JanusVLN.from_pretrained(tmp_path / "nowhere" / "at" / "all")


@pytest.mark.parametrize("name", ["a/b", "somebody/some-model", "../a", "a/b/c", "a@b", "/a/b@v"])
def test_a_missing_folder_is_a_missing_folder_and_nothing_of_the_hub(name, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked")
    )
    with pytest.raises(InputError, match=f"no checkpoint folder '{name}'"):
        JanusVLN.from_pretrained(name)


def test_hub_id_without_network_says_so(monkeypatch):
    import huggingface_hub

    def offline(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(InputError, match=r"somebody/some-model.*network"):
        JanusVLN.from_pretrained("somebody/some-model@v1")


def test_hub_id_becomes_its_snapshot(monkeypatch, tiny, model):
    import huggingface_hub

    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        lambda name, revision, allow_patterns: (
            str(tiny) if (name, revision) == ("somebody/some-model", "v1") else None
        ),
    )
    assert torch.equal(
        JanusVLN.from_pretrained("somebody/some-model@v1").lm_head.weight, model.lm_head.weight
    )


@pytest.mark.parametrize("dtype", ["float33", "int8", "Tensor", 3])
def test_unknown_dtype_is_named(tiny, dtype):
    with pytest.raises(InputError, match=str(dtype)):
        JanusVLN.from_pretrained(tiny, dtype=dtype)


def test_penalty_comes_from_its_file_and_the_end_token_from_the_config(folder):
    config = JanusVLNConfig.from_pretrained(folder)
    (folder / "generation_config.json").write_text(
        json.dumps({"eos_token_id": [5, 6], "repetition_penalty": 1.05})
    )
    assert checkpoint.generation(folder, config) == checkpoint.Generation((402,), 1.05)
    (folder / "generation_config.json").write_text(json.dumps({"repetition_penalty": -1}))
    with pytest.raises(InputError, match="repetition_penalty"):
        checkpoint.generation(folder, config)
    (folder / "generation_config.json").unlink()
    assert checkpoint.generation(folder, config) == checkpoint.Generation((402,), 1.0)


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


@pytest.mark.slow
@pytest.mark.parametrize("old_shards", [3, 1])
def test_kill_minus_nine_at_any_moment_leaves_the_whole_old_or_the_whole_new_one(
    tiny, tmp_path, old_shards
):
    config = JanusVLNConfig.from_pretrained(tiny)
    old, new = (JanusVLN.from_config(config, seed=seed) for seed in (1, 2))
    size = sum(value.nbytes for value in old.state_dict().values())
    three, folder = size // 3 + size // 20, tmp_path / "checkpoint"
    began = time.monotonic()
    new.save_pretrained(folder, shard_bytes=three)
    took = time.monotonic() - began
    assert len(list(folder.glob("model-*"))) == 3
    fork, dice, seen = multiprocessing.get_context("fork"), random.Random(0), set()
    for _ in range(40):
        old.save_pretrained(folder, shard_bytes=three if old_shards == 3 else 10 * size)
        writer = fork.Process(
            target=new.save_pretrained, args=(folder,), kwargs={"shard_bytes": three}
        )
        writer.start()
        time.sleep(dice.uniform(0, 2 * took))
        writer.kill()
        writer.join()
        found = JanusVLN.from_pretrained(folder)
        assert equal(found, old) or equal(found, new)
        seen.add(equal(found, new))
    assert seen == {True, False}
    old.save_pretrained(folder)
    assert list(tmp_path.iterdir()) == [folder]  # what the killed ones left is gone


def test_a_save_that_fails_leaves_the_checkpoint_that_was_there(
    model, tiny, tmp_path, monkeypatch
):
    model.save_pretrained(tmp_path / "c", shard_bytes=1_000_000)
    calls = []

    def full(tensors, path, metadata):
        calls.append(path)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        save_file(tensors, path, metadata)

    monkeypatch.setattr(checkpoint, "save_file", full)
    other = JanusVLN.from_config(model.config, seed=5)
    with pytest.raises(OSError, match="No space"):
        other.save_pretrained(tmp_path / "c", shard_bytes=1_000_000)
    assert equal(JanusVLN.from_pretrained(tmp_path / "c"), model)
    assert list(tmp_path.iterdir()) == [tmp_path / "c"]


def test_a_save_keeps_what_is_no_network_and_replaces_what_is(model, folder):
    model.save_pretrained(folder, shard_bytes=1_000_000)
    assert (folder / "tokenizer.json").is_file() and not (folder / "model.safetensors").exists()
    shards = len(list(folder.glob("model-*")))
    model.save_pretrained(folder, shard_bytes=3_000_000)
    assert 1 < len(list(folder.glob("model-*"))) < shards
    model.save_pretrained(folder)
    assert not list(folder.glob("model-*")) and not list(folder.glob("*.index.json"))


def test_a_shard_of_another_checkpoint_is_refused_by_name(model, tmp_path):
    other = JanusVLN.from_config(model.config, seed=5)
    for name, network in (("a", model), ("b", other)):
        network.save_pretrained(tmp_path / name, shard_bytes=2_000_000)
    shard = sorted((tmp_path / "b").glob("model-*"))[1]
    shutil.copyfile(shard, tmp_path / "a" / shard.name)
    with pytest.raises(InputError, match=f"{shard.name}.*two checkpoints"):
        JanusVLN.from_pretrained(tmp_path / "a")


def test_shards_beside_a_whole_file_are_two_checkpoints(model, folder):
    other = JanusVLN.from_config(model.config, seed=5)
    other.save_pretrained(folder.parent / "b", shard_bytes=2_000_000)
    for path in (folder.parent / "b").iterdir():  # as transformers saves over an older one
        shutil.copyfile(path, folder / path.name)
    with pytest.raises(InputError, match=r"model\.safetensors and also .*two checkpoints"):
        JanusVLN.from_pretrained(folder)
    for path in folder.glob("model-*"):  # the older one's index, which it leaves there
        path.unlink()
    assert equal(JanusVLN.from_pretrained(folder), model)


def test_a_tensor_in_two_shards_is_refused_by_name(model, tmp_path):
    model.save_pretrained(tmp_path, shard_bytes=2_000_000)
    index = tmp_path / "model.safetensors.index.json"
    values = json.loads(index.read_text())
    values["metadata"].pop("sha256")  # other programs write none
    index.write_text(json.dumps(values))
    one, two = sorted(tmp_path.glob("model-*"))[:2]
    name, value = next(iter(load_file(one).items()))
    save_file(load_file(two) | {name: value + 1}, two)
    with pytest.raises(InputError, match=f"{name} is in {one.name} and in {two.name}"):
        JanusVLN.from_pretrained(tmp_path)


def test_shards_without_their_index_ask_for_it(model, tmp_path):
    model.save_pretrained(tmp_path, shard_bytes=2_000_000)
    (tmp_path / "model.safetensors.index.json").unlink()
    with pytest.raises(InputError, match=r"shards \(model-00001.*no model\.safetensors\.index"):
        JanusVLN.from_pretrained(tmp_path)


def test_a_checkpoint_that_is_replaced_while_it_is_read_is_refused(model, tmp_path, monkeypatch):
    model.save_pretrained(tmp_path / "c")
    read = checkpoint.stored_account

    def meanwhile(folder, network):
        JanusVLN.from_config(model.config, seed=5).save_pretrained(folder)
        return read(folder, network)

    monkeypatch.setattr(checkpoint, "stored_account", meanwhile)
    with pytest.raises(InputError, match="replaced while it was read"):
        JanusVLN.from_pretrained(tmp_path / "c")


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn, torch.bool])
@pytest.mark.parametrize("method", ["fp8", None])
def test_quantised_weights_are_refused_by_name(folder, dtype, method):
    name = "model.layers.1.mlp.up_proj.weight"
    change(folder, lambda w: w.update({name: w[name].to(dtype)}))
    if method:
        values = json.loads((folder / "config.json").read_text())
        values["quantization_config"] = {"quant_method": method}
        (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=f"{name}.*{method or 'bfloat16'}"):
        JanusVLN.from_pretrained(folder)


def test_scales_beside_weights_in_bfloat16_are_told_as_what_they_are(folder):
    scale = {"model.layers.1.mlp.up_proj.weight_scale": torch.ones(3, 1)}
    change(folder, lambda w: w.update(scale))
    values = json.loads((folder / "config.json").read_text())
    values["quantization_config"] = {"quant_method": "compressed-tensors"}
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"by compressed-tensors.*weight_scale.*bfloat16"):
        JanusVLN.from_pretrained(folder)
    change(folder, lambda w: w.pop(*scale))  # merged back, as after training a quantised one
    JanusVLN.from_pretrained(folder)


def test_whole_numbers_that_are_read_past_are_no_weights(folder, model):
    change(folder, lambda w: w.update({"vggt.track_head.count": torch.ones(3, dtype=torch.int64)}))
    assert equal(JanusVLN.from_pretrained(folder), model)


def test_a_head_of_its_own_is_used_although_config_ties_it(tiny, folder, model, caplog):
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"tie_word_embeddings": True}))
    again = JanusVLN.from_pretrained(folder)
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)
    assert not again.config.tie_word_embeddings and "lm_head" in caplog.text
    change(folder, lambda w: w.update({"lm_head.weight": w["model.embed_tokens.weight"].clone()}))
    assert JanusVLN.from_pretrained(folder).config.tie_word_embeddings


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", torch.float8_e5m2, "float4_e2m1fn_x2"])
def test_a_type_that_no_network_computes_in_is_named(tiny, model, tmp_path, dtype):
    for call in (
        lambda: JanusVLN.from_pretrained(tiny, dtype=dtype),
        lambda: JanusVLN.from_config(model.config, dtype=dtype),
        lambda: model.save_pretrained(tmp_path / "c", dtype=dtype),
    ):
        with pytest.raises(InputError, match=str(dtype)):
            call()
    assert not (tmp_path / "c").exists()

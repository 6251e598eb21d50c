"""What can go wrong in a run ends it with a sentence, and never with a number that is wrong."""

import errno
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from janusvln_ros.cli.main import main
from janusvln_ros.data.samples import TrajectorySet
from janusvln_ros.errors import InputError, NonFiniteError
from janusvln_ros.model import JanusVLN, JanusVLNConfig
from janusvln_ros.policy.identity import checkpoint_digest
from janusvln_ros.policy.tokenizer import load_tokenizer
from janusvln_ros.training import cache, trainer
from janusvln_ros.training.dual import DualTask, Trajectories, collate_trajectories
from janusvln_ros.training.network import build_model, write_checkpoint
from janusvln_ros.training.recipes import save_recipe
from janusvln_ros.training.run import train

TOKENIZER = Path(__file__).resolve().parents[2] / "config" / "model" / "tiny"


# ---------------------------------------------------------------- numbers that are none


def test_a_run_that_diverges_ends_and_leaves_what_was_there(recipe, tmp_path):
    folder = tmp_path / "run" / "checkpoint"
    good = train(recipe(max_steps=1))["checkpoint_digest"]
    shutil.rmtree(tmp_path / "run" / "state")
    bad = recipe(max_steps=30, learning_rate="1e30", save_steps=1, overwrite=True)
    with pytest.raises(NonFiniteError, match=r"step \d+: the .*last good state is .*checkpoint-"):
        train(bad)
    assert checkpoint_digest(folder) == good
    for state in (tmp_path / "run" / "state").glob("checkpoint-*"):
        for name, value in load_file(state / "model.safetensors").items():
            assert value.isfinite().all(), (state, name)


def test_the_command_says_so_and_fails(recipe, tmp_path, capfd):
    recipe_file = tmp_path / "r.yaml"
    save_recipe(recipe(max_steps=30, learning_rate="1e30"), recipe_file)
    assert main(["train", str(recipe_file), "--json"]) == 1
    out, err = capfd.readouterr()
    assert out == "" and "learning_rate (now 1e+30)" in err and "Traceback" not in err


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_the_first_loss_that_is_none_is_told(recipe, monkeypatch, number):
    forward, calls = DualTask.forward, []

    def broken(self, **batch):
        calls.append(1)
        out = forward(self, **batch)
        return out | {"loss": out["loss"] * (number if len(calls) == 3 else 1.0)}

    monkeypatch.setattr(DualTask, "forward", broken)
    with pytest.raises(NonFiniteError, match=f"step 3: the loss is {number}"):
        train(recipe(max_steps=5))
    assert len(calls) == 3


@pytest.mark.parametrize("clip", [1.0, 0.0])
def test_a_gradient_that_is_none_is_told_before_it_is_applied(recipe, monkeypatch, clip):
    class Spoil(torch.autograd.Function):
        @staticmethod
        def forward(_, x):
            return x.clone()

        @staticmethod
        def backward(_, gradient):
            return gradient * float("inf")

    forward = DualTask.forward
    monkeypatch.setattr(
        DualTask,
        "forward",
        lambda self, **batch: (out := forward(self, **batch)) | {"loss": Spoil.apply(out["loss"])},
    )
    with pytest.raises(NonFiniteError, match="step 1: the gradient's norm is"):
        train(recipe(max_steps=5, max_grad_norm=clip))


def test_a_weight_that_is_none_after_the_last_step_is_told_by_name(recipe, tmp_path, monkeypatch):
    step = torch.optim.AdamW.step

    def spoil(self, closure=None):
        step(self)
        self.param_groups[0]["params"][0].data.view(-1)[0] = float("nan")

    monkeypatch.setattr(torch.optim.AdamW, "step", spoil)
    with pytest.raises(NonFiniteError, match=r"step 1: the weight model\.\S+ is not finite"):
        train(recipe(max_steps=1, optimizer="adamw"))
    assert not (tmp_path / "run" / "checkpoint").exists()


def test_a_loss_in_evaluation_that_is_none_is_no_zero(recipe, drives, monkeypatch):
    forward = DualTask.forward

    def broken(self, **batch):
        out = forward(self, **batch)
        return out if self.training else out | {"loss": out["loss"] * float("nan")}

    monkeypatch.setattr(DualTask, "forward", broken)
    with pytest.raises(NonFiniteError, match="loss in evaluation is nan"):
        train(recipe(max_steps=2, eval_steps=1, eval_data=f"[{drives}]"))


@pytest.mark.parametrize(
    "change", ["batch=0", "accumulate=0", "learning_rate=.nan", "max_grad_norm=.inf", "seed=-1"]
)
def test_a_setting_that_no_run_can_have_is_refused(change, capsys):
    assert main(["train", "tiny", "--show", "--set", change]) == 2
    assert f"{change.partition('=')[0]} is" in capsys.readouterr().err


# ---------------------------------------------------------------- tied, and checkpointed


@pytest.fixture
def untied(micro, tmp_path):
    """The micro network, whose embeddings are its head, with a head of its own."""
    values = json.loads(micro.read_text())
    assert values["tie_word_embeddings"]
    path = tmp_path / "untied.json"
    path.write_text(json.dumps(values | {"tie_word_embeddings": False}))
    return path


def test_tied_embeddings_are_trained_saved_and_gone_on_with(recipe, tmp_path):
    # with a tokenizer that has no table of words, which would tie them in another way
    plain = shutil.copytree(TOKENIZER, tmp_path / "tokenizer")
    (plain / "words.safetensors").unlink()
    fields = {"tokenizer": plain, "save_steps": 1, "keep": 9, "optimizer": "adamw"}
    train(recipe(max_steps=3, output=tmp_path / "whole", **fields))
    shutil.copytree(tmp_path / "whole", tmp_path / "left")
    shutil.rmtree(tmp_path / "left" / "checkpoint")
    for step in (2, 3):
        shutil.rmtree(tmp_path / "left" / "state" / f"checkpoint-{step}")
    train(recipe(max_steps=3, output=tmp_path / "left", **fields))
    a, b = (
        load_file(tmp_path / n / "checkpoint" / "model.safetensors") for n in ("whole", "left")
    )
    assert "lm_head.weight" not in a and all(torch.equal(a[name], b[name]) for name in a)
    network = JanusVLN.from_pretrained(tmp_path / "left" / "checkpoint")
    assert network.lm_head.weight is network.language.embed_tokens.weight


def test_gradient_checkpointing_changes_no_number(recipe, tmp_path):
    for name, on in (("plain", False), ("spared", True)):
        train(recipe(max_steps=2, gradient_checkpointing=on, output=tmp_path / name))
    a, b = (
        load_file(tmp_path / n / "checkpoint" / "model.safetensors") for n in ("plain", "spared")
    )
    for name, value in a.items():
        torch.testing.assert_close(b[name], value, atol=1e-6, rtol=1e-5, msg=name)


@pytest.fixture
def semantic(micro, tmp_path):
    """A function that makes a Qwen2.5-VL folder, its head tied to the embeddings or not."""

    def make(head):
        values = json.loads(micro.read_text()) | {"tie_word_embeddings": head is None}
        network = JanusVLN.from_config(JanusVLNConfig.from_dict(values), seed=3)
        folder = tmp_path / "qwen"
        network.save_pretrained(folder)
        weights = load_file(folder / "model.safetensors")
        weights = {n: w for n, w in weights.items() if n.startswith(("visual.", "model."))}
        save_file(
            weights | ({} if head is None else {"lm_head.weight": head}),
            folder / "model.safetensors",
        )
        spatial = load_parts(network)
        save_file(spatial, (tmp_path / "vggt").joinpath("model.safetensors"))
        return network

    def load_parts(network):
        (tmp_path / "vggt").mkdir()
        (tmp_path / "vggt" / "config.json").write_text("{}")
        return {f"aggregator.{n}": w.contiguous() for n, w in network.spatial.state_dict().items()}

    return make


def parts_of(recipe, model, tmp_path):
    return build_model(
        recipe(
            model=model,
            semantic_model=tmp_path / "qwen",
            spatial_model=tmp_path / "vggt",
        )
    )


def test_a_tied_semantic_model_has_its_embeddings_as_its_head(
    recipe, micro, untied, semantic, tmp_path
):
    network = semantic(None)
    for settings in (micro, untied):
        built = parts_of(recipe, settings, tmp_path)
        assert torch.equal(built.lm_head.weight, network.language.embed_tokens.weight)
        same = built.lm_head.weight is built.language.embed_tokens.weight
        assert same == (settings == micro)


def test_settings_that_tie_a_head_of_its_own_are_refused(recipe, micro, semantic, tmp_path):
    semantic(torch.ones(11179, 48))
    with pytest.raises(InputError, match=r"lm_head of its own.*tie_word_embeddings to false"):
        parts_of(recipe, micro, tmp_path)


def test_settings_that_tie_a_head_that_an_adapter_parts_are_refused(
    recipe, micro, untied, semantic, tmp_path
):
    network = semantic(None)
    head = torch.ones_like(network.lm_head.weight)
    save_file(
        {"base_model.model.lm_head.weight": head}, tmp_path / "qwen" / "adapter_model.safetensors"
    )
    (tmp_path / "qwen" / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(InputError, match="lm_head of its own"):
        parts_of(recipe, micro, tmp_path)
    built = parts_of(recipe, untied, tmp_path)
    assert torch.equal(built.lm_head.weight, head)
    assert torch.equal(built.language.embed_tokens.weight, network.language.embed_tokens.weight)


def test_parts_of_which_the_settings_would_leave_some_out_are_refused(
    recipe, micro, semantic, tmp_path
):
    semantic(None)
    fewer = json.loads(micro.read_text()) | {"num_hidden_layers": 1}
    (tmp_path / "fewer.json").write_text(json.dumps(fewer))
    with pytest.raises(InputError, match=r"no place for \(model\.layers\.1\..*settings of that"):
        parts_of(recipe, tmp_path / "fewer.json", tmp_path)
    path = tmp_path / "qwen" / "model.safetensors"
    scale = {"model.layers.0.mlp.up_proj.weight_scale": torch.ones(1)}
    save_file(load_file(path) | scale, path)
    config = json.loads((tmp_path / "qwen" / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8"}
    (tmp_path / "qwen" / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"quantised by fp8.*up_proj\.weight_scale"):
        parts_of(recipe, micro, tmp_path)


@pytest.mark.parametrize("blocks", [1, 3])  # of the encoders, where the network has two
def test_encoders_of_another_depth_are_refused(recipe, micro, tmp_path, blocks):
    for name, depth in (("encoders", blocks), ("network", 2)):
        values = json.loads(micro.read_text())
        values["vision_config"]["depth"] = depth
        (tmp_path / f"{name}.json").write_text(json.dumps(values))
    source = JanusVLNConfig.from_pretrained(tmp_path / "encoders.json")
    JanusVLN.from_config(source).save_pretrained(tmp_path / "encoders")
    with pytest.raises(InputError, match=r"vision\.blocks\.\d.*encoders of the same sizes"):
        build_model(recipe(model=tmp_path / "network.json", encoders=tmp_path / "encoders"))


def test_a_weight_that_is_none_never_replaces_a_checkpoint(recipe, micro, tmp_path):
    network, folder = build_model(recipe()), tmp_path / "checkpoint"
    write_checkpoint(network, recipe(), folder, trained=True)
    before = checkpoint_digest(folder)
    with torch.no_grad():  # where nothing learns, and no step looks
        network.spatial.patch_embed.cls_token.view(-1)[0] = float("nan")
    with pytest.raises(NonFiniteError, match=r"spatial\.\S+ is not finite"):
        write_checkpoint(network, recipe(), folder, trained=True)
    assert checkpoint_digest(folder) == before


# ---------------------------------------------------------------- pictures and disks


@pytest.fixture
def own(drives, tmp_path):
    """A set of one's own, to change."""
    without = shutil.ignore_patterns("*.cache")
    return shutil.copytree(drives.parent, tmp_path / "own", ignore=without) / "set.jsonl"


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["dual", "released"])
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("size", "words"), [((84, 112), "turned"), ((1, 1), "1x1 pixels"), (None, "cannot be read")]
)
def test_a_picture_of_another_kind_is_told_by_file_and_step(
    recipe, own, memory, workers, size, words
):
    for path in own.parent.rglob("002.jpg"):
        if size is None:
            path.write_bytes(path.read_bytes()[:300])
        else:
            Image.new("RGB", size).save(path)
    values = recipe(
        data=f"[{own}]", cache_features=False, memory=memory, workers=workers, batch=8, max_steps=9
    )
    with pytest.raises(InputError, match=rf"^step \d+: \S+/002\.jpg.*{words}") as caught:
        train(values)
    assert "Traceback" not in str(caught.value)


def test_trajectories_that_are_too_long_are_counted_and_said_last(recipe, drives, tmp_path, capfd):
    made = recipe(max_steps=1, longest=9, eval_data=f"[{drives}]", eval_steps=1)
    save_recipe(made, tmp_path / "r.yaml")
    assert main(["train", str(tmp_path / "r.yaml"), "--json"]) == 0
    out, said = capfd.readouterr()
    result = json.loads(out)
    # eight of 4 to 11 frames, to train on and to be judged by
    reason = "it has more than longest=9 frames"
    assert result["samples"] == 6 and "left out: 4 of 16 trajectories" in said
    assert result["left_out_by_reason"][reason]["count"] == 4
    assert f"4 because {reason}" in said and "set.jsonl, trajectory 6" in said.splitlines()[-3]
    with pytest.raises(InputError, match="longest=9 is for whole trajectories"):
        train(recipe(memory="released", longest=9, output=tmp_path / "other"))


def test_cached_pictures_of_another_kind_are_told_by_file(recipe, own):
    path = sorted(own.parent.rglob("002.jpg"))[0]
    Image.new("RGB", (84, 112)).save(path)
    advice = "put the right picture there, or take its trajectory out of the set"
    with pytest.raises(InputError, match=f"{re.escape(str(path))}.*{advice}"):
        train(recipe(data=f"[{own}]"))
    assert not list(own.parent.glob("set.jsonl.cache/*.npy"))
    mine = f"images/{path.parents[1].name}/rgb"
    lines = [line for line in own.read_text().splitlines() if mine not in line]
    own.write_text("\n".join(lines) + "\n")
    assert len(lines) == 7 and train(recipe(data=f"[{own}]", max_steps=1))["steps"] == 1


def test_trajectories_of_two_shapes_do_not_share_a_batch(recipe, own):
    for path in sorted((own.parent / "images" / "drive_3" / "rgb").iterdir()):
        Image.new("RGB", (112, 56)).save(path)
    model, tokenizer = build_model(recipe()), load_tokenizer(TOKENIZER)
    items = Trajectories([TrajectorySet(own)], model, tokenizer, recipe(), False)
    collate_trajectories([items[2], items[4]])
    with pytest.raises(InputError, match=r"112x84.*drive_2.*112x56.*drive_3.*batch=1"):
        collate_trajectories([items[2], items[3]])


def features(recipe, own):
    """What is kept of a set for the recipe's network."""
    model, tokenizer = build_model(recipe), load_tokenizer(TOKENIZER)
    kept = Trajectories([TrajectorySet(own)], model, tokenizer, recipe, True)
    return [np.array(part) for part in kept.features[0]]


def test_pictures_made_anew_under_the_same_names_are_encoded_anew(recipe, own):
    before = features(recipe(), own)
    path = sorted(own.parent.rglob("*.jpg"))[0]
    status, content = path.stat(), path.read_bytes()
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    Image.fromarray(255 - pixels).save(path)
    other = path.read_bytes()
    path.write_bytes(other.ljust(len(content), b"\0")[: max(len(content), len(other))])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = features(recipe(), own)
    assert not np.array_equal(before[0][0], after[0][0])
    assert np.array_equal(before[0][-1], after[0][-1])  # another trajectory's


def test_other_encoders_or_settings_of_them_are_encoded_anew(recipe, own, micro, tmp_path):
    values = json.loads(micro.read_text())
    before = features(recipe(), own)
    values["vision_config"]["hidden_act"] = "relu"  # the same weights
    (tmp_path / "other.json").write_text(json.dumps(values))
    other = features(recipe(model=tmp_path / "other.json"), own)
    assert not np.array_equal(before[0], other[0]) and np.array_equal(before[1], other[1])
    seeded = features(recipe(seed=9), own)
    assert not np.array_equal(before[0], seeded[0]) and not np.array_equal(before[1], seeded[1])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_cache_that_cannot_be_written_is_a_sentence_and_leaves_nothing(
    recipe, own, monkeypatch, capsys, tmp_path, number
):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(cache.os, "posix_fallocate", refuse)
    save_recipe(recipe(data=f"[{own}]"), tmp_path / "r.yaml")
    assert main(["train", str(tmp_path / "r.yaml")]) == 1
    said = capsys.readouterr().err
    assert f"set.jsonl.cache: {os.strerror(number).lower()}" in said and "Traceback" not in said
    assert "cache_features=false" in said
    assert not list(own.parent.glob("set.jsonl.cache/*.npy"))
    assert not list(own.parent.glob("set.jsonl.cache/.*tmp*"))


@pytest.mark.slow
def test_a_checkpoint_on_a_full_disk_keeps_the_state(recipe, monkeypatch, tmp_path):
    from janusvln_ros.model import checkpoint

    def full(*_, **__):
        raise checkpoint.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError) as caught:
        train(recipe(max_steps=1))
    assert caught.value.errno == errno.ENOSPC and "checkpoint" in str(caught.value.filename)
    assert trainer.last_state(tmp_path / "run") and not (tmp_path / "run" / "checkpoint").exists()

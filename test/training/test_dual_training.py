"""
What is learned from a batch: the published loss for samples, and every step of a trajectory
exactly as the navigator will see it.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn.functional import smooth_l1_loss

from janusvln_ros.actions import Action
from janusvln_ros.data.episodes import is_unseen_text
from janusvln_ros.data.samples import TrajectorySet
from janusvln_ros.errors import InputError
from janusvln_ros.model import JanusVLN
from janusvln_ros.policy import Navigator
from janusvln_ros.policy.preprocess import resize
from janusvln_ros.policy.tokenizer import load_tokenizer
from janusvln_ros.training.dual import (
    FORESIGHT,
    UNKNOWN,
    DualTask,
    ForesightHead,
    Trajectories,
    collate_trajectories,
    drawn_near,
    foresight,
    mirrored_actions,
    mirrored_instruction,
    step_figures,
    step_weights,
)
from janusvln_ros.training.episode import IGNORED
from janusvln_ros.training.network import build_model, write_checkpoint
from janusvln_ros.training.released import ReleasedTask, collate_samples
from janusvln_ros.training.run import prepare

GOLDEN = Path(__file__).resolve().parents[1] / "data" / "model"
TOKENIZER = Path(__file__).resolve().parents[2] / "config" / "model" / "tiny"


@pytest.mark.parametrize("frames", [1, 5])
def test_released_loss_through_the_collator_is_the_published_one(frames):
    expected = load_file(GOLDEN / "tiny_expected.safetensors")
    model = JanusVLN.from_pretrained(GOLDEN / "tiny").train()
    instruction = json.loads((GOLDEN / "tiny_expected.json").read_text())["instruction"]
    pictures = np.stack(
        [
            resize(f, model.config.navigation.image_width)
            for f in expected["frames_raw_uint8"][:frames].numpy()
        ]
    )
    task = ReleasedTask(model, load_tokenizer(GOLDEN / "tiny"))
    ids, labels = task.ids_and_labels(instruction, frames, 24, Action.TURN_LEFT)
    assert (
        ids == expected[f"train{frames}.input_ids"].tolist()
        and labels == expected[f"train{frames}.labels"].tolist()
    )
    out = task(**collate_samples([{"frames": pictures, "instruction": instruction, "action": 2}]))
    torch.testing.assert_close(
        out["loss"], expected[f"train{frames}.loss"].squeeze(), atol=1e-5, rtol=1e-5
    )


def test_released_batch_is_the_mean_of_its_samples(recipe):
    model = build_model(recipe())
    task = ReleasedTask(model, load_tokenizer(TOKENIZER))
    rng = np.random.default_rng(0)
    items = [
        {
            "frames": rng.integers(0, 255, (k, 84, 112, 3), np.uint8),
            "instruction": "go",
            "action": k,
        }
        for k in (1, 2)
    ]
    single = [task(**collate_samples([item]))["loss"] for item in items]
    torch.testing.assert_close(task(**collate_samples(items))["loss"], torch.stack(single).mean())


@pytest.mark.parametrize(
    ("cached", "semantic_memory"), [(True, True), (False, True), (False, False)]
)
def test_every_supervised_step_sees_what_the_navigator_sees(
    recipe, drives, cached, semantic_memory
):
    torch.manual_seed(0)
    model = build_model(recipe(semantic_memory=semantic_memory)).eval()
    tokenizer = load_tokenizer(TOKENIZER)
    sets = TrajectorySet(drives)
    items = Trajectories([sets], model, tokenizer, recipe(), cached)
    chosen = [7, 2]  # the longest goes past three evictions; the other one is padded
    batch = collate_trajectories([items[i] for i in chosen])
    task = DualTask(model, tokenizer).eval()
    captured = {}
    model.lm_head.register_forward_hook(lambda _, __, out: captured.update(logits=out))
    with torch.no_grad():
        task(**batch)
    logits = captured["logits"][:, :, 0][..., task.answers[:, 0]]
    navigator = Navigator(model, tokenizer)
    for row, i in enumerate(chosen):
        navigator.reset(sets[i].instruction)
        for step, path in enumerate(sets[i].frames):
            decision = navigator.step(np.asarray(Image.open(path).convert("RGB")))
            ours = logits[row, step].softmax(-1)
            theirs = torch.tensor([decision.probabilities[action] for action in Action])
            torch.testing.assert_close(
                ours.double(), theirs.double(), atol=1e-3 if cached else 1e-5, rtol=0
            )


def test_padding_changes_no_loss(recipe, drives):
    model = build_model(recipe())
    tokenizer = load_tokenizer(TOKENIZER)
    items = Trajectories([TrajectorySet(drives)], model, tokenizer, recipe(), False)
    task = DualTask(model, tokenizer, guidance=0.5)
    alone = [task(**collate_trajectories([items[i]]))["loss"] for i in (0, 7)]
    torch.testing.assert_close(
        task(**collate_trajectories([items[0], items[7]]))["loss"], torch.stack(alone).mean()
    )


def test_changes_of_action_and_stops_weigh_more():
    assert step_weights([1, 1, 2, 2, 1, 0], 3.0, 4.0).tolist() == [1, 1, 3, 1, 3, 4]
    assert step_weights([0, 0], 3.0, 5.0).tolist() == [5, 5]


def test_foresight_looks_past_the_current_step_and_ends_in_stop():
    table = foresight(np.array([1, 2, 3, 0]), 4)
    assert table[0].tolist() == [2, 3, 0, 0, 0, 0, 0, 0, 3] and table[3].tolist() == [0] * 9


def test_nobody_knows_what_comes_after_a_drive_that_was_cut_short():
    table = foresight(np.array([1, 2, 3]), 3)
    assert table[0].tolist() == [2, 3] + [IGNORED] * 6 + [UNKNOWN]
    assert table[2].tolist() == [IGNORED] * 8 + [UNKNOWN]
    # such steps teach what led there, and nothing of what comes
    head, hidden_BFD = ForesightHead(6), torch.randn(1, 3, 6)
    executed_BF = torch.tensor([[-1, 1, 2]])
    ahead_BFK = torch.from_numpy(table)[None]
    ways_BF22 = torch.full((1, 3, 2, 2), torch.nan)
    whole = head(hidden_BFD, ahead_BFK, executed_BF, ways_BF22)[0]
    blank = torch.full_like(ahead_BFK, IGNORED)
    blank[..., -1] = UNKNOWN
    alone, parts = head(hidden_BFD[:, 2:], blank[:, 2:], executed_BF[:, 2:], ways_BF22[:, 2:])
    assert torch.equal(alone, parts["motion"]) and parts["way"] == 0 and whole > 0


def test_where_the_route_leads_is_learned_as_direction_and_logarithm_of_the_distance():
    near = drawn_near(torch.tensor([[3.0, 4.0], [0.0, -0.5], [0.0, 0.0]]))
    assert near[0].tolist() == pytest.approx([0.6 * math.log(6), 0.8 * math.log(6)])
    assert near[1].tolist() == pytest.approx([0, -math.log(1.5)]) and near[2].tolist() == [0, 0]
    head, hidden_BFD = ForesightHead(6), torch.randn(2, 3, 6)
    nothing = torch.full((2, 3, FORESIGHT + 1), IGNORED)
    nothing[..., -1] = UNKNOWN
    nothing[1, 2, -1] = IGNORED  # a step of padding
    ways_BF22 = torch.tensor([[2.0, 1.0], [4.0, -1.0]]).expand(2, 3, 2, 2).clone()
    ways_BF22[1, 2], ways_BF22[0, 0] = torch.nan, torch.nan
    executed_BF = torch.full((2, 3), -1)
    loss, parts = head(hidden_BFD, nothing, executed_BF, ways_BF22)
    guess_BF4 = head.head(hidden_BFD)[..., -4:]
    wanted_4 = drawn_near(ways_BF22[0, 1]).flatten()
    error_BF = smooth_l1_loss(guess_BF4, wanted_4.expand(2, 3, 4), reduction="none").sum(-1)
    mean = (error_BF[0, 1:].sum() / 3 + error_BF[1, :2].mean()) / 2
    assert loss == parts["way"] and loss.item() == pytest.approx(mean.item(), rel=1e-5)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in head.parameters())


def test_a_training_step_leaves_the_same_channels_out_of_all_frames(recipe, drives):
    values = recipe(channel_dropout=0.4)
    model, tokenizer = build_model(values), load_tokenizer(TOKENIZER)
    task = prepare(values, model, tokenizer).task
    features = {"vision": torch.ones(2, 3, 8, 500), "spatial": torch.ones(2, 3, 8, 700)}
    first = task.fewer_channels(features)
    for values_BFPC in first.values():
        mask_C = values_BFPC[0, 0, 0]
        assert torch.equal(values_BFPC, mask_C.expand_as(values_BFPC))
        assert mask_C.unique().tolist() == pytest.approx([0, 1 / 0.6])
        assert 0.3 < (mask_C == 0).float().mean() < 0.5
    again = task.fewer_channels(features)
    assert all(torch.equal(again[name], first[name]) for name in first)
    task.step += 1
    assert not torch.equal(task.fewer_channels(features)["vision"], first["vision"])
    assert task.eval().fewer_channels(features) is features


def test_more_layers_change_nothing_until_they_are_trained(recipe, drives, tmp_path):
    shallow = build_model(recipe())
    old = shallow.config.text.num_hidden_layers
    write_checkpoint(shallow, recipe(), tmp_path / "start", trained=True, tokenizer=TOKENIZER)
    start = {"model": tmp_path / "start"}
    plain, deep = (build_model(recipe(**start, layers=n)).float() for n in (old, 2 * old + 1))
    assert deep.config.text.num_hidden_layers == len(deep.language.layers) == 2 * old + 1
    tokenizer = load_tokenizer(TOKENIZER)
    items = Trajectories([TrajectorySet(drives)], plain, tokenizer, recipe(), False)
    batch = collate_trajectories([items[1]])
    losses = [DualTask(model, tokenizer)(**batch)["loss"] for model in (plain, deep)]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-5)
    losses[1].backward()
    silent = [
        projection.weight
        for layer in deep.language.layers
        for projection in (layer.self_attn.o_proj, layer.mlp.down_proj)
        if not projection.weight.any()
    ]
    assert len(silent) == 2 * (old + 1) and all(weight.grad.any() for weight in silent)
    write_checkpoint(deep, recipe(), tmp_path / "deep", trained=True, tokenizer=TOKENIZER)
    assert Navigator.from_pretrained(tmp_path / "deep").model.config == deep.config
    with pytest.raises(InputError, match=f"layers is 1, but the network has {old} already"):
        build_model(recipe(**start, layers=1))


def test_missed_and_false_stops_are_told_apart():
    logits = torch.full((1, 5, 4), -9.0)
    for step, action in enumerate((0, 1, 1, 0, 2)):
        logits[0, step, action] = 9
    figures = step_figures(logits, torch.arange(4), torch.tensor([[1, 1, 0, 0, IGNORED]]))
    assert {k: round(float(v), 4) for k, v in figures.items()} == {
        "accuracy": 0.5,
        "changes": 0.0,
        "stop_missed": 0.5,
        "stop_false": 0.5,
    }


def test_executed_actions_before_frames_are_an_ablation_that_changes_the_scores(recipe, drives):
    from dataclasses import replace

    model = build_model(recipe())
    tokenizer = load_tokenizer(TOKENIZER)
    items = Trajectories([TrajectorySet(drives)], model, tokenizer, recipe(), False)
    batch = collate_trajectories([items[1]])
    plain = DualTask(model, tokenizer)(**batch)["loss"]
    model.config = replace(
        model.config, navigation=replace(model.config.navigation, action_memory="executed")
    )
    assert not torch.isclose(plain, DualTask(model, tokenizer)(**batch)["loss"])


@pytest.mark.parametrize("cached", [True, False])
def test_mirrored_trajectory_is_that_of_mirrored_pictures_turns_and_words(
    recipe, drives, tmp_path, cached
):
    model, tokenizer = build_model(recipe()).eval(), load_tokenizer(TOKENIZER)
    sets = TrajectorySet(drives)
    lines = [json.loads(line) for line in drives.read_text().splitlines()]
    exchange = {-1: -1, 0: 0, 1: 1, 2: 3, 3: 2}
    for number, line in enumerate(lines):
        frames = [
            np.asarray(Image.open(path).convert("RGB"))[:, ::-1] for path in sets[number].frames
        ]
        (tmp_path / str(number)).mkdir()
        for i, frame in enumerate(frames):
            Image.fromarray(frame).save(tmp_path / str(number) / f"{i:03d}.png")
        line["folder"], line["frames"] = str(number), [f"{i:03d}.png" for i in range(len(frames))]
        line["targets"], line["actions"] = (
            [exchange[a] for a in line[name]] for name in ("targets", "actions")
        )
    (tmp_path / "flipped.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    both = Trajectories([sets], model, tokenizer, recipe(), cached, [sets])
    flipped = Trajectories(
        [TrajectorySet(tmp_path / "flipped.jsonl")], model, tokenizer, recipe(), cached
    )
    assert len(both) == 2 * len(flipped) == len(both.lengths)  # "go to the red lamp" has no sides
    for k in (0, 5):
        mirrored, expected = both[len(flipped) + k], flipped[k]
        assert mirrored.keys() == expected.keys()
        assert mirrored.pop("name") != expected.pop("name")
        for name, value in expected.items():
            np.testing.assert_allclose(
                np.asarray(mirrored[name], np.float32),
                np.asarray(value, np.float32),
                atol=2e-3,
                err_msg=name,
            )
        assert not np.array_equal(
            mirrored["vision" if cached else "frames"], both[k]["vision" if cached else "frames"]
        )


def test_left_and_right_are_exchanged_in_words_and_turns_and_back_again():
    text = (
        "Turn left, then take the door on your right. Left of the brightly lit table is "
        "the leftmost chair."
    )
    assert (
        mirrored_instruction(text)
        == "Turn right, then take the door on your left. Right of the brightly lit table "
        "is the leftmost chair."
    )
    assert mirrored_instruction(mirrored_instruction(text)) == text
    assert mirrored_actions(np.array([-1, 0, 1, 2, 3])).tolist() == [-1, 0, 1, 3, 2]


def test_a_text_that_is_kept_for_unseen_homes_does_not_come_in_by_the_mirror(
    recipe, drives, tmp_path
):
    model, tokenizer = build_model(recipe()).eval(), load_tokenizer(TOKENIZER)
    lines = [json.loads(line) for line in drives.read_text().splitlines()]
    for number, line in enumerate(lines):
        line["instruction"], line["folder"] = (
            f"Turn left and go to chair number {number}.",
            str((drives.parent / line["folder"]).resolve()),
        )
    (tmp_path / "sides.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    kept = [
        number
        for number in range(len(lines))
        if not is_unseen_text(f"Turn right and go to chair number {number}.")
    ]
    assert 0 < len(kept) < len(lines)
    sides = TrajectorySet(tmp_path / "sides.jsonl")
    items = Trajectories([sides], model, tokenizer, recipe(), False, [sides])
    assert items.index == [(0, i) for i in range(len(lines))] + [(1, i) for i in kept]


def test_mirrored_sets_are_refused_for_published_samples(recipe, drives):
    with pytest.raises(InputError, match="mirrored_data is for whole trajectories"):
        prepare(
            recipe(memory="released", mirrored_data=[str(drives)]),
            build_model(recipe()),
            load_tokenizer(TOKENIZER),
        )

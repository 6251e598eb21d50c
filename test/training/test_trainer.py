"""
The training loop: repeatable, resumable after a kill, the same on one process and on two, and
learning what it is shown.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from janusvln_ros.errors import InputError
from janusvln_ros.model import JanusVLN
from janusvln_ros.policy import Navigator
from janusvln_ros.training.network import build_model
from janusvln_ros.training.run import train
from janusvln_ros.training.trainer import (
    LengthGroupedBatches,
    MuonAndAdamW,
    freeze,
    last_state,
    parameter_groups,
)

ROOT = Path(__file__).resolve().parents[2]


def curve(output) -> list[float]:
    return [
        entry["loss"]
        for entry in json.loads((Path(output) / "history.json").read_text())
        if "loss" in entry
    ]


def command(recipe, *more) -> tuple[list[str], dict[str, str]]:
    """The command line of ``janusvln train`` for a recipe that was built here."""
    path = Path(recipe.output).with_suffix(".yaml")
    path.write_text(yaml.safe_dump(asdict(recipe)))
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "CUDA_VISIBLE_DEVICES": "",
    }
    return [*more, "-m", "janusvln_ros.cli.main", "train", str(path)], env


def test_same_seed_gives_the_same_curve_and_weights_and_another_seed_does_not(recipe, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(recipe(seed=seed, sample_windows=0.5, output=tmp_path / name))
    assert curve(tmp_path / "a") == curve(tmp_path / "b") != curve(tmp_path / "c")
    a, b = (load_file(tmp_path / name / "checkpoint" / "model.safetensors") for name in "ab")
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_it_learns_and_the_checkpoint_drives(recipe, tmp_path, drives):
    result = train(recipe(max_steps=40, learning_rate="1e-2", batch=8))
    losses = curve(tmp_path / "run")
    assert losses[-1] < 0.5 * losses[0]
    navigator = Navigator.from_pretrained(result["checkpoint"])
    assert navigator.trained and navigator.memory == "dual" and navigator.decoding == "constrained"


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_stopped_run_goes_on_with_the_curve_of_an_undisturbed_one(recipe, tmp_path, optimizer):
    train(recipe(max_steps=6, output=tmp_path / "whole", save_steps=3, optimizer=optimizer))
    whole = curve(tmp_path / "whole")
    # As after a kill: the state of step 3 is complete, that of step 6 is not, and nothing was
    # written at the end.
    state = tmp_path / "whole" / "state"
    import shutil

    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    killed = tmp_path / "killed" / "state"
    assert {p.name for p in state.glob("checkpoint-*")} == {"checkpoint-3", "checkpoint-6"}
    (killed / "checkpoint-6" / "trainer_state.json").unlink()
    assert (
        last_state(tmp_path / "killed").endswith("checkpoint-3")
        and not (killed / "checkpoint-6").exists()
    )
    train(recipe(max_steps=6, output=tmp_path / "killed", save_steps=3, optimizer=optimizer))
    assert curve(tmp_path / "killed") == pytest.approx(whole, abs=1e-6)


@pytest.mark.slow
def test_kill_minus_nine_loses_at_most_the_steps_since_the_last_state(recipe, tmp_path):
    whole = recipe(max_steps=30, save_steps=5, output=tmp_path / "whole")
    train(whole)
    killed = recipe(max_steps=30, save_steps=5, output=tmp_path / "killed")
    arguments, env = command(killed)
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env=env,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path / "killed" / "state").glob("checkpoint-*/trainer_state.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "checkpoint").exists()
    subprocess.run(
        [sys.executable, *arguments],
        env=env,
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert curve(tmp_path / "killed") == pytest.approx(curve(tmp_path / "whole"), abs=1e-5)


@pytest.mark.slow
def test_two_processes_give_the_loss_of_one_at_the_same_global_batch(recipe, tmp_path):
    one = recipe(
        max_steps=20, batch=4, sample_windows=0, guidance_weight=0.3, output=tmp_path / "one"
    )
    train(one)
    two = recipe(
        max_steps=20, batch=2, sample_windows=0, guidance_weight=0.3, output=tmp_path / "two"
    )
    arguments, env = command(
        two, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29731"
    )
    subprocess.run(
        [sys.executable, *arguments],
        env=env,
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=280,
    )
    assert curve(tmp_path / "two") == pytest.approx(curve(tmp_path / "one"), abs=1e-3)


def test_state_of_another_recipe_is_not_continued(recipe):
    train(recipe(max_steps=2, save_steps=1))
    with pytest.raises(InputError, match="learning_rate"):
        train(recipe(max_steps=2, learning_rate="1e-5"))


def test_published_parts_learn_and_the_others_stay_as_they_were(recipe, micro):
    before = build_model(recipe()).state_dict()
    result = train(recipe(memory="dual", max_steps=3))
    after = JanusVLN.from_pretrained(result["checkpoint"]).state_dict()
    moved = {
        name.split(".")[0] if not name.startswith("vision.merger") else "vision.merger"
        for name in before
        if not torch.equal(before[name], after[name])
    }
    assert moved == {"vision.merger", "fusion", "language", "lm_head"}


def test_learning_rates_and_decay_go_by_part(recipe):
    rates = {
        "learning_rate": "1e-3",
        "projector_learning_rate": "1e-4",
        "vision_learning_rate": "1e-5",
    }
    values = recipe(**rates, train_vision_tower=True, train_spatial_encoder=True, weight_decay=0.1)
    model = build_model(values)
    freeze(model, values)
    task = torch.nn.Module()
    task.model = model
    groups = parameter_groups(task, values)
    of = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert (
        of[id(model.vision.merger.mlp[0].weight)]
        == of[id(model.fusion.mlp[0].weight)]
        == (1e-4, 0.1)
    )
    assert of[id(model.vision.patch_embed.proj.weight)] == (1e-5, 0.1)
    assert of[id(model.language.norm.weight)] == (1e-3, 0.1)  # RMSNorm weights decay, as published
    assert of[id(model.language.layers[0].self_attn.q_proj.bias)] == (1e-3, 0.0)
    assert of[id(model.spatial.patch_embed.norm.weight)] == (1e-3, 0.0)


def test_length_groups_hold_every_sample_once_and_pad_little():
    lengths = torch.randint(10, 100, (403,), generator=torch.Generator().manual_seed(0)).tolist()
    sampler = LengthGroupedBatches(lengths, 4, seed=0)
    order = list(sampler)
    assert sorted(order) == list(range(403)) and order == list(sampler)
    spread = [
        max(part) - min(part)
        for part in (([lengths[i] for i in order[k : k + 4]]) for k in range(0, 400, 4))
    ]
    assert sum(spread) / len(spread) < 5
    sampler.set_epoch(1)
    assert list(sampler) != order


def test_muon_is_for_matrices_of_hidden_layers_only(recipe):
    values = recipe(optimizer="muon")
    model = build_model(values)
    freeze(model, values)
    task = torch.nn.Module()
    task.model = model
    name_of = {id(p): name for name, p in model.named_parameters()}
    muon = {
        name_of[id(p)]
        for group in parameter_groups(task, values)
        if group["muon"]
        for p in group["params"]
    }
    assert {
        "language.layers.0.self_attn.q_proj.weight",
        "language.layers.0.mlp.down_proj.weight",
        "fusion.mlp.0.weight",
    } <= muon
    assert not [
        name
        for name in muon
        if name.endswith(("embed_tokens.weight", "lm_head.weight", "bias")) or "norm" in name
    ]


def test_muon_and_adamw_together_step_as_each_does_alone():
    torch.manual_seed(0)
    matrix, vector = torch.randn(6, 4), torch.randn(5)
    gradients = [(torch.randn(6, 4), torch.randn(5)) for _ in range(4)]

    def steps(matrix, vector, optimizers, gradients):
        for matrix.grad, vector.grad in gradients:
            for optimizer in optimizers:
                optimizer.step()

    def together(matrix, vector):
        rates = {"lr": 1e-2, "weight_decay": 0.1}
        return MuonAndAdamW(
            [
                {"params": [matrix], **rates, "muon": True},
                {"params": [vector], **rates, "muon": False},
            ],
            betas=(0.9, 0.98),
        )

    m1, v1 = (torch.nn.Parameter(t.clone()) for t in (matrix, vector))
    alone = [
        torch.optim.Muon([m1], lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW([v1], lr=1e-2, weight_decay=0.1, betas=(0.9, 0.98)),
    ]
    steps(m1, v1, alone, gradients)
    m2, v2 = (torch.nn.Parameter(t.clone()) for t in (matrix, vector))
    first = together(m2, v2)
    steps(m2, v2, [first], gradients[:2])
    second = together(m2, v2)  # goes on from what was saved
    second.load_state_dict(first.state_dict())
    steps(m2, v2, [second], gradients[2:])
    assert torch.equal(m1, m2) and torch.equal(v1, v2)


def test_the_bar_of_a_resumed_run_counts_the_time_of_this_run_alone(capsys):
    from types import SimpleNamespace

    from janusvln_ros.training.trainer import ThisRun

    state = SimpleNamespace(is_world_process_zero=True, max_steps=10, global_step=6)
    bar = ThisRun()
    bar.on_train_begin(None, state, None)
    assert (bar.training_bar.n, bar.training_bar.initial) == (6, 6)
    state.global_step = 7
    bar.on_step_end(None, state, None)
    assert bar.training_bar.n == 7

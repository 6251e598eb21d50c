"""The running mean of the weights is what is judged, written and drives."""

import shutil

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from janusvln_ros.errors import InputError
from janusvln_ros.training import trainer
from janusvln_ros.training.average import RunningMean, averaged, follow, use_mean
from janusvln_ros.training.run import train


def test_first_steps_count_alike_and_older_ones_fade():
    task = nn.Linear(1, 1, bias=False)
    follow(task, decay=0.75)
    seen = [task.weight.item()]
    for step in range(1, 8):
        with torch.no_grad():
            task.weight.fill_(step)
        task.running_mean.take_in(step)
        seen.append(step)
        if step <= 3:
            assert task.running_mean.state_dict()["weight"].item() == pytest.approx(
                sum(seen) / len(seen)
            )
    expected = sum(seen[:4]) / 4
    for value in seen[4:]:
        expected = 0.75 * expected + 0.25 * value
    assert task.running_mean.state_dict()["weight"].item() == pytest.approx(expected)


def test_weights_are_as_they_were_after_the_mean_was_used():
    task = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    task[1].weight.requires_grad_(False)
    follow(task, decay=0.9)
    before = {name: p.detach().clone() for name, p in task.named_parameters()}
    with torch.no_grad():
        for weight in task.parameters():
            weight.add_(1)
    with averaged(task):
        assert torch.equal(task[0].weight, before["0.weight"])
        assert torch.equal(task[1].weight, before["1.weight"] + 1)  # not trained, not followed
    assert all(torch.equal(p, before[name] + 1) for name, p in task.named_parameters())
    use_mean(task)
    assert torch.equal(task[0].weight, before["0.weight"])


def test_a_task_without_a_mean_keeps_its_weights():
    task = nn.Linear(1, 1)
    before = task.weight.clone()
    assert follow(task, decay=0.0) == []
    with averaged(task):
        assert torch.equal(task.weight, before)


def means_and_weights(state):
    """A state's running mean and its weights, by the name of the parameter."""
    held = load_file(state / "model.safetensors")
    prefix = "running_mean."
    mean = {k.removeprefix(prefix).replace("/", "."): held[k] for k in held if prefix in k}
    return mean, {name: held[name] for name in mean}


def test_the_mean_is_what_is_judged_and_written(recipe, drives, tmp_path, monkeypatch):
    judged = []

    def evaluate(self, *args, **kwargs):
        judged.append({n: p.detach().clone() for n, p in self.model.named_parameters()})
        return {}

    monkeypatch.setattr(trainer.Trainer, "evaluate", evaluate)
    fields = {"max_steps": 4, "save_steps": 4, "learning_rate": "1e-2"}
    judge = {"eval_steps": 4, "eval_data": f"[{drives}]"}
    train(recipe(output=tmp_path / "run", average=0.9, **judge, **fields))
    mean, weights = means_and_weights(tmp_path / "run" / "state" / "checkpoint-4")
    assert mean and any(not torch.equal(mean[name], weights[name]) for name in mean)
    seen = judged[-1]
    assert all(torch.equal(seen[name], mean[name]) for name in mean)
    train(recipe(output=tmp_path / "plain", **fields | {"average": 0.0, "eval_steps": 0}))
    written, last = (
        load_file(tmp_path / name / "checkpoint" / "model.safetensors")
        for name in ("run", "plain")
    )
    assert written.keys() == last.keys()  # the mean itself is not in a checkpoint
    key = next(name for name in written if name.endswith("layers.0.mlp.up_proj.weight"))
    (inside,) = (name for name in mean if name.endswith(".layers.0.mlp.up_proj.weight"))
    torch.testing.assert_close(written[key].float(), mean[inside], rtol=0.01, atol=1e-3)
    assert not torch.equal(written[key], last[key])


def test_a_stopped_run_goes_on_with_its_mean(recipe, tmp_path):
    def run(name):
        values = recipe(max_steps=4, save_steps=2, average=0.9, keep=2, output=tmp_path / name)
        train(values)
        return means_and_weights(tmp_path / name / "state" / "checkpoint-4")[0]

    whole = run("whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    shutil.rmtree(tmp_path / "killed" / "state" / "checkpoint-4")
    shutil.rmtree(tmp_path / "killed" / "checkpoint")
    again = run("killed")
    assert whole and all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_mean_of_weights_that_lie_in_pieces_is_refused(recipe):
    with pytest.raises(InputError, match=r"average is 0\.9.*set average=0 with deepspeed or fsdp"):
        recipe(average=0.9, fsdp="config/train/fsdp.json")
    with pytest.raises(InputError, match=r"average is 1\.0: give 0 or more, and less than 1"):
        recipe(average=1.0)


def test_half_precision_weights_have_a_mean_in_single_precision():
    task = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    mean = RunningMean(task, decay=0.999)
    with torch.no_grad():
        task.weight.fill_(1.0)
    for step in range(1, 3000):
        mean.take_in(step)
    assert mean.state_dict()["weight"].item() == pytest.approx(1.0, abs=0.06)
    assert mean.state_dict()["weight"].dtype == torch.float32

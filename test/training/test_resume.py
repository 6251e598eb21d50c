"""
A run goes on as if it had never stopped, on any number of processes; from the newest whole state;
and not at all where it would mix with another run, other data or other weights.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from janusvln_ros.errors import FailedError, InputError
from janusvln_ros.model import JanusVLN
from janusvln_ros.policy.identity import checkpoint_digest
from janusvln_ros.rollout.shards import Cluster
from janusvln_ros.training import resume
from janusvln_ros.training.dual import DualTask
from janusvln_ros.training.resume import claim, last_state
from janusvln_ros.training.run import train

ROOT = Path(__file__).resolve().parents[2]


def weights(output):
    return load_file(Path(output) / "checkpoint" / "model.safetensors")


def assert_equal_training(a, b):
    """Within what another order of float32 sums makes of the first steps of AdamW."""
    a, b = weights(a), weights(b)
    assert set(a) == set(b)
    for name, value in a.items():
        torch.testing.assert_close(b[name], value, atol=2e-5, rtol=1e-4, msg=name)


def stop_at(recipe, output, step):
    """A copy of a run's folder as it was when the state of ``step`` had just been written."""
    shutil.copytree(recipe.output, output)
    shutil.rmtree(output / "checkpoint")
    for state in (output / "state").glob("checkpoint-*"):
        if state.name != f"checkpoint-{step}":
            shutil.rmtree(state)
    return replace(recipe, output=str(output))


@pytest.fixture
def hard(recipe, tmp_path):
    """Everything that is drawn while training, in five steps of four samples over two epochs."""

    def make(**fields):
        drawn = {"word_dropout": 0.3, "sample_windows": 0.7, "curriculum_steps": 2}
        values = {"batch": 4, "max_steps": 5, "save_steps": 1, "keep": 9, "learning_rate": "1e-3"}
        return recipe(**({"optimizer": "adamw"} | drawn | values | fields))

    return make


@pytest.mark.parametrize(
    ("batch", "accumulate", "grouped"), [(2, 2, True), (1, 4, False)], ids=str
)
def test_how_a_step_is_cut_up_changes_nothing(hard, tmp_path, batch, accumulate, grouped):
    whole = hard(output=tmp_path / "whole", group_by_length=grouped)
    train(whole)
    left = stop_at(whole, tmp_path / "left", 1)
    train(replace(left, batch=batch, accumulate=accumulate))
    assert_equal_training(tmp_path / "whole", tmp_path / "left")


def test_a_short_epoch_is_filled_up_however_a_step_is_cut_up(hard, tmp_path):
    # eight drives of which six are short enough: an epoch is a step and a half
    train(hard(output=tmp_path / "one", longest=9))
    train(hard(output=tmp_path / "four", longest=9, batch=1, accumulate=4))
    assert_equal_training(tmp_path / "one", tmp_path / "four")


def test_a_run_stopped_in_its_second_epoch_meets_what_it_would_have_met(hard, tmp_path):
    whole = hard(output=tmp_path / "whole")
    train(whole)
    train(stop_at(whole, tmp_path / "left", 3))
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "left")
    assert all(torch.equal(a[name], b[name]) for name in a)


def torchrun(recipe, processes, port):
    """Train by a recipe on several processes."""
    path = Path(recipe.output).with_suffix(".yaml")
    path.write_text(yaml.safe_dump(asdict(recipe)))
    command = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    command += ["--master-port", str(port), "-m", "janusvln_ros.cli.main", "train", str(path)]
    env = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    ran = subprocess.run(
        [sys.executable, *command, "--json"],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout


@pytest.mark.slow
def test_two_processes_are_gone_on_with_by_one_and_one_by_two(hard, tmp_path):
    whole = hard(output=tmp_path / "whole", batch=2)
    said = torchrun(whole, 2, 29741)
    assert json.loads(said)["steps"] == 5  # one object, not one of each process
    train(stop_at(whole, tmp_path / "one", 2))
    assert_equal_training(tmp_path / "whole", tmp_path / "one")

    alone = hard(output=tmp_path / "alone")
    train(alone)
    assert_equal_training(tmp_path / "whole", tmp_path / "alone")
    torchrun(stop_at(alone, tmp_path / "two", 2), 2, 29742)
    assert_equal_training(tmp_path / "whole", tmp_path / "two")


# ---------------------------------------------------------------- who may go on


@pytest.fixture
def begun(recipe, tmp_path):
    """A recipe whose run on two processes has a state (which nobody looks into here)."""
    made = recipe(batch=2, accumulate=1)
    claim(made, Cluster(0, 2, 0))
    return made


@pytest.fixture
def any_state(monkeypatch):
    """Every folder has a whole state."""
    monkeypatch.setattr(resume, "last_state", lambda output: f"{output}/state/checkpoint-1")


def test_fewer_processes_take_the_same_samples(begun, any_state):
    shared = claim(begun, Cluster())
    assert (shared.batch, shared.accumulate) == (2, 2)
    again = claim(begun, Cluster(0, 4, 0))  # and what was said last does not count
    assert (again.batch, again.accumulate) == (1, 1)


def test_a_product_that_fits_is_taken_as_it_is(begun, any_state):
    shared = claim(replace(begun, batch=1, accumulate=4), Cluster())
    assert (shared.batch, shared.accumulate) == (1, 4)


@pytest.mark.parametrize(
    ("fields", "processes", "words"),
    [
        ({}, 3, r"takes 4 samples \(2 processes\).*divides"),
        ({"batch": 3}, 1, "let their product be 4"),
        ({"accumulate": 2}, 2, "are 8"),
        ({"fsdp": "config/train/fsdp.json"}, 1, "in pieces of 2 processes"),
    ],
)
def test_other_samples_in_a_step_are_refused(begun, any_state, fields, processes, words):
    with pytest.raises(InputError, match=words):
        claim(replace(begun, **fields), Cluster(0, processes, 0))


def test_a_state_from_before_runs_were_described_is_gone_on_with(begun, any_state):
    (Path(begun.output) / "state" / "run.json").unlink()
    assert claim(begun, Cluster()) == begun


@pytest.mark.parametrize("text", ["", "[]", '{"samples": "four"}', '{"samples": 0}'])
def test_a_damaged_description_of_a_run_is_a_sentence(begun, any_state, text):
    path = Path(begun.output) / "state" / "run.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"state/run\.json"):
        claim(begun, Cluster())


def test_going_on_with_another_version_of_the_code_is_logged(begun, any_state, caplog):
    claim(begun, Cluster(0, 2, 0))
    assert "another" not in caplog.text
    path = Path(begun.output) / "state" / "run.json"
    told = json.loads(path.read_text())
    told["versions"]["code"] = "0123456789ab"
    path.write_text(json.dumps(told))
    claim(begun, Cluster(0, 2, 0))
    assert re.search("another code: [0-9a-f]{12}, was 0123456789ab", caplog.text)


def test_a_state_that_counts_its_passes_is_gone_on_with(three, tmp_path):
    # as states did before the step of the trainer took the place of that count
    shutil.copytree(tmp_path / "run", tmp_path / "earlier")
    for state in (tmp_path / "earlier" / "state").glob("checkpoint-*"):
        stored = load_file(state / "model.safetensors")
        save_file(stored | {"passes": torch.tensor(3)}, state / "model.safetensors")
    more = replace(three, max_steps=5)
    train(more)
    train(replace(more, output=str(tmp_path / "earlier")))
    a, b = weights(tmp_path / "run"), weights(tmp_path / "earlier")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_finished_checkpoint_without_its_state_is_not_replaced(recipe, tmp_path):
    first = recipe(max_steps=1)
    digest = train(first)["checkpoint_digest"]
    folder = tmp_path / "run"
    assert digest == checkpoint_digest(folder / "checkpoint")
    shutil.rmtree(folder / "state")
    for other in (first, recipe(max_steps=1, learning_rate="1e-4")):
        with pytest.raises(InputError, match=r"finished checkpoint.*overwrite=true"):
            train(other)
    assert checkpoint_digest(folder / "checkpoint") == digest
    assert train(recipe(max_steps=1, seed=5, overwrite=True))["checkpoint_digest"] != digest


def test_two_runs_never_write_into_one_output(recipe, tmp_path, monkeypatch):
    forward, met = DualTask.forward, []

    def meanwhile(self, **batch):
        met.append(batch)
        if len(met) == 1:
            with pytest.raises(InputError, match=r"another process trains into .*run"):
                train(recipe(max_steps=1, seed=9))
        return forward(self, **batch)

    monkeypatch.setattr(DualTask, "forward", meanwhile)
    monkeypatch.setattr(resume, "WAIT_S", 0.1)
    train(recipe(max_steps=2))
    told = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert met and told["seed"] != 9
    train(recipe(max_steps=2))  # it is given back


def test_overwriting_begins_anew_where_there_is_the_state_of_another_recipe(recipe, tmp_path):
    train(recipe(max_steps=2, save_steps=1))
    train(recipe(max_steps=2, save_steps=1, seed=7, output=tmp_path / "plain"))
    train(recipe(max_steps=2, save_steps=1, seed=7, overwrite=True))
    a, b = weights(tmp_path / "run"), weights(tmp_path / "plain")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_finished_run_makes_no_step_more_when_it_is_called_again(recipe, tmp_path):
    made = recipe(max_steps=3)  # of the four of an epoch
    first = train(made)
    before = weights(tmp_path / "run")
    assert train(made) == first
    assert all(
        torch.equal(value, before[name]) for name, value in weights(tmp_path / "run").items()
    )


def test_overwriting_goes_on_where_the_state_is_its_own(recipe, tmp_path):
    made = recipe(max_steps=3, save_steps=1, keep=3, overwrite=True)
    train(made)
    before = (tmp_path / "run" / "state" / "checkpoint-1").stat().st_mtime_ns
    train(made)
    assert (tmp_path / "run" / "state" / "checkpoint-1").stat().st_mtime_ns == before


@pytest.fixture
def own(drives, tmp_path):
    """A set of one's own, to change."""
    without = shutil.ignore_patterns("*.cache")
    return shutil.copytree(drives.parent, tmp_path / "own", ignore=without) / "set.jsonl"


def repaint(own):
    """Another picture of the same size and name in place of a set's first one."""
    path = next(iter(sorted(own.parent.rglob("*.jpg"))))
    with Image.open(path) as picture:
        turned = np.asarray(picture.convert("RGB"))[::-1]
    Image.fromarray(np.ascontiguousarray(turned)).save(path)
    return path


def test_a_run_does_not_go_on_with_other_pictures_or_texts(recipe, own, tmp_path):
    made = recipe(max_steps=1, data=f"[{own}]", cache_features=False)
    train(made)
    repaint(own)
    with pytest.raises(InputError, match=r"own/set.jsonl: not what the run"):
        train(made)
    (tmp_path / "run" / "state" / "run.json").unlink()  # what the sentence says one may do
    train(made)
    own.write_text(own.read_text().replace("lamp", "sofa"))
    with pytest.raises(InputError, match=r"own/set.jsonl: not what the run"):
        train(made)


def test_a_run_does_not_go_on_from_other_weights(recipe, micro, tmp_path):
    base = train(recipe(max_steps=1, output=tmp_path / "base"))["checkpoint"]
    made = recipe(max_steps=1, model=base)
    train(made)
    told = json.loads((tmp_path / "run" / "state" / "run.json").read_text())
    assert told["inputs"]["model"] == checkpoint_digest(Path(base))
    network = JanusVLN.from_pretrained(base)
    with torch.no_grad():
        network.lm_head.weight += 1
    network.save_pretrained(base)
    with pytest.raises(InputError, match="model: not what the run"):
        train(made)


# ---------------------------------------------------------------- states


@pytest.fixture
def three(recipe, tmp_path):
    """A recipe with three states, the run not finished."""
    made = recipe(max_steps=3, save_steps=1, keep=3)
    train(made)
    shutil.rmtree(tmp_path / "run" / "checkpoint")
    return made


def states(recipe):
    return {path.name for path in (Path(recipe.output) / "state").iterdir() if path.is_dir()}


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"],
)
@pytest.mark.parametrize("harm", [lambda path: path.write_bytes(b""), cut, Path.unlink])
def test_a_damaged_state_is_passed_over_and_said(three, name, harm, caplog):
    harm(Path(three.output) / "state" / "checkpoint-3" / name)
    assert last_state(three.output).endswith("checkpoint-2")
    if name != "trainer_state.json" or harm is not Path.unlink:  # as a kill leaves it
        assert "damaged-3" in caplog.text and "damaged-3" in states(three)
    assert "checkpoint-3" not in states(three)


def as_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("trainer_state.json", lambda path: path.write_text("{}")),
        ("trainer_state.json", lambda path: path.write_text("[]")),
        ("trainer_state.json", lambda path: path.write_text('{"global_step": 2}')),
        ("optimizer.pt", as_folder),
        ("scheduler.pt", lambda path: zipfile.ZipFile(path, "w").close()),
    ],
)
def test_a_state_whose_files_are_none_is_passed_over(three, name, harm, caplog):
    harm(Path(three.output) / "state" / "checkpoint-3" / name)
    assert last_state(three.output).endswith("checkpoint-2")
    assert f"({name}" in caplog.text and "damaged-3" in states(three)


@pytest.mark.parametrize("steps", [3, 4])  # of a run that has ended, and of one that goes on
def test_a_state_that_lacks_weights_of_the_network_is_refused(three, steps):
    path = Path(three.output) / "state" / "checkpoint-3" / "model.safetensors"
    stored = load_file(path)
    gone = sorted(stored)[0]
    del stored[gone]
    save_file(stored, path)
    with pytest.raises(InputError, match=f"checkpoint-3 lacks 1 weights of the network .{gone}"):
        train(replace(three, max_steps=steps))
    assert not (Path(three.output) / "checkpoint").exists()


def test_training_goes_on_from_the_older_state(three, recipe, tmp_path):
    shutil.copytree(tmp_path / "run", tmp_path / "harmed")
    (tmp_path / "harmed" / "state" / "checkpoint-3" / "optimizer.pt").write_bytes(b"")
    shutil.rmtree(tmp_path / "run" / "state" / "checkpoint-3")
    more = replace(three, max_steps=4)  # of a run that has ended, weights alone are read
    train(more)
    train(replace(more, output=str(tmp_path / "harmed")))
    a, b = weights(tmp_path / "run"), weights(tmp_path / "harmed")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_without_any_whole_state_nothing_begins_anew_by_itself(recipe, tmp_path):
    made = recipe(max_steps=2, save_steps=1, keep=1)
    train(made)
    shutil.rmtree(tmp_path / "run" / "checkpoint")
    (tmp_path / "run" / "state" / "checkpoint-2" / "scheduler.pt").write_bytes(b"")
    for _ in range(2):
        with pytest.raises(InputError, match=r"no whole state.*damaged-2.*overwrite=true"):
            train(made)
    train(replace(made, overwrite=True))
    assert states(made) == {"checkpoint-2"}


@pytest.mark.parametrize(
    "error", [RuntimeError("PytorchStreamWriter failed"), OSError(28, "full")]
)
def test_a_disk_that_is_full_keeps_the_state_before(recipe, tmp_path, monkeypatch, error):
    made, save, calls = recipe(max_steps=2, save_steps=1, keep=1), torch.save, []

    def full(value, path, *more, **options):
        calls.append(str(path))
        if "checkpoint-2" in str(path):
            Path(path).write_bytes(b"half")
            raise error
        save(value, path, *more, **options)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(FailedError, match=r"step 2.*make room.*checkpoint-1"):
        train(made)
    assert states(made) == {"checkpoint-1"} and not (tmp_path / "run" / "checkpoint").exists()
    monkeypatch.undo()
    assert train(made)["steps"] == 2

"""
``janusvln bench`` times any size from its config.json, in the shape that outside checks read.
"""

import json
import shutil
from pathlib import Path

import model_steps
import numpy as np
import pytest

from janusvln_ros.cli.main import main
from janusvln_ros.model.footprint import Room
from janusvln_ros.policy import Navigator

TINY = str(Path(__file__).parents[2] / "config" / "model" / "tiny.json")
STAGES = {"preprocess", "spatial", "vision", "prefill", "decode"}


@pytest.mark.parametrize("memory", ["released", "dual"])
def test_one_object_with_the_seconds_of_every_step(memory, capsys):
    assert (
        main(
            [
                "bench",
                "--config",
                TINY,
                "--frames",
                "3",
                "--memory",
                memory,
                "--warmup",
                "1",
                "--size",
                "160x120",
                "--json",
            ]
        )
        == 0
    )
    out = json.loads(capsys.readouterr().out)
    assert [step["frame"] for step in out["frames"]] == [1, 2, 3]
    for step in out["frames"]:
        assert set(step) == STAGES | {"frame", "total"}
        assert 0 < sum(step[stage] for stage in STAGES) <= step["total"]
    assert out["peak_memory_bytes"] > out["memory_bytes"] > 0


def test_table_shows_each_stage(capsys):
    assert (
        main(
            [
                "bench",
                "--config",
                TINY,
                "--frames",
                "2",
                "--memory",
                "dual",
                "--warmup",
                "0",
                "--size",
                "160x120",
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert all(stage in out for stage in STAGES) and "peak" in out


@pytest.mark.parametrize(
    "arguments, says",
    [(["--config", "/nowhere"], "/nowhere"), (["--config", TINY, "--frames", "0"], "--frames 0")],
)
def test_what_cannot_be_timed_is_said_in_one_sentence(arguments, says, capsys):
    assert main(["bench", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("error: ") and says in captured.err


@pytest.mark.slow
def test_published_way_of_computing_gives_the_same_answers(capsys, monkeypatch):
    """
    The baseline of docs/performance.md refuses to report anything if it does not; past three
    evictions, with a window of 2 + 4 frames.
    """
    config = str(Path(__file__).parents[1] / "data" / "model" / "tiny")
    monkeypatch.setattr(
        "sys.argv",
        [
            "model_steps.py",
            "--config",
            config,
            "--frames",
            "9",
            "--long",
            "10",
            "--threads",
            "1",
            "--no-docs",
        ],
    )
    model_steps.main()
    out = capsys.readouterr().out
    assert "| published style |" in out and "Step time at frame 10 over frame 9" in out


def test_a_written_checkpoint_is_one_that_the_navigator_takes(tmp_path, capsys):
    out = tmp_path / "random"
    write = ["bench", "--config", TINY, "--memory", "dual", "--write", str(out), "--json"]
    assert main(write) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["bytes"] == sum(path.stat().st_size for path in out.glob("*.safetensors"))
    navigator = Navigator.from_pretrained(out)
    assert navigator.memory == "dual" and not navigator.trained
    navigator.reset("go")
    navigator.step(np.zeros((120, 160, 3), np.uint8))
    assert main(write) == 2
    assert "holds something already" in capsys.readouterr().err


def test_a_checkpoint_that_the_disk_has_no_room_for_is_refused(tmp_path, capsys, monkeypatch):
    free = shutil.disk_usage(tmp_path)._replace(free=10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    assert main(["bench", "--config", TINY, "--write", str(tmp_path / "random")]) == 2
    assert "of the disk are free" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.safetensors"))


def test_what_does_not_fit_is_refused_before_it_is_built(capsys, monkeypatch):
    small = Room("this machine", 10**9, 10**9)
    monkeypatch.setattr("janusvln_ros.policy.fit.rooms", lambda device: (small, None))
    full = str(Path(__file__).parents[2] / "benchmarks" / "configs" / "full")
    assert main(["bench", "--config", full, "--window", "1", "1"]) == 2
    err = capsys.readouterr().err
    assert "this machine has 1.0 GB free" in err and "1 + 1 frames" in err

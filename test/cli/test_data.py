"""janusvln data: sets from folders of trajectories, with everything that is left out reported."""

import json

import numpy as np
import pytest
from PIL import Image

from janusvln_ros.cli.main import main
from janusvln_ros.data.samples import TrajectorySet


@pytest.fixture
def drives(tmp_path):
    """A data folder with every source of the published recipe, one drive each."""
    annotated = {
        "ScaleVLN": "trajectory_data/ScaleVLN",
        "R2R": "dagger_data/R2R",
        "RxR": "dagger_data/RxR",
    }
    for name, place in annotated.items():
        rgb = tmp_path / place / "images" / f"s_{name}_000001" / "rgb"
        rgb.mkdir(parents=True)
        for i in range(3):
            Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(rgb / f"{i:03d}.jpg")
        item = {
            "id": 1,
            "video": f"images/s_{name}_000001",
            "instructions": [f"{name} "],
            "actions": [-1, 1, 2],
        }
        (tmp_path / place / "annotations.json").write_text(json.dumps([item]))
    for name, instruction in (("R2R", "walk"), ("RxR", "go")):
        folder = tmp_path / "trajectory_data" / f"{name}-CE-640x480" / "images" / "5"
        folder.mkdir(parents=True)
        for i, action in enumerate(("MOVE_FORWARD", "STOP")):
            Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(
                folder / f"step_{i:04d}_{action}.png"
            )
        _episodes(tmp_path, name.lower(), instruction)
    return tmp_path


def _episodes(root, dataset, text):
    import gzip

    goal = [{"position": [0, 0, 1], "radius": 3.0}]
    episode = {
        "episode_id": 5,
        "trajectory_id": 5,
        "scene_id": "mp3d/a/a.glb",
        "start_position": [0, 0, 0],
        "start_rotation": [0, 0, 0, 1],
        "goals": goal,
        "info": {"geodesic_distance": 1.0},
        "reference_path": [[0, 0, 0], [0, 0, 1]],
        "instruction": {
            "instruction_text": f" {text}\r\n",
            "instruction_tokens": [],
            "language": "en-US",
            "instruction_id": 1,
        },
    }
    name = "train.json.gz" if dataset == "r2r" else "train_guide.json.gz"
    path = root / "datasets" / dataset / "train" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(
        gzip.compress(
            json.dumps({"episodes": [episode], "instruction_vocab": {"word_list": []}}).encode()
        )
    )


def report_of(capsys) -> dict:
    return json.loads(capsys.readouterr().out)


def test_base_is_r2r_and_rxr(drives, capsys):
    assert (
        main(
            [
                "data",
                "--base",
                "--data",
                str(drives),
                "--out",
                str(drives / "base.jsonl"),
                "--json",
            ]
        )
        == 0
    )
    report = report_of(capsys)
    assert report["sources"] == {"r2r": 1, "rxr": 1} and report["samples"] == 4
    assert report["actions"] == {"STOP": 2, "MOVE_FORWARD": 2, "TURN_LEFT": 0, "TURN_RIGHT": 0}
    assert [item.instruction for item in TrajectorySet(drives / "base.jsonl")] == ["walk", "go"]


def test_extra_adds_scalevln_and_dagger_before_them_and_writes_the_published_list(drives, capsys):
    arguments = [
        "data",
        "--extra",
        "--data",
        str(drives),
        "--out",
        str(drives / "x.jsonl"),
        "--published",
        str(drives / "list.json"),
        "--json",
    ]
    assert main(arguments) == 0
    report = report_of(capsys)
    assert list(report["sources"]) == ["scalevln", "dagger_r2r", "dagger_rxr", "r2r", "rxr"]
    samples = json.loads((drives / "list.json").read_text())
    assert len(samples) == report["samples"] == report["published"]["samples"] == 13
    assert "Your task is to ScaleVLN \n" in samples[0]["conversations"][0]["value"]
    assert all((drives / image).is_file() for sample in samples for image in sample["images"])


def test_missing_source_is_an_error_that_names_the_folder(tmp_path, capsys):
    assert (
        main(["data", "--base", "--data", str(tmp_path), "--out", str(tmp_path / "x.jsonl")]) == 2
    )
    assert "R2R-CE-640x480" in capsys.readouterr().err


def test_drive_with_a_missing_picture_is_reported(drives, capsys):
    (drives / "trajectory_data/ScaleVLN/images/s_ScaleVLN_000001/rgb/002.jpg").unlink()
    source = f"scalevln={drives / 'trajectory_data/ScaleVLN'}"
    assert main(["data", "--from", source, "--out", str(drives / "x.jsonl"), "--json"]) == 0
    report = report_of(capsys)
    assert (
        report["trajectories"] == 0
        and report["left_out"] == 1
        and "2 frames" in report["reasons"][0]
    )


@pytest.mark.parametrize(
    "arguments",
    [[], ["--base", "--extra", "--out", "x"], ["--from", "houses", "--out", "x"], ["--base"]],
)
def test_unclear_command_is_refused(arguments, capsys):
    assert main(["data", *arguments]) == 2
    assert capsys.readouterr().err.startswith("error: ")

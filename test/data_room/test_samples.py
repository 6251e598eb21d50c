"""
Training sets: the published samples exactly, nothing dropped without a word, nothing large held in
memory.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from janusvln_ros.actions import Action
from janusvln_ros.data.samples import (
    FrameSamples,
    TrajectorySet,
    history_indices,
    published_samples,
    write_published,
    write_set,
)
from janusvln_ros.data.trajectories import Trajectory
from janusvln_ros.errors import InputError

CASES = json.loads(
    (
        Path(__file__).resolve().parents[1] / "data" / "training" / "create_data_cases.json"
    ).read_text()
)


def make(
    folder: Path, n: int, *, name: str = "a", instruction: str = "go", actions=None, labels=None
) -> Trajectory:
    """A trajectory of ``n`` small pictures on disk."""
    rgb = folder / "images" / name / "rgb"
    rgb.mkdir(parents=True)
    for i in range(n):
        Image.fromarray(np.full((6, 8, 3), i, np.uint8)).save(rgb / f"{i:03d}.jpg")
    actions = actions or (-1, *[1 + i % 3 for i in range(n - 1)])
    return Trajectory(
        7, f"images/{name}", instruction, tuple(actions), labels, tuple(sorted(rgb.iterdir()))
    )


def test_samples_of_named_frames_are_the_published_ones():
    case = CASES["vlnce"]
    frames = tuple(Path("/frames/7") / name for name in case["files"])
    actions = [Action[name.split("_", 2)[2].split(".")[0].upper()] for name in case["files"]]
    trajectory = Trajectory(
        7,
        "images/7",
        case["episode"]["instruction"]["instruction_text"],
        (-1, *map(int, actions[:-1])),
        None,
        frames,
    )
    assert list(published_samples(trajectory, "/frames", strip=True)) == case["samples"]


def test_samples_of_annotated_frames_are_the_published_ones_with_the_last_frame_labelled_stop():
    case = CASES["dagger_or_scalevln"]
    episode = case["episode"]
    frames = tuple(Path("/frames") / "sc_r2r_000007" / "rgb" / name for name in case["files"])
    trajectory = Trajectory(
        7, episode["video"], episode["instructions"][0], tuple(episode["actions"]), None, frames
    )
    assert list(published_samples(trajectory, "/frames", strip=False)) == case["samples"]


def test_history_is_everything_up_to_nine_frames_and_evenly_spread_after():
    assert history_indices(9) == list(range(9))
    assert history_indices(12) == [0, 1, 2, 4, 5, 6, 8, 9, 11]


def test_set_gives_back_what_was_written(tmp_path):
    trajectory = make(tmp_path, 5, instruction="  go\n", actions=(-1, 1, 2, 3, 1))
    report = write_set([("r2r", [trajectory])], tmp_path / "out" / "set.jsonl")
    item = TrajectorySet(tmp_path / "out" / "set.jsonl")[0]
    assert item.instruction == "go"
    assert [f.name for f in item.frames] == [f.name for f in trajectory.frames] and all(
        f.is_file() for f in item.frames
    )
    assert item.targets == (
        Action.MOVE_FORWARD,
        Action.TURN_LEFT,
        Action.TURN_RIGHT,
        Action.MOVE_FORWARD,
        Action.STOP,
    )
    assert (report.trajectories, report.frames, report.actions["STOP"]) == (1, 5, 1)


def test_expert_labels_are_learned_where_they_differ_from_what_was_done(tmp_path):
    trajectory = make(tmp_path, 3, actions=(-1, 2, 2), labels=(1, 3, 0))
    write_set([("houses", [trajectory])], tmp_path / "set.jsonl")
    assert TrajectorySet(tmp_path / "set.jsonl")[0].targets == (
        Action.MOVE_FORWARD,
        Action.TURN_RIGHT,
        Action.STOP,
    )


def test_only_the_instructions_of_named_sources_are_stripped(tmp_path):
    a, b = (
        make(tmp_path, 2, name="a", instruction=" x "),
        make(tmp_path, 2, name="b", instruction=" x "),
    )
    write_set([("rxr", [a]), ("scalevln", [b])], tmp_path / "set.jsonl")
    assert [TrajectorySet(tmp_path / "set.jsonl")[i].instruction for i in (0, 1)] == ["x", " x "]


def test_trajectory_with_a_missing_picture_is_left_out_and_reported(tmp_path):
    whole, broken = make(tmp_path, 3, name="a"), make(tmp_path, 3, name="b")
    broken.frames[1].unlink()
    report = write_set([("houses", [broken, whole])], tmp_path / "set.jsonl")
    assert report.trajectories == len(TrajectorySet(tmp_path / "set.jsonl")) == 1
    assert "lacks 1 of 3 pictures" in report.missing[0] and "001.jpg" in report.missing[0]


def test_trajectory_whose_actions_do_not_fit_is_reported(tmp_path):
    report = write_set([("houses", [make(tmp_path, 3, actions=(-1, 1))])], tmp_path / "set.jsonl")
    assert report.trajectories == 0 and "2 actions for 3 pictures" in report.missing[0]


def test_every_frame_is_one_released_sample(tmp_path):
    write_set(
        [("houses", [make(tmp_path, 3, name="a"), make(tmp_path, 12, name="b")])],
        tmp_path / "set.jsonl",
    )
    samples = FrameSamples([TrajectorySet(tmp_path / "set.jsonl")])
    assert len(samples) == 15
    assert [
        (item.frames[0].parent.parent.name, frame)
        for item, frame in (samples[2], samples[3], samples[14])
    ] == [("a", 2), ("b", 0), ("b", 11)]
    assert samples.image_counts().tolist() == [1, 2, 3, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9]
    with pytest.raises(IndexError):
        samples[15]


def test_published_list_is_what_json_reads(tmp_path):
    trajectory = make(tmp_path, 4)
    count = write_published(
        published_samples(trajectory, tmp_path, strip=False), tmp_path / "list.json"
    )
    samples = json.loads((tmp_path / "list.json").read_text())
    assert count == len(samples) == 4
    assert samples[3]["images"] == [f"images/a/rgb/{i:03d}.jpg" for i in range(4)]


def test_file_that_is_no_set_is_named(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"no": 1}\n')
    with pytest.raises(InputError, match="line 1"):
        TrajectorySet(tmp_path / "x.jsonl")
    with pytest.raises(InputError, match="janusvln data"):
        TrajectorySet(tmp_path / "absent.jsonl")

"""
Training sets: nothing dropped without a word, nothing large held in memory.
"""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from janusvln_ros.actions import Action
from janusvln_ros.data.samples import (
    FrameSamples,
    TrajectorySet,
    write_set,
)
from janusvln_ros.data.trajectories import Trajectory
from janusvln_ros.errors import InputError


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
    assert samples.image_counts(8).tolist() == [1, 2, 3, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9]
    with pytest.raises(IndexError):
        samples[15]


def test_file_that_is_no_set_is_named(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"no": 1}\n')
    with pytest.raises(InputError, match="line 1"):
        TrajectorySet(tmp_path / "x.jsonl")
    with pytest.raises(InputError, match="janusvln data"):
        TrajectorySet(tmp_path / "absent.jsonl")

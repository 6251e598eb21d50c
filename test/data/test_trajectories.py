"""
Trajectories: both published layouts give the labels the published code gives, and writing survives
a kill.
"""

import json
from pathlib import Path

import pytest

from janusvln_ros.actions import Action
from janusvln_ros.data.episodes import Episode, write_episodes
from janusvln_ros.data.journal import read_journals
from janusvln_ros.data.trajectories import TrajectoryWriter, merge, read_trajectories, video_name
from janusvln_ros.errors import InputError

CASES = json.loads(
    (Path(__file__).parents[1] / "data/trajectories/create_data_cases.json").read_text()
)


def episode(number: str, text="Go.", scene="houses/h1/h1.glb") -> Episode:
    start, goal = (0.0, 0.0, 0.0), (3.0, 0.0, 0.0)
    return Episode(
        number, number, scene, start, (0.0, 0.0, 0.0, 1.0), goal, 3.0, text, (start, goal), 3.0
    )


def touch(folder: Path, names) -> None:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_bytes(b"picture")


@pytest.mark.parametrize("layout", ["R2R/train", "R2R-CE-640x480/images"])
@pytest.mark.parametrize("below", [True, False])
def test_named_frames_give_the_published_labels_in_both_root_layouts(tmp_path, layout, below):
    case = CASES["vlnce"]
    root = tmp_path / "trajectory_data" / layout
    touch(root / "7", case["files"])
    write_episodes(
        tmp_path / "datasets/r2r/train/train.json.gz", [episode("7", "Go to the door.\r\n ")]
    )
    (found,) = read_trajectories(root if below else root.parent)
    assert [Action(a).name for a in found.targets] == case["labels"]
    assert [p.name for p in found.frames] == case["files"]
    assert found.id == 7 and found.instruction == "Go to the door.\r\n " and found.labels is None
    assert found.actions[0] == -1 and found.actions[1:] == tuple(
        Action[x] for x in case["labels"][:-1]
    )


def test_annotated_frames_give_the_published_labels(tmp_path):
    case = CASES["dagger_or_scalevln"]
    touch(tmp_path / case["episode"]["video"] / "rgb", case["files"])
    (tmp_path / "annotations.json").write_text(json.dumps([case["episode"]]))
    (found,) = read_trajectories(tmp_path)
    assert [Action(a).name for a in found.targets] == case["labels"]
    assert found.instruction == "Walk on. " and found.video == "images/sc_r2r_000007"


def test_missing_folder_is_an_error_and_never_an_empty_list(tmp_path):
    with pytest.raises(InputError, match="is missing: there is no folder"):
        next(read_trajectories(tmp_path / "a" / "b"))
    with pytest.raises(InputError, match="neither annotations"):
        next(read_trajectories(tmp_path))


def test_named_frames_without_episode_file_are_an_error_that_names_it(tmp_path):
    touch(tmp_path / "trajectory_data/RxR-CE-640x480/images/12", ["step_0000_STOP.png"])
    with pytest.raises(InputError, match=r"datasets.* is missing"):
        next(read_trajectories(tmp_path / "trajectory_data/RxR-CE-640x480"))


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["step_0000_MOVE_FORWARD.png", "step_0002_STOP.png"], "numbers are not 0 to 1"),
        (["step_0000_JUMP.png"], "tells no step and action"),
        (["step_0000_STOP.png", "step_0001_STOP.png"], "before the last"),
        (["readme.txt"], "holds no pictures"),
    ],
)
def test_bad_named_trajectory_is_described_and_the_next_is_read(tmp_path, names, reason):
    touch(tmp_path / "1", names)
    touch(tmp_path / "2", ["step_0000_STOP.png"])
    rejected: list[str] = []
    found = list(read_trajectories(tmp_path, instructions={"1": "a", "2": "b"}, rejected=rejected))
    assert [t.id for t in found] == [2] and len(rejected) == 1 and reason in rejected[0]
    with pytest.raises(InputError, match=reason):
        list(read_trajectories(tmp_path, instructions={"1": "a", "2": "b"}))


def test_frames_are_ordered_by_number_not_by_name(tmp_path):
    touch(
        tmp_path / "1", [f"step_{i}_{'STOP' if i == 11 else 'TURN_LEFT'}.png" for i in range(12)]
    )
    (found,) = read_trajectories(tmp_path, instructions={"1": "a"})
    assert [p.name.split("_")[1] for p in found.frames] == [str(i) for i in range(12)]


def test_drive_that_was_cut_off_before_stopping_does_not_learn_to_stop(tmp_path):
    touch(tmp_path / "1", ["step_0000_MOVE_FORWARD.png", "step_0001_TURN_LEFT.png"])
    (found,) = read_trajectories(tmp_path, instructions={"1": "a"})
    assert found.targets == (1, 2)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"actions": [-1, 1]}, "3 frames, the annotation 2"),
        ({"actions": [1, 1, 1]}, "actions must be -1"),
        ({"actions": [-1, 1, 0]}, "actions must be -1"),
        ({"labels": [1, 1]}, "2 labels for 3"),
        ({"instructions": []}, "index"),
        ({"video": "images/other"}, "is missing"),
    ],
)
def test_bad_annotation_is_described(tmp_path, change, reason):
    item = {"id": 1, "video": "images/a", "instructions": ["go"], "actions": [-1, 1, 1]} | change
    touch(tmp_path / "images/a/rgb", ["000.jpg", "001.jpg", "002.jpg"])
    (tmp_path / "annotations.json").write_text(json.dumps([item]))
    rejected: list[str] = []
    assert not list(read_trajectories(tmp_path, rejected=rejected))
    assert len(rejected) == 1 and reason in rejected[0]


def done(folder):
    """What is finished, kept or not, whoever wrote it."""
    return {(line["scene"], str(line["episode_id"])) for line in read_journals(folder)}


def test_what_is_written_is_read_back(tmp_path):
    writer = TrajectoryWriter(tmp_path, "houses")
    writer.write(episode("12"), [b"a", b"b"], [-1, 1], labels=[2, 0], result={"save": 1})
    writer.write(episode("3"), [b"c"], [-1], result={"save": 1})
    writer.skip(episode("4"), result={"save": 0})
    assert done(tmp_path) == {("h1", "12"), ("h1", "3"), ("h1", "4")}
    writer.close()
    with pytest.raises(InputError, match="was not finished"):
        next(read_trajectories(tmp_path))
    merge(tmp_path)
    first, second = read_trajectories(tmp_path)
    assert (first.id, second.id) == (3, 12)
    assert second.video == "images/h1_houses_000012" and second.labels == (2, 0) == second.targets
    assert [p.read_bytes() for p in second.frames] == [b"a", b"b"]
    assert first.labels is None and first.targets == (0,)
    assert [
        json.loads(x)["save"] for x in (tmp_path / "result.jsonl").read_text().splitlines()
    ] == [1, 0, 1]


def test_kill_between_frames_and_journal_is_repaired_by_doing_the_episode_again(tmp_path):
    writer = TrajectoryWriter(tmp_path, "houses")
    # As a kill leaves it: one folder without its line, one half-written.
    touch(tmp_path / video_name("h1", "houses", "1") / "rgb", ["000.jpg", "001.jpg", "002.jpg"])
    touch(tmp_path / "images/.h1_houses_000002.tmp/rgb", ["000.jpg"])
    assert done(tmp_path) == set()
    writer.write(episode("1"), [b"a"], [-1])
    writer.write(episode("2"), [b"b"], [-1])
    writer.close()
    merge(tmp_path)
    assert [len(t.frames) for t in read_trajectories(tmp_path)] == [1, 1]
    assert sorted(p.name for p in (tmp_path / "images").iterdir()) == [
        "h1_houses_000001",
        "h1_houses_000002",
    ]


def test_shards_write_side_by_side_and_merge_into_one_list(tmp_path):
    writers = [TrajectoryWriter(tmp_path, "houses", shard) for shard in range(2)]
    writers[0].write(episode("1"), [b"a"], [-1])
    writers[1].write(episode("1", scene="houses/h2/h2.glb"), [b"b"], [-1])
    assert done(tmp_path) == {("h1", "1"), ("h2", "1")}
    merge(tmp_path)
    assert [t.video for t in read_trajectories(tmp_path)] == [
        "images/h1_houses_000001",
        "images/h2_houses_000001",
    ]


def test_wrong_number_of_frames_is_refused_before_anything_is_written(tmp_path):
    writer = TrajectoryWriter(tmp_path, "houses")
    with pytest.raises(ValueError, match="2 frames, 1 actions"):
        writer.write(episode("1"), [b"a", b"b"], [-1])
    assert not (tmp_path / "images").exists()


@pytest.mark.parametrize("name", ["x/../../../precious", "../precious", "a/b", "/precious"])
def test_an_episode_whose_id_names_a_folder_elsewhere_is_refused_and_nothing_there_is_touched(
    tmp_path, name
):
    kept = tmp_path / "precious" / "thesis.txt"
    kept.parent.mkdir()
    kept.write_text("years of work")
    writer = TrajectoryWriter(tmp_path / "out" / "deep", "houses")
    with pytest.raises(InputError, match="episode"):
        writer.write(episode(name), [b"jpeg"], [-1])
    writer.close()
    assert kept.read_text() == "years of work"
    assert not list(tmp_path.rglob("*.jpg"))


@pytest.mark.parametrize("name", ["../precious", "/precious", "images/../../precious"])
def test_annotations_that_name_pictures_elsewhere_are_refused(tmp_path, name):
    touch(tmp_path / "precious" / "rgb", ["000.jpg"])
    (tmp_path / "set").mkdir()
    line = {"id": 1, "video": name, "instructions": ["Go."], "actions": [-1]}
    (tmp_path / "set" / "annotations.json").write_text(json.dumps([line]))
    with pytest.raises(InputError, match=r"item 0: video is"):
        list(read_trajectories(tmp_path / "set"))

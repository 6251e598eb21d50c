"""
Whatever is wrong with data, a folder or a setting: a command says so, or its numbers are right.
It never ends well with a number that is wrong.
"""

import gzip
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from janusvln_ros.cli.main import main
from janusvln_ros.data.episodes import (
    Episode,
    GroundTruth,
    ground_truth_path,
    read_episodes,
    read_ground_truth,
    write_episodes,
    write_ground_truth,
)
from janusvln_ros.data.samples import TrajectorySet
from janusvln_ros.data.trajectories import read_trajectories

SPLIT = "val_unseen"

DAGGER = pytest.param("dagger", marks=pytest.mark.slow)
CLASSIC = pytest.param("dagger --scheme classic", marks=pytest.mark.slow)
"""Commands that load the policy."""


@dataclass
class Data:
    """A data folder in the layout of r2r with three episodes in each of two flat scenes."""

    root: Path
    episodes: list[Episode]
    truth: dict[str, GroundTruth]

    @property
    def path(self) -> Path:
        return self.root / f"datasets/r2r/{SPLIT}/{SPLIT}.json.gz"

    @property
    def truth_path(self) -> Path:
        return ground_truth_path(self.root, "r2r", SPLIT)

    def items(self) -> dict:
        return json.loads(gzip.decompress(self.path.read_bytes()))

    def change(self, edit: Callable[[list[dict]], None]) -> None:
        """Change the episode file's items in place."""
        content = self.items()
        edit(content["episodes"])
        self.path.write_bytes(gzip.compress(json.dumps(content).encode()))


@pytest.fixture
def data(small_houses, tmp_path) -> Data:
    everything = read_episodes(small_houses, "houses", SPLIT).episodes
    known = read_ground_truth(ground_truth_path(small_houses, "houses", SPLIT))
    root, episodes, truth = tmp_path / "data", [], {}
    for scene, letter in zip(sorted({e.scene_id for e in everything}), "AB"):
        target = root / f"scene_datasets/gibson/{letter}.glb"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(small_houses / "scene_datasets" / scene, target)
        for episode in [e for e in everything if e.scene_id == scene][:3]:
            number = str(len(episodes) + 1)
            truth[number] = known[episode.episode_id]
            scene_id = f"gibson/{letter}.glb"
            renamed = replace(episode, episode_id=number, trajectory_id=number, scene_id=scene_id)
            episodes.append(replace(renamed, info={}))
    made = Data(root, episodes, truth)
    write_episodes(made.path, episodes)
    write_ground_truth(made.truth_path, truth)
    return made


@pytest.fixture
def ran(capsys):
    """Run a command in the r2r layout; return exit code, the JSON object and what was said."""

    def run(*words) -> tuple[int, dict, str]:
        code = main([*map(str, words), "--json"])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else {}, err

    return run


def drive(data: Data, command: str, out: Path, *words) -> list:
    where = ["--dataset", "r2r", "--backend", "houses", "--data", data.root, "--out", out]
    return [*command.split(), *where, "--split", SPLIT, "--size", "32x24", *words]


def restart_ids(items: list[dict]) -> None:
    """Number the episodes of each scene from 1, as many data sets do."""
    for i, item in enumerate(items):
        item["episode_id"] = item["trajectory_id"] = i % 3 + 1


def test_scenes_flat_in_one_folder_are_told_apart_though_ids_begin_anew_in_each(
    data, ran, tmp_path
):
    _, right, _ = ran(*drive(data, "evaluate expert", tmp_path / "right"))
    data.truth_path.unlink()  # it knows ids alone
    data.change(restart_ids)
    code, found, _ = ran(*drive(data, "evaluate expert", tmp_path / "e"))
    assert code == 0 and found["episodes"] == 6
    assert found["path_length"] == right["path_length"]
    lines = [json.loads(text) for text in (tmp_path / "e/results.jsonl").read_text().splitlines()]
    assert len({tuple(line["actions"]) for line in lines}) == 6
    assert len({(line["scene_id"], line["episode_id"]) for line in lines}) == 6
    assert len(list((tmp_path / "e/maps").iterdir())) == 2
    code, found, _ = ran(*drive(data, "collect", tmp_path / "c"))
    assert code == 0 and found["kept"] == found["episodes"] == 6
    kept = list(read_trajectories(tmp_path / "c"))
    assert len({t.frames[0].parent for t in kept}) == 6
    assert len({t.frames[-1].read_bytes() for t in kept}) == 6


def test_two_scenes_with_one_name_share_neither_lines_nor_frames_nor_maps(data, ran, tmp_path):
    data.truth_path.unlink()
    for place in ("mp3d", "hm3d"):
        source = data.root / f"scene_datasets/gibson/{'A' if place == 'mp3d' else 'B'}.glb"
        target = data.root / f"scene_datasets/{place}/X/X.glb"
        target.parent.mkdir(parents=True)
        shutil.copy(source, target)

    def rename(items):
        restart_ids(items)
        for item in items:
            item["scene_id"] = ("mp3d" if "A" in item["scene_id"] else "hm3d") + "/X/X.glb"

    data.change(rename)
    code, found, _ = ran(*drive(data, "evaluate expert", tmp_path / "e"))
    assert code == 0 and found["episodes"] == 6 and len(list((tmp_path / "e/maps").iterdir())) == 2
    code, found, _ = ran(*drive(data, "collect", tmp_path / "c"))
    assert code == 0 and found["kept"] == 6
    assert len({t.frames[-1].read_bytes() for t in read_trajectories(tmp_path / "c")}) == 6


def test_several_instructions_under_one_id_are_several_episodes(data, ran, tmp_path):
    def three_texts(items):
        for k, item in enumerate(items[1:3]):
            item.update({**items[0], "instruction": {"instruction_text": f"another way {k}"}})

    data.change(three_texts)
    code, found, _ = ran(*drive(data, "collect", tmp_path / "c"))
    assert code == 0 and found["kept"] == found["episodes"] == 6
    assert len({t.instruction for t in read_trajectories(tmp_path / "c")}) == 6


def test_scene_ids_may_begin_with_the_folder_of_the_scenes(data, ran, tmp_path):
    def whole_paths(items):
        for item, start in zip(items, ("data/", "", "/home/me/data/", "./data/", "", "data/")):
            item["scene_id"] = f"{start}scene_datasets/{item['scene_id']}"

    _, right, _ = ran(*drive(data, "evaluate expert", tmp_path / "right"))
    data.change(whole_paths)
    code, found, _ = ran(*drive(data, "evaluate expert", tmp_path / "e"))
    assert code == 0 and found["episodes"] == 6 and found["ndtw"] == right["ndtw"]


def test_means_over_fewer_drives_than_were_run_say_over_how_many(data, ran, tmp_path):
    write_ground_truth(data.truth_path, {k: data.truth[k] for k in ("1", "4")})
    code, found, said = ran(*drive(data, "evaluate expert", tmp_path / "e"))
    assert code == 0 and found["ndtw_count"] == 2 and found["navigation_error_count"] == 6
    assert re.search(r"nDTW .* over 2 of 6", said)
    assert "over" not in next(line for line in said.splitlines() if "SPL" in line)


@pytest.mark.parametrize("command", ["evaluate expert", DAGGER])
def test_ground_truth_that_begins_elsewhere_is_refused(data, ran, tmp_path, command):
    swapped = {**data.truth, "1": data.truth["2"], "2": data.truth["1"]}
    write_ground_truth(data.truth_path, swapped)
    code, found, said = ran(*drive(data, command, tmp_path / "e"))
    assert code == 2 and not found
    assert "2 of 6 entries do not begin and end where their episode does" in said
    assert not (tmp_path / "e/annotations.json").exists()


def test_ground_truth_of_another_way_from_the_same_start_is_refused(data, ran, tmp_path):
    first = data.episodes[0]
    start = [first.start_position, first.start_rotation]

    def from_one_place(items):
        items[1].update(zip(("start_position", "start_rotation"), start))

    data.change(from_one_place)
    begun = (first.start_position, *data.truth["2"].locations[1:])
    swapped = {"1": replace(data.truth["2"], locations=begun), "2": data.truth["1"]}
    write_ground_truth(data.truth_path, data.truth | swapped)
    code, found, said = ran(*drive(data, "evaluate expert", tmp_path / "e"))
    assert code == 2 and not found and "2 of 6 entries" in said and "m from its goal" in said


def truth_is_gone(data: Data) -> None:
    data.truth_path.unlink()


def truth_is_another(data: Data) -> None:
    cut = replace(data.truth["1"], locations=data.truth["1"].locations[::2])
    write_ground_truth(data.truth_path, {**data.truth, "1": cut})


def scene_is_another(data: Data) -> None:
    with (data.root / "scene_datasets/gibson/A.glb").open("ab") as file:
        file.write(b"\0")


def mesh_is_added(data: Data) -> None:
    (data.root / "scene_datasets/gibson/A.navmesh").write_bytes(b"another island")


def instruction_is_another(data: Data) -> None:
    data.change(lambda items: items[0]["instruction"].update(instruction_text="go home"))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (truth_is_gone, r"inputs\.datasets/r2r/val_unseen/val_unseen_gt\.json\.gz was .* is null"),
        (truth_is_another, r"inputs\.datasets/r2r/val_unseen/val_unseen_gt\.json\.gz was "),
        (scene_is_another, r"scenes\.scene_datasets/gibson/A\.glb was "),
        (mesh_is_added, r"scenes\.scene_datasets/gibson/A\.navmesh was null and is "),
        (instruction_is_another, r"inputs\.datasets/r2r/val_unseen/val_unseen\.json\.gz was "),
    ],
)
def test_run_whose_inputs_changed_is_not_resumed_and_what_differs_is_named(
    data, ran, tmp_path, change, named
):
    words = drive(data, "evaluate expert", tmp_path / "e")
    assert ran(*words, "--episodes", 2)[0] == 0
    assert ran(*words, "--episodes", 6)[1]["episodes"] == 6, "more episodes need more scenes"
    change(data)
    code, found, said = ran(*words)
    assert code == 2 and not found and re.search(named, said)


def test_run_whose_code_changed_is_not_resumed(data, ran, tmp_path, monkeypatch):
    words = drive(data, "evaluate expert", tmp_path / "e", "--episodes", 1)
    assert ran(*words)[0] == 0
    monkeypatch.setattr("janusvln_ros.rollout.manifest.code_digest", lambda: "another")
    code, found, said = ran(*words)
    assert code == 2 and not found and "versions.code was " in said


@pytest.mark.parametrize("command", ["evaluate random", "collect --noise 0.5"])
def test_rank_ahead_of_the_first_one_writes_nothing_into_another_runs_folder(
    data, ran, tmp_path, monkeypatch, command
):
    out = tmp_path / "o"
    assert ran(*drive(data, command.split()[0] + " expert" * ("evaluate" in command), out))[0] == 0
    before = {path: path.read_bytes() for path in out.rglob("*.jsonl")}
    for rank in (1, 0):
        for name, value in {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank}.items():
            monkeypatch.setenv(name, str(value))
        code, found, said = ran(*drive(data, command, out))
        assert code == 2 and not found and "belongs to another run" in said
    assert {path: path.read_bytes() for path in out.rglob("*.jsonl")} == before


def test_lines_of_another_run_are_not_counted(data, ran, tmp_path):
    words = drive(data, "evaluate expert", tmp_path / "e", "--episodes", 2)
    assert ran(*words)[0] == 0
    line = json.loads((tmp_path / "e/journal_0.jsonl").read_text().splitlines()[0])
    stray = {**line, "run": "0" * 16, "episode_id": "99"}
    (tmp_path / "e/journal_1.jsonl").write_text(json.dumps(stray) + "\n")
    code, found, said = ran(*words)
    assert code == 2 and not found and "lines of another run" in said


@pytest.mark.parametrize("name", ["annotations.json", "annotations_v1-3.json", "results.jsonl"])
def test_folder_that_holds_somebody_elses_results_is_never_written_to(data, ran, tmp_path, name):
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / name).write_text("[]")
    code, _, said = ran(*drive(data, "collect", tmp_path / "o"))
    assert code == 2 and name in said and (tmp_path / "o" / name).read_text() == "[]"


@pytest.mark.parametrize(("steps", "limit"), [(600, 500), (500, 500), (400, 300)])
def test_forced_stop_that_the_simulator_would_forestall_is_refused(
    data, ran, tmp_path, steps, limit
):
    rules = [f"rules.max_steps={steps}", f"env.max_steps={limit}"]
    words = drive(data, "evaluate forward", tmp_path / "e", "--episodes", 1, "--set", *rules)
    code, found, said = ran(*words)
    assert code == 2 and not found and f"rules.max_steps is {steps}" in said


def test_forced_stop_is_where_the_settings_say(data, ran, tmp_path):
    rules = ["rules.max_steps=510", "env.max_steps=511", "baselines.forward=[0, 0, 1, 0]"]
    words = drive(data, "evaluate forward", tmp_path / "e", "--episodes", 1, "--set", *rules)
    code, found, _ = ran(*words)
    assert code == 0 and found["ended"] == {"step_limit": 1} and found["total_steps"] == 511


def out_of_reach(item: dict) -> None:
    item["reference_path"][1] = [500.0, 0.0, 500.0]


@pytest.mark.parametrize("command", [DAGGER, CLASSIC, "collect"])
def test_way_point_out_of_reach_is_passed_over_with_the_reason(data, ran, tmp_path, command):
    data.change(lambda items: out_of_reach(items[1]))
    words = drive(data, command, tmp_path / "d", "--set", "rules.max_steps=9", "env.max_steps=50")
    for _ in range(2):
        code, found, said = ran(*words)
        assert code == 0 and found["episodes"] == 6
        assert found["left_out_by_reason"]["it cannot be driven"]["count"] == 1
        assert "no way leads" in said
    assert (tmp_path / "d/annotations.json").is_file()


@pytest.mark.slow
def test_truth_that_lacks_episodes_leaves_out_these_in_published_dagger(data, ran, tmp_path):
    write_ground_truth(data.truth_path, {"6": data.truth["6"]})
    words = drive(data, "dagger", tmp_path / "d", "--set", "env.max_steps=50", "rules.max_steps=9")
    code, found, said = ran(*words)
    assert code == 0 and found["episodes"] == 6
    assert found["left_out_by_reason"]["the ground truth lacks it"]["count"] == 5
    assert said.rstrip().splitlines()[-1].startswith("    episode")
    write_ground_truth(data.truth_path, {"99": data.truth["6"]})
    code, _, said = ran(*drive(data, "dagger", tmp_path / "n"))
    assert code == 2 and "has none of these 6 episodes" in said


WRONG_FIELDS = {
    "instruction": {"instruction": "go"},
    "instruction_text": {"instruction": {"instruction_text": ["go", "on"]}},
    "no instruction": {"instruction": {"instruction_text": " "}},
    "episode_id": {"episode_id": [1]},
    "episode_id of a float": {"episode_id": 1.5},
    "trajectory_id": {"trajectory_id": {"a": 1}},
    "scene_id": {"scene_id": 7},
    "scene elsewhere": {"scene_id": "../../etc/passwd"},
    "start_position": {"start_position": ["1", 0, 0]},
    "start of booleans": {"start_position": [True, 0, 0]},
    "start_rotation": {"start_rotation": [0, 0, 0, None]},
    "goals": {"goals": "here"},
    "a goal": {"goals": ["here"]},
    "several goals": {"goals": [{"position": [k, 0, 0], "radius": 3.0} for k in (0, 9)]},
    "radius": {"goals": [{"position": [0, 0, 0], "radius": "3"}]},
    "reference_path": {"reference_path": 5},
    "info": {"info": [1]},
    "distance": {"info": {"geodesic_distance": "far"}},
    "tags": {"info": {"tags": "memory"}},
}


@pytest.mark.parametrize("name", WRONG_FIELDS)
def test_episode_with_a_field_of_a_wrong_type_is_left_out_and_counted(data, ran, tmp_path, name):
    data.change(lambda items: items[0].update(WRONG_FIELDS[name]))
    limit = ["--episodes", 1, "--set", "rules.max_steps=3"]
    code, found, said = ran(*drive(data, "evaluate forward", tmp_path / "e", *limit))
    assert code == 0 and found["rejected"] == found["left_out"] == 1
    ((reason, group),) = found["left_out_by_reason"].items()
    assert group["count"] == 1 and "(number 0)" in group["first"][0] and reason in said
    assert said.rstrip().splitlines()[-1].strip() == group["first"][0]


# ---- training sets ------------------------------------------------------------------------------


def pictures(folder: Path, names: list[str], shade: int = 0) -> None:
    from PIL import Image

    folder.mkdir(parents=True)
    for name in names:
        Image.fromarray(np.full((12, 16, 3), shade, np.uint8)).save(folder / name)


@pytest.fixture
def drives(tmp_path) -> Path:
    """Three annotated drives of three frames."""
    root = tmp_path / "drives"
    items = []
    for k in range(3):
        pictures(root / f"images/d{k}/rgb", [f"{i:03d}.jpg" for i in range(3)], shade=40 * k)
        item = {"id": k, "video": f"images/d{k}", "instructions": [f"go {k}"]}
        items.append({**item, "actions": [-1, 1, 2]})
    (root / "annotations.json").write_text(json.dumps(items))
    return root


def annotate(root: Path, k: int, **changes) -> None:
    path = root / "annotations.json"
    items = json.loads(path.read_text())
    items[k].update(changes)
    path.write_text(json.dumps(items))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-60])


def dangle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("nowhere.jpg"))


def strange(path: Path) -> None:
    """A picture of a format whose decoder raises no OSError, ValueError or SyntaxError."""
    from PIL import Image

    Image.new("RGB", (8, 8)).save(path, "DDS")
    content = path.read_bytes()
    path.write_bytes(content[:80] + b"\4\0\0\0NONE" + content[88:])


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


BROKEN = {
    "picture missing": (lambda r: (r / "images/d1/rgb/001.jpg").unlink(), "its pictures are not"),
    "folder missing": (lambda r: shutil.rmtree(r / "images/d1"), "its pictures are not there"),
    "truncated": (lambda r: cut(r / "images/d1/rgb/002.jpg"), "a picture cannot be read"),
    "empty": (lambda r: (r / "images/d1/rgb/002.jpg").write_bytes(b""), "a picture cannot be"),
    "link to nothing": (lambda r: dangle(r / "images/d1/rgb/001.jpg"), "its pictures are not"),
    "link to itself": (lambda r: loop(r / "images/d1/rgb/001.jpg"), "its pictures are not"),
    "of a strange kind": (lambda r: strange(r / "images/d1/rgb/002.jpg"), "a picture cannot be"),
    "no words": (lambda r: annotate(r, 1, instructions=[" "]), "it has no instruction"),
    "no texts": (lambda r: annotate(r, 1, instructions=[]), "it has no instruction"),
    "number for text": (lambda r: annotate(r, 1, instructions=[5]), "a field has the wrong type"),
    "object for text": (lambda r: annotate(r, 1, instructions={}), "a field has the wrong type"),
    "actions of text": (lambda r: annotate(r, 1, actions=["-1", "1", "2"]), "a field has the"),
    "actions of floats": (lambda r: annotate(r, 1, actions=[-1, 1.9, 2]), "a field has the wrong"),
    "actions of booleans": (lambda r: annotate(r, 1, actions=[-1, True, 2]), "a field has the"),
    "labels": (lambda r: annotate(r, 1, labels="120"), "a field has the wrong type"),
    "label that is none": (lambda r: annotate(r, 1, labels=[1, 2, 7]), "its actions or labels do"),
    "video elsewhere": (lambda r: annotate(r, 1, video="../../x"), "cannot be used"),
    "video of a number": (lambda r: annotate(r, 1, video=5), "a field has the wrong type"),
    "id of a list": (lambda r: annotate(r, 1, id=[1]), "a field has the wrong type"),
}


@pytest.mark.parametrize("target", ["--out", "--published"])
@pytest.mark.parametrize("name", BROKEN)
def test_drive_that_cannot_be_learned_is_counted_by_reason_and_refused_where_asked(
    drives, ran, tmp_path, name, target
):
    break_it, reason = BROKEN[name]
    break_it(drives)
    made = tmp_path / "made.json"
    words = ["data", "--from", f"mine={drives}", "--data", drives, target, made]
    code, _, said = ran(*words, "--strict")
    assert code == 2 and "--strict" in said and not made.exists()
    code, found, said = ran(*words)
    assert code == 0 and found["trajectories"] == 2 and found["left_out"] == 1
    ((counted, group),) = found["left_out_by_reason"].items()
    assert counted.startswith(reason) and group["count"] == 1
    assert said.rstrip().splitlines()[-1].strip() == group["first"][0]


def test_share_of_the_pictures_that_is_opened_is_said(drives, ran, tmp_path):
    words = ["data", "--from", f"mine={drives}", "--out", tmp_path / "s.jsonl"]
    assert ran(*words)[1]["opened"] == 9
    assert ran(*words, "--check", 0.5)[1]["opened"] == 6
    assert ran(*words, "--check", 0)[1]["opened"] == 0
    assert ran(*words, "--check", 2)[0] == 2


def test_instruction_that_is_one_text_is_learned_as_it_is_and_several_are_several(
    drives, ran, tmp_path
):
    annotate(drives, 0, instructions="walk on")
    annotate(drives, 1, instructions=["one", "two", "three"])
    words = ["data", "--from", f"mine={drives}", "--data", drives]
    outputs = ["--out", tmp_path / "s.jsonl", "--published", tmp_path / "p.json"]
    code, found, _ = ran(*words, *outputs, "--strict")
    assert code == 0 and found["trajectories"] == 5
    learned = [item.instruction for item in TrajectorySet(tmp_path / "s.jsonl")]
    assert learned == ["walk on", "one", "two", "three", "go 2"]
    samples = json.loads((tmp_path / "p.json").read_text())
    assert len(samples) == 15 == len({sample["id"] for sample in samples})
    assert sum("three" in sample["conversations"][0]["value"] for sample in samples) == 3


def test_frames_that_are_links_are_the_pictures_that_the_links_name(drives, ran, tmp_path):
    rgb, store = drives / "images/d0/rgb", tmp_path / "store"
    pictures(store, ["000.jpg", "001.jpg", "002.jpg", "a.jpg", "b.jpg", "c.jpg"], shade=200)
    for i, other in enumerate(("c.jpg", "b.jpg", "a.jpg")):
        (store / other).write_bytes((rgb / f"{i:03d}.jpg").read_bytes() + bytes([i]))
        (rgb / f"{i:03d}.jpg").unlink()
        (rgb / f"{i:03d}.jpg").symlink_to(store / other)
    link = tmp_path / "elsewhere" / "deep"
    link.parent.mkdir()
    link.symlink_to(drives)
    wanted = [(store / name).read_bytes() for name in ("c.jpg", "b.jpg", "a.jpg")]
    for root in (drives, link):
        outputs = ["--out", tmp_path / "s.jsonl", "--published", tmp_path / "p.json"]
        words = ["data", "--from", f"mine={root}", "--data", tmp_path / "elsewhere"]
        assert ran(*words, *outputs, "--strict")[0] == 0
        item = TrajectorySet(tmp_path / "s.jsonl")[0]
        assert [frame.read_bytes() for frame in item.frames] == wanted
        shown = json.loads((tmp_path / "p.json").read_text())[2]["images"]
        found = [(tmp_path / "elsewhere" / name).read_bytes() for name in shown]
        assert found == wanted


def named_frames(root: Path, *names: str) -> None:
    for name in names:
        pictures(root / name, ["step_0000_MOVE_FORWARD.png", "step_0001_STOP.png"])


def split_of(root: Path, place: str, text: str, *ids: int) -> None:
    item = {
        "trajectory_id": 1,
        "scene_id": "mp3d/a/a.glb",
        "start_position": [0, 0, 0],
        "start_rotation": [0, 0, 0, 1],
        "goals": [{"position": [0, 0, 1], "radius": 3.0}],
        "instruction": {"instruction_text": text, "language": "en-US"},
        "reference_path": [[0, 0, 0], [0, 0, 1]],
    }
    path = root / "datasets" / place
    path.parent.mkdir(parents=True, exist_ok=True)
    episodes = {"episodes": [{**item, "episode_id": i} for i in ids]}
    path.write_bytes(gzip.compress(json.dumps(episodes).encode()))


SPLITS = {
    "R2R-CE-640x480/images": "r2r train",
    "R2R/train": "r2r train",
    "R2R": "r2r train",
    "R2R-EnvDrop/images": "r2r envdrop",
    "R2R-CE-EnvDrop-640x480": "r2r envdrop",
    "EnvDrop": "r2r envdrop",
    "R2R/val_unseen": "r2r val_unseen",
    "R2R-CE-640x480/val_seen": "r2r val_seen",
    "R2R_val-unseen/images": "r2r val_unseen",
    "RxR-CE-640x480/images": "rxr train",
    "RxR-follower": "rxr train follower",
}


@pytest.mark.parametrize("place", SPLITS)
def test_named_frames_are_paired_with_the_texts_of_their_own_split(ran, tmp_path, place):
    for split in ("train", "val_seen", "val_unseen", "envdrop"):
        split_of(tmp_path, f"r2r/{split}/{split}.json.gz", f"r2r {split}", 5, 6)
    for role in ("guide", "follower"):
        text = f"rxr train{' follower' * (role == 'follower')}"
        split_of(tmp_path, f"rxr/train/train_{role}.json.gz", text, 5, 6)
    root = tmp_path / "trajectory_data" / place
    named_frames(root, "5", "6")
    words = ["data", "--from", f"mine={root}", "--data", tmp_path, "--out", tmp_path / "s.jsonl"]
    assert ran(*words)[0] == 0
    assert {item.instruction for item in TrajectorySet(tmp_path / "s.jsonl")} == {SPLITS[place]}


NO_SPLIT = ["R2R-mine", "R2R/val_unseen/val_seen", "R2R/train/val_seen", "frames", "R2R-RxR"]


@pytest.mark.parametrize("place", NO_SPLIT)
def test_named_frames_of_an_unknown_split_are_refused(ran, tmp_path, place):
    split_of(tmp_path, "r2r/train/train.json.gz", "r2r train", 5)
    root = tmp_path / "trajectory_data" / place
    named_frames(root, "5")
    words = ["data", "--from", f"mine={root}", "--data", tmp_path, "--out", tmp_path / "s.jsonl"]
    code, _, said = ran(*words)
    assert code == 2 and "does not tell which episodes" in said


def test_augmented_episodes_may_lie_in_a_folder_of_their_own_and_are_else_asked_for(ran, tmp_path):
    split_of(tmp_path, "r2r/train/train.json.gz", "r2r train", 5)
    root = tmp_path / "trajectory_data/R2R-EnvDrop"
    named_frames(root, "5", "7")
    words = ["data", "--from", f"mine={root}", "--data", tmp_path, "--out", tmp_path / "s.jsonl"]
    code, _, said = ran(*words)
    assert code == 2 and "envdrop.json.gz is missing" in said
    split_of(tmp_path, "envdrop/envdrop.json.gz", "augmented", 5)
    code, found, _ = ran(*words)
    assert code == 0 and found["trajectories"] == 1
    assert found["left_out_by_reason"]["the episode file does not have it"]["count"] == 1
    assert TrajectorySet(tmp_path / "s.jsonl")[0].instruction == "augmented"


def test_annotations_that_an_editor_of_windows_saved_are_read(drives, ran, tmp_path):
    path = drives / "annotations.json"
    text = json.dumps(json.loads(path.read_text()), indent=1).replace("\n", "\r\n")
    path.write_text(text, encoding="utf-8-sig", newline="")
    words = ["data", "--from", f"mine={drives}", "--out", tmp_path / "s.jsonl", "--strict"]
    assert ran(*words)[1]["trajectories"] == 3


def test_annotations_of_a_version_are_read_and_two_versions_are_not_guessed(drives, ran, tmp_path):
    (drives / "annotations.json").rename(drives / "annotations_v1-3.json")
    words = ["data", "--out", tmp_path / "s.jsonl", "--strict", "--from"]
    assert ran(*words, f"mine={drives}")[1]["trajectories"] == 3
    (drives / "annotations.json").write_text("[]")
    code, _, said = ran(*words, f"mine={drives}")
    assert code == 2 and "annotations.json and annotations_v1-3.json" in said
    assert ran(*words, f"mine={drives}/annotations_v1-3.json")[1]["trajectories"] == 3
    (drives / "annotations.json").unlink()
    (drives / "annotations_v1-3.json").rename(drives / "annotations_0.json")
    code, _, said = ran(*words, f"mine={drives}")
    assert code == 2 and "not merged" in said
    (drives / "annotations_0.json").unlink()
    code, _, said = ran(*words, f"mine={drives}")
    assert code == 2 and "has no annotations*.json" in said

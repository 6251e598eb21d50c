import dataclasses
import gzip
import hashlib
import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from janusvln_ros.cli.main import main
from janusvln_ros.data.episodes import ground_truth_path, read_episodes, read_ground_truth
from janusvln_ros.errors import InputError
from sim_bridge.homes import SPLITS, check_generator, ensure_split, first_episodes
from sim_bridge.homes.dataset import home_seed
from sim_bridge.nav_env import parameter_names
from sim_bridge.world import World

FAMILIES = {split.family for split in SPLITS.values()}


def contents(folder):
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def of_val_unseen(name):
    """Whether a file belongs to the split val_unseen of generator 1."""
    return "unseen_" in name or "unseen." in name or "/val_unseen/" in name


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Every split, small, written by this process alone."""
    folder = tmp_path_factory.mktemp("houses")
    for split in SPLITS:
        ensure_split(folder, split, seed=4, homes=4, episodes_per_home=3, rooms=(4, 7), jobs=1)
    return folder


def test_two_processes_write_the_same_bytes_as_one(data, tmp_path):
    ensure_split(
        tmp_path, "val_unseen", seed=4, homes=4, episodes_per_home=3, rooms=(4, 7), jobs=2
    )
    alone = contents(data)
    assert contents(tmp_path) == {k: v for k, v in alone.items() if of_val_unseen(k)}


def test_the_first_episodes_of_a_split_need_only_their_homes(monkeypatch, tmp_path):
    small = dataclasses.replace(SPLITS["val_unseen"], homes=3, episodes_per_home=2)
    monkeypatch.setitem(SPLITS, "val_unseen", small)
    told = []
    first, complete = first_episodes(
        tmp_path, "val_unseen", 1, jobs=1, progress=lambda *done: told.append(done)
    )
    assert not complete and [e.episode_id for e in first] == ["1", "2"]
    assert told == [(0, 1), (1, 1)]
    assert [p.stem for p in tmp_path.rglob("*.glb")] == ["unseen_00000"]
    more, complete = first_episodes(tmp_path, "val_unseen", 3, jobs=1)
    assert not complete and len(more) == 4 and more[:2] == first
    # one more than there are: the split is written, as if it had been made in one go
    every, complete = first_episodes(tmp_path, "val_unseen", 7, jobs=1)
    assert complete and every[:4] == more
    made, alone = contents(tmp_path), tmp_path / "alone"
    ensure_split(alone, "val_unseen", jobs=1)
    assert made == contents(alone)
    assert every == read_episodes(alone, "houses", "val_unseen").episodes
    assert first_episodes(tmp_path, "val_unseen", 1) == (every, True)


def test_two_ranks_that_ask_for_one_split_at_once_both_get_it(data, tmp_path):
    with ThreadPoolExecutor(2) as pool:
        ranks = [
            pool.submit(
                ensure_split,
                tmp_path,
                "val_unseen",
                seed=4,
                homes=4,
                episodes_per_home=3,
                rooms=(4, 7),
                jobs=1,
            )
            for _ in range(2)
        ]
    assert ranks[0].result() == ranks[1].result()
    alone = contents(data)
    assert contents(tmp_path) == {k: v for k, v in alone.items() if of_val_unseen(k)}


def test_an_interrupted_run_goes_on_where_it_stopped_and_ends_with_the_same_bytes(data, tmp_path):
    def interrupt(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_split(
            tmp_path,
            "train",
            seed=4,
            homes=4,
            episodes_per_home=3,
            rooms=(4, 7),
            jobs=1,
            progress=interrupt,
        )
    assert not (tmp_path / "datasets/houses/train/train.json.gz").exists()
    counts = []
    ensure_split(
        tmp_path,
        "train",
        seed=4,
        homes=4,
        episodes_per_home=3,
        rooms=(4, 7),
        jobs=1,
        progress=lambda done, total: counts.append(done),
    )
    assert counts == [2, 3, 4]
    assert {
        k: v for k, v in contents(data).items() if "house_" in k or "/train/" in k
    }.items() <= contents(tmp_path).items()


def test_splits_read_back_with_their_ground_truth_and_scenes(data):
    for split in SPLITS:
        episodes = read_episodes(data, "houses", split)
        assert not episodes.rejected and len(episodes.episodes) == 12
        truth = read_ground_truth(ground_truth_path(data, "houses", split))
        assert set(truth) == {e.episode_id for e in episodes.episodes}
        assert all(
            truth[e.episode_id].actions[-1] == 0
            and len(truth[e.episode_id].actions) == e.info["steps"]
            for e in episodes.episodes
        )
        assert all((data / "scene_datasets" / e.scene_id).is_file() for e in episodes.episodes)


def test_no_house_seed_and_no_instruction_of_unseen_splits_occurs_in_training(data):
    seen, unseen = (
        [
            e
            for name, split in SPLITS.items()
            if split.unseen == kept_out
            for e in read_episodes(data, "houses", name).episodes
        ]
        for kept_out in (False, True)
    )
    for key in (lambda e: e.info["house_seed"], lambda e: e.scene_id, lambda e: e.instruction):
        assert not {key(e) for e in seen} & {key(e) for e in unseen}


@pytest.mark.parametrize("version", ["", "2"])
def test_val_seen_visits_training_homes_with_new_episodes(data, version):
    train, seen = (
        read_episodes(data, "houses", split + version).episodes for split in ("train", "val_seen")
    )
    assert {e.scene_id for e in seen} <= {e.scene_id for e in train}
    assert not {e.start_position for e in train} & {e.start_position for e in seen}


def test_seeds_of_homes_never_repeat():
    seeds = {
        home_seed(seed, family, i) for seed in range(3) for family in FAMILIES for i in range(700)
    }
    assert len(seeds) == 3 * len(FAMILIES) * 700


def test_the_homes_of_a_family_are_all_of_one_generator():
    assert len({(split.family, split.generator) for split in SPLITS.values()}) == len(FAMILIES)


def record_of(data, split, what):
    if what == "split":
        return data / "datasets/houses" / split / "settings.json"
    return data / f"scene_datasets/houses/{SPLITS[split].family}.json"


@pytest.mark.parametrize("what", ["split", "scenes"])
@pytest.mark.parametrize("split, other", [("val_unseen", 2), ("val_unseen2", 1), ("train2", 3)])
def test_houses_of_another_generator_than_the_split_says_are_refused_untouched(
    data, tmp_path, what, split, other
):
    shutil.copytree(data, tmp_path, dirs_exist_ok=True)
    record = record_of(tmp_path, split, what)
    record.write_text(json.dumps({**json.loads(record.read_text()), "generator": other}))
    before = contents(tmp_path)
    wanted = f"says generator {other}, but {split} is drawn by generator {SPLITS[split].generator}"
    for use in (check_generator, ensure_split):
        with pytest.raises(InputError, match=wanted):
            use(tmp_path, split)
    assert contents(tmp_path) == before


def test_a_split_of_ones_own_may_be_of_any_generator_that_there_is(data, tmp_path):
    folder = tmp_path / "datasets/houses/told"
    shutil.copytree(data / "datasets/houses/val_unseen2", folder)
    check_generator(tmp_path, "told")
    record = folder / "settings.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "generator": 3}))
    with pytest.raises(InputError, match="told is drawn by generator 1 or 2"):
        check_generator(tmp_path, "told")


def test_evaluate_and_the_bridge_refuse_houses_of_another_generator(data, tmp_path, capsys):
    shutil.copytree(data, tmp_path, dirs_exist_ok=True)
    record = record_of(tmp_path, "val_unseen", "split")
    record.write_text(json.dumps({**json.loads(record.read_text()), "generator": 2}))
    words = ["evaluate", "expert", "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main([*words, "--set", "split=val_unseen"]) == 2
    assert "says generator 2, but val_unseen" in capsys.readouterr().err
    values = dict.fromkeys(parameter_names().values()) | {
        "backend": "houses",
        "data_dir": tmp_path,
    }
    with pytest.raises(InputError, match="says generator 2, but val_unseen"):
        World(values, lambda *_, **__: None).reset("", "houses", "val_unseen")


def test_a_complete_split_is_used_as_it_is(data):
    before = contents(data)
    ensure_split(data, "val_unseen")
    ensure_split(data, "val_unseen", seed=4, homes=4)
    assert contents(data) == before


def test_a_deleted_scene_is_written_again(data):
    before = contents(data)
    scene = next((data / "scene_datasets/houses").rglob("unseen_00002.glb"))
    scene.unlink()
    ensure_split(data, "val_unseen", jobs=1)
    assert contents(data) == before


def test_another_seed_does_not_mix_with_the_houses_that_are_there(data):
    with pytest.raises(InputError, match="another folder"):
        ensure_split(data, "train", seed=5)


def test_the_scene_is_a_glb_and_the_vocabulary_covers_the_instructions(data):
    assert (
        next((data / "scene_datasets/houses").rglob("house_00000.glb")).read_bytes()[:4] == b"glTF"
    )
    file = json.loads(gzip.decompress((data / "datasets/houses/train/train.json.gz").read_bytes()))
    unknown = file["instruction_vocab"]["word_list"].index("<unk>")
    assert all(
        unknown not in item["instruction"]["instruction_tokens"] for item in file["episodes"]
    )


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"split": "val"}, "no split 'val'"),
        ({"rooms": (1, 4)}, "rooms 1-4"),
        ({"rooms": (6, 4)}, "rooms 6-4"),
        ({"rooms": (4, 13)}, "rooms 4-13"),
        ({"homes": 0}, "homes is 0"),
        ({"episodes_per_home": -1}, "episodes per home is -1"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_what_cannot_be_generated_is_refused_in_one_sentence(tmp_path, arguments, words):
    with pytest.raises(InputError, match=words):
        ensure_split(tmp_path, **({"split": "train"} | arguments))
    assert not list(tmp_path.iterdir())


def test_the_command_writes_splits_a_picture_and_one_json_object(tmp_path, capsys):
    picture = tmp_path / "plan.png"
    size = [
        "--splits",
        "val_unseen",
        "--unseen-homes",
        "2",
        "--episodes-per-home",
        "2",
        "--rooms",
        "4-5",
    ]
    words = ["houses", "--out", str(tmp_path / "d"), "--seed", "2", *size]
    assert main([*words, "--jobs", "1", "--picture", str(picture), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (
        report["splits"]["val_unseen"]["episodes"] == 4
        and report["splits"]["val_unseen"]["homes"] == 2
    )
    assert picture.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    "bad", [["--rooms", "many"], ["--rooms", "0-3"], ["--jobs", "0"], ["--seed", "-3"]]
)
def test_the_command_refuses_bad_arguments_with_exit_code_2(tmp_path, capsys, bad):
    assert main(["houses", "--out", str(tmp_path), "--splits", "train", *bad]) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.slow
def test_killed_with_sigkill_it_leaves_no_process_and_goes_on_to_the_same_bytes(tmp_path):
    def words(folder):
        size = ["--splits", "val_unseen", "--unseen-homes", "8", "--seed", "3", "--jobs", "2"]
        return [
            sys.executable,
            "-m",
            "janusvln_ros.cli.main",
            "houses",
            "--out",
            str(folder),
            *size,
        ]

    run = subprocess.Popen(words(tmp_path / "a"), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "a").rglob("unseen_*.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    run.kill()
    run.wait()
    deadline = time.monotonic() + 30
    while (
        any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < deadline
    ):
        time.sleep(0.1)
    assert children and not any(Path(f"/proc/{child}").exists() for child in children)
    for folder in ("a", "b"):
        subprocess.run(words(tmp_path / folder), check=True, stderr=subprocess.DEVNULL)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")

"""
Episode files: every format of the data folder is read, damage is named, and writing is
reproducible.
"""

import contextlib
import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from janusvln_ros.data.episodes import (
    Episode,
    GroundTruth,
    check_truth,
    json_id,
    read_episodes,
    read_ground_truth,
    scene_name,
    write_episodes,
    write_ground_truth,
)
from janusvln_ros.errors import InputError


def r2r_item(number=1, **changes):
    item = {
        "episode_id": number,
        "trajectory_id": 40 + number,
        "scene_id": "mp3d/abc/abc.glb",
        "start_position": [1, 0.17, -2.5],
        "start_rotation": [0, 0.6, 0, 0.8],
        "info": {"geodesic_distance": 6.5},
        "goals": [{"position": [4.0, 0.17, 2.0], "radius": 3.0}],
        "instruction": {"instruction_text": "Go to the door.", "instruction_tokens": [3, 4, 5]},
        "reference_path": [[1, 0.17, -2.5], [4.0, 0.17, 2.0]],
    }
    return item | changes


def put(path: Path, content) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(json.dumps(content).encode()))
    return path


def put_r2r(data_dir: Path, *items) -> Path:
    return put(
        data_dir / "datasets/r2r/val_unseen/val_unseen.json.gz",
        {"episodes": items, "instruction_vocab": {"word_list": []}},
    )


def test_r2r_episode_is_read_with_every_field(tmp_path):
    path = put_r2r(tmp_path, r2r_item())
    found = read_episodes(tmp_path, "r2r", "val_unseen")
    assert found.path == path and not found.rejected and len(found.digest) == 64
    assert found.episodes == (
        Episode(
            "1",
            "41",
            "mp3d/abc/abc.glb",
            (1.0, 0.17, -2.5),
            (0.0, 0.6, 0.0, 0.8),
            (4.0, 0.17, 2.0),
            3.0,
            "Go to the door.",
            ((1.0, 0.17, -2.5), (4.0, 0.17, 2.0)),
            6.5,
        ),
    )
    assert found.episodes[0].scene == "abc"


def rxr_item(number, language):
    instruction = {
        "instruction_id": str(number),
        "instruction_text": f"in {language}",
        "language": language,
        "annotator_id": "9",
    }
    instruction |= {"edit_distance": 0.1, "timed_instruction": []}
    return r2r_item(number, episode_id=str(number), trajectory_id="7", instruction=instruction)


def test_rxr_is_read_without_vocabulary_by_role_and_language(tmp_path):
    folder = tmp_path / "datasets/rxr/val_unseen"
    put(
        folder / "val_unseen_guide.json.gz",
        {
            "episodes": [
                rxr_item(1, "en-US"),
                rxr_item(2, "hi-IN"),
                rxr_item(3, "en-IN"),
                rxr_item(4, "te-IN"),
            ]
        },
    )
    put(folder / "val_unseen_follower.json.gz", {"episodes": [rxr_item(8, "en-US")]})
    assert [e.episode_id for e in read_episodes(tmp_path, "rxr", "val_unseen").episodes] == [
        "1",
        "2",
        "3",
        "4",
    ]
    assert [
        e.episode_id
        for e in read_episodes(tmp_path, "rxr", "val_unseen", languages=["en"]).episodes
    ] == ["1", "3"]
    assert [
        e.episode_id
        for e in read_episodes(
            tmp_path, "rxr", "val_unseen", languages=["en-IN", "te-IN"]
        ).episodes
    ] == ["3", "4"]
    assert [
        e.episode_id
        for e in read_episodes(tmp_path, "rxr", "val_unseen", role="follower").episodes
    ] == ["8"]
    with pytest.raises(
        InputError, match=r"no episode in de; there are en-IN, en-US, hi-IN, te-IN"
    ):
        read_episodes(tmp_path, "rxr", "val_unseen", languages=["de"])


def test_scalevln_is_one_file_and_may_lack_way_points(tmp_path):
    item = r2r_item(scene_id="hm3d/00000-kfPV7w3FaU5/kfPV7w3FaU5.basis.glb")
    del item["reference_path"]
    put(tmp_path / "datasets/scalevln/scalevln_subset_150k.json.gz", {"episodes": [item]})
    (episode,) = read_episodes(tmp_path, "scalevln", "train").episodes
    assert episode.reference_path == (episode.start_position, episode.goal_position)
    assert episode.scene == "00000-kfPV7w3FaU5"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"start_position": [0, float("nan"), 0]}, "start_position .* is not finite"),
        ({"start_position": [0, 0]}, "not 3 numbers"),
        ({"start_rotation": [0, 0, 0, 0]}, "no unit quaternion"),
        ({"goals": []}, "goals is empty"),
        ({"goals": [{"radius": 3}]}, "'position' is missing"),
        ({"instruction": {"instruction_text": "  "}}, "instruction_text"),
        ({"reference_path": [[0, 0, "x"]]}, "a number in it is no number"),
        ({"episode_id": 1}, "a second time"),
    ],
)
def test_bad_episode_is_named_and_counted_while_the_others_stay(tmp_path, change, reason):
    put_r2r(tmp_path, r2r_item(1), r2r_item(2) | change, r2r_item(3))
    found = read_episodes(tmp_path, "r2r", "val_unseen")
    assert [e.episode_id for e in found.episodes] == ["1", "3"]
    (sentence,) = found.rejected
    assert "number 1" in sentence
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(sentence)


def test_missing_folder_is_an_error_that_names_it(tmp_path):
    (tmp_path / "datasets").mkdir()
    with pytest.raises(
        InputError, match=r"val_unseen\.json\.gz is missing: there is no folder .*/datasets/r2r;"
    ):
        read_episodes(tmp_path, "r2r", "val_unseen")


def test_missing_file_is_an_error_that_names_it(tmp_path):
    (tmp_path / "datasets/r2r/val_unseen").mkdir(parents=True)
    with pytest.raises(InputError, match=r"val_unseen\.json\.gz is missing;"):
        read_episodes(tmp_path, "r2r", "val_unseen")


def test_truncated_file_and_foreign_file_are_errors(tmp_path):
    path = put_r2r(tmp_path, *[r2r_item(i) for i in range(20)])
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match="is damaged"):
        read_episodes(tmp_path, "r2r", "val_unseen")
    put(path, [1, 2])
    with pytest.raises(InputError, match="no VLN-CE episode file"):
        read_episodes(tmp_path, "r2r", "val_unseen")


@pytest.mark.parametrize(("dataset", "role"), [("reverie", "guide"), ("rxr", "leader")])
def test_unknown_names_are_errors(tmp_path, dataset, role):
    with pytest.raises(InputError, match="is unknown"):
        read_episodes(tmp_path, dataset, "train", role=role)


def houses_episode(**changes) -> Episode:
    first = Episode(
        "1",
        "1",
        "houses/h1/h1.glb",
        (0.0, 0.0, 0.1),
        (0.0, 0.0, 0.0, 1.0),
        (3.0, 0.0, 0.1),
        3.0,
        "Walk to the blue lamp, don't stop!",
        ((0.0, 0.0, 0.1), (3.0, 0.0, 0.1)),
        3.25,
        "en",
        {"rooms": 4, "tags": ["memory"]},
    )
    return replace(first, **changes)


def test_written_episodes_are_read_back_equal_and_bytes_repeat(tmp_path):
    episodes = (
        houses_episode(),
        houses_episode(
            episode_id="x9", instruction="Geh zur Tür", language="de-DE", geodesic_distance=None
        ),
    )
    path = tmp_path / "datasets/houses/train/train.json.gz"
    write_episodes(path, episodes)
    first = path.read_bytes()
    assert read_episodes(tmp_path, "houses", "train").episodes == episodes
    write_episodes(path, episodes)
    assert path.read_bytes() == first


def test_written_file_has_the_schema_of_r2r(tmp_path):
    write_episodes(tmp_path / "t.json.gz", [houses_episode()])
    content = json.loads(gzip.decompress((tmp_path / "t.json.gz").read_bytes()))
    (item,) = content["episodes"]
    assert set(item) == set(r2r_item()) and item["episode_id"] == 1
    assert set(item["instruction"]) == {"instruction_text", "instruction_tokens"}
    words = [
        content["instruction_vocab"]["word_list"][t]
        for t in item["instruction"]["instruction_tokens"]
        if t
    ]
    assert words == ["walk", "to", "the", "blue", "lamp", ",", "don't", "stop", "!"]
    assert len(item["instruction"]["instruction_tokens"]) == 200


def test_ground_truth_survives_writing_and_reading(tmp_path):
    truth = {"1": GroundTruth((1, 1, 0), ((0.0, 0.0, 0.0), (0.25, 0.0, 0.0)), 2)}
    write_ground_truth(tmp_path / "gt.json.gz", truth)
    assert read_ground_truth(tmp_path / "gt.json.gz") == truth
    put(tmp_path / "bad.json.gz", {"1": {"locations": []}})
    with pytest.raises(InputError, match="not a VLN-CE ground truth"):
        read_ground_truth(tmp_path / "bad.json.gz")


def test_ids_keep_their_form():
    assert json_id("12") == 12 and json_id("012") == "012" and json_id("a1") == "a1"
    assert scene_name("mp3d/X/X.glb") == "X" and scene_name("X.glb") == "X"


@pytest.mark.parametrize(
    ("scene_id", "name"),
    [
        ("mp3d/X/X.glb", "X"),
        ("hm3d/train/00000-kfPV7w3FaU5/kfPV7w3FaU5.basis.glb", "00000-kfPV7w3FaU5"),
        ("gibson/A.glb", "gibson-A"),
        ("replica/apartment_0/habitat/mesh.ply", "replica-apartment_0-habitat-mesh"),
        ("flat/a.glb", "flat-a"),
    ],
)
def test_scene_is_called_after_its_folder_only_where_its_file_is(scene_id, name):
    assert scene_name(scene_id) == name


@pytest.mark.parametrize(
    "prefix",
    ["data/scene_datasets/", "/home/me/scene_datasets/", "scene_datasets//", "./scene_datasets/"]
    + ["./", ""],
)
def test_scene_id_may_be_a_whole_path_through_the_folder_of_the_scenes(tmp_path, prefix):
    put_r2r(tmp_path, r2r_item(scene_id=f"{prefix}mp3d/abc/abc.glb"))
    (episode,) = read_episodes(tmp_path, "r2r", "val_unseen").episodes
    assert episode.scene_id == "mp3d/abc/abc.glb"


@pytest.mark.parametrize("scene_id", ["/elsewhere/abc.glb", "../abc.glb", "a/../../abc.glb", ""])
def test_scene_outside_the_folder_of_the_scenes_is_the_true_reason(tmp_path, scene_id):
    put_r2r(tmp_path, r2r_item(scene_id=scene_id))
    (sentence,) = read_episodes(tmp_path, "r2r", "val_unseen").rejected
    assert sentence.reason == "its scene lies outside scene_datasets"


def test_one_id_in_two_scenes_or_with_two_instructions_is_two_episodes(tmp_path):
    other = {"instruction": {"instruction_text": "Go on."}}
    items = [r2r_item(1), r2r_item(1, scene_id="mp3d/abd/abd.glb"), r2r_item(1, **other)]
    put_r2r(tmp_path, *items, items[0])
    found = read_episodes(tmp_path, "r2r", "val_unseen")
    assert len({e.identity for e in found.episodes}) == len(found.episodes) == 3
    assert [sentence.reason for sentence in found.rejected] == ["its id occurs twice"]


def test_ground_truth_must_begin_and_end_where_its_episode_does():
    episode = houses_episode()
    x, y, z = episode.start_position
    a, b, c = episode.goal_position

    def check(number, start, end):
        truth = GroundTruth((1, 0), ((x + start, y, z), (a, b, c + end)), 1)
        check_truth([episode], {number: truth}, "gt")

    check("1", 0.3, 2.0)
    check("2", 9.0, 9.0)  # another episode's
    with pytest.raises(InputError, match=r"gt belongs to other episodes: 1 of 1 .* 1\.00 m from"):
        check("1", 1.0, 0.0)
    with pytest.raises(InputError, match=r"1 of 1 .* ends 4\.00 m from its goal"):
        check("1", 0.0, 4.0)
    same_id = replace(episode, scene_id="houses/h2/h2.glb")
    with pytest.raises(InputError, match="several scenes have this id"):
        check_truth([episode, same_id], {"1": GroundTruth((1, 0), (), 1)}, "gt")


@pytest.mark.parametrize(("elsewhere", "refused"), [(2, False), (3, True)])
def test_a_few_ground_truths_of_many_may_end_elsewhere(elsewhere, refused):
    first = houses_episode()
    episodes = [replace(first, episode_id=str(n)) for n in range(100)]
    far = tuple(c + 9.0 for c in first.goal_position)
    ends = [far if n < elsewhere else first.goal_position for n in range(100)]
    truth = {
        e.episode_id: GroundTruth((1, 0), (first.start_position, end), 1)
        for e, end in zip(episodes, ends)
    }
    with pytest.raises(InputError, match="3 of 100") if refused else contextlib.nullcontext():
        check_truth(episodes, truth, "gt")

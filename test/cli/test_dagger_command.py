"""janusvln dagger: the model drives, both schemes write the published layout."""

import json

from janusvln_ros.cli.main import main
from janusvln_ros.data.trajectories import read_trajectories
from janusvln_ros.policy import default_checkpoint
from janusvln_ros.policy.identity import checkpoint_digest


def dagger(capsys, small_houses, out, *arguments):
    common = [
        "--data",
        str(small_houses),
        "--out",
        str(out),
        "--size",
        "48x36",
        "--episodes",
        "2",
        "--set",
        "rules.max_steps=12",
    ]
    code = main(["dagger", *common, "--set", "env.max_steps=60", "--json", *map(str, arguments)])
    text, err = capsys.readouterr()
    return code, json.loads(text) if text else None, err


def test_classic_scheme_labels_every_state_the_model_visits(capsys, small_houses, tmp_path):
    code, result, _ = dagger(capsys, small_houses, tmp_path / "d", "--scheme", "classic", "--p", 0)
    assert code == 0 and result["episodes"] == result["kept"] == 2
    for found in read_trajectories(tmp_path / "d"):
        assert len(found.labels) == len(found.frames) == len(found.actions)
    lines = [json.loads(text) for text in (tmp_path / "d/result.jsonl").read_text().splitlines()]
    assert [line["beta"] for line in lines] == [0.0, 0.0]


def test_published_scheme_notes_a_result_for_every_drive_and_keeps_detours_only(
    capsys, small_houses, tmp_path
):
    code, result, _ = dagger(capsys, small_houses, tmp_path / "d")
    lines = [json.loads(text) for text in (tmp_path / "d/result.jsonl").read_text().splitlines()]
    assert (
        code == 0
        and result["episodes"] == len(lines) == 2
        and result["kept"] == sum(line["save"] for line in lines)
    )
    assert {
        "trajectory_id",
        "model_success",
        "success",
        "relative_pl",
        "step_id",
        "accumulated_error",
        "force_episode_end",
    } <= set(lines[0])
    for found in read_trajectories(tmp_path / "d"):
        assert found.labels is None and found.actions[0] == -1


def test_round_and_scheme_are_part_of_what_a_folder_belongs_to(capsys, small_houses, tmp_path):
    dagger(capsys, small_houses, tmp_path / "d", "--scheme", "classic", "--round", 1)
    manifest = json.loads((tmp_path / "d/manifest.json").read_text())
    driver = checkpoint_digest(default_checkpoint())
    assert manifest["dagger"]["checkpoint_sha256"] == driver
    code, _, err = dagger(
        capsys, small_houses, tmp_path / "d", "--scheme", "classic", "--round", 2
    )
    assert code == 2 and "settings.dagger.data_it was 1 and is 2" in err
    code, _, err = dagger(capsys, small_houses, tmp_path / "d", "--scheme", "published")
    assert code == 2 and 'dagger.scheme was "classic"' in err

"""janusvln train: what the command line says about mistakes, and what it prints."""

import json

import pytest

from janusvln_ros.cli.main import main


def test_show_prints_every_field_with_the_overrides(capsys):
    assert main(["train", "tiny", "--set", "learning_rate=1e-4", "--show", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (
        shown["learning_rate"] == 1e-4 and shown["memory"] == "dual" and shown["stop_weight"] > 1
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tiny", "bacth=3"], "did you mean 'batch'"),
        (["bases"], "did you mean 'base'"),
        (["tiny", "batch=many"], "must be of type int"),
        (["tiny", "data=[nowhere.jsonl]", "encoders="], "nowhere.jsonl cannot be read"),
        (["tiny", "data=[]", "encoders="], "names no data"),
        (["tiny", "encoders=nowhere/at/all"], "no checkpoint folder"),
        (["tiny-encoders", "views=nowhere"], "janusvln data --views"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments, message, capsys, tmp_path):
    assert main(["train", arguments[0], "--set", *arguments[1:], f"output={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


@pytest.mark.parametrize(
    "arguments",
    [
        ["tiny", "--show", "batch=3", "seed=7", "--json"],
        ["tiny", "batch=3", "--show", "--set", "seed=7", "--json"],
        ["--show", "--json", "tiny", "batch=3", "seed=7"],
        ["--json", "tiny", "--set", "batch=3", "seed=7", "--show"],
        ["tiny", "--set", "batch=3", "--show", "seed=7", "--json"],
        ["batch=3", "tiny", "seed=7", "--show", "--json"],
    ],
)
def test_changes_stand_in_any_order(arguments, capsys):
    assert main(["train", *arguments]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["batch"], shown["seed"]) == (3, 7)


def test_one_recipe_is_named_wherever_it_lies(capsys, tmp_path):
    path = tmp_path / "batch=5" / "mine.yaml"
    path.parent.mkdir()
    assert main(["train", "tiny", "--show"]) == 0
    path.write_text(capsys.readouterr().out)
    assert main(["train", "seed=7", str(path), "--show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 7
    for words in (["tiny", "base"], ["batch=3", "seed=7"]):
        assert main(["train", *words, "--show"]) == 2
        assert "name one recipe" in capsys.readouterr().err


def test_one_of_the_processes_of_torchrun_answers(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, answers in (("0", 1), ("1", 0)):
        monkeypatch.setenv("RANK", rank)
        assert main(["train", "tiny", "--show", "--json"]) == 0
        assert len(capsys.readouterr().out.splitlines()) == answers

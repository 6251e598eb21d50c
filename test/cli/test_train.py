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

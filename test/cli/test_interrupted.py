"""Ctrl-C in long work: the command that goes on is printed."""

import shlex

import pytest

from janusvln_ros.cli import info
from janusvln_ros.cli.main import main


@pytest.mark.parametrize("out", [[], ["--out", "runs/mine"], ["--out=runs/mine"]])
def test_the_command_that_goes_on_names_the_folder_of_this_run(out, capsys, monkeypatch):
    def interrupted(job, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("janusvln_ros.rollout.evaluate.evaluate", interrupted)
    words = ["evaluate", "expert", "--set", "env.options={a: b}", *out]
    assert main(words) == 130
    line = shlex.split(capsys.readouterr().err.splitlines()[-1])
    assert line[: len(words) + 1] == ["janusvln", *words]
    assert line[-1].removeprefix("--out=").startswith("runs/") and line.count("--out") <= 1


def test_work_that_does_not_go_on_promises_nothing(capsys, monkeypatch):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(info, "run", interrupted)
    assert main(["info", "x"]) == 130
    assert capsys.readouterr().err == "interrupted\n"

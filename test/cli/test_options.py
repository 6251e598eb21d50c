"""Options: one name for one thing in every subcommand, and complaints that are one sentence."""

import importlib

import pytest

from janusvln_ros.cli.main import SUBCOMMANDS, main
from janusvln_ros.cli.options import frame_size

MODULES = {
    name: importlib.import_module(f"janusvln_ros.cli.{name.replace('-', '_')}")
    for name in SUBCOMMANDS
}
GONE = {"--data-dir", "--limit", "--width", "--height", "--dtype", "--param-file"}


def declared(flag):
    return {
        name: option.settings
        for name, module in MODULES.items()
        for option in module.OPTIONS
        if flag in option.flags
    }


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_help_stays_within_100_columns_on_a_wide_terminal(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 100


def test_old_names_are_gone():
    flags = {flag for m in MODULES.values() for option in m.OPTIONS for flag in option.flags}
    assert not flags & GONE


@pytest.mark.parametrize(
    ("flag", "metavar", "where"),
    [
        ("--data", "DIR", {"demo", "soak", "collect", "dagger", "evaluate", "data"}),
        ("--episodes", "N", {"collect", "dagger", "evaluate"}),
        ("--episode", "ID", {"demo"}),
        ("--size", "WxH", {"demo", "soak", "collect", "dagger", "evaluate", "bench", "info"}),
        ("--precision", "NAME", {"demo", "dagger", "evaluate", "replay", "bench"}),
        ("--set", "FIELD=VALUE", {"train", "collect", "dagger", "evaluate"}),
    ],
)
def test_an_option_is_written_in_the_same_way_everywhere(flag, metavar, where):
    found = declared(flag)
    assert where <= set(found)
    assert {settings["metavar"] for settings in found.values()} == {metavar}


@pytest.mark.parametrize("text", ["big", "640", "640x", "640 480", "-1x3", "640x480x3", "６x４"])
def test_a_size_that_is_none_is_refused_by_name(text, capsys):
    assert main(["info", "nowhere", f"--size={text}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: argument --size") and repr(text) in error
    assert len(error.splitlines()) == 1


def test_a_size_is_width_and_height():
    assert frame_size("640x480") == (640, 480)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        # a name cut short would be read as another: --episode as --episodes
        (["evaluate", "expert", "--episode", "245"], "unrecognized arguments: --episode 245"),
        (["collect", "--out", "x", "--limit", "3"], "--limit"),
        (["train", "tiny", "max_steps"], "write FIELD=VALUE"),
        (["train", "tiny", "--set", "max_steps", "--show"], "write FIELD=VALUE"),
        (["collect"], "--out"),
        (["no-such-thing"], "no-such-thing"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(words, says, capsys):
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and says in printed.err and len(printed.err.splitlines()) == 1


def test_several_settings_follow_one_set_or_several(capsys):
    settings = ["--set", "max_steps=3", "batch=2", "--set", "seed=5"]
    assert main(["train", "tiny", *settings, "--show"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert {"max_steps: 3", "batch: 2", "seed: 5"} <= set(shown)

"""What a terminal is shown of words that come from topics and files."""

import pytest

from janusvln_ros.errors import InputError, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("bell\a, back\b, null\x00, \x9b31m", "bell\\x07, back\\x08, null\\x00, \\x9b31m"),
        ("over\rwritten", "over\\rwritten"),
        ("turned \u202egnp.exe", "turned \\u202egnp.exe"),
        ("half \ud800", "half \\ud800"),
        ("lines\nand\ttabs, Türe, 左转, 👩‍🦽 stay", "lines\nand\ttabs, Türe, 左转, 👩‍🦽 stay"),
    ],
)
def test_what_would_steer_a_terminal_is_shown_as_its_escape(text, shown):
    assert printable(text) == shown
    assert str(InputError(f"file '{text}'")) == f"file '{shown}'"


def test_commands_print_names_escaped(capsys):
    from janusvln_ros.cli.main import main

    assert main(["render", "/no/\x1b]0;title\x07.mcap"]) in (1, 2)
    told = capsys.readouterr()
    assert "\x1b" not in told.err + told.out and "\\x1b" in told.err

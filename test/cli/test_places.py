"""
Where results cannot be written: every command says so in one sentence, exits with 1, and leaves
nothing half-written.

/sys stands for a folder that is not ours: its kernel refuses everybody, root too. A limit on the
size of files stands for a full disk: the write fails, not the opening.
"""

import errno
import resource
from contextlib import contextmanager
from pathlib import Path

import pytest

from janusvln_ros.cli.main import SUBCOMMANDS, main
from janusvln_ros.files import atomic_write, trouble

TINY = str(Path(__file__).parents[2] / "config" / "model" / "tiny.json")
FORBIDDEN = "/sys/janusvln"
WRITERS = {
    "houses": ["houses", "--splits", "val_unseen", "--unseen-homes", "1", "--jobs", "1", "--out"],
    "collect": ["collect", "--data", "DATA", "--split", "val_unseen", "--episodes", "1", "--out"],
    "evaluate": [
        *["evaluate", "expert", "--data", "DATA", "--split", "val_unseen", "--episodes", "1"],
        "--out",
    ],
    "dagger": [
        *["dagger", "--data", "DATA", "--split", "val_unseen", "--episodes", "1"],
        *["--scheme", "classic", "--set", "rules.max_steps=2", "--out"],
    ],
    "data": ["data", "--views", "1", "--walks", "1", "--frames", "2", "--out"],
    "import-bag": ["import-bag", "BAG", "--out"],
    "render": ["render", "BAG", "--out"],
    "replay": ["replay", "BAG", "--out"],
    "demo": ["demo", "--data", "DATA", "--out"],
    "record": ["record", "--out"],
    "up": ["up", "simulation", "data_dir:=DATA", "--log-dir"],
    "soak": ["soak", "--data", "DATA", "--log-dir"],
    "train": [
        *["train", "tiny", "--set", "data=[JSONL]", f"model={TINY}", "encoders=", "max_steps=1"],
    ],
}
"""Commands that write, up to the option that says where."""

SILENT = {
    *("bench", "info", "status", "arm", "go", "watch", "stop", "tally", "secure", "calibrate"),
    "doctor",
}
"""Commands that write no file, or only beside a graph that runs."""
ROS = {"demo", "record", "up", "soak"}


@contextmanager
def full_disk(size=1000):
    """No file may grow beyond ``size`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def words(one_house, bags, tmp_path):
    """``words(name, place)``: a command line that writes to a place."""
    places = {"DATA": str(one_house)}

    def make(name, place):
        if "BAG" in WRITERS[name]:
            places["BAG"] = str(
                bags.write_drive(tmp_path / "drive.mcap", [1, 1, 2, 1, 3], size=(48, 64))
            )
        line = [word.replace("DATA", places["DATA"]) for word in WRITERS[name]]
        line = [places.get(word, word) for word in line]
        return [*line, f"output={place}" if name == "train" else str(place)]

    return make


def test_every_command_is_in_one_of_the_lists():
    assert set(WRITERS) | SILENT == set(SUBCOMMANDS)


def one_sentence(code, capsys):
    printed = capsys.readouterr()
    sentences = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert code in (1, 2) and printed.out == "" and len(sentences) == 1, printed.err
    assert "Traceback" not in printed.err
    return sentences[0]


SLOW = {"replay", "dagger", "train"}
CASES = [
    pytest.param(
        name, marks=[pytest.mark.slow] * (name in SLOW) + [pytest.mark.ros] * (name in ROS)
    )
    for name in WRITERS
    if name != "train"
]


@pytest.mark.parametrize("name", CASES)
def test_a_folder_that_is_not_ours(name, words, capsys):
    if name in ROS:
        pytest.importorskip("rclpy", reason="needs ROS 2")
    ending = "/video.mp4" if name == "render" else ""
    assert FORBIDDEN in one_sentence(main(words(name, FORBIDDEN + ending)), capsys)


@pytest.mark.parametrize("name", CASES)
def test_a_place_below_a_file(name, words, capsys, tmp_path):
    if name in ROS:
        pytest.importorskip("rclpy", reason="needs ROS 2")
    (tmp_path / "taken").write_text("mine")
    ending = "deep/video.mp4" if name == "render" else "deep"
    assert "taken" in one_sentence(main(words(name, tmp_path / "taken" / ending)), capsys)
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.parametrize("name", [case for case in CASES if case.values[0] not in ROS])
def test_a_full_disk_leaves_nothing_half_written(name, words, capsys, tmp_path):
    out = tmp_path / "out" / ("end.png" if name == "render" else "")
    line = words(name, out)
    with full_disk():
        code = main(line)
    one_sentence(code, capsys)
    seen = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    seen = [path for path in seen if "/." not in str(path.relative_to(tmp_path))]
    assert all(path.stat().st_size < 1000 for path in seen) and not (name == "render" and seen)


def test_the_path_that_was_asked_for_is_named_not_the_one_under_which_it_is_built(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError) as caught:
        atomic_write(tmp_path / "file" / "result.json", "{}")
    assert trouble(caught.value).startswith(f"{tmp_path / 'file'}: ")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_what_the_file_system_refuses_has_a_remedy(number):
    sentence = trouble(OSError(number, "It is so", "/a/.b.1.tmp.png"))
    assert sentence.startswith("/a: it is so; ")


def test_other_errors_of_the_system_are_not_about_files():
    assert trouble(ConnectionRefusedError(errno.ECONNREFUSED, "refused")) is None

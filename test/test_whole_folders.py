"""A folder that takes the place of another does so in one step: all old or all new."""

import errno
import os
import socket
import stat

import pytest

from janusvln_ros import files
from janusvln_ros.errors import InputError
from janusvln_ros.files import atomic_folder, local_checkpoint


def fill(folder, **content):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in content.items():
        (folder / name).write_text(text)
    return folder


def content(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def test_a_new_folder_takes_the_place_of_the_old_one(tmp_path):
    folder = fill(tmp_path / "c", a="old", b="old")
    with atomic_folder(folder) as new:
        fill(new, a="new")
        assert content(folder) == {"a": "old", "b": "old"}
    assert content(folder) == {"a": "new"} and list(tmp_path.iterdir()) == [folder]


def test_what_is_kept_stays_with_folders_below_it(tmp_path):
    folder = fill(tmp_path / "c", notes="mine", a="old", b="old")
    fill(folder / "logs", log="kept")
    with atomic_folder(folder, keep=lambda name: name in ("notes", "a", "logs")) as new:
        fill(new, a="new")
    assert content(folder) == {"notes": "mine", "a": "new"}
    assert content(folder / "logs") == {"log": "kept"}


def test_a_failed_block_changes_nothing_and_leaves_nothing(tmp_path):
    folder = fill(tmp_path / "c", a="old")
    with pytest.raises(OSError, match="full"), atomic_folder(folder) as new:
        fill(new, a="half")
        raise OSError(errno.ENOSPC, "full")
    assert content(folder) == {"a": "old"} and list(tmp_path.iterdir()) == [folder]


def test_a_link_stays_and_its_folder_is_replaced(tmp_path):
    fill(tmp_path / "real", a="old")
    (tmp_path / "link").symlink_to("real")
    with atomic_folder(tmp_path / "link") as new:
        fill(new, a="new")
    assert (tmp_path / "link").is_symlink() and content(tmp_path / "real") == {"a": "new"}


def test_who_may_read_a_folder_is_as_before(tmp_path):
    folder = fill(tmp_path / "c", a="old")
    folder.chmod(0o2750)
    with atomic_folder(folder) as new:
        fill(new, a="new")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o2750


def test_what_a_killed_writer_left_is_deleted_by_the_next_one_alone(tmp_path):
    folder = fill(tmp_path / "c", a="old")
    dead, living = 2**22 + 7, os.getppid()  # above the most that a process number can be
    left = fill(tmp_path / f".c.{socket.gethostname()}-{dead}.tmp", a="half")
    other = fill(tmp_path / f".c.{socket.gethostname()}-{living}.tmp", a="half")
    elsewhere = fill(tmp_path / f".c.another-host-{dead}.tmp", a="half")
    with atomic_folder(folder) as new:
        fill(new, a="new")
    assert not left.exists() and other.is_dir() and elsewhere.is_dir()


def test_without_an_exchange_in_one_step_it_is_done_in_two(tmp_path, monkeypatch):
    monkeypatch.setattr(files.ctypes, "CDLL", lambda *_, **__: object())
    folder = fill(tmp_path / "c", a="old")
    with atomic_folder(folder) as new:
        fill(new, a="new")
    assert content(folder) == {"a": "new"} and list(tmp_path.iterdir()) == [folder]


def test_a_kill_between_two_steps_is_told_with_where_the_old_one_is(tmp_path):
    before = fill(tmp_path / ".c.host-7.tmp.before", a="old")
    with pytest.raises(InputError, match=f"rename {before} to c"):
        local_checkpoint(tmp_path / "c")

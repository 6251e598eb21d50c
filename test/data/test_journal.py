"""The journal: whatever was written before a kill is there, and nothing else."""

import json
import os

import pytest
from filelock import Timeout

from janusvln_ros.data import journal as journals
from janusvln_ros.data.journal import Journal, journal_path, read_journals, read_lines
from janusvln_ros.errors import InputError


def test_lines_come_back_in_order_across_writers(tmp_path):
    path = tmp_path / "deep" / "j.jsonl"
    for i in range(3):
        with Journal(path) as journal:
            journal.append({"i": i, "text": "Tür\n"})
    assert list(read_lines(path)) == [{"i": i, "text": "Tür\n"} for i in range(3)]
    assert list(read_lines(tmp_path / "none.jsonl")) == []


@pytest.mark.parametrize("cut", [1, 2, 5, 9])
def test_line_cut_off_by_a_kill_is_dropped_and_written_again(tmp_path, cut):
    path = tmp_path / "j.jsonl"
    with Journal(path) as journal:
        journal.append({"i": 1})
        journal.append({"i": 22})
    path.write_bytes(path.read_bytes()[:-cut])
    assert list(read_lines(path)) == [{"i": 1}]
    with Journal(path) as journal:
        journal.append({"i": 3})
    assert list(read_lines(path)) == [{"i": 1}, {"i": 3}]


def test_damage_in_the_middle_is_an_error_that_names_the_line(tmp_path):
    (tmp_path / "j.jsonl").write_text('{"i": 1}\n{"i":\n{"i": 3}\n')
    with pytest.raises(InputError, match="line 2"):
        list(read_lines(tmp_path / "j.jsonl"))


def test_second_writer_is_refused_while_the_first_lives(tmp_path):
    with Journal(tmp_path / "j.jsonl"):
        with pytest.raises(InputError, match="another process is writing"):
            Journal(tmp_path / "j.jsonl", wait=0.1)
    Journal(tmp_path / "j.jsonl").close()


@pytest.mark.parametrize("line", ["[1]", "7", "null", '"text"'])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_line_that_is_no_object_is_an_error_that_names_it(tmp_path, line, number):
    lines = ['{"i": 1}'] * 3
    lines[number - 1] = line
    (tmp_path / "j.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=f"line {number} is no object: remove the line"):
        list(read_lines(tmp_path / "j.jsonl"))


def test_a_line_is_on_the_disk_when_append_returns(tmp_path, monkeypatch):
    path, synced = tmp_path / "j.jsonl", []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(path.read_text()))
    with Journal(path) as journal:
        for i in range(2):
            journal.append({"i": i})
            assert [json.loads(line)["i"] for line in synced[-1].splitlines()] == [*range(i + 1)]
            assert len(list(read_lines(path))) == len(synced) == i + 1


def test_lines_of_a_run_begin_with_its_digest(tmp_path):
    for run, told in (("", '{"i": 1}\n'), ("abc", '{"run": "abc", "i": 1}\n')):
        with Journal(tmp_path / f"{run}.jsonl", run=run) as journal:
            journal.append({"i": 1})
        assert (tmp_path / f"{run}.jsonl").read_text() == told


def test_a_number_that_is_none_is_not_written(tmp_path):
    with Journal(tmp_path / "j.jsonl") as journal, pytest.raises(ValueError):
        journal.append({"i": float("nan")})
    assert list(read_lines(tmp_path / "j.jsonl")) == []


def test_a_closed_journal_takes_no_more_lines(tmp_path):
    journal = Journal(tmp_path / "j.jsonl")
    journal.close()
    with pytest.raises(ValueError, match="closed"):
        journal.append({"i": 1})


def test_a_writer_whose_parent_was_killed_has_two_seconds_to_die(tmp_path, monkeypatch):
    class Dying:
        def acquire(self, timeout):
            if timeout < 2:
                raise Timeout("j.jsonl")

        def release(self):
            pass

    monkeypatch.setattr(journals, "file_lock", lambda path: Dying())
    Journal(tmp_path / "j.jsonl").close()


def test_journals_of_a_folder_are_read_one_after_the_other(tmp_path):
    for shard in (0, 1):
        with Journal(journal_path(tmp_path, shard)) as journal:
            journal.append({"shard": shard})
    (tmp_path / "other.jsonl").write_text("{}\n")
    assert [line["shard"] for line in read_journals(tmp_path)] == [0, 1]

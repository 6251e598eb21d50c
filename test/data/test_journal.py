"""The journal: whatever was written before a kill is there, and nothing else."""

import pytest

from janusvln_ros.data.journal import Journal, read_lines
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

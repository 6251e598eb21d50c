"""What the hunt has found stays mended, and the hunt itself finds what it is made to find."""

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("hypothesis", reason="the hunt draws its cases with it")

from hypothesis import strategies as st

from hunt.families import Family, load
from hunt.worker import FaultError, Hunter, decoded, encoded, run_case
from janusvln_ros.errors import InputError

ROOT = Path(__file__).parents[1]
CASES = sorted((ROOT / "test" / "hunt_cases").glob("*.json"))


@pytest.fixture(scope="module")
def families():
    return load()


@pytest.mark.parametrize("path", CASES, ids=[path.stem for path in CASES])
def test_a_case_that_did_harm_does_none_any_more(path, families):
    found = json.loads(path.read_text())
    run_case(families[found["family"]].check, decoded(found["case"]))


def test_found_kinds_stand_on_the_page():
    page = (ROOT / "docs" / "reliability.md").read_text()
    missing = [path.stem for path in CASES if f"`{path.stem}`" not in page]
    assert not missing


def test_every_limit_stands_on_the_page():
    from janusvln_ros.limits import LIMITS

    page = (ROOT / "docs" / "reliability.md").read_text()
    rows = re.findall(r"\| `JANUSVLN_MAX_(\w+)` \| ([\d,]+) (\w+) \|", page)
    stated = {name: (int(number.replace(",", "")), unit) for name, number, unit in rows}
    assert stated == {name: (known.default, known.unit) for name, known in LIMITS.items()}


def test_cases_are_kept_as_they_are():
    for case in (b"\x00\xff", ["event", "Goal", {"key": -1, "x": None}], "words", 1.5):
        assert decoded(json.loads(json.dumps(encoded(case)))) == case


def hunted(tmp_path, check):
    hunter = Hunter(tmp_path, {})
    numbers = Family("numbers", st.lists(st.integers(0, 99), max_size=30), check)
    return hunter.round(numbers, seed=1, examples=200)


def test_a_fault_is_found_shrunk_and_told_once(tmp_path):
    def check(case):
        if 77 in case:
            raise KeyError("seventy-seven")

    hunter = Hunter(tmp_path, {})
    numbers = Family("numbers", st.lists(st.integers(0, 99), max_size=30), check)
    told = hunter.round(numbers, seed=1, examples=400)
    assert told["fault"]["case"] == [77] and told["fault"]["kind"].startswith("KeyError")
    assert "fault" not in hunter.round(numbers, seed=1, examples=400)


def test_sentences_are_no_faults(tmp_path):
    def check(case):
        raise InputError("the case is a case: give another")

    assert "fault" not in hunted(tmp_path, check)


def test_a_broken_promise_is_a_fault(tmp_path):
    def check(case):
        assert len(case) < 3, "three numbers"

    assert len(hunted(tmp_path, check)["fault"]["case"]) == 3


def test_a_case_that_takes_too_much_is_a_fault():
    with pytest.raises(FaultError, match="MB"):
        run_case(lambda case: bytearray(600_000_000), b"")


def test_a_case_that_takes_too_long_is_a_fault(monkeypatch):
    monkeypatch.setattr("hunt.worker.SECONDS", 0.0)
    with pytest.raises(FaultError, match="of the processor"):
        run_case(lambda case: sum(range(100_000)), b"")

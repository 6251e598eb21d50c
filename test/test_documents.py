"""Documents of others: JSON and YAML that are damaged, hostile, or too large for this machine."""

import gzip
import json
import random
import tracemalloc

import pytest

from janusvln_ros.documents import (
    finite,
    parse_json,
    parse_packed_json,
    parse_yaml,
    read_json,
    read_json_lines,
    read_object,
    read_yaml,
    whole,
)
from janusvln_ros.errors import InputError
from janusvln_ros.limits import LIMITS, limit


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[1,]", "[NaN]", '{"a": -Infinity}', "nul", '"a', "1" * 5000, "[" * 100_000),
        *('["\\ud800"]', b"\xff\xfe[]", b'{"a": "\x00"}', "{'a': 1}", "\x00"),
    ],
)
def test_what_is_no_json_is_refused_with_the_place(text):
    with pytest.raises(InputError, match=r"^x\.json, line 3"):
        parse_json(text, "x.json, line 3")


def test_whole_characters_of_two_halves_are_text():
    assert parse_json('["\\ud83d\\ude00"]', "x") == ["\U0001f600"]


def test_numbers_that_are_infinite_are_left_to_who_asks_for_them():
    assert parse_json("[1e999, Infinity]", "x", finite=False) == [float("inf")] * 2


def bomb(unit: bytes, megabytes: int) -> bytes:
    return gzip.compress(b"[" + unit * (megabytes * 1_000_000 // len(unit)) + b"0]", 9)


@pytest.mark.parametrize("unit", [b"        ", b"[],", b'{"a":1},', b"[[[[]]]],", b'"ab",'])
def test_a_packed_file_that_would_take_the_machine_is_refused_before_it_is_unpacked(unit):
    data = bomb(unit, 100)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"x\.json\.gz.*JANUSVLN_MAX_DOCUMENT_MB"):
            parse_packed_json(data, "x.json.gz", "fetch it again")
        assert tracemalloc.get_traced_memory()[1] < 16_000_000
    finally:
        tracemalloc.stop()


def test_a_plain_file_of_many_small_lists_is_refused():
    with pytest.raises(InputError, match="DOCUMENT_MB"):
        parse_json(b"[" + b"[]," * 4_000_000 + b"0]", "x.json")


def test_the_limit_can_be_raised(monkeypatch):
    text = b"[" + b"{}," * 2_000_000 + b"0]"
    with pytest.raises(InputError):
        parse_json(text, "x.json")
    monkeypatch.setenv("JANUSVLN_MAX_DOCUMENT_MB", "4000")
    assert len(parse_json(text, "x.json")) == 2_000_001


def test_an_ordinary_data_set_is_far_from_the_limit(monkeypatch):
    """Published files unpack to 16 times their size at most, and a large one may take much."""
    monkeypatch.setitem(LIMITS, "DOCUMENT_MB", LIMITS["DOCUMENT_MB"]._replace(default=1))
    dice = random.Random(1)
    items = [
        {
            "text": " ".join(dice.choices(["left", "door", "walk", "past", "sofa", "and"], k=25)),
            "tokens": [dice.randrange(2504) for _ in range(25)] + [0] * 175,
            "path": [[dice.uniform(-9, 9), 0.17, dice.uniform(-9, 9)] for _ in range(6)],
        }
        for _ in range(2000)
    ]
    assert parse_packed_json(gzip.compress(json.dumps(items).encode()), "x", "y") == items


@pytest.mark.parametrize("value", ["", "0", "-1", "1e9", "x", "1.5", "9" * 20, "٣"])
def test_a_limit_that_is_no_number_is_named(value, monkeypatch):
    monkeypatch.setenv("JANUSVLN_MAX_LAYERS", value)
    if not value:
        assert limit("LAYERS") == LIMITS["LAYERS"].default
        return
    with pytest.raises(InputError, match="JANUSVLN_MAX_LAYERS"):
        limit("LAYERS")


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)


@pytest.mark.parametrize(
    "text",
    [
        *(LAUGHS, "&a [*a]", "a: &a {b: *a}", "a: 2020-99-99", "[" * 5000, "a: [", "1" * 5000),
        *(
            "!!python/object:os.system x",
            "? {a: b}\n: c",
            "!!int ''",
            "!!float x",
            "<<: 3",
            "\x00",
        ),
        *("!!timestamp x", "- a\nb: c", "*nobody", "a: b: c", "\ud800", "!!binary '\u20ac'"),
    ],
)
def test_what_is_no_yaml_is_refused_with_the_place(text):
    with pytest.raises(InputError, match=r"^mine\.yaml"):
        parse_yaml(text, "mine.yaml")


def test_yaml_with_ordinary_aliases_is_read_and_an_empty_file_is_nothing():
    assert parse_yaml("a: &a [1, 2]\nb: *a", "x") == {"a": [1, 2], "b": [1, 2]}
    assert parse_yaml("# only words", "x") is None


def test_a_yaml_file_of_many_megabytes_is_no_settings_file():
    with pytest.raises(InputError, match="DOCUMENT_MB"):
        parse_yaml("a: " + "x" * 5_000_000, "x")


def test_files_that_hold_something_else_than_asked_for_are_named(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"[1]")
    assert read_json(path) == [1]
    with pytest.raises(InputError, match=f"{path} holds a list instead of an object"):
        read_object(path)
    path.write_bytes(b'{"a": 1}\n[2]\n')
    with pytest.raises(InputError, match="line 2 is no object"):
        read_json_lines(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="no text of UTF-8"):
        read_yaml(path)


@pytest.mark.parametrize("value", ["1", True, None, [], float("nan"), float("inf"), 10**400])
def test_what_is_no_number_is_named_with_its_value(value):
    with pytest.raises(InputError, match="the radius is"):
        finite(value, "the radius")


@pytest.mark.parametrize("value", ["1", True, None, 1.0, float("nan"), 2**63, -1])
def test_what_is_no_whole_number_is_named_with_its_value(value):
    with pytest.raises(InputError, match="the step is"):
        whole(value, "the step", 0)

"""Damage: changes of a few bytes, or of a few words of a text, of something valid."""

import re

from hypothesis import strategies as st

NUMBERS = [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**48, 2**63, 2**64 - 1]
WORDS = [
    *("NaN", "Infinity", "-Infinity", "1e999", "-1", "0", "1.5", "1e18", "99999999999999999999"),
    *("null", "true", "[]", "{}", "[[[[", '""', '"7"', '"x"', '"../../x"', '"/etc/passwd"'),
    *(
        '"\\ud800"',
        '"\\u0000"',
        "~",
        "&a [*a]",
        "!!int x",
        "2020-99-99",
        "''",
        "- ",
        "{",
        "}",
        "\t",
    ),
]
TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[-+]?[0-9][-+.0-9eE]*|[\w./]+|[\[\]{}:,]')

Change = tuple[str, int, int, int]
"""What is done, where (of 65,536), how much of it, and with what."""
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["flip", "number", "cut", "copy", "end", "word", "word", "word", "drop"]),
        st.integers(0, 65535),
        st.integers(1, 64),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=4,
)


def changed(data: bytes, changes: list[Change]) -> bytes:
    """``data`` after some changes."""
    for kind, where, size, value in changes:
        at = where * len(data) // 65536
        if kind == "flip":
            data = data[:at] + bytes([value]) + data[at + 1 :]
        elif kind == "number":
            width = 1 << size % 4
            number = NUMBERS[value % len(NUMBERS)] % (1 << 8 * width)
            data = data[:at] + number.to_bytes(width, "little") + data[at + width :]
        elif kind == "cut":
            data = data[:at] + data[at + size :]
        elif kind == "copy":
            data = data[:at] + data[at : at + size] * (1 + value % 8) + data[at + size :]
        elif kind == "end":
            data = data[:at]
        else:
            data = _with_word(data, where, "" if kind == "drop" else WORDS[value % len(WORDS)])
    return data


def _with_word(data: bytes, where: int, word: str) -> bytes:
    """``data`` with a word in place of one of its own."""
    tokens = list(TOKEN.finditer(data[:200_000]))
    if not tokens:
        return data + word.encode()
    chosen = tokens[where * len(tokens) // 65536]
    return data[: chosen.start()] + word.encode() + data[chosen.end() :]


def damaged(data: bytes) -> st.SearchStrategy[bytes]:
    """Damaged copies of ``data``."""
    return CHANGES.map(lambda changes: changed(data, changes))

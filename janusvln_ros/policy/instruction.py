"""Words as they come from people, topics and files, on their way to the prompt."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from janusvln_ros.errors import require

MAX_INSTRUCTION = 4000
"""Characters of an instruction that a person or a topic may give at once."""


def clean_instruction(text: str, most: int | None = None) -> str:
    """
    Return ``text`` as the prompt gets it: as it is, but for control characters.

    White space stays, so that a published text is prompted as it was published; other control
    characters (escapes, bells, broken surrogates) become spaces.

    Raises:
        InputError: no letter, digit, mark or symbol is in it, or more than ``most`` characters.
    """
    require(
        most is None or len(text) <= most,
        f"the instruction has {len(text)} characters; at most {most} are allowed",
    )
    require(
        any(unicodedata.category(c)[0] in "LNPS" for c in text),
        "the instruction is empty: say where to go, for example 'walk to the table and stop'",
    )
    return "".join(
        " " if unicodedata.category(c) in ("Cc", "Cs") and not c.isspace() else c for c in text
    )


WORD = re.compile(r"(?<![^\W_])[^\W\d_]+(?:'[^\W\d_]+)*")
"""
A word of an instruction: letters, with apostrophes inside. Letters behind a digit, as in "2nd",
are none.
"""

LETTERS = "abcdefghijklmnopqrstuvwxyz"

LONGEST_WORD = 24
"""Letters of the longest word that is looked for among the known ones."""


@dataclass(frozen=True)
class Spelling:
    """
    What a checkpoint knows of words, to read what was mistyped.

    Attributes:
        words: every word it takes whole, lower case.
        likely: words that were meant rather than others, in groups, the likeliest first: those
            that directions are full of, those for what stands in homes, those of any text.
    """

    words: frozenset[str]
    likely: tuple[frozenset[str], ...] = ()

    def fold(self, text: str) -> str:
        """
        ``text`` in lower case, where a word that is not known and one slip away from a likely one
        is that one.

        A slip is two neighbours exchanged, which is looked for first, or one letter too many, too
        few or another one (Damerau). The first group that has such a word decides; where it has
        several, the word stays as it is. A word of two letters may only be one of the first group,
        one of three or four none of the last.
        """
        return WORD.sub(lambda found: self._read(found.group()), text.lower().replace("’", "'"))

    def _read(self, word: str) -> str:
        plain = _without_accents(word)
        if not 2 <= len(plain) <= LONGEST_WORD or self.knows(plain):
            return word
        count = {2: 1, 3: -1, 4: -1}.get(len(plain), len(self.likely))
        groups = self.likely[:count]
        for near in (set(exchanges(plain)), set(one_slip_from(plain))):
            if found := next(filter(None, (near & group for group in groups)), None):
                return found.pop() if len(found) == 1 else word
        return word

    def knows(self, word: str) -> bool:
        """Whether ``word`` (lower case) is known, as it is or without a plural's or owner's s."""
        return word in self.words or word.removesuffix("s").removesuffix("'") in self.words


def _without_accents(word: str) -> str:
    parts = unicodedata.normalize("NFD", word)
    return "".join(c for c in parts if unicodedata.category(c) != "Mn")


def exchanges(word: str) -> Iterator[str]:
    """Every text in which two neighbouring letters of ``word`` are exchanged."""
    return (word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(len(word) - 1))


def one_slip_from(word: str) -> Iterator[str]:
    """Every text one slip away from ``word`` (exchanges aside), in ASCII letters; some twice."""
    for i in range(len(word) + 1):
        before, after = word[:i], word[i:]
        yield before + after[1:]
        for letter in LETTERS:
            yield before + letter + after
            yield before + letter + after[1:]

"""
What WordNet knows of words, for vectors in which words that mean the same lie near each other.

A sentence encoder knows words by the company they keep: to it "navy" is military and "timepiece"
a rare word. WordNet (Fellbaum, 1998; files as in its manual page wndb(5WN)) says what they are:
blue, and what a clock is. Vectors are moved by it as Faruqui et al. ("Retrofitting word vectors to
semantic lexicons", NAACL 2015) describe.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from janusvln_ros.errors import InputError, require

PARTS_OF_SPEECH = ("noun", "verb", "adj")

SENSES = 5
"""Of a word, the commonest; the n-th counts as 1 / n."""

ROUNDS = 10
"""After which vectors hardly move any more."""

KIND_OF = ("@", "&")
"""Pointers to what something is a kind of, and to adjectives of like meaning."""

Related = Mapping[str, Mapping[str, float]]
"""Words that mean what a word means, or what it is a kind of, and how much each counts."""


def related(folder: Path, words: Collection[str]) -> dict[str, dict[str, float]]:
    """
    What WordNet says of ``words``, among themselves.

    Args:
        folder: with its ``index.noun``, ``data.noun`` and so on (Debian: package wordnet-base,
            folder ``/usr/share/wordnet``).

    Raises:
        InputError: a file is missing or is none of WordNet's.
    """
    known, found = set(words), dict[str, dict[str, float]]()
    for part in PARTS_OF_SPEECH:
        data, index = folder / f"data.{part}", folder / f"index.{part}"
        for path in (data, index):
            require(
                path.is_file(),
                f"{path} is missing: give the folder of WordNet's files (Debian's package "
                "wordnet-base puts them into /usr/share/wordnet)",
            )
        try:
            meanings = {offset: (names, kinds) for offset, names, kinds in _meanings(data)}
            for word, offsets in _senses(index):
                if word not in known:
                    continue
                for n, offset in enumerate(offsets[:SENSES], 1):
                    names, kinds = meanings[offset]
                    for name in (
                        *names,
                        *(other for kind in kinds for other in meanings[kind][0]),
                    ):
                        if name in known and name != word:
                            counts = found.setdefault(word, {})
                            counts[name] = counts.get(name, 0.0) + 1 / n
        except (ValueError, IndexError, KeyError) as error:
            raise InputError(f"{data} and {index} are no files of WordNet's: {error}") from error
    return found


def _lines(path: Path) -> Iterator[list[str]]:
    """Fields of the lines of a file, of which those that begin blank are the licence."""
    with path.open(encoding="utf-8") as file:
        yield from (line.split(" | ")[0].split() for line in file if not line.startswith(" "))


def _meanings(path: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Offset, words, and offsets of what it is a kind of, for every meaning of a data file."""
    for fields in _lines(path):
        end = 4 + 2 * int(fields[3], 16)
        names = [name.lower() for name in fields[4:end:2]]
        pointers = fields[end + 1 : end + 1 + 4 * int(fields[end])]
        kinds = [
            offset for symbol, offset in zip(pointers[::4], pointers[1::4]) if symbol in KIND_OF
        ]
        yield fields[0], names, kinds


def _senses(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Words of an index file with the offsets of their meanings, the commonest first."""
    for fields in _lines(path):
        yield fields[0], fields[-int(fields[2]) :]


def retrofit(vectors_NK: np.ndarray, words: Sequence[str], close: Related) -> np.ndarray:
    """
    Vectors of ``words``, each moved halfway towards the mean of those that it is ``close`` to; a
    word that is close to none stays where it is.
    """
    place = {word: n for n, word in enumerate(words)}
    moved_NK = vectors_NK.copy()
    drawn = [
        (
            place[word],
            [place[name] for name in counts],
            np.array(list(counts.values())) / sum(counts.values()),
        )
        for word, counts in close.items()
    ]
    for _ in range(ROUNDS):
        for n, others, shares in drawn:
            moved_NK[n] = (vectors_NK[n] + shares @ moved_NK[others]) / 2
    return moved_NK

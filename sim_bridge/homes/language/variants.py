"""
The same instruction in another form: case, typos, synonyms, politeness. Pure functions of the text
and a seed.
"""

import functools
import random
import re
from collections.abc import Callable

from sim_bridge.homes.language.grammar import known_words
from sim_bridge.homes.language.lexicon import WALL_COLOURS, WORDS, synonyms

VARIANTS = ("lower", "upper", "typo", "synonyms", "please")
"""Names of the variants."""

_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEIGHBOURS = {
    key: "".join(
        other
        for near in _ROWS[max(r - 1, 0) : r + 2]
        for c, other in enumerate(near)
        if other != key and abs(c - column) <= 1
    )
    for r, row in enumerate(_ROWS)
    for column, key in enumerate(row)
}
_COMMON = frozenset(
    re.findall(
        r"\w+",
        """
        all and any are bad ball bar bead bear bid bit bled blow boss bread bow but cable can car
        case cat clack click cock cot cold doo dog dot dive dor down enter exit fair fed for fro
        from gold good got gray had hair hall ham has hat head heat her hill him his hole hot hour
        how lack lake lamb lad lift lit loft look lot mall met more new not now of off on or our
        out own oven part pant pass past pin pine pink pole pool pork port post read reed rod room
        rug run sad said sea seat see set sit site six sofa son stop stab stable tall tale tell ten
        than that then there this to too took top tow toy two walk wall want war was way wear well
        wet what when wheel white wide will with wok work yell you
        """,
    )
)


_ROOM = re.compile(
    rf"(?: and \w+|, \w+)* (?:{'|'.join(WORDS['room'] + WORDS['hallway'])})s?\b", re.IGNORECASE
)
"""What follows the colour of a room."""


def varied(text: str, variant: str, seed: int) -> str:
    """
    ``text`` in the form of ``variant`` (of `VARIANTS`), drawn with ``seed`` and the text itself.

    Raises:
        KeyError: no such variant.
    """
    rng = random.Random(f"{seed} {variant} {text}")
    forms: dict[str, Callable[[random.Random, str], str]] = {
        "lower": lambda _, words: words.lower(),
        "upper": lambda _, words: words.upper(),
        "typo": _one_typo_a_sentence,
        "synonyms": exchange_synonyms,
        "please": _ask_politely,
    }
    return forms[variant](rng, text)


def _one_typo_a_sentence(rng: random.Random, text: str) -> str:
    """A typo in every sentence of ``text`` that has a word of three letters or more."""
    pieces = re.split(r"(?<=[.!?])(\s+)", text)
    return "".join(piece if piece.isspace() else with_typo(rng, piece) for piece in pieces)


def with_typo(rng: random.Random, text: str) -> str:
    """
    ``text`` with one typo: a neighbouring key, or a letter doubled, dropped or exchanged with the
    next. It never makes a word that means something else; text without a word of three letters or
    more stays as it is.
    """
    words = list(re.finditer(r"[A-Za-z]{3,}", text))
    rng.shuffle(words)
    for found in words:
        word = found.group()
        for _ in range(8):
            wrong = _misspelled(rng, word)
            if wrong.lower() not in _real_words() and wrong != word:
                return text[: found.start()] + wrong + text[found.end() :]
    return text


@functools.cache
def _real_words() -> frozenset[str]:
    """Words that a typo must not make."""
    return known_words() | _COMMON


def _misspelled(rng: random.Random, word: str) -> str:
    """One slip in ``word``; the first letter is hit seldom, as people do."""
    i = rng.randrange(len(word)) if rng.random() < 0.15 else rng.randrange(1, len(word))
    slip = rng.choice(("key", "double", "drop", "swap"))
    letter = word[i]
    if slip == "swap":
        i = min(i, len(word) - 2)
        return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    if slip == "drop":
        return word[:i] + word[i + 1 :]
    if slip == "double":
        return word[:i] + letter + word[i:]
    near = rng.choice(_NEIGHBOURS[letter.lower()])
    return word[:i] + (near.upper() if letter.isupper() else near) + word[i + 1 :]


def exchange_synonyms(rng: random.Random, text: str) -> str:
    """
    Every word that has synonyms in the language replaced by another one of them, held-out words
    among them; the same word by the same one throughout. The case of its first letter stays.
    """
    groups = synonyms()
    chosen: dict[str, str] = {}

    def exchange(found: re.Match[str]) -> str:
        word = found.group()
        lower = word.lower()
        # Walls are lighter than things: a blue room may be azure, never navy.
        wall = lower in WALL_COLOURS and _ROOM.match(text, found.end())
        group = [w for w in WALL_COLOURS[lower] if " " not in w] if wall else groups.get(lower, ())
        others = [other for other in group if other != lower]
        if not others:
            return word
        key = f"{lower} room" if wall else lower
        if key not in chosen:
            chosen[key] = rng.choice(others)
        other = chosen[key]
        return other[0].upper() + other[1:] if word[0].isupper() else other

    return with_articles(re.sub(r"[A-Za-z0-9]+(?:-[A-Za-z]+)*", exchange, text))


def with_articles(text: str) -> str:
    """``text`` with "a" and "an" as the following word wants them."""
    text = re.sub(r"\b([Aa])n (?=[bcdfghjklmnpqrstvwxyz])", r"\1 ", text, flags=re.ASCII)
    return re.sub(r"\b([Aa]) (?=[aeio]|upper|ebony)", r"\1n ", text)


_ASKED = (
    "Please {}",
    "Could you please {}",
    "Would you please {}",
    "Can you please {}",
    "{}, please",
    "{}, thank you",
    "Hello, please {}",
    "Please {}, thank you",
)


def _ask_politely(rng: random.Random, text: str) -> str:
    """``text`` with a polite frame around it."""
    body = text.strip()
    end = body[-1] if body and body[-1] in ".!?" else ""
    body = body.removesuffix(end) if end else body
    frame = rng.choice(_ASKED)
    if not frame.startswith("{}") and body[:1].isupper() and not body[:2].isupper():
        body = body[0].lower() + body[1:]
    return frame.format(body) + end

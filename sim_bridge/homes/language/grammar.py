"""
The grammar: rules of patterns and words, read once, and the drawing of text from them.
"""

import hashlib
import random
import re
from bisect import bisect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import accumulate

from sim_bridge.homes.language.lexicon import (
    COLOURS,
    HELD_OUT_WORDS,
    KINDS,
    WALL_COLOURS,
    WORDS,
)
from sim_bridge.homes.language.phrases import PHRASES

_PIECES = re.compile(r"\{(\w+)\}|(\[)|(\])|(\()|(\))|(\|)|([^\[\]{}()|]+)")


@dataclass(frozen=True)
class Option:
    """
    One way to say what a rule stands for: its ``text`` as it is written, read into ``nodes``; the
    slots it ``needs``; whether it is ``held_out`` of training; and how readily it is drawn.
    """

    text: str
    nodes: tuple[object, ...]
    needs: frozenset[str]
    held_out: bool
    weight: float


@dataclass(frozen=True)
class _Reference:
    name: str


@dataclass(frozen=True)
class _Choice:
    options: tuple[tuple[object, ...], ...]


def _read(text: str) -> tuple[object, ...]:
    """Read a pattern into nodes: text, references to rules and slots, choices."""
    tokens = [found.group() for found in _PIECES.finditer(text)]
    nodes, rest = _sequence(tokens, 0)
    assert rest == len(tokens), f"pattern {text!r} has a bracket too many"
    return nodes


def _sequence(tokens: list[str], i: int) -> tuple[tuple[object, ...], int]:
    """Read nodes from token ``i`` up to the end, a closing bracket or a bar."""
    nodes: list[object] = []
    while i < len(tokens) and tokens[i] not in ("]", ")", "|"):
        token = tokens[i]
        if token in ("[", "("):
            options, i = [], i
            while tokens[i] not in ("]", ")"):
                part, i = _sequence(tokens, i + 1)
                options.append(part)
            if token == "[":
                options.append(())
            nodes.append(_Choice(tuple(options)))
        elif token.startswith("{"):
            nodes.append(_Reference(token[1:-1]))
        else:
            nodes.append(token.replace("<", "(").replace(">", ")"))
        i += 1
    return tuple(nodes), i


def _is_held_out(rule: str, texts: tuple[str, ...], place: int) -> bool:
    """
    Whether an option is held out: it holds a word that is, or it is one of the less common
    patterns of a rule with many, by its digest.
    """
    text = texts[place]
    words = set(re.findall(r"[\w'-]+", re.sub(r"\{\w+\}", " ", text).lower()))
    if words & HELD_OUT_WORDS:
        return True
    if rule not in PHRASES or len(texts) < 6 or 2 * place < len(texts):
        return False
    return hashlib.sha256(f"{rule}: {text}".encode()).digest()[0] % 5 == 0


def _weight(rule: str, place: int) -> float:
    """How readily the option at ``place`` of a rule is drawn: everyday words first."""
    group = rule.split()[0]
    if group in ("colour", "wall"):
        return (place + 1) ** -1.7
    if group == "kind":
        return (place + 1) ** -1.1
    return (place + 1) ** -1.1 if rule in WORDS else (place + 2) ** -0.5


def _options(rule: str, texts: tuple[str, ...]) -> tuple[Option, ...]:
    """The options of a rule, read."""
    return tuple(
        Option(
            text,
            _read(text),
            frozenset(re.findall(r"\{([A-Z_]+)\}", text)),
            _is_held_out(rule, texts, texts.index(text)),
            _weight(rule, place),
        )
        for place, text in enumerate(texts)
    )


def _rules(texts: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[Option, ...]]:
    """All rules, read; a pattern needs what the rules it draws from need in any case."""
    rules = {rule: _options(rule, options) for rule, options in texts.items()}

    def needs(option: Option) -> frozenset[str]:
        inner = [n.name for n in option.nodes if isinstance(n, _Reference) and n.name in rules]
        return option.needs.union(
            *(frozenset.intersection(*map(needs, rules[name])) for name in inner)
        )

    return {
        rule: tuple(replace(option, needs=needs(option)) for option in options)
        for rule, options in rules.items()
    }


RULES: Mapping[str, tuple[Option, ...]] = _rules(
    {
        **{f"kind {name}": texts for name, texts in KINDS.items()},
        **{f"colour {name}": texts for name, texts in COLOURS.items()},
        **{f"wall {name}": texts for name, texts in WALL_COLOURS.items()},
        **WORDS,
        **PHRASES,
    }
)
"""All rules."""


def known_words() -> frozenset[str]:
    """Every word that the language knows, in lower case."""
    return frozenset(
        word
        for options in RULES.values()
        for option in options
        for word in re.findall(r"[a-z0-9']+", re.sub(r"\{\w+\}", " ", option.text).lower())
    ) | {"left", "right", "one", "the", "a", "an", "it", "them", "is", "are"}


class Speaker:
    """
    Draws text from the rules with ``random``.

    ``held_out`` allows held-out options and prefers them; ``sides`` is how each hand is called,
    exchanged in a mirror. ``used`` lists (rule, option) as they were drawn, and whether one was
    held out is in ``used_held_out``.
    """

    def __init__(self, random_: random.Random, *, held_out: bool, mirrored: bool) -> None:
        self.random = random_
        self.held_out = held_out
        self.sides = {"left": "right", "right": "left"} if mirrored else {}
        self.used: list[tuple[str, str]] = []
        self.used_held_out = False

    def chance(self, share: float) -> bool:
        """True in a ``share`` of the cases."""
        return self.random.random() < share

    def say(self, rule: str, **slots: str | None) -> str:
        """
        One of the options of ``rule``, of those whose slots are given and not None.

        ``SIDE`` is given as "left" or "right" and said as in the mirror, if there is one.
        """
        there = {name for name, value in slots.items() if value is not None}
        options = [
            o for o in RULES[rule] if o.needs <= there and (self.held_out or not o.held_out)
        ]
        weights = [o.weight * (3.0 if o.held_out else 1.0) for o in options]
        total = list(accumulate(weights))
        option = options[bisect(total, self.random.random() * total[-1])]
        self.used.append((rule, option.text))
        self.used_held_out |= option.held_out
        return self._write(option.nodes, slots)

    def side(self, side: str) -> str:
        """How a hand is called."""
        return self.sides.get(side, side)

    def _write(self, nodes: tuple[object, ...], slots: Mapping[str, str | None]) -> str:
        """The text of nodes."""
        text = ""
        for node in nodes:
            if isinstance(node, _Choice):
                text += self._write(self.random.choice(node.options), slots)
            elif isinstance(node, _Reference):
                if node.name == "SIDE":
                    text += self.side(slots["SIDE"] or "")
                elif node.name.isupper():
                    text += slots[node.name] or ""
                else:
                    text += self.say(node.name, **slots)
            else:
                text += str(node)
        return text

"""
Whether a checkpoint can make sense of an instruction, told before anything moves.

What a network that was taught by few sentences does with words it never met is anyone's guess, and
it does something for any words. So an instruction is held against what the checkpoint's training
said (``words.json``, and the vectors of its words); checkpoints that do not say what they were
taught with, as the published ones, are asked nothing.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from transformers import PreTrainedTokenizerBase

from janusvln_ros.policy.instruction import WORD
from janusvln_ros.policy.tokenizer import (
    listening_folder,
    load_tokenizer,
    load_trained_words,
    load_word_vectors,
    read,
)

Verdict = Literal["understood", "doubtful", "noise"]
"""``noise`` is no instruction at all; ``doubtful`` is one of which something may be missed."""

NEAR = 0.6
"""
Cosine from which an untrained word counts as the trained word it is nearest to, unless directions
and homes are full of it. Below it are 17 of 20 everyday words that have nothing to do with homes
(median 0.33) and all gibberish but what happens to begin with a word; of such words as people call
things in homes, half are above 0.45.
"""

NOISE_SHARE = 0.5
"""
Share of words far from training from which a text is noise, unless a clause of it begins as an
order does. Chosen with `benchmarks/understanding.py`, as are the two below.
"""

NOISE_SHARE_OF_ORDERS = 0.75
"""The same where a clause begins as an order does: "go to the veranda" is half unknown."""

DOUBTFUL_SHARE = 0.2
"""Share of words far from training from which an instruction is doubtful."""

LIKE = 0.5
"""
Cosine from which what stands in homes counts as the trained thing it is nearest to. A third of the
synonyms that were held out of training are above it, and as many of other things in homes: the
vectors tell little about one word, so that it only counts where a text names nothing else.
"""

UNTAUGHT_SHARE = 0.5
"""Share of things unlike any that training named from which an instruction is doubtful."""

GIBBERISH = 20
"""Words spelt as none that are enough to tell noise by, where they are the most of a text."""

NAMED = 5
"""Most words that a reason names."""

ACTIONS = frozenset(
    """
    go goes going walk walks walking move moves moving head heads heading turn turns turning
    rotate spin face facing wait waits halt stop stops stopping pass passes passing take takes
    taking leave leaves leaving enter enters entering exit follow keep keeps continue start
    starts starting get come comes make cross crossing proceed stand stay remain find look
    return reach reaching arrive step visit locate search seek approach avoid ignore skip run
    bring pull pop slip cut drive roll travel wander stroll march swing bear veer pivot circle
    explore patrol fetch
    """.split()  # noqa: SIM905
)
"""Words that tell a robot to do something."""

DIRECTIONS = frozenset(
    """
    left right straight ahead forward forwards around behind back past into through thru between
    beside near toward towards next across along opposite round halfway onto beyond alongside
    backward backwards onward
    """.split()  # noqa: SIM905
)
"""Words that tell where, without naming a thing."""

PLAIN = frozenset(
    """
    the and of your a an to on in at you it is that then when where see with from out up by end
    until front side one not don't yellow orange purple pink brown black white grey gray red
    blue green turquoise teal dark color colour coloured colored this these those its ones
    other another each every both all any no i yours here while till before after or but so
    first second third fourth fifth sixth final finally last again once twice without over
    under above below besides inside outside within off down away if too also just only are be
    has have do doesn't can can't cannot could will would should must let let's need want like
    please thanks thank hello hey now ok okay yes gone gets getting coming makes making begin
    began begins ends ending came middle center centre far further furthest farthest nearest
    close closest adjacent way path direction half quarter full about degrees metre metres
    meter meters feet foot hand hands sides same different big small large little tall short
    long wide narrow low high immediately directly slightly slowly quickly carefully almost
    instead miss me we us them what which whose how for as via very more much may might soon
    still somewhere i'm i'd i'll it's that's there there's you'll you're you've you'd we're
    isn't won't mustn't kindly simply basically hi cheers excuse sorry robot target goal
    destination task aim use using used catch hit meet hang notice glimpse sight listen mind
    got gotta gonna wanna bit lot kind easy luck midst easily gently sharply smoothly careful
    ready roughly approximately oh ah uh um eh hm hmm ha yo mr he she they him her per etc am
    pm cm ft km thing things object objects item items something anything nothing spot place
    open opens opened opening entered passed leads leading stands standing sits hangs marks
    matches containing having choose pick single sole sharp framed flanked painted walled
    tucked upright rear bottom top length looking seeing keeping was were been being had did
    does who whom why because than his their my our some many really yeah well such ever never
    always good great nice day dead free form done hold three two unless except either someone
    somebody
    """.split()  # noqa: SIM905
)
"""Words that make sentences and name no way by themselves; they say nothing about a text."""

OPENINGS = re.compile(
    r"(?:(?:i(?:'d| would)? (?:want|need|like) you to|please|kindly|just|hello|hi|hey|robot|ok"
    r"|okay|so|now|first|next|finally|also|can|could|would|will|should|must|you|need|have|to|let's"
    r"|what you(?:'ll)?(?: need| have| want)?(?: to)? do is|sharp|hard|slight|slightly|directly"
    r"|immediately|straight away)"
    r"\s+)*"
)
"""What may stand before the verb of an order."""

QUESTION = re.compile(
    r"(?:what|who|why|how|where (?:is|are|am|do|can|should)|(?:is|are|was|were|does|did) "
    r"|(?:do|have) (?:you|i|we|they) )"
)
"""How a text begins that asks."""

_UNITS = (
    r"(?:m|cm|km|ft|met(?:re|er)s?|feet|foot|inch(?:es)?|yards?|steps?|paces?|seconds?|minutes?"
    r"|hours?|degrees?|times)"
)
_COUNTS = (
    r"(?:\d+(?:\.\d+)?|two|three|four|five|six|seven|eight|nine|ten|twenty|thirty|fifty|sixty"
    r"|ninety|half an?|a few|several|a couple(?: of)?)"
)
_SOMEBODY = (
    r"(?:some(?:one|body)|any(?:one|body)|everyone|people|he|she|they|him|her|them|me|us"
    r"|(?:the|a|an|my) (?:man|woman|person|people|child|children|dog|cat|others?|nurse|owner))"
)

BEYOND: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (what, re.compile(pattern))
    for what, pattern in (
        (
            "a condition that it cannot check",
            r"\bunless\b|\bif (?!you (?:don't mind|please|can|could|would)\b|possible\b)"
            r"|\b(?:until|till|when|whenever|once|as soon as|while|before) (?:"
            + _SOMEBODY
            + r"\b|i (?:say|tell|call|come|get|am|give|return)\b"
            r"|it (?:is|gets|turns|becomes|stops|rings|starts)\b"
            r"|(?:the|a|an) \w+(?: \w+)? (?:opens|closes|rings|turns|is (?:open|closed|off|on"
            r"|clear|free|empty|ready))\b|you (?:hear|smell|feel)\b)",
        ),
        ("a choice", r"\beither\b|\bwhichever\b|(?<!more) \bor\b(?! so\b)"),
        (
            "a negation that it was not taught",
            r"\bexcept\b|\bwithout \w+ing\b|\bnever\b|\banything but\b|\bnot until\b"
            r"|\brather than\b",
        ),
        (
            "a length, angle or time",
            rf"\b(?!180 degrees){_COUNTS}[- ]?(?:more )?{_UNITS}\b",
        ),
        (
            "a number",
            r"(?<![\w.])(?!180\b)\d+(?!\d|st\b|nd\b|rd\b|th\b|[.\d]*[- ]?" + _UNITS + r"\b)",
        ),
        (
            "a repetition",
            r"\btwice\b|\brepeat|\bforever\b|\bback and forth\b|\b(?:every|each|all the) "
            r"(?:rooms?|doors?)\b|\bpatrol\b",
        ),
        (
            "another floor",
            r"\b(?:up|down|climb|descend) (?:the |a )?(?:\w+ )?(?:stairs?|steps|staircase"
            r"|stairway)\b|\b(?:up|down)stairs\b"
            r"|\b(?:take|use|into|enter) the (?:lift|elevator|escalator)\b",
        ),
        (
            "somebody to mind",
            rf"\b(?:follow|look for|find|go to|bring) {_SOMEBODY}\b"
            rf"|\bwait for (?!me (?:at|by|near|in|next|beside|there|here)\b){_SOMEBODY}\b",
        ),
        (
            "something other than moving",
            r"\bpick up\b|\b(?:grab|fetch|clean|vacuum|sweep|throw|lift) (?:the|a|an|my|it|some)\b"
            r"|(?:^|[.,;!]|\band|\bthen|\bplease|\bto)\s*(?:open|close|shut|push|press|pull|lock"
            r"|unlock|bring|carry|put|switch) (?:on |off |down )?(?:the|a|an|my|it|me|some)\b"
            r"|\b(?:turn|switch) (?:on|off) the\b",
        ),
    )
)
"""What no sentence that the checkpoint was taught by asks for, and how it is said."""


@dataclass(frozen=True)
class UnknownWord:
    """
    A word of an instruction that training never said.

    Attributes:
        word: as it was read, lower case.
        nearest: the trained word whose vector lies nearest; "" where none was written down.
        similarity: cosine of the two, -1 to 1.
        far: whether it can be taken for nothing that training said.
    """

    word: str
    nearest: str
    similarity: float
    far: bool


@dataclass(frozen=True)
class Understanding:
    """
    What a checkpoint makes of an instruction.

    Attributes:
        verdict: see `Verdict`.
        reasons: why it is not ``understood``, each a part of a sentence; "it" is the instruction.
        unknown: the words that training never said.
        told: what the network is told in its place, if other words.
    """

    verdict: Verdict
    reasons: tuple[str, ...] = ()
    unknown: tuple[UnknownWord, ...] = ()
    told: str = ""


class Vocabulary:
    """
    The words that a checkpoint's training said, and where others lie among them.

    Safe to use on any thread: its tokenizer is its own.

    Args:
        tokenizer: of the checkpoint, with `InstructionTokenizer.spelling`.
        vectors_WK: float32, of the tokenizer's last W ids (`load_word_vectors`).
        trained: the words that training said. Those that the tokenizer does not take whole are
            slips of typing, and left out.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, vectors_WK: np.ndarray, trained: Sequence[str]
    ) -> None:
        self.tokenizer, self.vectors_WK = tokenizer, vectors_WK
        self.spelling = getattr(tokenizer, "spelling", None)
        self.trained = tuple(w for w in trained if not self.spelling or self.spelling.knows(w))
        self._known = frozenset(self.trained)

    @classmethod
    def load(cls, checkpoint: Path) -> "Vocabulary | None":
        """
        Read that of a checkpoint folder; None where it does not say what it was taught with.

        Raises:
            InputError: a damaged file.
        """
        folder = listening_folder(checkpoint)
        trained, vectors = load_trained_words(folder), load_word_vectors(folder)
        if not trained or vectors is None:
            return None
        return cls(load_tokenizer(folder), vectors, trained)

    @cached_property
    def homely(self) -> frozenset[str]:
        """Words that directions and homes are full of, trained or not."""
        return frozenset().union(*self.spelling.likely[:-1]) if self.spelling else frozenset()

    @cached_property
    def _trained_vectors(self) -> np.ndarray:
        return self._unit_vectors(self.trained)

    def read(self, instruction: str) -> str:
        """``instruction`` as the checkpoint reads it."""
        return read(self.tokenizer, instruction)

    def is_gibberish(self, instruction: str) -> bool:
        """
        Whether most words are spelt as none that there is, and they are many: told at once, since
        to read each as what it might have been takes long.
        """
        if self.spelling is None:
            return False
        words = list(dict.fromkeys(_words(instruction.lower())))
        strange = sum(not self.spelling.knows(word) for word in words)
        return strange >= max(GIBBERISH, NOISE_SHARE * len(words))

    def knows(self, word: str) -> bool:
        """Whether training said ``word`` (lower case), as it is or without a plural's s."""
        return word in self._known or word.removesuffix("s").removesuffix("'") in self._known

    def unknown(self, text: str) -> list[UnknownWord]:
        """
        The words of ``text`` (as it was `read`) that training never said, each once and in order,
        with the nearest that it did say. A word that is several tokens has their mean for a
        vector; one that has none is near nothing.
        """
        words = dict.fromkeys(_words(text))
        strange = [word for word in words if not self.knows(word)]
        if not self.trained or not strange:
            return []
        likeness = self._unit_vectors(strange) @ self._trained_vectors.T
        nearest = likeness.argmax(axis=1)
        return [
            UnknownWord(word, self.trained[i], float(row[i]), self._is_far(word, float(row[i])))
            for word, row, i in zip(strange, likeness, nearest)
        ]

    def _is_far(self, word: str, similarity: float) -> bool:
        """
        Whether a word that training never said can be taken for none that it did. One that the
        tokenizer takes apart lies anywhere, by its pieces: it is taken only for one that it begins
        with, with an ending of its own.
        """
        if word in self.homely or word.removesuffix("s") in self.homely:
            return False
        if self.spelling is None or self.spelling.knows(word):
            return similarity < NEAR
        return not any(self.knows(word[:n]) for n in range(max(4, len(word) - 3), len(word)))

    def _unit_vectors(self, names: Sequence[str]) -> np.ndarray:
        free = len(self.tokenizer) - len(self.vectors_WK)
        rows = np.zeros((len(names), self.vectors_WK.shape[1]), np.float32)
        for row, name in zip(rows, names):
            ids = np.array(self.tokenizer.encode(name, add_special_tokens=False)) - free
            row += self.vectors_WK[ids[ids >= 0]].sum(axis=0)  # of any length: only angles count
        length = np.linalg.norm(rows, axis=1, keepdims=True)
        rows /= np.where(length > 0, length, 1)
        return rows


def understanding(instruction: str, vocabulary: Vocabulary | None) -> Understanding:
    """
    Say what a checkpoint makes of ``instruction``, which may be any text.

    Noise is a text without words, one that names no place, thing, direction or movement, one that
    asks a question, and one most of whose words are far from everything training said. Doubtful is
    one that names nothing training said itself, one with many words far from it, and one that asks
    for what no trained sentence asks (`BEYOND`).

    Args:
        instruction: as it was typed.
        vocabulary: of the checkpoint; None: nothing is known of it, and everything is understood.
    """
    if vocabulary is None:
        return Understanding("understood")
    if vocabulary.is_gibberish(instruction):
        return Understanding("noise", ("most of its words are spelt as none that there is",))
    text = HALF_TURN.sub("around", vocabulary.read(instruction))
    unknown = tuple(vocabulary.unknown(text))
    said = dict.fromkeys(w for w in _words(text) if w not in PLAIN)
    naming = [w for w in said if _names(w, vocabulary)]
    if why := _noise(text, said, naming, unknown, vocabulary):
        return Understanding("noise", why, unknown)
    reasons = _doubts(said, naming, unknown, vocabulary)
    reasons += tuple(
        f"it asks for {what} ({found.group().strip(' .,;!')!r})"
        for what, pattern in BEYOND
        if (found := pattern.search(instruction.lower()))
    )
    return Understanding("doubtful" if reasons else "understood", reasons, unknown)


NAMES_NOTHING = "it names no place, thing, direction or movement that the checkpoint knows"


HALF_TURN = re.compile(r"\b180\b")


def _noise(
    text: str,
    said: Collection[str],
    naming: Collection[str],
    unknown: Sequence[UnknownWord],
    vocabulary: Vocabulary,
) -> tuple[str, ...]:
    """Why a text is no instruction; none if it may be one."""
    if not any(len(word) > 1 for word in _words(text)):
        return ("it has no words",)
    far = [u for u in unknown if u.far and u.word in said]
    named = _named(far, len(said))
    order = any(_is_order(clause) for clause in _clauses(text))
    trained = any(vocabulary.knows(w) for w in naming)
    if not naming or (far and not trained and not order):
        return (NAMES_NOTHING, *named)
    if QUESTION.match(text.strip()) and not order:
        return ("it asks a question and tells no way",)
    most = NOISE_SHARE_OF_ORDERS if order else NOISE_SHARE
    return named if len(far) >= most * len(said) else ()


def _doubts(
    said: Collection[str],
    naming: Collection[str],
    unknown: Sequence[UnknownWord],
    vocabulary: Vocabulary,
) -> tuple[str, ...]:
    """What of the words of an instruction may not be understood."""
    far = [u for u in unknown if u.far and u.word in said]
    strange = [u for u in unknown if u.word in naming and not u.far]
    if not any(vocabulary.knows(w) for w in naming):
        only = f": {_list(strange)}" if strange else ""
        return (*_named(far, len(said)), f"it names nothing that training said{only}")
    reasons = _named(far, len(said)) if len(far) >= DOUBTFUL_SHARE * len(said) else ()
    things = [w for w in naming if w not in ACTIONS | DIRECTIONS]
    unlike = [u for u in strange if u.similarity < LIKE and u.word in things]
    if unlike and len(unlike) >= UNTAUGHT_SHARE * len(things):
        reasons += (
            f"things and places that were not in training ({len(unlike)} of {len(things)}): "
            f"{_list(unlike)}",
        )
    return reasons


def _words(text: str) -> Iterator[str]:
    return (found.group() for found in WORD.finditer(text))


def _names(word: str, vocabulary: Vocabulary) -> bool:
    """Whether a word names a movement, a direction, or what stands in homes."""
    homely = word in vocabulary.homely or word.removesuffix("s") in vocabulary.homely
    return len(word) > 1 and word not in PLAIN and (homely or word in ACTIONS | DIRECTIONS)


def _clauses(text: str) -> list[str]:
    return re.split(r"[^\w\s'-]+|\s-|\n|\b(?:and|then)\b", text)


def _is_order(clause: str) -> bool:
    """Whether a clause begins with what to do or which way."""
    clause = clause.strip()
    opening = OPENINGS.match(clause + " ")
    rest = clause[opening.end() :] if opening else clause
    word = WORD.match(rest)
    return word is not None and word.group() in ACTIONS | DIRECTIONS


def _named(far: Sequence[UnknownWord], of: int) -> tuple[str, ...]:
    """The reason that there are words far from training; none where there are none."""
    if not far:
        return ()
    return (f"words far from what training said ({len(far)} of {of}): {_list(far)}",)


def _list(words: Sequence[UnknownWord]) -> str:
    names = [
        f"{u.word!r} (nearest {u.nearest!r})" if u.similarity > 0 else f"{u.word!r}"
        for u in words[:NAMED]
    ]
    return ", ".join(names) + (" ..." if len(words) > NAMED else "")

"""
An instruction in anybody's words, said again in the sentences that a network was taught with.

A network that met a few sentences while it learned to drive follows those. A checkpoint may bring
along, in its folder ``rephrase``, a `Rephraser` that was taught with far more sentences than
pictures can be made for, with the tokenizer and the words that go with it. What the network is
then told can be read, so it is shown to whoever gave the instruction.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from janusvln_ros.errors import require
from janusvln_ros.model.rephrase import REMEDY, Rephraser
from janusvln_ros.policy.identity import REPHRASE_FOLDER
from janusvln_ros.policy.tokenizer import load_tokenizer, read

UNSURE = 0.3
"""
Probability of what an instruction is put into from which it is taken to be what was meant.
"""

MOST_READ = 256
"""Tokens of the longest text that is put plainly, twice as many as any of training has."""


@dataclass(frozen=True)
class Said:
    """What an instruction is put into, and the probability ``certainty`` of it."""

    text: str
    certainty: float

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why it may not be what was meant, a part of a sentence about the instruction."""
        if self.certainty >= UNSURE:
            return ()
        if self.certainty == 0:
            return ("it cannot be put plainly",)
        return (
            f"it can be put plainly in several ways, of which the likeliest has "
            f"{100 * self.certainty:.0f} %: {self.text!r}",
        )


class Rephrasing:
    """
    Says instructions again. Safe to use on any thread: its tokenizer is its own.

    Args:
        network: that was taught to.
        tokenizer: of the same folder.
    """

    def __init__(self, network: Rephraser, tokenizer: PreTrainedTokenizerBase) -> None:
        self.network, self.tokenizer = network, tokenizer

    @classmethod
    def load(cls, checkpoint: Path) -> "Rephrasing | None":
        """
        Read that of a checkpoint folder; None where it brings none.

        Raises:
            InputError: a file is missing or damaged, or they do not fit each other.
        """
        folder = checkpoint / REPHRASE_FOLDER
        if not folder.is_dir():
            return None
        network, tokenizer = Rephraser.load(folder), load_tokenizer(folder)
        require(
            len(tokenizer) == network.config.vocab_size,
            f"{folder}: its tokenizer has {len(tokenizer)} tokens, its network "
            f"{network.config.vocab_size}: {REMEDY}",
        )
        return cls(network, tokenizer)

    def say(self, instruction: str) -> Said:
        """
        Put ``instruction`` into the taught sentences; it stays where it is too long for that, or
        where that comes to no end.
        """
        ids = read_ids(self.tokenizer, instruction)
        short = 0 < len(ids) <= MOST_READ
        answer, certainty = self.network.answer(ids) if short else ([], 0.0)
        text = sentences(self.tokenizer.convert_ids_to_tokens(answer))
        return Said(text, certainty) if text and certainty > 0 else Said(instruction, 0.0)


def read_ids(tokenizer: PreTrainedTokenizerBase, instruction: str) -> list[int]:
    """Token ids of an instruction, as it is read: folded, slips of typing mended."""
    ids: list[int] = tokenizer.encode(read(tokenizer, instruction), add_special_tokens=False)
    return ids


def sentences(tokens: Iterable[str]) -> str:
    """English of lower-case words and marks: a capital begins each sentence."""
    text = ""
    for token in tokens:
        if token in (".", ","):
            text += token
        else:
            begins = not text or text.endswith(".")
            text += ("" if not text else " ") + (token.capitalize() if begins else token)
    return text

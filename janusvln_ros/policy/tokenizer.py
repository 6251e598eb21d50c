"""Reading a checkpoint's tokenizer alone, and a stand-in for folders that have none."""

from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from janusvln_ros.errors import InputError

SPECIAL_TOKENS = {
    "bos_token_id": "<|endoftext|>",
    "eos_token_id": "<|im_end|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
}
"""Keys of ``config.json`` and the token each names, in every tokenizer of the Qwen2.5-VL family."""


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """Read the tokenizer of a checkpoint folder, as ``tokenizer.json`` or as ``vocab.json`` with ``merges.txt``.

    Raises:
        InputError: the folder has no tokenizer, or it lacks one of the special tokens.
    """
    folder = Path(folder)
    if (folder / "tokenizer.json").is_file():
        # As it stands: a class chosen by name would rebuild the splitting rules from its own source.
        file = str(folder / "tokenizer.json")
        tokenizer: PreTrainedTokenizerBase = PreTrainedTokenizerFast(tokenizer_file=file, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    else:
        raise InputError(f"{folder} has no tokenizer: tokenizer.json, or vocab.json with merges.txt, belongs beside config.json")
    for token in ("<|im_start|>", *SPECIAL_TOKENS.values()):
        if tokenizer.encode(token, add_special_tokens=False) != [tokenizer.convert_tokens_to_ids(token)]:
            raise InputError(f"the tokenizer in {folder} does not know {token} as one token: take the files of the checkpoint it belongs to")
    return tokenizer


def byte_tokenizer(special_ids: dict[str, int]) -> PreTrainedTokenizerBase:
    """A tokenizer of single bytes, for models with random weights: every text has ids, and no file is read.

    Args:
        special_ids: id of each special token by its string; ids below 256 shift no byte, they only must not repeat.

    Raises:
        InputError: two tokens want one id.
    """
    if len(set(special_ids.values())) < len(special_ids):
        raise InputError(f"special tokens share an id: {special_ids}")
    taken = set(special_ids.values())
    free = (i for i in range(256 + len(taken)) if i not in taken)
    vocabulary = {character: next(free) for character in sorted(pre_tokenizers.ByteLevel.alphabet())} | special_ids
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special_ids])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>")

"""
Everything the language model is told, in the released and the dual mode: words, pictures, ids.

Ids come from the tokenizer's own special-token strings; none is written here. Every piece of text
ends at a special token, so pieces may be tokenised apart and joined.
"""

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from janusvln_ros.actions import Action
from janusvln_ros.errors import require
from janusvln_ros.policy.tokenizer import read

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Style = Literal["evaluation", "training"]

TASK = (
    "You are a visual language navigation model, and your should go to the locations "
    "to complete the given task. Compare the observation and instruction "
    "to infer your current progress, and then select the correct direction from the "
    "candidates to go to the target location and finish the task."
)
"""Opening sentence of both published prompts, its slip included."""

CHOICES = (
    "You should take one of the following actions:\n MOVE_FORWARD\n TURN_LEFT\n TURN_RIGHT\n STOP."
)

DUAL_SYSTEM = "You are a visual language navigation model."
DUAL_USER = (
    "Your task is to {instruction}\nAfter every observation, answer with one action: "
    "MOVE_FORWARD, TURN_LEFT, TURN_RIGHT or STOP.\n"
)

_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"


def _encode(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))


def check_instruction(tokenizer: "PreTrainedTokenizerBase", instruction: str) -> None:
    """
    Refuse text that would change the structure of the prompt.

    Empty text is allowed: evaluations with the text removed need it.

    Raises:
        InputError: the instruction contains one of the tokenizer's special tokens or ``<image>``.
    """
    for token in (*tokenizer.get_added_vocab(), "<image>"):
        require(
            token not in instruction,
            f"the instruction contains {token}, which is a mark of the prompt "
            "itself: write it without",
        )


def _told(tokenizer: "PreTrainedTokenizerBase", instruction: str) -> str:
    """The instruction as the prompt has it. Raises InputError as `check_instruction`."""
    instruction = read(tokenizer, instruction)
    check_instruction(tokenizer, instruction)
    return instruction


def _expand_images(
    tokenizer: "PreTrainedTokenizerBase", ids: list[int], tokens_per_image: int
) -> list[int]:
    pad = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    return [i for token in ids for i in ([token] * tokens_per_image if token == pad else [token])]


def sample_history(n_frames: int, num_history: int) -> list[int]:
    """
    Indices of the frames to read, oldest first, the current frame last.

    All frames while there are at most ``num_history`` earlier ones; after that ``num_history + 1``
    indices spread evenly from the first frame to the current one, each rounded down. Driving,
    DAgger and training data share this rule.

    Args:
        n_frames: frames of the episode so far, the current one included.
        num_history: most earlier frames to read; 0 reads the current frame alone.

    Raises:
        InputError: there is no frame, or ``num_history`` is negative.
    """
    require(
        n_frames >= 1 and num_history >= 0,
        f"cannot choose {num_history} history frames out of {n_frames}: there must "
        "be a frame, and num_history must not be negative",
    )
    if n_frames - 1 <= num_history:
        return list(range(n_frames))
    if num_history == 0:
        return [n_frames - 1]
    return [int(i) for i in np.linspace(0, n_frames - 1, num_history + 1, dtype=int)]


def training_question(instruction: str, n_images: int) -> str:
    """
    The user's turn of a published training sample, with ``<image>`` for every picture (the current
    one last), as it stands in the published files.
    """
    history = "<image>" * (n_images - 1)
    return (
        f"{TASK}\n This is your historical observation:{history}\n This is your "
        f"current observation:<image>\n Your task is to {instruction}\n {CHOICES}"
    )


def released_prompt_ids(
    tokenizer: "PreTrainedTokenizerBase",
    instruction: str,
    n_images: int,
    tokens_per_image: int,
    style: Style = "evaluation",
) -> list[int]:
    """
    Prompt of one step in the released mode, up to and including the line that asks for the answer.

    Args:
        tokenizer: the checkpoint's.
        instruction: what the user said, kept as it is.
        n_images: pictures of this step, the current one last.
        tokens_per_image: fused tokens of one picture (merge groups).
        style: ``evaluation`` is what the published evaluation and DAgger say; ``training`` is the
            other text its training used, whose loader drops the line break after a picture (so one
            is left before the current picture only if there is no history).

    Raises:
        InputError: the instruction or the style cannot be used.
    """
    instruction = _told(tokenizer, instruction)
    require(
        style in get_args(Style),
        f"there is no prompt style {style!r}: choose evaluation or training",
    )
    if style == "evaluation":
        system = TASK
        user = (
            f"{_IMAGE * n_images}These images are your historical observations and your current "
            f"observation.\n Your task is to {instruction} \n {CHOICES}"
        )
    else:
        system = "You are a helpful assistant."
        question = training_question(instruction, n_images)
        user = question.replace("<image>\n", "<image>").replace("<image>", _IMAGE)
    text = (
        f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    return _expand_images(tokenizer, _encode(tokenizer, text), tokens_per_image)


def training_sample(
    tokenizer: "PreTrainedTokenizerBase",
    instruction: str,
    n_images: int,
    tokens_per_image: int,
    answer: Action,
) -> tuple[list[int], list[int]]:
    """
    Ids and labels of one sample of the published training: the training prompt, the action's name,
    and the end of the turn.

    Labels equal the ids from the fourth token of the assistant's turn on and are -100 before, also
    where a tokenizer spells ``<|im_start|>assistant`` and the line break in more than three
    tokens: that is how the published code counts.
    """
    prompt = released_prompt_ids(tokenizer, instruction, n_images, tokens_per_image, "training")
    head = len(_encode(tokenizer, "<|im_start|>assistant\n"))
    turn = _encode(tokenizer, f"<|im_start|>assistant\n{answer.name}<|im_end|>\n")
    ids = prompt[: len(prompt) - head] + turn
    ignored = len(prompt) - head + 3
    return ids, [-100] * ignored + ids[ignored:]


def dual_prefix_ids(tokenizer: "PreTrainedTokenizerBase", instruction: str) -> list[int]:
    """
    What the dual mode keeps for the whole episode: the system's turn and the open beginning of the
    user's, with the instruction.

    The user's turn stays open. Frames follow one after the other (`frame_ids`), and at every step
    a leaf (`leaf_ids`) closes the turn and asks for the answer; the leaf is thrown away and the
    next frame continues the open turn. What the model reads at any step is thus an ordinary chat
    of its family: one system turn, one user turn with text and pictures, and the assistant's turn.
    """
    instruction = _told(tokenizer, instruction)
    return _encode(
        tokenizer,
        f"<|im_start|>system\n{DUAL_SYSTEM}<|im_end|>\n<|im_start|>user\n"
        f"{DUAL_USER.format(instruction=instruction)}",
    )


def frame_ids(tokenizer: "PreTrainedTokenizerBase", tokens_per_image: int) -> list[int]:
    """One frame: ``<|vision_start|>``, a placeholder for every fused token, ``<|vision_end|>``."""
    return _expand_images(tokenizer, _encode(tokenizer, _IMAGE), tokens_per_image)


def leaf_ids(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """
    The question of one step in the dual mode: the end of the user's turn and the beginning of the
    assistant's.
    """
    return _encode(tokenizer, "<|im_end|>\n<|im_start|>assistant\n")


def executed_ids(tokenizer: "PreTrainedTokenizerBase", action: Action | None) -> list[int]:
    """
    What stands before a frame in the ablation ``action_memory="executed"``: the last turn's
    question, the executed action, a new turn.

    Always the same number of ids: short words are filled up with the end token, and before the
    first frame (None) there is no word at all.
    """
    words = {a: _encode(tokenizer, a.name) for a in Action}
    width = max(len(word) for word in words.values())
    end = _encode(tokenizer, "<|im_end|>")
    word = words[action] if action is not None else []
    return [
        *leaf_ids(tokenizer),
        *word,
        *end * (width - len(word)),
        *_encode(tokenizer, "<|im_end|>\n<|im_start|>user\n"),
    ]

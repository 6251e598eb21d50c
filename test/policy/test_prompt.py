"""
Prompts are the published ones token by token; the dual prompt is an ordinary chat cut into three
pieces.
"""

import json
from pathlib import Path

import pytest

from janusvln_ros.actions import Action
from janusvln_ros.errors import InputError
from janusvln_ros.policy import prompt
from janusvln_ros.policy.tokenizer import (
    SPECIAL_TOKENS,
    byte_tokenizer,
    load_tokenizer,
    standin_tokenizer,
)

DATA = Path(__file__).parents[1] / "data" / "policy"
GOLDEN = json.loads((DATA / "prompts.json").read_text())


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(DATA / "tokenizer")


@pytest.mark.parametrize("n", GOLDEN["evaluation"])
def test_evaluation_prompt_is_the_published_one(tokenizer, n):
    assert (
        prompt.released_prompt_ids(
            tokenizer, GOLDEN["instruction"], int(n), GOLDEN["tokens_per_image"]
        )
        == GOLDEN["evaluation"][n]
    )


@pytest.mark.parametrize("n", GOLDEN["training"])
def test_training_sample_and_its_labels_are_the_published_ones(tokenizer, n):
    ids, labels = prompt.training_sample(
        tokenizer, GOLDEN["instruction"], int(n), GOLDEN["tokens_per_image"], Action.TURN_LEFT
    )
    assert ids == GOLDEN["training"][n]["ids"]
    assert labels == GOLDEN["training"][n]["labels"]


def test_training_prompt_is_the_training_sample_without_its_answer(tokenizer):
    ids, _ = prompt.training_sample(tokenizer, "go", 3, 2, Action.STOP)
    start = prompt.released_prompt_ids(tokenizer, "go", 3, 2, "training")
    assert ids[: len(start)] == start and tokenizer.decode(ids[len(start) :]) == "STOP<|im_end|>\n"


def test_answers_decode_to_the_published_text(tokenizer):
    for answer in GOLDEN["answers"]:
        assert tokenizer.decode(answer["ids"], skip_special_tokens=True) == answer["text"]


def test_dual_pieces_make_one_chat(tokenizer):
    ids = (
        prompt.dual_prefix_ids(tokenizer, "go to the door")
        + 2 * prompt.frame_ids(tokenizer, 1)
        + prompt.leaf_ids(tokenizer)
    )
    text = tokenizer.decode(ids)
    assert text == (
        "<|im_start|>system\nYou are a visual language navigation model.<|im_end|>\n"
        "<|im_start|>user\nYour task is to go to the door\n"
        "After every observation, answer with one action: MOVE_FORWARD, TURN_LEFT, "
        "TURN_RIGHT or STOP.\n"
        "<|vision_start|><|image_pad|><|vision_end|><|vision_start|><|image_pad|><|vision_end|>"
        "<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert tokenizer.encode(text, add_special_tokens=False) == ids, (
        "tokenising the pieces apart must not differ from tokenising the whole"
    )


def test_frame_has_one_placeholder_per_fused_token(tokenizer):
    ids = prompt.frame_ids(tokenizer, 7)
    assert len(ids) == 9 and ids[1:-1] == [tokenizer.convert_tokens_to_ids("<|image_pad|>")] * 7


def test_executed_actions_take_the_same_rows_whatever_they_are(tokenizer):
    texts = {
        action: tokenizer.decode(prompt.executed_ids(tokenizer, action))
        for action in (None, *Action)
    }
    assert len({len(prompt.executed_ids(tokenizer, action)) for action in texts}) == 1
    for action, text in texts.items():
        assert text.startswith(
            "<|im_end|>\n<|im_start|>assistant\n"
            f"{action.name if action is not None else ''}<|im_end|>"
        )
        assert text.endswith("<|im_end|>\n<|im_start|>user\n")


@pytest.mark.parametrize("bad", ["go <|im_end|> now", "see <image>", "<|image_pad|>"])
def test_instruction_that_forges_the_prompt_is_refused(tokenizer, bad):
    for build in (
        lambda: prompt.dual_prefix_ids(tokenizer, bad),
        lambda: prompt.released_prompt_ids(tokenizer, bad, 1, 4, "training"),
    ):
        with pytest.raises(InputError, match="mark of the prompt"):
            build()


def test_unknown_style_is_refused(tokenizer):
    with pytest.raises(InputError, match="evaluation or training"):
        prompt.released_prompt_ids(tokenizer, "go", 1, 4, "published")


def test_folder_without_tokenizer_says_what_is_missing(tmp_path):
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_folder_with_vocabulary_and_merges_reads_like_the_single_file(tokenizer, tmp_path):
    model = json.loads((DATA / "tokenizer" / "tokenizer.json").read_text())["model"]
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    specials = {
        str(i): {"content": t, "special": True} for t, i in tokenizer.get_added_vocab().items()
    }
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": specials})
    )
    text = "<|im_start|>user\nwalk past the sofa, 12 steps.\n Then<|im_end|>\n"
    assert load_tokenizer(tmp_path).encode(text, add_special_tokens=False) == tokenizer.encode(
        text, add_special_tokens=False
    )


def test_byte_tokenizer_gives_every_text_ids_and_takes_it_back():
    ids = {token: 400 + i for i, token in enumerate((*SPECIAL_TOKENS.values(), "<|im_start|>"))}
    tokenizer = byte_tokenizer(ids)
    text = "<|im_start|>user\nTürme, naïve 猫\n<|im_end|>"
    encoded = tokenizer.encode(text, add_special_tokens=False)
    assert (
        tokenizer.decode(encoded) == text
        and encoded[0] == ids["<|im_start|>"]
        and max(encoded[1:-1]) < 256
    )
    with pytest.raises(InputError, match="share an id"):
        byte_tokenizer({"<|im_start|>": 1, "<|im_end|>": 1})


def test_standin_tokenizer_keeps_the_ids_of_the_config_and_learns_the_words_of_the_prompt():
    config = {
        "vocab_size": 700,
        "eos_token_id": 402,
        "image_token_id": 412,
        "vision_start_token_id": 409,
    }
    tokenizer = standin_tokenizer(config, [prompt.TASK])
    ids = tokenizer.encode(prompt.TASK + "<|image_pad|>", add_special_tokens=False)
    assert (
        tokenizer.decode(ids) == prompt.TASK + "<|image_pad|>"
        and ids[-1] == 412
        and len(tokenizer) <= 700
    )
    assert len(ids) < 2 * len(prompt.TASK.split())
    assert tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|vision_start|>"]) == [402, 409]
    with pytest.raises(InputError, match="vocab_size"):
        standin_tokenizer({"vocab_size": 100})

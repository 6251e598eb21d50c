"""
The small network's tokenizer: any text survives, action words are one token, the same texts give
the same file.
"""

import json
from pathlib import Path

import pytest

from janusvln_ros.actions import Action
from janusvln_ros.errors import InputError
from janusvln_ros.policy.decoding import action_tree
from janusvln_ros.policy.prompt import dual_prefix_ids, frame_ids, leaf_ids
from janusvln_ros.policy.tokenizer import load_tokenizer
from janusvln_ros.training.tokenizer import save_tokenizer, train_tokenizer

SHIPPED = Path(__file__).resolve().parents[2] / "config" / "model" / "tiny"


def test_action_words_are_single_tokens_so_one_look_at_the_scores_decides():
    tree = action_tree(load_tokenizer(SHIPPED))
    assert (
        all(len(tree.words[action]) == 1 for action in Action)
        and len(tree.branches) == 1
        and not tree.tokens
    )


def test_ids_fit_the_settings():
    tokenizer = load_tokenizer(SHIPPED)
    config = json.loads((SHIPPED.parent / "tiny.json").read_text())
    tokens = {"image_token_id": "<|image_pad|>", "vision_start_token_id": "<|vision_start|>"}
    tokens |= {"vision_end_token_id": "<|vision_end|>", "eos_token_id": "<|im_end|>"}
    assert {name: tokenizer.convert_tokens_to_ids(token) for name, token in tokens.items()} == {
        name: config[name] for name in tokens
    }
    assert len(tokenizer) <= config["vocab_size"]


@pytest.mark.parametrize(
    "text",
    [
        "Turn left into the blue room.",
        "Hélas, une porte — 3 m\n\tplus loin!",
        "走到门口",
        "STOP stop MOVE_FORWARDS",
    ],
)
def test_any_text_survives(text):
    tokenizer = load_tokenizer(SHIPPED)
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_leaf_and_frame_are_short():
    tokenizer = load_tokenizer(SHIPPED)
    assert len(leaf_ids(tokenizer)) == 4 and len(frame_ids(tokenizer, 12)) == 14
    assert (
        len(
            dual_prefix_ids(
                tokenizer,
                "Turn left and go through the door into the blue room. Stop at the red lamp.",
            )
        )
        < 64
    )


def test_same_texts_give_the_same_file(tmp_path):
    texts = ["go to the red lamp", "turn around and stop at the green box"]
    for name in "ab":
        save_tokenizer(train_tokenizer(texts, 600), tmp_path / name)
    assert (tmp_path / "a" / "tokenizer.json").read_bytes() == (
        tmp_path / "b" / "tokenizer.json"
    ).read_bytes()


def test_too_few_tokens_are_refused():
    with pytest.raises(InputError, match="512"):
        train_tokenizer(["go"], 300)

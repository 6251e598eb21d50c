"""A network of words alone learns to say plainly what people say."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from janusvln_ros.errors import InputError
from janusvln_ros.policy.identity import REPHRASE_FOLDER
from janusvln_ros.policy.rephrase import Rephrasing
from janusvln_ros.policy.tokenizer import load_tokenizer, load_word_vectors
from janusvln_ros.rollout import paraphrases
from janusvln_ros.training.recipes import Recipe
from janusvln_ros.training.rephrase import (
    Paraphrases,
    RephraseTask,
    answer_ids,
    collate,
    neighbours,
    new_rephraser,
    with_ordinary_words,
    words_told,
)
from janusvln_ros.training.run import train
from sim_bridge.homes.language.lexicon import HELD_OUT_WORDS

WORDS = Path(__file__).resolve().parents[2] / "config" / "model" / "tiny"


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(WORDS)


@pytest.fixture(scope="module")
def facts():
    return paraphrases.routes(7, 4)


@pytest.fixture(scope="module")
def texts(facts, tokenizer):
    return Paraphrases(facts, tokenizer, 200, 3)


def pairs(texts):
    """What is said in every text, and the plain sentences."""
    return [texts.text(i) for i in range(len(texts))]


def test_a_text_is_always_the_same_and_others_differ(texts, facts, tokenizer):
    again = Paraphrases(facts, tokenizer, 200, 3)
    assert [again.text(i) for i in range(20)] == [texts.text(i) for i in range(20)]
    other = Paraphrases(facts, tokenizer, 200, 4)
    assert (
        len({*(texts.text(i)[0] for i in range(50)), *(other.text(i)[0] for i in range(50))}) > 95
    )


def test_training_says_no_word_that_is_held_out(texts, facts, tokenizer):
    assert not words_told(tokenizer, pairs(texts)) & HELD_OUT_WORDS
    odd = Paraphrases(facts, tokenizer, 200, 3, held_out=True)
    assert len(words_told(tokenizer, pairs(odd)) & HELD_OUT_WORDS) > 10


def test_some_of_the_texts_are_plain_already(texts):
    share = np.mean([said.split()[0] in plain for said, plain in map(texts.text, range(200))])
    assert 0.1 < share < 0.9


def test_words_that_are_never_said_stand_for_the_nearest_and_those_it_is_judged_by_for_none(
    texts, facts, tokenizer
):
    vectors = load_word_vectors(WORDS)
    near = neighbours(tokenizer, vectors, words_told(tokenizer, pairs(texts)))
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in ("lamp", "lantern", "lamps")}
    assert ids["lamps"] in near[ids["lamp"]]
    named = {tokenizer.convert_ids_to_tokens(i) for some in near.values() for i in some}
    assert not named & (HELD_OUT_WORDS | words_told(tokenizer, pairs(texts)))
    exchanged = Paraphrases(facts, tokenizer, 200, 3, neighbours=near)
    both = [(texts[i], exchanged[i]) for i in range(100)]
    assert all(a[1] == b[1] and len(a[0]) == len(b[0]) for a, b in both)
    changed = [(p, q) for a, b in both for p, q in zip(a[0], b[0]) if p != q]
    assert len(changed) > 50 and all(q in near[p] for p, q in changed)


def test_answers_end_and_are_made_of_their_own_ids_alone(texts, tokenizer):
    answers = answer_ids(tokenizer, pairs(texts))
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert answers[0] == end and len(set(answers)) == len(answers) < 100
    for i in range(20):
        _, answer = texts[i]
        assert answer[-1] == end and end not in answer[:-1]


def test_it_learns_and_says_what_it_has_learned(texts, tokenizer):
    torch.manual_seed(0)
    network = new_rephraser(
        tokenizer, load_word_vectors(WORDS), answer_ids(tokenizer, pairs(texts))
    )
    task, batch = RephraseTask(network), collate([texts[i] for i in range(8)])
    optimizer = torch.optim.AdamW(task.parameters(), lr=3e-3)
    for _ in range(60):
        found = task(**batch)
        optimizer.zero_grad()
        found["loss"].backward()
        optimizer.step()
    found = task(**batch)
    assert found["loss"] < 0.1 and found["exact"] == 1
    rephrasing = Rephrasing(with_ordinary_words(network), tokenizer)
    for i in range(8):
        said, plain = texts.text(i)
        assert rephrasing.say(said).text == plain


def test_what_pads_a_batch_changes_neither_loss_nor_figures(texts, tokenizer):
    torch.manual_seed(0)
    network = new_rephraser(
        tokenizer, load_word_vectors(WORDS), answer_ids(tokenizer, pairs(texts))
    ).eval()
    task, some = RephraseTask(network), sorted((texts[i] for i in range(20)), key=len)[:2]
    alone = [float(task(**collate([one]))["loss"]) * len(one[1]) for one in some]
    together = float(task(**collate(some))["loss"]) * sum(len(one[1]) for one in some)
    assert together == pytest.approx(sum(alone), rel=1e-4)


def test_the_stage_writes_what_a_checkpoint_brings_along(tmp_path, monkeypatch):
    monkeypatch.setattr("janusvln_ros.training.run.WORDS_OF", 60)
    monkeypatch.setattr("janusvln_ros.training.run.JUDGED_HOMES", 1)
    sizes = {"homes": 2, "max_steps": 3, "batch": 4, "accumulate": 1, "workers": 0}
    judged = {"eval_steps": 2, "eval_samples": 4, "save_steps": 2, "bf16": False}
    recipe = Recipe(
        stage="rephrase",
        tokenizer=str(WORDS),
        output=str(tmp_path / "run"),
        gradient_checkpointing=False,
        tensorboard=False,
        **sizes,
        **judged,
    )
    result = train(recipe)
    assert 0 <= result["exact_with_held_out_words"] <= 1 and result["steps"] == 3
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    Path(result["checkpoint"]).rename(checkpoint / REPHRASE_FOLDER)
    rephrasing = Rephrasing.load(checkpoint)
    assert rephrasing.say("go to the lamp").text
    assert {"the", "and"} <= set(json.loads((checkpoint / "rephrase/words.json").read_text()))


@pytest.mark.parametrize(
    ("changes", "named"), [({"max_steps": -1}, "max_steps"), ({"tokenizer": "BARE"}, "words")]
)
def test_a_recipe_that_lacks_what_it_needs_is_refused(tmp_path, tokenizer, changes, named):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (bare / name).write_bytes((WORDS / name).read_bytes())
    values = {"tokenizer": str(WORDS), "max_steps": 2} | changes
    values["tokenizer"] = values["tokenizer"].replace("BARE", str(bare))
    recipe = Recipe(stage="rephrase", output=str(tmp_path / "run"), **values)
    with pytest.raises(InputError, match=named):
        train(recipe)

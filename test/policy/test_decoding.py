"""
Only the four words are reachable, their probabilities add up, and anything else is not an action.
"""

import math
from pathlib import Path

import pytest
import torch

from janusvln_ros.actions import Action
from janusvln_ros.errors import InputError, NonFiniteError
from janusvln_ros.policy.decoding import (
    action_tree,
    all_finite,
    most_probable,
    parse_action,
    repetition_penalty,
    require_all_finite,
)
from janusvln_ros.policy.tokenizer import byte_tokenizer, load_tokenizer

DATA = Path(__file__).parents[1] / "data" / "policy"


class Spelling:
    """A tokenizer that spells the words as told; the end token is 99."""

    def __init__(self, **words):
        self.words = words

    def encode(self, text, add_special_tokens=False):
        return self.words[text]

    def convert_tokens_to_ids(self, token):
        return 99


SPELLINGS = {
    "single tokens": Spelling(STOP=[1], MOVE_FORWARD=[2], TURN_LEFT=[3], TURN_RIGHT=[4]),
    "shared TURN": Spelling(STOP=[1], MOVE_FORWARD=[2, 7], TURN_LEFT=[3, 5], TURN_RIGHT=[3, 6]),
    "one word begins another": Spelling(
        STOP=[1], MOVE_FORWARD=[1, 2], TURN_LEFT=[1, 2, 3], TURN_RIGHT=[4]
    ),
    "common beginning": Spelling(
        STOP=[8, 1], MOVE_FORWARD=[8, 2], TURN_LEFT=[8, 3, 3, 1], TURN_RIGHT=[8, 3, 3, 2]
    ),
    "branches at two depths": Spelling(
        STOP=[1, 2, 5], MOVE_FORWARD=[1, 2, 6], TURN_LEFT=[3, 5], TURN_RIGHT=[3, 6]
    ),
    "bytes": byte_tokenizer({"<|im_start|>": 300, "<|im_end|>": 301}),
    "trained": load_tokenizer(DATA / "tokenizer"),
}


@pytest.mark.parametrize(
    "text, action", [("STOP", 0), ("MOVE_FORWARD", 1), ("TURN_LEFT", 2), ("TURN_RIGHT", 3)]
)
def test_the_four_words_are_actions(text, action):
    assert parse_action(text) is Action(action)


@pytest.mark.parametrize(
    "text", ["", "stop", " STOP", "STOP\n", "MOVE FORWARD", "STOP STOP", "I would stop", "0"]
)
def test_any_other_text_is_no_action_and_above_all_not_stop(text):
    assert parse_action(text) is None


@pytest.mark.parametrize("name", SPELLINGS)
def test_walking_the_tree_reaches_each_word_and_nothing_else(name):
    tree = action_tree(SPELLINGS[name])
    choices = {b.prefix: b.tokens for b in tree.branches}

    def reach(prefix):
        if prefix in tree.words.values():
            return {prefix}
        nexts = choices.get(prefix) or {
            w[len(prefix)] for w in tree.words.values() if w[: len(prefix)] == prefix
        }
        assert len(nexts) > 1 or prefix not in choices, "a forced token is no branch"
        return set().union(*(reach((*prefix, t)) for t in nexts))

    assert reach(()) == set(tree.words.values()) and len(set(tree.words.values())) == 4


@pytest.mark.parametrize("name", SPELLINGS)
def test_rows_behind_the_question_spell_each_branch(name):
    tree = action_tree(SPELLINGS[name])

    def path(i):
        return () if i < 0 else (*path(tree.parents[i]), tree.tokens[i])

    assert [path(r) for r in tree.rows] == [b.prefix for b in tree.branches]
    assert list(tree.depths) == [len(path(i)) - 1 for i in range(len(tree.tokens))]
    assert all(parent < i for i, parent in enumerate(tree.parents))


def test_single_token_words_need_no_row_of_their_own():
    tree = action_tree(SPELLINGS["single tokens"])
    assert tree.tokens == () and tree.rows == (-1,)


def test_shared_turn_needs_one_row_and_forced_tokens_none():
    tree = action_tree(SPELLINGS["shared TURN"])
    assert tree.tokens == (3,) and tree.rows == (-1, 0)


@pytest.mark.parametrize("name", SPELLINGS)
def test_probabilities_are_products_along_the_words_and_sum_to_one(name):
    tree = action_tree(SPELLINGS[name])
    scores = torch.randn(len(tree.branches), 512, generator=torch.Generator().manual_seed(0))
    probabilities = tree.probabilities(scores)
    assert math.isclose(sum(probabilities.values()), 1, abs_tol=1e-12)
    for action, word in tree.words.items():
        expected = 1.0
        for b, branch in enumerate(tree.branches):
            if word[: len(branch.prefix)] == branch.prefix:
                weights = {t: math.exp(float(scores[b, t])) for t in branch.tokens}
                expected *= weights[word[len(branch.prefix)]] / sum(weights.values())
        assert math.isclose(probabilities[action], expected, rel_tol=1e-6)


def test_two_halves_of_a_turn_do_not_beat_a_more_probable_step_forward():
    tree = action_tree(SPELLINGS["shared TURN"])
    scores = torch.full((2, 10), -50.0)
    scores[0, [1, 2, 3]] = torch.tensor([0.1, 0.4, 0.5]).log()
    scores[1, [5, 6]] = 0.0
    probabilities = tree.probabilities(scores)
    assert most_probable(probabilities) is Action.MOVE_FORWARD
    assert probabilities[Action.TURN_LEFT] == pytest.approx(0.25)


def test_scores_that_are_not_numbers_are_an_error_and_not_an_action():
    tree = action_tree(SPELLINGS["single tokens"])
    scores = torch.zeros(1, 10)
    scores[0, 3] = float("nan")
    with pytest.raises(NonFiniteError, match="finite"):
        tree.probabilities(scores)


def test_words_with_equal_tokens_are_refused():
    with pytest.raises(InputError, match="apart"):
        action_tree(Spelling(STOP=[0], MOVE_FORWARD=[0], TURN_LEFT=[1], TURN_RIGHT=[2]))


def test_penalty_divides_positive_and_multiplies_negative_scores_of_seen_tokens_once():
    scores = torch.tensor([2.0, -2.0, 0.0, 3.0])
    got = repetition_penalty(scores, [0, 0, 1, 2], 1.25)
    torch.testing.assert_close(got, torch.tensor([1.6, -2.5, 0.0, 3.0]))
    assert scores[0] == 2.0, "the model's own scores stay as they are"
    torch.testing.assert_close(repetition_penalty(scores, [0], 1.0), scores)
    assert repetition_penalty(scores, [0], 1.0).tolist() == [2.0, -2.0, 0.0, 3.0]


def test_penalty_below_one_makes_what_occurred_likelier():
    scores = torch.tensor([2.0, -2.0, 0.5, 0.5])
    got = repetition_penalty(scores, [0, 1, 2], 0.5)
    assert got.tolist() == [4.0, -1.0, 1.0, 0.5]


def test_penalty_takes_every_lane():
    got = repetition_penalty(torch.tensor([[2.0, 3.0], [-2.0, 4.0]]), torch.tensor([0]), 2.0)
    assert got.tolist() == [[1.0, 3.0], [-4.0, 4.0]]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_the_first_that_is_not_finite_is_named(value):
    good, bad = torch.zeros(3), torch.tensor([0.0, value, 0.0])
    require_all_finite({"a": all_finite(good), "b": all_finite(good)})
    with pytest.raises(NonFiniteError, match=r"^b are not finite"):
        require_all_finite({"a": all_finite(good), "b": all_finite(bad), "c": all_finite(bad)})


@pytest.mark.parametrize("name", SPELLINGS)
def test_rows_come_level_by_level(name):
    depths = action_tree(SPELLINGS[name]).depths
    assert list(depths) == sorted(depths)


@pytest.mark.parametrize(
    "words", [{"STOP": []}, {"TURN_RIGHT": []}, {"STOP": [], "TURN_LEFT": []}]
)
def test_a_word_without_tokens_is_refused(words):
    spelled = {"STOP": [1], "MOVE_FORWARD": [2], "TURN_LEFT": [3], "TURN_RIGHT": [4]} | words
    with pytest.raises(InputError, match="apart"):
        action_tree(Spelling(**spelled))


def test_of_equally_probable_actions_the_first_is_taken():
    assert most_probable(dict.fromkeys(reversed(Action), 0.25)) is Action.STOP
    shares = {Action.TURN_RIGHT: 0.4, Action.TURN_LEFT: 0.4, Action.MOVE_FORWARD: 0.1}
    assert most_probable({**shares, Action.STOP: 0.1}) is Action.TURN_LEFT

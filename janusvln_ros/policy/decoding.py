"""
From the language model's numbers to one of four actions.

Free decoding reads the text that the model wrote. Constrained decoding looks only where the
spellings of the four action words part: at each such *branch* the model chooses among the few
tokens that continue a word, everything else is forced and costs nothing, and the product along a
word is its probability. The branches' own tokens are few enough to be read in one go behind the
question.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from transformers import PreTrainedTokenizerBase

from janusvln_ros.actions import Action
from janusvln_ros.errors import NonFiniteError, require


def parse_action(text: str) -> Action | None:
    """
    The action that ``text`` names exactly (case, blanks and all), or None: text that is no action
    is not an order to stop.
    """
    return Action[text] if text in Action.__members__ else None


def repetition_penalty(
    scores: torch.Tensor, ids: Sequence[int] | torch.Tensor, penalty: float
) -> torch.Tensor:
    """
    Make tokens that occurred less likely: their positive scores are divided by ``penalty``,
    negative ones multiplied.

    Args:
        scores: [..., vocabulary], left as it is.
        ids: every token of the prompt and the answer so far; repeats count once.
        penalty: 1 changes nothing.
    """
    if penalty == 1.0:
        return scores
    seen = torch.unique(torch.as_tensor(ids, dtype=torch.long, device=scores.device))
    chosen = scores[..., seen]
    result = scores.clone()
    result[..., seen] = torch.where(chosen > 0, chosen / penalty, chosen * penalty)
    return result


def require_finite(values: torch.Tensor, what: str) -> None:
    """Raise NonFiniteError if a number of ``values`` is not finite."""
    require_all_finite({what: all_finite(values)})


def all_finite(values: torch.Tensor) -> torch.Tensor:
    """Whether every number of ``values`` is finite, bool [], on its device."""
    return torch.isfinite(values).all()


def require_all_finite(finite: Mapping[str, torch.Tensor]) -> None:
    """
    Raise NonFiniteError for the first that is not `all_finite`, by its name; waits for the device
    once.
    """
    for what, is_finite in zip(finite, torch.stack([*finite.values()]).tolist()):
        if not is_finite:
            raise NonFiniteError(
                f"{what} are not finite numbers: the checkpoint is damaged, or its dtype "
                "too narrow; try another copy, or dtype='float32'"
            )


@dataclass(frozen=True)
class Branch:
    """
    A place where spellings part: after ``prefix`` of an answer, each of ``tokens`` continues at
    least one word.
    """

    prefix: tuple[int, ...]
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class ActionTree:
    """
    The four action words as token sequences, and the branches between them.

    Attributes:
        words: token ids of each action; ends with the end token only where one word would
            otherwise be the beginning of another.
        branches: where the model has a choice, in the order in which `probabilities` takes their
            scores; the first has an empty prefix unless all words begin alike.
        tokens, parents, depths: the tokens to read behind the question so that every branch has a
            row: token i follows token ``parents[i]`` (-1: the question's last token),
            ``depths[i]`` tokens after the question (first: 0).
        rows: for each branch the index into ``tokens`` whose row scores it, -1 for the question's
            last row.
    """

    words: dict[Action, tuple[int, ...]]
    branches: tuple[Branch, ...]
    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    depths: tuple[int, ...]
    rows: tuple[int, ...]

    def probabilities(self, scores_RV: torch.Tensor) -> dict[Action, float]:
        """
        Probability of each action, sum 1, from the scores [branches, vocabulary] at the branches.

        Raises:
            NonFiniteError: a score is not a finite number.
        """
        allowed = [
            scores_RV[b, list(branch.tokens)].double() for b, branch in enumerate(self.branches)
        ]
        require_finite(torch.cat(allowed), "the scores of the action words")
        chances = {
            (branch.prefix, token): float(p)
            for branch, a in zip(self.branches, allowed)
            for token, p in zip(branch.tokens, torch.softmax(a, dim=0))
        }
        result = {
            action: prod(chances.get((word[:i], token), 1.0) for i, token in enumerate(word))
            for action, word in self.words.items()
        }
        total = sum(result.values())
        return {action: probability / total for action, probability in result.items()}


def action_tree(tokenizer: PreTrainedTokenizerBase) -> ActionTree:
    """
    Build the tree of the four words for any tokenizer that spells them differently.

    Raises:
        InputError: two words have the same tokens (an unknown-token vocabulary), so that they
            cannot be told apart.
    """
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    words = {
        action: tuple(tokenizer.encode(action.name, add_special_tokens=False)) for action in Action
    }
    require(
        len(set(words.values())) >= len(words) and all(words.values()),
        f"the tokenizer cannot tell the action words apart: {words}; use the "
        "tokenizer of the checkpoint",
    )
    beginnings = {word[:i] for word in words.values() for i in range(len(word))}
    words = {
        action: (*word, end) if word in beginnings else word for action, word in words.items()
    }

    following: dict[tuple[int, ...], dict[int, None]] = {}
    for word in words.values():
        for i, token in enumerate(word):
            following.setdefault(word[:i], {})[token] = None
    branches = [
        Branch(prefix, tuple(following[prefix]))
        for prefix in sorted(sorted(following), key=len)
        if len(following[prefix]) > 1
    ]
    # Every beginning of a branch's prefix gets one row, parents before children.
    paths = sorted({b.prefix[:i] for b in branches for i in range(1, len(b.prefix) + 1)})
    paths.sort(key=len)
    index = {path: i for i, path in enumerate(paths)} | {(): -1}
    return ActionTree(
        words=words,
        branches=tuple(branches),
        tokens=tuple(path[-1] for path in paths),
        parents=tuple(index[path[:-1]] for path in paths),
        depths=tuple(len(path) - 1 for path in paths),
        rows=tuple(index[b.prefix] for b in branches),
    )


def most_probable(probabilities: dict[Action, float]) -> Action:
    """
    The action with the largest probability; of equal ones the first in the order of `Action`, so
    STOP before motion.
    """
    return max(Action, key=lambda action: probabilities[action])

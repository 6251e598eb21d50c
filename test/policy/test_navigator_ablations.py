"""
Each knock-out takes away what it says and nothing else; remembered actions stream as they are
trained.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from janusvln_ros.actions import Action
from janusvln_ros.policy import Navigator, NavigatorOptions, prompt
from janusvln_ros.training.episode import Episodes, episode_pass

INSTRUCTION = "turn left at the table"


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(3).integers(0, 256, (10, 60, 84, 3), dtype=np.uint8)


def new(network, tokenizer):
    options = NavigatorOptions(
        memory="dual", decoding="constrained", keep_scores=True, allow_untrained_memory=True
    )
    navigator = Navigator(network, tokenizer, options)
    navigator.reset(INSTRUCTION)
    return navigator


@pytest.fixture
def configured(network):
    """The network with settings changed: some of the whole, and some of ``navigation``."""
    config = network.config

    def change(navigation=None, **fields):
        changed = replace(config.navigation, **navigation or {})
        network.config = replace(config, navigation=changed, **fields)
        return network

    yield change
    network.config = config


def scores(navigator, frames):
    return torch.stack([navigator.step(frame).scores[0] for frame in frames])


def test_without_semantic_memory_earlier_frames_are_forgotten_but_for_their_geometry(
    configured, tokenizer, frames
):
    # Two pasts, one present: without geometry and semantic memory nothing tells them apart.
    def difference(**settings):
        network, after = configured(**settings), []
        for past in (frames[1:5], frames[5:9]):
            navigator = new(network, tokenizer)
            for frame in past:
                navigator.observe(frame)
            after.append(navigator.step(frames[0]).scores)
        return (after[0] - after[1]).abs().max()

    both = {"navigation": {"semantic_memory": False}, "lam": 0.0}
    assert difference(**both) < 1e-5
    for name, value in both.items():
        assert difference(**{name: value}) > 1e-2, name


def test_remembered_actions_stream_as_they_are_trained(configured, tokenizer, frames):
    network = configured({"action_memory": "executed"})
    navigator = new(network, tokenizer)
    executed = [None, *(Action(1 + i % 3) for i in range(9))]
    got, fused = [], []
    for frame, action in zip(frames, executed):
        encode, taken = network.fuse, []
        network.fuse = lambda a, b, encode=encode, taken=taken: (
            taken.append(encode(a, b)) or taken[-1]
        )
        decision = navigator.step(frame, executed=action)
        del network.fuse
        got.append(decision.scores[0])
        fused.append(taken[0])
    # What the navigator decided itself is what it remembers if nobody says otherwise.
    own = new(network, tokenizer)
    first = own.step(frames[0]).action
    torch.testing.assert_close(
        own.step(frames[1]).scores[0],
        _whole(network, tokenizer, fused[:2], [None, first])[1],
        atol=1e-4,
        rtol=1e-4,
    )
    torch.testing.assert_close(
        torch.stack(got), _whole(network, tokenizer, fused, executed), atol=1e-4, rtol=1e-4
    )


def _whole(network, tokenizer, fused, executed):
    before = torch.tensor([[prompt.executed_ids(tokenizer, action) for action in executed]])
    ids = prompt.dual_prefix_ids(tokenizer, INSTRUCTION)
    n = len(fused[0])
    grid = (2, 3)
    assert n == grid[0] * grid[1]
    episodes = Episodes(
        torch.tensor([ids]),
        torch.tensor([len(ids)]),
        torch.stack(fused)[None],
        torch.zeros(1, len(fused), 1, dtype=torch.long),
        grid,
        prompt.frame_ids(tokenizer, n),
        prompt.leaf_ids(tokenizer),
        before,
    )
    with torch.no_grad():
        hidden = episode_pass(network.language, episodes, network.config.navigation.window)
        return network.lm_head(hidden)[0, :, 0]

"""
Each knock-out takes away what it says and nothing else; remembered actions stream as they are
trained.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from janusvln_ros.actions import Action
from janusvln_ros.model.dual import episode_pass
from janusvln_ros.model.memory import FrameWindow
from janusvln_ros.policy import Navigator, prompt

INSTRUCTION = "turn left at the table"


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(3).integers(0, 256, (10, 60, 84, 3), dtype=np.uint8)


def new(network, tokenizer, **options):
    navigator = Navigator(
        network,
        tokenizer,
        memory="dual",
        decoding="constrained",
        keep_scores=True,
        allow_untrained_memory=True,
        **options,
    )
    navigator.reset(INSTRUCTION)
    return navigator


def scores(navigator, frames):
    return torch.stack([navigator.step(frame).scores[0] for frame in frames])


def test_semantic_window_of_zero_forgets_earlier_frames_but_for_their_geometry(
    network, tokenizer, frames
):
    # Two pasts, one present: without geometry and semantic memory nothing tells them apart.
    def after(past, **options):
        navigator = new(network, tokenizer, **options)
        for frame in past:
            navigator.observe(frame)
        return navigator.step(frames[0]).scores

    both = {"semantic_window": (0, 0), "use_geometry": False}
    torch.testing.assert_close(
        after(frames[1:5], **both), after(frames[5:9], **both), atol=1e-5, rtol=1e-5
    )
    for missing in both:
        only = {key: value for key, value in both.items() if key != missing}
        assert (after(frames[1:5], **only) - after(frames[5:9], **only)).abs().max() > 1e-2, (
            missing
        )


def test_semantic_window_of_the_config_changes_nothing(network, tokenizer, frames):
    torch.testing.assert_close(
        scores(new(network, tokenizer, semantic_window=(2, 3)), frames),
        scores(new(network, tokenizer), frames),
    )


def test_remembered_actions_stream_as_they_are_trained(network, tokenizer, frames):
    config = network.config
    network.config = replace(
        config, navigation=replace(config.navigation, action_memory="executed")
    )
    try:
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
    finally:
        network.config = config


def _whole(network, tokenizer, fused, executed):
    before = torch.tensor([[prompt.executed_ids(tokenizer, action) for action in executed]])
    ids = prompt.dual_prefix_ids(tokenizer, INSTRUCTION)
    n = len(fused[0])
    grid = (2, 3)
    assert n == grid[0] * grid[1]
    with torch.no_grad():
        logits = episode_pass(
            network.language,
            network.lm_head,
            torch.tensor([ids]),
            torch.tensor([len(ids)]),
            torch.stack(fused)[None],
            prompt.frame_ids(tokenizer, n),
            grid,
            prompt.leaf_ids(tokenizer),
            torch.zeros(1, len(fused), 1, dtype=torch.long),
            FrameWindow(
                network.config.navigation.initial_frames, network.config.navigation.window_frames
            ),
            executed_BTP=before,
        )
    return logits[0, :, 0]

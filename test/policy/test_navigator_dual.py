"""
The dual mode: driving step by step equals the one pass that trains it, however long the episode.
"""

import numpy as np
import pytest
import torch

from janusvln_ros.model.memory import FrameWindow
from janusvln_ros.policy import Navigator, NavigatorOptions
from janusvln_ros.policy.preprocess import pixel_rows, resize, spatial_input
from janusvln_ros.policy.prompt import dual_prefix_ids, frame_ids, leaf_ids
from janusvln_ros.training.episode import Episodes, episode_pass

INSTRUCTION = "turn left at the door, then stop."


@torch.no_grad()
def trained_scores(model, tokenizer, frames, window, answers):
    """
    Scores [T, A, V] of each step's answer as training computes them: encoders over all frames,
    then one masked pass.
    """
    resized = [resize(rgb, model.config.navigation.image_width) for rgb in frames]
    height, width = resized[0].shape[:2]
    images = torch.from_numpy(np.stack([spatial_input(r) for r in resized]))
    rows, grids = zip(*(pixel_rows(r) for r in resized))
    vision = model.encode_vision(
        torch.from_numpy(np.concatenate(rows)), torch.tensor(grids)
    ).unflatten(0, (len(frames), -1))
    fused = model.fuse(
        vision, model.geometry(model.spatial(images[None], window)[0], height, width)
    )
    prompt = torch.tensor([dual_prefix_ids(tokenizer, INSTRUCTION)])
    grid = (grids[0][1] // 2, grids[0][2] // 2)
    question = leaf_ids(tokenizer)
    ids = frame_ids(tokenizer, grid[0] * grid[1])
    lengths = torch.tensor([prompt.shape[1]])
    episodes = Episodes(prompt, lengths, fused[None], answers[None], grid, ids, question)
    return model.lm_head(episode_pass(model.language, episodes, window))[0]


@pytest.mark.parametrize("decoding", ["free", "constrained"])
def test_driving_equals_the_pass_that_trains(network, tokenizer, frames, decoding):
    """20 frames, 5 remembered: every slot of both rings is overwritten more than three times."""
    navigator = Navigator(
        network,
        tokenizer,
        NavigatorOptions(
            memory="dual", decoding=decoding, keep_scores=True, allow_untrained_memory=True
        ),
    )
    navigator.reset(INSTRUCTION)
    decisions = [navigator.step(rgb) for rgb in frames]
    navigation = network.config.navigation
    window = FrameWindow(navigation.initial_frames, navigation.window_frames)
    longest = max(len(d.token_ids) for d in decisions)
    answers = torch.tensor(
        [[*d.token_ids, *[-100] * (longest - len(d.token_ids))] for d in decisions]
    )
    expected = trained_scores(network, tokenizer, frames, window, answers)
    for t, decision in enumerate(decisions):
        for i in range(1 if decoding == "constrained" else len(decision.token_ids)):
            torch.testing.assert_close(
                decision.scores[i],
                expected[t, i],
                atol=1e-4,
                rtol=1e-4,
                msg=lambda m, t=t, i=i: f"step {t}, token {i}: {m}",
            )
    for wrong in (
        FrameWindow(window.initial, window.window + 1),
        FrameWindow(window.initial + 1, window.window),
    ):
        assert (
            trained_scores(network, tokenizer, frames, wrong, answers)[:, 0] - expected[:, 0]
        ).abs().max() > 1e-2, wrong


def test_every_step_reads_one_frame_and_one_question(network, tokenizer, frames):
    navigator = Navigator(
        network,
        tokenizer,
        NavigatorOptions(memory="dual", decoding="constrained", allow_untrained_memory=True),
    )
    navigator.reset(INSTRUCTION)
    rows, attended = [], []
    hook = network.language.layers[0].register_forward_hook(
        lambda module, inputs, output: rows.append(output.shape[1])
    )
    try:
        for rgb in frames:
            rows.clear()
            navigator.step(rgb)
            memory = navigator.context.memory
            attended.append((tuple(rows), memory.end))
    finally:
        hook.remove()
    steady = attended[navigator.spatial.window.slots :]
    assert len(set(steady)) == 1, "the cost of a step depends on its number"
    frame = memory.layout.rows + len(leaf_ids(tokenizer)) + len(navigator.tree.tokens)
    assert steady[0][0] == (frame,)


def test_memory_of_the_checkpoint_is_the_default(network, tokenizer):
    assert Navigator(network, tokenizer).memory == "released"


def test_words_before_the_leaf_do_not_leak(network, tokenizer, frames):
    """
    What was answered, or only asked, at earlier steps changes nothing later: leaves are thrown
    away.
    """
    asked = Navigator(
        network,
        tokenizer,
        NavigatorOptions(memory="dual", keep_scores=True, allow_untrained_memory=True),
    )
    asked.reset(INSTRUCTION)
    quiet = Navigator(
        network,
        tokenizer,
        NavigatorOptions(memory="dual", keep_scores=True, allow_untrained_memory=True),
    )
    quiet.reset(INSTRUCTION)
    for rgb in frames[:9]:
        asked.step(rgb)
        quiet.observe(rgb)
    torch.testing.assert_close(
        asked.step(frames[9]).scores[0], quiet.step(frames[9]).scores[0], atol=1e-4, rtol=1e-4
    )

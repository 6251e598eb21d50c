"""
A recorded step is the step: with a stand-in for the GPU's recorder, that keeps Python numbers and
addresses as they were, past several evictions from both memories.
"""

import pytest
import torch

from janusvln_ros.policy import Navigator, NavigatorOptions

INSTRUCTION = "walk past the sofa and stop near the table."


def navigators(network, tokenizer, traced, **options):
    """One that makes every step, and one that replays what it may."""
    chosen = NavigatorOptions(allow_untrained_memory=True, **options)
    plain, recorded = (Navigator(network, tokenizer, chosen) for _ in range(2))
    recorded.recordings.recorder = traced
    return plain, recorded


@pytest.mark.parametrize("memory", ["released", "dual"])
@pytest.mark.parametrize("decoding", [pytest.param("free", marks=pytest.mark.slow), "constrained"])
def test_a_recorded_step_is_the_step_bit_for_bit(
    network, tokenizer, frames, traced, memory, decoding
):
    plain, recorded = navigators(
        network, tokenizer, traced, memory=memory, decoding=decoding, keep_scores=True
    )
    for instruction in (INSTRUCTION, "turn left."):  # prompts of two lengths
        plain.reset(instruction)
        recorded.reset(instruction)
        for rgb in frames:
            expected, found = plain.step(rgb), recorded.step(rgb)
            assert torch.equal(found.spatial_tokens, expected.spatial_tokens)
            assert torch.equal(found.scores, expected.scores)
            assert found.token_ids == expected.token_ids
    # picture, spatial and vision once, the language model once for each prompt
    assert len(recorded.recordings) == 5


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["int8", "float8"])
def test_so_is_one_with_a_spatial_memory_in_bytes(network, tokenizer, frames, traced, precision):
    plain, recorded = navigators(
        network, tokenizer, traced, memory="dual", spatial_precision=precision, keep_scores=True
    )
    plain.reset(INSTRUCTION)
    recorded.reset(INSTRUCTION)
    for rgb in frames:
        assert torch.equal(recorded.step(rgb).scores, plain.step(rgb).scores)


@pytest.mark.slow
def test_a_recorded_step_that_is_taken_back_leaves_no_trace(network, tokenizer, frames, traced):
    plain, recorded = navigators(network, tokenizer, traced, memory="dual", keep_scores=True)
    plain.reset(INSTRUCTION)
    recorded.reset(INSTRUCTION)
    for rgb, other in zip(frames, frames[::-1]):
        recorded.step(other, commit=False)
        assert torch.equal(recorded.step(rgb).scores, plain.step(rgb).scores)


@pytest.mark.parametrize("wrong", ["slot", "position"])
def test_a_replay_that_is_off_by_one_frame_is_seen(
    network, tokenizer, frames, traced, wrong, monkeypatch
):
    plain, recorded = navigators(network, tokenizer, traced, memory="dual", keep_scores=True)
    plain.reset(INSTRUCTION)
    recorded.reset(INSTRUCTION)
    steps = []
    for i, rgb in enumerate(frames):
        if i == 10 and wrong == "slot":  # the recording writes where it wrote when it was made
            memory = recorded.spatial
            stuck = memory.rows_P.clone()
            monkeypatch.setattr(memory, "rows_P", stuck)
        if i == 10 and wrong == "position":
            recorded.context.memory.seen -= 1
        steps.append((recorded.step(rgb).scores - plain.step(rgb).scores).abs().max())
    assert max(steps[:10]) == 0 and max(steps[10:]) > 1e-4

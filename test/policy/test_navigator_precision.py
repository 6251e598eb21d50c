"""
Smaller numbers reach the network through the navigator, and answers stay near those of full
precision.
"""

import numpy as np
import pytest
import torch

from janusvln_ros.errors import InputError
from janusvln_ros.policy import Navigator


@pytest.fixture(scope="module")
def frames(expected):
    return expected["frames_raw_uint8"].numpy()[:9]


def last_scores(navigator, frames):
    navigator.reset("walk past the sofa")
    for frame in frames[:-1]:
        navigator.observe(frame)
    return navigator.step(frames[-1]).scores[0]


@pytest.fixture(scope="module")
def exact(tiny, frames):
    return last_scores(Navigator.from_pretrained(tiny, keep_scores=True), frames)


@pytest.mark.parametrize(
    "options, low, high",
    [
        ({"precision": "int8"}, 1e-6, 0.05),
        ({"precision": "int4"}, 1e-3, 0.7),
        ({"spatial_precision": "int8"}, 1e-7, 0.02),
    ],
)
def test_scores_move_a_little_and_not_more(tiny, frames, exact, options, low, high):
    scores = last_scores(Navigator.from_pretrained(tiny, keep_scores=True, **options), frames)
    error = float((scores - exact).norm() / exact.norm())
    assert low < error < high


def test_int8_language_model_is_what_was_asked_for(tiny):
    model = Navigator.from_pretrained(tiny, precision="int8").model
    assert model.language.layers[0].mlp.up_proj.weight.qdata.dtype == torch.int8
    assert model.vision.blocks[0].mlp.up_proj.weight.dtype == torch.bfloat16


def test_dual_memory_runs_on_an_int8_language_model(tiny, frames):
    navigator = Navigator.from_pretrained(
        tiny, precision="int8", memory="dual", decoding="constrained", allow_untrained_memory=True
    )
    navigator.reset("walk past the sofa")
    chances = [navigator.step(frame).probabilities for frame in frames]
    assert all(np.isclose(sum(p.values()), 1) for p in chances)


@pytest.mark.parametrize(
    "options, says",
    [({"precision": "int3"}, "int3"), ({"spatial_precision": "int4"}, "spatial_precision")],
)
def test_unknown_precision_is_refused(tiny, options, says):
    with pytest.raises(InputError, match=says):
        Navigator.from_pretrained(tiny, **options)

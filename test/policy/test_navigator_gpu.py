"""
On a GPU: the decisions of the CPU, and a recorded step that is the step itself. Skipped where
there is no GPU.
"""

import numpy as np
import pytest
import torch

from janusvln_ros.actions import Action
from janusvln_ros.model import JanusVLN
from janusvln_ros.policy import Navigator, NavigatorOptions

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

FRAMES = np.random.default_rng(0).integers(0, 256, (70, 480, 640, 3), dtype=np.uint8)
"""More than a window of 8 + 48, so that frames are evicted from both memories."""


@pytest.fixture(scope="module")
def probabilities(request):
    """A function of memory, device, dtype and options: float64 [70, 4], those of the actions."""
    tiny, tokenizer = request.getfixturevalue("tiny"), request.getfixturevalue("tokenizer")

    def drive(memory, device, dtype=torch.float32, **options):
        model = JanusVLN.from_pretrained(tiny, dtype=dtype).to(device)
        chosen = NavigatorOptions(memory, "constrained", allow_untrained_memory=True, **options)
        navigator = Navigator(model, tokenizer, chosen)
        navigator.reset("walk past the sofa and stop near the table.")
        steps = [navigator.step(frame).probabilities for frame in FRAMES]
        return np.array([[step[action] for action in Action] for step in steps])

    return drive


@pytest.mark.parametrize("memory", ["released", "dual"])
def test_a_gpu_in_float32_gives_the_probabilities_of_the_cpu(probabilities, memory):
    expected = probabilities(memory, "cpu")
    np.testing.assert_allclose(probabilities(memory, "cuda"), expected, atol=5e-4)


@pytest.mark.parametrize("memory", ["released", "dual"])
def test_a_gpu_in_bfloat16_stays_within_its_rounding(probabilities, memory):
    expected = probabilities(memory, "cpu")
    found = probabilities(memory, "cuda", torch.bfloat16)
    np.testing.assert_allclose(found, expected, atol=0.03)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_recorded_step_on_a_gpu_is_the_step_bit_for_bit(probabilities, dtype):
    plain = probabilities("dual", "cuda", dtype)
    recorded = probabilities("dual", "cuda", dtype, cuda_graphs=True)
    np.testing.assert_array_equal(recorded, plain)

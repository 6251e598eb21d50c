"""
The window rule and the spatial memory: what is remembered, where it lies, and that nothing grows
or is lost by a failed step.
"""

import json
import re
from pathlib import Path

import pytest
import torch

from janusvln_ros.errors import InputError
from janusvln_ros.model import JanusVLN, JanusVLNConfig
from janusvln_ros.model.memory import (
    ALL_FRAMES,
    FrameWindow,
    QuantizedSpatialMemory,
    SpatialMemory,
    quantize_rows,
)

SETTINGS = json.loads((Path(__file__).parents[2] / "config" / "model" / "tiny.json").read_text())
# Qwen's own initial weights: with larger ones a random network magnifies every rounding.
CONFIG = JanusVLNConfig.from_dict({**SETTINGS, "initializer_range": 0.02})

WINDOWS = [
    FrameWindow(8, 48),
    FrameWindow(2, 4),
    FrameWindow(0, 3),
    FrameWindow(3, 0),
    FrameWindow(1, 1),
    FrameWindow(0, 0),
]


def memory_of(window, tokens=2):
    return SpatialMemory(
        layers=1,
        heads=1,
        head_size=1,
        tokens=tokens,
        window=window,
        dtype=torch.float32,
        device="cpu",
    )


def attended(memory, frame):
    """Feed a frame whose keys are its number; the frames attended, ascending."""
    k, v = memory.attend(
        0,
        torch.full((1, 1, memory.tokens, 1), float(frame)),
        torch.full((1, 1, memory.tokens, 1), -float(frame)),
    )
    assert torch.equal(k, -v)
    return sorted(int(x) for x in k[0, 0, :: memory.tokens, 0])


def test_attended_and_kept_frames_are_those_of_the_published_cache(data):
    for name, steps in json.loads((data / "eviction.json").read_text()).items():
        initial, window = map(int, re.findall(r"\d+", name))
        memory = memory_of(FrameWindow(initial, window))
        published = {step["t"]: step for step in steps}
        for t in range(max(published) + 1):
            seen = attended(memory, t)
            memory.commit()
            if t in published:
                assert (seen, memory.frames) == (published[t]["attended"], published[t]["kept"]), (
                    name,
                    t,
                )


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_memory_attends_what_the_rule_says(window):
    memory = memory_of(window)
    numbers = torch.arange(3 * window.slots + 5)
    visible = window.visible(numbers, numbers)
    for t in numbers.tolist():
        assert attended(memory, t) == visible[t].nonzero()[:, 0].tolist()
        memory.commit()


def test_plain_causal_window_never_forgets():
    numbers = torch.arange(200)
    assert torch.equal(ALL_FRAMES.visible(numbers, numbers), torch.ones(200, 200).tril().bool())


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_frame_that_is_not_committed_leaves_no_trace(window):
    memory = memory_of(window)
    for t in range(3 * window.slots):
        before = memory.frames
        attended(memory, 1000 + t)  # fails, or is taken back
        assert memory.frames == before
        assert 1000 + t not in attended(memory, t)
        memory.commit()


def test_buffers_are_made_once_and_hold_the_window_and_the_current_frame():
    memory = memory_of(FrameWindow(8, 48), tokens=5)
    pointers, size = (memory.k_BZNKH.data_ptr(), memory.v_BZNKH.data_ptr()), memory.nbytes
    for t in range(130):
        attended(memory, t)
        memory.commit()
    assert (memory.k_BZNKH.data_ptr(), memory.v_BZNKH.data_ptr()) == pointers
    assert memory.nbytes == size == 2 * 57 * 5 * 4


def test_reset_forgets():
    memory = memory_of(FrameWindow(1, 2))
    for t in range(9):
        attended(memory, t)
        memory.commit()
    memory.reset()
    assert memory.frames == [] and attended(memory, 50) == [50]


def test_frame_of_another_size_is_refused_and_leaves_the_memory():
    memory = memory_of(FrameWindow(1, 2), tokens=4)
    attended(memory, 0)
    memory.commit()
    with pytest.raises(InputError, match="one size"):
        memory.attend(0, torch.zeros(1, 1, 6, 1), torch.zeros(1, 1, 6, 1))
    assert attended(memory, 1) == [0, 1]


@pytest.mark.parametrize("storage, bound", [(torch.int8, 1 / 250), (torch.float8_e4m3fn, 1 / 15)])
def test_rows_come_back_within_half_a_step_of_their_largest_number(storage, bound):
    x = (
        torch.randn(3, 50, 16, generator=torch.Generator().manual_seed(0))
        * torch.logspace(-4, 2, 50)[:, None]
    )
    values, scale = quantize_rows(x, storage)
    error = (values.float() * scale.float() - x).abs()
    assert values.itemsize == 1 and (error <= bound * x.abs().amax(-1, keepdim=True) + 1e-7).all()


@pytest.mark.parametrize("precision, bound", [("int8", 0.005), ("float8", 0.05)])
def test_spatial_memory_in_a_byte_past_three_evictions(precision, bound):
    encoder = JanusVLN.from_config(CONFIG).spatial
    window = FrameWindow(1, 2)
    exact, small = (
        encoder.new_memory(56, 84, window),
        encoder.new_memory(56, 84, window, precision),
    )
    assert isinstance(small, QuantizedSpatialMemory) and small.nbytes < 0.4 * exact.nbytes
    images = torch.rand(10, 3, 56, 84, generator=torch.Generator().manual_seed(0))
    for i, image in enumerate(images):
        with torch.no_grad():
            a, b = encoder.encode_frame(image, exact), encoder.encode_frame(image, small)
        error = float((a - b).norm() / a.norm())
        assert error == 0 if i == 0 else 0 < error < bound, (
            "the current frame is exact, remembered ones are near"
        )
        exact.commit()
        small.commit()
    assert exact.frames == small.frames == [0, 8, 9]


def test_spatial_memory_in_a_byte_refuses_what_the_exact_one_refuses():
    memory = QuantizedSpatialMemory(1, 1, 4, 6, FrameWindow(1, 1), torch.int8, "cpu")
    for m in (memory, SpatialMemory(1, 1, 4, 6, FrameWindow(1, 1), torch.float32, "cpu")):
        with pytest.raises(InputError, match="one size"):
            m.attend(0, torch.zeros(1, 1, 5, 4), torch.zeros(1, 1, 5, 4))


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_memory_is_full_once_every_frame_that_it_may_keep_is_there(window):
    memory = memory_of(window)
    for seen in range(2 * window.slots):
        assert memory.full == (len(memory.frames) == window.initial + window.window)
        assert memory.full == (seen >= window.slots - 1)
        attended(memory, seen)
        memory.commit()
    memory.reset()
    assert memory.full == (window.slots == 1)


@pytest.mark.parametrize("storage", [torch.int8, torch.float8_e4m3fn])
def test_a_row_of_zeros_stays_one_and_the_largest_numbers_come_back(storage):
    x = torch.tensor([[0.0, 0.0], [3.0, -3.0], [1e-30, -1e30], [5.0, 0.0]])
    values, scale = quantize_rows(x, storage)
    back = values.float() * scale
    assert torch.equal(back[0], torch.zeros(2)) and torch.isfinite(back).all()
    torch.testing.assert_close(back.abs().amax(1), x.abs().amax(1))
    torch.testing.assert_close(back, x, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("storage", [torch.int8, torch.float8_e4m3fn])
def test_memory_in_a_byte_takes_a_byte_per_number_and_a_scale_per_token_and_head(storage):
    layers, heads, size, tokens, window = 2, 3, 4, 5, FrameWindow(1, 2)
    memory = QuantizedSpatialMemory(layers, heads, size, tokens, window, storage, "cpu")
    assert memory.nbytes == 2 * layers * heads * window.slots * tokens * (size + 4)


@pytest.mark.parametrize("storage", [torch.int8, torch.float8_e4m3fn])
@pytest.mark.parametrize("window", WINDOWS[1:], ids=str)
def test_memory_in_a_byte_attends_what_the_rule_says(window, storage):
    memory = QuantizedSpatialMemory(2, 1, 4, 2, window, storage, "cpu")
    numbers = torch.arange(3 * window.slots + 5)
    visible = window.visible(numbers, numbers)
    for t in numbers.tolist():
        for layer in (1, 0):
            # one number a row comes back exactly
            frame = torch.full((1, 1, 2, 4), 2.0 ** (t % 9) * (1 + layer))
            k, v = memory.attend(layer, frame, -frame)
            assert k.dtype == torch.float32 and torch.equal(k, -v)
            expected = [2.0 ** (j % 9) * (1 + layer) for j in visible[t].nonzero()[:, 0].tolist()]
            torch.testing.assert_close(
                k[0, 0, :, 0].sort().values,
                torch.tensor(sorted(expected * 2)),
            )
        memory.commit()

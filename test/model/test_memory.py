"""
The window rule and the spatial memory: what is remembered, where it lies, and that nothing grows
or is lost by a failed step.
"""

import json
import re

import pytest
import torch

from janusvln_ros.errors import InputError
from janusvln_ros.model.memory import ALL_FRAMES, FrameWindow, SpatialMemory

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
        head_dim=1,
        tokens=tokens,
        window=window,
        dtype=torch.float32,
        device="cpu",
    )


def attended(memory, frame):
    """Feed a frame whose keys are its number; the frames attended, ascending."""
    k, v = memory.attend(
        0,
        torch.full((1, memory.tokens, 1), float(frame)),
        torch.full((1, memory.tokens, 1), -float(frame)),
    )
    assert torch.equal(k, -v)
    return sorted(int(x) for x in k[0, :: memory.tokens, 0])


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
    pointers, size = (memory.k_LHND.data_ptr(), memory.v_LHND.data_ptr()), memory.nbytes
    for t in range(130):
        attended(memory, t)
        memory.commit()
    assert (memory.k_LHND.data_ptr(), memory.v_LHND.data_ptr()) == pointers
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
        memory.attend(0, torch.zeros(1, 6, 1), torch.zeros(1, 6, 1))
    assert attended(memory, 1) == [0, 1]

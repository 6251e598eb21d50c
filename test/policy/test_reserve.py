"""All that an episode can need is set aside before it begins, and nothing is asked for later."""

import os
import subprocess
import sys

import numpy as np
import pytest

from janusvln_ros.errors import InputError
from janusvln_ros.model import JanusVLN
from janusvln_ros.model.footprint import Episode, memory_bytes
from janusvln_ros.nodes.worker import FEW_KERNELS
from janusvln_ros.policy import Navigator, NavigatorOptions, default_checkpoint
from janusvln_ros.policy.fit import frame_size

SIZE = (112, 84)
MODES = ["released", "dual"]


@pytest.fixture
def navigator(network, tokenizer):
    """A function of the memory: a navigator, and the same one with everything reserved."""

    def make(memory, reserved=True):
        options = NavigatorOptions(memory, "constrained", allow_untrained_memory=True)
        made = Navigator(network, tokenizer, options)
        if reserved:
            made.reserve(SIZE)
        return made

    return make


def pictures(count, size=SIZE):
    return np.random.default_rng(0).integers(0, 256, (count, size[1], size[0], 3), np.uint8)


def buffers(navigator):
    """Where everything that is remembered lies."""
    context = navigator.context
    kept = context.memory if navigator.memory == "dual" else context.cache
    tensors = [navigator.spatial.k_BZNKH, navigator.spatial.v_BZNKH, kept.k_BZNKH, kept.v_BZNKH]
    tensors += [context.features_FMD] if navigator.memory == "released" else []
    return [(tensor.data_ptr(), tuple(tensor.shape)) for tensor in tensors]


@pytest.mark.parametrize("memory", MODES)
def test_an_episode_past_the_window_asks_for_nothing_more(navigator, memory):
    reserved = navigator(memory)
    before, count = buffers(reserved), reserved.memory_bytes
    for words in (3, 400):
        reserved.reset("go " * words)
        for picture in pictures(reserved.memory_capacity + 3):
            reserved.step(picture)
        assert buffers(reserved) == before and reserved.memory_bytes == count


@pytest.mark.parametrize("memory", MODES)
def test_what_is_counted_before_loading_is_what_is_set_aside(navigator, memory):
    reserved = navigator(memory)
    config = reserved.model.config
    window = config.navigation.window
    episode = Episode(frame_size(config, SIZE), memory, window, 4, spatial_byte=False)
    counted = sum(memory_bytes(config, episode)[1].values())
    if memory == "released":  # on a CPU the features of all frames lie beside them
        counted += reserved.context.features_FMD.nbytes
    # never less; a few rows more, where the tree of answers has fewer tokens than there may be
    assert 0 <= counted - reserved.memory_bytes < 0.01 * counted


@pytest.mark.parametrize("memory", MODES)
def test_nothing_is_remembered_of_it(navigator, memory):
    reserved, plain = navigator(memory), navigator(memory, reserved=False)
    assert reserved.frames_seen == 0 and reserved.semantic_frames == []
    with pytest.raises(InputError, match="no episode yet"):
        reserved.step(pictures(1)[0])
    for one in (reserved, plain):
        one.reset("walk past the sofa")
    for picture in pictures(reserved.memory_capacity + 3):
        assert reserved.step(picture).probabilities == plain.step(picture).probabilities


@pytest.mark.parametrize("memory", MODES)
def test_a_longer_instruction_is_refused_and_the_episode_goes_on(navigator, memory):
    reserved = navigator(memory)
    reserved.reset("walk past the sofa")
    first = reserved.step(pictures(1)[0])
    with pytest.raises(InputError, match="1280 are set aside: shorten it"):
        reserved.reset("go " * 3000)
    assert reserved.instruction == "walk past the sofa" and reserved.frames_seen == 1
    reserved.reset("walk past the sofa")
    assert reserved.step(pictures(1)[0]).probabilities == first.probabilities


def test_a_larger_picture_is_refused(navigator):
    reserved = navigator("released")
    reserved.reset("walk past the sofa")
    with pytest.raises(InputError, match="configure with the size of this camera"):
        reserved.step(pictures(1, (112, 112))[0])
    reserved.step(pictures(1)[0])


def test_without_reserving_any_instruction_is_taken(navigator):
    plain = navigator("dual", reserved=False)
    plain.reset("go " * 1500)
    plain.step(pictures(1)[0])


GROWTH = """
import re, sys
from pathlib import Path
import numpy as np
from janusvln_ros.policy import Navigator

checkpoint, precision, memory = sys.argv[1:]
navigator = Navigator.from_pretrained(
    checkpoint, precision=precision, memory=memory, allow_untrained_memory=True
)
navigator.reserve()
pictures = np.random.default_rng(0).integers(0, 256, (8, 480, 640, 3), np.uint8)
status = Path("/proc/self/status")
resident = lambda: int(re.search(r"VmRSS:\\s+(\\d+)", status.read_text())[1])
navigator.reset("walk past the sofa")
navigator.step(pictures[0])
before = resident()
navigator.reset("turn left and stop at the door")
for i in range(300):
    navigator.step(pictures[i % 8])
print(resident() / before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("memory", MODES)
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8", "int4"])
def test_300_steps_on_a_cpu_take_no_more_memory(precision, memory):
    environment = os.environ | FEW_KERNELS  # as the node sets it
    command = [sys.executable, "-c", GROWTH, str(default_checkpoint()), precision, memory]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert float(done.stdout.split()[-1]) <= 1.01


@pytest.mark.parametrize("memory", MODES)
def test_300_steps_on_a_gpu_have_the_peak_of_the_first(tiny, tokenizer, memory):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    model = JanusVLN.from_pretrained(tiny, dtype="bfloat16", device="cuda")
    options = NavigatorOptions(memory, "constrained", allow_untrained_memory=True)
    navigator = Navigator(model, tokenizer, options)
    navigator.reserve(SIZE)
    before = torch.cuda.max_memory_allocated()
    navigator.reset("walk past the sofa")
    for i in range(300):
        navigator.step(pictures(8)[i % 8])
    assert torch.cuda.max_memory_allocated() == before

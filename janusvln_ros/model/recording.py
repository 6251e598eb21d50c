"""
Calls that do the same work at the same addresses at every step, recorded once and replayed.

A step of a full window is thousands of small kernels; launched one by one they keep a GPU waiting
for its host. What is recorded must depend on nothing but its inputs, the weights and buffers that
stay where they are: shapes, addresses and Python numbers are those of the recording, and what the
call writes into a memory's buffers is written again at every replay.
"""

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

Call = Callable[..., tuple[Tensor, ...]]
"""Takes tensors, returns tensors."""

Replay = Callable[[], tuple[Tensor, ...]]
"""The recorded work: reads the inputs that it was recorded with, returns its own outputs."""

Recorder = Callable[[Call, Sequence[Tensor]], Replay]
"""Records ``call(*inputs)``; from then on the inputs' contents are all that changes."""

WARM_UPS = 2
MOST_RECORDINGS = 16
"""Kept at a time: the parts of a step, each for some prompts of different lengths."""


def cuda_graph(call: Call, inputs: Sequence[Tensor]) -> Replay:
    """
    A `Recorder`: one CUDA graph, replayed with one launch.

    Warms up and records on the same stream, as libraries set themselves up at their first calls,
    by stream. Other threads may go on using the GPU meanwhile.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            call(*inputs)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        outputs = call(*inputs)

    def replay() -> tuple[Tensor, ...]:
        graph.replay()
        return outputs

    return replay


def compiled_cuda_graph(call: Call, inputs: Sequence[Tensor]) -> Replay:
    """
    As `cuda_graph`, of what `torch.compile` makes of the call for these very shapes: fewer and
    larger kernels, rounded a little differently.
    """
    return cuda_graph(torch.compile(call, dynamic=False), inputs)


class Recordings:
    """
    The recorded calls of a navigator.

    Args:
        recorder: how to record; None: never, every call is made.
    """

    def __init__(self, recorder: Recorder | None = None) -> None:
        self.recorder = recorder
        # the call too: what it reads beside its inputs, as a mask, stays where it is
        self._held: dict[Hashable, tuple[Call, list[Tensor], Replay]] = {}

    def run(
        self, call: Call, *inputs: Tensor, key: Hashable, steady: bool = True
    ) -> tuple[Tensor, ...]:
        """
        ``call(*inputs)``, replayed from its recording where there is one.

        Args:
            call: what to do.
            inputs: tensors of the same shapes at every call with this ``key``.
            key: names all that the recording depends on beside the inputs.
            steady: nothing else changes any more; before, the call is made.

        Returns:
            Its outputs; those of a replay are overwritten by the next with this ``key``.
        """
        if self.recorder is None or not steady:
            return call(*inputs)
        if key not in self._held:
            if len(self._held) >= MOST_RECORDINGS:
                self._held.clear()
            own = [given.clone() for given in inputs]
            self._held[key] = (call, own, self.recorder(call, own))
        _, own, replay = self._held[key]
        for kept, given in zip(own, inputs):
            kept.copy_(given, non_blocking=True)
        return replay()

    def __len__(self) -> int:
        """Recordings that are held."""
        return len(self._held)

"""
CUDA graphs: a computation whose shapes and addresses never change is recorded once and replayed
with one launch.

Once the window is full, every step of the semantic memory reads and writes the same addresses, so
the language model's hundreds of kernels can be replayed. Off unless asked for (``cuda_graphs``),
and only used on a GPU.
"""

from collections.abc import Callable

import torch
from torch import Tensor


class RecordedCall:
    """
    ``function(*inputs)`` as one CUDA graph.

    The function must do the same work at every call: shapes, addresses and Python numbers are
    those of the recording. What it writes elsewhere (a memory's buffers) is written again at every
    replay.

    Args:
        function: takes tensors on the GPU, returns one.
        examples: inputs of the shapes that every call will have.
    """

    def __init__(self, function: Callable[..., Tensor], *examples: Tensor) -> None:
        self.inputs = [example.clone() for example in examples]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        # libraries set themselves up at the first calls, which must not be recorded
        with torch.cuda.stream(side):
            for _ in range(2):
                function(*self.inputs)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.output = function(*self.inputs)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Replay with these inputs; the result is the caller's to keep."""
        for own, given in zip(self.inputs, inputs):
            own.copy_(given)
        self.graph.replay()
        return self.output.clone()

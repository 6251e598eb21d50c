"""
The one thread that owns the model.

Jobs run in the order given; what each returns is handed to ``deliver``, which must be safe to call
from here. Nothing here knows ROS.
"""

import gc
import queue
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from janusvln_ros.actions import Action
from janusvln_ros.camera.reader import FrameReader
from janusvln_ros.errors import InputError
from janusvln_ros.protocol.exchange import (
    Decided,
    Event,
    Failed,
    Heard,
    Infer,
    Reset,
    ResetFailed,
)
from janusvln_ros.protocol.status import Code

WARM_UP_INSTRUCTION = "walk forward"
WARM_UP_SHAPE = (480, 640, 3)
"""Size of the grey frames the model sees before its first real one."""

FEW_KERNELS = {"LRU_CACHE_CAPACITY": "4", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "16"}
"""
Environment of torch, to be set before it is imported: oneDNN, and torch's own list before it, keep
a kernel for every shape that they have met, and prompts have many lengths: 1024 each, left alone,
let a CPU's memory grow with the instructions.
"""


@dataclass(frozen=True)
class Crashed:
    """A job raised what it should have caught."""

    message: str


class Worker(threading.Thread):
    """
    Runs jobs one after the other.

    ``deliver(result)`` is called on this thread with whatever a job returned, unless that is None.
    A job that raises is answered with a ``Crashed``, and the thread goes on.
    """

    def __init__(self, deliver: Callable[[Any], None]):
        super().__init__(name="model", daemon=True)
        self.jobs: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self.deliver = deliver
        self.start()

    def put(self, job: Callable[[], Any]) -> None:
        """Queue a job."""
        self.jobs.put(job)

    def run(self) -> None:
        """The thread: jobs until ``end``."""
        while (job := self.jobs.get()) is not None:
            try:
                result = job()
            except Exception as error:
                result = Crashed(f"{type(error).__name__}: {str(error)[:200]}")
            if result is not None:
                self.deliver(result)

    def end(self, timeout: float) -> bool:
        """Let the thread end after the jobs in the queue; whether it did within ``timeout`` s."""
        self.jobs.put(None)
        self.join(timeout)
        return not self.is_alive()


@dataclass(frozen=True)
class Seen:
    """
    A decision of the model with the frame it saw and the state of the memories.

    ``rgb``: uint8 [h, w, 3], after rectification.
    """

    decision: Any
    rgb: npt.NDArray[np.uint8]
    probabilities: tuple[float, ...]
    spatial_frames: int
    semantic_frames: int
    memory_capacity: int
    memory_bytes: int


def free_memory() -> None:
    """Give back what a failed step held."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def warm_up(navigator: Any) -> None:
    """
    Take steps on grey frames, so that the first real one is not the slow one, and let the model
    set aside what its largest step needs, so that no drive ends for want of memory.

    The memories are empty afterwards.
    """
    if reserve := getattr(navigator, "reserve", None):
        reserve(WARM_UP_SHAPE[1::-1])
    for _ in range(2):
        navigator.reset(WARM_UP_INSTRUCTION)
        navigator.step(np.full(WARM_UP_SHAPE, 128, np.uint8))
    navigator.reset(WARM_UP_INSTRUCTION)


def look(navigator: Any, decision: Any, rgb: npt.NDArray[np.uint8]) -> Seen:
    """
    Return a decision with everything that is published about it.

    Raises:
        FloatingPointError: a probability is not a number.
    """
    shares = decision.probabilities
    probabilities = tuple(float(shares[a]) if shares else float("nan") for a in Action)
    if shares and not np.isfinite(probabilities).all():
        raise FloatingPointError("the model's probabilities are not numbers")
    return Seen(
        decision,
        rgb,
        probabilities,
        spatial_frames=len(navigator.spatial_frames),
        semantic_frames=len(navigator.semantic_frames),
        memory_capacity=navigator.memory_capacity,
        memory_bytes=navigator.memory_bytes,
    )


class Session:
    """
    The model and its eyes, as the jobs of one node use them; but for ``listen`` only ever touched
    on the worker's thread.

    ``ready``: the last reset went well; nothing is decided otherwise.
    """

    def __init__(self, navigator: Any, reader: FrameReader):
        self.navigator, self.reader, self.ready = navigator, reader, False

    def listen(self, instruction: str) -> Heard:
        """Say what the model makes of an instruction, on any thread, in milliseconds."""
        understand = getattr(self.navigator, "understand", None)
        if understand is None:
            return Heard()
        found = understand(instruction)
        return Heard(found.verdict, found.reasons, found.told)

    def reset(self, command: Reset) -> Event | None:
        """Begin an episode; a failure if the model cannot take the instruction."""
        self.ready = False
        self.reader.reset()
        try:
            self.navigator.reset(command.instruction)
            self.ready = True
            return None
        except InputError as error:
            failed = (Code.INVALID_INSTRUCTION, str(error))
        except Exception as error:
            failed = (Code.INFERENCE_FAILED, f"the model failed: {describe(error)}")
        return ResetFailed(time.monotonic(), command.episode_id, *failed)

    def decide(self, command: Infer) -> Event | None:
        """Look at a frame and decide; None while no episode is ready."""
        if not self.ready:
            return None
        code, what = Code.BAD_FRAME, "the frame cannot be read"
        try:
            rgb = self.reader.read(command.frame.image, command.camera, command.moved)
            code, what = Code.INFERENCE_FAILED, "the model failed"
            decision = self.navigator.step(rgb, commit=command.commit)
            seen, now = look(self.navigator, decision, rgb), time.monotonic()
            return Decided(now, command.ticket, decision.action, decision.text, seen)
        except InputError as error:  # about the frame, from reader and model alike
            failed = (Code.BAD_FRAME, str(error))
        except Exception as error:
            failed = (code, f"{what}: {describe(error)}")
        if code == Code.INFERENCE_FAILED:
            # after the handler: the exception holds the frames of the stack, and so the memory
            free_memory()
        return Failed(time.monotonic(), command.ticket, *failed)


def describe(error: BaseException) -> str:
    """Return an exception in one line; want of memory, on whatever device, is named as that."""
    name, text = type(error).__name__, str(error)[:200]
    out = isinstance(error, MemoryError) or "outofmemory" in name.lower()
    if out or "out of memory" in str(error).lower():
        return f"out of memory: {text}"
    return f"{name}: {text}"

"""
The one thread that owns the model.

Jobs run in the order given; what each returns is handed to ``deliver``, which must be safe to call
from here.

Nothing here knows ROS.
"""

import gc
import queue
import sys
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from janusvln_ros.actions import Action
from janusvln_ros.camera.images import blank, decode
from janusvln_ros.camera.view import Intrinsics, View, plan_view, uncalibrated_view
from janusvln_ros.errors import InputError
from janusvln_ros.protocol import driving as stepping
from janusvln_ros.protocol.driving import Code

WARM_UP_INSTRUCTION = "walk forward"
WARM_UP_SHAPE = (480, 640, 3)
"""Size of the grey frames the model sees before its first real one."""


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
        """
        Let the thread end after the jobs in the queue; whether it did within ``timeout`` seconds.
        """
        self.jobs.put(None)
        self.join(timeout)
        return not self.is_alive()


@dataclass(frozen=True)
class Seen:
    """
    A decision of the model with the frame it saw (uint8 [h, w, 3], after rectification) and the
    state of the memories.
    """

    decision: Any
    rgb: npt.NDArray[np.uint8]
    probabilities: tuple[float, float, float, float]
    spatial_frames: int
    semantic_frames: int
    capacity: int
    memory_bytes: int


class Eyes:
    """
    Frames as they come to frames as the model wants them.

    Keeps the view of the latest camera, and the last frame's checksum.
    """

    def __init__(self, *, allow_uncalibrated: bool, refuse_blank: bool, refuse_frozen: bool):
        self.allow_uncalibrated, self.refuse_blank, self.refuse_frozen = (
            allow_uncalibrated,
            refuse_blank,
            refuse_frozen,
        )
        self.camera: Intrinsics | None = None
        self.view: View | None = None
        self.last_sum: int | None = None
        self.warnings: list[str] = []

    def see(self, message: Any, camera: Intrinsics | None, moved: bool) -> npt.NDArray[np.uint8]:
        """
        The frame of a camera message as the model should see it.

        ``moved``: the robot has moved since the last one.

        Raises:
            InputError: the frame is malformed, of another size than the camera's, black, or the
                very one from before the motion.
        """
        rgb = decode(message)
        if self.refuse_blank and blank(rgb):
            raise InputError("the frame is black: is the lens covered?")
        checksum = zlib.adler32(rgb)  # type: ignore[arg-type]
        if self.refuse_frozen and moved and checksum == self.last_sum:
            raise InputError("the frame is the same as before the motion: the camera is frozen")
        if (
            self.view is None
            or camera != self.camera
            or (camera is None and self.view.source != rgb.shape[1::-1])
        ):
            self.view = self._plan(camera, rgb.shape[1], rgb.shape[0])
            self.camera = camera
            self.warnings += self.view.warnings
        seen = self.view.apply(rgb)
        self.last_sum = checksum
        return seen

    def _plan(self, camera: Intrinsics | None, width: int, height: int) -> View:
        try:
            if camera is None:
                raise InputError(
                    "no camera_info has arrived: publish it, or set allow_uncalibrated_camera"
                )
            return plan_view(camera)
        except InputError:
            if not self.allow_uncalibrated:
                raise
            return uncalibrated_view(width, height)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the model failed for want of memory, on whatever device."""
    return (
        isinstance(error, MemoryError)
        or "outofmemory" in type(error).__name__.lower()
        or "out of memory" in str(error).lower()
    )


def free_memory() -> None:
    """Give back what the failed step held."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def warm_up(navigator: Any) -> None:
    """
    Two steps on grey frames, so that the first real one is not the slow one; memories are empty
    afterwards.
    """
    for _ in range(2):
        navigator.reset(WARM_UP_INSTRUCTION)
        navigator.step(np.full(WARM_UP_SHAPE, 128, np.uint8))
    navigator.reset(WARM_UP_INSTRUCTION)


def look(navigator: Any, decision: Any, rgb: npt.NDArray[np.uint8]) -> Seen:
    """
    A decision with everything that is published about it.

    Raises:
        FloatingPointError: a probability is not a number.
    """
    shares = decision.probabilities
    probabilities = (
        tuple(float(shares[action]) for action in Action) if shares else (float("nan"),) * 4
    )
    if shares and not np.isfinite(probabilities).all():
        raise FloatingPointError("the model's probabilities are not numbers")
    held = len(getattr(navigator, "spatial_frames", ()))
    navigation = getattr(
        getattr(getattr(navigator, "model", None), "config", None), "navigation", None
    )
    capacity = (
        navigation.initial_frames + navigation.window_frames if navigation is not None else held
    )
    semantic = (
        min(navigator.frames_seen, navigation.num_history)
        if navigation is not None and navigator.memory == "released"
        else held
    )
    used = int(getattr(navigator, "memory_bytes", 0))
    return Seen(decision, rgb, probabilities, held, semantic, capacity, used)  # type: ignore[arg-type]


class Session:
    """
    The model and its eyes, as the jobs of one node use them; only ever touched on the worker's
    thread.

    ``ready``: the last reset went well; nothing is decided otherwise.
    """

    def __init__(self, navigator: Any, eyes: Eyes):
        self.navigator, self.eyes, self.ready = navigator, eyes, False

    def reset(self, epoch: int, instruction: str) -> stepping.Event | None:
        """Begin an episode; a failure if the model cannot take the instruction."""
        self.ready = False
        self.eyes.last_sum = None
        try:
            self.navigator.reset(instruction)
        except InputError as error:
            return stepping.ResetFailed(
                time.monotonic(), epoch, Code.INVALID_INSTRUCTION, str(error)
            )
        except Exception as error:
            return stepping.ResetFailed(
                time.monotonic(),
                epoch,
                Code.INFERENCE_FAILED,
                f"the model failed: {describe(error)}",
            )
        self.ready = True
        return None

    def decide(
        self, ticket: int, message: Any, camera: Intrinsics | None, moved: bool, commit: bool
    ) -> stepping.Event | None:
        """Look at a camera message and decide; None while no episode is ready."""
        if not self.ready:
            return None
        try:
            rgb = self.eyes.see(message, camera, moved)
        except InputError as error:
            return stepping.Failed(time.monotonic(), ticket, Code.BAD_FRAME, str(error))
        except Exception as error:
            return stepping.Failed(
                time.monotonic(),
                ticket,
                Code.BAD_FRAME,
                f"the frame cannot be read: {describe(error)}",
            )
        try:
            decision = self.navigator.step(rgb, commit=commit)
            return stepping.Decided(
                time.monotonic(),
                ticket,
                decision.action,
                decision.text,
                look(self.navigator, decision, rgb),
            )
        except Exception as error:
            # an InputError is about the frame, but for the one that says that numbers went bad
            bad_frame = isinstance(error, InputError) and type(error).__name__ != "NonFiniteError"
            code = Code.BAD_FRAME if bad_frame else Code.INFERENCE_FAILED
            failed = stepping.Failed(
                time.monotonic(),
                ticket,
                code,
                str(error) if bad_frame else f"the model failed: {describe(error)}",
            )
        # after the handler: the exception holds the frames of the stack and with them the memory
        free_memory()
        return failed

    def commit(self) -> None:
        """Keep the decision that could be taken back."""
        self.navigator.commit()


def describe(error: BaseException) -> str:
    """An exception in one line."""
    return (
        f"out of memory: {str(error)[:200]}"
        if is_out_of_memory(error)
        else f"{type(error).__name__}: {str(error)[:200]}"
    )

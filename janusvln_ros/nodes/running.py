"""
How a node process starts and ends: signals, exit codes, bad parameters in one sentence, start
without a lifecycle manager.
"""

import functools
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any

from janusvln_ros.errors import InputError
from janusvln_ros.nodes.shared_memory import clear_dead, keep_private

SPIN_SECONDS = 0.05
"""Longest wait of the executor, so that a signal is seen soon even on a silent graph."""


LAST_SECONDS = 0.2
"""Time for the last messages to leave."""


GRACE_SECONDS = 1.0
"""
Time from the first signal for a node to end by itself; then its process ends, whatever its threads
do.
"""


class Signals:
    """
    SIGINT and SIGTERM of this process, from its first moments on. ``received``: one came.

    Until ``running`` there is nothing to close, and the first signal ends the process at once with
    0; then the node has ``GRACE_SECONDS``, however many more come. A thread watches, which the
    system wakes even while the main one is inside a library.
    """

    def __init__(self) -> None:
        self.received = self.running = False
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._take)
        threading.Thread(target=self._watch, args=(reading,), daemon=True).start()
        # whoever started this process may have held them back until now
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.received = True

    def _watch(self, reading: int) -> None:
        while os.read(reading, 1)[0] not in (signal.SIGINT, signal.SIGTERM):
            pass
        if self.running:
            time.sleep(GRACE_SECONDS)
        _end(0)


@functools.cache
def signals() -> Signals:
    """
    The signals of this process, listened to from the first call on; make it before long imports.
    """
    return Signals()


def run_node(make: Callable[[], Any], args: list[str] | None = None) -> int:
    """
    Create the node that ``make`` returns, spin it on one thread until a signal or
    ``node.exit_code``, and close it.

    The node has ``exit_code`` (None while it should run) and may have ``close()`` (last messages,
    threads). SIGINT and SIGTERM end it with 0 within 2 s: whatever still computes in a thread by
    then is left behind with the process.

    Returns 0 after a signal, ``node.exit_code``, 2 for a wrong parameter (one sentence on stderr),
    or 1 after an unexpected exception.
    """
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    told = signals()
    clear_dead()
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    # arguments that ROS cannot read: another kind of exception in every distribution
    except Exception as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        node = make()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        traceback.print_exc()
        print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    keep_private()
    told.running = True
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    code = 0
    try:
        while not told.received and node.exit_code is None:
            executor.spin_once(timeout_sec=SPIN_SECONDS)
        code = node.exit_code or 0
    except Exception as error:
        traceback.print_exc()
        print(
            f"error: {type(error).__name__} in the node '{node.get_name()}': {error}",
            file=sys.stderr,
        )
        code = 1
    finally:
        if hasattr(node, "close"):
            node.close()
            # so that whoever waits for an answer gets it
            end = time.monotonic() + LAST_SECONDS
            while time.monotonic() < end:
                executor.spin_once(timeout_sec=0.02)
        executor.remove_node(node)
        node.destroy_node()
        rclpy.try_shutdown()
    return code


def leave(code: int) -> None:
    """
    End the process at once with ``code``: a thread inside the model cannot be interrupted and must
    not delay the end.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    _end(code)


def _end(code: int) -> None:
    """
    End this process and those that work for it: one that was just starting would not find what it
    was given, and say so at length.
    """
    for worker in multiprocessing.active_children():
        worker.kill()
    os._exit(code)


def steady_timer(node: Any, period: float, callback: Callable[[], None], group: Any = None) -> Any:
    """
    A timer on the steady clock (rclpy's default takes the node's clock, which jumps with simulated
    time).
    """
    from rclpy.clock import Clock, ClockType

    return node.create_timer(
        period, callback, clock=Clock(clock_type=ClockType.STEADY_TIME), callback_group=group
    )

"""
How many threads a process computes with.

Libraries take every core by themselves, which is slow where several processes, or other users,
want the same ones: threads that wait for each other get nothing done.
"""

import os
import sys

from janusvln_ros.errors import require

COMPUTING = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables by which libraries of computation are told, when they are loaded."""

RENDERING = "LP_NUM_THREADS"
"""Threads that Mesa's software renderer starts beside the one that calls it."""


def cores() -> int:
    """Cores that this process may use, which a container or taskset may have narrowed."""
    return (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )


def share_of(processes: int, given: int | None = None) -> int:
    """
    Threads for each of ``processes`` on this machine: ``given``, else what OMP_NUM_THREADS says,
    else an equal share of the cores, at least 1.

    Raises:
        InputError: ``given`` is no number of threads.
    """
    require(given is None or 1 <= given <= 1024, f"--threads is {given}: give 1 to 1024")
    told = os.environ.get(COMPUTING[0], "")
    told_count = int(told) if told.isascii() and told.isdigit() else 0
    return given or told_count or max(1, cores() // max(1, processes))


def use(threads: int) -> None:
    """
    Compute and draw with so many threads in this process, and in those that it starts.
    """
    os.environ |= dict.fromkeys(COMPUTING, str(threads))
    os.environ[RENDERING] = str(threads if threads > 1 else 0)
    if "torch" in sys.modules:  # which looked at the variables when it was loaded
        sys.modules["torch"].set_num_threads(threads)

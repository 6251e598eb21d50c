"""Processes that end with the process that started them, however that ended."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""Of linux/prctl.h."""

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def end_with_parent(parent: int, by: signal.Signals) -> None:
    """
    Called in a process just started: the kernel sends it ``by`` when the thread that started it
    ends (prctl(2), on Linux alone); where ``parent``, its parent's id, is gone already, it ends
    now.

    Made for ``preexec_fn`` too: nothing is loaded or allocated here.
    """
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, by)
    if os.getppid() != parent:
        os._exit(1)

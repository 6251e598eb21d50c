"""Processes end with their parent."""

import os
import signal
import subprocess
import sys
import time

import pytest

from janusvln_ros.lifetime import end_with_parent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")

CHILD = """
import os, signal, time
from janusvln_ros.lifetime import end_with_parent
end_with_parent(os.getppid(), signal.SIGKILL)
print(os.getpid(), flush=True)
time.sleep(60)
"""

PARENT = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}])
time.sleep(60)
"""


def gone(process: int) -> bool:
    """Whether a process has ended, or waits to be buried by whoever inherited it."""
    try:
        with open(f"/proc/{process}/stat") as told:
            return told.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_child_ends_when_its_parent_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert not gone(child)
    parent.kill()
    parent.wait()
    until = time.monotonic() + 10
    while not gone(child) and time.monotonic() < until:
        time.sleep(0.05)
    assert gone(child)
    parent.stdout.close()


def test_a_child_whose_parent_has_gone_already_does_not_begin() -> None:
    other = os.getpid()  # not the parent of the process below: that is its own
    process = os.fork()
    if process == 0:
        end_with_parent(other + 1, signal.SIGKILL)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 1

"""Faults injected into the small robot, and a table of the times to zero velocity at the end."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

MEASURED = {}
PROMISE = 0.35  # seconds to zero velocity after a watched input went stale


class Watch:
    """Looks at the base from the moment of a fault on."""

    def __init__(self, name, r):
        self.name, self.r = name, r

    def driving(self, speed=0.1):
        """Into the middle of a step."""
        base = self.r.base
        self.r.graph.until(
            lambda: abs(base.command[0]) > speed or abs(base.command[1]) > speed, "motion"
        )
        return self

    def zero(self, fault, within=PROMISE):
        """Do ``fault`` and measure the time until zero velocity reaches the base and stays."""
        base = self.r.base
        base.commands.clear()
        base.times.clear()
        begun = time.monotonic()
        fault()
        self.r.graph.until(
            lambda: base.command == (0.0, 0.0) or time.monotonic() - base.commanded_at > 0.2,
            "zero velocity",
        )
        self.r.graph.spin(0.3)
        moving = [t for t, c in zip(base.times, base.commands) if c != (0.0, 0.0)]
        stopped = [
            t
            for t, c in zip(base.times, base.commands)
            if c == (0.0, 0.0) and t >= max(moving, default=begun)
        ]
        # the base's own time-out stops it where no command comes, or comes too late
        silent = max(moving, default=begun) + 0.2
        seconds = min([*stopped[:1], silent]) - begun
        MEASURED[self.name] = max(seconds, MEASURED.get(self.name, 0.0))
        assert seconds <= within, f"{seconds:.3f} s to zero velocity"
        return seconds


@pytest.fixture
def steady():
    """The real clock: these tests measure."""
    return time.monotonic


@pytest.fixture
def start():
    """
    ``start(name, robot, *arguments)``: a process beside the robot; killed when the test ends.
    """
    running = []

    def begin(name, r, *arguments):
        path = Path(__file__).with_name(f"{name}_process.py")
        environment = os.environ | {"ROS_DOMAIN_ID": str(r.graph.context.get_domain_id())}
        process = subprocess.Popen(
            [sys.executable, str(path), "--ros-args", *arguments],
            env=environment,
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.wait()


@pytest.fixture
def watch(request):
    return lambda r: Watch(request.node.name, r)


def pytest_terminal_summary(terminalreporter):
    if MEASURED:
        terminalreporter.section("seconds from the fault to zero velocity")
        for name, seconds in MEASURED.items():
            terminalreporter.write_line(f"{seconds:6.3f}  {name}")
        if path := os.environ.get("JANUSVLN_FAULTS_REPORT"):
            Path(path).write_text(json.dumps(MEASURED, indent=1))

"""For tests that start whole graphs."""

import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest


class Launched:
    """A 'ros2 launch' that runs; ``lines``: what it and its nodes have said."""

    def __init__(self, domain, words):
        from janusvln_ros.graph.processes import middleware_environment

        self.process = subprocess.Popen(
            ["ros2", "launch", *words],
            env=middleware_environment(domain, localhost=True),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines = []
        self.reader = threading.Thread(target=lambda: self.lines.extend(self.process.stdout))
        self.reader.start()

    @property
    def said(self):
        return "".join(self.lines)

    def alive(self):
        assert self.process.poll() is None, self.said

    def until(self, words, seconds=120.0):
        end = time.monotonic() + seconds
        while words not in self.said:
            self.alive()
            assert time.monotonic() < end, f"{words!r} was not said: {self.said}"
            time.sleep(0.05)

    def interrupt(self):
        """Ctrl-C; the exit code, once all is read."""
        self.process.send_signal(signal.SIGINT)
        return self.ended()

    def ended(self):
        code = self.process.wait(120)
        self.reader.join()
        return code


@pytest.fixture
def ros2_launch(ros_domain):
    """
    ``ros2_launch(graph, **arguments)``: the real launch of a graph or of a file, where it and an
    installed workspace are.
    """
    pytest.importorskip("launch_ros", reason="launch is not on PyPI: needs ROS 2 installed")
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    if not any(Path(prefix, "lib/janusvln_ros").is_dir() for prefix in filter(None, prefixes)):
        pytest.skip("needs an installed workspace: colcon build, source install/setup.bash")
    if not shutil.which("ros2"):
        pytest.skip("needs the command ros2")
    started = []

    def start(graph, **given):
        # 'ros2 launch' takes no empty value
        words = [f"{name}:={value}" for name, value in given.items() if str(value)]
        file = (
            [str(graph)] if str(graph).endswith(".py") else ["janusvln_ros", f"{graph}.launch.py"]
        )
        started.append(Launched(ros_domain, [*file, *words]))
        return started[-1]

    yield start
    for launched in started:
        if launched.process.poll() is None:
            launched.interrupt()

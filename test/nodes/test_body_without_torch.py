"""
The body of a robot whose policy runs on another computer: where torch is not installed its nodes
import, start and drive.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("janusvln_msgs", reason="needs the interfaces: scripts/build_msgs.sh")

from janusvln_ros.actions import Action
from janusvln_ros.graph.composition import resolve
from janusvln_ros.graph.processes import Processes, middleware_environment
from janusvln_ros.protocol.status import Code

ROOT = Path(__file__).resolve().parents[2]
START = 120
"""Seconds for a process to start."""
TINY = str(ROOT / "config/model/tiny.json")
POLICY_ONLY = ("torch", "transformers", "tokenizers", "safetensors", "huggingface_hub", "torchao")
NO_TORCH = f"""
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {POLICY_ONLY}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
"""

pytestmark = pytest.mark.ros


@pytest.fixture
def no_torch(tmp_path, monkeypatch):
    """Processes that start from here on find no torch, as where it is not installed."""
    folder = tmp_path / "no_torch"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(NO_TORCH)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    done = subprocess.run([sys.executable, "-c", "import torch"], capture_output=True, text=True)
    assert "No module named 'torch'" in done.stderr


def test_the_nodes_of_the_body_import(no_torch):
    names = ["motion", "compressor"]
    code = "import importlib; " + "; ".join(
        f"importlib.import_module('janusvln_ros.nodes.{name}')" for name in names
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_policy_says_what_is_missing_where_there_is_no_torch(no_torch):
    code = (
        "from janusvln_ros.nodes.policy import load, load_navigator; "
        "from types import SimpleNamespace; "
        "print(load(load_navigator, SimpleNamespace(cpu_threads=1)).message)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "janusvln_ros[policy]" in done.stdout and "part:=brain" in done.stdout, done.stderr


def test_a_command_that_computes_says_what_is_missing(no_torch):
    done = subprocess.run(
        [sys.executable, "-m", "janusvln_ros.cli.main", "bench", "--config", TINY],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "janusvln_ros[policy]" in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1


def drive(robot, body):
    """One instruction through a body that is a process of its own."""
    ours = robot(Action.MOVE_FORWARD, Action.TURN_LEFT, without="motion")
    with body as alive:
        ours.graph.until(lambda: ours.policy.machine.active, "the policy")
        # a process reads hundreds of files to start, which a machine may have to fetch anew
        ours.graph.until(ours.policy.steps.server_is_ready, "execute_step of the body", START)

        def armed():
            alive()
            return ours.arm(True).success

        ours.graph.until(armed, "the body to be armed", START)
        ours.graph.until(ours.client.server_is_ready, "follow_instruction")
        _, result = ours.outcome(ours.go("forward, then left"))
    assert (result.error_code, result.steps) == (Code.NONE, 3), result.error_msg
    assert ours.base.x > 0.2 and ours.base.yaw > 0.2


@contextlib.contextmanager
def part_body(domain, logs):
    """``up robot part:=body``, in this environment."""
    specs = resolve("robot", {"part": "body", "base_timeout": "0.2"})
    with Processes(specs, logs, middleware_environment(domain, localhost=True)) as processes:
        yield processes.check


@pytest.mark.slow
def test_a_body_without_torch_drives(no_torch, robot, ros_domain, tmp_path):
    drive(robot, part_body(ros_domain, tmp_path))
    said = (tmp_path / "motion.log").read_text()
    assert "active and disarmed" in said and "Traceback" not in said


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The command ``janusvln`` of a new environment, made as on a body: without [policy]."""
    folder = tmp_path_factory.mktemp("body")
    source, place = folder / "source", folder / "venv"
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("needs a checkout: which files belong to the package is asked of git")
    for name in filter(None, listed.stdout.split("\n")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name)
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    wanted = ["-r", "requirements/graph.txt", "-r", "requirements/ros-jazzy.txt", "."]
    pip = [place / "bin/python", "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    done = subprocess.run([*pip, *wanted], cwd=source, env=clean(), capture_output=True, text=True)
    if done.returncode and "Could not find a version" in done.stderr:
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
    build = ["scripts/build_msgs.sh", place]
    subprocess.run(build, cwd=source, env=clean(), check=True, capture_output=True)
    return place / "bin/janusvln"


def clean():
    """The environment without what the wheels of this one put into it."""
    gone = ("_ROS_WHEELS_BOOTSTRAP_COMPLETE", "LD_LIBRARY_PATH", "PYTHONPATH", "AMENT_PREFIX_PATH")
    return {name: value for name, value in os.environ.items() if name not in gone}


@contextlib.contextmanager
def up_body(janusvln, domain, log):
    """The same with the command of another environment."""
    words = [janusvln, "up", "robot", "part:=body", "base_timeout:=0.2", "--localhost"]
    with log.open("wb") as out:
        up = subprocess.Popen(
            [*words, "--domain", str(domain)], env=clean(), stdout=out, stderr=out
        )
        try:

            def alive():
                assert up.poll() is None, log.read_text()

            yield alive
        finally:
            up.send_signal(signal.SIGINT)
            up.wait(30)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_body_installed_without_the_extra_has_no_torch_and_drives(
    installed, robot, ros_domain, tmp_path
):
    python = installed.with_name("python")
    tried = [python, "-c", "import torch"]
    assert subprocess.run(tried, env=clean(), capture_output=True).returncode != 0
    drive(robot, up_body(installed, ros_domain, tmp_path / "body.log"))

"""
``janusvln up``: the nodes run until Ctrl-C, then none is left; one that dies takes the others
along and is named.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("janusvln_msgs", reason="needs the interfaces: scripts/build_msgs.sh")

from janusvln_ros.cli.main import main
from janusvln_ros.graph.processes import reserved_domain

pytestmark = pytest.mark.ros


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def children(pid):
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.05)


@pytest.fixture
def robot(tmp_path):
    """
    The graph 'robot' (motion, policy and the black box) up in a domain of its own: the process and
    its nodes' ids.
    """
    with reserved_domain() as domain:
        command = [
            sys.executable,
            "-c",
            "import sys; from janusvln_ros.cli.main import main; sys.exit(main(sys.argv[1:]))",
            "up",
            "robot",
            "--localhost",
        ]
        command += ["--domain", str(domain), "--log-dir", str(tmp_path / "logs")]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            assert "motion, policy, recorder started" in process.stderr.readline()
            nodes = children(process.pid)
            assert len(nodes) == 3
            until(
                lambda: (
                    "motion" in (tmp_path / "logs/motion.log").read_text().split("\n", 1)[1]
                    or not running(nodes[0])
                )
            )
            yield process, nodes
        finally:
            process.kill()
            process.wait()


def test_ctrl_c_leaves_no_node_behind(robot):
    process, nodes = robot
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    until(lambda: not any(running(pid) for pid in nodes))
    assert "Traceback" not in process.stderr.read()


def test_a_node_that_dies_is_named_and_takes_the_others_along(robot):
    process, nodes = robot
    os.kill(nodes[0], signal.SIGKILL)
    assert process.wait(30) == 1
    assert "node 'motion' was killed by SIGKILL" in process.stderr.read()
    until(lambda: not any(running(pid) for pid in nodes))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["drive"], "graph 'drive' is unknown"),
        (["replay"], "needs the argument 'bag'"),
        (["robot", "image=/x"], "write NAME:=VALUE"),
        (["robot", "--domain", "900"], "out of range"),
        (["simulation", "--param", "camera.rate:=1"], "no node 'camera'"),
    ],
)
def test_a_wrong_word_is_one_sentence(capsys, words, sentence):
    assert main(["up", *words]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and sentence in printed.err


def test_a_wrong_parameter_ends_the_graph_with_a_sentence_that_names_it(tmp_path, capsys):
    with reserved_domain() as domain:
        words = [
            "up",
            "simulation",
            "--domain",
            str(domain),
            "--log-dir",
            str(tmp_path),
            "--param",
            "sim_bridge.hfov:=500.0",
        ]
        assert main(words) == 1
    said = capsys.readouterr().err
    assert "parameter 'hfov' is 500.0; it must lie from 10.0 to 170.0" in said

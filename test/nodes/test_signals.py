"""However and whenever a node's process is told to end, it ends in peace: code 0, no traceback."""

import os
import signal
import subprocess
import sys

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("janusvln_msgs", reason="needs the interfaces: scripts/build_msgs.sh")

from janusvln_ros.graph.composition import resolve
from janusvln_ros.graph.processes import command, signals_held

pytestmark = pytest.mark.ros

STUCK = {
    "while the model is loaded": (
        "from janusvln_ros.nodes.policy import main\n"
        "def navigator(values): print('HERE', file=sys.stderr, flush=True); time.sleep(600)\n"
        "main(navigator=navigator)"
    ),
    "while the node is made": (
        "from janusvln_ros.nodes.running import leave, run_node\n"
        "def make(): print('HERE', file=sys.stderr, flush=True); time.sleep(600)\n"
        "leave(run_node(make))"
    ),
    "while its executor waits in a callback": (
        "from janusvln_ros.nodes.running import leave, run_node\n"
        "from rclpy.node import Node\n"
        "def stick(): print('HERE', file=sys.stderr, flush=True); time.sleep(600)\n"
        "def make():\n"
        "    node = Node('x'); node.exit_code = None; node.create_timer(0.01, stick)\n"
        "    return node\n"
        "leave(run_node(make))"
    ),
    "while it is closed": (
        "from janusvln_ros.nodes.running import leave, run_node\n"
        "from rclpy.node import Node\n"
        "def make():\n"
        "    node = Node('x'); node.exit_code = 0; node.close = close; return node\n"
        "def close(): print('HERE', file=sys.stderr, flush=True); time.sleep(600)\n"
        "leave(run_node(make))"
    ),
    "before anything is imported": (
        "from janusvln_ros.nodes.running import signals\n"
        "signals(); print('HERE', file=sys.stderr, flush=True); time.sleep(600)"
    ),
    "while its workers start": (
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from multiprocessing import get_context\n"
        "from janusvln_ros.nodes.running import signals\n"
        "signals(); pool = ProcessPoolExecutor(4, get_context('spawn'))\n"
        "for _ in range(4): pool.submit(time.sleep, 600)\n"
        "print('HERE', file=sys.stderr, flush=True); time.sleep(600)"
    ),
}


def run(words, domain):
    environment = {**os.environ, "ROS_DOMAIN_ID": str(domain)}
    return subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("when", "number"),
    [*((when, signal.SIGINT) for when in STUCK), ("while the model is loaded", signal.SIGTERM)],
)
def test_two_signals_end_a_node_that_is_stuck(ros_domain, when, number):
    process = run([sys.executable, "-c", f"import sys, time\n{STUCK[when]}"], ros_domain)
    said = next(line for line in process.stderr if "HERE" in line)
    process.send_signal(number)
    process.send_signal(number)
    said += process.communicate(timeout=60)[1]
    assert process.returncode == 0 and "Traceback" not in said


@pytest.mark.parametrize("node", ["motion", "policy"])
def test_a_signal_that_comes_before_python_has_started_is_not_lost(ros_domain, tmp_path, node):
    if not signals_held():
        pytest.skip("needs GNU env with --block-signal")
    (spec,) = (spec for spec in resolve("robot", {}) if spec.name == node)
    process = run(command(spec, tmp_path), ros_domain)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    # env itself may not have begun to hold them
    assert process.returncode in (0, -signal.SIGINT) and "Traceback" not in said

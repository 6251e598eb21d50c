"""
A drive recorded from the graph: replayed offline it is decided the same, and so it is live, on the
clock of the bag.
"""

import json
import os
import subprocess
import sys
import time

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("janusvln_msgs", reason="needs the interfaces: scripts/build_msgs.sh")

import rclpy
from janusvln_msgs.msg import Decision
from rclpy.executors import SingleThreadedExecutor

from janusvln_ros.data.bags import open_bag
from janusvln_ros.data.drives import recorded_moments
from janusvln_ros.data.trajectories import read_trajectories

pytestmark = pytest.mark.ros
COMMAND = [sys.executable, "-m", "janusvln_ros.cli.main"]


@pytest.fixture(scope="module")
def drive(tmp_path_factory, one_house):
    """The bag of a short drive in lockstep."""
    folder = tmp_path_factory.mktemp("drive")
    words = [
        "demo",
        "--record",
        "--max-steps",
        "8",
        "--size",
        "128x96",
        "--out",
        str(folder / "demo"),
        "--data",
        str(one_house),
        "--json",
    ]
    subprocess.run([*COMMAND, *words], check=True, capture_output=True, timeout=280)
    (bag,) = (folder / "demo" / "bags").glob("drive-*.mcap")
    return bag


@pytest.mark.slow
def test_recorded_drive_replays_offline_to_the_same_decisions(drive, tmp_path):
    done = subprocess.run(
        [*COMMAND, "replay", str(drive), "--out", str(tmp_path / "out"), "--json"],
        check=True,
        capture_output=True,
        text=True,
    )
    result = json.loads(done.stdout)
    assert result["agreement"] == 1.0 and result["missing_frames"] == 0
    with open_bag(drive) as bag:
        assert result["decisions"] == bag.counts["/policy/decision"]


@pytest.mark.slow
def test_recorded_drive_is_imported_as_it_was_decided(drive, tmp_path):
    words = ["import-bag", str(drive), "--out", str(tmp_path), "--json", "--min-steps", "1"]
    done = subprocess.run([*COMMAND, *words], check=True, capture_output=True, text=True)
    (report,) = json.loads(done.stdout)["episodes"]
    with open_bag(drive) as bag:
        decided = [moment.recorded for moment in recorded_moments(bag)]
        assert {"checkpoint_digest", "prompt", "seed", "version", "git"} <= bag.about.keys()
    (trajectory,) = read_trajectories(tmp_path)
    assert list(trajectory.targets) == decided and report["instruction"] == trajectory.instruction
    assert report["kept"] and report["drift_m"] < 0.01


@pytest.mark.slow
def test_recorded_drive_replays_live_to_the_same_decisions(ros_domain, drive, tmp_path):
    with open_bag(drive) as bag:
        recorded = {moment.stamp: moment.recorded for moment in recorded_moments(bag)}
    environment = {**os.environ, "ROS_DOMAIN_ID": str(ros_domain)}
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    node = rclpy.create_node("listener", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    live = {}
    node.create_subscription(
        Decision,
        "policy/decision",
        lambda m: live.update(
            {m.header.stamp.sec * 10**9 + m.header.stamp.nanosec: (int(m.action), m.executed)}
        ),
        100,
    )
    command = [
        *COMMAND,
        "up",
        "replay",
        f"bag:={drive}",
        "rate:=2",
        "--localhost",
        "--log-dir",
        str(tmp_path / "logs"),
    ]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + 200
        while process.poll() is None and time.monotonic() < end:
            executor.spin_once(timeout_sec=0.1)
        process.terminate()
        said = process.stderr.read()
    for _ in range(20):
        executor.spin_once(timeout_sec=0.05)
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown(context=context)
    assert process.returncode == 0, said
    # the frame after the last step is decided on too; the record has nothing there
    assert {stamp: live[stamp][0] for stamp in recorded} == {
        stamp: int(action) for stamp, action in recorded.items()
    }
    assert not any(executed for _, executed in live.values())

"""
Faults at random moments while the shipped policy drives in the continuous house simulator, each
process on its own, as on a robot.
"""

import json
import subprocess
import sys

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from sim_bridge.homes import ensure_split

pytestmark = [pytest.mark.faults, pytest.mark.ros]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    ensure_split(folder, "val_unseen", homes=1, episodes_per_home=4, jobs=1)
    return folder


SENSORS = "odom_stops,odom_reversed,odom_late,scan_near,scan_stops,camera_torn"
WORDS = "cancel,preempt,estop,second_estop,disarm,edge"


@pytest.mark.parametrize(
    "faults",
    [
        WORDS,
        "flood,freeze_policy,freeze_motion,client_silent",
        "kill_policy",
        "kill_motion,deactivate_motion,deactivate_policy",
        SENSORS,
    ],
)
def test_no_unsafe_moment_in_the_house_simulator(faults, data_dir):
    command = [
        sys.executable,
        "-m",
        "janusvln_ros.cli.main",
        "soak",
        "--hours",
        "0.007",
        "--every",
        "3",
        "--faults",
        faults,
        "--data",
        str(data_dir),
    ]
    done = subprocess.run(
        [*command, "--size", "160x120", "--json"], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["faults"] >= 1 and report["decisions"] > 0 and report["error"] == ""
    assert (
        report["unsafe_moments"] == 0
        and report["unsafe"] == []
        and report["published_frames"] > 50
    )

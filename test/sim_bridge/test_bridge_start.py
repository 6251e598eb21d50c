"""The process of the bridge: what it says where it cannot begin."""

import subprocess
import sys

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("janusvln_msgs", reason="needs the interfaces: scripts/build_msgs.sh")

pytestmark = pytest.mark.ros


def test_a_missing_data_folder_ends_it_with_one_sentence_and_code_2(tmp_path):
    missing = tmp_path / "nowhere"
    ended = subprocess.run(
        [sys.executable, "-m", "sim_bridge.bridge_node", "--ros-args", "-p"]
        + [f"data_dir:={missing}"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 2
    (sentence,) = ended.stderr.splitlines()
    assert sentence.startswith("error: ") and f"there is no folder {missing}" in sentence

"""
The real 'ros2 launch' on an installed workspace: it drives at the first goal, and it ends as 'up'
does. Skipped where ROS 2's launch is not there.
"""

import os
import re
import signal
import subprocess
import time

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("janusvln_msgs", reason="needs the interfaces: scripts/build_msgs.sh")

from janusvln_msgs.action import FollowInstruction
from rcl_interfaces.srv import GetParameters

from janusvln_ros.cli.main import main
from janusvln_ros.graph.client import GraphClient
from janusvln_ros.graph.processes import middleware_environment

pytestmark = [pytest.mark.ros, pytest.mark.slow]


def up(capsys, domain, logs, graph, **given):
    """Exit code of 'janusvln up' and what it says."""
    words = [f"{name}:={value}" for name, value in given.items()]
    code = main(["up", graph, "--domain", str(domain), "--log-dir", str(logs), *words])
    return code, capsys.readouterr().err


def test_a_launch_drives_to_a_result_at_the_first_goal_and_ctrl_c_ends_it_with_0(
    ros2_launch, ros_domain, tmp_path
):
    launched = ros2_launch("simulation", data_dir=tmp_path)
    launched.until("active, executing")
    client = GraphClient(middleware_environment(ros_domain, localhost=True), launched.alive)
    try:
        client.until(client.follow.server_is_ready, 60.0, "no follow_instruction")
        goal = FollowInstruction.Goal(instruction="go to the red chair and stop", max_steps=5)
        sent = client.follow.send_goal_async(goal)
        client.until(sent.done, 60.0, "no answer")
        done = sent.result().get_result_async()
        client.until(done.done, 120.0, "no result")
    finally:
        client.close()
    assert done.result().result.steps == 5
    assert launched.interrupt() == 0
    assert "Traceback" not in launched.said and "has died" not in launched.said


@pytest.mark.parametrize(
    ("graph", "given", "sentence"),
    [
        ("simulation", {"split": "nowhere"}, "houses have no split 'nowhere'"),
        ("simulation", {"checkpoint": "/no/such"}, "there is no checkpoint folder /no/such"),
        ("robot", {"speed": "9.5"}, "parameter 'speed' is 9.5"),
        ("replay", {"bag": "/no/bag"}, "/no/bag"),
    ],
)
def test_a_node_that_cannot_begin_ends_everything_with_its_sentence(
    ros2_launch, ros_domain, tmp_path, graph, given, sentence
):
    if graph == "simulation":
        given = {"data_dir": tmp_path, **given}
    launched = ros2_launch(graph, **given)
    assert launched.ended() == 1
    last = launched.said[launched.said.index("Caught exception in launch") :]
    assert sentence in last and "Traceback" not in launched.said


def test_a_wrong_argument_is_told_in_one_sentence(ros2_launch):
    launched = ros2_launch("simulation", seed="many")
    assert launched.ended() == 1
    assert "argument 'seed' is 'many': give a number" in launched.said


def test_a_node_that_is_killed_ends_the_launch(ros2_launch):
    launched = ros2_launch("robot")
    launched.until("active and disarmed")
    (pid,) = re.findall(r"motion-1\]: process started with pid \[(\d+)\]", launched.said)
    os.kill(int(pid), signal.SIGKILL)
    assert launched.ended() == 1
    assert "node 'motion' was killed by SIGKILL" in launched.said


def test_the_end_of_the_bag_ends_the_launch_and_up_in_peace(
    ros2_launch, ros_domain, bags, tmp_path, capsys
):
    bag = bags.write_drive(tmp_path / "a.mcap", [1, 2])
    launched = ros2_launch("replay", bag=bag, transport="raw")
    assert launched.ended() == 0 and "player is done; the other nodes end too" in launched.said
    time.sleep(1.0)
    code, said = up(capsys, ros_domain, tmp_path, "replay", bag=bag, transport="raw")
    assert code == 0 and "player is done; the other nodes end too" in said


@pytest.mark.usefixtures("ros2_launch")
def test_arguments_are_listed_by_launch_as_by_up(capsys):
    listed = subprocess.run(
        ["ros2", "launch", "janusvln_ros", "robot.launch.py", "--show-args"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert main(["up", "robot", "--arguments"]) == 0
    names = [line.split(":=")[0] for line in capsys.readouterr().out.splitlines()]
    assert all(f"'{name}'" in listed for name in names)


def test_two_robots_in_one_launch_have_each_its_own_file(ros2_launch, tmp_path, ros_domain):
    (tmp_path / "b.yaml").write_text("arguments: {ros__parameters: {speed: 0.11}}")
    both = tmp_path / "both.launch.py"
    both.write_text(
        "from launch import LaunchDescription\n"
        "from launch.actions import IncludeLaunchDescription\n"
        "from launch.launch_description_sources import PythonLaunchDescriptionSource\n"
        "from janusvln_ros.files import share_dir\n"
        "def generate_launch_description():\n"
        "    source = str(share_dir() / 'launch' / 'robot.launch.py')\n"
        "    def one(**given):\n"
        "        return IncludeLaunchDescription(PythonLaunchDescriptionSource(source), "
        "launch_arguments=given.items())\n"
        "    return LaunchDescription([one(robot='template', namespace='a'), "
        f"one(robot={str(tmp_path / 'b.yaml')!r}, namespace='b')])\n"
    )
    launched = ros2_launch(both)
    client = GraphClient(middleware_environment(ros_domain, localhost=True), launched.alive)
    try:
        for robot, speed in (("a", 0.2), ("b", 0.11)):
            asked = GetParameters.Request(names=["speed"])
            name = f"/{robot}/motion/get_parameters"
            told = client.call(GetParameters, name, asked, repeatable=True)
            assert told.values[0].double_value == speed
    finally:
        client.close()
    assert launched.interrupt() == 0

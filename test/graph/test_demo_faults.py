"""
The graph of the demo when a node dies: whatever is killed in mid-run, the base comes to rest and
the reason is told.
"""

import os
import signal

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("janusvln_msgs", reason="needs the interfaces: scripts/build_msgs.sh")
pytest.importorskip("moderngl", reason="needs the simulator: pip install janusvln_ros[sim]")

from nav_msgs.msg import Odometry
from std_msgs.msg import String

from janusvln_ros.graph.client import GraphClient
from janusvln_ros.graph.composition import resolve
from janusvln_ros.graph.processes import (
    NodeEndedError,
    Processes,
    middleware_environment,
    reserved_domain,
)

pytestmark = pytest.mark.ros


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["policy", "motion"])
def test_the_base_comes_to_rest_when_a_node_is_killed_in_mid_run(tmp_path, one_house, victim):
    small = {"sim_bridge": {"image_width": 128, "image_height": 96}}
    specs = resolve("simulation", {"mode": "continuous", "data_dir": str(one_house)}, small)
    speeds, dead = [], []
    with reserved_domain() as domain:
        environment = middleware_environment(domain, localhost=True)
        with Processes(specs, tmp_path, environment) as processes:
            client = GraphClient(environment, lambda: None if dead else processes.check())
            try:
                client.node.create_subscription(
                    Odometry,
                    "ground_truth",
                    lambda m: speeds.append((m.twist.twist.linear.x, m.twist.twist.angular.z)),
                    50,
                )
                client.wait_ready()
                episode = client.reset("")
                client.arm()
                words = client.node.create_publisher(String, "instruction", 1)
                client.until(words.get_subscription_count, 60.0, "nobody listens to instruction")
                words.publish(String(data="walk on"))
                client.until(
                    lambda: bool(speeds) and speeds[-1] != (0.0, 0.0),
                    60.0,
                    "the robot did not move",
                )
                dead.append(victim)
                os.kill(processes.running[victim].pid, signal.SIGKILL)
                client.until(
                    lambda: speeds[-1] == (0.0, 0.0), 20.0, "the base did not come to rest"
                )
                seen = len(speeds)
                client.until(lambda: len(speeds) > seen + 25, 20.0, "the simulator went silent")
                assert set(speeds[seen:]) == {(0.0, 0.0)}, "the base moved again"
                assert episode.first_frame.sec > 0
                with pytest.raises(NodeEndedError, match=f"'{victim}' was killed by SIGKILL"):
                    processes.check()
            finally:
                client.close()

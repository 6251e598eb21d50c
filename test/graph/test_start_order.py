"""
The nodes of a simulation may start in any order and far apart: the first goal is driven.
"""

from itertools import permutations

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("janusvln_msgs", reason="needs the interfaces: scripts/build_msgs.sh")

from janusvln_msgs.action import FollowInstruction
from janusvln_msgs.srv import ResetEpisode
from std_srvs.srv import SetBool, Trigger

from janusvln_ros.graph.client import ERROR_NAMES, GraphClient
from janusvln_ros.graph.composition import resolve
from janusvln_ros.graph.processes import Processes, middleware_environment

pytestmark = pytest.mark.ros

NODES = {
    "lockstep": ("sim_bridge", "policy", "recorder"),
    "continuous": ("sim_bridge", "policy", "motion"),
}
STARTED = {
    "sim_bridge": (ResetEpisode, "reset_episode"),
    "motion": (SetBool, "motion/arm"),
    "recorder": (Trigger, "recorder/save_incident"),
}
"""A service by which a node is known to be there."""


class Graph:
    """Nodes that are started one by one, and their client."""

    def __init__(self, processes, client, specs):
        self.processes, self.client, self.specs = processes, client, specs

    def start(self, name):
        self.processes.specs[name] = self.specs[name]
        self.processes.run(name)

    def wait(self, name):
        """Until the node is there, policy with its model loaded."""
        if name in STARTED:
            client = self.client.node.create_client(*STARTED[name])
            self.client.until(client.service_is_ready, 120.0, f"{name} did not start")
            return

        self.client.wait_active("policy")

    def send(self):
        """Send the first goal, as soon as the policy takes one."""
        self.wait("policy")
        self.client.until(self.client.follow.server_is_ready, 60.0, "no follow_instruction")
        goal = FollowInstruction.Goal(instruction="go to the red chair", max_steps=3)
        return self.client.follow.send_goal_async(goal)

    def arm(self):
        def armed():
            return self.client.call(SetBool, "motion/arm", SetBool.Request(data=True)).success

        self.client.until(armed, 60.0, "motion could not be armed")

    def outcome(self, sent):
        self.client.until(sent.done, 60.0, "no answer to the goal")
        done = sent.result().get_result_async()
        self.client.until(done.done, 120.0, "no result")
        result = done.result().result
        return ERROR_NAMES[result.error_code], result.steps, result.error_msg


@pytest.fixture
def graph(ros_domain, one_house, tmp_path):
    """``graph(mode)``: nothing of it runs yet."""
    environment = middleware_environment(ros_domain, localhost=True)
    logs = tmp_path / "logs"
    logs.mkdir()
    with Processes([], logs, environment) as processes:
        client = GraphClient(environment, processes.check)

        def make(mode):
            size = {"image_width": 160, "image_height": 120}
            given = {"mode": mode, "data_dir": str(one_house), "bags": str(tmp_path / "bags")}
            given["record"] = "true"
            specs = resolve("simulation", given, {"sim_bridge": size})
            return Graph(processes, client, {spec.name: spec for spec in specs})

        yield make
        client.close()


def test_the_first_goal_is_driven_where_the_simulator_has_published_before_the_policy_was(graph):
    made = graph("lockstep")
    made.start("sim_bridge")
    made.wait("sim_bridge")
    made.start("policy")
    assert made.outcome(made.send())[:2] in (("STEP_LIMIT", 3), ("NONE", 3))


@pytest.mark.slow
def test_a_goal_given_before_the_simulator_is_there_is_driven_when_it_comes(graph):
    made = graph("lockstep")
    made.start("policy")
    sent = made.send()
    made.start("sim_bridge")
    assert made.outcome(sent)[:2] in (("STEP_LIMIT", 3), ("NONE", 3))


@pytest.mark.slow
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize(
    ("mode", "order"),
    [(mode, order) for mode, nodes in NODES.items() for order in permutations(nodes)],
)
def test_the_first_goal_is_driven_in_every_order_of_start(graph, mode, order, apart):
    made = graph(mode)
    for name in order:
        made.start(name)
        if apart:
            made.wait(name)
    if mode == "continuous":
        made.arm()
    code, steps, why = made.outcome(made.send())
    assert code in ("STEP_LIMIT", "NONE") and steps >= 1, why

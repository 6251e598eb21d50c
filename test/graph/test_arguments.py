"""
What the command line says is what the running nodes have: every argument of every graph, read back
from them, whatever a robot's file says of the same.
"""

import json
import shlex
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("janusvln_msgs", reason="needs the interfaces: scripts/build_msgs.sh")

from rcl_interfaces.srv import GetParameters
from rclpy.parameter import parameter_value_to_python

from janusvln_ros.graph.client import GraphClient
from janusvln_ros.graph.composition import graph_arguments, resolve, whole_numbers
from janusvln_ros.graph.processes import Processes, middleware_environment
from janusvln_ros.policy import default_checkpoint

pytestmark = pytest.mark.ros

HOUSES_SERVER = Path(__file__).parents[1] / "sim_bridge" / "houses_server.py"
"""Habitat's server over the built-in simulator."""

NUMBERS = {int: "7", float: "0.21", bool: "true", whole_numbers: "[4,20]"}


def others(argument):
    """A value that is not the default."""
    if argument.choices:
        return [choice for choice in argument.choices if choice not in ("", argument.default)][-1]
    return NUMBERS.get(argument.kind, f"other_{argument.name}")


def told(graph, **special):
    """A value for every argument of a graph that is not its default."""
    return {a.name: special.get(a.name, others(a)) for a in graph_arguments(graph)}


def robot_file(path, given, nodes):
    """
    A robot's file that contradicts ``given`` wherever a file can: under the names of arguments,
    and of the parameters in every way in which a file can name a node.
    """
    wrong = {str: "wrong", float: 0.05, bool: False, int: 3, whole_numbers: [1, 2]}
    pick = {"motion.range_source": "none", "motion.output": "twist", "policy.precision": "float16"}
    pick |= {"policy.device": "auto", "policy.image_transport": "compressed"}
    pick |= {"policy.spatial_precision": "auto"}
    arguments, parameters = {}, {name: {} for name in nodes}
    for a in graph_arguments("robot"):
        if a.remaps:
            arguments[a.name] = f"/wrong/{a.name}"
        for node, parameter in a.sets:
            if node in parameters:
                value = pick.get(f"{node}.{parameter}", wrong[a.kind])
                parameters[node][parameter] = value
                if a.kind is not bool:
                    arguments[a.name] = value
    space = given["namespace"].strip("/")
    content = {"arguments": {"ros__parameters": arguments}}
    for node, values in parameters.items():
        for pattern in ("/**", f"/**/{node}", f"/{space}/{node}".replace("//", "/")):
            # what both nodes have may stand under the pattern of all
            own = values if node in pattern else {"use_sim_time": False}
            content.setdefault(pattern, {"ros__parameters": {}})["ros__parameters"] |= own
    path.write_text(json.dumps(content))  # YAML, without aliases, which ROS does not take
    return str(path)


class Reader:
    """Reads the running nodes of a graph from outside."""

    def __init__(self, domain, alive=lambda: None):
        self.client = GraphClient(middleware_environment(domain, localhost=True), alive)

    def parameters(self, full, names):
        request = GetParameters.Request(names=names)
        name = f"{full}/get_parameters"
        response = self.client.call(GetParameters, name, request, repeatable=True)
        return [parameter_value_to_python(value) for value in response.values]

    def topics(self, node, space):
        graph = self.client.node
        self.client.until(
            lambda: (node, space) in graph.get_node_names_and_namespaces(), 20.0, f"no {node}"
        )
        told = graph.get_publisher_names_and_types_by_node(node, space)
        return {
            topic for topic, _ in told + graph.get_subscriber_names_and_types_by_node(node, space)
        }

    def absolute(self, space, topic):
        return topic if topic.startswith("/") else f"{space.rstrip('/')}/{topic}"

    def check(self, graph, given, specs):
        """Hold the parameters of every argument that sets some against what was given."""
        space = "/" + given["namespace"].strip("/")
        running = {spec.name for spec in specs}
        looked = 0
        for a in graph_arguments(graph):
            for node, parameter in a.sets:
                if node in running:
                    wanted = given[a.name] == "true" if a.kind is bool else a.kind(given[a.name])
                    (value,) = self.parameters(f"{space.rstrip('/')}/{node}", [parameter])
                    value = list(value) if isinstance(wanted, list) else value
                    assert value == wanted, f"{a.name}: {node}.{parameter}"
                    looked += 1
            for node, topics in a.remaps.items():
                if node in running:
                    had = {self.absolute(space, topic) for topic in topics}
                    assert not self.topics(node, space) & had, f"{a.name} of {node}"
        assert looked
        has = {
            ("robot", "motion"): ("cmd_vel", "odom", "estop"),
            ("simulation", "sim_bridge"): ("clock",),
        }
        for (its, node), names in has.items():
            if its == graph and node in running:
                self.wait_for(node, space, {self.absolute(space, given[name]) for name in names})

    def wait_for(self, node, space, topics):
        self.client.until(
            lambda: topics <= self.topics(node, space), 20.0, f"{node} has no {topics}"
        )


@pytest.fixture
def up(ros_domain, tmp_path):
    """``up(graph, given)``: run it and hold its nodes against what was given."""

    def run(graph, given):
        specs = resolve(graph, given)
        environment = middleware_environment(ros_domain, localhost=True)
        logs = tmp_path / "logs"
        logs.mkdir()
        with Processes(specs, logs, environment) as processes:
            reader = Reader(ros_domain, processes.check)
            try:
                reader.check(graph, given, specs)
            finally:
                reader.client.close()

    return run


@pytest.fixture
def launch(ros2_launch, ros_domain):
    """``launch(graph, given)``: the same with 'ros2 launch', from an installed workspace."""

    def run(graph, given):
        launched = ros2_launch(graph, **given)
        reader = Reader(ros_domain, launched.alive)
        try:
            reader.check(graph, given, resolve(graph, given))
        finally:
            reader.client.close()
        assert launched.interrupt() == 0

    return run


@pytest.fixture(params=["up", pytest.param("launch", marks=pytest.mark.slow)])
def start(request):
    """Either way of starting a graph."""
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize(
    ("namespace", "with_file"),
    [("", False), pytest.param("r1", False, marks=pytest.mark.slow), ("", True), ("r1", True)],
)
def test_every_argument_of_the_robot_graph(start, tmp_path, namespace, with_file):
    special = {"checkpoint": str(default_checkpoint()), "robot": "template", "watch": "false"}
    # the last choice of velocity has no topic cmd_vel, and the other parts lack a node
    special |= {"part": "all", "velocity": "twist_stamped"}
    given = told("robot", namespace=namespace, lifecycle="external", **special)
    if with_file:
        given["robot"] = robot_file(tmp_path / "mine.yaml", given, ("policy", "motion"))
    start("robot", given)


@pytest.mark.slow
def test_watch_only_wins_over_a_robots_file_too(up, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("/**/policy: {ros__parameters: {execute: true, frames: interval}}")
    given = told(
        "robot",
        namespace="",
        lifecycle="external",
        robot=str(path),
        watch="true",
        checkpoint=str(default_checkpoint()),
    )
    assert [spec.parameters["execute"] for spec in resolve("robot", given)] == [False]
    up("robot", given)


@pytest.mark.parametrize("mode", ["lockstep", pytest.param("continuous", marks=pytest.mark.slow)])
def test_every_argument_of_the_simulation_graph(start, one_house, tmp_path, mode):
    given = told(
        "simulation",
        mode=mode,
        backend="habitat",
        command=shlex.join([sys.executable, str(HOUSES_SERVER)]),
        start_timeout="90",
        load_timeout="91",
        request_timeout="92",
        device="cpu",
        precision="float32",
        checkpoint=str(default_checkpoint()),
        data_dir=str(one_house),
        dataset="houses",
        split="val_unseen",
        episode="2",
        bags=str(tmp_path / "bags"),
        namespace="r1",
        clock="/r1/clock",
        tf="/r1/tf",
    )
    start("simulation", given)


def test_every_argument_of_the_replay_graph(start, bags, tmp_path):
    bag = bags.write_drive(tmp_path / "a.mcap", [1, 2])
    # not cuda, without which the policy ends as soon as it is asked to compute
    special = {"bag": str(bag), "checkpoint": str(default_checkpoint()), "device": "cpu"}
    # relative, as the namespace is of policy alone
    start("replay", told("replay", namespace="", transport="raw", **special))


def test_what_is_not_said_is_the_robots_files_and_then_the_shipped_ones(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("arguments: {ros__parameters: {speed: 0.2, odom: /wheel/odom, watch: True}}")
    by_name = {spec.name: spec for spec in resolve("robot", {"robot": str(path)})}
    assert list(by_name) == ["policy"] and by_name["policy"].remaps == {"odom": "/wheel/odom"}
    # said at its default is said
    said = {"robot": str(path), "odom": "odom", "watch": "False", "speed": ""}
    by_name = {spec.name: spec for spec in resolve("robot", said)}
    assert list(by_name) == ["motion", "policy", "recorder"] and not by_name["motion"].remaps
    assert by_name["motion"].parameters["speed"] == 0.2  # what is left empty says nothing
    assert by_name["policy"].parameters["execute"] is True

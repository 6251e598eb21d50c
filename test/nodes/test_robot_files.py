"""
The shipped robots and the security policy: they start, they name what exists, and nothing is armed
by a file.
"""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml

from janusvln_ros.errors import InputError
from janusvln_ros.graph.composition import graph_arguments, resolve

ROOT = Path(__file__).resolve().parents[2]
ROBOTS = sorted(p.stem for p in (ROOT / "config/robots").glob("*.yaml"))


def sections(robot):
    return yaml.safe_load((ROOT / f"config/robots/{robot}.yaml").read_text())


def test_there_are_presets_for_usual_cameras_and_bases_and_a_template():
    bases = {"turtlebot4", "go2", "depth_base", "scan_base"}
    assert set(ROBOTS) == bases | {"realsense", "oak_d", "zed", "template"}


@pytest.mark.parametrize("robot", ROBOTS)
def test_every_preset_resolves_and_says_how_it_is_started(robot):
    specs = {spec.name: spec for spec in resolve("robot", {"robot": robot})}
    told = sections(robot)["arguments"]["ros__parameters"]
    assert set(told) <= {argument.name for argument in graph_arguments("robot")}
    assert specs["policy"].remaps.get("image", "image") == told["image"]
    assert specs["policy"].remaps.get("camera_info", "camera_info") == told["camera_info"]
    source = sections(robot)["/**/motion"]["ros__parameters"]["range_source"]
    for topic in {"none": (), "scan": ("scan",), "depth": ("depth", "depth_info")}[source]:
        assert specs["motion"].remaps.get(topic, topic) == told[topic]
    text = (ROOT / f"config/robots/{robot}.yaml").read_text()
    assert f"robot:={robot if robot not in ('template', 'go2') else ''}" in text or robot == "go2"
    assert max(map(len, text.splitlines())) <= 99


@pytest.mark.ros
@pytest.mark.parametrize("robot", ROBOTS)
def test_every_parameter_of_a_robot_is_one_of_its_node_and_in_range(robot):
    from janusvln_ros.nodes import motion, policy
    from janusvln_ros.nodes.parameters import problem

    for key, module in (("/**/policy", policy), ("/**/motion", motion)):
        table = {p.name: p for p in module.PARAMETERS}
        for name, value in sections(robot)[key]["ros__parameters"].items():
            assert name in table and problem(table[name], value) is None, (name, value)


@pytest.mark.parametrize("robot", ROBOTS)
def test_no_shipped_robot_claims_a_base_timeout_that_nobody_measured(robot):
    assert sections(robot)["/**/motion"]["ros__parameters"]["base_timeout"] == 0.0


def test_a_robots_file_gives_topics_and_what_the_user_says_wins():
    specs = {
        s.name: s
        for s in resolve("robot", {"robot": "turtlebot4", "odom": "wheels/odom", "speed": "0.1"})
    }
    assert specs["policy"].remaps["image"] == "oakd/rgb/preview/image_raw"
    assert specs["policy"].remaps["odom"] == specs["motion"].remaps["odom"] == "wheels/odom"
    assert (
        specs["policy"].parameters["image_transport"] == "raw"
        and specs["motion"].parameters["speed"] == 0.1
    )
    assert [p.name for p in specs["motion"].files] == ["motion.yaml", "turtlebot4.yaml"]


def test_a_file_of_ones_own_is_taken_and_a_missing_one_is_named(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("/**/motion: {ros__parameters: {speed: 0.15}}\n")
    assert resolve("robot", {"robot": str(mine)})[0].files[-1] == mine
    with pytest.raises(InputError, match="give one of depth_base, go2, oak_d"):
        resolve("robot", {"robot": "roomba"})
    mine.write_text("arguments: {ros__parameters: {imgae: x}}\n")
    with pytest.raises(InputError, match="'imgae'"):
        resolve("robot", {"robot": str(mine)})


def test_watching_starts_no_motion_and_executes_nothing():
    specs = resolve("robot", {"watch": "true"})
    assert [s.name for s in specs] == ["policy"] and specs[0].parameters["execute"] is False


@pytest.mark.ros
@pytest.mark.parametrize("namespace", ["", "/r1"])
def test_a_nodes_section_reaches_it_in_any_namespace(graph, namespace):
    from rclpy.lifecycle import LifecycleNode

    from janusvln_ros.nodes.motion import PARAMETERS
    from janusvln_ros.nodes.parameters import declare

    path = str(ROOT / "config/robots/turtlebot4.yaml")
    words = [
        "--ros-args",
        "--params-file",
        str(ROOT / "config/motion.yaml"),
        "--params-file",
        path,
    ]
    node = LifecycleNode("motion", namespace=namespace, context=graph.context, cli_args=words)
    try:
        values = declare(node, PARAMETERS)
        assert (values.output, values.rate, values.step_deadline) == ("twist_stamped", 0.6, 8.0)
    finally:
        node.destroy_node()
        del node


def allowed(node):
    """Names that the security policy allows ``node``: {kind: {name}}."""
    tree = ET.parse(ROOT / "config/sros2/policy.xml")
    profile = next(p for p in tree.iter("profile") if p.get("node") == node)
    kinds = {"topics": "topic", "services": "service", "actions": "action"}
    verbs = ("publish", "subscribe", "request", "reply", "call", "execute")
    return {
        (group, verb): {
            e.text.strip()
            for block in profile.findall(group)
            if block.get(verb) == "ALLOW"
            for e in block.findall(item)
        }
        for group, item in kinds.items()
        for verb in verbs
    }


@pytest.mark.ros
@pytest.mark.parametrize(
    "setting", [{}, {"range_source": "depth"}, {"output": "discrete"}], ids=str
)
def test_the_security_policy_names_every_topic_service_and_action_that_motion_uses(graph, setting):
    from janusvln_ros.nodes.motion import MotionNode

    check(graph, graph.add(MotionNode, **{"range_source": "scan"} | setting), set())


@pytest.mark.ros
@pytest.mark.parametrize(
    "setting", [{"pipeline": "settle"}, {"execute": False}, {"image_transport": "raw"}], ids=str
)
def test_the_security_policy_names_every_topic_service_and_action_that_policy_uses(
    graph, script, setting
):
    from janusvln_ros.nodes.policy import PolicyNode

    node = graph.add(lambda **options: PolicyNode(lambda values: script(), **options), **setting)
    graph.until(lambda: node.machine.active, "the node")
    check(graph, node, {"execute_step"})


def check(graph, node, calls):
    name = node.get_name()
    may = allowed(name)

    def plain(pairs):
        return {n for n, _ in pairs if "/_action/" not in n}

    graph.until(
        lambda: any(
            "/_action/" in n for n, _ in node.get_service_names_and_types_by_node(name, "/")
        ),
        "discovery",
    )
    published = plain(node.get_publisher_names_and_types_by_node(name, "/"))
    subscribed = plain(node.get_subscriber_names_and_types_by_node(name, "/"))
    served = plain(node.get_service_names_and_types_by_node(name, "/"))
    called = plain(node.get_client_names_and_types_by_node(name, "/"))
    actions = {
        n.split("/_action/")[0]
        for n, _ in node.get_service_names_and_types_by_node(name, "/")
        if "/_action/" in n
    }

    def absolute(names):
        return {
            n if n.startswith("/") else f"/{n}" if not n.startswith("~") else f"/{name}{n[1:]}"
            for n in names
        }

    assert published <= absolute(may["topics", "publish"]), published - absolute(
        may["topics", "publish"]
    )
    assert subscribed <= absolute(may["topics", "subscribe"]), subscribed - absolute(
        may["topics", "subscribe"]
    )
    assert served <= absolute(may["services", "reply"]), served - absolute(
        may["services", "reply"]
    )
    assert called <= absolute(may["services", "request"]), called - absolute(
        may["services", "request"]
    )
    assert actions == absolute(may["actions", "execute"])
    assert {f"/{c}" for c in calls} <= absolute(may["actions", "call"])

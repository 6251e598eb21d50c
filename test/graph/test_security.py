"""The SROS2 policy of a graph is what its nodes use."""

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from janusvln_ros.errors import InputError
from janusvln_ros.files import share_dir
from janusvln_ros.graph.composition import resolve
from janusvln_ros.graph.operating import OURS
from janusvln_ros.graph.security import (
    OPERATOR,
    VERBS,
    joined,
    read_policy,
    short,
    used_by,
    write_policy,
)

MOTION = ("motion", "/")


@pytest.mark.parametrize(
    ("name", "namespace", "written"),
    [
        ("/motion/arm", "/", "~/arm"),
        ("/odom", "/", "odom"),
        ("/rosout", "/", "/rosout"),
        ("/r1/motion/arm", "/r1", "~/arm"),
        ("/r1/odom", "/r1", "odom"),
        ("/odom", "/r1", "/odom"),
        ("odom", "/r1", "odom"),
    ],
)
def test_names_stand_as_the_node_would_say_them(name, namespace, written):
    assert short(name, "motion", namespace) == written


def test_a_policy_is_read_as_it_was_written_and_added_to(tmp_path):
    path = tmp_path / "policy.xml"
    first = {MOTION: {("topics", "publish"): {"/cmd_vel", "/motion/about"}}}
    write_policy(path, first)
    more = {
        MOTION: {("topics", "publish"): {"/step_command"}},
        ("policy", "/r1"): {("actions", "call"): {"/r1/execute_step"}},
        (OPERATOR, "/"): {("services", "request"): {"motion/arm"}},
    }
    write_policy(path, joined(read_policy(path), more))
    told = read_policy(path)
    assert told[MOTION]["topics", "publish"] == {"cmd_vel", "~/about", "step_command"}
    assert told["policy", "/r1"]["actions", "call"] == {"execute_step"}
    text = path.read_text()
    for enclave in ("/motion", "/r1/policy", "/operator"):
        assert f'<enclave path="{enclave}">' in text


def test_a_file_that_is_no_policy_is_named(tmp_path):
    (tmp_path / "a.xml").write_text("<policy>")
    with pytest.raises(InputError, match=r"a\.xml is no SROS2 policy"):
        read_policy(tmp_path / "a.xml")


@pytest.mark.parametrize(
    ("graph", "given"),
    [
        ("robot", {}),
        ("robot", {"part": "body", "compress": "true"}),
        ("simulation", {"mode": "continuous", "record": "true"}),
        ("replay", {"bag": "drive.mcap"}),
    ],
)
def test_every_node_of_every_graph_has_its_enclave_and_its_profile(tmp_path, graph, given):
    profiles = read_policy(share_dir() / "config" / "sros2" / "policy.xml")
    for spec in resolve(graph, given):
        # 'status' tells of those that it knows, and 'secure' writes them down
        assert (spec.name, "/") in profiles and spec.name in OURS
        words = spec.arguments(tmp_path)
        assert words[words.index("--enclave") + 1] == f"/{spec.name}"


def test_the_operator_has_a_profile_and_enclaves_stand_in_namespaces():
    assert (OPERATOR, "/") in read_policy(share_dir() / "config" / "sros2" / "policy.xml")
    (spec, *_) = resolve("robot", {"namespace": "r1"})
    assert spec.full_name == "/r1/motion"


@pytest.mark.ros
def test_the_shipped_policy_allows_what_motion_uses_and_nothing_it_never_does(ros_domain):
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.parameter import Parameter

    from janusvln_ros.nodes.motion import MotionNode

    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    executor, used = SingleThreadedExecutor(context=context), {verb: set() for verb in VERBS}
    try:
        for number, (source, output) in enumerate((("scan", "twist"), ("depth", "discrete"))):
            told = {"range_source": source, "output": output}
            overrides = [Parameter(name, value=value) for name, value in told.items()]
            space = f"/r{number}"
            node = MotionNode(context=context, parameter_overrides=overrides, namespace=space)
            executor.add_node(node)
            for _ in range(20):
                executor.spin_once(timeout_sec=0.05)
            for verb, names in used_by(node, "motion", space).items():
                used[verb] |= {short(name, "motion", space) for name in names}
            node.close()
            executor.remove_node(node)
            node.destroy_node()
    finally:
        executor.shutdown()
        context.try_shutdown()
    allowed = read_policy(share_dir() / "config" / "sros2" / "policy.xml")[MOTION]
    own = {"/tf_static", "/clock"}  # where tf2_msgs is; with use_sim_time
    for verb in VERBS:
        assert used[verb] <= allowed[verb], verb
        assert allowed[verb] - own <= used[verb], verb

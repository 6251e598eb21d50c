"""
Parameters: one table is the source of the declarations and of the shipped files; a wrong value
stops the node with a sentence that names it.
"""

import math
import os
import signal
import subprocess
import sys
import time
from array import array
from pathlib import Path

import pytest
import yaml

from janusvln_ros.errors import InputError
from janusvln_ros.nodes.parameters import Param, as_yaml, problem

ROOT = Path(__file__).resolve().parents[2]
NODES = {
    "policy": "janusvln_ros.nodes.policy",
    "motion": "janusvln_ros.nodes.motion",
    "compressor": "janusvln_ros.nodes.compressor",
    "sim_bridge": "sim_bridge.bridge_node",
}


def table(name):
    pytest.importorskip("rclpy")
    import importlib

    return importlib.import_module(NODES[name])


@pytest.mark.parametrize("name", NODES)
def test_the_shipped_file_is_the_table(name):
    module = table(name)
    text = (ROOT / "config" / f"{name}.yaml").read_text()
    assert text == as_yaml(module.TITLE, module.PARAMETERS), (
        f"run: python -m janusvln_ros.nodes.parameters {NODES[name]} > config/{name}.yaml"
    )
    values = yaml.safe_load(text)["/**"]["ros__parameters"]
    # as text: what nobody has told is no number, and equals nothing
    assert {n: repr(v) for n, v in values.items()} == {
        p.name: repr(p.default) for p in module.PARAMETERS
    }


@pytest.mark.parametrize("name", NODES)
def test_every_parameter_has_a_meaning_a_range_and_a_default_within_it(name):
    for param in table(name).PARAMETERS:
        assert len(param.description) > 10 and problem(param, param.default) is None, param.name
        if isinstance(param.default, (int, float)) and not isinstance(param.default, bool):
            assert param.low is not None and param.high is not None, param.name


@pytest.mark.parametrize("name", NODES)
def test_a_robot_cannot_be_armed_by_a_parameter(name):
    assert not [p.name for p in table(name).PARAMETERS if "arm" in p.name]


SPEED = Param("speed", 0.3, "how fast", 0.0, 2.0)


@pytest.mark.parametrize(
    ("param", "value", "words"),
    [
        (SPEED, 3.0, "'speed' is 3.0; it must lie from 0.0 to 2.0"),
        (SPEED, math.nan, "'speed' is nan"),
        (SPEED, 1, "'speed' is 1 (int); write 1.0 with a decimal point"),
        (SPEED, "fast", "'speed' is 'fast' (str)"),
        (Param("n", 3, "how many", 1, 9), True, "'n' is True (bool)"),
        (
            Param("mode", "a", "which", choices=("a", "b")),
            "c",
            "'mode' is 'c'; it must be one of a, b",
        ),
        (Param("mount", [0.0, 0.0], "where"), [1.0], "list of 2"),
        (Param("mount", [0.0, 0.0], "where"), [1.0, math.inf], "finite"),
        (Param("mount", [0.0, 0.0], "where"), 7, "list of 2"),
        (Param("mount", [0.0, 0.0], "where"), [0, 1], "with a decimal point: [0.0, 1.0]"),
        (Param("mount", [0.0, 0.0], "where"), array("q", [0, 1]), "with a decimal point"),
        (Param("mount", [0.0, 0.0], "where"), [], "list of 2"),
        (Param("mount", [0.0, 0.0], "where"), ["a", "b"], "list of 2"),
        (Param("mount", [0.0, 0.0], "where"), [True, False], "list of 2"),
        (Param("window", [-1, -1], "which", -1, 9), [8.0, 48.0], "list of 2 whole numbers"),
        (Param("window", [-1, -1], "which", -1, 9), array("q", [8]), "list of 2 whole numbers"),
        (Param("window", [-1, -1], "which", -1, 9), [8, 48], "each number must lie from -1 to 9"),
    ],
)
def test_a_wrong_value_is_named(param, value, words):
    assert words in problem(param, value)


@pytest.mark.ros
@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("motion", {"speed": 99.0}, "'speed' is 99.0"),
        ("motion", {"sped": 0.2}, "did you mean 'speed'"),
        ("motion", {"armed_at_start": True}, "'armed_at_start' is no parameter"),
        ("motion", {"output": "twits"}, "one of twist, twist_stamped, discrete"),
        ("motion", {"scan_mount": [1.0, 2.0]}, "'scan_mount'"),
    ],
)
def test_a_node_refuses_to_start_with_it(graph, name, given, words):
    from janusvln_ros.nodes.motion import MotionNode

    with pytest.raises(InputError, match=words):
        graph.add(MotionNode, **given)


@pytest.mark.ros
@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("scan_mount:=[0, 1, 0]", "'scan_mount' is [0, 1, 0]; write its numbers with a decimal"),
        ("scan_mount:=[]", "'scan_mount' is empty; give a value, such as [0.0, 0.0, 0.0]"),
        ("speed:=[]", "'speed' is empty"),
        ("scan_mount:=[0, 1.0, 0]", "should be of same type"),
    ],
)
def test_a_list_that_is_none_of_the_right_kind_is_one_sentence(ros_domain, value, words):
    code = "from janusvln_ros.nodes.motion import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--ros-args", "-p", value],
        env=os.environ | {"ROS_DOMAIN_ID": str(ros_domain)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "error: " in done.stderr and words in done.stderr


@pytest.mark.ros
def test_live_parameters_change_at_once_and_wrong_ones_and_others_are_refused(graph):
    from rclpy.parameter import Parameter

    from janusvln_ros.nodes.motion import MotionNode

    node = graph.add(MotionNode, autostart=False)
    (good,) = node.set_parameters([Parameter("speed", value=0.1)])
    assert good.successful and node.settings.speed == 0.1
    (bad,) = node.set_parameters([Parameter("speed", value=99.0)])
    assert not bad.successful and node.settings.speed == 0.1
    (fixed,) = node.set_parameters([Parameter("base_timeout", value=0.2)])
    assert not fixed.successful and node.settings.base_timeout == 0.0


def start(executable, *arguments, domain):
    environment = os.environ | {
        "ROS_DOMAIN_ID": str(domain),
    }
    words = [sys.executable, "-m", f"janusvln_ros.nodes.{executable}", "--ros-args", *arguments]
    return subprocess.Popen(
        words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.ros
@pytest.mark.parametrize(
    ("executable", "arguments", "code", "words"),
    [
        ("motion", ["-p", "rate:=77.5"], 2, "error: parameter 'rate' is 77.5"),
        (
            "policy",
            ["-p", "checkpoint:=/nowhere/at/all"],
            2,
            "error: there is no checkpoint folder",
        ),
        ("motion", ["--params-file", "/no/such.yaml"], 2, "/no/such.yaml"),
    ],
)
def test_a_process_that_cannot_start_says_why_in_one_sentence(
    executable, arguments, code, words, graph
):
    process = start(executable, *arguments, domain=graph.context.get_domain_id())
    _, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    assert words in errors and "error: " in errors and "Traceback" not in errors


@pytest.mark.ros
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_node_with_code_zero(number, graph):
    process = start("motion", domain=graph.context.get_domain_id())
    for line in process.stderr:
        if "active and disarmed" in line:
            break
    process.send_signal(number)
    begun = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in errors
    assert time.monotonic() - begun < 60

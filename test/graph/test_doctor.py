"""The doctor has nothing to say of the demo's graph, and examines the machine without one."""

import json

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("janusvln_msgs", reason="needs the interfaces: scripts/build_msgs.sh")

from janusvln_ros.cli.main import main
from janusvln_ros.graph.composition import resolve
from janusvln_ros.graph.private import private_graph

pytestmark = [pytest.mark.ros, pytest.mark.slow]


def doctor(capsys, domain):
    """Exit code, whether all is well, and status and sentence of each check."""
    capsys.readouterr()
    code = main(["doctor", "--json", "--domain", str(domain)])
    told = json.loads(capsys.readouterr().out)
    return code, told["ok"], {one["name"]: one for one in told["checks"]}


def test_the_demo_in_continuous_mode_passes_entirely(tmp_path, one_house, capsys):
    pytest.importorskip("moderngl", reason="needs the simulator: pip install janusvln_ros[sim]")
    specs = resolve("simulation", {"mode": "continuous", "data_dir": str(one_house)})
    with private_graph(specs, tmp_path, None) as (client, _):
        client.wait_ready()
        client.reset("")
        code, ok, checks = doctor(capsys, client.domain)
        wrong = [one for one in checks.values() if one["status"] in ("warn", "fail")]
        assert not wrong and (code, ok) == (0, True)
        skipped = {name for name, one in checks.items() if one["status"] == "skip"}
        assert skipped <= {"e-stop"}


def test_without_a_graph_the_machine_is_examined_all_the_same(capsys, ros_domain):
    code, ok, checks = doctor(capsys, ros_domain)
    assert (code, ok) == (1, False) and checks["Python"]["status"] == "pass"
    assert f"no graph in ROS domain {ros_domain}" in checks["graph"]["detail"]

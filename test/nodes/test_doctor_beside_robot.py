"""
The doctor beside a robot with a fault: its check names it. It moves nothing.
"""

import json
import math
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("janusvln_msgs", reason="needs the interfaces: scripts/build_msgs.sh")

from janusvln_ros.cli import doctor as command
from janusvln_ros.cli.main import main
from janusvln_ros.graph.machine import Machine

pytestmark = [pytest.mark.ros, pytest.mark.slow]


@pytest.fixture
def steady():
    """The real clock: ages are looked at."""
    return time.monotonic


def end_raw(base):
    base.node.destroy_publisher(base.raw)
    base.raw = SimpleNamespace(publish=lambda message: None)


def doctor(capsys, domain):
    """Exit code, whether all is well, and status and sentence of each check."""
    capsys.readouterr()
    code = main(["doctor", "--json", "--domain", str(domain)])
    told = json.loads(capsys.readouterr().out)
    return code, told["ok"], {one["name"]: one for one in told["checks"]}


@pytest.fixture
def examined(robot, capsys, ros_domain, monkeypatch):
    """``examined(break)``: the findings beside a robot whose base ``break`` has changed."""

    # the machine is looked at elsewhere
    monkeypatch.setattr(command, "look", lambda variables: lambda: Machine(rmw="rmw_fastrtps_cpp"))

    def examine(spoil=lambda ours: None, **options):
        ours = robot(armed=False, **options)
        spoil(ours)
        going = True

        def spin():
            while going:
                ours.graph.once()

        thread = threading.Thread(target=spin)
        thread.start()
        try:
            told = doctor(capsys, ros_domain)
        finally:
            going = False
            thread.join()
        assert not ours.motion.machine.armed and not ours.base.commands
        return told

    return examine


def test_a_robot_that_is_well_fails_nothing(examined):
    code, ok, checks = examined()
    failed = [one for one in checks.values() if one["status"] == "fail"]
    assert not failed and (code, ok) == (0, True)
    assert "nothing guards" in checks["range"]["detail"]


FAULTS = {
    "camera is off": ("camera", lambda r: setattr(r.base, "camera_on", False), {}),
    "stamps are zero": ("camera stamps", lambda r: setattr(r.base, "stamp_shift", None), {}),
    "stamps are old": ("camera stamps", lambda r: setattr(r.base, "stamp_shift", -20 * 10**9), {}),
    "lens is covered": (
        "picture",
        lambda r: setattr(r.base, "picture", lambda: np.zeros((48, 64, 3), np.uint8)),
        {},
    ),
    "pictures are cut": ("picture", lambda r: setattr(r.base, "cut", 700), {}),
    "camera_info is off": ("camera_info", lambda r: setattr(r.base, "info_on", False), {}),
    "odometry is off": ("odometry", lambda r: setattr(r.base, "odom_on", False), {}),
    "odometry is no number": (
        "odometry values",
        lambda r: setattr(r.base, "odom_x", math.nan),
        {},
    ),
    "quaternion is zero": ("odometry values", lambda r: setattr(r.base, "orientation", 0.0), {}),
    "scan is missing": ("range", lambda r: None, {"motion": {"range_source": "scan"}}),
    "base time-out": ("base time-out", lambda r: None, {"motion": {"base_timeout": 0.0}}),
    "nobody listens": (
        "velocity",
        lambda r: r.base.node.destroy_subscription(r.base.listener),
        {},
    ),
    "other steps": ("step sizes", lambda r: None, {"motion": {"forward_step": 0.5}}),
    "raw is not sent": (
        "camera",
        lambda r: end_raw(r.base),
        {"policy": {"image_transport": "raw"}},
    ),
    "e-stop is required": ("e-stop", lambda r: None, {"motion": {"estop_required": True}}),
    "policy is inactive": ("nodes", lambda r: r.policy.trigger_deactivate(), {}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_robot_is_named(examined, fault):
    name, spoil, options = FAULTS[fault]
    code, ok, checks = examined(spoil, **options)
    assert checks[name]["status"] == "fail", checks[name]
    assert checks[name]["remedy"] and (code, ok) == (1, False)

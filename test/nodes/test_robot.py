"""policy and motion on a real ROS graph with a simulated base: an instruction becomes motion, and everything else does not."""

import pytest

from janusvln_ros.actions import Action
from janusvln_ros.nodes.stepping import Code

pytestmark = pytest.mark.ros


def test_an_instruction_drives_the_base_step_by_step_and_ends_where_the_model_stops(robot):
    r = robot(Action.MOVE_FORWARD, Action.TURN_LEFT, Action.STOP)
    status, result = r.outcome(r.go("go to the door\x07 and\nstop"))
    assert (result.error_code, result.error_msg) == (Code.NONE, "") and status == 4
    assert result.steps == 3 and result.path_length == pytest.approx(0.25, abs=0.03)
    assert r.base.x == pytest.approx(0.25, abs=0.03) and r.base.yaw == pytest.approx(0.2618, abs=0.04)
    assert [d.action for d in r.decisions] == [1, 2, 0] and [d.step for d in r.decisions] == [0, 1, 2]
    assert {d.instruction for d in r.decisions} == {"go to the door and stop"}
    assert [p.status for p in r.reports] == [0, 0, 0]

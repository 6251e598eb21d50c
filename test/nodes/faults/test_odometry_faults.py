"""
Odometry that lies to the real nodes: no lie buys more than a step and a half, the episode ends,
and where odometry is not to be trusted the robot is disarmed.
"""

import math
import time

import pytest

from janusvln_ros.actions import Action
from janusvln_ros.protocol.exchange import Phase
from janusvln_ros.protocol.status import Code

pytestmark = [pytest.mark.faults, pytest.mark.ros]
S = 10**9


def tell(r, **lie):
    """From now on odometry says what the functions make of the truth."""
    for name, value in lie.items():
        setattr(r.base, name, value)
    r.graph.spin(0.5)


def drives_once(r, code):
    """The next instruction ends with ``code``; what the base made of it is within the bound."""
    r.base.metres = r.base.radians = 0.0
    _, result = r.outcome(r.go())
    r.graph.spin(0.5)
    assert result.error_code == code, result.error_msg
    assert r.base.metres <= 0.375 and math.degrees(r.base.radians) <= 22.5
    return result


LIES = {
    "frozen, its twist alive": lambda x, y, yaw: (0.0, 0.0, 0.0),
    "reversed": lambda x, y, yaw: (-x, -y, -yaw),
    "a tenth": lambda x, y, yaw: (0.1 * x, 0.1 * y, 0.1 * yaw),
    "a half": lambda x, y, yaw: (0.5 * x, 0.5 * y, 0.5 * yaw),
}


@pytest.mark.parametrize("action", [Action.MOVE_FORWARD, Action.TURN_LEFT])
@pytest.mark.parametrize("says", LIES.values(), ids=LIES)
def test_the_pose_of_odometry_is(robot, says, action):
    r = robot(*[action] * 5)
    tell(r, says=says)
    result = drives_once(r, Code.UNTRUSTED)
    assert "not trust the odometry" in result.error_msg and not r.motion.machine.armed
    r.script.answers = [action] * 5
    assert drives_once(r, Code.DISARMED) and r.base.metres < 0.01  # until somebody arms
    tell(r, says=lambda x, y, yaw: (x, y, yaw))
    r.graph.until(lambda: r.arm(True).success, "to be armed")
    r.script.answers = [Action.TURN_LEFT]
    assert r.outcome(r.go("again"))[1].error_code == Code.NONE


def test_the_pose_of_odometry_is_rotated(robot):
    r = robot(*[Action.MOVE_FORWARD] * 5)
    tell(r, says=lambda x, y, yaw: (-y, x, yaw))
    result = drives_once(r, Code.UNTRUSTED)
    assert "sideways" in result.error_msg and math.degrees(r.base.radians) <= 12.5


def test_odometry_is_dead_and_its_stamps_alive(robot):
    r = robot(*[Action.MOVE_FORWARD] * 3, policy={"max_blocked": 3})
    tell(r, says=lambda x, y, yaw: (0.0, 0.0, 0.0), twist=lambda v, w: (0.0, 0.0))
    r.base.metres = 0.0
    _, result = r.outcome(r.go())
    assert result.error_code == Code.BLOCKED and result.steps == 3
    assert r.base.metres <= 3 * 0.375  # what three steps against a wall would command


@pytest.mark.parametrize("turned", [math.pi / 2, -math.radians(170)], ids=["90", "-170"])
def test_the_heading_of_odometry_jumps(robot, watch, turned):
    r = robot(*[Action.MOVE_FORWARD if turned > 0 else Action.TURN_LEFT] * 5)
    handle = r.go()
    watch(r).driving().zero(lambda: setattr(r.base, "says", lambda x, y, a: (x, y, a + turned)))
    _, result = r.outcome(handle)
    assert result.error_code == Code.STALE and "heading jumped" in result.error_msg
    assert r.base.metres <= 0.375 and math.degrees(r.base.radians) <= 22.5


@pytest.mark.parametrize("seconds", [-5, 5, None], ids=["old", "of the future", "frozen"])
def test_the_stamps_of_odometry_are(robot, watch, seconds):
    r = robot(*[Action.MOVE_FORWARD] * 5)
    handle = r.go()
    shift = None if seconds is None else seconds * S
    watch(r).driving().zero(lambda: setattr(r.base, "odom_shift", shift))
    _, result = r.outcome(handle)
    assert result.error_code == Code.STALE and r.base.metres < 0.3
    r.graph.until(lambda: r.motion.machine.goal is None, "motion to be idle")
    assert r.arm(False).success
    r.graph.spin(0.8)
    refused = r.arm(True)
    words = {-5: "s old by its stamps", 5: "in the future", None: "do not advance"}[seconds]
    assert not refused.success and words in refused.message
    r.base.odom_shift = 0
    r.graph.spin(0.5)
    r.graph.until(lambda: r.arm(True).success, "to be armed")


@pytest.mark.parametrize("late", [50, 150], ids=["1 s", "3 s"])
def test_odometry_comes_late_although_its_stamps_are_of_now(robot, late):
    r = robot(*[Action.MOVE_FORWARD] * 5)
    past = []

    def delayed(x, y, yaw):
        past.append((x, y, yaw))
        return past[max(0, len(past) - 1 - late)]

    tell(r, says=delayed)
    r.base.metres = 0.0
    _, result = r.outcome(r.go())
    assert result.error_code != Code.NONE and r.base.metres <= 0.375 * max(1, result.steps - 1)


def test_speed_is_changed_in_mid_step(robot):
    from rclpy.parameter import Parameter

    r = robot(Action.MOVE_FORWARD)
    handle = r.go()
    r.graph.until(lambda: r.base.v > 0.1, "motion")
    faster = [Parameter("speed", value=2.0), Parameter("acceleration", value=5.0)]
    assert all(answer.successful for answer in r.motion.set_parameters(faster))
    assert r.outcome(handle)[1].error_code == Code.NONE
    assert max(abs(v) for v, _ in r.base.commands) <= 0.3 and r.base.metres < 0.3


def test_the_base_goes_on_without_commands(robot):
    r = robot(*[Action.MOVE_FORWARD] * 5, motion={"silence_test": True})
    r.base.timeout = 1.0
    result = drives_once(r, Code.UNTRUSTED)
    assert "base_timeout is 0.2" in result.error_msg and r.base.metres < 0.15
    r.base.timeout = 0.2
    r.graph.until(lambda: r.arm(True).success, "to be armed")
    r.graph.until(lambda: r.policy.machine.phase is Phase.IDLE, "the policy to be idle")
    r.script.answers = [Action.MOVE_FORWARD, Action.TURN_LEFT]
    assert r.outcome(r.go("again"))[1].error_code == Code.NONE and r.motion.machine.proven


def test_the_loop_of_motion_stalls(robot):
    r = robot(Action.MOVE_FORWARD, motion={"odom_timeout": 0.3, "heartbeat_timeout": 0.3})
    handle = r.go()
    r.graph.until(lambda: r.base.command[0] > 0.25, "full speed")
    time.sleep(0.6)
    r.base.commands.clear()
    _, result = r.outcome(handle)
    assert result.error_code in (Code.NONE, Code.STALE), result.error_msg
    assert not r.base.commands or r.base.commands[0][0] <= 0.3 * 0.5
    assert r.base.metres <= 0.375

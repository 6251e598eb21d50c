"""
By whose word the robot moves, and that it stops when whoever it was is gone, on the real graph.
"""

import math
import signal
import time

import numpy as np
import pytest

from janusvln_ros.actions import Action
from janusvln_ros.protocol.exchange import Phase
from janusvln_ros.protocol.status import Code, StepStatus

pytestmark = [pytest.mark.faults, pytest.mark.ros]
FORWARD = [Action.MOVE_FORWARD] * 60
TURNS = [Action.TURN_LEFT] * 60
CLIENT = 2.0  # seconds within which a drive ends whose client is gone


def settled(r):
    """Until nothing is under way."""
    r.graph.until(lambda: r.policy.machine.phase is Phase.IDLE, "the policy to be idle")
    r.graph.until(lambda: r.motion.machine.goal is None, "motion to be idle")


def recovers(r):
    settled(r)
    r.script.answers = [Action.TURN_LEFT]
    _, result = r.outcome(r.go("again"))
    assert result.error_code == Code.NONE, result.error_msg


def step_of(r, life, episode=5, step=0, action=Action.MOVE_FORWARD):
    """The result of a step that somebody asks for past the policy."""
    from janusvln_msgs.action import ExecuteStep
    from rclpy.action import ActionClient

    client = ActionClient(r.base.node, ExecuteStep, "execute_step")
    r.graph.until(client.server_is_ready, "execute_step")
    goal = ExecuteStep.Goal(
        episode_id=episode, step=step, action=int(action), frame_stamp=r.base.now(), life=life
    )
    handle = r.graph.result(client.send_goal_async(goal))
    result = r.graph.result(handle.get_result_async()).result
    client.destroy()
    return result


def motion_apart(robot, start):
    """A robot whose ``motion`` is a process of its own, armed; and that process."""
    r = robot(*FORWARD, without="motion")
    process = start("motion", r, "-p", "base_timeout:=0.2")
    r.graph.until(r.arming.service_is_ready, "the motion process")
    r.graph.until(lambda: r.arm(True).success, "to be armed")
    r.graph.until(lambda: r.policy.steps.server_is_ready(), "execute_step")
    return r, process


def policy_apart(robot, start):
    """A robot whose ``policy`` is a process of its own; and that process."""
    r = robot(without="policy", motion={"heartbeat_timeout": 0.2})
    words = ["-p", "settle_time:=0.0", "-p", "frame_max_age:=5.0", "-p", "unattended:=true"]
    process = start("policy", r, *words)
    r.graph.until(lambda: r.motion.machine.heartbeats, "the policy process")
    r.graph.until(r.client.server_is_ready, "follow_instruction")
    return r, process


class Pulse:
    """Heartbeats of a life of its own on ``topic``, every 50 ms, until ``stop``."""

    def __init__(self, r, life, topic="policy/heartbeat", episode=0):
        from janusvln_msgs.msg import Heartbeat

        from janusvln_ros.nodes.running import steady_timer

        out = r.base.node.create_publisher(Heartbeat, topic, 1)
        beat = Heartbeat(life=life, episode_id=episode)
        self.timer = steady_timer(r.base.node, 0.05, lambda: out.publish(beat))
        r.graph.until(out.get_subscription_count, "who listens to heartbeats")
        self.stop = self.timer.cancel


# Clients


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_client(robot, watch, start, number):
    r = robot(*FORWARD, policy={"unattended": False})
    process = start("client", r)
    watch(r).driving().zero(lambda: process.send_signal(number), CLIENT)
    settled(r)
    assert "has not been heard" in r.policy.figures.last_error
    x = r.base.x
    r.graph.spin(1.0)
    assert r.base.x == pytest.approx(x, abs=1e-6)


def test_client_whose_heartbeats_stop(robot, watch):
    r = robot(*FORWARD, policy={"unattended": False})
    pulse = Pulse(r, 99, "policy/client")
    handle = r.go(client=99)
    watch(r).driving().zero(pulse.stop, CLIENT)
    assert r.outcome(handle)[1].error_code == Code.CLIENT_LOST


def test_client_nobody_would_miss(robot):
    from std_msgs.msg import String

    r = robot(*FORWARD, policy={"unattended": False})
    _, result = r.outcome(r.go())
    assert result.error_code == Code.UNATTENDED and "unattended:=true" in result.error_msg
    speak = r.base.node.create_publisher(String, "instruction", 10)
    r.graph.until(speak.get_subscription_count, "the subscription of instruction")
    speak.publish(String(data="go"))
    r.graph.spin(1.0)
    assert r.base.x == 0 and r.policy.machine.phase is Phase.IDLE


# Heartbeats and lives


def test_policy_frozen(robot, watch, start):
    r, process = policy_apart(robot, start)
    assert r.arm(True).success
    r.go()
    watch(r).driving().zero(lambda: process.send_signal(signal.SIGSTOP))
    assert r.base.x < 0.3


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_policy_beside_the_heartbeat_of_another(robot, watch, start, number):
    r, process = policy_apart(robot, start)
    pulse = Pulse(r, 4711)
    assert r.arm(True).success
    r.go()
    watch(r).driving().zero(lambda: process.send_signal(number))
    assert r.base.x < 0.3
    pulse.stop()


def test_step_of_a_sender_without_heartbeat(robot):
    r = robot(*FORWARD)
    told = step_of(r, life=31)
    assert told.status == StepStatus.STALE and "life 31" in told.error_msg and r.base.x == 0
    recovers(r)


def test_step_of_a_sender_without_life(robot):
    r = robot(*FORWARD)
    told = step_of(r, life=0)
    assert told.status == StepStatus.REFUSED and "life is 0" in told.error_msg and r.base.x == 0
    recovers(r)


def test_step_of_a_sender_that_falls_silent(robot, watch):
    r = robot(*FORWARD, motion={"heartbeat_timeout": 0.2})
    pulse = Pulse(r, 31)
    from janusvln_msgs.action import ExecuteStep
    from rclpy.action import ActionClient

    client = ActionClient(r.base.node, ExecuteStep, "execute_step")
    r.graph.until(client.server_is_ready, "execute_step")
    goal = ExecuteStep.Goal(episode_id=5, action=1, frame_stamp=r.base.now(), life=31)
    client.send_goal_async(goal)
    watch(r).driving().zero(pulse.stop)  # the policy's own heartbeat goes on
    recovers(r)


def test_episode_numbers_out_of_reach(robot):
    r = robot(*FORWARD)
    Pulse(r, 31, episode=2**64 - 1)
    told = step_of(r, life=31, episode=2**64 - 1)
    assert told.status == StepStatus.REFUSED and "out of reach" in told.error_msg
    recovers(r)


def test_second_policy_in_the_middle_of_an_episode(robot):
    r = robot(*FORWARD[:2])
    Pulse(r, 31)
    handle = r.go()
    r.graph.until(lambda: r.base.v > 0.1, "motion")
    told = step_of(r, life=31, action=Action.TURN_LEFT)
    assert told.status == StepStatus.REFUSED
    assert r.outcome(handle)[1].error_code == Code.NONE and abs(r.base.yaw) < 0.1


# A second motion, and a motion that is gone


def test_second_motion(robot, start):
    r = robot(*FORWARD, armed=False)
    process = start("motion", r, "-r", "__node:=motion2", "-p", "base_timeout:=0.2")
    also = "execute_step is also served by /motion2"
    r.graph.until(lambda: also in r.arm(True).message, "both to be seen")
    assert not r.arm(True).success
    process.kill()
    r.graph.until(lambda: r.arm(True).success, "it to be missed")
    recovers(r)


@pytest.mark.parametrize("sole", [False, True], ids=["named", "refused"])
def test_second_publisher_of_velocities(robot, sole):
    from geometry_msgs.msg import Twist

    r = robot(*FORWARD, armed=False, motion={"sole_velocity": sole})
    r.base.node.create_publisher(Twist, "cmd_vel", 1)
    topic = "/cmd_vel is also published by /base"
    r.graph.until(lambda: topic in r.arm(True).message, "it to be seen")
    assert r.arm(True).success is not sole


def test_motion_frozen(robot, watch, start):
    r, process = motion_apart(robot, start)
    handle = r.go()
    watch(r).driving().zero(lambda: process.send_signal(signal.SIGSTOP))
    assert r.outcome(handle)[1].error_code == Code.NO_MOTION_SERVER
    x = r.base.x
    process.send_signal(signal.SIGCONT)
    r.graph.spin(1.0)  # what it still had to do is for an episode that is over
    assert r.base.x == pytest.approx(x, abs=0.02)


def test_motion_restarted_in_mid_goal(robot, watch, start):
    r, process = motion_apart(robot, start)
    handle = r.go()
    look = watch(r).driving()
    done, begun = handle.get_result_async(), []

    def restart():
        begun.append(time.monotonic())
        process.kill()
        process.wait()
        start("motion", r, "-p", "base_timeout:=0.2")

    look.zero(restart)
    result = r.graph.result(done).result
    heard = time.monotonic() - begun[0]
    assert result.error_code == Code.NO_MOTION_SERVER and "restarted" in result.error_msg
    assert heard < 2.0, f"the client heard of it after {heard:.2f} s"


# E-stop and edges


def test_one_of_two_emergency_stops_while_the_other_says_that_it_is_released(robot, watch):
    from std_msgs.msg import Bool

    from janusvln_ros.nodes.running import steady_timer

    r = robot(*FORWARD, armed=False)
    one, other = (r.base.node.create_publisher(Bool, "estop", 10) for _ in range(2))
    steady_timer(r.base.node, 0.2, lambda: other.publish(Bool(data=False)))
    r.graph.until(lambda: r.motion.machine.estop is False, "the other one")
    assert r.arm(True).success
    handle = r.go()
    watch(r).driving().zero(lambda: one.publish(Bool(data=True)))
    assert r.outcome(handle)[1].error_code == Code.DISARMED and not r.motion.machine.armed


def test_edge_ahead(robot, watch):
    from std_msgs.msg import Bool

    r = robot(*FORWARD, policy={"max_blocked": 1})
    look = r.base.node.create_publisher(Bool, "cliff", 10)
    r.graph.until(lambda: look.get_subscription_count() > 0, "the subscription of cliff")
    handle = r.go()
    watch(r).driving().zero(lambda: look.publish(Bool(data=True)))
    _, result = r.outcome(handle)
    assert result.error_code == Code.BLOCKED and "edge" in result.error_msg
    look.publish(Bool(data=False))
    r.graph.until(lambda: not r.motion.machine.cliff.seen, "the floor")
    recovers(r)


# What guards the way


@pytest.mark.parametrize(
    ("place", "value"),
    [(4, 0.0), (4, math.nan), (2, 0.0), (2, math.nan), (5, math.nan), (2, 1e6), (0, 1e-6)],
    ids=["fy 0", "fy nan", "cx 0", "cx nan", "cy nan", "cx outside", "fx tiny"],
)
def test_depth_info_becomes_unusable(robot, watch, place, value):
    r = robot(*FORWARD, motion={"range_source": "depth"}, armed=False)
    depth = np.full((48, 64), 3.0, np.float32)
    info = r.base.depth_camera(lambda: depth)
    r.graph.until(lambda: r.motion.machine.ranges is not None, "depth")
    assert r.arm(True).success
    handle = r.go()

    def spoil():
        info.k[place] = value

    watch(r).driving().zero(spoil)
    _, result = r.outcome(handle)
    assert result.error_code == Code.STALE and "camera_info" in result.error_msg
    assert "camera_info" in r.arm(True).message


def test_depth_rows_that_claim_to_be_endless(robot, watch):
    r = robot(*FORWARD, motion={"range_source": "depth"}, armed=False)
    shape = {}
    depth = np.full((48, 64), 3.0, np.float32)
    r.base.depth_camera(lambda: depth, shape=shape)
    r.graph.until(lambda: r.motion.machine.ranges is not None, "depth")
    assert r.arm(True).success
    r.go()
    watch(r).driving().zero(lambda: shape.update(height=1, step=2**32 - 1))


def test_image_rows_that_claim_to_be_endless(robot):
    r = robot(*FORWARD, policy={"frame_timeout": 1.0, "image_transport": "raw"})
    r.base.image_fields = {"height": 1, "step": 2**32 - 1}
    _, result = r.outcome(r.go())
    assert result.error_code == Code.BAD_FRAME and r.base.x == 0
    r.base.image_fields = {}
    recovers(r)


def test_scan_beams_that_are_absorbed(robot, watch):
    r = robot(*FORWARD, motion={"range_source": "scan"}, policy={"max_blocked": 1}, armed=False)
    ahead = [3.0]
    r.base.scanner(0.1, lambda: [3.0] * 60 + ahead * 31 + [3.0] * 60)
    r.graph.until(lambda: r.motion.machine.ranges is not None, "a scan")
    assert r.arm(True).success
    handle = r.go()
    watch(r).driving().zero(lambda: ahead.__setitem__(0, math.inf))
    assert r.outcome(handle)[1].error_code == Code.BLOCKED
    ahead[0] = 3.0
    r.graph.until(lambda: r.motion.machine.ranges.known == 1, "a free way")
    recovers(r)


def test_scanner_whose_place_nobody_tells(robot):
    r = robot(*FORWARD, motion={"range_source": "scan", "scan_mount": [math.nan] * 3}, armed=False)
    r.base.scanner(0.1, lambda: 3.0)
    r.graph.until(lambda: r.motion.machine.ranges_problem, "a scan")
    told = r.arm(True)
    assert not told.success and "scan_mount" in told.message and "TF has no chain" in told.message


def test_scan_all_around_goes_blind_in_a_turn(robot, watch):
    motion = {"range_source": "scan", "turn_clearance": 0.3}
    r = robot(*TURNS, motion=motion, policy={"max_blocked": 1}, armed=False)
    aside = [3.0]
    r.base.scanner(0.1, lambda: aside * 60 + [3.0] * 91)
    r.graph.until(lambda: r.motion.machine.ranges is not None, "a scan")
    assert r.arm(True).success
    handle = r.go()
    watch(r).driving().zero(lambda: aside.__setitem__(0, math.nan))
    assert r.outcome(handle)[1].error_code == Code.BLOCKED


@pytest.mark.parametrize("source", ["none", "depth"])
def test_turn_clearance_that_nothing_looks_at(robot, source):
    r = robot(*TURNS, motion={"range_source": source, "turn_clearance": 0.3}, armed=False)
    if source == "depth":
        r.base.depth_camera(lambda: np.full((48, 64), 3.0, np.float32))
        r.graph.until(lambda: r.motion.machine.ranges is not None, "depth")
    told = r.arm(True)
    assert not told.success and "turn_clearance is 0.3" in told.message


def test_focal_length_changes_in_mid_drive(robot):
    r = robot(*FORWARD[:4])
    handle = r.go()
    r.graph.until(lambda: r.base.v > 0.1, "motion")
    before = r.policy.reader.view
    r.base.focal = 1.3
    assert r.outcome(handle)[1].error_code == Code.NONE
    assert r.policy.reader.view is not before  # every frame is seen with its own
    assert r.policy.reader.camera.k[0] == pytest.approx(before and 1.3 * 32 / 0.8243, rel=0.01)

"""
What real robots send and do not send: e-stops of every quality of service, scans and depth that
say "too near", twists that say nothing, velocities that nobody takes, topics without publisher.
"""

import math
import runpy
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from janusvln_ros.actions import Action
from janusvln_ros.protocol.exchange import Phase
from janusvln_ros.protocol.status import Code, StepStatus

pytestmark = pytest.mark.ros

MIXES = [(reliable, kept) for reliable in (True, False) for kept in (True, False)]


def estop(r, reliable=True, kept=False):
    """A publisher of the e-stop, on a node of its own as panels are."""
    from rclpy.node import Node
    from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
    from std_msgs.msg import Bool

    node = Node("panel", context=r.graph.context)
    r.graph.nodes.append(node)
    r.graph.executor.add_node(node)
    profile = QoSProfile(
        depth=1,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if kept else DurabilityPolicy.VOLATILE,
    )
    publisher = node.create_publisher(Bool, "estop", profile)
    node.say = lambda pressed: publisher.publish(Bool(data=pressed))
    node.heard = publisher.get_subscription_count
    return node


def says(r, panel, pressed):
    """The panel says so until motion knows."""

    def known():
        panel.say(pressed)
        return r.motion.machine.estop is pressed

    r.graph.until(known, f"the e-stop to be {pressed}")


@pytest.mark.parametrize(("reliable", "kept"), MIXES)
def test_every_emergency_stop_is_heard_and_its_release_too(robot, reliable, kept):
    r = robot()
    panel = estop(r, reliable, kept)
    r.graph.until(panel.heard, "the subscription")
    says(r, panel, True)
    assert not r.motion.machine.armed and "e-stop is pressed" in r.arm(True).message
    says(r, panel, False)
    assert r.arm(True).success


@pytest.mark.parametrize(("reliable", "kept"), MIXES)
def test_a_message_that_comes_on_several_subscriptions_is_heard_once(robot, reliable, kept):
    from std_msgs.msg import Bool

    from janusvln_ros.nodes.wiring import hear_all

    r = robot(without="motion")
    panel, heard = estop(r, reliable, kept), []
    hear_all(r.base.node, Bool, "estop", lambda message, sent: heard.append(message.data))
    matching = 1 + reliable + (reliable and kept)
    r.graph.until(lambda: panel.heard() == matching, "the subscriptions")
    for pressed in (False, True, True):
        panel.say(pressed)
        r.graph.spin(0.2)
    assert heard == [False, True, True]


def test_an_emergency_stop_is_heard_by_humbles_rclpy_which_gives_the_message_alone(
    robot, monkeypatch
):
    from janusvln_ros.nodes import wiring

    events = SimpleNamespace(SubscriptionEventCallbacks=object())
    monkeypatch.setitem(sys.modules, "rclpy.qos_event", events)
    with monkeypatch.context() as humble:
        humble.setitem(sys.modules, "rclpy.event_handler", None)
        found = runpy.run_path(wiring.__file__)["SubscriptionEventCallbacks"]
    assert found is events.SubscriptionEventCallbacks
    monkeypatch.setattr(wiring, "Subscription", object)
    r = robot()
    panel = estop(r, kept=True)
    r.graph.until(panel.heard, "the subscription")
    says(r, panel, True)
    assert not r.motion.machine.armed and "e-stop is pressed" in r.arm(True).message
    says(r, panel, False)
    assert r.arm(True).success


def test_an_emergency_stop_pressed_before_motion_starts_refuses_to_arm(graph, robot):
    from janusvln_ros.nodes.motion import MotionNode

    r = robot(without="motion")
    panel = estop(r, kept=True)
    panel.say(True)
    r.motion = graph.add(MotionNode, base_timeout=0.2)
    graph.until(lambda: r.motion.machine.estop is True, "the last word of the e-stop")
    graph.until(lambda: r.motion.machine.odom is not None, "odometry")
    assert "e-stop is pressed" in r.arm(True).message


def test_a_pressed_emergency_stop_stays_pressed_when_its_publisher_dies(robot):
    r = robot()
    panel = estop(r)
    r.graph.until(panel.heard, "the subscription")
    says(r, panel, True)
    panel.destroy_node()
    r.graph.spin(0.5)
    assert r.motion.machine.estop and "e-stop is pressed" in r.arm(True).message
    other = estop(r, reliable=False)  # and any may release it
    r.graph.until(other.heard, "the subscription")
    says(r, other, False)
    assert r.arm(True).success


def test_an_emergency_stop_that_never_spoke_is_told_when_arming(robot):
    r = robot(armed=False)
    told = r.arm(True)
    assert told.success and "/estop has never spoken" in told.message
    assert "estop_required" in told.message


def test_a_required_emergency_stop_must_speak_and_stay(robot):
    r = robot(armed=False, motion={"estop_required": True})
    assert "estop_required" in r.arm(True).message
    panel = estop(r)
    r.graph.until(panel.heard, "the subscription")
    says(r, panel, False)
    told = r.arm(True)
    assert told.success and "never spoken" not in told.message
    assert r.arm(False).success
    panel.destroy_node()
    r.graph.until(lambda: not r.base.node.count_publishers("estop"), "its end to be discovered")
    assert "no publisher any more" in r.arm(True).message


# The way ahead


def ahead(value):
    """Ranges of 4 m with this straight ahead, 5 degrees wide."""
    ranges = [4.0] * 151
    ranges[73:78] = [value] * 5
    return ranges


def drives_on(r, message):
    """Whether one step forward is driven; the sentence of its result."""
    r.graph.until(lambda: r.motion.machine.ranges is not None, message)
    assert r.arm(True).success
    _, result = r.outcome(r.go())
    return r.base.x > 0.05, result.error_msg


GUARDED = {"motion": {"range_source": "scan", "range_timeout": 1.0}, "policy": {"max_blocked": 1}}


@pytest.mark.parametrize("value", [-math.inf, 0.02])
def test_a_scan_that_says_too_near_keeps_the_robot_where_it_is(robot, value):
    r = robot(*[Action.MOVE_FORWARD] * 3, armed=False, **GUARDED)
    r.base.scanner(0.05, lambda: ahead(value))
    moved, told = drives_on(r, "a scan")
    assert not moved and "0.05 m ahead" in told


def test_a_scan_with_nothing_within_range_is_free(robot):
    r = robot(Action.MOVE_FORWARD, armed=False, **GUARDED)
    r.base.scanner(0.05, lambda: math.inf)
    moved, told = drives_on(r, "a scan")
    assert moved and told == ""


DEPTH = {"motion": {"range_source": "depth", "range_timeout": 1.0}, "policy": {"max_blocked": 1}}


def wall(value=3.0, patch=None, kind=np.float32):
    """Depth of a wall; ``patch``: what stands in the middle third instead."""
    depth = np.full((48, 64), value, kind)
    if patch is not None:
        depth[14:34, 22:42] = patch
    return depth


@pytest.mark.parametrize(
    ("depth", "words"),
    [
        (wall(patch=-math.inf), "ahead"),
        (wall(patch=math.nan), "corridor ahead can be seen"),
        (wall(patch=0.0), "corridor ahead can be seen"),
        (wall(3000, patch=0, kind=np.uint16), "corridor ahead can be seen"),
    ],
    ids=["too near", "not a number", "zero", "zero millimetres"],
)
def test_depth_that_says_too_near_or_nothing_keeps_the_robot_where_it_is(robot, depth, words):
    r = robot(*[Action.MOVE_FORWARD] * 3, armed=False, **DEPTH)
    r.base.depth_camera(lambda: depth)
    moved, told = drives_on(r, "depth")
    assert not moved and words in told


def test_depth_is_read_with_the_intrinsics_of_its_own_size(robot):
    r = robot(*[Action.MOVE_FORWARD] * 9, armed=False, **DEPTH)
    # a post 0.1 m wide, 0.2 m left of the way's middle: in the corridor
    post = wall(4.0)

    def seen():
        f, near = 32 / math.tan(math.radians(39.5)), 0.5 - r.base.x
        depth = post.copy()
        left = round(31.5 - 0.25 / near * f), round(31.5 - 0.15 / near * f)
        depth[:, max(left[0], 0) : max(left[1], 1)] = near
        return depth

    r.base.depth_camera(seen, width=256, height=192)
    moved, told = drives_on(r, "depth")
    assert moved and r.reports[-1].status == StepStatus.BLOCKED, told
    assert r.base.x < 0.2


def test_a_low_box_that_has_left_the_view_of_depth_is_driven_to_no_further(robot):
    r = robot(*[Action.MOVE_FORWARD] * 9, armed=False, **DEPTH)
    focal, far = 32 / math.tan(math.radians(39.5)), wall(4.0)
    seen_from = []

    def seen():
        away, depth = 1.6 - r.base.x, far.copy()
        top = math.ceil(23.5 + focal * (1.25 - 0.4) / away)
        half = int(focal * 0.2 / away)
        depth[top:, 32 - half : 32 + half] = away
        if top < len(depth):
            seen_from.append(away)
        return depth

    r.base.depth_camera(seen)
    moved, told = drives_on(r, "depth")
    assert moved and r.reports[-1].status == StepStatus.BLOCKED, told
    assert "out of the camera's view now" in r.reports[-1].error_msg
    assert min(seen_from) > 1.0  # no picture showed it from where the robot stands
    assert 0.35 <= 1.6 - r.base.x < 0.6


def test_depth_is_heard_reliably_as_long_as_every_publisher_of_it_offers_that(robot):
    from rclpy.qos import QoSProfile, ReliabilityPolicy

    r = robot(armed=False, **DEPTH)
    node, topic = r.base.node, r.base.node.resolve_topic_name("depth")

    def asked():
        infos = node.get_subscriptions_info_by_topic(topic)
        return [info.qos_profile.reliability for info in infos]

    best_effort, reliable = ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE
    r.graph.until(lambda: asked() == [best_effort], "a subscription before there is a publisher")
    r.base.depth_camera(wall)
    r.graph.until(lambda: asked() == [reliable], "a reliable subscription")
    r.graph.until(lambda: r.motion.machine.ranges is not None, "depth")
    before, profile = r.motion.machine.ranges_at, QoSProfile(depth=1, reliability=best_effort)
    node.create_publisher(r.base.Image, topic, profile)
    r.graph.until(lambda: asked() == [best_effort], "a subscription that hears both")
    r.graph.until(lambda: r.motion.machine.ranges_at > before + 0.5, "depth again")


def test_depth_of_another_shape_than_its_intrinsics_is_named_when_arming(robot):
    r = robot(armed=False, **DEPTH)
    r.base.depth_camera(wall, width=64, height=36)
    r.graph.until(lambda: "64 x 36" in r.motion.machine.ranges_problem, "depth and depth_info")
    told = r.arm(True)
    assert not told.success and "64 x 48, but camera_info is for 64 x 36" in told.message


# Odometry


@pytest.mark.parametrize("action", [Action.MOVE_FORWARD, Action.TURN_LEFT])
def test_a_base_whose_twist_is_always_zero_makes_its_steps(robot, action):
    r = robot(action)
    r.base.twist = lambda v, w: (0.0, 0.0)
    _, result = r.outcome(r.go())
    assert result.error_code == Code.NONE, result.error_msg
    assert r.reports[0].status == StepStatus.SUCCEEDED and not r.reports[0].collided
    assert abs(r.base.v) < 0.03 and abs(r.base.w) < 0.06


def test_quaternions_of_length_two_turn_as_far_as_those_of_length_one(robot):
    r = robot(Action.TURN_LEFT)
    r.base.orientation = 2.0
    assert r.outcome(r.go())[1].error_code == Code.NONE
    assert r.base.yaw == pytest.approx(math.radians(15), abs=0.04)


def test_quaternions_of_zeros_are_named_when_arming(robot):
    r = robot(armed=False)
    r.base.orientation = 0.0
    r.graph.until(lambda: r.motion.machine.odom_problem, "odometry")
    r.graph.spin(0.5)
    told = r.arm(True)
    assert not told.success and "quaternion of zeros" in told.message


# The velocity's listeners


def test_arming_names_topic_type_and_listeners_of_the_velocity(robot):
    told = robot(armed=False).arm(True).message
    assert "/cmd_vel (geometry_msgs/msg/Twist) has 1 listener: /base" in told


def test_arming_says_what_a_step_may_command(robot):
    gains = {"execution": 0.8, "turn_execution": 1.0}
    told = robot(armed=False, motion=gains).arm(True).message
    assert "at most 0.42 m (execution 0.8) or 20.2 degrees (turn_execution 1)" in told


def test_arming_is_refused_where_nobody_listens_to_the_velocity(robot):
    r = robot(armed=False)
    r.base.node.destroy_subscription(r.base.listener)
    r.graph.until(lambda: not r.motion.count_subscribers("cmd_vel"), "its end to be discovered")
    told = r.arm(True)
    assert not told.success and "/cmd_vel (0 listeners" in told.message


def test_arming_is_refused_where_the_base_takes_another_type_of_velocity(robot):
    import rclpy
    from geometry_msgs.msg import TwistStamped
    from rclpy.node import Node

    r = robot(armed=False)
    r.base.node.destroy_subscription(r.base.listener)
    context = rclpy.Context()
    context.init(domain_id=r.graph.context.get_domain_id())
    node = Node("diff_drive", context=context)
    try:
        node.create_subscription(TwistStamped, "cmd_vel", print, 1)
        stamped = "geometry_msgs/msg/TwistStamped"
        r.graph.until(
            lambda: (
                [e.node_name for e in r.motion.get_subscriptions_info_by_topic("/cmd_vel")]
                == ["diff_drive"]
            ),
            "the other base",
        )
        told = r.arm(True)
        words = ("/cmd_vel", "1 listener", "geometry_msgs/msg/Twist ", stamped, "/diff_drive")
        assert not told.success and all(word in told.message for word in words)
        assert "output: twist_stamped" in told.message
    finally:
        node.destroy_node()
        context.shutdown()


# Topics that nobody publishes


def test_inputs_without_publisher_are_told_with_the_topics_of_their_type(robot, graph):
    from diagnostic_msgs.msg import DiagnosticArray

    r = robot(without="policy")
    health = {}
    r.base.node.create_subscription(
        DiagnosticArray, "/diagnostics", lambda m: health.update({s.name: s for s in m.status}), 10
    )
    from janusvln_ros.nodes.policy import PolicyNode

    loading = threading.Event()
    policy = graph.add(
        lambda **options: PolicyNode(
            lambda values: loading.wait() and None,
            cli_args=["--ros-args", "-r", "image/compressed:=front/image/compressed"],
            **options,
        )
    )
    try:
        # before the model is loaded
        graph.until(lambda: "image/compressed" in policy.missing, "the look at the publishers")
        told = policy.missing["image/compressed"]
        assert "/front/image/compressed" in told and "has no publisher" in told
        assert told.endswith("topics of that type: /image/compressed")
        assert "camera_info" not in policy.missing
        graph.until(
            lambda: "no publisher" in getattr(health.get("/policy: inputs"), "message", ""),
            "diagnostics",
        )
        graph.until(lambda: "policy/heartbeat" not in r.motion.missing, "the heartbeat")
        assert r.motion.missing == {}
    finally:
        loading.set()


# An instruction while the model loads


def test_an_instruction_while_the_model_loads_is_taken_when_it_is_ready(graph, script):
    from std_msgs.msg import String

    from janusvln_ros.nodes.policy import PolicyNode

    model, ready = script(), threading.Event()
    node = graph.add(
        lambda **options: PolicyNode(lambda values: ready.wait() and model, **options),
        unattended=True,
    )
    speak = node.create_publisher(String, "instruction", 10)
    graph.until(speak.get_subscription_count, "the subscription")
    speak.publish(String(data="go to the door"))
    graph.until(lambda: node.machine.following is not None, "the instruction")
    assert any("taken when it is ready" in text for text in node.figures.warned)
    ready.set()
    graph.until(lambda: "go to the door" in model.instructions, "the episode")
    assert node.machine.active and node.machine.phase is not Phase.IDLE


def test_an_instruction_for_a_model_that_cannot_be_loaded_is_answered(graph):
    from std_msgs.msg import String

    from janusvln_ros.nodes.policy import PolicyNode

    ready = threading.Event()

    def fail(values):
        ready.wait()
        raise RuntimeError("no such file")

    node = graph.add(lambda **options: PolicyNode(fail, **options), unattended=True)
    speak = node.create_publisher(String, "instruction", 10)
    graph.until(speak.get_subscription_count, "the subscription")
    speak.publish(String(data="go"))
    graph.until(lambda: node.machine.following is not None, "the instruction")
    ready.set()
    graph.until(lambda: node.exit_code == 1, "the end")
    assert node.machine.following is None and "no such file" in node.figures.last_error


# Watch only


@pytest.mark.parametrize("shift", [None, -(10**18)], ids=["no odometry", "another clock"])
def test_a_watch_that_cannot_choose_says_so_in_log_and_diagnostics(robot, shift):
    watching = {"execute": False, "frames": "odom"}
    without = "odometry" if shift is None else ""
    r = robot(Action.MOVE_FORWARD, armed=False, policy=watching, without=without)
    r.base.stamp_shift = shift or 0
    handle = r.go()
    r.graph.until(lambda: r.policy.machine.problem, "the reason")
    line = r.policy.health(r.policy.now())
    words = "no odometry has come" if shift is None else "different clocks"
    assert words in line.message and line.level == 1
    assert any(words in text for text in r.policy.figures.warned)
    r.graph.result(handle.cancel_goal_async())
    assert r.outcome(handle)[1].error_code == Code.CANCELED

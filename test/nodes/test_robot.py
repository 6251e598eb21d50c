"""
policy and motion on a real ROS graph with a simulated base: an instruction becomes motion, and
everything else does not.
"""

import math
import threading
from dataclasses import replace

import numpy as np
import pytest

from janusvln_ros.actions import Action
from janusvln_ros.policy.understanding import Understanding
from janusvln_ros.protocol.exchange import Phase
from janusvln_ros.protocol.status import Code, StepStatus

pytestmark = pytest.mark.ros

EXECUTING, SUCCEEDED, CANCELED, ABORTED = 2, 4, 5, 6


def test_an_instruction_drives_the_base_step_by_step_and_ends_where_the_model_stops(robot):
    r = robot(Action.MOVE_FORWARD, Action.TURN_LEFT, Action.STOP)
    status, result = r.outcome(r.go("go to the door\x07 and\nstop"))
    assert (result.error_code, result.error_msg) == (Code.NONE, "") and status == SUCCEEDED
    assert result.steps == 3 and result.path_length == pytest.approx(0.25, abs=0.03)
    assert r.base.x == pytest.approx(0.25, abs=0.03) and r.base.yaw == pytest.approx(
        0.2618, abs=0.04
    )
    r.graph.until(
        lambda: len(r.decisions) == 3 and len(r.reports) == 3 and len(r.feedback) == 3,
        "decisions, reports and feedback",
    )
    assert [d.action for d in r.decisions] == [1, 2, 0] and [d.step for d in r.decisions] == [
        0,
        1,
        2,
    ]
    assert {d.instruction for d in r.decisions} == {"go to the door  and\nstop"} and all(
        d.executed for d in r.decisions
    )
    assert r.decisions[0].header.frame_id == "camera" and sum(
        r.decisions[0].probabilities
    ) == pytest.approx(1.0)
    assert [p.status for p in r.reports] == [0, 0, 0] and r.reports[
        0
    ].pose_change.position.x == pytest.approx(0.25, abs=0.03)
    frames = [d.header.stamp.sec * 10**9 + d.header.stamp.nanosec for d in r.decisions]
    ends = [p.header.stamp.sec * 10**9 + p.header.stamp.nanosec for p in r.reports]
    # never a picture from before the motion ended
    assert all(frame >= end for frame, end in zip(frames[1:], ends))


def test_feedback_leaves_while_its_goal_is_executing(robot, monkeypatch):
    # rclpy drops any other from Lyrical on
    from rclpy.action.server import ServerGoalHandle
    from rclpy.impl.implementation_singleton import rclpy_implementation

    if not hasattr(ServerGoalHandle, "executing"):  # added in 7.1.8 of Jazzy and in Lyrical
        begin = rclpy_implementation.GoalEvent.EXECUTE
        monkeypatch.setattr(
            ServerGoalHandle, "executing", lambda h: h._update_state(begin), raising=False
        )
    sent = []

    def publish(handle, feedback, real=ServerGoalHandle.publish_feedback):
        sent.append((type(feedback).__module__.rpartition(".")[2], handle.status))
        real(handle, feedback)

    monkeypatch.setattr(ServerGoalHandle, "publish_feedback", publish)
    r = robot(Action.MOVE_FORWARD, Action.STOP)
    assert r.outcome(r.go())[0] == SUCCEEDED
    assert {kind for kind, _ in sent} == {"_execute_step", "_follow_instruction"}
    assert {status for _, status in sent} == {EXECUTING}


def test_a_disarmed_robot_decides_and_stays(robot):
    r = robot(*[Action.MOVE_FORWARD] * 5, armed=False)
    status, result = r.outcome(r.go())
    assert (
        status == ABORTED
        and result.error_code == Code.DISARMED
        and "motion/arm" in result.error_msg
    )
    assert r.base.x == 0 and not any(v for v, _ in r.base.commands)


def test_the_instruction_topic_starts_an_episode_but_never_arms(robot):
    from std_msgs.msg import String

    r = robot(Action.MOVE_FORWARD, armed=False)
    speak = r.base.node.create_publisher(String, "instruction", 10)
    r.graph.until(lambda: speak.get_subscription_count() == 1, "the policy's subscription")
    speak.publish(String(data="go on"))
    r.graph.until(lambda: r.decisions, "a decision")
    r.graph.until(lambda: r.policy.machine.phase is Phase.IDLE, "the end")
    assert not r.motion.machine.armed and r.base.x == 0
    assert "motion/arm" in r.policy.figures.last_error


def test_a_cancelled_goal_ends_cancelled_with_the_base_at_rest(robot):
    r = robot(*[Action.MOVE_FORWARD] * 9)
    handle = r.go()
    r.graph.until(lambda: r.base.v > 0.1, "motion")
    r.graph.result(handle.cancel_goal_async())
    status, result = r.outcome(handle)
    assert status == CANCELED and result.error_code == Code.CANCELED
    assert abs(r.base.v) < 0.03 and r.base.command == (0.0, 0.0) and r.base.x < 0.27


def test_a_newer_instruction_wins_and_the_old_one_ends_preempted(robot):
    r = robot(*[Action.MOVE_FORWARD] * 2)
    old = r.go("first")
    r.graph.until(lambda: r.base.v > 0.1, "motion")
    new = r.go("second")
    assert r.outcome(old)[1].error_code == Code.PREEMPTED
    assert r.outcome(new)[1].error_code == Code.NONE
    assert (
        r.script.instructions[-2:] == ["first", "second"]
        and r.decisions[-1].instruction == "second"
    )
    ids = [d.episode_id for d in r.decisions]
    assert ids == sorted(ids) and ids[-1] > ids[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "empty"), ("x" * 100_000, "100000 characters"), ("\x00\x1b\n", "empty")],
)
def test_an_instruction_that_is_none_is_refused_with_its_reason(robot, text, words):
    r = robot()
    status, result = r.outcome(r.go(text))
    assert (
        status == ABORTED
        and result.error_code == Code.INVALID_INSTRUCTION
        and words in result.error_msg
    )


def understand(instruction):
    """As a model that was taught with a few words: see `Navigator.understand`."""
    if instruction == "asdf":
        return Understanding("noise", ("it names nothing",))
    doubtful = "kitchen" in instruction
    return Understanding("doubtful", ("no kitchens",)) if doubtful else Understanding("understood")


def test_noise_is_refused_by_name_and_moves_nothing(robot):
    r = robot(Action.MOVE_FORWARD)
    r.script.understand = understand
    status, result = r.outcome(r.go("asdf"))
    assert status == ABORTED and result.error_code == Code.NO_INSTRUCTION
    assert "'asdf' is no instruction: it names nothing" in result.error_msg
    assert not r.decisions and r.base.x == 0 and "asdf" not in r.script.instructions


def test_what_is_doubtful_is_told_in_feedback_and_diagnostics_and_followed(robot):
    r = robot(*[Action.MOVE_FORWARD] * 3)
    r.script.understand = understand
    handle = r.go("to the kitchen")
    r.graph.until(lambda: r.feedback, "feedback")
    line = r.policy.health(0.0)
    assert line.values["warning"] == "no kitchens" and "may not be understood" in line.message
    assert r.outcome(handle)[1].error_code == Code.NONE
    assert {f.warning for f in r.feedback} == {"no kitchens"}
    assert r.policy.health(0.0).values["warning"] == ""


def test_what_the_network_is_told_instead_is_in_the_feedback(robot):
    r = robot(Action.MOVE_FORWARD, Action.STOP)
    r.script.understand = lambda text: Understanding("understood", told="Turn left.")
    assert r.outcome(r.go("hang a left"))[1].error_code == Code.NONE
    assert {f.told for f in r.feedback} == {"Turn left."}
    assert r.script.instructions[-1] == "hang a left"  # it is the model that says it again


def test_strict_refuses_what_is_doubtful_from_the_next_instruction_on(robot):
    r = robot(Action.STOP, policy={"strict": True})
    r.script.understand = understand
    _, result = r.outcome(r.go("to the kitchen"))
    assert result.error_code == Code.NO_INSTRUCTION and "no kitchens" in result.error_msg
    assert not r.decisions
    r.policy.set_parameters(r.graph.parameters(strict=False))
    assert r.outcome(r.go("to the kitchen"))[1].error_code == Code.NONE


def test_text_that_is_no_action_moves_nothing(robot):
    r = robot("I like turtles")
    _, result = r.outcome(r.go())
    assert (
        result.error_code == Code.NOT_UNDERSTOOD
        and "turtles" in result.error_msg
        and r.base.x == 0
    )
    r.graph.until(lambda: r.decisions, "the decision")
    assert (r.decisions[0].action, r.decisions[0].status, r.decisions[0].executed) == (
        255,
        1,
        False,
    )


def test_watch_only_decides_and_moves_nothing(robot):
    r = robot(
        *[Action.MOVE_FORWARD] * 50,
        armed=False,
        policy={"execute": False, "frames": "interval", "interval": 0.2},
    )
    handle = r.go()
    r.graph.until(lambda: len(r.decisions) >= 4, "decisions")
    r.graph.result(handle.cancel_goal_async())
    assert r.outcome(handle)[1].error_code == Code.CANCELED
    assert not any(d.executed for d in r.decisions) and not r.reports and not r.base.commands
    assert [d.step for d in r.decisions] == list(range(len(r.decisions)))


def test_goals_are_refused_while_inactive_and_taken_after_activation(robot):
    r = robot(Action.STOP)
    r.policy.trigger_deactivate()
    assert r.outcome(r.go())[1].error_code == Code.NOT_ACTIVE
    r.policy.trigger_activate()
    assert r.outcome(r.go())[1].error_code == Code.NONE


def test_a_model_that_cannot_be_loaded_ends_an_autostarted_node(graph):
    from janusvln_ros.nodes.policy import PolicyNode

    def fail(values):
        raise RuntimeError("CUDA out of memory")

    node = graph.add(lambda **options: PolicyNode(fail, **options))
    graph.until(lambda: node.exit_code == 1, "the exit code")
    assert "out of memory" in node.figures.last_error


def test_a_result_that_comes_when_the_node_is_being_destroyed_does_not_end_the_models_thread(
    robot,
):
    r = robot(Action.STOP)
    r.policy.destroy_guard_condition(r.policy.wake)
    done = threading.Event()
    r.policy.worker.put(lambda: "too late")
    r.policy.worker.put(done.set)
    assert done.wait(5)


def test_pipeline_settle_decides_before_the_motion_is_confirmed_and_commits(robot):
    r = robot(*[Action.MOVE_FORWARD] * 3, policy={"pipeline": "settle"}, motion={"rest_time": 0.5})
    _, result = r.outcome(r.go())
    assert result.error_code == Code.NONE and result.steps == 4
    assert (
        r.script.uncommitted == 3
        and r.script.commits == 3
        and r.policy.machine.hidden >= 0
        and r.policy.machine.discarded == 0
    )
    assert r.base.x == pytest.approx(0.75, abs=0.06)


@pytest.mark.slow
def test_pipeline_settle_finds_its_frame_where_odometry_comes_later_than_the_next_frame(robot):
    r = robot(*[Action.MOVE_FORWARD] * 2, policy={"pipeline": "settle"}, motion={"rest_time": 0.8})
    r.base.odom_late = 6  # 0.12 s; frames come every 0.1 s
    _, result = r.outcome(r.go())
    assert result.error_code == Code.NONE and result.steps == 3
    assert r.script.uncommitted == r.script.commits == 2


def test_an_uncalibrated_camera_is_refused_and_the_remedy_is_named(graph, robot):
    r = robot(policy={"frame_timeout": 0.5})
    r.base.info_on = False
    r.graph.spin(0.5)  # those under way
    r.policy.machine = replace(r.policy.machine, camera=None)
    _, result = r.outcome(r.go())
    assert result.error_code == Code.BAD_FRAME and "allow_uncalibrated_camera" in result.error_msg


def test_overlay_and_diagnostics_are_published(robot):
    from diagnostic_msgs.msg import DiagnosticArray
    from sensor_msgs.msg import Image

    r = robot(Action.TURN_LEFT, policy={"expected_image_rate": 10.0})
    overlays, health = [], {}
    r.base.node.create_subscription(Image, "policy/overlay", overlays.append, 1)
    r.base.node.create_subscription(
        DiagnosticArray, "/diagnostics", lambda m: health.update({s.name: s for s in m.status}), 10
    )
    r.graph.until(
        lambda: r.policy.overlay_out.get_subscription_count() == 1, "the overlay's subscriber"
    )
    assert r.outcome(r.go())[1].error_code == Code.NONE
    r.graph.until(
        lambda: (
            overlays
            and {"/policy: state", "/policy: image", "/motion: state", "/motion: odom"}
            <= set(health)
        ),
        "overlay and diagnostics",
    )
    assert (overlays[0].height, overlays[0].width, overlays[0].encoding) == (48, 64, "rgb8")
    values = {v.key: v.value for v in health["/policy: state"].values}
    assert {
        "inference_p50",
        "inference_p99",
        "callback_late_max",
        "last_error",
        "memory_capacity",
        "phase",
    } <= set(values)


def test_a_namespace_moves_every_name_of_a_robot(graph, script):
    from janusvln_ros.nodes.motion import MotionNode
    from janusvln_ros.nodes.policy import PolicyNode

    motion = graph.add(lambda **options: MotionNode(namespace="/r1", **options))
    policy = graph.add(
        lambda **options: PolicyNode(lambda values: script(), namespace="/r1", **options)
    )
    graph.until(lambda: policy.machine.active, "the policy node")
    for node in (motion, policy):
        names = [n for n, _ in node.get_publisher_names_and_types_by_node(node.get_name(), "/r1")]
        names += [
            n for n, _ in node.get_subscriber_names_and_types_by_node(node.get_name(), "/r1")
        ]
        elsewhere = {n for n in names if not n.startswith("/r1/")}
        assert elsewhere <= {"/rosout", "/parameter_events", "/diagnostics", "/clock"}


def test_velocities_can_be_stamped(robot):
    r = robot(Action.MOVE_FORWARD, motion={"output": "twist_stamped", "base_frame": "foot"})
    assert r.outcome(r.go())[1].error_code == Code.NONE
    assert r.base.x == pytest.approx(0.25, abs=0.03)
    assert {h.frame_id for h in r.base.headers} == {"foot"}
    assert all(h.stamp.sec > 0 for h in r.base.headers)


def test_a_laser_scan_stops_the_step(robot):
    r = robot(
        *[Action.MOVE_FORWARD] * 9,
        motion={"range_source": "scan", "range_timeout": 1.0},
        policy={"max_blocked": 1},
        armed=False,
    )
    r.base.scanner(0.05, lambda: 0.5 - r.base.x)
    r.graph.until(lambda: r.motion.machine.ranges is not None, "a scan")
    assert r.arm(True).success
    _, result = r.outcome(r.go())
    assert (
        result.error_code == Code.BLOCKED and "ahead" in result.error_msg and 0.05 < r.base.x < 0.2
    )
    assert r.reports[-1].status == StepStatus.BLOCKED


def test_a_depth_image_stops_the_step(graph):
    from sensor_msgs.msg import CameraInfo, Image

    from janusvln_ros.camera.images import image_data
    from janusvln_ros.nodes.motion import MotionNode

    node = graph.add(MotionNode, range_source="depth", autostart=False)
    images = node.create_publisher(Image, "depth", 1)
    matrices = node.create_publisher(CameraInfo, "depth_info", 1)

    def show(message):
        shown = node.rates["range"].total
        images.publish(message)
        graph.until(lambda: node.rates["range"].total > shown, "the depth image")

    graph.until(images.get_subscription_count, "the subscription of depth")
    graph.until(matrices.get_subscription_count, "the subscription of depth_info")
    depth = np.full((48, 64), 0.8, np.float32)
    message = Image(
        height=48, width=64, encoding="32FC1", step=256, data=image_data(depth.view(np.uint8))
    )
    message.header.stamp.sec = 5
    show(message)
    assert node.machine.ranges is None  # no intrinsics yet
    f = 32 / math.tan(math.radians(39.5))
    matrices.publish(CameraInfo(k=[f, 0.0, 31.5, 0.0, f, 23.5, 0.0, 0.0, 1.0]))
    graph.until(lambda: node.depth_camera is not None, "the intrinsics")
    show(message)
    assert node.machine.ranges.clearance == pytest.approx(0.8) and node.machine.ranges.known == 1.0
    message.encoding, message.header.stamp.sec = "rgb8", 6
    show(message)
    assert node.machine.ranges.stamp == 5 * 10**9

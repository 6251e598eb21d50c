"""
Every fault of the table on the real graph: the base is at rest in time, the status is the right
one, and the next instruction runs.
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
FORWARD = [Action.MOVE_FORWARD] * 20
S = 10**9


def recovers(r, *answers):
    """The next instruction runs to its end without a restart."""
    r.graph.until(lambda: r.policy.machine.phase is Phase.IDLE, "the policy to be idle")
    r.graph.until(lambda: r.motion.machine.goal is None, "motion to be idle")
    r.script.answers = list(answers or [Action.TURN_LEFT])
    _, result = r.outcome(r.go("again"))
    assert result.error_code == Code.NONE, result.error_msg


# The camera


def test_camera_stops(robot):
    r = robot(*FORWARD, policy={"frame_timeout": 1.0})
    handle = r.go()
    r.graph.until(lambda: r.base.v > 0.1, "motion")
    r.base.camera_on = False
    _, result = r.outcome(handle)
    assert result.error_code == Code.NO_FRAME and r.base.x < 0.3 and r.base.v == 0
    r.base.camera_on = True
    recovers(r)


def test_camera_rate_drops(robot):
    r = robot(*FORWARD[:2], policy={"expected_image_rate": 10.0})
    shots = iter(range(10**6))
    shoot = r.base.shoot
    r.base.shoot = None
    for timer in list(r.base.node.timers):
        if timer.timer_period_ns == S // 10:
            timer.callback = lambda: shoot() if next(shots) % 5 == 0 else None
    _, result = r.outcome(r.go())
    assert result.error_code == Code.NONE and result.steps == 3  # slower, but right
    r.graph.until(
        lambda: r.policy.rates["image"].health(time.monotonic()).level == 1,
        "the warning about the rate",
    )


def test_frames_are_frozen_and_identical(robot):
    r = robot(*FORWARD, policy={"frame_timeout": 1.0})
    still = np.random.default_rng(7).integers(0, 255, (48, 64, 3), np.uint8)
    r.base.picture = lambda: still
    _, result = r.outcome(r.go())
    assert result.error_code == Code.BAD_FRAME and "frozen" in result.error_msg and r.base.x < 0.3
    r.base.picture = lambda: np.random.default_rng(r.base.frames_sent).integers(
        0, 255, (48, 64, 3), np.uint8
    )
    recovers(r)


@pytest.mark.parametrize(
    ("shift", "words"),
    [(-20 * S, "older|old"), (20 * S, "future"), (None, "zero")],
    ids=["stale", "future", "zero"],
)
def test_stamps_are(robot, shift, words):
    import re

    r = robot(*FORWARD, policy={"frame_timeout": 1.0})
    r.base.stamp_shift = shift
    _, result = r.outcome(r.go())
    assert (
        result.error_code == Code.NO_FRAME and re.search(words, result.error_msg) and r.base.x == 0
    )
    r.base.stamp_shift = 0
    recovers(r)


def test_stamps_are_out_of_order(robot):
    r = robot(*FORWARD[:3])
    shoot = r.base.shoot
    for timer in list(r.base.node.timers):
        if timer.timer_period_ns == S // 10:

            def shuffled():
                r.base.stamp_shift = -3 * S if r.base.frames_sent % 2 else 0
                shoot()

            timer.callback = shuffled
    _, result = r.outcome(r.go())
    assert result.error_code == Code.NONE and result.steps == 4
    stamps = [d.header.stamp.sec * S + d.header.stamp.nanosec for d in r.decisions]
    assert stamps == sorted(stamps)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"encoding": "bayer_rggb8"}, "bayer_rggb8"),
        ({"height": 24, "step": 384}, "image|camera_info"),
        ({"step": 100}, "step is 100"),
        ({"height": 4000}, "image data"),
    ],
    ids=["encoding", "size", "step", "height"],
)
def test_image_has_the_wrong(robot, fields, words):
    import re

    r = robot(*FORWARD, policy={"frame_timeout": 1.0, "image_transport": "raw"})
    r.base.image_fields = fields
    if "height" in fields and fields["height"] == 24:
        r.base.image_fields = {"height": 24, "width": 128, "step": 384}
    _, result = r.outcome(r.go())
    assert (
        result.error_code == Code.BAD_FRAME
        and re.search(words, result.error_msg)
        and r.base.x == 0
    )
    r.base.image_fields = {}
    recovers(r)


def test_jpeg_is_truncated(robot):
    r = robot(*FORWARD, policy={"frame_timeout": 1.0})
    r.base.cut = 700
    _, result = r.outcome(r.go())
    assert (
        result.error_code == Code.BAD_FRAME and "cut short" in result.error_msg and r.base.x == 0
    )
    r.base.cut = None
    recovers(r)


def test_one_truncated_jpeg_between_good_ones_changes_nothing(robot):
    r = robot(*FORWARD[:2])
    shoot = r.base.shoot
    for timer in list(r.base.node.timers):
        if timer.timer_period_ns == S // 10:

            def cut_some():
                r.base.cut = 700 if r.base.frames_sent % 2 else None
                shoot()

            timer.callback = cut_some
    assert r.outcome(r.go())[1].error_code == Code.NONE


def test_frames_are_black(robot):
    r = robot(*FORWARD, policy={"frame_timeout": 1.0})
    r.base.picture = lambda: np.zeros((48, 64, 3), np.uint8)
    _, result = r.outcome(r.go())
    assert result.error_code == Code.BAD_FRAME and "black" in result.error_msg and r.base.x == 0
    r.base.picture = lambda: np.random.default_rng(r.base.frames_sent).integers(
        0, 255, (48, 64, 3), np.uint8
    )
    recovers(r)


def test_images_flood_at_one_kilohertz(robot):
    r = robot(*FORWARD[:3], motion={"odom_timeout": 0.3})
    for timer in list(r.base.node.timers):
        if timer.timer_period_ns == S // 10:
            timer.timer_period_ns = S // 1000
    _, result = r.outcome(r.go())
    # starved inputs may stop a step; they never let it run
    assert result.error_code in (Code.NONE, Code.STALE), result.error_msg
    assert r.base.x <= 0.25 * result.steps + 0.05


# Time


@pytest.mark.parametrize("seconds", [-100, 100], ids=["back", "forward"])
def test_clock_jumps(robot, watch, seconds):
    r = robot(*FORWARD, clock=True, motion={"odom_timeout": 0.2})
    handle = r.go()
    watch(r).driving()

    def jump():
        r.base.offset += seconds * S

    if seconds < 0:
        watch(r).zero(jump)
        assert r.outcome(handle)[1].error_code == Code.STALE
    else:
        jump()
        r.script.answers = []
        assert r.outcome(handle)[1].error_code in (Code.NONE, Code.STALE, Code.NO_FRAME)
    assert r.base.x < 0.3
    recovers(r)


# Odometry


def test_odometry_stops(robot, watch):
    r = robot(*FORWARD, motion={"odom_timeout": 0.2})
    handle = r.go()
    watch(r).driving().zero(lambda: setattr(r.base, "odom_on", False))
    assert r.outcome(handle)[1].error_code == Code.STALE
    r.base.odom_on = True
    r.graph.until(lambda: time.monotonic() - r.motion.machine.odom_at < 0.1, "odometry")
    recovers(r)


@pytest.mark.parametrize("value", [50.0, math.nan], ids=["jumps", "is not a number"])
def test_odometry(robot, watch, value):
    r = robot(*FORWARD)
    handle = r.go()
    watch(r).driving().zero(lambda: setattr(r.base, "odom_x", value))
    _, result = r.outcome(handle)
    assert result.error_code == Code.STALE and (
        "jumped" in result.error_msg or "not a number" in result.error_msg
    )
    r.base.odom_x = None
    r.graph.spin(0.3)
    recovers(r)


def test_odometry_becomes_a_quaternion_of_zeros(robot, watch):
    r = robot(*FORWARD)
    handle = r.go()
    watch(r).driving().zero(lambda: setattr(r.base, "orientation", 0.0))
    _, result = r.outcome(handle)
    assert result.error_code == Code.STALE and "quaternion of zeros" in result.error_msg
    r.base.orientation = 1.0
    r.graph.spin(0.3)
    recovers(r)


@pytest.mark.parametrize("measured", [0.0, 0.3], ids=["zero", "stuck at 0.3"])
def test_cancel_while_the_twist_is(robot, watch, measured):
    r = robot(*FORWARD)
    r.base.twist = lambda v, w: (measured, 0.0)
    handle = r.go()
    watch(r).driving().zero(handle.cancel_goal_async)
    assert r.outcome(handle)[1].error_code == Code.CANCELED
    assert abs(r.base.v) < 0.03  # the result waits for the true standstill
    recovers(r)


# The model


def test_inference_overruns(robot):
    r = robot(*FORWARD, seconds=3.0, policy={"inference_timeout": 0.5})
    _, result = r.outcome(r.go())
    assert (
        result.error_code == Code.INFERENCE_FAILED
        and "longer than 0.5" in result.error_msg
        and r.base.x == 0
    )
    r.script.seconds = 0.0
    r.graph.spin(3.5)
    assert r.base.x == 0  # the late decision was thrown away
    recovers(r)


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (FloatingPointError("the scores are not finite"), Code.INFERENCE_FAILED, "not finite"),
        (
            RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
            Code.INFERENCE_FAILED,
            "out of memory",
        ),
        ("turn around bright eyes", Code.NOT_UNDERSTOOD, "bright eyes"),
    ],
    ids=["logits that are not numbers", "out of memory", "text that is no action"],
)
def test_the_model_answers_with(robot, answer, code, words):
    r = robot(answer)
    _, result = r.outcome(r.go())
    assert result.error_code == code and words in result.error_msg and r.base.x == 0
    recovers(r)


# People


def test_cancel_in_mid_step(robot, watch):
    r = robot(*FORWARD)
    handle = r.go()
    watch(r).driving().zero(handle.cancel_goal_async)
    assert r.outcome(handle)[1].error_code == Code.CANCELED
    recovers(r)


def test_new_instruction_in_mid_step(robot, watch):
    r = robot(Action.MOVE_FORWARD, Action.STOP)
    old = r.go("one")
    futures = []
    watch(r).driving().zero(
        lambda: futures.append(r.client.send_goal_async(r.Goal(instruction="two")))
    )
    assert r.outcome(old)[1].error_code == Code.PREEMPTED
    assert r.outcome(r.graph.result(futures[0]))[1].error_code == Code.NONE


def test_two_clients_of_motion(robot):
    from janusvln_msgs.action import ExecuteStep
    from rclpy.action import ActionClient

    r = robot(Action.MOVE_FORWARD)
    handle = r.go()
    r.graph.until(lambda: r.base.v > 0.1, "motion")
    other = ActionClient(r.base.node, ExecuteStep, "execute_step")
    r.graph.until(other.server_is_ready, "execute_step")
    goal = ExecuteStep.Goal(episode_id=2**60, step=0, action=2, frame_stamp=r.base.now())
    refused = r.graph.result(r.graph.result(other.send_goal_async(goal)).get_result_async()).result
    assert refused.status == StepStatus.REFUSED and "under way" in refused.error_msg
    assert r.outcome(handle)[1].error_code == Code.NONE
    assert abs(r.base.yaw) < 0.1  # the other's turn never happened


@pytest.mark.parametrize(
    "text", ["", "x" * 100_000, "\x00\x07\x1b"], ids=["empty", "huge", "control characters"]
)
def test_instruction_is(robot, text):
    r = robot()
    assert r.outcome(r.go(text))[1].error_code == Code.INVALID_INSTRUCTION
    recovers(r)


def test_emergency_stop(robot, watch):
    from std_msgs.msg import Bool

    r = robot(*FORWARD)
    press = r.base.node.create_publisher(Bool, "estop", 10)
    r.graph.until(lambda: press.get_subscription_count() > 0, "the e-stop's subscription")
    handle = r.go()
    watch(r).driving().zero(lambda: press.publish(Bool(data=True)))
    assert r.outcome(handle)[1].error_code == Code.DISARMED
    assert not r.arm(True).success
    press.publish(Bool(data=False))
    r.graph.until(lambda: not r.motion.machine.estop, "the release")
    assert not r.motion.machine.armed and r.arm(True).success
    recovers(r)


@pytest.mark.parametrize("kept", [False, True], ids=["volatile", "transient local"])
@pytest.mark.parametrize("reliable", [False, True], ids=["best effort", "reliable"])
def test_emergency_stop_of_any_quality_of_service(robot, watch, reliable, kept):
    from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
    from std_msgs.msg import Bool

    profile = QoSProfile(
        depth=1,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if kept else DurabilityPolicy.VOLATILE,
    )
    r = robot(*FORWARD)
    press = r.base.node.create_publisher(Bool, "estop", profile)
    r.graph.until(lambda: press.get_subscription_count() > 0, "the e-stop's subscription")
    handle = r.go()
    watch(r).driving().zero(lambda: press.publish(Bool(data=True)))
    assert r.outcome(handle)[1].error_code == Code.DISARMED
    r.base.node.destroy_publisher(press)  # it dies pressed, and stays pressed
    r.graph.spin(0.3)
    assert not r.arm(True).success
    release = r.base.node.create_publisher(Bool, "estop", profile)
    r.graph.until(lambda: release.get_subscription_count() > 0, "the e-stop's subscription")
    release.publish(Bool(data=False))
    r.graph.until(lambda: r.motion.machine.estop is False, "the release")
    r.graph.until(lambda: r.arm(True).success, "to be armed")
    recovers(r)


def test_disarmed_in_mid_step(robot, watch):
    r = robot(*FORWARD)
    handle = r.go()
    watch(r).driving().zero(lambda: r.arming.call_async(r.ArmRequest(data=False)))
    assert r.outcome(handle)[1].error_code == Code.DISARMED
    assert r.arm(True).success
    recovers(r)


@pytest.mark.parametrize("name", ["motion", "policy"])
def test_deactivated_in_mid_step(robot, watch, name):
    r = robot(*FORWARD)
    handle = r.go()
    node = getattr(r, name)
    watch(r).driving().zero(node.trigger_deactivate)
    assert r.outcome(handle)[1].error_code == (
        Code.DISARMED if name == "motion" else Code.NOT_ACTIVE
    )
    node.trigger_activate()
    if name == "motion":
        assert not r.motion.machine.armed and r.arm(True).success
    r.graph.until(lambda: time.monotonic() - r.motion.machine.heartbeat_at < 0.1, "heartbeats")
    recovers(r)


@pytest.mark.parametrize("value", [-math.inf, 0.01, math.nan], ids=["-inf", "too near", "nan"])
def test_scan_straight_ahead_becomes(robot, watch, value):
    r = robot(*FORWARD, motion={"range_source": "scan"}, policy={"max_blocked": 1}, armed=False)
    ahead = [3.0]
    r.base.scanner(0.1, lambda: [3.0] * 68 + ahead * 15 + [3.0] * 68)
    r.graph.until(lambda: r.motion.machine.ranges is not None, "a scan")
    assert r.arm(True).success
    handle = r.go()
    watch(r).driving().zero(lambda: ahead.__setitem__(0, value))
    assert r.outcome(handle)[1].error_code == Code.BLOCKED
    ahead[0] = 3.0
    r.graph.until(lambda: r.motion.machine.ranges.clearance > 1, "a free way")
    recovers(r)


@pytest.mark.parametrize("value", [-math.inf, 0.0], ids=["-inf", "zero"])
def test_depth_straight_ahead_becomes(robot, watch, value):
    r = robot(*FORWARD, motion={"range_source": "depth"}, policy={"max_blocked": 1}, armed=False)
    depth = np.full((48, 64), 3.0, np.float32)
    r.base.depth_camera(lambda: depth)
    r.graph.until(lambda: r.motion.machine.ranges is not None, "depth")
    assert r.arm(True).success
    handle = r.go()
    watch(r).driving().zero(lambda: depth.__setitem__((slice(14, 34), slice(22, 42)), value))
    assert r.outcome(handle)[1].error_code == Code.BLOCKED
    depth[:] = 3.0
    r.graph.until(lambda: r.motion.machine.ranges.known == 1, "a free way")
    recovers(r)


def test_obstacle_appears(robot, watch):
    r = robot(*FORWARD, motion={"range_source": "scan"}, policy={"max_blocked": 1}, armed=False)
    ahead = [3.0]
    timer = r.base.scanner(0.1, lambda: ahead[0])
    r.graph.until(lambda: r.motion.machine.ranges is not None, "a scan")
    assert r.arm(True).success
    handle = r.go()
    watch(r).driving().zero(lambda: ahead.__setitem__(0, 0.3))
    assert r.outcome(handle)[1].error_code == Code.BLOCKED
    ahead[0] = 3.0
    handle = None
    r.graph.until(
        lambda: r.policy.machine.phase is Phase.IDLE and r.motion.machine.ranges.clearance > 2,
        "a free way",
    )
    r.script.answers = list(FORWARD)
    handle = r.go()
    watch(r).driving().zero(timer.cancel)  # and the scanner dies
    assert r.outcome(handle)[1].error_code == Code.STALE


# Processes


def test_policy_killed_and_restarted(robot, watch, start):
    r = robot(without="policy", motion={"heartbeat_timeout": 0.25})
    words = ["-p", "settle_time:=0.0", "-p", "frame_max_age:=5.0", "-p", "unattended:=true"]
    process = start("policy", r, *words)
    try:
        r.graph.until(
            lambda: (
                time.monotonic() - r.motion.machine.heartbeat_at < 0.1
                and r.client.server_is_ready()
            ),
            "the policy process",
        )
        assert r.arm(True).success
        r.go()
        watch(r).driving().zero(lambda: process.send_signal(signal.SIGKILL))
        process.wait()
        assert r.base.x < 0.3
        process = start("policy", r, *words)
        x = r.base.x
        r.graph.until(
            lambda: time.monotonic() - r.motion.machine.heartbeat_at < 0.1,
            "the new policy process",
        )
        assert r.base.x == pytest.approx(x, abs=1e-6)  # nothing moves until somebody says so
        r.graph.until(r.client.server_is_ready, "follow_instruction")
        r.go()
        r.graph.until(lambda: r.base.x > x + 0.05, "motion for the new instruction")
    finally:
        process.kill()
        process.wait()


def test_motion_killed(robot, watch, start):
    r = robot(
        *FORWARD,
        policy={"server_timeout": 1.0, "step_timeout": 3.0, "cancel_timeout": 0.5},
        without="motion",
    )
    process = start("motion", r, "-p", "base_timeout:=0.2")
    try:
        r.graph.until(r.arming.service_is_ready, "the motion process")
        r.graph.until(lambda: r.arm(True).success, "to be armed")
        r.graph.until(lambda: r.policy.steps.server_is_ready(), "execute_step")
        handle = r.go()
        # nobody says zero any more: the base's own time-out does, which arming asked for
        watch(r).driving().zero(lambda: process.send_signal(signal.SIGKILL))
        assert r.outcome(handle)[1].error_code in (Code.STEP_TIMEOUT, Code.NO_MOTION_SERVER)
        assert r.base.x < 0.3
    finally:
        process.kill()
        process.wait()

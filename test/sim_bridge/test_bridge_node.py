"""
The simulator bridge: in lockstep nothing moves or is published unless asked; in continuous mode it
is a base that stops when nobody speaks to it.
"""

import contextlib
import json
import math
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("janusvln_msgs", reason="needs the interfaces: scripts/build_msgs.sh")

import rclpy
from geometry_msgs.msg import Twist
from janusvln_msgs.action import ExecuteStep
from janusvln_msgs.msg import StepReport
from janusvln_msgs.srv import GetMetrics, ResetEpisode
from nav_msgs.msg import Odometry
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, LaserScan
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from janusvln_ros.data.episodes import write_episodes
from janusvln_ros.errors import InputError
from janusvln_ros.nodes.parameters import declare
from janusvln_ros.stamps import nanoseconds
from sim_bridge import bridge_node
from sim_bridge.bridge_node import SimBridge

pytestmark = pytest.mark.ros
KEPT = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
RESULT = ExecuteStep.Result


class Graph:
    """A bridge over the flat world and a client node, spun by the test."""

    def __init__(self, make_env, data_dir, domain, **parameters):
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        overrides = {
            "data_dir": str(data_dir),
            "image_width": 64,
            "image_height": 48,
            **parameters,
        }
        self.executor = SingleThreadedExecutor(context=self.context)
        self.bridge = SimBridge(
            make_env,
            context=self.context,
            parameter_overrides=[Parameter(k, value=v) for k, v in overrides.items()],
        )
        self.client = rclpy.create_node("client", context=self.context)
        self.executor.add_node(self.bridge)
        self.executor.add_node(self.client)
        self.got = {}
        self.steps = ActionClient(self.client, ExecuteStep, "execute_step")

    def listen(self, kind, topic, qos=10):
        self.got[topic] = []
        self.client.create_subscription(kind, topic, self.got[topic].append, qos)

    def until(self, condition, seconds=20.0):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "the condition did not come true"
            self.executor.spin_once(timeout_sec=0.05)

    def spin(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.02)

    def call(self, kind, name, request=None):
        client = self.client.create_client(kind, name)
        self.until(client.service_is_ready)
        future = client.call_async(request or kind.Request())
        self.until(future.done)
        return future.result()

    def step(self, number, action, stamp=None, episode=1):
        self.until(self.steps.server_is_ready)
        goal = ExecuteStep.Goal(
            episode_id=episode, step=number, action=action, frame_stamp=stamp or self.bridge.stamp
        )
        accepted = self.steps.send_goal_async(goal)
        self.until(accepted.done)
        result = accepted.result().get_result_async()
        self.until(result.done)
        return result.result().result

    def close(self):
        self.steps.destroy()
        self.executor.remove_node(self.bridge)
        self.bridge.destroy_node()
        self.client.destroy_node()
        self.executor.shutdown()
        rclpy.shutdown(context=self.context)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory, flat_episode):
    folder = tmp_path_factory.mktemp("data")
    write_episodes(
        folder / "datasets/houses/val_unseen/val_unseen.json.gz",
        [flat_episode("1"), flat_episode("2", (0.0, 0.0, -2.5))],
    )
    return folder


@pytest.fixture
def bridge(flat_env, data_dir, ros_domain):
    """``bridge(**parameters)``: a bridge and its client, closed in the end."""
    with contextlib.ExitStack() as held:

        def make(**parameters):
            graph = Graph(flat_env, data_dir, ros_domain, **parameters)
            held.callback(graph.close)
            return graph

        yield make


@pytest.fixture
def lockstep(bridge):
    return bridge()


@pytest.fixture
def continuous(bridge):
    return bridge(mode="continuous", frame_rate=20.0)


def test_a_late_comer_gets_the_frame_its_intrinsics_and_the_time(lockstep):
    for kind, topic in (
        (Image, "image"),
        (CompressedImage, "image/compressed"),
        (Image, "depth"),
        (CameraInfo, "camera_info"),
        (Odometry, "odom"),
    ):
        lockstep.listen(kind, topic, KEPT)
    lockstep.listen(Clock, "/clock")
    lockstep.until(lambda: all(lockstep.got.values()))
    got = {topic: messages[0] for topic, messages in lockstep.got.items()}
    assert got["image"].encoding == "rgb8" and (
        got["image"].width,
        got["image"].height,
        got["image"].step,
    ) == (64, 48, 192)
    assert got["depth"].encoding == "32FC1" and np.frombuffer(
        got["depth"].data, np.float32
    ) == pytest.approx(2.0)
    focal = 32 / math.tan(math.radians(39.5))
    assert list(got["camera_info"].k) == pytest.approx([focal, 0, 31.5, 0, focal, 23.5, 0, 0, 1])
    stamps = [
        got[topic].header.stamp
        for topic in ("image", "image/compressed", "depth", "camera_info", "odom")
    ] + [got["/clock"].clock]
    assert all(stamp == lockstep.bridge.stamp for stamp in stamps) and stamps[0].sec > 0


def frames(bridge):
    return [(t.header.frame_id, t.child_frame_id) for t in bridge.outputs.transforms]


def test_the_frames_lead_from_the_map_to_the_robot_under_one_prefix(bridge):
    lockstep = bridge(frame_prefix="r1/")
    assert frames(lockstep.bridge) == [("r1/map", "r1/odom"), ("r1/odom", "r1/base_link")]
    origin, base = lockstep.bridge.outputs.transforms
    assert origin.transform.translation.x == origin.transform.rotation.z == 0.0
    assert base.transform.translation.x == lockstep.bridge.base.pose.x
    lockstep.listen(Image, "image", KEPT)
    lockstep.listen(Odometry, "odom", KEPT)
    lockstep.until(lambda: lockstep.got["image"] and lockstep.got["odom"])
    assert lockstep.got["image"][0].header.frame_id == "r1/camera_optical_frame"
    (odometry,) = lockstep.got["odom"]
    assert (odometry.header.frame_id, odometry.child_frame_id) == ("r1/odom", "r1/base_link")


def test_a_late_comer_gets_the_transforms_of_a_world_that_stands_still(lockstep):
    tf2 = pytest.importorskip("tf2_msgs.msg", reason="tf2_msgs is not on PyPI")
    lockstep.spin(0.5)
    lockstep.listen(tf2.TFMessage, "/tf")
    lockstep.listen(tf2.TFMessage, "/tf_static", KEPT)
    lockstep.until(lambda: lockstep.got["/tf"] and lockstep.got["/tf_static"])
    told = lockstep.got["/tf"][0].transforms + lockstep.got["/tf_static"][0].transforms
    assert [t.child_frame_id for t in told] == ["odom", "base_link", "camera_optical_frame"]
    assert all(t.header.stamp == lockstep.bridge.stamp for t in told[:2])


def test_nothing_advances_unless_asked(lockstep):
    lockstep.listen(Image, "image", KEPT)
    lockstep.listen(Clock, "/clock")
    lockstep.until(lambda: len(lockstep.got["/clock"]) >= 3)
    assert (
        len(lockstep.got["image"]) == 1
        and len({(c.clock.sec, c.clock.nanosec) for c in lockstep.got["/clock"]}) == 1
    )


def test_a_step_moves_and_its_result_names_the_frame_it_produced(lockstep):
    lockstep.listen(Image, "image", KEPT)
    lockstep.listen(StepReport, "motion/step_report")
    lockstep.until(lambda: lockstep.got["image"])
    before = lockstep.bridge.stamp
    left = lockstep.step(0, 2)
    forward = lockstep.step(1, 1)
    lockstep.until(
        lambda: len(lockstep.got["image"]) == 3 and len(lockstep.got["motion/step_report"]) == 2
    )
    assert [m.header.stamp for m in lockstep.got["image"]] == [
        before,
        left.end_stamp,
        forward.end_stamp,
    ]
    assert left.status == forward.status == RESULT.SUCCEEDED
    assert 2 * math.atan2(
        left.pose_change.orientation.z, left.pose_change.orientation.w
    ) == pytest.approx(math.radians(15))
    assert (forward.pose_change.position.x, forward.pose_change.position.y) == pytest.approx(
        (0.25, 0.0)
    )
    assert [r.step for r in lockstep.got["motion/step_report"]] == [0, 1]


@pytest.mark.parametrize(
    ("number", "action", "old_frame", "status"),
    [(0, 1, False, RESULT.REFUSED), (1, 9, False, RESULT.REFUSED), (1, 1, True, RESULT.STALE)],
)
def test_a_repeated_malformed_or_stale_goal_moves_nothing(
    lockstep, number, action, old_frame, status
):
    first = lockstep.bridge.stamp
    lockstep.step(0, 1)
    pose = lockstep.bridge.base.pose
    result = lockstep.step(number, action, first if old_frame else None)
    assert result.status == status and result.error_msg
    assert lockstep.bridge.base.pose == pose


def test_a_collision_is_blocked_and_uses_up_the_step(lockstep):
    results = [lockstep.step(i, 1) for i in range(13)]
    assert (
        [r.status for r in results[:11]] == [RESULT.SUCCEEDED] * 11
        and results[-1].status == RESULT.BLOCKED
        and results[-1].collided
    )
    assert results[-1].end_stamp != results[-2].end_stamp


def test_a_lost_frame_can_be_asked_for_again(lockstep):
    lockstep.listen(Image, "image", KEPT)
    lockstep.until(lambda: lockstep.got["image"])
    assert lockstep.call(Trigger, "resend_frame").success
    lockstep.until(lambda: len(lockstep.got["image"]) == 2)
    assert lockstep.got["image"][0] == lockstep.got["image"][1]


def test_reset_starts_the_named_episode_or_the_next_and_tells_of_an_unknown_one(lockstep):
    lockstep.step(0, 1)
    before = lockstep.bridge.mode.time
    response = lockstep.call(ResetEpisode, "reset_episode")
    assert (
        response.success
        and response.episode_id == "2"
        and response.instruction == "Walk to the goal of 2."
    )
    assert lockstep.bridge.mode.time > before and response.frame_stamp == lockstep.bridge.stamp
    assert lockstep.call(ResetEpisode, "reset_episode").episode_id == "1"
    unknown = lockstep.call(ResetEpisode, "reset_episode", ResetEpisode.Request(episode_id="77"))
    assert not unknown.success and "'77'" in unknown.error_msg
    assert lockstep.step(1, 1).status == RESULT.SUCCEEDED


def test_metrics_count_what_happened_and_an_episode_that_is_over_takes_no_step(lockstep):
    for i, action in enumerate([1, 1, 2, 3, 0]):
        lockstep.step(i, action)
    response = lockstep.call(GetMetrics, "get_metrics")
    metrics = json.loads(response.metrics_json)
    assert (
        response.success
        and metrics["actions"] == [1, 1, 2, 3, 0]
        and metrics["steps"] == 5
        and metrics["frames"] == 6
    )
    assert (
        metrics["success"]
        and metrics["spl"] == 1.0
        and metrics["path_length"] == pytest.approx(0.5)
        and metrics["distance_to_goal"] == pytest.approx(1.5)
    )
    assert lockstep.step(5, 1).status == RESULT.FAILED


def test_the_base_moves_on_cmd_vel_and_brakes_when_the_commands_end(continuous):
    for kind, topic in ((Odometry, "odom"), (Image, "image"), (Clock, "/clock")):
        continuous.listen(kind, topic)
    out = continuous.client.create_publisher(Twist, "cmd_vel", 1)
    continuous.until(lambda: out.get_subscription_count() > 0 and continuous.got["odom"])
    command = Twist()
    command.linear.x = 0.5
    timer = continuous.client.create_timer(0.02, lambda: out.publish(command))
    start = continuous.bridge.base.pose.x
    continuous.until(lambda: continuous.bridge.base.pose.x > start + 0.3)
    # a machine that stands still lets the base brake in between
    continuous.until(lambda: continuous.got["odom"][-1].twist.twist.linear.x > 0.1)
    timer.cancel()
    continuous.until(lambda: continuous.got["odom"][-1].twist.twist.linear.x == 0.0)
    rest = continuous.bridge.base.pose
    continuous.spin(0.3)
    assert continuous.bridge.base.pose == rest
    stamps = [m.header.stamp.sec + m.header.stamp.nanosec * 1e-9 for m in continuous.got["image"]]
    assert len(stamps) > 3 and stamps == sorted(stamps) and continuous.got["/clock"]


def test_an_emergency_stop_holds_the_base_whatever_is_commanded(continuous):
    out, stop = (
        continuous.client.create_publisher(Twist, "cmd_vel", 1),
        continuous.client.create_publisher(Bool, "estop", 1),
    )
    continuous.until(
        lambda: out.get_subscription_count() > 0 and stop.get_subscription_count() > 0
    )
    command = Twist()
    command.linear.x = 0.5
    continuous.client.create_timer(0.02, lambda: out.publish(command))
    continuous.until(lambda: continuous.bridge.base.linear > 0.1)
    stop.publish(Bool(data=True))
    continuous.until(lambda: continuous.bridge.base.stopped)
    continuous.spin(0.3)
    assert continuous.bridge.base.linear == 0.0


def test_a_command_that_is_not_finite_stops_the_base(continuous):
    out = continuous.client.create_publisher(Twist, "cmd_vel", 1)
    continuous.until(lambda: out.get_subscription_count() > 0)
    command = Twist()
    command.linear.x = math.nan
    out.publish(command)
    continuous.spin(0.2)
    assert continuous.bridge.base.linear == 0.0 and math.isfinite(continuous.bridge.base.pose.x)


def test_the_scan_shows_the_wall_ahead(continuous):
    continuous.listen(LaserScan, "scan", qos_profile_sensor_data)
    continuous.until(lambda: continuous.got["scan"])
    scan = continuous.got["scan"][-1]
    middle = np.asarray(scan.ranges)[len(scan.ranges) // 2]
    assert middle == pytest.approx(2.0, abs=0.02) and scan.angle_min == pytest.approx(
        -scan.angle_max
    )


def test_reset_puts_a_moving_base_back_to_the_start_at_rest(continuous):
    continuous.bridge.base.command(0.5, 0.0, time.monotonic())
    continuous.until(lambda: continuous.bridge.base.linear > 0.1)
    response = continuous.call(ResetEpisode, "reset_episode", ResetEpisode.Request(episode_id="1"))
    assert (
        response.success
        and continuous.bridge.base.linear == 0.0
        and continuous.bridge.base.pose.x == 0.0
    )
    metrics = json.loads(continuous.call(GetMetrics, "get_metrics").metrics_json)
    assert metrics["path_length"] == 0.0 and not metrics["stop_called"]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("mode", "lock-step", "lockstep, continuous"),
        ("image_width", 7, "32"),
        ("hfov", 500.0, "170"),
        ("seed", "zero", "int"),
        ("sped", 1.0, "did you mean 'seed'"),
    ],
)
def test_a_wrong_parameter_ends_the_node_with_a_sentence_that_names_it(
    ros_domain, name, value, words
):
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    node = rclpy.create_node(
        "sim_bridge", context=context, parameter_overrides=[Parameter(name, value=value)]
    )
    with pytest.raises(InputError, match=f"'{name}'.*{words}"):
        declare(node, bridge_node.PARAMETERS)
    node.destroy_node()
    rclpy.shutdown(context=context)


def test_when_a_reset_is_answered_the_odometry_tells_of_the_new_place(bridge):
    # measured so seldom that a machine that stands still for a moment changes nothing
    graph = bridge(mode="continuous", frame_rate=20.0, odom_latency=0.4, odom_rate=2.0)
    graph.listen(Odometry, "odom")
    graph.until(lambda: graph.got["odom"])

    def forward():
        graph.bridge.base.command(0.5, 0.0, time.monotonic())
        return graph.got["odom"][-1].pose.pose.position.x > 0.1

    graph.until(forward)
    response = graph.call(ResetEpisode, "reset_episode", ResetEpisode.Request(episode_id="1"))
    assert response.success
    graph.until(lambda: graph.got["odom"][-1].pose.pose.position.x == 0.0)
    moving = [message.pose.pose.position.x > 0.0 for message in graph.got["odom"]]
    first = graph.got["odom"][len(moving) - moving[::-1].index(True)]
    due = nanoseconds(first.header.stamp) + round(0.4e9)
    assert due <= nanoseconds(response.frame_stamp)


def test_frames_are_counted_over_all_episodes(continuous):
    def frames():
        return json.loads(continuous.call(GetMetrics, "get_metrics").metrics_json)

    continuous.until(lambda: frames()["frames"] >= 3)
    first = frames()["frames_total"]
    continuous.call(ResetEpisode, "reset_episode", ResetEpisode.Request(episode_id="1"))
    after = frames()
    assert (
        after["frames_total"] >= first + after["frames"]
        and after["frames"] < after["frames_total"]
    )

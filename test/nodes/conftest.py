"""
A whole robot in one process and on one executor: the real policy and motion nodes around a small
simulated base, with a model that follows a script.
"""

import gc
import math
import time
from array import array
from types import SimpleNamespace

import numpy as np
import pytest

from janusvln_ros.actions import Action

PATIENCE = 60.0  # seconds; a loaded machine may need them, an idle one never does


class Script:
    """
    A model that answers with what it is given, in order, and then stops.

    An exception in the list is raised; text is no action.
    """

    def __init__(self, *answers, seconds=0.0):
        self.answers = list(answers)
        self.seconds = seconds
        self.instructions, self.frames, self.uncommitted, self.commits = [], [], 0, 0
        self.spatial_frames, self.semantic_frames = (), ()
        self.memory_capacity = self.memory_bytes = 0

    def reset(self, instruction):
        self.instructions.append(instruction)

    def step(self, rgb, commit=True):
        if set(self.instructions) == {"walk forward"}:
            return decision(Action.STOP)  # warm-up
        time.sleep(self.seconds)
        self.frames.append(rgb)
        self.uncommitted += not commit
        answer = self.answers.pop(0) if self.answers else Action.STOP
        if isinstance(answer, BaseException):
            raise answer
        return decision(answer) if isinstance(answer, Action) else decision(None, answer)

    def commit(self):
        self.commits += 1


def decision(action, text=None):
    shares = {a: 0.7 if a is action else 0.1 for a in Action}
    timings = dict.fromkeys(
        ("preprocess", "spatial", "vision", "prefill", "decode", "total"), 0.001
    )
    return SimpleNamespace(
        action=action,
        text=action.name if action is not None else text,
        probabilities=shares,
        timings=timings,
    )


class PatientClock:
    """
    A steady clock for nodes that share one executor: it stands still while the machine does
    something else, so that a loaded one breaks no time-out.
    """

    def __init__(self):
        self.now = self.real = time.monotonic()

    def advance(self):
        real = time.monotonic()
        self.now, self.real = self.now + min(real - self.real, 0.02), real

    def __call__(self):
        return self.now


class Graph:
    """
    The nodes of one test and the time to spin them.

    ``clock``: what they take for the steady clock.
    """

    def __init__(self, domain, clock):
        self.clock = clock
        # a process of its own tells the same ROS time as long as the clock is the real one
        self.epoch_ns = time.time_ns() - round(clock() * 1e9)
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        self.context = rclpy.Context()
        self.context.init(domain_id=domain)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.nodes = []

    def ros_now(self):
        """ROS time in ns, on the same clock: a loaded machine makes no stamp old."""
        return self.epoch_ns + round(self.clock() * 1e9)

    def parameters(self, **values):
        from rclpy.parameter import Parameter

        return [Parameter(name, value=value) for name, value in values.items()]

    def add(self, make, **values):
        node = make(
            context=self.context,
            parameter_overrides=self.parameters(**values),
            steady=self.clock,
        )
        if "use_sim_time" not in values:
            node.ros_now = self.ros_now
        self.executor.add_node(node)
        self.nodes.append(node)
        return node

    def once(self):
        if isinstance(self.clock, PatientClock):
            self.clock.advance()
        self.executor.spin_once(timeout_sec=0.02)

    def until(self, condition, what, patience=PATIENCE):
        """Spin until ``condition()`` holds."""
        end = time.monotonic() + patience
        while not (value := condition()):
            assert time.monotonic() < end, f"waited {patience:g} s for {what}"
            self.once()
        return value

    def spin(self, seconds):
        """Let time go by, for things that must not happen."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.once()

    def result(self, future, what="a result"):
        self.until(future.done, what)
        return future.result()

    def close(self):
        for node in self.nodes:
            if hasattr(node, "close"):
                node.close()
            self.executor.remove_node(node)
            node.destroy_node()
        self.executor.shutdown()
        self.nodes.clear()
        self.context.try_shutdown()
        # a participant lives as long as anything that refers to it, and would be seen by the next
        # test
        gc.collect()


class Base:
    """
    A differential base with a camera: takes cmd_vel, publishes odometry at 50 Hz and frames at 10
    Hz, and stops by itself after 0.2 s without commands.

    ``stamped``: it takes TwistStamped. The attributes are its faults: set them to break something.
    """

    def __init__(self, graph, clock=False, stamped=False):
        from builtin_interfaces.msg import Time
        from geometry_msgs.msg import Twist, TwistStamped
        from nav_msgs.msg import Odometry
        from rclpy.node import Node
        from rosgraph_msgs.msg import Clock
        from sensor_msgs.msg import CameraInfo, CompressedImage, Image

        from janusvln_ros.nodes.running import steady_timer

        self.steady, self.ros_now = graph.clock, graph.ros_now
        self.node = Node("base", context=graph.context)
        graph.executor.add_node(self.node)
        graph.nodes.append(self.node)
        self.x = self.y = self.yaw = self.v = self.w = 0.0
        self.command, self.commanded_at, self.ticked = (0.0, 0.0), 0.0, self.steady()
        self.commands, self.times, self.frames_sent = [], [], 0
        self.headers = []  # of stamped commands
        # the base gives the time, 1000 s after the machine started
        self.clock = self.node.create_publisher(Clock, "/clock", 10) if clock else None
        self.offset = 1000 * 10**9
        self.Time, self.Clock, self.Image = Time, Clock, Image
        self.raw = self.node.create_publisher(Image, "image", 1)
        self.image_fields = {}
        self.odom_on = self.camera_on = self.info_on = True
        self.odom_late, self.odom_waiting = 0, []  # measurements that are under way
        self.stuck, self.focal = False, 1.0  # focal: share of its proper focal length
        self.stamp_shift = 0  # ns, of frames
        self.picture = lambda: np.random.default_rng(self.frames_sent).integers(
            0, 255, (48, 64, 3), np.uint8
        )
        self.cut = None  # bytes of a frame that are sent
        self.odom_x = None
        self.twist = lambda v, w: (v, w)  # what odometry says of the velocity
        self.orientation = 1.0  # length of its quaternions
        self.says = lambda x, y, yaw: (x, y, yaw)  # where odometry says that it is
        self.odom_shift = 0  # ns, of odometry's stamps; None: they stand still
        self.timeout = 0.2  # seconds after which it stops without commands
        self.metres = self.radians = 0.0  # what its wheels have made
        self.Odometry, self.CompressedImage, self.CameraInfo = (
            Odometry,
            CompressedImage,
            CameraInfo,
        )
        kind, take = (
            (TwistStamped, self.on_stamped_command) if stamped else (Twist, self.on_command)
        )
        self.listener = self.node.create_subscription(kind, "cmd_vel", take, 1)
        self.odom = self.node.create_publisher(Odometry, "odom", 10)
        self.image = self.node.create_publisher(CompressedImage, "image/compressed", 1)
        self.info = self.node.create_publisher(CameraInfo, "camera_info", 1)
        steady_timer(self.node, 0.02, self.tick)
        steady_timer(self.node, 0.1, self.shoot)

    def on_command(self, message):
        self.command, self.commanded_at = (message.linear.x, message.angular.z), self.steady()
        self.commands.append(self.command)
        self.times.append(self.commanded_at)

    def on_stamped_command(self, message):
        self.headers.append(message.header)
        self.on_command(message.twist)

    def scanner(self, period, ahead):
        """
        Publish laser scans that see ``ahead()`` metres everywhere, or its 151 ranges; return their
        timer.
        """
        from sensor_msgs.msg import LaserScan

        from janusvln_ros.nodes.running import steady_timer

        scans = self.node.create_publisher(LaserScan, "scan", 5)

        def look():
            seen = ahead()
            scan = LaserScan(
                angle_min=-1.5,
                angle_max=1.5,
                angle_increment=0.02,
                range_min=0.05,
                range_max=9.0,
                ranges=seen if isinstance(seen, list) else [seen] * 151,
            )
            scan.header.stamp = self.now()
            scans.publish(scan)

        return steady_timer(self.node, period, look)

    def depth_camera(self, depth, width=64, height=48, shape=None):
        """
        Publish the depth images [48, 64] of ``depth()`` at 20 Hz, with intrinsics for pictures of
        ``width`` x ``height``, 79 degrees wide, which are returned; ``shape``: fields of the
        images that are told otherwise.
        """
        from janusvln_ros.camera.images import image_data
        from janusvln_ros.nodes.running import steady_timer

        f = width / 2 / math.tan(math.radians(39.5))
        k = [f, 0.0, (width - 1) / 2, 0.0, f, (height - 1) / 2, 0.0, 0.0, 1.0]
        info = self.CameraInfo(width=width, height=height, k=k)
        images = self.node.create_publisher(self.Image, "depth", 1)
        infos = self.node.create_publisher(self.CameraInfo, "depth_info", 1)

        def look():
            pixels = depth()
            message = self.Image(height=48, width=64, step=64 * pixels.itemsize)
            message.encoding = "16UC1" if pixels.itemsize == 2 else "32FC1"
            message.data = image_data(pixels.view(np.uint8))
            message.header.stamp = self.now()
            for name, value in (shape or {}).items():
                setattr(message, name, value)
            infos.publish(info)
            images.publish(message)

        steady_timer(self.node, 0.05, look)
        return info

    def now(self):
        """The time as a stamp."""
        return self.stamp(time.monotonic_ns() + self.offset if self.clock else self.ros_now())

    def odom_stamp(self):
        """The stamp of the odometry that is sent now."""
        now = self.now()
        if self.odom_shift is not None:
            ns = now.sec * 10**9 + now.nanosec + self.odom_shift
            self.frozen_stamp = self.stamp(ns)
        return self.frozen_stamp

    def stamp(self, ns):
        return self.Time(sec=ns // 10**9, nanosec=ns % 10**9)

    def tick(self):
        now = self.steady()
        dt, self.ticked = now - self.ticked, now
        v, w = (
            self.command if now - self.commanded_at < self.timeout and not self.stuck else (0, 0)
        )
        self.v += max(-1.5 * dt, min(1.5 * dt, v - self.v))
        self.w += max(-5 * dt, min(5 * dt, w - self.w))
        if v == 0 and abs(self.v) < 0.02:
            self.v = 0.0
        self.x += self.v * math.cos(self.yaw) * dt
        self.y += self.v * math.sin(self.yaw) * dt
        self.yaw += self.w * dt
        self.metres, self.radians = self.metres + abs(self.v) * dt, self.radians + abs(self.w) * dt
        if self.clock:
            self.clock.publish(self.Clock(clock=self.now()))
        if self.odom_on:
            message = self.Odometry()
            message.header.stamp = self.odom_stamp()
            x, y, yaw = self.says(self.x, self.y, self.yaw)
            message.pose.pose.position.x = x if self.odom_x is None else self.odom_x
            message.pose.pose.position.y = y
            message.pose.pose.orientation.z, message.pose.pose.orientation.w = (
                self.orientation * math.sin(yaw / 2),
                self.orientation * math.cos(yaw / 2),
            )
            twist = message.twist.twist
            twist.linear.x, twist.angular.z = self.twist(self.v, self.w)
            self.odom_waiting.append(message)
            while len(self.odom_waiting) > self.odom_late:
                self.odom.publish(self.odom_waiting.pop(0))

    def shoot(self):
        import cv2

        now = self.now()
        ns = 0 if self.stamp_shift is None else now.sec * 10**9 + now.nanosec + self.stamp_shift
        if self.info_on:
            f = self.focal * 32 / math.tan(math.radians(39.5))
            k = [f, 0.0, 31.5, 0.0, f, 23.5, 0.0, 0.0, 1.0]
            self.info.publish(
                self.CameraInfo(
                    width=64, height=48, k=k, distortion_model="plumb_bob", d=[0.0] * 5
                )
            )
        if self.camera_on:
            picture = np.ascontiguousarray(self.picture())
            jpeg = cv2.imencode(".jpg", picture)[1].tobytes()[: self.cut]
            message = self.CompressedImage(format="jpeg", data=array("B", jpeg))
            message.header.stamp, message.header.frame_id = self.stamp(ns), "camera"
            self.image.publish(message)
            fields = {
                "height": 48,
                "width": 64,
                "encoding": "rgb8",
                "step": 192,
            } | self.image_fields
            raw = self.Image(data=array("B", picture.tobytes()), **fields)
            raw.header = message.header
            self.raw.publish(raw)
            self.frames_sent += 1


class Robot:
    """Base, motion and policy, with a client that gives instructions and arms."""

    def __init__(
        self, graph, script, motion=None, policy=None, armed=True, clock=False, without=""
    ):
        from janusvln_msgs.action import FollowInstruction
        from janusvln_msgs.msg import Decision, StepReport
        from rclpy.action import ActionClient
        from std_srvs.srv import SetBool

        from janusvln_ros.nodes.motion import MotionNode
        from janusvln_ros.nodes.policy import PolicyNode

        self.graph, self.script = graph, script
        self.base = Base(graph, clock, (motion or {}).get("output") == "twist_stamped")
        # before there is a policy, which would take one that is under way
        self.base.odom_on = without != "odometry"
        if clock:
            motion, policy = (
                {"use_sim_time": True} | (motion or {}),
                {"use_sim_time": True} | (policy or {}),
            )
        patient = {
            "base_timeout": 0.2,
            "odom_timeout": 0.3,
            "heartbeat_timeout": 0.3,
            "stop_time": 3.0,
            "scan_mount": [0.0, 0.0, 0.0],
            "silence_test": False,
        }
        self.motion = without != "motion" and graph.add(MotionNode, **patient | (motion or {}))
        defaults = {"settle_time": 0.0, "frame_timeout": 5.0, "frame_max_age": 5.0}
        defaults["unattended"] = True
        self.policy = without != "policy" and graph.add(
            lambda **options: PolicyNode(lambda values: script, **options),
            **defaults | (policy or {}),
        )
        self.Goal = FollowInstruction.Goal
        self.client = ActionClient(self.base.node, FollowInstruction, "follow_instruction")
        self.arming = self.base.node.create_client(SetBool, "motion/arm")
        self.ArmRequest = SetBool.Request
        self.decisions, self.reports, self.feedback = [], [], []
        self.base.node.create_subscription(Decision, "policy/decision", self.decisions.append, 50)
        self.base.node.create_subscription(
            StepReport, "motion/step_report", self.reports.append, 50
        )
        if without in ("motion", "policy"):
            return
        graph.until(lambda: self.policy.machine.active, "the policy node to become active")
        graph.until(self.client.server_is_ready, "follow_instruction")
        graph.until(lambda: self.policy.steps.server_is_ready(), "execute_step")
        graph.until(
            lambda: self.motion.machine.odom is not None or without == "odometry", "odometry"
        )
        graph.until(
            lambda: self.motion.machine.heartbeat_at > 0 or not self.policy.values.execute,
            "a heartbeat",
        )
        if armed:
            assert self.arm(True).success

    def arm(self, on):
        self.graph.until(self.arming.service_is_ready, "motion/arm")
        return self.graph.result(
            self.arming.call_async(self.ArmRequest(data=on)), "the answer of motion/arm"
        )

    def go(self, instruction="go", **options):
        """Send an instruction and return its goal handle."""
        future = self.client.send_goal_async(
            self.Goal(instruction=instruction, **options),
            feedback_callback=lambda m: self.feedback.append(m.feedback),
        )
        handle = self.graph.result(future, "the goal to be accepted")
        assert handle.accepted
        return handle

    def outcome(self, handle):
        """Status and result of a goal."""
        answer = self.graph.result(handle.get_result_async(), "the result of follow_instruction")
        return answer.status, answer.result


@pytest.fixture
def steady():
    """What the nodes take for the steady clock."""
    return PatientClock()


@pytest.fixture
def graph(ros_domain, steady):
    made = Graph(ros_domain, steady)
    yield made
    made.close()


@pytest.fixture
def script():
    """``script(*answers)``: a model that follows a script."""
    return Script


@pytest.fixture
def robot(graph):
    """``robot(*answers, motion={}, policy={})``: a whole robot whose model answers so, armed."""

    def make(*answers, seconds=0.0, **options):
        return Robot(graph, Script(*answers, seconds=seconds), **options)

    return make

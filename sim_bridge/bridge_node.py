"""
The ROS node ``sim_bridge``: a simulated house looks like a robot with a camera.

The only file beside ``nodes/`` that imports ROS.

*lockstep*: the node serves ``execute_step`` itself and the world stands still between steps. The
images are raw, reliable and kept for late-comers; the result of a step names the stamp of the
frame it produced, and ``resend_frame`` publishes that frame again. Simulated time advances by
``step_duration`` per step.

*continuous*: the node is a base. It takes ``cmd_vel``, moves, measures itself with noise and
latency, and publishes odometry, scan and images at their rates; ``motion`` drives it as it drives
a robot. Time runs at ``real_time_factor``; time-outs use the steady clock whatever that is.

Threads: every ROS call is made on the executor's thread; the simulator, which owns a GL context,
lives on one thread of its own.
"""

import array
import json
import math
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose, TransformStamped, Twist, TwistStamped
from janusvln_msgs.action import ExecuteStep
from janusvln_msgs.msg import StepReport
from janusvln_msgs.srv import GetMetrics, ResetEpisode
from nav_msgs.msg import OccupancyGrid
from nav_msgs.msg import Odometry as OdometryMsg
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSProfile,
    ReliabilityPolicy,
    qos_profile_sensor_data,
)
from rclpy.task import Future as RosFuture
from rosgraph_msgs.msg import Clock as ClockMsg
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, LaserScan
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from janusvln_ros.actions import FORWARD_STEP_M, TURN_STEP_DEG, Action
from janusvln_ros.errors import InputError
from janusvln_ros.geometry import Pose2, relative, to_map, to_world
from sim_bridge.backends import make_env
from sim_bridge.continuous import Base, BaseSettings, Odometry, scan_from_depth
from sim_bridge.nav_env import MAX_DEPTH_M, NavEnv
from sim_bridge.world import Frame, World

try:
    from tf2_msgs.msg import TFMessage
# not on PyPI; TF is published where the message exists and nothing here needs it
except ImportError:
    TFMessage = None


@dataclass(frozen=True)
class Parameter:
    """
    One parameter: its default (which gives the type), what it is for, and what it may be (a closed
    range, or the choices).
    """

    default: bool | int | float | str
    description: str
    limits: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()


PARAMETERS = {
    "mode": Parameter(
        "lockstep",
        "lockstep: the world waits for execute_step; continuous: a base that takes cmd_vel",
        choices=("lockstep", "continuous"),
    ),
    "backend": Parameter("houses", "simulator", choices=("houses", "habitat")),
    "data_dir": Parameter("data", "folder with datasets/ and scene_datasets/"),
    "dataset": Parameter(
        "houses", "data set of the episodes", choices=("houses", "r2r", "rxr", "scalevln")
    ),
    "split": Parameter("val_unseen", "split of the episodes"),
    "episode_id": Parameter("", "episode to start with; empty: the first of the split"),
    "scene_up": Parameter("z", "axis of the scene files that points up", choices=("y", "z")),
    "image_width": Parameter(640, "pixels", (32, 4096)),
    "image_height": Parameter(480, "pixels", (32, 4096)),
    "hfov": Parameter(79.0, "horizontal field of view, degrees", (10.0, 170.0)),
    "camera_height": Parameter(1.25, "camera above the floor, metres", (0.05, 3.0)),
    "agent_height": Parameter(1.5, "height of the robot, metres", (0.05, 3.0)),
    "agent_radius": Parameter(0.1, "radius of the robot, metres", (0.01, 1.0)),
    "forward_step": Parameter(
        FORWARD_STEP_M, "lockstep: length of MOVE_FORWARD, metres", (0.01, 2.0)
    ),
    "turn_step": Parameter(TURN_STEP_DEG, "lockstep: angle of a turn, degrees", (1.0, 90.0)),
    "sliding": Parameter(True, "lockstep: slide along obstacles, as Habitat does"),
    "max_steps": Parameter(500, "lockstep: steps after which an episode is over", (1, 100000)),
    "success_distance": Parameter(
        3.0, "an episode succeeds when it stops nearer than this to its goal, metres", (0.1, 100.0)
    ),
    "seed": Parameter(0, "seed of the odometry noise", (0, 2**31 - 1)),
    "publish_depth": Parameter(True, "publish depth (REP-118)"),
    "publish_compressed": Parameter(
        True, "publish image/compressed (JPEG) while somebody listens"
    ),
    "jpeg_quality": Parameter(90, "quality of image/compressed", (1, 100)),
    "step_duration": Parameter(1.0, "lockstep: simulated seconds per step", (0.001, 60.0)),
    "real_time_factor": Parameter(1.0, "continuous: simulated seconds per second", (0.05, 10.0)),
    "frame_rate": Parameter(10.0, "continuous: frames per simulated second", (0.2, 120.0)),
    "odom_rate": Parameter(
        50.0, "continuous: odometry measurements per simulated second", (1.0, 500.0)
    ),
    "odom_noise": Parameter(
        0.0, "continuous: relative standard deviation of measured distance and angle", (0.0, 0.5)
    ),
    "odom_latency": Parameter(
        0.0, "continuous: seconds from the stamp of a measurement to its publication", (0.0, 1.0)
    ),
    "cmd_vel_type": Parameter(
        "twist", "continuous: type of cmd_vel", choices=("twist", "twist_stamped")
    ),
    "cmd_vel_timeout": Parameter(
        0.2,
        "continuous: the base brakes when no command came for this long, seconds on "
        "the steady clock",
        (0.02, 2.0),
    ),
    "max_linear": Parameter(0.6, "continuous: speed limit of the base, m/s", (0.01, 5.0)),
    "max_angular": Parameter(1.5, "continuous: turning limit of the base, rad/s", (0.01, 10.0)),
    "linear_acceleration": Parameter(1.5, "continuous: m/s^2", (0.05, 50.0)),
    "angular_acceleration": Parameter(4.0, "continuous: rad/s^2", (0.05, 100.0)),
    "scan_beams": Parameter(64, "continuous: beams of the scan made from depth", (2, 4096)),
    "map_frame": Parameter("map", "frame of the true pose"),
    "odom_frame": Parameter("odom", "frame of the odometry"),
    "base_frame": Parameter("base_link", "frame of the robot"),
    "camera_frame": Parameter(
        "camera_optical_frame", "optical frame of the camera: z forward, x right"
    ),
}
"""Every parameter of the node; ``config/sim_bridge.yaml`` gives the shipped values."""

ACKNOWLEDGED_WITHIN_S = 2.0
"""
How long a reset waits for subscribers that do not acknowledge the first frame, such as one that
was killed.
"""

STEP_FINAL_STATUSES = (ExecuteStep.Result.SUCCEEDED, ExecuteStep.Result.BLOCKED)


def descriptor(parameter: Parameter) -> ParameterDescriptor:
    """The ROS descriptor of a parameter; all are read-only, since the world is built from them."""
    message = ParameterDescriptor(description=parameter.description, read_only=True)
    if parameter.choices:
        message.additional_constraints = "one of " + ", ".join(parameter.choices)
    if parameter.limits and isinstance(parameter.default, int):
        message.integer_range = [
            IntegerRange(
                from_value=int(parameter.limits[0]), to_value=int(parameter.limits[1]), step=0
            )
        ]
    elif parameter.limits:
        message.floating_point_range = [
            FloatingPointRange(
                from_value=parameter.limits[0], to_value=parameter.limits[1], step=0.0
            )
        ]
    return message


def declare_parameters(node: Node) -> dict[str, Any]:
    """
    Declare every parameter and return the values.

    Raises:
        InputError: a value has the wrong type or lies outside its range, or a given name is not a
            parameter of this node.
    """
    values: dict[str, Any] = {}
    given = getattr(node, "_parameter_overrides", {})
    for name in given:
        if (
            name not in PARAMETERS
            and name != "use_sim_time"
            and not name.startswith("qos_overrides.")
        ):
            raise InputError(
                f"sim_bridge has no parameter {name!r}: it has {', '.join(sorted(PARAMETERS))}"
            )
    for name, parameter in PARAMETERS.items():
        allowed = (
            f"one of {', '.join(parameter.choices)}"
            if parameter.choices
            else f"{type(parameter.default).__name__}"
        )
        if parameter.limits:
            allowed += f" from {parameter.limits[0]} to {parameter.limits[1]}"
        wrong = (
            InputError(
                f"parameter {name!r} of sim_bridge is {given[name].value!r}: give "
                f"{allowed} ({parameter.description})"
            )
            if name in given
            else None
        )
        try:
            value: Any = node.declare_parameter(
                name, parameter.default, descriptor(parameter)
            ).value
        # rclpy raises a type of its own for each way of being wrong, and they differ between
        # distributions
        except Exception as error:
            raise wrong or error from error
        if wrong and (
            type(value) is not type(parameter.default)
            or (parameter.choices and value not in parameter.choices)
        ):
            raise wrong
        if wrong and isinstance(value, float) and not math.isfinite(value):
            raise wrong
        values[name] = value
    return values


def time_message(seconds: float) -> Time:
    """
    The stamp of a simulated time in seconds, to the microsecond, so that equal times give equal
    stamps.
    """
    microseconds = round(seconds * 1e6)
    return Time(sec=microseconds // 1_000_000, nanosec=microseconds % 1_000_000 * 1000)


def pose_message(pose: Pose2, height: float = 0.0) -> Pose:
    """A planar pose as a ROS pose."""
    message = Pose()
    message.position.x, message.position.y, message.position.z = pose.x, pose.y, height
    message.orientation.z, message.orientation.w = math.sin(pose.yaw / 2), math.cos(pose.yaw / 2)
    return message


class SimBridge(Node):
    """The node. ``factory`` makes the simulator; tests give their own."""

    def __init__(self, factory: Callable[..., NavEnv] = make_env, **arguments: Any):
        super().__init__("sim_bridge", **arguments)
        self.values = declare_parameters(self)
        self.lockstep = self.values["mode"] == "lockstep"
        self.steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="simulator")
        try:
            self.world: World = self.thread.submit(World, self.values, factory).result()
            episode, frame = self.thread.submit(
                self.world.reset, self.values["episode_id"], "", ""
            ).result()
        except BaseException:
            self.thread.shutdown()
            raise
        self.episode = episode
        self.frame = frame
        self.time = 1.0  # simulated seconds; zero is what an unset stamp looks like
        self.stamp = time_message(self.time)
        self.last_step = (-1, -1)
        self.busy = False  # a step or a reset is under way
        self.rendering = False  # continuous: a frame is under way
        self.frames_published = self.frames_before = 0  # in this episode; in all before it
        self._make_interfaces()
        self._place_base(frame)
        self._publish_map()
        if self.lockstep:
            self._publish_frame()
        else:
            self.started = time.monotonic()
            self.advanced_to = self.time
        self.get_logger().info(
            f"{self.values['mode']} in {episode.scene_id}, episode "
            f"{episode.episode_id}: {episode.instruction}"
        )

    # interfaces

    def _make_interfaces(self) -> None:
        kept = QoSProfile(
            depth=1,
            history=HistoryPolicy.KEEP_LAST,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.TRANSIENT_LOCAL,
        )
        images = (
            kept if self.lockstep else QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
        )
        self.image_out = self.create_publisher(Image, "image", images)
        self.compressed_out = (
            self.create_publisher(CompressedImage, "image/compressed", images)
            if self.values["publish_compressed"]
            else None
        )
        self.depth_out = (
            self.create_publisher(Image, "depth", images) if self.values["publish_depth"] else None
        )
        self.info_out = self.create_publisher(CameraInfo, "camera_info", images)
        self.odom_out = self.create_publisher(
            OdometryMsg, "odom", kept if self.lockstep else QoSProfile(depth=10)
        )
        self.truth_out = self.create_publisher(
            OdometryMsg, "ground_truth", kept if self.lockstep else QoSProfile(depth=10)
        )
        self.map_out = self.create_publisher(OccupancyGrid, "map", kept)
        self.clock_out = self.create_publisher(ClockMsg, "/clock", QoSProfile(depth=1))
        if TFMessage is not None:
            self.tf_out = self.create_publisher(TFMessage, "/tf", QoSProfile(depth=100))
            self.static_out = self.create_publisher(TFMessage, "/tf_static", kept)
            self.static_out.publish(TFMessage(transforms=[self._camera_mount()]))
        # These two wait for the simulator; in the default group everything else of the node, the
        # clock included, would wait with them.
        waiting = ReentrantCallbackGroup()
        self.create_service(ResetEpisode, "reset_episode", self._on_reset, callback_group=waiting)
        self.create_service(GetMetrics, "get_metrics", self._on_metrics, callback_group=waiting)
        self.create_service(Trigger, "resend_frame", self._on_resend)
        if self.lockstep:
            self.report_out = self.create_publisher(
                StepReport, "motion/step_report", QoSProfile(depth=10)
            )
            self.server = ActionServer(
                self,
                ExecuteStep,
                "execute_step",
                # replaced per goal: each is started once its step is done
                execute_callback=lambda handle: ExecuteStep.Result(),
                goal_callback=lambda goal: GoalResponse.ACCEPT,  # refusals are typed results
                handle_accepted_callback=self._on_step,
                # a step is over as soon as it began
                cancel_callback=lambda handle: CancelResponse.REJECT,
            )
            # The same time again and again: a node that joins between two steps would otherwise
            # have no time at all.
            self.create_timer(0.2, self._publish_clock, clock=self.steady)
            return
        self.scan_out = self.create_publisher(LaserScan, "scan", qos_profile_sensor_data)
        stamped = self.values["cmd_vel_type"] == "twist_stamped"
        self.create_subscription(
            TwistStamped if stamped else Twist, "cmd_vel", self._on_cmd_vel, QoSProfile(depth=1)
        )
        self.create_subscription(Bool, "estop", self._on_estop, QoSProfile(depth=1))
        self.create_subscription(
            StepReport, "motion/step_report", self._on_report, QoSProfile(depth=10)
        )
        factor = self.values["real_time_factor"]
        self.create_timer(
            1.0 / self.values["odom_rate"] / factor, self._on_tick, clock=self.steady
        )
        self.create_timer(
            1.0 / self.values["frame_rate"] / factor, self._on_frame_due, clock=self.steady
        )

    def _camera_mount(self) -> TransformStamped:
        message = TransformStamped()
        message.header.frame_id, message.child_frame_id = (
            self.values["base_frame"],
            self.values["camera_frame"],
        )
        message.transform.translation.z = self.values["camera_height"]
        rotation = message.transform.rotation
        rotation.x, rotation.y, rotation.z, rotation.w = -0.5, 0.5, -0.5, 0.5
        return message

    def _when_done(self, work: "Future[Any]", then: Callable[["Future[Any]"], None]) -> None:
        """
        Call ``then`` on the executor's thread once the simulator's thread has finished ``work``.
        """

        def post(done: "Future[Any]") -> None:
            if self.executor is not None and rclpy.ok(context=self.context):
                self.executor.create_task(then, done)

        work.add_done_callback(post)

    # both modes

    def _place_base(self, frame: Frame) -> None:
        pose, self.floor_height = to_map(frame.observation.position, frame.observation.rotation)
        values = self.values
        settings = BaseSettings(
            max_linear=values["max_linear"],
            max_angular=values["max_angular"],
            linear_acceleration=values["linear_acceleration"],
            angular_acceleration=values["angular_acceleration"],
            command_timeout=values["cmd_vel_timeout"],
            odom_noise=values["odom_noise"],
            odom_latency=values["odom_latency"],
        )
        floor = frame.map
        assert floor is not None

        def free(x: float, y: float) -> bool:
            return floor.is_navigable(-y, -x)

        self.base = Base(settings, free, pose, values["seed"])

    async def _in_simulator(self, work: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        """Run ``work`` on the simulator's thread and return its finished future."""
        executor = self.executor
        assert executor is not None
        finished: RosFuture = RosFuture(executor=executor)

        def wake(done: "Future[Any]") -> None:
            # The result first, then a task: the executor looks at waiting coroutines only when
            # something wakes it, and before it runs new tasks.
            finished.set_result(done)
            executor.create_task(lambda: None)

        self.thread.submit(work, *arguments).add_done_callback(wake)
        return await finished  # type: ignore[return-value]

    async def _on_reset(
        self, request: ResetEpisode.Request, response: ResetEpisode.Response
    ) -> ResetEpisode.Response:
        if self.busy:
            response.error_msg = "a step or another reset is under way: wait for its result"
            return response
        self.busy = True
        done = await self._in_simulator(
            self.world.reset, request.episode_id, request.dataset, request.split
        )
        self.busy = False
        try:
            self.episode, self.frame = done.result()
        except InputError as error:
            response.error_msg = str(error)
            return response
        except Exception as error:
            self.get_logger().error(f"reset failed: {error!r}")
            response.error_msg = f"the simulator failed: {error}"
            return response
        self._place_base(self.frame)
        self._publish_map()
        self.frames_before, self.frames_published = self.frames_before + self.frames_published, 0
        # A policy that was started anew counts its episodes from the beginning; old decisions are
        # known by their frames.
        self.last_step = (-1, -1)
        values = self.values
        if self.lockstep:
            self.time += values["step_duration"]
            self._publish_frame()
            # Whoever asks for a drive after this answer finds the new frame already there, not the
            # one of the episode before.
            await self._in_simulator(
                self.image_out.wait_for_all_acked, Duration(seconds=ACKNOWLEDGED_WITHIN_S)
            )
        else:
            # Likewise the odometry: a step that began on that of the episode before would see the
            # robot jump.
            await self._in_simulator(
                time.sleep,
                (values["odom_latency"] + 2 / values["odom_rate"]) / values["real_time_factor"],
            )
        response.success = True
        response.episode_id, response.scene_id, response.instruction = (
            self.episode.episode_id,
            self.episode.scene_id,
            self.episode.instruction,
        )
        response.frame_stamp = self.stamp if self.lockstep else time_message(self._now())
        return response

    def _publish_map(self) -> None:
        """
        Publish where the base can stand, 0 free and 100 not, in the map frame: x forward is -z of
        the world, y left its -x.
        """
        floor = self.frame.map
        assert floor is not None
        rows, columns = floor.navigable.shape
        grid = OccupancyGrid()
        grid.header.stamp, grid.header.frame_id = self.stamp, self.values["map_frame"]
        grid.info.resolution, grid.info.width, grid.info.height = floor.resolution, rows, columns
        grid.info.origin.position.x = -(floor.origin[1] + rows * floor.resolution)
        grid.info.origin.position.y = -(floor.origin[0] + columns * floor.resolution)
        grid.info.origin.position.z = self.floor_height
        grid.data = array.array(
            "b", np.where(floor.navigable.T[::-1, ::-1], 0, 100).astype(np.int8).tobytes()
        )
        self.map_out.publish(grid)

    async def _on_metrics(
        self, request: GetMetrics.Request, response: GetMetrics.Response
    ) -> GetMetrics.Response:
        metrics = (await self._in_simulator(self.world.metrics)).result()
        response.episode_id = metrics["episode_id"]
        if not self.lockstep:
            metrics["path_length"] = self.base.path_length
        metrics["frames"], metrics["frames_total"] = (
            self.frames_published,
            self.frames_before + self.frames_published,
        )
        response.success, response.metrics_json = True, json.dumps(metrics)
        return response

    def _on_resend(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self.busy:
            response.message = "a step or a reset is under way: its frame will come"
            return response
        self._publish_images()
        response.success, response.message = True, f"{self.stamp.sec}.{self.stamp.nanosec:09d}"
        return response

    def _publish_clock(self) -> None:
        self.clock_out.publish(ClockMsg(clock=self.stamp))

    def _publish_images(self) -> None:
        """Publish the current frame with its stamp."""
        frame, rgb = self.frame, self.frame.observation.rgb
        height, width = rgb.shape[:2]
        self.info_out.publish(self._camera_info(width, height))
        if self.depth_out is not None:
            depth = Image(
                height=height,
                width=width,
                encoding="32FC1",
                step=width * 4,
                is_bigendian=sys.byteorder == "big",
            )
            depth.header.stamp, depth.header.frame_id = self.stamp, self.values["camera_frame"]
            depth.data = array.array("B", frame.depth.tobytes())
            self.depth_out.publish(depth)
        if self.compressed_out is not None:
            compressed = CompressedImage(format="rgb8; jpeg compressed bgr8")
            compressed.header.stamp, compressed.header.frame_id = (
                self.stamp,
                self.values["camera_frame"],
            )
            compressed.data = array.array("B", frame.jpeg)
            self.compressed_out.publish(compressed)
        image = Image(height=height, width=width, encoding="rgb8", step=width * 3)
        image.header.stamp, image.header.frame_id = self.stamp, self.values["camera_frame"]
        image.data = array.array("B", np.ascontiguousarray(rgb).tobytes())
        self.image_out.publish(image)

    def _camera_info(self, width: int, height: int) -> CameraInfo:
        focal = width / 2 / math.tan(math.radians(self.values["hfov"]) / 2)
        # ROS counts pixel centres at whole numbers, the simulator at halves.
        across, down = width / 2 - 0.5, height / 2 - 0.5
        info = CameraInfo(width=width, height=height, distortion_model="plumb_bob", d=[0.0] * 5)
        info.header.stamp, info.header.frame_id = self.stamp, self.values["camera_frame"]
        info.k = [focal, 0.0, across, 0.0, focal, down, 0.0, 0.0, 1.0]
        info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
        info.p = [focal, 0.0, across, 0.0, 0.0, focal, down, 0.0, 0.0, 0.0, 1.0, 0.0]
        return info

    def _publish_odometry(self, measured: Odometry) -> None:
        stamp = time_message(measured.time)
        message = OdometryMsg(child_frame_id=self.values["base_frame"])
        message.header.stamp, message.header.frame_id = stamp, self.values["odom_frame"]
        message.pose.pose = pose_message(measured.pose, self.floor_height)
        message.twist.twist.linear.x, message.twist.twist.angular.z = (
            measured.linear,
            measured.angular,
        )
        self.odom_out.publish(message)
        truth = OdometryMsg(child_frame_id=self.values["base_frame"])
        truth.header.stamp, truth.header.frame_id = (
            self.stamp if self.lockstep else time_message(self.advanced_to),
            self.values["map_frame"],
        )
        truth.pose.pose = pose_message(self.base.pose, self.floor_height)
        truth.twist.twist.linear.x, truth.twist.twist.angular.z = (
            self.base.linear,
            self.base.angular,
        )
        self.truth_out.publish(truth)
        if TFMessage is not None:
            moved = TransformStamped(child_frame_id=self.values["base_frame"])
            moved.header = message.header
            moved.transform.translation.x, moved.transform.translation.y = (
                measured.pose.x,
                measured.pose.y,
            )
            moved.transform.translation.z = self.floor_height
            moved.transform.rotation = message.pose.pose.orientation
            self.tf_out.publish(TFMessage(transforms=[moved]))

    # lockstep

    def _publish_frame(self) -> None:
        """Publish the time first, then everything seen at it; the image comes last."""
        self.stamp = time_message(self.time)
        self.base.pose, _ = to_map(
            self.frame.observation.position, self.frame.observation.rotation
        )
        self.frames_published += 1
        self._publish_clock()
        self._publish_odometry(Odometry(self.time, self.base.pose, 0.0, 0.0))
        self._publish_images()

    def _on_step(self, handle: Any) -> None:
        goal = handle.request
        problem = self._refusal(goal)
        if problem is not None:
            handle.execute(
                lambda h: self._finish(
                    h,
                    ExecuteStep.Result(
                        status=problem[0], error_msg=problem[1], end_stamp=self.stamp
                    ),
                )
            )
            return
        self.last_step = (goal.episode_id, goal.step)
        self.busy = True
        before, _ = to_map(self.frame.observation.position, self.frame.observation.rotation)
        self._when_done(
            self.thread.submit(self.world.step, Action(goal.action)),
            lambda done: self._on_stepped(handle, before, done),
        )

    def _refusal(self, goal: ExecuteStep.Goal) -> tuple[int, str] | None:
        """Return the status and the sentence with which a goal is refused, or None."""
        refused, newest = ExecuteStep.Result.REFUSED, f"{self.stamp.sec}.{self.stamp.nanosec:09d}"
        if goal.action not in list(Action):
            return refused, f"action {goal.action} is none of 0 to 3"
        if self.busy:
            return refused, "a step or a reset is under way"
        if (goal.episode_id, goal.step) <= self.last_step:
            return (
                refused,
                f"step {goal.step} of episode {goal.episode_id} is not newer than step "
                f"{self.last_step[1]} of episode {self.last_step[0]}",
            )
        if (goal.frame_stamp.sec, goal.frame_stamp.nanosec) != (
            self.stamp.sec,
            self.stamp.nanosec,
        ):
            used = f"{goal.frame_stamp.sec}.{goal.frame_stamp.nanosec:09d}"
            return (
                ExecuteStep.Result.STALE,
                f"the decision was made on the frame of {used}; the newest is {newest}",
            )
        if self.world.env.episode_over:
            return (
                ExecuteStep.Result.FAILED,
                f"episode {self.episode.episode_id} is over: call reset_episode",
            )
        return None

    def _on_stepped(self, handle: Any, before: Pose2, done: "Future[Frame]") -> None:
        self.busy = False
        error = done.exception()
        if error is not None:
            self.get_logger().error(f"the simulator failed in a step: {error!r}")
            handle.execute(
                lambda h: self._finish(
                    h,
                    ExecuteStep.Result(
                        status=ExecuteStep.Result.FAILED,
                        error_msg=f"the simulator failed: {error}",
                    ),
                )
            )
            return
        self.frame = done.result()
        self.time += self.values["step_duration"]
        self._publish_frame()
        change = relative(before, self.base.pose)
        collided = bool(self.frame.observation.collided)
        status = ExecuteStep.Result.BLOCKED if collided else ExecuteStep.Result.SUCCEEDED
        result = ExecuteStep.Result(
            status=status,
            end_stamp=self.stamp,
            pose_change=pose_message(change),
            collided=collided,
        )
        handle.execute(lambda h: self._finish(h, result))

    def _finish(self, handle: Any, result: ExecuteStep.Result) -> ExecuteStep.Result:
        goal = handle.request
        report = StepReport(
            episode_id=goal.episode_id,
            step=goal.step,
            action=goal.action,
            frame_stamp=goal.frame_stamp,
        )
        report.header.stamp, report.header.frame_id = result.end_stamp, self.values["odom_frame"]
        report.status, report.error_msg, report.pose_change, report.collided = (
            result.status,
            result.error_msg,
            result.pose_change,
            result.collided,
        )
        self.report_out.publish(report)
        if result.status in STEP_FINAL_STATUSES:
            handle.succeed()
        else:
            handle.abort()
        return result

    # continuous

    def _now(self) -> float:
        """The simulated time now, in seconds."""
        return 1.0 + (time.monotonic() - self.started) * self.values["real_time_factor"]

    def _on_cmd_vel(self, message: Twist | TwistStamped) -> None:
        twist = message.twist if isinstance(message, TwistStamped) else message
        if not self.base.command(twist.linear.x, twist.angular.z, time.monotonic()):
            self.get_logger().error(
                "cmd_vel holds a number that is not finite: the base stops",
                throttle_duration_sec=1.0,
            )

    def _on_estop(self, message: Bool) -> None:
        self.base.emergency_stop(message.data)

    def _on_report(self, message: StepReport) -> None:
        if message.status in STEP_FINAL_STATUSES:
            self.thread.submit(self.world.count, message.action)

    def _on_tick(self) -> None:
        now = self._now()
        self.base.advance(now - self.advanced_to, time.monotonic(), now)
        self.advanced_to = now
        self.clock_out.publish(ClockMsg(clock=time_message(now)))
        for measured in self.base.odometry(now):
            self._publish_odometry(measured)

    def _on_frame_due(self) -> None:
        # the episode is being reset, or rendering is slower than the frame rate: leave this one
        # out
        if self.busy or self.rendering:
            return
        self.rendering = True
        seen_at = self.advanced_to
        self._when_done(
            self.thread.submit(self.world.look_from, *to_world(self.base.pose, self.floor_height)),
            lambda done: self._on_rendered(seen_at, done),
        )

    def _on_rendered(self, seen_at: float, done: "Future[Frame]") -> None:
        self.rendering = False
        if self.busy:  # a frame of the episode before
            return
        self.frame = done.result()
        self.stamp = time_message(seen_at)
        self.frames_published += 1
        self._publish_images()
        beams, half = self.values["scan_beams"], math.radians(self.values["hfov"]) / 2
        focal = self.values["image_width"] / 2 / math.tan(half)
        width = 2 * half / beams
        scan = LaserScan(
            angle_min=-half + width / 2,
            angle_max=half - width / 2,
            angle_increment=width,
            range_min=0.02,
            range_max=MAX_DEPTH_M,
        )
        scan.header.stamp, scan.header.frame_id = self.stamp, self.values["base_frame"]
        scan.scan_time = 1.0 / self.values["frame_rate"]
        scan.ranges = array.array(
            "f",
            scan_from_depth(
                self.frame.depth, focal, self.values["camera_height"], beams
            ).tobytes(),
        )
        self.scan_out.publish(scan)

    def destroy_node(self) -> None:
        """Release the simulator on its own thread, then the node."""
        self.thread.submit(self.world.close).result()
        self.thread.shutdown()
        super().destroy_node()


def main() -> int:
    """
    Run the node until it is told to end.

    Exit code 2: bad parameters or data; 1: the simulator could not be started.
    """
    rclpy.init()
    try:
        node = SimBridge()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, ExternalShutdownException):
        return 130
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        executor.remove_node(node)
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""
The ROS node ``sim_bridge``: a simulated house looks like a robot with a camera. The only file
beside ``nodes/`` and ``graph/`` that imports ROS.

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
from dataclasses import Field, fields
from typing import Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from geometry_msgs.msg import TransformStamped, Twist, TwistStamped
from janusvln_msgs.action import ExecuteStep
from janusvln_msgs.msg import StepReport
from janusvln_msgs.srv import GetMetrics, ResetEpisode
from nav_msgs.msg import OccupancyGrid
from nav_msgs.msg import Odometry as OdometryMsg
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from rclpy.task import Future as RosFuture
from rosgraph_msgs.msg import Clock as ClockMsg
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, LaserScan
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger

from janusvln_ros.actions import Action
from janusvln_ros.camera.images import image_data
from janusvln_ros.errors import InputError
from janusvln_ros.geometry import Pose2, optical_rotation, relative, to_map, to_world
from janusvln_ros.nodes.messages import pose_message, stamp_message
from janusvln_ros.nodes.parameters import Param, declare
from janusvln_ros.nodes.running import leave, run_node, steady_timer
from janusvln_ros.nodes.wiring import hear_all
from janusvln_ros.stamps import nanoseconds
from sim_bridge.backends import make_env
from sim_bridge.continuous import Base, BaseSettings, Odometry, scan_from_depth
from sim_bridge.habitat_client import HabitatSettings
from sim_bridge.nav_env import MAX_DEPTH_M, EnvSettings, NavEnv
from sim_bridge.world import Frame, World

try:
    from tf2_msgs.msg import TFMessage
except ImportError:  # not on PyPI; TF is published where the message exists and nothing needs it
    TFMessage = None

CLOCK = "/clock"
"""As in all of ROS 2: one for every namespace, unless it is remapped."""

TITLE = "Parameters of the node 'sim_bridge': a simulated house as a robot with a camera."


def setting_param(setting: "Field[Any]") -> Param:
    """Return a setting of the simulators as a parameter of the node."""
    about = setting.metadata
    low, high = about["limits"] or (None, None)
    name, text = about["parameter"] or setting.name, about["description"]
    default: Any = setting.default
    return Param(name, default, text, low, high, about["choices"])


ABOUT = ("mode", "backend", "dataset", "split", "seed")
"""Parameters that the record of a drive tells."""

PARAMETERS = (
    Param(
        "mode",
        "lockstep",
        "lockstep: the world waits for execute_step; continuous: a base that takes cmd_vel.",
        choices=("lockstep", "continuous"),
    ),
    Param("backend", "houses", "Which simulator runs.", choices=("houses", "habitat")),
    Param(
        "data_dir",
        "",
        "Folder with datasets/ and scene_datasets/. Empty: the user's own, "
        "~/.local/share/janusvln_ros (XDG_DATA_HOME). Houses that are missing are made there when "
        "they are needed.",
    ),
    Param(
        "dataset",
        "houses",
        "Data set of the episodes.",
        choices=("houses", "r2r", "rxr", "scalevln"),
    ),
    Param("split", "val_unseen", "Split of the episodes."),
    Param("episode_id", "", "Episode to start with; empty: the first of the split."),
    *map(setting_param, fields(EnvSettings)),
    *map(setting_param, fields(HabitatSettings)),
    Param("seed", 0, "Seed of the odometry noise.", 0, 2**31 - 1),
    Param("publish_depth", True, "Publish depth (REP-118)."),
    Param("publish_compressed", True, "Publish image/compressed (JPEG) while somebody listens."),
    Param("jpeg_quality", 90, "Quality of image/compressed.", 1, 100),
    Param("step_duration", 1.0, "Lockstep: simulated seconds per step.", 0.001, 60.0),
    Param("real_time_factor", 1.0, "Continuous: simulated seconds per second.", 0.05, 10.0),
    Param("frame_rate", 10.0, "Continuous: frames per simulated second.", 0.2, 120.0),
    Param("odom_rate", 50.0, "Continuous: odometry per simulated second.", 1.0, 500.0),
    Param(
        "odom_noise",
        0.0,
        "Continuous: relative standard deviation of measured distance and angle.",
        0.0,
        0.5,
    ),
    Param(
        "odom_latency",
        0.0,
        "Continuous: seconds from the stamp of a measurement to its publication.",
        0.0,
        1.0,
    ),
    Param(
        "cmd_vel_type",
        "twist",
        "Continuous: type of cmd_vel.",
        choices=("twist", "twist_stamped"),
    ),
    Param(
        "cmd_vel_timeout",
        0.2,
        "Continuous: the base brakes when no command came for this long, seconds on the steady "
        "clock.",
        0.02,
        2.0,
    ),
    Param("max_linear", 0.6, "Continuous: speed limit of the base, m/s.", 0.01, 5.0),
    Param("max_angular", 1.5, "Continuous: turning limit of the base, rad/s.", 0.01, 10.0),
    Param("linear_acceleration", 1.5, "Continuous: metres per second squared.", 0.05, 50.0),
    Param("angular_acceleration", 4.0, "Continuous: radians per second squared.", 0.05, 100.0),
    Param("scan_beams", 64, "Continuous: beams of the scan made from depth.", 2, 4096),
    Param(
        "frame_prefix",
        "",
        "What the names of all frames begin with, such as r1/ for one of several robots.",
    ),
    Param("map_frame", "map", "Frame of the true pose."),
    Param("odom_frame", "odom", "Frame of the odometry."),
    Param("base_frame", "base_link", "Frame of the robot."),
    Param(
        "camera_frame",
        "camera_optical_frame",
        "Optical frame of the camera: z forward, x right.",
    ),
)

ACKNOWLEDGED_WITHIN_S = 2.0
"""
How long a reset waits for subscribers that do not acknowledge the first frame, such as one that
was killed.
"""

CLOCK_PERIOD = 0.2
"""Seconds between repetitions of the time in lockstep."""

NEW_S = 5.0
"""Seconds after its start in which a bridge gives way to another one's clock."""

RESULT = ExecuteStep.Result
KEPT = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def time_message(seconds: float) -> Time:
    """
    Return the stamp of a simulated time in seconds, to the microsecond: equal times, equal stamps.
    """
    return stamp_message(round(seconds * 1e6) * 1000)


def text_of(stamp: Time) -> str:
    """Return a stamp in words."""
    return f"{stamp.sec}.{stamp.nanosec:09d}"


def transform(
    parent: str, child: str, stamp: Time, pose: Pose2, height: float = 0.0
) -> TransformStamped:
    """Return the place of the frame ``child`` in ``parent``."""
    message, where = TransformStamped(child_frame_id=child), pose_message(pose, height)
    message.header.stamp, message.header.frame_id = stamp, parent
    to = message.transform.translation
    to.x, to.y, to.z = where.position.x, where.position.y, where.position.z
    message.transform.rotation = where.orientation
    return message


class Outputs:
    """
    What both modes publish: images, odometry, true pose, map, time and TF.

    ``kept``: for late-comers, one message deep, as lockstep needs it.

    Attributes:
        times: how often the time was published.
        transforms: map -> odom -> base, as told last.
    """

    def __init__(self, node: Node, values: Any, focal_length: float, kept: bool):
        self.values, self.focal_length = values, focal_length
        images = KEPT if kept else QoSProfile(depth=5)
        poses = KEPT if kept else QoSProfile(depth=10)
        publish = node.create_publisher
        self.image = publish(Image, "image", images)
        self.compressed = self.depth = None
        if values.publish_compressed:
            self.compressed = publish(CompressedImage, "image/compressed", images)
        if values.publish_depth:
            self.depth = publish(Image, "depth", images)
        self.info = publish(CameraInfo, "camera_info", images)
        self.odom = publish(OdometryMsg, "odom", poses)
        self.truth = publish(OdometryMsg, "ground_truth", poses)
        self.map = publish(OccupancyGrid, "map", KEPT)
        self.clock = publish(ClockMsg, CLOCK, QoSProfile(depth=1))
        self.times = 0
        self.transforms: list[TransformStamped] = []
        if TFMessage is not None:
            self.tf = publish(TFMessage, "/tf", QoSProfile(depth=100))
            self.static_tf = publish(TFMessage, "/tf_static", KEPT)
            self.static_tf.publish(TFMessage(transforms=[self._camera_mount()]))

    def _camera_mount(self) -> TransformStamped:
        message = TransformStamped(child_frame_id=self.values.camera_frame)
        message.header.frame_id = self.values.base_frame
        message.transform.translation.z = self.values.camera_height
        rotation = message.transform.rotation
        tilt = math.radians(self.values.camera_tilt)
        rotation.x, rotation.y, rotation.z, rotation.w = optical_rotation(tilt)
        return message

    def time(self, stamp: Time) -> None:
        """Publish the simulated time."""
        self.times += 1
        self.clock.publish(ClockMsg(clock=stamp))

    def repeat(self, stamp: Time) -> None:
        """
        Publish the time and the transforms once more: where the world stands still, a node that
        joins would otherwise have neither.
        """
        self.time(stamp)
        self._tell_transforms()

    def _tell_transforms(self) -> None:
        if TFMessage is not None:
            self.tf.publish(TFMessage(transforms=self.transforms))

    def frame(self, frame: Frame, stamp: Time) -> None:
        """Publish everything that is seen in a frame; the image comes last."""
        rgb = frame.observation.rgb
        height, width = rgb.shape[:2]
        size = {"height": height, "width": width}
        big = sys.byteorder == "big"
        depth = Image(encoding="32FC1", step=width * 4, is_bigendian=big, **size)
        compressed = CompressedImage(format="rgb8; jpeg compressed bgr8")
        image = Image(encoding="rgb8", step=width * 3, **size)
        info = self._camera_info(width, height)
        for message in (info, depth, compressed, image):
            message.header.stamp, message.header.frame_id = stamp, self.values.camera_frame
        self.info.publish(info)
        if self.depth is not None:
            depth.data = image_data(frame.depth)
            self.depth.publish(depth)
        if self.compressed is not None:
            compressed.data = array.array("B", frame.jpeg)
            self.compressed.publish(compressed)
        image.data = image_data(rgb)
        self.image.publish(image)

    def _camera_info(self, width: int, height: int) -> CameraInfo:
        focal = self.focal_length
        # ROS counts pixel centres at whole numbers, the simulator at halves.
        across, down = width / 2 - 0.5, height / 2 - 0.5
        info = CameraInfo(width=width, height=height, distortion_model="plumb_bob", d=[0.0] * 5)
        info.k = [focal, 0.0, across, 0.0, focal, down, 0.0, 0.0, 1.0]
        info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
        info.p = [focal, 0.0, across, 0.0, 0.0, focal, down, 0.0, 0.0, 0.0, 1.0, 0.0]
        return info

    def poses(
        self, measured: Odometry, base: Base, height: float, now: Time, origin: Pose2
    ) -> None:
        """
        Publish a measurement of the base, its true pose ``now``, and the transforms: of the
        measured pose, and of ``origin``, where the odometry's frame lies in the map.
        """
        values = self.values
        stamp, pose = time_message(measured.time), pose_message(measured.pose, height)
        told = (
            (self.odom, stamp, values.odom_frame, pose, measured.linear, measured.angular),
            (
                self.truth,
                now,
                values.map_frame,
                pose_message(base.pose, height),
                base.linear,
                base.angular,
            ),
        )
        for output, at, frame_id, where, linear, angular in told:
            message = OdometryMsg(child_frame_id=values.base_frame)
            message.header.stamp, message.header.frame_id = at, frame_id
            message.pose.pose = where
            message.twist.twist.linear.x, message.twist.twist.angular.z = linear, angular
            output.publish(message)
        self.transforms = [
            transform(values.map_frame, values.odom_frame, stamp, origin),
            transform(values.odom_frame, values.base_frame, stamp, measured.pose, height),
        ]
        self._tell_transforms()

    def floor(self, frame: Frame, height: float, stamp: Time) -> None:
        """
        Publish where the base can stand, 0 free and 100 not, in the map frame: x forward is -z of
        the world, y left its -x.
        """
        floor = frame.map
        assert floor is not None
        rows, columns = floor.navigable.shape
        grid = OccupancyGrid()
        grid.header.stamp, grid.header.frame_id = stamp, self.values.map_frame
        grid.info.resolution, grid.info.width, grid.info.height = floor.resolution, rows, columns
        corner = grid.info.origin.position
        corner.x = -(floor.origin[1] + rows * floor.resolution)
        corner.y = -(floor.origin[0] + columns * floor.resolution)
        corner.z = height
        taken = np.where(floor.navigable.T[::-1, ::-1], 0, 100).astype(np.int8)
        grid.data = array.array("b", taken.tobytes())
        self.map.publish(grid)


class SimBridge(Node):  # type: ignore[misc]
    """
    The node. ``factory`` makes the simulator; tests give their own.

    Attributes:
        exit_code: with which the process ends; None while it should run.
        stamp: of the newest frame.
        busy: a step or a reset is under way.
    """

    def __init__(self, factory: Callable[..., NavEnv] = make_env, **options: Any):
        super().__init__("sim_bridge", **options)
        self.exit_code: int | None = None
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="simulator")
        try:
            self.values = declare(self, PARAMETERS)
            for name in ("map_frame", "odom_frame", "base_frame", "camera_frame"):
                setattr(self.values, name, self.values.frame_prefix + getattr(self.values, name))
            make = self.thread.submit(World, vars(self.values), factory, self._tell)
            self.world: World = make.result()
            first = self.thread.submit(self.world.reset, self.values.episode_id, "", "")
            self.episode, self.frame = first.result()
        except BaseException:
            self.thread.shutdown()
            super().destroy_node()  # or the context ends it, simulator and all
            raise
        self.busy = False
        self.frames_published = self.frames_before = 0  # in this episode; in all before it
        lockstep = self.values.mode == "lockstep"
        focal_length = self.world.env.settings.focal_length
        self.outputs = Outputs(self, self.values, focal_length, kept=lockstep)
        # These two wait for the simulator; in the default group everything else of the node, the
        # clock included, would wait with them.
        waiting = ReentrantCallbackGroup()
        serve = self.create_service
        serve(ResetEpisode, "reset_episode", self._on_reset, callback_group=waiting)
        serve(GetMetrics, "get_metrics", self._on_metrics, callback_group=waiting)
        serve(Trigger, "resend_frame", self._on_resend)
        # for whoever records
        self.about_out = self.create_publisher(String, "~/about", KEPT)
        told = {name: str(vars(self.values)[name]) for name in ABOUT}
        told |= {f"simulator_{name}": version for name, version in self.world.versions.items()}
        self.about_out.publish(String(data=json.dumps(told)))
        self.stamp = time_message(1.0)  # zero is what an unset stamp looks like
        self._place_base()
        # raw: they are only counted
        self.times_heard, self.started = 0, time.monotonic()
        self.watched_clock = self.create_subscription(
            ClockMsg, CLOCK, self._on_clock, QoSProfile(depth=10), raw=True
        )
        self.mode: Lockstep | Continuous = Lockstep(self) if lockstep else Continuous(self)
        where = f"{self.episode.scene_id}, episode {self.episode.episode_id}"
        self.get_logger().info(f"{self.values.mode} in {where}: {self.episode.instruction}")

    def _tell(self, sentence: str) -> None:
        self.get_logger().info(sentence)

    def publish_frame(self) -> None:
        """Publish the newest frame, which counts."""
        self.frames_published += 1
        self.outputs.frame(self.frame, self.stamp)

    def _on_clock(self, message: bytes) -> None:
        """Look whether the time that is heard is more than what was told here."""
        self.times_heard += 1
        if self.times_heard <= self.outputs.times:
            return
        topic = self.watched_clock.topic_name
        others = sorted(
            {
                f"{info.node_namespace.rstrip('/')}/{info.node_name}"
                for info in self.get_publishers_info_by_topic(topic)
            }
            - {self.get_fully_qualified_name()}
        )
        sentence = (
            f"{', '.join(others) or 'another node'} publishes the time on {topic} too: give each "
            "simulation in this ROS domain its own (clock:=/NAME/clock tf:=/NAME/tf "
            "frame_prefix:=NAME/), or another ROS_DOMAIN_ID"
        )
        self.destroy_subscription(self.watched_clock)
        if time.monotonic() - self.started < NEW_S:
            print(f"error: {sentence}", file=sys.stderr)
            self.exit_code = 1
        else:
            self.get_logger().error(sentence)

    def when_done(self, work: "Future[Any]", then: Callable[["Future[Any]"], None]) -> None:
        """Call ``then`` on the executor's thread once the simulator's has finished ``work``."""

        def post(done: "Future[Any]") -> None:
            if self.executor is not None and rclpy.ok(context=self.context):
                self.executor.create_task(then, done)

        work.add_done_callback(post)

    async def in_simulator(self, work: Callable[..., Any], *arguments: Any) -> "Future[Any]":
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

    def _place_base(self) -> None:
        """Put a base at rest where the episode begins, and publish its map."""
        seen, values, floor = self.frame.observation, vars(self.values), self.frame.map
        pose, self.floor_height = to_map(seen.position, seen.rotation)
        names = {field.name for field in fields(BaseSettings)} & values.keys()
        settings = BaseSettings(
            command_timeout=values["cmd_vel_timeout"], **{name: values[name] for name in names}
        )
        assert floor is not None

        def free(x: float, y: float) -> bool:
            # the map's x is the world's -z, its y the world's -x
            return floor.is_navigable(-y, -x)

        self.base = Base(settings, free, pose, values["seed"])
        self.outputs.floor(self.frame, self.floor_height, self.stamp)

    async def _on_reset(
        self, request: ResetEpisode.Request, response: ResetEpisode.Response
    ) -> ResetEpisode.Response:
        if self.busy:
            response.error_msg = "a step or another reset is under way: wait for its result"
            return response
        self.busy = True
        asked = (request.episode_id, request.dataset, request.split)
        done = await self.in_simulator(self.world.reset, *asked)
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
        self.frames_before, self.frames_published = self.frames_before + self.frames_published, 0
        self._place_base()
        response.frame_stamp = await self.mode.begin()
        response.success, response.episode_id = True, self.episode.episode_id
        response.scene_id, response.instruction = self.episode.scene_id, self.episode.instruction
        return response

    async def _on_metrics(
        self, request: GetMetrics.Request, response: GetMetrics.Response
    ) -> GetMetrics.Response:
        metrics = (await self.in_simulator(self.world.metrics)).result()
        metrics["path_length"] = self.mode.path_length(metrics["path_length"])
        metrics["frames"] = self.frames_published
        metrics["frames_total"] = self.frames_before + self.frames_published
        response.success, response.episode_id = True, metrics["episode_id"]
        response.metrics_json = json.dumps(metrics)
        return response

    def _on_resend(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self.busy:
            response.message = "a step or a reset is under way: its frame will come"
            return response
        self.outputs.frame(self.frame, self.stamp)
        response.success, response.message = True, text_of(self.stamp)
        return response

    def destroy_node(self) -> None:
        """Release the simulator on its own thread, then the node."""
        self.thread.submit(self.world.close).result()
        self.thread.shutdown()
        super().destroy_node()


class Lockstep:
    """The world waits: one step at a time, asked for by ``execute_step``."""

    def __init__(self, bridge: SimBridge):
        self.bridge = bridge
        self.time = 1.0  # simulated seconds
        self.last_step = (-1, -1)
        topic = "motion/step_report"
        self.report_out = bridge.create_publisher(StepReport, topic, QoSProfile(depth=10))
        self.server = ActionServer(
            bridge,
            ExecuteStep,
            "execute_step",
            execute_callback=lambda handle: RESULT(),  # replaced per goal: started once it is done
            goal_callback=lambda goal: GoalResponse.ACCEPT,  # refusals are typed results
            handle_accepted_callback=self._on_step,
            # a step is over as soon as it began
            cancel_callback=lambda handle: CancelResponse.REJECT,
        )
        # The same time again and again: a node that joins between two steps would otherwise have
        # no time at all.
        steady_timer(bridge, CLOCK_PERIOD, lambda: bridge.outputs.repeat(bridge.stamp))
        self._publish()

    async def begin(self) -> Time:
        """Publish the first frame of an episode; return its stamp when everybody has it."""
        bridge = self.bridge
        # A policy that was started anew counts its episodes from the beginning; old decisions are
        # known by their frames.
        self.last_step = (-1, -1)
        self.time += bridge.values.step_duration
        self._publish()
        # Whoever asks for a drive after this answer finds the new frame already there, not the
        # one of the episode before.
        patience = Duration(seconds=ACKNOWLEDGED_WITHIN_S)
        await bridge.in_simulator(bridge.outputs.image.wait_for_all_acked, patience)
        return bridge.stamp

    def path_length(self, recorded: float) -> float:
        """Return the length of the way so far, metres: as recorded."""
        return recorded

    def _publish(self) -> None:
        """Publish the time first, then everything seen at it."""
        bridge = self.bridge
        bridge.stamp = time_message(self.time)
        bridge.base.pose = self._pose()
        bridge.outputs.time(bridge.stamp)
        still = Odometry(self.time, bridge.base.pose, 0.0, 0.0)
        bridge.outputs.poses(still, bridge.base, bridge.floor_height, bridge.stamp, Pose2())
        bridge.publish_frame()

    def _pose(self) -> Pose2:
        seen = self.bridge.frame.observation
        return to_map(seen.position, seen.rotation)[0]

    def _on_step(self, handle: Any) -> None:
        bridge, goal = self.bridge, handle.request
        problem = self._refusal(goal)
        if problem is not None:
            status, why = problem
            self._answer(handle, RESULT(status=status, error_msg=why, end_stamp=bridge.stamp))
            return
        self.last_step = (goal.episode_id, goal.step)
        bridge.busy = True
        before, work = self._pose(), bridge.thread.submit(bridge.world.step, Action(goal.action))
        bridge.when_done(work, lambda done: self._on_stepped(handle, before, done))

    def _refusal(self, goal: ExecuteStep.Goal) -> tuple[int, str] | None:
        """Return the status and the sentence with which a goal is refused, or None."""
        bridge, newest = self.bridge, text_of(self.bridge.stamp)
        if goal.action not in list(Action):
            return RESULT.REFUSED, f"action {goal.action} is none of 0 to 3"
        if bridge.busy:
            return RESULT.REFUSED, "a step or a reset is under way"
        episode, step = self.last_step
        if (goal.episode_id, goal.step) <= self.last_step:
            asked = f"step {goal.step} of episode {goal.episode_id}"
            return RESULT.REFUSED, f"{asked} is not newer than step {step} of episode {episode}"
        if nanoseconds(goal.frame_stamp) != nanoseconds(bridge.stamp):
            used = text_of(goal.frame_stamp)
            why = f"the decision was made on the frame of {used}; the newest is {newest}"
            return RESULT.STALE, why
        if bridge.world.env.episode_over:
            over = f"episode {bridge.episode.episode_id} is over: call reset_episode"
            return RESULT.FAILED, over
        return None

    def _on_stepped(self, handle: Any, before: Pose2, done: "Future[Frame]") -> None:
        bridge = self.bridge
        bridge.busy = False
        error = done.exception()
        if error is not None:
            bridge.get_logger().error(f"the simulator failed in a step: {error!r}")
            failed = RESULT(status=RESULT.FAILED, error_msg=f"the simulator failed: {error}")
            self._answer(handle, failed)
            return
        bridge.frame = done.result()
        self.time += bridge.values.step_duration
        self._publish()
        collided = bool(bridge.frame.observation.collided)
        result = RESULT(
            status=RESULT.BLOCKED if collided else RESULT.SUCCEEDED,
            end_stamp=bridge.stamp,
            pose_change=pose_message(relative(before, bridge.base.pose)),
            collided=collided,
        )
        self._answer(handle, result)

    def _answer(self, handle: Any, result: ExecuteStep.Result) -> None:
        goal = handle.request
        report = StepReport(
            episode_id=goal.episode_id,
            step=goal.step,
            action=goal.action,
            frame_stamp=goal.frame_stamp,
            status=result.status,
            error_msg=result.error_msg,
            pose_change=result.pose_change,
            collided=result.collided,
        )
        report.header.stamp = result.end_stamp
        report.header.frame_id = self.bridge.values.odom_frame

        def conclude(goal_handle: Any) -> ExecuteStep.Result:
            self.report_out.publish(report)
            if result.status in (RESULT.SUCCEEDED, RESULT.BLOCKED):
                goal_handle.succeed()
            else:
                goal_handle.abort()
            return result

        handle.execute(conclude)


class Continuous:
    """The world goes on: a base under ``cmd_vel``, sensors at their rates."""

    def __init__(self, bridge: SimBridge):
        self.bridge = bridge
        values = bridge.values
        self.rendering = False  # a frame is under way
        self.started, self.advanced_to = time.monotonic(), 1.0
        self.scan_out = bridge.create_publisher(LaserScan, "scan", qos_profile_sensor_data)
        twist = TwistStamped if values.cmd_vel_type == "twist_stamped" else Twist
        listen, newest = bridge.create_subscription, QoSProfile(depth=1)
        listen(twist, "cmd_vel", self._on_cmd_vel, newest)
        hear_all(bridge, Bool, "estop", self._on_estop)
        listen(StepReport, "motion/step_report", self._on_report, QoSProfile(depth=10))
        steady_timer(bridge, 1.0 / values.odom_rate / values.real_time_factor, self._on_tick)
        steady_timer(bridge, 1.0 / values.frame_rate / values.real_time_factor, self._on_frame_due)

    async def begin(self) -> Time:
        """Return the time of an episode's beginning, once odometry tells of the new place."""
        # A step that began on the odometry of the episode before would see the robot jump.
        values = self.bridge.values
        delay = (values.odom_latency + 2 / values.odom_rate) / values.real_time_factor
        await self.bridge.in_simulator(time.sleep, delay)
        return time_message(self._now())

    def path_length(self, recorded: float) -> float:
        """Return the length of the way so far, metres: the base's own."""
        return self.bridge.base.path_length

    def _now(self) -> float:
        """The simulated time now, in seconds."""
        factor = self.bridge.values.real_time_factor
        return float(1.0 + (time.monotonic() - self.started) * factor)

    def _on_cmd_vel(self, message: Twist | TwistStamped) -> None:
        twist = message.twist if isinstance(message, TwistStamped) else message
        if not self.bridge.base.command(twist.linear.x, twist.angular.z, time.monotonic()):
            self.bridge.get_logger().error(
                "cmd_vel holds a number that is not finite: the base stops",
                throttle_duration_sec=1.0,
            )

    def _on_estop(self, message: Bool, _sent: int) -> None:
        self.bridge.base.emergency_stop(message.data)

    def _on_report(self, message: StepReport) -> None:
        if message.status in (RESULT.SUCCEEDED, RESULT.BLOCKED):
            self.bridge.thread.submit(self.bridge.world.count, message.action)

    def _on_tick(self) -> None:
        bridge, now = self.bridge, self._now()
        bridge.base.advance(now - self.advanced_to, time.monotonic(), now)
        self.advanced_to = now
        bridge.outputs.time(time_message(now))
        told = (bridge.base, bridge.floor_height, time_message(now), bridge.base.odom_in_map)
        for measured in bridge.base.odometry(now):
            bridge.outputs.poses(measured, *told)

    def _on_frame_due(self) -> None:
        bridge = self.bridge
        # the episode is being reset, or rendering is slower than the frame rate
        if bridge.busy or self.rendering:
            return
        self.rendering = True
        seen_at, place = self.advanced_to, to_world(bridge.base.pose, bridge.floor_height)
        work = bridge.thread.submit(bridge.world.look_from, *place)
        bridge.when_done(work, lambda done: self._on_rendered(seen_at, done))

    def _on_rendered(self, seen_at: float, done: "Future[Frame]") -> None:
        bridge, values = self.bridge, self.bridge.values
        self.rendering = False
        if bridge.busy:  # a frame of the episode before
            return
        bridge.frame = done.result()
        bridge.stamp = time_message(seen_at)
        bridge.publish_frame()
        half = math.radians(values.hfov) / 2
        width = 2 * half / values.scan_beams
        scan = LaserScan(range_min=0.02, range_max=MAX_DEPTH_M, angle_increment=width)
        scan.angle_min, scan.angle_max = -half + width / 2, half - width / 2
        scan.header.stamp, scan.header.frame_id = bridge.stamp, values.base_frame
        scan.scan_time = 1.0 / values.frame_rate
        focal = bridge.outputs.focal_length
        seen = scan_from_depth(
            bridge.frame.depth,
            focal,
            values.camera_height,
            values.scan_beams,
            values.camera_tilt,
        )
        scan.ranges = array.array("f", seen.tobytes())
        self.scan_out.publish(scan)


def main(args: list[str] | None = None) -> None:
    """Entry point of the executable ``janusvln_sim_bridge``."""
    leave(run_node(SimBridge, args))


if __name__ == "__main__":
    main()

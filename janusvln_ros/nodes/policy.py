"""
The ROS node ``policy``: camera frames and an instruction in, one small motion at a time out.

A thin shell: callbacks make events of messages, ``stepping.advance`` decides, ``worker`` computes,
and this file carries the commands out. Every rclpy call is made on the executor's thread; the
model's thread hands its results over through a guard condition. Time-outs run on the steady clock.
"""

import contextlib
import math
import queue
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from janusvln_msgs.action import ExecuteStep, FollowInstruction
from janusvln_msgs.msg import Decision, StepReport
from nav_msgs.msg import Odometry
from rclpy.action import ActionClient, ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.exceptions import InvalidHandle
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import String, UInt64
from std_srvs.srv import Trigger

from janusvln_ros.actions import FORWARD_STEP_M, TURN_STEP_DEG, Action
from janusvln_ros.camera.images import image_data
from janusvln_ros.camera.view import Intrinsics, mounting_warning
from janusvln_ros.errors import InputError
from janusvln_ros.geometry import Pose2, relative
from janusvln_ros.nodes.messages import diagnostics_message, nanoseconds, stamp_message
from janusvln_ros.nodes.overlay import draw
from janusvln_ros.nodes.parameters import Param, declare, follow_changes
from janusvln_ros.nodes.running import leave, run_node, steady_now, steady_timer
from janusvln_ros.nodes.worker import (
    Crashed,
    Eyes,
    Seen,
    Session,
    Worker,
    describe,
    free_memory,
    warm_up,
)
from janusvln_ros.protocol import driving as stepping
from janusvln_ros.protocol import health
from janusvln_ros.protocol.choosing import MODES, REMEMBERED, Chooser
from janusvln_ros.protocol.driving import Code, Phase, Settings, State
from janusvln_ros.protocol.odometry import Sample, Track, finite, sample_of

TITLE = (
    "Parameters of the node 'policy': camera frames and an instruction in, one step at a time out."
)

PARAMETERS = (
    Param(
        "autostart",
        True,
        "Configure and activate at once. false: a lifecycle manager does it (Nav2: "
        "with bond_timeout 0.0).",
    ),
    Param(
        "checkpoint",
        "",
        "Folder or hub id of the model. Empty: the small one that comes with the package.",
    ),
    Param(
        "memory",
        "auto",
        "Which memories the model uses. auto: those the checkpoint was trained for.",
        choices=("auto", "released", "dual"),
    ),
    Param(
        "decoding",
        "constrained",
        "free: text as the model writes it. constrained: only the four action words, "
        "with their probabilities.",
        choices=("free", "constrained"),
    ),
    Param(
        "device",
        "auto",
        "Where the model computes. auto: cuda if there is one.",
        choices=("auto", "cpu", "cuda"),
    ),
    Param(
        "dtype",
        "auto",
        "Precision of the model. auto: bfloat16 on cuda, float32 on cpu.",
        choices=("auto", "float32", "bfloat16", "float16"),
    ),
    Param(
        "cpu_threads",
        1,
        "Threads of the model's CPU computations. A small network is fastest with 1, "
        "and leaves the cores to the other nodes. 0: as torch chooses.",
        0,
        256,
    ),
    Param(
        "execute",
        True,
        "Carry decisions out through execute_step. false: watch only; nothing is "
        "sent, whatever the model decides.",
    ),
    Param(
        "frames",
        "recorded",
        "Watch only: frames to decide on: after each motion/step_report, after each "
        "step's worth of odometry, or at an interval.",
        choices=MODES,
    ),
    Param(
        "interval",
        1.0,
        "Watch only: seconds between frames, by their stamps, with frames: interval.",
        0.01,
        60.0,
    ),
    Param(
        "forward_step",
        FORWARD_STEP_M,
        "Length of one step forward, metres; as in motion.",
        0.05,
        1.0,
    ),
    Param("turn_step", TURN_STEP_DEG, "Angle of one turn, degrees; as in motion.", 1.0, 90.0),
    Param(
        "image_transport",
        "compressed",
        "raw: topic image. compressed: topic image/compressed.",
        choices=("raw", "compressed"),
    ),
    Param(
        "image_qos",
        "sensor",
        "sensor: best effort. reliable: reliable. lockstep: reliable and kept for "
        "late-comers, as the simulator in lockstep publishes.",
        choices=("sensor", "reliable", "lockstep"),
    ),
    Param(
        "allow_uncalibrated_camera",
        False,
        "Use frames without intrinsics (camera_info missing or zero) as they are, cut to 4:3.",
    ),
    Param("refuse_blank", True, "Refuse black frames."),
    Param(
        "refuse_frozen",
        True,
        "Refuse a frame that equals the last one although the robot has moved.",
    ),
    Param(
        "camera_height",
        0.0,
        "Height of the camera above the floor, metres, to warn if the model was "
        "trained at another. 0: not told.",
        0.0,
        3.0,
    ),
    Param(
        "clock_checks",
        True,
        "Compare frame stamps with this node's clock: refuse future and old ones. Off "
        "in lockstep; always off in watch-only.",
    ),
    Param(
        "settle_time",
        0.1,
        "A frame is used if it was taken this many seconds or more after the end of "
        "the last motion.",
        0.0,
        5.0,
        live=True,
    ),
    Param(
        "frame_timeout",
        2.0,
        "Seconds to wait for a usable frame before the episode ends with NO_FRAME or BAD_FRAME.",
        0.1,
        600.0,
        live=True,
    ),
    Param(
        "frame_max_age",
        1.0,
        "Seconds after which a frame is too old to decide on.",
        0.05,
        60.0,
        live=True,
    ),
    Param(
        "future_tolerance",
        0.1,
        "Seconds by which a frame's stamp may be ahead of the clock.",
        0.0,
        10.0,
        live=True,
    ),
    Param(
        "resend_after",
        0.0,
        "Lockstep: ask the bridge for its frame again after this many seconds. 0: never.",
        0.0,
        60.0,
    ),
    Param(
        "server_timeout",
        5.0,
        "Seconds to wait for a server of execute_step.",
        0.1,
        600.0,
        live=True,
    ),
    Param(
        "step_timeout",
        15.0,
        "Seconds after which a step without a result ends the episode; longer than "
        "motion's own deadline.",
        0.5,
        600.0,
        live=True,
    ),
    Param(
        "inference_timeout",
        30.0,
        "Seconds after which a decision that has not come ends the episode.",
        0.1,
        3600.0,
        live=True,
    ),
    Param(
        "cancel_timeout",
        3.0,
        "Seconds to wait for standstill after a cancel.",
        0.1,
        60.0,
        live=True,
    ),
    Param(
        "max_steps",
        500,
        "Steps after which an episode ends, unless the goal says otherwise.",
        1,
        100000,
        live=True,
    ),
    Param(
        "time_limit",
        900.0,
        "Seconds after which an episode ends, unless the goal says otherwise.",
        1.0,
        86400.0,
        live=True,
    ),
    Param(
        "max_blocked",
        3,
        "Blocked steps in a row that end the episode. 0: any number is allowed.",
        0,
        1000,
        live=True,
    ),
    Param(
        "oscillation_steps",
        12,
        "Alternating left and right turns in a row that end the episode with "
        "NO_PROGRESS. 0: never.",
        0,
        1000,
    ),
    Param(
        "progress_window",
        40,
        "Steps that stay within progress_distance and so end the episode with "
        "NO_PROGRESS. 0: never.",
        0,
        1000,
    ),
    Param("progress_distance", 0.3, "Metres; see progress_window.", 0.01, 10.0),
    Param(
        "pipeline",
        "none",
        "settle: decide on a frame taken when odometry says the robot is at its "
        "target and slow; thrown away if the final pose disagrees.",
        choices=("none", "settle"),
    ),
    Param(
        "settle_speed",
        0.03,
        "pipeline: settle: metres per second below which the robot counts as slow.",
        0.0,
        1.0,
    ),
    Param(
        "settle_rate",
        0.1,
        "pipeline: settle: radians per second below which it counts as slow.",
        0.0,
        3.0,
    ),
    Param(
        "first_episode_id",
        0,
        "Number of the first episode; they rise from there. 0: the time in "
        "milliseconds, so that they rise across restarts.",
        0,
        2**62,
    ),
    Param(
        "heartbeat_period",
        0.05,
        "Seconds between heartbeats, which motion watches during a step.",
        0.01,
        0.2,
    ),
    Param(
        "expected_image_rate",
        0.0,
        "Camera frames per second, for diagnostics to compare with. 0: not told.",
        0.0,
        1000.0,
    ),
    Param("frame_id", "", "frame_id of the overlay. Empty: the camera's."),
)

TICK = 0.05
"""Seconds between looks at the time-outs."""

SETTLE_M, SETTLE_RAD = 0.02, math.radians(1.5)
"""How near to its target odometry must put the robot for an early frame."""

LIVE_SETTINGS = [
    name for name in Settings.__dataclass_fields__ if name not in ("execute", "clock_checks")
]


@dataclass(frozen=True)
class Loaded:
    """The model is ready for its first frame."""

    navigator: Any


@dataclass(frozen=True)
class LoadFailed:
    """The model could not be loaded."""

    message: str


def settings_of(values: Any) -> Settings:
    """
    The state machine's settings from the node's parameters. Watch-only never looks at the clock.
    """
    chosen = {name: getattr(values, name) for name in LIVE_SETTINGS}
    return Settings(
        execute=values.execute, clock_checks=values.clock_checks and values.execute, **chosen
    )


def load_navigator(values: Any) -> Any:
    """
    The model that the parameters name.

    Raises:
        InputError: there is no such checkpoint, or it cannot be used as asked.
    """
    import torch

    from janusvln_ros.policy import Navigator, default_checkpoint

    if values.cpu_threads:
        torch.set_num_threads(values.cpu_threads)
    device = (
        ("cuda" if torch.cuda.is_available() else "cpu")
        if values.device == "auto"
        else values.device
    )
    options = {
        name: getattr(values, name)
        for name in ("memory", "dtype")
        if getattr(values, name) != "auto"
    }
    return Navigator.from_pretrained(
        values.checkpoint or default_checkpoint(),
        decoding=values.decoding,
        device=device,
        **options,
    )


def camera_of(message: CameraInfo) -> Intrinsics:
    """A ``sensor_msgs/CameraInfo`` as plain numbers."""
    return Intrinsics(
        message.width,
        message.height,
        tuple(map(float, message.k)),
        tuple(map(float, message.d)),
        message.distortion_model,
    )


class PolicyNode(LifecycleNode):
    """The node. ``navigator`` makes the model from the parameters; tests give their own."""

    def __init__(self, navigator: Callable[[Any], Any] = load_navigator, **options: Any):
        super().__init__("policy", **options)
        self.exit_code: int | None = None
        self.values = declare(self, PARAMETERS)
        follow_changes(self, PARAMETERS, self.values)
        self.make_navigator = navigator
        self.session: Any = None  # the model, once loaded
        self.machine = State(epoch=self.values.first_episode_id or time.time_ns() // 1_000_000)
        self.frames: dict[int, Any] = {}  # stamp -> camera message that may still be used
        # newest frames: odometry of their moment, or the report that chooses one, comes after them
        self.recent = deque[tuple[int, Any]](maxlen=REMEMBERED)
        self.held: tuple[int, Any] | None = None  # newest frame, while camera_info is missing
        self.camera: Intrinsics | None = None
        self.frame_id = ""
        self.clients_waiting: dict[int, Any] = {}  # key -> goal handle
        self.keys = 0
        self.step_handle: Any = None  # goal handle of the step in flight, once accepted
        self.step_token: tuple[int, int] | None = None
        self.step_canceled = False
        self.step_from: Pose2 | None = None
        self.moved = False
        self.track = Track()
        self.last_error = ""
        self.inference = deque[float](maxlen=500)
        self.overheads = deque[float](maxlen=500)
        self.lateness = health.Lateness(TICK)
        self.offered: dict[int, float] = {}
        self.seen: Seen | None = None
        self.hidden = self.discarded = 0.0
        self.warned: set[str] = set()
        self.sensors: list[Any] = []
        self.rates = {"image": health.InputRate("image", self.values.expected_image_rate)}
        self.chooser = Chooser(
            self.values.frames,
            forward=self.values.forward_step,
            turn=math.radians(self.values.turn_step),
            interval=self.values.interval,
        )
        self.eyes = Eyes(
            allow_uncalibrated=self.values.allow_uncalibrated_camera,
            refuse_blank=self.values.refuse_blank,
            refuse_frozen=self.values.refuse_frozen and self.values.execute,
        )

        self.results: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.wake = self.create_guard_condition(self._on_results)
        self.worker = Worker(self._deliver)

        group = ReentrantCallbackGroup()
        self.decision_out = self.create_publisher(Decision, "~/decision", 10)
        self.overlay_out = self.create_publisher(Image, "~/overlay", 1)
        self.heartbeat_out = self.create_publisher(UInt64, "~/heartbeat", 1)
        self.diagnostics_out = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.steps: Any = ActionClient(self, ExecuteStep, "execute_step", callback_group=group)
        self.resend: Any = self.create_client(Trigger, "resend_frame", callback_group=group)
        self.server = ActionServer(
            self,
            FollowInstruction,
            "follow_instruction",
            execute_callback=lambda handle: FollowInstruction.Result(),
            goal_callback=lambda goal: GoalResponse.ACCEPT,
            handle_accepted_callback=self._on_goal,
            cancel_callback=self._on_cancel,
            callback_group=group,
            result_timeout=60,
        )
        self.create_subscription(String, "instruction", self._on_instruction, 10)
        steady_timer(self, TICK, self._on_tick)
        steady_timer(self, self.values.heartbeat_period, self._on_heartbeat)
        steady_timer(self, 1.0, self._on_diagnostics)
        if warning := mounting_warning(self.values.camera_height):
            self.get_logger().warning(warning)
        self.starting = (
            steady_timer(self, 0.001, self._autostart) if self.values.autostart else None
        )

    # life cycle ------------------------------------------------------------------------

    def _autostart(self) -> None:
        if self.starting is not None:
            self.destroy_timer(self.starting)
            self.starting = None
        self.trigger_configure()

    def on_configure(self, state: Any) -> TransitionCallbackReturn:
        """Begin to load the model on its thread; activation fails until that is done."""
        self.get_logger().info(
            "loading the model "
            f"({self.values.checkpoint or 'the one that comes with the package'})"
        )
        values = self.values

        def load() -> Any:
            try:
                navigator = self.make_navigator(values)
                warm_up(navigator)
                return Loaded(navigator)
            except InputError as error:
                return LoadFailed(str(error))
            except Exception as error:
                free_memory()
                return LoadFailed(f"the model cannot be loaded: {describe(error)}")

        self.worker.put(load)
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: Any) -> TransitionCallbackReturn:
        """Take frames and instructions."""
        if self.session is None:
            self.get_logger().error(
                f"cannot be activated: {self.last_error or 'the model is still being loaded'}"
            )
            return TransitionCallbackReturn.FAILURE
        self._subscribe()
        self._handle(stepping.Activate(steady_now()))
        self.get_logger().info(
            f"active, {'executing' if self.values.execute else 'watching only'}; "
            "waiting for an instruction"
        )
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: Any) -> TransitionCallbackReturn:
        """Stop whatever is under way and refuse instructions."""
        self._handle(
            stepping.Cancel(
                steady_now(),
                None,
                Code.NOT_ACTIVE,
                "the policy node was deactivated",
                deactivate=True,
            )
        )
        for sensor in self.sensors:
            self.destroy_subscription(sensor)
        self.sensors = []
        self.frames, self.held = {}, None
        self.recent.clear()
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: Any) -> TransitionCallbackReturn:
        """Let go of the model."""
        self.session = None
        self.worker.put(free_memory)
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: Any) -> TransitionCallbackReturn:
        """As deactivation."""
        return self.on_deactivate(state)

    def on_error(self, state: Any) -> TransitionCallbackReturn:
        """A transition raised: say so, and allow to configure again."""
        self.get_logger().error("a lifecycle transition failed")
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        """
        Last words before the process ends: whoever waits is answered, and the step in flight is
        cancelled.
        """
        self._handle(
            stepping.Cancel(
                steady_now(),
                None,
                Code.NOT_ACTIVE,
                "the policy node is shutting down",
                deactivate=True,
            )
        )
        self.busy_at_end = not self.worker.end(0.3)

    def _subscribe(self) -> None:
        keep_one = QoSProfile(
            depth=1, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT
        )
        image_qos = QoSProfile(
            depth=1, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT
        )
        if self.values.image_qos != "sensor":
            image_qos.reliability = ReliabilityPolicy.RELIABLE
        if self.values.image_qos == "lockstep":
            image_qos.durability = DurabilityPolicy.TRANSIENT_LOCAL
        if not self.values.execute:
            image_qos.depth = 20
        raw = self.values.image_transport == "raw"
        self.image_topic = "image" if raw else "image/compressed"
        # camera_info first: where both wait, it is taken before the frame
        self.sensors = [
            self.create_subscription(CameraInfo, "camera_info", self._on_camera_info, keep_one),
            self.create_subscription(
                Image if raw else CompressedImage, self.image_topic, self._on_image, image_qos
            ),
        ]
        if self.values.pipeline == "settle" or not self.values.execute:
            many = QoSProfile(
                depth=50,
                history=HistoryPolicy.KEEP_LAST,
                reliability=ReliabilityPolicy.BEST_EFFORT,
            )
            self.sensors.append(
                self.create_subscription(Odometry, "odom", self._on_odometry, many)
            )
        if not self.values.execute and self.values.frames == "recorded":
            self.sensors.append(
                self.create_subscription(StepReport, "motion/step_report", self._on_report, 50)
            )

    # the model's thread ----------------------------------------------------------------

    def _deliver(self, result: Any) -> None:
        """Called on the model's thread: hand a result to the executor's."""
        self.results.put(result)
        with contextlib.suppress(InvalidHandle):  # the node is gone: nobody waits for the result
            self.wake.trigger()

    def _on_results(self) -> None:
        while not self.results.empty():
            result = self.results.get()
            if isinstance(result, Loaded):
                self.session = Session(result.navigator, self.eyes)
                self.get_logger().info("the model is loaded and warm")
                if self.values.autostart:
                    self.trigger_activate()
            elif isinstance(result, LoadFailed):
                self.last_error = result.message
                self.get_logger().error(result.message)
                if self.values.autostart:
                    print(f"error: {result.message}", file=sys.stderr)
                    self.exit_code = 1
            elif isinstance(result, Crashed):
                self._handle(
                    stepping.Cancel(
                        steady_now(),
                        None,
                        Code.INFERENCE_FAILED,
                        f"the model's thread failed: {result.message}",
                    )
                )
            else:
                # what counts is when it arrived here: one clock for all events
                self._handle(replace(result, now=steady_now()))

    def _infer(self, command: stepping.Infer) -> None:
        message, camera, moved, session = (
            self.frames[command.stamp],
            self.camera,
            self.moved,
            self.session,
        )
        self.offered[command.stamp] = steady_now()
        self.worker.put(
            lambda: session.decide(command.ticket, message, camera, moved, command.commit)
        )

    # messages in -----------------------------------------------------------------------

    def _ros_now(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def _on_camera_info(self, message: CameraInfo) -> None:
        self.camera = camera_of(message)
        if self.held is not None:
            frame, self.held = self.held, None
            self._offer(*frame)

    def _on_image(self, message: Any) -> None:
        now = steady_now()
        self.rates["image"].hit(now)
        stamp = nanoseconds(message.header.stamp)
        self.frame_id = message.header.frame_id
        if not self.values.execute:
            if self.machine.phase is Phase.IDLE:
                return
            if (
                self.chooser.newest is not None
                and stamp < self.chooser.newest - stepping.JUMP_BACK_NS
            ):
                self.chooser.reset()
                self.recent.clear()
            self.recent.append((stamp, message))
            if self.chooser.frame(stamp):
                self._offer(stamp, message)
            return
        if self.camera is None and not self.values.allow_uncalibrated_camera:
            self.held = (stamp, message)
            topic = self.resolve_topic_name("camera_info")
            self._handle(
                stepping.Refused(
                    now,
                    Code.BAD_FRAME,
                    f"no camera_info on {topic}: publish it, or set allow_uncalibrated_camera",
                )
            )
            return
        if self.values.pipeline == "settle":
            self.recent.append((stamp, message))
        self._offer(stamp, message)
        self._early()

    def _offer(self, stamp: int, message: Any) -> None:
        now = steady_now()
        self.frames[stamp] = message
        self._handle(stepping.Frame(now, stamp, self._ros_now()))

    def _on_odometry(self, message: Odometry) -> None:
        sample = sample_of(message)
        if finite(sample):
            self.track.add(sample)
            self.chooser.odometry(sample.pose)
            if self.values.execute:
                self._early()

    def _on_report(self, message: StepReport) -> None:
        chosen = self.chooser.report(nanoseconds(message.header.stamp))
        for frame in self.recent:
            if frame[0] == chosen:
                return self._offer(*frame)

    def _early(self) -> None:
        """
        ``pipeline: settle``: offer the newest frame that odometry has caught up with, if it shows
        the robot at its target and slow.
        """
        machine = self.machine
        if (
            machine.phase is not Phase.MOVING
            or machine.early is not None
            or self.step_from is None
        ):
            return
        for stamp, message in reversed(self.recent):
            if stamp <= machine.deciding:
                return
            sample = self.track.at(stamp)
            if sample is not None:
                if (moved := self._at_target(sample, machine.action)) is not None:
                    self.frames[stamp] = message
                    self._handle(stepping.EarlyFrame(steady_now(), stamp, *moved))
                return

    def _at_target(self, sample: Sample, action: Action) -> Pose2 | None:
        assert self.step_from is not None
        moved = relative(self.step_from, sample.pose)
        turn = math.radians(self.values.turn_step)
        target = {
            Action.MOVE_FORWARD: (self.values.forward_step, 0.0),
            Action.TURN_LEFT: (0.0, turn),
            Action.TURN_RIGHT: (0.0, -turn),
        }.get(action)
        if (
            target is None
            or abs(sample.speed) > self.values.settle_speed
            or abs(sample.rate) > self.values.settle_rate
        ):
            return None
        return (
            moved
            if abs(moved.x - target[0]) <= SETTLE_M and abs(moved.yaw - target[1]) <= SETTLE_RAD
            else None
        )

    def _on_goal(self, handle: Any) -> None:
        """
        A goal of follow_instruction.

        Its execute callback runs only once the result is known: a coroutine that waits would be
        polled all the time.
        """
        self.keys += 1
        self.clients_waiting[self.keys] = handle
        goal = handle.request
        limit = goal.time_limit if math.isfinite(goal.time_limit) and goal.time_limit > 0 else 0.0
        now = steady_now()
        self._handle(
            stepping.Start(
                now,
                self.keys,
                goal.instruction,
                self._ros_now(),
                nanoseconds(goal.start_stamp),
                goal.max_steps,
                limit,
            )
        )

    def _on_cancel(self, handle: Any) -> CancelResponse:
        for key, waiting in self.clients_waiting.items():
            if waiting.goal_id == handle.goal_id:
                # after the response, when the goal is in its cancelling state
                self.results.put(
                    stepping.Cancel(steady_now(), key, Code.CANCELED, "cancelled by the client")
                )
                self.wake.trigger()
                return CancelResponse.ACCEPT
        return CancelResponse.REJECT

    def _on_instruction(self, message: String) -> None:
        self.keys += 1
        self._handle(stepping.Start(steady_now(), self.keys, message.data, self._ros_now()))

    def _on_tick(self) -> None:
        self.lateness.hit(steady_now())
        self._handle(
            stepping.Tick(
                steady_now(),
                self._ros_now(),
                self.steps.server_is_ready() if self.machine.phase is not Phase.IDLE else True,
            )
        )

    # the state machine -----------------------------------------------------------------

    def _handle(self, event: stepping.Event) -> None:
        before = self.machine
        self.machine, commands = stepping.advance(before, event, settings_of(self.values))
        self.hidden += max(0.0, self.machine.hidden - before.hidden)
        self.discarded += max(0, self.machine.discarded - before.discarded)
        for command in commands:
            self._do(command)
        if self.machine.dropped > before.dropped:
            self._warn_once("frames come faster than the model decides: some were left out")
        for warning in self.eyes.warnings:
            self._warn_once(warning)
        keep = self.machine.pending
        self.frames = {stamp: frame for stamp, frame in self.frames.items() if stamp in keep}

    def _warn_once(self, text: str) -> None:
        if text not in self.warned:
            self.warned.add(text)
            self.get_logger().warning(text)

    def _do(self, command: stepping.Command) -> None:
        if isinstance(command, stepping.Infer):
            self._infer(command)
        elif isinstance(command, stepping.SendGoal):
            self._send(command)
        elif isinstance(command, stepping.Publish):
            self._publish(command)
        elif isinstance(command, stepping.Feedback):
            self._feedback(command)
        elif isinstance(command, stepping.Reset):
            self._reset(command)
        elif isinstance(command, stepping.Commit):
            self.worker.put(self.session.commit)
        elif isinstance(command, stepping.CancelGoal):
            self.step_canceled = True
            if self.step_handle is not None:
                self.step_handle.cancel_goal_async()
        elif isinstance(command, stepping.Finish):
            self._finish(command)
        elif isinstance(command, stepping.Resend):
            self.get_logger().warning("no frame has come: asking the bridge for it again")
            if self.resend.service_is_ready():
                self.resend.call_async(Trigger.Request())

    def _reset(self, command: stepping.Reset) -> None:
        self.moved = False
        if not self.values.execute and self.machine.step == 0:
            keep = self.machine.newest
            if not self.machine.pending:
                self.chooser.reset()
                self.chooser.newest = keep or None
        self.get_logger().info(f"episode {command.epoch}: {command.instruction!r}")
        session = self.session
        self.worker.put(lambda: session.reset(command.epoch, command.instruction))

    def _send(self, command: stepping.SendGoal) -> None:
        token = (command.epoch, command.step)
        self.step_token, self.step_handle, self.step_canceled = token, None, False
        self.step_from = self.track.samples[-1].pose if self.track.samples else None
        if command.stamp in self.offered and self.seen is not None:
            self.overheads.append(
                steady_now()
                - self.offered[command.stamp]
                - self.seen.decision.timings.get("total", 0.0)
            )
        goal = ExecuteStep.Goal(
            episode_id=command.epoch,
            step=command.step,
            action=int(command.action),
            frame_stamp=stamp_message(command.stamp),
        )
        self.steps.send_goal_async(goal).add_done_callback(
            lambda future: self._on_step_accepted(token, future)
        )

    def _on_step_accepted(self, token: tuple[int, int], future: Any) -> None:
        handle = future.result()
        if handle is None or not handle.accepted:
            self._handle(
                stepping.StepResult(
                    steady_now(),
                    *token,
                    status=stepping.StepStatus.REFUSED,
                    message="the goal was rejected",
                    ros_now=self._ros_now(),
                )
            )
            return
        handle.get_result_async().add_done_callback(lambda done: self._on_step_result(token, done))
        if token == self.step_token:
            self.step_handle = handle
        if token != self.step_token or self.step_canceled:
            handle.cancel_goal_async()

    def _on_step_result(self, token: tuple[int, int], future: Any) -> None:
        result = future.result().result
        change = result.pose_change
        moved = Pose2(change.position.x, change.position.y, 0.0)
        yaw = 2 * math.atan2(change.orientation.z, change.orientation.w)
        if token == self.step_token:
            self.step_handle = None
            self.moved = math.hypot(moved.x, moved.y) > 0.05 or abs(
                math.remainder(yaw, math.tau)
            ) > math.radians(3)
        self._handle(
            stepping.StepResult(
                steady_now(),
                *token,
                status=result.status,
                message=result.error_msg,
                end_stamp=nanoseconds(result.end_stamp),
                dx=moved.x,
                dy=moved.y,
                dyaw=math.remainder(yaw, math.tau),
                ros_now=self._ros_now(),
            )
        )

    # messages out ----------------------------------------------------------------------

    def _publish(self, command: stepping.Publish) -> None:
        message = Decision(
            episode_id=command.epoch,
            step=command.step,
            instruction=command.instruction,
            executed=command.executed,
        )
        message.header.stamp, message.header.frame_id = stamp_message(command.stamp), self.frame_id
        message.probabilities = [math.nan] * 4
        if command.failed is not None:
            message.action, message.status, message.error_msg = (
                Decision.NO_ACTION,
                Decision.ERROR,
                command.failed.message,
            )
            self.last_error = command.failed.message
            self.get_logger().error(command.failed.message)
        elif command.decided is not None:
            self._fill(message, command.decided)
        self.decision_out.publish(message)
        self.offered = {stamp: at for stamp, at in self.offered.items() if stamp >= command.stamp}

    def _fill(self, message: Decision, decided: stepping.Decided) -> None:
        seen: Seen = decided.payload
        self.seen = seen
        if decided.action is None:
            message.action, message.status = Decision.NO_ACTION, Decision.NOT_UNDERSTOOD
            message.error_msg = "the text is no action"
        else:
            message.action, message.status = int(decided.action), Decision.OK
        message.text = decided.text
        message.probabilities = list(seen.probabilities)
        for stage in ("preprocess", "spatial", "vision", "prefill", "decode", "total"):
            setattr(message, stage, float(seen.decision.timings.get(stage, 0.0)))
        self.inference.append(message.total)
        message.spatial_frames, message.semantic_frames = seen.spatial_frames, seen.semantic_frames
        message.memory_capacity, message.memory_bytes = seen.capacity, seen.memory_bytes
        if self.overlay_out.get_subscription_count():
            picture = draw(
                seen.rgb,
                instruction=message.instruction,
                step=message.step,
                action=decided.action,
                text=decided.text,
                probabilities=seen.probabilities,
                seconds=message.total,
            )
            overlay = Image(
                height=picture.shape[0],
                width=picture.shape[1],
                encoding="rgb8",
                step=picture.shape[1] * 3,
                data=image_data(picture),
            )
            overlay.header.stamp, overlay.header.frame_id = (
                message.header.stamp,
                self.values.frame_id or self.frame_id,
            )
            self.overlay_out.publish(overlay)

    def _feedback(self, command: stepping.Feedback) -> None:
        handle = self.clients_waiting.get(command.key)
        if handle is None:
            return
        message = FollowInstruction.Feedback(
            step=command.step, action=command.action, step_status=command.step_status
        )
        message.probabilities = list(command.payload.probabilities)
        message.inference_time = float(command.payload.decision.timings.get("total", 0.0))
        message.elapsed, message.path_length = command.elapsed, command.path_length
        handle.publish_feedback(message)

    def _finish(self, command: stepping.Finish) -> None:
        if command.code:
            self.last_error = command.message
            self.get_logger().warning(
                f"episode ended after {command.steps} steps: {command.message} ({command.code})"
            )
        else:
            self.get_logger().info(
                f"the policy stopped after {command.steps} steps and {command.path_length:.2f} m"
            )
        handle = self.clients_waiting.pop(command.key, None)
        if handle is None:
            return
        result = FollowInstruction.Result(
            error_code=command.code, error_msg=command.message, steps=command.steps
        )
        result.elapsed, result.path_length = command.elapsed, command.path_length

        def conclude(goal: Any) -> FollowInstruction.Result:
            if command.code == Code.NONE:
                goal.succeed()
            elif goal.is_cancel_requested:
                goal.canceled()
            else:
                goal.abort()
            return result

        handle.execute(conclude)

    def _on_heartbeat(self) -> None:
        if self.machine.active and self.values.execute:
            self.heartbeat_out.publish(UInt64(data=self.machine.epoch))

    def _on_diagnostics(self) -> None:
        now = steady_now()
        machine = self.machine
        lines = [rate.health(now) for rate in self.rates.values()] if machine.active else []
        figures = {
            "phase": machine.phase.value,
            "active": str(machine.active),
            "episode_id": str(machine.epoch),
            "step": str(machine.step),
            "inference_p50": f"{health.percentile(self.inference, 0.5):.4f}",
            "inference_p99": f"{health.percentile(self.inference, 0.99):.4f}",
            "overhead_p99": f"{health.percentile(self.overheads, 0.99):.4f}",
            "callback_late_max": f"{self.lateness.take():.4f}",
            "hidden_seconds": f"{self.hidden:.3f}",
            "discarded_decisions": f"{self.discarded:.0f}",
            "last_error": self.last_error,
        }
        if self.seen is not None:
            figures |= {
                "spatial_frames": str(self.seen.spatial_frames),
                "semantic_frames": str(self.seen.semantic_frames),
                "memory_capacity": str(self.seen.capacity),
                "memory_bytes": str(self.seen.memory_bytes),
            }
        level = health.OK if machine.active else health.WARN
        lines.append(
            health.Health(
                "state", level, machine.phase.value if machine.active else "not active", figures
            )
        )
        self.diagnostics_out.publish(
            diagnostics_message(
                self.get_clock().now().to_msg(), self.get_fully_qualified_name(), lines
            )
        )


def main(args: list[str] | None = None, navigator: Callable[[Any], Any] = load_navigator) -> None:
    """Entry point of the executable ``policy``."""
    leave(run_node(lambda: PolicyNode(navigator), args))


if __name__ == "__main__":
    main()

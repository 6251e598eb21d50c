"""
The ROS node ``policy``: camera frames and an instruction in, one small motion at a time out.

A thin shell: callbacks make events of messages, a machine of `janusvln_ros.protocol` decides
(``driving``, or ``watching`` with ``execute: false``), `janusvln_ros.nodes.worker` computes, and
this file carries the commands out. Every rclpy call is made on the executor's thread; the model's
thread hands its results over through a guard condition. Time-outs run on the steady clock.
"""

import contextlib
import math
import os
import queue
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

from janusvln_msgs.action import ExecuteStep, FollowInstruction
from janusvln_msgs.msg import Decision, Heartbeat, StepReport
from nav_msgs.msg import Odometry
from rclpy.action import ActionClient
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.exceptions import InvalidHandle
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.task import Future as RosFuture
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import String
from std_srvs.srv import Trigger

from janusvln_ros.actions import FORWARD_STEP_M, TURN_STEP_DEG, Action
from janusvln_ros.camera.images import image_data
from janusvln_ros.camera.reader import FrameReader
from janusvln_ros.camera.view import intrinsics_of, mounting_warning
from janusvln_ros.data.drawing import camera_picture
from janusvln_ros.errors import InputError, lacking, require
from janusvln_ros.files import local_checkpoint
from janusvln_ros.geometry import Pose2, yaw_of
from janusvln_ros.nodes.base import ManagedNode
from janusvln_ros.nodes.messages import stamp_message
from janusvln_ros.nodes.parameters import Param
from janusvln_ros.nodes.pictures import picture_decoder
from janusvln_ros.nodes.running import leave, run_node, steady_timer
from janusvln_ros.nodes.worker import (
    FEW_KERNELS,
    Crashed,
    Seen,
    Session,
    Worker,
    describe,
    free_memory,
    warm_up,
)
from janusvln_ros.policy.instruction import MAX_INSTRUCTION, clean_instruction
from janusvln_ros.protocol import driving, exchange, watching
from janusvln_ros.protocol.choosing import MODES, Rule
from janusvln_ros.protocol.exchange import Phase
from janusvln_ros.protocol.health import OK, WARN, Health, InputRate, percentile
from janusvln_ros.protocol.odometry import sample_of
from janusvln_ros.protocol.status import STAGES, Code, StepStatus
from janusvln_ros.stamps import nanoseconds

TITLE = (
    "Parameters of the node 'policy': camera frames and an instruction in, one step at a time out."
)

PARAMETERS = (
    Param(
        "autostart",
        True,
        "Configure and activate at once. false: a lifecycle manager does it (Nav2: "
        "with config/lifecycle_manager.yaml).",
    ),
    Param(
        "checkpoint",
        "",
        "Folder of the model, or owner/name@revision of the hub. Empty: the small one that comes "
        "with the package.",
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
        "precision",
        "auto",
        "Precision of the model; int8 and int4 are the layers of its language model, the rest is "
        "then bfloat16. auto: the most exact that fits into the free memory: bfloat16, int8 or "
        "int4 on cuda, also float32 on cpu. What does not fit is refused before it is loaded, "
        "with what would.",
        choices=("auto", "float32", "bfloat16", "float16", "int8", "int4"),
    ),
    Param(
        "spatial_precision",
        "auto",
        "Precision of the spatial memory. auto: that of the model, or int8 where there is no room "
        "for it.",
        choices=("auto", "int8", "float8"),
    ),
    Param(
        "window",
        [-1, -1],
        "First and last frames that the model remembers, such as [8, 48]. [-1, -1]: as the "
        "checkpoint says.",
        -1,
        100000,
    ),
    Param(
        "cuda_graphs",
        False,
        "Record a step on cuda once the window is full, and replay it from then on.",
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
    Param(
        "refuse_noise",
        True,
        "Refuse an instruction that says no way at all, where the checkpoint knows which words it "
        "was taught with (NO_INSTRUCTION).",
        live=True,
    ),
    Param(
        "strict",
        False,
        "Refuse also one of which something may not be understood, instead of warning.",
        live=True,
    ),
    Param(
        "unattended",
        False,
        "Follow also what is asked for by a client that would not be missed: the topic "
        "instruction, and goals without a client. Off: only who sends heartbeats, as 'janusvln "
        "go' does; the drive ends with them.",
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
        "Lockstep: ask the bridge for its frame again every so many seconds; less than "
        "frame_timeout. 0: never.",
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


MEMORY_FIGURES = ("spatial_frames", "semantic_frames", "memory_capacity", "memory_bytes")
"""What a `Seen` and a ``Decision`` tell of the memories."""


LOADING_TOLD_S = 5.0
"""Seconds between lines of the log while the model is loaded."""


@dataclass(frozen=True)
class Loaded:
    """The model is ready for its first frame."""

    navigator: Any


@dataclass(frozen=True)
class LoadFailed:
    """The model could not be loaded."""

    message: str


@dataclass
class Figures:
    """
    What diagnostics tell of the model: the last decision, the last error, and seconds of the
    latest decisions; and what the log was warned of, each once.
    """

    seen: Seen | None = None
    last_decision: str = ""
    last_error: str = ""
    warned: set[str] = field(default_factory=set)
    inference: deque[float] = field(default_factory=lambda: deque(maxlen=500))
    overheads: deque[float] = field(default_factory=lambda: deque(maxlen=500))


@dataclass(frozen=True)
class Heart:
    """By what ``motion`` knows that this very process lives: its life, and who tells of it."""

    life: int
    out: Any


@dataclass
class StepInFlight:
    """The goal of execute_step: which step, its handle once accepted, and whether to cancel it."""

    token: tuple[int, int] | None = None
    handle: Any = None
    canceled: bool = False


class Loading:
    """
    A model that is being loaded: its outcome, since when (seconds on the node's steady clock) and
    until when the log told of it, and whether the node is to ``start`` by itself when it is there.
    """

    def __init__(self, outcome: RosFuture, since: float):
        self.outcome, self.since, self.told, self.starts = outcome, since, since, False


def refuse_at_once(values: Any) -> None:
    """
    Look at what can be known without the model, for which torch alone takes seconds.

    Raises:
        InputError: there is no such checkpoint, or a lost frame would never be asked for again.
    """
    folder = local_checkpoint(values.checkpoint) if values.checkpoint else None
    require(
        folder is None or (folder / "config.json").is_file(),
        f"parameter 'checkpoint' is {folder}, which holds no config.json: give the folder of a "
        "checkpoint",
    )
    require(
        values.resend_after < values.frame_timeout,
        f"parameter 'resend_after' is {values.resend_after:g}; it must be less than "
        f"'frame_timeout' ({values.frame_timeout:g}), or a lost frame is never asked for again",
    )


def load(make: Callable[[Any], Any], values: Any) -> Loaded | LoadFailed:
    """Load the model and warm it up, on its thread."""
    try:
        navigator = make(values)
        warm_up(navigator)
        return Loaded(navigator)
    except InputError as error:
        return LoadFailed(str(error))
    except ModuleNotFoundError as error:
        return LoadFailed(lacking(error) or describe(error))
    except Exception as error:
        why = f"the model cannot be loaded: {describe(error)}"
    # after the handler: the exception holds the frames of the stack, and so the memory
    free_memory()
    return LoadFailed(why)


def load_navigator(values: Any) -> Any:
    """
    Return the model that the parameters name.

    Raises:
        InputError: there is no such checkpoint, or it cannot be used as asked.
    """
    for name, value in FEW_KERNELS.items():
        os.environ.setdefault(name, value)
    import torch

    from janusvln_ros.policy import Navigator, default_checkpoint

    if values.cpu_threads:
        torch.set_num_threads(values.cpu_threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = {"memory": values.memory, "device": values.device}
    options = {name: value for name, value in chosen.items() if value != "auto"}
    return Navigator.from_pretrained(
        values.checkpoint or default_checkpoint(),
        decoding=values.decoding,
        precision=values.precision,
        spatial_precision=values.spatial_precision,
        window=None if values.window == [-1, -1] else tuple(values.window),
        cuda_graphs=values.cuda_graphs,
        **({"device": device} | options),
    )


class PolicyNode(ManagedNode):
    """
    The node. ``machine`` is the state of `driving` or `watching`.

    ``navigator`` makes the model from the parameters; tests give their own.
    """

    def __init__(self, navigator: Callable[[Any], Any] = load_navigator, **options: Any):
        super().__init__("policy", PARAMETERS, TICK, **options)
        values = self.values
        refuse_at_once(values)
        self.make_navigator = navigator
        self.session: Session | None = None  # the model, once configured
        self.loading: Loading | None = None  # the model, before that
        first = values.first_episode_id or time.time_ns() // 1_000_000
        self.machine: Any = self.protocol.State(episode_id=first)
        self.reader = FrameReader(
            allow_uncalibrated=values.allow_uncalibrated_camera,
            refuse_blank=values.refuse_blank,
            refuse_frozen=values.refuse_frozen and values.execute,
            to_rgb=picture_decoder(),
        )
        self.step = StepInFlight()
        self.figures = Figures()
        self.sensors: list[Any] = []

        self.results: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.wake = self.create_guard_condition(self._on_results)
        self.worker = Worker(self.post)

        group = ReentrantCallbackGroup()
        self.decision_out = self.create_publisher(Decision, "~/decision", 10)
        self.overlay_out = self.create_publisher(Image, "~/overlay", 1)
        beats = self.create_publisher(Heartbeat, "~/heartbeat", 1)
        self.heart = Heart(exchange.new_life(), beats)
        self.steps: Any = ActionClient(self, ExecuteStep, "execute_step", callback_group=group)
        self.resend: Any = self.create_client(Trigger, "resend_frame", callback_group=group)
        self.serve(FollowInstruction, "follow_instruction")
        self.create_service(Trigger, "~/stop", self._on_stop)
        self.create_subscription(String, "instruction", self._on_instruction, 10)
        lively = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
        self.create_subscription(Heartbeat, "~/client", self._on_client, lively)
        self.create_subscription(Heartbeat, "motion/heartbeat", self._on_motion, lively)
        steady_timer(self, values.heartbeat_period, self._on_heartbeat)
        self.inputs = [(kind, topic, profile) for kind, topic, _, profile in self._wanted()]
        self._warn_once(mounting_warning(values.camera_height))

    def apply_parameters(self) -> None:
        """Make the machine's settings of the parameters."""
        values = self.values
        forward, turn = values.forward_step, math.radians(values.turn_step)
        self.protocol: Any = driving if values.execute else watching
        if not values.execute:
            rule = Rule(values.frames, forward, turn, round(values.interval * 1e9))
            taken = values.refuse_noise, values.strict
            self.settings: Any = watching.Settings(rule, values.inference_timeout, *taken)
            return
        names = {field.name for field in fields(driving.Settings)} & vars(values).keys()
        chosen = {name: getattr(values, name) for name in names} | {"turn_step": turn}
        needed = "" if values.allow_uncalibrated_camera else self.resolve_topic_name("camera_info")
        self.settings = driving.Settings(**chosen, camera_info=needed)

    # life cycle

    def start(self) -> None:
        """Load the model; when it is there, configure and activate."""
        self._load().starts = True

    async def prepare(self) -> None:
        """
        Load the model for `on_configure`, while the other callbacks go on. Whoever configures
        from outside takes over from ``autostart``.
        """
        if self.session is None:
            loading = self._load()
            loading.starts = False
            await loading.outcome

    def on_configure(self, state: Any) -> TransitionCallbackReturn:
        """Return when the model is loaded: success, or failure if that cannot be."""
        loading = self._load()
        loading.starts = False
        while not loading.outcome.done():  # nobody has waited in `prepare`
            self._take(self.results.get())
        self.loading, outcome = None, loading.outcome.result()
        if not isinstance(outcome, Loaded):
            return TransitionCallbackReturn.FAILURE
        self.session = Session(outcome.navigator, self.reader)
        self.tell_about(getattr(outcome.navigator, "about", {}))
        return TransitionCallbackReturn.SUCCESS

    def _load(self) -> Loading:
        """Begin to load the model on its thread, unless that is under way."""
        if self.loading is None:
            named = self.values.checkpoint or "the one that comes with the package"
            self.get_logger().info(f"loading the model ({named})")
            self._handle(exchange.Loading(self.now()))
            self.loading = Loading(RosFuture(executor=self.executor), self.now())
            self.worker.put(lambda: load(self.make_navigator, self.values))
        return self.loading

    def _on_load(self, outcome: Loaded | LoadFailed) -> None:
        loading = self.loading
        assert loading is not None
        loading.outcome.set_result(outcome)
        if isinstance(outcome, LoadFailed):
            self.figures.last_error = outcome.message
            self.get_logger().error(outcome.message)
            self._deactivate(outcome.message)
        else:
            chosen = getattr(getattr(outcome.navigator, "fit", None), "why", "")
            self.get_logger().info(
                "the model is loaded and warm" + (f"; chosen: {chosen}" if chosen else "")
            )
        if not loading.starts:
            return
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()
        else:
            print(f"error: {self.figures.last_error}", file=sys.stderr)
            self.exit_code = 1

    def on_activate(self, state: Any) -> TransitionCallbackReturn:
        """Take frames and instructions."""
        assert self.session is not None  # it was configured
        self.sensors = [self.create_subscription(*wanted) for wanted in self._wanted()]
        self.rates["image"] = InputRate("image", self.values.expected_image_rate)
        self._handle(exchange.Activate(self.now(), self.session.listen))
        doing = "executing" if self.values.execute else "watching only"
        self.get_logger().info(f"active, {doing}; waiting for an instruction")
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: Any) -> TransitionCallbackReturn:
        """Stop whatever is under way and refuse instructions."""
        self._deactivate("the policy node was deactivated")
        for sensor in self.sensors:
            self.destroy_subscription(sensor)
        self.sensors = []
        self.rates.clear()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: Any) -> TransitionCallbackReturn:
        """As deactivation; a model that is still being loaded starts nothing any more."""
        if self.loading is not None:
            self.loading.starts = False
        return self.on_deactivate(state)

    def on_cleanup(self, state: Any) -> TransitionCallbackReturn:
        """Let go of the model."""
        self._deactivate("the policy node was cleaned up")
        self.session = None
        self.worker.put(free_memory)
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        """Say the last words before the process ends: answer who waits, cancel the step."""
        self._deactivate("the policy node is shutting down")
        self.worker.end(0.3)

    def _deactivate(self, why: str) -> None:
        self._handle(exchange.Cancel(self.now(), None, Code.NOT_ACTIVE, why, deactivate=True))

    def _wanted(self) -> list[tuple[Any, str, Callable[[Any], None], QoSProfile]]:
        """The subscriptions of an active node: type, topic, callback, quality of service."""
        values = self.values
        raw, watching_only = values.image_transport == "raw", not values.execute
        best_effort, reliable = ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE
        newest = QoSProfile(depth=1, reliability=best_effort)
        many = QoSProfile(depth=50, reliability=best_effort)
        images = QoSProfile(depth=20 if watching_only else 1, reliability=best_effort)
        infos = newest
        if values.image_qos != "sensor":
            images.reliability = reliable
        if values.image_qos == "lockstep":
            # intrinsics that are published once, with a frame that is published once
            images.durability = DurabilityPolicy.TRANSIENT_LOCAL
            infos = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        topic, kind = ("image", Image) if raw else ("image/compressed", CompressedImage)
        # camera_info first: where both wait, it is taken before the frame
        wanted: list[tuple[Any, str, Callable[[Any], None], QoSProfile]] = [
            (CameraInfo, "camera_info", self._on_camera_info, infos),
            (kind, topic, self._on_image, images),
        ]
        if values.pipeline == "settle" or watching_only:
            wanted.append((Odometry, "odom", self._on_odometry, many))
        if watching_only and values.frames == "recorded":
            reports = QoSProfile(depth=50)
            wanted.append((StepReport, "motion/step_report", self._on_report, reports))
        return wanted

    # the model's thread

    def post(self, result: Any) -> None:
        """Hand something to the executor's thread; may be called on any."""
        self.results.put(result)
        with contextlib.suppress(InvalidHandle):  # the node is gone: nobody waits for the result
            self.wake.trigger()

    def _on_results(self) -> None:
        while not self.results.empty():
            self._take(self.results.get())

    def _take(self, result: Any) -> None:
        match result:
            case Loaded() | LoadFailed():
                self._on_load(result)
            case Crashed(message):
                why = f"the model's thread failed: {message}"
                self._handle(exchange.Cancel(self.now(), None, Code.INFERENCE_FAILED, why))
            case _:
                # what counts is when it arrived here: one clock for all events
                self._handle(replace(result, now=self.now()))

    # messages in

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._handle(exchange.Calibration(self.now(), intrinsics_of(message), self.ros_now()))

    def _on_image(self, message: Any) -> None:
        now = self.now()
        self.rates["image"].hit(now)
        stamp = nanoseconds(message.header.stamp)
        self._handle(exchange.Frame(now, stamp, self.ros_now(), message))

    def _on_odometry(self, message: Odometry) -> None:
        try:
            self._handle(exchange.Odometry(self.now(), sample_of(message)))
        except InputError as error:
            self.get_logger().error(str(error), throttle_duration_sec=5.0)

    def _on_client(self, message: Heartbeat) -> None:
        self._handle(exchange.ClientHeard(self.now(), message.life))

    def _on_motion(self, message: Heartbeat) -> None:
        ours = (message.episode_id, message.step) if message.life == self.heart.life else None
        self._handle(exchange.MotionHeard(self.now(), ours))

    def _on_report(self, message: StepReport) -> None:
        self._handle(exchange.StepEnded(self.now(), nanoseconds(message.header.stamp)))

    def on_goal(self, key: int, request: Any, now: float) -> None:
        """Take a goal of follow_instruction."""
        limit = request.time_limit if math.isfinite(request.time_limit) else 0.0
        limits = {"max_steps": request.max_steps, "time_limit": max(limit, 0.0)}
        oldest = nanoseconds(request.start_stamp)
        limits |= {"start_stamp": oldest, "client": request.client}
        self._follow(key, request.instruction, **limits)

    def cancel_goal(self, key: int) -> bool:
        """Cancel after the response, when the goal is in its cancelling state."""
        self.post(exchange.Cancel(self.now(), key, Code.CANCELED, "cancelled by the client"))
        return True

    def _on_stop(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """End what is being followed, whether a goal asked for it or the topic."""
        start = self.machine.start or self.machine.following
        response.success = True
        response.message = f"stopped: {start.instruction}" if start else "nothing was followed"
        why = "stopped by the operator"
        self._handle(exchange.Cancel(self.now(), None, Code.CANCELED, why))
        return response

    def _on_instruction(self, message: String) -> None:
        self._follow(self.new_key(), message.data)

    def _follow(self, key: int, text: str, **limits: Any) -> None:
        try:
            text = clean_instruction(text, MAX_INSTRUCTION)
        except InputError as error:
            limits["problem"] = str(error)
        self._handle(exchange.Start(self.now(), key, text, self.ros_now(), **limits))

    def on_tick(self, now: float) -> None:
        """Look at the time-outs, and tell of a model that takes long to load."""
        loading = self.loading
        if loading is not None and now > loading.told + LOADING_TOLD_S:
            loading.told = now
            self.get_logger().info(f"still loading the model ({now - loading.since:.0f} s)")
        ready = self.machine.phase is Phase.IDLE or self.steps.server_is_ready()
        self._handle(exchange.Tick(now, self.ros_now(), ready))

    # the machine

    def _handle(self, event: exchange.Event) -> None:
        self.machine, commands = self.protocol.advance(self.machine, event, self.settings)
        for command in commands:
            self._do(command)
        for warning in self.reader.warnings:
            self._warn_once(warning)

    def _warn_once(self, text: str | None) -> None:
        if text and text not in self.figures.warned:
            self.figures.warned.add(text)
            self.get_logger().warning(text)

    def _do(self, command: exchange.Command) -> None:
        session = self.session
        match command:
            case exchange.Infer() if session is not None:
                self.worker.put(lambda: session.decide(command))
            case exchange.SendGoal():
                self._send(command)
            case exchange.Publish():
                self._publish(command)
            case exchange.Feedback():
                self._feedback(command)
            case exchange.Reset() if session is not None:
                told = f", the network is told {command.told!r}" if command.told else ""
                words = f"episode {command.episode_id}: {command.instruction!r}{told}"
                self.get_logger().info(words)
                self.worker.put(lambda: session.reset(command))
            case exchange.Commit() if session is not None:
                self.worker.put(session.navigator.commit)
            case exchange.CancelGoal():
                self.step.canceled = True
                if self.step.handle is not None:
                    self.step.handle.cancel_goal_async()
            case exchange.Finish():
                self._finish(command)
            case exchange.Warn(text):
                self._warn_once(text)
            case exchange.Resend():
                self.get_logger().warning("no frame has come: asking the bridge for it again")
                if self.resend.service_is_ready():
                    self.resend.call_async(Trigger.Request())

    def _send(self, command: exchange.SendGoal) -> None:
        token = (command.episode_id, command.step)
        self.step = StepInFlight(token)
        goal = ExecuteStep.Goal(
            episode_id=command.episode_id,
            step=command.step,
            action=int(command.action),
            frame_stamp=stamp_message(command.frame_stamp),
            life=self.heart.life,
        )
        sent = self.steps.send_goal_async(goal)
        sent.add_done_callback(lambda future: self._on_step_accepted(token, future))

    def _on_step_accepted(self, token: tuple[int, int], future: Any) -> None:
        handle, told = future.result(), (StepStatus.REFUSED, "the goal was rejected")
        if handle is None or not handle.accepted:
            self._handle(exchange.StepResult(self.now(), *token, *told, ros_now=self.ros_now()))
            return
        handle.get_result_async().add_done_callback(lambda done: self._on_result(token, done))
        if token == self.step.token:
            self.step.handle = handle
        if token != self.step.token or self.step.canceled:
            handle.cancel_goal_async()

    def _on_result(self, token: tuple[int, int], future: Any) -> None:
        result = future.result().result
        place, q = result.pose_change.position, result.pose_change.orientation
        moved = Pose2(place.x, place.y, yaw_of(q.x, q.y, q.z, q.w))
        if token == self.step.token:
            self.step.handle = None
        end, told = nanoseconds(result.end_stamp), (result.status, result.error_msg)
        self._handle(exchange.StepResult(self.now(), *token, *told, end, moved, self.ros_now()))

    # messages out

    def _publish(self, command: exchange.Publish) -> None:
        message = Decision(
            episode_id=command.episode_id,
            step=command.step,
            instruction=command.instruction,
            executed=command.executed,
            probabilities=[math.nan] * 4,
        )
        message.header.stamp = stamp_message(command.frame.stamp)
        message.header.frame_id = command.frame.image.header.frame_id
        if command.failed is not None:
            self.figures.last_error = command.failed.message
            self.get_logger().error(self.figures.last_error)
            message.action, message.status = Decision.NO_ACTION, Decision.ERROR
            message.error_msg = self.figures.last_error
        elif command.decided is not None:
            self._fill(message, command.decided)
            self.figures.overheads.append(command.waited - message.total)
        self.decision_out.publish(message)
        name = Action(message.action).name if message.action in list(Action) else "no action"
        self.figures.last_decision = f"step {message.step}: {name} ({message.instruction})"

    def _fill(self, message: Decision, decided: exchange.Decided) -> None:
        seen: Seen = decided.payload
        self.figures.seen = seen
        if decided.action is None:
            message.action, message.status = Decision.NO_ACTION, Decision.NOT_UNDERSTOOD
            message.error_msg = "the text is no action"
        else:
            message.action, message.status = int(decided.action), Decision.OK
        message.text = decided.text
        message.probabilities = list(seen.probabilities)
        for stage in STAGES:
            setattr(message, stage, float(seen.decision.timings.get(stage, 0.0)))
        self.figures.inference.append(message.total)
        for figure in MEMORY_FIGURES:
            setattr(message, figure, getattr(seen, figure))
        if self.overlay_out.get_subscription_count():
            self._overlay(message, decided)

    def _overlay(self, message: Decision, decided: exchange.Decided) -> None:
        seen: Seen = decided.payload
        note = f"{message.total * 1000:.0f} ms"
        picture = camera_picture(
            seen.rgb,
            message.instruction,
            message.step,
            decided.action,
            dict(zip(Action, seen.probabilities)),
            note if decided.action is not None else f"{decided.text[:30]!r}  {note}",
        )
        height, width = picture.shape[:2]
        overlay = Image(height=height, width=width, encoding="rgb8", step=width * 3)
        overlay.data = image_data(picture)
        overlay.header.stamp = message.header.stamp
        overlay.header.frame_id = self.values.frame_id or message.header.frame_id
        self.overlay_out.publish(overlay)

    def _feedback(self, command: exchange.Feedback) -> None:
        handle = self.goals.get(command.key)
        if handle is None:
            return
        message = FollowInstruction.Feedback(step=command.step, action=command.action)
        message.step_status = command.step_status
        message.probabilities = list(command.payload.probabilities)
        message.inference_time = float(command.payload.decision.timings.get("total", 0.0))
        message.elapsed, message.path_length = command.elapsed, command.path_length
        message.warning, message.told = command.warning, command.told
        handle.publish_feedback(message)

    def _finish(self, command: exchange.Finish) -> None:
        steps, log = command.steps, self.get_logger()
        if command.code:
            self.figures.last_error = command.message
            log.warning(f"episode ended after {steps} steps: {command.message} ({command.code})")
        else:
            log.info(f"the policy stopped after {steps} steps and {command.path_length:.2f} m")
        result = FollowInstruction.Result(error_code=command.code, error_msg=command.message)
        result.steps, result.elapsed = steps, command.elapsed
        result.path_length = command.path_length
        self.answer(command.key, result, command.code == Code.NONE)

    def _on_heartbeat(self) -> None:
        if self.machine.active and self.values.execute:
            beat = Heartbeat(life=self.heart.life, episode_id=self.machine.episode_id)
            self.heart.out.publish(beat)

    def health(self, now: float) -> Health:
        """Return the line about the episode, the model and its memories."""
        machine, model = self.machine, self.figures
        figures = {
            "phase": machine.phase.value,
            "active": str(machine.active),
            "episode_id": str(machine.episode_id),
            "step": str(machine.step),
            "inference_p50": f"{percentile(model.inference, 50):.4f}",
            "inference_p99": f"{percentile(model.inference, 99):.4f}",
            "overhead_p99": f"{percentile(model.overheads, 99):.4f}",
            "last_decision": self.figures.last_decision,
            **machine.counts,
            "last_error": self.figures.last_error,
            "warning": machine.warning,
        }
        if (seen := model.seen) is not None:
            figures |= {name: str(getattr(seen, name)) for name in MEMORY_FIGURES}
        waiting = "not active" if self.loading is None else "loading the model"
        phase = machine.phase.value if machine.active else waiting
        doubt = machine.warning and f"{phase}; the instruction may not be understood"
        text = machine.problem or doubt or phase
        well = machine.active and not machine.problem and not machine.warning
        return Health("state", OK if well else WARN, text, figures)


def main(args: list[str] | None = None, navigator: Callable[[Any], Any] = load_navigator) -> None:
    """Entry point of the executable ``janusvln_policy``."""
    leave(run_node(lambda: PolicyNode(navigator), args))


if __name__ == "__main__":
    main()

"""
The ROS node ``motion``: one bounded step at a time on odometry, and nothing at all when disarmed,
stale, blocked or in doubt.

A thin shell around `janusvln_ros.protocol.moving`. A process of its own, so that nothing that
happens to ``policy`` can keep it from stopping the base. The control loop and every time-out run
on the steady clock.
"""

import time
from typing import Any

import numpy as np
from geometry_msgs.msg import Twist, TwistStamped
from janusvln_msgs.action import ExecuteStep
from janusvln_msgs.msg import Heartbeat, StepReport
from nav_msgs.msg import Odometry
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, LaserScan
from std_msgs.msg import Bool, UInt8
from std_srvs.srv import SetBool

from janusvln_ros.actions import FORWARD_STEP_M, TURN_STEP_DEG
from janusvln_ros.camera.images import depth_to_metres
from janusvln_ros.camera.view import Intrinsics, fitted, intrinsics_of, scaled_warning
from janusvln_ros.errors import InputError
from janusvln_ros.geometry import Pose2
from janusvln_ros.nodes.base import ManagedNode
from janusvln_ros.nodes.messages import pose_message, stamp_message
from janusvln_ros.nodes.parameters import NOT_TOLD, Param, told
from janusvln_ros.nodes.running import leave, run_node, steady_timer
from janusvln_ros.nodes.wiring import (
    Matched,
    hear_all,
    listeners_of,
    servers_of,
    speakers_of,
    type_name,
)
from janusvln_ros.protocol import exchange, moving
from janusvln_ros.protocol.corridor import (
    DepthCamera,
    known_around,
    scan_corridor,
    without_answer,
)
from janusvln_ros.protocol.health import OK, WARN, Health, InputRate, percentile
from janusvln_ros.protocol.ledger import TICK, announcement
from janusvln_ros.protocol.mounting import Link, Mount, mount_of
from janusvln_ros.protocol.odometry import sample_at, sample_of
from janusvln_ros.protocol.profile import safe_velocity
from janusvln_ros.protocol.remembered import Columns, way_ahead
from janusvln_ros.protocol.status import StepStatus
from janusvln_ros.protocol.wiring import heard_by, names, no_listener
from janusvln_ros.stamps import nanoseconds

try:  # ROS installations have them; the wheels do not
    from tf2_msgs.msg import TFMessage
except ImportError:
    TFMessage = None

TITLE = "Parameters of the node 'motion': one bounded step at a time on odometry."

PARAMETERS = (
    Param(
        "autostart",
        True,
        "Configure and activate at once. false: a lifecycle manager does it. Active "
        "is not armed: call motion/arm.",
    ),
    Param(
        "base_timeout",
        0.0,
        "Seconds after which the base, with twist_mux and smoother, stops by itself "
        "without commands. Arming needs it, at most 0.3.",
        0.0,
        5.0,
    ),
    Param(
        "silence_test",
        True,
        "Try base_timeout in the first step after arming: at 0.1 m/s the commands fall silent, "
        "and a base that goes on is not trusted.",
    ),
    Param(
        "output",
        "twist",
        "Type of cmd_vel. discrete: no velocity; the number of the action on "
        "step_command, for bases that step by themselves.",
        choices=("twist", "twist_stamped", "discrete"),
    ),
    Param("base_frame", "base_link", "frame_id of TwistStamped."),
    Param("odom_frame", "odom", "frame_id of step reports."),
    Param("forward_step", FORWARD_STEP_M, "Length of one step forward, metres.", 0.05, 1.0),
    Param("turn_step", TURN_STEP_DEG, "Angle of one turn, degrees.", 1.0, 90.0),
    Param(
        "execution",
        1.0,
        "Share of a commanded way forward that the base makes, as 'janusvln calibrate' measures "
        "it with a tape. A step commands at most 1.35 of itself by it, whatever odometry says.",
        0.6,
        1.5,
    ),
    Param("turn_execution", 1.0, "The same of a commanded turn.", 0.6, 1.5),
    Param(
        "speed",
        0.3,
        "Metres per second at most. This and what follows holds from the next step on.",
        0.02,
        2.0,
        live=True,
    ),
    Param(
        "acceleration",
        0.5,
        "Metres per second squared, speeding up and braking; no more than the base can do.",
        0.05,
        5.0,
        live=True,
    ),
    Param("rate", 0.8, "Radians per second at most.", 0.05, 4.0, live=True),
    Param("rate_acceleration", 1.5, "Radians per second squared.", 0.1, 20.0, live=True),
    Param(
        "crawl_speed",
        0.03,
        "Slowest speed that still moves the base, metres per second.",
        0.005,
        0.5,
        live=True,
    ),
    Param(
        "crawl_rate",
        0.08,
        "Slowest rate that still turns it, radians per second.",
        0.01,
        1.0,
        live=True,
    ),
    Param(
        "heading_gain",
        2.0,
        "How firmly a step forward holds its heading, per second.",
        0.0,
        10.0,
        live=True,
    ),
    Param(
        "tolerance",
        0.015,
        "Metres short of a step forward that count as done.",
        0.002,
        0.2,
        live=True,
    ),
    Param("turn_tolerance", 1.0, "Degrees off a turn that count as done.", 0.1, 10.0, live=True),
    Param(
        "latency",
        0.05,
        "Seconds from odometry's measurement to here and from a command to the wheels, together.",
        0.0,
        0.5,
        live=True,
    ),
    Param(
        "step_deadline",
        8.0,
        "Seconds for one step; allow for a velocity smoother or collision monitor "
        "that slows it down.",
        0.5,
        120.0,
        live=True,
    ),
    Param(
        "stop_time",
        1.0,
        "Seconds to wait for standstill after zero velocity.",
        0.1,
        10.0,
        live=True,
    ),
    Param(
        "rest_speed",
        0.02,
        "Metres per second below which the base is at rest.",
        0.001,
        0.2,
        live=True,
    ),
    Param(
        "rest_rate", 0.05, "Radians per second below which it is at rest.", 0.001, 0.5, live=True
    ),
    Param("rest_time", 0.1, "Seconds of rest that make a standstill.", 0.0, 2.0, live=True),
    Param(
        "stuck_time",
        1.5,
        "Seconds without measured motion after which a step counts as blocked.",
        0.2,
        30.0,
        live=True,
    ),
    Param(
        "odom_timeout",
        0.2,
        "Seconds without odometry (or with stamps that do not advance) after which "
        "the base is stopped.",
        0.02,
        0.3,
    ),
    Param(
        "odom_jump",
        0.1,
        "Metres between two odometry messages, beyond what the base can make in the meantime, "
        "that are no motion but a jump.",
        0.02,
        5.0,
    ),
    Param(
        "input_max_age",
        0.5,
        "Seconds that the stamps of odometry and range data may lie behind the clock.",
        0.05,
        2.0,
    ),
    Param(
        "drift",
        0.1,
        "Metres to the side, or off its place in a turn, at which a step ends as not trusted.",
        0.02,
        1.0,
    ),
    Param(
        "heartbeat_timeout",
        0.2,
        "Seconds without a heartbeat of policy after which the base is stopped.",
        0.05,
        0.3,
    ),
    Param(
        "estop_required",
        False,
        "Refuse to be armed until the e-stop has said that it is released, and while it has no "
        "publisher. Off: e-stops of most robots cut the power and tell nobody.",
    ),
    Param(
        "sole_velocity",
        False,
        "Refuse to be armed while somebody else publishes velocities to the same topic. Off: they "
        "are named (a teleop that nobody uses is normal).",
    ),
    Param(
        "range_source",
        "none",
        "What guards the way ahead: nothing, topic scan, or topic depth with depth_info.",
        choices=("none", "scan", "depth"),
    ),
    Param(
        "range_timeout",
        0.25,
        "Seconds without range data after which the base is stopped. Above 0.3 the "
        "promise of 0.35 s does not hold.",
        0.05,
        1.0,
    ),
    Param(
        "expected_range_rate",
        0.0,
        "Range messages per second, for diagnostics to compare with. 0: not told.",
        0.0,
        1000.0,
    ),
    Param(
        "expected_odom_rate",
        0.0,
        "Odometry messages per second, for diagnostics to compare with. 0: not told.",
        0.0,
        1000.0,
    ),
    Param(
        "stop_distance",
        0.35,
        "Metres from the robot's origin to an obstacle in the corridor at which it is at rest.",
        0.05,
        5.0,
        live=True,
    ),
    Param("corridor_width", 0.5, "Metres; the robot's width and some more.", 0.05, 5.0),
    Param(
        "min_known",
        0.2,
        "Share of the corridor that must be seen to go forward, in its worst part; what gives no "
        "answer (NaN, 0) is not seen.",
        0.0,
        1.0,
        live=True,
    ),
    Param(
        "turn_clearance",
        0.0,
        "Metres around the robot's origin that must be free to turn. 0: not looked at.",
        0.0,
        5.0,
        live=True,
    ),
    Param(
        "inf_is_free",
        False,
        "Take every +Inf of a scan as free (REP-117). Off: where it lies between beams that "
        "answered, as a thing does that absorbs them, it is unknown.",
    ),
    Param(
        "scan_mount",
        NOT_TOLD,
        "Pose of the laser scanner on the robot: metres forward, metres left, radians "
        "to the left. Not told: as TF has it, or scans are refused.",
    ),
    Param(
        "depth_mount",
        [0.0, 1.25, 0.0],
        "Depth camera on the robot: metres forward, metres up, radians down.",
    ),
    Param(
        "depth_min",
        0.3,
        "Least distance that the depth camera measures, metres: what it calls nearer (-inf) "
        "stands there, and the base rests before it.",
        0.0,
        5.0,
    ),
    Param(
        "depth_low",
        0.06,
        "Height above the floor from which something in the depth image is an obstacle, metres.",
        0.0,
        2.0,
    ),
    Param(
        "depth_high",
        1.5,
        "Height of the robot, metres; what hangs higher is no obstacle.",
        0.05,
        3.0,
    ),
    Param(
        "frame_max_age",
        10.0,
        "Seconds after which a decision's frame is too old to act on; frame age and "
        "inference together.",
        0.05,
        120.0,
        live=True,
    ),
    Param(
        "future_tolerance",
        0.1,
        "Seconds by which stamps of frames, odometry and range data may be ahead of the clock.",
        0.0,
        10.0,
        live=True,
    ),
    Param("policy_node", "policy", "Name of the node whose heartbeat is watched."),
)

ZEROS_AFTER = 0.5
"""
Seconds for which zero velocity is sent after a step, before other sources of velocity may have the
base.
"""

FEEDBACK_PERIOD = 0.1

HEARTBEAT_PERIOD = 0.1
"""Seconds between words about the step that is made, by which ``policy`` knows of its end."""

OUTPUTS: dict[str, tuple[Any, str, int]] = {
    "twist": (Twist, "cmd_vel", 1),
    "twist_stamped": (TwistStamped, "cmd_vel", 1),
    "discrete": (UInt8, "step_command", 10),
}
"""What is sent with each ``output``: type, topic, depth of the queue."""

REMEDIES = {
    type_name(kind): f"output: {name} (velocity:={name})"
    for name, (kind, topic, _) in OUTPUTS.items()
    if topic == "cmd_vel"
}
"""What to set for a base that takes another type of velocity."""


class MotionNode(ManagedNode):
    """The node. ``machine`` is the state of `janusvln_ros.protocol.moving`."""

    def __init__(self, **options: Any):
        super().__init__("motion", PARAMETERS, TICK, **options)
        values, source = self.values, self.values.range_source
        self.machine = moving.State()
        self.zero_until = self.feedback_at = self.heartbeat_at = 0.0
        self.last_status = ""
        self.step_seconds: list[float] = []
        self.depth_camera: Intrinsics | None = None
        self.around = Columns()  # that depth has seen
        self.links: dict[str, Link] = {}  # of TF, by frame
        self.sent, topic, depth = OUTPUTS[values.output]
        self.command_out = self.create_publisher(self.sent, topic, depth)
        self.report_out = self.create_publisher(StepReport, "~/step_report", 10)
        self.heartbeat_out = self.create_publisher(Heartbeat, "~/heartbeat", 1)
        newest = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        several = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
        heartbeat = f"{values.policy_node}/heartbeat"
        wanted: list[Any] = [
            (Odometry, "odom", self._on_odometry, several),
            (Heartbeat, heartbeat, self._on_heartbeat, several),
            *[(LaserScan, "scan", self._on_scan, newest)] * (source == "scan"),
            *[(CameraInfo, "depth_info", self._on_depth_info, newest)] * (source == "depth"),
        ]
        for subscription in wanted:
            self.create_subscription(*subscription)
        self.inputs = [(kind, topic, profile) for kind, topic, _, profile in wanted]
        if source == "depth":
            steady_timer(self, 1.0, Matched(self, Image, "depth", self._on_depth).match)
            self.inputs.append((Image, "depth", newest))
        hear_all(self, Bool, "estop", self._on_estop)
        hear_all(self, Bool, "cliff", self._on_cliff)
        if source == "scan" and TFMessage is not None and not told(values.scan_mount):
            kept = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
            self.create_subscription(TFMessage, "/tf_static", self._on_links, kept)
        self.rates["odom"] = InputRate("odom", values.expected_odom_rate, silence=1.0)
        if source != "none":
            self.rates["range"] = InputRate(source, values.expected_range_rate, silence=1.0)
        self.create_service(SetBool, "~/arm", self._on_arm)
        self.serve(ExecuteStep, "execute_step")

    def apply_parameters(self) -> None:
        """Make the machine's settings of the parameters."""
        self.settings = moving.settings_of(vars(self.values))

    # life cycle

    def start(self) -> None:
        """Configure and activate; active is not armed."""
        super().start()
        self.trigger_activate()

    def on_activate(self, state: Any) -> TransitionCallbackReturn:
        """Ready to be armed."""
        self._handle(moving.Activate(self.now()))
        self.get_logger().info("active and disarmed: call the service motion/arm to allow motion")
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: Any) -> TransitionCallbackReturn:
        """Zero velocity and disarmed."""
        self._handle(moving.Activate(self.now(), active=False))
        self.zero_until = self.now() + ZEROS_AFTER
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        """Zero velocity before the process ends."""
        self._handle(moving.Activate(self.now(), active=False))
        for _ in range(3):
            self._send(0.0, 0.0)
            time.sleep(0.01)

    # messages in

    def _on_odometry(self, message: Odometry) -> None:
        now = self.now()
        self.rates["odom"].hit(now)
        try:
            self._handle(exchange.Odometry(now, sample_of(message)))
        except InputError as error:
            self._unusable(now, "odom", error)

    def _on_heartbeat(self, message: Heartbeat) -> None:
        self._handle(moving.Heartbeat(self.now(), message.episode_id, message.life))

    def _on_estop(self, message: Bool, sent: int) -> None:
        before = self.machine.estop
        self._handle(moving.EmergencyStop(self.now(), message.data, sent))
        if (pressed := self.machine.estop) is not before:
            released = "e-stop released: call motion/arm to allow motion"
            self.get_logger().warning("e-stop pressed: disarmed" if pressed else released)

    def _on_cliff(self, message: Bool, sent: int) -> None:
        before = self.machine.cliff
        self._handle(moving.Cliff(self.now(), message.data, sent))
        if message.data and not (before and before.seen):
            self.get_logger().warning("the cliff sensor sees an edge: no step begins or goes on")

    def _on_links(self, message: Any) -> None:
        for one in message.transforms:
            place, turn = one.transform.translation, one.transform.rotation
            rotation = (turn.x, turn.y, turn.z, turn.w)
            link = Link(one.header.frame_id.lstrip("/"), (place.x, place.y, place.z), rotation)
            self.links[one.child_frame_id.lstrip("/")] = link

    def _mounted(self, frame: str) -> Mount:
        if told(self.values.scan_mount):
            return Mount(Pose2(*self.values.scan_mount))
        mount = mount_of(self.links, base := self.values.base_frame, frame)
        if mount is None:
            raise InputError(
                f"nobody tells where the scanner sits: TF has no chain from '{base}' to the "
                f"scan's frame '{frame}', and scan_mount is not set (metres forward, metres left, "
                "radians to the left; [0.0, 0.0, 0.0]: at the middle, looking ahead)"
            )
        return mount

    def _on_scan(self, message: LaserScan) -> None:
        now, values = self._range_arrived(), self.values
        try:
            mount, upside_down = self._mounted(message.header.frame_id)
        except InputError as problem:
            self._unusable(now, "scan", problem)
            return
        ranges = np.asarray(message.ranges, np.float64)
        if not values.inf_is_free:
            ranges = without_answer(ranges, message.angle_increment, message.range_max)
        way = -1.0 if upside_down else 1.0
        clearance, known, nearest = scan_corridor(
            ranges,
            way * message.angle_min,
            way * message.angle_increment,
            message.range_min,
            message.range_max,
            mount=mount,
            half_width=values.corridor_width / 2,
        )
        around = known_around(ranges, message.range_max)
        stamp, blind = nanoseconds(message.header.stamp), mount.x + max(message.range_min, 0.0)
        self._handle(moving.Ranges(now, stamp, clearance, known, nearest, blind, around))

    def _on_depth_info(self, message: CameraInfo) -> None:
        self.depth_camera = intrinsics_of(message, rectified=True)

    def _on_depth(self, message: Image) -> None:
        now = self._range_arrived()
        try:
            if self.depth_camera is None:
                raise InputError("depth arrives without depth_info: the way ahead is not known")
            depth = depth_to_metres(message)
            camera = fitted(self.depth_camera, message.width, message.height)
        except InputError as problem:
            self._unusable(now, "depth", problem)
            return
        if warning := scaled_warning(self.depth_camera, message.width, message.height):
            self.get_logger().warning(warning, once=True)
        values, track = self.values, self.machine.track
        stamp, (forward, height, pitch) = nanoseconds(message.header.stamp), values.depth_mount
        newest = track[-1].pose if track else None
        taken = sample_at(track, stamp)
        self.around, way = way_ahead(
            self.around,
            depth,
            DepthCamera(camera.k, height, pitch, forward, values.depth_min),
            newest if taken is None else taken.pose,
            half_width=values.corridor_width / 2,
            low=values.depth_low,
            high=values.depth_high,
        )
        blind, hidden = forward + values.depth_min, way.out_of_view
        self._handle(
            moving.Ranges(now, stamp, way.clearance, way.known, blind=blind, out_of_view=hidden)
        )

    def _unusable(self, now: float, source: str, problem: InputError) -> None:
        self.get_logger().error(str(problem), throttle_duration_sec=5.0)
        self._handle(moving.Unusable(now, source, str(problem)))

    def _range_arrived(self) -> float:
        now = self.now()
        self.rates["range"].hit(now)
        return now

    def _on_arm(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        now, problem, notes = self.now(), None, ""
        if request.data:
            topic, kind = self.command_out.topic_name, type_name(self.sent)
            listeners = listeners_of(self, self.command_out)
            wiring = no_listener(topic, kind, listeners, REMEDIES)
            problem = moving.arming_problem(self.machine, now, self.settings, wiring)
            problem = problem or self._estop_gone() or self._not_alone()
            notes = f"; {heard_by(topic, kind, listeners)}{self._estop_silent()}"
            notes += self._other_velocities()
            notes += f"; {announcement(self.settings)}" if self.sent is not UInt8 else ""
        if problem is None:
            self._handle(moving.Arm(now, request.data))
            self.around = Columns()  # nobody knows where it was taken meanwhile
            armed = "ARMED: the robot may move" if request.data else "disarmed"
            self.get_logger().warning(armed + notes)
        response.success = problem is None
        response.message = problem or ("armed" if request.data else "disarmed") + notes
        return response

    def _not_alone(self) -> str | None:
        name = self.resolve_topic_name("execute_step")
        if others := servers_of(self, "execute_step"):
            return f"{name} is also served by {names(others)}: two would drive; end one of them"
        others = (
            speakers_of(self, self.command_out.topic_name) if self.values.sole_velocity else []
        )
        if not others:
            return None
        topic = self.command_out.topic_name
        return f"{topic} is also published by {names(others)}, and sole_velocity is set"

    def _other_velocities(self) -> str:
        topic = self.command_out.topic_name
        others = speakers_of(self, topic)
        return f"; {topic} is also published by {names(others)}" if others else ""

    def _estop_gone(self) -> str | None:
        name = self.resolve_topic_name("estop")
        if not self.settings.estop_required or self.count_publishers(name):
            return None
        return f"the e-stop {name} has no publisher any more, and estop_required is set"

    def _estop_silent(self) -> str:
        if self.machine.estop is not None:
            return ""
        name = self.resolve_topic_name("estop")
        return (
            f"; the e-stop {name} has never spoken ({self.count_publishers(name)} publishers; "
            "estop_required: true refuses that)"
        )

    def on_goal(self, key: int, request: Any, now: float) -> None:
        """Take a goal of execute_step."""
        stamp = nanoseconds(request.frame_stamp)
        step = (request.episode_id, request.step, request.action)
        self._handle(moving.Goal(now, key, *step, stamp, self.ros_now(), request.life))

    def cancel_goal(self, key: int) -> bool:
        """Stop the step in flight, if it is the one."""
        if self.machine.goal is None or self.machine.goal.key != key:
            return False
        self._handle(moving.Stop(self.now(), StepStatus.CANCELED, "cancelled by the client"))
        return True

    def on_tick(self, now: float) -> None:
        """Run the control loop."""
        self._handle(moving.Tick(now, self.ros_now()))
        if now - self.heartbeat_at >= HEARTBEAT_PERIOD:
            self._tell_step(now)
        if self.machine.goal is None and now < self.zero_until:
            self._send(0.0, 0.0)

    # messages out

    def _tell_step(self, now: float) -> None:
        self.heartbeat_at, goal, beat = now, self.machine.goal, Heartbeat()
        if goal is not None:
            beat = Heartbeat(life=goal.life, episode_id=goal.episode_id, step=goal.step)
        self.heartbeat_out.publish(beat)

    def _handle(self, event: exchange.Event) -> None:
        self.machine, commands = moving.advance(self.machine, event, self.settings)
        for command in commands:
            match command:
                case moving.Drive(speed, rate):
                    self._send(*safe_velocity(speed, rate, self.machine.settings or self.settings))
                case moving.Discrete(action):
                    self.command_out.publish(UInt8(data=int(action)))
                case moving.Progress(key, share) if (
                    event.now - self.feedback_at >= FEEDBACK_PERIOD
                ):
                    self.feedback_at = event.now
                    self.goals[key].publish_feedback(ExecuteStep.Feedback(progress=float(share)))
                case moving.Done():
                    self._finish(command, event.now)

    def _send(self, speed: float, rate: float) -> None:
        if self.sent is UInt8:
            return
        message: Any = Twist()
        message.linear.x, message.angular.z = speed, rate
        if self.values.output == "twist_stamped":
            message = TwistStamped(twist=message)
            message.header.stamp = self.get_clock().now().to_msg()
            message.header.frame_id = self.values.base_frame
        self.command_out.publish(message)

    def _finish(self, done: moving.Done, now: float) -> None:
        goal = done.goal
        self.zero_until = now + ZEROS_AFTER
        self.step_seconds = [*self.step_seconds[-199:], now - goal.now]
        self.last_status = f"status {done.status}" + (f": {done.message}" if done.message else "")
        if done.status not in (StepStatus.SUCCEEDED, StepStatus.CANCELED):
            step = f"step {goal.step} of episode {goal.episode_id}"
            self.get_logger().warning(f"{step}: {self.last_status}")
        told = {
            "status": done.status,
            "error_msg": done.message,
            "pose_change": pose_message(done.moved),
            "collided": done.collided,
            "commanded": done.commanded,
        }
        end = stamp_message(done.end_stamp)
        report = StepReport(
            episode_id=goal.episode_id,
            step=goal.step,
            action=goal.action,
            frame_stamp=stamp_message(goal.frame_stamp),
            **told,
        )
        report.header.stamp, report.header.frame_id = end, self.values.odom_frame
        self.report_out.publish(report)
        done_well = done.status in (StepStatus.SUCCEEDED, StepStatus.BLOCKED)
        self.answer(goal.key, ExecuteStep.Result(end_stamp=end, **told), done_well)

    def health(self, now: float) -> Health:
        """Return the line about armed, e-stop and the last step."""
        machine, seconds = self.machine, self.step_seconds
        figures = {
            "phase": machine.phase.value,
            "active": str(machine.active),
            "armed": str(machine.armed),
            "estop": "silent" if machine.estop is None else str(machine.estop),
            "heartbeat_age": f"{min(now - machine.heartbeat_at, 1e6):.3f}",
            "step_seconds_p50": f"{percentile(seconds, 50):.3f}",
            "step_seconds_p99": f"{percentile(seconds, 99):.3f}",
            "last_result": self.last_status,
        }
        if machine.ranges is not None:
            figures["clearance"] = f"{machine.ranges.clearance:.2f}"
            figures["corridor_known"] = f"{machine.ranges.known:.2f}"
        unusable = machine.odom_problem or machine.ranges_problem
        texts = (
            (machine.estop, "e-stop"),
            (not machine.active, "not active"),
            (unusable, unusable),
        )
        armed = "armed" if machine.armed else "disarmed"
        text = next((text for holds, text in texts if holds), armed)
        return Health("state", OK if text == armed else WARN, text, figures)


def main(args: list[str] | None = None) -> None:
    """Entry point of the executable ``janusvln_motion``."""
    leave(run_node(MotionNode, args))


if __name__ == "__main__":
    main()

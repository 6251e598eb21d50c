"""
The ROS node ``motion``: one bounded step at a time on odometry, and nothing at all when disarmed,
stale, blocked or in doubt.

A thin shell around ``control.advance``: callbacks make events of messages, commands become
messages. A process of its own, so that nothing that happens to ``policy`` can keep it from
stopping the base. The control loop and every time-out run on the steady clock.
"""

import math
import time
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Pose, Twist, TwistStamped
from janusvln_msgs.action import ExecuteStep
from janusvln_msgs.msg import StepReport
from nav_msgs.msg import Odometry
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, LaserScan
from std_msgs.msg import Bool, UInt8, UInt64
from std_srvs.srv import SetBool

from janusvln_ros.actions import FORWARD_STEP_M, TURN_STEP_DEG
from janusvln_ros.camera.images import depth_to_metres
from janusvln_ros.errors import InputError
from janusvln_ros.geometry import Pose2
from janusvln_ros.nodes.messages import diagnostics_message, nanoseconds, stamp_message
from janusvln_ros.nodes.parameters import Param, declare, follow_changes
from janusvln_ros.nodes.running import leave, run_node, steady_now, steady_timer
from janusvln_ros.protocol import health
from janusvln_ros.protocol import moving as control
from janusvln_ros.protocol.driving import StepStatus
from janusvln_ros.protocol.odometry import sample_of

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
    Param("speed", 0.3, "Metres per second at most.", 0.02, 2.0, live=True),
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
        0.3,
        "Metres between two odometry messages that are no motion but a jump.",
        0.02,
        5.0,
    ),
    Param(
        "heartbeat_timeout",
        0.25,
        "Seconds without a heartbeat of policy after which the base is stopped.",
        0.05,
        0.3,
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
        "Share of the corridor that must be seen to go forward; NaN and infinite "
        "ranges are not seen.",
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
        "scan_mount",
        [0.0, 0.0, 0.0],
        "Pose of the laser scanner on the robot: metres forward, metres left, radians "
        "to the left.",
    ),
    Param(
        "depth_mount",
        [0.0, 1.25, 0.0],
        "Depth camera on the robot: metres forward, metres up, radians down.",
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
        "Seconds by which a frame's stamp may be ahead of the clock.",
        0.0,
        10.0,
        live=True,
    ),
    Param("policy_node", "policy", "Name of the node whose heartbeat is watched."),
)

PERIOD = 0.02
"""Seconds of the control loop."""

ZEROS_AFTER = 0.5
"""
Seconds for which zero velocity is sent after a step, before other sources of velocity may have the
base.
"""

FEEDBACK_PERIOD = 0.1


def settings_of(values: Any) -> control.Settings:
    """The state machine's settings from the node's parameters."""
    names = [
        name
        for name in control.Settings.__dataclass_fields__
        if name not in ("discrete", "turn_step", "turn_tolerance")
    ]
    return control.Settings(
        **{name: getattr(values, name) for name in names},
        turn_step=math.radians(values.turn_step),
        turn_tolerance=math.radians(values.turn_tolerance),
        discrete=values.output == "discrete",
    )


def safe_velocity(speed: float, rate: float, settings: control.Settings) -> tuple[float, float]:
    """The last gate before the wheels: within the limits, and zero if any number is not finite."""
    if not (math.isfinite(speed) and math.isfinite(rate)):
        return 0.0, 0.0
    return max(-settings.speed, min(settings.speed, speed)), max(
        -settings.rate, min(settings.rate, rate)
    )


class MotionNode(LifecycleNode):
    """The node."""

    def __init__(self, **options: Any):
        super().__init__("motion", **options)
        self.exit_code: int | None = None
        self.values = declare(self, PARAMETERS)
        follow_changes(self, PARAMETERS, self.values)
        self.machine = control.State()
        self.goals: dict[int, Any] = {}
        self.keys = 0
        self.zero_until = 0.0
        self.feedback_at = 0.0
        self.last_status = ""
        self.depth_matrix: tuple[float, ...] | None = None
        self.rates = {
            "odom": health.InputRate("odom", self.values.expected_odom_rate, silence=1.0)
        }
        self.step_seconds: list[float] = []
        self.lateness = health.Lateness(PERIOD)
        stamped = self.values.output == "twist_stamped"
        self.velocity_out = (
            None
            if self.values.output == "discrete"
            else self.create_publisher(TwistStamped if stamped else Twist, "cmd_vel", 1)
        )
        self.discrete_out = (
            self.create_publisher(UInt8, "step_command", 10)
            if self.values.output == "discrete"
            else None
        )
        self.report_out = self.create_publisher(StepReport, "~/step_report", 10)
        self.diagnostics_out = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        newest = QoSProfile(
            depth=1, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT
        )
        several = QoSProfile(
            depth=10, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT
        )
        self.create_subscription(Odometry, "odom", self._on_odometry, several)
        self.create_subscription(
            UInt64, f"{self.values.policy_node}/heartbeat", self._on_heartbeat, newest
        )
        self.create_subscription(Bool, "estop", self._on_estop, 10)
        if self.values.range_source == "scan":
            self.create_subscription(LaserScan, "scan", self._on_scan, newest)
        elif self.values.range_source == "depth":
            self.create_subscription(Image, "depth", self._on_depth, newest)
            self.create_subscription(CameraInfo, "depth_info", self._on_depth_info, newest)
        if self.values.range_source != "none":
            self.rates["range"] = health.InputRate(
                self.values.range_source, self.values.expected_range_rate, silence=1.0
            )
        self.create_service(SetBool, "~/arm", self._on_arm)
        self.server = ActionServer(
            self,
            ExecuteStep,
            "execute_step",
            execute_callback=lambda handle: ExecuteStep.Result(),
            goal_callback=lambda goal: GoalResponse.ACCEPT,
            handle_accepted_callback=self._on_goal,
            cancel_callback=self._on_cancel,
            callback_group=ReentrantCallbackGroup(),
            result_timeout=60,
        )
        steady_timer(self, PERIOD, self._on_tick)
        steady_timer(self, 1.0, self._on_diagnostics)
        self.starting = (
            steady_timer(self, 0.001, self._autostart) if self.values.autostart else None
        )

    # life cycle ------------------------------------------------------------------------

    def _autostart(self) -> None:
        if self.starting is not None:
            self.destroy_timer(self.starting)
            self.starting = None
        self.trigger_configure()
        self.trigger_activate()

    def on_configure(self, state: Any) -> TransitionCallbackReturn:
        """Nothing to load."""
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: Any) -> TransitionCallbackReturn:
        """Ready to be armed."""
        self._handle(control.Activate(steady_now()))
        self.get_logger().info("active and disarmed: call the service motion/arm to allow motion")
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: Any) -> TransitionCallbackReturn:
        """Zero velocity and disarmed."""
        self._handle(control.Activate(steady_now(), active=False))
        self.zero_until = steady_now() + ZEROS_AFTER
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: Any) -> TransitionCallbackReturn:
        """Nothing to let go of."""
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: Any) -> TransitionCallbackReturn:
        """As deactivation."""
        return self.on_deactivate(state)

    def close(self) -> None:
        """Zero velocity before the process ends."""
        self._handle(control.Activate(steady_now(), active=False))
        for _ in range(3):
            self._send(0.0, 0.0)
            time.sleep(0.01)

    # messages in -----------------------------------------------------------------------

    def _ros_now(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def _on_odometry(self, message: Odometry) -> None:
        now = steady_now()
        self.rates["odom"].hit(now)
        self._handle(control.Odometry(now, sample_of(message)))

    def _on_heartbeat(self, message: UInt64) -> None:
        self._handle(control.Heartbeat(steady_now(), message.data))

    def _on_estop(self, message: Bool) -> None:
        if message.data != self.machine.estop:
            self.get_logger().warning(
                "e-stop pressed: disarmed"
                if message.data
                else "e-stop released: still disarmed, call motion/arm"
            )
        self._handle(control.EmergencyStop(steady_now(), message.data))

    def _on_scan(self, message: LaserScan) -> None:
        now = steady_now()
        self.rates["range"].hit(now)
        ranges = np.asarray(message.ranges, np.float64)
        mount = Pose2(*self.values.scan_mount)
        half = self.values.corridor_width / 2
        clearance, known, nearest = control.scan_corridor(
            ranges,
            message.angle_min,
            message.angle_increment,
            message.range_min,
            message.range_max,
            mount=mount,
            half_width=half,
        )
        self._handle(
            control.Ranges(now, nanoseconds(message.header.stamp), clearance, known, nearest)
        )

    def _on_depth_info(self, message: CameraInfo) -> None:
        self.depth_matrix = tuple(map(float, message.k)) if message.k[0] > 0 else None

    def _on_depth(self, message: Image) -> None:
        now = steady_now()
        self.rates["range"].hit(now)
        if self.depth_matrix is None:
            self.get_logger().error(
                "depth arrives without depth_info: the way ahead is not known",
                throttle_duration_sec=5.0,
            )
            return
        try:
            depth = depth_to_metres(message)
        except InputError as error:
            self.get_logger().error(str(error), throttle_duration_sec=5.0)
            return
        forward, height, pitch = self.values.depth_mount
        clearance, known = control.depth_corridor(
            depth,
            self.depth_matrix,
            height=height,
            pitch=pitch,
            forward=forward,
            half_width=self.values.corridor_width / 2,
            low=self.values.depth_low,
            high=self.values.depth_high,
            stride=max(1, depth.shape[1] // 160),
        )
        self._handle(control.Ranges(now, nanoseconds(message.header.stamp), clearance, known))

    def _on_arm(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        now = steady_now()
        problem = (
            control.arming_problem(self.machine, now, settings_of(self.values))
            if request.data
            else None
        )
        if problem is None:
            self._handle(control.Arm(now, request.data))
            self.get_logger().warning("ARMED: the robot may move" if request.data else "disarmed")
        response.success, response.message = (
            problem is None,
            problem or ("armed" if request.data else "disarmed"),
        )
        return response

    def _on_goal(self, handle: Any) -> None:
        """
        A goal of execute_step.

        Its execute callback runs only once the result is known: a coroutine that waits would be
        polled all the time.
        """
        self.keys += 1
        self.goals[self.keys] = handle
        goal = handle.request
        self._handle(
            control.Goal(
                steady_now(),
                self.keys,
                goal.episode_id,
                goal.step,
                goal.action,
                nanoseconds(goal.frame_stamp),
                self._ros_now(),
            )
        )

    def _on_cancel(self, handle: Any) -> CancelResponse:
        running = self.machine.goal
        if running is None or self.goals[running.key].goal_id != handle.goal_id:
            return CancelResponse.REJECT
        self._handle(control.Stop(steady_now(), StepStatus.CANCELED, "cancelled by the client"))
        return CancelResponse.ACCEPT

    def _on_tick(self) -> None:
        now = steady_now()
        self.lateness.hit(now)
        self._handle(control.Tick(now, self._ros_now()))
        if self.machine.goal is None and now < self.zero_until and self.velocity_out is not None:
            self._send(0.0, 0.0)

    # messages out ----------------------------------------------------------------------

    def _handle(self, event: control.Event) -> None:
        settings = settings_of(self.values)
        self.machine, commands = control.advance(self.machine, event, settings)
        for command in commands:
            if isinstance(command, control.Drive):
                self._send(*safe_velocity(command.speed, command.rate, settings))
            elif isinstance(command, control.Discrete):
                if self.discrete_out is not None:
                    self.discrete_out.publish(UInt8(data=int(command.action)))
            elif isinstance(command, control.Progress):
                if event.now - self.feedback_at >= FEEDBACK_PERIOD:
                    self.feedback_at = event.now
                    self.goals[command.key].publish_feedback(
                        ExecuteStep.Feedback(progress=float(command.share))
                    )
            else:
                self._finish(command, event.now)

    def _send(self, speed: float, rate: float) -> None:
        if self.velocity_out is None:
            return
        twist = Twist()
        twist.linear.x, twist.angular.z = speed, rate
        if self.values.output == "twist_stamped":
            message = TwistStamped(twist=twist)
            message.header.stamp, message.header.frame_id = (
                self.get_clock().now().to_msg(),
                self.values.base_frame,
            )
            self.velocity_out.publish(message)
        else:
            self.velocity_out.publish(twist)

    def _finish(self, done: control.Done, now: float) -> None:
        self.zero_until = now + ZEROS_AFTER
        self.step_seconds = [*self.step_seconds[-199:], now - done.goal.now]
        self.last_status = f"status {done.status}" + (f": {done.message}" if done.message else "")
        if done.status not in (StepStatus.SUCCEEDED, StepStatus.CANCELED):
            self.get_logger().warning(
                f"step {done.goal.step} of episode {done.goal.epoch}: {self.last_status}"
            )
        change = Pose()
        change.position.x, change.position.y = done.moved.x, done.moved.y
        change.orientation.z, change.orientation.w = (
            math.sin(done.moved.yaw / 2),
            math.cos(done.moved.yaw / 2),
        )
        result = ExecuteStep.Result(
            status=done.status,
            error_msg=done.message,
            end_stamp=stamp_message(done.end_stamp),
            pose_change=change,
            collided=done.collided,
        )
        report = StepReport(
            episode_id=done.goal.epoch,
            step=done.goal.step,
            action=done.goal.action,
            frame_stamp=stamp_message(done.goal.frame_stamp),
        )
        report.header.stamp, report.header.frame_id = result.end_stamp, self.values.odom_frame
        report.status, report.error_msg, report.pose_change, report.collided = (
            result.status,
            result.error_msg,
            change,
            result.collided,
        )
        self.report_out.publish(report)
        handle = self.goals.pop(done.goal.key)

        def conclude(goal: Any) -> ExecuteStep.Result:
            if goal.is_cancel_requested:
                goal.canceled()
            elif done.status in (StepStatus.SUCCEEDED, StepStatus.BLOCKED):
                goal.succeed()
            else:
                goal.abort()
            return result

        handle.execute(conclude)

    def _on_diagnostics(self) -> None:
        now, machine = steady_now(), self.machine
        figures = {
            "phase": machine.phase.value,
            "active": str(machine.active),
            "armed": str(machine.armed),
            "estop": str(machine.estop),
            "heartbeat_age": f"{min(now - machine.heartbeat_at, 1e6):.3f}",
            "callback_late_max": f"{self.lateness.take():.4f}",
            "step_seconds_p50": f"{health.percentile(self.step_seconds, 0.5):.3f}",
            "step_seconds_p99": f"{health.percentile(self.step_seconds, 0.99):.3f}",
            "last_result": self.last_status,
        }
        if machine.ranges is not None:
            figures |= {
                "clearance": f"{machine.ranges.clearance:.2f}",
                "corridor_known": f"{machine.ranges.known:.2f}",
            }
        level = health.WARN if machine.estop or not machine.active else health.OK
        text = (
            "e-stop"
            if machine.estop
            else "not active"
            if not machine.active
            else "armed"
            if machine.armed
            else "disarmed"
        )
        lines = [
            *(rate.health(now) for rate in self.rates.values()),
            health.Health("state", level, text, figures),
        ]
        self.diagnostics_out.publish(
            diagnostics_message(
                self.get_clock().now().to_msg(), self.get_fully_qualified_name(), lines
            )
        )


def main(args: list[str] | None = None) -> None:
    """Entry point of the executable ``motion``."""
    leave(run_node(MotionNode, args))


if __name__ == "__main__":
    main()

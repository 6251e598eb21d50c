"""
Records a rosbag (mcap) around each instruction, and keeps the last seconds in memory for
incidents: the black box of a robot. Works where rosbag2 is not installed.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from action_msgs.msg import GoalStatusArray
from janusvln_msgs.msg import StepReport
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.interfaces import Qos
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import String
from std_srvs.srv import Trigger as TriggerService

from janusvln_ros import __version__
from janusvln_ros.camera.images import decode, encode_jpeg, image_data
from janusvln_ros.data.bags import BagWriter, Message
from janusvln_ros.data.recording import Latched, Ring, Trigger, bag_name
from janusvln_ros.errors import InputError
from janusvln_ros.files import git_state
from janusvln_ros.nodes.messages import kept_for_latecomers, message_class, offered_profile
from janusvln_ros.nodes.parameters import Param, declare
from janusvln_ros.nodes.running import leave, run_node, steady_timer
from janusvln_ros.protocol.status import StepStatus

TITLE = "Parameters of the recorder: a bag around each instruction."
PARAMETERS = (
    Param("folder", "bags", "Where bags go (~: the user's home); made if it is not there."),
    Param(
        "drives",
        True,
        "Record a bag around each instruction. Off: only keep the last seconds for incidents.",
    ),
    Param(
        "topics",
        "camera_info,odom,scan,cmd_vel,instruction,estop,policy/decision,motion/step_report,"
        "/tf,/tf_static,/diagnostics",
        "Topics to record beside the camera, separated by commas; those that nobody "
        "publishes yet are added when somebody does. all: whatever is published, but for pictures "
        "and point clouds.",
    ),
    Param("image", "image", "Camera topic."),
    Param(
        "image_transport",
        "compressed",
        "What to record of the camera: raw is exact and large.",
        choices=("raw", "compressed"),
    ),
    Param(
        "pictures",
        "as they come",
        "small: pictures are kept 160 pixels wide, five a second.",
        choices=("as they come", "small"),
    ),
    Param("lead", 2.0, "Seconds before an instruction that its bag holds.", 0.0, 30.0),
    Param(
        "idle",
        5.0,
        "Seconds without a goal and without a decision after which the bag is closed.",
        0.5,
        600.0,
    ),
    Param(
        "ring",
        30.0,
        "Seconds kept in memory for incidents (service ~/save_incident, every e-stop, and every "
        "step that ends in a fault).",
        0.0,
        600.0,
    ),
    Param("ring_mb", 512, "Most megabytes kept in memory; the oldest go first.", 1, 16384),
)

LOOK_S = 0.5
"""
Seconds between looks at which topics have publishers; what was recorded until then is on the disk.
"""

LARGE = (
    "sensor_msgs/msg/Image",
    "sensor_msgs/msg/CompressedImage",
    "sensor_msgs/msg/PointCloud2",
    "theora_image_transport/msg/Packet",
)
"""Types that ``topics: all`` leaves out; the camera is named by itself."""

PEACEFUL = (
    StepStatus.SUCCEEDED,
    StepStatus.BLOCKED,
    StepStatus.CANCELED,
    StepStatus.REFUSED,
    StepStatus.DISARMED,
)
"""How steps end without a fault."""

INCIDENT_GAP_S = 10.0
"""Seconds after an incident in which a further fault of a step is part of it."""

SMALL_WIDTH, SMALL_PERIOD_S, SMALL_QUALITY = 160, 0.2, 70
"""Pictures of the black box: pixels, seconds from one to the next, JPEG quality."""

ACTIVE_GOALS = (1, 2, 3)
"""action_msgs/GoalStatus: accepted, executing, canceling."""


class Recorder(Node):  # type: ignore[misc]
    """The node. Messages are taken serialised and written as they came."""

    def __init__(self) -> None:
        super().__init__("recorder")
        self.values = declare(self, PARAMETERS)
        self.folder = Path(self.values.folder).expanduser()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"parameter 'folder': {self.folder} cannot be made: {error.strerror}"
            ) from error
        self.exit_code: int | None = None
        # The lead of a bag comes from the ring, so it is never shorter than that.
        self.ring = Ring(max(self.values.ring, self.values.lead), self.values.ring_mb * 2**20)
        self.trigger = Trigger(self.values.idle)
        self.latched = Latched()
        self.about = {"version": __version__, "git": git_state(), "seed": "none"}
        self.writer: BagWriter | None = None
        self.failed = False  # this drive could not be recorded further
        self.closing = False
        self.estopped = False
        self.inputs: dict[str, Any] = {}
        self.offered: dict[str, list[Qos]] = {}
        camera = self.values.image + (
            "" if self.values.image_transport == "raw" else "/compressed"
        )
        self.camera = self.resolve_topic_name(camera)
        listed = [] if self.values.topics == "all" else self.values.topics.split(",")
        self.names = [
            self.camera,
            *map(self.resolve_topic_name, filter(None, map(str.strip, listed))),
        ]
        self.small_at = self.incident_at = -float("inf")
        self.incident_out = self.create_publisher(String, "~/incident", kept_for_latecomers())
        if old := sorted(self.folder.glob("incident-*.mcap")):
            self.incident_out.publish(String(data=str(old[-1].absolute())))
        # what tells that somebody drives
        self.signs = [self.resolve_topic_name(name) for name in ("instruction", "policy/decision")]
        self.estop = self.resolve_topic_name("estop")
        kept = kept_for_latecomers(10)
        self.create_subscription(
            GoalStatusArray, "follow_instruction/_action/status", self._on_goals, kept
        )
        for node in ("policy", "sim_bridge"):
            self.create_subscription(String, f"{node}/about", self._on_about, kept)
        self.create_subscription(StepReport, "motion/step_report", self._on_report, 10)
        self.create_service(TriggerService, "~/save_incident", self._on_save_incident)
        self._look()
        steady_timer(self, LOOK_S, self._look)

    def _look(self) -> None:
        """
        Subscribe to wanted topics that have publishers by now, hand what was recorded to the disk,
        and close a bag whose time is over.
        """
        for topic in [*self.names, *(self._others() if self.values.topics == "all" else ())]:
            publishers = [] if topic in self.inputs else self.get_publishers_info_by_topic(topic)
            if publishers:
                self._listen(topic, publishers)
        if self.writer is not None:
            try:
                self.writer.flush()
            except OSError as error:
                self._give_up(error)
        self._follow_trigger()

    def _others(self) -> list[str]:
        """What is published beside the camera, hidden topics and large ones aside."""
        return [
            topic
            for topic, kinds in self.get_topic_names_and_types()
            if topic not in self.names and "/_" not in topic and not set(kinds) & set(LARGE)
        ]

    def _listen(self, topic: str, publishers: list[Any]) -> None:
        msgtype = publishers[0].topic_type
        try:
            kind = message_class(msgtype)
        except InputError as error:
            self.get_logger().warning(f"{topic} is not recorded: {error}")
            self.inputs[topic] = None
            return
        # What a publisher does not offer must not be asked for, or nothing would arrive.
        reliable = all(p.qos_profile.reliability == ReliabilityPolicy.RELIABLE for p in publishers)
        latched = all(
            p.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for p in publishers
        )
        qos = QoSProfile(
            depth=50,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        )
        self.offered[topic] = [offered_profile(p.qos_profile) for p in publishers]
        if latched:
            self.latched.messages[topic] = []

        def heard(cdr: Any) -> None:  # bytes, as asked for with raw
            self._on_message(topic, msgtype, cdr)

        self.inputs[topic] = self.create_subscription(kind, topic, heard, qos, raw=True)

    def _on_about(self, message: String) -> None:
        """Take note of what a node says of itself: checkpoint, prompt, seed."""
        self.about |= {str(key): str(value) for key, value in json.loads(message.data).items()}
        if self.writer is not None:
            self.writer.tell(self.about)

    def _on_message(self, topic: str, msgtype: str, cdr: bytes) -> None:
        message = Message(topic, msgtype, self.get_clock().now().nanoseconds, bytes(cdr))
        if topic == self.camera and self.values.pictures == "small":
            small = self._small(message)
            if small is None:
                return
            message = small
        if topic in self.latched.messages:
            self.latched.add(message, self.count_publishers(topic))
        if topic in self.signs:
            self.trigger.sign(time.monotonic())
            self._follow_trigger()
        self.ring.add(message)
        if self.writer is not None:
            self._write(self.writer, [message])
        if topic == self.estop and len(cdr) > 4:
            # std_msgs/Bool: four bytes of encapsulation, then the value
            stopped = bool(cdr[4])
            if stopped and not self.estopped:
                self._save_incident("e-stop")
            self.estopped = stopped

    def _small(self, message: Message) -> Message | None:
        """The picture of a camera's message made small, or None: there was one just now."""
        if time.monotonic() - self.small_at < SMALL_PERIOD_S:
            return None
        self.small_at = time.monotonic()
        picture = deserialize_message(message.cdr, message_class(message.msgtype))
        try:
            rgb = decode(picture)
        except InputError:
            return message if len(message.cdr) < 2**18 else None  # what cannot be read is a trace
        height = max(1, round(rgb.shape[0] * SMALL_WIDTH / rgb.shape[1]))
        if rgb.shape[1] > SMALL_WIDTH:
            rgb = np.asarray(cv2.resize(rgb, (SMALL_WIDTH, height), interpolation=cv2.INTER_AREA))
        jpeg = np.frombuffer(encode_jpeg(rgb, SMALL_QUALITY), np.uint8)
        small = CompressedImage(header=picture.header, format="jpeg", data=image_data(jpeg))
        topic = message.topic.removesuffix("/compressed") + "/compressed"
        cdr = serialize_message(small)
        return Message(topic, "sensor_msgs/msg/CompressedImage", message.log_time, cdr)

    def _on_report(self, message: StepReport) -> None:
        if message.status in PEACEFUL or time.monotonic() - self.incident_at < INCIDENT_GAP_S:
            return
        self.incident_at = time.monotonic()
        self._save_incident(
            f"step {message.step} of episode {message.episode_id} ended with "
            f"status {message.status}: {message.error_msg}"
        )

    def _on_goals(self, message: Any) -> None:
        self.trigger.goal(
            any(s.status in ACTIVE_GOALS for s in message.status_list), time.monotonic()
        )
        self._follow_trigger()

    def _follow_trigger(self) -> None:
        wanted = self.trigger.recording(time.monotonic()) and not self.closing
        wanted = wanted and self.values.drives
        self.failed = self.failed and wanted
        if wanted and self.writer is None and not self.failed:
            self._open()
        elif not wanted and self.writer is not None:
            self._finish()

    def _open(self) -> None:
        path = bag_name("drive", self.folder)
        try:
            self.writer = BagWriter(path, self.about, growing=True).__enter__()
        except OSError as error:
            self.failed = True
            self.get_logger().error(f"{path} cannot be written ({error.strerror}): not recording")
            return
        self._write(self.writer, self._with_latched(self.ring.last(self.values.lead)))
        self.get_logger().info(f"recording {path}")

    def _with_latched(self, messages: Sequence[Message]) -> list[Message]:
        now = int(self.get_clock().now().nanoseconds)
        start = messages[0].log_time if messages else now
        return [*self.latched.before(start), *messages]

    def _write(self, writer: BagWriter, messages: Sequence[Message]) -> None:
        """Write messages into the bag that is open; one that has no more room is given up."""
        try:
            self._put(writer, messages)
        except OSError as error:
            self._give_up(error)

    def _put(self, writer: BagWriter, messages: Sequence[Message]) -> None:
        for message in messages:
            writer.add_topic(message.topic, message.msgtype, self.offered.get(message.topic, ()))
            writer.write(message.topic, message.msgtype, message.log_time, message.cdr)

    def _give_up(self, error: OSError) -> None:
        """Stop recording this drive, keep what was recorded, and say so."""
        writer, self.writer = self.writer, None
        self.failed = True
        if writer is not None:
            writer.__exit__(type(error), error, None)
            self.get_logger().error(
                f"recording stopped: {writer.path} cannot be written any further "
                f"({error.strerror}); what it holds until now can be read"
            )

    def _finish(self) -> None:
        """Close the bag that is open."""
        writer = self.writer
        if writer is None:
            return
        try:
            writer.__exit__(None, None, None)
        except OSError as error:
            self._give_up(error)
            return
        self.writer = None
        self.get_logger().info(f"recorded {writer.path}")

    def close(self) -> None:
        """
        Close the bag that is open; the messages that still come open no other. Whoever ends in the
        middle of a drive, such as by the death of another node, leaves an incident.
        """
        self.closing = True
        if self.trigger.active_goal and not self.values.drives:
            self._save_incident("the graph ended in the middle of a drive")
        self._finish()

    def _on_save_incident(self, _request: Any, response: Any) -> Any:
        path = self._save_incident("request")
        response.success = path is not None
        response.message = str(
            path
            or ("it cannot be written" if self.ring.messages else "nothing has been received yet")
        )
        return response

    def _save_incident(self, why: str) -> Path | None:
        if not self.ring.messages:
            return None
        path = bag_name("incident", self.folder)
        try:
            with BagWriter(path, self.about | {"incident": why}) as writer:
                self._put(writer, self._with_latched(list(self.ring.messages)))
        except OSError as error:
            self.get_logger().error(f"{why}: {path} cannot be written: {error.strerror}")
            return None
        self.incident_out.publish(String(data=str(path.absolute())))
        self.get_logger().info(f"{why}: the last {self.values.ring:.0f} s are in {path}")
        return path


def main() -> None:
    """Entry point of the executable ``janusvln_recorder``."""
    leave(run_node(Recorder))

"""
The doctor: look at this machine and at a graph that runs, and say what would go wrong in a drive.
It listens, and asks for parameters and states; it sends nothing that could move anything.
"""

import json
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from janusvln_msgs.action import ExecuteStep, FollowInstruction
from rcl_interfaces.srv import GetParameters
from rclpy.action import ActionClient
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import DurabilityPolicy
from rosgraph_msgs.msg import Clock
from std_msgs.msg import String

from janusvln_ros.errors import InputError
from janusvln_ros.files import local_checkpoint
from janusvln_ros.graph.checks import (
    FAIL,
    PASS,
    Finding,
    Line,
    Seen,
    Source,
    Velocity,
    camera_mount,
    examine,
)
from janusvln_ros.graph.machine import (
    Machine,
    examine_machine,
    fit_told,
    memory,
    shared_memory,
)
from janusvln_ros.graph.operating import (
    DISCOVERY_S,
    OURS,
    NoGraphError,
    Operator,
    figures_of,
    level_of,
    operating,
)
from janusvln_ros.nodes import motion, policy
from janusvln_ros.nodes.messages import message_class
from janusvln_ros.nodes.wiring import listeners_of, missing_publisher
from janusvln_ros.policy import default_checkpoint
from janusvln_ros.stamps import nanoseconds

LISTEN_S = 4.0
"""Seconds for which topics are listened to."""

KEPT = 200
"""Latest messages of a topic that are kept whole; of pictures, one."""

TABLES = {"policy": policy.PARAMETERS, "motion": motion.PARAMETERS}

IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
INFO, SCAN, ODOM = (
    "sensor_msgs/msg/CameraInfo",
    "sensor_msgs/msg/LaserScan",
    "nav_msgs/msg/Odometry",
)
VELOCITIES = ("geometry_msgs/msg/Twist", "geometry_msgs/msg/TwistStamped", "std_msgs/msg/UInt8")
ESTOP, CLOCK = "std_msgs/msg/Bool", "rosgraph_msgs/msg/Clock"


@dataclass
class Heard:
    """What comes on a topic, as it comes."""

    topic: str
    messages: deque[Any]
    missing: Callable[[], str | None] = lambda: None
    arrivals: list[float] = field(default_factory=list)
    stamps: list[int] = field(default_factory=list)
    ages: list[float] = field(default_factory=list)

    def take(self, message: Any, now_ns: int) -> None:
        """Keep a message that arrived at ``now_ns`` on the clock of the nodes."""
        stamp = nanoseconds(message.header.stamp)
        self.messages.append(message)
        self.arrivals.append(time.monotonic())
        self.stamps.append(stamp)
        self.ages.append((now_ns - stamp) / 1e9)

    def source(self) -> Source:
        """What has come so far."""
        told = tuple(self.arrivals), tuple(self.stamps), tuple(self.ages), tuple(self.messages)
        return Source(self.topic, self.missing(), *told)


class Listener:
    """Beside a graph, for as long as the doctor looks at it."""

    def __init__(self, operator: Operator, held: ExitStack):
        self.operator, self.held, self.node = operator, held, operator.node
        self.space = operator.namespace
        self.lines: dict[str, Line] = {}
        self.about: dict[str, str] = {}
        self.transforms: dict[str, Any] = {}
        self.clock: tuple[int, float] | None = None  # simulated time (ns), and when it was told

    def now_ns(self) -> int:
        """The time on the nodes' clock, ns; simulated time goes on between two messages of it."""
        if self.clock is None:
            return time.time_ns()
        told, at = self.clock
        return told + round((time.monotonic() - at) * 1e9)

    def topics(self, node: str, published: bool = False) -> dict[str, list[str]]:
        """Topics that a node takes (or publishes), by type."""
        ask = (
            self.node.get_publisher_names_and_types_by_node
            if published
            else self.node.get_subscriber_names_and_types_by_node
        )
        found: dict[str, list[str]] = {}
        if node in self.operator.nodes:
            for topic, kinds in ask(node, self.space):
                for kind in kinds:
                    found.setdefault(kind, []).append(topic)
        return found

    def parameters(self, node: str) -> dict[str, Any]:
        """The parameters of a node; none of one that is not there, or does not answer."""
        names = [one.name for one in TABLES[node]] + ["use_sim_time"]
        try:
            told = self.operator.ask(
                node, GetParameters, "get_parameters", GetParameters.Request(names=names)
            )
        except NoGraphError:
            return {}
        return {
            name: value
            for name, raw in zip(names, told.values)
            if (value := parameter_value_to_python(raw)) is not None
        }

    def profile_of(self, node: str, topic: str) -> Any:
        """The quality of service with which a node takes a topic."""
        for info in self.node.get_subscriptions_info_by_topic(topic):
            if info.node_name == node and info.node_namespace == self.space:
                return info.qos_profile
        return None

    def hear(self, node: str, kinds: Mapping[str, list[str]], *wanted: str) -> Heard | None:
        """Listen to the topic of one of the types ``wanted`` that ``node`` takes."""
        for kind in wanted:
            for topic in kinds.get(kind, ()):
                profile, cls = self.profile_of(node, topic), message_class(kind)
                if profile is None:
                    continue
                heard = Heard(topic, deque(maxlen=1 if kind in IMAGES else KEPT))

                def take(message: Any, heard: Heard = heard) -> None:
                    heard.take(message, self.now_ns())

                # as the node hears it; whether it can is asked when all publishers are known
                heard.missing = partial(missing_publisher, self.node, cls, topic, profile)
                kept = profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
                self.held.enter_context(self.operator.hearing(cls, topic, take, kept=kept))
                return heard
        return None

    def hear_nodes(self) -> None:
        """Listen to what the nodes say of themselves."""
        ours = {self.operator.named(node): node for node in OURS}

        def look(message: DiagnosticArray) -> None:
            for line in message.status:
                if line.hardware_id in ours:
                    name = f"{ours[line.hardware_id]}: {line.name.rpartition(': ')[2]}"
                    self.lines[name] = Line(level_of(line), line.message, figures_of(line))

        def read(message: String) -> None:
            self.about.update(json.loads(message.data))

        hearing = self.operator.hearing
        self.held.enter_context(hearing(DiagnosticArray, "/diagnostics", look))
        named = self.operator.named("policy/about")
        self.held.enter_context(hearing(String, named, read, kept=True))

    def hear_clock(self, kinds: Mapping[str, list[str]], parameters: Mapping[str, Any]) -> None:
        """Listen to simulated time, where the nodes go by it."""
        if not parameters.get("use_sim_time", False):
            return

        def tell(message: Clock) -> None:
            self.clock = nanoseconds(message.clock), time.monotonic()

        for topic in kinds.get(CLOCK, ["/clock"]):
            self.held.enter_context(self.operator.hearing(Clock, topic, tell))

    def hear_transforms(self) -> None:
        """Listen to TF, where its messages are installed."""
        try:
            kind = message_class("tf2_msgs/msg/TFMessage")
        except InputError:
            return

        def take(message: Any) -> None:
            for one in message.transforms:
                shift, turn = one.transform.translation, one.transform.rotation
                self.transforms[one.child_frame_id] = (
                    one.header.frame_id,
                    (shift.x, shift.y, shift.z),
                    (turn.x, turn.y, turn.z, turn.w),
                )

        for topic, kept in (("/tf_static", True), ("/tf", False)):
            self.held.enter_context(self.operator.hearing(kind, topic, take, kept=kept))

    def velocity(self) -> Velocity | None:
        """Where motion sends its commands, and who hears them."""
        published = self.topics("motion", published=True)
        for kind in VELOCITIES:
            for topic in published.get(kind, ()):
                infos = self.node.get_publishers_info_by_topic(topic)
                mine = [i for i in infos if i.node_name == "motion" and i.topic_type == kind]
                if mine:
                    way = SimpleNamespace(topic_name=topic, qos_profile=mine[0].qos_profile)
                    others = [i.node_name for i in infos if i.node_name != "motion"]
                    return Velocity(topic, kind, listeners_of(self.node, way), others)
        return None

    def definitions(self) -> dict[str, str] | None:
        """Types that another node defines in another way than this one, with that node."""
        found: dict[str, str] = {}
        told = False
        clients: list[Any] = [
            ActionClient(self.node, kind, self.operator.named(name))
            for kind, name in (
                (FollowInstruction, "follow_instruction"),
                (ExecuteStep, "execute_step"),
            )
        ]
        try:
            self.operator.linger(lambda: all(c.server_is_ready() for c in clients), 1.0)
            for topic, _ in self.node.get_topic_names_and_types():
                infos = self.node.get_subscriptions_info_by_topic(topic)
                ours = [i for i in infos if i.node_name == self.node.get_name()]
                mine = getattr(ours[0], "topic_type_hash", None) if ours else None
                if mine is None:
                    continue
                told = True
                for info in self.node.get_publishers_info_by_topic(topic):
                    same_kind = info.topic_type == ours[0].topic_type
                    if same_kind and str(info.topic_type_hash) != str(mine):
                        found[info.topic_type] = info.node_name
        finally:
            for client in clients:
                client.destroy()
        return found if told else None


def look_at_graph(operator: Operator, seconds: float = LISTEN_S) -> Seen:
    """Look at a graph for about ``seconds``."""
    with ExitStack() as held:
        beside = Listener(operator, held)
        operator.linger(lambda: set(OURS[:2]) <= operator.nodes, DISCOVERY_S)
        beside.hear_nodes()
        beside.hear_transforms()
        told = {name: beside.parameters(name) for name in TABLES}
        taken = {name: beside.topics(name) for name in TABLES}
        beside.hear_clock(taken["policy"] | taken["motion"], told["policy"] | told["motion"])
        camera = beside.hear("policy", taken["policy"], *IMAGES)
        info = beside.hear("policy", taken["policy"], INFO)
        odom = beside.hear("motion", taken["motion"], ODOM) or beside.hear(
            "policy", taken["policy"], ODOM
        )
        ranges = beside.hear("motion", taken["motion"], SCAN, IMAGES[0])
        begun = time.monotonic()
        operator.linger(lambda: False, seconds)
        states = operator.status().nodes
        counts = Counter(operator.node.get_node_names_and_namespaces())
        sources = [None if one is None else one.source() for one in (camera, info, odom, ranges)]
        estops = taken["motion"].get(ESTOP, [""])
        frame = camera.messages[-1].header.frame_id if camera and camera.messages else ""
        base = odom.messages[-1].child_frame_id if odom and odom.messages else "base_link"
        return Seen(
            seconds=time.monotonic() - begun,
            nodes=states,
            twice=[n for n in OURS if counts[n, operator.namespace] > 1],
            lockstep="motion" not in states and operator.moves_without_motion(),
            policy=told["policy"],
            motion=told["motion"],
            about=beside.about,
            lines=beside.lines,
            camera=sources[0],
            camera_info=sources[1],
            odom=sources[2],
            ranges=sources[3],
            velocity=beside.velocity(),
            estop=(estops[0], operator.node.count_publishers(estops[0]) if estops[0] else 0),
            mount=camera_mount(beside.transforms, frame, base),
            definitions=beside.definitions(),
            remedies=motion.REMEDIES,
        )


def examination(
    machine: Callable[[], Machine], domain: int | None, namespace: str | None
) -> list[Finding]:
    """
    Look at the graph in ``domain`` (None: as ROS_DOMAIN_ID says) and return the findings, those of
    ``machine`` (`janusvln_ros.graph.machine.look`) first; a graph that is not there is one of
    them.
    """
    try:
        with operating(domain, namespace) as operator:
            seen = look_at_graph(operator)
    except NoGraphError as error:
        remedy = "start it first: 'janusvln up robot'"
        return [*examine_machine(machine()), Finding("graph", FAIL, str(error), remedy)]
    found = machine()
    picture = seen.camera.messages[-1] if seen.camera and seen.camera.messages else None
    raw = seen.policy.get("image_transport") == "raw"
    checked = [*examine_machine(found), _memory(seen), shared_memory(found, picture, raw)]
    return [*checked, *examine(seen)]


def _memory(seen: Seen) -> Finding:
    """Whether the policy's checkpoint fits; one that is loaded does."""
    if seen.nodes.get("policy") == "active":
        return Finding("memory", PASS, "the checkpoint is loaded")
    named = seen.policy.get("checkpoint", "")
    try:
        folder = local_checkpoint(named) if named else default_checkpoint()
    except InputError:
        folder = None
    there = seen.policy and folder is not None
    return memory(fit_told(str(folder), seen.policy) if there else None)

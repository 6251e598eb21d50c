"""
What an operator does beside a graph that runs, whoever started it: look, arm, tell it where to go,
watch, stop. Clients of the same topics, services and actions that any ROS 2 tool has.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from janusvln_msgs.action import FollowInstruction
from janusvln_msgs.msg import Decision, StepReport
from lifecycle_msgs.srv import GetState
from rclpy.action import ActionClient, get_action_server_names_and_types_by_node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from janusvln_ros.graph.client import ERROR_NAMES
from janusvln_ros.graph.connection import Connection, GraphTimeoutError
from janusvln_ros.graph.processes import domains_in_use, middleware_environment
from janusvln_ros.graph.security import OPERATOR, OPERATOR_USES, Uses, used_by

OURS = ("policy", "motion", "sim_bridge", "player", "recorder", "compressor")
"""The nodes of a graph; it is recognised by the first two."""

ANSWER_S = 5.0
"""Seconds within which a node that is there answers."""

DISCOVERY_S = 3.0
"""Seconds in which a node that is there is discovered, on a busy machine too."""

SETTLE_S = 0.5
"""Seconds without a new node after which a graph is looked at."""

CANCEL_S = 10.0
"""Seconds for a cancelled drive to end: the base comes to rest."""

SILENCE_S = 10.0
"""
Seconds without diagnostics, which come every second, after which a node counts as frozen: longer
than a healthy one is held up, as by the libraries that it loads with its model.
"""


class NoGraphError(Exception):
    """There is no such graph, or it lacks what was asked for; the message says what to do."""


@dataclass
class Status:
    """
    What a graph is and does; None or empty: not told.

    ``nodes``: the life cycle's state by name ("running" where a node has none); ``missing``:
    inputs on which nothing can arrive, a sentence each; ``problems``: what else diagnostics warn
    of; ``about``: the checkpoint and what else decisions depend on; ``incident``: the bag of the
    last one.
    """

    domain: int
    namespace: str
    nodes: dict[str, str]
    active: bool | None = None
    armed: bool | None = None
    estop: str = ""
    doing: str = ""
    last_decision: str = ""
    missing: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    about: dict[str, str] = field(default_factory=dict)
    incident: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Drive:
    """
    How a goal of follow_instruction ended: the name of its error code ("NONE": the policy stopped
    by itself), its sentence, decisions made, metres and seconds.
    """

    code: str
    message: str
    steps: int
    path_length: float
    elapsed: float


class Operator(Connection):
    """
    Beside the graph in ``namespace``; None: the only one in the domain.

    Raises:
        NoGraphError: there is none within ``patience`` seconds, or more than one.
    """

    def __init__(
        self, environment: Mapping[str, str], namespace: str | None, patience: float = ANSWER_S
    ):
        super().__init__(environment, name=OPERATOR, enclave="/operator")
        try:
            self.namespace = self._find(namespace, patience)
        except BaseException:
            self.close()
            raise

    def named(self, name: str) -> str:
        """A name of the graph in full."""
        return f"{self.namespace.rstrip('/')}/{name}"

    @property
    def nodes(self) -> set[str]:
        """The nodes of the graph that are known by now."""
        return self._graphs().get(self.namespace, set())

    def has(self, node: str) -> bool:
        """Whether ``node`` is there; one that is not known is waited for."""
        return self.linger(lambda: node in self.nodes, DISCOVERY_S)

    def _graphs(self) -> dict[str, set[str]]:
        """Our nodes that are known by now, by namespace."""
        found: dict[str, set[str]] = {}
        for name, space in self.node.get_node_names_and_namespaces():
            if name in OURS:
                found.setdefault(space, set()).add(name)
        return {space: names for space, names in found.items() if names & set(OURS[:2])}

    def _find(self, namespace: str | None, patience: float) -> str:
        wanted = None if namespace is None else "/" + namespace.strip("/")

        def there() -> dict[str, set[str]]:
            graphs = self._graphs()
            return {s: n for s, n in graphs.items() if wanted in (None, s)}

        self.linger(lambda: bool(there()), patience)
        known = None
        while known != (known := there()):  # some nodes are discovered before others
            self.linger(lambda: False, SETTLE_S)
        if len(known) == 1:
            return next(iter(known))
        spaces = ", ".join(sorted(self._graphs()))
        if known:
            raise NoGraphError(f"there are graphs in {spaces}: choose one with --namespace")
        raise NoGraphError(self._nothing(wanted, spaces))

    def _nothing(self, wanted: str | None, spaces: str) -> str:
        where = f"ROS domain {self.domain}"
        if spaces:
            return f"no graph in namespace {wanted} of {where}: there are graphs in {spaces}"
        others = [str(domain) for domain in domains_in_use() if domain != self.domain]
        there = f"; on this machine there are nodes in domain {', '.join(others)}"
        return (
            f"no graph in {where}: neither policy nor motion is running{there if others else ''}: "
            "choose another with --domain, or start one with 'janusvln up'"
        )

    def lacking(self, node: str) -> str:
        """The sentence of a graph in which ``node`` is not running."""
        return (
            f"the graph in {self.namespace} of ROS domain {self.domain} has no node '{node}': "
            f"it has {', '.join(sorted(self.nodes))}"
        )

    def ask(
        self, node: str, kind: Any, service: str, request: Any, repeatable: bool = True
    ) -> Any:
        """
        Call a service of ``node`` and return its response; ``repeatable`` as of `call`.

        Raises:
            NoGraphError: the node is not there, or does not answer.
        """
        if not self.has(node):
            raise NoGraphError(self.lacking(node))
        name = self.named(f"{node}/{service}")
        try:
            return self.call(kind, name, request, ANSWER_S, repeatable)
        except GraphTimeoutError as error:
            raise NoGraphError(f"node '{node}' is there, but {error}: is it frozen?") from error

    # what an operator does

    def arm(self, armed: bool) -> str:
        """
        Arm or disarm ``motion``; return what it says.

        Raises:
            NoGraphError: it refuses, with its reason, or there is none.
        """
        told = self.ask("motion", SetBool, "arm", SetBool.Request(data=armed), not armed)
        if not told.success:
            raise NoGraphError(f"motion refuses to be armed: {told.message}")
        return str(told.message)

    def stop(self) -> dict[str, str]:
        """
        Disarm, then end what is followed; return what each node says.

        Raises:
            NoGraphError: one of those that are there did not answer; the other one was told.
        """
        said: dict[str, str] = {}
        failed: list[str] = []
        orders: tuple[tuple[str, Any, str, Any], ...] = (
            ("motion", SetBool, "arm", SetBool.Request(data=False)),
            ("policy", Trigger, "stop", Trigger.Request()),
        )
        for node, kind, service, request in orders:
            if not self.has(node):
                continue
            try:
                said[node] = str(self.ask(node, kind, service, request).message)
            except NoGraphError as error:
                failed.append(str(error))
        if failed:
            raise NoGraphError("; ".join(failed))
        return said

    def moves_without_motion(self) -> bool:
        """Whether steps are taken without ``motion``: a simulation in lockstep."""
        space = self.namespace
        return self.has("sim_bridge") and self.named("execute_step") in {
            name
            for name, _ in get_action_server_names_and_types_by_node(
                self.node, "sim_bridge", space
            )
        }

    def follow(
        self,
        text: str,
        max_steps: int = 0,
        time_limit: float = 0.0,
        progress: Callable[[Any], None] = lambda feedback: None,
    ) -> Drive:
        """
        Send one instruction and wait until it has been followed; ``progress`` gets each feedback.

        However this is left, the goal is cancelled first, and its end awaited.

        Raises:
            NoGraphError: there is no policy, it does not answer, or its node ended or froze.
        """
        if not self.has("policy"):
            raise NoGraphError(self.lacking("policy"))
        client: Any = ActionClient(self.node, FollowInstruction, self.named("follow_instruction"))
        goal = FollowInstruction.Goal(instruction=text, max_steps=max_steps, time_limit=time_limit)
        try:
            with (
                self.attending(self.named("policy/client")) as goal.client,
                self.life_of("policy") as silence,
            ):
                return self._followed(client, goal, progress, silence)
        finally:
            client.destroy()

    @contextmanager
    def life_of(self, node: str) -> Iterator[Callable[[], float]]:
        """Give a function that tells for how many seconds ``node`` has said nothing at all."""
        heard = time.monotonic()

        def look(message: DiagnosticArray) -> None:
            nonlocal heard
            if any(line.hardware_id == self.named(node) for line in message.status):
                heard = time.monotonic()

        with self.hearing(DiagnosticArray, "/diagnostics", look):
            yield lambda: time.monotonic() - heard

    def _followed(
        self,
        client: Any,
        goal: Any,
        progress: Callable[[Any], None],
        silence: Callable[[], float],
    ) -> Drive:
        name = self.named("follow_instruction")
        if not self.linger(client.server_is_ready, ANSWER_S):
            raise NoGraphError(f"nobody serves {name}, though 'policy' is there: is it frozen?")
        sent = client.send_goal_async(
            goal, feedback_callback=lambda message: progress(message.feedback)
        )
        done = None
        try:
            if not self.linger(sent.done, ANSWER_S):
                raise NoGraphError(f"{name} did not answer within {ANSWER_S:g} s")
            done = sent.result().get_result_async()
            while not self.linger(done.done, 1.0):
                if not client.server_is_ready():
                    raise NoGraphError(f"{name} is gone: the policy node ended")
                if silence() > SILENCE_S:
                    raise NoGraphError(
                        f"node 'policy' has said nothing for {silence():.0f} s: it is frozen, or "
                        "the link to it is lost; the goal was withdrawn, and motion stops a base "
                        "whose policy is silent"
                    )
        except BaseException:
            self._withdraw(sent, done)
            raise
        return drive_of(done.result().result)

    def _withdraw(self, sent: Any, done: Any) -> None:
        """Cancel a goal, also one whose acceptance is still under way, and wait for its end."""
        self.linger(sent.done, ANSWER_S)
        if not sent.done():
            return
        told = sent.result().cancel_goal_async()
        done = done or sent.result().get_result_async()
        if self.linger(told.done, ANSWER_S):
            self.linger(done.done, CANCEL_S)

    @contextmanager
    def hearing(
        self, kind: Any, name: str, take: Callable[[Any], None], kept: bool = False
    ) -> Iterator[None]:
        """Subscribe to a topic while the block runs; ``kept``: also to its last word before."""
        profile = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
        if kept:
            profile = QoSProfile(
                depth=1,
                reliability=ReliabilityPolicy.RELIABLE,
                durability=DurabilityPolicy.TRANSIENT_LOCAL,
            )
        subscription = self.node.create_subscription(kind, name, take, profile)
        try:
            yield
        finally:
            self.node.destroy_subscription(subscription)

    def watch(
        self, decided: Callable[[Decision], None], warned: Callable[[str], None]
    ) -> Iterator[None]:
        """
        Hand every decision to ``decided`` and every new warning of diagnostics to ``warned``;
        yields now and then, for ever.
        """
        if not self.has("policy"):
            raise NoGraphError(self.lacking("policy"))
        troubles: dict[str, str] = {}

        def look(message: DiagnosticArray) -> None:
            for name, text in self._warnings(message).items():
                if text and troubles.get(name) != text:
                    warned(f"{name}: {text}")
                troubles[name] = text

        with (
            self.hearing(Decision, self.named("policy/decision"), decided),
            self.hearing(DiagnosticArray, "/diagnostics", look),
        ):
            while True:
                self.linger(lambda: False, 0.1)
                yield

    def step_reports(self, stepped: Callable[[StepReport], None]) -> Iterator[None]:
        """
        Hand every step that ends to ``stepped``; yields now and then, for ever.

        Raises:
            NoGraphError: there is no ``motion``.
        """
        if not self.has("motion"):
            raise NoGraphError(self.lacking("motion"))
        with self.hearing(StepReport, self.named("motion/step_report"), stepped):
            while True:
                self.linger(lambda: False, 0.1)
                yield

    def _warnings(self, message: DiagnosticArray) -> dict[str, str]:
        """What is wrong with this graph, by the name of the line; empty: nothing."""
        ours = {self.named(node) for node in OURS}
        return {
            line.name: line.message if level_of(line) else ""
            for line in message.status
            if line.hardware_id in ours
        }

    def status(self) -> Status:
        """
        Ask everything that there is to know; takes two seconds at most for what nobody says.
        """
        lines: dict[str, Any] = {}
        about: dict[str, str] = {}
        incidents: list[str] = []

        def look(message: DiagnosticArray) -> None:
            ours = {self.named(node) for node in OURS}
            lines.update({s.name: s for s in message.status if s.hardware_id in ours})

        def read(message: String) -> None:
            about.update(json.loads(message.data))

        self.linger(lambda: set(OURS[:2]) <= self.nodes, DISCOVERY_S)
        names = sorted(self.nodes)
        wanted = [self.named(n) + ": state" for n in OURS[:2] if n in names]
        with (
            self.hearing(DiagnosticArray, "/diagnostics", look),
            self.hearing(String, self.named("policy/about"), read, kept=True),
            self.hearing(
                String,
                self.named("recorder/incident"),
                lambda message: incidents.append(message.data),
                kept=True,
            ),
        ):
            nodes = {name: self._state_of(name) for name in names}
            self.linger(lambda: all(name in lines for name in wanted), 2.0)
            self.linger(lambda: bool(about), 0.5)
        status = self._told(nodes, lines, about)
        status.incident = incidents[-1] if incidents else ""
        return status

    def uses(self) -> dict[tuple[str, str], Uses]:
        """What each node of the graph uses, and what the operator's commands do, for SROS2."""
        self.linger(lambda: set(OURS[:2]) <= self.nodes, DISCOVERY_S)
        self.linger(lambda: False, SETTLE_S)
        found = {
            (name, self.namespace): used_by(self.node, name, self.namespace)
            for name in sorted(self.nodes)
        }
        return {**found, (OPERATOR, self.namespace): OPERATOR_USES}

    def _state_of(self, node: str) -> str:
        """The label of a node's life cycle; "running" where it has none."""
        services = self.node.get_service_names_and_types_by_node(node, self.namespace)
        if self.named(f"{node}/get_state") not in {name for name, _ in services}:
            return "running"
        try:
            told = self.ask(node, GetState, "get_state", GetState.Request())
        except NoGraphError:
            return "does not answer"
        return str(told.current_state.label)

    def _told(self, nodes: dict[str, str], lines: dict[str, Any], about: dict[str, str]) -> Status:
        policy, motion = (figures_of(lines.get(self.named(n) + ": state")) for n in OURS[:2])
        status = Status(self.domain, self.namespace, nodes, about=about)
        if "policy" in nodes:
            status.active = nodes["policy"] == "active"
        if motion:
            status.armed = motion.get("armed") == "True"
            status.estop = motion.get("estop", "")
        status.doing = policy.get("phase", "")
        status.last_decision = policy.get("last_decision", "")
        for name, line in sorted(lines.items()):
            if name.endswith(": inputs"):
                status.missing += figures_of(line).values()
            elif level_of(line):
                status.problems.append(f"{name}: {line.message}")
        return status


def level_of(line: Any) -> int:
    """The level of a line of diagnostics, 0: fine."""
    return int.from_bytes(line.level, "little") if isinstance(line.level, bytes) else line.level


def figures_of(line: Any) -> dict[str, str]:
    """The figures of a line of diagnostics; none of no line."""
    return {} if line is None else {pair.key: pair.value for pair in line.values}


def drive_of(result: Any) -> Drive:
    """How a goal ended, of its result."""
    code = ERROR_NAMES.get(result.error_code, str(result.error_code))
    path = float(result.path_length)
    return Drive(
        code,
        result.error_msg,
        int(result.steps),
        path if math.isfinite(path) else 0.0,
        float(result.elapsed),
    )


@contextmanager
def operating(
    domain: int | None, namespace: str | None, patience: float = ANSWER_S
) -> Iterator[Operator]:
    """
    Beside a graph in ``domain`` (None: as ROS_DOMAIN_ID says) while the block runs.

    Raises:
        NoGraphError: see `Operator`.
    """
    operator = Operator(middleware_environment(domain, localhost=False), namespace, patience)
    try:
        yield operator
    finally:
        operator.close()

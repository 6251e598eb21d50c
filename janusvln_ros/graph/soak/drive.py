"""The drive: episodes one after the other, faults at random moments, and the truth watched."""

import math
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from janusvln_msgs.action import FollowInstruction
from janusvln_msgs.msg import Heartbeat, StepReport
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from nav_msgs.msg import Odometry
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Bool, String

from janusvln_ros.geometry import yaw_of
from janusvln_ros.graph.client import ERROR_NAMES, GraphClient
from janusvln_ros.graph.composition import resolve
from janusvln_ros.graph.connection import GraphTimeoutError, RefusedError
from janusvln_ros.graph.private import private_graph
from janusvln_ros.graph.processes import NodeEndedError, Processes
from janusvln_ros.graph.soak.pieces import Record
from janusvln_ros.graph.soak.sensors import SPOILS, After, Sensors, behind_relay, spoils_of
from janusvln_ros.graph.soak.watch import BRAKING, PROMISE, Growth, RestWatch, StepWatch
from janusvln_ros.protocol.exchange import new_life
from janusvln_ros.stamps import nanoseconds

FREEZE_S = 1.5
"""Seconds for which a process is frozen: long enough to see that the base rests meanwhile."""

AFTERMATH_S = 3.0
"""
Seconds after the end of a freeze or a restart in which the nodes' own report on late callbacks
tells of that.
"""

LOOKED_S = PROMISE + BRAKING + 0.7
"""Seconds for which the base is looked at after something that must bring it to rest."""

CLIENT_S = 2.0
"""Seconds within which a drive ends whose client is gone."""

END_S = 30.0
"""Seconds within which a drive ends whose sensors are spoilt."""

READY_S = 20.0
"""Seconds that a robot may take, once nothing is wrong any more, until it can be armed."""

ANSWER_S = 5.0
"""Seconds after which it is asked again to be armed."""

ACTIVE_S = 90.0
"""Seconds that a policy may take until it is active."""

LIVES = 3
"""So many lives of a node that nobody can reach, and the soak gives up."""

AHEAD_M = 0.2
"""
Metres that a step ahead must go until odometry, whatever it makes of them, must have been found
out: twice the ``drift`` of ``motion``.
"""

FOREIGN_S = 0.05
"""Seconds between the heartbeats of somebody else."""

EVENTS = (
    "cancel",
    "preempt",
    "estop",
    "second_estop",
    "disarm",
    "edge",
    "flood",
    "client_silent",
    "freeze_policy",
    "freeze_policy_beside_another",
    "freeze_motion",
    "deactivate_policy",
    "deactivate_motion",
    "kill_policy",
    "kill_motion",
)
"""Faults that are no sensor's: the methods of `Soak` of these names."""


def faults_of(source: str) -> tuple[str, ...]:
    """All faults of a robot whose way ahead is guarded by ``source``, "scan" or "depth"."""
    return EVENTS + spoils_of(source)


@dataclass(frozen=True)
class Plan:
    """What to do; see the options of ``janusvln soak``."""

    seconds: float
    every: float
    faults: tuple[str, ...]
    seed: int
    data_dir: Path
    split: str
    checkpoint: str
    width: int
    height: int
    frame_rate: float
    max_steps: int
    range_source: str = "scan"
    log_dir: Path | None = None
    domain: int | None = None


def resident_bytes(pid: int) -> int:
    """Resident memory of a process; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


class Soak:
    """
    One drive. ``handle`` and ``result``: the goal that runs, and its answer to come; None where
    none runs.
    """

    def __init__(
        self,
        plan: Plan,
        processes: Processes,
        client: GraphClient,
        sensors: Sensors,
        record: Record,
        tell: Callable[[], None],
    ):
        self.plan, self.processes, self.client = plan, processes, client
        self.sensors, self.record, self.tell = sensors, record, tell
        self.dice = random.Random(plan.seed)
        self.rest, self.step = RestWatch(), StepWatch()
        warm_up = min(120.0, plan.seconds / 10)
        self.growth = {name: Growth(warm_up) for name in processes.specs}
        self.handle: Any = None
        self.result: Any = None
        self.attention = ExitStack()
        self.begun = time.monotonic()
        self.undisturbed = time.monotonic() + AFTERMATH_S
        node = client.node
        node.create_subscription(Odometry, "ground_truth", self._on_truth, QoSProfile(depth=50))
        node.create_subscription(StepReport, "motion/step_report", self._on_report, 10)
        node.create_timer(1.0, self._look)
        self.heartbeat = 0.0
        node.create_subscription(
            Heartbeat, "policy/heartbeat", self._on_heartbeat, QoSProfile(depth=1)
        )
        node.create_subscription(
            DiagnosticArray, "/diagnostics", self._on_diagnostics, QoSProfile(depth=20)
        )
        kept = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.estops = [node.create_publisher(Bool, "estop", kept) for _ in range(2)]
        self.cliff = node.create_publisher(Bool, "cliff", kept)
        self.speak = node.create_publisher(String, "instruction", 10)
        self.foreign = node.create_publisher(Heartbeat, "policy/heartbeat", 1)

    # ------------------------------------------------ what is heard

    def _on_truth(self, message: Odometry) -> None:
        pose, twist = message.pose.pose, message.twist.twist
        turn = pose.orientation
        stamp = nanoseconds(message.header.stamp)
        if stamp > self.client.since:  # not from the place before
            heading = yaw_of(turn.x, turn.y, turn.z, turn.w)
            self.step.truth(pose.position.x, pose.position.y, heading)
        self.rest.truth(time.monotonic(), stamp * 1e-9, twist.linear.x, twist.angular.z)

    def _look(self) -> None:
        for name, growth in self.growth.items():
            growth.look(time.monotonic(), resident_bytes(self.processes.running[name].pid))

    def _on_report(self, message: StepReport) -> None:
        self.step.over()

    def _on_heartbeat(self, message: Heartbeat) -> None:
        self.heartbeat = time.monotonic()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        """Each node tells once a second how late its timers were at worst."""
        for status in message.status:
            name = status.name.strip("/").partition(":")[0]
            figures = {pair.key: pair.value for pair in status.values}
            if (
                name in self.record.late
                and "callback_late_max" in figures
                and time.monotonic() > self.undisturbed
            ):
                self.record.late[name].append(float(figures["callback_late_max"]))

    # ------------------------------------------------ the drive

    def run(self) -> None:
        """Drive for the time of the plan, or until interrupted."""
        self.client.reset("")
        self.client.linger(lambda: False, 1.0)
        self.begun = time.monotonic()
        until, published = self.begun + self.plan.seconds, self._published()
        received = self.sensors.pictures
        next_fault = self._next()
        try:
            while time.monotonic() < until:
                next_fault = self.episode(until, next_fault)
                self.record.published = self._published() - published
                self.record.received = self.sensors.pictures - received
                self.told()
            self.client.arm(False)
        finally:
            self.attention.close()

    def told(self) -> None:
        """Tell what the drive has come to."""
        record = self.record
        record.why = self.step.why
        record.seconds = time.monotonic() - self.begun
        record.unsafe = [*self.rest.unsafe, *self.step.unsafe]
        record.worst_step = self.step.worst_metres, self.step.worst_radians
        record.growth = {name: growth.worst for name, growth in self.growth.items()}
        record.swing = {name: growth.swing for name, growth in self.growth.items()}
        self.tell()

    def episode(self, until: float, next_fault: float) -> float:
        """Drive an episode, with faults from ``next_fault`` on; return when the next is due."""
        record, client = self.record, self.client
        self.step.ends()
        episode = client.reset("")
        self.step.begins()
        self._reach("motion", self._arm)
        self.step.why = ""
        self.rest.may_move(time.monotonic())
        goal = FollowInstruction.Goal(
            instruction=episode.instruction,
            max_steps=self.plan.max_steps,
            start_stamp=episode.first_frame,
        )
        record.episodes += 1
        goal.client = self.attention.enter_context(client.attending("policy/client"))
        self._send(goal)
        while self.result and not self.result.done() and time.monotonic() < until:
            client.linger(self.result.done, max(0.05, min(next_fault, until) - time.monotonic()))
            client.alive()
            if not self.result.done() and self.plan.faults and time.monotonic() >= next_fault:
                fault = self.dice.choice(self.plan.faults)
                record.faults[fault] += 1
                self.step.why = fault
                if fault in SPOILS:
                    self.spoil(fault)
                else:
                    getattr(self, fault)(goal)
                next_fault = self._next()
        if self.result and self.result.done():
            self._ended(self.result)
        self.attention.close()
        record.totals += [float(d.total) for d in client.telemetry.decisions]
        return next_fault

    def _ended(self, answer: Any) -> None:
        """A goal was answered."""
        result = answer.result().result
        name = ERROR_NAMES.get(result.error_code, "?")
        self.record.ended(name, result.error_msg)

    def _next(self) -> float:
        return time.monotonic() + self.dice.expovariate(1 / self.plan.every)

    def _published(self) -> int:
        return int(self.client.metrics()["frames_total"])

    def _reach(self, name: str, ask: Callable[[], None]) -> None:
        """
        ``ask`` a node something. One that does not answer is started again, as whoever looks after
        a robot would, and counted: Fast DDS 2 may go on sending to the one that was killed before.
        """
        for _ in range(LIVES - 1):
            try:
                return ask()
            except RefusedError:
                raise
            except GraphTimeoutError:
                self.record.unreachable += 1
                self._start_again(name)
                self._restarted(name)
        return ask()

    def _arm(self) -> None:
        """
        Arm, once motion has heard of sensors that are well again. Whoever asks one that has just
        started, on a machine this busy, may not be heard, or not hear the answer: ask again.
        """
        end = time.monotonic() + READY_S
        while True:
            try:
                return self.client.arm(seconds=ANSWER_S)
            except GraphTimeoutError:
                if time.monotonic() > end:
                    raise
                self.client.linger(lambda: False, 0.2)

    def _alive(self) -> None:
        """Wait for a heartbeat of ``policy``."""
        self.heartbeat = 0.0
        self.client.until(
            lambda: self.heartbeat > 0, ACTIVE_S, "the restarted policy did not become active"
        )

    def _send(self, goal: Any) -> None:
        sent = self.client.follow.send_goal_async(goal)
        self.client.until(sent.done, 60.0, "follow_instruction did not answer")
        self.handle = sent.result()
        self.result = self.handle.get_result_async()

    def _stand(self, why: str, promise: float = PROMISE) -> None:
        """From now on the base must rest; look for a while."""
        self.rest.must_rest(time.monotonic(), why, promise)
        self.client.linger(lambda: False, promise - PROMISE + LOOKED_S)

    # ------------------------------------------------ sensors

    def spoil(self, fault: str) -> None:
        """A sensor is spoilt until the drive is over."""
        after = SPOILS[fault].after
        self.sensors.spoil(fault)
        self.step.spoilt()
        if after in (After.REST, After.NO_WAY, After.PAUSE):
            self.rest.must_rest(
                time.monotonic(), fault, turns=after is After.NO_WAY, once=after is After.PAUSE
            )
        ended = self.client.linger(self.result.done, END_S)
        went = self.step.farthest > AHEAD_M
        if not ended and (after is After.END or (after is After.WAY and went)):
            self.rest.unsafe.append(f"the drive goes on {END_S:g} s after '{fault}'")
        if not ended:
            self.handle.cancel_goal_async()
            self.client.until(self.result.done, 60.0, "a cancelled goal was not answered")
        self.client.linger(lambda: False, LOOKED_S)
        self.sensors.restore()

    # ------------------------------------------------ events

    def cancel(self, goal: Any) -> None:
        """Who asked for the drive takes it back."""
        self.handle.cancel_goal_async()
        self._stand("cancel")

    def preempt(self, goal: Any) -> None:
        """Another instruction comes."""
        preempted = self.result
        slowly = goal.instruction + " slowly"
        self._send(
            FollowInstruction.Goal(
                instruction=slowly, max_steps=goal.max_steps, client=goal.client
            )
        )
        self.client.until(preempted.done, 60.0, "a preempted goal was not answered")
        self._ended(preempted)

    def estop(self, goal: Any) -> None:
        """The e-stop is pressed, and released."""
        self.estops[0].publish(Bool(data=True))
        self._stand("estop")
        self.estops[0].publish(Bool(data=False))
        self.client.linger(lambda: False, 0.5)  # released is not armed

    def second_estop(self, goal: Any) -> None:
        """One of two is pressed, and the other says that it is released."""
        self.estops[1].publish(Bool(data=True))
        self.estops[0].publish(Bool(data=False))
        self._stand("second_estop")
        for estop in self.estops:
            estop.publish(Bool(data=False))
        self.client.linger(lambda: False, 0.5)

    def disarm(self, goal: Any) -> None:
        """Somebody disarms."""
        self.client.arm(False)
        self._stand("disarm")

    def edge(self, goal: Any) -> None:
        """An edge is seen, for a while."""
        self.cliff.publish(Bool(data=True))
        self._stand("edge")
        self.rest.may_move(time.monotonic())
        self.cliff.publish(Bool(data=False))

    def flood(self, goal: Any) -> None:
        """Fifty instructions at once, half of them unreadable."""
        for i in range(50):
            self.speak.publish(String(data=goal.instruction if i % 2 else "\x00" * (i * 100)))

    def client_silent(self, goal: Any) -> None:
        """Who asked for the drive is gone."""
        self.attention.close()
        self._stand("client_silent", CLIENT_S)

    def freeze_policy(self, goal: Any) -> None:
        """``policy`` stands still for a while."""
        self._freeze("policy", "freeze_policy")

    def freeze_policy_beside_another(self, goal: Any) -> None:
        """The same, while the heartbeat of somebody else goes on."""
        life = new_life()
        beat = self.client.node.create_timer(
            FOREIGN_S, lambda: self.foreign.publish(Heartbeat(life=life))
        )
        self._freeze("policy", "freeze_policy_beside_another")
        self.client.node.destroy_timer(beat)

    def freeze_motion(self, goal: Any) -> None:
        """``motion`` stands still for a while."""
        self._freeze("motion", "freeze_motion")

    def _freeze(self, name: str, why: str) -> None:
        process = self.processes.running[name]
        os.kill(process.pid, signal.SIGSTOP)
        self.undisturbed = math.inf
        try:
            self.rest.must_rest(time.monotonic(), why)
            self.client.linger(lambda: False, FREEZE_S)
            self.rest.may_move(time.monotonic())
        finally:
            os.kill(process.pid, signal.SIGCONT)
            self.undisturbed = time.monotonic() + AFTERMATH_S

    def deactivate_policy(self, goal: Any) -> None:
        """A lifecycle manager deactivates ``policy``, and activates it again."""
        self._deactivate("policy")

    def deactivate_motion(self, goal: Any) -> None:
        """The same with ``motion``."""
        self._deactivate("motion")

    def _deactivate(self, name: str) -> None:
        self.rest.must_rest(time.monotonic(), f"deactivate_{name}")
        for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE):
            request = ChangeState.Request(transition=Transition(id=transition))
            answer = self.client.call(ChangeState, f"{name}/change_state", request)
            if not answer.success:
                raise RefusedError(f"{name} refused transition {transition}")
            self.client.linger(lambda: False, LOOKED_S)

    def kill_policy(self, goal: Any) -> None:
        """``policy`` is killed, and started again."""
        # The dead one's services linger until the middleware misses it, and would swallow a
        # question: only the new one's heartbeat tells that it is active.
        self._kill("policy")
        self._reach("policy", self._alive)
        self._restarted("policy")

    def kill_motion(self, goal: Any) -> None:
        """``motion`` is killed, and started again; who asked is told."""
        self._kill("motion")
        self.client.until(self.result.done, END_S, "a goal whose motion died was not answered")
        self._ended(self.result)
        self.result = None
        self._restarted("motion")

    def _kill(self, name: str) -> None:
        self._start_again(name)
        self._stand(f"kill_{name}")
        if name == "policy":
            self.record.ended("(killed)")
            self.result = None

    def _start_again(self, name: str) -> None:
        process = self.processes.running[name]
        self.undisturbed = math.inf
        process.kill()
        process.wait()
        self.rest.must_rest(time.monotonic(), f"kill_{name}")
        self.processes.run(name)
        self.growth[name].restart(loading=True)

    def _restarted(self, name: str) -> None:
        self.client.linger(lambda: False, 2.0)
        self.growth[name].restart()
        self.undisturbed = time.monotonic() + AFTERMATH_S


def soak(plan: Plan, tell: Callable[[str], None], keep: Callable[[Record], None]) -> Record:
    """Drive, and return what came of it; ``keep`` is given it after every episode as well."""
    given = {
        "mode": "continuous",
        "data_dir": str(plan.data_dir),
        "split": plan.split,
        "checkpoint": plan.checkpoint,
        "seed": str(plan.seed),
    }
    size = {"image_width": plan.width, "image_height": plan.height, "frame_rate": plan.frame_rate}
    overrides: dict[str, dict[str, Any]] = {
        "sim_bridge": {**size, "odom_noise": 0.02, "odom_latency": 0.05},
        "motion": {"range_source": plan.range_source},
    }
    specs = behind_relay(resolve("simulation", given, overrides))
    record = Record(late={name: [] for name in ("policy", "motion")})

    def told() -> None:
        keep(record)
        tell(
            f"{record.seconds / 60:.1f} min, episode {record.episodes}: "
            f"{record.why or 'no fault'} -> {record.last}; {sum(record.faults.values())} faults, "
            f"{len(record.unsafe)} unsafe moments"
        )

    if plan.log_dir is not None:
        plan.log_dir.mkdir(parents=True, exist_ok=True)
    try:
        with (
            private_graph(specs, plan.log_dir, plan.domain) as (client, processes),
            closing(Sensors(client.context)) as sensors,
        ):
            client.wait_ready()
            tell(f"driving for {plan.seconds / 3600:g} h in ROS domain {client.domain}")
            drive = Soak(plan, processes, client, sensors, record, told)
            try:
                drive.run()
            except KeyboardInterrupt:
                tell("interrupted: the report covers the time until now")
            finally:
                drive.told()
    except (GraphTimeoutError, NodeEndedError) as problem:
        record.error = str(problem)
        keep(record)
        tell(f"error: {record.error}")
    return record

"""
The long drive of ``janusvln soak``: one instruction after another in the continuous simulator,
with faults at random moments and the truth watched.
"""

import math
import os
import random
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from janusvln_msgs.action import FollowInstruction
from janusvln_msgs.msg import Heartbeat
from nav_msgs.msg import Odometry
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Bool, String

from janusvln_ros.graph.client import ERROR_NAMES, GraphClient
from janusvln_ros.graph.composition import resolve
from janusvln_ros.graph.connection import GraphTimeoutError
from janusvln_ros.graph.private import private_graph
from janusvln_ros.graph.processes import NodeEndedError, Processes
from janusvln_ros.protocol.health import percentile

PROMISE = 0.35
"""Seconds to zero velocity."""

BRAKING = 0.45
"""
Seconds that the simulated base may need from its top speed to rest (0.6 m/s at 1.5 m/s^2), and for
the truth to be published.
"""

MOVING_SPEED, MOVING_RATE = 0.03, 0.08
"""Metres and radians per second of true motion that are not rest."""

FREEZE = 1.5
"""Seconds for which a process is frozen: long enough to see that the base rests meanwhile."""

AFTERMATH = 3.0
"""
Seconds after the end of a freeze or a restart in which the nodes' own report on late callbacks
tells of that.
"""


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
    log_dir: Path | None = None
    domain: int | None = None


@dataclass
class RestWatch:
    """
    Looks at the true motion. Pure: it is told the time.

    ``must_rest(now)`` begins a watch: from ``PROMISE + BRAKING`` later on, motion is unsafe, and
    is counted once; ``may_move()`` ends it.
    """

    since: float | None = None
    why: str = ""
    unsafe: list[str] = field(default_factory=list)

    def must_rest(self, now: float, why: str) -> None:
        """Something happened at ``now`` after which the base must come to rest."""
        self.since, self.why = now, why

    def may_move(self) -> None:
        """The base may move again."""
        self.since = None

    def truth(self, now: float, speed: float, rate: float) -> None:
        """The base moves so at ``now``."""
        if (
            self.since is not None
            and now - self.since > PROMISE + BRAKING
            and (abs(speed) > MOVING_SPEED or abs(rate) > MOVING_RATE)
        ):
            self.unsafe.append(
                f"{now - self.since:.2f} s after '{self.why}' the base moves at "
                f"{speed:.2f} m/s and {rate:.2f} rad/s"
            )
            self.since = None


@dataclass
class Growth:
    """
    Resident memory of one process over its life, bytes: how much the end exceeds the end of its
    warm-up.
    """

    warm_up: float
    begun: float | None = None
    base: int | None = None
    worst: int = 0

    def restart(self, loading: bool = False) -> None:
        """
        The process is a new one; ``loading``: nothing is measured until ``restart`` is called
        again.
        """
        self.begun, self.base = (math.inf if loading else None), None

    def look(self, now: float, resident: int) -> None:
        """It holds ``resident`` bytes at ``now``."""
        self.begun = now if self.begun is None else self.begun
        if now - self.begun >= self.warm_up:
            self.base = resident if self.base is None else self.base
            self.worst = max(self.worst, resident - self.base)


def resident_bytes(pid: int) -> int:
    """Resident memory of a process; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def drift(totals: list[float]) -> float:
    """Median of the last tenth minus median of the first tenth, seconds; 0 of fewer than 20."""
    tenth = len(totals) // 10
    return (
        statistics.median(totals[-tenth:]) - statistics.median(totals[:tenth])
        if tenth >= 2
        else 0.0
    )


@dataclass
class Record:
    """
    What a drive came to: faults and endings by name, seconds of each decision, and how many of the
    camera's frames were published and received.
    """

    episodes: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    totals: list[float] = field(default_factory=list)
    published: int = 0
    received: int = 0

    def ended(self, error_code: int) -> None:
        """A goal was answered."""
        self.outcomes[ERROR_NAMES.get(error_code, "?")] += 1


class Soak:
    """
    One drive. ``handle`` and ``result``: the goal that runs, and its answer to come; None where
    none runs.
    """

    def __init__(
        self, plan: Plan, processes: Processes, client: GraphClient, tell: Callable[[str], None]
    ):
        self.plan, self.processes, self.client, self.tell = plan, processes, client, tell
        self.dice = random.Random(plan.seed)
        self.rest = RestWatch()
        self.growth = {
            name: Growth(min(120.0, plan.seconds / 10)) for name in ("policy", "motion")
        }
        self.record = Record()
        self.frames = 0
        self.handle: Any = None
        self.result: Any = None
        self.begun = time.monotonic()
        self.looked = 0.0
        self.late: dict[str, list[float]] = {name: [] for name in self.growth}
        self.undisturbed = time.monotonic() + AFTERMATH
        node = client.node
        node.create_subscription(Odometry, "ground_truth", self._on_truth, QoSProfile(depth=50))
        # not unpacked: they are only counted
        node.create_subscription(
            CompressedImage, "image/compressed", self._on_frame, QoSProfile(depth=20), raw=True
        )
        self.heartbeat = 0.0
        node.create_subscription(
            Heartbeat, "policy/heartbeat", self._on_heartbeat, QoSProfile(depth=1)
        )
        node.create_subscription(
            DiagnosticArray, "/diagnostics", self._on_diagnostics, QoSProfile(depth=20)
        )
        self.estop = node.create_publisher(Bool, "estop", 10)
        self.speak = node.create_publisher(String, "instruction", 10)

    def _on_truth(self, message: Odometry) -> None:
        now = time.monotonic()
        self.rest.truth(now, message.twist.twist.linear.x, message.twist.twist.angular.z)
        if now - self.looked > 1.0:
            self.looked = now
            for name, growth in self.growth.items():
                growth.look(now, resident_bytes(self.processes.running[name].pid))

    def _on_heartbeat(self, message: Heartbeat) -> None:
        self.heartbeat = time.monotonic()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        """Each node tells once a second how late its timers were at worst."""
        for status in message.status:
            name = status.name.strip("/").partition(":")[0]
            figures = {pair.key: pair.value for pair in status.values}
            if (
                name in self.late
                and "callback_late_max" in figures
                and time.monotonic() > self.undisturbed
            ):
                self.late[name].append(float(figures["callback_late_max"]))

    def _on_frame(self, message: bytes) -> None:
        self.frames += 1

    def run(self) -> None:
        """Drive for the time of the plan, or until interrupted; count the camera's frames."""
        self.client.reset("")
        self.client.linger(lambda: False, 1.0)
        published, received = int(self.client.metrics()["frames_total"]), self.frames
        self.begun = time.monotonic()
        try:
            self.drive(self.begun + self.plan.seconds)
        except KeyboardInterrupt:
            self.tell("interrupted: the report covers the time until now")
        self.record.published = int(self.client.metrics()["frames_total"]) - published
        self.record.received = self.frames - received

    def drive(self, until: float) -> None:
        """Episodes until the steady clock says ``until``."""
        record, client = self.record, self.client
        next_fault = time.monotonic() + self.dice.expovariate(1 / self.plan.every)
        while time.monotonic() < until:
            episode = client.reset("")
            client.arm()
            self.rest.may_move()
            goal = FollowInstruction.Goal(
                instruction=episode.instruction,
                max_steps=self.plan.max_steps,
                start_stamp=episode.first_frame,
            )
            record.episodes += 1
            self._send(goal)
            while self.result and not self.result.done() and time.monotonic() < until:
                client.linger(
                    self.result.done, max(0.05, min(next_fault, until) - time.monotonic())
                )
                client.alive()
                if not self.result.done() and self.plan.faults and time.monotonic() >= next_fault:
                    fault = self.dice.choice(self.plan.faults)
                    record.faults[fault] += 1
                    getattr(self, f"_{fault}")(goal)
                    next_fault = time.monotonic() + self.dice.expovariate(1 / self.plan.every)
            if self.result and self.result.done():
                record.ended(self.result.result().result.error_code)
            record.totals += [float(d.total) for d in client.telemetry.decisions]
            self.tell(
                f"episode {record.episodes}: {sum(record.faults.values())} faults, "
                f"{len(self.rest.unsafe)} unsafe moments, {dict(record.outcomes)}"
            )
        client.arm(False)

    def _send(self, goal: Any) -> None:
        sent = self.client.follow.send_goal_async(goal)
        self.client.until(sent.done, 60.0, "follow_instruction did not answer")
        self.handle = sent.result()
        self.result = self.handle.get_result_async()

    def _stand(self, why: str) -> None:
        """From now on the base must rest; look for a while."""
        self.rest.must_rest(time.monotonic(), why)
        self.client.linger(lambda: False, PROMISE + BRAKING + 0.7)

    def _cancel(self, goal: Any) -> None:
        self.handle.cancel_goal_async()
        self._stand("cancel")

    def _preempt(self, goal: Any) -> None:
        preempted = self.result
        slowly = goal.instruction + " slowly"
        self._send(FollowInstruction.Goal(instruction=slowly, max_steps=goal.max_steps))
        self.client.until(preempted.done, 60.0, "a preempted goal was not answered")
        self.record.ended(preempted.result().result.error_code)

    def _estop(self, goal: Any) -> None:
        self.estop.publish(Bool(data=True))
        self._stand("e-stop")
        self.estop.publish(Bool(data=False))
        self.client.linger(lambda: False, 0.5)  # released is not armed

    def _disarm(self, goal: Any) -> None:
        self.client.arm(False)
        self._stand("disarm")

    def _flood(self, goal: Any) -> None:
        for i in range(50):
            self.speak.publish(String(data=goal.instruction if i % 2 else "\x00" * (i * 100)))

    def _freeze(self, goal: Any) -> None:
        process = self.processes.running[self.dice.choice(["policy", "motion"])]
        os.kill(process.pid, signal.SIGSTOP)
        self.undisturbed = math.inf
        try:
            self.rest.must_rest(time.monotonic(), "freeze")
            self.client.linger(lambda: False, FREEZE)
            self.rest.may_move()
        finally:
            os.kill(process.pid, signal.SIGCONT)
            self.undisturbed = time.monotonic() + AFTERMATH

    def _kill_policy(self, goal: Any) -> None:
        process = self.processes.running["policy"]
        self.undisturbed = math.inf
        process.kill()
        process.wait()
        self.rest.must_rest(time.monotonic(), "policy killed")
        self.processes.run("policy")
        self.growth["policy"].restart(loading=True)
        self._stand("policy killed")
        self.record.outcomes["(killed)"] += 1
        self.result = None
        # The dead one's services linger until the middleware misses it, and would swallow a
        # question: only the new one's heartbeat tells that it is active.
        self.heartbeat = 0.0
        self.client.until(
            lambda: self.heartbeat > 0, 600.0, "the restarted policy did not become active"
        )
        self.client.linger(lambda: False, 2.0)
        self.growth["policy"].restart()
        self.undisturbed = time.monotonic() + AFTERMATH


def soak(plan: Plan, tell: Callable[[str], None]) -> dict[str, Any]:
    """
    Drive, and return the figures (sizes in bytes, times in seconds; ``callback_late``: the worst
    of each second that no freeze or restart falls into).
    """
    given = {
        "mode": "continuous",
        "data_dir": str(plan.data_dir),
        "split": plan.split,
        "checkpoint": plan.checkpoint,
        "seed": str(plan.seed),
    }
    size = {"image_width": plan.width, "image_height": plan.height, "frame_rate": plan.frame_rate}
    overrides: dict[str, dict[str, Any]] = {
        "sim_bridge": {**size, "odom_noise": 0.02, "odom_latency": 0.05}
    }
    specs = resolve("simulation", given, overrides)
    drive, error = None, ""
    if plan.log_dir is not None:
        plan.log_dir.mkdir(parents=True, exist_ok=True)
    try:
        with private_graph(specs, plan.log_dir, plan.domain) as (client, processes):
            client.wait_ready()
            tell(f"driving for {plan.seconds / 3600:g} h in ROS domain {client.domain}")
            drive = Soak(plan, processes, client, tell)
            drive.run()
    except (GraphTimeoutError, NodeEndedError) as problem:
        error = str(problem)
        tell(f"error: {error}")
    if drive is None:
        return {"hours": 0.0, "episodes": 0, "faults": 0, "unsafe_moments": 0, "error": error}
    record = drive.record
    return {
        "hours": round((time.monotonic() - drive.begun) / 3600, 4),
        "episodes": record.episodes,
        "faults": sum(record.faults.values()),
        "unsafe_moments": len(drive.rest.unsafe),
        "memory_growth_bytes": {name: growth.worst for name, growth in drive.growth.items()},
        "callback_late_max": {name: max(late, default=0.0) for name, late in drive.late.items()},
        "callback_late_p99": {name: percentile(late, 99) for name, late in drive.late.items()},
        "dropped_frames": max(0, record.published - record.received),
        "latency_drift": drift(record.totals),
        "published_frames": record.published,
        "decisions": len(record.totals),
        "faults_by_kind": dict(record.faults),
        "outcomes": dict(record.outcomes),
        "unsafe": drive.rest.unsafe,
        "error": error,
    }

"""
Plays a rosbag into the graph with ``/clock``, for machines without ``ros2 bag play``: pause, rate,
loop, start offset.

Topics keep their recorded names; what the recorded policy published comes under ``recorded/``, so
that it does not mix with the policy that runs now.
"""

import heapq
import importlib
import queue
import threading
import time
from dataclasses import dataclass
from typing import Any

from janusvln_ros.data.bags import Bag, Message, message_types, open_bag
from janusvln_ros.data.drives import DECISION_TYPE, recorded_moments
from janusvln_ros.errors import InputError
from janusvln_ros.nodes.parameters import Param, declare, follow_changes
from janusvln_ros.nodes.running import leave, run_node

TITLE = "Parameters of the player: a rosbag into the graph."
PARAMETERS = (
    Param("bag", "", "Rosbag to play: a folder, or a single .mcap or .db3 file."),
    Param("rate", 1.0, "Seconds of the bag per second.", 0.01, 100.0, live=True),
    Param(
        "loop",
        False,
        "Start again at the end. The clock then jumps back, and the policy begins a new episode.",
    ),
    Param("start_offset", 0.0, "Seconds of the bag to leave out at its start.", 0.0, 1e6),
    Param("start_paused", False, "Wait for the service ~/resume before the first message."),
    Param(
        "wait_for_subscriber",
        "",
        "Topic that somebody must listen to before the first message is published, "
        "for example 'image'. Empty: do not wait.",
    ),
    Param(
        "clock_hz", 100.0, "Messages per second on /clock, on the clock of the bag.", 1.0, 1000.0
    ),
)

QUEUE_MESSAGES = 32
"""Messages read ahead, so that unpacking a chunk does not make one late."""
INSTRUCTION_LEAD_NS = 300_000_000
"""
Words that come from recorded decisions are played this long before the first frame, so that they
are there when it comes.
"""
NOT_PLAYED = ("/clock", "/rosout", "/parameter_events")
MAX_SLEEP_S = 0.02
"""Longest sleep between looks at pause, rate and stop."""


@dataclass
class PlayClock:
    """
    Time of the bag as a function of the steady clock.

    Pure: every method takes ``now``, seconds on the steady clock; bag times are nanoseconds.
    """

    bag_time: int
    since: float
    rate: float = 1.0
    paused: bool = False

    def at(self, now: float) -> int:
        """Bag time at ``now``."""
        return (
            self.bag_time
            if self.paused
            else self.bag_time + int((now - self.since) * self.rate * 1e9)
        )

    def wait(self, bag_time: int, now: float) -> float:
        """
        Seconds until ``bag_time`` is due; infinite while paused, not positive when it is due.
        """
        return float("inf") if self.paused else (bag_time - self.at(now)) / 1e9 / self.rate

    def change(
        self,
        now: float,
        *,
        rate: float | None = None,
        paused: bool | None = None,
        bag_time: int | None = None,
    ) -> None:
        """Change rate, pause or jump at ``now``, without moving what was played before."""
        self.bag_time, self.since = self.at(now) if bag_time is None else bag_time, now
        self.rate = self.rate if rate is None else rate
        self.paused = self.paused if paused is None else paused


def played_name(topic: str, msgtype: str) -> str | None:
    """The name under which a recorded topic is played, or None for one that is not."""
    if topic in NOT_PLAYED:
        return None
    if msgtype == "janusvln_msgs/msg/Decision" or "/overlay" in topic:
        return f"/recorded{topic}"
    return topic


def spoken(bag: Bag) -> list[Message]:
    """
    The words of each recorded episode as messages on ``/instruction``, a little before its first
    frame: a goal's words are in no topic of their own.

    Empty where the bag has an instruction topic, or no decisions.
    """
    if "std_msgs/msg/String" in bag.topics.values() or DECISION_TYPE not in bag.topics.values():
        return []
    types = message_types()
    kind = types.types["std_msgs/msg/String"]
    first = {
        moment.episode: moment for moment in reversed(recorded_moments(bag)) if moment.instruction
    }
    words = sorted(first.values(), key=lambda moment: moment.stamp)
    cdrs = [
        bytes(types.serialize_cdr(kind(data=moment.instruction), kind.__msgtype__))
        for moment in words
    ]
    return [
        Message("/instruction", kind.__msgtype__, moment.stamp - INSTRUCTION_LEAD_NS, cdr)
        for moment, cdr in zip(words, cdrs)
    ]


def message_class(msgtype: str) -> Any:
    """
    The Python class of ``package/msg/Name``.

    Raises:
        InputError: its package is not installed.
    """
    package, namespace, name = msgtype.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.{namespace}"), name)
    except (ImportError, AttributeError):
        raise InputError(f"message type {msgtype} is not installed here") from None


def make_node() -> Any:
    """The player node. Publishing runs on a thread of its own, the services on the executor's."""
    from rclpy.node import Node
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from rosgraph_msgs.msg import Clock
    from std_srvs.srv import Trigger

    class Player(Node):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__("player")
            self.values = declare(self, PARAMETERS)
            if not self.values.bag:
                raise InputError("parameter 'bag' is empty; give the path of a rosbag")
            # a bad bag must be an error at start, not in a thread
            with open_bag(self.values.bag) as bag:
                start_time, played = (
                    bag.start,
                    {t: m for t, m in bag.topics.items() if played_name(t, m)},
                )
                self.words = spoken(bag)
                if bag.damage:
                    self.get_logger().warning(bag.damage)
            if self.words:
                start_time = min(start_time, self.words[0].log_time)
                played["/instruction"] = self.words[0].msgtype
            follow_changes(self, PARAMETERS, self.values)
            self.exit_code: int | None = None
            self.lateness: list[float] = []
            qos = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
            self.outputs: dict[str, Any] = {}
            for topic, msgtype in played.items():
                try:
                    self.outputs[topic] = self.create_publisher(
                        message_class(msgtype), str(played_name(topic, msgtype)), qos
                    )
                except InputError as error:
                    self.get_logger().warning(f"{topic} is not played: {error}")
            self.clock_output = self.create_publisher(Clock, "/clock", QoSProfile(depth=10))
            self.first = start_time + int(self.values.start_offset * 1e9)
            self.play_clock = PlayClock(
                self.first, time.monotonic(), self.values.rate, self.values.start_paused
            )
            self.lock = threading.Lock()
            self.stopping = threading.Event()
            self.create_service(
                Trigger, "~/pause", lambda _request, response: self.set_paused(True, response)
            )
            self.create_service(
                Trigger, "~/resume", lambda _request, response: self.set_paused(False, response)
            )
            self.thread = threading.Thread(target=self.play, name="player", daemon=True)
            self.thread.start()

        def set_paused(self, paused: bool, response: Any) -> Any:
            with self.lock:
                self.play_clock.change(time.monotonic(), paused=paused)
            response.success, response.message = True, "paused" if paused else "playing"
            return response

        def play(self) -> None:
            try:
                self.wait_for_listener()
                while not self.stopping.is_set():
                    with self.lock:
                        self.play_clock.change(time.monotonic(), bag_time=self.first)
                    self.play_once()
                    if not self.values.loop:
                        break
                self.get_logger().info(
                    f"the bag is at its end; lateness p99 {self.lateness_p99() * 1e3:.1f} ms"
                )
                self.exit_code = 0
            except Exception as error:
                self.get_logger().error(f"playing stopped: {error}")
                self.exit_code = 1

        def play_once(self) -> None:
            with open_bag(self.values.bag) as bag:
                ahead: queue.Queue[Message | None] = queue.Queue(QUEUE_MESSAGES)
                reader = threading.Thread(
                    target=self.read_ahead, args=(bag, ahead), name="reader", daemon=True
                )
                reader.start()
                next_clock = 0
                while (message := ahead.get()) is not None and not self.stopping.is_set():
                    next_clock = self.wait_until(message.log_time, next_clock)
                    if not self.stopping.is_set():
                        self.outputs[message.topic].publish(message.cdr)
                reader.join(timeout=1.0)

        def read_ahead(self, bag: Bag, ahead: "queue.Queue[Message | None]") -> None:
            for message in heapq.merge(
                self.words, bag.messages(list(self.outputs)), key=lambda message: message.log_time
            ):
                while message.log_time >= self.first and not self.stopping.is_set():
                    try:
                        ahead.put(message, timeout=0.1)
                        break
                    except queue.Full:
                        continue
                if self.stopping.is_set():
                    return
            ahead.put(None)

        def wait_until(self, bag_time: int, next_clock: int) -> int:
            """
            Sleep until ``bag_time`` is due, with /clock going on; return when the next clock
            message is due, in bag time.
            """
            while not self.stopping.is_set():
                now = time.monotonic()
                with self.lock:
                    if self.play_clock.rate != self.values.rate:
                        self.play_clock.change(now, rate=self.values.rate)
                    wait, bag_now, paused = (
                        self.play_clock.wait(bag_time, now),
                        self.play_clock.at(now),
                        self.play_clock.paused,
                    )
                shown = min(bag_now, bag_time)
                # a jump back (loop) must show at once
                if shown >= next_clock or next_clock - shown > 10**9:
                    self.publish_clock(shown)
                    next_clock = shown + int(1e9 / self.values.clock_hz)
                if wait <= 0:
                    self.lateness.append(-wait)
                    break
                self.stopping.wait(
                    MAX_SLEEP_S if paused else min(wait, MAX_SLEEP_S, 1 / self.values.clock_hz)
                )
            return next_clock

        def publish_clock(self, bag_time: int) -> None:
            message = Clock()
            message.clock.sec, message.clock.nanosec = divmod(bag_time, 10**9)
            self.clock_output.publish(message)

        def wait_for_listener(self) -> None:
            wanted = self.values.wait_for_subscriber
            while wanted and not self.stopping.is_set() and not self.count_subscribers(wanted):
                self.stopping.wait(0.05)

        def lateness_p99(self) -> float:
            ordered = sorted(self.lateness) or [0.0]
            return ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]

        def close(self) -> None:
            self.stopping.set()
            self.thread.join(timeout=1.5)

    return Player()


def main() -> None:
    """Entry point of the executable ``player``."""
    leave(run_node(make_node))

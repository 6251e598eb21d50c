"""
Plays a rosbag into the graph with ``/clock``, for machines without ``ros2 bag play``: pause, rate,
loop, start offset.

Topics keep their recorded names; what the recorded policy published comes under ``recorded/``, so
that it does not mix with the policy that runs now.
"""

import heapq
import queue
import threading
import time
from dataclasses import replace
from typing import Any

from janusvln_msgs.msg import Decision
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from std_srvs.srv import Trigger

from janusvln_ros.data.bags import Bag, Message, open_bag
from janusvln_ros.data.drives import camera_topics, instruction_topics
from janusvln_ros.data.playback import (
    PlayClock,
    latched_depth,
    nothing_decided,
    played_name,
    spoken,
)
from janusvln_ros.errors import InputError, require
from janusvln_ros.nodes.messages import kept_for_latecomers, message_class, stamp_message
from janusvln_ros.nodes.parameters import Param, declare, follow_changes
from janusvln_ros.nodes.running import leave, run_node, steady_timer
from janusvln_ros.protocol.health import percentile

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
        "instruction",
        "",
        "Words to say before the first frame, instead of those in the bag. Empty: those in the "
        "bag, on its instruction topic or in its decisions.",
    ),
    Param(
        "clock_hz", 100.0, "Messages per second on /clock, on the clock of the bag.", 1.0, 1000.0
    ),
)

QUEUE_MESSAGES = 32
"""Messages read ahead, so that unpacking a chunk does not make one late."""
QUIET_S = 5.0
"""Seconds of playing to a policy without a decision after which that is told."""
MAX_SLEEP_S = 0.02
"""Longest sleep between looks at pause, rate and stop."""


class Player(Node):  # type: ignore[misc]
    """The node. Publishing runs on a thread of its own, the services on the executor's."""

    def __init__(self) -> None:
        super().__init__("player")
        self.values = declare(self, PARAMETERS)
        require(self.values.bag, "parameter 'bag' is empty; give the path of a rosbag")
        # a bad bag must be an error at start, not in a thread
        with open_bag(self.values.bag) as bag:
            start_time = bag.start
            played = {t: m for t, m in bag.topics.items() if played_name(t, m)}
            self.words = spoken(bag, self.values.instruction)
            if self.values.instruction:
                played = {t: m for t, m in played.items() if t not in instruction_topics(bag)}
            depths = {topic: latched_depth(topic, bag.qos.get(topic, ())) for topic in played}
            self.cameras = camera_topics(bag)
            self.has_words = bool(self.words or instruction_topics(bag))
            self.held = bag.held
            if bag.damage:
                self.get_logger().warning(bag.damage)
        if self.words:
            start_time = min(start_time, self.words[0].log_time)
            played["/instruction"] = self.words[0].msgtype
        self.exit_code: int | None = None
        self.lateness: list[float] = []
        self.outputs: dict[str, Any] = {}
        self.latched = {topic for topic, depth in depths.items() if depth}
        for topic, msgtype in played.items():
            try:
                self._announce(topic, msgtype, depths.get(topic, 0))
            except InputError as error:
                self.get_logger().warning(f"{topic} is not played: {error}")
        self.started: float | None = None  # when the first message was played, steady clock
        self.decided = self.told = False
        self.create_subscription(Decision, "policy/decision", self._on_decision, 10)
        self.quiet = steady_timer(self, 0.5, self._look_for_decisions)
        steady_timer(self, 0.5, self._look_for_robot)
        self.clock_output = self.create_publisher(Clock, "/clock", QoSProfile(depth=10))
        self.first = start_time + int(self.values.start_offset * 1e9)
        self.play_clock = PlayClock(
            self.first, time.monotonic(), self.values.rate, self.values.start_paused
        )
        self.lock = threading.Lock()
        follow_changes(self, PARAMETERS, self.values, self._change_rate)
        self.stopping = threading.Event()
        self.create_service(Trigger, "~/pause", lambda _, answer: self._set_paused(True, answer))
        self.create_service(Trigger, "~/resume", lambda _, answer: self._set_paused(False, answer))
        self.thread = threading.Thread(target=self._play, name="player", daemon=True)
        self.thread.start()

    def _announce(self, topic: str, msgtype: str, kept: int) -> None:
        """Make the publisher of a topic, as lasting as the recorded ones were."""
        reliable = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
        qos = kept_for_latecomers(kept) if kept else reliable
        name = str(played_name(topic, msgtype))
        self.outputs[topic] = self.create_publisher(message_class(msgtype), name, qos)

    def _on_decision(self, _: Decision) -> None:
        self.decided = True

    def _look_for_robot(self) -> None:
        """End where a robot that drives would take what the bag tells for its own."""
        for output in self.outputs.values():
            topic = output.topic_name
            if any(i.node_name == "motion" for i in self.get_subscriptions_info_by_topic(topic)):
                self.get_logger().error(
                    f"playing stopped: motion listens to {topic}, and would take what the bag "
                    "tells for the robot's own: play in another domain (ROS_DOMAIN_ID), or end "
                    "motion"
                )
                self.stopping.set()
                self.exit_code = 1
                return

    def _look_for_decisions(self) -> None:
        """Say so, once, if a policy is there and decides on nothing."""
        if self.play_clock.paused or self.started is None:
            self.started = None if self.started is None else time.monotonic()
            return
        if not self.decided and time.monotonic() - self.started < QUIET_S:
            return
        self.destroy_timer(self.quiet)
        self._tell_undecided()

    def _tell_undecided(self) -> None:
        if not self.decided and not self.told and self.count_publishers("policy/decision"):
            self.told = True
            heard = {
                topic: self.outputs[topic].get_subscription_count() > 0
                for topic in self.cameras
                if topic in self.outputs
            }
            self.get_logger().warning(nothing_decided(self.held, self.has_words, heard))

    def _set_paused(self, paused: bool, response: Any) -> Any:
        with self.lock:
            self.play_clock.change(time.monotonic(), paused=paused)
        response.success, response.message = True, "paused" if paused else "playing"
        return response

    def _change_rate(self) -> None:
        with self.lock:
            self.play_clock.change(time.monotonic(), rate=self.values.rate)

    def _play(self) -> None:
        try:
            self._wait_for_listener()
            self._look_for_robot()
            while not self.stopping.is_set():
                with self.lock:
                    self.play_clock.change(time.monotonic(), bag_time=self.first)
                self._play_once()
                if not self.values.loop:
                    break
            if not self.stopping.is_set():
                self._tell_undecided()
                late = percentile(self.lateness, 99) * 1e3
                self.get_logger().info(f"the bag is at its end; lateness p99 {late:.1f} ms")
                self.exit_code = 0
        except Exception as error:
            self.get_logger().error(f"playing stopped: {error}")
            self.exit_code = 1

    def _play_once(self) -> None:
        with open_bag(self.values.bag) as bag:
            ahead: queue.Queue[Message | None] = queue.Queue(QUEUE_MESSAGES)
            reader = threading.Thread(
                target=self._read_ahead, args=(bag, ahead), name="reader", daemon=True
            )
            reader.start()
            next_clock = 0
            while (message := ahead.get()) is not None and not self.stopping.is_set():
                next_clock = self._wait_until(message.log_time, next_clock)
                if not self.stopping.is_set():
                    self.started = self.started or time.monotonic()
                    self.outputs[message.topic].publish(message.cdr)
            if bag.damage and not self.stopping.is_set():
                self.get_logger().warning(bag.damage)
            reader.join(timeout=1.0)

    def _read_ahead(self, bag: Bag, ahead: "queue.Queue[Message | None]") -> None:
        for message in heapq.merge(
            self.words, bag.messages(list(self.outputs)), key=lambda message: message.log_time
        ):
            if message.log_time < self.first:
                if message.topic not in self.latched:
                    continue
                message = replace(message, log_time=self.first)
            while not self.stopping.is_set():
                try:
                    ahead.put(message, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if self.stopping.is_set():
                return
        ahead.put(None)

    def _wait_until(self, bag_time: int, next_clock: int) -> int:
        """
        Sleep until ``bag_time`` is due, with /clock going on; return when the next clock
        message is due, in bag time.
        """
        while not self.stopping.is_set():
            now = time.monotonic()
            with self.lock:
                wait, paused = self.play_clock.wait(bag_time, now), self.play_clock.paused
                shown = min(self.play_clock.at(now), bag_time)
            # a jump back (loop) must show at once
            if shown >= next_clock or next_clock - shown > 10**9:
                self.clock_output.publish(Clock(clock=stamp_message(shown)))
                next_clock = shown + int(1e9 / self.values.clock_hz)
            if wait <= 0:
                self.lateness.append(-wait)
                break
            nap = MAX_SLEEP_S if paused else min(wait, MAX_SLEEP_S, 1 / self.values.clock_hz)
            self.stopping.wait(nap)
        return next_clock

    def _wait_for_listener(self) -> None:
        wanted = self.values.wait_for_subscriber
        while wanted and not self.stopping.is_set() and not self.count_subscribers(wanted):
            self.stopping.wait(0.05)

    def close(self) -> None:
        """End the thread that publishes."""
        self.stopping.set()
        self.thread.join(timeout=1.5)


def main() -> None:
    """Entry point of the executable ``janusvln_player``."""
    leave(run_node(Player))

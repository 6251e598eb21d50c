"""A node of ours in somebody's ROS domain: waits that end, services that answer or are named."""

import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import rclpy
from janusvln_msgs.msg import Heartbeat
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from janusvln_ros.graph.processes import PROFILE_VARIABLES
from janusvln_ros.nodes.shared_memory import clear_dead, keep_private
from janusvln_ros.protocol.exchange import new_life

MIDDLEWARE_VARIABLES = (
    "ROS_AUTOMATIC_DISCOVERY_RANGE",
    "ROS_LOCALHOST_ONLY",
    *PROFILE_VARIABLES,
)

ATTENDANCE_PERIOD = 0.2
"""Seconds between the heartbeats of a client that has asked for a drive."""

MATCHED_S = 3.0
"""Seconds that whoever listens to them may take to be discovered."""

ASKED_AGAIN_S = 3.0
"""Seconds after which a question that may be repeated is asked again."""


class GraphTimeoutError(Exception):
    """Something that the graph should do did not happen in time; the message says what."""


class RefusedError(GraphTimeoutError):
    """A node answered that it does not do what it was asked for; the message says why."""


def alive_always() -> None:
    """Nothing to look after: the nodes are somebody else's."""


class Connection:
    """
    A node beside a graph.

    Use from one thread; every wait spins it and calls ``alive``, which raises if a node has died.

    Args:
        environment: variables that choose the ROS domain and the middleware's settings.
        alive: looks after the nodes.
        name: of the node; several of one name may run beside a graph.
        enclave: of SROS2, if it is on.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        alive: Callable[[], None] = alive_always,
        name: str = "graph_client",
        enclave: str = "/",
    ):
        # The middleware reads the environment when a context is made.
        os.environ.update(
            {key: environment[key] for key in MIDDLEWARE_VARIABLES if key in environment}
        )
        clear_dead()
        self.alive = alive
        self.domain = int(environment.get("ROS_DOMAIN_ID", "0"))
        self.context = rclpy.Context()
        rclpy.init(
            # a command's own NAME:=VALUE words are no remaps
            args=["--ros-args", "--enclave", enclave],
            context=self.context,
            domain_id=self.domain,
            signal_handler_options=SignalHandlerOptions.NO,
        )
        self.node = rclpy.create_node(name, context=self.context, start_parameter_services=False)
        keep_private()
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.clients: dict[str, Any] = {}

    def close(self) -> None:
        """Leave the graph."""
        self.executor.remove_node(self.node)
        self.node.destroy_node()
        self.executor.shutdown()
        rclpy.try_shutdown(context=self.context)

    def until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """
        Spin until ``condition``.

        Raises:
            GraphTimeoutError: it did not come true within ``seconds``; the message is ``what``.
        """
        end, look = time.monotonic() + seconds, 0.0
        while not condition():
            now = time.monotonic()
            if now > end:
                raise GraphTimeoutError(f"{what} within {seconds:.0f} s")
            if now > look:
                self.alive()
                look = now + 0.2
            self.executor.spin_once(timeout_sec=0.05)

    def linger(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Spin until ``condition``, or for ``seconds``; return whether it came true."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                return False
            self.executor.spin_once(timeout_sec=0.05)
        return True

    @contextmanager
    def attending(self, name: str) -> Iterator[int]:
        """
        Send heartbeats on the topic ``name`` while the block runs, of a life that it is given; the
        block begins when somebody listens.

        They come from a thread of their own: a terminal that is slow to print, or a picture that
        takes long to write, is no death.
        """
        life, over = new_life(), threading.Event()
        publisher = self.node.create_publisher(Heartbeat, name, 1)

        def beat() -> None:
            while not over.wait(ATTENDANCE_PERIOD):
                publisher.publish(Heartbeat(life=life))

        self.linger(lambda: publisher.get_subscription_count() > 0, MATCHED_S)
        publisher.publish(Heartbeat(life=life))
        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield life
        finally:
            over.set()
            thread.join()
            self.node.destroy_publisher(publisher)

    def client_of(self, kind: Any, name: str) -> Any:
        """
        The client of a service, kept for every call: an answer that comes before both sides know
        each other is lost, as happens on a busy machine.
        """
        if name not in self.clients:
            self.clients[name] = self.node.create_client(kind, name)
        return self.clients[name]

    def call(
        self, kind: Any, name: str, request: Any, seconds: float = 60.0, repeatable: bool = False
    ) -> Any:
        """
        Call a service and return its response.

        A ``repeatable`` request is made again until it is answered. That is one that may be
        carried out twice and at any later moment: not to arm (somebody may have disarmed since),
        not to reset (the drive may have begun).

        Raises:
            GraphTimeoutError: it is not there, or does not answer.
        """
        client = self.client_of(kind, name)
        self.until(client.service_is_ready, seconds, f"service {name} did not appear")
        asked: list[Any] = []
        due = 0.0

        def answered() -> bool:
            nonlocal due
            if time.monotonic() >= due:
                asked.append(client.call_async(request))
                due = time.monotonic() + ASKED_AGAIN_S if repeatable else math.inf
            return any(future.done() for future in asked)

        try:
            self.until(answered, seconds, f"service {name} did not answer")
            return next(future.result() for future in asked if future.done())
        finally:
            for future in asked:
                client.remove_pending_request(future)

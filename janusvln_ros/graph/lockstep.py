"""
A simulated graph in lockstep for one program at a time: episodes through the real nodes, with
nothing but topics, services and actions in between.
"""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from builtin_interfaces.msg import Time
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from janusvln_ros.actions import Action
from janusvln_ros.camera.images import image_to_rgb
from janusvln_ros.graph.client import Episode, GraphClient, Outcome
from janusvln_ros.graph.composition import resolve
from janusvln_ros.graph.connection import GraphTimeoutError
from janusvln_ros.graph.private import private_graph
from janusvln_ros.stamps import nanoseconds

FRAME_SECONDS = 5.0
"""How long to wait for a frame before the bridge is asked for it again."""


@contextlib.contextmanager
def lockstep_graph(
    bridge: Mapping[str, Any], policy: Mapping[str, Any] | None, bags: Path | None = None
) -> Iterator["LockstepGraph"]:
    """
    Start ``sim_bridge`` in lockstep, with ``policy`` or without, in a ROS domain of its own; end
    them when the block is left.

    ``bridge`` and ``policy`` are parameters of the two nodes; ``policy`` None starts none, and the
    program decides with `LockstepGraph.step`. With ``bags`` a bag of every instruction goes into
    that folder.

    Raises:
        GraphTimeoutError: the graph did not come up in time.
        NodeEndedError: a node ended; its last words are in the message. The same from every
            method.
    """
    overrides = {"sim_bridge": {"publish_depth": False, **bridge}, "policy": dict(policy or {})}
    given = {"record": "true", "bags": str(bags)} if bags else {}
    specs = [
        spec
        for spec in resolve("simulation", given, overrides)
        if policy is not None or spec.name != "policy"
    ]
    with (
        tempfile.TemporaryDirectory(prefix="janusvln-ros-") as logs,
        private_graph(specs, Path(logs)) as (client, _),
    ):
        graph = LockstepGraph(client)
        if policy is None:
            graph.look()
            client.until(client.steps.server_is_ready, 120.0, "the simulator did not start")
        else:
            client.wait_ready()
        if bags:
            client.wait_recorder()
        yield graph


class LockstepGraph:
    """
    A program's place in a graph in lockstep, over its ``client``.

    Use from one thread, best the main one.
    """

    def __init__(self, client: GraphClient):
        self.client = client
        self.frame: tuple[int, npt.NDArray[np.uint8]] | None = None
        self.episodes = 0
        self.steps = 0
        self.stamp = Time()

    def look(self) -> None:
        """Keep the camera's newest frame from now on, for `see`."""

        def keep(message: Image) -> None:
            self.frame = (nanoseconds(message.header.stamp), image_to_rgb(message))

        kept = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.client.node.create_subscription(Image, "image", keep, kept)

    def reset(self, episode_id: str) -> Episode:
        """Put the robot at the start of an episode."""
        episode = self.client.reset(episode_id)
        self.episodes += 1
        self.steps = 0
        self.stamp = episode.first_frame
        return episode

    def follow(self, episode: Episode, instruction: str, max_steps: int) -> Outcome:
        """Let ``policy`` follow an instruction for at most ``max_steps`` decisions."""
        return self.client.drive(
            episode, instruction, max_steps=max_steps, time_limit=86400.0, patience=86400.0
        )

    def _resend(self) -> str:
        """Have the newest frame sent once more; its stamp, as seconds."""
        told = self.client.call(Trigger, "resend_frame", Trigger.Request(), repeatable=True)
        return str(told.message)

    def stop_after(self) -> None:
        """
        Carry out the STOP that ends an episode which ``policy`` did not end itself: the step after
        its last, on the newest frame.
        """
        decisions = self.client.telemetry.decisions
        newest = self._resend()
        seconds, _, fraction = newest.partition(".")
        result = self.client.step(
            decisions[-1].episode_id,
            decisions[-1].step + 1,
            Action.STOP,
            Time(sec=int(seconds), nanosec=int(fraction)),
        )
        if result.status not in (result.SUCCEEDED, result.BLOCKED):
            raise GraphTimeoutError(f"the last STOP was not carried out: {result.error_msg}")

    def step(self, action: Action) -> bool:
        """Carry out an action decided here; returns whether the robot collided."""
        result = self.client.step(self.episodes, self.steps, action, self.stamp)
        if result.status not in (result.SUCCEEDED, result.BLOCKED):
            raise GraphTimeoutError(f"step {self.steps} was not carried out: {result.error_msg}")
        self.steps += 1
        self.stamp = result.end_stamp
        return bool(result.collided)

    def see(self) -> npt.NDArray[np.uint8]:
        """
        The camera's frame after the last step or reset, uint8 [H, W, 3], exactly as it was
        rendered; asked for again if it was lost.
        """
        wanted = nanoseconds(self.stamp)
        for _ in range(5):
            self.client.linger(
                lambda: self.frame is not None and self.frame[0] == wanted, FRAME_SECONDS
            )
            if self.frame is not None and self.frame[0] == wanted:
                return self.frame[1]
            self.client.alive()
            self._resend()
        raise GraphTimeoutError(
            f"the frame of {self.stamp.sec}.{self.stamp.nanosec:09d} did not arrive"
        )

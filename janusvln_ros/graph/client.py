"""
The outside of a simulated graph, for programs that use it: starts episodes, sends instructions,
and keeps what the nodes say meanwhile.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from janusvln_msgs.action import ExecuteStep, FollowInstruction
from janusvln_msgs.msg import Decision
from janusvln_msgs.srv import GetMetrics, ResetEpisode
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from nav_msgs.msg import OccupancyGrid, Odometry
from rclpy.action import ActionClient
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CompressedImage
from std_srvs.srv import SetBool

from janusvln_ros.actions import Action, known_action
from janusvln_ros.data.top_down_map import TopDownMap
from janusvln_ros.geometry import yaw_of
from janusvln_ros.graph.connection import Connection, GraphTimeoutError, RefusedError
from janusvln_ros.protocol.status import STAGES, Code
from janusvln_ros.stamps import nanoseconds

POLLED_S = 0.1
"""Seconds between two looks at a node's state."""

DECISION_STATUS = {
    Decision.OK: "ok",
    Decision.NOT_UNDERSTOOD: "not_understood",
    Decision.ERROR: "error",
}

ERROR_NAMES = {code: name for name, code in vars(Code).items() if name.isupper()}
"""Error code of follow_instruction -> its name."""


@dataclass
class Telemetry:
    """
    What the nodes said since the episode began. Stamps are nanoseconds of simulated time.

    ``frames``: the camera's JPEGs; ``poses``: the true pose as (stamp, x, y, z, heading) in the
    simulator's world; ``decisions`` in order.
    """

    frames: dict[int, bytes] = field(default_factory=dict)
    poses: list[tuple[int, float, float, float, float]] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    floor: TopDownMap | None = None


@dataclass(frozen=True)
class Episode:
    """The episode that the bridge has started; ``first_frame`` is the stamp of its first frame."""

    episode_id: str
    scene_id: str
    instruction: str
    first_frame: Time


@dataclass(frozen=True)
class Outcome:
    """
    How following an instruction ended: the name of the error code ("NONE": the policy stopped by
    itself), the sentence, and the steps decided.
    """

    code: str
    message: str
    steps: int
    elapsed: float


class GraphClient(Connection):
    """
    A node beside a simulated graph.

    ``pictures``: also keep the camera's frames and the true poses, for a video.
    """

    def __init__(
        self, environment: Mapping[str, str], alive: Callable[[], None], pictures: bool = False
    ):
        super().__init__(environment, alive)
        self.telemetry = Telemetry()
        self.since = 0
        self.node.create_subscription(
            Decision,
            "policy/decision",
            lambda message: self.telemetry.decisions.append(message),
            100,
        )
        self.node.create_subscription(
            OccupancyGrid,
            "map",
            self._on_map,
            QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL),
        )
        if pictures:
            # late-comers' quality of service in lockstep, plain otherwise: volatile asks for less,
            # so it takes both
            self.node.create_subscription(
                CompressedImage, "image/compressed", self._on_frame, QoSProfile(depth=20)
            )
            self.node.create_subscription(
                Odometry, "ground_truth", self._on_pose, QoSProfile(depth=100)
            )
        self.follow: Any = ActionClient(self.node, FollowInstruction, "follow_instruction")
        self.steps: Any = ActionClient(self.node, ExecuteStep, "execute_step")

    def close(self) -> None:
        """Leave the graph."""
        self.follow.destroy()
        self.steps.destroy()
        super().close()

    def wait_ready(self, seconds: float = 300.0) -> None:
        """Wait until the simulator runs and the policy has loaded its model and is active."""
        self.until(
            self.client_of(ResetEpisode, "reset_episode").service_is_ready,
            seconds,
            "the simulator did not start",
        )

        self.wait_active("policy", seconds)
        self.until(self.follow.server_is_ready, seconds, "follow_instruction did not appear")
        self.until(self.steps.server_is_ready, seconds, "execute_step did not appear")
        self.until(
            lambda: self.node.count_publishers("policy/decision") > 0,
            seconds,
            "policy/decision did not appear",
        )

    def wait_active(self, node: str, seconds: float = 300.0) -> None:
        """
        Wait until a lifecycle node is active.

        Raises:
            GraphTimeoutError: it did not become active in time.
        """
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            told = self.call(GetState, f"{node}/get_state", GetState.Request(), left, True)
            if told.current_state.id == State.PRIMARY_STATE_ACTIVE:
                return
            self.linger(lambda: False, POLLED_S)
        raise GraphTimeoutError(f"{node} did not become active within {seconds:.0f} s")

    def wait_recorder(self, topic: str = "policy/decision", seconds: float = 60.0) -> None:
        """
        Return when the node ``recorder`` listens to the camera and to ``topic``, so that a drive's
        first frame and all that is decided are in its bag.

        Raises:
            GraphTimeoutError: it did not come up in time.
        """

        def listens(*names: str) -> bool:
            topics = [self.node.resolve_topic_name(name) for name in names]
            told = [self.node.get_subscriptions_info_by_topic(topic) for topic in topics]
            return any(info.node_name == "recorder" for infos in told for info in infos)

        self.until(
            lambda: listens("image", "image/compressed") and listens(topic),
            seconds,
            "the recorder did not start",
        )

    def arm(self, armed: bool = True, seconds: float = 60.0) -> None:
        """
        Arm ``motion``.

        Raises:
            RefusedError: it refuses, the message says why.
            GraphTimeoutError: it does not answer for ``seconds``.
        """
        response = self.call(SetBool, "motion/arm", SetBool.Request(data=armed), seconds)
        if not response.success:
            raise RefusedError(f"motion could not be armed: {response.message}")

    def reset(self, episode_id: str, dataset: str = "", split: str = "") -> Episode:
        """
        Put the robot at the start of an episode and forget what was heard before.

        Raises:
            RefusedError: the bridge cannot; the message says why.
        """
        self.telemetry = Telemetry(floor=self.telemetry.floor)
        response = self.call(
            ResetEpisode,
            "reset_episode",
            ResetEpisode.Request(episode_id=episode_id, dataset=dataset, split=split),
            120.0,
        )
        if not response.success:
            raise RefusedError(f"episode {episode_id!r} cannot be started: {response.error_msg}")
        self.since = nanoseconds(response.frame_stamp)
        self.telemetry.frames = {
            stamp: jpeg for stamp, jpeg in self.telemetry.frames.items() if stamp >= self.since
        }
        self.telemetry.poses = [pose for pose in self.telemetry.poses if pose[0] >= self.since]
        return Episode(
            response.episode_id, response.scene_id, response.instruction, response.frame_stamp
        )

    def drive(
        self,
        episode: Episode,
        instruction: str,
        max_steps: int = 0,
        time_limit: float = 0.0,
        progress: Callable[[Any], None] | None = None,
        patience: float = 3600.0,
    ) -> Outcome:
        """
        Send one instruction and wait until the policy has followed it.

        ``progress`` gets each feedback message.

        Raises:
            GraphTimeoutError: the goal was rejected, or the episode did not end within
                ``patience`` seconds.
        """
        goal = FollowInstruction.Goal(
            instruction=instruction,
            max_steps=max_steps,
            time_limit=time_limit,
            start_stamp=episode.first_frame,
        )
        with self.attending("policy/client") as goal.client:
            sent = self.follow.send_goal_async(
                goal,
                feedback_callback=(lambda heard: progress(heard.feedback)) if progress else None,
            )
            self.until(sent.done, 60.0, "follow_instruction did not answer")
            handle = sent.result()
            if not handle.accepted:
                raise RefusedError("follow_instruction rejected the goal")
            done = handle.get_result_async()
            self.until(done.done, patience, "the episode did not end")
        result = done.result().result
        self.until(
            lambda: len(self.telemetry.decisions) >= result.steps,
            10.0,
            f"only {len(self.telemetry.decisions)} of {result.steps} decisions arrived",
        )
        return Outcome(
            ERROR_NAMES.get(result.error_code, str(result.error_code)),
            result.error_msg,
            int(result.steps),
            float(result.elapsed),
        )

    def step(
        self, episode_id: int, step: int, action: Action, frame_stamp: Time, life: int = 0
    ) -> Any:
        """
        Ask for one step past the policy, as for the STOP that ends an episode at its limit;
        returns ExecuteStep's result. ``life``: whose heartbeats ``motion`` is to watch; a bridge
        in lockstep watches none.
        """
        sent = self.steps.send_goal_async(
            ExecuteStep.Goal(
                episode_id=episode_id,
                step=step,
                action=int(action),
                frame_stamp=frame_stamp,
                life=life,
            )
        )
        self.until(sent.done, 60.0, "execute_step did not answer")
        done = sent.result().get_result_async()
        self.until(done.done, 60.0, "execute_step did not end")
        return done.result().result

    def metrics(self) -> dict[str, Any]:
        """The bridge's metrics of the episode."""
        response = self.call(GetMetrics, "get_metrics", GetMetrics.Request(), repeatable=True)
        if not response.success:
            raise RefusedError(f"the bridge gives no metrics: {response.error_msg}")
        return dict(json.loads(response.metrics_json))

    def _on_frame(self, message: CompressedImage) -> None:
        self.telemetry.frames[nanoseconds(message.header.stamp)] = bytes(message.data)

    def _on_pose(self, message: Odometry) -> None:
        place, turn = message.pose.pose.position, message.pose.pose.orientation
        self.telemetry.poses.append(
            (
                nanoseconds(message.header.stamp),
                -place.y,
                place.z,
                -place.x,
                yaw_of(turn.x, turn.y, turn.z, turn.w),
            )
        )

    def _on_map(self, message: OccupancyGrid) -> None:
        free = (
            np.asarray(message.data, np.int8).reshape(message.info.height, message.info.width) == 0
        )
        size, origin = message.info.resolution, message.info.origin.position
        columns, rows = free.shape
        # the map's x is the world's -z, its y the world's -x
        self.telemetry.floor = TopDownMap(
            free[::-1, ::-1].T.copy(),
            (-(origin.y + columns * size), -(origin.x + rows * size)),
            size,
        )


def decision_row(message: Decision) -> dict[str, Any]:
    """
    A decision as a JSON-ready object; what depends on the machine's speed is all under "timings".
    """
    action = known_action(message.action)
    finite = all(math.isfinite(p) for p in message.probabilities)
    return {
        "step": message.step,
        "episode_id": message.episode_id,
        "stamp": f"{message.header.stamp.sec}.{message.header.stamp.nanosec:09d}",
        "action": None if action is None else action.name,
        "status": DECISION_STATUS.get(message.status, str(message.status)),
        "text": message.text,
        "error": message.error_msg,
        "probabilities": [float(p) for p in message.probabilities] if finite else None,
        "spatial_frames": message.spatial_frames,
        "semantic_frames": message.semantic_frames,
        "memory_bytes": message.memory_bytes,
        "timings": {stage: float(getattr(message, stage)) for stage in STAGES},
    }


def timing_summary(decisions: list[Decision]) -> dict[str, dict[str, float]]:
    """Seconds per stage: the median and the 99th percentile over ``decisions``."""
    columns = {stage: [float(getattr(d, stage)) for d in decisions] for stage in STAGES}
    return {
        stage: {"p50": float(np.percentile(v, 50)), "p99": float(np.percentile(v, 99))}
        for stage, v in columns.items()
        if v
    }

"""
The ROS engine of rollouts: the episodes of ``evaluate``, ``collect`` and ``dagger`` through the
real graph in lockstep, for ``--ros``.

The policy drives as the node ``policy``. Every other agent decides in this process, on the frames
that arrive over ROS, and moves by ``execute_step``; a mirror of the simulator, moved by the same
actions, answers the questions that only agents with knowledge of the truth ask.
"""

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from janusvln_ros.actions import Action
from janusvln_ros.data.episodes import Episode
from janusvln_ros.errors import InputError
from janusvln_ros.evaluation.drive import Drive
from janusvln_ros.rollout.agents import Agent, PolicyAgent
from janusvln_ros.rollout.engine import DirectEngine, Engine, Rules, Watch
from janusvln_ros.rollout.settings import Settings, open_env
from sim_bridge import NavEnv, Observation
from sim_bridge.nav_env import parameter_names

if TYPE_CHECKING:
    from janusvln_ros.graph.lockstep import LockstepGraph

SAME_PLACE_M = 1e-6
"""How far the mirror may be from the simulated robot, metres: they make the same steps."""

ENDS = {
    "NONE": "stopped",
    "STEP_LIMIT": "step_limit",
    "NOT_UNDERSTOOD": "not_understood",
    "BLOCKED": "blocked",
}
"""How follow_instruction ended -> how a drive ended."""


def make_engine(
    settings: Settings, data_dir: Path, agent: Agent, shard: int, bags: str | None = None
) -> Engine:
    """
    The engine of a worker; see ``rollout.engines.make_engine``.

    In place of a `PolicyAgent` the node ``policy`` drives, with its checkpoint.

    With ``bags`` every instruction is recorded into that folder.

    Raises:
        InputError: the settings ask for something that the nodes do not have.
    """
    if settings.env.options:
        raise InputError("env.options cannot be given through ROS: run without --ros")
    if isinstance(agent, PolicyAgent):
        if agent.checkpoint is None:
            raise InputError(
                "this agent's checkpoint is not known, so that no node can load it: "
                "run without --ros"
            )
        return PolicyNodeEngine(settings, data_dir, agent.checkpoint, Path(bags) if bags else None)
    return SteppingEngine(settings, data_dir, agent)


def bridge_parameters(settings: Settings, data_dir: Path) -> dict[str, Any]:
    """Parameters of ``sim_bridge`` for these settings."""
    env = {there: getattr(settings.env, name) for name, there in parameter_names().items()}
    return env | {
        "backend": settings.backend,
        "data_dir": str(data_dir),
        "dataset": settings.dataset,
        "split": settings.split,
        "publish_compressed": False,
    }


class PolicyNodeEngine:
    """The model as the node ``policy``, told by ``follow_instruction``."""

    def __init__(
        self, settings: Settings, data_dir: Path, checkpoint: Path, bags: Path | None
    ) -> None:
        from janusvln_ros.model import JanusVLNConfig

        if settings.policy.prompt != "evaluation":
            raise InputError(
                f"policy.prompt is {settings.policy.prompt!r}: the node policy has "
                "'evaluation' only; run without --ros"
            )
        self.rules: Rules = settings.rules
        self.limit = settings.env.max_steps
        self.env = open_env(settings, data_dir)  # for the report's maps
        self.bridge = bridge_parameters(settings, data_dir)
        self.policy = {
            "checkpoint": str(checkpoint),
            "memory": settings.policy.memory or "auto",
            "decoding": settings.policy.decoding
            or JanusVLNConfig.from_pretrained(checkpoint).navigation.decoding,
            "device": settings.policy.device or "auto",
            "dtype": settings.policy.dtype or "auto",
            "max_blocked": settings.rules.max_blocked or 0,
            "inference_timeout": 600.0,
        }
        self.bags = bags
        self.graph: LockstepGraph | None = None

    def run(self, episode: Episode, watch: Watch | None = None) -> Drive:
        """
        Run one episode through the graph.

        Raises:
            InputError: the instruction is empty, which the node refuses, or somebody wants to
                watch every frame, which are the node's alone.
        """
        if watch is not None:
            raise InputError(
                "frames of a drive by the node policy cannot be watched: run without --ros"
            )
        if not episode.instruction.strip():
            raise InputError(
                "the node policy refuses an empty instruction: run --instructions "
                "removed without --ros"
            )
        from janusvln_ros.graph.lockstep import LockstepGraph

        if self.graph is None:
            self.graph = LockstepGraph(self.bridge, self.policy, self.bags)
        try:
            self.env.reset(episode)  # loads the scene
            return self._drive(self.graph, episode)
        except BaseException:
            # whatever state it is in, the next episode starts a new one
            self.close_graph()
            raise

    def _drive(self, graph: "LockstepGraph", episode: Episode) -> Drive:
        started = graph.reset(episode.episode_id)
        outcome = graph.follow(started, episode.instruction, self.rules.max_steps)
        decisions = list(graph.client.telemetry.decisions)
        status = ENDS.get(outcome.code, "error")
        if status == "step_limit" or (
            status == "not_understood" and self.rules.not_understood == "stop"
        ):
            graph.stop_after()
        metrics = graph.metrics()
        if status == "error" and metrics["steps"] >= self.limit:
            status = "simulator_limit"
        if status == "error":
            raise RuntimeError(f"follow_instruction ended with {outcome.code}: {outcome.message}")
        asked = metrics["steps"] if status == "simulator_limit" else len(decisions)
        return Drive.from_json(metrics, status=status, calls=asked)

    def close_graph(self) -> None:
        """End the nodes; the next episode starts them again."""
        if self.graph is not None:
            self.graph.close()
            self.graph = None

    def close(self) -> None:
        """End the nodes and release the simulator."""
        self.close_graph()
        self.env.close()


class SteppingEngine(DirectEngine):
    """
    An agent in this process that sees and moves through ROS: the direct engine over `RosEnv`.
    """

    def __init__(self, settings: Settings, data_dir: Path, agent: Agent) -> None:
        env: Any = RosEnv(open_env(settings, data_dir), bridge_parameters(settings, data_dir))
        super().__init__(env, agent, settings.rules)


class RosEnv:
    """
    A ``NavEnv`` whose camera and motion are a lockstep graph's; everything else is asked of a
    mirror that makes the same steps.
    """

    def __init__(self, mirror: NavEnv, bridge: dict[str, Any]) -> None:
        self.mirror, self.bridge = mirror, bridge
        self.graph: LockstepGraph | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.mirror, name)

    def reset(self, episode: Episode) -> Observation:
        """Start ``episode`` in the graph and in the mirror."""
        from janusvln_ros.graph.lockstep import LockstepGraph

        if self.graph is None:
            self.graph = LockstepGraph(self.bridge, None)
        try:
            self.graph.reset(episode.episode_id)
            return dataclasses.replace(self.mirror.reset(episode), rgb=self.graph.see())
        except BaseException:
            self.close_graph()
            raise

    def step(self, action: Action) -> Observation:
        """
        Carry out ``action`` in the graph and in the mirror.

        Raises:
            RuntimeError: the two are not at the same place any more.
        """
        assert self.graph is not None
        try:
            collided = self.graph.step(action)
            seen = dataclasses.replace(
                self.mirror.step(action), rgb=self.graph.see(), collided=collided
            )
            if self.mirror.episode_over:
                there = self.graph.metrics()["positions"][-1]
                if math.dist(there, seen.position.tolist()) > SAME_PLACE_M:
                    raise RuntimeError(
                        f"the robot in the graph is at {there}, its mirror at "
                        f"{seen.position.tolist()}"
                    )
            return seen
        except BaseException:
            self.close_graph()
            raise

    def close_graph(self) -> None:
        """End the nodes; the next reset starts them again."""
        if self.graph is not None:
            self.graph.close()
            self.graph = None

    def close(self) -> None:
        """End the nodes and release the mirror."""
        self.close_graph()
        self.mirror.close()

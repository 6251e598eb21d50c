"""
The ROS engine of rollouts: the episodes of ``evaluate``, ``collect`` and ``dagger`` through the
real graph in lockstep, for ``--ros``.

The policy drives as the node ``policy``. Every other agent decides in this process, on the frames
that arrive over ROS, and moves by ``execute_step``; a mirror of the simulator, moved by the same
actions, answers the questions that only agents with knowledge of the truth ask.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from janusvln_ros.actions import Action
from janusvln_ros.data.episodes import Episode
from janusvln_ros.data.top_down_map import TopDownMap
from janusvln_ros.errors import require
from janusvln_ros.evaluation.drive import Drive
from janusvln_ros.graph.lockstep import LockstepGraph, lockstep_graph
from janusvln_ros.rollout.agents import Agent, PolicyAgent
from janusvln_ros.rollout.engine import DirectEngine, Engine, Watch
from janusvln_ros.rollout.perturb import PerturbSection
from janusvln_ros.rollout.settings import Settings, open_env
from sim_bridge import Observation
from sim_bridge.habitat_client import habitat_settings
from sim_bridge.nav_env import parameter_names

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
    settings: Settings, data_dir: Path, agent: Agent, *, bags: Path | None = None
) -> Engine:
    """
    Make the engine of a worker, see ``rollout.engine.MakeEngine``.

    In place of a `PolicyAgent` the node ``policy`` drives, with its checkpoint.

    With ``bags`` every instruction is recorded into that folder.

    Raises:
        InputError: the settings ask for something that the nodes do not have.
    """
    require(
        settings.perturb == PerturbSection(),
        "perturb cannot be given through ROS: run without --ros",
    )
    if isinstance(agent, PolicyAgent):
        return PolicyNodeEngine(settings, data_dir, agent, bags)
    return SteppingEngine(settings, data_dir, agent)


def bridge_parameters(settings: Settings, data_dir: Path) -> dict[str, Any]:
    """Parameters of ``sim_bridge`` for these settings."""
    env = {there: getattr(settings.env, name) for name, there in parameter_names().items()}
    if settings.backend == "habitat":
        env |= dataclasses.asdict(habitat_settings(settings.env.options))
    return env | {
        "backend": settings.backend,
        "data_dir": str(data_dir),
        "dataset": settings.dataset,
        "split": settings.split,
        "publish_compressed": False,
    }


class GraphOnDemand:
    """
    A graph with these parameters (see `lockstep_graph`) that is started where it is needed; after
    a failure, whatever state it is in, it is ended, and the next need starts a new one.
    """

    def __init__(
        self,
        bridge: Mapping[str, Any],
        policy: Mapping[str, Any] | None = None,
        bags: Path | None = None,
    ) -> None:
        self.parameters = bridge, policy, bags
        self.started = ExitStack()
        self.graph: LockstepGraph | None = None

    @contextmanager
    def running(self) -> Iterator[LockstepGraph]:
        """The graph, for a ``with`` block whose failure ends it."""
        try:
            if self.graph is None:
                self.graph = self.started.enter_context(lockstep_graph(*self.parameters))
            yield self.graph
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the nodes."""
        self.graph = None
        self.started.close()


class PolicyNodeEngine:
    """The model as the node ``policy``, told by ``follow_instruction``."""

    def __init__(
        self, settings: Settings, data_dir: Path, agent: PolicyAgent, bags: Path | None
    ) -> None:
        require(
            agent.checkpoint is not None,
            "this agent's checkpoint is not known, so that no node can load it: run without --ros",
        )
        require(
            settings.policy.prompt == "evaluation",
            f"policy.prompt is {settings.policy.prompt!r}: the node policy has "
            "'evaluation' only; run without --ros",
        )
        self.rules = settings.rules
        self.limit = settings.env.max_steps
        self.env = open_env(settings, data_dir)  # for the report's maps
        policy = {
            "checkpoint": str(agent.checkpoint),
            "memory": settings.policy.memory or "auto",
            "decoding": agent.navigator.decoding,
            "device": settings.policy.device or "auto",
            "precision": settings.policy.precision or "auto",
            "max_blocked": settings.rules.max_blocked or 0,
            "inference_timeout": 600.0,
            "refuse_noise": False,  # every text is driven, as without ROS
        }
        self.graph = GraphOnDemand(bridge_parameters(settings, data_dir), policy, bags)

    def run(self, episode: Episode, watch: Watch | None = None) -> Drive:
        """
        Run one episode through the graph.

        Raises:
            InputError: the instruction is empty, which the node refuses, or somebody wants to
                watch every frame, which are the node's alone.
        """
        require(
            watch is None,
            "frames of a drive by the node policy cannot be watched: run without --ros",
        )
        require(
            episode.instruction.strip(),
            "the node policy refuses an empty instruction: run --instructions "
            "removed without --ros",
        )
        self.env.reset(episode)  # loads the scene, or says at once why it cannot be
        with self.graph.running() as graph:
            return self._drive(graph, episode)

    def _drive(self, graph: LockstepGraph, episode: Episode) -> Drive:
        started = graph.reset(episode.episode_id)
        outcome = graph.follow(started, episode.instruction, self.rules.max_steps)
        decisions = len(graph.client.telemetry.decisions)
        status = ENDS.get(outcome.code, "error")
        if status == "step_limit" or (
            status == "not_understood" and self.rules.not_understood == "stop"
        ):
            graph.stop_after()
        metrics = graph.client.metrics()
        if status == "error" and metrics["steps"] >= self.limit:
            status = "simulator_limit"
        if status == "error":
            raise RuntimeError(f"follow_instruction ended with {outcome.code}: {outcome.message}")
        asked = metrics["steps"] if status == "simulator_limit" else decisions
        return Drive.from_json(metrics, status=status, calls=asked)

    def top_down_map(self) -> TopDownMap:
        """See ``Engine``."""
        return self.env.top_down_map()

    def close(self) -> None:
        """End the nodes and release the simulator."""
        self.graph.close()
        self.env.close()


class SteppingEngine(DirectEngine):
    """
    An agent in this process that sees and moves through ROS; the simulator at hand is a mirror
    that makes the same steps and answers everything else.
    """

    def __init__(self, settings: Settings, data_dir: Path, agent: Agent) -> None:
        super().__init__(open_env(settings, data_dir), agent, settings.rules)
        self.graph = GraphOnDemand(bridge_parameters(settings, data_dir))

    def begin(self, episode: Episode) -> Observation:
        """Start ``episode`` in the graph and in the mirror."""
        start = super().begin(episode)  # what is wrong with the simulator is said here
        with self.graph.running() as graph:
            graph.reset(episode.episode_id)
            return replace(start, rgb=graph.see())

    def execute(self, action: Action) -> Observation:
        """
        Carry out ``action`` in the graph and in the mirror.

        Raises:
            RuntimeError: the two are not at the same place any more.
        """
        with self.graph.running() as graph:
            collided = graph.step(action)
            seen = replace(super().execute(action), rgb=graph.see(), collided=collided)
            if self.env.episode_over:
                there, here = graph.client.metrics()["positions"][-1], seen.position.tolist()
                if math.dist(there, here) > SAME_PLACE_M:
                    raise RuntimeError(
                        f"the robot in the graph is at {there}, its mirror at {here}"
                    )
            return seen

    def close(self) -> None:
        """End the nodes and release the mirror."""
        self.graph.close()
        super().close()

"""
Who drives: the policy, the expert, blind baselines, and mixtures of two drivers.

An agent that is random draws from a generator seeded by the run's seed and the episode, so that
its actions do not depend on which process runs the episode.
"""

import random
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from janusvln_ros.actions import Action
from janusvln_ros.data.episodes import Episode
from sim_bridge import NavEnv, Observation

if TYPE_CHECKING:
    from janusvln_ros.policy import Navigator

MOVES = (Action.MOVE_FORWARD, Action.TURN_LEFT, Action.TURN_RIGHT)


class Agent(Protocol):
    """
    Decides one action at a time.

    ``calls`` counts, since the last reset, how often it was really asked.

    ``executed`` is the action that led to the frame, given where it may not be the one that this
    agent decided last.
    """

    @property
    def calls(self) -> int:
        """See above."""
        ...

    def reset(self, episode: Episode, env: NavEnv) -> None:
        """
        A new episode begins; ``env`` is already at its start.

        Only agents that may know the truth look at more than the instruction.
        """
        ...

    def act(self, observation: Observation, executed: Action | None = None) -> Action | None:
        """Decide; None: the model's text is no action."""
        ...


class WatchingAgent(Agent, Protocol):
    """An agent that may share the wheel: it watches while somebody else drives."""

    def observe(self, observation: Observation, executed: Action | None = None) -> None:
        """Somebody else decides at this frame; remember it, so that no memory has a gap."""
        ...


def episode_random(seed: int, episode: Episode, purpose: str = "") -> random.Random:
    """
    Return a generator that depends on the seed, the episode and its purpose, and on nothing else.
    """
    return random.Random(
        zlib.crc32(f"{seed}/{purpose}/{episode.scene_id}/{episode.episode_id}".encode())
    )


class PolicyAgent:
    """
    The model: sees the frames and the instruction, nothing else.

    ``checkpoint``: where an engine that loads the model elsewhere finds it.
    """

    def __init__(self, navigator: "Navigator", checkpoint: Path | None = None) -> None:
        self.navigator = navigator
        self.checkpoint = checkpoint

    def reset(self, episode: Episode, env: NavEnv) -> None:
        """
        Empty both memories.

        Episode files hold no empty instruction, so one was taken away on purpose.
        """
        self.navigator.reset(episode.instruction, allow_empty=True)
        self.calls = 0

    def act(self, observation: Observation, executed: Action | None = None) -> Action | None:
        """One step of the navigator."""
        self.calls += 1
        return self.navigator.step(observation.rgb, executed=executed).action

    def observe(self, observation: Observation, executed: Action | None = None) -> None:
        """Feed both memories."""
        self.navigator.observe(observation.rgb, executed=executed)


class ExpertAgent:
    """
    The shortest-path follower along the reference path, STOP within ``stop_radius`` metres of its
    end. Deterministic.
    """

    def __init__(self, stop_radius: float = 0.25, waypoint_radius: float = 1.8) -> None:
        self.stop_radius, self.waypoint_radius = stop_radius, waypoint_radius

    def reset(self, episode: Episode, env: NavEnv) -> None:
        """Begin at the start of the reference path."""
        from sim_bridge.expert import ReferencePathFollower

        self._follower = ReferencePathFollower(
            env, waypoint_radius=self.waypoint_radius, goal_radius=self.stop_radius
        )
        self.calls = 0

    def act(self, observation: Observation, executed: Action | None = None) -> Action:
        """The follower's action at the simulator's current state."""
        self.calls += 1
        return self._follower.action()


class RandomAgent:
    """
    Draws its actions without looking.

    ``probabilities``: of STOP, MOVE_FORWARD, TURN_LEFT, TURN_RIGHT.
    """

    def __init__(self, seed: int, probabilities: tuple[float, float, float, float]) -> None:
        self.seed, self.probabilities = seed, probabilities

    def reset(self, episode: Episode, env: NavEnv) -> None:
        """Seed the generator for this episode."""
        self._random = episode_random(self.seed, episode, "random")
        self.calls = 0

    def act(self, observation: Observation, executed: Action | None = None) -> Action:
        """Draw one action."""
        self.calls += 1
        return self._random.choices(tuple(Action), self.probabilities)[0]


class OracleStopAgent:
    """
    Another agent's moves, but STOP exactly where the goal is nearer than ``radius``: what that
    agent would reach if it knew when to stop.
    """

    def __init__(self, agent: Agent, radius: float) -> None:
        self.agent, self.radius = agent, radius

    @property
    def calls(self) -> int:
        """How often the other agent was asked; at the oracle's own STOP it is asked as well."""
        return self.agent.calls

    def reset(self, episode: Episode, env: NavEnv) -> None:
        """Remember the goal."""
        self._env, self._goal = env, episode.goal_position
        self._executed: Action | None = None
        self.agent.reset(episode, env)

    def act(self, observation: Observation, executed: Action | None = None) -> Action | None:
        """
        STOP near the goal; elsewhere the other agent's action, and a turn in place of its STOP.
        """
        action = self.agent.act(observation, self._executed)
        if self._env.geodesic_distance(observation.position, self._goal) < self.radius:
            action = Action.STOP
        elif action == Action.STOP:
            action = Action.TURN_LEFT
        self._executed = action
        return action


class LabelledMixture:
    """
    Two drivers for imitation: at every state the expert's action is the *label*; it is executed
    with probability ``beta``, otherwise ``other`` decides.

    Without another driver the deviations are random moves. Nobody stops where the label is not
    STOP (the expert's action is executed instead), and after ``missed_stops`` states labelled STOP
    that the driver left, STOP is executed. ``labels`` are those of the states visited so far.
    """

    def __init__(
        self,
        expert: ExpertAgent,
        other: WatchingAgent | None,
        beta: float,
        seed: int,
        missed_stops: int,
    ) -> None:
        self.expert, self.other, self.beta, self.seed, self.missed_stops = (
            expert,
            other,
            beta,
            seed,
            missed_stops,
        )

    def reset(self, episode: Episode, env: NavEnv) -> None:
        """Start all over."""
        self._random = episode_random(self.seed, episode, "mixture")
        self.labels: list[int] = []
        self.calls = 0
        self._executed: Action | None = None
        self.expert.reset(episode, env)
        if self.other is not None:
            self.other.reset(episode, env)

    def act(self, observation: Observation, executed: Action | None = None) -> Action:
        """Label the state, then let one of the two decide while the other one watches."""
        self.calls += 1
        label = self.expert.act(observation)
        self.labels.append(int(label))
        action: Action | None
        if self._random.random() < self.beta:
            action = label
            if self.other is not None:
                self.other.observe(observation, self._executed)
        elif self.other is not None:
            action = self.other.act(observation, self._executed)
        else:
            action = self._random.choice(MOVES)
        if label == Action.STOP and self.labels.count(Action.STOP) > self.missed_stops:
            action = Action.STOP
        elif action is None or (action == Action.STOP != label):
            action = label
        self._executed = action
        return action

"""
An engine runs one episode with an agent and says what happened.

Here: the direct engine, agent and simulator in one process.

The ROS engine (through the real graph of nodes) answers the same protocol and lives above this
room, so that nothing here needs ROS.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from janusvln_ros.actions import Action
from janusvln_ros.data.episodes import Episode
from janusvln_ros.errors import InputError
from janusvln_ros.evaluation.drive import Drive
from janusvln_ros.rollout.agents import Agent
from sim_bridge import NavEnv, Observation
from sim_bridge.nav_env import record_place

Watch = Callable[[Observation, Action], None]
"""Called at every visited state with what is seen there and the action about to be executed."""

STATUSES = ("stopped", "step_limit", "simulator_limit", "not_understood", "blocked", "error")
"""
How a drive can end: the agent chose STOP, was made to stop, ran into the simulator's limit, wrote
text that is no action, did not get on, or a fault.
"""


@dataclass(frozen=True)
class Rules:
    """
    When an episode ends other than by the agent's own STOP.

    ``max_steps``: a STOP is forced in place of this action (counted from 0; the published 400).
    ``not_understood``: text that is no action ends the episode as a failure ("fail") or counts as
    STOP ("stop", as published). ``max_blocked``: so many collisions in a row end it; None: any
    number is fine.
    """

    max_steps: int = 400
    not_understood: str = "fail"
    max_blocked: int | None = None

    def __post_init__(self) -> None:
        if self.max_steps < 1:
            raise InputError(f"rules.max_steps is {self.max_steps}: give 1 or more")
        if self.not_understood not in ("fail", "stop"):
            raise InputError(
                f"rules.not_understood is {self.not_understood!r}: give 'fail' or 'stop'"
            )
        if self.max_blocked is not None and self.max_blocked < 1:
            raise InputError(f"rules.max_blocked is {self.max_blocked}: give 1 or more, or null")


class Engine(Protocol):
    """
    Runs episodes one after the other.

    Whoever calls `run` owns the thread; an engine is used from one thread only.
    """

    def run(self, episode: Episode, watch: Watch | None = None) -> Drive:
        """Run one episode to its end."""
        ...

    def close(self) -> None:
        """Release simulator and agent."""
        ...


class DirectEngine:
    """Agent and simulator in this process, one call after the other."""

    def __init__(self, env: NavEnv, agent: Agent, rules: Rules = Rules()) -> None:
        self.env, self.agent, self.rules = env, agent, rules

    def run(self, episode: Episode, watch: Watch | None = None) -> Drive:
        """
        Run one episode: ask the agent, execute, until STOP, a rule, or the simulator ends it.

        At ``max_steps`` STOP is executed without asking the agent, whose answer could not matter.
        """
        env, agent, rules = self.env, self.agent, self.rules
        observation = env.reset(episode)
        agent.reset(episode, env)
        drive = Drive()
        record_place(drive, env, observation)
        blocked = 0
        while True:
            action: Action | None
            if len(drive.actions) >= rules.max_steps:
                action, drive.status = Action.STOP, "step_limit"
            else:
                action = agent.act(observation)
                if action == Action.STOP:
                    drive.status = "stopped"
                elif action is None:
                    drive.status = "not_understood"
                    if rules.not_understood == "fail":
                        break
                    action = Action.STOP
            if watch is not None:
                watch(observation, action)
            observation = env.step(action)
            drive.actions.append(int(action))
            record_place(drive, env, observation)
            if action == Action.STOP:
                break
            if env.episode_over:
                drive.status = "simulator_limit"
                break
            blocked = blocked + 1 if observation.collided else 0
            if rules.max_blocked is not None and blocked >= rules.max_blocked:
                drive.status = "blocked"
                break
        drive.calls = agent.calls
        if any(math.isnan(d) for d in drive.distances):
            raise RuntimeError(
                "the simulator gave a distance that is not a number in episode "
                f"{episode.episode_id}"
            )
        return drive

    def close(self) -> None:
        """Close the simulator."""
        self.env.close()

"""
An engine runs one episode with an agent and says what happened.

Here: the direct engine, agent and simulator in one process.

The ROS engine (through the real graph of nodes) answers the same protocol and lives above this
room, so that nothing here needs ROS.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from janusvln_ros.actions import Action
from janusvln_ros.data.episodes import Episode
from janusvln_ros.data.top_down_map import TopDownMap
from janusvln_ros.evaluation.drive import Drive
from janusvln_ros.rollout.agents import Agent
from janusvln_ros.rollout.settings import Rules, Settings, open_env
from sim_bridge import NavEnv, Observation
from sim_bridge.nav_env import record_place

Watch = Callable[[Observation, Action], None]
"""Called at every visited state with what is seen there and the action about to be executed."""


class Engine(Protocol):
    """
    Runs episodes one after the other.

    Whoever calls `run` owns the thread; an engine is used from one thread only.
    """

    def run(self, episode: Episode, watch: Watch | None = None) -> Drive:
        """Run one episode to its end."""
        ...

    def top_down_map(self) -> TopDownMap:
        """The floor on which the last drive was, from above."""
        ...

    def close(self) -> None:
        """Release simulator and agent."""
        ...


MakeEngine = Callable[[Settings, Path, Agent], Engine]
"""
Makes the engine of a worker, in the process that will use it, from the settings of the run, the
user's data folder and who drives. It must be picklable.
"""


class DirectEngine:
    """Agent and simulator in this process, one call after the other."""

    def __init__(self, env: NavEnv, agent: Agent, rules: Rules) -> None:
        self.env, self.agent, self.rules = env, agent, rules

    def begin(self, episode: Episode) -> Observation:
        """Start ``episode``; return what is seen at its start."""
        return self.env.reset(episode)

    def execute(self, action: Action) -> Observation:
        """Carry out one action."""
        return self.env.step(action)

    def run(self, episode: Episode, watch: Watch | None = None) -> Drive:
        """
        Run one episode: ask the agent, execute, until STOP, a rule, or the simulator ends it.

        At ``max_steps`` STOP is executed without asking the agent, whose answer could not matter.
        """
        env, agent, rules = self.env, self.agent, self.rules
        observation = self.begin(episode)
        agent.reset(episode, env)
        drive = Drive()
        record_place(drive, env, observation)
        blocked = 0
        while True:
            action: Action | None
            if rules.max_steps is not None and len(drive.actions) >= rules.max_steps:
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
            observation = self.execute(action)
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

    def top_down_map(self) -> TopDownMap:
        """See ``Engine``."""
        return self.env.top_down_map()

    def close(self) -> None:
        """Close the simulator."""
        self.env.close()


def direct_engine(settings: Settings, data_dir: Path, agent: Agent) -> Engine:
    """The engine in which agent and simulator share a process: a `MakeEngine`."""
    return DirectEngine(open_env(settings, data_dir), agent, settings.rules)

"""
A toy simulator on a plane, and agents that follow a script: the world in which the published loops
were recorded.
"""

import json
import math
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from janusvln_ros.actions import Action
from janusvln_ros.data.episodes import Episode
from janusvln_ros.data.top_down_map import TopDownMap
from janusvln_ros.policy.decoding import parse_action
from janusvln_ros.policy.prompt import sample_history
from sim_bridge import EnvSettings, Observation

LOOPS = json.loads((Path(__file__).parents[1] / "data/rollout/loops.json").read_text())


def world(x: float, y: float) -> tuple[float, float, float]:
    """A point of the toy plane in the simulator's axes."""
    return (x, 0.0, -y)


def toy_episode(number, path, scene="mp3d/scA/scA.glb", text="go", heading=0.0) -> Episode:
    yaw = math.radians(heading - 90) / 2
    points = tuple(world(*p) for p in path)
    return Episode(
        str(number),
        str(number),
        scene,
        points[0],
        (0.0, math.sin(yaw), 0.0, math.cos(yaw)),
        points[-1],
        3.0,
        text,
        points,
        None,
    )


class ToyEnv:
    """A plane without walls; the picture's red is the number of steps so far."""

    def __init__(self, max_steps=500):
        self.settings = EnvSettings(width=8, height=6, max_steps=max_steps)
        self.episode, self.episode_over = None, True
        self.closed = False

    def reset(self, episode):
        self.episode, self.episode_over, self.steps = episode, False, 0
        _, y, _, w = episode.start_rotation
        self.x, self.y, self.heading = (
            episode.start_position[0],
            -episode.start_position[2],
            round(math.degrees(2 * math.atan2(y, w)) + 90),
        )
        return self.observation()

    def step(self, action):
        assert not self.episode_over
        if action == Action.MOVE_FORWARD:
            self.x += 0.25 * math.cos(math.radians(self.heading))
            self.y += 0.25 * math.sin(math.radians(self.heading))
        elif action in (Action.TURN_LEFT, Action.TURN_RIGHT):
            self.heading += 15 if action == Action.TURN_LEFT else -15
        self.steps += 1
        self.episode_over = action == Action.STOP or self.steps >= self.settings.max_steps
        return self.observation()

    def observation(self):
        rgb = np.zeros((6, 8, 3), np.uint8)
        rgb[..., 0] = self.steps % 256
        yaw = math.radians(self.heading - 90) / 2
        return Observation(
            rgb,
            np.zeros((6, 8), np.float32),
            np.array(world(self.x, self.y)),
            np.array([0, math.sin(yaw), 0, math.cos(yaw)]),
        )

    render = observation

    def set_state(self, position, rotation):
        raise NotImplementedError

    def is_navigable(self, p):
        return True

    def snap_point(self, p):
        return np.asarray(p, float)

    def geodesic_distance(self, a, b):
        return math.hypot(a[0] - b[0], a[2] - b[2])

    def expert_action(self, target, radius):
        dx, dy = target[0] - self.x, -target[2] - self.y
        if math.hypot(dx, dy) < radius:
            return Action.STOP
        difference = (math.degrees(math.atan2(dy, dx)) - self.heading + 180) % 360 - 180
        if abs(difference) <= 7.5 + 1e-9:
            return Action.MOVE_FORWARD
        return Action.TURN_LEFT if difference > 0 else Action.TURN_RIGHT

    def top_down_map(self):
        return TopDownMap(np.ones((4, 4), bool), (0.0, 0.0), 1.0)

    def close(self):
        self.closed = True


class ScriptAgent:
    """
    Answers from a script, cycled over its calls, as the recorded model did; notes each call as the
    recording does.
    """

    def __init__(self, script, num_history=8):
        self.script, self.num_history = script, num_history
        self.asked, self.all_calls, self.image_ids = count(), [], []

    def reset(self, episode, env):
        self.episode, self.env, self.calls, self.frames, self.seen, self.led_here = (
            episode,
            env,
            0,
            [],
            [],
            [],
        )

    def act(self, observation, executed=None):
        self.led_here.append(executed)
        text = self.script[next(self.asked) % len(self.script)]
        if text == "expert":
            text = self.env.expert_action(self.episode.goal_position, 0.25).name
        self.frames.append(int(observation.rgb[0, 0, 0]))
        indices = sample_history(len(self.frames), self.num_history)
        self.calls += 1
        self.all_calls.append([self.frames[-1], len(indices), text])
        self.image_ids.append([self.frames[i] for i in indices])
        return parse_action(text)

    def observe(self, observation, executed=None):
        self.led_here.append(executed)
        self.frames.append(int(observation.rgb[0, 0, 0]))
        self.seen.append(self.frames[-1])


@pytest.fixture
def toy_episodes() -> list[Episode]:
    return [
        toy_episode(e["episode_id"], e["reference_path"], e["scene"], e["instruction"])
        for e in LOOPS["world"]["episodes_for_eval"]
    ]


@pytest.fixture
def toy():
    """The toy world's parts, for tests that live in other files."""

    class Toy:
        Env, Agent, episode, loops = ToyEnv, ScriptAgent, staticmethod(toy_episode), LOOPS

    return Toy

"""
Habitat-sim's results, a house, and a world without a renderer: one empty room whose picture tells
the pose, so that frames can be told apart.
"""

import math
from pathlib import Path

import numpy as np
import pytest

from janusvln_ros.actions import Action
from janusvln_ros.data.episodes import Episode
from janusvln_ros.data.top_down_map import TopDownMap
from janusvln_ros.geometry import rotation_of_yaw, yaw_of_rotation
from sim_bridge import EnvSettings, Observation, make_env

HABITAT = Path(__file__).resolve().parents[1] / "data" / "habitat"
HALF = 3.0  # metres from the middle of the flat world to its walls


class FlatEnv:
    """A square room of 6 m around the origin; distances are Euclidean."""

    def __init__(self, backend="flat", *, data_dir="data", up="z", **settings):
        self.settings = EnvSettings(**settings)
        self.episode, self.episode_over, self.closed = None, False, False
        self.position, self.yaw, self.steps = np.zeros(3), 0.0, 0

    def reset(self, episode):
        self.episode, self.episode_over, self.steps = episode, False, 0
        self.set_state(episode.start_position, episode.start_rotation)
        return self.render()

    def step(self, action):
        assert not self.episode_over
        collided = False
        if action == Action.MOVE_FORWARD:
            target = self.position + self.settings.forward_step * np.array(
                [-math.sin(self.yaw), 0, -math.cos(self.yaw)]
            )
            collided = not self.is_navigable(target)
            self.position = self.position if collided else target
        elif action != Action.STOP:
            self.yaw += math.radians(self.settings.turn_step) * (
                1 if action == Action.TURN_LEFT else -1
            )
        self.steps += 1
        self.episode_over = action == Action.STOP or self.steps >= self.settings.max_steps
        observation = self.render()
        observation.collided = collided
        return observation

    def observation(self):
        return self.render()

    def render(self):
        shape = (self.settings.height, self.settings.width)
        rgb = np.zeros((*shape, 3), np.uint8)
        rgb[:] = [
            int(40 + 20 * (self.position[0] + HALF)),
            int(40 + 20 * (self.position[2] + HALF)),
            int(40 + 30 * (self.yaw % 6.28)),
        ]
        return Observation(
            rgb, np.full(shape, 2.0, np.float32), self.position.copy(), rotation_of_yaw(self.yaw)
        )

    def set_state(self, position, rotation):
        self.position, self.yaw = np.array(position, float), yaw_of_rotation(rotation)

    def is_navigable(self, p):
        return abs(p[0]) < HALF and abs(p[2]) < HALF

    def geodesic_distance(self, a, b):
        return math.dist(a, b)

    def top_down_map(self):
        return TopDownMap(np.ones((60, 60), bool), (-HALF, -HALF), 0.1)

    def close(self):
        self.closed = True


@pytest.fixture(scope="session")
def habitat():
    """The folder of habitat-sim's results."""
    return HABITAT


@pytest.fixture(scope="session")
def house_a():
    return HABITAT / "scene_datasets" / "mp3d" / "house_a" / "house_a.glb"


@pytest.fixture
def env(house_a):
    env = make_env("houses", scene=house_a, data_dir=HABITAT, width=64, height=48)
    yield env
    env.close()


@pytest.fixture(scope="session")
def flat_env():
    """The class of the flat world."""
    return FlatEnv


@pytest.fixture(scope="session")
def flat_episode():
    """``flat_episode(name, goal)``: from the middle of the flat world to ``goal``."""

    def make(name="1", goal=(0.0, 0.0, -2.0)):
        start = (0.0, 0.0, 0.0)
        return Episode(
            name,
            name,
            "flat/flat.glb",
            start,
            (0.0, 0.0, 0.0, 1.0),
            goal,
            3.0,
            f"Walk to the goal of {name}.",
            (start, goal),
            math.dist(start, goal),
        )

    return make

"""The bridge's world, without ROS: which episode comes next, and what is told of it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from janusvln_ros.actions import Action
from janusvln_ros.data.episodes import read_episodes
from janusvln_ros.errors import InputError
from janusvln_ros.geometry import rotation_of_yaw
from sim_bridge import make_env
from sim_bridge.world import World, rep118_depth

VALUES = {
    "backend": "houses",
    "dataset": "r2r",
    "split": "val_unseen",
    "scene_up": "z",
    "image_width": 32,
    "image_height": 24,
    "hfov": 79.0,
    "camera_height": 1.25,
    "camera_tilt": 0.0,
    "turn_error": 0.0,
    "agent_height": 1.5,
    "agent_radius": 0.1,
    "forward_step": 0.25,
    "turn_step": 15.0,
    "sliding": True,
    "max_steps": 500,
    "success_distance": 3.0,
    "publish_compressed": True,
    "jpeg_quality": 90,
}
"""The parameters of the node that the world is built from."""


@pytest.fixture
def world(habitat):
    world = World({**VALUES, "data_dir": str(habitat)}, make_env)
    yield world
    world.close()


@pytest.fixture(scope="module")
def episodes(habitat):
    return read_episodes(habitat, "r2r", "val_unseen").episodes


def test_episodes_come_in_turn_and_after_the_last_the_first(world, episodes):
    started = [world.reset("", "", "")[0] for _ in range(len(episodes) + 1)]
    assert started == [*episodes, episodes[0]]


def resident():
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_what_a_home_left_behind_goes_back_to_the_system_at_the_next_episode(world):
    world.reset("", "", "")
    pieces = [bytes(100_000) for _ in range(600)]  # glibc maps larger ones, and returns those
    last = bytes(100_000)  # above them, so that they are freed in the middle
    before = resident()
    del pieces
    world.reset("", "", "")
    assert resident() < before - 40_000_000
    del last


LARGE = """
import numpy as np
from sim_bridge.world import map_large_arrays


def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096


map_large_arrays()
np.ones(30 << 20, np.uint8)  # by itself, this teaches glibc to keep pieces of that size
before, kept = resident(), []
for _ in range(20):
    kept += [np.ones(2 << 20, np.uint8), bytearray(5000)]
kept = kept[1::2]
print(resident() - before)
"""


def test_large_arrays_go_back_to_the_system_whatever_lies_above_them():
    told = subprocess.run(
        [sys.executable, "-c", LARGE], capture_output=True, text=True, check=True
    )
    assert int(told.stdout) < 5 << 20


def test_a_named_episode_starts_and_the_next_is_the_one_after_it(world, episodes):
    assert world.reset(episodes[4].episode_id, "", "")[0] == episodes[4]
    assert world.reset("", "r2r", "")[0] == episodes[5]
    with pytest.raises(InputError, match="has no episode 'none of them'"):
        world.reset("none of them", "", "")


def test_the_first_frame_brings_the_map_and_every_frame_a_jpeg(world):
    _, first = world.reset("", "", "")
    assert first.map is not None and first.map.navigable.any()
    then = world.step(Action.TURN_LEFT)
    assert then.map is None and then.jpeg[:2] == b"\xff\xd8" and then.depth.shape == (24, 32)


def test_steps_are_recorded_and_stop_far_away_is_no_success(world, episodes):
    world.reset("", "", "")
    for action in (1, 1, 2, 0):
        world.step(Action(action))
    told = world.metrics()
    assert told["episode_id"] == episodes[0].episode_id
    assert (told["steps"], told["actions"], told["stop_called"]) == (4, [1, 1, 2, 0], True)
    assert len(told["positions"]) == len(told["distances"]) == 5 and len(told["collided"]) == 4
    assert told["path_length"] == pytest.approx(0.5) and not told["success"]
    assert told["distance_to_goal"] == told["distances"][-1] != told["start_distance_to_goal"]


def test_stop_at_the_goal_is_success_with_the_way_that_was_really_gone(world, episodes):
    episode, _ = world.reset("", "", "")
    world.look_from(np.array(episode.goal_position), rotation_of_yaw(0.0))
    world.count(Action.STOP)
    told = world.metrics()
    assert told["success"] and told["oracle_success"] and 0 < told["spl"] <= 1


def test_a_base_at_rest_adds_nothing_to_the_record(world):
    episode, _ = world.reset("", "", "")
    start, heading = np.array(episode.start_position), np.array(episode.start_rotation)
    for x in (0.0, 1e-6, 0.1, 0.1):
        world.look_from(start + [x, 0, 0], heading)
    assert len(world.metrics()["positions"]) == 2


def test_a_new_episode_begins_a_new_record(world):
    world.reset("", "", "")
    world.step(Action.MOVE_FORWARD)
    world.reset("", "", "")
    told = world.metrics()
    assert told["steps"] == 0 and len(told["positions"]) == 1 and told["path_length"] == 0.0


def test_depth_is_told_as_rep_118_has_it():
    depth = rep118_depth(np.array([[0.0, 2.5, 10.0]], np.float32))
    assert depth.dtype == np.float32 and depth.tolist() == [[np.inf, 2.5, np.inf]]

"""What comes between a simulator and an agent, through the real settings and simulator."""

import dataclasses

import numpy as np
import pytest

from janusvln_ros.actions import Action
from janusvln_ros.data.episodes import read_episodes
from janusvln_ros.errors import InputError
from janusvln_ros.rollout.perturb import PerturbSection
from janusvln_ros.rollout.settings import load_settings, open_env


@pytest.fixture
def opened(one_house):
    """A function that opens the simulator with changes of the settings."""
    made = []

    def open_with(*changes):
        size = ["backend=houses", "env.width=64", "env.height=48"]
        made.append(open_env(load_settings("houses", [*size, *changes]), one_house))
        return made[-1]

    yield open_with
    for env in made:
        env.close()


@pytest.fixture
def episodes(one_house):
    return read_episodes(one_house, "houses", "val_unseen").episodes


def drive(env, episode, steps=8):
    seen = [env.reset(episode)]
    return seen + [env.step(Action.TURN_LEFT) for _ in range(steps)]


def test_without_perturbations_nothing_stands_between(opened):
    assert opened().eye is None


def test_brightness_changes_the_picture_and_neither_depth_nor_way(opened, episodes):
    plain, dark = (
        drive(opened(), episodes[0]),
        drive(opened("perturb.brightness=0.5"), episodes[0]),
    )
    for a, b in zip(plain, dark):
        assert np.abs(b.rgb - a.rgb * 0.5).max() <= 1
        np.testing.assert_array_equal(a.depth, b.depth)
        np.testing.assert_array_equal(a.position, b.position)


def test_a_dropped_frame_shows_the_one_before_but_never_one_of_another_episode(opened, episodes):
    plain = drive(opened(), episodes[0], 40)
    env = opened("perturb.frame_drop=0.4")
    drive(env, episodes[1])
    seen = drive(env, episodes[0], 40)
    np.testing.assert_array_equal(seen[0].rgb, plain[0].rgb)
    stale = 0
    for before, now, true in zip(seen, seen[1:], plain[1:]):
        kept = np.array_equal(now.rgb, before.rgb)
        assert kept or np.array_equal(now.rgb, true.rgb)
        stale += kept
    assert 8 <= stale <= 26


def test_an_observation_asked_for_twice_is_the_same_picture(opened, episodes):
    env = opened("perturb.noise=10", "perturb.frame_drop=0.5")
    env.reset(episodes[0])
    seen = env.step(Action.TURN_LEFT)
    assert env.observation() is seen


def test_what_is_drawn_depends_on_seed_and_episode_alone(opened, episodes):
    one = opened("perturb.vary_camera=true", "perturb.noise=5")
    other = opened("perturb.vary_camera=true", "perturb.noise=5")
    drive(other, episodes[1])
    for a, b in zip(drive(one, episodes[0]), drive(other, episodes[0])):
        np.testing.assert_array_equal(a.rgb, b.rgb)
    reseeded = opened("perturb.vary_camera=true", "perturb.noise=5", "seed=7")
    drive(reseeded, episodes[0])
    assert reseeded.settings != one.settings


def test_varied_cameras_are_mounted_and_lie_within_what_is_trained(opened, episodes):
    env, mountings = opened("perturb.vary_camera=true"), set()
    for number in range(40):
        env.reset(dataclasses.replace(episodes[0], episode_id=str(number)))
        at = env.settings
        mountings.add((at.camera_height, at.tilt, at.hfov))
        assert 0.3 <= at.camera_height <= 1.5 and abs(at.tilt) <= 15 and 60 <= at.hfov <= 100
    assert (1.25, 0.0, 79.0) in mountings and len(mountings) > 15


@pytest.mark.parametrize(
    "change, words",
    [
        ("perturb.frame_drop=1.0", "perturb.frame_drop is 1.0"),
        ("perturb.brightness=-1.0", "perturb.brightness is -1.0"),
        ("perturb.blur=3.0", "blur is 3.0"),
        ("perturb.fog=1", "unknown key 'fog'"),
        ("env.tilt=95.0", "tilt is 95.0"),
        ("env.turn_error=-2.0", "turn_error is -2.0"),
    ],
)
def test_values_out_of_range_are_refused_by_name(change, words):
    with pytest.raises(InputError, match=words):
        load_settings("houses", [change])


def test_habitat_says_that_its_camera_is_fixed():
    from sim_bridge.habitat_client import HabitatEnv

    with pytest.raises(InputError, match="habitat cannot mount"):
        HabitatEnv.mount(None, camera_height=1.0, tilt=0.0, hfov=79.0)


def test_ros_has_no_place_for_perturbations(tmp_path):
    make_engine = pytest.importorskip("janusvln_ros.graph.ros_engine").make_engine
    settings = dataclasses.replace(load_settings("houses"), perturb=PerturbSection(brightness=0.5))
    with pytest.raises(InputError, match="run without --ros"):
        make_engine(settings, tmp_path, None)

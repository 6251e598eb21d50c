"""habitat-lab's own files as settings: both dialects, its defaults, and no key lost silently."""

import math
import re

import pytest
import yaml

from janusvln_ros.errors import InputError
from janusvln_ros.rollout.settings import load_settings

NEWER = """
# @package _global_
defaults:
  - /habitat: habitat_config_base
  - /habitat/task: vln_r2r
  - /habitat/simulator/{group}@habitat.simulator.agents.main_agent: rgbd_agent
  - /habitat/dataset/vln: mp3d_r2r
  - _self_
habitat:
  environment: {{max_episode_steps: 500}}
  simulator:
    agents:
      main_agent:
        sim_sensors:
          rgb_sensor: {{width: 256, height: 256, hfov: 90, type: HabitatSimRGBSensor}}
          depth_sensor: {{width: 256, height: 256}}
    forward_step_size: 0.25
    turn_angle: 15
    habitat_sim_v0: {{gpu_device_id: 0}}
"""

OLDER = """
ENVIRONMENT: {MAX_EPISODE_STEPS: 500}
SIMULATOR:
  AGENT_0: {SENSORS: [RGB_SENSOR, DEPTH_SENSOR]}
  FORWARD_STEP_SIZE: 0.25
  TURN_ANGLE: 15
  HABITAT_SIM_V0: {GPU_DEVICE_ID: 0}
  RGB_SENSOR: {WIDTH: 256, HEIGHT: 256, HFOV: 90, TYPE: HabitatSimRGBSensor}
  DEPTH_SENSOR: {WIDTH: 256, HEIGHT: 256}
TASK:
  TYPE: VLN-v0
  SENSORS: [INSTRUCTION_SENSOR]
  INSTRUCTION_SENSOR_UUID: instruction
  POSSIBLE_ACTIONS: [STOP, MOVE_FORWARD, TURN_LEFT, TURN_RIGHT]
  MEASUREMENTS: [DISTANCE_TO_GOAL, SUCCESS, SPL]
DATASET: {TYPE: R2RVLN-v1, SPLIT: train}
"""

DIALECTS = {
    "0.3": NEWER.format(group="sensor_setups"),
    "0.2.4": NEWER.format(group="agents"),
    "0.2.2": OLDER,
    "VLN-CE": yaml.safe_dump({"TASK_CONFIG": yaml.safe_load(OLDER)}),
}


@pytest.fixture
def load(tmp_path, capsys):
    """``load(text)``: the settings, and what was said of keys that cannot be honoured."""

    def read(text, *changes):
        path = tmp_path / "vln_r2r.yaml"
        path.write_text(text if isinstance(text, str) else yaml.safe_dump(text))
        return load_settings(path, changes), capsys.readouterr().err.splitlines()

    return read


@pytest.mark.parametrize("text", DIALECTS.values(), ids=DIALECTS)
def test_habitats_own_file_means_the_same_in_every_dialect(load, text):
    settings, said = load(text)
    env = settings.env
    assert said == []
    assert (settings.backend, settings.dataset, settings.split) == ("habitat", "r2r", "train")
    assert (env.width, env.height, env.hfov) == (256, 256, 90.0)
    assert (env.forward_step, env.turn_step, env.max_steps) == (0.25, 15.0, 500)
    assert env.options == {"gpu": 0} and settings.seed == 100
    # Habitat ends an episode at its limit and forces no STOP before
    assert settings.rules.max_steps is None
    assert env.success_distance == settings.thresholds.success == 0.2


@pytest.mark.parametrize("text", ["habitat: {}", "SIMULATOR: {}", "defaults: [_self_]"])
def test_what_is_not_set_is_as_habitat_has_it(load, text):
    settings, said = load(text)
    env = settings.env
    assert said == []
    assert (env.width, env.height, env.hfov, env.camera_height) == (640, 480, 90.0, 1.25)
    assert (env.agent_height, env.agent_radius, env.sliding) == (1.5, 0.1, True)
    assert (env.forward_step, env.turn_step, env.max_steps) == (0.25, 10.0, 1000)
    assert env.success_distance == settings.thresholds.success == 0.2
    assert (settings.split, settings.seed, env.options) == ("train", 100, {})


@pytest.mark.parametrize(
    ("newer", "older", "field", "value"),
    [
        ("simulator.turn_angle", "SIMULATOR.TURN_ANGLE", "turn_step", 30),
        ("simulator.forward_step_size", "SIMULATOR.FORWARD_STEP_SIZE", "forward_step", 0.5),
        (
            "simulator.habitat_sim_v0.allow_sliding",
            "SIMULATOR.HABITAT_SIM_V0.ALLOW_SLIDING",
            "sliding",
            False,
        ),
        (
            "simulator.agents.main_agent.height",
            "SIMULATOR.AGENT_0.HEIGHT",
            "agent_height",
            0.88,
        ),
        (
            "simulator.agents.agent_0.radius",
            "SIMULATOR.AGENT_0.RADIUS",
            "agent_radius",
            0.18,
        ),
        (
            "simulator.agents.main_agent.sim_sensors.rgb_sensor.hfov",
            "SIMULATOR.RGB_SENSOR.HFOV",
            "hfov",
            79,
        ),
        (
            "task.measurements.success.success_distance",
            "TASK.SUCCESS.SUCCESS_DISTANCE",
            "success_distance",
            3.0,
        ),
        ("environment.max_episode_steps", "ENVIRONMENT.MAX_EPISODE_STEPS", "max_steps", 300),
    ],
)
def test_a_key_is_honoured_in_both_dialects(load, newer, older, field, value):
    for key in (f"habitat.{newer}", older):
        tree = value
        for name in reversed(key.split(".")):
            tree = {name: tree}
        settings, said = load(tree)
        assert getattr(settings.env, field) == value and said == []


def test_where_the_camera_is_and_how_it_is_turned(load):
    camera = {"position": [0, 0.88, 0], "orientation": [-math.radians(30), 0, 0]}
    settings, said = load({"SIMULATOR": {"RGB_SENSOR": {k.upper(): v for k, v in camera.items()}}})
    assert settings.env.camera_height == 0.88 and settings.env.tilt == pytest.approx(30)
    assert said == []


def test_thresholds_of_vln_ce(load):
    task = {"SUCCESS": {"SUCCESS_DISTANCE": 3.0}, "NDTW": {"SUCCESS_DISTANCE": 2.0}}
    task["ORACLE_SUCCESS"] = {"SUCCESS_DISTANCE": 2.5}
    found = load({"TASK": task})[0].thresholds
    assert (found.success, found.oracle, found.ndtw) == (3.0, 2.5, 2.0)
    rxr = {"TYPE": "RxR-VLN-CE-v1", "LANGUAGES": ["en-US"], "ROLES": ["follower"]}
    settings, said = load({"DATASET": rxr})
    assert (settings.dataset, settings.languages, settings.role) == ("rxr", ("en-US",), "follower")
    assert said == []


@pytest.mark.parametrize(
    ("newer", "words"),
    [
        ("simulator.agents.main_agent.max_climb=0.3", "max_climb: 0.3"),
        ("simulator.habitat_sim_v0.enable_physics=true", "enable_physics: True"),
        ("simulator.scene_dataset=hm3d", "scene_dataset: 'hm3d'"),
        ("simulator.of_tomorrow=1", "of_tomorrow: 1"),
        ("environment.max_episode_seconds=60", "max_episode_seconds: 60"),
        ("dataset.data_path=here", "data_path: 'here' .*--data"),
        ("dataset.content_scenes=[a]", "content_scenes"),
        (
            "simulator.agents.main_agent.sim_sensors.rgb_sensor.noise_model=Gaussian",
            "rgb_sensor.noise_model: 'Gaussian'",
        ),
        (
            "simulator.agents.main_agent.sim_sensors.rgb_sensor.position=[0.1,1.25,0]",
            r"rgb_sensor.position: \[0.1",
        ),
        (
            "simulator.agents.main_agent.sim_sensors.depth_sensor.width=64",
            "depth_sensor.width: 64",
        ),
        (
            "simulator.agents.main_agent.sim_sensors.semantic_sensor.width=64",
            "semantic_sensor",
        ),
    ],
)
def test_a_key_that_cannot_be_honoured_is_named(load, newer, words):
    key, _, value = newer.partition("=")
    tree = yaml.safe_load(value)
    for name in reversed(["habitat", *key.split(".")]):
        tree = {name: tree}
    _, said = load(tree)
    assert len(said) == 1
    assert re.search(f"{words}.*cannot be honoured", said[0])


def test_other_sections_and_unknown_defaults_are_named(load):
    _, said = load({"habitat": {}, "habitat_baselines": {}, "defaults": [{"/habitat/task": "x"}]})
    assert len(said) == 2 and "habitat/task: x" in said[0] and "habitat_baselines" in said[1]


def test_a_file_that_builds_on_habitats_own_takes_its_values(load):
    text = "defaults: [/benchmark/nav/vln_r2r.yaml, _self_]\nhabitat: {dataset: {split: test}}"
    settings, said = load(text)
    assert (settings.env.width, settings.env.turn_step, settings.env.max_steps) == (256, 15, 500)
    assert settings.split == "test" and said == []


def test_what_is_said_on_the_command_line_wins(load):
    settings, _ = load(OLDER, "split=val_unseen", "env.options.gpu=-1", "env.width=640")
    assert (settings.split, settings.env.options, settings.env.width) == (
        "val_unseen",
        {"gpu": -1},
        640,
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("DATASET: {TYPE: PointNav-v1}", "PointNav-v1.*R2RVLN-v1"),
        ("BASE_TASK_CONFIG_PATH: vlnce_task.yaml", "takes the task from vlnce_task.yaml"),
        ("SIMULATOR: {TURN_ANGLE: left}", "turn_angle is 'left'"),
        ("SIMULATOR: {RGB_SENSOR: {POSITION: [1]}}", "three numbers"),
        ("SIMULATOR: {RGB_SENSOR: {WIDTH: -1}}", "width is -1"),
        ("habitat: {simulator: 3}", "simulator is 3, not a section"),
        ("habitat: {simulator: {agents: {a: [1]}}}", "a is .1., not a section"),
        ("SIMULATOR: {RGB_SENSOR: rgb}", "rgb_sensor is 'rgb', not a section"),
        ("habitat: 3", "'habitat' is 3"),
        ("habitat: {simulator: {agents: {a: {}, b: {}}}}", "2 agents"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_a_sentence(load, text, words):
    with pytest.raises(InputError, match=words):
        load(text)

"""
habitat-lab's own configuration files, such as ``vln_r2r.yaml``, as settings of a rollout.

Two dialects: keys in capitals (up to 0.2.2, and VLN-CE), and ``habitat:`` with a list of
``defaults`` (from 0.2.3 on). What a file does not set is what Habitat would take, read from the
defaults in its source; what cannot be honoured is named.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from janusvln_ros.errors import InputError, require

Tree = dict[str, Any]

HABITAT: Mapping[str, Any] = {
    "seed": 100,
    "environment.max_episode_steps": 1000,
    "environment.max_episode_seconds": 10_000_000,
    "simulator.type": "Sim-v0",
    "simulator.forward_step_size": 0.25,
    "simulator.turn_angle": 10,
    "simulator.tilt_angle": 15,
    "simulator.default_agent_id": 0,
    "simulator.default_agent_navmesh": True,
    "simulator.navmesh_include_static_objects": False,
    "simulator.requires_textures": True,
    "simulator.scene_dataset": "default",
    "simulator.action_space_config": "v0",
    "simulator.habitat_sim_v0.gpu_device_id": 0,
    "simulator.habitat_sim_v0.gpu_gpu": False,
    "simulator.habitat_sim_v0.allow_sliding": True,
    "simulator.habitat_sim_v0.enable_physics": False,
    "simulator.habitat_sim_v0.enable_hbao": False,
    "agent.height": 1.5,
    "agent.radius": 0.1,
    "agent.max_climb": 0.2,
    "agent.max_slope": 45.0,
    "agent.is_set_start_state": False,
    "rgb.width": 640,
    "rgb.height": 480,
    "rgb.hfov": 90,
    "rgb.position": [0.0, 1.25, 0.0],
    "rgb.orientation": [0.0, 0.0, 0.0],
    "rgb.type": "HabitatSimRGBSensor",
    "rgb.sensor_subtype": "PINHOLE",
    "rgb.noise_model": "None",
    "rgb.noise_model_kwargs": {},
    "task.type": "Nav-v0",
    "task.end_on_success": False,
    "task.measurements.success.success_distance": 0.2,
    "dataset.type": "PointNav-v1",
    "dataset.split": "train",
    "dataset.content_scenes": ["*"],
    "dataset.languages": ["*"],
    "dataset.roles": ["guide"],
}
"""
What Habitat takes where a file is silent (0.2.0 to 0.3.3 agree in these), by our short names of
the agent and its colour camera.
"""

DATASETS = {
    "R2RVLN-v1": "r2r",
    "VLN-CE-v1": "r2r",
    "RxR-VLN-CE-v1": "rxr",
}
"""Type of a data set of Habitat or VLN-CE -> its name here."""

R2R = {"dataset": {"type": "R2RVLN-v1", "split": "train"}}
CAMERA = {"width": 256, "height": 256}
SHIPPED: Mapping[str, Tree] = {
    "habitat_config_base": {},
    "habitat/task: vln_r2r": {"task": {"type": "VLN-v0"}},
    "habitat/dataset/vln: mp3d_r2r": R2R,
    "benchmark/nav: vln_r2r": {
        **R2R,
        "task": {"type": "VLN-v0"},
        "environment": {"max_episode_steps": 500},
        "simulator": {"forward_step_size": 0.25, "turn_angle": 15},
        "rgb": {**CAMERA, "hfov": 90},
        "depth": CAMERA,
    },
}
"""Entries of ``defaults`` that come with habitat-lab, and what they set for us."""

THRESHOLDS = {"success": "success", "oracle_success": "oracle", "ndtw": "ndtw"}
"""Measures with a ``success_distance``, VLN-CE's among them -> our thresholds."""

NEUTRAL = (
    "habitat/simulator/agents",
    "habitat/simulator/sensor_setups",
    "habitat/simulator/sim_sensors",
    "habitat/task/measurements",
    "habitat/task/lab_sensors",
    "habitat/task/actions",
)
"""Entries that only choose sensors, measures and actions, which are always the same here."""

HINTS = dict.fromkeys(
    ("dataset.data_path", "dataset.scenes_dir"), " (episodes and scenes lie below --data)"
)

MARKS = {
    *("habitat", "defaults", "ENVIRONMENT", "SIMULATOR", "TASK", "DATASET"),
    *("TASK_CONFIG", "BASE_TASK_CONFIG_PATH"),
}
"""Keys at the top of habitat-lab's files, which our settings do not have."""

WITHOUT_EFFECT = (
    "depth.min_depth",
    "depth.max_depth",
    "depth.normalize_depth",
    "depth.type",
    "environment.iterator_options",
    "simulator.agents_order",
    "simulator.agents",
    "simulator.seed",
    "simulator.scene",
    "simulator.create_renderer",
    "simulator.concur_render",
    "simulator.auto_sleep",
    "simulator.habitat_sim_v0.frustum_culling",
    "simulator.habitat_sim_v0.leave_context_with_background_renderer",
    "simulator.habitat_sim_v0.physics_config_file",
    "agent.sensors",
    "task.sensors",
    "task.lab_sensors",
    "task.possible_actions",
    "task.actions",
    "task.measurements",
    "task.reward_measure",
    "task.success_measure",
    "task.success_reward",
    "task.slack_reward",
    "task.goal_sensor_uuid",
    "task.instruction_sensor_uuid",
    "env_task",
    "gym",
)
"""Keys that change nothing of what an evaluation measures: order, rewards, what else is sensed."""


def is_habitat_config(values: Mapping[str, Any]) -> bool:
    """Whether the keys of a YAML file are those of habitat-lab, in either dialect."""
    return not MARKS.isdisjoint(values)


def from_habitat(values: Mapping[str, Any], name: str) -> tuple[Tree, list[str]]:
    """
    Return the keys of our settings that say the same as habitat-lab's file ``name``, and a
    sentence for each of its keys that cannot be honoured.

    Raises:
        InputError: the file is none for this task, or a value has a form that Habitat would not
            take either.
    """
    tree, unknown = _tree(values, name)
    flat = dict(_leaves(tree))
    given = {**HABITAT, **flat}
    kind = flat.get("dataset.type")
    require(
        kind is None or kind in DATASETS,
        f"{name}: the data set is {kind!r}; only {', '.join(DATASETS)} can be evaluated",
    )
    settings, used = _settings(given, flat, name)
    unknown += [
        f"{key}: {value!r}" + HINTS.get(key, "")
        for key, value in flat.items()
        if key not in used and not _without_effect(key) and HABITAT.get(key, ...) != value
    ]
    unknown += [
        f"depth.{key}: {flat[f'depth.{key}']!r} (the depth camera is the colour camera's twin)"
        for key in ("width", "height", "hfov", "position", "orientation")
        if f"depth.{key}" in flat and flat[f"depth.{key}"] != given[f"rgb.{key}"]
    ]
    return settings, [f"{name}: {_spelled(key)} cannot be honoured" for key in unknown]


def _settings(given: Tree, flat: Tree, name: str) -> tuple[Tree, set[str]]:
    """Our settings, and the keys that they came from (all but ``depth`` ones)."""
    used: set[str] = {f"depth.{key}" for key in ("width", "height", "hfov", "position")}
    used |= {"depth.orientation"}

    def take(key: str, convert: Callable[[Any], Any]) -> Any:
        used.add(key)
        try:
            return convert(given[key])
        except (TypeError, ValueError, IndexError) as error:
            raise InputError(f"{name}: {_spelled(key)} is {given[key]!r}: {error}") from error

    place, turned = take("rgb.position", _three), take("rgb.orientation", _three)
    if place[0] or place[2]:
        used.discard("rgb.position")
    if turned[1] or turned[2]:
        used.discard("rgb.orientation")
    steps = take("environment.max_episode_steps", int)
    near = take("task.measurements.success.success_distance", float)
    thresholds = {"success": near, "oracle": near} | {
        ours: take(key, float)
        for measure, ours in THRESHOLDS.items()
        if (key := f"task.measurements.{measure}.success_distance") in flat
    }
    languages = take("dataset.languages", list)
    options = {}
    if "simulator.habitat_sim_v0.gpu_device_id" in flat:
        options["gpu"] = take("simulator.habitat_sim_v0.gpu_device_id", int)
    settings: Tree = {
        "backend": "habitat",
        "dataset": take("dataset.type", lambda kind: DATASETS.get(kind, "r2r")),
        "split": take("dataset.split", str),
        "role": take("dataset.roles", lambda roles: str(roles[0])),
        "languages": None if "*" in languages else languages,
        "seed": take("seed", int),
        "env": {
            "width": take("rgb.width", int),
            "height": take("rgb.height", int),
            "hfov": take("rgb.hfov", float),
            "camera_height": place[1],
            "tilt": -math.degrees(turned[0]) or 0.0,
            "agent_height": take("agent.height", float),
            "agent_radius": take("agent.radius", float),
            "forward_step": take("simulator.forward_step_size", float),
            "turn_step": take("simulator.turn_angle", float),
            "sliding": take("simulator.habitat_sim_v0.allow_sliding", bool),
            "max_steps": steps,
            "success_distance": near,
            "options": options,
        },
        # Habitat ends an episode at its limit; no STOP is forced before
        "rules": {"max_steps": None},
        "thresholds": thresholds,
    }
    return settings, used | {"task.type"}


def _tree(values: Mapping[str, Any], name: str) -> tuple[Tree, list[str]]:
    """One tree of keys in small letters for both dialects, and what of the file is not in it."""
    if "BASE_TASK_CONFIG_PATH" in values and "TASK_CONFIG" not in values:
        raise InputError(
            f"{name} is about an experiment and takes the task from "
            f"{values['BASE_TASK_CONFIG_PATH']}: give that file"
        )
    tree: Tree = {}
    unknown: list[str] = []
    inner: Any
    if "habitat" in values or "defaults" in values:
        for entry in values.get("defaults") or ():
            unknown += _apply_default(tree, entry)
        inner = values.get("habitat") or {}
        others = [key for key in values if key not in ("habitat", "defaults")]
    else:
        inner = values.get("TASK_CONFIG", values)
        known = ("SEED", "ENVIRONMENT", "SIMULATOR", "TASK", "DATASET")
        if "TASK_CONFIG" in values:
            others = [key for key in values if key != "TASK_CONFIG"]
        else:
            others = [key for key in values if key not in known]
            inner = {key: value for key, value in values.items() if key in known}
        inner = _lowered(inner, name)
    require(isinstance(inner, Mapping), f"{name}: 'habitat' is {inner!r}, not a section with keys")
    _merge(tree, _shortened(inner, name))
    return tree, unknown + [f"the section {key}" for key in others]


def _apply_default(tree: Tree, entry: Any) -> list[str]:
    """Take in an entry of hydra's list; what it is if it is not known."""
    if entry == "_self_":
        return []
    if isinstance(entry, Mapping) and len(entry) == 1:
        group, value = next(iter(entry.items()))
    else:
        group, _, value = str(entry).rpartition("/")
    group = str(group).removeprefix("override ").split("@")[0].strip("/")
    option = str(value).removesuffix(".yaml")
    for key in (f"{group}: {option}", option):
        if key in SHIPPED:
            _merge(tree, SHIPPED[key])
            return []
    return [] if group in NEUTRAL else [f"defaults: {group}: {value}"]


def _shortened(inner: Mapping[str, Any], name: str) -> Tree:
    """The tree with the agent and its two cameras at its top, as ``agent``, ``rgb``, ``depth``."""

    def section(parent: Tree, key: str) -> Tree:
        value = parent.pop(key, None) or {}
        require(isinstance(value, Mapping), f"{name}: {key} is {value!r}, not a section with keys")
        return dict(value)

    tree: Tree = {key: value for key, value in inner.items() if value is not None}
    simulator, task = section(tree, "simulator"), section(tree, "task")
    agent = section(simulator, "agent_0")
    if isinstance(simulator.get("agents"), Mapping):
        agents = section(simulator, "agents")
        require(
            len(agents) <= 1,
            f"{name}: it has {len(agents)} agents ({', '.join(agents)}): one can be evaluated",
        )
        for key in [*agents]:
            agent |= section(agents, key)
    sensors = section(agent, "sim_sensors")
    for long, short in (("rgb_sensor", "rgb"), ("depth_sensor", "depth")):
        tree[short] = section(simulator, long) | section(sensors, long)
    agent["sim_sensors"] = sensors
    if older := [measure for measure in THRESHOLDS if measure in task]:  # TASK.SUCCESS and others
        task["measurements"] = {measure: section(task, measure) for measure in older}
    return tree | {"simulator": simulator, "agent": agent, "task": task}


def _lowered(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        return {str(key).lower(): _lowered(inner, name) for key, inner in value.items()}
    return value


def _merge(into: Tree, more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


def _leaves(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _without_effect(key: str) -> bool:
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in WITHOUT_EFFECT)


def _spelled(key: str) -> str:
    """A key as the newer dialect writes it."""
    long = {
        "agent.": "simulator.agents.main_agent.",
        "rgb.": "simulator.agents.main_agent.sim_sensors.rgb_sensor.",
        "depth.": "simulator.agents.main_agent.sim_sensors.depth_sensor.",
    }
    for short, full in long.items():
        if key.startswith(short):
            return full + key.removeprefix(short)
    return key


def _three(value: Any) -> list[float]:
    numbers = [float(v) for v in value]
    if len(numbers) != 3:
        raise ValueError("give three numbers")
    return numbers

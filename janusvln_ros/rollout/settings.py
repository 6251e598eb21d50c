"""
The settings of a rollout, read from ``config/eval/*.yaml``: every number that the published
scripts hard-code is a field here.
"""

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from janusvln_ros import schema
from janusvln_ros.errors import require
from janusvln_ros.evaluation.metrics import Thresholds
from janusvln_ros.rollout.habitat_config import from_habitat, is_habitat_config
from janusvln_ros.rollout.perturb import PerturbedEye, PerturbSection
from sim_bridge import EnvSettings, NavEnv, make_env

Four = tuple[float, float, float, float]


@dataclass(frozen=True)
class EnvSection(EnvSettings):
    """
    What is simulated; ``options`` go to the backend as they are (for habitat: how its server is
    started).
    """

    options: dict[str, Any] = field(default_factory=dict)


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
        require(self.max_steps >= 1, f"rules.max_steps is {self.max_steps}: give 1 or more")
        require(
            self.not_understood in ("fail", "stop"),
            f"rules.not_understood is {self.not_understood!r}: give 'fail' or 'stop'",
        )
        require(
            self.max_blocked is None or self.max_blocked >= 1,
            f"rules.max_blocked is {self.max_blocked}: give 1 or more, or null",
        )


@dataclass(frozen=True)
class PolicySection:
    """How the model runs; None: as the checkpoint says, and on a GPU if there is one."""

    memory: str | None = None
    decoding: str | None = None
    prompt: str = "evaluation"
    precision: str | None = None
    device: str | None = None


@dataclass(frozen=True)
class ExpertSection:
    """
    The follower along the reference path: metres to a way point at which it counts as passed, and
    to the end at which it stops.
    """

    waypoint_radius: float = 1.8
    stop_radius: float = 0.25


@dataclass(frozen=True)
class BaselineSection:
    """
    Agents that do not look: probabilities of STOP, MOVE_FORWARD, TURN_LEFT, TURN_RIGHT, and how
    near the oracle stops, metres.
    """

    random: Four = (0.02, 0.3267, 0.3267, 0.3266)
    forward: Four = (0.02, 0.68, 0.15, 0.15)
    oracle_stop_radius: float = 1.0


@dataclass(frozen=True)
class CollectSection:
    """
    Expert trajectories: every state nearer than ``stop_radius`` to the end is labelled STOP; a
    drive that ends farther than ``keep_distance`` is dropped.
    """

    stop_radius: float = 0.5
    keep_distance: float = 1.0
    jpeg_quality: int = 90


@dataclass(frozen=True)
class DaggerSection:
    """
    Model-driven trajectories, the published scheme's numbers first (see `rollout.dagger`), then
    those of classic relabelling.
    """

    p: float = 0.0
    data_it: int = 3
    num_future_steps: int = 1
    force_expert: bool = False
    stop_distance: float = 3.0
    error_rate: float = 0.8
    max_errors: float = 12
    save_distance: float = 0.5
    efficiency_helped: float = 0.93
    efficiency_alone: float = 0.85
    observe_expert_frames: bool = True
    missed_stops: int = 8

    def __post_init__(self) -> None:
        require(0 <= self.p <= 1, f"dagger.p is {self.p}: give a probability")
        require(
            self.num_future_steps >= 1 and self.missed_stops >= 1 and self.data_it >= 0,
            "dagger.num_future_steps and dagger.missed_stops must be 1 or more, "
            "dagger.data_it 0 or more",
        )


@dataclass(frozen=True)
class Settings:
    """Everything a rollout depends on beside its agent and data; it is part of the manifest."""

    dataset: str = "houses"
    split: str = "val_unseen"
    role: str = "guide"
    languages: tuple[str, ...] | None = None
    backend: str = "houses"
    sharding: str = "balanced"
    seed: int = 42
    env: EnvSection = field(default_factory=EnvSection)
    perturb: PerturbSection = field(default_factory=PerturbSection)
    rules: Rules = field(default_factory=Rules)
    thresholds: Thresholds = field(default_factory=Thresholds)
    policy: PolicySection = field(default_factory=PolicySection)
    expert: ExpertSection = field(default_factory=ExpertSection)
    baselines: BaselineSection = field(default_factory=BaselineSection)
    collect: CollectSection = field(default_factory=CollectSection)
    dagger: DaggerSection = field(default_factory=DaggerSection)


def load_settings(config: str | Path, changes: Sequence[str] = ()) -> Settings:
    """
    Read settings from a YAML file, or by the name of one in ``config/eval``; ``changes`` are
    ``FIELD=VALUE`` with dotted keys and YAML values.

    A file of habitat-lab is known by its content, see `rollout.habitat_config`; what of it cannot
    be honoured is named on stderr.

    Raises:
        InputError: there is no such file, it is no YAML, a key is unknown, or a value has the
            wrong type.
    """
    path = schema.shipped("eval", str(config))
    values = schema.read_yaml(path)
    if is_habitat_config(values):
        values, sentences = from_habitat(values, str(path))
        for sentence in sentences:
            print(sentence, file=sys.stderr)
    return schema.build(Settings, schema.override(values, changes), str(path))


def open_env(settings: Settings, data_dir: str | Path) -> NavEnv:
    """Make the simulator of these settings, with what comes between it and the agent."""
    fields = dataclasses.asdict(settings.env)
    options = fields.pop("options")
    env = make_env(settings.backend, data_dir=data_dir, **fields, **options)
    if settings.perturb != PerturbSection():
        env.eye = PerturbedEye(settings.perturb, settings.seed)
    return env


def on_device(settings: Settings, device: str | None) -> Settings:
    """
    Let Habitat draw on the graphics card that the model of this worker runs on, unless
    ``env.options.gpu`` says otherwise.
    """
    if (
        settings.backend != "habitat"
        or "gpu" in settings.env.options
        or device is None
        or not device.startswith("cuda")
    ):
        return settings
    gpu = int(device.partition(":")[2] or 0)
    return dataclasses.replace(
        settings,
        env=dataclasses.replace(settings.env, options={**settings.env.options, "gpu": gpu}),
    )

"""
DAgger: the model drives, the expert helps or labels. Two schemes.

* ``published`` (`drive_published`): the model drives and the expert takes over on an intolerable
  error until the next way point; what was executed is learned, and only drives with a clear detour
  that reach the goal are kept. The numbers are `settings.DaggerSection`.
* ``classic``: `agents.LabelledMixture` with the model as the other driver; every visited state
  gets the expert's label. The expert drives a step with probability beta, which falls from round
  to round.

Differences from the published code, each a fault of it: frames at which the expert drives are
shown to the model as well, so that its memory has no gaps; the random choice depends on the
episode, not on the order in which a rank meets its episodes; finished episodes are not driven
again after a restart.
"""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from janusvln_ros.actions import Action
from janusvln_ros.camera.images import encode_jpeg
from janusvln_ros.data.episodes import Episode, GroundTruth, ground_truth_path, read_ground_truth
from janusvln_ros.data.trajectories import TrajectoryWriter
from janusvln_ros.errors import InputError
from janusvln_ros.evaluation.drive import Drive
from janusvln_ros.evaluation.metrics import measure
from janusvln_ros.rollout.agents import Agent, episode_random
from janusvln_ros.rollout.collect import LabelledWorker, result_line
from janusvln_ros.rollout.engine import Watch
from janusvln_ros.rollout.evaluate import make_agent
from janusvln_ros.rollout.settings import (
    DaggerSection,
    ExpertSection,
    Settings,
    on_device,
    open_env,
)
from janusvln_ros.rollout.shards import Worker
from sim_bridge import NavEnv, Observation
from sim_bridge.nav_env import record_place

SCHEMES = ("published", "classic")


def expert_share(p: float, data_it: int) -> float:
    """
    Return beta of a round, ``p ** data_it``: 1 in round 0, and 0 for p = 0 in any round, as
    published.
    """
    return 0.0 if p == 0 else p**data_it


@dataclass
class PublishedDrive:
    """
    A drive of the published scheme.

    ``model_success``: the expert never had to take over; ``forced_end``: the last way point was
    reached.
    """

    drive: Drive
    model_success: bool
    accumulated_error: int
    forced_end: bool

    @property
    def actions(self) -> list[int]:
        """The annotation's actions: -1 first, the last executed one (STOP) left out."""
        return [-1, *self.drive.actions[:-1]]


def drive_published(
    env: NavEnv,
    agent: Agent,
    episode: Episode,
    dagger: DaggerSection,
    expert: ExpertSection,
    reference_steps: int,
    rng: random.Random,
    watch: Watch | None = None,
) -> PublishedDrive:
    """
    Drive one episode by the published scheme.

    At each step somebody proposes an action: the expert with probability beta (then for
    ``num_future_steps`` steps) or while it has taken over, else the model. A proposal other than
    the expert's adds one to the accumulated error. Way points are ticked off where the expert
    would stop, which gives the wheel back. The expert takes over where the model wants to stop far
    from the goal or has erred too often, and stands in for any STOP before the last way point.

    Args:
        env: the simulator.
        agent: the model.
        episode: with its reference path.
        dagger: the scheme's numbers.
        expert: radius of way points before the last, and of the last.
        reference_steps: length of the ground truth's actions, which the tolerated errors are
            measured by.
        rng: for the choice between expert and model.
        watch: see `engine.Watch`.

    Raises:
        InputError: a way point cannot be reached.
    """
    observation = env.reset(episode)
    agent.reset(episode, env)
    drive = Drive()
    record_place(drive, env, observation)
    path = episode.reference_path
    tolerance = max(1, int(reference_steps / max(len(path) - 1, 1)))
    beta = expert_share(dagger.p, dagger.data_it)
    waypoint, errors, left = min(1, len(path) - 1), 0, 0
    taken_over, model_success, forced_end = dagger.force_expert, True, False

    def advice() -> Action:
        return env.expert_action(
            path[waypoint],
            expert.stop_radius if waypoint == len(path) - 1 else expert.waypoint_radius,
        )

    while not env.episode_over:
        best = advice()
        model_stop = False
        executed = Action(drive.actions[-1]) if drive.actions else None
        if taken_over or left > 0 or rng.random() < beta:
            left = (left if left > 0 else dagger.num_future_steps) - 1
            action = best
            if dagger.observe_expert_frames:
                agent.observe(observation, executed)
        else:
            # Text that is no action counts as STOP here, as published: the expert takes over.
            action = agent.act(observation, executed) or Action.STOP
            model_stop = action == Action.STOP
        errors += action != best
        while best == Action.STOP:
            taken_over, left = False, 0
            if waypoint == len(path) - 1:
                forced_end, action = True, Action.STOP
                break
            waypoint += 1
            best = advice()
        far = drive.distances[-1] >= dagger.stop_distance
        if not forced_end and (
            (model_stop and far)
            or errors / tolerance > dagger.error_rate
            or errors > dagger.max_errors
        ):
            model_success, taken_over, errors, action = False, True, 0, best
        if action == Action.STOP and not forced_end:
            action = best
        if watch is not None:
            watch(observation, action)
        observation = env.step(action)
        drive.actions.append(int(action))
        record_place(drive, env, observation)
    drive.calls = agent.calls
    drive.status = "stopped" if drive.stopped else "simulator_limit"
    return PublishedDrive(drive, model_success, errors, forced_end)


@dataclass(frozen=True)
class DaggerJob:
    """
    Collect model-driven trajectories with the policy of ``checkpoint`` (or another of
    `evaluate.AGENTS`, to try the scheme out).
    """

    out: Path
    settings: Settings
    data_dir: Path
    scheme: str
    checkpoint: Path | None
    agent: str = "policy"
    engine: str | None = None

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise InputError(f"--scheme is {self.scheme!r}: use one of {', '.join(SCHEMES)}")
        if self.engine is not None and self.scheme == "published":
            raise InputError(
                "the published scheme needs the simulator at hand: leave --ros out, "
                "or use --scheme classic"
            )

    @property
    def sharding(self) -> str:
        """How episodes are shared among processes."""
        return self.settings.sharding

    def open(self, shard: int, device: str | None) -> Worker:
        """Load the model and the simulator."""
        settings = on_device(self.settings, device)
        model = make_agent(self.agent, self.checkpoint, settings, device)
        if self.scheme == "classic":
            beta = expert_share(settings.dagger.p, settings.dagger.data_it)
            return LabelledWorker(
                settings, self.data_dir, self.out, shard, model, beta, {"beta": beta}, self.engine
            )
        path = ground_truth_path(self.data_dir, settings.dataset, settings.split, settings.role)
        return PublishedWorker(
            settings,
            open_env(settings, self.data_dir),
            model,
            read_ground_truth(path),
            TrajectoryWriter(self.out, settings.dataset, shard),
        )


class PublishedWorker:
    """Drives by the published scheme and keeps what it keeps."""

    def __init__(
        self,
        settings: Settings,
        env: NavEnv,
        agent: Agent,
        truth: dict[str, GroundTruth],
        writer: TrajectoryWriter,
    ) -> None:
        self.settings, self.env, self.agent, self.truth, self.writer = (
            settings,
            env,
            agent,
            truth,
            writer,
        )

    def run(self, episode: Episode) -> None:
        """
        Drive one episode; keep it if it reached the goal with a clear detour.

        Raises:
            InputError: the ground truth lacks this episode.
        """
        settings, dagger = self.settings, self.settings.dagger
        truth = self.truth.get(episode.episode_id)
        if truth is None:
            raise InputError(
                f"the ground truth lacks episode {episode.episode_id}, so the "
                "tolerated errors are unknown: use the file of these episodes"
            )
        frames: list[bytes] = []

        def watch(observation: Observation, action: Action) -> None:
            frames.append(encode_jpeg(observation.rgb, settings.collect.jpeg_quality))

        rng = episode_random(settings.seed, episode, "dagger")
        found = drive_published(
            self.env, self.agent, episode, dagger, settings.expert, len(truth.actions), rng, watch
        )
        result, save = judge(episode, found, dagger, len(truth.actions))
        if save:
            self.writer.write(episode, frames, found.actions, None, result)
        else:
            self.writer.skip(episode, result)

    def close(self) -> None:
        """Close simulator and journal."""
        self.env.close()
        self.writer.close()


def judge(
    episode: Episode, found: PublishedDrive, dagger: DaggerSection, reference_steps: int
) -> tuple[dict[str, Any], bool]:
    """
    Return the published result line of a drive, and whether it is kept: it ends near the goal
    after a clear detour.
    """
    drive = found.drive
    metrics = measure(drive)
    detour = (
        not found.model_success and metrics.pl < dagger.efficiency_helped
    ) or metrics.pl < dagger.efficiency_alone
    save = metrics.ne < dagger.save_distance and detour
    return {
        **result_line(episode, drive),
        "save": int(save),
        "model_success": found.model_success,
        "success": float(metrics.success),
        "relative_pl": metrics.pl,
        "step_id": len(drive.actions) - 1,
        "ref_actions_len": reference_steps,
        "accumulated_error": found.accumulated_error,
        "force_episode_end": found.forced_end,
    }, save

"""
DAgger: the model drives, the expert helps or labels. Two schemes.

* ``published`` (`PublishedMixture`): the model drives and the expert takes over on an intolerable
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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from janusvln_ros.actions import Action
from janusvln_ros.data.episodes import (
    Episode,
    GroundTruth,
    check_truth,
    ground_truth_path,
    read_ground_truth,
)
from janusvln_ros.data.trajectories import actions_before
from janusvln_ros.errors import require
from janusvln_ros.evaluation.drive import Drive
from janusvln_ros.evaluation.metrics import measure
from janusvln_ros.rollout.agents import WatchingAgent, episode_random
from janusvln_ros.rollout.collect import Collector, LabelledWorker, result_line
from janusvln_ros.rollout.engine import DirectEngine, Engine, MakeEngine, direct_engine
from janusvln_ros.rollout.evaluate import policy_agent
from janusvln_ros.rollout.settings import (
    DaggerSection,
    ExpertSection,
    Rules,
    Settings,
    on_device,
    open_env,
)
from janusvln_ros.rollout.shards import Job, Worker
from sim_bridge import NavEnv, Observation
from sim_bridge.expert import ReferencePathFollower

SCHEMES = ("published", "classic")

NO_LIMIT = Rules(max_steps=None)
"""A drive of the published scheme ends by the scheme or by the simulator."""


def expert_share(p: float, data_it: int) -> float:
    """
    Return beta of a round, ``p ** data_it``: 1 in round 0, and 0 for p = 0 in any round, as
    published.
    """
    return 0.0 if p == 0 else p**data_it


class PublishedMixture:
    """
    Model and expert as the published scheme mixes them.

    At each step somebody proposes an action: the expert with probability beta (then for
    ``num_future_steps`` steps) or while it has taken over, else the model. A proposal other than
    the expert's adds one to the accumulated error. Way points are ticked off where the expert
    would stop, which gives the wheel back. The expert takes over where the model wants to stop far
    from the goal or has erred too often, and stands in for any STOP before the last way point.

    ``truth``: of every episode by its id; the tolerated errors are measured by the length of its
    actions. ``generator``: an episode's, for the choice between expert and model.

    ``model_success``: the expert never had to take over; ``errors``: accumulated since it did
    last; ``forced_end``: the last way point was reached.
    """

    def __init__(
        self,
        model: WatchingAgent,
        dagger: DaggerSection,
        expert: ExpertSection,
        truth: Mapping[str, GroundTruth],
        generator: Callable[[Episode], random.Random],
    ) -> None:
        self.model, self.dagger, self.expert = model, dagger, expert
        self.truth, self.generator = truth, generator

    @property
    def calls(self) -> int:
        """How often the model was asked."""
        return self.model.calls

    def reset(self, episode: Episode, env: NavEnv) -> None:
        """
        Begin at the start of the reference path.

        Raises:
            InputError: the ground truth lacks this episode.
        """
        require(
            episode.episode_id in self.truth,
            f"the ground truth lacks episode {episode.episode_id}, so the "
            "tolerated errors are unknown: use the file of these episodes",
        )
        self.reference_steps = len(self.truth[episode.episode_id].actions)
        path = episode.reference_path
        self._tolerance = max(1, int(self.reference_steps / max(len(path) - 1, 1)))
        self._follower = ReferencePathFollower(
            env,
            path[1:] or path,
            waypoint_radius=self.expert.waypoint_radius,
            goal_radius=self.expert.stop_radius,
        )
        self._env, self._goal = env, episode.goal_position
        self._random = self.generator(episode)
        self._taken_over, self._expert_steps_left = self.dagger.force_expert, 0
        self._executed: Action | None = None
        self.model_success, self.errors, self.forced_end = True, 0, False
        self.model.reset(episode, env)

    def act(self, observation: Observation, executed: Action | None = None) -> Action:
        """
        Let somebody propose an action, and the expert judge it.

        Raises:
            InputError: a way point cannot be reached.
        """
        dagger = self.dagger
        best = self._follower.advice()
        model_stop = False
        left, beta = self._expert_steps_left, expert_share(dagger.p, dagger.data_it)
        if self._taken_over or left > 0 or self._random.random() < beta:
            self._expert_steps_left = (left if left > 0 else dagger.num_future_steps) - 1
            action = best
            if dagger.observe_expert_frames:
                self.model.observe(observation, self._executed)
        else:
            # Text that is no action counts as STOP here, as published: the expert takes over.
            action = self.model.act(observation, self._executed) or Action.STOP
            model_stop = action == Action.STOP
        self.errors += action != best
        if best == Action.STOP:
            self._taken_over, self._expert_steps_left = False, 0
            best = self._follower.action()
            self.forced_end = best == Action.STOP
        distance = self._env.geodesic_distance(observation.position, self._goal)
        if self.forced_end:
            action = Action.STOP
        elif (
            (model_stop and distance >= dagger.stop_distance)
            or self.errors / self._tolerance > dagger.error_rate
            or self.errors > dagger.max_errors
        ):
            self.model_success, self._taken_over, self.errors, action = False, True, 0, best
        elif action == Action.STOP:
            action = best
        self._executed = action
        return action


@dataclass(frozen=True)
class DaggerJob(Job):
    """
    Collect model-driven trajectories with the policy of ``checkpoint``.
    """

    scheme: str
    checkpoint: Path
    engine: MakeEngine = direct_engine

    def __post_init__(self) -> None:
        require(
            self.scheme in SCHEMES, f"--scheme is {self.scheme!r}: use one of {', '.join(SCHEMES)}"
        )
        require(
            self.engine is direct_engine or self.scheme != "published",
            "the published scheme needs the simulator at hand: leave --ros out, "
            "or use --scheme classic",
        )

    @property
    def truth_path(self) -> Path:
        """Where the ground truth of these episodes lies."""
        s = self.settings
        return ground_truth_path(self.data_dir, s.dataset, s.split, s.role)

    def reads(self) -> tuple[Path, ...]:
        """The published scheme measures by the ground truth."""
        return (self.truth_path,) if self.scheme == "published" else ()

    def check(self, episodes: Sequence[Episode]) -> None:
        """
        Find out whether the ground truth belongs to these episodes.

        Raises:
            InputError: it is missing or of others, or has none of them.
        """
        if self.scheme != "published":
            return
        truth = read_ground_truth(self.truth_path)
        check_truth(episodes, truth, self.truth_path)
        require(
            any(e.episode_id in truth for e in episodes),
            f"{self.truth_path} has none of these {len(episodes)} episodes, so the tolerated "
            "errors are unknown: put the file of these episodes there, or use --scheme classic",
        )

    def open(self, shard: int, device: str | None) -> Worker:
        """Load the model and the simulator."""
        settings = on_device(self.settings, device)
        model = policy_agent(self.checkpoint, settings, device)
        if self.scheme == "classic":
            beta = expert_share(settings.dagger.p, settings.dagger.data_it)
            about = {"beta": beta}
            return LabelledWorker(
                settings, self.data_dir, self.out, shard, model, beta, about, self.engine, self.run
            )
        mixture = PublishedMixture(
            model,
            settings.dagger,
            settings.expert,
            read_ground_truth(self.truth_path),
            lambda episode: episode_random(settings.seed, episode, "dagger"),
        )
        engine = DirectEngine(open_env(settings, self.data_dir), mixture, NO_LIMIT)
        return PublishedWorker(settings, engine, mixture, self.out, shard, self.run)


class PublishedWorker(Collector):
    """Drives by the published scheme and keeps what it keeps."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        mixture: PublishedMixture,
        out: Path,
        shard: int,
        run: str = "",
    ) -> None:
        super().__init__(settings, engine, out, shard, run)
        self.mixture = mixture

    def run(self, episode: Episode) -> None:
        """
        Drive one episode; keep it if it reached the goal with a clear detour. One that the ground
        truth lacks is passed over, as is one that cannot be driven, see `attempt`.
        """
        if episode.episode_id not in self.mixture.truth:
            sentence = f"the ground truth lacks episode {episode.episode_id} of {episode.scene}"
            self.pass_over(episode, "the ground truth lacks it", sentence)
            return
        driven = self.attempt(episode)
        if driven is None:
            return
        drive, frames = driven
        actions = actions_before(drive.actions, len(frames))
        self.note(episode, judge(episode, drive, self.mixture), frames, actions)


def judge(episode: Episode, drive: Drive, mixture: PublishedMixture) -> dict[str, Any]:
    """
    Return the published result line of a drive; it is to be kept (``save``) if it ends near the
    goal after a clear detour.
    """
    dagger, metrics = mixture.dagger, measure(drive)
    most = dagger.efficiency_alone
    if not mixture.model_success:
        most = max(most, dagger.efficiency_helped)
    arrived, detour = metrics.ne < dagger.save_distance, metrics.pl < most
    reason = "the drive made no clear detour" if arrived else "the drive did not end at the goal"
    return {
        **result_line(episode, drive),
        "save": int(arrived and detour),
        **({} if arrived and detour else {"reason": reason}),
        "model_success": mixture.model_success,
        "success": float(metrics.success),
        "relative_pl": metrics.pl,
        "step_id": len(drive.actions) - 1,
        "ref_actions_len": mixture.reference_steps,
        "accumulated_error": mixture.errors,
        "force_episode_end": mixture.forced_end,
    }

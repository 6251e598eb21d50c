"""
Collection: drives are written as trajectories, the expert's label at every frame.

With ``noise`` the expert's action is sometimes replaced by a random move, so that the labels also
teach how to come back; classic DAgger (`rollout.dagger`) is the same with a policy in place of the
noise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from janusvln_ros.actions import Action
from janusvln_ros.camera.images import encode_jpeg
from janusvln_ros.data.episodes import Episode, json_id
from janusvln_ros.data.trajectories import TrajectoryWriter, actions_before
from janusvln_ros.errors import InputError, require
from janusvln_ros.evaluation.drive import Drive, finite
from janusvln_ros.rollout.agents import ExpertAgent, LabelledMixture, WatchingAgent
from janusvln_ros.rollout.engine import Engine, MakeEngine, direct_engine
from janusvln_ros.rollout.settings import Settings
from janusvln_ros.rollout.shards import Job, Worker
from sim_bridge import Observation
from sim_bridge.nav_env import SetupError


@dataclass(frozen=True)
class CollectJob(Job):
    """
    Collect labelled trajectories of ``settings.dataset``: the expert, disturbed with probability
    ``noise``.
    """

    noise: float = 0.0
    engine: MakeEngine = direct_engine

    def __post_init__(self) -> None:
        require(
            0 <= self.noise < 1, f"--noise is {self.noise}: give a probability from 0 to below 1"
        )

    def open(self, shard: int, device: str | None) -> Worker:
        """Make a simulator, an expert and a writer."""
        return LabelledWorker(
            self.settings,
            self.data_dir,
            self.out,
            shard,
            None,
            1 - self.noise,
            {"noise": self.noise},
            self.engine,
            self.run,
        )


class Collector:
    """Drives in an engine and writes trajectories; a strategy says what is kept of a drive."""

    def __init__(
        self, settings: Settings, engine: Engine, out: Path, shard: int, run: str = ""
    ) -> None:
        self.settings, self.engine = settings, engine
        self.writer = TrajectoryWriter(out, settings.dataset, shard, run)
        self.failed: list[str] = []

    def drive(self, episode: Episode) -> tuple[Drive, list[bytes]]:
        """Drive one episode; return its record and, as JPEG, the frame before every action."""
        frames: list[bytes] = []

        def watch(observation: Observation, action: Action) -> None:
            frames.append(encode_jpeg(observation.rgb, self.settings.collect.jpeg_quality))

        return self.engine.run(episode, watch), frames

    def attempt(self, episode: Episode) -> tuple[Drive, list[bytes]] | None:
        """
        `drive`, and where the episode cannot be driven pass over it with the reason: None.

        Raises:
            SetupError: the simulator cannot be used for any episode.
            InputError: three episodes in a row could not be driven, so that it is the data that
                are broken and not an episode.
        """
        try:
            driven = self.drive(episode)
        except SetupError:
            raise
        except InputError as error:  # no way leads to a way point, or the scene is damaged
            self.failed.append(f"episode {episode.episode_id} in {episode.scene}: {error}")
            if len(self.failed) >= 3:
                raise InputError(
                    "three episodes in a row could not be driven: " + "; ".join(self.failed)
                ) from error
            self.pass_over(episode, "it cannot be driven", str(error))
            return None
        self.failed.clear()
        return driven

    def pass_over(self, episode: Episode, reason: str, error: str) -> None:
        """Note that an episode is not driven, counted under ``reason``, told by ``error``."""
        result = {"scene": episode.scene, "episode_id": json_id(episode.episode_id)}
        about = {"status": "error", "reason": reason, "error": error, "save": 0}
        self.note(episode, {**result, **about})

    def note(
        self,
        episode: Episode,
        result: Mapping[str, Any],
        frames: Sequence[bytes] = (),
        actions: Sequence[int] = (),
        labels: Sequence[int] | None = None,
    ) -> None:
        """Write the result of an episode, and its trajectory if it is to be kept (``save``)."""
        if result["save"]:
            self.writer.write(episode, frames, actions, labels, result)
        else:
            self.writer.skip(episode, result)

    def close(self) -> None:
        """Close engine and journal."""
        self.engine.close()
        self.writer.close()


class LabelledWorker(Collector):
    """
    Drives `LabelledMixture` and writes what it saw, what it did and what it should have done.

    Drives of a model (``other``) are kept even if they never arrived: the labels are right at
    every state, and failures teach most.
    """

    def __init__(
        self,
        settings: Settings,
        data_dir: Path,
        out: Path,
        shard: int,
        other: WatchingAgent | None,
        beta: float,
        about: Mapping[str, Any],
        engine: MakeEngine,
        run: str = "",
    ) -> None:
        self.about, self.keep_unfinished = about, other is not None
        expert = ExpertAgent(settings.collect.stop_radius, settings.expert.waypoint_radius)
        self.agent = LabelledMixture(
            expert, other, beta, settings.seed, settings.dagger.missed_stops
        )
        super().__init__(settings, engine(settings, data_dir, self.agent), out, shard, run)

    def run(self, episode: Episode) -> None:
        """
        Drive one episode and keep it, unless it ended too far from the goal to be an example;
        raises as `attempt`.
        """
        driven = self.attempt(episode)
        if driven is None:
            return
        drive, frames = driven
        labels, stopped = self.agent.labels, drive.status == "stopped"
        arrived = stopped and drive.distances[-1] <= self.settings.collect.keep_distance
        keep = arrived or (self.keep_unfinished and not stopped)
        result = {**result_line(episode, drive), "save": int(keep), **self.about}
        if not keep:
            result["reason"] = "the drive did not end near the goal"
        # at the forced STOP nobody was asked, so that frame has no label
        actions = actions_before(drive.actions, len(labels))
        self.note(episode, result, frames[: len(labels)], actions, labels)


def result_line(episode: Episode, drive: Drive) -> dict[str, Any]:
    """What every collection notes about a drive, kept or not."""
    return {
        "scene": episode.scene,
        "episode_id": json_id(episode.episode_id),
        "trajectory_id": json_id(episode.trajectory_id),
        "status": drive.status,
        "steps": len(drive.actions),
        "distance_to_goal": finite(drive.distances[-1]),
    }

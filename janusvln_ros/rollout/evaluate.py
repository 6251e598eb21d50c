"""
Evaluation: an agent drives every episode once; lines of results are journalled, then merged into
results.jsonl, summary.json and report.html.
"""

import dataclasses
import hashlib
import json
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from janusvln_ros.data.episodes import (
    Episode,
    GroundTruth,
    Identity,
    check_truth,
    ground_truth_path,
    read_ground_truth,
)
from janusvln_ros.data.journal import Journal, journal_path
from janusvln_ros.data.left_out import counted
from janusvln_ros.data.top_down_map import TopDownMap
from janusvln_ros.documents import read_object
from janusvln_ros.errors import FailedError, InputError, require
from janusvln_ros.evaluation.drive import Drive
from janusvln_ros.evaluation.metrics import Thresholds, measure
from janusvln_ros.evaluation.report import write_report
from janusvln_ros.evaluation.summary import error_line, result_line, summarize
from janusvln_ros.files import atomic_write, one_name
from janusvln_ros.policy.identity import checkpoint_digest
from janusvln_ros.rollout.agents import (
    Agent,
    ExpertAgent,
    OracleStopAgent,
    PolicyAgent,
    RandomAgent,
)
from janusvln_ros.rollout.engine import Engine, MakeEngine, direct_engine
from janusvln_ros.rollout.manifest import read_manifest, run_digest
from janusvln_ros.rollout.paraphrases import RETOLD, retold
from janusvln_ros.rollout.run import execute, read_split
from janusvln_ros.rollout.settings import Settings, on_device
from janusvln_ros.rollout.shards import (
    Cluster,
    Job,
    Worker,
    finished,
)
from sim_bridge.homes.language.variants import VARIANTS, varied
from sim_bridge.nav_env import SetupError

AGENTS = ("policy", "expert", "random", "forward", "oracle-stop")
INSTRUCTIONS = ("normal", "removed", "swapped", *VARIANTS, *RETOLD)
"""
What the agent is told: the episode's text, none, another episode's text, or its own in another
form: in lower or upper case, with one typo a sentence, with synonyms, or politely framed.
"""


def make_agent(
    name: str, checkpoint: Path | None, settings: Settings, device: str | None = None
) -> Agent:
    """
    Make the agent ``name`` of `AGENTS`.

    ``oracle-stop`` moves as the policy of ``checkpoint``, or without one as ``forward``.

    Raises:
        InputError: unknown agent, or the checkpoint cannot be used.
    """
    if name == "expert":
        return ExpertAgent(settings.expert.stop_radius, settings.expert.waypoint_radius)
    if name in ("random", "forward"):
        return RandomAgent(settings.seed, getattr(settings.baselines, name))
    if name == "oracle-stop":
        inner = make_agent("policy" if checkpoint else "forward", checkpoint, settings, device)
        return OracleStopAgent(inner, settings.baselines.oracle_stop_radius)
    if name != "policy" or checkpoint is None:
        raise InputError(f"agent {name!r} is unknown: use one of {', '.join(AGENTS)}")
    return policy_agent(checkpoint, settings, device)


def policy_agent(checkpoint: Path, settings: Settings, device: str | None = None) -> PolicyAgent:
    """
    Load the policy of ``checkpoint``, on ``device`` unless the settings name one.

    Raises:
        InputError: the checkpoint cannot be used.
    """
    import torch

    from janusvln_ros.policy import Navigator

    options: dict[str, Any] = dataclasses.asdict(settings.policy)
    options["device"] = (
        settings.policy.device or device or ("cuda" if torch.cuda.is_available() else "cpu")
    )
    given = {key: value for key, value in options.items() if value is not None}
    return PolicyAgent(Navigator.from_pretrained(checkpoint, **given), checkpoint)


def told(
    episodes: Sequence[Episode], instructions: str, seed: int, data_dir: Path
) -> dict[Identity, str]:
    """
    Return what the agent is told in each episode of ``data_dir``.

    ``swapped`` gives each episode another one's text, drawn once for the seed: every text is used
    as often as it occurs as far as possible, never for an episode with that same text. The other
    forms follow from the text and the seed.

    Raises:
        InputError: unknown mode, or all texts are equal, so that there is none to swap with.
    """
    keys = [e.identity for e in episodes]
    if instructions == "normal":
        return {key: e.instruction for key, e in zip(keys, episodes)}
    if instructions == "removed":
        return dict.fromkeys(keys, "")
    if instructions in VARIANTS:
        return {key: varied(e.instruction, instructions, seed) for key, e in zip(keys, episodes)}
    if instructions in RETOLD:
        return retold(data_dir, episodes, instructions, seed)
    require(
        instructions == "swapped",
        f"--instructions is {instructions!r}: use one of {', '.join(INSTRUCTIONS)}",
    )
    texts = [e.instruction for e in episodes]
    require(len(set(texts)) >= 2, "--instructions swapped needs episodes with different texts")
    order = sorted(range(len(texts)), key=lambda i: keys[i])
    random.Random(seed).shuffle(order)
    result = {}
    for place, i in enumerate(order):
        other = next(j for j in order[place + 1 :] + order[:place] if texts[j] != texts[i])
        result[keys[i]] = texts[other]
    return result


@dataclass(frozen=True)
class EvaluateJob(Job):
    """
    Evaluate ``agent`` (of `AGENTS`), told ``instructions`` (of `INSTRUCTIONS`), on the episodes of
    ``settings``, driven through what ``engine`` makes.
    """

    agent: str
    checkpoint: Path | None = None
    instructions: str = "normal"
    engine: MakeEngine = direct_engine

    def open(self, shard: int, device: str | None) -> Worker:
        """Load the agent and the simulator."""
        s = self.settings
        agent = make_agent(self.agent, self.checkpoint, s, device)
        # Drawn over the whole split, so that the texts do not depend on how many episodes are run
        # or by whom.
        everything = read_split(s, self.data_dir).episodes
        return EvaluateWorker(
            self.out,
            shard,
            self.engine(on_device(s, device), self.data_dir, agent),
            s.thresholds,
            self.truth(),
            told(everything, self.instructions, s.seed, self.data_dir),
            oracle_stops=self.agent == "oracle-stop",
            verdict=_verdict_of(agent),
            run=self.run,
        )

    @property
    def truth_path(self) -> Path:
        """Where the ground truth of these episodes lies, if there is one."""
        s = self.settings
        return ground_truth_path(self.data_dir, s.dataset, s.split, s.role)

    def truth(self) -> dict[str, GroundTruth]:
        """The ground truth by episode id; empty where there is none."""
        return read_ground_truth(self.truth_path) if self.truth_path.is_file() else {}

    def reads(self) -> tuple[Path, ...]:
        """The ground truth, which nDTW is measured by."""
        return (self.truth_path,)

    def check(self, episodes: Sequence[Episode]) -> None:
        """
        Find out whether the ground truth, where there is one, belongs to these episodes.

        Raises:
            InputError: it is damaged, or of others.
        """
        check_truth(episodes, self.truth(), self.truth_path)


def _verdict_of(agent: Agent) -> Callable[[str], str | None]:
    """What a text is to the agent's checkpoint; None where nothing is known of that."""
    if not isinstance(agent, PolicyAgent) or agent.navigator.vocabulary is None:
        return lambda text: None
    understand = agent.navigator.understand
    return lambda text: understand(text).verdict


class EvaluateWorker:
    """Runs episodes in an engine and journals their results."""

    def __init__(
        self,
        out: Path,
        shard: int,
        engine: Engine,
        thresholds: Thresholds,
        truth: dict[str, GroundTruth],
        given: dict[Identity, str],
        oracle_stops: bool = False,
        verdict: Callable[[str], str | None] = lambda text: None,
        run: str = "",
    ) -> None:
        self.out, self.engine, self.thresholds, self.truth, self.given, self.oracle_stops = (
            out,
            engine,
            thresholds,
            truth,
            given,
            oracle_stops,
        )
        self.verdict = verdict
        self.journal = Journal(journal_path(out, shard), run=run)
        self._failed: list[str] = []

    def run(self, episode: Episode) -> None:
        """
        Run one episode, again if it fails other than by bad input, and journal what came of it.

        Raises:
            SetupError: the simulator cannot be used for any episode.
            FailedError: three episodes in a row failed, so that it is the run that is broken
                and not an episode.
        """
        given = self.given[episode.identity]
        asked = dataclasses.replace(episode, instruction=given)
        line = episode.identity._asdict()
        for attempt in (1, 2):
            try:
                drive = self.engine.run(asked)
            except SetupError:
                raise
            except Exception as error:
                reason, cause = f"{type(error).__name__}: {error}", error
                again = attempt == 1 and not isinstance(error, InputError)
                print(
                    f"episode {episode.episode_id} in {episode.scene} failed "
                    f"({reason.splitlines()[0]}){', trying once more' if again else ''}",
                    file=sys.stderr,
                )
                if not again:
                    break
            else:
                self._failed.clear()
                result = self._measure(episode, drive, given)
                self.journal.append({**line, "result": result, "path": _path(drive)})
                self._keep_map(episode)
                return
        self._failed.append(reason)
        if len(self._failed) >= 3:
            raise FailedError(f"three episodes in a row failed, the last with {reason}") from cause
        failed = error_line(episode, reason, given, self.verdict(given))
        self.journal.append({**line, "result": failed, "path": []})

    def _measure(self, episode: Episode, drive: Drive, given: str) -> dict[str, Any]:
        truth = self.truth.get(episode.episode_id)
        reference = truth.locations if truth is not None and truth.locations else None
        return result_line(
            episode,
            drive,
            measure(drive, reference, self.thresholds),
            given=given,
            chose_stop=drive.status == "stopped" and not self.oracle_stops,
            reference_actions=None if truth is None else truth.actions,
            understanding=self.verdict(given),
        )

    def _keep_map(self, episode: Episode) -> None:
        """Keep the map of the floor for the report, once for each scene and height."""
        path = self.out / "maps" / f"{map_name(episode)}.npz"
        if not path.is_file():
            self.engine.top_down_map().save(path)

    def close(self) -> None:
        """Close engine and journal."""
        self.engine.close()
        self.journal.close()


def map_name(episode: Episode) -> str:
    """Name of the file that holds the map of the floor on which an episode starts."""
    # scenes of two data sets may have one name
    scene = hashlib.sha256(episode.scene_id.encode()).hexdigest()[:6]
    name = f"{episode.scene}-{scene}_{round(episode.start_position[1])}"
    return one_name(name, "the name of a map")


def _path(drive: Drive) -> list[list[float]]:
    """Where the drive went, to the centimetre, standing still left out."""
    points = [[round(v, 2) for v in position] for position in drive.positions]
    return [point for point, _ in groupby(points)]


def evaluate(
    job: EvaluateJob,
    *,
    count: int | None = None,
    workers: int = 1,
    devices: tuple[str, ...] = (),
    threads: int | None = None,
    cluster: Cluster,
) -> dict[str, Any] | None:
    """
    Run an evaluation to its end, resuming what is in ``job.out``; return the summary, or None on
    ranks that do not merge.

    Raises:
        InputError: bad data, checkpoint or settings, or ``job.out`` belongs to another run.
        FailedError: a worker failed (the same call goes on where it stopped), or no episode
            could be run.
    """
    identity: dict[str, Any] = {
        "agent": job.agent,
        "instructions": job.instructions,
        "engine": "direct" if job.engine is direct_engine else "ros",
    }
    if job.checkpoint is not None:
        identity["checkpoint_sha256"] = checkpoint_digest(job.checkpoint)
    done = execute(
        job,
        cluster=cluster,
        workers=workers,
        count=count,
        identity={"evaluate": identity},
        title=f"{job.agent} {job.settings.split}",
        devices=devices,
        threads=threads,
    )
    if done is None:
        return None
    found, episodes = done
    require_results(job.out)
    manifest = read_manifest(job.out)
    notes = {
        **identity,
        "backend": job.settings.backend,
        "versions": manifest["versions"],
        "checkpoint": None if job.checkpoint is None else str(job.checkpoint),
        "dataset": job.settings.dataset,
        "split": job.settings.split,
        "seed": job.settings.seed,
        "thresholds": dataclasses.asdict(job.settings.thresholds),
        "inputs": manifest["inputs"],
        "run": run_digest(manifest),
    }
    if job.checkpoint is not None:
        config = read_object(job.checkpoint / "config.json")
        notes["trained"] = bool(config.get("navigation", {}).get("trained", True))
    return merge(job.out, episodes, len(found.rejected), {**notes, **counted(found.rejected)})


def _in_order(episode: Episode) -> tuple[str, str, int, str, str]:
    """Scenes one after the other, the episodes of each by number."""
    number = len(episode.episode_id), episode.episode_id
    return episode.scene, episode.scene_id, *number, episode.instruction


def require_results(out: Path) -> None:
    """
    Go on only where at least one episode of a run that has any was driven.

    Raises:
        FailedError: none was, so that a table would tell nothing of the agent.
    """
    results = [line["result"] for line in finished(out).values()]
    if results and all("error" in result for result in results):
        raise FailedError(
            f"none of {len(results)} episodes could be run, so there is no result: "
            f"{results[-1]['error']}. Mend that and give another --out"
        )


def merge(
    out: Path, episodes: Sequence[Episode], rejected: int, notes: dict[str, Any]
) -> dict[str, Any]:
    """
    Write results.jsonl (each episode once, sorted), summary.json and report.html from the
    journals; return the summary.
    """
    journal = finished(out)
    episodes = sorted(episodes, key=_in_order)
    lines = [journal[e.identity] for e in episodes]
    results = [line["result"] for line in lines]
    summary = {**summarize(results, rejected), **notes, "out": str(out)}
    floors = {path.stem: TopDownMap.load(path) for path in (out / "maps").glob("*.npz")}
    maps = [floors.get(map_name(e)) for e in episodes]
    paths, references = [line["path"] for line in lines], [e.reference_path for e in episodes]
    atomic_write(
        out / "results.jsonl",
        "".join(json.dumps(result, ensure_ascii=False) + "\n" for result in results),
    )
    write_report(out / "report.html", summary, results, paths, references, maps)
    atomic_write(out / "summary.json", json.dumps(summary, indent=1) + "\n")
    return summary

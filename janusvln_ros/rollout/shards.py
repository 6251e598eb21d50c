"""
Many episodes over many processes: who takes which, how a run goes on after a kill, and how its
progress is seen.

Results travel through files only (append-only journals, one per shard), so the ranks that torchrun
starts need no process group, and a run killed at any moment goes on where it stopped, with any
number of processes.
"""

import multiprocessing
import os
import random
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from janusvln_ros.data.episodes import Episode, Identity, identity_of
from janusvln_ros.data.journal import JOURNALS, read_journals
from janusvln_ros.documents import parse_json
from janusvln_ros.errors import FailedError, InputError, require
from janusvln_ros.files import trouble
from janusvln_ros.lifetime import end_with_parent
from janusvln_ros.rollout.settings import Settings


@dataclass(frozen=True)
class Cluster:
    """
    This process among those that torchrun (or SLURM) started: ``rank`` of ``world_size``; alone it
    is 0 of 1. ``local_rank`` chooses the GPU; ``local_size``: processes on this machine.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @classmethod
    def from_environment(cls) -> "Cluster":
        """
        Read RANK, WORLD_SIZE and LOCAL_RANK.

        Raises:
            InputError: they are no numbers or do not fit together.
        """
        try:
            rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
            local = int(os.environ.get("LOCAL_RANK", str(rank)))
            here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        except ValueError as error:
            raise InputError(
                f"RANK, WORLD_SIZE and LOCAL_RANK must be numbers: {error}"
            ) from error
        require(
            0 <= rank < world,
            f"RANK is {rank} and WORLD_SIZE {world}: start the command with "
            "torchrun, or without both",
        )
        return cls(rank, world, local, here)


def choose(episodes: Sequence[Episode], count: int | None, seed: int) -> list[Episode]:
    """
    Choose ``count`` episodes (None: all) at random but the same for equal seeds; a larger count
    contains the smaller one's.
    """
    if count is None or count >= len(episodes):
        return list(episodes)
    require(count >= 1, f"--episodes is {count}: give 1 or more")
    order = list(range(len(episodes)))
    random.Random(seed).shuffle(order)
    return [episodes[i] for i in sorted(order[:count])]


def share(
    episodes: Iterable[Episode], shard: int, shards: int, how: str = "balanced"
) -> list[Episode]:
    """
    Return the episodes of one shard, those of a scene together, scenes in order.

    ``published``: every ``shards``-th episode of every scene. ``balanced``: runs of equal length
    (to within one) over all scenes, so that houses with an episode or two are shared evenly and
    each is loaded by few processes.
    """
    by_scene: dict[str, list[Episode]] = defaultdict(list)
    for episode in episodes:
        by_scene[episode.scene_id].append(episode)
    if how == "published":
        return [e for scene in sorted(by_scene) for e in by_scene[scene][shard::shards]]
    require(how == "balanced", f"sharding {how!r} is unknown: use 'balanced' or 'published'")
    ordered = [e for scene in sorted(by_scene) for e in by_scene[scene]]
    return ordered[len(ordered) * shard // shards : len(ordered) * (shard + 1) // shards]


class Worker(Protocol):
    """Does the episodes of one shard in one process."""

    def run(self, episode: Episode) -> None:
        """Do one episode and put its line into the shard's journal."""
        ...

    def close(self) -> None:
        """Release what it holds."""
        ...


@dataclass(frozen=True)
class Job(ABC):
    """
    A run: picklable, so that every process can open its own worker.

    ``out`` is the output folder, with its journals; ``data_dir`` the user's data folder; ``run``
    the digest that its lines carry, see `manifest.claim`.
    """

    out: Path
    settings: Settings
    data_dir: Path
    run: str = field(default="", kw_only=True)

    def reads(self) -> tuple[Path, ...]:
        """Files that the run depends on beside episodes and scenes, whether there or not."""
        return ()

    def check(self, episodes: Sequence[Episode]) -> None:
        """
        Find out before the first step what is wrong with the data.

        Raises:
            InputError: something is.
        """
        return

    @abstractmethod
    def open(self, shard: int, device: str | None) -> Worker:
        """
        Make the worker of a shard, in the process that will use it.

        ``device``: where its model runs; None: the default.
        """


def finished(out: Path, run: str | None = None) -> dict[Identity, dict[str, Any]]:
    """
    Return every finished episode's line from all journals in ``out``, once each.

    Raises:
        InputError: a line is of another run than ``run``.
    """
    lines: dict[Identity, dict[str, Any]] = {}
    for line in read_journals(out):
        require(
            run is None or line.get("run") == run,
            f"a journal in {out} holds lines of another run ({line.get('run')}, not {run}): "
            "choose another --out",
        )
        lines.setdefault(identity_of(line), line)
    return lines


def run_sharded(
    job: Job,
    episodes: Sequence[Episode],
    workers: int,
    cluster: Cluster,
    *,
    devices: Sequence[str] = (),
    title: str = "",
    run: str | None = None,
) -> bool:
    """
    Do the episodes that no journal has yet, in ``workers`` processes on this rank (1: in this very
    process).

    ``devices`` are given to the shards of this rank in turn; ``run`` is the digest that lines of
    this run carry, see `manifest.claim`. Progress goes to stderr. Returns True
    on the rank that must merge: rank 0, once the episodes of all ranks are in.

    Raises:
        InputError: a worker met bad input, or there are lines of another run.
        FailedError: a worker failed; why is on stderr.
    """
    require(workers >= 1, f"--workers is {workers}: give 1 or more")
    wanted = {e.identity for e in episodes}
    done = set(finished(job.out, run)) & wanted
    # Several ranks start at different moments and see different journals, so their shares must not
    # depend on them; one alone shares what is left evenly.
    alone = cluster.world_size == 1
    pool = [e for e in episodes if e.identity not in done] if alone else episodes
    mine: list[Shard] = []
    for w in range(workers):
        number = cluster.rank * workers + w
        taken = share(pool, number, cluster.world_size * workers, job.settings.sharding)
        if todo := [e for e in taken if e.identity not in done]:
            mine.append(Shard(number, devices[w % len(devices)] if devices else None, todo))
    if done:
        print(f"resuming: {len(done)} of {len(wanted)} episodes are done", file=sys.stderr)
    with closing(Progress(job.out, wanted, title, shown=cluster.rank == 0)) as progress:
        if len(mine) == 1:
            work(job, mine[0], progress.update)
        elif mine:
            spawn_workers(job, mine, progress.update)
        if cluster.rank > 0:
            return False
        if not progress.update():
            print("this rank has finished, waiting for the others", file=sys.stderr)
        while not progress.update():
            time.sleep(0.5)
        return True


class Shard(NamedTuple):
    """What one worker does: its number, unique in the run, its device, and its episodes."""

    number: int
    device: str | None
    episodes: list[Episode]


def work(job: Job, shard: Shard, after: Callable[[], Any] | None = None) -> None:
    """Do a shard in this process; ``after`` each episode somebody may want to look."""
    with closing(job.open(shard.number, shard.device)) as worker:
        for episode in shard.episodes:
            worker.run(episode)
            if after is not None:
                after()


def spawn_workers(job: Job, shards: Sequence[Shard], meanwhile: Callable[[], Any]) -> None:
    """
    Run each shard in a process of its own (spawned: neither CUDA nor OpenGL survive a fork) and
    watch over them.

    Raises:
        InputError: a worker met bad input.
        FailedError: a worker failed.
    """
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_worker_process, args=(job, shard, os.getpid()), daemon=True)
        for shard in shards
    ]
    for process in processes:
        process.start()
    try:
        while True:
            ended = not any(p.is_alive() for p in processes)
            bad = [p.exitcode for p in processes if p.exitcode]
            require(2 not in bad, "a worker met bad input, see above")
            if bad:
                raise FailedError(
                    f"a worker ended with exit code {bad[0]}, see above; the same "
                    "command goes on where this run stopped"
                )
            meanwhile()
            if ended:
                break
            time.sleep(0.2)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _worker_process(job: Job, shard: Shard, parent: int) -> None:
    """
    Body of a worker process; ends with its parent, even if that was killed, so that two runs never
    write side by side.
    """
    # Ctrl-C reaches the parent, which ends its workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent(parent, signal.SIGKILL)
    try:
        work(job, shard)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except FailedError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        sentence = trouble(error)
        if sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        sys.exit(1)


class Progress:
    """
    Counts finished episodes by reading what was appended to the journals of all ranks, and shows a
    bar on stderr; where it is not ``shown``, nothing is read.
    """

    def __init__(self, out: Path, wanted: set[Identity], title: str, shown: bool = True) -> None:
        from tqdm import tqdm

        self._out, self._wanted, self._shown = out, wanted, shown
        self._offsets: Counter[Path] = Counter()
        self._seen: set[Identity] = set()
        self._bar = tqdm(
            total=len(wanted),
            desc=title,
            unit="ep",
            file=sys.stderr,
            mininterval=1.0,
            disable=not shown,
            # what an earlier run did says nothing of how fast this one is
            initial=self._look(),
        )

    def update(self) -> bool:
        """Look for new lines; True once every wanted episode is in."""
        count = self._look()
        self._bar.update(count - self._bar.n)
        return count == len(self._wanted)

    def _look(self) -> int:
        """Read what was appended; return how many of the wanted episodes are in."""
        for path in self._out.glob(JOURNALS) if self._shown else ():
            with path.open("rb") as file:
                file.seek(self._offsets[path])
                new = file.read()
            complete = new[: new.rfind(b"\n") + 1]
            self._offsets[path] += len(complete)
            for text in complete.splitlines():
                self._seen.add(identity_of(parse_json(text, str(path))))
        return len(self._seen & self._wanted)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()

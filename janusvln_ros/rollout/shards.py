"""
Many episodes over many processes: who takes which, how a run goes on after a kill, and how its
progress is seen.

Results travel through files only (append-only journals, one per shard), so the ranks that torchrun
starts need no process group, and a run killed at any moment goes on where it stopped, with any
number of processes.
"""

import ctypes
import json
import multiprocessing
import os
import platform
import random
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from janusvln_ros import __version__
from janusvln_ros.data.episodes import Episode
from janusvln_ros.data.journal import JOURNALS, read_journals
from janusvln_ros.documents import parse_json, read_object
from janusvln_ros.errors import FailedError, InputError, require
from janusvln_ros.files import atomic_write, trouble
from janusvln_ros.rollout.settings import Settings

Key = tuple[str, str, str]
"""
What makes an episode one and the same: scene id, episode id, instruction (as published resuming
has it).
"""


def key_of(episode: Episode) -> Key:
    """Return the key of an episode."""
    return episode.scene, episode.episode_id, episode.instruction


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


def versions() -> dict[str, str]:
    """Return the versions that a result may depend on."""
    found = {"janusvln_ros": __version__, "python": platform.python_version()}
    for package in ("torch", "transformers", "numpy", "moderngl"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "none"
    return found


MANIFEST_LOST = "choose another --out"


def claim(out: Path, manifest: dict[str, Any]) -> None:
    """
    Write ``manifest.json`` into a new output folder, or check that the one there is the same.

    Raises:
        InputError: the folder belongs to a run with another manifest (the difference is named), or
            holds results without one.
    """
    path = out / "manifest.json"
    if not path.is_file():
        require(
            not any(out.glob(JOURNALS)),
            f"{out} holds journals without manifest.json, so what they belong to "
            "is unknown: choose another folder",
        )
        atomic_write(path, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
        return
    # A round trip through JSON makes lists of tuples, as they come back from the file.
    different = list(
        _differences(read_object(path, MANIFEST_LOST), json.loads(json.dumps(manifest)))
    )
    require(
        not different,
        f"{out} belongs to another run, so it is not resumed: {'; '.join(different[:5])}. Choose "
        "another --out, or repeat that run's arguments",
    )


def await_first_rank(out: Path, cluster: Cluster, started: float, limit: float = 3600.0) -> None:
    """
    On ranks other than 0: wait until rank 0 has prepared the data and written the manifest since
    ``started`` (seconds since the epoch).

    Raises:
        InputError: that did not happen within ``limit`` seconds.
    """
    ready = out / "ready"
    while cluster.rank > 0 and not (ready.is_file() and ready.stat().st_mtime >= started - 60):
        require(
            time.time() <= started + limit,
            f"rank 0 prepared nothing in {out} within {limit:.0f} s: is it one "
            "folder that all ranks see?",
        )
        time.sleep(0.2)


def _differences(old: Any, new: Any, name: str = "") -> Iterable[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(k for k in new if k not in old)]:
            yield from _differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif old != new:
        yield f"{name} was {json.dumps(old)} and is {json.dumps(new)}"


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

    ``out`` is the output folder, with its journals; ``data_dir`` the user's data folder.
    """

    out: Path
    settings: Settings
    data_dir: Path

    @abstractmethod
    def open(self, shard: int, device: str | None) -> Worker:
        """
        Make the worker of a shard, in the process that will use it.

        ``device``: where its model runs; None: the default.
        """


def finished(out: Path) -> dict[Key, dict[str, Any]]:
    """Return every finished episode's line from all journals in ``out``, once each."""
    lines: dict[Key, dict[str, Any]] = {}
    for line in read_journals(out):
        lines.setdefault(_key_of_line(line), line)
    return lines


def _key_of_line(line: Any) -> Key:
    known = isinstance(line, Mapping) and {"scene", "episode_id", "instruction"} <= line.keys()
    require(
        known and isinstance(line["scene"], str) and isinstance(line["instruction"], str),
        f"a line of a journal does not say which episode it is of: {str(line)[:80]}; remove it, "
        "its episode is then done again",
    )
    return line["scene"], str(line["episode_id"]), line["instruction"]


def run_sharded(
    job: Job,
    episodes: Sequence[Episode],
    workers: int,
    cluster: Cluster,
    *,
    devices: Sequence[str] = (),
    title: str = "",
) -> bool:
    """
    Do the episodes that no journal has yet, in ``workers`` processes on this rank (1: in this very
    process).

    ``devices`` are given to the shards of this rank in turn. Progress goes to stderr. Returns True
    on the rank that must merge: rank 0, once the episodes of all ranks are in.

    Raises:
        InputError: a worker met bad input.
        FailedError: a worker failed; why is on stderr.
    """
    require(workers >= 1, f"--workers is {workers}: give 1 or more")
    wanted = {key_of(e) for e in episodes}
    done = set(finished(job.out)) & wanted
    # Several ranks start at different moments and see different journals, so their shares must not
    # depend on them; one alone shares what is left evenly.
    alone = cluster.world_size == 1
    pool = [e for e in episodes if key_of(e) not in done] if alone else episodes
    mine: list[Shard] = []
    for w in range(workers):
        number = cluster.rank * workers + w
        taken = share(pool, number, cluster.world_size * workers, job.settings.sharding)
        if todo := [e for e in taken if key_of(e) not in done]:
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
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        return
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

    def __init__(self, out: Path, wanted: set[Key], title: str, shown: bool = True) -> None:
        from tqdm import tqdm

        self._out, self._wanted, self._shown = out, wanted, shown
        self._offsets: Counter[Path] = Counter()
        self._seen: set[Key] = set()
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
                self._seen.add(_key_of_line(parse_json(text, str(path))))
        return len(self._seen & self._wanted)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()

"""
Drives as a stream: while training runs, producers draw homes, drive through them, run the frozen
encoders once over every frame, and put the drives into a spool; training takes them from there.

A drive is used a few times, each time with another instruction, and then deleted, so that neither
homes nor sentences repeat and the disk holds no more than is about to be used. Part of the drives
is driven by the newest checkpoint of the run itself, the expert labelling every state (classic
DAgger, `rollout.agents.LabelledMixture`); what its encoders made of a frame for driving is what is
kept of it.

All that a run must remember lies in ``<output>/stream``: the number of the next home, the spool,
the newest checkpoints, and what each producer has done so far. A kill of everything at any moment
loses the drives under way and the steps since the last state.
"""

import json
import logging
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import (
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from janusvln_ros.documents import read_object
from janusvln_ros.errors import InputError, require
from janusvln_ros.files import atomic_write, file_lock
from janusvln_ros.lifetime import end_with_parent
from janusvln_ros.model import JanusVLN
from janusvln_ros.policy import Navigator
from janusvln_ros.policy.identity import checkpoint_digest
from janusvln_ros.policy.instruction import WORD
from janusvln_ros.policy.tokenizer import read
from janusvln_ros.rollout.agents import PolicyAgent
from janusvln_ros.rollout.settings import Settings
from janusvln_ros.rollout.shards import Cluster
from janusvln_ros.rollout.stream import (
    HELD_OUT,
    HOME_FOLDER,
    TOLD_FRAMES,
    TRAINING,
    LabelledDrive,
    Route,
    drawn_home,
    drive_route,
    driver_settings,
    is_policy_driven,
)
from janusvln_ros.training.average import averaged
from janusvln_ros.training.dual import labelled_item, spatial_features, vision_features
from janusvln_ros.training.network import write_checkpoint
from janusvln_ros.training.recipes import Recipe, Stream
from janusvln_ros.training.spool import Spool, StoredDrive, Telling, Ticket

log = logging.getLogger(__name__)

POLICIES_KEPT = 2
"""Checkpoints for the producers, so that one that is being read is not deleted."""

FAULTS_IN_A_ROW = 10
"""So many homes in a row without a drive, and a producer gives up."""

SLIPS = 3
"""A word that fewer drives were told with may be a slip of the pen, of which there are many."""

CRASHES_IN_A_ROW = 5
"""So many producers that end without a drive in between, and training gives up."""


def stream_folder(recipe: Recipe) -> Path:
    """Where the stream of a run lies."""
    return Path(recipe.output) / "stream"


# ---------------------------------------------------------------- what producers have done


class Ledger:
    """
    What a producer has done so far, over restarts: ``seconds`` by stage, ``counts``, ``faults`` by
    reason, and how many drives were told with each of the ``words``.

    Args:
        path: where it is kept; read where it is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        kept = read_object(path) if path.is_file() else {}
        self.seconds: dict[str, float] = kept.get("seconds", {})
        self.counts: dict[str, int] = kept.get("counts", {})
        self.faults: dict[str, int] = kept.get("faults", {})
        self.words: dict[str, int] = kept.get("words", {})

    @contextmanager
    def clock(self, stage: str) -> Iterator[None]:
        """Add what the block takes to the seconds of a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - start
            self.seconds[stage] = self.seconds.get(stage, 0.0) + took

    def count(self, name: str, by: int = 1) -> None:
        """Add to a count."""
        self.counts[name] = self.counts.get(name, 0) + by

    def fault(self, reason: str) -> None:
        """Count a fault by its reason."""
        self.faults[reason] = self.faults.get(reason, 0) + 1

    def hear(self, words: Iterable[str]) -> None:
        """Count the words that a drive is told with."""
        for word in set(words):
            self.words[word] = self.words.get(word, 0) + 1

    def save(self) -> None:
        """Write it down."""
        parts = ("seconds", "counts", "faults", "words")
        kept = {part: getattr(self, part) for part in parts}
        atomic_write(self.path, json.dumps(kept, indent=1) + "\n")


def accounts(folder: Path) -> dict[str, dict[str, float]]:
    """What all producers of a stream have done together, as the parts of a `Ledger`."""
    total: dict[str, dict[str, float]] = {"seconds": {}, "counts": {}, "faults": {}, "words": {}}
    for path in folder.glob("producer-*.json"):
        for part, values in read_object(path).items():
            for name, value in values.items():
                total[part][name] = total[part].get(name, 0) + value
    return total


def said_in_stream(folder: Path) -> set[str]:
    """The words that drives of a stream were told with, those of single slips left out."""
    return {word for word, drives in accounts(folder)["words"].items() if drives >= SLIPS}


# ---------------------------------------------------------------- checkpoints that drive


def newest_policy(folder: Path) -> Path | None:
    """The newest checkpoint for the producers of a stream; None before the first."""
    return max((folder / "policy").glob("[0-9]*"), default=None)


def publish_policy(model: JanusVLN, recipe: Recipe, step: int, tokenizer: Path) -> None:
    """
    Write a checkpoint for the producers, whole or not at all, and delete old ones. From step
    ``policy_from`` on it counts as trained, and they let it drive.
    """
    assert recipe.stream is not None
    trained = step >= recipe.stream.policy_from
    folder = stream_folder(recipe) / "policy"
    write_checkpoint(model, recipe, folder / f"{step:08d}", trained=trained, tokenizer=tokenizer)
    for old in sorted(folder.glob("[0-9]*"))[:-POLICIES_KEPT]:
        shutil.rmtree(old, ignore_errors=True)


class MergerInputs:
    """
    What goes into both mergers of a network, frame by frame: the features that training keeps.

    A navigator that drives computes them once for each frame.
    """

    def __init__(self, model: JanusVLN) -> None:
        self._kept: dict[str, list[Tensor]] = {"vision": [], "spatial": []}
        model.vision.merger.register_forward_pre_hook(self._keep("vision"))
        model.fusion.register_forward_pre_hook(self._keep("spatial"))

    def _keep(self, name: str) -> Callable[[torch.nn.Module, tuple[Tensor, ...]], None]:
        def keep(_: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
            rows = inputs[0].detach()
            self._kept[name].append((rows if rows.ndim == 2 else rows.flatten(0, 1)).half())

        return keep

    def clear(self) -> None:
        """Forget all."""
        for kept in self._kept.values():
            kept.clear()

    def take(self, frames: int) -> tuple[np.ndarray, np.ndarray]:
        """Vision and spatial features of the first ``frames`` frames; all are forgotten."""
        vision, spatial = (
            torch.stack(self._kept[name][:frames]).cpu().numpy() for name in ("vision", "spatial")
        )
        self.clear()
        return vision, spatial


class Driver:
    """A checkpoint in a producer: its encoders see for the expert, and it may drive itself."""

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint, self.digest = checkpoint, checkpoint_digest(checkpoint)
        navigator = Navigator.from_pretrained(checkpoint, decoding="constrained")
        self.model, self.trained = navigator.model, navigator.trained
        self.tokenizer = navigator.tokenizer
        self.agent = PolicyAgent(navigator, checkpoint)
        self.inputs = MergerInputs(self.model)


# ---------------------------------------------------------------- making drives


def make_drive(
    driver: Driver,
    stream: Stream,
    settings: Settings,
    folder: Path,
    home: int,
    route: Route,
    ledger: Ledger,
) -> StoredDrive | None:
    """
    Drive a route and encode what was seen; None where it is no example.

    ``folder`` is the data folder that holds its scene; by ``driver``'s digest, among the rest, the
    drive is determined.

    Raises:
        InputError: it cannot be driven.
    """
    episode, width = route.episode, driver.model.config.navigation.image_width
    by_policy = driver.trained and is_policy_driven(stream, episode)
    driver.inputs.clear()
    with ledger.clock("policy" if by_policy else "drive"):
        drive = drive_route(
            settings,
            folder,
            route,
            driver.agent if by_policy else None,
            stream.expert_share if by_policy else 1 - stream.noise,
            width,
        )
    if drive is None:
        return None
    vision, spatial = seen(driver, drive, ledger)
    about = {
        "kind": route.kind,
        "tags": list(episode.info["tags"]),
        "end": drive.end,
        "driver": driver.digest if by_policy else "expert",
    }
    targets, actions = (np.array(a, np.int64) for a in (drive.targets, drive.actions))
    others = tuple(
        Telling(other.texts, np.array(labels, np.int64), ways)
        for other, (labels, ways) in zip(route.others, drive.others)
        if len(labels) >= TOLD_FRAMES
    )
    return StoredDrive(
        home,
        int(episode.episode_id),
        vision,
        spatial,
        targets,
        actions,
        drive.ways,
        route.texts,
        about,
        others,
    )


def seen(driver: Driver, drive: LabelledDrive, ledger: Ledger) -> tuple[np.ndarray, np.ndarray]:
    """
    Vision and spatial features of a drive, float16: what its policy saw by, or else what the
    encoders make of its frames now.
    """
    if drive.frames is None:
        return driver.inputs.take(len(drive.targets))
    with ledger.clock("encode"):
        return (
            vision_features(driver.model, drive.frames).astype(np.float16),
            spatial_features(driver.model, drive.frames).astype(np.float16),
        )


def claim_home(folder: Path) -> int:
    """The number of the next home of a stream, which nobody else gets, now or ever."""
    path = folder / "next_home"
    with file_lock(path):
        text = path.read_text(errors="replace") if path.is_file() else "0"
        require(
            text.strip().isdecimal() and len(text) < 20,
            f"{path} is {text!r:.40}, not the number of a home: delete {folder}, the stream "
            "begins anew",
        )
        number = int(text)
        atomic_write(path, f"{number + 1}\n")
    return number


@dataclass(frozen=True)
class ProducerJob:
    """
    What a producer is told: where the stream lies, what to drive, and the most frames of a drive
    (0: any number).
    """

    folder: Path
    stream: Stream
    longest: int


def produce_home(
    job: ProducerJob, driver: Driver, spool: Spool, ledger: Ledger, wait: Callable[[], None]
) -> int:
    """
    Claim a home, drive its routes and spool them; how many were. A fault in it is counted with its
    reason and costs no more than the rest of the home. ``wait``: for room in the spool.
    """
    stream, number, put = job.stream, claim_home(job.folder), 0
    ledger.count("homes")
    settings = driver_settings(stream)
    try:
        with drawn_home(stream, TRAINING, number, job.folder, ledger.clock) as (routes, folder):
            for route in routes:
                if job.longest and route.episode.info["steps"] > job.longest:
                    ledger.count("too long")
                    continue
                drive = make_drive(driver, stream, settings, folder, number, route, ledger)
                if drive is None or (job.longest and len(drive.targets) > job.longest):
                    ledger.count("no example" if drive is None else "too long")
                    continue
                wait()
                with ledger.clock("write"):
                    spool.put(drive)
                put += 1
                texts = chain(drive.texts, *(other.texts for other in drive.others))
                said = (WORD.findall(read(driver.tokenizer, text)) for text in texts)
                ledger.hear(chain.from_iterable(said))
                ledger.count("drives")
                ledger.count("frames", len(drive.targets))
                ledger.count("other routes", len(drive.others))
                ledger.count("driven by the policy", int(drive.about["driver"] != "expert"))
    except Exception as error:  # whatever it is, the next home is another one
        ledger.fault(f"{type(error).__name__}: {error}"[:200])
        log.warning("home %d is left: %s: %s", number, type(error).__name__, error)
    return put


def produce(job: ProducerJob, index: int, stop: Callable[[], bool]) -> None:
    """
    Fill the spool of a stream until ``stop`` says so, pausing while it is full.

    Raises:
        RuntimeError: many homes in a row gave nothing, so that it is not the homes.
    """
    spool, ledger = Spool(job.folder / "spool"), Ledger(job.folder / f"producer-{index}.json")
    driver: Driver | None = None
    empty = 0

    def wait() -> None:
        with ledger.clock("pause"):
            while len(spool.tickets()) >= job.stream.keep and not stop():
                time.sleep(0.2)

    while not stop():
        wait()
        with ledger.clock("load"):
            driver = refreshed(driver, job.folder)
        put = produce_home(job, driver, spool, ledger, wait)
        ledger.save()
        empty = 0 if put else empty + 1
        if empty >= FAULTS_IN_A_ROW:
            raise RuntimeError(f"{empty} homes in a row gave no drive; faults: {ledger.faults}")


def refreshed(driver: Driver | None, folder: Path) -> Driver:
    """The driver of the newest checkpoint of a stream: the one at hand if it is that."""
    for _ in range(10):
        newest = newest_policy(folder)
        if newest is None:
            break
        if driver is not None and driver.checkpoint == newest:
            return driver
        try:
            return Driver(newest)
        except (InputError, OSError):  # replaced by a newer one meanwhile
            time.sleep(0.5)
    if driver is not None:
        return driver
    raise InputError(f"{folder / 'policy'} holds no checkpoint that can be read")


def _producer_process(job: ProducerJob, index: int, parent: int) -> None:
    """
    Body of a producer: one thread, after everybody else, and it ends with its parent, even if that
    was killed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends it
    end_with_parent(parent, signal.SIGKILL)
    os.nice(10)
    os.environ["LP_NUM_THREADS"] = "1"  # of Mesa's software renderer
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO, format=f"producer {index}: %(message)s")
    with torch.inference_mode():
        produce(job, index, lambda: False)


class Producers:
    """
    The producers of a run, watched: one that ends is replaced, saying so.

    Attributes:
        failure: why there are no drives any more; None while there are.
    """

    def __init__(self, job: ProducerJob, count: int) -> None:
        self.job, self.failure = job, ""
        self.processes: list[Any] = [None] * count
        self._stop = threading.Event()
        self._crashes, self._drives = 0, 0.0
        # One thread starts them all: on Linux they end with the thread that started them.
        self._thread = threading.Thread(target=self._watch, name="producers", daemon=True)

    def __enter__(self) -> "Producers":
        if self.processes:
            Spool(self.job.folder / "spool").sweep(self.job.stream.uses)
            for left in self.job.folder.glob(f"{HOME_FOLDER}*"):
                shutil.rmtree(left, ignore_errors=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        try:
            while not self._stop.is_set() and not self.failure:
                for index, process in enumerate(self.processes):
                    if process is None or not process.is_alive():
                        self._replace(index, process)
                self._stop.wait(0.5)
        finally:
            running = [process for process in self.processes if process is not None]
            for process in running:
                process.kill()
            for process in running:
                process.join()

    def _replace(self, index: int, ended: Any) -> None:
        """Start a producer, perhaps in place of one that has ended."""
        if ended is not None:
            drives = accounts(self.job.folder)["counts"].get("drives", 0)
            self._crashes = self._crashes + 1 if drives == self._drives else 1
            self._drives = drives
            log.warning(
                "producer %d (process %d) ended with exit code %s: starting another",
                index,
                ended.pid,
                ended.exitcode,
            )
            for left in (self.job.folder / "spool").glob(f".*.{ended.pid}.tmp*"):
                left.unlink(missing_ok=True)
            if self._crashes >= CRASHES_IN_A_ROW:
                self.failure = (
                    f"{self._crashes} producers in a row ended without a drive, the last with "
                    f"exit code {ended.exitcode}: see what they said above"
                )
                return
        context = multiprocessing.get_context("spawn")
        process = context.Process(
            target=_producer_process, args=(self.job, index, os.getpid()), daemon=True
        )
        process.start()
        self.processes[index] = process


def producer_count(stream: Stream, cluster: Cluster) -> int:
    """How many producers a run has."""
    return stream.producers or max(1, (os.cpu_count() or 1) - cluster.world_size)


# ---------------------------------------------------------------- taking drives


def drive_item(
    tokenizer: PreTrainedTokenizerBase, recipe: Recipe, drive: StoredDrive, number: int
) -> dict[str, Any]:
    """What `collate_trajectories` takes of a drive, told as in pass ``number``, from 0."""
    (text,), targets, ways = drive.of_pass(number)
    item = labelled_item(
        tokenizer,
        recipe,
        text,
        targets,
        drive.actions,
        ways,
        np.random.default_rng([recipe.seed, drive.home, drive.number, number]),
    )
    n = len(item["targets"])
    name = f"drive {drive.number} in home {drive.home}"
    return item | {"vision": drive.vision[:n], "spatial": drive.spatial[:n], "name": name}


class DriveStream(Dataset[dict[str, Any]]):
    """
    As many passes over drives as training makes; which ones is decided when they are asked for.

    Each process takes its own share of the spool's drives, a batch of like lengths at a time, and
    waits where there are too few.

    Args:
        spool: filled by producers.
        stream, recipe: how often a drive is used, how many must be there.
        tokenizer: of the model.
        cluster: this process among those that train.
        length: passes in all.
        failure: says why there will be no more drives ("": there will).
    """

    def __init__(
        self,
        spool: Spool,
        recipe: Recipe,
        tokenizer: PreTrainedTokenizerBase,
        cluster: Cluster,
        length: int,
        failure: Callable[[], str] = lambda: "",
    ) -> None:
        assert recipe.stream is not None
        self.spool, self.recipe, self.stream = spool, recipe, recipe.stream
        self.tokenizer, self.cluster, self.length = tokenizer, cluster, length
        self.failure = failure
        self.waited, self.passes = 0.0, 0
        # Not from the recipe's seed: a run that goes on must not choose as at its beginning.
        self._random = np.random.default_rng()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        chosen = self._choose(self._available(len(indices)), len(indices))
        self.passes += len(chosen)
        return [
            drive_item(self.tokenizer, self.recipe, self.spool.use(t, self.stream.uses), t.used)
            for t in chosen
        ]

    def _available(self, wanted: int) -> list[Ticket]:
        """The drives of this process, once there are enough of them."""
        start, least = time.perf_counter(), max(wanted, self.stream.least)
        while True:
            world, rank = self.cluster.world_size, self.cluster.rank
            mine = [t for t in self.spool.tickets() if (t.home + t.number) % world == rank]
            if len(mine) >= least:
                self.waited += time.perf_counter() - start
                return mine
            if failure := self.failure():
                raise RuntimeError(failure)
            time.sleep(0.1)

    def _choose(self, tickets: list[Ticket], count: int) -> list[Ticket]:
        """
        ``count`` of the drives: of some at random the one that has waited longest, so that one of
        a length that few others have does not wait for ever, and those of like length.
        """
        some = self._random.permutation(len(tickets))[: 8 * count]
        candidates = [tickets[i] for i in sorted(some)]  # in the order in which they came
        if self.recipe.group_by_length:
            frames = candidates[0].frames
            candidates[1:] = sorted(candidates[1:], key=lambda t: abs(t.frames - frames))
        return candidates[:count]


class HeldOutDrives(Dataset[dict[str, Any]]):
    """The drives of a spool as they are, each with one instruction that never changes."""

    def __init__(self, spool: Spool, recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> None:
        self.spool, self.recipe, self.tokenizer = spool, recipe, tokenizer
        self.tickets = spool.tickets()

    def __len__(self) -> int:
        return len(self.tickets)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return drive_item(self.tokenizer, self.recipe, self.spool.read(self.tickets[index]), 0)


def held_out_drives(recipe: Recipe, cluster: Cluster) -> Spool | None:
    """
    The drives in homes of their own that a stream is judged by, made where they are missing, by
    all processes together; None where it has none.

    The expert drives them, with its random moves. They are told with words that training does not
    have.
    """
    stream = recipe.stream
    assert stream is not None
    if not stream.eval_homes:
        return None
    folder = stream_folder(recipe)
    spool = Spool(folder / "held_out")
    newest = newest_policy(folder)
    assert newest is not None
    settings, driver = driver_settings(stream), Driver(newest)
    driver.trained = False
    ledger = Ledger(folder / f"held_out-{cluster.rank}.json")
    marks = [spool.folder / f"h{number:07d}.done" for number in range(stream.eval_homes)]
    for number, mark in enumerate(marks):
        if number % cluster.world_size != cluster.rank or mark.is_file():
            continue
        with drawn_home(stream, HELD_OUT, number, folder, ledger.clock) as (routes, data):
            for route in routes:
                drive = make_drive(driver, stream, settings, data, number, route, ledger)
                if drive is not None:
                    spool.put(drive)
        atomic_write(mark, "")
        log.info("held-out homes: %d of %d", number + 1, len(marks))
    while not all(mark.is_file() for mark in marks):
        time.sleep(0.5)
    return spool


# ---------------------------------------------------------------- beside the trainer


class PolicyPublisher(TrainerCallback):
    """Gives the producers a checkpoint whenever the trainer saves its state."""

    def __init__(self, model: JanusVLN, recipe: Recipe, tokenizer: Path) -> None:
        self.model, self.recipe, self.tokenizer = model, recipe, tokenizer

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """See the class."""
        if state.is_world_process_zero:
            with averaged(kwargs["model"]):
                publish_policy(self.model, self.recipe, state.global_step, self.tokenizer)


class StreamFigures:
    """
    What the log says of a stream: so far (homes, drives, faults, drives that wait), and since the
    last time (drives and passes a second, share of its time that training waited, shares of the
    producers' time).
    """

    def __init__(self, folder: Path, drives: DriveStream) -> None:
        self.folder, self.drives = folder, drives
        self.before = self._now()

    def _now(self) -> dict[str, Any]:
        return {
            "time": time.perf_counter(),
            "waited": self.drives.waited,
            "passes": self.drives.passes * self.drives.cluster.world_size,
            **accounts(self.folder),
        }

    def __call__(self) -> dict[str, float]:
        """The figures now."""
        now, before = self._now(), self.before
        self.before = now
        took = max(now["time"] - before["time"], 1e-9)
        counts: Mapping[str, float] = now["counts"]
        seconds = {
            stage: value - before["seconds"].get(stage, 0.0)
            for stage, value in now["seconds"].items()
        }
        busy = max(sum(seconds.values()), 1e-9)
        made = counts.get("drives", 0) - before["counts"].get("drives", 0)
        figures = {
            "homes": counts.get("homes", 0),
            "drives": counts.get("drives", 0),
            "driven by the policy": counts.get("driven by the policy", 0),
            "faults": sum(now["faults"].values()),
            "ready": len(self.drives.spool.tickets()),
            "drives per second": made / took,
            "passes per second": (now["passes"] - before["passes"]) / took,
            "waited": (now["waited"] - before["waited"]) / took,
            **{f"time {stage}": value / busy for stage, value in seconds.items()},
        }
        return {
            f"stream_{name.replace(' ', '_')}": round(float(value), 4)
            for name, value in figures.items()
        }

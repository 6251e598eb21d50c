"""
The ``houses`` data set on disk: homes as ``.glb``, episodes and ground truth in the VLN-CE
formats, per split.

A home depends on the seed, its family (training or unseen) and its number alone, an episode on its
home, split and number alone: so files are the same bytes however many processes wrote them and
however often they were interrupted.
"""

import hashlib
import json
import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from janusvln_ros.data.episodes import (
    Episode,
    GroundTruth,
    episodes_path,
    ground_truth_path,
    read_episodes,
    write_episodes,
    write_ground_truth,
)
from janusvln_ros.documents import read_json, read_object
from janusvln_ros.errors import InputError, require
from janusvln_ros.files import atomic_write, file_lock
from sim_bridge.nav_env import scene_path

Item = TypeVar("Item")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Split:
    """
    How a split is drawn: which ``family`` of homes, its random ``stream``, its default size, and
    the version of the ``generator``, see ``Home``.

    The homes of a family are all of one generator, so that scenes of two kinds never mix.
    """

    family: str
    stream: int
    homes: int
    episodes_per_home: int
    memory_only: bool = False
    generator: int = 1

    @property
    def unseen(self) -> bool:
        """Whether its homes and instructions are kept out of training."""
        return self.family.startswith("unseen")

    @property
    def held_out(self) -> float:
        """Share of its instructions, from generator 2 on, that use words held out of training."""
        return 0.0 if self.stream == 0 else 0.5


SPLITS: Mapping[str, Split] = {
    "train": Split("house", 0, 600, 10),
    "val_seen": Split("house", 1, 100, 5),
    "val_unseen": Split("unseen", 2, 60, 10),
    "val_memory": Split("unseen", 3, 60, 5, memory_only=True),
    "train2": Split("house2", 0, 600, 10, generator=2),
    "val_seen2": Split("house2", 1, 100, 5, generator=2),
    "val_unseen2": Split("unseen2", 2, 60, 10, generator=2),
    "val_memory2": Split("unseen2", 3, 60, 5, memory_only=True, generator=2),
}
"""
``val_seen``: training homes, new episodes.

``val_unseen``: new homes. ``val_memory``: new homes, only routes that need memory, detours among
them. Those that end in 2 are the same of generator 2.
"""


@dataclass(frozen=True)
class Settings:
    """
    What a split was drawn from. ``rooms`` is the smallest and largest number of rooms of a home,
    ``generator`` the version of what drew them.
    """

    seed: int
    homes: int
    episodes_per_home: int
    rooms: tuple[int, int]
    generator: int = 1


def home_name(family: str, index: int) -> str:
    """Name of a home: its folder and file in ``scene_datasets/houses``."""
    return f"{family}_{index:05d}"


def home_seed(seed: int, family: str, index: int) -> int:
    """Seed of a home; families and numbers never share one."""
    return int.from_bytes(
        hashlib.sha256(f"janusvln houses {seed} {family} {index}".encode()).digest()[:6], "big"
    )


def ensure_split(
    data_dir: str | Path,
    split: str,
    *,
    seed: int | None = None,
    homes: int | None = None,
    episodes_per_home: int | None = None,
    rooms: tuple[int, int] | None = None,
    jobs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """
    Make sure that a split of generated houses lies in ``data_dir``, with its scenes, and return
    the path of its episodes.

    What is there is used as it is if it was drawn with what is asked for; an argument of None asks
    for nothing in particular. Missing homes are generated, in ``jobs`` processes (None: one per
    core), resuming where an earlier call was interrupted.

    Args:
        progress: called with (homes done, homes in all).

    Raises:
        InputError: unknown split, a bad number, or ``data_dir`` holds houses drawn with other
            settings.
    """
    asked = {"seed": seed, "homes": homes, "episodes_per_home": episodes_per_home, "rooms": rooms}
    # What cannot be generated is refused before anything is written.
    _settings(data_dir, split, asked)
    path = episodes_path(data_dir, "houses", split)
    # The ranks of a distributed run ask for the same split at the same time, and one of them
    # generates it.
    with file_lock(path.parent):
        wanted, names, parts = _begin(data_dir, split, asked)
        files = [path, ground_truth_path(data_dir, "houses", split)]
        files += [_scene_path(data_dir, name) for name in names]
        if _stored(path) != wanted or not all(file.is_file() for file in files):
            _build_missing(data_dir, split, wanted, parts, names, jobs, progress)
            _merge(data_dir, split, wanted, parts, names)
    return path


def first_episodes(
    data_dir: str | Path,
    split: str,
    count: int,
    *,
    jobs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[tuple[Episode, ...], bool]:
    """
    Return the episodes of a split that begin it, at least ``count`` where it has so many, and
    whether these are all.

    Only their homes are generated, one after the other where few are missing: an episode's number
    tells how many come before it, so an early one is there in seconds. The homes are those of
    `ensure_split`, which goes on from here.

    Args:
        progress: called with (homes done, homes that are wanted now).

    Raises:
        InputError: as `ensure_split`, or ``data_dir`` cannot be written.
    """
    path = episodes_path(data_dir, "houses", split)
    try:
        _settings(data_dir, split, {})  # what cannot be made is refused before a folder is
        with file_lock(path.parent):
            if path.is_file():
                return read_episodes(data_dir, "houses", split).episodes, True
            wanted, names, parts = _begin(data_dir, split, {})
            homes = -(-count // wanted.episodes_per_home)
            found: list[Episode] = []
            # a home may offer fewer episodes than asked for: then the next one has to help
            while len(found) < count and homes <= len(names):
                _build_missing(data_dir, split, wanted, parts, names[:homes], jobs, progress)
                found = [episode for episode, _ in _numbered(parts, names[:homes])]
                homes += 1
            if len(found) >= count:
                return tuple(found), False
            _build_missing(data_dir, split, wanted, parts, names, jobs, progress)
            _merge(data_dir, split, wanted, parts, names)
    except OSError as error:
        raise InputError(
            f"houses cannot be written to {data_dir} ({error.strerror or error}): name another "
            "data folder"
        ) from error
    return read_episodes(data_dir, "houses", split).episodes, True


def _begin(
    data_dir: str | Path, split: str, asked: Mapping[str, Any]
) -> tuple[Settings, list[str], Path]:
    """What to draw, the names of its homes, and the folder for episodes before the merging."""
    wanted = _settings(data_dir, split, asked)
    family = SPLITS[split].family
    _claim(data_dir, family, wanted)
    drawn_from = hashlib.sha256(json.dumps(asdict(wanted), sort_keys=True).encode()).hexdigest()
    parts = episodes_path(data_dir, "houses", split).parent / f".parts-{drawn_from[:10]}"
    return wanted, [home_name(family, i) for i in range(wanted.homes)], parts


def _build_missing(
    data_dir: str | Path,
    split: str,
    wanted: Settings,
    parts: Path,
    names: list[str],
    jobs: int | None,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Write the homes that are missing and their episodes, these into ``parts``."""
    tell = progress or (lambda done, total: None)
    parts.mkdir(parents=True, exist_ok=True)
    todo = [
        (str(data_dir), split, i, wanted, str(parts))
        for i, name in enumerate(names)
        if not ((parts / f"{name}.json").is_file() and _scene_path(data_dir, name).is_file())
    ]
    done_before = len(names) - len(todo)
    tell(done_before, len(names))
    jobs = min(jobs or multiprocessing.cpu_count(), max(len(todo), 1))
    with mapped(_build, todo, jobs if len(todo) >= 4 else 1) as built:
        for done, _ in enumerate(built, done_before + 1):
            tell(done, len(names))


@contextmanager
def mapped(
    function: Callable[[Item], Made], items: Sequence[Item], jobs: int
) -> Iterator[Iterator[Made]]:
    """
    What ``function`` makes of each of ``items``, in order, by ``jobs`` processes; one is this one.

    What is under way is given up when the block is left by an exception.
    """
    if jobs == 1:
        yield map(function, items)
        return
    # Spawned, not forked: the caller may hold threads or a GL context.
    with ProcessPoolExecutor(
        jobs, multiprocessing.get_context("spawn"), initializer=_end_with_parent
    ) as pool:
        try:
            yield pool.map(function, items)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _settings(data_dir: str | Path, split: str, asked: Mapping[str, Any]) -> Settings:
    """What to draw: what is asked for and not None, else what is there, else the defaults."""
    require(split in SPLITS, f"houses have no split {split!r}: use one of {', '.join(SPLITS)}")
    given = {name: value for name, value in asked.items() if value is not None}
    least, most = given.get("rooms", (2, 12))
    require(
        2 <= least <= most <= 12,
        f"rooms {least}-{most} cannot be built: give a smallest and a "
        "largest number between 2 and 12, as 4-12",
    )
    for name in ("homes", "episodes_per_home"):
        count = given.get(name, 1)
        require(count >= 1, f"{name.replace('_', ' ')} is {count}: give at least 1")
    require(given.get("seed", 0) >= 0, f"seed is {given.get('seed')}: give 0 or more")
    default = SPLITS[split]
    base = Settings(0, default.homes, default.episodes_per_home, (4, 12), default.generator)
    if claim := _read_json(_claim_path(data_dir, default.family)):
        base = replace(base, seed=claim["seed"], rooms=tuple(claim["rooms"]))
    check_generator(data_dir, split)
    if there := _stored(episodes_path(data_dir, "houses", split)):
        base = replace(base, homes=there.homes, episodes_per_home=there.episodes_per_home)
    return replace(base, **given)


def _claim_path(data_dir: str | Path, family: str) -> Path:
    """The file that says what the scenes of a family were drawn from."""
    return Path(data_dir) / "scene_datasets" / "houses" / f"{family}.json"


def check_generator(data_dir: str | Path, split: str) -> None:
    """
    Find out whether what lies in ``data_dir`` of a split of the houses was drawn by the generator
    that the split says; a split of another name must be of one that this version has.

    Nothing is asked of a split or scenes that are not there or do not say what drew them.

    Raises:
        InputError: it was drawn by another one.
    """
    known = sorted({s.generator for s in SPLITS.values()})
    fitting = [SPLITS[split].generator] if split in SPLITS else known
    records = [episodes_path(data_dir, "houses", split).parent / "settings.json"]
    if split in SPLITS:
        records.append(_claim_path(data_dir, SPLITS[split].family))
    for record in records:
        generator = (_read_json(record) or {}).get("generator", fitting[0])
        require(
            generator in fitting,
            f"{record} says generator {generator!r}, but {split} is drawn by generator "
            f"{' or '.join(map(str, fitting))}: choose another data folder or delete "
            f"{record.parent}",
        )


def home_drawn_as(data_dir: str | Path, name: str) -> tuple[tuple[int, int], int]:
    """
    The smallest and largest number of rooms that the homes of a family were drawn with, and the
    generator, from the name of one of them.

    Raises:
        InputError: no such homes were generated into ``data_dir``.
    """
    path = _claim_path(data_dir, name.rpartition("_")[0])
    claim = _read_json(path)
    if claim is None:
        raise InputError(
            f"{path} is missing, so nothing is known about the scene {name}: generate "
            f"the houses with 'janusvln houses --out {data_dir}'"
        )
    least, most = claim["rooms"]
    return (int(least), int(most)), int(claim["generator"])


def _claim(data_dir: str | Path, family: str, settings: Settings) -> None:
    """
    Write down what the scenes of ``family`` are drawn from; refuse to mix scenes of two kinds.
    """
    path = _claim_path(data_dir, family)
    claim = {"seed": settings.seed, "rooms": list(settings.rooms), "generator": settings.generator}
    there = _read_json(path)
    require(
        not there or there == claim,
        f"{path.parent} holds houses drawn with {there}, asked for is {claim}: "
        f"choose another folder or delete {path.parent}",
    )
    if not there:
        atomic_write(path, json.dumps(claim) + "\n")


def _stored(path: Path) -> Settings | None:
    """The settings of the split whose episodes lie at ``path``, None where there are none."""
    there = _read_json(path.parent / "settings.json")
    return Settings(**{**there, "rooms": tuple(there["rooms"])}) if there else None


def _read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file, None where there is no file."""
    try:
        return read_object(path, "delete it and the houses beside it")
    except (FileNotFoundError, NotADirectoryError):
        return None


def _scene_path(data_dir: str | Path, name: str) -> Path:
    """Where the ``.glb`` of a home lies."""
    return scene_path(data_dir, f"houses/{name}/{name}.glb")


def _end_with_parent() -> None:
    """
    Let this worker end when its parent is killed; a pool's workers would wait for work forever.
    """
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _build(task: tuple[str, str, int, Settings, str]) -> None:
    """
    Write the scene of one home and its episodes of one split; both files appear whole or not at
    all.
    """
    from sim_bridge.homes.episodes import make_episodes, make_home

    data_dir, split, index, settings, parts = task
    family = SPLITS[split].family
    name = home_name(family, index)
    seed = home_seed(settings.seed, family, index)
    home = make_home(name, seed, settings.rooms, settings.generator)
    drawn = make_episodes(
        home,
        settings.episodes_per_home,
        SPLITS[split].stream,
        unseen=SPLITS[split].unseen,
        memory_only=SPLITS[split].memory_only,
        held_out=SPLITS[split].held_out,
    )
    if not _scene_path(data_dir, name).is_file():
        atomic_write(_scene_path(data_dir, name), home.glb)
    atomic_write(
        Path(parts) / f"{name}.json",
        json.dumps([[asdict(episode), asdict(truth)] for episode, truth in drawn]),
    )


def _merge(
    data_dir: str | Path, split: str, settings: Settings, parts: Path, names: list[str]
) -> None:
    """Write the files of the split, of all homes."""
    drawn = list(_numbered(parts, names))
    episodes = [episode for episode, _ in drawn]
    truths = {episode.episode_id: truth for episode, truth in drawn}
    path = episodes_path(data_dir, "houses", split)
    write_ground_truth(ground_truth_path(data_dir, "houses", split), truths)
    write_episodes(path, episodes)
    # Last, so that a split counts as complete only when its files are.
    atomic_write(path.parent / "settings.json", json.dumps(asdict(settings)) + "\n")
    shutil.rmtree(parts)


def _numbered(parts: Path, names: list[str]) -> Iterator[tuple[Episode, GroundTruth]]:
    """The episodes of homes, numbered from 1 across them."""
    number = 0
    for name in names:
        for told, truth in read_json(parts / f"{name}.json", f"delete {parts}"):
            number += 1
            # JSON has lists where an episode has tuples
            points = {
                key: tuple(told[key])
                for key in ("start_position", "start_rotation", "goal_position")
            }
            points["reference_path"] = tuple(map(tuple, told["reference_path"]))
            ids = {"episode_id": str(number), "trajectory_id": str(number)}
            yield Episode(**(told | points | ids)), GroundTruth(**truth)

"""
Training sets: many trajectories in one file that is read from disk piece by piece.

A set is a text file of JSON lines, one trajectory each: ``{"id", "source", "instruction",
"folder", "frames", "targets"}``. ``folder`` is the folder of the pictures relative to the set's
file (or absolute), ``frames`` their names in order, ``targets`` the action to learn at every frame
(the expert's where it differs from what was executed). Both memory modes read the same file:
``dual`` learns whole trajectories, ``released`` one sample per frame, built when it is asked for.
A set of 200,000 trajectories therefore costs no more memory than two whole numbers for each.
"""

import json
import math
import os
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from janusvln_ros.actions import Action
from janusvln_ros.data.left_out import LeftOut, UnusableError, counted, describe, usable
from janusvln_ros.data.trajectories import MISSING, UNFIT, Trajectory
from janusvln_ros.documents import parse_json
from janusvln_ros.errors import InputError, require
from janusvln_ros.files import atomic_path, inside

REMAKE = "make the file with 'janusvln data'"
STRIPPED = ("r2r", "rxr")
"""Sources whose published samples have no white space around their instructions."""


@dataclass(frozen=True)
class SetItem:
    """
    One trajectory of a set: ``frames`` are picture files in order, ``targets[i]`` the action to
    learn at frame i.
    """

    id: str
    source: str
    instruction: str
    frames: tuple[Path, ...]
    targets: tuple[Action, ...]


@dataclass
class SetReport:
    """
    What :func:`write_set` wrote and left out. ``actions`` counts targets by name; ``opened`` says
    how many of the ``frames`` were opened to see whether they can be read.
    """

    trajectories: int = 0
    frames: int = 0
    opened: int = 0
    actions: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    missing: list[LeftOut] = field(default_factory=list)
    """A sentence for every trajectory left out: which, and why, with its reason."""

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values for JSON, with the share of each action."""
        shares = {
            action.name: round(self.actions[action.name] / max(self.frames, 1), 4)
            for action in Action
        }
        return {
            "trajectories": self.trajectories,
            "samples": self.frames,
            "actions": {action.name: self.actions[action.name] for action in Action},
            "shares": shares,
            "sources": dict(self.sources),
            "opened": self.opened,
            **counted(self.missing),
            "reasons": self.missing[:20],
        }


def targets_of(trajectory: Trajectory) -> tuple[Action, ...]:
    """
    The action to learn at every frame: the expert's label where there is one, else the next
    executed action; STOP at the last frame.

    Raises:
        InputError: the actions do not match the frames, or are no actions.
    """
    n, labels = len(trajectory.frames), trajectory.labels
    told = f"{len(trajectory.actions)} actions" if labels is None else f"{len(labels)} labels"
    usable(
        len(trajectory.actions if labels is None else labels) == n,
        UNFIT,
        f"trajectory {trajectory.video}: {told} for {n} pictures: collect it again",
    )
    try:
        return tuple(Action(a) for a in trajectory.targets)
    except ValueError as error:
        raise UnusableError(
            UNFIT,
            f"trajectory {trajectory.video}: {error}; actions are 0 STOP, 1 "
            "MOVE_FORWARD, 2 TURN_LEFT, 3 TURN_RIGHT",
        ) from error


Learnable = tuple[str, Trajectory, tuple[Action, ...]]
"""The name of its source, a trajectory, and the action to learn at every frame."""


def learnable(
    sources: Iterable[tuple[str, Iterable[Trajectory]]], report: SetReport, share: float = 1.0
) -> Iterator[Learnable]:
    """
    Yield the trajectories of ``sources`` (pairs of a name and its trajectories) that can be
    learned from, and count them in ``report``.

    One with a missing picture, none at all, one that cannot be read, no instruction, or actions
    that do not fit is left out and reported, never silently dropped. ``share`` of each one's
    pictures is opened, drawn by its name.
    """
    with ThreadPoolExecutor() as pool:
        for name, trajectories in sources:
            for trajectory in trajectories:
                try:
                    targets = _learnable(trajectory)
                    opened = drawn(trajectory, share)
                    report.opened += len(opened)
                    for reason in pool.map(unreadable, opened):
                        usable(not reason, "a picture cannot be read", reason or "")
                except InputError as error:
                    report.missing.append(describe(f"{name}: ", error))
                    continue
                report.trajectories += 1
                report.frames += len(targets)
                report.sources[name] += 1
                report.actions.update(a.name for a in targets)
                yield name, trajectory, targets


@contextmanager
def set_writer(path: str | Path) -> Iterator[Callable[[Learnable], None]]:
    """
    A function that adds a trajectory to the set at ``path``, which is there once the block ends.

    White space around the instructions of ``STRIPPED`` is removed, as in the published samples.
    """
    base = Path(path).resolve().parent
    with atomic_path(path) as temporary, open(temporary, "w") as file:

        def add(item: Learnable) -> None:
            name, trajectory, targets = item
            # the folder alone: a picture may be a link to one of another name
            folder = trajectory.frames[0].parent.resolve()
            line = {
                "id": str(trajectory.id),
                "source": name,
                "video": trajectory.video,
                "instruction": trajectory.instruction.strip()
                if name in STRIPPED
                else trajectory.instruction,
                "folder": os.path.relpath(folder, base),
                "frames": [frame.name for frame in trajectory.frames],
                "targets": [int(a) for a in targets],
                "actions": [int(a) for a in trajectory.actions],
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")

        yield add


def write_set(
    sources: Iterable[tuple[str, Iterable[Trajectory]]], path: str | Path, share: float = 1.0
) -> SetReport:
    """Write what can be learned of ``sources`` as one set, see `learnable` and `set_writer`."""
    report = SetReport()
    with set_writer(path) as add:
        for item in learnable(sources, report, share):
            add(item)
    return report


def drawn(trajectory: Trajectory, share: float) -> list[Path]:
    """``share`` of a trajectory's pictures, rounded up, the same whenever it is asked for."""
    frames = list(trajectory.frames)
    count = min(math.ceil(share * len(frames)), len(frames))
    return random.Random(trajectory.video).sample(frames, count)


def unreadable(path: Path) -> str | None:
    """Why a picture cannot be read to its end; None for one that can."""
    try:
        with Image.open(path) as picture:
            picture.load()
    # what a decoder meets in damaged data is of many kinds
    except Exception as error:
        return f"{path} cannot be read as a picture ({error})"
    return None


def _learnable(trajectory: Trajectory) -> tuple[Action, ...]:
    """`targets_of`, where pictures and instruction are there too; else raises UnusableError."""
    usable(trajectory.frames, MISSING, f"{trajectory.video} has no pictures")
    folder = trajectory.frames[0].parent
    # a link to nothing, or to itself, is no picture
    there = os.scandir(folder) if folder.is_dir() else ()
    present = {entry.name for entry in there if Path(entry.path).is_file()}
    absent = [str(frame) for frame in trajectory.frames if frame.name not in present]
    usable(
        not absent,
        MISSING,
        f"{trajectory.video} lacks {len(absent)} of {len(trajectory.frames)} pictures, "
        f"the first is {''.join(absent[:1])}",
    )
    usable(
        trajectory.instruction.strip(),
        "it has no instruction",
        f"{trajectory.video} has no instruction",
    )
    return targets_of(trajectory)


class TrajectorySet(Sequence[SetItem]):
    """
    The trajectories of a set file, each read from disk when it is asked for.

    ``lengths`` int32 [n]: frames of every trajectory. Safe to hand to worker processes: the file
    is opened anew in each.

    Raises:
        InputError: no such file, or a line that is no trajectory.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        ends, lengths = [0], []
        try:
            with open(self.path, "rb") as file:
                for number, line in enumerate(file, 1):
                    lengths.append(len(_line(line, f"{self.path}, line {number},")["targets"]))
                    ends.append(ends[-1] + len(line))
        except OSError as error:
            raise InputError(
                f"training set {self.path} cannot be read ({error.strerror}): make it "
                "with 'janusvln data'"
            ) from error
        self._offsets = np.array(ends[:-1], np.int64)
        self.lengths = np.array(lengths, np.int32)

    def __len__(self) -> int:
        return len(self.lengths)

    def raw(self, index: int) -> dict[str, Any]:
        """The line of trajectory ``index`` as it stands in the file."""
        with open(self.path, "rb") as file:
            file.seek(int(self._offsets[index]))
            return _line(file.readline(), f"{self.path}, trajectory {index},")

    # Sequence's overloads say int -> SetItem; slices are not offered
    def __getitem__(self, index: Any) -> Any:
        values = self.raw(index)
        targets = tuple(map(Action, values["targets"]))
        frames = tuple(self.pictures(values))
        return SetItem(values["id"], values["source"], values["instruction"], frames, targets)

    def pictures(self, values: dict[str, Any]) -> list[Path]:
        """
        Where the pictures of a line (`raw`) are: in its folder, wherever the maker of the set put
        that.
        """
        folder = (self.path.resolve().parent / values["folder"]).resolve()
        return [inside(folder, name, f"a picture of {self.path}") for name in values["frames"]]


FIELDS = {"id": str, "source": str, "instruction": str, "folder": str, "frames": list}
"""What every line of a set holds beside its targets."""


def _line(text: bytes, where: str) -> dict[str, Any]:
    """A line of a set, every field of its type; raises InputError."""
    values = parse_json(text, where, REMAKE)
    require(isinstance(values, dict), f"{where} is no trajectory: {REMAKE}")
    for name, kind in FIELDS.items():
        require(
            isinstance(values.get(name), kind),
            f"{where} is no trajectory ({name} is {values.get(name)!r:.40}): {REMAKE}",
        )
    targets, frames = values.get("targets"), values["frames"]
    known = isinstance(targets, list) and all(type(a) is int and 0 <= a <= 3 for a in targets)
    require(known, f"{where} is no trajectory (targets is {targets!r:.40}): {REMAKE}")
    require(
        targets and len(targets) == len(frames),
        f"{where} has {len(frames)} pictures and {len(targets)} targets: {REMAKE}",
    )
    actions = values.get("actions", targets)
    require(
        isinstance(actions, list)
        and len(actions) == len(frames)
        and all(type(a) is int and -1 <= a <= 3 for a in actions),
        f"{where} is no trajectory (actions is {actions!r:.40}): {REMAKE}",
    )
    return values


class FrameSamples(Sequence[tuple[SetItem, int]]):
    """
    ``released`` samples of several sets: item k is (trajectory, frame), one for every frame of
    every trajectory.
    """

    def __init__(self, sets: Sequence[TrajectorySet]) -> None:
        self.sets = list(sets)
        self._of_set = np.concatenate(
            [np.full(len(s), i, np.int32) for i, s in enumerate(self.sets)]
        )
        self._of_trajectory = np.concatenate(
            [np.arange(len(s), dtype=np.int32) for s in self.sets]
        )
        self._ends = np.cumsum(np.concatenate([s.lengths for s in self.sets]).astype(np.int64))

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def image_counts(self, num_history: int) -> np.ndarray:
        """How many pictures each sample shows, int8 [len(self)], without reading any."""
        counts = [
            np.minimum(np.arange(1, n + 1), num_history + 1).astype(np.int8)
            for s in self.sets
            for n in s.lengths
        ]
        return np.concatenate(counts)

    def __getitem__(self, k: Any) -> Any:
        if not 0 <= k < len(self):
            raise IndexError(k)
        row = int(np.searchsorted(self._ends, k, side="right"))
        frame = int(k - (self._ends[row - 1] if row else 0))
        return self.sets[int(self._of_set[row])][int(self._of_trajectory[row])], frame

"""
Trajectories on disk: the frames of a drive, the actions that were executed, and the labels to
learn from. Every published layout is read, one is written.

Two layouts are in use. *Named frames* (R2R-CE, RxR-CE):
``<root>/<episode_id>/step_0000_TURN_RIGHT.png``, the label in the name and the instruction in the
episode file. *Annotated* (ScaleVLN, DAgger, and everything written here): ``annotations.json``
beside ``images/<name>/rgb/000.jpg``.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from janusvln_ros.actions import Action
from janusvln_ros.data.episodes import Episode, first_missing, json_id, read_episodes
from janusvln_ros.data.journal import JOURNALS, Journal, journal_path, line_key, read_journals
from janusvln_ros.documents import read_json, whole
from janusvln_ros.errors import InputError, require
from janusvln_ros.files import atomic_write, inside, one_name

_NAMED = re.compile(r"(?:.*_)?(\d+)_(stop|move_forward|turn_left|turn_right)$", re.IGNORECASE)
_NUMBERED = re.compile(r"(\d+)$")
_PICTURES = {".png", ".jpg", ".jpeg"}


@dataclass(frozen=True)
class Trajectory:
    """
    One drive.

    ``actions[0]`` is -1 and ``actions[i + 1]`` the action executed at frame i; after the last
    frame the drive stopped.

    ``labels`` are the expert's actions at every frame where they differ from the executed ones
    (classic DAgger, noise); None: learn what was executed.
    """

    id: int | str
    video: str
    instruction: str
    actions: tuple[int, ...]
    labels: tuple[int, ...] | None
    frames: tuple[Path, ...]

    @property
    def targets(self) -> tuple[int, ...]:
        """
        The action to learn at every frame: the expert's where known, else the executed one and
        STOP at the last frame.
        """
        return self.labels if self.labels is not None else (*self.actions[1:], int(Action.STOP))


def video_name(scene: str, dataset: str, episode_id: str) -> str:
    """
    Return ``images/{scene}_{dataset}_{episode:06d}``, the published name of an episode's frame
    folder.

    Raises:
        InputError: an id or a name that no folder can have.
    """
    number = json_id(episode_id)
    name = f"{scene}_{dataset}_{f'{number:06d}' if isinstance(number, int) else number}"
    return f"images/{one_name(name, f'the frame folder of episode {episode_id!r:.80}')}"


def read_trajectories(
    root: str | Path,
    *,
    instructions: Mapping[str, str] | None = None,
    data_dir: str | Path | None = None,
    rejected: list[str] | None = None,
) -> Iterator[Trajectory]:
    """
    Yield the trajectories under ``root`` one by one, in the order of the annotations or of the
    episode numbers.

    ``root`` is a folder with ``annotations.json``, or one of named frames
    (``trajectory_data/R2R-CE-640x480``, its ``images``, ``trajectory_data/R2R/train``). Named
    frames take their instruction from ``instructions`` (by episode id), else from the training
    episodes of R2R or RxR in ``data_dir``, which defaults to the folder that holds
    ``trajectory_data``. A trajectory that cannot be used is described in ``rejected``.

    Raises:
        InputError: the folder is missing or in neither layout; or, where ``rejected`` is None, a
            trajectory cannot be used.
    """
    root = Path(root)
    require(root.is_dir(), f"trajectories: {first_missing(root)}")
    annotated = (root / "annotations.json").is_file()
    require(
        annotated or not any(root.glob(JOURNALS)),
        f"{root} holds a collection that was not finished: run the command that "
        "began it again, it goes on where it stopped",
    )
    for name, read in _annotated(root) if annotated else _named(root, instructions, data_dir):
        try:
            trajectory = read()
        except (KeyError, TypeError, ValueError, IndexError, ArithmeticError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            if rejected is None:
                raise InputError(name + reason) from error
            rejected.append(name + reason)
        else:
            yield trajectory


Reader = tuple[str, Callable[[], Trajectory]]
"""
How to read a trajectory, and how its name begins a sentence that says why it cannot be used: for
KeyError, TypeError, ValueError and IndexError.
"""


def _annotated(root: Path) -> Iterator[Reader]:
    """Yield what ``annotations.json`` lists."""
    path = root / "annotations.json"
    content = read_json(path, finite=False)
    require(
        isinstance(content, list),
        f"{path} is {type(content).__name__}, not the list of a published annotation file",
    )
    for number, item in enumerate(content):
        yield f"{path}, item {number}: ", partial(_read_annotation, root, item)


def _read_annotation(root: Path, item: Any) -> Trajectory:
    video, text = item["video"], item["instructions"][0]
    actions = tuple(whole(a, f"{video}: an action") for a in item["actions"])
    labels = item.get("labels")
    if labels is not None:
        labels = tuple(whole(a, f"{video}: a label") for a in labels)
    require(isinstance(text, str) and text.strip(), f"{video}: instruction is {text!r}")
    require(
        actions[:1] == (-1,) and {1, 2, 3}.issuperset(actions[1:]),
        f"{video}: actions must be -1 and then 1, 2 or 3, they are {list(actions[:8])}...",
    )
    if labels is not None:
        require(
            len(labels) == len(actions) and {0, 1, 2, 3}.issuperset(labels),
            f"{video}: {len(labels)} labels for {len(actions)} frames, or a label that "
            "is no action",
        )
    folder = inside(root, video, "video") / "rgb"
    frames = _frames(folder, _NUMBERED)
    require(
        len(frames) == len(actions),
        f"{folder} holds {len(frames)} frames, the annotation {len(actions)} actions",
    )
    require(type(item["id"]) in (int, str), f"{video}: id is {item['id']!r:.80}")
    return Trajectory(item["id"], video, text, actions, labels, tuple(path for path, _ in frames))


def _frames(folder: Path, pattern: re.Pattern[str]) -> list[tuple[Path, re.Match[str]]]:
    """
    List a folder's pictures by their number.

    Raises:
        InputError: there are none, a name does not fit, or the numbers are not 0, 1, 2, ...
    """
    require(folder.is_dir(), first_missing(folder))
    found = []
    for path in folder.iterdir():
        if path.suffix.lower() in _PICTURES and not path.name.startswith("."):
            match = pattern.match(path.stem)
            if not match:
                named = "step and action, as step_0000_TURN_RIGHT.png does"
                told = named if pattern is _NAMED else "step"
                raise InputError(f"{path}: the name tells no {told}")
            found.append((path, match))
    require(found, f"{folder} holds no pictures")
    found.sort(key=lambda pair: int(pair[1][1]))
    require(
        [int(match[1]) for _, match in found] == list(range(len(found))),
        f"{folder}: {len(found)} frames, but their numbers are not 0 to {len(found) - 1}",
    )
    return found


def _named(
    root: Path, instructions: Mapping[str, str] | None, data_dir: str | Path | None
) -> Iterator[Reader]:
    """Yield the trajectories of a folder of named frames, one folder per episode."""
    root = next((root / name for name in ("images", "train") if (root / name).is_dir()), root)
    folders = sorted(
        (p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")),
        key=lambda p: (len(p.name), p.name),
    )
    require(
        folders,
        f"{root} holds neither annotations.json nor a folder of named frames for each episode",
    )
    if instructions is None:
        instructions = _instructions_beside(root, data_dir)
    for folder in folders:
        yield "", partial(_read_named, folder, instructions.get(folder.name))


def _read_named(folder: Path, text: str | None) -> Trajectory:
    if text is None:
        raise InputError(
            f"{folder}: the episode file has no episode {folder.name}, so the "
            "instruction is unknown"
        )
    frames = _frames(folder, _NAMED)
    labels = tuple(int(Action[match[2].upper()]) for _, match in frames)
    require(Action.STOP not in labels[:-1], f"{folder}: a frame before the last is labelled STOP")
    return Trajectory(
        json_id(folder.name),
        f"{folder.parent.name}/{folder.name}",
        text,
        (-1, *labels[:-1]),
        # A drive that was cut off before it stopped says so in its last label, which must not be
        # taken for STOP.
        labels if labels[-1] != Action.STOP else None,
        tuple(path for path, _ in frames),
    )


def _instructions_beside(root: Path, data_dir: str | Path | None) -> dict[str, str]:
    """
    Find the training instructions of R2R or RxR for frames in
    ``<data_dir>/trajectory_data/R2R...``.
    """
    dataset = next(
        (
            name
            for part in root.resolve().parts[::-1]
            for name in ("r2r", "rxr")
            if part.lower().startswith(name)
        ),
        None,
    )
    if dataset is None:
        raise InputError(
            f"{root} does not tell whether its frames are of R2R or RxR: give the "
            "instructions, or name a folder above 'R2R...' or 'RxR...'"
        )
    if data_dir is None:
        data_dir = next(
            (p.parent for p in root.resolve().parents if p.name == "trajectory_data"), None
        )
        if data_dir is None:
            raise InputError(
                f"{root} is not below 'trajectory_data', so its episode file is "
                "unknown: give data_dir"
            )
    return {
        e.episode_id: e.instruction for e in read_episodes(data_dir, dataset, "train").episodes
    }


def actions_before(executed: Sequence[int], frames: int) -> list[int]:
    """
    Return the action that led to each of ``frames`` pictures, as an annotation has them: -1 before
    the first; what was executed after the last is left out.
    """
    return [-1, *map(int, executed[: frames - 1])]


class TrajectoryWriter:
    """
    Writes trajectories in the annotated layout; any number of processes (``shard`` 0, 1, ...)
    write to one ``root``.

    An episode counts once its line is in ``journal_{shard}.jsonl``, which is written after its
    frames are in place; so a kill at any moment loses at most the episode in progress and never
    leaves half of one. `merge` turns the journals into ``annotations.json`` and ``result.jsonl``.
    """

    def __init__(self, root: str | Path, dataset: str, shard: int = 0) -> None:
        self.root, self.dataset = Path(root), dataset
        self._journal = Journal(journal_path(self.root, shard))

    def write(
        self,
        episode: Episode,
        frames: Sequence[bytes],
        actions: Sequence[int],
        labels: Sequence[int] | None = None,
        result: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Keep an episode: ``frames`` are encoded JPEGs, ``actions`` and ``labels`` as in
        `Trajectory`; ``result`` goes to ``result.jsonl``.

        Raises:
            ValueError: the numbers of frames, actions and labels differ.
        """
        if len(frames) != len(actions) or (labels is not None and len(labels) != len(actions)):
            raise ValueError(
                f"episode {episode.episode_id}: {len(frames)} frames, {len(actions)} "
                f"actions, {labels and len(labels)} labels"
            )
        video = video_name(episode.scene, self.dataset, episode.episode_id)
        final = inside(self.root, video, "video")
        temporary = final.with_name(f".{final.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        (temporary / "rgb").mkdir(parents=True)
        for step, jpeg in enumerate(frames):
            (temporary / "rgb" / f"{step:03d}.jpg").write_bytes(jpeg)
        shutil.rmtree(final, ignore_errors=True)  # left by a kill between the two lines below
        temporary.rename(final)
        annotation = {
            "id": json_id(episode.episode_id),
            "video": video,
            "instructions": [episode.instruction],
            "actions": list(map(int, actions)),
        }
        if labels is not None:
            annotation["labels"] = list(map(int, labels))
        self._append(episode, annotation, result)

    def skip(self, episode: Episode, result: Mapping[str, Any] | None = None) -> None:
        """Note that an episode was driven but is not kept, so that it is not driven again."""
        self._append(episode, None, result)

    def _append(
        self, episode: Episode, annotation: dict[str, Any] | None, result: Mapping[str, Any] | None
    ) -> None:
        self._journal.append(
            {**line_key(episode), "annotation": annotation, "result": dict(result or {})}
        )

    def close(self) -> None:
        """Close the journal; `merge` does the rest."""
        self._journal.close()


def merge(root: str | Path) -> list[dict[str, Any]]:
    """
    Write ``annotations.json`` (sorted by id, one entry per frame folder) and ``result.jsonl`` from
    all journals; return the journal's lines.
    """
    root = Path(root)
    lines = {(line["scene"], str(line["episode_id"])): line for line in read_journals(root)}
    ordered = [lines[key] for key in sorted(lines, key=lambda key: (len(key[1]), key[1], key[0]))]
    kept = [line["annotation"] for line in ordered if line["annotation"] is not None]
    atomic_write(root / "annotations.json", json.dumps(kept, ensure_ascii=False))
    atomic_write(
        root / "result.jsonl",
        "".join(json.dumps(line["result"], ensure_ascii=False) + "\n" for line in ordered),
    )
    return ordered

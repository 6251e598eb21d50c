"""
Trajectories on disk: the frames of a drive, the actions that were executed, and the labels to
learn from. Every published layout is read, one is written.

Two layouts are in use. *Named frames* (R2R-CE, RxR-CE):
``<root>/<episode_id>/step_0000_TURN_RIGHT.png``, the label in the name and the instruction in the
episode file. *Annotated* (ScaleVLN, DAgger, and everything written here): ``annotations.json``
beside ``images/<name>/rgb/000.jpg``.
"""

import errno
import json
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from janusvln_ros.actions import Action
from janusvln_ros.data import left_out as fields
from janusvln_ros.data.episodes import (
    Episode,
    Identity,
    episodes_path,
    first_missing,
    identity_of,
    json_id,
    read_episode_file,
)
from janusvln_ros.data.journal import JOURNALS, Journal, journal_path, read_journals
from janusvln_ros.data.left_out import WRONG_TYPE, LeftOut, UnusableError, describe, usable
from janusvln_ros.documents import read_json
from janusvln_ros.errors import InputError, require
from janusvln_ros.files import atomic_write, inside, one_name

ANNOTATIONS = "annotations*.json"
"""Files that list trajectories; published ones have a version in their name."""

OWNER = "episode.json"
"""Says in a frame folder which episode its frames are of."""

TRAJECTORY_DATA = "trajectory_data"
"""Where the published frames lie below the data folder."""

MISSING, UNFIT = "its pictures are not there", "its actions or labels do not fit"
"""Reasons why a trajectory cannot be used."""

_PART = re.compile(r"annotations_\d+\.json")  # what each rank of the published DAgger writes
_SILENT = ("ce", "vlnce", "images", "rgb", "frames", "guide", "follower", "en", "preprocessed")
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
    rejected: list[LeftOut] | None = None,
) -> Iterator[Trajectory]:
    """
    Yield the trajectories under ``root`` one by one, in the order of the annotations or of the
    episode numbers; one with several instructions once for each.

    ``root`` is a folder with ``annotations.json`` (or one of another version, such as
    ``annotations_v1-3.json``), such a file itself, or a folder of named frames
    (``trajectory_data/R2R-CE-640x480``, its ``images``, ``trajectory_data/R2R/train``). Named
    frames take their instruction from ``instructions`` (by episode id), else from the episode file
    in ``data_dir`` that the folder's name tells (`frames_source`); ``data_dir`` defaults to the
    folder that holds ``trajectory_data``. A trajectory that cannot be used is described in
    ``rejected``.

    Raises:
        InputError: the folder is missing, in neither layout, or does not tell which file belongs
            to it; or, where ``rejected`` is None, a trajectory cannot be used.
    """
    root = Path(root)
    require(root.exists(), f"trajectories: {first_missing(root)}")
    listed = root if root.is_file() else annotations_in(root)
    require(
        listed is not None or not any(root.glob(JOURNALS)),
        f"{root} holds a collection that was not finished: run the command that "
        "began it again, it goes on where it stopped",
    )
    for name, read in _annotated(listed) if listed else _named(root, instructions, data_dir):
        try:
            trajectories = read()
        except (KeyError, TypeError, ValueError, IndexError, ArithmeticError) as error:
            sentence = describe(name, error)
            if rejected is None:
                raise InputError(sentence) from error
            rejected.append(sentence)
        else:
            yield from trajectories


Reader = tuple[str, Callable[[], list[Trajectory]]]
"""
How to read a drive, once for each of its instructions, and how its name begins a sentence that
says why it cannot be used: for KeyError, TypeError, ValueError and IndexError.
"""


def annotations_in(root: Path) -> Path | None:
    """
    The file that lists the trajectories of a folder; None where there is none.

    Raises:
        InputError: there are several, of which the pictures can belong to one only, or only the
            parts of a published collection that was not merged.
    """
    found = sorted(root.glob(ANNOTATIONS))
    whole = [path for path in found if not _PART.fullmatch(path.name)]
    require(
        len(whole) < 2,
        f"{root} holds {' and '.join(path.name for path in whole)}, and its pictures belong to "
        "one of them: name that file in place of the folder",
    )
    require(
        whole or not found,
        f"{root} holds {', '.join(path.name for path in found)} but no annotations.json: these "
        "are the parts of a collection that was not merged",
    )
    return whole[0] if whole else None


def _annotated(path: Path) -> Iterator[Reader]:
    """Yield what a file of annotations lists."""
    content = read_json(path, finite=False)
    require(
        isinstance(content, list),
        f"{path} is {type(content).__name__}, not the list of a published annotation file",
    )
    for number, item in enumerate(content):
        yield f"{path}, item {number}: ", partial(_read_annotation, path.parent, item)


def _read_annotation(root: Path, item: Any) -> list[Trajectory]:
    usable(isinstance(item, dict), WRONG_TYPE, f"is {type(item).__name__}, not an object")
    name, video = fields.identifier(item, "id"), fields.text(item, "video")
    given = item["instructions"]
    instructions = (given,) if isinstance(given, str) else fields.texts(item, "instructions")
    said = instructions and all(text.strip() for text in instructions)
    usable(said, "it has no instruction", f"{video}: instructions is {given!r:.80}")
    actions = fields.whole_numbers(item, "actions")
    learned = item.get("labels") is not None
    labels = fields.whole_numbers(item, "labels") if learned else None
    usable(
        actions[:1] == (-1,) and {1, 2, 3}.issuperset(actions[1:]),
        UNFIT,
        f"{video}: actions must be -1 and then 1, 2 or 3, they are {list(actions[:8])}...",
    )
    if labels is not None:
        usable(
            len(labels) == len(actions) and {0, 1, 2, 3}.issuperset(labels),
            UNFIT,
            f"{video}: {len(labels)} labels for {len(actions)} frames, or a label that "
            "is no action",
        )
    folder = inside(root, video, "video") / "rgb"
    frames = _frames(folder, _NUMBERED)
    usable(
        len(frames) == len(actions),
        "its pictures are not as many as its actions",
        f"{folder} holds {len(frames)} frames, the annotation {len(actions)} actions",
    )
    paths = tuple(path for path, _ in frames)
    # the published id for the first instruction, which alone the published code learns
    names = [f"{name}_{k}" if k else name for k in range(len(instructions))]
    return [
        Trajectory(json_id(name), video, text, actions, labels, paths)
        for name, text in zip(names, instructions, strict=True)
    ]


def _frames(folder: Path, pattern: re.Pattern[str]) -> list[tuple[Path, re.Match[str]]]:
    """
    List a folder's pictures by their number.

    Raises:
        InputError: there are none, a name does not fit, or the numbers are not 0, 1, 2, ...
    """
    usable(folder.is_dir(), MISSING, first_missing(folder))
    found = []
    for path in folder.iterdir():
        if path.suffix.lower() in _PICTURES and not path.name.startswith("."):
            match = pattern.match(path.stem)
            if not match:
                named = "step and action, as step_0000_TURN_RIGHT.png does"
                told = named if pattern is _NAMED else "step"
                raise UnusableError(UNFIT, f"{path}: the name tells no {told}")
            found.append((path, match))
    usable(found, MISSING, f"{folder} holds no pictures")
    found.sort(key=lambda pair: int(pair[1][1]))
    usable(
        [int(match[1]) for _, match in found] == list(range(len(found))),
        MISSING,
        f"{folder}: {len(found)} frames, but their numbers are not 0 to {len(found) - 1}",
    )
    return found


def _named(
    root: Path, instructions: Mapping[str, str] | None, data_dir: str | Path | None
) -> Iterator[Reader]:
    """Yield the trajectories of a folder of named frames, one folder per episode."""
    top = root
    root = next((root / name for name in ("images", "train") if (root / name).is_dir()), root)
    folders = sorted(
        (p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")),
        key=lambda p: (len(p.name), p.name),
    )
    require(
        folders,
        f"{root} holds neither annotations.json nor a folder of named frames for each episode",
    )
    require(
        not (folders[0] / "rgb").is_dir(),
        f"{root} holds frame folders such as {folders[0].name}/rgb, whose actions and "
        f"instructions are in an annotation file, but {top} has no {ANNOTATIONS}: fetch it",
    )
    told: Mapping[str, Sequence[str]] = (
        _instructions_beside(root, data_dir)
        if instructions is None
        else {name: (text,) for name, text in instructions.items()}
    )
    for folder in folders:
        yield "", partial(_read_named, folder, told.get(folder.name, ()))


def _read_named(folder: Path, texts: Sequence[str]) -> list[Trajectory]:
    usable(
        texts,
        "the episode file does not have it",
        f"{folder}: the episode file has no episode {folder.name}, so the instruction is unknown",
    )
    usable(
        len(texts) == 1,
        "several episodes have its id",
        f"{folder}: {len(texts)} episodes are called {folder.name}, so it is unknown which of "
        "their instructions belongs to these frames",
    )
    frames = _frames(folder, _NAMED)
    labels = tuple(int(Action[match[2].upper()]) for _, match in frames)
    usable(
        Action.STOP not in labels[:-1],
        UNFIT,
        f"{folder}: a frame before the last is labelled STOP",
    )
    return [
        Trajectory(
            json_id(folder.name),
            f"{folder.parent.name}/{folder.name}",
            texts[0],
            (-1, *labels[:-1]),
            # A drive that was cut off before it stopped says so in its last label, which must not
            # be taken for STOP.
            labels if labels[-1] != Action.STOP else None,
            tuple(path for path, _ in frames),
        )
    ]


def frames_source(root: Path) -> tuple[str, str, str]:
    """
    Data set, split and role whose episodes a folder of named frames is of, as the names of its
    path below ``trajectory_data`` tell: ``R2R-CE-640x480/images`` and ``R2R/train`` are of r2r's
    train, ``R2R-EnvDrop`` of its envdrop, ``RxR/val_unseen`` of rxr's. Ids of one split are ids of
    the others too, so nothing is guessed.

    Raises:
        InputError: they tell no data set, several splits, or something that is not known.
    """
    parts = root.absolute().parts
    begins = [i + 1 for i, part in enumerate(parts) if part == TRAJECTORY_DATA] or [
        i for i, part in enumerate(parts) if re.match("r2r|rxr|envdrop", part.lower())
    ]
    words = re.sub("[^a-z0-9]+", "_", "_".join(parts[begins[-1] :] if begins else ()).lower())
    words = re.sub("(?<![a-z])env_drop", "envdrop", words)
    words = re.sub("(?<![a-z0-9])([0-9]+x[0-9]+|v[0-9]+(_[0-9]+)*)(?![a-z0-9])", "", words)
    splits = re.findall("val_?unseen|val_?seen|joint_train_envdrop|envdrop|test_challenge", words)
    for split in splits:
        words = words.replace(split, "")
    tokens = {token for token in words.split("_") if token}
    # EnvDrop's are all of training
    of_splits = {*splits, *(tokens & {"train"} if "envdrop" not in "".join(splits) else ())}
    unknown = tokens - {"r2r", "rxr", "train", *_SILENT}
    datasets = tokens & {"r2r", "rxr"} or ({"r2r"} if "envdrop" in splits else set())
    require(
        len(datasets) == 1 and len(of_splits) < 2 and not unknown,
        f"{root} does not tell which episodes its frames are of"
        + (f" ({', '.join(sorted(unknown))} is not known)" if unknown else "")
        + ": name a folder below 'trajectory_data' with data set and split in its name, such as "
        "R2R-CE-640x480, R2R-EnvDrop or RxR/val_unseen, or give the instructions",
    )
    split = splits[0] if splits else "train"
    split = re.sub("^val_?", "val_", split)
    return datasets.pop(), split, "follower" if "follower" in tokens else "guide"


def _instructions_beside(root: Path, data_dir: str | Path | None) -> dict[str, list[str]]:
    """
    Find the instructions for frames in ``<data_dir>/trajectory_data/R2R...``: by episode id, one
    if that is unique.
    """
    dataset, split, role = frames_source(root)
    if data_dir is None:
        data_dir = next(
            (p.parent for p in root.absolute().parents if p.name == TRAJECTORY_DATA), None
        )
        if data_dir is None:
            raise InputError(
                f"{root} is not below 'trajectory_data', so its episode file is "
                "unknown: give data_dir"
            )
    path = episodes_path(data_dir, dataset, split, role)
    # R2R's augmented episodes lie beside the other splits or in a folder of their own
    beside = Path(data_dir) / "datasets" / split / f"{split}.json.gz"
    if "envdrop" in split and not path.is_file() and beside.is_file():
        path = beside
    found: dict[str, list[str]] = defaultdict(list)
    for episode in read_episode_file(path).episodes:
        found[episode.episode_id].append(episode.instruction)
    return found


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

    Each frame folder says in ``episode.json`` whose it is, so that it is never given to another
    episode. ``run``: the digest that the journal's lines carry.

    Raises:
        InputError: ``root`` holds trajectories that were not written by this class.
    """

    def __init__(self, root: str | Path, dataset: str, shard: int = 0, run: str = "") -> None:
        self.root, self.dataset = Path(root), dataset
        begun = any(self.root.glob(JOURNALS)) or (self.root / "manifest.json").is_file()
        require(
            begun or not any(self.root.glob(ANNOTATIONS)),
            f"{root} holds trajectories of somebody else, which would be written over: choose "
            "another folder",
        )
        self._journal = Journal(journal_path(self.root, shard), run=run)

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
        video = self._place(episode, frames)
        annotation = {
            "id": json_id(episode.episode_id),
            "video": video,
            "instructions": [episode.instruction],
            "actions": list(map(int, actions)),
        }
        if labels is not None:
            annotation["labels"] = list(map(int, labels))
        self._append(episode, annotation, result)

    def _place(self, episode: Episode, frames: Sequence[bytes]) -> str:
        """
        Put the frames into a folder of their own and return its name: the published one, or that
        and the episode's digest where another episode has it.
        """
        owner = json.dumps(episode.identity._asdict(), ensure_ascii=False)
        published = video_name(episode.scene, self.dataset, episode.episode_id)
        temporary = inside(self.root, f"images/.{episode.identity.digest}.tmp", "video")
        shutil.rmtree(temporary, ignore_errors=True)
        (temporary / "rgb").mkdir(parents=True)
        for step, jpeg in enumerate(frames):
            (temporary / "rgb" / f"{step:03d}.jpg").write_bytes(jpeg)
        (temporary / OWNER).write_text(owner)
        for video in (published, f"{published}_{episode.identity.digest}"):
            final = inside(self.root, video, "video")
            if (final / OWNER).is_file() and (final / OWNER).read_text() == owner:
                shutil.rmtree(final)  # left by a kill before its line was written
            try:
                temporary.rename(final)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise
            else:
                return video
        shutil.rmtree(temporary)
        raise InputError(f"{final} exists and is no frame folder of this collection: move it away")

    def skip(self, episode: Episode, result: Mapping[str, Any] | None = None) -> None:
        """Note that an episode was driven but is not kept, so that it is not driven again."""
        self._append(episode, None, result)

    def _append(
        self, episode: Episode, annotation: dict[str, Any] | None, result: Mapping[str, Any] | None
    ) -> None:
        about = {"annotation": annotation, "result": dict(result or {})}
        self._journal.append({**episode.identity._asdict(), **about})

    def close(self) -> None:
        """Close the journal; `merge` does the rest."""
        self._journal.close()


def merge(root: str | Path) -> list[dict[str, Any]]:
    """
    Write ``annotations.json`` (sorted by id, one entry per frame folder) and ``result.jsonl`` from
    all journals; return the journal's lines.
    """
    root = Path(root)
    lines = {identity_of(line): line for line in read_journals(root)}
    ordered = [lines[key] for key in sorted(lines, key=_by_number)]
    kept = [line["annotation"] for line in ordered if line["annotation"] is not None]
    atomic_write(root / "annotations.json", json.dumps(kept, ensure_ascii=False))
    atomic_write(
        root / "result.jsonl",
        "".join(json.dumps(line["result"], ensure_ascii=False) + "\n" for line in ordered),
    )
    return ordered


def _by_number(identity: Identity) -> tuple[int, str, str, str]:
    scene_id, episode_id, instruction = identity
    return len(episode_id), episode_id, scene_id, instruction

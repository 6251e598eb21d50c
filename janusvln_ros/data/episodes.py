"""
Episodes of vision-and-language navigation in continuous environments: the VLN-CE files, read
strictly and written reproducibly.

World coordinates are those of the files and of habitat-sim: metres, y up; rotations are
quaternions x, y, z, w.
"""

import gzip
import hashlib
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from janusvln_ros.documents import finite, parse_packed_json, whole
from janusvln_ros.errors import InputError, require
from janusvln_ros.files import atomic_write, inside, one_name

DATASETS = ("r2r", "rxr", "scalevln", "houses")
"""
Names of the data sets that `read_episodes` knows; each lies in ``<data_dir>/datasets/<name>``.
"""

UNSEEN_SHARE = 6
"""
One of this many instruction texts of the houses is kept for unseen homes: an instruction belongs
to one side by its hash alone.
"""

Point = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]

_TOKENS = 200  # length to which VLN-CE pads instruction_tokens with zeros


@dataclass(frozen=True)
class Episode:
    """
    One task: a scene, a start pose, an instruction, and the goal with the path the instruction
    describes.

    ``scene_id`` is relative to ``<data_dir>/scene_datasets``. ``reference_path`` starts at the
    start and ends at the goal. ``geodesic_distance`` is from start to goal in metres, None where
    the file does not tell. ``info`` holds the further keys of the file's ``info``.
    """

    episode_id: str
    trajectory_id: str
    scene_id: str
    start_position: Point
    start_rotation: Quaternion
    goal_position: Point
    goal_radius: float
    instruction: str
    reference_path: tuple[Point, ...]
    geodesic_distance: float | None
    language: str = "en"
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def scene(self) -> str:
        """
        Name of the scene as published result files and frame folders spell it: the folder that
        holds the scene file.
        """
        return scene_name(self.scene_id)


@dataclass(frozen=True)
class EpisodeSet:
    """
    The episodes of one file.

    ``rejected`` has one sentence for each episode that could not be used; ``digest`` is the file's
    SHA-256.
    """

    episodes: tuple[Episode, ...]
    rejected: tuple[str, ...]
    path: Path
    digest: str


@dataclass(frozen=True)
class GroundTruth:
    """
    What the reference follower did in an episode: its actions, the places it was at, and how often
    it moved forward.
    """

    actions: tuple[int, ...]
    locations: tuple[Point, ...]
    forward_steps: int


def scene_name(scene_id: str) -> str:
    """
    Return "X" of "mp3d/X/X.glb": the second-to-last part of the path, as published result files
    have it.
    """
    parts = Path(scene_id).parts
    return parts[-2] if len(parts) > 1 else Path(scene_id).stem


def json_id(text: str) -> int | str:
    """
    Return an episode or trajectory id as the files of R2R write it: a plain decimal number as int,
    anything else as it is.
    """
    return int(text) if text.isascii() and text.isdigit() and str(int(text)) == text else text


def episodes_path(data_dir: str | Path, dataset: str, split: str, role: str = "guide") -> Path:
    """
    Return where the episodes of a split lie in the data folder of a user; ScaleVLN has one file
    for all.

    Raises:
        InputError: the data set or the role is not one of those known.
    """
    folder = Path(data_dir) / "datasets" / dataset
    if dataset == "scalevln":
        return folder / "scalevln_subset_150k.json.gz"
    if dataset == "rxr":
        require(
            role in ("guide", "follower"),
            f"role {role!r} of RxR is unknown: use 'guide' or 'follower'",
        )
        return folder / split / f"{split}_{role}.json.gz"
    require(
        dataset in DATASETS, f"data set {dataset!r} is unknown: use one of {', '.join(DATASETS)}"
    )
    return folder / split / f"{split}.json.gz"


def ground_truth_path(data_dir: str | Path, dataset: str, split: str, role: str = "guide") -> Path:
    """Return where the ground truth that belongs to `episodes_path` lies."""
    path = episodes_path(data_dir, dataset, split, role)
    return path.with_name(path.name.removesuffix(".json.gz") + "_gt.json.gz")


def read_episodes(
    data_dir: str | Path,
    dataset: str,
    split: str,
    *,
    role: str = "guide",
    languages: Iterable[str] | None = None,
) -> EpisodeSet:
    """
    Read the episodes of a split: R2R-CE, RxR-CE (``role`` guide or follower), ScaleVLN or houses.

    ``languages`` keeps only episodes of those languages; "en" stands for every English ("en-US",
    "en-IN"). An episode that cannot be used (a key is missing, a number is not finite, its id
    occurs twice) is named with its reason in ``rejected``. An instruction vocabulary is not
    needed.

    Raises:
        InputError: the file or a folder on the way is missing, it is damaged or not in this
            format, or no episode is of ``languages``.
    """
    path = episodes_path(data_dir, dataset, split, role)
    content, digest = _read_gzip_json(path)
    require(
        isinstance(content, dict) and isinstance(content.get("episodes"), list),
        f"{path}: no list 'episodes' at the top level, so it is no VLN-CE episode file",
    )
    episodes: list[Episode] = []
    rejected: list[str] = []
    seen: set[tuple[str, str]] = set()
    for number, item in enumerate(content["episodes"]):
        name = (
            f"episode {item.get('episode_id', '?')} (number {number})"
            if isinstance(item, dict)
            else f"number {number}"
        )
        try:
            episode = _parse_episode(item)
            key = (episode.scene_id, episode.episode_id)
            require(key not in seen, "its id occurs a second time in this scene")
        except (KeyError, TypeError, ValueError, IndexError, ArithmeticError) as error:
            rejected.append(
                f"{path.name}, {name}: "
                f"{f'{error} is missing' if isinstance(error, KeyError) else error}"
            )
            continue
        seen.add(key)
        episodes.append(episode)
    if languages is not None:
        episodes = _of_languages(episodes, tuple(languages), path)
    return EpisodeSet(tuple(episodes), tuple(rejected), path, digest)


def _of_languages(
    episodes: Sequence[Episode], languages: Sequence[str], path: Path
) -> list[Episode]:
    """The episodes of ``languages``; raises ``InputError`` if there are none among some."""
    prefixes = tuple(f"{language}-" for language in languages)
    kept = [e for e in episodes if f"{e.language}-".startswith(prefixes)]
    require(
        kept or not episodes,
        f"{path}: no episode in {', '.join(languages)}; there are "
        f"{', '.join(sorted({e.language for e in episodes}))}",
    )
    return kept


def write_episodes(path: str | Path, episodes: Iterable[Episode]) -> None:
    """
    Write episodes as VLN-CE ``json.gz`` in the schema of R2R, which habitat-lab's ``R2RVLN-v1``
    loads; atomic, equal input gives equal bytes.

    The vocabulary is made of the words of these instructions (0 is padding, 1 the unknown word). A
    language other than "en" goes to ``info.language``.
    """
    listed = list(episodes)
    words = ["<pad>", "<unk>", *sorted({word for e in listed for word in _words(e.instruction)})]
    index = {word: i for i, word in enumerate(words)}
    items = []
    for e in listed:
        tokens = [index[word] for word in _words(e.instruction)][:_TOKENS]
        info = dict(e.info)
        if e.geodesic_distance is not None:
            info["geodesic_distance"] = e.geodesic_distance
        if e.language != "en":
            info["language"] = e.language
        items.append(
            {
                "episode_id": json_id(e.episode_id),
                "trajectory_id": json_id(e.trajectory_id),
                "scene_id": e.scene_id,
                "start_position": e.start_position,
                "start_rotation": e.start_rotation,
                "info": info,
                "goals": [{"position": e.goal_position, "radius": e.goal_radius}],
                "instruction": {
                    "instruction_text": e.instruction,
                    "instruction_tokens": tokens + [0] * (_TOKENS - len(tokens)),
                },
                "reference_path": e.reference_path,
            }
        )
    _write_gzip_json(path, {"episodes": items, "instruction_vocab": {"word_list": words}})


def read_ground_truth(path: str | Path) -> dict[str, GroundTruth]:
    """
    Read ``{split}_gt.json.gz``: for every episode id what the reference follower did.

    Raises:
        InputError: the file is missing, damaged or an entry is incomplete.
    """
    content, _ = _read_gzip_json(Path(path))
    try:
        return {
            str(key): GroundTruth(
                tuple(whole(a, "an action", 0) for a in item["actions"]),
                tuple(_point(p, "a location") for p in item.get("locations", ())),
                whole(item.get("forward_steps", item["actions"].count(1)), "forward_steps", 0),
            )
            for key, item in content.items()
        }
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise InputError(f"{path}: not a VLN-CE ground truth file: {error!r}") from error


def write_ground_truth(path: str | Path, ground_truth: Mapping[str, GroundTruth]) -> None:
    """Write ``{split}_gt.json.gz``; atomic, equal input gives equal bytes."""
    _write_gzip_json(
        path,
        {
            key: {
                "locations": gt.locations,
                "forward_steps": gt.forward_steps,
                "actions": gt.actions,
            }
            for key, gt in ground_truth.items()
        },
    )


def first_missing(path: Path) -> str:
    """
    Say which part of ``path`` is the first that does not exist, for an error a user can act on.
    """
    for folder in [*reversed(path.parents), path]:
        if not folder.exists():
            return (
                f"{path} is missing"
                if folder == path
                else f"{path} is missing: there is no folder {folder}"
            )
    return f"{path} exists"


def _read_gzip_json(path: Path) -> tuple[Any, str]:
    """Read a ``json.gz`` file and its SHA-256."""
    require(
        path.is_file(),
        f"{first_missing(path)}; name the folder that holds datasets/ and scene_datasets/ "
        "(--data, of the node sim_bridge data_dir); docs/evaluation.md has its layout",
    )
    raw = path.read_bytes()
    content = parse_packed_json(raw, str(path), "fetch or generate it again")
    return content, hashlib.sha256(raw).hexdigest()


def _write_gzip_json(path: str | Path, content: Any) -> None:
    """Write ``content`` as ``json.gz`` without a time stamp or a file name inside."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0) as file:
        file.write(json.dumps(content, ensure_ascii=False).encode())
    atomic_write(path, buffer.getvalue())


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*|[^\w\s]", text.lower())


def _numbers(values: Any, count: int, what: str) -> tuple[float, ...]:
    # by hand: a data set has a million points, whose sentences would take longer than themselves
    if not isinstance(values, (list, tuple)) or len(values) != count:
        raise InputError(f"{what} is {values!r:.80}, not {count} numbers")
    for value in values:
        if type(value) not in (int, float):
            raise InputError(f"{what} is {values!r:.80}: a number in it is no number")
    numbers = tuple(float(v) for v in values)
    if not all(math.isfinite(v) for v in numbers):
        raise InputError(f"{what} {values!r:.80} is not finite")
    return numbers


def _point(values: Any, what: str) -> Point:
    x, y, z = _numbers(values, 3, what)
    return x, y, z


def _parse_episode(item: Any) -> Episode:
    """
    Turn one item of the file into an `Episode`; raises KeyError, TypeError or ValueError that name
    what is wrong.
    """
    require(isinstance(item, dict), f"is {type(item).__name__}, not an object")
    instruction = item["instruction"]
    text = instruction["instruction_text"]
    require(isinstance(text, str) and text.strip(), f"instruction_text is {text!r}")
    require(
        isinstance(item["scene_id"], str) and item["scene_id"],
        f"scene_id is {item['scene_id']!r}",
    )
    inside("scene_datasets", item["scene_id"], "scene_id")
    require(isinstance(item["goals"], list) and item["goals"], "goals is empty or no list")
    require(
        type(item["episode_id"]) in (int, str),
        f"episode_id is {item['episode_id']!r:.80}, not a number or a text",
    )
    x, y, z, w = _numbers(item["start_rotation"], 4, "start_rotation")
    require(
        abs(math.hypot(x, y, z, w) - 1) <= 1e-2,
        f"start_rotation {item['start_rotation']!r} is no unit quaternion",
    )
    goal = item["goals"][0]
    start, goal_position = (
        _point(item["start_position"], "start_position"),
        _point(goal["position"], "the goal's position"),
    )
    # Only ScaleVLN has episodes without way points: there the path is the straight line.
    path = tuple(
        _point(p, "a point of reference_path")
        for p in item.get("reference_path") or (start, goal_position)
    )
    info = dict(item.get("info") or {})
    distance = info.pop("geodesic_distance", None)
    language = instruction.get("language") or info.pop("language", "en")
    return Episode(
        episode_id=one_name(str(item["episode_id"]), "episode_id"),
        trajectory_id=str(item.get("trajectory_id", item["episode_id"])),
        scene_id=item["scene_id"],
        start_position=start,
        start_rotation=(x, y, z, w),
        goal_position=goal_position,
        goal_radius=finite(goal.get("radius") or 3.0, "the goal's radius"),
        instruction=text,
        reference_path=path,
        geodesic_distance=None if distance is None else finite(distance, "geodesic_distance"),
        language=str(language),
        info=info,
    )


def is_unseen_text(instruction: str) -> bool:
    """
    Whether an instruction of the houses belongs to the unseen splits: training never uses it.
    """
    return hashlib.sha256(instruction.encode()).digest()[0] % UNSEEN_SHARE == 0

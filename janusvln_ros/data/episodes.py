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
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from janusvln_ros.data import left_out
from janusvln_ros.data.left_out import WRONG_TYPE, LeftOut, UnusableError, usable
from janusvln_ros.documents import parse_packed_json
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

TRUTH_START_M, TRUTH_END_M = 0.5, 3.0
"""
Metres from an episode's start and from its goal within which its ground truth begins and ends;
those of other episodes begin at least a way point away, or lead elsewhere from there.
"""

TRUTH_ELSEWHERE = 0.02
"""Share of ground truths that may end elsewhere: the published ones were driven by a follower."""

_TOKENS = 200  # length to which VLN-CE pads instruction_tokens with zeros


class Identity(NamedTuple):
    """
    What makes an episode one and the same: whole scene id, episode id and its own instruction, as
    published resuming has it. Episode ids alone begin anew in every scene of some data sets.
    """

    scene_id: str
    episode_id: str
    instruction: str

    @property
    def digest(self) -> str:
        """Twelve characters that stand for it in names of files."""
        return hashlib.sha256("\0".join(self).encode()).hexdigest()[:12]


def identity_of(line: Mapping[str, Any]) -> Identity:
    """
    The identity that a line of a journal begins with.

    Raises:
        InputError: the line does not say which episode it is of.
    """
    known = isinstance(line, Mapping) and set(Identity._fields) <= line.keys()
    require(
        known and isinstance(line["scene_id"], str) and isinstance(line["instruction"], str),
        f"a line of a journal does not say which episode it is of: {str(line)[:80]}; remove it, "
        "its episode is then done again",
    )
    return Identity(line["scene_id"], str(line["episode_id"]), line["instruction"])


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
        """Name of the scene as published result files and frame folders spell it."""
        return scene_name(self.scene_id)

    @property
    def identity(self) -> Identity:
        """What tells this episode from all others, wherever it is noted or looked up."""
        return Identity(self.scene_id, self.episode_id, self.instruction)


@dataclass(frozen=True)
class EpisodeSet:
    """
    The episodes of one file.

    ``rejected`` has one sentence for each episode that could not be used, with its reason;
    ``digest`` is the file's SHA-256.
    """

    episodes: tuple[Episode, ...]
    rejected: tuple[LeftOut, ...]
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
    Return "X" of "mp3d/X/X.glb", the folder as published result files have it, where the scene's
    file is called after its folder.

    Elsewhere the folder does not say which scene it is: "gibson-A" of "gibson/A.glb".
    """
    *folders, file = Path(scene_id).parts
    stem = file.partition(".")[0]
    if folders and (folders[-1] == stem or folders[-1].endswith(f"-{stem}")):
        return folders[-1]
    return "-".join((*folders, stem))


def relative_scene(scene_id: str) -> str:
    """
    Return a scene id relative to ``scene_datasets``: some files write the whole path, such as
    ``data/scene_datasets/mp3d/X/X.glb``, as habitat-lab accepts it.

    Raises:
        UnusableError: it leaves that folder, or is an absolute path to elsewhere.
    """
    parts = scene_id.split("/")
    if "scene_datasets" in parts[:-1]:
        last = len(parts) - 1 - parts[::-1].index("scene_datasets")
        scene_id = "/".join(filter(None, parts[last + 1 :]))
    try:
        inside("scene_datasets", scene_id, "scene_id")
    except InputError as error:
        raise UnusableError("its scene lies outside scene_datasets", str(error)) from error
    return "/".join(part for part in scene_id.split("/") if part not in ("", "."))


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
    return read_episode_file(episodes_path(data_dir, dataset, split, role), languages)


def read_episode_file(path: Path, languages: Iterable[str] | None = None) -> EpisodeSet:
    """Read one file of episodes, see `read_episodes`."""
    content, digest = _read_gzip_json(path)
    require(
        isinstance(content, dict) and isinstance(content.get("episodes"), list),
        f"{path}: no list 'episodes' at the top level, so it is no VLN-CE episode file",
    )
    episodes: list[Episode] = []
    rejected: list[LeftOut] = []
    seen: set[Identity] = set()
    for number, item in enumerate(content["episodes"]):
        name = (
            f"episode {item.get('episode_id', '?')} (number {number})"
            if isinstance(item, dict)
            else f"number {number}"
        )
        try:
            episode = _parse_episode(item)
            usable(
                episode.identity not in seen,
                "its id occurs twice",
                "its id occurs a second time in this scene, with the same instruction",
            )
        except (KeyError, TypeError, ValueError, IndexError, ArithmeticError) as error:
            rejected.append(left_out.describe(f"{path.name}, {name}: ", error))
            continue
        seen.add(episode.identity)
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
        InputError: the file is missing, damaged, or an entry is incomplete or of a wrong type.
    """
    content, _ = _read_gzip_json(Path(path))
    require(
        isinstance(content, dict),
        f"{path}: not a VLN-CE ground truth file: it is a {type(content).__name__}, not an object",
    )
    found = {}
    for key, item in content.items():
        try:
            found[str(key)] = _parse_truth(item)
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise InputError(
                f"{path}: not a VLN-CE ground truth file: {left_out.describe(f'{key}: ', error)}"
            ) from error
    return found


def _parse_truth(item: Any) -> GroundTruth:
    require(isinstance(item, dict), f"is {type(item).__name__}, not an object")
    actions = left_out.whole_numbers(item, "actions")
    points = (
        left_out.field(item, "locations", (list, tuple), "a list of points")
        if ("locations" in item)
        else ()
    )
    steps = (
        left_out.field(item, "forward_steps", int, "a whole number")
        if "forward_steps" in item
        else actions.count(1)
    )
    return GroundTruth(actions, tuple(_point(p, "a location") for p in points), steps)


def check_truth(
    episodes: Sequence[Episode], truth: Mapping[str, GroundTruth], path: str | Path
) -> None:
    """
    Go on only where the ground truth belongs to these episodes: its file knows their ids alone, so
    that an entry must also begin where its episode does, and all but a few end there too. Episodes
    without one are fine.

    Args:
        episodes: that are measured or driven.
        truth: of the file ``path``, see `read_ground_truth`.
        path: for the sentence.

    Raises:
        InputError: an entry begins elsewhere, or does not say where while its id is that of
            several episodes; or more than `TRUTH_ELSEWHERE` of them end elsewhere.
    """
    told = [(e, truth[e.episode_id]) for e in episodes if e.episode_id in truth]
    scenes: dict[str, set[str]] = defaultdict(set)
    for episode, _ in told:
        scenes[episode.episode_id].add(episode.scene_id)
    astray, elsewhere = [], []
    for episode, entry in told:
        if entry.locations:
            begins = math.dist(entry.locations[0], episode.start_position)
            ends = math.dist(entry.locations[-1], episode.goal_position)
            if begins > TRUTH_START_M:
                astray.append((episode, f"begins {begins:.2f} m from its start"))
            elif ends > TRUTH_END_M:
                elsewhere.append((episode, f"ends {ends:.2f} m from its goal"))
        elif len(scenes[episode.episode_id]) > 1:
            astray.append((episode, "has no locations, while several scenes have this id"))
    if len(elsewhere) > TRUTH_ELSEWHERE * len(told):
        astray += elsewhere
    if astray:
        episode, where = astray[0]
        raise InputError(
            f"{path} belongs to other episodes: {len(astray)} of {len(told)} entries do not begin "
            f"and end where their episode does, the first that of episode {episode.episode_id} in "
            f"{episode.scene}, which {where}. Put the ground truth of these episodes there, or "
            "move it away to go on without"
        )


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
        raise UnusableError(WRONG_TYPE, f"{what} is {values!r:.80}, not {count} numbers")
    if not all(type(value) in (int, float) for value in values):
        raise UnusableError(WRONG_TYPE, f"{what} is {values!r:.80}: a number in it is no number")
    numbers = tuple(float(v) for v in values)
    if not all(math.isfinite(v) for v in numbers):
        raise UnusableError("a number is not finite", f"{what} {values!r:.80} is not finite")
    return numbers


def _point(values: Any, what: str) -> Point:
    x, y, z = _numbers(values, 3, what)
    return x, y, z


def _parse_episode(item: Any) -> Episode:
    """
    Turn one item of the file into an `Episode`; raises KeyError, TypeError or ValueError that name
    what is wrong.
    """
    usable(isinstance(item, dict), WRONG_TYPE, f"is {type(item).__name__}, not an object")
    instruction = left_out.field(item, "instruction", dict, "an object")
    text = left_out.text(instruction, "instruction_text")
    usable(text.strip(), "it has no instruction", f"instruction_text is {text!r}")
    scene_id = relative_scene(left_out.text(item, "scene_id"))
    goals = left_out.field(item, "goals", (list, tuple), "a list")
    usable(goals, "it has no goal", "goals is empty")
    goal = goals[0]
    usable(isinstance(goal, dict), WRONG_TYPE, f"its goal is {goal!r:.80}, not an object")
    # Habitat takes the nearest of several as the goal, which no path here leads to
    usable(
        all(g == goal for g in goals),
        "it has several goals",
        f"it has {len(goals)} goals, not one",
    )
    x, y, z, w = _numbers(item["start_rotation"], 4, "start_rotation")
    usable(
        abs(math.hypot(x, y, z, w) - 1) <= 1e-2,
        "its start rotation is no unit quaternion",
        f"start_rotation {item['start_rotation']!r} is no unit quaternion",
    )
    start, goal_position = (
        _point(item["start_position"], "start_position"),
        _point(goal["position"], "the goal's position"),
    )
    # Only ScaleVLN has episodes without way points: there the path is the straight line.
    points = item.get("reference_path") or (start, goal_position)
    usable(isinstance(points, (list, tuple)), WRONG_TYPE, f"reference_path is {points!r:.80}")
    info = _info(item)
    distance, radius = info.pop("geodesic_distance", None), goal.get("radius")
    for name, value in (("info.geodesic_distance", distance), ("the goal's radius", radius)):
        good = value is None or (type(value) in (int, float) and not math.isnan(value))
        usable(good, WRONG_TYPE, f"{name} is {value!r:.80}, it must be a number")
    language = instruction.get("language") or info.pop("language", "en")
    usable(isinstance(language, str), WRONG_TYPE, f"its language is {language!r:.80}, not text")
    episode_id = one_name(left_out.identifier(item, "episode_id"), "episode_id")
    return Episode(
        episode_id=episode_id,
        trajectory_id=left_out.identifier({"trajectory_id": episode_id, **item}, "trajectory_id"),
        scene_id=scene_id,
        start_position=start,
        start_rotation=(x, y, z, w),
        goal_position=goal_position,
        goal_radius=float(radius or 3.0),
        instruction=text,
        reference_path=tuple(_point(p, "a point of reference_path") for p in points),
        geodesic_distance=None if distance is None else float(distance),
        language=language,
        info=info,
    )


def _info(item: Mapping[str, Any]) -> dict[str, Any]:
    """An episode's ``info``; its tags are a list of texts."""
    if item.get("info") is None:
        return {}
    info = dict(left_out.field(item, "info", dict, "an object"))
    if info.get("tags") is not None:
        left_out.texts(info, "tags")
    return info


def is_unseen_text(instruction: str) -> bool:
    """
    Whether an instruction of the houses belongs to the unseen splits: training never uses it.
    """
    return hashlib.sha256(instruction.encode()).digest()[0] % UNSEEN_SHARE == 0

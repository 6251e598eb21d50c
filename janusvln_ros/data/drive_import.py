"""
A recorded drive as training trajectories: the steps that the recorded policy drove, or motion cut
into steps; the frame at each boundary, and a report of how good the recording is.
"""

import hashlib
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from janusvln_ros.actions import FORWARD_STEP_M, TURN_STEP_DEG, Action
from janusvln_ros.camera.images import encode_jpeg
from janusvln_ros.data.bags import Bag
from janusvln_ros.data.drives import (
    Moment,
    Topics,
    check_clocks,
    driven_moments,
    frame_stamps,
    moment_frames,
    read_odometry,
    reported_steps,
    spans_and_odometry,
    step_moments,
)
from janusvln_ros.data.episodes import Episode
from janusvln_ros.data.left_out import LeftOut
from janusvln_ros.data.odometry import poses_at
from janusvln_ros.data.trajectories import TrajectoryWriter, actions_before
from janusvln_ros.digests import file_digest
from janusvln_ros.errors import InputError
from janusvln_ros.geometry import Pose2, compose, relative
from janusvln_ros.protocol.odometry import Sample

PAUSE_S = 2.0
PAUSE_RATE = 0.1
"""Steps per second (of 0.25 m or 15 degrees) under which the base stands."""
BLUR_LAPLACIAN = 20.0
"""
Variance of the Laplacian of the grey picture, 8 bit, under which a frame is called blurred; a
sharp indoor picture has hundreds.
"""
RATE_WINDOW_NS = 50_000_000
"""Speed is measured from the pose change over this long before and after a stamp."""
MAX_DRIFT_M = 1.0
"""
Metres that a drive may end from where its steps, executed exactly, end: further off, its actions
do not tell where it went.
"""
GAP_PERIODS = 2.5
"""A gap of more than this many frame periods counts as dropped frames."""


@dataclass(frozen=True)
class Drive:
    """
    What of a bag becomes trajectories.

    ``spans``: words and frame stamps (ns) of each episode that has moments; ``expected``: the
    motion of steps that was reported; ``labels``: what is to be learnt is
    what was decided at each frame.
    """

    spans: dict[int, tuple[str, list[int]]]
    moments: list[Moment]
    odometry: list[Sample]
    expected: dict[tuple[int, int], Pose2] = field(default_factory=dict)
    labels: bool = False


def import_drive(
    bag: Bag,
    writer: TrajectoryWriter,
    scene: str,
    camera: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
    topics: Topics,
    instruction: str | None = None,
    min_steps: int = 4,
    max_drift: float = MAX_DRIFT_M,
    drive: Drive | None = None,
) -> list[dict[str, Any]]:
    """
    Write every episode of a bag with ``writer`` and return a quality report for each, kept or not.

    Steps that the recorded policy drove are imported as they were decided; any other drive is cut
    into steps by its motion.

    Args:
        bag: with a camera and executed decisions, or with a camera, odometry or cmd_vel, and
            instructions unless ``instruction`` is given.
        writer: of the training layout.
        scene: name of the place, part of the frame folders' names.
        camera: what to do to each picture first (rectify, crop).
        topics: which topics to read.
        instruction: the words, for a bag without them; they replace those it has.
        min_steps: shorter episodes are reported and not kept.
        max_drift: metres; episodes with more are reported and not kept.
        drive: the bag's plan (`plan_drive`), where it was made before.

    Raises:
        InputError: the bag lacks a camera, motion or words, or their stamps do not fit.
    """
    plan = drive or plan_drive(bag, topics, instruction)
    wanted = Counter(moment.episode for moment in plan.moments)
    seen: dict[int, list[tuple[Moment, bytes, float]]] = defaultdict(list)
    reports: list[dict[str, Any]] = []
    digest = bag_digest(bag.path)

    def finish(e: int) -> None:
        moments, pictures, sharpnesses = zip(*seen.pop(e))
        report = {"episode": len(reports), "instruction": plan.spans[e][0]}
        report |= _figures(plan, e, moments, sharpnesses)
        report["missing"] = wanted[e] - len(moments)
        report["not_kept"] = _fault(report, min_steps, max_drift)
        report["kept"] = not report["not_kept"]
        name = f"{scene}_{len(reports):03d}"
        episode = _episode(name, scene, digest, plan.spans[e][0])
        _write(writer, episode, plan, moments, pictures, report)
        reports.append(report)

    for moment, frame in moment_frames(bag, topics, plan.moments):
        # Written as soon as it is over, so that only one episode's pictures are in memory.
        for e in [e for e in seen if e < moment.episode]:
            finish(e)
        rgb = camera(frame)
        seen[moment.episode].append((moment, encode_jpeg(rgb), sharpness(rgb)))
    for e in list(seen):
        finish(e)
    return reports


def plan_drive(bag: Bag, topics: Topics, instruction: str | None) -> Drive:
    """
    What of a bag becomes trajectories: the steps that the recorded policy drove, else motion cut
    into steps.

    Raises:
        InputError: as `import_drive`.
    """
    return _driven(bag, topics, instruction) or _cut(bag, topics, instruction)


def _driven(bag: Bag, topics: Topics, instruction: str | None) -> Drive | None:
    """The steps that the recorded policy drove; None: it drove none."""
    moments = driven_moments(bag, topics, instruction)
    if not moments:
        return None
    odometry: list[Sample] = []
    with suppress(InputError):
        odometry = read_odometry(bag, topics)
    if odometry:
        check_clocks(bag, topics, [moment.stamp for moment in moments], odometry)
    frames = frame_stamps(bag, topics)
    spans = {}
    for e, group in groupby(moments, lambda moment: moment.episode):
        steps = list(group)
        between = slice(bisect_left(frames, steps[0].stamp), bisect_right(frames, steps[-1].stamp))
        spans[e] = (steps[0].instruction, frames[between])
    return Drive(spans, moments, odometry, reported_steps(bag), labels=True)


def _cut(bag: Bag, topics: Topics, instruction: str | None) -> Drive:
    """A drive by hand, or by another program, cut into steps by its motion."""
    spans, odometry = spans_and_odometry(bag, topics, instruction)
    return Drive(dict(enumerate(spans)), step_moments(spans, odometry), odometry)


def _figures(
    drive: Drive, e: int, moments: Sequence[Moment], sharpnesses: Sequence[float]
) -> dict[str, Any]:
    actions = [moment.recorded for moment in moments if moment.recorded is not None]
    frames = drive.spans[e][1]
    # what was driven after the last frame is not seen
    led = actions[:-1] if drive.labels else actions
    steps = [
        drive.expected.get((moment.episode, moment.step), nominal_step(action))
        for moment, action in zip(moments, led)
    ]
    figures = quality(frames, drive.odometry, steps, sharpnesses)
    return figures | {
        "steps": len(actions),
        "actions": dict(Counter(action.name for action in actions)),
    }


def _fault(report: dict[str, Any], min_steps: int, max_drift: float) -> LeftOut:
    """Why an episode is not kept; '' if it is."""
    if report["missing"]:
        sentence = f"{report['missing']} of its frames are not in the bag"
        return LeftOut(sentence, "frames of it are not in the bag")
    if report["steps"] < min_steps:
        sentence = f"too short: {report['steps']} steps, --min-steps is {min_steps}"
        return LeftOut(sentence, "it is too short")
    drift = report["drift_m"]
    if drift is not None and drift > max_drift:
        sentence = f"its steps end {drift} m from its odometry, --max-drift is {max_drift}"
        return LeftOut(sentence, "its steps do not lead where it went")
    return LeftOut("")


def _write(
    writer: TrajectoryWriter,
    episode: Episode,
    drive: Drive,
    moments: Sequence[Moment],
    pictures: Sequence[bytes],
    report: dict[str, Any],
) -> None:
    if not report["kept"]:
        writer.skip(episode, result=report)
        return
    actions = [moment.recorded for moment in moments if moment.recorded is not None]
    labels = actions if drive.labels else None
    writer.write(episode, pictures, actions_before(actions, len(pictures)), labels, report)


def bag_digest(path: Path) -> str:
    """Twelve characters that stand for a bag, a file or a folder of files, wherever it lies."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    found = hashlib.sha256("".join(map(file_digest, files)).encode())
    return found.hexdigest()[:12]


def _episode(name: str, scene: str, digest: str, text: str) -> Episode:
    """
    An episode of a drive, which has no place in a simulator; bags of equal names are told apart by
    their ``digest``.
    """
    nowhere = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0), (0.0, 0.0, 0.0), 0.0)
    return Episode(name, name, f"bags/{scene}/{scene}.{digest}.bag", *nowhere, text, (), None)


def nominal_step(action: Action) -> Pose2:
    """The motion of an action that is executed exactly."""
    turn = {
        Action.TURN_LEFT: np.radians(TURN_STEP_DEG),
        Action.TURN_RIGHT: -np.radians(TURN_STEP_DEG),
    }
    forward = FORWARD_STEP_M if action is Action.MOVE_FORWARD else 0.0
    return Pose2(forward, 0.0, turn.get(action, 0.0))


def quality(
    stamps: Sequence[int],
    odometry: Sequence[Sample],
    steps: Sequence[Pose2],
    sharpnesses: Sequence[float],
) -> dict[str, Any]:
    """
    How good a recording is for training.

    ``drift_m``: distance between where the drive ended by odometry and where its ``steps`` would
    have ended; None without odometry, as are path and pauses. ``pauses``: standstills of over two
    seconds. ``blurred``: chosen frames without sharp edges. ``dropped``: frames missing in gaps of
    the frame rate.
    """
    frame_N = np.asarray(stamps, np.int64)
    gaps = np.diff(frame_N)
    period = float(np.median(gaps)) if len(gaps) else 0.0
    long = gaps[gaps > GAP_PERIODS * period] if period else gaps[:0]
    return {
        "seconds": round(float(frame_N[-1] - frame_N[0]) / 1e9, 3),
        "frames": len(stamps),
        "frame_rate": round(1e9 / period, 2) if period else None,
        "dropped": int(np.sum(np.round(long / period) - 1)) if period else 0,
        **_motion(frame_N, odometry, steps),
        "blurred": int(np.sum(np.asarray(sharpnesses) < BLUR_LAPLACIAN)),
    }


def _motion(
    frame_N: NDArray[np.int64], odometry: Sequence[Sample], steps: Sequence[Pose2]
) -> dict[str, Any]:
    if not odometry:
        return dict.fromkeys(("path_length_m", "drift_m", "drift_deg", "pauses"))
    pose_N3 = poses_at(odometry, frame_N)
    end = Pose2()
    for step in steps:
        end = compose(end, step)
    off = relative(end, relative(Pose2(*pose_N3[0]), Pose2(*pose_N3[-1])))
    return {
        "path_length_m": round(float(np.sum(np.hypot(*np.diff(pose_N3[:, :2], axis=0).T))), 3),
        "drift_m": round(float(np.hypot(off.x, off.y)), 3),
        "drift_deg": round(abs(float(np.degrees(off.yaw))), 1),
        "pauses": _pauses(frame_N, _moves(odometry, frame_N)),
    }


def _moves(odometry: Sequence[Sample], stamp_N: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether the base makes at least ``PAUSE_RATE`` steps per second at each stamp."""
    before = poses_at(odometry, stamp_N - RATE_WINDOW_NS)
    dx, dy, dyaw = (poses_at(odometry, stamp_N + RATE_WINDOW_NS) - before).T
    turned = np.degrees(np.abs(dyaw)) / TURN_STEP_DEG
    steps = np.maximum(np.hypot(dx, dy) / FORWARD_STEP_M, turned)
    moving: NDArray[np.bool_] = steps / (2 * RATE_WINDOW_NS / 1e9) >= PAUSE_RATE
    return moving


def _pauses(stamp_N: NDArray[np.int64], moving_N: NDArray[np.bool_]) -> int:
    """How often the base stood for longer than ``PAUSE_S``."""
    # where moving begins and ends; what lies between the end of one and the next begin stands
    change = np.flatnonzero(np.diff(moving_N)) + 1
    runs = zip(np.split(stamp_N, change), np.split(moving_N, change))
    return sum(bool(not m[0] and s[-1] - s[0] > PAUSE_S * 1e9) for s, m in runs)


def sharpness(rgb: NDArray[np.uint8]) -> float:
    """Variance of the Laplacian of the grey picture: low where a frame is blurred."""
    return float(cv2.Laplacian(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var())

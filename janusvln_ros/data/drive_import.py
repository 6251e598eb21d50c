"""
A recorded drive as training trajectories: motion cut into steps, the frame at each boundary, and a
report of how good the recording is.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from janusvln_ros.actions import FORWARD_STEP_M, TURN_STEP_DEG, Action
from janusvln_ros.camera.images import encode_jpeg
from janusvln_ros.data.bags import Bag
from janusvln_ros.data.drives import (
    Topics,
    drive_spans,
    moment_frames,
    read_odometry,
    step_moments,
)
from janusvln_ros.data.episodes import Episode
from janusvln_ros.data.odometry import poses_at
from janusvln_ros.data.trajectories import TrajectoryWriter, actions_before
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
GAP_PERIODS = 2.5
"""A gap of more than this many frame periods counts as dropped frames."""


def import_drive(
    bag: Bag,
    writer: TrajectoryWriter,
    scene: str,
    camera: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
    topics: Topics,
    instruction: str | None = None,
    min_steps: int = 4,
) -> list[dict[str, Any]]:
    """
    Write every episode of a bag with ``writer`` and return a quality report for each, kept or not.

    Args:
        bag: with a camera, odometry or cmd_vel, and instructions unless ``instruction`` is given.
        writer: of the training layout.
        scene: name of the place, part of the frame folders' names.
        camera: what to do to each picture first (rectify, crop).
        topics: which topics to read.
        instruction: the words, for a bag without them.
        min_steps: shorter episodes are reported and not kept.

    Raises:
        InputError: the bag lacks a camera, motion or words.
    """
    spans, odometry = drive_spans(bag, topics, instruction), read_odometry(bag, topics)
    moments = step_moments(spans, odometry)
    actions = {
        e: [moment.recorded for moment in steps if moment.recorded is not None]
        for e, steps in groupby(moments, lambda moment: moment.episode)
    }
    seen: dict[int, list[tuple[bytes, float]]] = defaultdict(list)
    reports = []
    for moment, frame in moment_frames(bag, topics, moments):
        e, rgb = moment.episode, camera(frame)
        seen[e].append((encode_jpeg(rgb), sharpness(rgb)))
        # Written as soon as it is whole, so that only one episode's pictures are in memory.
        if len(seen[e]) == len(actions[e]):
            pictures, sharpnesses = zip(*seen.pop(e))
            text, stamps = spans[e]
            figures = quality(stamps, odometry, actions[e], sharpnesses)
            kept = len(actions[e]) >= min_steps
            report = {"episode": e, "instruction": text, **figures, "kept": kept}
            episode = _episode(f"{scene}_{e:03d}", scene, text)
            if kept:
                led = actions_before(actions[e], len(pictures))
                writer.write(episode, pictures, led, result=report)
            else:
                writer.skip(episode, result=report)
            reports.append(report)
    return reports


def _episode(name: str, scene: str, text: str) -> Episode:
    """An episode of a drive, which has no place in a simulator."""
    nowhere = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0), (0.0, 0.0, 0.0), 0.0)
    return Episode(name, name, f"bags/{scene}/{scene}.bag", *nowhere, text, (), None)


def quality(
    stamps: Sequence[int],
    odometry: Sequence[Sample],
    actions: Sequence[Action],
    sharpnesses: Sequence[float],
) -> dict[str, Any]:
    """
    How good a recording is for training.

    ``drift_m``: distance between where the drive ended and where its discrete steps, executed
    exactly, would have ended. ``pauses``: standstills of over two seconds. ``blurred``: chosen
    frames without sharp edges. ``dropped``: frames missing in gaps of the frame rate.
    """
    frame_N = np.asarray(stamps, np.int64)
    pose_N3 = poses_at(odometry, frame_N)
    gaps = np.diff(frame_N)
    period = float(np.median(gaps)) if len(gaps) else 0.0
    long = gaps[gaps > GAP_PERIODS * period] if period else gaps[:0]
    turns = {
        Action.TURN_LEFT: np.radians(TURN_STEP_DEG),
        Action.TURN_RIGHT: -np.radians(TURN_STEP_DEG),
    }
    end = Pose2()
    for action in actions:
        forward = FORWARD_STEP_M if action is Action.MOVE_FORWARD else 0.0
        end = compose(end, Pose2(forward, 0.0, turns.get(action, 0.0)))
    off = relative(end, relative(Pose2(*pose_N3[0]), Pose2(*pose_N3[-1])))
    return {
        "seconds": round(float(frame_N[-1] - frame_N[0]) / 1e9, 3),
        "frames": len(stamps),
        "frame_rate": round(1e9 / period, 2) if period else None,
        "dropped": int(np.sum(np.round(long / period) - 1)) if period else 0,
        "steps": len(actions),
        "actions": dict(Counter(action.name for action in actions)),
        "path_length_m": round(float(np.sum(np.hypot(*np.diff(pose_N3[:, :2], axis=0).T))), 3),
        "drift_m": round(float(np.hypot(off.x, off.y)), 3),
        "drift_deg": round(abs(float(np.degrees(off.yaw))), 1),
        "pauses": _pauses(frame_N, _moves(odometry, frame_N)),
        "blurred": int(np.sum(np.asarray(sharpnesses) < BLUR_LAPLACIAN)),
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

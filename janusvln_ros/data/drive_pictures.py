"""
Pictures of a recorded drive: camera with the decision on it, beside the path from above where
odometry exists.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from janusvln_ros.actions import Action
from janusvln_ros.camera.images import decode
from janusvln_ros.data.bags import Bag, header_stamp
from janusvln_ros.data.drawing import Picture, camera_picture, floor_picture, side_by_side
from janusvln_ros.data.drives import (
    DECISION_TYPE,
    Topics,
    camera_topic,
    drive_spans,
    read_odometry,
)
from janusvln_ros.data.top_down_map import TopDownMap
from janusvln_ros.errors import InputError
from janusvln_ros.geometry import relative
from janusvln_ros.protocol.odometry import Sample

HEIGHT = 480
"""Pixels; a camera picture is scaled to this height."""
FASTEST = 15.0
SLOWEST = 4.0
"""
Pictures per second of a video: frames are left out above the one, and shown longer below the
other.
"""


@dataclass(frozen=True)
class Style:
    """What a decision looks like in the pictures that follow it."""

    instruction: str = ""
    step: int | None = None
    action: Action | None = None
    probabilities: dict[Action, float] | None = None
    note: str = ""


def styles(decisions: Bag) -> dict[int, Style]:
    """The decisions of a bag by the stamp of their frame, nanoseconds."""
    found: dict[int, Style] = {}
    topics = [topic for topic, msgtype in decisions.topics.items() if msgtype == DECISION_TYPE]
    for message in decisions.messages(topics) if topics else ():
        body = decisions.decode(message)
        action = Action(body.action) if body.action in set(Action) else None
        probabilities = (
            dict(zip(Action, map(float, body.probabilities)))
            if np.isfinite(body.probabilities).all()
            else None
        )
        note = (
            f"memory {body.spatial_frames} of {body.memory_capacity} frames"
            if body.memory_capacity
            else ""
        )
        found[header_stamp(message.cdr)] = Style(
            body.instruction, int(body.step), action, probabilities, note
        )
    return found


def path_view(odometry: Sequence[Sample], stamp: int) -> Picture | None:
    """The path until ``stamp`` from above, start heading up; None without odometry."""
    if not odometry:
        return None
    # REP-103 (x ahead, y left) into the picture's axes (x right, z down), turned so that the drive
    # starts upwards
    ways = [relative(odometry[0].pose, sample.pose) for sample in odometry]
    places = np.array([[-way.y, 0.0, -way.x] for way in ways])
    seen = max(1, bisect_right(odometry, stamp, key=lambda sample: sample.stamp))
    # Free floor all around: the bag knows no walls.
    low, high = places.min(axis=0) - 1.0, places.max(axis=0) + 1.0
    floor = TopDownMap(
        np.ones((int((high[2] - low[2]) / 0.1) + 1, int((high[0] - low[0]) / 0.1) + 1), bool),
        (float(low[0]), float(low[2])),
        0.1,
    )
    every = max(1, len(places) // 2000)
    trail = [*places[:seen:every].tolist(), places[seen - 1].tolist()]
    return floor_picture(floor, (HEIGHT, HEIGHT), trail, heading=ways[seen - 1].yaw)


def drive_pictures(
    bag: Bag, topics: Topics, decisions: dict[int, Style], instruction: str | None
) -> tuple[float, Iterator[Picture]]:
    """
    Pictures per second, and the pictures of a drive, all of one size.

    Args:
        bag: with a camera; odometry is drawn where there is some.
        topics: which topics to read.
        decisions: from ``styles``; each is shown until the next.
        instruction: shown where no decision tells it.

    Raises:
        InputError: no camera.
    """
    camera = camera_topic(bag, topics.image)
    try:
        odometry = read_odometry(bag, topics)
    except InputError:
        odometry = []
    frames = bag.counts[camera]
    rate = min(FASTEST, max(SLOWEST, frames / bag.duration)) if bag.duration else SLOWEST
    keep_every = max(1.0, frames / bag.duration / FASTEST) if bag.duration else 1.0
    texts = _texts(bag, topics, instruction)

    def pictures() -> Iterator[Picture]:
        style = Style()
        size: tuple[int, int] | None = None
        due = 0.0
        for n, message in enumerate(bag.messages([camera])):
            stamp = header_stamp(message.cdr)
            style = decisions.get(stamp, style)
            if n < due:
                continue
            due += keep_every
            rgb = decode(bag.decode(message))
            size = size or (round(rgb.shape[1] * HEIGHT / rgb.shape[0]), HEIGHT)
            scaled: Any = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
            picture = camera_picture(
                scaled,
                style.instruction or texts(stamp),
                style.step,
                style.action,
                style.probabilities,
                style.note,
            )
            above = path_view(odometry, stamp)
            yield side_by_side(
                picture, above if above is not None else np.zeros((HEIGHT, 2, 3), np.uint8)
            )

    return rate, pictures()


def _texts(bag: Bag, topics: Topics, instruction: str | None) -> Any:
    """The words at a stamp: those given, else those of the bag, else none."""
    try:
        spans = drive_spans(bag, topics, instruction)
    except InputError:
        return lambda _stamp: ""
    return lambda stamp: next((text for text, stamps in reversed(spans) if stamps[0] <= stamp), "")

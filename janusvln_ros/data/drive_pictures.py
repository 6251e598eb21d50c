"""
Pictures of a recorded drive: camera with the decision on it, beside the path from above where
odometry exists.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from janusvln_ros.actions import Action, known_action
from janusvln_ros.camera.images import decode
from janusvln_ros.data.bags import Bag, header_stamp
from janusvln_ros.data.drawing import Picture, camera_picture, floor_picture, side_by_side
from janusvln_ros.data.drives import (
    DECISION_TYPE,
    Topics,
    camera_topic,
    check_clocks,
    drive_spans,
    frame_stamps,
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
    """What a decision looks like in the pictures that follow it: words for `camera_picture`."""

    instruction: str = ""
    step: int | None = None
    action: Action | None = None
    probabilities: dict[Action, float] | None = None
    note: str = ""


def styles(decisions: Bag) -> dict[int, Style]:
    """The decisions of a bag by the stamp of their frame, nanoseconds."""
    found: dict[int, Style] = {}
    topics = decisions.topics_of([DECISION_TYPE])
    for message in decisions.messages(topics) if topics else ():
        body = decisions.decode(message)
        note = f"memory {body.spatial_frames} of {body.memory_capacity} frames"
        found[header_stamp(message.cdr)] = style_of(body, note if body.memory_capacity else "")
    return found


def style_of(decision: Any, note: str) -> Style:
    """What a ``janusvln_msgs/Decision`` looks like, from a bag or from a topic."""
    probabilities = decision.probabilities
    return Style(
        decision.instruction,
        int(decision.step),
        known_action(decision.action),
        dict(zip(Action, map(float, probabilities))) if np.isfinite(probabilities).all() else None,
        note,
    )


def path_view(odometry: Sequence[Sample], stamp: int) -> Picture:
    """The path until ``stamp`` from above, start heading up; a black edge without odometry."""
    if not odometry:
        return np.zeros((HEIGHT, 2, 3), np.uint8)
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
) -> tuple[float, Iterator[Picture], str]:
    """
    Pictures per second, the pictures of a drive, all of one size, and why there is no path beside
    them ('' if there is).

    Args:
        bag: with a camera; odometry is drawn where there is some.
        topics: which topics to read.
        decisions: from ``styles``; each is shown until the next.
        instruction: shown where no decision tells it.

    Raises:
        InputError: no camera.
    """
    camera = camera_topic(bag, topics.image)
    odometry: list[Sample] = []
    note = ""
    try:
        odometry = read_odometry(bag, topics)
        check_clocks(bag, topics, frame_stamps(bag, topics), odometry)
    except InputError as error:
        odometry, note = [], str(error)
    spans: list[tuple[str, list[int]]] = []
    with suppress(InputError):
        spans = drive_spans(bag, topics, instruction)
    recorded = bag.counts[camera] / bag.duration if bag.duration else SLOWEST

    def pictures() -> Iterator[Picture]:
        style = Style()
        size: tuple[int, int] | None = None
        due = 0.0
        for n, message in enumerate(bag.messages([camera])):
            stamp = bag.stamp(message)
            style = decisions.get(header_stamp(message.cdr), style)
            if n < due:
                continue
            due += max(1.0, recorded / FASTEST)
            rgb = decode(bag.decode(message))
            size = size or (round(rgb.shape[1] * HEIGHT / rgb.shape[0]), HEIGHT)
            scaled: Any = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
            heard = (text for text, stamps in reversed(spans) if stamps[0] <= stamp)
            shown = replace(style, instruction=style.instruction or next(heard, ""))
            yield side_by_side(camera_picture(scaled, **vars(shown)), path_view(odometry, stamp))

    return min(FASTEST, max(SLOWEST, recorded)), pictures(), note

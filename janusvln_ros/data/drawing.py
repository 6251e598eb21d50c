"""
Pictures of a drive, with numpy and OpenCV alone: what the camera saw with the decision written on
it, and the floor from above with the path.

Pictures are uint8 [H, W, 3], red first. Places are in the simulator's world: metres, y up, heading
0 looks along -z and grows to the left.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from janusvln_ros.actions import Action
from janusvln_ros.data.top_down_map import TopDownMap
from janusvln_ros.errors import FailedError
from janusvln_ros.files import atomic_path

Picture = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

FLOOR, WALL, TRAIL, ROBOT, GOAL, START = (
    (236, 236, 232),
    (70, 74, 82),
    (36, 92, 196),
    (214, 60, 40),
    (30, 150, 70),
    (120, 120, 120),
)
COLOURS = {
    Action.STOP: (214, 60, 40),
    Action.MOVE_FORWARD: (30, 150, 70),
    Action.TURN_LEFT: (36, 92, 196),
    Action.TURN_RIGHT: (220, 140, 20),
}
NAMES = {
    Action.STOP: "stop",
    Action.MOVE_FORWARD: "forward",
    Action.TURN_LEFT: "left",
    Action.TURN_RIGHT: "right",
}
FONT = cv2.FONT_HERSHEY_SIMPLEX


def floor_picture(
    floor: TopDownMap,
    size: tuple[int, int],
    path: Sequence[Sequence[float]] = (),
    heading: float | None = None,
    goal: Sequence[float] | None = None,
    goal_radius: float = 0.0,
    reference: Sequence[Sequence[float]] = (),
) -> Picture:
    """
    The floor from above, -z up and +x to the right, fitted into ``size`` (width, height) pixels.

    ``path`` are places [x, y, z]: the way so far, whose last is the robot, drawn as an arrow if
    ``heading`` (radians) is given. ``goal`` with its ``goal_radius`` (metres) and the
    ``reference`` path are drawn beneath.
    """
    width, height = size
    rows, columns = floor.navigable.shape
    scale = min(width / columns, height / rows)
    metre = scale / floor.resolution
    inner = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    ground = cv2.resize(floor.navigable.astype(np.uint8), inner, interpolation=cv2.INTER_NEAREST)
    picture = np.full((height, width, 3), WALL, np.uint8)
    picture[top : top + inner[1], left : left + inner[0]][ground > 0] = FLOOR
    line = max(1, round(min(width, height) / 160))

    def pixel(place: Sequence[float]) -> tuple[int, int]:
        x, z = place[0] - floor.origin[0], place[2] - floor.origin[1]
        return round(left + x * metre), round(top + z * metre)

    def way(places: Sequence[Sequence[float]], colour: Colour, thickness: int) -> None:
        if len(places) > 1:
            corners = np.array([pixel(p) for p in places], np.int32)
            cv2.polylines(picture, [corners], False, colour, thickness, cv2.LINE_AA)

    if goal is not None:
        at = pixel(goal)
        if goal_radius > 0:
            cv2.circle(picture, at, round(goal_radius * metre), GOAL, 1, cv2.LINE_AA)
        cv2.drawMarker(picture, at, GOAL, cv2.MARKER_STAR, 8 * line, 2 * line, cv2.LINE_AA)
    way(reference, GOAL, 1)
    way(path, TRAIL, 2 * line)
    if len(path):
        cv2.circle(picture, pixel(path[0]), 3 * line, START, -1, cv2.LINE_AA)
        _robot(picture, pixel(path[-1]), heading, line)
    return picture


def _robot(picture: Picture, at: tuple[int, int], heading: float | None, line: int) -> None:
    """The robot as an arrow, as a dot where its heading is not known."""
    if heading is None:
        cv2.circle(picture, at, 3 * line, ROBOT, -1, cv2.LINE_AA)
        return
    forward = np.array([-math.sin(heading), -math.cos(heading)])
    side = np.array([forward[1], -forward[0]])
    corners = [forward * 9, -forward * 6 + side * 6, -forward * 3, -forward * 6 - side * 6]
    arrow = np.array([np.array(at) + c * line for c in corners]).astype(np.int32)
    cv2.fillPoly(picture, [arrow], ROBOT, cv2.LINE_AA)


def camera_picture(
    rgb: Picture,
    instruction: str,
    step: int | None = None,
    action: Action | None = None,
    probabilities: Mapping[Action, float] | None = None,
    note: str = "",
) -> Picture:
    """
    The camera's picture with what was decided on it: a bar with step, action and the four
    probabilities below, the instruction above.

    ``action`` None with a ``step`` means that the text was no action; ``step`` None that there is
    no decision yet. Probabilities that are not finite are not drawn.
    """
    picture = np.ascontiguousarray(rgb).copy()
    height, width = picture.shape[:2]
    size = max(0.32, width / 1100)
    line_height = round(30 * size) + 2
    words = wrap(instruction, size, width - 12)[:4]
    _shade(picture, 0, line_height * len(words) + 6)
    for i, text in enumerate(words):
        _write(picture, text, 6, line_height * (i + 1) - 2, size)
    if step is None:
        return picture
    bar = 2 * line_height + 10
    _shade(picture, height - bar, height)
    name = NAMES[action] if action is not None else "not understood"
    colour = COLOURS[action] if action is not None else ROBOT
    _write(picture, f"{step}: {name}  {note}".rstrip(), 6, height - line_height - 12, size, colour)
    if probabilities and all(map(math.isfinite, probabilities.values())):
        slot = width // 4
        for i, (candidate, probability) in enumerate(sorted(probabilities.items())):
            left, bottom = i * slot + 6, height - 8
            right = left + round((slot - 12) * float(probability))
            cv2.rectangle(picture, (left, bottom), (right, bottom + 4), COLOURS[candidate], -1)
            _write(picture, f"{NAMES[candidate]} {probability:.2f}", left, bottom - 5, size * 0.85)
    return picture


def side_by_side(left: Picture, right: Picture) -> Picture:
    """
    Two pictures of the same height in one; width and height are cut to even numbers, as H.264
    needs.
    """
    both = np.concatenate([left, right], axis=1)
    return np.ascontiguousarray(both[: both.shape[0] // 2 * 2, : both.shape[1] // 2 * 2])


def wrap(text: str, size: float, width: int) -> list[str]:
    """
    Break ``text`` into lines that fit into ``width`` pixels at font ``size``; a word that is too
    long stays on a line of its own.
    """
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and cv2.getTextSize(longer, FONT, size, 1)[0][0] > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def write_video(
    path: Path, pictures: Sequence[Picture] | Any, size: tuple[int, int], frames_per_second: float
) -> None:
    """
    Write pictures of ``size`` (width, height; both even) as H.264 in an .mp4 that any player
    opens; whole or not at all.

    Raises:
        FailedError: the encoder failed.
    """
    import imageio_ffmpeg

    with atomic_path(path) as temporary:
        # yuv420p and even sides: what browsers and phones play
        writer = imageio_ffmpeg.write_frames(
            str(temporary),
            size,
            fps=frames_per_second,
            codec="libx264",
            macro_block_size=2,
            ffmpeg_log_level="error",
        )
        try:
            writer.send(None)
            for picture in pictures:
                writer.send(np.ascontiguousarray(picture))
        except (OSError, StopIteration) as error:
            raise FailedError(f"the video {path} cannot be written: {error}") from error
        finally:
            writer.close()


def write_picture(path: Path, picture: Picture) -> None:
    """Write a picture as PNG, whole or not at all."""
    with atomic_path(path) as temporary:
        # OpenCV would not say why it cannot write
        temporary.write_bytes(cv2.imencode(".png", picture[:, :, ::-1])[1].tobytes())


def _shade(picture: Picture, top: int, bottom: int) -> None:
    picture[max(0, top) : bottom] = picture[max(0, top) : bottom] // 3


def _write(
    picture: Picture,
    text: str,
    x: int,
    y: int,
    size: float,
    colour: Colour = (255, 255, 255),
) -> None:
    readable = text.encode("ascii", "replace").decode()  # OpenCV's fonts know ASCII
    bright = tuple(int(255 - (255 - c) * 0.6) for c in colour)
    cv2.putText(picture, readable, (x, y), FONT, size, bright, 1, cv2.LINE_AA)

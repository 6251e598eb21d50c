"""The decision written on the frame it was made on, for people who watch."""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from janusvln_ros.actions import Action

_SHORT = {
    Action.STOP: "STOP",
    Action.MOVE_FORWARD: "FORWARD",
    Action.TURN_LEFT: "LEFT",
    Action.TURN_RIGHT: "RIGHT",
}


def wrapped(text: str, columns: int) -> list[str]:
    """
    ``text`` in at most three lines of ``columns`` characters; what does not fit ends in dots.

    Letters beyond ASCII show as '?'.
    """
    plain = text.encode("ascii", "replace").decode()
    lines: list[str] = [""]
    for word in plain.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > columns:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    kept = [line[:columns] for line in lines[:3]]
    if len(lines) > 3:
        kept[-1] = kept[-1][: columns - 3] + "..."
    return kept


def draw(
    rgb_HW3: npt.NDArray[np.uint8],
    *,
    instruction: str,
    step: int,
    action: Action | None,
    text: str,
    probabilities: Sequence[float],
    seconds: float,
) -> npt.NDArray[np.uint8]:
    """
    A copy of the frame with instruction, step, decision, the four probabilities (none drawn if not
    finite) and the time it took.
    """
    picture = rgb_HW3.copy()
    height, width = picture.shape[:2]
    scale = max(width / 1000, 0.35)
    line = round(34 * scale)
    lines = wrapped(instruction, max(12, round(width / (17 * scale))))
    bottom = line * (len(lines) + 1) + line // 2
    picture[:bottom] = (picture[:bottom] * 0.35).astype(np.uint8)
    words = _SHORT[action] if action is not None else f"no action: {text[:30]!r}"
    for i, words_i in enumerate([*lines, f"step {step}: {words}  ({seconds * 1000:.0f} ms)"]):
        colour = (
            (255, 255, 255)
            if i < len(lines)
            else (120, 255, 120)
            if action is not None
            else (255, 120, 120)
        )
        cv2.putText(
            picture,
            words_i,
            (line // 2, line * (i + 1)),
            cv2.FONT_HERSHEY_SIMPLEX,
            scale,
            colour,
            max(1, round(2 * scale)),
            cv2.LINE_AA,
        )
    if np.isfinite(probabilities).all():
        for i, (name, share) in enumerate(zip(_SHORT.values(), probabilities)):
            y = height - line * (4 - i) + line // 3
            cv2.rectangle(
                picture,
                (line // 2, y - line // 2),
                (line // 2 + round(width * 0.25 * share), y),
                (120, 255, 120),
                -1,
            )
            cv2.putText(
                picture,
                f"{name} {share:.2f}",
                (line // 2, y),
                cv2.FONT_HERSHEY_SIMPLEX,
                scale * 0.7,
                (255, 255, 255),
                1,
                cv2.LINE_AA,
            )
    return picture

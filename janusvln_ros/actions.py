"""
The four discrete actions of vision-and-language navigation in continuous environments, and their
step sizes.
"""

from enum import IntEnum

FORWARD_STEP_M = 0.25
"""Length of one MOVE_FORWARD, metres."""

TURN_STEP_DEG = 15.0
"""Angle of one TURN_LEFT (positive, REP-103) or TURN_RIGHT (negative), degrees."""


class Action(IntEnum):
    """An action of VLN-CE; the numbers are those of its data files and of habitat-lab."""

    STOP = 0
    MOVE_FORWARD = 1
    TURN_LEFT = 2
    TURN_RIGHT = 3


def known_action(code: int) -> Action | None:
    """Return the action of a ``Decision``, ``StepReport`` or feedback; None: it is no action."""
    return Action(code) if code in list(Action) else None

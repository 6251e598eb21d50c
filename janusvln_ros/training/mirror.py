"""
Every trajectory once more with left and right exchanged: a second home and a second way for the
price of one.
"""

import re

import numpy as np

from janusvln_ros.actions import Action

EXCHANGED = np.arange(len(Action))
EXCHANGED[[Action.TURN_LEFT, Action.TURN_RIGHT]] = Action.TURN_RIGHT, Action.TURN_LEFT


def mirrored_actions(actions: np.ndarray) -> np.ndarray:
    """Left and right turns exchanged; negative numbers (no action) stay. int64, any shape."""
    return np.where(actions >= 0, EXCHANGED[np.maximum(actions, 0)], actions)


def mirrored_instruction(text: str) -> str:
    """
    The words "left" and "right" exchanged.

    For texts that use them for directions only, as those of the houses do.
    """
    exchange = {"left": "right", "right": "left", "Left": "Right", "Right": "Left"}
    return re.sub(r"\b[lL]eft\b|\b[rR]ight\b", lambda found: exchange[found.group()], text)

"""The decision written on its frame."""

import math

import numpy as np

from janusvln_ros.actions import Action
from janusvln_ros.nodes.overlay import draw, wrapped


def test_overlay_shows_instruction_and_decision_without_touching_the_frame():
    frame = np.full((240, 320, 3), 100, np.uint8)
    kwargs = {"instruction": "geh zur Tür " * 30, "step": 3, "text": "", "seconds": 0.1}
    picture = draw(frame, action=Action.TURN_LEFT, probabilities=(0.1, 0.2, 0.6, 0.1), **kwargs)
    assert picture.shape == frame.shape and (frame == 100).all() and not (picture == 100).all()
    free = draw(frame, action=None, probabilities=(math.nan,) * 4, **kwargs)
    assert (free[-60:] == 100).all()  # no bars without probabilities


def test_long_instructions_are_cut_with_dots():
    lines = wrapped("word " * 100, 20)
    assert len(lines) == 3 and all(len(line) <= 20 for line in lines) and lines[-1].endswith("...")
    assert wrapped("", 20) == [""]

"""Pictures for people who watch: the decision on its frame, and the floor from above."""

import math

import cv2
import numpy as np
import pytest

from janusvln_ros.actions import Action
from janusvln_ros.data.drawing import FONT, camera_picture, floor_picture, side_by_side, wrap
from janusvln_ros.data.top_down_map import TopDownMap

SHARES = dict(zip(Action, (0.1, 0.2, 0.6, 0.1)))


@pytest.fixture
def frame():
    return np.full((240, 320, 3), 100, np.uint8)


def test_instruction_and_decision_are_on_a_copy_of_the_frame(frame):
    picture = camera_picture(frame, "geh zum Ziel " * 30, 3, Action.TURN_LEFT, SHARES)
    assert picture.shape == frame.shape and (frame == 100).all()
    assert not (picture[:30] == 100).all() and not (picture[-30:] == 100).all()
    assert (picture[110:150] == 100).all(), "the middle stays free"


def test_probabilities_that_are_not_finite_are_not_drawn(frame):
    unknown = dict.fromkeys(Action, math.nan)
    without = camera_picture(frame, "go", 3, None, None, "'hello'")
    assert (camera_picture(frame, "go", 3, None, unknown, "'hello'") == without).all()
    assert (camera_picture(frame, "go", 3, None, SHARES, "'hello'") != without).any()


def test_before_the_first_decision_there_is_the_instruction_alone(frame):
    picture = camera_picture(frame, "go")
    assert (picture[60:] == 100).all() and not (picture[:20] == 100).all()


def test_letters_that_the_font_lacks_show_as_question_marks(frame):
    assert (camera_picture(frame, "T\u00fcr") == camera_picture(frame, "T?r")).all()


def test_a_long_instruction_wraps_and_four_lines_at_most_are_shown(frame):
    lines = wrap("word " * 100, 0.4, 200)
    assert len(lines) > 4 and " ".join(lines) == ("word " * 100).strip()
    assert all(cv2.getTextSize(line, FONT, 0.4, 1)[0][0] <= 200 for line in lines)
    assert wrap("", 0.4, 200) == [""] and wrap("w" * 99, 0.4, 200) == ["w" * 99]
    long, longer = (camera_picture(frame, "word " * n) for n in (200, 400))
    assert (long == longer).all()


def test_the_floor_shows_way_robot_and_goal_at_their_places():
    floor = TopDownMap(np.ones((10, 20), bool), (0.0, 0.0), 0.5)
    plain = floor_picture(floor, (200, 200))
    assert (plain[45, 100] != plain[55, 100]).any(), "the map is fitted in, wall around it"
    path = [[1.0, 0.0, 2.5], [5.0, 0.0, 2.5]]
    drawn = (floor_picture(floor, (200, 200), path, 0.0, [9.0, 0.0, 2.5], 1.0) != plain).any(-1)
    assert drawn[100, 60] and drawn[100, 100] and drawn[100, 180] and drawn[100, 160]
    assert not drawn[100, 10] and not drawn[70, 60]


def test_pictures_beside_each_other_have_even_sides():
    both = side_by_side(np.zeros((5, 4, 3), np.uint8), np.ones((5, 3, 3), np.uint8))
    assert both.shape == (4, 6, 3) and (both[:, 4:] == 1).all()

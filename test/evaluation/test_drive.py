"""The record of a drive: what changed from place to place, and what comes back out of JSON."""

import json
import math

import numpy as np

from janusvln_ros.actions import Action
from janusvln_ros.evaluation.drive import Drive

AHEAD = [0.0, 0.0, 0.0, 1.0]


def picture(shade):
    return np.full((4, 6, 3), shade, np.uint8)


def test_moves_are_counted_by_what_changed_and_nothing_led_to_the_start():
    drive = Drive()
    drive.add_place([0, 0, 0], AHEAD, picture(1), 2.0, collided=True)
    assert drive.collided == [] and (drive.frames_changed, drive.poses_changed) == (0, 0)
    drive.add_place([0, 0, -1], AHEAD, picture(2), 1.0)
    drive.add_place([0, 0, -1], AHEAD, picture(3), 1.0, collided=True)
    drive.add_place([0, 0, -1], [0, 1, 0, 0], picture(3), 1.0)
    assert drive.collided == [False, True, False]
    assert (drive.frames_changed, drive.poses_changed) == (2, 2)


def test_only_a_last_stop_stops_a_drive():
    assert not Drive().stopped and not Drive(actions=[Action.STOP, Action.TURN_LEFT]).stopped
    assert Drive(actions=[1, Action.STOP]).stopped


def test_record_comes_back_from_json_with_goals_out_of_reach_and_shares_nothing():
    drive = Drive(actions=[1], status="blocked", calls=3)
    drive.add_place([0, 0, 0], AHEAD, picture(1), math.inf)
    drive.add_place([0, 0, 1], AHEAD, picture(2), 1.5, collided=True)
    told = drive.as_json()
    drive.actions.append(0)
    assert told["actions"] == [1] and told["distances"] == [None, 1.5]
    back = Drive.from_json(json.loads(json.dumps(told)), status="blocked", calls=3)
    assert back == Drive(
        positions=[[0, 0, 0], [0, 0, 1]],
        rotations=[AHEAD, AHEAD],
        distances=[math.inf, 1.5],
        actions=[1],
        collided=[True],
        status="blocked",
        calls=3,
        frames_changed=1,
        poses_changed=1,
    )

"""What both machines of the policy node say and hear: lives, words that are refused, frames."""

import secrets

import pytest

from janusvln_ros.geometry import Pose2
from janusvln_ros.protocol.exchange import (
    Calibration,
    Failed,
    Finish,
    Frame,
    Heard,
    Start,
    StepResult,
    frame_problem,
    hear,
    new_life,
)

S = 1_000_000_000


def test_lives_are_drawn_from_all_of_64_bits():
    lives = {new_life() for _ in range(64)}
    assert len(lives) == 64 and 2**56 < max(lives) < 2**64


def test_a_life_is_never_zero_which_means_nobody(monkeypatch):
    monkeypatch.setattr(secrets, "randbits", lambda bits: 0)
    assert new_life()


def test_what_an_event_or_an_answer_does_not_say_is_nothing():
    assert Calibration(0.0, "camera").ros_now == 0
    assert Failed(0.0, 1, 2, "x").ros_now == 0
    result = StepResult(0.0, 1, 2, 3)
    assert (result.message, result.end_stamp, result.moved, result.ros_now) == ("", 0, Pose2(), 0)
    start = Start(0.0, 1, "go", 5)
    assert (start.start_stamp, start.max_steps, start.time_limit, start.client) == (0, 0, 0.0, 0)
    answer = Finish(1, 2, "x")
    assert (answer.steps, answer.elapsed, answer.path_length) == (0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("length", "quoted"), [(60, "x" * 60), (61, "x" * 57 + "..."), (400, "x" * 57 + "...")]
)
def test_a_refused_instruction_is_quoted_with_at_most_sixty_characters(length, quoted):
    def noise(text):
        return Heard("noise", ("first", "second"))

    answer = hear(Start(0.0, 7, "x" * length, 0), noise, refuse_noise=True, strict=False)
    assert answer.message.startswith(f"'{quoted}' is no instruction: first; second; ")


def test_the_stamp_of_a_frame_is_greater_than_zero():
    assert frame_problem(Frame(0.0, 1, 0), not_before=0, used=0) is None
    assert frame_problem(Frame(0.0, 0, 0), not_before=0, used=-1) == "its stamp is zero"


def test_a_frame_is_as_old_as_the_end_of_the_motion_or_younger():
    assert frame_problem(Frame(0.0, 3 * S, 0), not_before=3 * S, used=0) is None
    late = frame_problem(Frame(0.0, 3 * S - S // 4, 0), not_before=3 * S, used=0)
    assert late == "it is 0.250 s older than the end of the last motion"


def test_a_frame_is_newer_than_the_last_one_that_was_used():
    assert frame_problem(Frame(0.0, 6, 0), not_before=0, used=5) is None
    assert frame_problem(Frame(0.0, 5, 0), not_before=0, used=5) == "its stamp does not advance"


@pytest.mark.parametrize(
    ("stamp", "words"),
    [
        (10 * S - S // 2, ""),
        (10 * S - S // 2 - 1, "it is 0.500 s old (frame_max_age 0.5)"),
        (10 * S + S // 4, ""),
        (10 * S + S // 4 + 1, "its stamp lies 0.250 s in the future"),
    ],
    ids=["just young enough", "too old by a nanosecond", "just not ahead", "ahead"],
)
def test_the_age_of_a_frame_lies_within_its_limits(stamp, words):
    frame = Frame(0.0, stamp, 0)
    limits = {"not_before": 0, "used": 0, "max_age": 0.5, "ahead": 0.25}
    assert (frame_problem(frame, ros_now=10 * S, **limits) or "") == words
    assert frame_problem(frame, **limits) is None  # on another clock nobody knows its age

"""
The summary: every line counts, groups part where they say, and a run that was not real fails its
checks.
"""

import math

import pytest

from janusvln_ros.data.episodes import Episode
from janusvln_ros.evaluation.drive import Drive
from janusvln_ros.evaluation.metrics import measure
from janusvln_ros.evaluation.summary import error_line, result_line, summarize


def episode(number=1, tags=(), rooms=1) -> Episode:
    point = (0.0, 0.0, 0.0)
    info = {"tags": list(tags), "rooms_crossed": rooms}
    return Episode(
        str(number),
        "7",
        "houses/h/h.glb",
        point,
        (0.0, 0.0, 0.0, 1.0),
        point,
        3.0,
        "go",
        (point,),
        1.0,
        "en",
        info,
    )


def line(
    number=1,
    distances=(5.0, 4.0, 0.5),
    actions=(1, 2, 0),
    status="stopped",
    calls=None,
    moved=None,
    tags=(),
    reference=(1, 1, 0),
    understanding=None,
):
    distances = [distances[min(i, len(distances) - 1)] for i in range(len(actions) + 1)]
    moves = len(actions) - 1
    drive = Drive(
        positions=[[0.1 * i, 0, 0] for i in range(len(distances))],
        distances=distances,
        actions=list(actions),
        collided=[False] * len(actions),
        status=status,
        calls=len(actions) if calls is None else calls,
        frames_changed=moves if moved is None else moved,
        poses_changed=moves,
    )
    return result_line(
        episode(number, tags),
        drive,
        measure(drive),
        given="go",
        chose_stop=status == "stopped",
        reference_actions=reference,
        understanding=understanding,
    )


def test_what_the_checkpoint_may_not_understand_is_counted_and_set_beside_the_rest():
    verdicts = ("understood", "doubtful", "doubtful", "noise")
    lines = [line(k, understanding=verdict) for k, verdict in enumerate(verdicts)]
    lines.append(error_line(episode(9), "it broke", "go", "noise"))
    found = summarize(lines)
    assert (found["doubtful"], found["noise"]) == (2, 2)
    groups = {name: group["episodes"] for name, group in found["by_understanding"].items()}
    assert groups == {"doubtful": 2, "noise": 1, "understood": 1}


def test_nothing_is_said_of_understanding_where_the_agent_cannot_say():
    found = summarize([line(1), error_line(episode(2), "it broke", "go")])
    assert found["doubtful"] is found["noise"] is None and found["by_understanding"] == {}


def test_published_keys_come_first_and_infinity_is_null():
    found = line(distances=(math.inf,))
    assert list(found)[:8] == [
        "scene_id",
        "episode_id",
        "success",
        "spl",
        "os",
        "ne",
        "steps",
        "episode_instruction",
    ]
    assert found["ne"] is None and found["start_distance"] is None and found["success"] == 0.0


def test_rates_count_failures_errors_and_goals_out_of_reach():
    lines = [
        line(1),
        line(2, distances=(5.0, 5.0)),
        line(3, distances=(math.inf,)),
        error_line(episode(4), "OSError: gone", "go"),
    ]
    summary = summarize(lines, rejected=3)
    assert (
        summary["episodes"] == 4
        and summary["success_rate"] == 0.25
        and summary["success_rate_1m"] == 0.25
    )
    assert (summary["errors"], summary["unreachable"], summary["rejected"]) == (1, 1, 3)
    assert summary["navigation_error"] == pytest.approx((0.5 + 5.0) / 2)
    assert summary["ended"] == {"error": 1, "stopped": 3} and summary["total_steps"] == 9


def test_groups_part_at_their_edges_and_cover_every_line_once():
    lengths = [2.9, 3.0, 3.1, 9.0, 12.0, 12.1, 40.0]
    summary = summarize(
        [
            line(i, distances=(length, 0.5), tags=["memory"] if i % 2 else [])
            for i, length in enumerate(lengths)
        ]
    )
    counts = {name: group["episodes"] for name, group in summary["by_distance"].items()}
    assert counts == {"0 to 3 m": 2, "3 to 6 m": 1, "6 to 9 m": 1, "9 to 12 m": 1, "over 12 m": 2}
    assert (
        list(summary["by_distance"])[-1] == "over 12 m"
        and list(summary["by_tag"]) == ["memory"]
        and summary["by_tag"]["memory"]["episodes"] == 3
    )
    steps = summarize([line(i, reference=[1] * n) for i, n in enumerate((10, 57, 58, 101))])
    assert {name: group["episodes"] for name, group in steps["by_reference_steps"].items()} == {
        "0 to 29 steps": 1,
        "29 to 57 steps": 1,
        "57 to 100 steps": 1,
        "over 100 steps": 1,
    }


def test_how_often_an_action_repeats_is_counted_for_agent_and_reference():
    summary = summarize([line(actions=(1, 1, 1, 2, 0), reference=(1, 2, 2, 0))])
    assert summary["action_repetition"] == pytest.approx(2 / 4) and summary[
        "action_repetition_reference"
    ] == pytest.approx(1 / 3)
    assert summary["actions"] == {"STOP": 1, "MOVE_FORWARD": 3, "TURN_LEFT": 1, "TURN_RIGHT": 0}


def test_real_run_passes_all_four_checks():
    assert summarize([line(i) for i in range(4)])["checks"] == dict.fromkeys(
        ("asked_every_step", "outputs_vary", "camera_moved", "chose_to_stop"), True
    )


@pytest.mark.parametrize(
    ("check", "bad"),
    [
        ("asked_every_step", [line(1, calls=2), line(2)]),
        ("asked_every_step", [line(1, calls=4), line(2)]),
        (
            "outputs_vary",
            [line(1, actions=(2,) * 30, status="step_limit", calls=29), line(2, actions=(2, 0))],
        ),
        ("camera_moved", [line(1, moved=0), line(2, moved=0)]),
        (
            "chose_to_stop",
            [
                line(1, status="step_limit", calls=2),
                line(2, status="step_limit", calls=2),
                line(3),
            ],
        ),
    ],
)
def test_run_that_is_not_real_fails_its_check_alone_or_with_others(check, bad):
    assert summarize(bad)["checks"][check] is False


def test_forced_stop_and_text_that_is_no_action_are_counted_as_the_calls_they_are():
    forced = line(1, actions=(1, 2, 0), status="step_limit", calls=2)
    ended = line(2, actions=(1, 2), status="not_understood", calls=3)
    as_stop = line(3, actions=(1, 2, 0), status="not_understood", calls=3)
    summary = summarize([forced, ended, as_stop])
    assert summary["checks"]["asked_every_step"] and summary["not_understood"] == 2


def test_run_without_a_drive_passes_no_check_and_has_no_means():
    summary = summarize([error_line(episode(), "gone", "go")])
    assert (
        not any(summary["checks"].values())
        and summary["navigation_error"] is None
        and summary["success_rate"] == 0.0
    )

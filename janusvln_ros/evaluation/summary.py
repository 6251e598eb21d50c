"""
From result lines to one summary: means with intervals, groups, and four checks that a run is real.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from janusvln_ros.actions import Action
from janusvln_ros.data.episodes import Episode, Identity, json_id
from janusvln_ros.evaluation.drive import Drive, finite
from janusvln_ros.evaluation.intervals import mean, rate
from janusvln_ros.evaluation.metrics import Metrics

DISTANCE_BINS = (3.0, 6.0, 9.0, 12.0)
"""Metres from start to goal at which `by_distance` parts."""

STEP_BINS = (29, 57, 100)
"""
Steps of the reference drive at which `by_reference_steps` parts; 57 frames is what one step of the
memories spans.
"""

Line = Mapping[str, Any]


def result_line(
    episode: Episode,
    drive: Drive,
    metrics: Metrics,
    *,
    given: str,
    chose_stop: bool,
    reference_actions: Sequence[int] | None,
    understanding: str | None = None,
) -> dict[str, Any]:
    """
    One line of ``results.jsonl``: first the published keys, then ours.

    Distances that are not finite are null.

    Args:
        episode: with its own instruction, whatever the agent was told.
        drive: what happened.
        metrics: of the drive.
        given: the instruction that the agent got.
        chose_stop: the agent itself decided to stop.
        reference_actions: the reference drive's, where there is one.
        understanding: what ``given`` is to the agent's checkpoint, "understood", "doubtful" or
            "noise"; None: it cannot say.
    """
    scores = {
        "success": float(metrics.success),
        "spl": metrics.spl,
        "os": float(metrics.os),
        "ne": finite(metrics.ne),
        "steps": metrics.steps,
    }
    rest = {
        "success_1m": float(metrics.success_1m),
        "spl_1m": metrics.spl_1m,
        "oracle_ne": finite(metrics.oracle_ne),
        "ndtw": metrics.ndtw,
        "path_length": metrics.path_length,
        "start_distance": finite(metrics.start_distance),
        "collisions": metrics.collisions,
        "status": drive.status,
        "chose_stop": chose_stop,
        "understanding": understanding,
        "calls": drive.calls,
        "calls_expected": _calls_expected(drive),
        "frames_changed": drive.frames_changed,
        "poses_changed": drive.poses_changed,
        "actions": drive.actions,
        "reference_steps": None if reference_actions is None else len(reference_actions),
        "reference_repeats": None if reference_actions is None else _repeats(reference_actions),
    }
    return _line(episode, given, scores, rest)


def result_identity(line: Line) -> Identity:
    """Which episode a line of ``results.jsonl`` is of."""
    return Identity(line["scene_file"], str(line["episode_id"]), line["episode_instruction"])


def error_line(
    episode: Episode, error: str, given: str, understanding: str | None = None
) -> dict[str, Any]:
    """
    The line of an episode that could not be run: a failure with its reason, that counts in every
    rate.
    """
    return _line(
        episode,
        given,
        {"success": 0.0, "spl": 0.0, "os": 0.0, "ne": None, "steps": 0},
        {"success_1m": 0.0, "spl_1m": 0.0, "ndtw": None, "status": "error", "error": error}
        | {"understanding": understanding},
    )


def _line(episode: Episode, given: str, scores: Line, rest: Line) -> dict[str, Any]:
    """The published keys, then what else is known of a drive, then the groups it belongs to."""
    return {
        "scene_id": episode.scene,
        "episode_id": json_id(episode.episode_id),
        **scores,
        "episode_instruction": episode.instruction,
        "trajectory_id": json_id(episode.trajectory_id),
        "language": episode.language,
        "instruction_given": given,
        **rest,
        "scene_file": episode.scene_id,
        "tags": [str(t) for t in episode.info.get("tags") or ()],
        "rooms_crossed": episode.info.get("rooms_crossed"),
    }


def _calls_expected(drive: Drive) -> int:
    """
    How often an agent is asked on such a drive: a forced STOP is executed without asking, and text
    that is no action is an answer without an action where it ends the drive.
    """
    unheeded = drive.status == "not_understood" and not drive.stopped
    return len(drive.actions) - (drive.status == "step_limit") + unheeded


def _repeats(actions: Sequence[int]) -> int:
    """How many actions equal the one before."""
    return sum(a == b for a, b in pairwise(actions))


def rates(lines: Sequence[Line]) -> dict[str, Any]:
    """
    The table of the field for some lines: each value with its 95 % interval, rates by Wilson,
    means by bootstrap.
    """
    return {
        "episodes": len(lines),
        **rate("success_rate", [x["success"] > 0 for x in lines]),
        **rate("success_rate_1m", [x["success_1m"] > 0 for x in lines]),
        **mean("spl", [x["spl"] for x in lines]),
        **mean("spl_1m", [x["spl_1m"] for x in lines]),
        **rate("oracle_success_rate", [x["os"] > 0 for x in lines]),
        **mean("navigation_error", [x["ne"] for x in lines]),
        **mean("ndtw", [x["ndtw"] for x in lines]),
    }


def summarize(lines: Sequence[Line], rejected: int = 0) -> dict[str, Any]:
    """
    Summarize a run.

    Rates count every line; an episode that failed with an error or whose goal cannot be reached is
    a failure. ``navigation_error`` is the mean over the drives that ended at a finite distance;
    ``unreachable`` and ``errors`` say how many did not; ``ndtw`` that over the drives whose ground
    truth is known. Every mean and rate says over how many it is (``_count``). ``rejected``
    episodes of the file are not among the lines. ``doubtful`` and ``noise`` count what was told
    that the checkpoint may not understand, all of which is driven; None where it cannot say.
    """
    driven = [x for x in lines if x["status"] != "error"]
    moves = Counter(Action(a).name for x in driven for a in x["actions"])
    pairs = sum(max(len(x["actions"]) - 1, 0) for x in driven)
    known = [x for x in driven if x["reference_steps"] is not None]
    reference_pairs = sum(max(x["reference_steps"] - 1, 0) for x in known)
    return {
        **rates(lines),
        **mean("path_length", [x["path_length"] for x in driven]),
        **mean("steps", [x["steps"] for x in driven]),
        **mean("collisions", [x["collisions"] for x in driven]),
        "collision_rate": sum(x["collisions"] for x in driven) / moves["MOVE_FORWARD"]
        if moves["MOVE_FORWARD"]
        else None,
        "total_steps": sum(x["steps"] for x in driven),
        "actions": {a.name: moves[a.name] for a in Action},
        "action_repetition": sum(_repeats(x["actions"]) for x in driven) / pairs
        if pairs
        else None,
        "action_repetition_reference": sum(x["reference_repeats"] for x in known) / reference_pairs
        if reference_pairs
        else None,
        "ended": dict(sorted(Counter(x["status"] for x in lines).items())),
        "not_understood": sum(x["status"] == "not_understood" for x in lines),
        **_heard(lines),
        "unreachable": sum(x["ne"] is None for x in driven),
        "errors": len(lines) - len(driven),
        "rejected": rejected,
        **_checks(driven),
        "by_distance": _groups(driven, lambda x: _bin(x["start_distance"], DISTANCE_BINS, "m")),
        "by_reference_steps": _groups(
            known, lambda x: _bin(x["reference_steps"], STEP_BINS, "steps")
        ),
        "by_rooms_crossed": _groups(
            [x for x in driven if x["rooms_crossed"] is not None],
            lambda x: [f"{x['rooms_crossed']}"],
        ),
        "by_tag": _groups(driven, lambda x: x["tags"]),
        "by_understanding": _groups(
            [x for x in driven if x["understanding"]], lambda x: [x["understanding"]]
        ),
    }


def _heard(lines: Sequence[Line]) -> dict[str, int | None]:
    told = [x["understanding"] for x in lines]
    known = any(told)
    return {v: told.count(v) if known else None for v in ("doubtful", "noise")}


def _checks(driven: Sequence[Line]) -> dict[str, Any]:
    """
    Four checks that this was a real run, and the figures behind them.

    * ``asked_every_step``: in every drive the agent was asked once for every action that was its
      own.
    * ``outputs_vary``: at least three different actions were executed, none of them more than 98 %
      of the time.
    * ``camera_moved``: a new pose brought a new picture in at least half of the cases (up against
      a plain wall it may not), and poses did change.
    * ``chose_to_stop``: at least half of the drives ended because the agent decided to stop.
    """
    counts = Counter(a for x in driven for a in x["actions"])
    total = sum(counts.values())
    most = max(counts.values(), default=0) / total if total else 1.0
    poses, frames = (
        sum(x["poses_changed"] for x in driven),
        sum(min(x["frames_changed"], x["poses_changed"]) for x in driven),
    )
    asked = sum(x["calls"] == x["calls_expected"] for x in driven)
    stops = sum(x["chose_stop"] for x in driven)
    return {
        "checks": {
            "asked_every_step": bool(driven) and asked == len(driven),
            "outputs_vary": len(counts) >= 3 and most <= 0.98,
            "camera_moved": poses > 0 and frames >= 0.5 * poses,
            "chose_to_stop": bool(driven) and stops >= 0.5 * len(driven),
        },
        "checks_detail": {
            "drives_asked_every_step": asked,
            "different_actions": len(counts),
            "most_frequent_action_share": most,
            "poses_changed": poses,
            "frames_changed": frames,
            "drives_that_chose_to_stop": stops,
        },
    }


def _bin(value: float | None, edges: Sequence[float], unit: str) -> list[str]:
    if value is None:
        return []
    for low, high in pairwise((0.0, *edges)):
        if value <= high:
            return [f"{low:g} to {high:g} {unit}"]
    return [f"over {edges[-1]:g} {unit}"]


def _groups(lines: Sequence[Line], names: Callable[[Line], Sequence[str]]) -> dict[str, Any]:
    """The rates of every group; a line is in all groups that ``names`` gives."""
    groups: dict[str, list[Line]] = {}
    for line in lines:
        for name in names(line):
            groups.setdefault(name, []).append(line)
    keys = (
        "episodes",
        "success_rate",
        "success_rate_ci95",
        "success_rate_1m",
        "success_rate_1m_ci95",
        "spl",
        "navigation_error",
        "navigation_error_count",
        "ndtw",
        "ndtw_count",
    )
    # "over ..." comes last, the others in the order of their first number.
    order = sorted(
        groups,
        key=lambda n: (
            n.startswith("over"),
            float(n.split()[0]) if n.split()[0].replace(".", "").isdigit() else 0.0,
            n,
        ),
    )
    return {
        name: {key: value for key, value in rates(groups[name]).items() if key in keys}
        for name in order
    }

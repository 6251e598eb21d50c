"""
janusvln collect: trajectories that can be learned from, the same however many processes wrote
them.
"""

import json
import sys

import cv2

from janusvln_ros.cli.main import main
from janusvln_ros.data.trajectories import read_trajectories


def collect(capsys, small_houses, out, *arguments):
    code = main(
        [
            "collect",
            "--data",
            str(small_houses),
            "--out",
            str(out),
            "--size",
            "48x36",
            "--json",
            *map(str, arguments),
        ]
    )
    text, err = capsys.readouterr()
    return code, json.loads(text) if text else None, err


def test_expert_trajectories_are_written_and_do_not_depend_on_the_number_of_processes(
    capsys, small_houses, tmp_path
):
    code, one, _ = collect(capsys, small_houses, tmp_path / "one", "--noise", 0.2, "--episodes", 5)
    assert code == 0 and one["episodes"] == one["kept"] == 5
    code, two, _ = collect(
        capsys, small_houses, tmp_path / "two", "--noise", 0.2, "--episodes", 5, "--workers", 2
    )
    assert code == 0 and two["frames"] == one["frames"]
    deviations = 0
    for a, b in zip(
        read_trajectories(tmp_path / "one"), read_trajectories(tmp_path / "two"), strict=True
    ):
        assert (a.id, a.instruction, a.actions, a.labels) == (
            b.id,
            b.instruction,
            b.actions,
            b.labels,
        )
        assert [p.read_bytes() for p in a.frames] == [p.read_bytes() for p in b.frames]
        assert a.labels[-1] == 0
        deviations += sum(x != y for x, y in zip(a.labels, (*a.actions[1:], 0)))
        assert cv2.imread(str(a.frames[0])).shape == (36, 48, 3)
    assert deviations > 0


def test_finished_episodes_are_not_driven_again(capsys, small_houses, tmp_path):
    collect(capsys, small_houses, tmp_path / "c", "--episodes", 3)
    frame = next((tmp_path / "c/images").rglob("000.jpg"))
    before = frame.stat().st_mtime_ns
    code, result, err = collect(capsys, small_houses, tmp_path / "c", "--episodes", 5)
    assert (
        code == 0
        and result["episodes"] == 5
        and "resuming: 3 of 5" in err
        and frame.stat().st_mtime_ns == before
    )


def test_other_noise_is_refused_in_the_same_folder(capsys, small_houses, tmp_path):
    collect(capsys, small_houses, tmp_path / "c", "--episodes", 1)
    code, _, err = collect(capsys, small_houses, tmp_path / "c", "--episodes", 1, "--noise", 0.5)
    assert code == 2 and "collect.noise was 0.0 and is 0.5" in err


def test_noise_that_is_no_probability_is_one_sentence(capsys, small_houses, tmp_path):
    code, _, err = collect(capsys, small_houses, tmp_path / "c", "--noise", 1.5)
    assert code == 2 and err.startswith("error: --noise is 1.5")


def test_ros_without_what_it_needs_is_one_sentence(capsys, small_houses, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "janusvln_ros.graph.ros_engine", raising=False)
    monkeypatch.setitem(sys.modules, "janusvln_ros.graph.lockstep", None)  # as without rclpy
    code, _, err = collect(capsys, small_houses, tmp_path / "out", "--ros")
    assert code == 2 and "which is not installed: source ROS 2" in err

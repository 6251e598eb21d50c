"""
janusvln evaluate: figures a script can read, files a person can read, and a kill at any moment
costs nothing.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from janusvln_ros.cli.main import main

SMALL = ["--size", "32x24"]


def evaluate(capsys, *arguments) -> tuple[int, dict | None, str]:
    code = main(["evaluate", *map(str, arguments), *SMALL, "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out else None, err


def test_expert_succeeds_everywhere_and_every_promised_key_is_there(
    capsys, small_houses, tmp_path
):
    code, summary, err = evaluate(
        capsys, "expert", "--data", small_houses, "--episodes", 6, "--out", tmp_path / "e"
    )
    assert code == 0 and summary["episodes"] == 6
    for key in (
        "success_rate",
        "success_rate_1m",
        "spl",
        "oracle_success_rate",
        "navigation_error",
        "ndtw",
    ):
        low, high = summary[f"{key}_ci95"]
        assert low <= summary[key] <= high
    assert (
        summary["success_rate"] == summary["success_rate_1m"] == 1.0
        and summary["spl"] > 0.97
        and summary["navigation_error"] < 0.3
    )
    assert summary["checks"] == {
        "asked_every_step": True,
        "outputs_vary": True,
        "camera_moved": True,
        "chose_to_stop": True,
    }
    assert "checks of a real run: all passed" in err
    assert {p.name for p in (tmp_path / "e").iterdir()} >= {
        "manifest.json",
        "results.jsonl",
        "summary.json",
        "report.html",
    }
    assert json.loads((tmp_path / "e/summary.json").read_text()) == summary
    lines = [json.loads(text) for text in (tmp_path / "e/results.jsonl").read_text().splitlines()]
    assert len({(x["scene_id"], x["episode_id"]) for x in lines}) == 6
    assert list(lines[0])[:8] == [
        "scene_id",
        "episode_id",
        "success",
        "spl",
        "os",
        "ne",
        "steps",
        "episode_instruction",
    ]


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.seen, self.links = [], [], []

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        self.links += [value for name, value in attributes if name in ("href", "src")]


def test_report_is_one_file_with_a_picture_of_every_failure(capsys, small_houses, tmp_path):
    _, summary, _ = evaluate(
        capsys,
        "random",
        "--data",
        small_houses,
        "--episodes",
        5,
        "--out",
        tmp_path / "r",
        "--set",
        "rules.max_steps=30",
    )
    tags = Tags()
    tags.feed((tmp_path / "r/report.html").read_text())
    assert (
        summary["success_rate_1m"] < 1
        and tags.seen.count("image") == tags.seen.count("circle") == 5
    )
    assert all(link.startswith("data:image/png;base64,") for link in tags.links)


def test_frozen_camera_and_silent_agent_do_not_pass_the_checks(
    capsys, small_houses, tmp_path, monkeypatch
):
    from sim_bridge.houses import HousesEnv

    rendered = HousesEnv.render

    def frozen(self):
        observation = rendered(self)
        observation.rgb[:] = 7
        return observation

    monkeypatch.setattr(HousesEnv, "render", frozen)
    never = ["--set", "baselines.forward=[0, 1, 0, 0]", "--set", "rules.max_steps=10"]
    _, summary, err = evaluate(
        capsys, "forward", "--data", small_houses, "--episodes", 3, "--out", tmp_path / "f", *never
    )
    assert summary["checks"] == {
        "asked_every_step": True,
        "outputs_vary": False,
        "camera_moved": False,
        "chose_to_stop": False,
    }
    assert "NOT passed: outputs_vary, camera_moved, chose_to_stop" in err


def test_what_the_agent_is_told_is_noted_in_every_line(capsys, small_houses, tmp_path):
    for mode in ("removed", "swapped", "typo"):
        limit = ["--set", "rules.max_steps=5"]
        code, summary, _ = evaluate(
            capsys,
            "random",
            "--data",
            small_houses,
            "--episodes",
            4,
            "--out",
            tmp_path / mode,
            "--instructions",
            mode,
            *limit,
        )
        lines = [
            json.loads(text)
            for text in (tmp_path / mode / "results.jsonl").read_text().splitlines()
        ]
        assert code == 0 and summary["instructions"] == mode and len(lines) == 4
        assert all(x["instruction_given"] != x["episode_instruction"] for x in lines)
        assert all((x["instruction_given"] == "") == (mode == "removed") for x in lines)


def test_policy_is_asked_at_every_step_and_its_checkpoint_is_in_the_manifest(
    capsys, small_houses, tmp_path
):
    limit = ["--set", "rules.max_steps=4"]
    code, summary, _ = evaluate(
        capsys, "policy", "--data", small_houses, "--episodes", 2, "--out", tmp_path / "p", *limit
    )
    assert (
        code == 0
        and summary["checks"]["asked_every_step"]
        and isinstance(summary["trained"], bool)
    )
    manifest = json.loads((tmp_path / "p/manifest.json").read_text())
    assert len(manifest["evaluate"]["checkpoint_sha256"]) == len(manifest["data"]["sha256"]) == 64
    assert (
        manifest["settings"]["seed"] == 42
        and manifest["settings"]["policy"]["prompt"] == "evaluation"
        and "torch" in manifest["versions"]
    )


def test_other_settings_or_data_are_refused_in_the_same_folder(capsys, small_houses, tmp_path):
    common = [
        "--data",
        small_houses,
        "--episodes",
        2,
        "--out",
        tmp_path / "x",
        "--set",
        "rules.max_steps=5",
    ]
    assert evaluate(capsys, "random", *common)[0] == 0
    code, summary, err = evaluate(capsys, "random", *common, "--seed", 7)
    assert code == 2 and summary is None and "settings.seed was 42 and is 7" in err
    code, _, err = evaluate(capsys, "forward", *common)
    assert code == 2 and 'evaluate.agent was "random" and is "forward"' in err


def test_missing_scene_is_an_error_before_the_first_step(capsys, small_houses, tmp_path):
    (tmp_path / "datasets").symlink_to(small_houses / "datasets")
    code, _, err = evaluate(capsys, "expert", "--data", tmp_path, "--out", tmp_path / "m")
    assert (
        code == 2
        and "18 of 18 episodes need one of 3 missing scenes" in err
        and ".glb is missing" in err
    )


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["expert", "somewhere"], "the agent expert has no checkpoint"),
        (["policy", "no/such/folder"], "no checkpoint folder"),
        (["expert", "--dataset", "r2r"], "is missing: there is no folder"),
        (["expert", "--set", "rules.speed=3"], "unknown key 'speed'"),
        (["expert", "--workers", "0"], "--workers is 0"),
    ],
)
def test_bad_input_is_one_sentence(capsys, small_houses, tmp_path, arguments, reason):
    data = tmp_path if "r2r" in arguments else small_houses
    code, summary, err = evaluate(capsys, *arguments, "--data", data, "--out", tmp_path / "o")
    assert (
        code == 2
        and summary is None
        and err.splitlines()[-1].startswith("error: ")
        and reason in err
    )


def words(data: Path, out: Path, workers: int) -> list[str]:
    where = ["evaluate", "random", "--data", str(data), "--out", str(out), *SMALL]
    rules = ["baselines.random=[0.01, 0.4, 0.3, 0.29]", "rules.max_steps=200"]
    return [*where, "--workers", str(workers), "--set", rules[0], "--set", rules[1]]


def start(data: Path, out: Path, workers: int) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "janusvln_ros.cli.main", *words(data, out, workers)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def written(out: Path) -> int:
    return sum(p.read_bytes().count(b"\n") for p in out.glob("journal_*.jsonl"))


@pytest.mark.slow
def test_run_killed_five_times_ends_with_the_results_of_an_undisturbed_one(small_houses, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert main(words(small_houses, whole, 1)) == 0
    generator = random.Random(4)
    killed_at = []
    for kill in range(5):
        process = start(small_houses, broken, 1 + kill % 2)
        goal = written(broken) + generator.randint(0, 2)
        while written(broken) < goal and process.poll() is None:
            time.sleep(0.005)
        time.sleep(generator.uniform(0, 0.05))
        assert process.poll() is None, process.stderr.read().decode()
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed_at.append(written(broken))
        if kill == 2:  # a kill in the middle of a write
            with sorted(broken.glob("journal_*.jsonl"))[0].open("ab") as file:
                file.write(b'{"scene": "unseen_000')
    assert max(killed_at) < 18, "killed too late to show anything"
    last = start(small_houses, broken, 2)
    _, err = last.communicate(timeout=120)
    assert last.returncode == 0, err.decode()
    results = (broken / "results.jsonl").read_text()
    assert sorted(results.splitlines()) == sorted(
        (whole / "results.jsonl").read_text().splitlines()
    )
    assert len(results.splitlines()) == 18
    assert b"resuming" in err


def test_ranks_started_by_torchrun_share_the_work_and_rank_0_writes_the_summary(
    small_houses, tmp_path
):
    processes = []
    for rank in (1, 0):
        command = [
            sys.executable,
            "-m",
            "janusvln_ros.cli.main",
            "evaluate",
            "random",
            "--data",
            str(small_houses),
            "--out",
            str(tmp_path / "t"),
            *SMALL,
        ]
        environment = {
            **os.environ,
            "RANK": str(rank),
            "WORLD_SIZE": "2",
            "LOCAL_RANK": str(rank),
        }
        command += ["--episodes", "6", "--set", "rules.max_steps=10", "--json"]
        processes.append(
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
            )
        )
    (out_1, err_1), (out_0, err_0) = (p.communicate(timeout=120) for p in processes)
    assert [p.returncode for p in processes] == [0, 0], err_0 + err_1
    assert json.loads(out_0)["episodes"] == 6 and out_1 == b""
    counts = [
        len((tmp_path / f"t/journal_{rank}.jsonl").read_text().splitlines()) for rank in (0, 1)
    ]
    assert counts == [3, 3]


def test_simulator_in_another_process_gives_the_same_results(capsys, small_houses, tmp_path):
    server = [sys.executable, str(Path(__file__).parents[1] / "sim_bridge/houses_server.py")]
    common = ["expert", "--data", small_houses, "--episodes", 3]
    assert evaluate(capsys, *common, "--out", tmp_path / "here")[0] == 0
    code, _, err = evaluate(
        capsys,
        *common,
        "--out",
        tmp_path / "there",
        "--backend",
        "habitat",
        "--set",
        f"env.options.command={json.dumps(server)}",
    )
    assert code == 0, err
    here, there = (
        [json.loads(x) for x in (tmp_path / name / "results.jsonl").read_text().splitlines()]
        for name in ("here", "there")
    )
    assert [x["actions"] for x in here] == [x["actions"] for x in there]
    for a, b in zip(here, there, strict=True):
        assert a["ne"] == pytest.approx(b["ne"], abs=1e-5) and a["ndtw"] == pytest.approx(
            b["ndtw"], abs=1e-5
        )

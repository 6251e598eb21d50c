"""
The demo on the real graph: it repeats itself, it shares the machine, it cleans up, and what a user
gets wrong is one sentence.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("janusvln_msgs", reason="needs the interfaces: scripts/build_msgs.sh")
pytest.importorskip("moderngl", reason="needs the simulator: pip install janusvln_ros[sim]")

from janusvln_ros.cli.demo import check_instruction
from janusvln_ros.cli.main import main
from janusvln_ros.errors import InputError
from janusvln_ros.graph.processes import domain_ports, reserved_domain

pytestmark = pytest.mark.ros
ROOT = Path(__file__).resolve().parents[2]
KEYS = {
    "steps",
    "success",
    "distance_to_goal",
    "path_length",
    "checkpoint",
    "trained",
    "timings",
    "images",
    "files",
}


def start(folder, one_house, *options, **environment):
    command = [
        sys.executable,
        "-c",
        "import sys; from janusvln_ros.cli.main import main; sys.exit(main(sys.argv[1:]))",
        "demo",
    ]
    command += ["--data", str(one_house), "--size", "128x96", *options]
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def end(process, seconds=270):
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return process.returncode, out, err


def children(pid):
    """Process ids of everything below ``pid``."""
    below, found = {}, []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if fields[0] != "Z":
            below.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    todo = [pid]
    while todo:
        more = below.get(todo.pop(), [])
        found += more
        todo += more
    return found


def gone(pids):
    def state(pid):
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return "Z"

    return all(state(pid) == "Z" for pid in pids)


def rows(folder):
    found = [
        json.loads(line)
        for line in (next(folder.glob("runs/demo-*")) / "decisions.jsonl").read_text().splitlines()
    ]
    for row in found:
        assert row.pop("timings")["total"] > 0
    return found


@pytest.mark.slow
def test_two_demos_at_once_with_the_same_seed_make_the_same_decisions_and_print_one_object_each(
    tmp_path, one_house
):
    options = ["--json", "--max-steps", "6", "--seed", "3"]
    both = [start(tmp_path / name, one_house, *options) for name in ("a", "b")]
    ended = [end(process) for process in both]
    for code, out, err in ended:
        assert code == 0, err
        summary = json.loads(out)  # one object and nothing else
        assert summary.keys() >= KEYS and summary["images"]["dropped"] == 0
        assert summary["timings"]["total"].keys() == {"p50", "p99"}
    assert rows(tmp_path / "a") == rows(tmp_path / "b") and 0 < len(rows(tmp_path / "a")) <= 6
    folder = next((tmp_path / "a").glob("runs/demo-*"))
    assert json.loads((folder / "summary.json").read_text()) == json.loads(ended[0][1])
    assert (folder / "path.png").read_bytes().startswith(b"\x89PNG")
    import imageio_ffmpeg

    frames, _ = imageio_ffmpeg.count_frames_and_secs(str(folder / "episode.mp4"))
    assert frames == json.loads(ended[0][1])["images"]["received"]
    assert not list((tmp_path / "a/runs").glob(".*"))


@pytest.mark.parametrize(
    ("number", "expected"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_ctrl_c_ends_every_process_and_leaves_nothing(tmp_path, one_house, number, expected):
    # In continuous mode a step takes time, so that the drive is still under way when the signal
    # comes.
    process = start(tmp_path, one_house, "--max-steps", "5000", "--mode", "continuous")
    try:
        while " ms " not in (line := process.stderr.readline()):
            assert line, "the demo ended before it drove"
        below = children(process.pid)
        assert len(below) >= 2
        process.send_signal(number)
        code, _, err = end(process, 60)
        assert code == expected and "Traceback" not in err
        until = time.monotonic() + 10
        while not gone(below) and time.monotonic() < until:
            time.sleep(0.05)
        assert gone(below)
        assert list((tmp_path / "runs").iterdir()) == []
    finally:
        process.kill()


def test_without_egl_the_demo_says_so_and_leaves_nothing(tmp_path, one_house):
    code, out, err = end(
        start(
            tmp_path,
            one_house,
            "--max-steps",
            "2",
            __EGL_VENDOR_LIBRARY_DIRS=str(tmp_path),
            EGL_PLATFORM="nowhere",
        )
    )
    assert code == 1 and out == ""
    assert "error:" in err and "EGL" in err and "Traceback" not in err
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--instruction", ""], "instruction is empty"),
        (["--instruction", " \n\t"], "instruction is empty"),
        (["--instruction", "go " * 33334], "at most 4000"),
        (["--checkpoint", "runs/nothing/here"], "no checkpoint folder 'runs/nothing/here'"),
        (["--checkpoint", "."], "no config.json"),
        (["--house", "unseen_00099"], "no house 'unseen_00099'"),
        (["--episode", "77"], "no episode '77'"),
        (["--size", "big"], "'big'"),
        (["--size", "129x96"], "even"),
        (["--max-steps", "0"], "--max-steps is 0"),
        (["--seed", "-1"], "--seed is -1"),
        (["--domain", "300"], "out of range"),
        (["--split", "test"], "no split 'test'"),
        (["backend:=webots"], "'webots': give one of"),
        (["gqu:=0"], "no argument 'gqu'"),
        (["gpu:=first"], "'first': give a number"),
        (["habitat"], "write NAME:=VALUE"),
        (["mode:=continuous"], "see its options"),
    ],
)
def test_what_a_user_gets_wrong_is_one_sentence_and_nothing_is_written(
    tmp_path, one_house, monkeypatch, capsys, options, words
):
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--data", str(one_house), *options]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("error: ") and words in printed.err
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_noise_is_refused_before_the_graph_starts_and_doubt_is_named(tmp_path):
    shutil.copytree(ROOT / "config/model/tiny", tmp_path, dirs_exist_ok=True)
    assert check_instruction("asdf", str(tmp_path)) == ()  # nobody wrote down what it was taught
    (tmp_path / "words.json").write_text('["go", "to", "the", "lamp", "left"]')
    assert check_instruction("go to the lamp", str(tmp_path)) == ()
    assert "unless" in check_instruction("go left unless it is red", str(tmp_path))[-1]
    with pytest.raises(InputError, match=r"'asdf' is none: .* for example 'turn left"):
        check_instruction("asdf", str(tmp_path))


@pytest.mark.slow
def test_the_demo_drives_in_habitat_by_an_argument_of_the_graph(tmp_path, one_house):
    root = Path(__file__).resolve().parents[2]
    server = f"command:={sys.executable} {root / 'test/sim_bridge/houses_server.py'}"
    options = ["backend:=habitat", server, "gpu:=-1", "--max-steps", "3", "--json"]
    code, out, err = end(start(tmp_path, one_house, *options, PYTHONPATH=str(root)))
    assert code == 0, err
    simulator = json.loads(out)["simulator"]
    assert simulator["backend"] == "habitat" and "moderngl" in simulator


def test_a_domain_that_somebody_uses_is_refused(tmp_path, one_house, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        with reserved_domain() as free:
            taken.bind(("127.0.0.1", domain_ports(free)[10]))
        assert main(["demo", "--data", str(one_house), "--domain", str(free)]) == 2
    assert f"domain {free} is in use" in capsys.readouterr().err


def test_a_folder_that_holds_something_is_not_written_over(
    tmp_path, one_house, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").write_text("x")
    assert main(["demo", "--data", str(one_house), "--out", "kept"]) == 2
    assert "not empty" in capsys.readouterr().err and (tmp_path / "kept/file").read_text() == "x"

"""
``--ros``: the same episodes through the real graph give the same results as directly, byte for
byte.
"""

import json
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("janusvln_msgs", reason="needs the interfaces: scripts/build_msgs.sh")
pytest.importorskip("moderngl", reason="needs the simulator: pip install janusvln_ros[sim]")

from janusvln_ros.cli.main import main
from janusvln_ros.data.episodes import read_episodes, write_episodes
from janusvln_ros.graph import ros_engine
from sim_bridge import habitat_server

pytestmark = pytest.mark.ros
SIZE = ["--size", "128x96"]


def results(folder, one_house, agent, rules):
    """What ``evaluate`` wrote, line by line: directly and through ROS."""
    common = ["evaluate", agent, "--data", str(one_house), "--set", f"rules={rules}", *SIZE]
    assert main([*common, "--out", str(folder / "direct")]) == 0
    assert main([*common, "--out", str(folder / "ros"), "--ros"]) == 0
    assert list((folder / "ros" / "maps").iterdir())
    return [
        (folder / name / "results.jsonl").read_text().splitlines() for name in ("direct", "ros")
    ]


@pytest.mark.parametrize(
    ("agent", "rules"),
    [
        ("random", "{max_steps: 20}"),
        pytest.param("policy", "{max_steps: 40, max_blocked: 2}", marks=pytest.mark.slow),
    ],
)
def test_an_agent_drives_through_ros_as_it_drives_directly(tmp_path, one_house, agent, rules):
    direct, ros = results(tmp_path, one_house, agent, rules)
    assert direct == ros and len(direct) == 2


@pytest.mark.slow
def test_habitats_settings_reach_the_simulator_through_ros(tmp_path, one_house, monkeypatch):
    root = Path(__file__).resolve().parents[2]
    monkeypatch.setenv("PYTHONPATH", str(root))
    server = [sys.executable, str(root / "test" / "sim_bridge" / "houses_server.py")]
    options = {"command": shlex.join(server), "gpu": -1, "request_timeout": 30.0}
    common = ["evaluate", "random", "--data", str(one_house), "--set", "rules={max_steps: 8}"]
    common += ["--episodes", "1", "--backend", "habitat", *SIZE]
    common += ["--set", f"env.options={json.dumps(options)}"]
    for name, how in (("direct", []), ("ros", ["--ros"])):
        assert main([*common, "--out", str(tmp_path / name), *how]) == 0
    direct, ros = (tmp_path / name / "results.jsonl" for name in ("direct", "ros"))
    assert direct.read_text() == ros.read_text()


def test_no_graphics_card_ends_a_run_through_ros_before_the_graph_starts(
    tmp_path, one_house, monkeypatch, capsys
):
    server = tmp_path / "server.py"
    server.write_text(
        "import os, socket, sys\n"
        f"sys.path.insert(0, {str(Path(habitat_server.__file__).parent)!r})\n"
        "from habitat_server import receive, send\n"
        "c = socket.socket(socket.AF_UNIX)\nc.connect(sys.argv[-1])\nreceive(c)\n"
        "send(c, {'ok': True, 'python': '3.9', 'versions': {}})\nreceive(c)\n"
        "print('WindowlessContext: Unable to create windowless context', flush=True)\n"
        "os._exit(1)\n"
    )
    monkeypatch.setattr(ros_engine, "lockstep_graph", lambda *a: pytest.fail("a graph starts"))
    command = json.dumps(shlex.join([sys.executable, str(server)]))
    words = ["evaluate", "random", "--data", str(one_house), "--backend", "habitat", "--ros"]
    words += ["--set", f"env.options.command={command}", "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert "gpu to -1" in capsys.readouterr().err


@pytest.mark.slow
def test_the_policy_drives_through_ros_as_directly_whatever_the_white_space_of_its_words(
    tmp_path, one_house
):
    read = read_episodes(one_house, "houses", "val_unseen")
    plain = read.episodes[0]
    words = " \t" + plain.instruction.replace(" ", "  \t\n ") + "\r\n \a "
    spaced = replace(plain, episode_id="9", instruction=words)
    shutil.copytree(one_house, tmp_path / "data")
    write_episodes(tmp_path / "data" / read.path.relative_to(one_house), [plain, spaced])
    direct, ros = results(tmp_path, tmp_path / "data", "policy", "{max_steps: 4}")
    assert direct == ros and len(direct) == 2
    lines = [json.loads(line) for line in direct]
    assert lines[1]["instruction_given"] == words
    # the model sees the white space: had it been lost on either way, the drives would differ
    assert lines[0]["actions"] != lines[1]["actions"]


def test_an_empty_instruction_cannot_go_through_the_policy_node(tmp_path, one_house, capsys):
    assert (
        main(
            [
                "evaluate",
                "policy",
                "--data",
                str(one_house),
                "--ros",
                "--instructions",
                "removed",
                "--out",
                str(tmp_path / "out"),
                *SIZE,
            ]
        )
        == 2
    )
    assert "empty instruction" in capsys.readouterr().err


def test_trajectories_are_collected_through_ros(tmp_path, one_house):
    for name, more in (("direct", []), ("ros", ["--ros"])):
        assert (
            main(
                [
                    "collect",
                    "--data",
                    str(one_house),
                    "--split",
                    "val_unseen",
                    "--episodes",
                    "1",
                    "--out",
                    str(tmp_path / name),
                    *SIZE,
                    *more,
                ]
            )
            == 0
        )
    files = sorted(
        p.relative_to(tmp_path / "direct") for p in (tmp_path / "direct").rglob("*.jpg")
    )
    assert files and files == sorted(
        p.relative_to(tmp_path / "ros") for p in (tmp_path / "ros").rglob("*.jpg")
    )
    assert all(
        (tmp_path / "direct" / p).read_bytes() == (tmp_path / "ros" / p).read_bytes()
        for p in files
    )

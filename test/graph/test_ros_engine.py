"""
``--ros``: the same episodes through the real graph give the same results as directly, byte for
byte.
"""

import json
import shutil
from dataclasses import replace

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("janusvln_msgs", reason="needs the interfaces: scripts/build_msgs.sh")
pytest.importorskip("moderngl", reason="needs the simulator: pip install janusvln_ros[sim]")

from janusvln_ros.cli.main import main
from janusvln_ros.data.episodes import read_episodes, write_episodes

pytestmark = pytest.mark.ros
SIZE = ["--width", "128", "--height", "96"]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    from sim_bridge.homes import ensure_split

    folder = tmp_path_factory.mktemp("data")
    ensure_split(folder, "val_unseen", homes=1, episodes_per_home=2, jobs=1)
    return folder


def results(folder, data_dir, agent, rules):
    """What ``evaluate`` wrote, line by line: directly and through ROS."""
    common = ["evaluate", agent, "--data", str(data_dir), "--set", f"rules={rules}", *SIZE]
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
def test_an_agent_drives_through_ros_as_it_drives_directly(tmp_path, data_dir, agent, rules):
    direct, ros = results(tmp_path, data_dir, agent, rules)
    assert direct == ros and len(direct) == 2


def test_the_policy_drives_through_ros_as_directly_whatever_the_white_space_of_its_words(
    tmp_path, data_dir
):
    read = read_episodes(data_dir, "houses", "val_unseen")
    plain = read.episodes[0]
    words = " \t" + plain.instruction.replace(" ", "  \t\n ") + "\r\n \a "
    spaced = replace(plain, episode_id="9", instruction=words)
    shutil.copytree(data_dir, tmp_path / "data")
    write_episodes(tmp_path / "data" / read.path.relative_to(data_dir), [plain, spaced])
    direct, ros = results(tmp_path, tmp_path / "data", "policy", "{max_steps: 4}")
    assert direct == ros and len(direct) == 2
    lines = [json.loads(line) for line in direct]
    assert lines[1]["instruction_given"] == words
    # the model sees the white space: had it been lost on either way, the drives would differ
    assert lines[0]["actions"] != lines[1]["actions"]


def test_an_empty_instruction_cannot_go_through_the_policy_node(tmp_path, data_dir, capsys):
    assert (
        main(
            [
                "evaluate",
                "policy",
                "--data",
                str(data_dir),
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


def test_trajectories_are_collected_through_ros(tmp_path, data_dir):
    for name, more in (("direct", []), ("ros", ["--ros"])):
        assert (
            main(
                [
                    "collect",
                    "--data",
                    str(data_dir),
                    "--split",
                    "val_unseen",
                    "--limit",
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

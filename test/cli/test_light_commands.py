"""No command loads torch, which takes seconds, that does not compute."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from janusvln_ros.cli.main import SUBCOMMANDS

ROOT = Path(__file__).parents[2]

PROGRAM = """
import contextlib, io, json, sys

from janusvln_ros.cli.main import main
from janusvln_ros.graph import processes

class Started(Exception):
    pass

def start(self):
    raise Started

processes.Processes.__enter__ = start
told = {}
for words in json.loads(sys.argv[1]):
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            end = str(main(words))
        except Started:
            end = "the nodes start"
        except SystemExit as error:
            end = str(error.code)
        except BaseException as error:
            end = f"{type(error).__name__}: {error}"
    heavy = {"torch", "transformers", "torchao"} & set(sys.modules)
    told[" ".join(words)] = [f"loaded {heavy}" if heavy else end, said.getvalue()]
print(json.dumps(told))
"""


def ends(commands, folder):
    """How each of the commands ends in one process, or what it has loaded."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(commands)],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])},
    )
    return json.loads(done.stdout)


def test_help_is_told_without_torch(tmp_path):
    told = ends([["--help"], ["--version"], *([name, "--help"] for name in SUBCOMMANDS)], tmp_path)
    assert {end for end, _ in told.values()} == {"0"}, told


def test_graphs_are_told_without_torch(tmp_path):
    told = ends(
        [
            ["up", "robot", "--arguments"],
            ["up", "robot", "--json"],
            ["up", "simulation", "mode:=continuous", "--json"],
        ],
        tmp_path,
    )
    assert {end for end, _ in told.values()} == {"0"}, told


def test_a_checkpoint_that_is_not_there_is_told_without_torch(tmp_path):
    told = ends([["info", "no such folder"], ["up", "robot", "part:=legs"]], tmp_path)
    assert {end for end, _ in told.values()} == {"2"}, told


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (None, "cannot be read"),
        ("{", "is no JSON"),
        ("[]", "instead of an object"),
        ('{"model_type": "llama"}', "model_type is 'llama'"),
    ],
)
def test_a_folder_of_no_network_that_is_known_is_told_without_torch(config, words, tmp_path):
    folder = tmp_path / "other"
    folder.mkdir()
    if config is not None:
        (folder / "config.json").write_text(config)
    commands = [["info", str(folder)]]
    if config is not None:
        commands.append(["info", str(folder / "config.json")])
    told = ends(commands, tmp_path)
    assert {end for end, _ in told.values()} == {"2"}, told
    assert all(words in said for _, said in told.values()), told


@pytest.mark.ros
@pytest.mark.slow  # each looks for a graph for seconds
def test_beside_a_graph_and_until_the_nodes_start_there_is_no_torch(
    ros_domain, one_house, tmp_path
):
    pytest.importorskip("janusvln_msgs", reason="needs the interfaces: scripts/build_msgs.sh")
    domain = ["--domain", str(ros_domain)]
    beside = [["status"], ["arm"], ["go", "to the door"], ["watch"], ["stop"], ["doctor"]]
    told = ends([words + domain for words in beside], tmp_path)
    assert {end for end, _ in told.values()} == {"1"}, told
    starting = [["up", "robot", *domain], ["up", "simulation", *domain]]
    told = ends([*starting, ["demo", "--data", str(one_house)]], tmp_path)
    assert {end for end, _ in told.values()} == {"the nodes start"}, told

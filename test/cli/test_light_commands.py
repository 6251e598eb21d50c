"""No command loads torch, which takes seconds, that does not compute."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from janusvln_ros.cli.main import SUBCOMMANDS

ROOT = Path(__file__).parents[2]

PROGRAM = """
import contextlib, importlib.abc, io, json, sys

class Refused(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "torchao"):
            raise AssertionError(f"{name} is imported")

sys.meta_path.insert(0, Refused())
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
    told[" ".join(words)] = [end, said.getvalue()]
print(json.dumps(told))
"""


def ends(commands, *before):
    """How each of the commands ends in a process that cannot import torch."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(commands), *before],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return json.loads(done.stdout)


def test_help_is_told_without_torch():
    told = ends([["--help"], ["--version"], *([name, "--help"] for name in SUBCOMMANDS)])
    assert {end for end, _ in told.values()} == {"0"}, told


def test_graphs_are_told_without_torch():
    told = ends(
        [
            ["up", "robot", "--arguments"],
            ["up", "robot", "--json"],
            ["up", "simulation", "mode:=continuous", "--json"],
        ]
    )
    assert {end for end, _ in told.values()} == {"0"}, told


@pytest.mark.ros
def test_beside_a_graph_and_until_the_nodes_start_there_is_no_torch(ros_domain, one_house):
    pytest.importorskip("janusvln_msgs", reason="needs the interfaces: scripts/build_msgs.sh")
    domain = ["--domain", str(ros_domain)]
    beside = [["status"], ["arm"], ["go", "to the door"], ["watch"], ["stop"], ["doctor"]]
    starting = [["up", "robot"], ["up", "simulation"], ["demo", "--data", str(one_house)]]
    told = ends([words + domain for words in beside])
    assert {end for end, _ in told.values()} == {"1"}, told
    told = ends([words + domain for words in starting])
    assert {end for end, _ in told.values()} == {"the nodes start"}, told

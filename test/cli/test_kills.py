"""
A command that is killed loses nothing: called again it goes on, or begins anew, and ends with what
an undisturbed one writes; what lies under its own name in between is whole.
"""

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMANDS = {
    "collect": [
        *["collect", "--data", "DATA", "--split", "val_unseen", "--episodes", "6"],
        *["--noise", "0.2", "--workers", "2", "--out"],
    ],
    "dagger": [
        *["dagger", "--data", "DATA", "--split", "val_unseen", "--episodes", "4", "--round", "1"],
        *["--scheme", "classic", "--set", "rules.max_steps=12", "--workers", "2", "--out"],
    ],
    "data": ["data", "--views", "4", "--walks", "1", "--frames", "4", "--out"],
    "import-bag": ["import-bag", "BAG", "--out"],
    "replay": ["replay", "BAG", "--boundaries", "odom", "--out"],
    "render": ["render", "BAG", "--out"],
}
KILLS = 6


@pytest.fixture(scope="module")
def bag(bags, tmp_path_factory):
    actions = [1, 1, 2, 1, 3] * 12
    return bags.write_drive(tmp_path_factory.mktemp("bag") / "drive.mcap", actions, size=(48, 64))


def start(name, data, bag, out):
    words = [word.replace("DATA", str(data)).replace("BAG", str(bag)) for word in COMMANDS[name]]
    return subprocess.Popen(
        [sys.executable, "-m", "janusvln_ros.cli.main", *words, str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,  # its workers die with it
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def files(folder):
    """Every file that lies under its own name, hidden ones aside."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [p for p in paths if not any(part[0] == "." for part in p.relative_to(folder).parts)]


def read(path):
    """The content of a file without what is of its time; raises where it is cut short."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    if path.suffix == ".json" or path.name.endswith(".json.gz"):
        document = json.loads(content)
        if isinstance(document, dict):
            document.pop("speed", None)  # of a replay, against the clock
        return document
    if path.suffix == ".jsonl":
        lines = list(map(json.loads, content.splitlines()))
        if (
            "journal" in path.name
        ):  # an episode that was done again is there again; its last counts
            return {(line["scene_id"], line["episode_id"]): line for line in lines}
        return sorted(map(json.dumps, lines))
    return content


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_any_moment_it_ends_with_what_an_undisturbed_one_writes(
    name, one_house, bag, tmp_path
):
    ending = Path("video.png") if name == "render" else Path()
    whole, broken = tmp_path / "whole" / ending, tmp_path / "broken" / ending
    for out in (whole, broken):
        out.parent.mkdir(exist_ok=True)
    began = time.monotonic()
    process = start(name, one_house, bag, whole)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said.decode()
    took, dice, killed = time.monotonic() - began, random.Random(name), 0
    for _ in range(KILLS):
        process = start(name, one_house, bag, broken)
        time.sleep(took * dice.uniform(0.1, 0.9))
        if process.poll() is None:
            killed += 1
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        for path in files(tmp_path / "broken"):
            if "journal" not in path.name:  # whose last line may be cut off
                read(path)
    assert killed, (took, said)
    process = start(name, one_house, bag, broken)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said.decode()
    roots = [tmp_path / "whole", tmp_path / "broken"]
    names = [[path.relative_to(root) for path in files(root)] for root in roots]
    assert names[0] == names[1]
    for path in names[0]:
        assert read(roots[0] / path) == read(roots[1] / path), path

"""
A checkpoint of the published sizes, 9.2 G parameters, loads into little more than its weights.

Slow: it is written once, 18.5 GB, and read three times. ``JANUSVLN_REAL_SIZE`` names a folder that
holds one already, or where it is to be kept.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from janusvln_ros.cli.main import main
from janusvln_ros.model.room import machine_room

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    kept = os.environ.get("JANUSVLN_REAL_SIZE")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("real") / "full"
    if not (folder / "config.json").is_file():
        free = shutil.disk_usage(folder.parent).free
        if free < 25 * 10**9:
            pytest.skip(f"needs 25 GB of disk, {free / 1e9:.0f} GB are free in {folder.parent}")
        full = str(ROOT / "benchmarks" / "configs" / "full")
        assert main(["bench", "--config", full, "--memory", "dual", "--write", str(folder)]) == 0
    yield folder
    if not kept:
        shutil.rmtree(folder)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "precision, most, needs", [("bfloat16", 1.05, 22), ("int8", 0.75, 15), ("int4", 0.60, 12)]
)
def test_loading_takes_little_more_than_the_weights(checkpoint, precision, most, needs):
    free = machine_room().free
    if free < needs * 10**9:
        pytest.skip(f"needs {needs} GB of memory, {free / 1e9:.0f} GB are free")
    script = str(ROOT / "benchmarks" / "real_size.py")
    command = [sys.executable, script, str(checkpoint), "--precision", precision]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    loaded, *steps = map(json.loads, done.stdout.splitlines())
    assert loaded["of_files"] <= most and len(steps) == 3
    assert all(step["step_peak_bytes"] <= loaded["counted_bytes"] for step in steps)

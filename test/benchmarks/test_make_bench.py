"""``make bench`` runs to its end on a new clone."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def lists():
    """The scripts that ``make bench`` runs, as make says."""
    told = subprocess.run(
        ["make", "-n", "bench", "VENV=.venv"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(re.findall(r"benchmarks/\w+\.py", told.stdout))


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_every_benchmark_but_the_studies_runs_and_needs_nothing_that_a_clone_lacks():
    scripts = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("benchmarks/*.py")}
    left_out = {"ablations.py", "held_out.py", "robustness.py", "real_size.py"}
    left_out |= {"report.py", "step_work.py"}
    assert lists() == scripts - {f"benchmarks/{name}" for name in left_out}
    for script in lists():
        for call in ast.walk(ast.parse((ROOT / script).read_text())):
            if not (
                isinstance(call, ast.Call) and ast.unparse(call.func).endswith("add_argument")
            ):
                continue
            given = {word.arg: ast.unparse(word.value) for word in call.keywords}
            optional = (
                ast.literal_eval(call.args[0]).startswith("-") or given.get("nargs") == "'?'"
            )
            assert optional and given.get("required") != "True", f"{script}: {ast.unparse(call)}"


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_one_that_fails_does_not_end_the_others_and_is_named(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/setup.sh").write_text("#!/bin/sh\n")
    (tmp_path / "scripts/setup.sh").chmod(0o755)
    (tmp_path / "benchmarks").mkdir()
    for name, code in (("a", 0), ("b", 3), ("c", 0)):
        (tmp_path / f"benchmarks/{name}.py").write_text(f"exit {code}\n")
    done = subprocess.run(
        ["make", "bench", "PYTHON_BIN=/bin/sh"], cwd=tmp_path, capture_output=True, text=True
    )
    assert re.findall(r"== benchmarks/(\w)", done.stdout) == ["a", "b", "c"]
    assert done.returncode != 0 and "failed: benchmarks/b.py" in done.stderr


def test_a_busy_machine_is_told_by_the_rendering_benchmark_and_is_no_failure():
    tree = ast.parse((ROOT / "benchmarks/rendering.py").read_text())
    main = next(f for f in tree.body if isinstance(f, ast.FunctionDef) and f.name == "main")
    assert ast.unparse(main.returns) == "None" and "bars_missed" in ast.unparse(main)


SMALL = {
    "rendering": "--seconds 0.1",
    "node_overhead": "--steps 3",
    "ros_overhead": "--steps 3 --data DATA",
    "settle": "--steps 2 --data DATA",
    "import_drive": "--episodes 1 --data DATA",
    "training_cost": "--frames 16 --repeats 1 --threads 1",
    "model_steps": "--config config/model/tiny.json --frames 2 --long 3 --no-docs",
    "gpu_steps": "--dry",
    "device_parity": "--dry --frames 2",
    "device_training": "--dry",
    "guard": "--trials 1 --homes 1 --no-docs",
    "busy": "--loops 1 --trials 1 --means nothing --data DATA",
    "two_computers": "--steps 2 --links 0ms --data DATA",
}
"""How each takes seconds; bags.py and image_transport.py take their time from the clock."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.mark.slow
@pytest.mark.ros
@pytest.mark.parametrize("script", SMALL)
def test_each_runs_with_the_code_as_it_is(script, data):
    pytest.importorskip("rclpy")
    words = SMALL[script].replace("DATA", str(data)).split()
    done = subprocess.run(
        [sys.executable, f"benchmarks/{script}.py", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-2000:]

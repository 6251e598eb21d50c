"""What set-up says before it downloads, and which torch it takes."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts" / "downloads.py"


@pytest.fixture
def downloads():
    spec = importlib.util.spec_from_file_location("downloads", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def entry(name, version, url):
    return {"metadata": {"name": name, "version": version}, "download_info": {"url": url}}


REPORT = {
    "install": [
        entry("torch", "2.13.0", "https://x/torch.whl"),
        entry("nvidia-cublas", "13.1", "https://x/cublas.whl"),
        entry("tqdm", "4.70.1", "https://x/tqdm.whl"),
        entry("empy", "3.3.4", "https://x/empy.tar.gz"),
    ]
}
SIZES = {"torch": 527_000_000, "cublas": 1_423_000_000, "tqdm": 78_000}


def size(url):
    return SIZES.get(Path(url).stem)


def test_what_will_be_downloaded_is_told_with_its_size_and_what_makes_it_large(downloads):
    told = downloads.sentence(REPORT, size)
    assert told.startswith("4 packages to download, 2.0 GB and 1 of unknown size (the largest: ")
    assert "nvidia-cublas 13.1 1.4 GB, torch 2.13.0 527 MB, tqdm 4.70.1 0.1 MB)" in told
    assert told.endswith("; 1.4 GB of it are libraries for NVIDIA cards")


def test_a_build_for_cpus_is_not_told_to_hold_libraries_for_nvidia_cards(downloads):
    told = downloads.sentence({"install": [entry("torch", "2.13.0+cpu", "u/torch")]}, size)
    assert told == "1 packages to download, 527 MB (the largest: torch 2.13.0+cpu 527 MB)"
    assert downloads.sentence({"install": []}, size) == "nothing to download"


def test_what_was_told_is_what_is_installed(tmp_path):
    wheel = tmp_path / "a b.whl"
    wheel.write_bytes(bytes(2_000_000))
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"install": [entry("a", "1.0+cpu", wheel.as_uri())]}))
    done = subprocess.run(
        [sys.executable, SCRIPT, report], capture_output=True, text=True, check=True
    )
    assert done.stdout == "a==1.0+cpu\n"
    assert done.stderr == "setup: 1 packages to download, 2 MB (the largest: a 1.0+cpu 2 MB)\n"


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"TORCH": "gpu"}, "TORCH is 'gpu': give cpu or cuda"),
        ({"ROS_WHEELS": "lyrical"}, "ROS_WHEELS is 'lyrical': give jazzy or kilted"),
    ],
)
def test_a_wrong_option_of_setup_is_named_before_anything_is_made(variables, words, tmp_path):
    done = subprocess.run(
        [ROOT / "scripts" / "setup.sh", tmp_path / "venv"],
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and words in done.stderr
    assert not (tmp_path / "venv").exists()


STAND_IN = """#!{python}
import json, os, sys
from pathlib import Path

words = sys.argv[1:]
with open({log!r}, "a") as log:
    log.write(json.dumps(words) + "\\n")
if words[0].endswith("downloads.py"):
    os.execv({python!r}, [{python!r}, *words])
if "--no-deps" in words and "--dry-run" in words:  # is there such a build?
    sys.exit({answer!r} not in " ".join(words))
if "--report" in words:
    Path(words[words.index("--report") + 1]).write_text('{{"install": []}}')
if words[0] == "-c":  # building the interfaces: far enough
    sys.exit(1)
"""
"""The interpreter of a virtual environment in which pip finds a build where ``answer`` is said."""

CARD = any(map(os.path.exists, ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg")))


@pytest.fixture
def set_up(tmp_path):
    """A function that runs set-up with such an interpreter: its words for pip, and its output."""

    def run(answer, **variables):
        python, log = tmp_path / "venv/bin/python", tmp_path / "log"
        python.parent.mkdir(parents=True)
        python.write_text(STAND_IN.format(python=sys.executable, log=str(log), answer=answer))
        python.chmod(0o755)
        path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
        done = subprocess.run(
            [ROOT / "scripts" / "setup.sh", tmp_path / "venv"],
            env={"PATH": path, "PYTHON": sys.executable, **variables},
            capture_output=True,
            text=True,
        )
        calls = [json.loads(line) for line in log.read_text().splitlines()]
        return next((c for c in calls if "--report" in c), None), done.stdout + done.stderr

    return run


BUILD = "torch==" + re.search(r"torch==(.*)", (ROOT / "requirements/base.txt").read_text())[1]


def test_torchs_build_for_cpus_is_taken_from_where_pip_looks_anyway(set_up):
    words, _ = set_up(f"{BUILD}+cpu", TORCH="cpu")
    assert f"{BUILD}+cpu" in words and "--find-links" not in words


def test_torchs_build_for_cpus_is_taken_from_torchs_index_or_the_one_that_is_named(set_up):
    words, _ = set_up(
        "--find-links https://mirror/cpu/torch/", TORCH="cpu", TORCH_INDEX="https://mirror/cpu"
    )
    assert words[-3:] == [f"{BUILD}+cpu", "--find-links", "https://mirror/cpu/torch/"]


def test_a_build_for_cpus_that_was_asked_for_and_cannot_be_had_ends_set_up(set_up):
    words, told = set_up("nowhere", TORCH="cpu")
    assert words is None and f"has no {BUILD}+cpu" in told and "TORCH_INDEX=URL" in told


@pytest.mark.skipif(CARD, reason="this machine has an NVIDIA card")
def test_without_a_card_and_without_torchs_index_the_large_build_is_taken_aloud(set_up):
    words, told = set_up("nowhere")
    assert not [word for word in words if word.endswith("+cpu")]
    assert "cannot be reached: taking the build for NVIDIA cards" in told


def test_for_a_card_no_build_for_cpus_is_looked_for(set_up):
    words, _ = set_up("torch", TORCH="cuda")
    assert not [word for word in words if word.endswith("+cpu")]

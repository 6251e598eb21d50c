"""
The real habitat-sim behind our server: its recorded results again, ours beside it, and the metrics
of habitat-lab. ``make test-habitat`` runs it where JANUSVLN_HABITAT_PYTHON names an interpreter.
"""

import json
import os
import subprocess

import numpy as np
import pytest
from PIL import Image

from janusvln_ros.actions import Action
from janusvln_ros.cli.main import main
from janusvln_ros.data.episodes import read_episodes
from sim_bridge import make_env

PYTHON = os.environ.get("JANUSVLN_HABITAT_PYTHON", "")
if not PYTHON:
    pytest.skip(
        "JANUSVLN_HABITAT_PYTHON names no interpreter with habitat-sim (docs/simulation.md)",
        allow_module_level=True,
    )

GPU = int(os.environ.get("JANUSVLN_HABITAT_GPU", "-1"))


@pytest.fixture(scope="module")
def real(habitat, house_a):
    env = make_env("habitat", scene=house_a, data_dir=habitat, gpu=GPU, width=224, height=168)
    yield env
    env.close()


def test_it_says_which_version_it_is(real):
    assert real.versions["habitat_sim"][0].isdigit() and real.versions["python"][0] == "3"


def test_pictures_are_the_recorded_ones(habitat, house_a):
    poses = json.loads((habitat / "sensors" / "poses.json").read_text())["poses"]
    with np.load(habitat / "sensors" / "depth.npz") as depths:
        for width, height in sorted({(p["width"], p["height"]) for p in poses}):
            env = make_env("habitat", scene=house_a, gpu=GPU, width=width, height=height, hfov=79)
            for pose in (p for p in poses if (p["width"], p["height"]) == (width, height)):
                env.set_state(pose["position"], pose["rotation_xyzw"])
                seen = env.render()
                image = np.asarray(Image.open(habitat / "sensors" / pose["rgb"]).convert("RGB"))
                assert np.abs(seen.rgb.astype(int) - image).mean() < 0.5
                off = np.abs(seen.depth - depths[pose["depth"]])
                assert np.median(off) < 0.001 and np.quantile(off, 0.99) < 0.01
            env.close()


def test_the_walkable_surface_is_the_recorded_one(real, habitat):
    with np.load(habitat / "navmesh" / "navmesh.npz") as file:
        recorded = dict(file)
    agrees = [
        real.is_navigable(p) == bool(navigable)
        for p, navigable in zip(recorded["navigable_points"], recorded["navigable"], strict=True)
    ]
    assert np.mean(agrees) > 0.99
    pairs = zip(
        recorded["geodesic_start"],
        recorded["geodesic_end"],
        recorded["geodesic_distance"],
        strict=True,
    )
    for start, end, distance in pairs:
        assert real.geodesic_distance(start, end) == pytest.approx(float(distance), abs=0.01)


def test_it_moves_as_the_built_in_simulator_does(real, habitat, house_a):
    houses = make_env("houses", scene=house_a, data_dir=habitat, width=224, height=168)
    episode = read_episodes(habitat, "r2r", "val_unseen").episodes[0]
    for env in (real, houses):
        env.reset(episode)
    for _ in range(60):
        action = houses.expert_action(episode.goal_position, 0.25)
        there, here = real.step(action), houses.step(action)
        assert np.abs(there.position - here.position).max() < 0.25
        if action == Action.STOP:
            break
    assert real.restarts == 0
    houses.close()


def test_habitat_lab_measures_what_we_measure(tmp_path, habitat, capsys):
    known = subprocess.run([PYTHON, "-c", "import habitat"], check=False, capture_output=True)
    if known.returncode:
        pytest.skip(f"{PYTHON} has no habitat-lab: pip install habitat-lab of the same version")
    words = ["evaluate", "expert", "--dataset", "r2r", "--data", str(habitat)]
    words += ["--set", f"env.options.gpu={GPU}", "--out", str(tmp_path / "out")]
    assert main([*words, "--verify", "habitat-lab"]) == 0, capsys.readouterr().err

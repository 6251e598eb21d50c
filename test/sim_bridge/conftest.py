from pathlib import Path

import pytest

from sim_bridge import make_env

HABITAT = Path(__file__).resolve().parents[1] / "data" / "habitat"


@pytest.fixture(scope="session")
def habitat():
    """The folder of habitat-sim's results."""
    return HABITAT


@pytest.fixture(scope="session")
def house_a():
    return HABITAT / "scene_datasets" / "mp3d" / "house_a" / "house_a.glb"


@pytest.fixture
def env(house_a):
    env = make_env("houses", scene=house_a, data_dir=HABITAT, width=64, height=48)
    yield env
    env.close()

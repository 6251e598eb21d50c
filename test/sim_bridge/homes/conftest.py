import pytest

from sim_bridge.homes.dataset import home_seed
from sim_bridge.homes.episodes import make_episodes, make_home


@pytest.fixture(scope="session")
def homes():
    """A dozen training homes with their episodes."""
    drawn = [make_home(f"house_{i:05d}", home_seed(11, "house", i)) for i in range(12)]
    return [(home, make_episodes(home, 8, 0, unseen=False)) for home in drawn]


@pytest.fixture(scope="session")
def scenes(tmp_path_factory, homes):
    """A data folder with the scenes of those homes."""
    folder = tmp_path_factory.mktemp("data")
    for home, _ in homes:
        path = folder / "scene_datasets" / home.scene_id
        path.parent.mkdir(parents=True)
        path.write_bytes(home.glb)
    return folder

"""A data folder with a few generated houses, made once for all tests of commands."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def small_houses(tmp_path_factory) -> Path:
    from sim_bridge.homes import ensure_split

    data_dir = tmp_path_factory.mktemp("houses")
    for split in ("train", "val_unseen"):
        ensure_split(data_dir, split, homes=3, episodes_per_home=6, rooms=(4, 5), jobs=1)
    return data_dir

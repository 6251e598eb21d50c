"""
A network of a few thousand parameters and a handful of made-up drives: enough to train in seconds.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from janusvln_ros.data.samples import write_set
from janusvln_ros.data.trajectories import Trajectory
from janusvln_ros.training.recipes import Recipe, load_recipe

ROOT = Path(__file__).resolve().parents[2]
TOKENIZER = ROOT / "config" / "model" / "tiny"


@pytest.fixture(scope="session")
def micro(tmp_path_factory) -> Path:
    """Settings of a micro network with the shipped tokenizer's ids."""
    values = json.loads((ROOT / "config" / "model" / "tiny.json").read_text())
    values |= {
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    values["vggt_merger_hidden_dim"] = 32
    values["rope_scaling"] = {"type": "mrope", "mrope_section": [2, 2, 2]}
    values["vision_config"] |= {
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "out_hidden_size": 48,
        "fullatt_block_indexes": [0],
    }
    values["vggt_config"] |= {
        "embed_dim": 32,
        "num_heads": 2,
        "depth": 2,
        "dino_depth": 1,
        "dino_num_heads": 2,
    }
    values["navigation"] |= {"initial_frames": 2, "window_frames": 3}
    path = tmp_path_factory.mktemp("micro") / "micro.json"
    path.write_text(json.dumps(values))
    return path


@pytest.fixture(scope="session")
def drives(tmp_path_factory) -> Path:
    """A set of eight drives of 4 to 11 pictures."""
    folder = tmp_path_factory.mktemp("drives")
    rng = np.random.default_rng(0)
    trajectories = []
    for k in range(8):
        rgb = folder / "images" / f"drive_{k}" / "rgb"
        rgb.mkdir(parents=True)
        n = 4 + k
        for i in range(n):
            Image.fromarray(rng.integers(0, 255, (42, 56, 3), np.uint8)).resize((112, 84)).save(
                rgb / f"{i:03d}.jpg"
            )
        actions = (-1, *rng.integers(1, 4, n - 1).tolist())
        trajectories.append(
            Trajectory(
                k,
                f"images/drive_{k}",
                f"go to the {['red', 'blue'][k % 2]} lamp",
                actions,
                None,
                tuple(sorted(rgb.iterdir())),
            )
        )
    write_set([("houses", trajectories)], folder / "set.jsonl")
    return folder / "set.jsonl"


@pytest.fixture
def recipe(micro, drives, tmp_path):
    """A function that makes a short recipe; keyword arguments are fields."""

    def make(**fields) -> Recipe:
        values = {
            "model": str(micro),
            "encoders": "",
            "data": f"[{drives}]",
            "eval_data": "[]",
            "batch": 2,
            "max_steps": 4,
            "logging_steps": 1,
            "save_steps": 100,
            "bf16": "false",
            "tensorboard": "false",
            "threads": 1,
            "output": str(tmp_path / "run"),
            "tokenizer": str(TOKENIZER),
            "learning_rate": "3e-3",
        }
        values |= {
            name: str(value).lower() if isinstance(value, bool) else value
            for name, value in fields.items()
        }
        return load_recipe("tiny", [f"{name}={value}" for name, value in values.items()])

    return make

"""
A published-layout checkpoint with its expected outputs, and a small random network of other sizes,
for the navigator's tests.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from janusvln_ros.model import JanusVLN, JanusVLNConfig
from janusvln_ros.policy.tokenizer import load_tokenizer

DATA = Path(__file__).resolve().parents[1] / "data" / "model"


@pytest.fixture(scope="session")
def tiny():
    return DATA / "tiny"


@pytest.fixture(scope="session")
def expected():
    return load_file(DATA / "tiny_expected.safetensors")


@pytest.fixture(scope="session")
def facts():
    return json.loads((DATA / "tiny_expected.json").read_text())


@pytest.fixture(scope="session")
def tokenizer(tiny):
    return load_tokenizer(tiny)


@pytest.fixture(scope="session")
def network(tiny):
    """
    Random, of sizes unlike the published checkpoint's; weights large enough that every frame,
    layer and position shows in the scores.
    """
    values = json.loads((tiny / "config.json").read_text()) | {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        "lam": 0.7,
        "vggt_merger_hidden_dim": 40,
        "vggt_config": {
            "embed_dim": 32,
            "num_heads": 2,
            "depth": 3,
            "dino_depth": 2,
            "dino_num_heads": 2,
            "image_size": 70,
            "num_register_tokens": 2,
        },
        "navigation": {
            "num_history": 4,
            "image_width": 84,
            "initial_frames": 2,
            "window_frames": 3,
            "max_new_tokens": 3,
        },
    }
    values["vision_config"] |= {
        "depth": 2,
        "hidden_size": 32,
        "num_heads": 2,
        "intermediate_size": 48,
        "out_hidden_size": 64,
        "fullatt_block_indexes": [1],
    }
    model = JanusVLN(JanusVLNConfig.from_dict(values))
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        if parameter.dim() >= 2:
            torch.nn.init.normal_(
                parameter, std=1.5 / parameter[0].numel() ** 0.5, generator=generator
            )
    torch.nn.init.normal_(model.language.embed_tokens.weight, generator=generator)
    return model.eval()


@pytest.fixture(scope="session")
def frames():
    """20 frames, uint8 [48, 64, 3]: blobs that move, so that neighbours differ."""
    rng = np.random.default_rng(3)
    return rng.integers(0, 256, (20, 48, 64, 3), dtype=np.uint8)

"""
A small checkpoint in the published layout, and what the published code computes with it (see
test/data/model/README.md).
"""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from janusvln_ros.model import JanusVLN

DATA = Path(__file__).resolve().parents[1] / "data" / "model"


@pytest.fixture(scope="session")
def data():
    return DATA


@pytest.fixture(scope="session")
def tiny(data):
    return data / "tiny"


@pytest.fixture(scope="session")
def expected(data):
    return load_file(data / "tiny_expected.safetensors")


@pytest.fixture(scope="session")
def facts(data):
    return json.loads((data / "tiny_expected.json").read_text())


@pytest.fixture
def model(tiny):
    return JanusVLN.from_pretrained(tiny)

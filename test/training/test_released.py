"""
Training in the released mode: the published samples, loss, logits and gradients, and what is
frozen.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from janusvln_ros.actions import Action
from janusvln_ros.data.trajectories import Trajectory
from janusvln_ros.errors import InputError
from janusvln_ros.model import JanusVLN
from janusvln_ros.model.adapter import published_name
from janusvln_ros.training.recipes import load_recipe
from janusvln_ros.training.released import (
    published_samples,
    sample_logits,
    sample_loss,
    write_published,
)
from janusvln_ros.training.trainer import freeze

DATA = Path(__file__).resolve().parents[1] / "data"
CASES = json.loads((DATA / "training" / "create_data_cases.json").read_text())

MEAN, STD = (
    torch.tensor([0.48145466, 0.4578275, 0.40821073]),
    torch.tensor([0.26862954, 0.26130258, 0.27577711]),
)


@pytest.fixture(scope="module")
def expected():
    return load_file(DATA / "model" / "tiny_expected.safetensors")


@pytest.fixture
def model():
    """With those parts left to learn that the published training trains."""
    model = JanusVLN.from_pretrained(DATA / "model" / "tiny")
    freeze(model, load_recipe("base"))
    return model


def pictures(expected, frames):
    """
    Both encoders' inputs of the first frames, 168 wide; written out here, as the policy's own are
    tested elsewhere.
    """
    resized = [
        np.asarray(Image.fromarray(f.numpy()).resize((168, 126), Image.Resampling.BICUBIC))
        for f in expected["frames_raw_uint8"][:frames]
    ]
    images = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float() / 255
    normal = (images[:, :, :112] - MEAN[:, None, None]) / STD[:, None, None]
    # [k, 3, G, g, M, m, 14, 14]
    groups = normal.unfold(2, 28, 28).unfold(3, 28, 28).unfold(4, 14, 14).unfold(5, 14, 14)
    rows = (
        groups.permute(0, 2, 3, 4, 5, 1, 6, 7)
        .unsqueeze(6)
        .expand(-1, -1, -1, -1, -1, -1, 2, -1, -1)
    )
    return images, rows.reshape(-1, 1176)


@pytest.mark.parametrize("frames", [1, 5])
def test_loss_logits_and_gradients_are_the_published_ones(model, expected, frames):
    prefix = f"train{frames}."
    model.train()
    images, rows = pictures(expected, frames)
    logits = sample_logits(
        model, images, rows, expected[prefix + "input_ids"], expected[prefix + "labels"]
    )
    torch.testing.assert_close(
        logits, expected[prefix + "logits_supervised_rows"], atol=1e-4, rtol=1e-4
    )
    loss = sample_loss(logits, expected[prefix + "labels"])
    torch.testing.assert_close(loss, expected[prefix + "loss"].squeeze(), atol=1e-5, rtol=1e-5)
    loss.backward()
    gradients = {
        published_name(name): parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    published = {
        key.removeprefix(prefix + "grad."): value
        for key, value in expected.items()
        if key.startswith(prefix + "grad.")
    }
    assert published
    for name, gradient in published.items():
        torch.testing.assert_close(
            gradients[name],
            gradient,
            atol=1e-5,
            rtol=1e-4,
            msg=lambda m, name=name: f"{name}: {m}",
        )


def test_both_encoders_are_frozen_and_everything_else_learns(model, expected):
    images, rows = pictures(expected, 5)
    sample_loss(
        sample_logits(
            model, images, rows, expected["train5.input_ids"], expected["train5.labels"]
        ),
        expected["train5.labels"],
    ).backward()
    learns = {
        published_name(name)
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    frozen = {
        published_name(name)
        for name, parameter in model.named_parameters()
        if parameter.grad is None
    }
    assert all(
        name.startswith(("vggt.", "visual.blocks.", "visual.patch_embed.")) for name in frozen
    )
    assert all(
        name.startswith(("model.", "lm_head.", "merger.", "visual.merger.")) for name in learns
    )


def test_pictures_that_do_not_fit_the_prompt_are_refused(model, expected):
    images, rows = pictures(expected, 4)
    with pytest.raises(InputError, match="image tokens"):
        sample_logits(model, images, rows, expected["train5.input_ids"], expected["train5.labels"])


def test_sample_without_a_label_is_refused(model, expected):
    images, rows = pictures(expected, 1)
    with pytest.raises(InputError, match="supervised"):
        sample_logits(
            model,
            images,
            rows,
            expected["train1.input_ids"],
            torch.full_like(expected["train1.labels"], -100),
        )


def test_samples_of_named_frames_are_the_published_ones():
    case = CASES["vlnce"]
    frames = tuple(Path("/frames/7") / name for name in case["files"])
    actions = [Action[name.split("_", 2)[2].split(".")[0].upper()] for name in case["files"]]
    trajectory = Trajectory(
        7,
        "images/7",
        case["episode"]["instruction"]["instruction_text"],
        (-1, *map(int, actions[:-1])),
        None,
        frames,
    )
    assert list(published_samples(trajectory, "/frames", strip=True)) == case["samples"]


def test_samples_of_annotated_frames_are_the_published_ones_with_the_last_frame_labelled_stop():
    case = CASES["dagger_or_scalevln"]
    episode = case["episode"]
    frames = tuple(Path("/frames") / "sc_r2r_000007" / "rgb" / name for name in case["files"])
    trajectory = Trajectory(
        7, episode["video"], episode["instructions"][0], tuple(episode["actions"]), None, frames
    )
    assert list(published_samples(trajectory, "/frames", strip=False)) == case["samples"]


def test_published_list_is_what_json_reads(tmp_path):
    rgb = tmp_path / "images" / "a" / "rgb"
    frames = tuple(rgb / f"{i:03d}.jpg" for i in range(4))
    trajectory = Trajectory(7, "images/a", "go", (-1, 1, 2, 3), None, frames)
    count = write_published(
        published_samples(trajectory, tmp_path, strip=False), tmp_path / "list.json"
    )
    samples = json.loads((tmp_path / "list.json").read_text())
    assert count == len(samples) == 4
    assert samples[3]["images"] == [f"images/a/rgb/{i:03d}.jpg" for i in range(4)]

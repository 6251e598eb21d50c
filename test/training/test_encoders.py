"""
Teaching small encoders to see: the geometry they are taught is right, and the gate can tell
geometry from none.
"""

import math

import numpy as np
import pytest
import torch

from janusvln_ros.errors import InputError
from janusvln_ros.model import JanusVLN, JanusVLNConfig
from janusvln_ros.policy.preprocess import pixel_rows
from janusvln_ros.training.encoders import (
    EncoderTask,
    Views,
    ViewSamples,
    collate_views,
    gate,
    merge_order,
    mirrored,
    point_maps,
    relative_poses,
    right_share,
    share_loss,
    vision_patches,
)
from sim_bridge.homes.colours import WALL_RGB


@pytest.fixture(scope="module")
def views(tmp_path_factory) -> Views:
    make_views = pytest.importorskip("janusvln_ros.rollout.views").make_views
    folder = tmp_path_factory.mktemp("views")
    make_views(folder, homes=2, walks=2, steps=6, image_width=112)
    return Views.load(folder)


def test_pose_relative_to_the_first_frame_is_right_ahead_and_turn():
    # Looking along -x (yaw 90 degrees): ahead is -x, right is -z. Then two metres ahead, one to
    # the right, turned left by 30 degrees.
    poses = torch.tensor([[[5.0, 7.0, math.pi / 2], [3.0, 6.0, math.pi / 2 + math.pi / 6]]])
    right, ahead, cos, sin = relative_poses(poses)[0, 1].tolist()
    assert (right, ahead) == pytest.approx((1.0, 2.0), abs=1e-6)
    assert (cos, sin) == pytest.approx((math.cos(math.pi / 6), math.sin(math.pi / 6)), abs=1e-6)


def test_points_of_one_place_agree_between_frames():
    # A wall two metres ahead of the first frame; the robot walks one metre towards it and turns
    # left by 90 degrees: the wall is then one metre to its right.
    relative = torch.tensor([[[0.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0]]])
    depth = torch.tensor([2.0, 1.0]).log().view(1, 2, 1, 1).expand(1, 2, 2, 2)
    cameras = torch.tensor([1.25, 0.0, 90.0]).expand(1, 2, 3)
    points = point_maps(depth, relative, cameras)
    assert points[0, 0, :, :, 1].tolist() == [[2.0, 2.0], [2.0, 2.0]]
    assert points[0, 0, 0, 1].tolist() == pytest.approx([1.0, 2.0, 1.0])
    # The second frame looks to the first one's left: its ahead (1 m) is -1 m right, its right (0.5
    # m) is ahead.
    assert points[0, 1, 0, 1].tolist() == pytest.approx([-1.0, 1.5, 0.5], abs=1e-6)


def test_points_of_a_tilted_camera_are_level():
    # Straight down the optical axis of a camera that looks down by 30 degrees.
    depth = torch.tensor(2.0).log().view(1, 1, 1, 1)
    still = torch.tensor([[[0.0, 0.0, 1.0, 0.0]]])
    point = point_maps(depth, still, torch.tensor([[[0.5, 30.0, 90.0]]]))[0, 0, 0, 0].tolist()
    assert point == pytest.approx([0.0, 2 * math.cos(math.pi / 6), -1.0], abs=1e-6)


def test_patches_are_in_the_order_of_the_vision_tower():
    picture = np.zeros((84, 112, 3), np.uint8)
    for row in range(6):
        for column in range(8):
            picture[row * 14 : row * 14 + 14, column * 14 : column * 14 + 14] = row * 8 + column
    rows, _ = pixel_rows(picture)
    order = np.argsort(np.argsort(rows[:, 0]))
    assert merge_order(np.arange(48).reshape(6, 8, 1))[:, 0].tolist() == order.tolist()


def test_vision_patches_are_what_the_merger_takes(micro):
    model = JanusVLN.from_config(JanusVLNConfig.from_pretrained(micro))
    frames = np.random.default_rng(0).integers(0, 255, (3, 84, 112, 3), np.uint8)
    rows = [pixel_rows(frame) for frame in frames]
    whole = model.encode_vision(
        torch.from_numpy(np.concatenate([r for r, _ in rows])), torch.tensor([g for _, g in rows])
    )
    torch.testing.assert_close(
        model.vision.merger(vision_patches(model, frames).flatten(0, 1)), whole
    )


def test_views_show_what_they_say(views):
    assert views.frames.shape == (4, 6, 84, 112, 3) and views.depth.shape == (4, 6, 6, 8)
    what = [i for i, name in enumerate(views.names) if name.startswith("what:")]
    assert np.abs(views.shares[..., what].sum(-1).astype(int) - 255).max() <= len(what)
    steps = np.linalg.norm(np.diff(views.poses[..., :2], axis=1), axis=-1)
    turns = np.abs(np.degrees(np.diff(views.poses[..., 2], axis=1)))
    assert all(
        np.isclose(s, 0.25, atol=1e-4) ^ np.isclose(t, 15, atol=1e-2)
        for s, t in zip(steps.ravel(), turns.ravel())
    )
    depth = np.exp(views.depth.astype(float))
    assert depth.min() >= 0.1 and depth.max() <= 10.0 and depth.std() > 0.2
    # Patches that show nothing but one room's wall have about the colour that its name says
    # (windows and shades aside).
    patches = views.frames.reshape(4, 6, 6, 14, 8, 14, 3).mean(axis=(3, 5))
    off = []
    for i, name in enumerate(views.names):
        if name.startswith("colour:wall "):
            alone = patches[views.shares[..., i] == 255]
            off += (
                np.abs(alone - WALL_RGB[name.removeprefix("colour:wall ")]).max(axis=-1).tolist()
            )
    assert len(off) > 50 and np.median(off) < 40


def test_views_of_varied_cameras_and_both_generators_show_what_they_say(tmp_path):
    make_views = pytest.importorskip("janusvln_ros.rollout.views").make_views
    size = {"homes": 4, "walks": 2, "steps": 3, "image_width": 112}
    make_views(tmp_path, **size, generators=(1, 2), vary_camera=True)
    views = Views.load(tmp_path)
    assert len({tuple(camera) for camera in views.cameras[:, 0].tolist()}) >= 5
    assert np.abs(views.cameras[..., 1]).max() > 5
    # Were the points off, walls would be taken for nothing in particular.
    other = views.shares[..., views.names.index("what:other")] / 255
    assert other.mean() < 0.05


@pytest.mark.slow
def test_views_are_the_same_however_many_processes_draw_them(views, tmp_path):
    make_views = pytest.importorskip("janusvln_ros.rollout.views").make_views
    make_views(tmp_path, homes=2, walks=2, steps=6, image_width=112, jobs=2)
    for name in ("frames", "depth", "poses", "cameras", "shares"):
        assert np.array_equal(getattr(Views.load(tmp_path), name), getattr(views, name))


def test_a_stretch_in_the_mirror_is_the_walk_of_a_mirrored_world(views):
    sample = {
        name: np.array(getattr(views, name)[0])
        for name in ("frames", "depth", "poses", "cameras", "shares")
    }
    other = mirrored(sample)
    assert np.array_equal(other["frames"][:, :, 0], sample["frames"][:, :, -1])
    assert np.array_equal(other["shares"][:, 2, 0], sample["shares"][:, 2, -1])
    here, there = (
        point_maps(
            torch.from_numpy(one["depth"].astype(np.float32))[None],
            relative_poses(torch.from_numpy(one["poses"])[None]),
            torch.from_numpy(one["cameras"])[None],
        )[0]
        for one in (sample, other)
    )
    exchanged = here.flip(2) * torch.tensor([-1.0, 1.0, 1.0])
    torch.testing.assert_close(there, exchanged, atol=1e-4, rtol=1e-4)


def test_of_the_patches_that_show_a_thing_the_right_ones_are_counted():
    shares = torch.tensor([[0.1, 0.9, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
    logits = torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0], [0.0, 1.0, 2.0], [0.0, 1.0, 2.0]])
    assert right_share(logits, shares, slice(1, 3)).item() == 0.5
    assert right_share(logits, shares, slice(0, 1)).item() == 0.0


def test_a_patch_that_counts_more_moves_the_loss_more():
    shares = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0]])
    even, other = (
        share_loss(logits, shares, torch.tensor(weights)).item()
        for weights in ([1.0, 1.0], [1.0, 3.0])
    )
    right, wrong = math.log1p(math.exp(-2)), math.log1p(math.exp(2))
    assert even == pytest.approx((right + wrong) / 2)
    assert other == pytest.approx((right + 3 * wrong) / 4)


@pytest.mark.parametrize(("vision", "spatial"), [(True, False), (False, True)])
def test_an_encoder_is_taught_alone(views, micro, vision, spatial):
    model = JanusVLN.from_config(JanusVLNConfig.from_pretrained(micro)).train()
    task = EncoderTask(model, views.names, vision=vision, spatial=spatial)
    batch = collate_views([ViewSamples(views, 2, 8, seed=0)[i] for i in range(2)])
    losses = task(**batch)
    losses["loss"].backward()
    assert ("what" in losses, "pose" in losses) == (vision, spatial)
    for part, taught in ((model.vision.blocks, vision), (model.spatial, spatial)):
        assert any(p.grad is not None for p in part.parameters()) == taught


def test_same_sample_is_always_the_same_stretch(views):
    a, b = ViewSamples(views, 3, 10, seed=1), ViewSamples(views, 3, 10, seed=1)
    assert all(np.array_equal(a[4][name], b[4][name]) for name in a[4])
    with pytest.raises(InputError, match="too short"):
        ViewSamples(views, 7, 10, seed=1)


def test_encoders_learn(views, micro):
    torch.manual_seed(0)
    task = EncoderTask(
        JanusVLN.from_config(JanusVLNConfig.from_pretrained(micro)).train(), views.names
    )
    batch = collate_views([ViewSamples(views, 4, 8, seed=0)[i] for i in range(4)])
    optimizer = torch.optim.AdamW(task.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        loss = task(**batch)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.slow
def test_gate_sees_through_an_encoder_that_knows_nothing(views, micro):
    model = JanusVLN.from_config(JanusVLNConfig.from_pretrained(micro))
    blind = gate(model, views, views, frames=4, stretches=16)
    assert set(blind) == {"constant", "dino", "spatial"} and all(
        np.isfinite(value) for row in blind.values() for value in row.values()
    )
    # An encoder whose camera token holds the pose and whose patches hold the depth passes with
    # ease.
    known = iter(())

    def cheat(images, *_):
        sample = next(known)
        tokens = torch.zeros(*sample["depth"].shape[:2], 2 + 48, 64)
        tokens[:, :, 2:, :8] = (
            sample["depth"].flatten(2)[..., None] * torch.linspace(0.5, 1, 8)
            + torch.linspace(-1, 1, 8).sign()
        )
        tokens[:, :, 0, :4] = relative_poses(sample["poses"])
        tokens[:, :, 0, 4:8] = 1 - relative_poses(sample["poses"])
        return tokens

    model.spatial.forward = cheat
    batches = [
        collate_views([ViewSamples(views, 4, 16, seed)[i] for i in range(s, s + 8)])
        for seed in (1, 2)
        for s in (0, 8)
    ]
    known = iter(batches)
    seeing = gate(model, views, views, frames=4, stretches=16)
    assert (
        seeing["spatial"]["depth"] < 0.5 * blind["constant"]["depth"]
        and seeing["spatial"]["turn"] < 0.5 * blind["constant"]["turn"]
    )

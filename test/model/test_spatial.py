"""The spatial encoder: the published numbers, and streaming equal to one pass over an episode."""

import numpy as np
import pytest
import torch
from PIL import Image

from janusvln_ros.errors import InputError
from janusvln_ros.model import spatial as module
from janusvln_ros.model.config import SpatialConfig
from janusvln_ros.model.memory import ALL_FRAMES, FrameWindow
from janusvln_ros.model.spatial import SpatialEncoder, rope_table, rotate

CONFIG = SpatialConfig(
    embed_dim=32,
    num_heads=2,
    depth=4,
    dino_depth=2,
    dino_num_heads=2,
    image_size=56,
    num_register_tokens=2,
)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    encoder = SpatialEncoder(CONFIG)
    for name, parameter in encoder.named_parameters():
        # else the first frame's tokens and the norms would be next to invisible
        if "norm" in name or "token" in name:
            torch.nn.init.normal_(
                parameter, mean=1.0 if name.endswith("norm.weight") else 0.0, std=0.5
            )
    return encoder.eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(20, 3, 42, 56, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def golden_images(expected):
    pictures = [
        Image.fromarray(frame.numpy()).resize((168, 126), Image.Resampling.BICUBIC)
        for frame in expected["frames_raw_uint8"]
    ]
    return (
        torch.from_numpy(np.stack([np.asarray(p) for p in pictures])).permute(0, 3, 1, 2).float()
        / 255
    )


def stream(encoder, images_F3hw, window):
    memory = encoder.new_memory(*images_F3hw.shape[-2:], window)
    rows = []
    for image in images_F3hw:
        rows.append(encoder.encode_frame(image, memory))
        memory.commit()
    return torch.stack(rows)


@torch.no_grad()
def test_patch_tokens_and_places_are_the_published_ones(model, expected, golden_images):
    dino = model.spatial.patch_embed
    torch.testing.assert_close(
        dino.position_embedding(9, 12)[0],
        expected["vggt_pos_embed_interpolated"],
        atol=1e-6,
        rtol=0,
    )
    torch.testing.assert_close(
        dino(golden_images[:1])[0], expected["dino_patch_tokens_frame0"], atol=2e-5, rtol=1e-5
    )


@torch.no_grad()
def test_every_layer_of_a_frame_causal_pass_is_the_published_one(model, expected, golden_images):
    for ours, published in zip(
        model.spatial.layers(golden_images[None, :3]), expected["vggt_full3_all_layers"]
    ):
        torch.testing.assert_close(ours[0, 1:], published, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(
        model.spatial(golden_images[None])[0, 10:],
        expected["vggt_full_tokens"],
        atol=2e-5,
        rtol=1e-5,
    )


@torch.no_grad()
def test_streaming_with_eviction_gives_the_published_tokens_and_memory(
    model, expected, golden_images, facts
):
    window = FrameWindow(2, 4)
    memory = model.spatial.new_memory(126, 168, window)
    for t, image in enumerate(golden_images):
        tokens = model.spatial.encode_frame(image, memory)
        torch.testing.assert_close(
            tokens, expected[f"step{t:02d}.vggt_tokens"], atol=2e-5, rtol=1e-5
        )
        memory.commit()
    assert [[frame] for frame in memory.frames] == facts["final_cache_frame_ids"]
    # The published cache holds keys before norm and RoPE, ours after; frames 9 and 10 were written
    # down.
    attention = model.spatial.global_blocks[1].attn
    P = memory.tokens
    for i, frame in enumerate(memory.frames[3:5]):
        slot = slice(window.slot(frame) * P, (window.slot(frame) + 1) * P)
        k = rotate(
            attention.k_norm(expected["final_cache.layer1.k_raw"][0, :, i]),
            *rope_table(9, 12, 5, 16, torch.device("cpu")),
        )
        torch.testing.assert_close(memory.k_BZNKH[0, 1, :, slot], k, atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(
            memory.v_BZNKH[0, 1, :, slot],
            expected["final_cache.layer1.v"][0, :, i],
            atol=2e-5,
            rtol=1e-5,
        )


@pytest.mark.parametrize(
    "window",
    [FrameWindow(2, 3), FrameWindow(0, 2), FrameWindow(4, 1), FrameWindow(1, 0), ALL_FRAMES],
    ids=str,
)
@pytest.mark.parametrize("query_rows", [1, 45, 512], ids="rows{}".format)
@torch.no_grad()
def test_streaming_equals_one_windowed_pass(encoder, images, window, query_rows, monkeypatch):
    monkeypatch.setattr(module, "QUERY_ROWS", query_rows)
    streamed = stream(
        encoder, images, FrameWindow(0, len(images)) if window is ALL_FRAMES else window
    )
    other = torch.rand_like(images)
    both = encoder(torch.stack([images, other]), window)
    torch.testing.assert_close(both[0], streamed, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(both[1:], encoder(other[None], window), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_window_wrong_by_one_frame_shows(encoder, images):
    right = encoder(images[None], FrameWindow(2, 3))[0]
    for wrong in (FrameWindow(2, 4), FrameWindow(2, 2), FrameWindow(3, 3), FrameWindow(1, 3)):
        assert (encoder(images[None], wrong)[0] - right).abs().max() > 1e-3, wrong


@torch.no_grad()
def test_later_frames_change_nothing_earlier(encoder, images):
    changed = images.clone()
    changed[7] = 0
    a, b = encoder(images[None])[0], encoder(changed[None])[0]
    torch.testing.assert_close(a[:7], b[:7])
    assert (a[8:] - b[8:]).abs().amax(dim=(1, 2)).min() > 1e-4


@torch.no_grad()
def test_only_the_first_frame_of_an_episode_has_the_first_frames_tokens(encoder, images):
    same = images[:1].expand(3, -1, -1, -1)
    tokens = encoder(same[None], FrameWindow(0, 0))[0]
    assert (tokens[0] - tokens[1]).abs().max() > 1e-3
    torch.testing.assert_close(tokens[1], tokens[2])


@torch.no_grad()
def test_the_order_of_slots_does_not_matter(encoder, images):
    """Frames of a ring lie in any order; attention must not see it."""
    window = FrameWindow(2, 3)
    memory = encoder.new_memory(42, 56, window)
    for image in images[:12]:
        encoder.encode_frame(image, memory)
        memory.commit()
    expected = encoder.encode_frame(images[12], memory)
    P, free = memory.tokens, window.slot(12)
    order = torch.tensor([slot for slot in reversed(range(window.slots)) if slot != free])
    order = torch.cat([order[:free], torch.tensor([free]), order[free:]])
    rows = (order[:, None] * P + torch.arange(P)).flatten()
    memory.k_BZNKH.copy_(memory.k_BZNKH[..., rows, :].clone())
    memory.v_BZNKH.copy_(memory.v_BZNKH[..., rows, :].clone())
    torch.testing.assert_close(
        encoder.encode_frame(images[12], memory), expected, atol=1e-5, rtol=1e-5
    )


def test_every_parameter_learns(encoder, images):
    encoder(images[None, :3]).square().mean().backward()
    without = [
        name
        for name, parameter in encoder.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    encoder.zero_grad()
    assert not without


def test_image_that_is_no_whole_number_of_patches_is_refused(encoder):
    with pytest.raises(InputError, match="multiples of 14"):
        encoder(torch.zeros(1, 1, 3, 42, 50))


@torch.no_grad()
def test_bfloat16_weights_keep_norms_and_residuals_in_float32(encoder, images):
    import copy

    narrow = copy.deepcopy(encoder).to(torch.bfloat16)
    memory = narrow.new_memory(42, 56, FrameWindow(2, 3))
    tokens = narrow.encode_frame(images[0], memory)
    assert tokens.dtype == torch.float32 and memory.k_BZNKH.dtype == torch.bfloat16
    exact = encoder(images[None, :1])[0, 0]
    assert (tokens - exact).abs().max() < 0.05 * exact.abs().max()

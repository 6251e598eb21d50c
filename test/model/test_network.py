"""The parts put together: positions, fusion, the sequence and its cache."""

import pytest
import torch

from janusvln_ros.model.network import KeyValueCache, last_layer, prompt_positions


def test_positions_are_the_published_ones(expected, model, facts):
    for t, step in enumerate(facts["steps"]):
        ids, grid = (
            expected[f"step{t:02d}.input_ids"].tolist(),
            expected[f"step{t:02d}.image_grid_thw"][0].tolist(),
        )
        positions, following = prompt_positions(
            ids, model.config.image_token_id, grid[1] // 2, grid[2] // 2
        )
        assert torch.equal(positions, expected[f"step{t:02d}.position_ids"])
        assert following == step["decode_position"][0] == len(ids) + step["rope_delta"]


def test_positions_of_two_images_in_a_row_and_at_the_ends():
    positions, following = prompt_positions(
        [7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 1, 2], 7, rows=2, columns=3
    )
    assert positions[0].tolist() == [0] * 6 + [3] * 6 + [6, 7]
    assert positions[1].tolist() == [0, 0, 0, 1, 1, 1, 3, 3, 3, 4, 4, 4, 6, 7]
    assert positions[2].tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5, 6, 7]
    assert following == 8


@torch.no_grad()
def test_geometry_is_the_published_one_and_leaves_out_an_odd_row(expected, model):
    geometry = model.geometry(expected["step03.vggt_tokens"], 126, 168)  # 9 x 12 patches
    torch.testing.assert_close(geometry, expected["step03.e3d"], atol=1e-5, rtol=1e-5)
    changed = expected["step03.vggt_tokens"].clone()
    changed[:5] = 0  # special tokens
    changed[-12:] = 0  # the ninth row
    torch.testing.assert_close(model.geometry(changed, 126, 168), geometry)


@torch.no_grad()
def test_geometry_of_many_frames_is_that_of_each(expected, model):
    frames = torch.stack([expected[f"step{t:02d}.vggt_tokens"] for t in range(4)]).unflatten(
        0, (2, 2)
    )
    both = model.geometry(frames, 126, 168)
    assert both.shape == (2, 2, 24, 112)
    torch.testing.assert_close(both[1, 0], expected["step02.e3d"], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_images_of_one_call_do_not_mix(model):
    """Why a frame's appearance may be kept for the whole episode."""
    rows = torch.randn(2, 96, 1176, generator=torch.Generator().manual_seed(0))
    grid = torch.tensor([[1, 8, 12]])
    together = model.encode_vision(rows.flatten(0, 1), grid.expand(2, -1)).unflatten(0, (2, -1))
    for i in range(2):
        torch.testing.assert_close(
            model.encode_vision(rows[i], grid), together[i], atol=1e-5, rtol=1e-5
        )


@torch.no_grad()
def test_image_rows_take_the_placeholders_in_order(model):
    image = model.config.image_token_id
    embeds = model.embed(
        torch.tensor([3, image, image, 4, image]), torch.arange(3.0)[:, None].expand(3, 112)
    )
    assert embeds[[1, 2, 4], 0].tolist() == [0, 1, 2]
    assert torch.equal(embeds[[0, 3]], model.language.embed_tokens.weight[[3, 4]])


@torch.no_grad()
def test_reading_on_from_a_cache_equals_reading_all(model):
    config = model.config.text
    embeds = torch.randn(9, 112, generator=torch.Generator().manual_seed(0))
    positions = torch.arange(9).expand(3, -1)
    whole = model.read(embeds, positions)
    cache = KeyValueCache(config, 12, torch.float32, "cpu")
    for _ in range(2):  # the second time over what the first left behind
        cache.begin = 0
        parts = [model.read(embeds[:5], positions[:, :5], cache)]
        cache.begin = 5
        mask = torch.ones(3, 8, dtype=torch.bool).tril(5)
        parts.append(model.read(embeds[5:8], positions[:, 5:8], cache, mask))
        cache.begin = 8
        parts.append(model.read(embeds[8:], positions[:, 8:], cache))
        torch.testing.assert_close(torch.cat(parts), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("before", [0, 1, 5])
@torch.no_grad()
def test_reading_for_the_last_token_alone_equals_reading_all(model, before):
    config = model.config.text
    embeds = torch.randn(9, 112, generator=torch.Generator().manual_seed(0))
    positions = torch.arange(9).expand(3, -1)
    whole = model.read(embeds, positions)
    cache = KeyValueCache(config, 12, torch.float32, "cpu")
    if before:
        torch.testing.assert_close(
            model.read_last(embeds[:before], positions[:, :before], cache),
            whole[before - 1 : before],
            atol=1e-5,
            rtol=1e-5,
        )
    for end in (8, 7, 8):  # again and again behind the same beginning
        cache.begin = before
        torch.testing.assert_close(
            model.read_last(embeds[before:end], positions[:, before:end], cache),
            whole[end - 1 : end],
            atol=1e-5,
            rtol=1e-5,
        )
    torch.testing.assert_close(
        model.read(embeds[8:], positions[:, 8:], cache), whole[8:], atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("tied", [False, True])
def test_network_works_from_a_cast(tiny, tied):
    import json

    from janusvln_ros.model import JanusVLN, JanusVLNConfig

    model = JanusVLN.from_config(
        JanusVLNConfig.from_dict(
            json.loads((tiny / "config.json").read_text()) | {"tie_word_embeddings": tied}
        ),
        dtype="bfloat16",
    )
    assert (model.lm_head.weight is model.language.embed_tokens.weight) == tied
    with torch.no_grad():
        assert (
            model.read(
                torch.randn(3, 112, dtype=torch.bfloat16), torch.arange(3).expand(3, -1)
            ).dtype
            == torch.bfloat16
        )


@pytest.mark.parametrize("rows", [[8], [0, 3, 4], list(range(9))])
def test_rows_and_gradients_are_those_of_the_whole_pass(model, rows):
    language, wanted = model.language.train(), torch.tensor(rows)
    embeds = torch.randn(2, 9, 112, generator=torch.Generator().manual_seed(0))
    positions = torch.arange(9).expand(3, 2, -1)
    mask = torch.zeros(2, 1, 9, 9).masked_fill_(
        ~torch.ones(9, 9, dtype=torch.bool).tril(), float("-inf")
    )
    mask[1, :, 4:, 2] = float("-inf")

    def gradients(hidden):
        language.zero_grad()
        (hidden * torch.linspace(-1, 1, hidden.numel()).view_as(hidden)).sum().backward()
        return {
            name: p.grad.clone() for name, p in language.named_parameters() if p.grad is not None
        }

    whole = language(
        inputs_embeds=embeds,
        position_ids=positions,
        attention_mask={"full_attention": mask},
        use_cache=False,
    ).last_hidden_state[:, wanted]
    x, rotation = embeds, language.rotary_emb(embeds, positions)
    for layer in language.layers[:-1]:
        x = layer(x, attention_mask=mask, position_embeddings=rotation)
    few = last_layer(language, x, rotation, wanted, mask[:, :, wanted])

    torch.testing.assert_close(few, whole, atol=1e-5, rtol=1e-5)
    expected, found = gradients(whole), gradients(few)
    assert set(expected) == set(found)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-4, rtol=1e-4, msg=name)

"""The attention function gives what plain attention gives, for every way it is called."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from janusvln_ros.model.attention import group_mask, memory_attention


class Layer(nn.Module):
    num_key_value_groups = 3
    is_causal = True


def case(S, N, B=1):
    generator = torch.Generator().manual_seed(S)
    q, k, v = (
        torch.randn(B, 6, S, 8, generator=generator),
        torch.randn(B, 2, N, 8, generator=generator),
        torch.randn(B, 2, N, 8, generator=generator),
    )
    return q, k, v


def plain(q, k, v, visible):
    k, v = k.repeat_interleave(3, dim=1), v.repeat_interleave(3, dim=1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=visible).transpose(1, 2)


@pytest.mark.parametrize("S, N", [(5, 20), (2, 3), (7, 7)])
def test_any_mask_over_grouped_heads(S, N):
    q, k, v = case(S, N)
    visible = torch.rand(S, N, generator=torch.Generator().manual_seed(1)) > 0.4
    visible[:, 0] = True
    out, _ = memory_attention(
        Layer(), q, k, v, group_mask(visible, 3, torch.float32), scaling=8**-0.5
    )
    torch.testing.assert_close(out, plain(q, k, v, visible), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("S, N, B", [(5, 20, 1), (1, 9, 1), (6, 6, 1), (4, 11, 2)])
def test_without_a_mask_the_queries_are_the_last_rows(S, N, B):
    q, k, v = case(S, N, B)
    visible = torch.ones(S, N, dtype=torch.bool).tril(N - S)
    out, _ = memory_attention(Layer(), q, k, v, None, scaling=8**-0.5)
    torch.testing.assert_close(out, plain(q, k, v, visible), atol=1e-6, rtol=1e-5)


def test_masks_of_transformers_are_left_to_transformers():
    q, k, v = case(6, 6, 2)
    visible = torch.ones(2, 1, 6, 6, dtype=torch.bool).tril()
    visible[1, :, :, 1] = False
    out, _ = memory_attention(Layer(), q, k, v, visible, scaling=8**-0.5)
    torch.testing.assert_close(out, plain(q, k, v, visible), atol=1e-6, rtol=1e-5)

"""
The last layer for a few rows gives them what the whole network gives, and the same gradients.
"""

import pytest
import torch

from janusvln_ros.model.last_layer import last_layer


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

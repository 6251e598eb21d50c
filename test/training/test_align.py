"""Words for what is seen, and attention between likes."""

import numpy as np
import pytest
import torch

from janusvln_ros.errors import InputError
from janusvln_ros.model import JanusVLN, JanusVLNConfig
from janusvln_ros.policy.tokenizer import load_tokenizer
from janusvln_ros.training.align import (
    AlignTask,
    collate_tokens,
    encoded,
    view_tokens,
    words_of,
)
from janusvln_ros.training.encoders import Views, fused_tokens
from janusvln_ros.training.network import match_attention

NAMES = (
    "what:floor",
    "what:wall",
    "what:lamp",
    "colour:none",
    "colour:wall red",
    "colour:thing red",
    "colour:thing blue",
)


@pytest.fixture
def tokenizer():
    from pathlib import Path

    return load_tokenizer(Path(__file__).resolve().parents[2] / "config" / "model" / "tiny")


def test_walls_and_things_of_one_colour_share_its_word(tokenizer):
    ids, table = words_of(NAMES, tokenizer)
    words = [tokenizer.decode([i]) for i in ids]
    assert [words[i] for i in table.argmax(1)] == [
        "<|vision_pad|>",
        "room",
        "lamp",
        "<|vision_pad|>",
        "red",
        "red",
        "blue",
    ]
    assert (table.sum(1) == 1).all()


def test_word_of_several_tokens_is_refused(tokenizer):
    with pytest.raises(InputError, match="theodolite"):
        words_of(["what:theodolite"], tokenizer)


def test_tokens_move_to_their_words_and_nothing_else_learns(tokenizer, micro):
    torch.manual_seed(0)
    model = JanusVLN.from_config(JanusVLNConfig.from_pretrained(micro))
    ids, table = words_of(NAMES, tokenizer)
    task = AlignTask(model, ids, (6, 8))
    rng = np.random.default_rng(0)
    items = []
    for k in range(8):  # pictures whose features tell one of two words
        vision, spatial = (
            rng.normal(size=(48, 32)).astype(np.float16),
            rng.normal(size=(48, 64)).astype(np.float16),
        )
        vision[:, :4] = 6 * (k % 2)
        items.append(
            {"vision": vision, "spatial": spatial, "targets": np.tile(table[5 + k % 2], (12, 1))}
        )
    batch = collate_tokens(items)
    learning = {name for name, p in task.named_parameters() if p.requires_grad}
    assert all(
        name.startswith(
            ("model.vision.merger", "model.fusion", "model.language.embed_tokens", "scale")
        )
        for name in learning
    )
    optimizer = torch.optim.AdamW([p for p in task.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(30):
        out = task(**batch)
        out["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert float(out["right"]) == 1.0


def test_mergers_of_new_encoders_learn_to_say_what_a_teacher_says_of_the_same_pictures(
    tokenizer, micro
):
    torch.manual_seed(0)
    config, rng = JanusVLNConfig.from_pretrained(micro), np.random.default_rng(0)
    model, teacher = (JanusVLN.from_config(config, seed=seed).eval() for seed in (1, 2))
    walks = (2, 3)
    views = Views(
        rng.integers(0, 256, (*walks, 84, 112, 3), dtype=np.uint8),
        np.zeros((*walks, 6, 8), np.float16),
        np.zeros((*walks, 3), np.float32),
        np.zeros((*walks, 3), np.float32),
        rng.integers(1, 256, (*walks, 6, 8, len(NAMES)), dtype=np.uint8),
        NAMES,
    )
    ids, table = words_of(NAMES, tokenizer)
    samples = view_tokens(views, model, table, 2, teacher)
    assert len(samples) == 6 and "taught" not in view_tokens(views, model, table, 2)[0]
    with torch.no_grad():
        taught = fused_tokens(teacher, *encoded(teacher, views.frames[1]), (6, 8))
    assert torch.allclose(samples[5]["taught"].float(), taught[2], atol=2e-3)

    task, batch = AlignTask(model, ids, (6, 8)), collate_tokens([samples[i] for i in range(6)])
    optimizer = torch.optim.AdamW([p for p in task.parameters() if p.requires_grad], lr=3e-3)
    before = float(task(**batch)["missed"])
    for _ in range(100):
        out = task(**batch)
        out["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert before > 1.0 > 0.3 > float(out["missed"])


def test_matched_attention_scores_a_token_highest_with_its_like(micro):
    model = JanusVLN.from_config(JanusVLNConfig.from_pretrained(micro))
    match_attention(model)
    attention = model.language.layers[0].self_attn
    x = torch.randn(6, 48)
    q, k = (
        attention.q_proj(x).unflatten(-1, (4, 12)),
        attention.k_proj(x).unflatten(-1, (2, 12)).repeat_interleave(2, dim=1),
    )
    scores = torch.einsum("qhd,khd->qk", q, k)
    assert (scores.argmax(1) == torch.arange(6)).float().mean() > 0.8

"""
Whole episodes in one masked pass: equal to streaming them, and what is learned from them.
"""

import pytest
import torch

from janusvln_ros.errors import InputError
from janusvln_ros.model.memory import FrameWindow
from janusvln_ros.training.episode import (
    EPISODE_ATTENTION,
    Episodes,
    action_loss,
    episode_attention,
    episode_mask,
    episode_pass,
    sample_window,
)

WINDOW = FrameWindow(2, 3)


def read(chat, prompts, lengths, fused, answers, window=WINDOW, jump=0, executed=None):
    """Scores [B, F, A, V] of whole episodes."""
    episodes = Episodes(
        torch.tensor(prompts),
        torch.tensor(lengths),
        fused,
        answers,
        chat.grid,
        chat.frame_ids,
        chat.question_ids,
        executed,
    )
    return chat.head(episode_pass(chat.language, episodes, window, jump))


@torch.no_grad()
def whole(chat, fused, window=WINDOW, answers=None, jump=0, executed=None):
    """Scores [F, A, V] of one episode."""
    answers = torch.zeros(1, len(fused), 1, dtype=torch.long) if answers is None else answers
    return read(chat, [chat.prompt_ids], [5], fused[None], answers, window, jump, executed)[0]


@pytest.mark.parametrize(
    "window",
    [
        FrameWindow(2, 3),
        FrameWindow(0, 3),
        FrameWindow(2, 0),
        FrameWindow(0, 0),
        FrameWindow(1, 1),
        FrameWindow(4, 48),
    ],
)
def test_streaming_equals_one_pass_past_three_evictions_of_the_whole_window(chat, window):
    fused = chat.frames(window.slots + 3 * max(window.window, 1) + 2 if window.window < 10 else 12)
    torch.testing.assert_close(
        chat.stream(fused, window), whole(chat, fused, window)[:, 0], atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize(
    "change", [FrameWindow(2, 4), FrameWindow(2, 2), FrameWindow(3, 3), FrameWindow(1, 3)]
)
def test_a_window_wrong_by_one_frame_is_seen(chat, change):
    fused = chat.frames(12)
    assert (chat.stream(fused) - whole(chat, fused, change)[:, 0]).abs().max() > 1e-2


def test_positions_are_given_once_and_a_jump_moves_all_but_the_initial_frames(chat):
    fused = chat.frames(7)
    plain, jumped = whole(chat, fused), whole(chat, fused, jump=40)
    torch.testing.assert_close(jumped[:2], plain[:2], atol=1e-5, rtol=1e-5)
    assert (jumped[2:] - plain[2:]).abs().amax() > 1e-2, (
        "the distance to the prompt and the initial frames has grown"
    )
    alone = FrameWindow(0, 3)
    moved = whole(chat, fused, alone, jump=40)
    assert (moved - whole(chat, fused, alone)).abs().amax() > 1e-2


def test_answers_of_several_tokens_equal_reading_them_one_by_one(chat):
    fused, memory = chat.frames(9), chat.new_memory()
    answers = torch.randint(0, 50, (1, 9, 3), generator=torch.Generator().manual_seed(2))
    got = whole(chat, fused, answers=answers)
    for t in range(9):
        expected = [chat.step(memory, fused[t])[0]]
        expected += [chat.answer(memory, int(token)) for token in answers[0, t, :2]]
        torch.testing.assert_close(got[t], torch.stack(expected), atol=1e-4, rtol=1e-4)
        memory.commit()


def test_episodes_of_a_batch_do_not_see_each_other_nor_their_padding(chat):
    a, b = chat.frames(9, seed=3), chat.frames(6, seed=4)
    fused = torch.stack([a, torch.cat([b, torch.full((3, 6, chat.width), 99.0)])])
    answers = torch.zeros(2, 9, 1, dtype=torch.long)
    with torch.no_grad():
        together = read(chat, [[1, 2, 3, 0, 0], chat.prompt_ids], [3, 5], fused, answers)
        alone = read(chat, [[1, 2, 3]], [3], a[None], answers[:1])
    torch.testing.assert_close(together[0], alone[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together[1, :6], whole(chat, b), atol=1e-4, rtol=1e-4)


def test_mask_is_the_written_rule(chat):
    lengths, prompt, block, leaf, window = torch.tensor([3, 4]), 4, 2, 2, FrameWindow(1, 2)
    mask = episode_mask(lengths, prompt, 5, block, leaf, window)[:, 0]
    rows = [("prompt", -1, i) for i in range(prompt)] + [
        (kind, t, i) for t in range(5) for kind in ("frame", "leaf") for i in range(2)
    ]
    for b in range(2):
        for q, (kind_q, t_q, _) in enumerate(rows):
            for k, (kind_k, t_k, i_k) in enumerate(rows):
                if kind_k == "prompt":
                    expected = k <= q and i_k < lengths[b]
                elif kind_k == "frame":
                    expected = k <= q and kind_q != "prompt" and (t_k < 1 or t_q - t_k <= 2)
                else:
                    expected = k <= q and kind_q == "leaf" and t_q == t_k
                assert mask[b, q, k] == (expected or q == k), (b, rows[q], rows[k])


def test_executed_actions_before_each_frame_stream_as_in_one_pass(chat):
    fused = chat.frames(9)
    executed = torch.randint(0, 30, (1, 9, 2), generator=torch.Generator().manual_seed(8))
    got, none = whole(chat, fused, executed=executed)[:, 0], whole(chat, fused)[:, 0]
    memory, expected = chat.new_memory(before=2), []
    for t in range(9):
        expected.append(chat.step(memory, fused[t], before=executed[0, t].tolist())[0])
        memory.commit()
    torch.testing.assert_close(got, torch.stack(expected), atol=1e-4, rtol=1e-4)
    assert (got - none).abs().max() > 1e-2


def test_gradients_reach_frames_and_language_model_and_are_finite_under_padding(chat):
    fused = torch.stack([chat.frames(5), chat.frames(5, seed=2)]).requires_grad_()
    answers = torch.tensor([[[3], [4], [-100], [5], [6]], [[3], [4], [-100], [-100], [-100]]])
    logits = read(
        chat, [chat.prompt_ids, chat.prompt_ids], [5, 2], fused, answers, FrameWindow(1, 1)
    )
    action_loss(logits, answers, torch.ones(2, 5)).backward()
    assert torch.isfinite(fused.grad).all()
    touched = fused.grad.abs().amax(dim=(2, 3)) > 0
    assert touched.tolist() == [[True] * 5, [True, True, False, False, False]]
    for name, parameter in chat.language.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name
    chat.language.zero_grad()
    chat.head.zero_grad()


@pytest.mark.parametrize("pieces", [False, True])
def test_gradient_checkpointing_changes_neither_scores_nor_gradients(chat, pieces):
    language, kind = chat.language.train(), chat.language.config._attn_implementation
    language.set_attn_implementation(EPISODE_ATTENTION if pieces else "sdpa")
    found = []
    try:
        for checkpointing in (False, True):
            if checkpointing:
                language.gradient_checkpointing_enable({"use_reentrant": False})
            fused = chat.frames(9)[None].requires_grad_()
            hidden = read(
                chat, [chat.prompt_ids], [5], fused, torch.zeros(1, 9, 1, dtype=torch.long)
            )
            hidden.square().sum().backward()
            found.append((hidden.detach(), fused.grad))
    finally:
        language.gradient_checkpointing_disable()
        language.zero_grad()
        language.eval().set_attn_implementation(kind)
    for plain, checkpointed in zip(*found):
        torch.testing.assert_close(checkpointed, plain)


def test_loss_is_the_weighted_mean_over_supervised_steps():
    logits = torch.randn(1, 3, 2, 7, generator=torch.Generator().manual_seed(0))
    answers, weights = (
        torch.tensor([[[1, 2], [3, -100], [-100, -100]]]),
        torch.tensor([[1.0, 4.0, 100.0]]),
    )
    nll = -torch.log_softmax(logits, -1)
    expected = (nll[0, 0, 0, 1] + nll[0, 0, 1, 2] + 4 * nll[0, 1, 0, 3]) / 5
    torch.testing.assert_close(action_loss(logits, answers, weights), expected)
    nothing = action_loss(logits.requires_grad_(), torch.full((1, 3, 2), -100), weights)
    nothing.backward()
    assert nothing == 0 and logits.grad.abs().max() == 0


def test_sampled_windows_stay_within_the_given_one():
    generator, seen = torch.Generator().manual_seed(0), set()
    for _ in range(400):
        window, jump = sample_window(FrameWindow(8, 48), 400, generator)
        assert 2 <= window.initial <= 8 and 4 <= window.window <= 48 and 0 <= jump <= 400
        seen |= {window.initial, 100 + window.window, 1000 + (jump > 0)}
    assert {2, 8, 104, 148, 1000, 1001} <= seen
    assert sample_window(FrameWindow(0, 0), 0) == (FrameWindow(0, 0), 0)


def test_what_does_not_fit_is_said(chat):
    with pytest.raises(InputError, match="do not fit"):
        whole(chat, chat.frames(3)[:, :5])
    with pytest.raises(InputError, match="shorten"):
        whole(chat, chat.frames(3), jump=2000)


def test_attention_in_pieces_is_attention_with_the_whole_mask():
    torch.manual_seed(0)
    mask = episode_mask(torch.tensor([9, 6]), 9, 31, 14, 4, FrameWindow(2, 5))
    R = mask.shape[-1]
    bias = torch.zeros(mask.shape).masked_fill_(~mask, float("-inf"))
    q, k, v = torch.randn(2, 4, R, 12), torch.randn(2, 2, R, 12), torch.randn(2, 2, R, 12)
    ours, _ = episode_attention(torch.nn.Identity(), q, k, v, bias)
    whole = torch.nn.functional.scaled_dot_product_attention(
        q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1), attn_mask=mask
    ).transpose(1, 2)
    torch.testing.assert_close(ours, whole)
    with pytest.raises(ValueError, match="mask"):
        episode_attention(torch.nn.Identity(), q, k, v, None)

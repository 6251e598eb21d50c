"""
The semantic memory: streaming equals one masked pass, nothing is read twice, nothing of a leaf or
of an uncommitted step remains.
"""

import pytest
import torch
from torch import nn
from transformers import Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel

from janusvln_ros.errors import InputError
from janusvln_ros.model import dual
from janusvln_ros.model.memory import FrameWindow

VOCABULARY, CHANNELS = 50, 32
GRID = (2, 3)
OPEN, PAD, CLOSE = 40, 41, 42
WINDOW = FrameWindow(2, 3)
LAYOUT = dual.FrameLayout(*GRID)
FRAME = [OPEN, *[PAD] * 6, CLOSE]
QUESTION = [43, 44, 45]
PROMPT = [1, 2, 3, 4, 5]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    config = Qwen2_5_VLTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=CHANNELS,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        initializer_range=0.4,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]},
    )
    config._attn_implementation = "sdpa"
    language = Qwen2_5_VLTextModel(config).eval()
    head = nn.Linear(CHANNELS, VOCABULARY, bias=False)
    return language, head


def frames(count: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, 6, CHANNELS, generator=torch.Generator().manual_seed(seed))


def new_memory(network, window=WINDOW, leaf_rows=8, layout=LAYOUT, **options):
    memory = dual.SemanticMemory(network[0].config, window, layout, leaf_rows, **options)
    dual.read_prompt(network[0], memory, PROMPT)
    return memory


def step(network, memory, fused, question=QUESTION, **tree):
    return network[1](dual.read_frame(network[0], memory, FRAME, fused, question, **tree)).detach()


def stream(network, fused, window=WINDOW):
    memory, scores = new_memory(network, window), []
    for frame in fused:
        scores.append(step(network, memory, frame)[0])
        memory.commit()
    return torch.stack(scores)


def whole(network, fused, window=WINDOW, answers=None, jump=0):
    T = len(fused)
    answers = torch.zeros(1, T, 1, dtype=torch.long) if answers is None else answers
    with torch.no_grad():
        return dual.episode_pass(
            *network,
            torch.tensor([PROMPT]),
            torch.tensor([5]),
            fused[None],
            FRAME,
            GRID,
            QUESTION,
            answers,
            window,
            jump,
        )[0]


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
def test_streaming_equals_one_pass_past_three_evictions_of_the_whole_window(network, window):
    fused = frames(window.slots + 3 * max(window.window, 1) + 2 if window.window < 10 else 12)
    torch.testing.assert_close(
        stream(network, fused, window), whole(network, fused, window)[:, 0], atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize(
    "change", [FrameWindow(2, 4), FrameWindow(2, 2), FrameWindow(3, 3), FrameWindow(1, 3)]
)
def test_a_window_wrong_by_one_frame_is_seen(network, change):
    fused = frames(12)
    assert (stream(network, fused) - whole(network, fused, change)[:, 0]).abs().max() > 1e-2


def test_frames_are_kept_as_the_rule_says(network):
    memory = new_memory(network)
    kept = []
    for frame in frames(8):
        step(network, memory, frame)
        memory.commit()
        kept.append(memory.frames)
    assert kept == [
        [0],
        [0, 1],
        [0, 1, 2],
        [0, 1, 2, 3],
        [0, 1, 2, 3, 4],
        [0, 1, 3, 4, 5],
        [0, 1, 4, 5, 6],
        [0, 1, 5, 6, 7],
    ]


def test_leaf_leaves_no_trace(network):
    asked, silent, other = new_memory(network), new_memory(network), new_memory(network)
    for frame in frames(9):
        a = step(network, asked, frame)
        dual.read_answer(network[0], asked, 7)
        o = step(network, other, frame, [43, 9, 45])
        dual.read_frame(network[0], silent, FRAME, frame)
        for memory in (asked, silent, other):
            memory.commit()
    last = frames(1, seed=5)[0]
    expected = step(network, silent, last)
    assert not torch.allclose(a, o, atol=1e-2), "the question itself must matter"
    for memory in (asked, other):
        torch.testing.assert_close(step(network, memory, last), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("before", [3, 5, 9])
def test_uncommitted_step_leaves_no_trace(network, before):
    plain, tried = new_memory(network), new_memory(network)
    for i, frame in enumerate(frames(before + 1)):
        step(network, tried, frames(1, seed=50 + i)[0])  # taken back
        torch.testing.assert_close(
            step(network, tried, frame), step(network, plain, frame), atol=1e-5, rtol=1e-5
        )
        tried.commit()
        plain.commit()
    assert tried.frames == plain.frames


def test_failed_step_leaves_the_memory_as_it_was(network):
    memory, reference = new_memory(network), new_memory(network)
    for frame in frames(7):
        for m in (memory, reference):
            step(network, m, frame)
            m.commit()
    with pytest.raises(InputError, match="one size"):
        dual.read_frame(network[0], memory, [OPEN, PAD, CLOSE], torch.zeros(1, CHANNELS), QUESTION)
    with pytest.raises(InputError, match="no frame to remember"):
        memory.commit()
    frame = frames(1, seed=9)[0]
    torch.testing.assert_close(step(network, memory, frame), step(network, reference, frame))


def test_bytes_and_attended_rows_stop_growing(network):
    memory, sizes, rows = new_memory(network), set(), []
    for frame in frames(20):
        step(network, memory, frame)
        sizes.add((memory.nbytes, memory.k_LKND.data_ptr()))
        rows.append(memory._end)
        memory.commit()
    assert len(sizes) == 1 and rows[5:] == [rows[5]] * 15
    assert rows[5] == len(PROMPT) + 6 * len(FRAME) + len(QUESTION)


def test_reset_forgets_everything_and_a_longer_prompt_is_taken(network):
    memory = new_memory(network, prompt_rows=6)
    for frame in frames(4):
        step(network, memory, frame)
        memory.commit()
    long = [i % 30 for i in range(20)]
    dual.read_prompt(network[0], memory, long)
    fresh = dual.SemanticMemory(network[0].config, FrameWindow(2, 3), dual.FrameLayout(*GRID), 8)
    dual.read_prompt(network[0], fresh, long)
    torch.testing.assert_close(
        step(network, memory, frames(1)[0]), step(network, fresh, frames(1)[0])
    )
    assert memory.frames == []


def test_next_frame_continues_one_after_the_last_position():
    layout = dual.FrameLayout(2, 3)
    got = layout.positions()
    assert got[:, 0].tolist() == [0, 0, 0]
    assert got[:, 1:7].tolist() == [[1] * 6, [1, 1, 1, 2, 2, 2], [1, 2, 3, 1, 2, 3]]
    assert got[:, 7].tolist() == [4, 4, 4] and layout.span == 5 and layout.rows == 8


def test_positions_are_given_once_and_a_jump_moves_all_but_the_initial_frames(network):
    fused = frames(7)
    plain, jumped = whole(network, fused), whole(network, fused, jump=40)
    torch.testing.assert_close(jumped[:2], plain[:2], atol=1e-5, rtol=1e-5)
    assert (jumped[2:] - plain[2:]).abs().amax() > 1e-2, (
        "the distance to the prompt and the initial frames has grown"
    )
    alone = FrameWindow(0, 3)
    moved = whole(network, fused, alone, jump=40)
    assert (moved - whole(network, fused, alone)).abs().amax() > 1e-2


def test_tree_of_answers_scores_each_token_as_if_it_were_alone(network):
    memory = new_memory(network)
    for frame in frames(7):
        step(network, memory, frame)
        memory.commit()
    frame = frames(1, seed=3)[0]
    #       7 ── 8 ── 9
    #   .──<  `─ 10
    #       11
    got = step(
        network,
        memory,
        frame,
        tree_tokens=[7, 11, 8, 10, 9],
        tree_parents=[-1, -1, 0, 0, 2],
        tree_depths=[0, 0, 1, 1, 2],
    )
    for row, path in {1: [7], 2: [11], 3: [7, 8], 4: [7, 10], 5: [7, 8, 9]}.items():
        expected = step(network, memory, frame)[0]
        torch.testing.assert_close(got[0], expected, atol=1e-5, rtol=1e-5)
        for token in path:
            expected = network[1](dual.read_answer(network[0], memory, token))[0].detach()
        torch.testing.assert_close(got[row], expected, atol=1e-5, rtol=1e-5)


def test_answers_of_several_tokens_equal_reading_them_one_by_one(network):
    fused, memory = frames(9), new_memory(network)
    answers = torch.randint(0, VOCABULARY, (1, 9, 3), generator=torch.Generator().manual_seed(2))
    got = whole(network, fused, answers=answers)
    for t in range(9):
        expected = [step(network, memory, fused[t])[0]]
        expected += [
            network[1](dual.read_answer(network[0], memory, int(token)))[0].detach()
            for token in answers[0, t, :2]
        ]
        torch.testing.assert_close(got[t], torch.stack(expected), atol=1e-4, rtol=1e-4)
        memory.commit()


def test_episodes_of_a_batch_do_not_see_each_other_nor_their_padding(network):
    a, b = frames(9, seed=3), frames(6, seed=4)
    prompts = torch.tensor([[1, 2, 3, 0, 0], PROMPT])
    fused = torch.stack([a, torch.cat([b, torch.full((3, 6, CHANNELS), 99.0)])])
    answers = torch.zeros(2, 9, 1, dtype=torch.long)
    with torch.no_grad():
        together = dual.episode_pass(
            *network,
            prompts,
            torch.tensor([3, 5]),
            fused,
            FRAME,
            GRID,
            QUESTION,
            answers,
            FrameWindow(2, 3),
        )
        alone = dual.episode_pass(
            *network,
            prompts[:1, :3],
            torch.tensor([3]),
            a[None],
            FRAME,
            GRID,
            QUESTION,
            answers[:1],
            FrameWindow(2, 3),
        )
    torch.testing.assert_close(together[0], alone[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together[1, :6], whole(network, b), atol=1e-4, rtol=1e-4)


def test_mask_is_the_written_rule(network):
    lengths, prompt, block, leaf, window = torch.tensor([3, 4]), 4, 2, 2, FrameWindow(1, 2)
    mask = dual.episode_mask(lengths, prompt, 5, block, leaf, window)[:, 0]
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


def test_executed_actions_before_each_frame_stream_as_in_one_pass(network):
    fused, layout = frames(9), dual.FrameLayout(*GRID, before=2)
    executed = torch.randint(0, 30, (1, 9, 2), generator=torch.Generator().manual_seed(8))
    answers = torch.zeros(1, 9, 1, dtype=torch.long)
    arguments = (
        torch.tensor([PROMPT]),
        torch.tensor([5]),
        fused[None],
        FRAME,
        GRID,
        QUESTION,
        answers,
        FrameWindow(2, 3),
    )
    with torch.no_grad():
        got = dual.episode_pass(*network, *arguments, executed_BTP=executed)[0, :, 0]
        none = dual.episode_pass(*network, *arguments)[0, :, 0]
    memory, expected = new_memory(network, layout=layout), []
    for t in range(9):
        hidden = dual.read_frame(
            network[0], memory, [*executed[0, t].tolist(), *FRAME], fused[t], QUESTION
        )
        expected.append(network[1](hidden)[0].detach())
        memory.commit()
    torch.testing.assert_close(got, torch.stack(expected), atol=1e-4, rtol=1e-4)
    assert (got - none).abs().max() > 1e-2


def test_gradients_reach_frames_and_language_model_and_are_finite_under_padding(network):
    fused = torch.stack([frames(5), frames(5, seed=2)]).requires_grad_()
    answers = torch.tensor([[[3], [4], [-100], [5], [6]], [[3], [4], [-100], [-100], [-100]]])
    logits = dual.episode_pass(
        *network,
        torch.tensor([PROMPT, PROMPT]),
        torch.tensor([5, 2]),
        fused,
        FRAME,
        GRID,
        QUESTION,
        answers,
        FrameWindow(1, 1),
    )
    dual.action_loss(logits, answers).backward()
    assert torch.isfinite(fused.grad).all()
    touched = fused.grad.abs().amax(dim=(2, 3)) > 0
    assert touched.tolist() == [[True] * 5, [True, True, False, False, False]]
    for name, parameter in network[0].named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name
    network[0].zero_grad()
    network[1].zero_grad()


def test_loss_is_the_weighted_mean_over_supervised_steps():
    logits = torch.randn(1, 3, 2, 7, generator=torch.Generator().manual_seed(0))
    answers, weights = (
        torch.tensor([[[1, 2], [3, -100], [-100, -100]]]),
        torch.tensor([[1.0, 4.0, 100.0]]),
    )
    nll = -torch.log_softmax(logits, -1)
    expected = (nll[0, 0, 0, 1] + nll[0, 0, 1, 2] + 4 * nll[0, 1, 0, 3]) / 5
    torch.testing.assert_close(dual.action_loss(logits, answers, weights), expected)
    nothing = dual.action_loss(logits.requires_grad_(), torch.full((1, 3, 2), -100))
    nothing.backward()
    assert nothing == 0 and logits.grad.abs().max() == 0


def test_sampled_windows_stay_within_the_given_one():
    generator, seen = torch.Generator().manual_seed(0), set()
    for _ in range(400):
        window, jump = dual.sample_window(FrameWindow(8, 48), 400, generator)
        assert 2 <= window.initial <= 8 and 4 <= window.window <= 48 and 0 <= jump <= 400
        seen |= {window.initial, 100 + window.window, 1000 + (jump > 0)}
    assert {2, 8, 104, 148, 1000, 1001} <= seen
    assert dual.sample_window(FrameWindow(0, 0), 0) == (FrameWindow(0, 0), 0)


def test_what_cannot_be_is_said(network):
    memory = dual.SemanticMemory(network[0].config, FrameWindow(2, 3), dual.FrameLayout(*GRID), 4)
    with pytest.raises(InputError, match="no instruction"):
        dual.read_frame(network[0], memory, FRAME, frames(1)[0], QUESTION)
    with pytest.raises(InputError, match="prompt is empty"):
        dual.read_prompt(network[0], memory, [])
    with pytest.raises(InputError, match="5000 tokens"):
        dual.read_prompt(network[0], memory, [1] * 5000)
    with pytest.raises(InputError, match="open question"):
        dual.read_answer(network[0], memory, 1)
    dual.read_prompt(network[0], memory, PROMPT)
    memory.seen = 900
    with pytest.raises(InputError, match="new episode"):
        dual.read_frame(network[0], memory, FRAME, frames(1)[0], QUESTION)
    with pytest.raises(InputError, match="do not fit"):
        whole(network, frames(3)[:, :5])
    with pytest.raises(InputError, match="shorten"):
        whole(network, frames(3), jump=2000)


def test_answer_longer_than_its_rows_is_refused(network):
    memory = new_memory(network, leaf_rows=4, prompt_rows=5)
    for frame in frames(6):
        step(network, memory, frame)
        memory.commit()
    step(network, memory, frames(1)[0])
    dual.read_answer(network[0], memory, 1)
    with pytest.raises(InputError, match="leaf_rows"):
        dual.read_answer(network[0], memory, 1)


def test_recorded_steps_are_replayed_only_while_nothing_but_numbers_changes(network, monkeypatch):
    """
    A stand-in for a CUDA graph: runs the function again, but insists on the Python numbers of the
    recording.
    """

    class Recorded:
        made = 0

        def __init__(self, function, *examples):
            Recorded.made += 1
            self.function, self.inputs, self.rows, self.replays = (
                function,
                [e.clone() for e in examples],
                (memory._begin, memory._end),
                0,
            )

        def __call__(self, *inputs):
            assert (memory._begin, memory._end) == self.rows
            for own, given in zip(self.inputs, inputs):
                own.copy_(given)
            return self.function(*self.inputs)

    monkeypatch.setattr(dual, "RecordedCall", Recorded)
    memory, fused = new_memory(network, cuda_graphs=True), frames(14)
    got = []
    for frame in fused:
        got.append(step(network, memory, frame)[0])
        memory.commit()
    torch.testing.assert_close(torch.stack(got), stream(network, fused))
    assert Recorded.made == 1, "one recording serves all steps of the full window"
    dual.read_prompt(network[0], memory, PROMPT)
    for frame, expected in zip(fused, got):
        torch.testing.assert_close(step(network, memory, frame)[0], expected)
        memory.commit()
    assert Recorded.made == 1, "and those of the next episode, if its prompt is as long"

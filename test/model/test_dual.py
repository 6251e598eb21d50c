"""
The semantic memory: nothing is read twice, nothing of a leaf or of an uncommitted step remains.
"""

import pytest
import torch

from janusvln_ros.errors import InputError
from janusvln_ros.model import dual
from janusvln_ros.model.recording import Recordings


def test_frames_are_kept_as_the_rule_says(chat):
    memory = chat.new_memory()
    kept = []
    for frame in chat.frames(8):
        chat.step(memory, frame)
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


def test_leaf_leaves_no_trace(chat):
    asked, silent, other = chat.new_memory(), chat.new_memory(), chat.new_memory()
    for frame in chat.frames(9):
        a = chat.step(asked, frame)
        dual.read_answer(chat.language, asked, 7)
        o = chat.step(other, frame, [43, 9, 45])
        dual.read_frame(chat.language, silent, chat.frame_ids, frame)
        for memory in (asked, silent, other):
            memory.commit()
    last = chat.frames(1, seed=5)[0]
    expected = chat.step(silent, last)
    assert not torch.allclose(a, o, atol=1e-2), "the question itself must matter"
    for memory in (asked, other):
        torch.testing.assert_close(chat.step(memory, last), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("before", [3, 5, 9])
def test_uncommitted_step_leaves_no_trace(chat, before):
    plain, tried = chat.new_memory(), chat.new_memory()
    for i, frame in enumerate(chat.frames(before + 1)):
        chat.step(tried, chat.frames(1, seed=50 + i)[0])  # taken back
        torch.testing.assert_close(
            chat.step(tried, frame), chat.step(plain, frame), atol=1e-5, rtol=1e-5
        )
        tried.commit()
        plain.commit()
    assert tried.frames == plain.frames


def test_failed_step_leaves_the_memory_as_it_was(chat):
    memory, reference = chat.new_memory(), chat.new_memory()
    for frame in chat.frames(7):
        for m in (memory, reference):
            chat.step(m, frame)
            m.commit()
    with pytest.raises(InputError, match="one size"):
        dual.read_frame(
            chat.language, memory, [40, 41, 42], torch.zeros(1, chat.width), chat.question_ids
        )
    with pytest.raises(InputError, match="no frame to remember"):
        memory.commit()
    frame = chat.frames(1, seed=9)[0]
    torch.testing.assert_close(chat.step(memory, frame), chat.step(reference, frame))


def test_bytes_and_attended_rows_stop_growing(chat):
    memory, sizes, rows = chat.new_memory(), set(), []
    for frame in chat.frames(20):
        chat.step(memory, frame)
        sizes.add((memory.nbytes, memory.k_BZNKH.data_ptr()))
        rows.append(memory.end)
        memory.commit()
    assert len(sizes) == 1 and rows[5:] == [rows[5]] * 15
    assert rows[5] == len(chat.prompt_ids) + 6 * len(chat.frame_ids) + len(chat.question_ids)


def test_reset_forgets_everything_and_a_longer_prompt_is_taken(chat):
    memory = chat.new_memory(prompt_rows=6)
    for frame in chat.frames(4):
        chat.step(memory, frame)
        memory.commit()
    long = [i % 30 for i in range(20)]
    dual.read_prompt(chat.language, memory, long)
    fresh = chat.empty_memory()
    dual.read_prompt(chat.language, fresh, long)
    torch.testing.assert_close(
        chat.step(memory, chat.frames(1)[0]), chat.step(fresh, chat.frames(1)[0])
    )
    assert memory.frames == []


def test_next_frame_continues_one_after_the_last_position():
    layout = dual.FrameLayout(2, 3)
    got = layout.positions()
    assert got[:, 0].tolist() == [0, 0, 0]
    assert got[:, 1:7].tolist() == [[1] * 6, [1, 1, 1, 2, 2, 2], [1, 2, 3, 1, 2, 3]]
    assert got[:, 7].tolist() == [4, 4, 4] and layout.span == 5 and layout.rows == 8


def test_tree_of_answers_scores_each_token_as_if_it_were_alone(chat):
    memory = chat.new_memory()
    for frame in chat.frames(7):
        chat.step(memory, frame)
        memory.commit()
    frame = chat.frames(1, seed=3)[0]
    #       7 ── 8 ── 9
    #   .──<  `─ 10
    #       11
    got = chat.step(
        memory,
        frame,
        tree_tokens=[7, 11, 8, 10, 9],
        tree_parents=[-1, -1, 0, 0, 2],
        tree_depths=[0, 0, 1, 1, 2],
    )
    for row, path in {1: [7], 2: [11], 3: [7, 8], 4: [7, 10], 5: [7, 8, 9]}.items():
        expected = chat.step(memory, frame)[0]
        torch.testing.assert_close(got[0], expected, atol=1e-5, rtol=1e-5)
        for token in path:
            expected = chat.answer(memory, token)
        torch.testing.assert_close(got[row], expected, atol=1e-5, rtol=1e-5)


def test_what_cannot_be_is_said(chat):
    memory = chat.empty_memory(leaf_rows=4)
    with pytest.raises(InputError, match="no instruction"):
        dual.read_frame(
            chat.language, memory, chat.frame_ids, chat.frames(1)[0], chat.question_ids
        )
    with pytest.raises(InputError, match="prompt is empty"):
        dual.read_prompt(chat.language, memory, [])
    with pytest.raises(InputError, match="5000 tokens"):
        dual.read_prompt(chat.language, memory, [1] * 5000)
    with pytest.raises(InputError, match="open question"):
        dual.read_answer(chat.language, memory, 1)
    dual.read_prompt(chat.language, memory, chat.prompt_ids)
    memory.seen = 900
    with pytest.raises(InputError, match="new episode"):
        dual.read_frame(
            chat.language, memory, chat.frame_ids, chat.frames(1)[0], chat.question_ids
        )


def test_answer_longer_than_its_rows_is_refused(chat):
    memory = chat.new_memory(leaf_rows=4, prompt_rows=5)
    for frame in chat.frames(6):
        chat.step(memory, frame)
        memory.commit()
    chat.step(memory, chat.frames(1)[0])
    dual.read_answer(chat.language, memory, 1)
    with pytest.raises(InputError, match="leaf_rows"):
        dual.read_answer(chat.language, memory, 1)


def test_recorded_steps_are_those_that_are_made_and_serve_until_the_prompt_changes(chat, traced):
    recordings = Recordings(traced)
    memory, fused = chat.new_memory(recordings=recordings), chat.frames(14)
    got = []
    for frame in fused:
        got.append(chat.step(memory, frame)[0])
        memory.commit()
    assert torch.equal(torch.stack(got), chat.stream(fused))
    assert len(recordings) == 1, "one recording serves all steps of the full window"
    dual.read_prompt(chat.language, memory, chat.prompt_ids)
    for frame, expected in zip(fused, got):
        assert torch.equal(chat.step(memory, frame)[0], expected)
        memory.commit()
    assert len(recordings) == 1, "and those of the next episode, if its prompt is as long"

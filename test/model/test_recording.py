"""What is recorded is replayed with new inputs, and only where nothing else changes."""

import pytest
import torch

from janusvln_ros.model.memory import FrameWindow, SpatialMemory
from janusvln_ros.model.recording import MOST_RECORDINGS, Recordings


def test_without_a_recorder_every_call_is_made():
    recordings, made = Recordings(), []
    for value in (1.0, 2.0):
        recordings.run(lambda x: (made.append(float(x)) or x,), torch.tensor(value), key="a")
    assert made == [1.0, 2.0] and len(recordings) == 0


def test_a_call_is_recorded_once_it_is_steady_and_replayed_with_new_inputs(traced):
    recordings, offset = Recordings(traced), torch.tensor(10.0)
    for step in range(6):
        (found,) = recordings.run(
            lambda x: (2 * x + offset,), torch.tensor(float(step)), key="a", steady=step >= 2
        )
        assert found == 2 * step + 10 and len(recordings) == (step >= 2)


def adding(number):
    return lambda x: (x + number,)


def test_another_key_is_another_recording_and_there_are_never_many(traced):
    recordings = Recordings(traced)
    for number in range(3 * MOST_RECORDINGS):
        (found,) = recordings.run(adding(number), torch.tensor(1.0), key=number)
        assert found == 1 + number and 0 < len(recordings) <= MOST_RECORDINGS


def test_rows_of_the_current_frame_are_the_slot_of_the_ring_at_every_step():
    window, tokens = FrameWindow(2, 3), 4
    memory = SpatialMemory(1, 2, 3, tokens, window, torch.float32, "cpu")
    plain_k, plain_v = torch.zeros(2, 24, 3), torch.zeros(2, 24, 3)
    address = memory.rows_P.data_ptr()
    generator = torch.Generator().manual_seed(0)
    for frame in range(20):
        start, end = window.slot(frame) * tokens, min(frame + 1, window.slots) * tokens
        k, v = torch.randn(2, 1, 2, tokens, 3, generator=generator)
        plain_k[:, start : start + tokens], plain_v[:, start : start + tokens] = k[0], v[0]
        k_BNKH, v_BNKH = memory.attend(0, k, v)
        assert torch.equal(k_BNKH[0], plain_k[:, :end])
        assert torch.equal(v_BNKH[0], plain_v[:, :end])
        assert memory.rows_P.tolist() == list(range(start, start + tokens))
        assert memory.full == (frame >= 5)
        memory.commit()
    assert memory.rows_P.data_ptr() == address


@pytest.mark.parametrize("storage", [torch.int8, torch.float8_e4m3fn])
def test_rows_of_one_byte_a_number_are_written_as_they_are(storage):
    memory = SpatialMemory(1, 1, 2, 3, FrameWindow(1, 1), storage, "cpu")
    rows = torch.tensor([[[[1.0, -2.0], [3.0, 4.0], [-5.0, 6.0]]]]).to(storage)
    k_BNKH, v_BNKH = memory.attend(0, rows, rows)
    assert torch.equal(k_BNKH.float(), rows.float()) and torch.equal(v_BNKH.float(), rows.float())

"""The frames that are read again are the published choice."""

import json
from pathlib import Path

import pytest

from janusvln_ros.errors import InputError
from janusvln_ros.policy.prompt import sample_history

TABLE = json.loads(
    (Path(__file__).parents[1] / "data" / "policy" / "history_indices.json").read_text()
)


@pytest.mark.parametrize("num_history", TABLE)
def test_indices_are_the_published_ones(num_history):
    assert TABLE[num_history]
    for n, expected in TABLE[num_history].items():
        assert sample_history(int(n), int(num_history)) == expected


def test_current_frame_is_always_last_and_never_twice():
    for n in range(1, 120):
        for h in range(9):
            chosen = sample_history(n, h)
            assert chosen[-1] == n - 1 and len(chosen) == min(n, h + 1) == len(set(chosen))


@pytest.mark.parametrize("n, h", [(0, 8), (3, -1)])
def test_nothing_to_choose_from_is_an_error(n, h):
    with pytest.raises(InputError, match="history"):
        sample_history(n, h)


def test_history_is_everything_up_to_nine_frames_and_evenly_spread_after():
    assert sample_history(9, 8) == list(range(9))
    assert sample_history(12, 8) == [0, 1, 2, 4, 5, 6, 8, 9, 11]

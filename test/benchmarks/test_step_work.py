"""
Operations are those that MODEL_SPEC's authors counted for the published sizes; shares grow with
what they should grow with.
"""

from pathlib import Path

import pytest
import step_work

from janusvln_ros.model import JanusVLNConfig
from janusvln_ros.model.footprint import FrameSize
from janusvln_ros.model.memory import FrameWindow

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FULL = JanusVLNConfig.from_pretrained(BENCHMARKS / "configs" / "full")
FRAME = FrameSize(35, 46)
WINDOW = FrameWindow(8, 48)
TERA = 1e12


@pytest.fixture(scope="module")
def works():
    return {
        (memory, number): step_work.step_work(FULL, step_work.Step(FRAME, memory, WINDOW, number))
        for memory in ("released", "dual")
        for number in (1, 9, 57, 200)
    }


def test_vision_tower_takes_two_tera_operations_a_picture(works):
    assert works["released", 1]["vision"].operations == pytest.approx(2.08 * TERA, rel=0.02)


@pytest.mark.parametrize("number, published", [(1, 3.7), (9, 5.8), (57, 18.1)])
def test_spatial_encoder_is_the_published_one_less_a_layer(works, number, published):
    less = (1.23 + 0.98 + 0.256 * number) / 24
    assert works["released", number]["spatial"].operations == pytest.approx(
        (published + 0.04 - less) * TERA, rel=0.02
    )


def test_released_reads_nine_pictures_and_dual_one(works):
    assert works["released", 9]["prefill"].operations == pytest.approx(51.7 * TERA, rel=0.02)
    assert works["released", 1]["prefill"].operations == pytest.approx(8.6 * TERA, rel=0.08)
    assert (
        works["dual", 57]["prefill"].operations < 0.2 * works["released", 57]["prefill"].operations
    )


@pytest.mark.parametrize("memory", ["released", "dual"])
def test_work_is_flat_once_the_window_is_full(works, memory):
    assert works[memory, 200] == works[memory, 57] != works[memory, 9]


def test_decoding_moves_the_weights_and_computes_little(works):
    decode = works["dual", 57]["decode"]
    assert decode.bytes > 2 * 7.0e9 and decode.operations < 0.03 * TERA
    assert decode.seconds(1e15, 4.8e12) == pytest.approx(decode.bytes / 4.8e12)
    assert step_work.Work(10.0, 1.0).seconds(5.0, 1.0) == 2.0

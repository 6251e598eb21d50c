"""The precisions and the window of the parameters reach the model; what does not fit is said."""

from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy")
from janusvln_ros.model.footprint import Room
from janusvln_ros.nodes.policy import PARAMETERS, LoadFailed, load, load_navigator

pytestmark = pytest.mark.ros


def values(**changes):
    given = {param.name: param.default for param in PARAMETERS}
    return SimpleNamespace(**given | {"device": "cpu", **changes})


def test_the_window_and_the_precisions_are_those_of_the_parameters():
    navigator = load_navigator(
        values(window=[2, 5], precision="int8", spatial_precision="int8", memory="dual")
    )
    assert (
        str(navigator.fit.use) == "int8 with 2 + 5 frames (spatial memory in int8)"
        and navigator.memory_capacity == 7
    )
    assert navigator.about["precision"] == "int8" and navigator.about["window"] == "2 + 5"


def test_by_default_the_checkpoint_and_the_machine_decide():
    navigator = load_navigator(values())
    assert navigator.fit.use.precision == "float32" and navigator.memory_capacity == 56
    assert "float32 with 8 + 48 frames takes" in navigator.fit.why


def test_what_does_not_fit_ends_with_its_sentence(monkeypatch):
    small = Room("this machine", 10**9, 10**8)
    monkeypatch.setattr("janusvln_ros.policy.fit.rooms", lambda device: (small, None))
    outcome = load(load_navigator, values(precision="float32"))
    assert isinstance(outcome, LoadFailed)
    assert "this machine has 0.1 GB free" in outcome.message


def test_a_model_that_can_reserve_is_asked_to():
    outcome = load(load_navigator, values(window=[1, 1]))
    with pytest.raises(ValueError, match="are set aside"):
        outcome.navigator.reset("go " * 3000)

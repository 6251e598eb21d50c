"""What a tape says about a base and its odometry."""

import pytest

from janusvln_ros.errors import InputError
from janusvln_ros.protocol.calibration import Walk, advice, gains


def test_gains_are_the_tape_by_what_was_sent_and_odometry_by_the_tape():
    walk = Walk().with_step(0.5, 0.4).with_step(0.5, 0.4)
    assert gains(walk, 0.8) == pytest.approx((0.8, 1.0))
    assert gains(walk, 0.4) == pytest.approx((0.4, 2.0))


@pytest.mark.parametrize("measured", [0.0, -1.0, float("nan")])
def test_a_tape_that_says_no_way_is_refused(measured):
    with pytest.raises(InputError, match="above 0"):
        gains(Walk(1, 0.3, 0.3), measured)


def test_a_base_that_was_sent_nothing_has_no_gain():
    with pytest.raises(InputError, match="nothing was commanded in 4 steps"):
        gains(Walk(4, 0.0, 1.0), 1.0)


def test_what_to_do_is_said():
    assert advice(gains(Walk(1, 1.0, 0.9), 0.9), "execution") == ["execution: 0.90"]
    (gain, scale) = advice(gains(Walk(1, 1.0, 0.5), 0.9), "turn_execution")
    assert gain == "turn_execution: 0.90" and "odometry shows 0.56" in scale
    for measured in (0.5, 1.6):
        (sentence,) = advice(gains(Walk(1, 1.0, measured), measured), "execution")
        assert "mend it at the base" in sentence

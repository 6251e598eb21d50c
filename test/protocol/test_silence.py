"""Whether the base stops by itself as declared: when it is tried, how fast, and the verdict."""

import pytest

from janusvln_ros.protocol.profile import Profile
from janusvln_ros.protocol.silence import AT_PACE, fits, pace, verdict

SHAPE = Profile(base_timeout=0.2, latency=0.05)
FORWARD, TURN = False, True


@pytest.mark.parametrize(("turns", "usual"), [(FORWARD, 0.1), (TURN, 0.3)])
def test_the_base_is_tried_slowly_and_no_faster_than_it_may_go(turns, usual):
    assert pace(turns, SHAPE) == usual
    assert pace(FORWARD, Profile(speed=0.05)) == 0.05
    assert pace(TURN, Profile(rate=0.2)) == 0.2
    # the limit of the other kind of motion is none
    assert pace(FORWARD, Profile(rate=0.01)) == 0.1 and pace(TURN, Profile(speed=0.01)) == 0.3


@pytest.mark.parametrize(("turns", "usual"), [(FORWARD, 0.1), (TURN, 0.3)])
def test_a_trial_fits_where_the_base_may_go_on_for_the_time_out_and_the_time_to_brake(
    turns, usual
):
    least = usual * (0.2 + 0.3)
    assert fits(least + 1e-9, turns, SHAPE) and not fits(least, turns, SHAPE)
    assert not fits(least - 1e-9, turns, SHAPE)


def test_weak_bases_are_tried_at_less_than_the_pace():
    assert pytest.approx(0.6) == AT_PACE  # 0.75 of the command, and noise


@pytest.mark.parametrize("sign", [1, -1])
def test_a_base_at_less_than_half_of_its_speed_has_stopped_by_itself(sign):
    assert verdict(sign * 0.5, sign * 0.24, 0.0, SHAPE) is True
    assert verdict(sign * 0.5, -sign * 0.24, 9.0, SHAPE) is True
    assert verdict(sign * 0.5, sign * 0.25, 0.1, SHAPE) is None
    assert verdict(sign * 0.5, -sign * 0.26, 0.1, SHAPE) is None


def test_a_base_that_goes_on_is_waited_for_as_declared_and_no_longer():
    last = 0.2 + 0.3 + 0.05
    assert verdict(0.1, 0.1, last, SHAPE) is None
    assert verdict(0.1, 0.1, last + 1e-9, SHAPE) is False
    assert verdict(0.1, 0.09, 9.0, SHAPE) is False

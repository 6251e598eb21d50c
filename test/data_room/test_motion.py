"""A drive is cut into the steps that were commanded, whatever their small errors."""

import numpy as np
import pytest
from bag_fixtures import simulate

from janusvln_ros.actions import Action
from janusvln_ros.data.motion import cut_into_steps, odometry_from_poses, odometry_from_velocity
from janusvln_ros.errors import InputError

F, L, R, S = Action.MOVE_FORWARD, Action.TURN_LEFT, Action.TURN_RIGHT, Action.STOP


def cut(actions, **drive):
    stamps, poses = simulate(actions, **drive)
    frames = np.arange(stamps[0], stamps[-1] + 1, 33_333_333)
    return [step.action for step in cut_into_steps(frames, odometry_from_poses(stamps, poses))]


@pytest.mark.parametrize("pause_s", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("error", [0.0, 0.05])
def test_commanded_steps_come_back_as_they_were_given(pause_s, error):
    actions = [Action(int(a)) for a in np.random.default_rng(1).choice([1, 1, 1, 2, 3], 150)]
    assert cut(actions, pause_s=pause_s, error=error) == [*actions, S]


def test_steady_driving_gives_a_step_for_every_quarter_metre():
    stamps = [n * 20_000_000 for n in range(501)]
    # 4 m in 10 s
    odometry = odometry_from_poses(stamps, [(0.4 * s / 1e9, 0.0, 0.0) for s in stamps])
    actions = [
        step.action for step in cut_into_steps(np.arange(0, stamps[-1], 33_333_333), odometry)
    ]
    assert set(actions[:-1]) == {F}
    assert len(actions) - 1 in (15, 16)  # each step ends at the first frame past its end


def test_standing_gives_nothing_but_the_final_stop():
    stamps = [n * 20_000_000 for n in range(500)]
    assert [
        s.action
        for s in cut_into_steps(
            np.asarray(stamps), odometry_from_poses(stamps, [(1.0, 2.0, 3.0)] * 500)
        )
    ] == [S]


def test_turn_across_the_end_of_the_circle_is_one_direction():
    yaws = (np.linspace(3.0, 3.0 + np.pi / 2, 300) + np.pi) % (2 * np.pi) - np.pi
    stamps = [n * 20_000_000 for n in range(300)]
    actions = [
        s.action
        for s in cut_into_steps(
            np.asarray(stamps), odometry_from_poses(stamps, [(0, 0, y) for y in yaws])
        )
    ]
    assert set(actions) == {L, S} and actions.count(L) in (5, 6)


def test_velocity_is_integrated_like_odometry():
    # 1 m, then 13 * 0.05... radians to the right
    commands = [(0.25, 0.0)] * 40 + [(0.0, -0.5)] * 26
    stamps = [n * 100_000_000 for n in range(len(commands))]
    odometry = odometry_from_velocity(stamps, commands)
    assert odometry.x[40] == pytest.approx(1.0)
    assert odometry.yaw[-1] == pytest.approx(-0.5 * 2.5)


def test_odometry_that_is_not_finite_is_refused():
    with pytest.raises(InputError, match="1 of 3 poses are not finite"):
        odometry_from_poses([0, 1, 2], [(0, 0, 0), (float("nan"), 0, 0), (0, 0, 0)])

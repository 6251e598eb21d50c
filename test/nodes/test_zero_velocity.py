"""When motion sends zero velocity, and whose word ends a step."""

import pytest

from janusvln_ros.actions import Action

pytestmark = pytest.mark.ros


class Sent:
    """Stands in for a publisher; what was sent, and when."""

    def __init__(self, clock):
        self.clock, self.messages = clock, []

    def publish(self, message):
        self.messages.append((self.clock(), message.linear.x, message.angular.z))


def test_cancelling_a_goal_that_is_not_the_running_one_changes_nothing(robot):
    r = robot(*[Action.MOVE_FORWARD] * 2)
    r.go()
    r.graph.until(lambda: r.base.v > 0.1, "motion")
    running = r.motion.machine.goal
    assert not r.motion.cancel_goal(running.key + 1)
    assert r.motion.machine.goal is running and r.motion.machine.phase.name != "STOPPING"
    assert r.motion.cancel_goal(running.key)
    assert r.motion.machine.phase.name == "STOPPING"


def test_zero_velocity_is_sent_for_a_while_after_a_step(robot):
    r = robot(Action.MOVE_FORWARD, Action.STOP)
    r.go()
    r.graph.until(lambda: r.motion.machine.goal, "a step")
    r.graph.until(lambda: r.motion.machine.goal is None, "its end")
    r.motion.command_out = sent = Sent(r.motion.now)
    ended = r.motion.now()
    r.graph.until(lambda: r.motion.now() > ended + 2.0, "two seconds")
    assert sent.messages and not any(v or w for _, v, w in sent.messages)
    assert 0.3 < sent.messages[-1][0] - ended < 1.5


def test_the_last_that_a_process_says_is_zero_and_more_than_once(robot):
    r = robot(Action.STOP, armed=False)
    r.motion.command_out = sent = Sent(r.motion.now)
    r.motion.close()
    assert len(sent.messages) >= 3 and not any(v or w for _, v, w in sent.messages)

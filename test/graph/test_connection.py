"""
Asking a service whose answer is lost on its way, as one is that comes before both sides know each
other.
"""

import threading

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("janusvln_msgs", reason="needs the interfaces: scripts/build_msgs.sh")

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import SetBool, Trigger

from janusvln_ros.graph import connection
from janusvln_ros.graph.connection import Connection, GraphTimeoutError
from janusvln_ros.graph.operating import NoGraphError, Operator
from janusvln_ros.graph.processes import middleware_environment

pytestmark = pytest.mark.ros


class Forgetful:
    """A robot whose next ``lost`` answers are lost; ``asked``: what it has carried out."""

    def __init__(self, domain, lost):
        self.lost, self.asked = lost, []
        self.context = rclpy.Context()
        rclpy.init(
            context=self.context, domain_id=domain, signal_handler_options=SignalHandlerOptions.NO
        )
        self.node = rclpy.create_node("motion", context=self.context)
        for kind, name in ((Trigger, "look"), (SetBool, "motion/arm")):
            service = self.node.create_service(kind, name, self.carry_out)
            service.send_response = self.losing(service.send_response)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.thread = threading.Thread(target=self.executor.spin)
        self.thread.start()

    def carry_out(self, request, response):
        self.asked.append(getattr(request, "data", None))
        response.success, response.message = True, f"answer {len(self.asked)}"
        return response

    def losing(self, send):
        def send_unless_lost(response, header):
            self.lost -= 1
            if self.lost < 0:
                send(response, header)

        return send_unless_lost

    def close(self):
        self.executor.shutdown()
        self.thread.join()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)


@pytest.fixture
def losing(ros_domain, monkeypatch):
    """``losing(n)``: a robot beside which the next ``n`` answers are lost."""
    monkeypatch.setattr(connection, "ASKED_AGAIN_S", 0.2)
    made = []

    def run(lost):
        made.append(Forgetful(ros_domain, lost))
        return made[0]

    yield run
    made[0].close()


@pytest.fixture
def beside(ros_domain):
    """A connection to the graph."""
    made = Connection(middleware_environment(ros_domain, localhost=True))
    yield made
    made.close()


def test_a_question_is_asked_until_it_is_answered(losing, beside):
    robot = losing(2)
    assert beside.call(Trigger, "look", Trigger.Request(), 30.0, repeatable=True).message == (
        "answer 3"
    )
    assert len(robot.asked) == 3


def test_what_may_not_be_carried_out_twice_is_asked_for_once(losing, beside):
    robot = losing(1)
    with pytest.raises(GraphTimeoutError, match="service look did not answer within 2 s"):
        beside.call(Trigger, "look", Trigger.Request(), 2.0)
    assert len(robot.asked) == 1
    # an answer that comes late is no answer to the next request
    assert beside.call(Trigger, "look", Trigger.Request(), 30.0).message == "answer 2"


def test_disarming_is_repeated_and_arming_is_not(losing, ros_domain, monkeypatch):
    monkeypatch.setattr("janusvln_ros.graph.operating.ANSWER_S", 2.0)
    robot = losing(1)
    operator = Operator(middleware_environment(ros_domain, localhost=True), "/", 60.0)
    try:
        assert operator.arm(False) == "answer 2"
        robot.lost = 1
        with pytest.raises(NoGraphError, match="did not answer within 2 s: is it frozen"):
            operator.arm(True)
        assert robot.asked == [False, False, True]
    finally:
        operator.close()

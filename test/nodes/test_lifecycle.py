"""
Policy and motion under a lifecycle manager: "configure" is answered when the model is loaded, and
"activate" may follow at once.
"""

import threading

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("janusvln_msgs", reason="needs the interfaces: scripts/build_msgs.sh")

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node

from janusvln_ros.nodes.motion import MotionNode
from janusvln_ros.nodes.policy import PolicyNode

pytestmark = pytest.mark.ros

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class Loader:
    """What makes the model: holds until ``gate`` is open, and fails while ``broken``."""

    def __init__(self, script):
        self.script, self.gate, self.broken, self.loads = script, threading.Event(), False, 0

    def __call__(self, values):
        self.loads += 1
        assert self.gate.wait(60)
        if self.broken:
            raise RuntimeError("CUDA out of memory")
        return self.script()


class Manager:
    """A node that asks for transitions as Nav2's lifecycle manager does."""

    def __init__(self, graph):
        self.graph, self.node = graph, Node("manager", context=graph.context)
        graph.executor.add_node(self.node)
        graph.nodes.append(self.node)
        self.heard = []
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self.heard.append, 10)

    def ask(self, kind, name, request):
        client = self.node.create_client(kind, name)
        self.graph.until(client.service_is_ready, name)
        return client.call_async(request)

    def request(self, node, transition):
        told = ChangeState.Request(transition=Transition(id=transition))
        return self.ask(ChangeState, f"{node}/change_state", told)

    def state(self, node):
        answer = self.ask(GetState, f"{node}/get_state", GetState.Request())
        return self.graph.result(answer, "a state").current_state.id

    def change(self, node, transition):
        """Its ``changeStateForNode``: ask, wait without limit, and look."""
        assert self.graph.result(self.request(node, transition), f"{node} to change").success
        return self.state(node)


@pytest.fixture
def loader(script):
    return Loader(script)


@pytest.fixture
def policy(graph, loader):
    """``policy(**parameters)``: the node, whose model ``loader`` makes."""
    return lambda **values: graph.add(lambda **told: PolicyNode(loader, **told), **values)


def test_nav2s_manager_brings_both_nodes_up_in_one_go(graph, policy, loader):
    graph.add(MotionNode, autostart=False)
    node = policy(autostart=False)
    manager = Manager(graph)
    threading.Timer(0.5, loader.gate.set).start()
    for name in ("motion", "policy"):
        done = manager.change(name, Transition.TRANSITION_CONFIGURE)
        assert done == State.PRIMARY_STATE_INACTIVE
    for name in ("motion", "policy"):
        done = manager.change(name, Transition.TRANSITION_ACTIVATE)
        assert done == State.PRIMARY_STATE_ACTIVE
    assert node.machine.active


def test_everything_else_goes_on_while_configure_waits_for_the_model(graph, policy, loader):
    node = policy(autostart=False)
    manager = Manager(graph)
    configured = manager.request("policy", Transition.TRANSITION_CONFIGURE)
    graph.until(lambda: loader.loads == 1, "the load to begin")
    assert manager.state("policy") == State.PRIMARY_STATE_UNCONFIGURED
    graph.until(
        lambda: any(s.message == "loading the model" for m in manager.heard for s in m.status),
        "diagnostics",
    )
    early = manager.request("policy", Transition.TRANSITION_ACTIVATE)
    assert not graph.result(early).success and not configured.done()
    again = manager.request("policy", Transition.TRANSITION_CONFIGURE)
    loader.gate.set()
    # one of the two who have waited has configured the node
    answers = [graph.result(asked).success for asked in (configured, again)]
    assert sorted(answers) == [False, True]
    assert node.session is not None and loader.loads == 1


def test_the_log_tells_of_a_model_that_takes_long(graph, policy, loader):
    node, told = policy(autostart=False), []
    logger = node.get_logger()
    node.get_logger = lambda: type("Log", (), {"info": told.append, "error": logger.error})()
    Manager(graph).request("policy", Transition.TRANSITION_CONFIGURE)
    graph.until(lambda: node.loading is not None, "the load to begin")
    for seconds in (4, 6, 9, 12):
        node.on_tick(node.loading.since + seconds)
    assert [line for line in told if "still" in line] == [
        "still loading the model (6 s)",
        "still loading the model (12 s)",
    ]
    loader.gate.set()


def test_a_model_that_cannot_be_loaded_fails_configure_and_may_be_configured_again(
    graph, policy, loader
):
    node = policy(autostart=False)
    manager, loader.broken = Manager(graph), True
    loader.gate.set()
    refused = graph.result(manager.request("policy", Transition.TRANSITION_CONFIGURE))
    assert not refused.success and "out of memory" in node.figures.last_error
    assert manager.state("policy") == State.PRIMARY_STATE_UNCONFIGURED and node.exit_code is None
    loader.broken = False
    done = manager.change("policy", Transition.TRANSITION_CONFIGURE)
    assert done == State.PRIMARY_STATE_INACTIVE


def test_configure_waits_for_the_model_also_where_nobody_spins(policy, loader):
    node = policy(autostart=False)
    threading.Timer(0.2, loader.gate.set).start()
    assert node.trigger_configure() == SUCCESS and node.session is not None
    assert node.trigger_activate() == SUCCESS


def test_an_autostarted_node_that_is_configured_by_hand_again_stays_inactive(
    graph, policy, loader
):
    node, manager = policy(), Manager(graph)
    loader.gate.set()
    graph.until(lambda: node.machine.active, "the node to become active by itself")
    assert node.trigger_deactivate() == node.trigger_cleanup() == SUCCESS
    assert node.session is None
    done = manager.change("policy", Transition.TRANSITION_CONFIGURE)
    assert done == State.PRIMARY_STATE_INACTIVE and loader.loads == 2
    graph.spin(0.3)
    assert manager.state("policy") == State.PRIMARY_STATE_INACTIVE and node.exit_code is None
    done = manager.change("policy", Transition.TRANSITION_ACTIVATE)
    assert done == State.PRIMARY_STATE_ACTIVE


def test_a_node_that_is_shut_down_while_its_model_loads_does_not_start(graph, policy, loader):
    node, manager = policy(), Manager(graph)
    graph.until(lambda: loader.loads == 1, "the load to begin")
    done = manager.change("policy", Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
    assert done == State.PRIMARY_STATE_FINALIZED
    loader.gate.set()
    graph.until(lambda: node.loading.outcome.done(), "the model")
    graph.spin(0.2)
    assert manager.state("policy") == State.PRIMARY_STATE_FINALIZED and node.exit_code is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"checkpoint": "/no/such/folder"}, "no checkpoint folder .?/no/such/folder"),
        ({"checkpoint": "."}, "'checkpoint' is .*no config.json"),
        ({"resend_after": 2.0, "frame_timeout": 2.0}, "'resend_after' is 2; .*less than"),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_loaded(
    policy, loader, values, words, tmp_path, monkeypatch
):
    from janusvln_ros.errors import InputError

    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=words):
        policy(**values)
    assert loader.loads == 0

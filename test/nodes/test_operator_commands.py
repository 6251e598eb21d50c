"""The commands arm, go, watch, stop and status beside real nodes that somebody else started."""

import json
import signal
import threading
import time

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("janusvln_msgs", reason="needs the interfaces: scripts/build_msgs.sh")

from std_msgs.msg import String

from janusvln_ros.actions import Action
from janusvln_ros.cli.main import main

pytestmark = pytest.mark.ros


class Spun:
    """The nodes of a test, spun by a thread of their own while this one runs commands."""

    def __init__(self, graph):
        self.graph, self.going = graph, True
        self.thread = threading.Thread(target=self.spin)

    def spin(self):
        while self.going:
            self.graph.once()

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.going = False
        self.thread.join()


@pytest.fixture
def command(capsys, ros_domain):
    """``command(words)``: run it beside the nodes; exit code, stdout, stderr."""

    def run(*words):
        code = main([*words, "--domain", str(ros_domain)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def wait(condition, what):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def test_a_robot_is_armed_told_where_to_go_and_stopped(robot, command):
    ours = robot(Action.MOVE_FORWARD, armed=False)
    with Spun(ours.graph):
        code, out, _ = command("status", "--json")
        before = json.loads(out)
        assert code == 0
        assert before["nodes"] == {"motion": "active", "policy": "active"}
        assert before["armed"] is False and before["last_decision"] == ""

        code, _, err = command("go", "to the door", "--max-steps", "1")
        assert code == 1 and err.count("MOVE_FORWARD") == 1
        ours.script.answers = [Action.MOVE_FORWARD]

        code, out, _ = command("arm")
        assert code == 0 and out.startswith("armed") and ours.motion.machine.armed

        code, out, err = command("go", "to the sofa", "--json")
        told = json.loads(out)
        assert (code, told["code"], told["steps"]) == (0, "NONE", 2)
        assert told["path_length"] == pytest.approx(0.25, abs=0.05)
        assert "MOVE_FORWARD" in err and "STOP" in err
        assert ours.script.instructions[-1] == "to the sofa"

        code, out, _ = command("status")
        assert "ARMED" in out and "step 1: STOP (to the sofa)" in out

        code, out, _ = command("stop")
        assert code == 0 and "motion: disarmed" in out and not ours.motion.machine.armed


def test_a_disarmed_robot_says_how_to_arm_it(robot, command):
    ours = robot(Action.MOVE_FORWARD, armed=False)
    with Spun(ours.graph):
        code, out, _ = command("go", "to the door")
    assert code == 1 and "DISARMED" in out and "janusvln arm" in out


def test_ctrl_c_cancels_the_goal_and_waits_for_its_end(robot, command):
    ours = robot(*[Action.TURN_LEFT] * 200)

    def interrupt():
        wait(lambda: len(ours.reports) >= 1, "no step was made")
        signal.raise_signal(signal.SIGINT)

    with Spun(ours.graph):
        thread = threading.Thread(target=interrupt)
        thread.start()
        code, _, err = command("go", "round and round")
        thread.join()
        assert code == 130 and "cancelled" in err
        assert ours.policy.machine.start is None and ours.base.w == 0.0


def test_go_with_arm_leaves_the_robot_disarmed(robot, command):
    ours = robot(Action.MOVE_FORWARD, armed=False)
    with Spun(ours.graph):
        code, _, err = command("go", "to the door", "--arm")
        assert code == 0 and "armed" in err and not ours.motion.machine.armed


@pytest.mark.slow
def test_go_ends_with_a_sentence_when_the_policy_freezes(robot, command, monkeypatch):
    from janusvln_ros.graph import operating

    monkeypatch.setattr(operating, "SILENCE_S", 2.0)
    monkeypatch.setattr(operating, "ANSWER_S", 2.0)
    ours = robot(*[Action.TURN_LEFT] * 200)
    with Spun(ours.graph) as spun:

        def freeze():
            wait(lambda: len(ours.reports) >= 1, "no step was made")
            spun.going = False

        thread = threading.Thread(target=freeze)
        thread.start()
        code, out, err = command("go", "round and round")
        thread.join()
    assert code == 1 and out == ""
    assert "'policy' has said nothing for" in err and "frozen" in err


def test_stop_ends_what_came_by_the_topic(robot, command):
    ours = robot(*[Action.TURN_LEFT] * 200)
    words = ours.base.node.create_publisher(String, "instruction", 1)
    with Spun(ours.graph):
        wait(words.get_subscription_count, "policy does not listen")
        words.publish(String(data="round and round"))
        wait(lambda: ours.reports, "no step was made")
        code, out, _ = command("stop")
        assert code == 0 and "stopped: round and round" in out and "disarmed" in out
        wait(lambda: ours.policy.machine.start is None, "the policy goes on")


def test_watch_shows_decisions_as_they_come(robot, command):
    ours = robot(*[Action.TURN_RIGHT] * 200)
    words = ours.base.node.create_publisher(String, "instruction", 1)
    with Spun(ours.graph):
        wait(words.get_subscription_count, "policy does not listen")
        words.publish(String(data="round and round"))
        code, out, _ = command("watch", "--decisions", "2", "--json")
        rows = [json.loads(line) for line in out.splitlines()]
        assert code == 0 and [row["action"] for row in rows] == ["TURN_RIGHT"] * 2
        code, out, _ = command("watch", "--decisions", "1")
        assert code == 0 and "'round and round'" in out and "TURN_RIGHT" in out


@pytest.mark.slow
def test_calibrate_adds_up_the_steps_and_says_what_the_tape_makes_of_them(robot, command):
    r = robot(*[Action.MOVE_FORWARD] * 2, Action.TURN_LEFT, Action.MOVE_FORWARD)
    with Spun(r.graph):
        handle = threading.Timer(3.0, lambda: r.client.send_goal_async(r.Goal(instruction="go")))
        handle.start()
        words = ("--steps", "3", "--measured", "0.6", "--json")
        code, out, err = command("calibrate", "forward", *words)
    told = json.loads(out)
    assert code == 0 and told["steps"] == 3 and "step 3 of 3" in err
    assert told["commanded"] == pytest.approx(0.75, abs=0.1)
    assert told["odometry"] == pytest.approx(0.75, abs=0.08)
    assert told["execution"] == pytest.approx(0.6 / told["commanded"])


def test_a_refusal_to_arm_is_the_reason_of_motion(robot, command):
    ours = robot(motion={"base_timeout": 0.0}, armed=False)
    with Spun(ours.graph):
        code, _, err = command("arm")
    assert code == 1 and "refuses" in err and "base_timeout" in err


def test_status_names_inputs_that_nobody_publishes(robot, command):
    ours = robot(motion={"range_source": "scan"}, armed=False)
    with Spun(ours.graph):
        wait(lambda: ours.motion.missing, "motion misses nothing")
        code, out, _ = command("status", "--json")
        told = json.loads(out)
        assert code == 0 and any("/scan" in sentence for sentence in told["missing"])
        assert "missing" in command("status")[1]


@pytest.mark.parametrize("name", ["status", "go"])
def test_without_a_graph_there_is_one_sentence(name, command, ros_domain):
    code, out, err = command(name, *["to the door"] * (name == "go"))
    assert code == 1 and out == "" and len(err.splitlines()) == 1
    assert f"no graph in ROS domain {ros_domain}" in err and "--domain" in err


@pytest.mark.slow
def test_a_namespace_that_has_no_graph_names_those_that_do(robot, command):
    ours = robot(armed=False)
    with Spun(ours.graph):
        code, _, err = command("status", "--namespace", "robot7")
        assert code == 1 and "/robot7" in err and "there are graphs in /" in err
        assert command("status", "--namespace", "/")[0] == 0


def test_a_domain_out_of_range_is_bad_input(capsys):
    assert main(["stop", "--domain", "200"]) == 2
    assert "0 to 101" in capsys.readouterr().err

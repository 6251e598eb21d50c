"""Bags played into the graph and recorded from it, on machines without rosbag2."""

import os
import signal
import subprocess
import sys
import time

import pytest

from janusvln_ros.data.bags import Message, open_bag
from janusvln_ros.nodes.player import PlayClock, played_name
from janusvln_ros.nodes.recorder import Ring, Trigger, bag_name

S = 10**9


def test_bag_time_follows_the_rate_and_stands_while_paused():
    clock = PlayClock(100 * S, since=10.0)
    assert clock.at(11.0) == 101 * S
    clock.change(11.0, rate=2.0)
    assert clock.at(12.0) == 103 * S and clock.wait(105 * S, 12.0) == pytest.approx(1.0)
    clock.change(12.0, paused=True)
    assert clock.at(99.0) == 103 * S and clock.wait(104 * S, 99.0) == float("inf")
    clock.change(99.0, paused=False)
    assert clock.at(99.5) == 104 * S


def test_jump_of_the_loop_starts_the_bag_again():
    clock = PlayClock(0, since=0.0)
    clock.change(50.0, bag_time=0)
    assert clock.at(51.0) == 1 * S


def test_recorded_decisions_are_played_under_another_name_and_the_clock_is_not():
    assert (
        played_name("/policy/decision", "janusvln_msgs/msg/Decision")
        == "/recorded/policy/decision"
    )
    assert (
        played_name("/motion/step_report", "janusvln_msgs/msg/StepReport") == "/motion/step_report"
    )
    assert played_name("/clock", "rosgraph_msgs/msg/Clock") is None


def message(time_s, size=10):
    return Message("/t", "std_msgs/msg/String", int(time_s * S), bytes(size))


def test_ring_keeps_the_last_seconds_and_never_more_than_its_bytes():
    ring = Ring(seconds=3.0, limit=35)
    for n in range(10):
        ring.add(message(n))
    assert [m.log_time // S for m in ring.messages] == [7, 8, 9] and ring.size == 30
    assert [m.log_time // S for m in ring.last(1.0)] == [8, 9]


def test_ring_is_emptied_when_the_clock_goes_back():
    ring = Ring(seconds=30.0, limit=1000)
    ring.add(message(100))
    ring.add(message(5))
    assert [m.log_time // S for m in ring.messages] == [5]


def test_bag_is_open_from_the_instruction_until_some_time_after_the_last_decision():
    trigger = Trigger(idle=5.0)
    assert not trigger.recording(0.0)
    trigger.sign(10.0)
    assert trigger.recording(14.9) and not trigger.recording(15.1)
    trigger.goal(True, 20.0)
    assert trigger.recording(1000.0)
    trigger.goal(False, 1000.0)
    assert trigger.recording(1004.0) and not trigger.recording(1006.0)


def test_bags_of_the_same_second_do_not_overwrite_each_other(tmp_path):
    first = bag_name("drive", tmp_path)
    first.touch()
    assert bag_name("drive", tmp_path) != first


rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("janusvln_msgs", reason="needs the interfaces: scripts/build_msgs.sh")

from janusvln_msgs.msg import Decision  # noqa: E402
from nav_msgs.msg import Odometry  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from std_msgs.msg import String  # noqa: E402
from std_srvs.srv import Trigger as TriggerService  # noqa: E402


class Client:
    """A node of the test, and one executable under test as a process of its own."""

    def __init__(self, domain, executable, **parameters):
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node("client", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        arguments = [
            word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")
        ]
        code = f"from janusvln_ros.nodes.{executable} import main; main()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, "--ros-args", *arguments],
            env={**os.environ, "ROS_DOMAIN_ID": str(domain)},
            stderr=subprocess.PIPE,
            text=True,
        )

    def until(self, condition, seconds=40.0):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "waited too long"
            self.executor.spin_once(timeout_sec=0.05)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.stderr.close()
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.mark.ros
def test_player_publishes_every_message_in_order_with_a_rising_clock_and_ends(
    bags, ros_domain, tmp_path
):
    bag = bags.write_drive(tmp_path / "a.mcap", [1, 2])
    with open_bag(bag) as opened:
        images, odometry = opened.counts["/image"], opened.counts["/odom"]
    got = {Image: [], Odometry: [], Clock: []}
    with Client(ros_domain, "player", bag=bag, wait_for_subscriber="/image") as client:
        for kind, topic in ((Odometry, "odom"), (Clock, "clock"), (Image, "image")):
            client.node.create_subscription(kind, topic, got[kind].append, 1000)
        client.until(lambda: client.process.poll() is not None)
        client.until(lambda: len(got[Image]) == images)
        assert client.process.returncode == 0
    stamps = [m.header.stamp.sec * S + m.header.stamp.nanosec for m in got[Image]]
    assert stamps == sorted(stamps) and len(stamps) == images
    # odometry is discovered beside the camera that is waited for, so its very first messages may
    # be missed
    assert odometry - 10 <= len(got[Odometry]) <= odometry
    clock = [m.clock.sec * S + m.clock.nanosec for m in got[Clock]]
    assert clock == sorted(clock) and len(clock) > 20


@pytest.mark.ros
def test_player_stands_while_paused(bags, ros_domain, tmp_path):
    bag = bags.write_drive(tmp_path / "a.mcap", [1, 2])
    with Client(ros_domain, "player", bag=bag, start_paused=True) as client:
        got = []
        client.node.create_subscription(Image, "image", got.append, 1000)
        resume = client.node.create_client(TriggerService, "player/resume")
        client.until(resume.service_is_ready)
        client.until(lambda: client.node.count_publishers("image"))
        assert not got
        resume.call_async(TriggerService.Request())
        client.until(lambda: len(got) > 5)


@pytest.mark.ros
def test_player_says_which_bag_is_missing(ros_domain):
    with Client(ros_domain, "player", bag="/no/such/bag.mcap") as client:
        _, stderr = client.process.communicate(timeout=40)
        assert (
            client.process.returncode == 2
            and "error: bag /no/such/bag.mcap does not exist" in stderr
            and "Traceback" not in stderr
        )


def whole(path):
    """Whether a recording is finished."""
    return path.read_bytes().endswith(b"\x89MCAP0\r\n") and path.stat().st_size > 100


@pytest.mark.ros
def test_recorder_writes_a_whole_bag_around_an_instruction_and_an_incident_on_request(
    ros_domain, tmp_path
):
    with Client(
        ros_domain, "recorder", folder=tmp_path, image_transport="raw", lead=30.0, idle=1.0
    ) as client:
        images = client.node.create_publisher(Image, "image", 10)
        words = client.node.create_publisher(String, "instruction", 10)
        decisions = client.node.create_publisher(Decision, "policy/decision", 10)
        for publisher in (images, words, decisions):
            client.until(lambda publisher=publisher: publisher.get_subscription_count() > 0)
        for n in range(5):
            picture = Image(height=2, width=2, encoding="rgb8", step=6, data=bytes(12))
            picture.header.stamp.nanosec = n
            images.publish(picture)
        words.publish(String(data="go to the door"))
        decisions.publish(Decision(step=7))
        client.until(lambda: list(tmp_path.glob("drive-*.mcap")))
        save = client.node.create_client(TriggerService, "recorder/save_incident")
        client.until(save.service_is_ready)
        answer = save.call_async(TriggerService.Request())
        client.until(answer.done)
        assert answer.result().success
        # the bag closes by itself when nothing is decided any more
        client.until(lambda: whole(next(tmp_path.glob("drive-*.mcap"))))
    (drive,) = tmp_path.glob("drive-*.mcap")
    (incident,) = tmp_path.glob("incident-*.mcap")
    with open_bag(drive) as bag:
        assert bag.damage is None and bag.counts == {
            "/image": 5,
            "/instruction": 1,
            "/policy/decision": 1,
        }
        assert bag.decode(next(bag.messages(["/policy/decision"]))).step == 7
    with open_bag(incident) as bag:  # taken while the rest may still have been on its way
        assert bag.damage is None and bag.counts
    assert not list(tmp_path.glob(".*"))

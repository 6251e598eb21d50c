"""Bags played into the graph and recorded from it, on machines without rosbag2."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)

from janusvln_ros.data.bags import BagWriter, Message, open_bag
from janusvln_ros.data.playback import (
    MOST_LATCHED,
    PlayClock,
    latched_depth,
    nothing_decided,
    played_name,
    spoken,
    suggested,
)
from janusvln_ros.data.recording import Latched, Ring, Trigger, bag_name
from janusvln_ros.errors import InputError

S = 10**9


def profile(durability, depth=1):
    """What a publisher offered, as a bag tells it."""
    forever = QosTime(9223372036, 854775807)
    keep = (QosHistory.KEEP_LAST, depth, QosReliability.RELIABLE, durability)
    return Qos(*keep, forever, forever, QosLiveliness.AUTOMATIC, forever, False)


LATCHED, VOLATILE = QosDurability.TRANSIENT_LOCAL, QosDurability.VOLATILE


@pytest.mark.parametrize(
    ("topic", "offered", "depth"),
    [
        ("/image", [profile(VOLATILE, 5)], 0),
        ("/tf_static", [profile(LATCHED)] * 3, 3),
        ("/map", [profile(LATCHED, 1), profile(VOLATILE, 10)], 1),
        ("/map", [profile(LATCHED, 0)], MOST_LATCHED),  # not told on the wire
        ("/camera_info", [profile(LATCHED, 2)], 2),
        # bags that do not say: what is latched by convention
        ("/tf_static", [], MOST_LATCHED),
        ("/ada/robot_description", [], MOST_LATCHED),
        ("/odom", [], 0),
    ],
)
def test_topic_is_as_lasting_as_it_was_recorded(topic, offered, depth):
    assert latched_depth(topic, offered) == depth


def test_latched_messages_are_in_every_bag_whenever_they_came():
    latched = Latched()
    for n in range(4):
        latched.add(Message("/tf_static", "t", n * S, bytes([n])), publishers=2)
    latched.add(Message("/map", "m", 9 * S, b"m"), publishers=1)
    before = latched.before(start=5 * S)
    assert [(m.topic, m.log_time // S, m.cdr) for m in before] == [
        ("/tf_static", 5, b"\2"),
        ("/tf_static", 5, b"\3"),
    ]


def test_graph_takes_topics_and_frames_from_the_bag(bags, tmp_path):
    with open_bag(bags.write_drive(tmp_path / "a.mcap", [1])) as bag:
        names = {"image": "image", "camera_info": "camera_info", "odom": "odom"}
        assert suggested(bag, names) == {"transport": "raw", "frames": "odom"}
    with BagWriter(tmp_path / "b.mcap") as writer:
        picture = bags.types["sensor_msgs/msg/CompressedImage"](
            header=bags.header(1), format="jpeg", data=np.zeros(1, np.uint8)
        )
        writer.write_message("/front/image_raw/compressed", 1, picture)
        writer.write_message("/front/camera_info", 1, bags.camera_info(1, 12, 16))
        writer.write_message("/rear/camera_info", 1, bags.camera_info(1, 12, 16))
    with open_bag(tmp_path / "b.mcap") as bag:
        assert suggested(bag, names) == {
            "image": "/front/image_raw",
            "transport": "compressed",
            "camera_info": "/front/camera_info",
            "frames": "interval",
        }


def test_what_a_bag_lacks_for_a_decision_is_said():
    said = nothing_decided("/image (sensor_msgs/msg/Image, 9)", False, {"/image": False})
    assert "nobody listens to /image: give image:=" in said
    assert "no instruction: give the words with instruction:=" in said
    assert said.endswith("it holds /image (sensor_msgs/msg/Image, 9)")
    assert "it holds no camera" in nothing_decided("nothing", True, {})


def test_words_are_those_given_else_those_of_decisions_never_a_description(bags, tmp_path):
    with BagWriter(tmp_path / "a.mcap") as writer:
        description = bags.types["std_msgs/msg/String"](data="<robot/>")
        writer.write_message("/robot_description", 90 * S, description)
        # stamps of a simulation, recorded by another clock
        writer.write_message("/image", 100 * S, bags.image(5 * S, 0))
        writer.write_message("/policy/decision", 101 * S, bags.decision(5 * S, 0, 1))
    with open_bag(tmp_path / "a.mcap") as bag:
        (said,) = spoken(bag)
        assert bag.decode(said).data == "go to the red door"
        assert 99 * S < said.log_time < 100 * S
        (said,) = spoken(bag, "go home")
        assert bag.decode(said).data == "go home" and said.log_time < bag.start


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


@pytest.mark.parametrize(
    ("topic", "kind"),
    [
        ("/cmd_vel", "geometry_msgs/msg/Twist"),
        ("/teleop", "geometry_msgs/msg/TwistStamped"),
        ("/drive", "ackermann_msgs/msg/AckermannDriveStamped"),
        ("/arm/joint_trajectory", "trajectory_msgs/msg/JointTrajectory"),
        ("/r1/step_command", "std_msgs/msg/UInt8"),
        ("/goal_pose", "geometry_msgs/msg/PoseStamped"),
    ],
)
def test_what_tells_a_robot_to_move_is_played_under_another_name(topic, kind):
    assert played_name(topic, kind) == f"/recorded{topic}"


@pytest.mark.parametrize(
    ("topic", "kind"),
    [
        ("/odom", "nav_msgs/msg/Odometry"),
        ("/pose", "geometry_msgs/msg/PoseStamped"),
        ("/tf", "tf2_msgs/msg/TFMessage"),
        ("/instruction", "std_msgs/msg/String"),
    ],
)
def test_what_was_measured_and_said_is_played_under_its_own_name(topic, kind):
    assert played_name(topic, kind) == topic


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
from nav_msgs.msg import OccupancyGrid, Odometry  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from std_msgs.msg import String  # noqa: E402
from std_srvs.srv import Trigger as TriggerService  # noqa: E402


class Client:
    """A node of the test, and one executable under test as a process of its own."""

    def __init__(self, domain, executable, *, before="pass", **parameters):
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node("client", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        arguments = [
            word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")
        ]
        code = f"{before}; from janusvln_ros.nodes.{executable} import main; main()"
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
@pytest.mark.parametrize("start_paused", [False, True])
def test_player_ends_where_a_robot_would_take_the_bag_for_its_own(
    bags, ros_domain, tmp_path, start_paused
):
    bag = bags.write_drive(tmp_path / "a.mcap", [1, 2])
    with Client(ros_domain, "player", bag=bag, rate=0.1, start_paused=start_paused) as client:
        motion = rclpy.create_node("motion", namespace="r1", context=client.context)
        motion.create_subscription(Odometry, "/odom", lambda _: None, 10)
        _, stderr = client.process.communicate(timeout=60)
        motion.destroy_node()
        assert client.process.returncode == 1 and "motion listens to /odom" in stderr
        assert "the bag is at its end" not in stderr


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


KEPT = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def picture(n, side=2):
    noise = np.random.default_rng(n).integers(0, 256, side * side * 3, dtype=np.uint8)
    message = Image(height=side, width=side, encoding="rgb8", step=3 * side)
    message.data = noise.tobytes()
    message.header.stamp.nanosec = n
    return message


def begin_recording(client, folder):
    """Publishers of a camera and of words, and a recording that has begun."""
    images = client.node.create_publisher(Image, "image", 10)
    words = client.node.create_publisher(String, "instruction", 10)
    for publisher in (images, words):
        client.until(lambda publisher=publisher: publisher.get_subscription_count() > 0)
    words.publish(String(data="go to the door"))
    client.until(lambda: list(folder.glob("drive-*.mcap")))
    return images, next(folder.glob("drive-*.mcap"))


def held(path):
    try:
        with open_bag(path) as bag:
            return bag.counts.get("/image", 0)
    except InputError:
        return 0


@pytest.mark.ros
def test_recording_of_a_killed_recorder_is_readable_under_its_own_name(ros_domain, tmp_path):
    with Client(ros_domain, "recorder", folder=tmp_path, image_transport="raw") as client:
        images, drive = begin_recording(client, tmp_path)
        for n in range(5):
            images.publish(picture(n))
        client.until(lambda: held(drive) == 5)
        client.process.kill()
        client.process.wait()
    with open_bag(drive) as bag:
        assert bag.counts["/image"] == 5 and bag.damage
    assert [p.name for p in tmp_path.iterdir()] == [drive.name]


@pytest.mark.ros
@pytest.mark.slow
def test_full_disk_stops_the_recording_and_keeps_it(ros_domain, tmp_path):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (400000, 400000))"
    with Client(
        ros_domain, "recorder", before=limit, folder=tmp_path, image_transport="raw", idle=60.0
    ) as client:
        images, drive = begin_recording(client, tmp_path)
        sent = 60
        for n in range(sent):
            images.publish(picture(n, side=64))
            client.executor.spin_once(timeout_sec=0.02)
            time.sleep(0.02)
        line = ""
        while "recording stopped" not in line:
            line = client.process.stderr.readline()
            assert line, "the recorder ended"
        assert str(drive) in line and "File too large" in line
    assert client.process.returncode == 0
    assert 5 <= held(drive) < sent and list(tmp_path.iterdir()) == [drive]


@pytest.mark.ros
def test_bag_tells_offered_profiles_what_was_latched_and_who_decided(ros_domain, tmp_path):
    with Client(
        ros_domain,
        "recorder",
        folder=tmp_path,
        image_transport="raw",
        topics="instruction,map,camera_info",
        lead=0.0,
    ) as client:
        node = client.node
        about = node.create_publisher(String, "policy/about", KEPT)
        about.publish(String(data='{"checkpoint": "tiny", "prompt": "evaluation"}'))
        simulator = node.create_publisher(String, "sim_bridge/about", KEPT)
        simulator.publish(String(data='{"seed": "7"}'))
        floor = node.create_publisher(OccupancyGrid, "map", KEPT)
        floor.publish(OccupancyGrid())
        for publisher in (about, simulator, floor):
            client.until(lambda publisher=publisher: publisher.get_subscription_count() > 0)
        time.sleep(0.5)  # longer ago than the bag goes back
        images, drive = begin_recording(client, tmp_path)
        images.publish(picture(0))
        client.until(lambda: held(drive) == 1)
    with open_bag(drive) as bag:
        assert bag.counts["/map"] == 1 and bag.damage is None
        assert bag.about["checkpoint"] == "tiny" and bag.about["seed"] == "7"
        assert {"version", "git", "prompt"} <= bag.about.keys()
        durabilities = {topic: bag.qos[topic][0].durability.name for topic in bag.qos}
        assert durabilities["/map"] == "TRANSIENT_LOCAL" and durabilities["/image"] == "VOLATILE"


@pytest.mark.ros
def test_messages_that_come_while_the_recorder_ends_open_no_bag(ros_domain, tmp_path):
    with Client(ros_domain, "recorder", folder=tmp_path, image_transport="raw") as client:
        _, drive = begin_recording(client, tmp_path)
        words = client.node.create_publisher(String, "instruction", 10)
        client.until(lambda: words.get_subscription_count() > 0)
        client.process.send_signal(signal.SIGINT)
        while client.process.poll() is None:
            words.publish(String(data="go on"))
            client.executor.spin_once(timeout_sec=0.01)
        assert client.process.returncode == 0
    assert list(tmp_path.iterdir()) == [drive] and whole(drive)


@pytest.mark.ros
def test_late_comer_gets_what_was_latched_even_past_the_start_offset(bags, ros_domain, tmp_path):
    with BagWriter(tmp_path / "a.mcap") as writer:
        text = bags.types["std_msgs/msg/String"]
        writer.add_topic("/robot_description", "std_msgs/msg/String", [profile(LATCHED)])
        writer.write_message("/robot_description", 1 * S, text(data="<robot/>"))
        for n in range(200):
            writer.write_message("/image", (n + 10) * S // 10, bags.image(n * S // 10, n))
    got = []
    with Client(ros_domain, "player", bag=tmp_path / "a.mcap", start_offset=5.0) as client:
        client.until(lambda: client.node.count_publishers("image"))
        seen = []
        client.node.create_subscription(Image, "image", seen.append, 10)
        client.until(lambda: len(seen) > 5)  # long after it was played
        client.node.create_subscription(String, "robot_description", got.append, KEPT)
        client.until(lambda: got)
    assert got[0].data == "<robot/>"


@pytest.mark.ros
@pytest.mark.slow
def test_player_says_within_seconds_that_nothing_is_decided_on(bags, ros_domain, tmp_path):
    bag = bags.write_drive(tmp_path / "a.mcap", [1] * 12, instruction=None)
    with Client(ros_domain, "player", bag=bag) as client:
        client.node.create_publisher(Decision, "policy/decision", 10)  # a policy that is silent
        line = ""
        while "nothing of the bag has been decided on" not in line:
            line = client.process.stderr.readline()
            assert line, "the player ended"
    assert "nobody listens to /image" in line and "/odom (nav_msgs/msg/Odometry" in line
    assert "no instruction" in line


@pytest.mark.ros
def test_the_black_box_writes_the_last_seconds_of_everything_when_a_step_ends_in_a_fault(
    ros_domain, tmp_path
):
    from janusvln_msgs.msg import StepReport

    from janusvln_ros.camera.images import decode

    told = {"drives": "false", "topics": "all", "pictures": "small", "image_transport": "raw"}
    with Client(ros_domain, "recorder", folder=tmp_path, **told) as client:
        named = []
        client.node.create_subscription(
            String, "recorder/incident", lambda message: named.append(message.data), KEPT
        )
        images = client.node.create_publisher(Image, "image", 10)
        odom = client.node.create_publisher(Odometry, "wheels/odom", 10)
        words = client.node.create_publisher(String, "instruction", 10)
        reports = client.node.create_publisher(StepReport, "motion/step_report", 10)
        for publisher in (images, odom, words):
            client.until(lambda publisher=publisher: publisher.get_subscription_count() > 0)
        client.until(lambda: reports.get_subscription_count() == 2)  # as everything, and to act on
        images.publish(picture(1, side=400))
        odom.publish(Odometry())
        words.publish(String(data="go"))
        client.node.get_logger().info("a line of the log")
        begin = time.monotonic()
        client.until(lambda: time.monotonic() - begin > 1.0)
        reports.publish(StepReport(status=StepReport().status, error_msg="well"))
        reports.publish(StepReport(status=3, step=4, episode_id=9, error_msg="no odometry"))
        client.until(lambda: named)
        reports.publish(StepReport(status=3, step=5, episode_id=9))  # part of the same
    (incident,) = tmp_path.glob("incident-*.mcap")
    assert named[-1] == str(incident) and not list(tmp_path.glob("drive-*"))
    with open_bag(incident) as bag:
        wanted = {"/image/compressed", "/wheels/odom", "/instruction", "/rosout"}
        assert wanted <= set(bag.counts) and "/image" not in bag.counts
        small = bag.decode(next(bag.messages(["/image/compressed"])))
        assert decode(small).shape == (160, 160, 3) and small.header.stamp.nanosec == 1


@pytest.mark.ros
def test_an_incident_of_a_run_before_is_still_named(ros_domain, tmp_path):
    (tmp_path / "incident-20260101-000000.mcap").write_bytes(b"")
    with Client(ros_domain, "recorder", folder=tmp_path, drives="false") as client:
        named = []
        client.node.create_subscription(
            String, "recorder/incident", lambda message: named.append(message.data), KEPT
        )
        client.until(lambda: named)
    assert named == [str(tmp_path / "incident-20260101-000000.mcap")]

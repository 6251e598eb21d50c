"""A raw camera's pictures cross the air as JPEG, as many as a policy needs and no more."""

from array import array

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("janusvln_msgs", reason="needs the interfaces: scripts/build_msgs.sh")

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from janusvln_ros.camera.images import decode
from janusvln_ros.nodes.compressor import Compressor, due

MS = 10**6


@pytest.mark.parametrize(
    ("rate", "period", "sent"),
    [(10.0, 33 * MS, 10), (10.0, 100 * MS, 30), (10.0, 90 * MS, 30), (0.0, 1 * MS, 30)],
)
def test_pictures_are_left_out_above_the_rate_and_none_below_it(rate, period, sent):
    last, count = -(10**18), 0
    for n in range(30):
        if due(10**9 + n * period, last, rate):
            last, count = 10**9 + n * period, count + 1
    assert count == sent


def test_a_stamp_that_stands_still_or_goes_back_is_not_hidden():
    assert due(5, 5, 10.0) and due(4, 5, 10.0)


@pytest.mark.ros
@pytest.mark.parametrize("asked", [ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE])
def test_a_best_effort_camera_is_heard_and_any_listener_gets_its_pictures(graph, asked):
    camera, compressor = Node("camera", context=graph.context), Compressor(context=graph.context)
    for node in (camera, compressor):
        graph.executor.add_node(node)
        graph.nodes.append(node)
    sensor = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    images = camera.create_publisher(Image, "image", sensor)
    got = []
    profile = QoSProfile(depth=5, reliability=asked)
    camera.create_subscription(CompressedImage, "image/compressed", got.append, profile)
    rgb = np.zeros((48, 64, 3), np.uint8)
    rgb[:, 32:] = (200, 30, 30)
    message = Image(height=48, width=64, encoding="rgb8", step=192, data=array("B", rgb.tobytes()))
    message.header.frame_id = "camera_optical"

    def shown():
        message.header.stamp.sec += 1
        images.publish(message)
        graph.spin(0.05)
        return got

    graph.until(shown, "a picture")
    assert got[-1].header.frame_id == "camera_optical" and got[-1].header.stamp.sec > 0
    assert np.abs(decode(got[-1]).astype(int) - rgb).mean() < 4


@pytest.mark.ros
def test_nothing_is_encoded_while_nobody_listens(graph):
    compressor = Compressor(context=graph.context)
    graph.executor.add_node(compressor)
    graph.nodes.append(compressor)
    compressor.decode = None  # it would be called
    camera = Node("camera", context=graph.context)
    graph.executor.add_node(camera)
    graph.nodes.append(camera)
    images = camera.create_publisher(Image, "image", 1)
    graph.until(images.get_subscription_count, "the compressor to listen")
    images.publish(Image(height=1, width=1, encoding="rgb8", step=3, data=array("B", [0, 0, 0])))
    graph.spin(0.3)
    assert compressor.last < 0

"""
The ROS node ``compressor``: pictures of a camera that sends them raw, as JPEG on
``image/compressed``, for a policy on another computer.

image_transport's ``republish`` does the same where it is installed, but hears no camera that sends
best effort, and sends every picture; a policy looks at one per step. No torch.
"""

from array import array
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from janusvln_ros.camera.images import encode_jpeg
from janusvln_ros.errors import InputError
from janusvln_ros.nodes.parameters import Param, declare
from janusvln_ros.nodes.pictures import picture_decoder
from janusvln_ros.nodes.running import leave, run_node
from janusvln_ros.stamps import nanoseconds

TITLE = "Parameters of the compressor: a raw camera's pictures as JPEG, for another computer."

PARAMETERS = (
    Param("jpeg_quality", 90, "Quality of image/compressed.", 1, 100),
    Param(
        "rate",
        10.0,
        "Pictures per second at most, by their stamps; a policy looks at one per step. 0: all.",
        0.0,
        1000.0,
    ),
)


def due(stamp: int, last: int, rate: float) -> bool:
    """
    Whether a picture of ``stamp`` (ns) is to be sent after one of ``last``, at ``rate`` Hz at
    most (0: all); one whose stamp does not advance is: it tells of a fault.
    """
    # a quarter of a period early still counts: cameras jitter
    return not rate or stamp <= last or stamp - last >= 0.75e9 / rate


class Compressor(Node):  # type: ignore[misc]
    """The node. It encodes only while somebody listens."""

    def __init__(self, **options: Any) -> None:
        super().__init__("compressor", **options)
        self.values = declare(self, PARAMETERS)
        self.exit_code: int | None = None
        self.last = -(10**18)
        self.decode = picture_decoder()
        # whoever asks for reliable pictures gets them, others too
        newest = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        self.out = self.create_publisher(CompressedImage, "image/compressed", newest)
        every = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self.create_subscription(Image, "image", self._on_image, every)

    def _on_image(self, message: Image) -> None:
        stamp = nanoseconds(message.header.stamp)
        if not due(stamp, self.last, self.values.rate) or not self.out.get_subscription_count():
            return
        self.last = stamp
        try:
            jpeg = encode_jpeg(self.decode(message), self.values.jpeg_quality)
        except InputError as error:
            self.get_logger().error(str(error), throttle_duration_sec=5.0)
            return
        told = CompressedImage(format="rgb8; jpeg compressed bgr8", data=array("B", jpeg))
        told.header = message.header
        self.out.publish(told)


def main(args: list[str] | None = None) -> None:
    """Entry point of the executable ``janusvln_compressor``."""
    leave(run_node(Compressor, args))


if __name__ == "__main__":
    main()

"""
What the policy node costs beyond the model: from a frame being taken to the goal being sent, less
Navigator.step. Bar: p99 at most 10 ms on 2 cores.

  python benchmarks/node_overhead.py [--steps 200] [--checkpoint DIR] [--size 640x480] [--json]

The real node with a real model, a camera of JPEGs at 30 Hz in another process, and an execute_step
that answers at once. The time includes decoding the JPEG, rectification, the way to the model's
thread and back, and publishing the decision.
"""

import argparse
import json
import math
import multiprocessing
import os
import sys
import time
from array import array
from types import SimpleNamespace

from janusvln_ros.cli.options import frame_size


def camera(domain: int, width: int, height: int, rate: float) -> None:
    """A camera: noise as JPEG with its intrinsics (79 degrees), until killed."""
    import cv2
    import numpy as np
    import rclpy
    from sensor_msgs.msg import CameraInfo, CompressedImage

    context = rclpy.Context()
    context.init(domain_id=domain)
    node = rclpy.create_node("camera", context=context)
    images, infos = (
        node.create_publisher(CompressedImage, "image/compressed", 1),
        node.create_publisher(CameraInfo, "camera_info", 1),
    )
    coarse = np.random.default_rng(0).integers(0, 255, (8, height // 8, width // 8, 3), np.uint8)
    frames = [
        array("B", cv2.imencode(".jpg", cv2.resize(c, (width, height)))[1].tobytes())
        for c in coarse
    ]
    focal = width / 2 / math.tan(math.radians(39.5))
    info = CameraInfo(
        width=width,
        height=height,
        k=[focal, 0.0, width / 2 - 0.5, 0.0, focal, height / 2 - 0.5, 0.0, 0.0, 1.0],
        distortion_model="plumb_bob",
        d=[0.0] * 5,
    )
    i = 0
    while True:
        message = CompressedImage(format="jpeg", data=frames[i % len(frames)])
        message.header.stamp = info.header.stamp = node.get_clock().now().to_msg()
        infos.publish(info)
        images.publish(message)
        i += 1
        time.sleep(1 / rate)


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--checkpoint", default="")
    parser.add_argument("--size", type=frame_size, default="640x480", metavar="WxH")
    parser.add_argument("--rate", type=float, default=30.0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    width, height = args.size
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    import rclpy
    from janusvln_msgs.action import ExecuteStep
    from rclpy.action import ActionServer
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.parameter import Parameter
    from std_msgs.msg import String

    from janusvln_ros.actions import Action
    from janusvln_ros.graph.processes import reserved_domain
    from janusvln_ros.nodes.policy import PolicyNode, load_navigator
    from janusvln_ros.protocol.health import percentile

    def always_forward(values: SimpleNamespace) -> object:
        # the model computes as ever; only what it answers is replaced, so that the drive does not
        # end by a stop
        navigator = load_navigator(values)
        step = navigator.step

        def forward(rgb: object, commit: bool = True) -> SimpleNamespace:
            decision = step(rgb, commit=commit)
            return SimpleNamespace(
                action=Action.MOVE_FORWARD,
                text=decision.text,
                probabilities=decision.probabilities,
                timings=decision.timings,
            )

        navigator.step = forward
        return navigator

    with reserved_domain() as domain:
        source = multiprocessing.get_context("spawn").Process(
            target=camera, args=(domain, width, height, args.rate), daemon=True
        )
        source.start()
        context = rclpy.Context()
        context.init(domain_id=domain)
        given = {
            "checkpoint": args.checkpoint,
            "settle_time": 0.0,
            "unattended": True,
            "refuse_frozen": False,
            "max_steps": args.steps,
            "progress_window": 0,
            "frame_timeout": 60.0,
        }
        node = PolicyNode(
            always_forward,
            context=context,
            parameter_overrides=[Parameter(name, value=value) for name, value in given.items()],
        )
        other = rclpy.create_node("world", context=context)

        def step(handle: object) -> ExecuteStep.Result:
            handle.succeed()  # type: ignore[attr-defined]
            result = ExecuteStep.Result(end_stamp=other.get_clock().now().to_msg())
            result.pose_change.orientation.w = 1.0
            return result

        server = ActionServer(other, ExecuteStep, "execute_step", step)
        speak = other.create_publisher(String, "instruction", 1)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        executor.add_node(other)
        while not (node.machine.active and speak.get_subscription_count()):
            executor.spin_once(timeout_sec=0.1)
        speak.publish(String(data="walk to the door"))
        while len(node.figures.overheads) < min(args.steps, 500):
            executor.spin_once(timeout_sec=0.1)
            if node.figures.last_error:
                print(f"error: {node.figures.last_error}", file=sys.stderr)
                return 1
        overheads, inference = list(node.figures.overheads), list(node.figures.inference)
        source.kill()
        node.close()
        server.destroy()
    figures = {
        "steps": len(overheads),
        "overhead_p50": percentile(overheads, 50),
        "overhead_p99": percentile(overheads, 99),
    }
    figures |= {
        "inference_p50": percentile(inference, 50),
        "inference_p99": percentile(inference, 99),
    }
    if args.json:
        print(json.dumps(figures), flush=True)
    else:
        for name, value in figures.items():
            print(f"{name:14} {value:.4f}" if isinstance(value, float) else f"{name:14} {value}")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())

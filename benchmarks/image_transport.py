"""
Camera images from one process to another over ROS 2: which share arrives, and how late.

  python benchmarks/image_transport.py    # 640x480 at 30 Hz, 10 s for each setting
  python benchmarks/image_transport.py --seconds 2 --json

For each setting a publisher process sends at the camera's rate and a subscriber process notes when
each image is in its callback; both read the same steady clock. Latency runs from just before the
message is made to the callback. Figures in docs/performance_images.md are printed by this script.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from janusvln_ros.cli.options import frame_size

SETTINGS = [
    ("raw", "best_effort", False),
    ("raw", "best_effort", True),
    ("raw", "reliable", False),
    ("raw", "reliable", True),
    ("compressed", "best_effort", True),
    ("compressed", "reliable", True),
]
"""Encoding, reliability, and whether the shipped shared-memory profile is used."""

SETTLE_S = 1.0
"""How long the subscriber goes on after the last image was sent."""


def quality(reliability: str) -> Any:
    """The quality of service of both sides: keep the last 5, as camera drivers do."""
    from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy

    policy = (
        ReliabilityPolicy.RELIABLE if reliability == "reliable" else ReliabilityPolicy.BEST_EFFORT
    )
    return QoSProfile(depth=5, history=HistoryPolicy.KEEP_LAST, reliability=policy)


def publish(args: argparse.Namespace) -> None:
    """Send ``--count`` images at ``--rate`` once somebody listens."""
    import array

    import cv2
    import numpy as np
    import rclpy
    from sensor_msgs.msg import CompressedImage, Image

    rclpy.init()
    node = rclpy.create_node("camera")
    raw = args.encoding == "raw"
    out = node.create_publisher(
        Image if raw else CompressedImage,
        "image" if raw else "image/compressed",
        quality(args.reliability),
    )
    width, height = args.size
    # smooth structure with some noise compresses about as a room does
    noise = np.random.default_rng(0).normal(0, 4, (height, width, 3))
    ramp = np.linspace(0, 200, width)[None, :, None] + np.linspace(0, 40, height)[:, None, None]
    picture = np.clip(ramp + noise, 0, 255).astype(np.uint8)
    while out.get_subscription_count() == 0:
        rclpy.spin_once(node, timeout_sec=0.05)
    time.sleep(0.5)
    start = time.monotonic()
    for i in range(args.count):
        time.sleep(max(0.0, start + i / args.rate - time.monotonic()))
        sent = time.monotonic_ns()
        if raw:
            message = Image(height=height, width=width, encoding="rgb8", step=width * 3)
            message.data = array.array("B", picture.tobytes())
        else:
            message = CompressedImage(format="rgb8; jpeg compressed bgr8")
            message.data = array.array(
                "B", cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
            )
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(sent, 1_000_000_000)
        message.header.frame_id = str(i)
        out.publish(message)
    time.sleep(SETTLE_S)
    rclpy.shutdown()


def subscribe(args: argparse.Namespace) -> None:
    """
    Print the latencies (seconds) of what arrives until nothing has come for a while, as one JSON
    list.
    """
    import rclpy
    from sensor_msgs.msg import CompressedImage, Image

    rclpy.init()
    node = rclpy.create_node("viewer")
    raw = args.encoding == "raw"
    latencies: dict[str, float] = {}

    def arrived(message: Any) -> None:
        now = time.monotonic_ns()
        stamp = message.header.stamp
        latencies[message.header.frame_id] = (
            now - stamp.sec * 1_000_000_000 - stamp.nanosec
        ) / 1e9

    node.create_subscription(
        Image if raw else CompressedImage,
        "image" if raw else "image/compressed",
        arrived,
        quality(args.reliability),
    )
    end = time.monotonic() + 15 + args.count / args.rate + SETTLE_S
    while time.monotonic() < end and str(args.count - 1) not in latencies:
        rclpy.spin_once(node, timeout_sec=0.05)
        if node.count_publishers("image" if raw else "image/compressed") == 0 and latencies:
            break
    print(json.dumps(list(latencies.values())), flush=True)
    rclpy.shutdown()


def measure(
    args: argparse.Namespace, domain: int, encoding: str, reliability: str, profile: bool
) -> dict[str, Any]:
    """Run both processes for one setting."""
    import numpy as np

    from janusvln_ros.graph.processes import PROFILE_VARIABLES, shipped_profile

    environment = {
        **os.environ,
        "ROS_DOMAIN_ID": str(domain),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    }
    for name in PROFILE_VARIABLES:
        environment.pop(name, None)
        if profile:
            environment[name] = str(shipped_profile())
    count = max(1, round(args.seconds * args.rate))
    common = [
        sys.executable,
        str(Path(__file__).resolve()),
        "--encoding",
        encoding,
        "--reliability",
        reliability,
        "--count",
        str(count),
    ]
    common += ["--rate", str(args.rate), "--size", "x".join(map(str, args.size))]
    with tempfile.TemporaryFile("w+") as errors:
        viewer = subprocess.Popen(
            [*common, "--role", "subscribe"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        camera = subprocess.Popen(
            [*common, "--role", "publish"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        try:
            out, _ = viewer.communicate(timeout=60 + 2 * args.seconds)
            camera.wait(timeout=30)
        finally:
            viewer.kill()
            camera.kill()
        if viewer.returncode or camera.returncode:
            errors.seek(0)
            raise SystemExit(f"error: a process failed:\n{errors.read()}")
    latencies = json.loads(out)
    result: dict[str, Any] = {
        "encoding": encoding,
        "reliability": reliability,
        "profile": profile,
        "sent": count,
        "received": len(latencies),
    }
    for name, share in (("p50", 50), ("p99", 99)):
        result[name] = float(np.percentile(latencies, share)) if latencies else None
    return result


def main() -> int:
    """Measure every setting and print a table, or with --json one object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=10.0,
        help="how long each setting is measured (default: 10)",
    )
    parser.add_argument("--rate", type=float, default=30.0, help="images per second (default: 30)")
    parser.add_argument(
        "--size", type=frame_size, default="640x480", metavar="WxH", help="of an image, in pixels"
    )
    parser.add_argument("--json", action="store_true", help="print one object")
    parser.add_argument("--role", choices=("publish", "subscribe"), help=argparse.SUPPRESS)
    parser.add_argument("--encoding", default="raw", help=argparse.SUPPRESS)
    parser.add_argument("--reliability", default="reliable", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.role:
        (publish if args.role == "publish" else subscribe)(args)
        return 0
    from janusvln_ros.graph.processes import reserved_domain

    with reserved_domain() as domain:
        results = [measure(args, domain, *setting) for setting in SETTINGS]
    if args.json:
        print(
            json.dumps(
                {
                    "size": args.size,
                    "rate": args.rate,
                    "settings": results,
                }
            )
        )
        return 0
    print(
        f"{args.size[0]}x{args.size[1]} at {args.rate:g} Hz, two processes, "
        f"{os.cpu_count()} cores\n"
    )
    print(
        "| image | reliability | shared-memory profile | received | p50 ms | p99 ms "
        "|\n|---|---|---|---|---|---|"
    )
    for r in results:
        p50, p99 = ("-" if r[key] is None else f"{r[key] * 1000:.1f}" for key in ("p50", "p99"))
        share = f"{r['received']} of {r['sent']}"
        print(
            f"| {r['encoding']} | {r['reliability'].replace('_', ' ')} | "
            f"{'yes' if r['profile'] else 'no'} | {share} | {p50} | {p99} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""
What reaches a subscription whose process was killed and started again, as systemd does with a node
that ran out of memory.

  python benchmarks/after_kill.py             # 8 lives of 9 s for each setting, 5 minutes in all
  python benchmarks/after_kill.py --lives 3

A process publishes messages of some size at 10 Hz, reliably. Another one subscribes to them,
reliably or by best effort, is killed (-9) after 9 s, and the next takes its place. Told is the
rate that each of them heard in its last 5 s, with the shared-memory profile that is shipped and
without it.
"""

import argparse
import signal
import subprocess
import sys
import time

from janusvln_ros.graph.processes import (
    PROFILE_VARIABLES,
    middleware_environment,
    reserved_domain,
)

LIFE_S, LAST_S, RATE_HZ = 9.0, 5.0, 10.0

SETTINGS = [
    (12_000, "best_effort", False),
    (307_200, "best_effort", False),
    (307_200, "reliable", False),
    (307_200, "best_effort", True),
]
"""Bytes, reliability, and whether the shipped shared-memory profile is used."""


def publish(size: int) -> None:
    """Send messages of ``size`` bytes until killed."""
    import rclpy
    from rclpy.qos import QoSProfile
    from sensor_msgs.msg import CompressedImage

    rclpy.init()
    out = rclpy.create_node("camera").create_publisher(
        CompressedImage, "image", QoSProfile(depth=5)
    )
    message = CompressedImage(data=bytes(size))
    while True:
        out.publish(message)
        time.sleep(1 / RATE_HZ)


def listen(reliability: str) -> None:
    """Print the rate of each second until killed."""
    import rclpy
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import CompressedImage

    rclpy.init()
    node, heard = rclpy.create_node("listener"), []
    profile = QoSProfile(depth=1, reliability=ReliabilityPolicy[reliability.upper()])
    node.create_subscription(CompressedImage, "image", heard.append, profile, raw=True)
    until = time.monotonic() + LIFE_S - LAST_S
    while time.monotonic() < until:
        rclpy.spin_once(node, timeout_sec=0.1)
    heard.clear()
    began = time.monotonic()
    while True:
        rclpy.spin_once(node, timeout_sec=0.1)
        print(len(heard) / max(time.monotonic() - began, 0.1), flush=True)


def rates(size: int, reliability: str, profile: bool, lives: int) -> list[float]:
    """What each life heard, in Hz."""
    with reserved_domain(None) as domain:
        environment = middleware_environment(domain, localhost=True)
        if not profile:
            environment = {k: v for k, v in environment.items() if k not in PROFILE_VARIABLES}

        def start(*words: str) -> subprocess.Popen[str]:
            command = [sys.executable, __file__, *words]
            return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

        camera, told = start("--publish", str(size)), []
        try:
            for _ in range(lives):
                listener = start("--listen", reliability)
                time.sleep(LIFE_S)
                listener.send_signal(signal.SIGKILL)
                lines = listener.communicate()[0].split()
                told.append(float(lines[-1]) if lines else 0.0)
        finally:
            camera.kill()
            camera.communicate()
        return told


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lives", type=int, default=8)
    parser.add_argument("--publish", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--listen", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.publish:
        publish(args.publish)
    if args.listen:
        listen(args.listen)
    print("| bytes | reliability | profile | first life, Hz | lives after a kill, Hz |")
    print("|---|---|---|---|---|")
    for size, reliability, profile in SETTINGS:
        first, *rest = rates(size, reliability, profile, args.lives)
        how = f"{reliability.replace('_', ' ')} | {'yes' if profile else 'no'}"
        later = ", ".join(f"{rate:.1f}" for rate in rest)
        print(f"| {size} | {how} | {first:.1f} | {later} |", flush=True)


if __name__ == "__main__":
    main()

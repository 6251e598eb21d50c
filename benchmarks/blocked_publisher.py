"""
How long a node stands still in ``publish`` because a process that listens to it was killed.

  python benchmarks/blocked_publisher.py               # 200 s with the shipped profile
  python benchmarks/blocked_publisher.py --no-profile

A node publishes small messages, as `motion` does; two processes hear them and answer, and one of
them, drawn at random, is killed (-9) about every second and started again. Told are the kills and
the publications that took more than 50 ms.
"""

import argparse
import os
import random
import subprocess
import sys
import threading
import time

from janusvln_ros.graph.processes import (
    PROFILE_VARIABLES,
    middleware_environment,
    reserved_domain,
)

LONG_S = 0.05

LISTENER = """
import rclpy
from nav_msgs.msg import Odometry
from std_msgs.msg import String
rclpy.init()
node = rclpy.create_node("listener")
for kind, topic in ((Odometry, "large"), (String, "small")):
    node.create_subscription(kind, topic, lambda message: None, 10)
back = node.create_publisher(String, "back", 10)
while True:
    rclpy.spin_once(node, timeout_sec=0.002)
    back.publish(String(data="y"))
"""


def kill_listeners(over: threading.Event, kills: list[float]) -> None:
    """Start two listeners and kill one of them about every second, until ``over``."""
    words = [sys.executable, "-c", LISTENER]
    listeners = [subprocess.Popen(words) for _ in range(2)]
    while not over.wait(random.uniform(0.6, 1.1)):
        which = random.randrange(2)
        listeners[which].kill()
        listeners[which].wait()
        kills.append(time.monotonic())
        listeners[which] = subprocess.Popen(words)
    for listener in listeners:
        listener.kill()
        listener.wait()


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=200.0)
    parser.add_argument("--no-profile", action="store_true")
    args = parser.parse_args()
    import rclpy
    from nav_msgs.msg import Odometry
    from std_msgs.msg import String

    with reserved_domain() as domain:
        os.environ.update(middleware_environment(domain, localhost=True))
        if args.no_profile:
            for name in PROFILE_VARIABLES:
                del os.environ[name]
        rclpy.init()
        node = rclpy.create_node("publisher")
        large, small = (
            node.create_publisher(kind, topic, 10)
            for kind, topic in ((Odometry, "large"), (String, "small"))
        )
        over, kills, took = threading.Event(), [], []
        killer = threading.Thread(target=kill_listeners, args=(over, kills))
        killer.start()
        until = time.monotonic() + args.seconds
        while time.monotonic() < until:
            for publisher, message in ((large, Odometry()), (small, String(data="x" * 100))):
                began = time.monotonic()
                publisher.publish(message)
                took.append(time.monotonic() - began)
            time.sleep(0.005)
        over.set()
        killer.join()
    long = ", ".join(f"{seconds:.2f}" for seconds in took if seconds > LONG_S) or "none"
    print(f"{len(kills)} kills, {len(took)} publications; longer than {LONG_S} s: {long}")


if __name__ == "__main__":
    main()

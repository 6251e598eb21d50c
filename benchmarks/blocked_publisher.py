"""
How long a node stands still in ``publish`` because a process that listens to it was killed.

  python benchmarks/blocked_publisher.py                      # 150 s with the shipped profile
  python benchmarks/blocked_publisher.py --profile FILE.xml   # with another one of Fast DDS
  python benchmarks/blocked_publisher.py --subnet             # as on a robot, not LOCALHOST

A node publishes small messages, as `motion` does; two processes hear them and answer, and one of
them, drawn at random, is killed (-9) about every second and started again, by a process apart.
Told are the kills and the publications that took more than 50 ms.
"""

import argparse
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from janusvln_ros.graph.processes import (
    PROFILE_VARIABLES,
    middleware_environment,
    reserved_domain,
    shipped_profile,
)

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

PUBLISHER = """
import sys, time
import rclpy
from nav_msgs.msg import Odometry
from std_msgs.msg import String
rclpy.init()
node = rclpy.create_node("publisher")
large, small = (
    node.create_publisher(kind, topic, 10)
    for kind, topic in ((Odometry, "large"), (String, "small"))
)
took, until = [], time.monotonic() + float(sys.argv[1])
while time.monotonic() < until:
    for publisher, message in ((large, Odometry()), (small, String(data="x" * 100))):
        began = time.monotonic()
        publisher.publish(message)
        took.append(time.monotonic() - began)
    time.sleep(0.005)
long = ", ".join(f"{seconds:.2f}" for seconds in took if seconds > 0.05) or "none"
print(f"{len(took)} publications; longer than 0.05 s: {long}")
"""


def started(program: str, *words: str) -> subprocess.Popen:
    """A Python program in a process of its own."""
    return subprocess.Popen([sys.executable, "-c", program, *words])


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=150.0)
    parser.add_argument("--profile", type=Path, default=shipped_profile())
    parser.add_argument("--subnet", action="store_true")
    args = parser.parse_args()
    with reserved_domain() as domain:
        os.environ.update(middleware_environment(domain, localhost=not args.subnet))
        os.environ.update(dict.fromkeys(PROFILE_VARIABLES, str(args.profile.resolve())))
        publisher, kills = started(PUBLISHER, str(args.seconds)), 0
        listeners = [started(LISTENER) for _ in range(2)]
        while publisher.poll() is None:
            time.sleep(random.uniform(0.6, 1.1))
            which = random.randrange(2)
            listeners[which].kill()
            listeners[which].wait()
            kills += 1
            listeners[which] = started(LISTENER)
        for listener in listeners:
            listener.kill()
            listener.wait()
    print(f"{kills} kills")


if __name__ == "__main__":
    main()

"""
Bags: how far behind its time the player publishes, how fast offline replay runs, and that memory
does not grow with the bag.

  python benchmarks/bags.py                    all three, about four minutes
  python benchmarks/bags.py --only player      one of: player, replay, memory

Prints a Markdown table. The bags are generated: 640x480 JPEG at 30 Hz with odometry at 50 Hz; for
the memory figure raw pictures that compress to little, so that a bag of many gigabytes of messages
fits on any disk.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from janusvln_ros.data.bags import BagWriter, message_types

T = message_types().types
S = 10**9


def header(stamp: int) -> Any:
    """Header at ``stamp`` nanoseconds."""
    return T["std_msgs/msg/Header"](
        stamp=T["builtin_interfaces/msg/Time"](sec=stamp // S, nanosec=stamp % S),
        frame_id="camera",
    )


def odometry(stamp: int, x: float) -> Any:
    """Odometry of a base ``x`` metres ahead."""
    zero = T["geometry_msgs/msg/Vector3"](x=0.0, y=0.0, z=0.0)
    pose = T["geometry_msgs/msg/Pose"](
        position=T["geometry_msgs/msg/Point"](x=x, y=0.0, z=0.0),
        orientation=T["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0),
    )
    return T["nav_msgs/msg/Odometry"](
        header=header(stamp),
        child_frame_id="base_link",
        pose=T["geometry_msgs/msg/PoseWithCovariance"](pose=pose, covariance=np.zeros(36)),
        twist=T["geometry_msgs/msg/TwistWithCovariance"](
            twist=T["geometry_msgs/msg/Twist"](linear=zero, angular=zero), covariance=np.zeros(36)
        ),
    )


def jpeg_drive(path: Path, seconds: float) -> Path:
    """A steady drive at 0.3 m/s, as a robot records it."""
    rng = np.random.default_rng(0)
    noise = cv2.resize(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8), (640, 480))
    data = np.frombuffer(cv2.imencode(".jpg", noise)[1].tobytes(), np.uint8)
    events = [
        (
            round(n * S / 30),
            "/image/compressed",
            T["sensor_msgs/msg/CompressedImage"](
                header=header(round(n * S / 30)), format="jpeg", data=data
            ),
        )
        for n in range(int(seconds * 30))
    ]
    events += [
        (round(n * S / 50), "/odom", odometry(round(n * S / 50), 0.3 * n / 50))
        for n in range(int(seconds * 50))
    ]
    with BagWriter(path) as writer:
        for stamp, topic, message in sorted(events, key=lambda event: event[:2]):
            writer.write_message(topic, stamp, message)
    return path


def flat_drive(path: Path, gigabytes: float) -> Path:
    """Raw pictures of one colour: ``gigabytes`` of messages in a few megabytes of file."""
    picture = np.zeros(640 * 480 * 3, np.uint8)
    with BagWriter(path) as writer:
        for n in range(int(gigabytes * 2**30 / picture.size)):
            stamp = round(n * S / 30)
            image = T["sensor_msgs/msg/Image"](
                header=header(stamp),
                height=480,
                width=640,
                encoding="rgb8",
                is_bigendian=0,
                step=1920,
                data=picture,
            )
            writer.write_message("/image", stamp, image)
            writer.write_message("/odom", stamp, odometry(stamp, 0.05 * n / 30))
    return path


def player(folder: Path) -> str:
    """Row of the table: how late the player publishes."""
    bag = jpeg_drive(folder / "player.mcap", 30)
    environment = {
        **os.environ,
        "ROS_DOMAIN_ID": "94",
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    }
    code = "from janusvln_ros.nodes.player import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--ros-args", "-p", f"bag:={bag}"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    line = next(
        line for line in (done.stdout + done.stderr).splitlines() if "lateness p99" in line
    )
    return (
        "| player: lateness p99, 30 Hz 640x480 JPEG + 50 Hz odometry, 30 s | "
        f"{line.split('p99 ')[1]} |"
    )


def replay(folder: Path) -> str:
    """Row of the table: speed of offline replay with the default checkpoint."""
    bag = jpeg_drive(folder / "replay.mcap", 60)
    words = [
        "replay",
        str(bag),
        "--boundaries",
        "odom",
        "--instruction",
        "go to the red door",
        "--uncalibrated",
    ]
    command = [
        sys.executable,
        "-m",
        "janusvln_ros.cli.main",
        *words,
        "--json",
        "--out",
        str(folder / "out"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    return (
        f"| replay, offline: bag seconds per second ({result['decisions']} decisions in "
        f"{result['bag_seconds']:.0f} s) | {result['speed']:.1f} |"
    )


def memory(folder: Path) -> list[str]:
    """Rows of the table: peak resident memory of a replay of bags of growing size."""
    rows = []
    for gigabytes in (0.5, 2, 10):
        bag = flat_drive(folder / f"flat-{gigabytes}.mcap", gigabytes)
        measure = (
            "import resource, sys; from janusvln_ros.cli.main import main; "
            "code = main(sys.argv[1:]); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, "
            "file=sys.stderr); sys.exit(code)"
        )
        words = [
            "replay",
            bag,
            "--boundaries",
            "interval",
            "--interval",
            "30",
            "--instruction",
            "walk",
            "--uncalibrated",
            "--json",
            "--out",
            folder / "out",
        ]
        done = subprocess.run(
            [sys.executable, "-c", measure, *map(str, words)],
            capture_output=True,
            text=True,
            check=True,
        )
        rows.append(
            f"| replay: peak memory, {gigabytes} GB of messages | "
            f"{done.stderr.strip().splitlines()[-1]} MiB |"
        )
        bag.unlink()
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=("player", "replay", "memory"))
    only = parser.parse_args().only
    print("| what | measured |\n|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if only in (None, "player"):
            print(player(folder), flush=True)
        if only in (None, "replay"):
            print(replay(folder), flush=True)
        if only in (None, "memory"):
            print("\n".join(memory(folder)), flush=True)


if __name__ == "__main__":
    main()

"""
Record a rosbag (mcap) around each instruction of a running robot, until Ctrl-C; works where 'ros2
bag' is not installed.

  janusvln record --out bags    camera compressed, odometry, decisions, step reports
  janusvln record --raw         the camera as the policy saw it: large, exact for replay

A bag begins 2 s before an instruction or a goal of follow_instruction, and ends 5 s after the last
decision. The last 30 s are kept in memory: 'ros2 service call /recorder/save_incident
std_srvs/srv/Trigger' writes them, and so does every e-stop.
"""

import argparse

from janusvln_ros.cli.options import option
from janusvln_ros.files import require_folder
from janusvln_ros.graph.installed import require_ros

OPTIONS = (
    option(
        "--out", type=require_folder, default="bags", help="folder for the bags (default: bags)"
    ),
    option("--image", default="image", help="camera topic (default: image)"),
    option(
        "--raw",
        action="store_true",
        help="record the raw camera topic instead of <image>/compressed",
    ),
    option(
        "--topics",
        help="other topics to record, separated by commas (default: those of the policy "
        "and of motion)",
    ),
    option("--namespace", default="/", help="namespace of the robot (default: /)"),
)


def run(args: argparse.Namespace) -> int:
    """Run the recorder node in this process until it is interrupted."""
    require_ros()
    from janusvln_ros.nodes.recorder import Recorder
    from janusvln_ros.nodes.running import run_node

    parameters = {
        "folder": str(args.out.resolve()),
        "image": args.image,
        "image_transport": "raw" if args.raw else "compressed",
    }
    if args.topics:
        parameters["topics"] = args.topics
    words = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
    return run_node(Recorder, ["--ros-args", "-r", f"__ns:={args.namespace}", *words])

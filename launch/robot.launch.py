"""
Start the graph 'robot' of config/graphs.yaml, as 'janusvln up robot' does; --show-args lists its
arguments. See docs/robot.md.
"""

from janusvln_ros.graph.launching import describe


def generate_launch_description():
    return describe("robot")

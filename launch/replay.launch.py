"""
Start the graph 'replay' of config/graphs.yaml, as 'janusvln up replay' does; --show-args lists its
arguments.
"""

from janusvln_ros.graph.launching import describe


def generate_launch_description():
    return describe("replay")

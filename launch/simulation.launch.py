"""
Start the graph 'simulation' of config/graphs.yaml, as 'janusvln up simulation' does; --show-args
lists its arguments.
"""

from janusvln_ros.graph.launching import describe


def generate_launch_description():
    return describe("simulation")

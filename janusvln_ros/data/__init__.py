"""
Formats on disk: episodes, trajectories, bags, training samples.

Imports neither ROS nor a simulator.
"""

"""
Vision-and-language navigation on ROS 2: camera frames and an instruction in, one small motion at a
time out.
"""

__version__ = "0.1.0"

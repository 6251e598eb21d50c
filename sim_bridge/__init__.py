"""
Simulators behind one protocol, ``NavEnv``: procedural houses (built in) and Habitat (in its own
process); the expert; the bridge to ROS.

``from sim_bridge import make_env`` needs numpy only; a backend's dependencies are imported when it
is made.
"""

from sim_bridge.backends import make_env
from sim_bridge.nav_env import EnvSettings, NavEnv, Observation

__all__ = ["EnvSettings", "NavEnv", "Observation", "make_env"]

"""
An agent in an engine under a strategy: evaluate, collect, dagger; with sharding, resuming and a
manifest. Imports no ROS.
"""

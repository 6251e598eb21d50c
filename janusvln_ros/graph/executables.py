"""
The executables of the nodes.

Each listens to signals before it imports what takes seconds, so that a launch which ends meanwhile
finds no node in the middle of an import.
"""

from janusvln_ros.nodes.running import signals


def policy() -> None:
    """Run the node ``policy``."""
    signals()
    from janusvln_ros.nodes.policy import main

    main()


def motion() -> None:
    """Run the node ``motion``."""
    signals()
    from janusvln_ros.nodes.motion import main

    main()


def compressor() -> None:
    """Run the node ``compressor``."""
    signals()
    from janusvln_ros.nodes.compressor import main

    main()


def player() -> None:
    """Run the node ``player``."""
    signals()
    from janusvln_ros.nodes.player import main

    main()


def recorder() -> None:
    """Run the node ``recorder``."""
    signals()
    from janusvln_ros.nodes.recorder import main

    main()


def sim_bridge() -> None:
    """Run the node ``sim_bridge``."""
    signals()
    from sim_bridge.bridge_node import main

    main()

"""The real motion node as a process of its own."""

from janusvln_ros.nodes.motion import main

if __name__ == "__main__":
    main()

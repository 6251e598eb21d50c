"""Pictures and depth as they come, for nodes, bags and policy alike. numpy and OpenCV only."""

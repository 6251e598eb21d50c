"""What the nodes decide, without ROS: pure state machines and the functions they stand on."""

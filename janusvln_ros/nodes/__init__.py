"""Thin rclpy adapters: messages in, messages out. No decision that a plain function could take."""

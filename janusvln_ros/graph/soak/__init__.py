"""
The long drive of ``janusvln soak``: instruction after instruction in the continuous simulator,
with every fault that a robot knows, at random moments, and the truth watched.
"""

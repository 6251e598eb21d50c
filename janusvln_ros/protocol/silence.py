"""
Whether the base stops by itself as soon as was declared (``base_timeout``): tried in the first
step after arming, before any faster motion. Pure functions.

At a slow pace the commands fall silent, as they would if ``motion`` died, and odometry must show
the base braking in time. Metres, radians, seconds (REP-103).
"""

from janusvln_ros.protocol.profile import Profile

PACE = (0.1, 0.3)
"""Metres and radians per second at which the base is tried."""

AT_PACE = 0.6
"""Share of the pace at which the trial begins: weak bases make no more of it."""

SLACK = 0.3
"""Seconds beyond ``base_timeout`` for braking, and for odometry to show it."""

BRAKED = 0.5
"""Share of the speed of the trial below which the base has stopped by itself."""


def fits(remaining: float, turns: bool, shape: Profile) -> bool:
    """
    Whether ``remaining`` (metres, or radians of a turn) is long enough for a trial, so that it
    ends within the step even where the base goes on.
    """
    return remaining > PACE[turns] * (shape.base_timeout + SLACK)


def pace(turns: bool, shape: Profile) -> float:
    """Return how fast the base is tried: no faster than it may go."""
    return min(PACE[turns], shape.rate if turns else shape.speed)


def verdict(was: float, measured: float, seconds: float, shape: Profile) -> bool | None:
    """
    Whether the base stops by itself in time; None: wait.

    Args:
        was, measured: its speed or rate when the commands fell silent, and now.
        seconds: since then, by the stamps of odometry.
        shape: what was declared.
    """
    if abs(measured) < BRAKED * abs(was):
        return True
    return None if seconds <= shape.base_timeout + SLACK + shape.latency else False

"""
When what odometry and range data say cannot be: stamps that are not of now, jumps, a way that was
not commanded. Pure functions.

Most return the sentence that says so, or None. Metres, radians, stamps in ns (REP-103).
"""

import math
from collections.abc import Sequence

from janusvln_ros.geometry import Pose2, wrap
from janusvln_ros.protocol.odometry import Sample
from janusvln_ros.protocol.profile import Profile

MARGIN = 1.5
"""How much faster than it was told a base may be between two messages."""

TURN_JUMP = math.radians(10)
"""Radians of heading between two messages that are no jump at any rate."""

VEER = math.radians(25)
"""Radians that a step forward may turn: twice what it may steer."""

JUMP_NS = 250_000_000
"""Jumps are looked for against the last message and one that is so much older, ns."""


def misdated(source: str, stamp: int, ros_now: int, max_age: float, ahead: float) -> str | None:
    """
    Why a stamp cannot be one of now.

    Args:
        source: whose it is, for the sentence.
        stamp, ros_now: ns on the node's clock.
        max_age, ahead: seconds that it may lie behind and before ``ros_now``.
    """
    age = (ros_now - stamp) / 1e9
    clocks = "compare the clocks of the computers, and use_sim_time"
    if age > max_age:
        return f"{source} is {_span(age)} old by its stamps (input_max_age {max_age:g}): {clocks}"
    if age < -ahead:
        return (
            f"{source}'s stamps lie {_span(-age)} in the future (future_tolerance {ahead:g}): "
            f"{clocks}"
        )
    return None


def _span(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 1e5 else f"{seconds:.3g} s"


def jumped(
    track: Sequence[Sample], sample: Sample, arrived: float, slack: float, shape: Profile
) -> tuple[Sample, str] | None:
    """
    The sample of ``track`` from which no base can have come to ``sample``, and why; or None.

    Args:
        track: odometry until now, oldest first.
        sample: the next message.
        arrived: seconds since the last one arrived, for stamps may lie too.
        slack: metres that it may be off at any speed.
        shape: how fast the base may be.
    """
    if not track:
        return None
    older = [one for one in track if one.stamp >= sample.stamp - JUMP_NS]
    for before in (*older[:1], track[-1]):
        gap = MARGIN * max((sample.stamp - before.stamp) / 1e9, arrived)
        far = math.hypot(sample.pose.x - before.pose.x, sample.pose.y - before.pose.y)
        if far > slack + gap * shape.speed:
            return before, f"odometry jumped by {far:.2f} m, which the base cannot make"
        turned = abs(wrap(sample.pose.yaw - before.pose.yaw))
        if turned > TURN_JUMP + gap * shape.rate:
            how = f"{math.degrees(turned):.0f} degrees"
            return before, f"odometry's heading jumped by {how}, which the base cannot make"
    return None


def astray(moved: Pose2, goal: tuple[float, float], drift: float) -> str | None:
    """
    Why a step does not go where it was sent.

    Args:
        moved: how far it came, in the frame of its start.
        goal: metres forward and radians to the left that it was to go.
        drift: metres that it may leave its line, or its place in a turn.
    """
    if goal[1]:
        off = math.hypot(moved.x, moved.y)
        return f"a turn went {off:.2f} m from its place (drift {drift:g})" if off > drift else None
    if abs(moved.y) > drift:
        return f"a step forward went {abs(moved.y):.2f} m sideways (drift {drift:g})"
    if moved.x < -drift:
        return f"a step forward went {-moved.x:.2f} m backwards (drift {drift:g})"
    if abs(moved.yaw) > VEER:
        degrees = math.degrees(abs(moved.yaw))
        return f"a step forward turned by {degrees:.0f} degrees"
    return None


NOTHING = (0.015, math.radians(1.5))
"""Metres and radians of a whole step below which odometry saw none of it."""

STEP_SEEN = (0.009, math.radians(0.5))
"""Metres and radians that odometry must show to have seen the base move; jitter shows less."""

STOOD = 0.1
"""Share of its budget that a step must command in vain before the base counts as standing."""

AGREED = 0.5
"""Share of the command that an honest base shows before it meets an obstacle."""


def met_something(used: float, shown: float, used_then: float, granted: float) -> bool:
    """
    Whether odometry agreed with the commands until the base stood, as it does against a wall.

    Args:
        used, granted: metres or radians that the step has commanded, and might have.
        shown: those that odometry shows.
        used_then: those that had been commanded when odometry last saw the base move.
    """
    return used - used_then > STOOD * granted and shown >= AGREED * used_then

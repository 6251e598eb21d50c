"""
What a base makes of its commands, and odometry of that, by a tape: the gains that the ledger
(`janusvln_ros.protocol.ledger`) needs. Pure functions. Metres, radians.
"""

from dataclasses import dataclass
from typing import NamedTuple

from janusvln_ros.errors import require

GAINS = (0.6, 1.5)
"""The gains that ``execution`` and ``turn_execution`` may be."""

SCALE_OFF = 0.03
"""Share by which odometry may be off before it is said."""


@dataclass(frozen=True)
class Walk:
    """Steps of one kind, one after another: how many, what was sent, what odometry saw."""

    steps: int = 0
    commanded: float = 0.0
    seen: float = 0.0

    def with_step(self, commanded: float, seen: float) -> "Walk":
        """Return the walk with one step more."""
        return Walk(self.steps + 1, self.commanded + commanded, self.seen + seen)


class Gains(NamedTuple):
    """
    ``execution``: what the base makes of a command, as a share; ``scale``: what odometry shows of
    what the base makes.
    """

    execution: float
    scale: float


def gains(walk: Walk, measured: float) -> Gains:
    """
    Return what follows from a walk that a tape measured.

    Raises:
        InputError: ``measured`` is no way, or nothing was commanded (``output: discrete``).
    """
    require(measured > 0, f"the tape says {measured:g}: measure from start to end, above 0")
    require(
        walk.commanded > 0,
        f"nothing was commanded in {walk.steps} steps: bases that step by themselves and the "
        "simulator in lockstep have no gain",
    )
    return Gains(measured / walk.commanded, walk.seen / measured)


def advice(found: Gains, parameter: str) -> list[str]:
    """Return what to do about it, a sentence each; ``parameter`` is execution's name."""
    low, high = GAINS
    share = found.execution
    if not low <= share <= high:
        told = [
            f"the base makes {share:.2f} of its command, which is outside {low:g} to {high:g}: "
            "mend it at the base (wheel size, gear ratio, a velocity that is scaled on its way)"
        ]
    else:
        told = [f"{parameter}: {share:.2f}"]
    if abs(found.scale - 1) > SCALE_OFF:
        told.append(
            f"odometry shows {found.scale:.2f} of the way: mend its scale at the base, for steps "
            "are as long as odometry says"
        )
    return told

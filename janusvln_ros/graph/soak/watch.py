"""What is unsafe, what grows, what drifts: pure, told the time and the truth. No ROS import."""

import math
import statistics
from dataclasses import dataclass, field

PROMISE = 0.35
"""Seconds to zero velocity."""

BRAKING = 0.45
"""
Seconds that the simulated base may need from its top speed to rest (0.6 m/s at 1.5 m/s^2), and for
the truth to be published.
"""

MOVING_SPEED, MOVING_RATE = 0.03, 0.08
"""Metres and radians per second of true motion that are not rest."""

MINUTE = 60.0
"""Seconds of which the lowest memory is taken."""

STEP_M, STEP_RAD = 0.375, math.radians(22.5)
"""What one step of 0.25 m or 15 degrees may truly move the base at most: one and a half."""


@dataclass
class RestWatch:
    """
    Looks at the true motion.

    ``must_rest(now)`` begins a watch: from ``promise + BRAKING`` later on, motion is unsafe, and
    is counted once; ``may_move(now)`` ends it. Moments are judged by when they were, not by when
    they were heard of: one of before the fault is told late where ``publish`` was held up, and one
    of the watch may be heard of after its end.
    """

    since: float | None = None
    until: float = math.inf
    why: str = ""
    promise: float = PROMISE
    turns: bool = False
    once: bool = False
    unsafe: list[str] = field(default_factory=list)
    offset: float = math.inf

    def must_rest(
        self,
        now: float,
        why: str,
        promise: float = PROMISE,
        *,
        turns: bool = False,
        once: bool = False,
    ) -> None:
        """
        Something happened at ``now`` after which the base must come to rest, within ``promise``
        seconds and the braking; ``turns``: it may turn, ``once``: from rest it may go on.
        """
        self.since, self.until, self.why, self.promise = now, math.inf, why, promise
        self.turns, self.once = turns, once

    def may_move(self, now: float) -> None:
        """From ``now`` on the base may move again."""
        self.until = min(self.until, now)

    def truth(self, now: float, stamp: float, speed: float, rate: float) -> None:
        """
        At ``now`` it is heard that the base moves so; ``stamp``: when that was, seconds of the
        simulator's clock. What is heard of soonest tells how that clock lies to ours.
        """
        self.offset = min(self.offset, now - stamp)
        when = stamp + self.offset
        if self.since is None or when > self.until:
            self.since = None
            return
        moves = abs(speed) > MOVING_SPEED or (abs(rate) > MOVING_RATE and not self.turns)
        if not moves and self.once and when > self.since:
            self.since = None
        elif moves and when - self.since > self.promise + BRAKING:
            self.unsafe.append(
                f"{when - self.since:.2f} s after '{self.why}' the base moves at "
                f"{speed:.2f} m/s and {rate:.2f} rad/s"
            )
            self.since = None


@dataclass
class StepWatch:
    """
    How far the base has truly gone since a step began, to which ``why`` happened: more than a step
    and a half is unsafe, and is counted once a step.

    A step begins when the one before is reported (``over()``); the base rests then. Between the
    end of one drive and the beginning of the next the base may be put anywhere.
    """

    why: str = ""
    metres: float = 0.0
    radians: float = 0.0
    worst_metres: float = 0.0
    worst_radians: float = 0.0
    unsafe: list[str] = field(default_factory=list)
    watching: bool = False
    farthest: float = 0.0
    """The most metres that one step has gone since ``spoilt()``."""
    _before: float = 0.0
    _place: tuple[float, float, float] | None = None

    def begins(self) -> None:
        """A drive begins."""
        self.watching = True
        self.over()

    def ends(self) -> None:
        """The drive has ended."""
        self.watching = False

    def over(self) -> None:
        """A step is over, and the next may begin."""
        self.metres = self.radians = self._before = 0.0
        self._place = None

    def spoilt(self) -> None:
        """A sensor tells something else from now on: what this step has gone does not count."""
        self._before, self.farthest = self.metres, 0.0

    def truth(self, x: float, y: float, yaw: float) -> None:
        """The base is at (x, y) metres and looks along ``yaw`` radians."""
        if not self.watching:
            return
        if self._place is not None:
            held = self.metres > STEP_M or self.radians > STEP_RAD
            self.metres += math.dist((x, y), self._place[:2])
            self.radians += abs(math.remainder(yaw - self._place[2], math.tau))
            self.worst_metres = max(self.worst_metres, self.metres)
            self.farthest = max(self.farthest, self.metres - self._before)
            self.worst_radians = max(self.worst_radians, self.radians)
            if not held and (self.metres > STEP_M or self.radians > STEP_RAD):
                self.unsafe.append(
                    f"one step moved the base by {self.metres:.3f} m and "
                    f"{math.degrees(self.radians):.1f} degrees, with '{self.why or 'no fault'}'"
                )
        self._place = (x, y, yaw)


@dataclass
class Growth:
    """
    Resident memory of one process over its life, bytes, after its warm-up.

    Attributes:
        worst: by how much the lowest of a later minute exceeds that of the first one. What grows
            never comes down again; a simulator goes up and down with the homes that it reads.
        swing: by how much the most of all exceeds the most of the warm-up.
    """

    warm_up: float
    worst: int = 0
    swing: int = 0
    _begun: float | None = None
    _most: int = 0
    _first: int | None = None
    _lowest: int = 0
    _until: float = 0.0

    def restart(self, loading: bool = False) -> None:
        """
        The process is a new one; ``loading``: nothing is measured until ``restart`` is called
        again.
        """
        self._begun, self._most, self._first = (math.inf if loading else None), 0, None
        self._until = 0.0

    def look(self, now: float, resident: int) -> None:
        """It holds ``resident`` bytes at ``now``."""
        self._begun = now if self._begun is None else self._begun
        if now - self._begun <= self.warm_up:
            self._most = max(self._most, resident)
            return
        self.swing = max(self.swing, resident - self._most)
        if now < self._until:
            self._lowest = min(self._lowest, resident)
            return
        if self._until and self._first is None:
            self._first = self._lowest
        elif self._first is not None:
            self.worst = max(self.worst, self._lowest - self._first)
        self._lowest, self._until = resident, now + MINUTE


def drift(totals: list[float]) -> float:
    """Median of the last tenth minus median of the first tenth, seconds; 0 of fewer than 20."""
    tenth = len(totals) // 10
    return (
        statistics.median(totals[-tenth:]) - statistics.median(totals[:tenth])
        if tenth >= 2
        else 0.0
    )

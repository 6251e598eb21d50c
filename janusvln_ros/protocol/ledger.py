"""
The ledger: what a step may still command, whatever odometry says. Pure functions.

Every velocity passes it last, after everything else that shapes a command. It adds up what was
sent, not what odometry makes of it, and lets through no more than braking ends within the budget
of the step. A command that falls at once does not stop a base at once: what braking from it takes
is added too. Only an accepted goal refills it: nudges, turning back and changed parameters do not.

Metres, radians, seconds on the steady clock (REP-103). The pair (forward, turn) comes in that
order everywhere.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from janusvln_ros.protocol.profile import Profile

TICK = 0.02
"""Seconds of the control loop: for so long, at least, a command acts."""

SHARE = 1.35
"""
Steps that one step may command, so that a base which makes 75 to 105 % of its command still
finishes, and one that makes 110 % stays within 1.5.
"""

STEERING = math.radians(12)
"""Radians that a step forward may command to hold its heading."""

BRAKES = 2.0
"""
How hard a base brakes at least when a command falls at once, in units of the acceleration that is
asked of it.
"""

STALLED = 0.1
"""Seconds without a command after which the base may no longer be as fast as it was told."""

KEPT = 2.0
"""Seconds for which what was sent is remembered: longer than any delay that is allowed for."""


class Sent(NamedTuple):
    """A command and when it was sent: metres and radians per second."""

    at: float
    speed: float = 0.0
    rate: float = 0.0


@dataclass(frozen=True)
class Ledger:
    """
    What a step may still command and what was commanded.

    ``granted`` and ``left``: metres and radians, of the whole step and of its rest; ``sent``: the
    latest commands, oldest first; ``fast``: metres and radians per second that the base may have
    made, either way, when the last of them was sent.
    """

    granted: tuple[float, float] = (0.0, 0.0)
    left: tuple[float, float] = (0.0, 0.0)
    sent: tuple[Sent, ...] = ()
    fast: tuple[float, float] = (0.0, 0.0)

    @property
    def last(self) -> Sent:
        """The command that is in force; standstill where none was ever sent."""
        return self.sent[-1] if self.sent else Sent(-math.inf)

    @property
    def used(self) -> tuple[float, float]:
        """Metres and radians that the step has commanded, with braking after what fell at once."""
        return self.granted[0] - self.left[0], self.granted[1] - self.left[1]


def budget(goal: tuple[float, float], shape: Profile) -> tuple[float, float]:
    """
    Return the metres and radians that a step to ``goal`` may command: ``SHARE`` of it by what the
    base makes of a command; beside it a step forward may steer by ``STEERING``, a turn goes
    nowhere.
    """
    forward, turn = goal
    if turn:
        return 0.0, SHARE * abs(turn) / shape.turn_execution
    return (SHARE * forward / shape.execution, STEERING) if forward else (0.0, 0.0)


def granted(ledger: Ledger, goal: tuple[float, float], shape: Profile) -> Ledger:
    """Return the ledger of a goal that was accepted at rest: the only way to fill it."""
    whole = budget(goal, shape)
    return replace(ledger, granted=whole, left=whole)


def bounded(ledger: Ledger, now: float, speed: float, rate: float, shape: Profile) -> Ledger:
    """
    Book what the last command has done until ``now`` and send the next: ``last`` of what is
    returned, which is ``speed`` and ``rate`` as far as the budget lets them.

    A command counts until the next one, at most for the base's own time-out, and as long as the
    base brakes after it. Where a number is not finite, standstill is sent.
    """
    if not (math.isfinite(speed) and math.isfinite(rate)):
        speed = rate = 0.0
    (metres, radians), fast = _booked(ledger, now, shape)
    acts = longest(ledger, now, shape)
    fastest = most(metres, shape.acceleration, acts), most(radians, shape.rate_acceleration, acts)
    command = Sent(now, *(max(-top, min(top, v)) for v, top in zip((speed, rate), fastest)))
    kept = tuple(sent for sent in ledger.sent if now - sent.at < KEPT)
    return replace(ledger, left=(metres, radians), sent=(*kept, command), fast=fast)


def remaining(ledger: Ledger, now: float, shape: Profile) -> tuple[float, float]:
    """Return the metres and radians that are left at ``now``, with the last command in force."""
    return _booked(ledger, now, shape)[0]


def most(left: float, deceleration: float, acts: float = TICK) -> float:
    """
    Return the fastest that may be sent with ``left`` in the budget: after it was in force for
    ``acts`` seconds, T, braking ends within ``left`` (v T + v^2 / 2a = left).
    """
    step = deceleration * acts
    return math.sqrt(step * step + 2 * deceleration * max(0.0, left)) - step


def longest(ledger: Ledger, now: float, shape: Profile) -> float:
    """
    Return the seconds for which the next command may be in force: the longest that one which moves
    the base was within the last ``KEPT``, and ``TICK`` at least. Where the machine is busy, it is
    so for more than one command.
    """
    ends = (*(sent.at for sent in ledger.sent[1:]), now)
    acted = (end - sent.at for sent, end in zip(ledger.sent, ends) if sent.speed or sent.rate)
    return max(TICK, min(_lasting(shape), max(acted, default=TICK)))


def spent(ledger: Ledger, now: float, goal: tuple[float, float], shape: Profile) -> bool:
    """Whether less than the slowest speed that still moves the base is left for ``goal``."""
    left, acts = remaining(ledger, now, shape), longest(ledger, now, shape)
    if goal[1]:
        return most(left[1], shape.rate_acceleration, acts) < min(shape.crawl_rate, shape.rate)
    return most(left[0], shape.acceleration, acts) < min(shape.crawl_speed, shape.speed)


def travelled(ledger: Ledger, now: float, seconds: float, shape: Profile) -> tuple[float, float]:
    """
    Return the metres and radians (signed) that the base has made of the commands of the last
    ``seconds``: what odometry that is so old cannot show yet.
    """
    metres = radians = 0.0
    end = now
    for sent in reversed(ledger.sent):
        begin = max(sent.at, now - seconds)
        acted = max(0.0, min(end, sent.at + _lasting(shape)) - begin)
        metres, radians = metres + sent.speed * acted, radians + sent.rate * acted
        end = sent.at
    return metres * shape.execution, radians * shape.turn_execution


def resumed(
    ledger: Ledger, now: float, measured: tuple[float, float]
) -> tuple[tuple[float, float], float]:
    """
    Return the speed and rate from which the next command goes on, and the seconds for which it may
    have sped up: those of the last command, or, after a loop that stalled, no more than
    ``measured`` and one ``TICK``.
    """
    last = ledger.last
    if now - last.at <= STALLED:
        return (last.speed, last.rate), now - last.at
    speed, rate = (min(abs(a), abs(b)) for a, b in zip((last.speed, last.rate), measured))
    return (math.copysign(speed, last.speed), math.copysign(rate, last.rate)), TICK


def announcement(shape: Profile) -> str:
    """Say what one step may command, for whoever arms."""
    forward = budget((shape.forward_step, 0.0), shape)[0]
    turn = math.degrees(budget((0.0, shape.turn_step), shape)[1])
    return (
        f"whatever odometry says, a step commands at most {forward:.2f} m (execution "
        f"{shape.execution:g}) or {turn:.1f} degrees (turn_execution {shape.turn_execution:g})"
    )


def _booked(
    ledger: Ledger, now: float, shape: Profile
) -> tuple[tuple[float, float], tuple[float, float]]:
    """
    Return what is left at ``now`` and how fast the base may still be, each in metres and radians:
    it brakes to the last command, and to standstill once its time-out is over.
    """
    last = ledger.last
    since = max(0.0, now - last.at) if ledger.sent else 0.0
    acted = min(since, _lasting(shape))
    commands = abs(last.speed), abs(last.rate)
    brakes = BRAKES * shape.acceleration, BRAKES * shape.rate_acceleration
    lefts, fasts = [], []
    for left, fast, told, brake in zip(ledger.left, ledger.fast, commands, brakes):
        way, fast = _braked(max(fast, told), told, acted, brake)
        tail, fast = _braked(fast, 0.0, since - acted, brake)
        lefts.append(max(0.0, left - way - tail))
        fasts.append(fast)
    return (lefts[0], lefts[1]), (fasts[0], fasts[1])


def _braked(fast: float, slow: float, seconds: float, deceleration: float) -> tuple[float, float]:
    """
    Return the way that is made in ``seconds`` of braking from ``fast`` to ``slow`` and going on
    so, and how fast it ends.
    """
    braking = min(seconds, (fast - slow) / deceleration)
    ends = fast - deceleration * braking
    return (fast + ends) / 2 * braking + slow * (seconds - braking), ends


def _lasting(shape: Profile) -> float:
    """Seconds for which a command acts when none follows; for ever where that is not declared."""
    return shape.base_timeout if shape.base_timeout > 0 else math.inf

"""
How one step moves: its target, and the speed and rate on the way there. Pure functions.

Lengths in metres, angles in radians, seconds (REP-103).
"""

import math
from dataclasses import dataclass

from janusvln_ros.actions import FORWARD_STEP_M, TURN_STEP_DEG, Action
from janusvln_ros.geometry import Pose2


@dataclass(frozen=True)
class Profile:
    """The numbers that shape a step. See the table in ``nodes/motion.py`` for each."""

    forward_step: float = FORWARD_STEP_M
    turn_step: float = math.radians(TURN_STEP_DEG)
    speed: float = 0.3
    acceleration: float = 0.5
    rate: float = 0.8
    rate_acceleration: float = 1.5
    crawl_speed: float = 0.03
    crawl_rate: float = 0.08
    heading_gain: float = 2.0
    tolerance: float = 0.015
    turn_tolerance: float = math.radians(1.0)
    latency: float = 0.05
    execution: float = 1.0
    turn_execution: float = 1.0
    base_timeout: float = 0.0


def target(action: Action, forward_step: float, turn_step: float) -> tuple[float, float]:
    """Return the metres forward and the radians to the left that an action asks for."""
    turn = {Action.TURN_LEFT: turn_step, Action.TURN_RIGHT: -turn_step}
    return (forward_step if action is Action.MOVE_FORWARD else 0.0), turn.get(action, 0.0)


def profile(
    remaining: float, last: float, limit: float, acceleration: float, dt: float, crawl: float
) -> float:
    """
    Next speed of a trapezoidal profile that comes to rest after ``remaining``: speed up, cruise at
    ``limit``, brake at the last moment, never slower than ``crawl`` until it is there. 0 where
    nothing remains.
    """
    if not remaining > 0:
        return 0.0
    braking = math.sqrt(2 * acceleration * remaining)
    return min(limit, last + acceleration * dt, max(braking, min(crawl, limit)))


def velocity(
    moved: Pose2,
    goal: tuple[float, float],
    last: tuple[float, float],
    dt: float,
    travelled: tuple[float, float],
    clearance: float,
    shape: Profile,
) -> tuple[float, float]:
    """
    Speed and turning rate for a step that has come as far as ``moved`` of ``goal`` (metres,
    radians).

    ``last``: the speed and rate that the base goes on from; ``travelled``: metres and radians that
    it has made since ``moved`` was true; ``clearance``: metres it may go from now.
    """
    forward, turn = goal
    if turn:
        sign = math.copysign(1.0, turn)
        # signed, so that an overshoot beyond the tolerance is turned back
        ahead = sign * (turn - moved.yaw - travelled[1])
        if ahead < -shape.turn_tolerance:
            return 0.0, -sign * shape.crawl_rate
        return 0.0, sign * profile(
            ahead, abs(last[1]), shape.rate, shape.rate_acceleration, dt, shape.crawl_rate
        )
    ahead = min(forward - moved.x - travelled[0], clearance)
    speed = profile(ahead, abs(last[0]), shape.speed, shape.acceleration, dt, shape.crawl_speed)
    yaw = moved.yaw + travelled[1]
    heading = -shape.heading_gain * (yaw + shape.heading_gain * moved.y)
    most = shape.rate / 2
    return speed, max(-most, min(most, heading)) if speed else 0.0


def short_of(moved: Pose2, goal: tuple[float, float], shape: Profile) -> float:
    """
    How far a step at rest is outside its tolerance (metres or radians, 0 within).

    Going too far forward is not undone: there may be somebody behind.
    """
    forward, turn = goal
    if turn:
        return max(0.0, abs(turn - moved.yaw) - shape.turn_tolerance)
    return max(0.0, forward - moved.x - shape.tolerance)


def stepped(moved: Pose2, goal: tuple[float, float], shape: Profile) -> bool:
    """
    Whether a base that steps by itself has made its step, as exactly as such bases do: three times
    the tolerance short at most, or beyond.
    """
    forward, turn = goal
    if turn:
        return math.copysign(1.0, turn) * (turn - moved.yaw) <= 3 * shape.turn_tolerance
    return forward - moved.x <= 3 * shape.tolerance


def share_done(moved: Pose2, goal: tuple[float, float]) -> float:
    """Progress from 0 to 1."""
    forward, turn = goal
    if not forward and not turn:
        return 1.0
    return max(0.0, min(1.0, moved.yaw / turn if turn else moved.x / forward))


def safe_velocity(speed: float, rate: float, shape: Profile) -> tuple[float, float]:
    """
    Return the last gate before the wheels: within the limits, and zero if a number is not finite.
    """
    if not (math.isfinite(speed) and math.isfinite(rate)):
        return 0.0, 0.0
    return max(-shape.speed, min(shape.speed, speed)), max(-shape.rate, min(shape.rate, rate))

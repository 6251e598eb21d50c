"""
Figures for ``/diagnostics``: rates against what was expected, ages, percentiles.

Pure; the nodes turn them into messages.
"""

import math
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

OK, WARN, ERROR, STALE = range(4)
"""Levels of ``diagnostic_msgs/DiagnosticStatus``."""


class Health(NamedTuple):
    """One line of diagnostics: level, sentence, and figures by name."""

    name: str
    level: int
    message: str
    values: dict[str, str]


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that ``percent`` of them do not exceed; NaN of none."""
    return float(np.percentile(values, percent, method="inverted_cdf")) if values else math.nan


class InputRate:
    """
    How often something arrives.

    ``expected`` in Hz, 0: anything will do. A rate below 70 % of it is worth a warning, silence of
    ``silence`` s an error.
    """

    def __init__(self, name: str, expected: float, silence: float = 2.0, window: float = 5.0):
        self.name, self.expected, self.silence, self.window = name, expected, silence, window
        self.times: deque[float] = deque(maxlen=2000)
        self.last: float | None = None
        self.total = 0

    def hit(self, now: float) -> None:
        """One arrived at ``now``, seconds on the steady clock."""
        self.times.append(now)
        self.last = now
        self.total += 1

    def rate(self, now: float) -> float:
        """Arrivals per second within the window."""
        while self.times and now - self.times[0] > self.window:
            self.times.popleft()
        if len(self.times) < 2:
            return 0.0
        return (len(self.times) - 1) / max(self.times[-1] - self.times[0], 1e-6)

    def health(self, now: float) -> Health:
        """The line about this input."""
        rate = self.rate(now)
        values = {
            "rate": f"{rate:.1f}",
            "expected": f"{self.expected:.1f}",
            "received": str(self.total),
        }
        if self.last is None:
            return Health(self.name, STALE, f"nothing has arrived on {self.name}", values)
        values["age"] = f"{now - self.last:.3f}"
        if now - self.last > self.silence:
            return Health(
                self.name, ERROR, f"nothing on {self.name} for {now - self.last:.1f} s", values
            )
        if self.expected and rate < 0.7 * self.expected:
            return Health(
                self.name,
                WARN,
                f"{self.name} comes at {rate:.1f} Hz instead of {self.expected:g}",
                values,
            )
        return Health(self.name, OK, f"{rate:.1f} Hz", values)


class Lateness:
    """
    How late a timer is called: as long as the executor's thread was busy with another callback, or
    the machine with other work. ``period`` in seconds.
    """

    def __init__(self, period: float):
        self.period = period
        self.last: float | None = None
        self.worst = 0.0

    def hit(self, now: float) -> None:
        """The timer was called at ``now``, seconds on the steady clock."""
        if self.last is not None:
            self.worst = max(self.worst, now - self.last - self.period)
        self.last = now

    def take(self) -> float:
        """The worst since the last ``take``, seconds."""
        worst, self.worst = self.worst, 0.0
        return worst

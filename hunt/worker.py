"""
The process that runs the cases, one after the other, and measures each: it may be killed by one,
so it writes down what it is about to do, and another goes on.
"""

import base64
import contextlib
import json
import logging
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity

from hunt.families import Family, load
from janusvln_ros.errors import FailedError, InputError, NonFiniteError

SECONDS, MEGABYTES = 1.0, 512
"""What a case may take: of the processor, and of memory above what the process holds."""
ADDRESSES = 6 << 30
"""Bytes of addresses beyond those in use, so that a case does not take the machine down."""
SHRINKING_S = 8.0
EXAMPLES, TURN_S = 40, 5.0
"""Cases of a family, and seconds, before the next one has its turn."""


class FaultError(AssertionError):
    """A case did harm: ``kind`` says which, the same for cases that meet the same fault."""

    def __init__(self, kind: str, told: str) -> None:
        super().__init__(told)
        self.kind, self.told = kind, told


def encoded(case: Any) -> Any:
    """A case as JSON has it."""
    if isinstance(case, bytes):
        return {"base64": base64.b64encode(case).decode()}
    return case if isinstance(case, list | dict | int | float | str | None) else repr(case)


def decoded(value: Any) -> Any:
    """The reverse of `encoded`."""
    if isinstance(value, dict) and set(value) == {"base64"}:
        return base64.b64decode(value["base64"])
    return value


def reset_peak() -> None:
    """Forget the most memory that this process has held."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def megabytes(name: str) -> float:
    """``VmRSS`` or ``VmHWM`` (the peak) of this process."""
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{name}:")[1].split()[0]) / 1024


def run_case(check: Callable[[Any], object], case: Any) -> None:
    """
    Take in a case.

    Raises:
        FaultError: something came of it that may not.
    """
    reset_peak()
    held, began = megabytes("VmRSS"), time.process_time()
    try:
        check(case)
    except (InputError, FailedError, NonFiniteError):
        pass
    # whatever else comes is what is hunted
    except Exception as error:
        raise FaultError(kind_of(error), f"{type(error).__name__}: {error}"[:300]) from error
    took, grew = time.process_time() - began, megabytes("VmHWM") - held
    if grew > MEGABYTES:  # which takes time too
        raise FaultError("large", f"it took {grew:.0f} MB")
    if took > SECONDS:
        raise FaultError("slow", f"it took {took:.1f} s of the processor")


def kind_of(error: BaseException) -> str:
    """The type of an exception and the innermost place in our code that it came through."""
    ours = ("janusvln_ros", "sim_bridge", "hunt")
    frames = [
        f
        for f in traceback.extract_tb(error.__traceback__)
        if any(f"/{room}/" in f.filename for room in ours) and "site-packages" not in f.filename
    ]
    place = f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else "?"
    return f"{type(error).__name__} in {place}"


class Hunter:
    """Runs the families in turn and tells what it found, a line of JSON each, on ``told``."""

    def __init__(self, folder: Path, families: dict[str, Family]) -> None:
        self.families, self.pending = families, folder / "pending.json"
        self.seen: set[tuple[str, str]] = set()
        self.cases = 0
        self.last: tuple[Any, FaultError] | None = None
        self.until = 0.0

    def take(self, family: Family, case: Any) -> None:
        """Run a case, and remember the last that did harm."""
        if time.monotonic() > self.until:
            return  # the next one's turn, or small enough
        self.cases += 1
        self.pending.write_text(json.dumps({"family": family.name, "case": encoded(case)}))
        try:
            run_case(family.check, case)
        except FaultError as fault:
            if (family.name, fault.kind) in self.seen:
                return
            if self.last is None:
                self.until = time.monotonic() + SHRINKING_S
            self.last = (case, fault)
            raise

    def round(self, family: Family, seed: int, examples: int = EXAMPLES) -> dict[str, Any]:
        """Some cases of a family: how many, and the fault that was found, if any."""
        self.cases, self.last, self.until = 0, None, time.monotonic() + TURN_S

        @hypothesis.seed(seed)
        @hypothesis.settings(
            max_examples=examples,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink),
            report_multiple_bugs=False,
            verbosity=Verbosity.quiet,
        )
        @hypothesis.given(family.cases)
        def hunt(case: Any) -> None:
            self.take(family, case)

        with contextlib.suppress(FaultError, hypothesis.errors.Flaky):
            hunt()
        told: dict[str, Any] = {"family": family.name, "cases": self.cases}
        if self.last is not None:
            case, fault = self.last
            self.seen.add((family.name, fault.kind))
            told["fault"] = {"kind": fault.kind, "told": fault.told, "case": encoded(case)}
        return told


def main(folder: str, seed: str, seconds: str, *chosen: str) -> None:
    """Hunt for some seconds in the families ``chosen`` (none: all)."""
    logging.disable(logging.CRITICAL)
    until = time.monotonic() + float(seconds)
    families = load()
    hunter = Hunter(Path(folder), families)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (held + ADDRESSES, most))
    wanted = [families[name] for name in chosen] or [*families.values()]
    told, sys.stdout = sys.stdout, sys.stderr  # what a case prints is not told
    turn, parent = 0, os.getppid()
    while time.monotonic() < until or turn == 0:
        for number, family in enumerate(wanted):
            found = hunter.round(family, int(seed) * 1_000_003 + turn * 1009 + number)
            print(json.dumps(found), file=told, flush=True)
            if (time.monotonic() > until and turn) or os.getppid() != parent:
                return
        turn += 1


if __name__ == "__main__":
    main(*sys.argv[1:])

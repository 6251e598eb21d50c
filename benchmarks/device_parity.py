"""
Whether a GPU computes what a CPU computes: the small checkpoint in the published layout, both
memories, every precision, recorded and not; for docs/performance.md.

  python benchmarks/device_parity.py          # 70 frames each, so that both memories forget
  python benchmarks/device_parity.py --dry    # this machine's CPU, against itself: does it run?

Does nothing else where there is no GPU. What is compared are the probabilities of the actions (in
float64) at every step, or the hidden states of the language model; every row has its limit, and
the exit status is 1 where one is missed. What cannot be tried here says why.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from report import device_arguments, put_table, rows, where, write_json

from janusvln_ros.actions import Action
from janusvln_ros.errors import InputError
from janusvln_ros.policy import Navigator

TINY = Path(__file__).resolve().parents[1] / "test/data/model/tiny"
INSTRUCTION = "walk past the sofa and stop near the table."
MEMORIES = ("released", "dual")


class Check(NamedTuple):
    """What is compared with what, the largest error allowed, and how it is found."""

    name: str
    limit: float
    error: Callable[[], float]


class Drives:
    """Drives of one episode on a device; those that several checks ask for are driven once."""

    def __init__(self, device: str, frames: int) -> None:
        self.device = device
        rng = np.random.default_rng(0)
        self.frames = rng.integers(0, 256, (frames, 480, 640, 3), dtype=np.uint8)
        self._done: dict[tuple[object, ...], np.ndarray] = {}

    def drive(self, memory: str, device: str, precision: str, **options: Any) -> np.ndarray:
        """Probabilities of the four actions at every step, float64 [F, 4]."""
        key = (memory, device, precision, *sorted(options.items()))
        if key not in self._done:
            navigator = self.navigator(memory, device, precision, **options)
            navigator.reset(INSTRUCTION)
            steps = [navigator.step(frame).probabilities for frame in self.frames]
            self._done[key] = np.array([[step[action] for action in Action] for step in steps])
        return self._done[key]

    def navigator(self, memory: str, device: str, precision: str, **options: Any) -> Navigator:
        """The small checkpoint, with constrained decoding."""
        return Navigator.from_pretrained(
            TINY,
            device=device,
            precision=precision,
            memory=memory,
            decoding="constrained",
            allow_untrained_memory=True,
            **options,
        )

    def error(self, memory: str, precision: str, **options: Any) -> float:
        """Largest difference of a probability from the CPU's in float32."""
        found = self.drive(memory, self.device, precision, **options)
        return float(np.abs(found - self.drive(memory, "cpu", "float32")).max())

    def recorded_error(self, memory: str, precision: str) -> float:
        """Largest difference of a probability between the step and its recording."""
        found = self.drive(memory, self.device, precision, cuda_graphs=True)
        return float(np.abs(found - self.drive(memory, self.device, precision)).max())

    def hidden_error(self, precision: str) -> float:
        """
        Distance of the language model's hidden states from the CPU's in float32, over their size.
        """
        hidden = []
        for device, used in ((self.device, precision), ("cpu", "float32")):
            model = self.navigator("dual", device, used).model
            generator = torch.Generator().manual_seed(0)
            embeds_LD = torch.randn(40, model.config.text.hidden_size, generator=generator)
            positions_3L = torch.arange(40, device=device).expand(3, -1)
            with torch.no_grad():
                read = model.read(embeds_LD.to(device, model.dtype), positions_3L)
            hidden.append(read.float().cpu())
        return float((hidden[0] - hidden[1]).norm() / hidden[1].norm())


def checks(drives: Drives) -> Iterator[Check]:
    """Every check; limits are those of the tests, or of docs/performance.md for whole numbers."""
    for memory in MEMORIES:
        for dtype, limit in (("float32", 5e-4), ("bfloat16", 0.03)):
            yield Check(f"{memory}, {dtype}", limit, partial(drives.error, memory, dtype))
        for dtype in ("float32", "bfloat16"):
            name = f"{memory}, {dtype}, recorded against not recorded"
            yield Check(name, 0.0, partial(drives.recorded_error, memory, dtype))
        for precision in ("int8", "float8"):
            error = partial(drives.error, memory, "bfloat16", spatial_precision=precision)
            yield Check(f"{memory}, bfloat16, spatial memory in {precision}", 0.05, error)
        yield Check(f"{memory}, int8", 0.05, partial(drives.error, memory, "int8"))
    for dtype, limit in (("int8", 0.03), ("int4", 0.4)):
        error = partial(drives.hidden_error, dtype)
        yield Check(f"language model in {dtype}, hidden states", limit, error)


def measure(drives: Drives, path: Path | None) -> dict[str, Any]:
    """
    Every check with its error, whether it holds, or why it could not be tried; written on the way.
    """
    found: list[dict[str, Any]] = []
    result = {"where": where(drives.device), "frames": len(drives.frames), "checks": found}
    for check in checks(drives):
        row: dict[str, Any] = {"what": check.name, "limit": check.limit}
        try:
            row["error"] = check.error()
            row["holds"] = row["error"] <= check.limit
        except InputError as error:
            row["untried"] = str(error)
        except (RuntimeError, ImportError) as error:  # the others are still worth their time
            row["holds"], row["failed"] = False, f"{type(error).__name__}: {error}"
        print(row, flush=True)
        found.append(row)
        write_json(path, result)
    return result


def table(result: dict[str, Any]) -> str:
    """The Markdown that goes into the docs."""
    lines = [
        [
            row["what"],
            f"{row['error']:.2g}" if "error" in row else row.get("untried") or row["failed"][:80],
            f"{row['limit']:g}" if row["limit"] else "bit for bit",
            {True: "yes", False: "**no**", None: "untried"}[row.get("holds")],
        ]
        for row in result["checks"]
    ]
    return "\n".join(
        [
            rows(["against the CPU in float32", "largest error", "limit", "holds"], lines),
            "",
            f"{result['where']}; {result['frames']} frames of both memories, `python",
            "benchmarks/device_parity.py`.",
        ]
    )


def main() -> None:
    """Compare, print the table, and put it into the docs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=70, help="frames of an episode (70)")
    if (args := device_arguments(parser, {})) is None:
        return
    if args.dry:
        args.frames = min(args.frames, 4)
    result = measure(Drives(args.device, args.frames), args.json)
    text = table(result)
    print(text)
    if not args.no_docs:
        put_table("device_parity", text)
    missed = [row["what"] for row in result["checks"] if row.get("holds") is False]
    if missed:
        raise SystemExit(f"missed: {'; '.join(missed)}")


if __name__ == "__main__":
    main()

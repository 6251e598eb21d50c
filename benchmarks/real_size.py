"""
Load a checkpoint of the published sizes and take a few steps: seconds, and the most anonymous
memory (that of files can be given back); for docs/performance.md.

  janusvln bench --config benchmarks/configs/full --memory dual --write DIR
      writes one with random weights, 18.5 GB
  python benchmarks/real_size.py DIR --precision int4

Prints a JSON object after loading, and one after each step. "of_files" is the peak while loading
over the size of the files, "counted_bytes" what `janusvln_ros.policy.fit` says beforehand. What
does not fit is refused.
"""

import argparse
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from janusvln_ros.errors import InputError
from janusvln_ros.model.config import Memory
from janusvln_ros.policy import Navigator

STATUS = Path("/proc/self/status")
INSTRUCTION = "walk past the sofa, turn left at the door and stop near the table."


def anonymous() -> int:
    """Bytes of this process that are no file's."""
    found = re.search(r"RssAnon:\s+(\d+) kB", STATUS.read_text())
    assert found
    return int(found[1]) * 1024


def with_peak(work: Callable[[], Any], period: float = 0.02) -> tuple[Any, int, float]:
    """What ``work`` returns, the most anonymous bytes meanwhile, and its seconds."""
    peak, done = anonymous(), threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(period):
            peak = max(peak, anonymous())

    watcher = threading.Thread(target=watch)
    start = time.perf_counter()
    watcher.start()
    try:
        result = work()
    finally:
        done.set()
        watcher.join()
    return result, max(peak, anonymous()), time.perf_counter() - start


def measure(
    checkpoint: str, precision: str, memory: Memory, window: tuple[int, int], steps: int
) -> Iterator[dict[str, Any]]:
    """
    Load, then take steps; what was measured, after each.

    Raises:
        InputError: it does not fit.
    """
    files = sum(path.stat().st_size for path in Path(checkpoint).glob("*.safetensors"))
    navigator, peak, seconds = with_peak(
        lambda: Navigator.from_pretrained(
            checkpoint,
            precision=precision,
            window=window,
            memory=memory,
            decoding="constrained",
            allow_untrained_memory=True,
        )
    )
    assert navigator.fit is not None
    yield {
        "precision": navigator.fit.use.precision,
        "threads": torch.get_num_threads(),
        "load_seconds": seconds,
        "load_peak_bytes": peak,
        "of_files": peak / files,
        "counted_bytes": navigator.fit.need.total,
    }
    navigator.reset(INSTRUCTION)
    pictures = np.random.default_rng(0).integers(0, 256, (steps, 480, 640, 3), dtype=np.uint8)
    for picture in pictures:
        decision, peak, _ = with_peak(lambda picture=picture: navigator.step(picture))
        yield {"step_seconds": decision.timings["total"], "step_peak_bytes": peak}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", help="its folder")
    parser.add_argument("--precision", default="auto", help="bfloat16, int8, int4 or auto (auto)")
    parser.add_argument("--memory", choices=("released", "dual"), default="dual", help="(dual)")
    parser.add_argument("--window", type=int, nargs=2, default=(1, 1), metavar=("I", "W"))
    parser.add_argument("--steps", type=int, default=3, help="(3)")
    args = parser.parse_args()
    try:
        for found in measure(**vars(args)):
            print(json.dumps(found), flush=True)
    except InputError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()

"""
Load a checkpoint of the published sizes and take a few steps: seconds, and the most anonymous
memory (that of files can be given back); for docs/performance.md.

  janusvln bench --config benchmarks/configs/full --memory dual --write DIR
      writes one with random weights, 18.5 GB
  python benchmarks/real_size.py DIR --precision int4

Prints one JSON object. "of_files" is the peak while loading over the size of the files, "counted"
what `janusvln_ros.policy.fit` says beforehand. What does not fit is refused.
"""

import argparse
import json
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from janusvln_ros.errors import InputError
from janusvln_ros.policy import Navigator, NavigatorOptions

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
    checkpoint: str, precision: str, window: tuple[int, int] = (1, 1), steps: int = 3
) -> dict[str, Any]:
    """
    Load, then take steps with both memories.

    Raises:
        InputError: it does not fit.
    """
    files = sum(path.stat().st_size for path in Path(checkpoint).glob("*.safetensors"))
    options = {"decoding": "constrained", "allow_untrained_memory": True}
    navigator, peak, seconds = with_peak(
        lambda: Navigator.from_pretrained(
            checkpoint, precision=precision, window=window, memory="dual", **options
        )
    )
    assert navigator.fit is not None
    result: dict[str, Any] = {
        "precision": precision,
        "files_bytes": files,
        "load_seconds": seconds,
        "load_peak_bytes": peak,
        "of_files": peak / files,
        "counted_bytes": navigator.fit.need.total,
        "threads": torch.get_num_threads(),
    }
    model, tokenizer = navigator.model, navigator.tokenizer
    del navigator
    rng = np.random.default_rng(0)
    for memory in ("dual", "released"):
        driver = Navigator(model, tokenizer, NavigatorOptions(memory, **options))  # type: ignore[arg-type]
        _, peak, seconds = with_peak(driver.reserve)
        result[memory] = {"reserve_seconds": seconds, "reserve_peak_bytes": peak}
        driver.reset(INSTRUCTION)
        pictures = rng.integers(0, 256, (steps, 480, 640, 3), dtype=np.uint8)
        taken = [driver.step(picture).timings["total"] for picture in pictures]
        result[memory] |= {"step_seconds": taken, "after_bytes": anonymous()}
        del driver
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", help="its folder")
    parser.add_argument("--precision", default="auto", help="bfloat16, int8, int4 or auto (auto)")
    parser.add_argument("--window", type=int, nargs=2, default=(1, 1), metavar=("I", "W"))
    parser.add_argument("--steps", type=int, default=3, help="of each memory (3)")
    args = parser.parse_args()
    try:
        print(json.dumps(measure(args.checkpoint, args.precision, args.window, args.steps)))
    except InputError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()

"""The hunt's command: starts workers, one after the other, and tells what they found."""

import argparse
import json
import queue
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

SILENCE_S = 120.0
"""A worker that takes so long hangs on the case that it wrote down."""


class Report:
    """What was found so far: ``cases`` by family, ``faults`` by family and kind."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.cases: Counter[str] = Counter()
        self.faults: dict[tuple[str, str], dict[str, Any]] = {}

    def add(self, line: dict[str, Any]) -> None:
        """Take a line of a worker."""
        self.cases[line["family"]] += line["cases"]
        if fault := line.get("fault"):
            self.fault(line["family"], fault)

    def fault(self, family: str, fault: dict[str, Any]) -> None:
        """Keep a fault that is new, as a file that may become a test's."""
        if (family, fault["kind"]) in self.faults:
            return
        self.faults[family, fault["kind"]] = fault
        name = f"{family}-{len(self.faults):03d}.json"
        kept = {"family": family, "kind": fault["kind"], "told": fault["told"]}
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / name).write_text(json.dumps({**kept, "case": fault["case"]}) + "\n")
        print(f"FAULT {family}: {fault['kind']}: {fault['told']} ({self.out / name})", flush=True)


def run_worker(report: Report, seed: int, seconds: float, chosen: list[str]) -> None:
    """Let one worker hunt until its time is up, or until a case ends it."""
    report.out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "hunt.worker", str(report.out), str(seed), str(seconds)]
    words = (report.out / "worker.log").open("w")
    worker = subprocess.Popen([*command, *chosen], stdout=subprocess.PIPE, stderr=words, text=True)
    words.close()
    lines: queue.Queue[str | None] = queue.Queue()

    def listen() -> None:
        for line in worker.stdout or ():
            lines.put(line)
        lines.put(None)

    threading.Thread(target=listen, daemon=True).start()
    how, pending = "", report.out / "pending.json"
    began = time.time()
    while True:
        try:
            line = lines.get(timeout=5.0)
        except queue.Empty:
            begun = pending.stat().st_mtime if pending.is_file() else began
            if time.time() - begun < SILENCE_S:
                continue
            worker.kill()
            how = "hang"
            break
        if line is None:
            break
        report.add(json.loads(line))
    code = worker.wait()
    if code and not pending.is_file():
        raise SystemExit(f"the hunt cannot begin: see {report.out / 'worker.log'}")
    if code or how:
        case = json.loads(pending.read_text())
        told = how or f"the process ended with {code}"
        report.fault(case["family"], {"kind": told, "told": told, "case": case["case"]})
    pending.unlink(missing_ok=True)


def main() -> int:
    """Hunt; 1 where anything was found."""
    parser = argparse.ArgumentParser(prog="python -m hunt", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/hunt"), help="for found cases")
    parser.add_argument("family", nargs="*", help="of hunt/; none: all")
    args = parser.parse_args()
    report, until, life = Report(args.out), time.monotonic() + 60 * args.minutes, 0
    while (left := until - time.monotonic()) > 0:
        run_worker(report, args.seed * 1000 + life, left, args.family)
        life += 1
    for name, count in sorted(report.cases.items()):
        print(f"{count:8} {name}")
    print(f"{sum(report.cases.values())} cases, {len(report.faults)} faults")
    return 1 if report.faults or not report.cases else 0


if __name__ == "__main__":
    sys.exit(main())

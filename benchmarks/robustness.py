"""
What an agent bears: success against camera height, tilt, field of view, blur, brightness, frame
drop and heading error, each changed alone.

Unattended and resumable; every cell is 'janusvln evaluate' in a process of its own, on the same
episodes, so that differences are paired.

    python benchmarks/robustness.py policy --checkpoint runs/tiny/stream/checkpoint --episodes 200
    python benchmarks/robustness.py expert --quick --episodes 4

Writes OUT/table.md (differences to the plain camera with 95 % bootstrap intervals), table.json
and plot.png. --quick measures only the ends of every factor.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from janusvln_ros.evaluation.intervals import bootstrap, wilson
from janusvln_ros.files import atomic_path, atomic_write


@dataclass(frozen=True)
class Factor:
    """
    One thing that is changed: its name with its unit, its setting, its values, and the one that
    changes nothing.
    """

    name: str
    key: str
    values: tuple[float, ...]
    plain: float


FACTORS = (
    Factor("camera height, m", "env.camera_height", (0.3, 0.6, 0.9, 1.25, 1.5), 1.25),
    Factor("tilt, degrees down", "env.tilt", (-15.0, -10.0, -5.0, 0.0, 5.0, 10.0, 15.0), 0.0),
    Factor("field of view, degrees", "env.hfov", (60.0, 70.0, 79.0, 90.0, 100.0), 79.0),
    Factor("blur, share of the width", "perturb.blur", (0.0, 0.003, 0.006, 0.012, 0.024), 0.0),
    Factor("brightness, factor", "perturb.brightness", (0.5, 0.75, 1.0, 1.25, 1.5), 1.0),
    Factor("frame drop, probability", "perturb.frame_drop", (0.0, 0.1, 0.2, 0.4), 0.0),
    Factor("heading error, degrees", "env.turn_error", (0.0, 2.0, 4.0, 8.0), 0.0),
)

Results = Mapping[tuple[str, str], Mapping[str, Any]]
"""Result lines by scene and episode."""


def evaluate(args: argparse.Namespace, out: Path, change: str | None) -> Results:
    """Run one cell, or go on with it, and return its results."""
    words = ["evaluate", args.agent, *([args.checkpoint] if args.checkpoint else [])]
    words += ["--data", str(args.data), "--split", args.split, "--out", str(out)]
    words += ["--episodes", str(args.episodes), "--workers", str(args.workers), "--json"]
    for setting in [*args.set, *([change] if change else [])]:
        words += ["--set", setting]
    if not (out / "summary.json").is_file():
        command = [sys.executable, "-m", "janusvln_ros.cli.main", *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    return {(line["scene_id"], str(line["episode_id"])): line for line in lines}


def compare(plain: Results, changed: Results) -> dict[str, Any]:
    """Rates of success at both distances, and the paired differences to the plain camera."""
    row: dict[str, Any] = {"episodes": len(changed)}
    for name in ("success", "success_1m"):
        now = {key: float(bool(line.get(name))) for key, line in changed.items()}
        moved = [value - float(bool(plain[key].get(name))) for key, value in now.items()]
        row[name] = sum(now.values()) / len(now)
        row[f"{name}_ci95"] = wilson(int(sum(now.values())), len(now))
        row[f"{name}_change"] = sum(moved) / len(moved)
        row[f"{name}_change_ci95"] = bootstrap(moved)
    return row


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown."""
    head = "| factor | value | success 1 m | change (95 %) | success 3 m | change (95 %) |"
    lines = [head, "|---|---|---|---|---|---|"]
    for row in rows:
        cells = [row["factor"], f"{row['value']:g}"]
        for name in ("success_1m", "success"):
            change, interval = row[f"{name}_change"], row[f"{name}_change_ci95"]
            span = f" ({interval[0]:+.2f} to {interval[1]:+.2f})" if interval else ""
            cells += [f"{row[name]:.2f}", f"{change:+.2f}{span}" if row["changed"] else ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def plot(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """One small plot for every factor: success at 1 m and 3 m against its value."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 4, figsize=(12, 5.4), sharey=True, layout="constrained")
    for factor, axis in zip(FACTORS, axes.flat):
        mine = [row for row in rows if row["factor"] == factor.name]
        values = [row["value"] for row in mine]
        for name, label in (("success", "3 m"), ("success_1m", "1 m")):
            rates = [row[name] for row in mine]
            spans = [row[f"{name}_ci95"] for row in mine]
            sides = [[r - low for r, (low, _) in zip(rates, spans)]]
            sides.append([high - r for r, (_, high) in zip(rates, spans)])
            axis.errorbar(values, rates, yerr=sides, marker="o", capsize=3, label=label)
        axis.axvline(factor.plain, color="grey", linestyle=":", linewidth=1)
        axis.set(xlabel=factor.name, ylim=(0, 1.03))
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(FACTORS) :]:
        axis.axis("off")
    for axis in axes[:, 0]:
        axis.set_ylabel("success")
    axes[0, 0].legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
    pyplot.close(figure)


def main() -> None:
    """Run the sweep, write table and plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("agent", choices=("policy", "expert"), nargs="?", default="policy")
    parser.add_argument("--checkpoint", help="of the policy (default: the shipped one)")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--split", default="val_unseen")
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="only the ends of every factor")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--out", type=Path, default=Path("runs/robustness"))
    args = parser.parse_args()
    plain = evaluate(args, args.out / "plain", None)
    rows: list[dict[str, Any]] = []
    for factor in FACTORS:
        ends = {factor.values[0], factor.plain, factor.values[-1]}
        for value in factor.values:
            if args.quick and value not in ends:
                continue
            changed = value != factor.plain
            name = f"{factor.key.partition('.')[2]}_{value:g}"
            cell = evaluate(args, args.out / name, f"{factor.key}={value}") if changed else plain
            about = {"factor": factor.name, "value": value, "changed": changed}
            rows.append(about | compare(plain, cell))
            print(table(rows[-1:]).splitlines()[-1], flush=True)
    atomic_write(args.out / "table.json", json.dumps(rows, indent=1) + "\n")
    atomic_write(args.out / "table.md", table(rows))
    plot(rows, args.out / "plot.png")
    print(f"table and plot: {args.out}/table.md, plot.png")


if __name__ == "__main__":
    main()

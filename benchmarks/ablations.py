"""
The paper's table 3 at small size: what each memory, the text and DAgger are worth.

Unattended and resumable; every cell is trained on the same budget.

    python benchmarks/ablations.py --start runs/tiny/base/checkpoint --data A.jsonl,B.jsonl
    --dagger-data D.jsonl --steps 200 --episodes 200 --seeds 1

Each variant is trained by 'janusvln train tiny' with the overrides below, from --start (without
it: from random weights and --encoders), and judged by 'janusvln evaluate' on houses val_unseen and
on val_memory, the routes that need memory. "Knocked out" rows are the full one with a part taken
away after training; with --steps 0 nothing is trained, and they show what --start itself lives by.
Every command is a process of its own; what is done is skipped when the script is started again.
The table goes to <out>/table.md, with 95 % intervals of all episodes of all seeds together.
'executed' keeps actions in memory; the navigator refuses to drive such a checkpoint, so its row
has only the share of right actions on held-out expert trajectories.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from janusvln_ros.evaluation.intervals import wilson


@dataclass(frozen=True)
class Variant:
    """
    One row: how it is trained (overrides), which data, what the agent is told; ``trained_as``:
    whose checkpoint is used if it is not trained itself, and ``changes``: what of that
    checkpoint's config.json is changed.
    """

    name: str
    overrides: tuple[str, ...] = ()
    dagger: bool = True
    instructions: str = "normal"
    trained_as: str | None = None
    changes: tuple[tuple[str, float], ...] = ()
    drives: bool = True


VARIANTS = (
    Variant("full"),
    Variant("without spatial memory", ("lam=0.0",)),
    Variant("without semantic memory", ("semantic_memory=false",)),
    Variant("without both", ("lam=0.0", "semantic_memory=false")),
    Variant("text removed", instructions="removed", trained_as="full"),
    Variant("text swapped", instructions="swapped", trained_as="full"),
    Variant("cloning without DAgger", dagger=False),
    Variant("actions kept in memory", ("action_memory=executed",), drives=False),
    Variant("knocked out: geometry", trained_as="full", changes=(("lam", 0.0),)),
    Variant(
        "knocked out: semantic memory", trained_as="full", changes=(("semantic_memory", False),)
    ),
    Variant(
        "knocked out: both memories",
        trained_as="full",
        changes=(("initial_frames", 0), ("window_frames", 0)),
    ),
    Variant(
        "knocked out: all but the last 8 frames",
        trained_as="full",
        changes=(("initial_frames", 0), ("window_frames", 8)),
    ),
    Variant("knocked out: initial frames", trained_as="full", changes=(("initial_frames", 0),)),
)
LENGTHS = ((0, 40), (40, 57), (57, 10**9))
"""Groups of episodes by the number of the expert's steps; beyond 57 the window forgets."""


def folder_of(out: Path, variant: Variant, seed: int) -> Path:
    """Where a variant's checkpoint lies."""
    return out / (variant.trained_as or variant.name).replace(" ", "-") / f"seed{seed}"


def run(arguments: Sequence[str], processes: int = 1) -> None:
    """Run ``janusvln`` with ``arguments``; its output goes through."""
    distributed = (
        ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
        if processes > 1
        else []
    )
    subprocess.run(
        [sys.executable, *distributed, "-m", "janusvln_ros.cli.main", *arguments], check=True
    )


def train(args: argparse.Namespace, variant: Variant, seed: int) -> None:
    """Train one variant with one seed, unless it is there or nothing is to be trained."""
    folder = folder_of(args.out, variant, seed)
    if not args.steps or (folder / "result.json").is_file():
        return
    data = args.data + (args.dagger_data if variant.dagger else [])
    common = [
        f"data=[{','.join(data)}]",
        f"eval_data=[{','.join(args.eval_data)}]",
        f"max_steps={args.steps}",
        f"seed={seed}",
        f"output={folder}",
    ]
    if args.start:
        common += [f"model={args.start}", "encoders="]
    elif args.encoders:
        common.append(f"encoders={args.encoders}")
    run(["train", "tiny", "--set", *common, *args.set, *variant.overrides], args.workers)


def checkpoint_of(args: argparse.Namespace, variant: Variant, seed: int) -> Path:
    """
    The checkpoint of a variant; a copy with another config.json where the variant changes it.
    """
    original = (
        folder_of(args.out, variant, seed) / "checkpoint" if args.steps else Path(args.start)
    )
    if not variant.changes:
        return original
    folder = (
        args.out
        / "knocked_out"
        / f"{variant.name.partition(': ')[2].replace(' ', '-')}-seed{seed}"
    )
    shutil.copytree(original, folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    for name, value in variant.changes:
        # semantic_memory is in no older file
        (config if name in config else config["navigation"])[name] = value
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    return folder


def evaluate(
    args: argparse.Namespace, variant: Variant, seed: int, split: str, episodes: int
) -> list[dict[str, Any]]:
    """Result lines of one variant on one split, driven now or before."""
    checkpoint = checkpoint_of(args, variant, seed)
    out = (
        args.out
        / "evaluation"
        / f"{variant.name.replace(' ', '-').replace(':', '')}-seed{seed}-{split}"
    )
    if not (out / "summary.json").is_file():
        more = [
            "--split",
            split,
            "--episodes",
            str(episodes),
            "--instructions",
            variant.instructions,
            "--out",
            str(out),
            "--workers",
            str(args.workers),
        ]
        run(["evaluate", "policy", str(checkpoint), "--data", str(args.houses), *more])
    return [
        line
        for line in map(json.loads, (out / "results.jsonl").read_text().splitlines())
        if "episode_id" in line
    ]


def share(hits: int, n: int) -> str:
    """A share with its 95 % Wilson interval, in per cent."""
    if not n:
        return "-"
    low, high = wilson(hits, n)
    return f"{100 * hits / n:.0f} [{100 * low:.0f}, {100 * high:.0f}]"


def row(args: argparse.Namespace, variant: Variant) -> str:
    """One line of the table."""
    accuracy = []
    for seed in range(args.seeds if args.steps and not variant.trained_as else 0):
        evaluation = (
            json.loads((folder_of(args.out, variant, seed) / "result.json").read_text()).get(
                "evaluation"
            )
            or {}
        )
        accuracy.append(evaluation.get("eval_accuracy"))
    known = [a for a in accuracy if a is not None]
    cells = [f"{100 * sum(known) / len(known):.1f}" if known else "-"]
    if variant.drives:
        lines = [
            line
            for seed in range(args.seeds)
            for line in evaluate(args, variant, seed, "val_unseen", args.episodes)
        ]
        memory = [
            line
            for seed in range(args.seeds)
            for line in evaluate(args, variant, seed, "val_memory", args.memory_episodes)
        ]
        near = [line["success_1m"] for line in lines]
        cells += [
            share(int(sum(near)), len(near)),
            share(int(sum(line["success"] for line in lines)), len(lines)),
        ]
        for low, high in LENGTHS:
            group = [line["success_1m"] for line in lines if low <= line["reference_steps"] < high]
            cells.append(share(int(sum(group)), len(group)))
        cells.append(share(int(sum(line["success_1m"] for line in memory)), len(memory)))
    else:
        cells += ["-"] * (3 + len(LENGTHS))
    return f"| {variant.name} | " + " | ".join(cells) + " |"


def paths(text: str) -> list[str]:
    """``[a,b]`` or ``a,b`` -> its paths."""
    return [part.strip() for part in text.strip("[] ").split(",") if part.strip()]


def main() -> None:
    """Train and judge every variant, then write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=paths, required=True, help="expert sets")
    parser.add_argument(
        "--dagger-data",
        type=paths,
        default=[],
        help="DAgger sets, which 'cloning without DAgger' leaves out",
    )
    parser.add_argument(
        "--eval-data",
        type=paths,
        default=[],
        help="held-out expert sets, for the share of right actions",
    )
    parser.add_argument(
        "--start",
        help="checkpoint from which every variant is trained on (default: random weights)",
    )
    parser.add_argument(
        "--encoders",
        help="without --start: checkpoint of the encoders (default: as the recipe says)",
    )
    parser.add_argument(
        "--set",
        nargs="*",
        default=[],
        metavar="FIELD=VALUE",
        help="further fields of the recipe, for every variant",
    )
    parser.add_argument(
        "--houses",
        type=Path,
        default=Path("data"),
        help="data folder of the houses (default: %(default)s)",
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=800,
        help="optimizer steps of each variant; 0: judge --start (default: %(default)s)",
    )
    parser.add_argument(
        "--episodes",
        type=int,
        default=300,
        help="episodes of each evaluation (default: %(default)s)",
    )
    parser.add_argument(
        "--memory-episodes",
        type=int,
        default=100,
        help="episodes of each evaluation on val_memory (default: %(default)s)",
    )
    parser.add_argument(
        "--seeds", type=int, default=3, help="seeds of each variant (default: %(default)s)"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=2,
        help="processes of a training and of an evaluation (default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"))
    names = [variant.name for variant in VARIANTS]
    parser.add_argument(
        "--variants",
        nargs="*",
        choices=names,
        default=names,
        metavar="NAME",
        help=f"rows, of: {'; '.join(names)} (default: all)",
    )
    args = parser.parse_args()
    if not args.steps and (not args.start or args.seeds > 1):
        parser.error("--steps 0 judges --start as it is: give --start, and --seeds 1")
    variants = [
        v
        for v in VARIANTS
        if v.name in args.variants and (args.steps or v.trained_as or v.name == "full")
    ]
    trained = {variant.trained_as or variant.name for variant in variants}
    for seed in range(args.seeds):
        for variant in VARIANTS:
            if variant.name in trained:
                train(args, variant, seed)
    groups = [
        f"1 m, {low} to {high - 1} steps" if high < 10**6 else f"1 m, {low} steps and more"
        for low, high in LENGTHS
    ]
    head = [
        "variant",
        "right actions, %",
        "success at 1 m, %",
        "success at 3 m, %",
        *groups,
        "1 m, val_memory",
    ]
    table = [
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *(row(args, variant) for variant in variants),
    ]
    (args.out / "table.md").write_text("\n".join(table) + "\n")
    print("\n".join(table))


if __name__ == "__main__":
    main()

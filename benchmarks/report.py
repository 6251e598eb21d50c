"""
What the benchmarks write: tables of docs/performance.md, JSON, and the state of the card beside
the figures.
"""

import argparse
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from janusvln_ros.files import atomic_write

DOCS = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
CARD = ("clocks.sm", "clocks.mem", "temperature.gpu", "power.draw")
"""What nvidia-smi is asked for: MHz, MHz, degrees Celsius, watts."""


def device_arguments(
    parser: argparse.ArgumentParser, rehearsal: dict[str, object]
) -> argparse.Namespace | None:
    """
    What the command line says to a script for a GPU, with the options that all of them have:
    ``--dry`` sets ``rehearsal``'s values, on the CPU, and leaves the docs alone. None, and a word
    of it, where there is no GPU.
    """
    parser.add_argument("--device", default="cuda", help="cuda or cuda:N")
    parser.add_argument("--json", type=Path, help="also write all figures to this file")
    parser.add_argument("--no-docs", action="store_true", help="print only")
    parser.add_argument("--dry", action="store_true", help="rehearse on the CPU, docs untouched")
    args = parser.parse_args()
    if args.dry:
        vars(args).update(rehearsal, device="cpu", no_docs=True)
    elif not torch.cuda.is_available():
        print("no GPU: nothing measured, docs left as they are")
        return None
    return args


def put_table(name: str, text: str, page: Path = DOCS) -> None:
    """
    Replace what lies between the marks of script ``name`` in a page of the docs.

    Raises:
        ValueError: the page has no such marks.
    """
    start, end = f"<!-- {name}: made by benchmarks/{name}.py -->", f"<!-- /{name} -->"
    found, count = re.subn(
        re.escape(start) + ".*?" + re.escape(end),
        lambda _: f"{start}\n{text}\n{end}",
        page.read_text(),
        flags=re.DOTALL,
    )
    if not count:
        raise ValueError(f"{page} has no place for the table of {name}: write {start} and {end}")
    atomic_write(page, found)


def write_json(path: Path | None, result: Any) -> None:
    """Write the figures; nothing without a path."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, json.dumps(result, indent=1) + "\n")


def rows(header: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    """A table in Markdown."""
    marks = ["---"] * len(header)
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in (header, marks, *lines))


def card(device: str) -> dict[str, float]:
    """
    Clocks, temperature and power of the GPU at this moment, by nvidia-smi's names; empty on a CPU
    and where it does not say.
    """
    if not device.startswith("cuda") or shutil.which("nvidia-smi") is None:
        return {}
    index = torch.device(device).index or 0
    done = subprocess.run(
        ["nvidia-smi", f"--id={index}", f"--query-gpu={','.join(CARD)}",
         "--format=csv,noheader,nounits"],
        capture_output=True,
        text=True,
    )  # fmt: skip
    numbers = re.findall(r"[\d.]+", done.stdout) if done.returncode == 0 else []
    return dict(zip(CARD, map(float, numbers))) if len(numbers) == len(CARD) else {}


def card_in_words(state: dict[str, float]) -> str:
    """The state of a card in a cell of a table."""
    if not state:
        return ""
    return (
        f"{state['clocks.sm']:.0f} MHz, {state['temperature.gpu']:.0f} °C, "
        f"{state['power.draw']:.0f} W"
    )


def where(device: str) -> str:
    """The machine and its torch, in words."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"
    return f"{name}, torch {torch.__version__}"

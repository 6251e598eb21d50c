"""
Pieces of a long drive, kept so that it goes on where it stopped, and the report on all of them.
No ROS import.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from janusvln_ros.documents import read_object
from janusvln_ros.errors import require
from janusvln_ros.files import atomic_write
from janusvln_ros.graph.soak.watch import drift
from janusvln_ros.protocol.health import percentile

Piece = dict[str, Any]
"""A `Record` of a drive as JSON has it."""


def kept_pieces(folder: Path) -> list[Piece]:
    """
    The pieces that a folder holds, in order.

    Raises:
        InputError: one of them is no piece of a drive.
    """
    pieces = []
    for path in sorted(folder.glob("piece-*.json")):
        piece = read_object(path)
        require(
            isinstance(piece.get("seconds"), int | float) and "faults" in piece,
            f"{path} is no piece of a soak: remove it, or give another folder with --out",
        )
        pieces.append(piece)
    return pieces


def keep_piece(folder: Path, number: int, piece: Piece) -> None:
    """Write a piece, whole or not at all; one that grows is written again and again."""
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / f"piece-{number:03d}.json", json.dumps(piece) + "\n")


def report(pieces: Sequence[Piece]) -> dict[str, Any]:
    """
    The figures of all pieces together (sizes in bytes, times in seconds): sums of what is counted,
    the worst piece of what is measured.
    """

    def total(name: str) -> float:
        return sum(piece[name] for piece in pieces)

    def counted(name: str) -> dict[str, int]:
        sums: Counter[str] = Counter()
        for piece in pieces:
            sums.update(piece[name])
        return dict(sorted(sums.items()))

    def worst(name: str) -> dict[str, int]:
        names = {key for piece in pieces for key in piece[name]}
        return {key: max(piece[name].get(key, 0) for piece in pieces) for key in sorted(names)}

    late = {
        name: [value for piece in pieces for value in piece["late"].get(name, [])]
        for name in sorted({key for piece in pieces for key in piece["late"]})
    }
    unsafe = [sentence for piece in pieces for sentence in piece["unsafe"]]
    faults = counted("faults")
    return {
        "hours": round(total("seconds") / 3600, 4),
        "pieces": len(pieces),
        "episodes": int(total("episodes")),
        "decisions": sum(len(piece["totals"]) for piece in pieces),
        "faults": sum(faults.values()),
        "unsafe_moments": len(unsafe),
        "worst_step": [max((p["worst_step"][k] for p in pieces), default=0.0) for k in (0, 1)],
        "memory_growth_bytes": worst("growth"),
        "callback_late_max": {name: max(values, default=0.0) for name, values in late.items()},
        "callback_late_p99": {name: percentile(values, 99) for name, values in late.items()},
        "published_frames": int(total("published")),
        "dropped_frames": int(sum(max(0, p["published"] - p["received"]) for p in pieces)),
        "latency_drift": max((drift(piece["totals"]) for piece in pieces), default=0.0, key=abs),
        "faults_by_kind": faults,
        "outcomes": counted("outcomes"),
        "unsafe": unsafe,
        "error": next((piece["error"] for piece in reversed(pieces) if piece["error"]), ""),
    }

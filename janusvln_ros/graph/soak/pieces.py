"""
Pieces of a long drive, kept so that it goes on where it stopped, and the report on all of them.
No ROS import.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from janusvln_ros.documents import read_object
from janusvln_ros.errors import require
from janusvln_ros.files import atomic_write
from janusvln_ros.graph.soak.watch import drift
from janusvln_ros.protocol.health import percentile


@dataclass
class Record:
    """
    What a drive has come to so far: faults and endings by name, seconds of each decision, how many
    of the camera's frames were published and received, how often a node that had been killed
    was ``unreachable`` when it was started again, and what was unsafe. ``why`` and ``last``: the
    last fault of the episode before, and how it ended.
    """

    seconds: float = 0.0
    episodes: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    totals: list[float] = field(default_factory=list)
    published: int = 0
    received: int = 0
    unreachable: int = 0
    unsafe: list[str] = field(default_factory=list)
    worst_step: tuple[float, float] = (0.0, 0.0)
    growth: dict[str, int] = field(default_factory=dict)
    swing: dict[str, int] = field(default_factory=dict)
    late: dict[str, list[float]] = field(default_factory=dict)
    error: str = ""
    why: str = ""
    last: str = ""

    def ended(self, name: str, told: str = "") -> None:
        """A goal was answered by the code ``name`` and what was ``told`` beside it."""
        self.outcomes[name] += 1
        self.last = f"{name} ({told})" if told else name


def kept_pieces(folder: Path) -> list[Record]:
    """
    The pieces that a folder holds, in order.

    Raises:
        InputError: one of them is no piece of a drive.
    """
    pieces = []
    for path in sorted(folder.glob("piece-*.json")):
        piece = read_object(path)
        require(
            piece.keys() == vars(Record()).keys() and isinstance(piece["seconds"], int | float),
            f"{path} is no piece of a soak: remove it, or give another folder with --out",
        )
        pieces.append(Record(**piece))
    return pieces


def keep_piece(folder: Path, number: int, piece: Record) -> None:
    """Write a piece, whole or not at all; one that grows is written again and again."""
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / f"piece-{number:03d}.json", json.dumps(vars(piece)) + "\n")


def report(pieces: Sequence[Record]) -> dict[str, Any]:
    """
    The figures of all pieces together (sizes in bytes, times in seconds): sums of what is counted,
    the worst piece of what is measured.
    """

    faults, outcomes = Counter[str](), Counter[str]()
    growth: dict[str, int] = {}
    swing: dict[str, int] = {}
    late: dict[str, list[float]] = {}
    for piece in pieces:
        faults.update(piece.faults)
        outcomes.update(piece.outcomes)
        for worst, of_piece in ((growth, piece.growth), (swing, piece.swing)):
            for name, most in of_piece.items():
                worst[name] = max(most, worst.get(name, 0))
        for name, values in piece.late.items():
            late[name] = late.get(name, []) + values
    unsafe = [sentence for piece in pieces for sentence in piece.unsafe]
    return {
        "hours": round(sum(piece.seconds for piece in pieces) / 3600, 4),
        "pieces": len(pieces),
        "episodes": sum(piece.episodes for piece in pieces),
        "decisions": sum(len(piece.totals) for piece in pieces),
        "faults": sum(faults.values()),
        "unsafe_moments": len(unsafe),
        "worst_step": [
            max((piece.worst_step[k] for piece in pieces), default=0.0) for k in (0, 1)
        ],
        "memory_growth_bytes": growth,
        "memory_swing_bytes": swing,
        "callback_late_max": {name: max(values, default=0.0) for name, values in late.items()},
        "callback_late_p99": {name: percentile(values, 99) for name, values in late.items()},
        "published_frames": sum(piece.published for piece in pieces),
        "dropped_frames": sum(max(0, piece.published - piece.received) for piece in pieces),
        "unreachable_restarts": sum(piece.unreachable for piece in pieces),
        "latency_drift": max((drift(piece.totals) for piece in pieces), default=0.0, key=abs),
        "faults_by_kind": dict(sorted(faults.items())),
        "outcomes": dict(sorted(outcomes.items())),
        "unsafe": unsafe,
        "error": next((piece.error for piece in reversed(pieces) if piece.error), ""),
    }

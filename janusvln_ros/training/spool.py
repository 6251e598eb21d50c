"""
A folder of drives that wait to be trained on: one file each, whose name says all that choosing
among them takes.

Files appear whole, by renaming, and how often a drive was used stands in its name; so any number
of processes may put drives in and take them out, and a kill at any moment leaves nothing to mend.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from janusvln_ros.files import atomic_path

_NAME = re.compile(r"h(\d+)-d(\d+)-f(\d+)-u(\d+)\.safetensors")


class Telling(NamedTuple):
    """
    What a drive is told to be, and what is right then: ``texts`` that fit a route, at least one,
    and at the first t frames the expert's actions on it, int64 [t], and where it leads, float32
    [t, 2, 2] (`rollout.stream.ways`).
    """

    texts: tuple[str, ...]
    targets: np.ndarray
    ways: np.ndarray


@dataclass(frozen=True)
class StoredDrive:
    """
    A labelled drive after the frozen encoders.

    Attributes:
        home, number: of its home, and its own in it.
        vision, spatial: float16 [T, patches, width] each, as `dual.vision_features` and
            `dual.spatial_features`.
        targets, actions: int64 [T]: the expert's action at each frame, and the one that led to it
            (-1 at the first).
        ways: float32 [T, 2, 2], where its route leads from each frame.
        texts: instructions that fit its route, at least one.
        about: what else is known of it, JSON-ready.
        others: other routes from its start, up to where it leaves them.
    """

    home: int
    number: int
    vision: np.ndarray
    spatial: np.ndarray
    targets: np.ndarray
    actions: np.ndarray
    ways: np.ndarray
    texts: tuple[str, ...]
    about: Mapping[str, Any] = field(default_factory=dict)
    others: tuple[Telling, ...] = ()

    def of_pass(self, number: int) -> Telling:
        """
        What it is told to be in pass ``number``, from 0, with one text: its own route and another
        one in turn, each time told otherwise until all had their turn.
        """
        telling = Telling(self.texts, self.targets, self.ways)
        if self.others:
            number, other = divmod(number, 2)
            if other:
                number, which = divmod(number, len(self.others))
                telling = self.others[which]
        dice = np.random.default_rng([self.home, self.number])
        order = dice.permutation(len(telling.texts))
        return telling._replace(texts=(telling.texts[int(order[number % len(order)])],))


class Ticket(NamedTuple):
    """A drive in a spool by the name of its file: numbers, frames, and passes so far."""

    home: int
    number: int
    frames: int
    used: int

    @property
    def name(self) -> str:
        """Of its file."""
        return f"h{self.home:07d}-d{self.number:02d}-f{self.frames:03d}-u{self.used}.safetensors"


class Spool:
    """The drives of a folder, which is made where it is missing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, drive: StoredDrive) -> None:
        """Add a drive that was not used yet."""
        ticket = Ticket(drive.home, drive.number, len(drive.targets), 0)
        parts = ("vision", "spatial", "targets", "actions", "ways")
        arrays = {name: getattr(drive, name) for name in parts}
        for n, other in enumerate(drive.others):
            arrays |= {f"targets_{n}": other.targets, f"ways_{n}": other.ways}
        others = [list(other.texts) for other in drive.others]
        notes = {"texts": list(drive.texts), "about": dict(drive.about), "others": others}
        with atomic_path(self.folder / ticket.name) as temporary:
            save_file(arrays, temporary, metadata={"notes": json.dumps(notes)})

    def tickets(self) -> list[Ticket]:
        """All drives that are there, in the order of their homes."""
        found = (_NAME.fullmatch(entry.name) for entry in os.scandir(self.folder))
        return sorted(Ticket(*map(int, match.groups())) for match in found if match)

    def read(self, ticket: Ticket) -> StoredDrive:
        """A drive, which stays as it is."""
        with safe_open(self.folder / ticket.name, "numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            notes = json.loads(file.metadata()["notes"])
        others = tuple(
            Telling(tuple(texts), arrays.pop(f"targets_{n}"), arrays.pop(f"ways_{n}"))
            for n, texts in enumerate(notes["others"])
        )
        return StoredDrive(
            ticket.home,
            ticket.number,
            **arrays,
            texts=tuple(notes["texts"]),
            about=notes["about"],
            others=others,
        )

    def use(self, ticket: Ticket, most: int) -> StoredDrive:
        """
        A drive, used once more; it is deleted where it was used ``most`` times.

        It is counted before it is read: after a kill between the two a pass may be lost, but none
        is made too often.
        """
        after = ticket._replace(used=ticket.used + 1)
        (self.folder / ticket.name).rename(self.folder / after.name)
        drive = self.read(after)
        if after.used >= most:
            (self.folder / after.name).unlink()
        return drive

    def sweep(self, most: int) -> None:
        """Delete what a kill left: halves of files, and drives that were used ``most`` times."""
        for path in self.folder.glob(".*.tmp*"):
            path.unlink(missing_ok=True)
        for ticket in self.tickets():
            if ticket.used >= most:
                (self.folder / ticket.name).unlink()

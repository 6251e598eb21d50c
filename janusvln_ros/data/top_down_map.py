"""The floor from above: one map for simulators, pictures, reports and the graph."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from janusvln_ros.errors import InputError, require
from janusvln_ros.files import atomic_path

Span = tuple[int, int]


@dataclass(frozen=True)
class TopDownMap:
    """
    Where an agent can stand on one floor: ``navigable`` bool [rows along +z, columns along +x].

    Cell [r, c] covers x from ``origin[0] + c * resolution`` and z from ``origin[1] + r *
    resolution``; metres, world frame.
    """

    navigable: NDArray[np.bool_]
    origin: tuple[float, float]
    resolution: float

    def is_navigable(self, x: float, z: float) -> bool:
        """Whether an agent can stand at (x, z), metres; beyond the map it cannot."""
        row = int((z - self.origin[1]) // self.resolution)
        column = int((x - self.origin[0]) // self.resolution)
        rows, columns = self.navigable.shape
        return 0 <= row < rows and 0 <= column < columns and bool(self.navigable[row, column])

    def cells(self, low: Sequence[float], high: Sequence[float]) -> tuple[Span, Span]:
        """
        Return rows and columns [first, end) of the cells between two corners (x, z), metres; they
        may lie beyond the map.
        """
        left, top = (math.floor((p - o) / self.resolution) for p, o in zip(low, self.origin))
        right, bottom = (math.ceil((p - o) / self.resolution) for p, o in zip(high, self.origin))
        return (top, bottom), (left, right)

    def part(self, rows: Span, columns: Span) -> "TopDownMap":
        """Return the map of the cells [first, end) alone; beyond this map there is no floor."""
        height, width = self.navigable.shape
        row_R1, column_C = np.arange(*rows)[:, None], np.arange(*columns)
        known_RC = (row_R1 >= 0) & (row_R1 < height) & (column_C >= 0) & (column_C < width)
        inside_RC = self.navigable[row_R1.clip(0, height - 1), column_C.clip(0, width - 1)]
        x, z = self.origin
        corner = (x + columns[0] * self.resolution, z + rows[0] * self.resolution)
        return TopDownMap(known_RC & inside_RC, corner, self.resolution)

    def around(self, places: Sequence[Sequence[float]], margin: float = 0.5) -> "TopDownMap":
        """
        Return the part that can be walked on or holds one of ``places`` [x, y, z], with a
        ``margin`` in metres; keeps a picture from being mostly wall.
        """
        row, column = np.nonzero(self.navigable)
        x, z = [p[0] for p in places], [p[2] for p in places]
        if row.size:
            x += [self.origin[0] + c * self.resolution for c in (column.min(), column.max() + 1)]
            z += [self.origin[1] + r * self.resolution for r in (row.min(), row.max() + 1)]
        (top, bottom), (left, right) = self.cells(
            (min(x) - margin, min(z) - margin), (max(x) + margin, max(z) + margin)
        )
        return self.part((top, max(top + 1, bottom)), (left, max(left + 1, right)))

    def save(self, path: Path) -> None:
        """Write the map as ``.npz``, whole or not at all."""
        with atomic_path(path) as temporary:
            np.savez_compressed(
                temporary,
                navigable=self.navigable,
                origin=np.array(self.origin),
                resolution=np.array(self.resolution),
            )

    @classmethod
    def load(cls, path: Path) -> "TopDownMap":
        """
        Read what `save` wrote.

        Raises:
            InputError: the file is something else, or damaged.
        """
        try:
            with np.load(path) as content:
                x, z = content["origin"].tolist()
                resolution = float(content["resolution"])
                cells = content["navigable"]
        # what zip and numpy raise on damage is of many kinds
        except Exception as error:
            raise InputError(
                f"{path} is no map ({error}): delete it, and evaluate anew"
            ) from error
        require(
            cells.dtype == bool
            and cells.ndim == 2
            and all(map(math.isfinite, (x, z, resolution)))
            and resolution > 0,
            f"{path} is no map: delete it, and evaluate anew",
        )
        return cls(cells, (x, z), resolution)

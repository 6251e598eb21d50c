"""
Where an agent can stand: a walkable surface computed from the triangles of a scene, and distances
along it.

The surface follows the steps by which Recast (and so habitat-sim) makes a navigation mesh, up to
its outlines: triangles become voxels of 5 x 5 x 20 cm; a span's top is walkable if its triangle is
less than 45 degrees steep, there is head room, and no ledge higher than a climb of 20 cm beside
it; the rest is shrunk by the agent's radius, and regions below 1 m2 are dropped. Recast then fits
polygons (moving outlines by up to 6 cm); here what is left is cut into *cells* of 2.5 cm, for the
sake of distances, with links to their four neighbours, so several floors and the stairs between
them are no special case.

Frames: world, metres, y up. Cell (i, j) covers x from ``origin[0] + i * CELL_M`` and z from
``origin[2] + j * CELL_M``.
"""

import math
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from janusvln_ros.errors import require
from sim_bridge.scene import CACHED_SCENES, Scene

VOXEL_M = 0.05
CELL_HEIGHT_M = 0.2
CELLS_PER_VOXEL = 2
CELL_M = VOXEL_M / CELLS_PER_VOXEL
MAX_CLIMB_M = 0.2
MAX_SLOPE_DEG = 45.0
MIN_REGION_VOXELS = 400
"""Smaller regions are dropped (1 m2): tops of furniture, gaps inside walls."""

SNAP_EXTENT_M = (2.0, 4.0)
"""Half the sides (horizontal, vertical) of the box in which ``snap`` looks."""

MAX_CELLS = 40_000_000
INSIDE_M = 1e-5
"""Points on a border are put this far inside, so that they belong to their cell after rounding."""

STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))
"""The four neighbours (di, dj), in the order of ``NavMesh.links``."""

CLIMB = int(MAX_CLIMB_M / CELL_HEIGHT_M + 1e-6)
"""The highest climb in voxels."""

FAR = 1 << 20  # "no ceiling", in voxels


@dataclass(eq=False)
class NavMesh:
    """
    Walkable cells, N in all, and their links.

    ``ij`` int32 [N, 2]; ``height`` float64 [N] world y of the surface; ``level`` int32 [N] the
    same in voxels; ``links`` int32 [N, 4], -1 where there is no way; ``island`` int32 [N], islands
    ordered by falling size; ``column`` int32 [nx, nz, K], the cells over each (i, j) from low to
    high, -1 beyond.
    """

    origin: NDArray[np.float64]
    ij: NDArray[np.int32]
    height: NDArray[np.float64]
    level: NDArray[np.int32]
    links: NDArray[np.int32]
    island: NDArray[np.int32]
    column: NDArray[np.int32]
    fields: OrderedDict[tuple[float, ...], "DistanceField"] = field(default_factory=OrderedDict)
    grids: dict[int, "IslandGrid"] = field(default_factory=dict)

    def locate(self, p: ArrayLike, max_dy: float = 0.5) -> int:
        """
        The cell over or under ``p`` [3] within ``max_dy`` metres of it, the nearest of several; -1
        if there is none.
        """
        x, y, z = (float(v) for v in np.asarray(p, float))
        if not (math.isfinite(x) and math.isfinite(y) and math.isfinite(z)):
            return -1
        i, j = math.floor((x - self.origin[0]) / CELL_M), math.floor((z - self.origin[2]) / CELL_M)
        if not (0 <= i < self.column.shape[0] and 0 <= j < self.column.shape[1]):
            return -1
        best, found = max_dy, -1
        for n in self.column[i, j].ravel().tolist():
            if n >= 0 and abs(self.height[n] - y) <= best:
                best, found = abs(self.height[n] - y), n
        return found

    def locate_many(
        self, points_M3: NDArray[np.float64], max_dy: float = 0.5
    ) -> NDArray[np.int64]:
        """``locate`` for many points [M, 3]: cells [M], -1 where there is none."""
        ij = np.floor((points_M3[:, ::2] - self.origin[::2]) / CELL_M).astype(np.int64)
        inside = np.all((ij >= 0) & (ij < np.array(self.column.shape[:2])), axis=1)
        ij[~inside] = 0
        cells_MK = np.where(inside[:, None], self.column[ij[:, 0], ij[:, 1]], -1)
        dy_MK = np.where(cells_MK >= 0, np.abs(self.height[cells_MK] - points_M3[:, 1:2]), np.inf)
        best = dy_MK.argmin(axis=1)
        rows = np.arange(len(points_M3))
        return np.where(dy_MK[rows, best] <= max_dy, cells_MK[rows, best], -1)

    def clip(self, cell: int, x: float, z: float) -> tuple[float, float]:
        """The point of ``cell`` closest to (x, z)."""
        x0 = self.origin[0] + self.ij[cell, 0] * CELL_M
        z0 = self.origin[2] + self.ij[cell, 1] * CELL_M
        return (
            min(max(x, x0 + INSIDE_M), x0 + CELL_M - INSIDE_M),
            min(max(z, z0 + INSIDE_M), z0 + CELL_M - INSIDE_M),
        )

    def snap(self, p: ArrayLike) -> tuple[NDArray[np.float64], int] | None:
        """
        The point of the surface nearest to ``p`` [3] and its cell; None if there is none in the
        box ``SNAP_EXTENT_M``.

        As in Detour, a point straight above or below a surface counts as nearer by the climb.
        """
        p = np.asarray(p, float)
        if not np.isfinite(p).all():
            return None
        horizontal, vertical = SNAP_EXTENT_M
        # Nothing outside a window can be nearer than its half side: a small one decides most
        # cases.
        for half in (0.3, horizontal):
            lo = np.floor((p[::2] - half - self.origin[::2]) / CELL_M).astype(int).clip(0)
            hi = (np.floor((p[::2] + half - self.origin[::2]) / CELL_M).astype(int) + 1).clip(0)
            cells = self.column[lo[0] : hi[0], lo[1] : hi[1]].ravel()
            cells = cells[cells >= 0]
            dy = self.height[cells] - p[1]
            cells, dy = cells[np.abs(dy) <= vertical], dy[np.abs(dy) <= vertical]
            if len(cells) == 0:
                continue
            low_M2 = self.origin[::2] + self.ij[cells] * CELL_M
            nearest_M2 = np.clip(p[::2], low_M2 + INSIDE_M, low_M2 + CELL_M - INSIDE_M)
            sideways = ((nearest_M2 - p[::2]) ** 2).sum(axis=1)
            over = sideways <= (2 * INSIDE_M) ** 2
            distance = np.where(
                over, np.maximum(np.abs(dy) - MAX_CLIMB_M, 0) ** 2, sideways + dy**2
            )
            best = int(np.lexsort((np.abs(dy), distance))[0])
            if distance[best] <= half**2 or half == horizontal:
                x, z = p[::2] if over[best] else nearest_M2[best]
                return np.array([x, self.height[cells[best]], z]), int(cells[best])
        return None

    def place(self, p: ArrayLike) -> tuple[NDArray[np.float64], int] | None:
        """
        ``p`` itself on the surface if it is navigable, else the nearest point, with its cell; None
        if there is none.
        """
        cell = self.locate(p)
        if cell >= 0:
            x, _, z = np.asarray(p, float)
            return np.array([x, self.height[cell], z]), cell
        return self.snap(p)

    def field_to(self, goal: ArrayLike, reach: float = math.inf) -> "DistanceField | None":
        """
        The distance field of ``goal`` (snapped), to ``reach`` metres from it at least; the last 16
        are kept.

        None if the goal cannot be snapped.
        """
        key = tuple(np.asarray(goal, float).tolist())
        if key in self.fields and self.fields[key].reach >= reach:
            self.fields.move_to_end(key)
            return self.fields[key]
        placed = self.place(goal)
        if placed is None:
            return None
        if math.isfinite(reach):
            # doubled, so that one who strays from a goal does not have it marched at each step
            reach = 2.0 ** math.ceil(math.log2(max(reach, 1.0)))
        self.fields[key] = result = distance_field(self, *placed, reach)
        self.fields.move_to_end(key)
        if len(self.fields) > 16:
            self.fields.popitem(last=False)
        return result

    def distance(self, a: ArrayLike, b: ArrayLike) -> float:
        """
        Length of the shortest path from ``a`` to ``b`` (both snapped), metres; inf where there is
        none.
        """
        field_b, placed = self.field_to(b), self.place(a)
        return math.inf if field_b is None or placed is None else field_b.at_place(*placed)


@dataclass(eq=False)
class DistanceField:
    """
    Geodesic distances to ``goal`` (on the surface).

    ``values`` float32 [N] per cell, metres, inf on other islands and, beyond ``reach``, where
    nobody marched; ``near`` bool [N]: the cells around the goal, in straight reach. ``origin``,
    ``ij`` and ``links`` are the mesh's; the mesh itself holds its fields, and a ring of the two
    would outlive both until the garbage collector came.
    """

    origin: NDArray[np.float64]
    ij: NDArray[np.int32]
    links: NDArray[np.int32]
    goal: NDArray[np.float64]
    values: NDArray[np.float32]
    near: NDArray[np.bool_]
    reach: float

    def at(
        self, points_M3: NDArray[np.float64], cells_M: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """
        Distances [M] at points [M, 3] lying in cells [M]: bilinear between the centres of cells,
        leaving out those that are not linked.
        """
        offset_M2 = (points_M3[:, ::2] - self.origin[::2]) / CELL_M - self.ij[cells_M] - 0.5
        side_x = np.where(offset_M2[:, 0] >= 0, 0, 2)  # rows of STEPS
        side_z = np.where(offset_M2[:, 1] >= 0, 1, 3)
        wx, wz = np.abs(offset_M2).T
        beside_x, beside_z = self.links[cells_M, side_x], self.links[cells_M, side_z]
        across = np.where(
            beside_x >= 0,
            self.links[beside_x, side_z],
            np.where(beside_z >= 0, self.links[beside_z, side_x], -1),
        )
        corners_M4 = np.stack([cells_M, beside_x, beside_z, across], axis=1)
        weights_M4 = np.stack([(1 - wx) * (1 - wz), wx * (1 - wz), (1 - wx) * wz, wx * wz], axis=1)
        weights_M4[corners_M4 < 0] = 0
        values_M4 = np.where(weights_M4 > 0, self.values[corners_M4], 0)
        result = (values_M4 * weights_M4).sum(axis=1) / weights_M4.sum(axis=1)
        close = self.near[cells_M]
        result[close] = np.linalg.norm(points_M3[close] - self.goal, axis=1)
        return result

    def at_place(self, point: NDArray[np.float64], cell: int) -> float:
        """The distance at one point [3], lying in ``cell``."""
        return float(self.at(point[None], np.array([cell]))[0])


@dataclass(eq=False)
class IslandGrid:
    """
    One island as a regular grid to march on: in the plane if it is level, else in space.

    ``members`` int64 [M] cells; ``at``: the place of each in the grid, one array [M] per axis;
    ``blocked`` bool: the rest of the grid; ``spacing`` metres. In space each cell takes two
    voxels, one above the other: neighbouring steps of a stair then touch, floors a storey apart do
    not.
    """

    members: NDArray[np.int64]
    at: tuple[NDArray[np.int64], ...]
    blocked: NDArray[np.bool_]
    spacing: list[float]


def island_grid(mesh: NavMesh, number: int) -> IslandGrid:
    """The grid of island ``number``, made once."""
    if number not in mesh.grids:
        members = np.flatnonzero(mesh.island == number)
        ij, level = mesh.ij[members].astype(np.int64), mesh.level[members].astype(np.int64)
        ij -= ij.min(axis=0)
        level -= level.min()
        if level.max() == 0:
            at: tuple[NDArray[np.int64], ...] = (ij[:, 0], ij[:, 1])
            blocked = np.ones(tuple(ij.max(axis=0) + 1), bool)
        else:
            at = (ij[:, 0], ij[:, 1], level)
            blocked = np.ones((*(ij.max(axis=0) + 1), int(level.max()) + 2), bool)
            blocked[ij[:, 0], ij[:, 1], level + 1] = False
        blocked[at] = False
        mesh.grids[number] = IslandGrid(
            members, at, blocked, [CELL_M, CELL_M, CELL_HEIGHT_M][: len(at)]
        )
    return mesh.grids[number]


def distance_field(
    mesh: NavMesh, goal: NDArray[np.float64], cell: int, reach: float = math.inf
) -> DistanceField:
    """
    March outwards from ``goal`` [3], which lies in ``cell``: second-order fast marching over the
    goal's island, until every distance up to ``reach`` metres is known.
    """
    import skfmm

    # A small disc around the goal is exact, since marching is inexact where the front is a point.
    # Cells behind a wall do not belong to it.
    radius = 5 * CELL_M
    x0, _, z0 = mesh.origin.tolist()
    to_goal, queue = {cell: 0.0}, deque([cell])
    while queue:
        here = queue.popleft()
        i, j = mesh.ij[here].tolist()
        to_goal[here] = math.dist(
            (x0 + (i + 0.5) * CELL_M, z0 + (j + 0.5) * CELL_M), (goal[0], goal[2])
        )
        if to_goal[here] < radius:
            for n in mesh.links[here].tolist():
                if n >= 0 and n not in to_goal:
                    to_goal[n] = 0.0
                    queue.append(n)

    grid = island_grid(mesh, int(mesh.island[cell]))
    near = np.array(sorted(to_goal), np.int64)
    distances = np.array([to_goal[n] for n in near.tolist()])
    rows = np.searchsorted(grid.members, near)
    phi = np.ones(grid.blocked.shape)
    phi[tuple(axis[rows] for axis in grid.at)] = distances - radius
    # The front takes cells in the order of their distance, so that an early end changes none of
    # those that it has passed; two cells more, since a distance is read between cells. 0: no end.
    band = max(reach - radius, 0) + 2 * CELL_M if math.isfinite(reach) else 0.0
    marched = skfmm.distance(
        np.ma.MaskedArray(phi, grid.blocked), dx=grid.spacing, order=2, narrow=band
    )
    values = np.full(len(mesh.ij), np.inf, np.float32)
    values[grid.members] = np.ma.filled(marched, np.inf)[grid.at] + radius
    values[values > 1e9] = np.inf
    inside = (distances < radius) & (mesh.level[near] == mesh.level[cell])
    values[near[inside]] = distances[inside]
    exact = np.zeros(len(mesh.ij), bool)
    exact[near[inside]] = True
    return DistanceField(mesh.origin, mesh.ij, mesh.links, goal, values, exact, reach)


@lru_cache(maxsize=CACHED_SCENES)
def navmesh_of(scene: Scene, agent_height: float, agent_radius: float) -> NavMesh:
    """
    The walkable surface of ``scene`` for an agent of this size, metres; the last few are kept.

    Raises:
        InputError: the scene is too large, or nowhere in it can the agent stand.
    """
    mesh = build_navmesh(scene.positions, scene.triangles, agent_height, agent_radius)
    require(
        len(mesh.ij) != 0,
        f"the scene {scene.path} has no floor of 1 m2 for an agent {agent_height} "
        "m high: is its up axis really the one named by 'up'?",
    )
    return mesh


def build_navmesh(
    positions_V3: NDArray[np.float32],
    triangles_T3: NDArray[np.int32],
    agent_height: float,
    agent_radius: float,
) -> NavMesh:
    """
    The walkable surface of triangles [T, 3] over vertices [V, 3] (world frame, metres); see the
    top of this file for the rules.
    """
    low = positions_V3.min(axis=0).astype(np.float32)
    high = positions_V3.max(axis=0)
    nx, nz = (max(int((high[a] - low[a]) / VOXEL_M + 0.5), 1) for a in (0, 2))
    ny = math.ceil((high[1] - low[1]) / CELL_HEIGHT_M) + 1
    require(
        nx * nz * ny <= MAX_CELLS,
        f"the scene measures {np.round(high - low, 1).tolist()} m, too large for "
        "the walkable surface: is it in metres, and is 'up' right?",
    )
    height = math.ceil(agent_height / CELL_HEIGHT_M)
    radius = math.ceil(agent_radius / VOXEL_M - 1e-6)
    solid, walkable_top = _voxels(positions_V3, triangles_T3, low, (nx, ny, nz))
    spans, ceiling = _spans(solid, (nx, nz))
    walkable = walkable_top[spans.column, spans.bottom] & (spans.top - spans.bottom >= height)
    walkable &= ~_ledges(spans, walkable, ceiling[:, 0], height)
    keep = np.flatnonzero(walkable)
    kept = keep[_clearance(_link(keep, spans, height), radius) >= 2 * radius]

    links = _link(kept, spans, height)
    island = _islands(links)
    large = np.bincount(island)[island] >= MIN_REGION_VOXELS
    kept, links, island = _select(kept, links, island, large)
    ij = np.stack([spans.column[kept] // nz, spans.column[kept] % nz], axis=1)
    ij, links = _subdivide(ij, links)
    repeat, size = CELLS_PER_VOXEL**2, (nx * CELLS_PER_VOXEL, nz * CELLS_PER_VOXEL)
    level = np.repeat(spans.bottom[kept], repeat)
    return _assemble(low.astype(float), ij, level, links, np.repeat(island, repeat), size)


def _voxels(
    positions_V3: NDArray[np.float32],
    triangles_T3: NDArray[np.int32],
    low: NDArray[np.float32],
    shape: tuple[int, int, int],
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Solid voxels bool [columns, ny + 1], and the tops that walkable triangles made."""
    nx, ny, nz = shape
    change = np.zeros(nx * nz * (ny + 1), np.int32)
    walkable_top = np.zeros((nx * nz, ny + 1), bool)
    for column, bottom, top, walkable in _rasterise(positions_V3, triangles_T3, low, shape):
        np.add.at(change, column * (ny + 1) + bottom, 1)
        np.subtract.at(change, column * (ny + 1) + top, 1)
        walkable_top[column[walkable], top[walkable]] = True
    # a walkable triangle just below the top of its span counts for the span
    for _ in range(CLIMB):
        walkable_top[:, 1:] |= walkable_top[:, :-1]
    levels = change.reshape(nx * nz, ny + 1)
    return np.cumsum(levels, axis=1, out=levels) > 0, walkable_top


@dataclass(eq=False)
class _Spans:
    """
    Every top of solid with the room above it, S in all, in the order of their columns.

    ``column``, ``bottom`` (of the room) and ``top`` int [S], in voxels; ``first`` and ``count`` of
    the spans of each column; ``size`` of the grid of columns.
    """

    column: NDArray[np.int64]
    bottom: NDArray[np.int64]
    top: NDArray[np.int32]
    first: NDArray[np.int64]
    count: NDArray[np.int64]
    size: tuple[int, int]

    def beside(
        self, spans: NDArray[np.int64], step: tuple[int, int]
    ) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.int64]]]:
        """
        Yield for the first, second, ... span of the column next to each of ``spans`` in direction
        ``step`` whether there is one, and which (else one that does not matter).
        """
        column, inside = _beside(self.column[spans], step, self.size)
        for nth in range(int(self.count.max()) if len(self.count) else 0):
            there = inside & (nth < self.count[column])
            yield there, np.where(there, self.first[column] + nth, 0)


def _spans(solid: NDArray[np.bool_], size: tuple[int, int]) -> tuple[_Spans, NDArray[np.int32]]:
    """The spans of solid voxels [columns, ny + 1], and the lowest solid voxel from each on up."""
    is_top = np.zeros_like(solid)
    is_top[:, 1:] = solid[:, :-1] & ~solid[:, 1:]
    height = np.where(solid, np.arange(solid.shape[1], dtype=np.int32), np.int32(FAR))
    ceiling = np.minimum.accumulate(height[:, ::-1], axis=1)[:, ::-1]
    column, bottom = np.nonzero(is_top)
    count = np.bincount(column, minlength=len(solid))
    first = np.concatenate([[0], count.cumsum()[:-1]])
    return _Spans(column, bottom, ceiling[column, bottom], first, count, size), ceiling


def _assemble(
    low: NDArray[np.float64],
    ij: NDArray,
    level: NDArray,
    links: NDArray[np.int32],
    island: NDArray[np.int32],
    size: tuple[int, int],
) -> NavMesh:
    """
    The surface from its cells, sorted by column and height, with islands numbered by falling size.
    """
    order = np.lexsort((level, ij[:, 1], ij[:, 0]))
    place = np.full(len(ij) + 1, -1, np.int32)
    place[order] = np.arange(len(ij))
    ij, level, links, island = ij[order], level[order], place[links[order]], island[order]
    sizes = np.bincount(island, minlength=1)
    number = np.argsort(-sizes, kind="stable").argsort().astype(np.int32)
    starts = np.flatnonzero(np.concatenate([[True], (ij[1:] != ij[:-1]).any(axis=1)]))
    rank = np.arange(len(ij)) - np.repeat(starts, np.diff(np.append(starts, len(ij))))
    table = np.full((*size, rank.max(initial=0) + 1), -1, np.int32)
    table[ij[:, 0], ij[:, 1], rank] = np.arange(len(ij))
    return NavMesh(
        low,
        ij.astype(np.int32),
        low[1] + level * CELL_HEIGHT_M,
        level.astype(np.int32),
        links,
        number[island],
        table,
    )


def _select(
    ids: NDArray, links: NDArray[np.int32], island: NDArray[np.int32], keep: NDArray[np.bool_]
) -> tuple[NDArray, NDArray[np.int32], NDArray[np.int32]]:
    """What is left of cells, links and islands where ``keep``, links renumbered."""
    place = np.full(len(ids) + 1, -1, np.int32)
    place[:-1][keep] = np.arange(int(keep.sum()))
    return ids[keep], place[links[keep]], island[keep]


def _subdivide(ij: NDArray, links: NDArray[np.int32]) -> tuple[NDArray, NDArray[np.int32]]:
    """Position [N f^2, 2] and links of the cells within voxel tops [N, 2], f x f in each."""
    f = CELLS_PER_VOXEL
    within = np.indices((f, f)).reshape(2, -1).T
    beside = np.empty((len(ij), f * f, 4), np.int32)
    for side, step in enumerate(STEPS):
        moved = within + step
        same_voxel = ((moved >= 0) & (moved < f)).all(axis=1)
        voxel = np.where(same_voxel, np.arange(len(ij))[:, None], links[:, side : side + 1])
        beside[:, :, side] = np.where(
            voxel >= 0, voxel * f * f + (moved % f) @ np.array([f, 1]), -1
        )
    return (ij[:, None] * f + within).reshape(-1, 2), beside.reshape(-1, 4)


def _rasterise(  # type: ignore[no-untyped-def]
    positions_V3, triangles_T3, low, shape, pairs_at_once=1_000_000
):
    """
    Yield (column, bottom voxel, top voxel, walkable) of every triangle in every column that it
    touches, in portions.
    """
    nx, ny, nz = shape
    corners = positions_V3[triangles_T3].astype(np.float32)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normal, axis=1)
    walkable = normal[:, 1] > math.cos(math.radians(MAX_SLOPE_DEG)) * length
    # In units of voxels, in float32 as Recast computes: which side of a cell border a wall lies on
    # is then the same.
    scale = np.array(
        [1 / np.float32(VOXEL_M), 1 / np.float32(CELL_HEIGHT_M), 1 / np.float32(VOXEL_M)],
        np.float32,
    )
    corners = ((corners - low) * scale).astype(float)
    least, most = corners.min(axis=1), corners.max(axis=1)
    start = np.floor(least[:, ::2]).astype(np.int64).clip(0, [nx - 1, nz - 1])
    # A triangle that ends exactly on a border does not reach into the next cell.
    end = np.maximum(np.ceil(most[:, ::2]).astype(np.int64), start + 1).clip(1, [nx, nz])
    # Triangles within one layer of voxels (floors, ceilings, table tops) need no heights, only the
    # columns that they cover: the common case, and the cheap one.
    flat = (np.ceil(most[:, 1]) - np.floor(least[:, 1]) <= 1) & (
        np.abs(normal[:, 1]) > 0.1 * length
    )
    order = np.concatenate([np.flatnonzero(flat), np.flatnonzero(~flat)])
    corners, least, most, start, end, walkable, flat = (
        a[order] for a in (corners, least, most, start, end, walkable, flat)
    )
    size = end - start
    pairs = size.prod(axis=1)
    cumulative = pairs.cumsum()
    begin = 0
    while begin < len(corners):
        done = cumulative[begin - 1] if begin else 0
        stop = max(int(np.searchsorted(cumulative, done + pairs_at_once, side="right")), begin + 1)
        if flat[begin]:
            stop = min(stop, int(flat.sum()))
        chosen = np.arange(begin, stop)
        t = np.repeat(chosen, pairs[chosen])
        nth = np.arange(len(t)) - np.repeat(
            cumulative[chosen] - pairs[chosen] - done, pairs[chosen]
        )
        i, j = start[t, 0] + nth // size[t, 1], start[t, 1] + nth % size[t, 1]
        if flat[begin]:
            lowest, highest = least[t, 1], most[t, 1]
            hit = np.flatnonzero(_covers(corners, t, i, j))
        else:
            lowest, highest = _extent(corners[t], i, j)
            hit = np.flatnonzero(lowest <= highest)
        bottom = np.floor(lowest[hit]).astype(np.int64).clip(0, ny - 1)
        top = np.maximum(np.ceil(highest[hit]).astype(np.int64), bottom + 1).clip(1, ny)
        yield i[hit] * nz + j[hit], bottom, top, walkable[t[hit]]
        begin = stop


def _covers(corners_T33: NDArray, t_M: NDArray, i_M: NDArray, j_M: NDArray) -> NDArray[np.bool_]:
    """
    Whether triangle t, seen from above, meets the square [i, i+1] x [j, j+1] of its bounding box:
    no edge has the whole square on its outer side.
    """
    x, z = corners_T33[:, :, 0], corners_T33[:, :, 2]
    dx, dz = np.roll(x, -1, axis=1) - x, np.roll(z, -1, axis=1) - z
    turn = np.sign(dx[:, 0] * dz[:, 1] - dz[:, 0] * dx[:, 1])[:, None]
    a, b = -dz * turn, dx * turn  # a x + b z + c >= 0 inside
    # at the corner of the square that is farthest inside
    c = -(a * x + b * z) + np.maximum(a, 0) + np.maximum(b, 0)
    return np.logical_and.reduce(
        [a[t_M, edge] * i_M + b[t_M, edge] * j_M + c[t_M, edge] >= 0 for edge in range(3)]
    )


def _extent(corners_M33: NDArray, i_M: NDArray, j_M: NDArray) -> tuple[NDArray, NDArray]:
    """
    Lowest and highest y of each triangle within the column [i, i+1] x [j, j+1] (units of cells);
    lowest > highest where they do not meet.

    The extremes lie at corners of the intersection: on the triangle's edges clipped to the square,
    or over the square's corners.
    """
    lowest, highest = np.full(len(i_M), np.inf), np.full(len(i_M), -np.inf)
    small = 1e-9
    for a, b in ((0, 1), (1, 2), (2, 0)):
        p, d = corners_M33[:, a], corners_M33[:, b] - corners_M33[:, a]
        enter, leave = np.zeros(len(i_M)), np.ones(len(i_M))
        for axis, cell in ((0, i_M), (2, j_M)):
            moves = np.abs(d[:, axis]) > small
            slope = np.where(moves, d[:, axis], 1.0)
            to_low, to_high = (cell - p[:, axis]) / slope, (cell + 1 - p[:, axis]) / slope
            outside = ~moves & ((p[:, axis] < cell) | (p[:, axis] > cell + 1))
            enter = np.where(
                moves,
                np.maximum(enter, np.minimum(to_low, to_high)),
                np.where(outside, 2.0, enter),
            )
            leave = np.where(moves, np.minimum(leave, np.maximum(to_low, to_high)), leave)
        meets = enter <= leave
        for at in (enter, leave):
            y = p[:, 1] + at * d[:, 1]
            lowest = np.where(meets, np.minimum(lowest, y), lowest)
            highest = np.where(meets, np.maximum(highest, y), highest)
    p, u, v = (
        corners_M33[:, 0],
        corners_M33[:, 1] - corners_M33[:, 0],
        corners_M33[:, 2] - corners_M33[:, 0],
    )
    area = u[:, 0] * v[:, 2] - u[:, 2] * v[:, 0]
    faces_up = np.abs(area) > small
    inverse = 1 / np.where(faces_up, area, 1.0)
    for di, dj in ((0, 0), (0, 1), (1, 0), (1, 1)):
        x, z = i_M + di - p[:, 0], j_M + dj - p[:, 2]
        s, t = (x * v[:, 2] - z * v[:, 0]) * inverse, (u[:, 0] * z - u[:, 2] * x) * inverse
        inside = faces_up & (s >= 0) & (t >= 0) & (s + t <= 1)
        y = p[:, 1] + s * u[:, 1] + t * v[:, 1]
        lowest = np.where(inside, np.minimum(lowest, y), lowest)
        highest = np.where(inside, np.maximum(highest, y), highest)
    return lowest, highest


def _beside(
    column: NDArray, step: tuple[int, int], size: tuple[int, int]
) -> tuple[NDArray, NDArray]:
    """
    The neighbouring column of each column in direction ``step``, and whether it lies on the grid
    (else column 0).
    """
    i, j = column // size[1] + step[0], column % size[1] + step[1]
    inside = (i >= 0) & (i < size[0]) & (j >= 0) & (j < size[1])
    return np.where(inside, i * size[1] + j, 0), inside


def _ledges(
    spans: _Spans, walkable: NDArray[np.bool_], lowest: NDArray[np.int32], height: int
) -> NDArray[np.bool_]:
    """
    Which walkable spans are on the edge of a drop higher than a climb, or on a slope steeper than
    that from side to side; ``lowest``: the lowest solid voxel of each column.
    """
    chosen = np.flatnonzero(walkable)
    floor, roof = spans.bottom[chosen], spans.top[chosen]
    drop = np.full(len(chosen), FAR)
    least, most = floor.copy(), floor.copy()
    for step in STEPS:
        column, inside = _beside(spans.column[chosen], step, spans.size)
        room = np.minimum(roof, lowest[column]) - np.maximum(floor, -CLIMB)
        open_below = ~inside | (room > height)
        drop = np.where(open_below, np.minimum(drop, -CLIMB - floor), drop)
        for there, other in spans.beside(chosen, step):
            shared = np.minimum(roof, spans.top[other]) - np.maximum(floor, spans.bottom[other])
            fits = there & (shared > height)
            drop = np.where(fits, np.minimum(drop, spans.bottom[other] - floor), drop)
            level = fits & (np.abs(spans.bottom[other] - floor) <= CLIMB)
            least = np.where(level, np.minimum(least, spans.bottom[other]), least)
            most = np.where(level, np.maximum(most, spans.bottom[other]), most)
    result = np.zeros(len(walkable), bool)
    result[chosen] = (drop < -CLIMB) | (most - least > CLIMB)
    return result


def _link(chosen: NDArray[np.int64], spans: _Spans, height: int) -> NDArray[np.int32]:
    """
    Links int32 [len(chosen), 4] among spans (positions in ``chosen``, -1 for none): neighbours
    within a climb and with head room between.
    """
    place = np.full(len(spans.column), -1, np.int32)
    place[chosen] = np.arange(len(chosen))
    links = np.full((len(chosen), 4), -1, np.int32)
    floor, roof = spans.bottom[chosen], spans.top[chosen]
    for direction, step in enumerate(STEPS):
        for there, other in spans.beside(chosen, step):
            shared = np.minimum(roof, spans.top[other]) - np.maximum(floor, spans.bottom[other])
            near = np.abs(spans.bottom[other] - floor) <= CLIMB
            fits = there & (links[:, direction] < 0) & near & (shared >= height)
            links[:, direction] = np.where(fits, place[other], links[:, direction])
    return links


def _clearance(links: NDArray[np.int32], radius: int) -> NDArray[np.int64]:
    """
    Distance of each cell to the border, in half cells (2 to a neighbour, 3 across a corner), exact
    below ``2 * radius``.
    """
    n = len(links)
    distance = np.full(n + 1, FAR, np.int64)  # the last entry stands for "no neighbour"
    distance[:n][(links < 0).any(axis=1)] = 0
    padded = np.concatenate([links, np.full((1, 4), -1, np.int32)])
    around = [(padded[:n, d], 2) for d in range(4)]
    around += [(padded[padded[:n, d], (d + turn) % 4], 3) for d in range(4) for turn in (1, 3)]
    for _ in range(radius):
        distance[:n] = np.minimum.reduce(
            [distance[:n], *(distance[other] + cost for other, cost in around)]
        )
    return distance[:n]


def _islands(links: NDArray[np.int32]) -> NDArray[np.int32]:
    """A number per cell, the same for cells that are connected."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    rows, sides = np.nonzero(links >= 0)
    graph = coo_matrix(
        (np.ones(len(rows), bool), (rows, links[rows, sides])), shape=(len(links), len(links))
    )
    return (
        connected_components(graph, directed=False)[1].astype(np.int32)
        if len(links)
        else np.zeros(0, np.int32)
    )

"""
How an agent moves on a walkable surface: forward steps with and without sliding, turns, and
habitat's collided flag. Pure functions.
"""

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

from sim_bridge.navmesh import CELL_M, INSIDE_M, STEPS, NavMesh

REACH_MARGIN_M = 0.05
"""
How far beside the circle about a step its way may lead: Detour tests its large polygons against
the circle, not each point of the way.
"""

COLLIDED_SQUARED_M2 = 1e-5
"""habitat's rule: collided if |moved|^2 + this < |commanded|^2."""


def forward_of(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """
    The horizontal unit direction [3] in which an agent with ``rotation`` [4] x y z w looks (its
    local -z).
    """
    x, y, z, w = rotation
    ahead = np.array([-2 * (x * z + y * w), 0.0, -(1 - 2 * (x * x + y * y))])
    length = math.hypot(ahead[0], ahead[2])
    return ahead / length if length > 1e-9 else np.array([0.0, 0.0, -1.0])


def turn(rotation: NDArray[np.float64], angle_deg: float) -> NDArray[np.float64]:
    """
    ``rotation`` [4] x y z w after a turn about the agent's own up axis by ``angle_deg`` degrees,
    left positive.
    """
    x, y, z, w = rotation
    s, c = math.sin(math.radians(angle_deg) / 2), math.cos(math.radians(angle_deg) / 2)
    turned = np.array([x * c - z * s, y * c + w * s, z * c + x * s, w * c - y * s])
    return turned / np.linalg.norm(turned)


def move_forward(
    mesh: NavMesh,
    position: NDArray[np.float64],
    rotation: NDArray[np.float64],
    step: float,
    sliding: bool,
) -> tuple[NDArray[np.float64], bool]:
    """
    Where a forward step of ``step`` metres from ``position`` [3] ends, and whether it collided
    (advanced less than commanded).

    The agent is first put on the surface. Sliding: it goes to the reachable point of the surface
    closest to the target, but stays where it is if the surface nearest to the target belongs to
    another island. Not sliding: it goes straight and stops where it first meets a border.
    """
    start = mesh.place(position)
    if start is None:
        return position.copy(), True
    origin, cell = start
    target = origin + step * forward_of(rotation)
    reached = (
        _slide(mesh, origin, cell, target) if sliding else _straight(mesh, origin, cell, target)
    )
    return reached, bool(((reached - position) ** 2).sum() + COLLIDED_SQUARED_M2 < step**2)


def _slide(
    mesh: NavMesh, origin: NDArray[np.float64], cell: int, target: NDArray[np.float64]
) -> NDArray[np.float64]:
    """
    The point closest to ``target`` [3] among the cells that are connected to ``cell`` without
    leaving the circle about the way.
    """
    aim = mesh.place(target)
    if aim is None or mesh.island[aim[1]] != mesh.island[cell]:
        return origin.copy()
    ahead = _straight(mesh, origin, cell, target)
    left_over = math.hypot(ahead[0] - target[0], ahead[2] - target[2])
    if left_over < 2 * INSIDE_M and mesh.locate(target) >= 0:
        return ahead  # nothing in the way: the common case
    tx, tz = float(target[0]), float(target[2])
    x0, z0 = float(mesh.origin[0]), float(mesh.origin[2])
    middle_x, middle_z = (float(origin[0]) + tx) / 2, (float(origin[2]) + tz) / 2
    reach = (math.hypot(tx - origin[0], tz - origin[2]) / 2 + REACH_MARGIN_M) ** 2
    best, best_point, best_cell = math.inf, (float(origin[0]), float(origin[2])), cell
    seen, queue = {cell}, deque([cell])
    while queue:
        n = queue.popleft()
        x, z = mesh.clip(n, tx, tz)
        distance = (x - tx) ** 2 + (z - tz) ** 2
        if distance < best:
            best, best_point, best_cell = distance, (x, z), n
            if distance == 0:
                break
        left, near = x0 + float(mesh.ij[n, 0]) * CELL_M, z0 + float(mesh.ij[n, 1]) * CELL_M
        for (di, dj), other in zip(STEPS, mesh.links[n].tolist()):
            if other < 0 or other in seen:
                continue
            # The closest point of the shared edge must lie in the circle.
            ex = left + CELL_M * (di > 0) if di else min(max(middle_x, left), left + CELL_M)
            ez = near + CELL_M * (dj > 0) if dj else min(max(middle_z, near), near + CELL_M)
            if (ex - middle_x) ** 2 + (ez - middle_z) ** 2 <= reach:
                seen.add(other)
                queue.append(other)
    return np.array([best_point[0], mesh.height[best_cell], best_point[1]])


def _straight(
    mesh: NavMesh, origin: NDArray[np.float64], cell: int, target: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How far the straight way from ``origin`` to ``target`` stays on linked cells."""
    dx, dz = float(target[0] - origin[0]), float(target[2] - origin[2])
    while True:
        # The side of the cell through which the ray leaves.
        i, j = (int(v) for v in mesh.ij[cell])
        leave_x = (
            (mesh.origin[0] + (i + (dx > 0)) * CELL_M - origin[0]) / dx
            if abs(dx) > 1e-12
            else math.inf
        )
        leave_z = (
            (mesh.origin[2] + (j + (dz > 0)) * CELL_M - origin[2]) / dz
            if abs(dz) > 1e-12
            else math.inf
        )
        at = min(leave_x, leave_z)
        if at >= 1:
            break
        side = (0 if dx > 0 else 2) if leave_x <= leave_z else (1 if dz > 0 else 3)
        onward = int(mesh.links[cell, side])
        if onward < 0:
            break
        cell = onward
    at = min(max(at, 0.0), 1.0)
    x, z = mesh.clip(cell, origin[0] + at * dx, origin[2] + at * dz)
    return np.array([x, mesh.height[cell], z])

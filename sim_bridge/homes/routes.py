"""
Shortest paths in a home from its plan, exactly: a visibility graph over the corners of walls and
furniture, grown by a clearance.

Points are (x, z) on the floor, metres. Nothing is rendered or rasterised, so thousands of routes
take seconds.
"""

from collections.abc import Sequence

import numpy as np
from scipy.sparse.csgraph import dijkstra

from sim_bridge.homes.furnish import Thing
from sim_bridge.homes.plan import WALL_THICKNESS_M, Plan, Rect

_EPS = 1e-6


def wall_rects(plan: Plan) -> list[Rect]:
    """
    The walls of a home as rectangles, cut at the openings; each room contributes its half of the
    thickness. The door leaves that stand open are among them.
    """
    half = WALL_THICKNESS_M / 2
    rects: list[Rect] = [leaf.rect for leaf in plan.leaves]
    for room in plan.rooms:
        for wall in room.walls:
            holes = plan.openings(room, wall)
            edges = [wall.low - half, *[e for hole in holes for e in hole], wall.high + half]
            a, b = sorted((wall.at, wall.at - wall.normal * half))
            rects += [
                (s, a, e, b) if wall.along_x else (a, s, b, e)
                for s, e in zip(edges[::2], edges[1::2])
            ]
    return rects


def grown_rects(plan: Plan, things: Sequence[Thing], clearance: float) -> np.ndarray:
    """Walls and furniture grown by ``clearance`` metres: [R, 4]."""
    solid = np.array(wall_rects(plan) + [t.rect for t in things], np.float64)
    return solid + clearance * np.array([-1.0, -1.0, 1.0, 1.0])


def blocked(a: np.ndarray, b: np.ndarray, rects: np.ndarray) -> np.ndarray:
    """
    Whether segments pass through the inside of any rectangle.

    Args:
        a: [N, 2] starts, (x, z) metres.
        b: [N, 2] ends, or [1, 2] one for all.
        rects: [R, 4].

    Returns:
        bool [N].
    """
    low, high = np.zeros((len(a), len(rects))), np.ones((len(a), len(rects)))
    for axis in (0, 1):
        start, delta = a[:, axis, None], (b[:, axis] - a[:, axis])[:, None]
        first, last = rects[:, axis] + _EPS, rects[:, axis + 2] - _EPS
        still = np.abs(delta[:, 0]) < 1e-12
        delta = np.where(still[:, None], 1.0, delta)
        one, other = (first - start) / delta, (last - start) / delta
        near, far = np.minimum(one, other), np.maximum(one, other)
        if still.any():
            inside = (start[still] > first) & (start[still] < last)
            near[still] = np.where(inside, -np.inf, np.inf)
            far[still] = -near[still]
        np.maximum(low, near, out=low)
        np.minimum(high, far, out=high)
    return np.any(low < high, axis=1)


class RouteMap:
    """
    Free floor of a home for a point that keeps ``clearance`` metres from walls and furniture.
    """

    def __init__(self, plan: Plan, things: Sequence[Thing], clearance: float) -> None:
        self.walls = wall_rects(plan)
        self.rects = grown_rects(plan, things, clearance)
        corners = self.rects[:, [[0, 1], [2, 1], [2, 3], [0, 3]]].reshape(-1, 2)
        corners = corners[[plan.room_at(c) is not None for c in corners]]
        self.nodes = corners[self.free(corners)]
        i, j = np.triu_indices(len(self.nodes), 1)
        seen = ~blocked(self.nodes[i], self.nodes[j], self.rects)
        i, j = i[seen], j[seen]
        weights = np.zeros((len(self.nodes), len(self.nodes)))
        weights[i, j] = weights[j, i] = np.linalg.norm(self.nodes[i] - self.nodes[j], axis=1)
        self._distance, self._before = dijkstra(weights, directed=False, return_predecessors=True)

    def free(self, points: np.ndarray) -> np.ndarray:
        """Whether points [N, 2] keep the clearance: bool [N]."""
        p = np.asarray(points)[:, None, :]
        inside = (p > self.rects[None, :, :2] + _EPS) & (p < self.rects[None, :, 2:] - _EPS)
        return ~np.any(np.all(inside, axis=2), axis=1)

    def path(self, start: np.ndarray, goal: np.ndarray) -> np.ndarray | None:
        """Corner points [N, 2] of the shortest path, ends included; None where there is none."""
        return self.paths(start, np.asarray(goal)[None])[0]

    def paths(self, start: np.ndarray, goals: np.ndarray) -> list[np.ndarray | None]:
        """The `path` from ``start`` to each of ``goals`` [M, 2]."""
        start, goals = np.asarray(start, np.float64), np.asarray(goals, np.float64)
        hidden = blocked(np.broadcast_to(start, goals.shape), goals, self.rects)
        straight: list[np.ndarray | None] = [np.array([start, goal]) for goal in goals]
        if not hidden.any():
            return straight
        begun_NN = self._reach(start)[:, None] + self._distance
        return [
            self._around(begun_NN, start, goal) if far else path
            for goal, far, path in zip(goals, hidden, straight)
        ]

    def _around(
        self, begun_NN: np.ndarray, start: np.ndarray, goal: np.ndarray
    ) -> np.ndarray | None:
        """
        The path by nodes; ``begun_NN``: metres from ``start`` by the first node to the last one.
        """
        total = begun_NN + self._reach(goal)
        if not np.isfinite(total).any():
            return None
        first, last = np.unravel_index(np.argmin(total), total.shape)
        chain = [last]
        while chain[-1] != first:
            chain.append(self._before[first, chain[-1]])
        return np.concatenate([start[None], self.nodes[chain[::-1]], goal[None]])

    def _reach(self, point: np.ndarray) -> np.ndarray:
        """Straight distance to every node, metres; inf where something is in the way."""
        hidden = blocked(np.broadcast_to(point, self.nodes.shape), self.nodes, self.rects)
        return np.where(hidden, np.inf, np.linalg.norm(self.nodes - point, axis=1))


def length(path: np.ndarray) -> float:
    """Length of a polyline [N, 2] in metres."""
    return float(np.linalg.norm(np.diff(path, axis=0), axis=1).sum())


def resample(path: np.ndarray, step: float) -> np.ndarray:
    """Points [M, 2] along a polyline, ``step`` metres apart, its end included."""
    pieces = np.linalg.norm(np.diff(path, axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(pieces)])
    at = np.append(np.arange(0.0, along[-1], step), along[-1])
    return np.stack([np.interp(at, along, path[:, k]) for k in (0, 1)], axis=1)


def bearing(forward: np.ndarray, direction: np.ndarray) -> float:
    """
    Angle from ``forward`` to ``direction`` (both (x, z)) in degrees, positive to the left, in
    (-180, 180].
    """
    left = np.array([forward[1], -forward[0]])
    return float(np.degrees(np.arctan2(left @ direction, forward @ direction)))


def heading(yaw: float) -> np.ndarray:
    """Unit vector (x, z) that a robot with ``yaw`` (radians, positive = left turn) looks along."""
    return np.array([-np.sin(yaw), -np.cos(yaw)])


def distance_to_rect(points: np.ndarray, rect: Rect) -> np.ndarray:
    """Distance of points [N, 2] to a rectangle (0 inside), metres [N]."""
    points = np.asarray(points)
    low, high = np.array(rect[:2]), np.array(rect[2:])
    return np.linalg.norm(np.maximum(np.maximum(low - points, points - high), 0.0), axis=1)

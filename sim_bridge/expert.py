"""The expert: what a perfect navigator does next, as a pure function of where it stands."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from janusvln_ros.actions import Action
from janusvln_ros.errors import InputError, require
from sim_bridge.kinematics import forward_of, move_forward, turn
from sim_bridge.nav_env import EnvSettings, NavEnv
from sim_bridge.navmesh import DistanceField, NavMesh

WAYPOINT_RADIUS_M = 1.8
"""A way point before the last counts as reached within this geodesic distance, as published."""

GOAL_RADIUS_M = 0.25
"""The last way point counts as reached within this geodesic distance, as published."""

TURN_COST_M = 0.004
"""
What one turn must gain at least: with steps of 15 degrees and 0.25 m a dead zone of about 3.5
degrees around half a turn, so that labels do not flicker.
"""


def shortest_path_action(
    mesh: NavMesh,
    position: NDArray[np.float64],
    rotation: NDArray[np.float64],
    target: ArrayLike,
    radius: float,
    settings: EnvSettings,
) -> Action:
    """
    The next action on the shortest way to ``target`` [3]: STOP within ``radius`` metres, else
    toward the heading whose forward step brings most.

    All headings that whole turns can reach are compared by the geodesic distance that one forward
    step along them gains, less ``TURN_COST_M`` per turn. Headings whose step would touch something
    count only if no other one gains. Ties go to fewer turns, then to the left, so a target
    straight behind always turns left.

    Raises:
        InputError: no way leads from here to the target.
    """
    # Most targets are near, and their fields need not be marched through the whole home.
    straight = float(np.linalg.norm(np.asarray(target, float) - position))
    field, placed = mesh.field_to(target, 1.5 * straight + 1), mesh.place(position)
    here = math.inf if field is None or placed is None else field.at_place(*placed)
    if field is not None and not here + 2 * settings.forward_step <= field.reach:
        field = mesh.field_to(target)
        here = math.inf if field is None or placed is None else field.at_place(*placed)
    if field is None or placed is None or not math.isfinite(here):
        raise InputError(
            f"no way leads from {np.round(position, 2).tolist()} to "
            f"{np.round(np.asarray(target, float), 2).tolist()}: "
            "choose a target on the agent's island"
        )
    if here <= radius:
        return Action.STOP
    half = int(180 / settings.turn_step + 1e-6)
    turns = [0] + [sign * k for k in range(1, half + 1) for sign in (1, -1)]
    x, _, z = forward_of(rotation)
    angle_H = np.radians(settings.turn_step) * np.array(turns)
    cos_H, sin_H = np.cos(angle_H), np.sin(angle_H)
    ahead_H3 = np.stack(
        [x * cos_H + z * sin_H, np.zeros_like(cos_H), z * cos_H - x * sin_H], axis=1
    )
    gain_H = here - _after_clear_step(mesh, field, placed, ahead_H3, settings.forward_step)
    if not (gain_H > 0.1 * settings.forward_step).any():
        for h in np.flatnonzero(np.isinf(gain_H)):
            facing = turn(rotation, turns[h] * settings.turn_step)
            reached, _ = move_forward(
                mesh, placed[0], facing, settings.forward_step, settings.sliding
            )
            end = mesh.place(reached)
            if end is not None:
                gain_H[h] = here - field.at_place(*end)
    best = turns[int(np.argmax(np.round(gain_H - TURN_COST_M * np.abs(turns), 6)))]
    if best == 0:
        return Action.MOVE_FORWARD
    return Action.TURN_LEFT if best > 0 else Action.TURN_RIGHT


def _after_clear_step(
    mesh: NavMesh,
    field: DistanceField,
    placed: tuple[NDArray[np.float64], int],
    ahead_H3: NDArray[np.float64],
    step: float,
) -> NDArray[np.float64]:
    """
    Distances [H] to the target after a straight ``step`` from a place (and its cell) along each
    direction; inf where the step leaves the surface.
    """
    count = max(math.ceil(step / 0.02), 1)
    lengths_S = step * np.arange(1, count + 1) / count
    points_HS3 = placed[0] + ahead_H3[:, None, :] * lengths_S[:, None]
    cells_HS = mesh.locate_many(points_HS3.reshape(-1, 3)).reshape(points_HS3.shape[:2])
    clear_H = ((cells_HS >= 0) & (mesh.island[cells_HS] == mesh.island[placed[1]])).all(axis=1)
    distance_H = np.full(len(ahead_H3), np.inf)
    distance_H[clear_H] = field.at(points_HS3[clear_H, -1], cells_HS[clear_H, -1])
    return distance_H


class ReferencePathFollower:
    """
    Follows way points one after the other: on to the next within ``waypoint_radius`` of one, STOP
    within ``goal_radius`` of the last.
    """

    def __init__(
        self,
        env: NavEnv,
        waypoints: ArrayLike | None = None,
        *,
        waypoint_radius: float = WAYPOINT_RADIUS_M,
        goal_radius: float = GOAL_RADIUS_M,
    ) -> None:
        """
        Follow ``waypoints`` [K, 3] (without the start) or, without them, the reference path of the
        environment's episode after its first point.

        Raises:
            InputError: no way points, and no episode either.
        """
        if waypoints is None and env.episode is not None:
            waypoints = env.episode.reference_path[1:] or (env.episode.goal_position,)
        self.waypoints_K3 = np.asarray(() if waypoints is None else waypoints, float).reshape(
            -1, 3
        )
        require(
            len(self.waypoints_K3) != 0,
            "there are no way points to follow: give at least one, or reset the environment "
            "to an episode first",
        )
        self._env = env
        self._waypoint_radius, self._goal_radius = waypoint_radius, goal_radius
        self.next_waypoint = 0
        """Index of the way point that is being approached."""

    def action(self) -> Action:
        """
        The expert's action at the environment's current state; way points reached on the way are
        ticked off.

        Raises:
            InputError: a way point cannot be reached from here.
        """
        while (action := self.advice()) == Action.STOP:
            if self.next_waypoint == len(self.waypoints_K3) - 1:
                break
            self.next_waypoint += 1
        return action

    def advice(self) -> Action:
        """The expert's action toward the way point that is being approached, STOP at it."""
        last = self.next_waypoint == len(self.waypoints_K3) - 1
        radius = self._goal_radius if last else self._waypoint_radius
        return self._env.expert_action(self.waypoints_K3[self.next_waypoint], radius)

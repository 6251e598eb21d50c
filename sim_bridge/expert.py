"""The expert: what a perfect navigator does next, as a pure function of where it stands."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from janusvln_ros.actions import Action
from janusvln_ros.errors import InputError
from sim_bridge.kinematics import forward_of, move_forward, turn
from sim_bridge.nav_env import EnvSettings, NavEnv
from sim_bridge.navmesh import NavMesh

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
    field = mesh.field_to(target)
    placed = mesh.place(position)
    here = math.inf
    if field is not None and placed is not None:
        here = float(field.at(placed[0][None], np.array([placed[1]]))[0])
    if field is None or placed is None or not math.isfinite(here):
        here_and_there = (
            f"from {np.round(position, 2).tolist()} to "
            f"{np.round(np.asarray(target, float), 2).tolist()}"
        )
        raise InputError(f"no way leads {here_and_there}: choose a target on the agent's island")
    if here <= radius:
        return Action.STOP
    half = int(180 / settings.turn_step + 1e-6)
    turns = [0] + [sign * k for k in range(1, half + 1) for sign in (1, -1)]
    x, _, z = forward_of(rotation)
    angle_H = np.radians(settings.turn_step) * np.array(turns)
    cos_H, sin_H = np.cos(angle_H), np.sin(angle_H)
    ahead_H3 = np.stack(
        [x * cos_H + z * sin_H, np.zeros(len(turns)), z * cos_H - x * sin_H], axis=1
    )

    # Straight steps that stay on the surface, all headings at once.
    count = max(math.ceil(settings.forward_step / 0.02), 1)
    lengths_S = settings.forward_step * np.arange(1, count + 1) / count
    points_HS3 = placed[0] + ahead_H3[:, None, :] * lengths_S[:, None]
    cells_HS = mesh.locate_many(points_HS3.reshape(-1, 3)).reshape(points_HS3.shape[:2])
    clear_H = ((cells_HS >= 0) & (mesh.island[cells_HS] == mesh.island[placed[1]])).all(axis=1)
    gain_H = np.full(len(turns), -np.inf)
    if clear_H.any():
        gain_H[clear_H] = here - field.at(points_HS3[clear_H, -1], cells_HS[clear_H, -1])
    cost_H = TURN_COST_M * np.abs(turns)
    if not (gain_H > 0.1 * settings.forward_step).any():
        for h in np.flatnonzero(~clear_H):
            reached, _ = move_forward(
                mesh,
                placed[0],
                turn(rotation, turns[h] * settings.turn_step),
                settings.forward_step,
                settings.sliding,
            )
            end = mesh.place(reached)
            if end is not None:
                gain_H[h] = here - float(field.at(end[0][None], np.array([end[1]]))[0])
    best = turns[int(np.argmax(np.round(gain_H - cost_H, 6)))]
    if best == 0:
        return Action.MOVE_FORWARD
    return Action.TURN_LEFT if best > 0 else Action.TURN_RIGHT


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
        if waypoints is None:
            if env.episode is None:
                raise InputError(
                    "there is neither an episode nor way points to follow: reset the "
                    "environment first"
                )
            episode = env.episode
            path = np.asarray(episode.reference_path, float).reshape(-1, 3)
            waypoints = path[1:] if len(path) > 1 else np.asarray([episode.goal_position], float)
        self.waypoints_K3 = np.asarray(waypoints, float).reshape(-1, 3)
        if len(self.waypoints_K3) == 0:
            raise InputError("there are no way points to follow: give at least one")
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
        last = len(self.waypoints_K3) - 1
        while True:
            radius = self._goal_radius if self.next_waypoint == last else self._waypoint_radius
            action = self._env.expert_action(self.waypoints_K3[self.next_waypoint], radius)
            if action != Action.STOP or self.next_waypoint == last:
                return action
            self.next_waypoint += 1

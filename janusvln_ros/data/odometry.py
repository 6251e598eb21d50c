"""
Odometry of a whole recorded drive, from poses or from commanded velocities.

Metres, x forward, y left, yaw positive to the left (REP-103, REP-105).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from janusvln_ros.errors import require
from janusvln_ros.geometry import Pose2
from janusvln_ros.protocol.odometry import Sample

CMD_VEL_TIMEOUT_S = 0.5
"""
Seconds after which a base stops by itself where no command comes: ``cmd_vel_timeout`` of ROS 2's
diff_drive_controller as it is shipped.
"""


def odometry_from_poses(
    stamps: Sequence[int], poses: Sequence[tuple[float, float, float]]
) -> list[Sample]:
    """
    Return poses (x, y, yaw) in any order of arrival as samples with rising stamps.

    Of samples with equal stamps the first counts.

    Raises:
        InputError: fewer than two different stamps, or numbers that are not finite.
    """
    pose_N3 = np.asarray(poses, np.float64).reshape(-1, 3)
    bad = int(np.count_nonzero(~np.isfinite(pose_N3).all(axis=1)))
    require(
        not bad,
        f"odometry: {bad} of {len(pose_N3)} poses are not finite; the recording "
        "cannot be cut into steps",
    )
    rising, first = np.unique(np.asarray(stamps, np.int64), return_index=True)
    require(len(rising) >= 2, f"odometry: {len(rising)} different stamps; at least 2 are needed")
    return [Sample(int(t), Pose2(*map(float, pose_N3[i]))) for t, i in zip(rising, first)]


def odometry_from_velocity(
    stamps: Sequence[int],
    velocities: Sequence[tuple[float, float]],
    timeout: float = CMD_VEL_TIMEOUT_S,
) -> list[Sample]:
    """
    Return dead reckoning from commanded (forward m/s, turn rad/s), each held until the next, but
    no longer than ``timeout`` seconds: a base stops by itself where no command comes.

    For drives that recorded only ``cmd_vel``. Nothing is known after the last command.
    """
    order = np.argsort(np.asarray(stamps, np.int64), kind="stable")
    rising = np.asarray(stamps, np.int64)[order]
    command_N2 = np.asarray(velocities, np.float64).reshape(-1, 2)[order]
    # where the base stopped by itself, as if it had been told to
    limit = round(timeout * 1e9)
    ends = np.flatnonzero(np.diff(rising) > limit)
    rising = np.insert(rising, ends + 1, rising[ends] + limit)
    forward, turn = np.insert(command_N2, ends + 1, 0.0, axis=0).T
    dt = np.diff(rising, append=rising[-1:]) / 1e9
    yaw = np.concatenate([[0.0], np.cumsum(turn * dt)[:-1]])
    # the chord of an arc points half its turn away from where it began
    heading = yaw + turn * dt / 2
    x = np.concatenate([[0.0], np.cumsum(forward * dt * np.cos(heading))[:-1]])
    y = np.concatenate([[0.0], np.cumsum(forward * dt * np.sin(heading))[:-1]])
    return odometry_from_poses(rising.tolist(), list(zip(x, y, yaw)))


def poses_at(odometry: Sequence[Sample], stamps: NDArray[np.int64]) -> NDArray[np.float64]:
    """
    Return poses [N, 3] (x, y, yaw unwrapped) at ``stamps`` int64 [N], ns.

    Linear between neighbours, held at the ends.
    """
    pose_N3 = np.array([sample.pose for sample in odometry])
    pose_N3[:, 2] = np.unwrap(pose_N3[:, 2])
    # seconds since the first sample: nanoseconds since 1970 do not fit a float64
    start = odometry[0].stamp
    known = np.array([sample.stamp - start for sample in odometry]) / 1e9
    wanted = (stamps - start) / 1e9
    return np.stack([np.interp(wanted, known, column) for column in pose_N3.T], axis=1)

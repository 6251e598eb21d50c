"""
The collision guard on recorded views: how soon the base stands once something is in the stop zone,
whether it is held there, and how often it stops for nothing.

    python benchmarks/guard.py [--trials 4] [--homes 2] [--out FILE] [--no-docs]

As Nav2's collision monitor is judged. Views are rendered in generated homes from where the base
truly is, made into a scan or a depth image as the simulator's bridge makes them, and spoilt by
noise; the pure functions of ``protocol/corridor.py`` and the motion machine drive the simulated
base on a clock of its own, without ROS. What is true is told by the triangles of the home, not by
what was rendered of them.

A reading is in the stop zone where something truly stands within ``ZONE`` in the corridor when it
is taken. Four kinds of drives, straight ahead, the next step asked for as soon as one ends:

*approach*: towards what stands 1 to 1.7 m ahead, until `WATCHED` seconds after the first reading
in the zone. *low*, with depth: the same, of what leaves the view on the way of a camera that looks
level from 1.25 m. *appears*: somebody steps before a base that drives, into the zone, and stays.
*free*: six steps where nothing is within reach, half of them between things less than 1 m apart,
as doors are; a step that ends blocked is a false stop.
"""

import argparse
import math
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from janusvln_ros.actions import Action
from janusvln_ros.geometry import Pose2, compose, to_world
from janusvln_ros.protocol import corridor, moving, remembered
from janusvln_ros.protocol.exchange import Odometry
from janusvln_ros.protocol.odometry import Sample
from janusvln_ros.protocol.status import StepStatus
from sim_bridge.continuous import SCAN_HEIGHTS_M, Base, BaseSettings, scan_from_depth
from sim_bridge.homes.episodes import make_home
from sim_bridge.houses import HousesEnv
from sim_bridge.nav_env import MAX_DEPTH_M, EnvSettings
from sim_bridge.navmesh import CELL_M
from sim_bridge.scene import load_scene
from sim_bridge.world import rep118_depth

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reliability.md"
VIEW = EnvSettings(width=160, height=120)
TICK, PERIOD, LATE = 0.02, 0.1, 0.05
"""Seconds: the control period, from one reading to the next, until it arrives."""

ZONE, HALF_WIDTH = 0.35, 0.25
"""Metres: ``stop_distance`` and half of ``corridor_width``, both as ``motion`` ships."""

LOW, LOW_FROM = 0.9, (1.9, 2.4)
"""Metres: how high a thing is that leaves the view before the zone, and how far it is at first."""

WATCHED = 5.0
BARS = {"stop": 0.6, "hold": 0.9, "false": 0.05}
"""Seconds at most, share at least, share at most."""

BEAMS, DEPTH_LOW, DEPTH_HIGH, DEPTH_MIN = 64, 0.06, 1.5, 0.3
BODY = 0.15
"""Metres: radius of who steps in the way."""


@dataclass(frozen=True)
class Noise:
    """
    What spoils a reading: standard deviation in metres and as a share of the distance, share of
    readings without an answer, and share that tell of something nearer where nothing is.
    """

    metres: float = 0.0
    share: float = 0.0
    lost: float = 0.0
    specks: float = 0.0

    def spoil(self, ranges: NDArray[np.float32], dice: np.random.Generator) -> NDArray[np.float32]:
        """The readings as such a sensor gives them; NaN: no answer."""
        sigma = self.metres + self.share * np.where(np.isfinite(ranges), ranges, 0.0)
        spoilt = np.maximum(ranges + sigma * dice.standard_normal(ranges.shape), 0.01)
        if self.specks:
            speck = dice.random(ranges.shape) < self.specks
            spoilt[speck] = 0.05 + dice.random(int(speck.sum())) * 2.0
        spoilt[dice.random(ranges.shape) < self.lost] = np.nan
        return spoilt.astype(np.float32)


NOISES = {
    "none": Noise(),
    "usual": Noise(0.005, 0.01, 0.02),
    "rough": Noise(0.01, 0.03, 0.10),
    "specks": Noise(0.005, 0.01, 0.02, 1e-4),
}
SPEEDS = ((0.15, 0.5), (0.3, 0.5), (0.6, 1.0))
"""Metres per second, and per second squared, that the steps are told to keep to."""

SENSORS = ("scan", "depth")


@dataclass(frozen=True)
class Place:
    """
    Where a drive begins, and what truly stands around its way.

    ``points``: [N, 3] of what counts as an obstacle: metres ahead of the start, to its left, and
    above the floor.
    """

    env: HousesEnv
    start: Pose2
    floor: float
    points: NDArray[np.float64]


@dataclass
class Drive:
    """What was seen of one drive; seconds, metres."""

    stop: float | None = None  # from the first reading in the zone to standstill
    zone: int = 0  # readings in the zone
    held: int = 0  # of them with the base at rest and told to be
    nearest: float = math.inf
    steps: int = 0
    blocked: int = 0


def obstacles(env: HousesEnv, scene: Path, floor: float) -> NDArray[np.float64]:
    """
    Points [N, 3] on the triangles of a scene that a robot could meet, 3 cm apart at most: x and y
    on the map to the centimetre, and how high above ``floor`` there is something.
    """
    mesh = load_scene(scene, env.settings.up)
    a, b, c = (mesh.positions[mesh.triangles[:, i]].astype(float) for i in range(3))
    heights = np.stack([a[:, 1], b[:, 1], c[:, 1]]) - floor
    near = (heights.min(0) <= SCAN_HEIGHTS_M[1]) & (heights.max(0) >= SCAN_HEIGHTS_M[0])
    found = []
    for p, q, r in zip(a[near], b[near], c[near]):
        count = math.ceil(max(np.linalg.norm(q - p), np.linalg.norm(r - p)) / 0.03) + 1
        u, v = np.meshgrid(*[np.linspace(0, 1, count)] * 2)
        u, v = u[u + v <= 1], v[u + v <= 1]
        found.append(p + u[:, None] * (q - p) + v[:, None] * (r - p))
    points = np.concatenate(found)
    x, y, z = -points[:, 2], -points[:, 0], points[:, 1] - floor
    inside = (z >= SCAN_HEIGHTS_M[0]) & (z <= SCAN_HEIGHTS_M[1])
    columns = np.stack([x[inside], y[inside]], 1) / 0.01
    columns, which = np.unique(columns.round(), axis=0, return_inverse=True)
    tops = np.zeros(len(columns))
    np.maximum.at(tops, which.ravel(), z[inside])
    return np.column_stack([columns * 0.01, tops])


def seen_from(points: NDArray[np.float64], pose: Pose2) -> NDArray[np.float64]:
    """Points [N, 3] as told from ``pose``: metres ahead, to the left, and up as they are."""
    x, y = points[:, 0] - pose.x, points[:, 1] - pose.y
    c, s = math.cos(pose.yaw), math.sin(pose.yaw)
    return np.stack([c * x + s * y, c * y - s * x, points[:, 2]], 1)


def ahead(points: NDArray[np.float64], half_width: float = HALF_WIDTH) -> float:
    """Metres to the first of some points (see `seen_from`) in the corridor ahead."""
    inside = points[(points[:, 0] > 0) & (np.abs(points[:, 1]) <= half_width)]
    return float(inside[:, 0].min()) if len(inside) else math.inf


def places(
    env: HousesEnv, scene: Path, kind: str, dice: np.random.Generator, tries: int = 4000
) -> Iterator[Place]:
    """
    Places in the scene that ``env`` has loaded where drives of a kind may begin; every second one
    of the free ones leads through a narrow place. What is approached is as high as the camera, or
    (``low``) at most `LOW`.
    """
    narrow_next, floor = True, float(env.mesh.height.min())
    around, cells = obstacles(env, scene, floor), env.mesh.ij[env.mesh.height < floor + 0.05]
    for _ in range(tries):
        x, z = env.mesh.origin[::2] + (cells[dice.integers(len(cells))] + 0.5) * CELL_M
        start = Pose2(-float(z), -float(x), float(dice.uniform(-math.pi, math.pi)))
        points = seen_from(around, start)
        points = points[(np.abs(points[:, 1]) < 2) & (points[:, 0] > -1) & (points[:, 0] < 4)]
        if not len(points) or np.hypot(points[:, 0], points[:, 1]).min() < 0.2:
            continue
        free = ahead(points, HALF_WIDTH + 0.07)
        place = Place(env, start, floor, points)
        if kind == "free" and free > 2.2:
            way = points[(points[:, 0] > 0.3) & (points[:, 0] < 1.5)]
            sides = [np.abs(way[way[:, 1] * side > 0, 1]) for side in (1, -1)]
            narrow = all(len(side) and side.min() < 0.5 for side in sides)
            if narrow == narrow_next:
                narrow_next = not narrow_next
                yield place
        elif kind == "appears" and free > 2.2:
            yield place
        elif kind == "low" and LOW_FROM[0] <= free <= LOW_FROM[1]:
            tall = points[points[:, 2] > LOW]
            if ahead(tall, HALF_WIDTH) > free + 0.5:
                yield place
        elif kind == "approach" and 1.0 <= free <= 1.7:
            high = points[points[:, 2] > 1.2]
            if abs(ahead(high, 0.15) - ahead(points)) < 0.03:
                yield place


class Rig:
    """
    The motion machine on a simulated base at a place: readings every ``PERIOD``, ``LATE`` old when
    they arrive, odometry with 2 % noise.
    """

    def __init__(
        self, place: Place, sensor: str, speed: tuple[float, float], noise: Noise, seed: int
    ):
        self.place, self.sensor, self.noise = place, sensor, noise
        self.settings = moving.Settings(
            base_timeout=0.2,
            range_source=sensor,
            stop_distance=ZONE,
            speed=speed[0],
            acceleration=speed[1],
            silence_test=False,
        )
        self.dice, self.tick = np.random.default_rng(seed), 0
        base = BaseSettings(odom_noise=0.02, odom_latency=0.05)
        self.base = Base(base, lambda x, y: True, Pose2(), seed)
        self.state, self.told, self.done = moving.State(), (0.0, 0.0), list[moving.Done]()
        self.waiting: deque[tuple[float, moving.Ranges]] = deque()
        self.around = remembered.Columns()
        self.body: tuple[float, float] | None = None  # who stepped in: its middle, from the start
        self.goals, self.drive = 0, Drive()
        self.zone_at: float | None = None  # when the first reading in the zone was taken
        self.do(moving.Activate(self.now))
        for _ in range(20):
            self.advance()
        self.do(moving.Arm(self.now, True))

    @property
    def now(self) -> float:
        """Seconds; steady and ROS time are one here."""
        return 100 + self.tick * TICK

    @property
    def stamp(self) -> int:
        """The time in ns."""
        return round(self.now * 1e9)

    def do(self, event: Any) -> None:
        """Give the machine an event, and the base what follows."""
        self.state, commands = moving.advance(self.state, event, self.settings)
        for command in commands:
            if isinstance(command, moving.Drive):
                self.told = (command.speed, command.rate)
                self.base.command(*self.told, self.now)
            elif isinstance(command, moving.Done):
                self.done.append(command)

    def true_distance(self) -> float:
        """Metres to what stands in the corridor ahead of where the base truly is."""
        points = self.place.points
        if self.body is not None:
            angles = np.linspace(0, math.tau, 180)
            circle = np.stack([np.cos(angles), np.sin(angles), 0 * angles], 1) * BODY
            points = np.concatenate([points, circle + [*self.body, 1.0]])
        return ahead(seen_from(points, self.base.pose))

    def look(self) -> None:
        """Take a reading, and note what is true of it."""
        env, pose = self.place.env, self.base.pose
        env.set_state(*to_world(compose(self.place.start, pose), self.place.floor))
        depth = rep118_depth(env.render().depth)
        focal, height = env.settings.focal_length, env.settings.camera_height
        if self.body is not None:
            body = seen_from(np.array([[*self.body, 0.0]]), pose)[0]
            depth = np.minimum(depth, body_depth(depth.shape, focal, height, body))
        if self.sensor == "scan":
            told = read_scan(depth, focal, height, self.noise, self.dice)
        else:
            # odometry tells where the base is, as to the node
            self.around, told = read_depth(
                self.around, depth, focal, height, self.state.track[-1].pose, self.noise, self.dice
            )
        reading = moving.Ranges(self.now, self.stamp, told[0], told[1], blind=told[2])
        self.waiting.append((self.now + LATE, reading))
        distance = self.true_distance()
        self.drive.nearest = min(self.drive.nearest, distance)
        if distance <= ZONE:
            self.zone_at = self.now if self.zone_at is None else self.zone_at
            self.drive.zone += 1
            rests = abs(self.base.linear) <= self.settings.rest_speed
            self.drive.held += rests and self.told[0] == 0

    def advance(self) -> None:
        """One control period."""
        self.base.advance(TICK, self.now + TICK, self.now + TICK)
        self.tick += 1
        for seen in self.base.odometry(self.now):
            stamp = round(seen.time * 1e9)
            sample = Sample(stamp, seen.pose, seen.linear, seen.angular)
            self.do(Odometry(self.now, sample))
        if self.tick % round(PERIOD / TICK) == 0:
            self.look()
        while self.waiting and self.waiting[0][0] <= self.now + 1e-9:
            self.do(replace(self.waiting.popleft()[1], now=self.now))
        self.do(moving.Heartbeat(self.now, 1))
        self.do(moving.Tick(self.now, self.stamp))
        first, rests = self.zone_at, abs(self.base.linear) <= self.settings.rest_speed
        if self.drive.stop is None and first is not None and rests:
            self.drive.stop = self.now - first

    def ask(self) -> None:
        """Ask for a step forward, if none is under way."""
        if self.state.goal is None:
            self.goals += 1
            goal = (self.goals, 1, self.goals, int(Action.MOVE_FORWARD))
            self.do(moving.Goal(self.now, *goal, self.stamp, self.stamp))


def body_depth(
    shape: tuple[int, ...], focal: float, height: float, body: NDArray[np.float64]
) -> NDArray[np.float32]:
    """
    Depth [H, W] of an upright cylinder of radius ``BODY``, 1.7 m high, whose middle is
    ``body[:2]`` (metres ahead and left) from a camera that looks level; +inf beside it.
    """
    v, u = np.mgrid[: shape[0], : shape[1]] + 0.5
    left, down = (shape[1] / 2 - u) / focal, (v - shape[0] / 2) / focal
    # |t (1, left) - body| = BODY
    a, half_b = 1 + left**2, body[0] + left * body[1]
    root = half_b**2 - a * (body[0] ** 2 + body[1] ** 2 - BODY**2)
    with np.errstate(invalid="ignore"):
        t = (half_b - np.sqrt(root)) / a
        up = height - t * down
        met = (t > 0) & (up >= 0) & (up <= 1.7)
    return np.where(met, t, np.inf).astype(np.float32)


def read_scan(
    depth: NDArray[np.float32],
    focal: float,
    height: float,
    noise: Noise,
    dice: np.random.Generator,
) -> tuple[float, float, float]:
    """Clearance, known share and blind metres of the bridge's scan, as `nodes/motion.py` does."""
    half = math.atan(depth.shape[1] / 2 / focal)
    width = 2 * half / BEAMS
    ranges = noise.spoil(scan_from_depth(depth, focal, height, BEAMS), dice).astype(np.float64)
    told = corridor.without_answer(ranges, width, MAX_DEPTH_M)
    first = -half + width / 2
    clearance, known, _ = corridor.scan_corridor(
        told, first, width, 0.02, MAX_DEPTH_M, mount=Pose2(), half_width=HALF_WIDTH
    )
    return clearance, known, 0.02


def read_depth(
    around: remembered.Columns,
    depth: NDArray[np.float32],
    focal: float,
    height: float,
    pose: Pose2,
    noise: Noise,
    dice: np.random.Generator,
) -> tuple[remembered.Columns, tuple[float, float, float]]:
    """
    The same of a depth image, whose camera calls what is nearer than 0.3 m too near, and of what
    was seen ``around`` before, as `nodes/motion.py` does.
    """
    spoilt = noise.spoil(depth, dice)
    spoilt[spoilt < DEPTH_MIN] = -np.inf
    k = (focal, 0.0, depth.shape[1] / 2 - 0.5, 0.0, focal, depth.shape[0] / 2 - 0.5, 0.0, 0.0, 1.0)
    camera = corridor.DepthCamera(k, height, near=DEPTH_MIN)
    around, way = remembered.way_ahead(
        around, spoilt, camera, pose, half_width=HALF_WIDTH, low=DEPTH_LOW, high=DEPTH_HIGH
    )
    return around, (way.clearance, way.known, DEPTH_MIN)


def drive(
    kind: str, place: Place, sensor: str, speed: tuple[float, float], noise: Noise, seed: int
) -> Drive:
    """One drive; see the top of this file for the kinds."""
    rig = Rig(place, sensor, speed, noise, seed)
    dice = np.random.default_rng(seed)
    begins = rig.now + dice.uniform(1.0, 2.5)  # when somebody may step in
    front, aside = dice.uniform(0.2, ZONE - 0.02), dice.uniform(-0.15, 0.15)
    gone, gone_at = 0.0, rig.now
    for _ in range(round(60 / TICK)):
        rig.ask()
        rig.advance()
        if rig.base.path_length > gone + 0.01:
            gone, gone_at = rig.base.path_length, rig.now
        drives = rig.now > begins and rig.base.linear > 0.5 * speed[0]
        if kind == "appears" and rig.body is None and drives:
            x, y, yaw = rig.base.pose
            c, s, far = math.cos(yaw), math.sin(yaw), front + BODY
            rig.body = (x + c * far - s * aside, y + s * far + c * aside)
        if rig.zone_at is not None and rig.now - rig.zone_at >= WATCHED:
            break
        if kind == "free" and len(rig.done) == 6:
            break
        if rig.now - gone_at >= WATCHED:  # at rest before the zone, say
            break
    found = rig.drive
    found.steps = len(rig.done)
    found.blocked = sum(done.status == StepStatus.BLOCKED for done in rig.done)
    return found


def measured(
    scenes: list[tuple[HousesEnv, Path]],
    trials: int,
    speeds: tuple[tuple[float, float], ...] = SPEEDS,
    noises: tuple[str, ...] = tuple(NOISES),
    seed: int = 1,
) -> list[dict[str, Any]]:
    """
    A row for each sensor and noise: drives from ``trials`` places to approach things, as many to
    low things and where somebody steps in, and twice as many free ones, at each speed, in turns in
    the scenes.
    """
    dice = np.random.default_rng(seed)
    kinds = ("approach", "low", "appears", "free")
    chosen: dict[str, list[Place]] = {kind: [] for kind in kinds}
    for kind in kinds:
        wells = [places(env, scene, kind, dice) for env, scene in scenes]
        while len(chosen[kind]) < trials * (1 + (kind == "free")) and wells:
            well = wells.pop(0)
            if (place := next(well, None)) is not None:
                chosen[kind].append(place)
                wells.append(well)
    found = []
    for sensor in SENSORS:
        for noise in noises:
            drives: dict[str, list[Drive]] = {
                kind: [
                    drive(kind, place, sensor, speed, NOISES[noise], seed + number)
                    for number, place in enumerate(chosen[kind])
                    for speed in speeds
                ]
                for kind in kinds
                if kind != "low" or sensor == "depth"
            }
            found.append({"sensor": sensor, "noise": noise, **figures(drives)})
            print(f"{sensor} {noise}: {found[-1]}", file=sys.stderr)
    return found


def figures(drives: dict[str, list[Drive]]) -> dict[str, Any]:
    """What the drives of one row come to."""
    met = drives["approach"] + drives["appears"] + (low := drives.get("low", []))
    stops = [one.stop if one.stop is not None else math.inf for one in met if one.zone]
    zone, free = sum(one.zone for one in met), drives["free"]
    return {
        "met": len(met),
        "entered": len(stops),
        "stop": max(stops, default=0.0),
        "hold": sum(one.held for one in met) / max(zone, 1),
        "readings": zone,
        "nearest": min((one.nearest for one in drives["approach"]), default=math.inf),
        "nearest_low": min((one.nearest for one in low), default=math.inf),
        "free": len(free),
        "stopped": sum(one.blocked > 0 for one in free),
        "steps": sum(one.steps for one in free),
        "blocked": sum(one.blocked for one in free),
    }


def missed(row: dict[str, Any]) -> list[str]:
    """The bars that a row misses."""
    false = row["stopped"] / max(row["free"], 1)
    over = {
        "stop": row["stop"] > BARS["stop"],
        "hold": row["readings"] > 0 and row["hold"] < BARS["hold"],
        "false": false > BARS["false"],
    }
    return [name for name, wrong in over.items() if wrong]


def table(found: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    from report import rows  # it knows torch, which nothing here needs

    head = ["sensor, noise", "drives (into the zone)", "stands after, at most", "held",
            "nearest of those that drove there", "to low things", "free drives stopped",
            "steps of them", "bars missed"]  # fmt: skip
    lines = [
        [
            f"{row['sensor']}, {row['noise']}",
            f"{row['met']} ({row['entered']})",
            f"{row['stop']:.2f} s",
            f"{row['hold']:.1%} of {row['readings']}",
            f"{row['nearest']:.2f} m",
            f"{row['nearest_low']:.2f} m" if row["sensor"] == "depth" else "",
            f"{row['stopped']} of {row['free']}",
            f"{row['blocked']} of {row['steps']}",
            ", ".join(missed(row)) or "none",
        ]
        for row in found
    ]
    return rows(head, lines)


def homes(count: int, folder: Path) -> list[tuple[HousesEnv, Path]]:
    """Simulators in so many generated homes, whose files are written into ``folder``."""
    found = []
    for number in range(count):
        scene = folder / f"guard_{number}.glb"
        scene.write_bytes(make_home(scene.stem, number).glb)
        found.append((HousesEnv(VIEW, scene=scene, data_dir=folder), scene))
    return found


def main() -> int:
    """Measure, print, and write the table into the docs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=4, help="places of each kind")
    parser.add_argument("--homes", type=int, default=2)
    parser.add_argument("--out", type=Path, help="the figures as JSON")
    parser.add_argument("--no-docs", action="store_true", help="print only")
    args = parser.parse_args()
    from report import put_table, write_json

    with tempfile.TemporaryDirectory() as folder:
        found = measured(homes(args.homes, Path(folder)), args.trials)
    print(text := table(found))
    write_json(args.out, found)
    if not args.no_docs:
        put_table("guard", text, PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())

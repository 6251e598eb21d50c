"""
Views of generated homes with everything known about them: pictures, depth, poses, and what every
patch shows.

They teach and test the encoders of a small network (``training/encoders.py``). Homes are drawn
from seeds of their own, so none of them occurs in any split of episodes; walks go along shortest
paths with some random turns, in the robot's own steps.
"""

import math
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.lib.format import open_memmap
from tqdm import tqdm

from janusvln_ros.actions import FORWARD_STEP_M, TURN_STEP_DEG
from janusvln_ros.camera.variation import CameraDraw, draw_camera, noisy
from janusvln_ros.files import atomic_write
from janusvln_ros.geometry import rotation_of_yaw, tilted
from janusvln_ros.policy.preprocess import patch_grid, resize, resized_shape
from sim_bridge.homes.colours import OBJECT_RGB, WALL_RGB
from sim_bridge.homes.dataset import mapped
from sim_bridge.homes.episodes import furnished
from sim_bridge.homes.furnish import ALL_KINDS, Thing
from sim_bridge.homes.plan import Plan, make_plan
from sim_bridge.homes.routes import RouteMap, bearing, heading
from sim_bridge.nav_env import MAX_DEPTH_M, EnvSettings
from sim_bridge.renderer import thread_renderer
from sim_bridge.scene import Scene, load_scene

SEED_DOMAIN = 0x7E45
"""First word of the seeds of these homes; those of episodes start with other words."""

SURFACES = ("other", "floor", "ceiling", "wall")
NAMES = (
    *(f"what:{name}" for name in SURFACES),
    *(f"what:{kind.name}" for kind in ALL_KINDS),
    "colour:none",
    *(f"colour:wall {name}" for name in WALL_RGB),
    *(f"colour:thing {name}" for name in OBJECT_RGB),
)
"""
What the shares of a patch are: one kind of surface or thing, and one colour, for every pixel.
"""

N_WHAT = len(SURFACES) + len(ALL_KINDS)
WIDTH, HEIGHT = 224, 168
MOST_ROOMS = 9


def draw_home(seed: int, index: int, generator: int = 1) -> tuple[Plan, tuple[Thing, ...], Scene]:
    """Home number ``index`` of these views: its plan, its things, and the scene to render."""
    rng = np.random.default_rng([SEED_DOMAIN, seed, index])
    plan = make_plan(rng, int(rng.integers(4, MOST_ROOMS + 1)))
    plan, things, glb = furnished(rng, plan, generator)
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"views_{seed}_{index}.glb"
        path.write_bytes(glb)
        return plan, things, load_scene(path)


def walk(rng: np.random.Generator, routes: RouteMap, plan: Plan, steps: int) -> np.ndarray:
    """
    Poses float64 [steps, 3] (x, z, yaw) of a robot that walks to random places, with a random turn
    now and then.
    """

    def place() -> np.ndarray:
        while True:
            x0, z0, x1, z1 = plan.rooms[int(rng.integers(len(plan.rooms)))].rect
            point = rng.uniform((x0, z0), (x1, z1))
            if routes.free(point[None])[0]:
                return np.asarray(point)

    position, yaw = place(), float(rng.uniform(-math.pi, math.pi))
    poses: list[tuple[float, float, float]] = []
    path: np.ndarray | None = None
    detour = 0
    turn = math.radians(TURN_STEP_DEG)
    while len(poses) < steps:
        poses.append((position[0], position[1], yaw))
        while path is None or np.linalg.norm(path[-1] - position) < 0.4:
            path = routes.path(position, place())
        if detour == 0 and rng.random() < 0.08:
            detour = int(rng.integers(-6, 7))
        if detour:
            yaw += math.copysign(turn, detour)
            detour -= int(math.copysign(1, detour))
            continue
        path = routes.path(position, path[-1])
        angle = bearing(heading(yaw), path[1] - position) if path is not None else 90.0
        ahead = position + FORWARD_STEP_M * heading(yaw)
        if abs(angle) > TURN_STEP_DEG / 2 or not routes.free(ahead[None])[0]:
            yaw += turn if angle > 0 else -turn
            if abs(angle) <= TURN_STEP_DEG / 2:  # a corner in the way: turn and go on elsewhere
                path = None
        else:
            position = ahead
    return np.array(poses)


def shares_of(
    points_yx3: np.ndarray,
    hit_yx: np.ndarray,
    plan: Plan,
    things: tuple[Thing, ...],
    grid: tuple[int, int],
) -> np.ndarray:
    """
    Share of every patch that shows each of ``NAMES``: uint8 [gh, gw, K] from the world points (x,
    y, z) of a picture's pixels [H, W, 3].
    """
    x, y, z = points_yx3[..., 0], points_yx3[..., 1], points_yx3[..., 2]
    what, colour = np.zeros(x.shape, int), np.zeros(x.shape, int)
    walls, colours = list(WALL_RGB), list(OBJECT_RGB)
    for room in plan.rooms:
        x0, z0, x1, z1 = room.rect
        inside = (x > x0 - 0.03) & (x < x1 + 0.03) & (z > z0 - 0.03) & (z < z1 + 0.03)
        edge = inside & (
            (np.abs(x - x0) < 0.05)
            | (np.abs(x - x1) < 0.05)
            | (np.abs(z - z0) < 0.05)
            | (np.abs(z - z1) < 0.05)
        )
        what[edge], colour[edge] = 3, 1 + walls.index(room.colour)
    floor, ceiling = y < 0.04, y > plan.wall_height - 0.04
    what[floor], what[ceiling] = 1, 2
    colour[floor | ceiling] = 0
    kinds = [kind.name for kind in ALL_KINDS]
    for thing in things:
        x0, z0, x1, z1 = thing.rect
        inside = (
            (x > x0 - 0.02)
            & (x < x1 + 0.02)
            & (z > z0 - 0.02)
            & (z < z1 + 0.02)
            & (y > 0.02)
            & (y < thing.height + 0.03)
        )
        what[inside], colour[inside] = (
            len(SURFACES) + kinds.index(thing.kind),
            1 + len(walls) + colours.index(thing.colour),
        )
    what[~hit_yx] = colour[~hit_yx] = 0
    rows, columns = grid
    # Each patch's pixels side by side, then counted.
    groups = [
        g.reshape(rows, len(g) // rows, columns, -1)
        .transpose(0, 2, 1, 3)
        .reshape(rows, columns, -1)
        for g in (what, colour)
    ]
    counts = [
        (g[..., None] == np.arange(n)).mean(axis=2)
        for g, n in zip(groups, (N_WHAT, len(NAMES) - N_WHAT))
    ]
    return np.round(np.concatenate(counts, axis=-1) * 255).astype(np.uint8)


def see(
    scene: Scene,
    plan: Plan,
    things: tuple[Thing, ...],
    pose: np.ndarray,
    image_width: int,
    camera: CameraDraw,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    A picture at ``image_width`` (uint8 [h, w, 3]), the mean log depth of its patches [gh, gw] and
    their shares, from pose (x, z, yaw) by ``camera``, whose noise ``rng`` draws.
    """
    settings = EnvSettings(width=WIDTH, height=HEIGHT, **camera.mounting)
    tilt = math.radians(settings.tilt)
    eye = np.array([pose[0], settings.camera_height, pose[1]])
    rgb, depth = thread_renderer().render(
        scene,
        eye,
        tilted(rotation_of_yaw(pose[2]), tilt),
        width=WIDTH,
        height=HEIGHT,
        focal_length=settings.focal_length,
    )
    picture = resize(noisy(rgb, camera.picture, rng), image_width)
    rows, columns = patch_grid(*picture.shape[:2])
    # A few pixels of every patch tell enough; the picture is cut to a whole number of them.
    per = max(1, min(HEIGHT // rows, WIDTH // columns) // 4)
    v = (np.arange(rows * per) + 0.5) * HEIGHT / (rows * per)
    u = (np.arange(columns * per) + 0.5) * WIDTH / (columns * per)
    metres = depth[v.astype(int)[:, None], u.astype(int)[None]].astype(float)
    hit = metres > 0
    metres = np.where(hit, np.clip(metres, 0.1, MAX_DEPTH_M), MAX_DEPTH_M)
    right, down = (u - WIDTH / 2) / settings.focal_length, (v - HEIGHT / 2) / settings.focal_length
    forward = heading(pose[2])
    sideways = np.array([-forward[1], forward[0]])
    # Of a ray one metre along the optical axis.
    ahead = math.cos(tilt) - math.sin(tilt) * down[:, None]
    sink = math.sin(tilt) + math.cos(tilt) * down[:, None]
    points = np.stack(
        [
            pose[0] + metres * (ahead * forward[0] + right[None] * sideways[0]),
            eye[1] - metres * sink,
            pose[1] + metres * (ahead * forward[1] + right[None] * sideways[1]),
        ],
        axis=-1,
    )
    log_depth = np.log(metres).reshape(rows, per, columns, per).mean(axis=(1, 3))
    return picture, log_depth, shares_of(points, hit, plan, things, (rows, columns))


def make_views(
    folder: str | Path,
    *,
    homes: int,
    walks: int,
    steps: int,
    image_width: int,
    seed: int = 0,
    first_home: int = 0,
    generators: Sequence[int] = (1,),
    vary_camera: bool = False,
    jobs: int = 1,
) -> None:
    """
    Write ``walks`` walks of ``steps`` frames through each of ``homes`` homes into ``folder`` (see
    ``training.encoders.Views``).

    Homes are drawn by each of ``generators`` in turn; with ``vary_camera`` every walk has a camera
    of its own (`draw_camera`), else all have the published one. ``jobs``: processes; they change
    nothing of the views.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    height, width = resized_shape(HEIGHT, WIDTH, image_width)
    grid, total = patch_grid(height, width), homes * walks
    shapes = {
        "frames": ((height, width, 3), np.uint8),
        "depth": (grid, np.float16),
        "poses": ((3,), np.float32),
        "cameras": ((3,), np.float32),
        "shares": ((*grid, len(NAMES)), np.uint8),
    }
    arrays = {
        name: open_memmap(
            folder / f".{name}.tmp.npy", mode="w+", dtype=kind, shape=(total, steps, *shape)
        )
        for name, (shape, kind) in shapes.items()
    }
    draw = partial(
        _walks,
        seed=seed,
        generators=tuple(generators),
        walks=walks,
        steps=steps,
        image_width=image_width,
        vary_camera=vary_camera,
    )
    with mapped(draw, range(first_home, first_home + homes), jobs) as drawn:
        walked = tqdm(chain.from_iterable(drawn), total=total, desc="views", mininterval=5)
        for row, frames in enumerate(walked):
            for name, values in zip(arrays, frames):
                arrays[name][row] = values
    for name, array in arrays.items():
        array.flush()
        (folder / f".{name}.tmp.npy").rename(folder / f"{name}.npy")
    atomic_write(folder / "names.txt", "\n".join(NAMES))


def _walks(
    index: int,
    *,
    seed: int,
    generators: Sequence[int],
    walks: int,
    steps: int,
    image_width: int,
    vary_camera: bool,
) -> list[tuple[np.ndarray, ...]]:
    """Frames, depths, poses, cameras and shares of every walk through home ``index``."""
    plan, things, scene = draw_home(seed, index, generators[index % len(generators)])
    routes = RouteMap(plan, things, clearance=0.2)
    rng = np.random.default_rng([SEED_DOMAIN, seed, index, 1])
    camera_rng = np.random.default_rng([SEED_DOMAIN, seed, index, 2])
    seen: list[tuple[np.ndarray, ...]] = []
    for _ in range(walks):
        poses = walk(rng, routes, plan, steps)
        camera = draw_camera(camera_rng) if vary_camera else CameraDraw()
        frames = [
            see(scene, plan, things, pose, image_width, camera, camera_rng) for pose in poses
        ]
        seen.append(
            (
                np.stack([frame[0] for frame in frames]),
                np.stack([frame[1] for frame in frames]),
                poses,
                np.tile((camera.height, camera.tilt, camera.hfov), (steps, 1)),
                np.stack([frame[2] for frame in frames]),
            )
        )
    return seen

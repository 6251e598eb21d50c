"""
A generated home from above: rooms, openings, furniture by colour, and the route of an episode.
"""

from collections.abc import Callable
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np

from janusvln_ros.data.episodes import Episode, scene_name
from janusvln_ros.errors import require
from janusvln_ros.files import atomic_path
from janusvln_ros.geometry import yaw_of_rotation
from sim_bridge.homes.colours import OBJECT_RGB, WALL_RGB
from sim_bridge.homes.dataset import home_drawn_as
from sim_bridge.homes.episodes import Home, make_home, room_name
from sim_bridge.homes.plan import Rect
from sim_bridge.homes.routes import heading

PIXELS_PER_METRE = 70


def draw_episode(data_dir: str | Path, episode: Episode, path: str | Path) -> None:
    """
    Draw the home of a generated ``episode`` from above (x to the right, z down), its things, its
    route in black and its instruction, as a PNG.

    Raises:
        InputError: the episode is not one of generated houses, or ``path`` is no ``.png``.
    """
    from PIL import Image, ImageDraw

    require(
        "house_seed" in episode.info,
        f"episode {episode.episode_id} has no house_seed: only episodes of "
        "'janusvln houses' can be drawn from their plan",
    )
    require(
        Path(path).suffix.lower() == ".png",
        f"{path} is no picture this command writes: give a name ending in .png",
    )
    name = scene_name(episode.scene_id)
    rooms, generator = home_drawn_as(data_dir, name)
    home = make_home(name, int(episode.info["house_seed"]), rooms, generator)
    x0, z0, x1, z1 = home.plan.outline
    width, height = round((x1 - x0) * PIXELS_PER_METRE), round((z1 - z0) * PIXELS_PER_METRE)
    lines = wrap(episode.instruction, max(20, int((x1 - x0) * PIXELS_PER_METRE / 6.6)))
    size = width, height + 14 * len(lines) + 6
    image = Image.new("RGB", size, (255, 255, 255))
    draw = ImageDraw.Draw(image)

    def pixel(x: float, z: float) -> tuple[float, float]:
        return (x - x0) * PIXELS_PER_METRE, (z - z0) * PIXELS_PER_METRE

    _draw_home(draw, home, pixel)
    route = [pixel(p[0], p[2]) for p in episode.reference_path]
    draw.line(route, fill=(0, 0, 0), width=3)
    x, _, z = episode.start_position
    ahead = np.array([x, z]) + 0.45 * heading(yaw_of_rotation(episode.start_rotation))
    draw.line([pixel(x, z), pixel(*ahead)], fill=(220, 0, 0), width=4)
    for (u, v), colour in ((route[0], (220, 0, 0)), (route[-1], (0, 0, 0))):
        draw.ellipse([u - 7, v - 7, u + 7, v + 7], fill=colour)
    for i, line in enumerate(lines):
        draw.text((4, size[1] - 14 * (len(lines) - i) - 2), line, fill=(0, 0, 0))
    with atomic_path(path) as temporary:
        image.save(temporary)


def _draw_home(draw: Any, home: Home, pixel: Callable[..., tuple[float, float]]) -> None:
    """Draw rooms, openings and things with Pillow; ``pixel``: of a point (x, z)."""

    def box(rect: Rect) -> list[tuple[float, float]]:
        return [pixel(rect[0], rect[1]), pixel(rect[2], rect[3])]

    draw.rectangle(box(home.plan.outline), fill=(60, 60, 60))
    for room in home.plan.rooms:
        pale = tuple(round(0.55 * c + 0.45 * 255) for c in WALL_RGB[room.colour])
        draw.rectangle(box(room.rect), fill=pale, outline=WALL_RGB[room.colour], width=5)
        corner = pixel(room.rect[0] + 0.12, room.rect[1] + 0.1)
        draw.text(corner, room_name(home.plan, room.index), fill=(0, 0, 0))
    for door in home.plan.doors:
        dx, dz = (door.width / 2, 0.08) if door.along_x else (0.08, door.width / 2)
        x, z = door.centre
        draw.rectangle(box((x - dx, z - dz, x + dx, z + dz)), fill=(255, 255, 255))
    for thing in home.things:
        draw.rectangle(box(thing.rect), fill=OBJECT_RGB[thing.colour], outline=(40, 40, 40))
        draw.text(pixel(thing.rect[0], thing.rect[3] + 0.02), thing.kind, fill=(0, 0, 0))
        front = thing.centre + 0.2 * np.array(thing.facing)
        draw.line([pixel(*thing.centre), pixel(*front)], fill=(128, 128, 128), width=2)

"""
A generated home from above: rooms, openings, furniture by colour, and the route of an episode.
"""

from pathlib import Path

import numpy as np

from janusvln_ros.data.episodes import Episode, scene_name
from janusvln_ros.errors import InputError
from janusvln_ros.files import atomic_path
from sim_bridge.homes.colours import OBJECT_RGB, WALL_RGB
from sim_bridge.homes.dataset import scene_rooms
from sim_bridge.homes.episodes import make_home
from sim_bridge.homes.plan import Rect

PIXELS_PER_METRE = 70


def draw_episode(data_dir: str | Path, episode: Episode, path: str | Path) -> None:
    """
    Draw the home of a generated ``episode`` from above (x to the right, z down), its things, its
    route in black and its instruction, as a PNG.

    Raises:
        InputError: the episode is not one of generated houses, or ``path`` is no ``.png``.
    """
    from PIL import Image, ImageDraw

    if "house_seed" not in episode.info:
        raise InputError(
            f"episode {episode.episode_id} has no house_seed: only episodes of "
            "'janusvln houses' can be drawn from their plan"
        )
    if Path(path).suffix.lower() != ".png":
        raise InputError(f"{path} is no picture this command writes: give a name ending in .png")
    name = scene_name(episode.scene_id)
    home = make_home(name, int(episode.info["house_seed"]), scene_rooms(data_dir, name))
    x0, z0, x1, z1 = home.plan.outline

    def pixel(x: float, z: float) -> tuple[float, float]:
        return (x - x0) * PIXELS_PER_METRE, (z - z0) * PIXELS_PER_METRE

    def box(rect: Rect) -> list[tuple[float, float]]:
        return [pixel(rect[0], rect[1]), pixel(rect[2], rect[3])]

    lines = _wrapped(episode.instruction, max(20, int((x1 - x0) * PIXELS_PER_METRE / 6.6)))
    size = (
        round((x1 - x0) * PIXELS_PER_METRE),
        round((z1 - z0) * PIXELS_PER_METRE) + 14 * len(lines) + 6,
    )
    image = Image.new("RGB", size, (255, 255, 255))
    draw = ImageDraw.Draw(image)
    draw.rectangle(box(home.plan.outline), fill=(60, 60, 60))
    for room in home.plan.rooms:
        pale = tuple(round(0.55 * c + 0.45 * 255) for c in WALL_RGB[room.colour])
        draw.rectangle(box(room.rect), fill=pale, outline=WALL_RGB[room.colour], width=5)
        draw.text(
            pixel(room.rect[0] + 0.12, room.rect[1] + 0.1),
            room.colour + (" hallway" if room.hallway else " room"),
            fill=(0, 0, 0),
        )
    for door in home.plan.doors:
        dx, dz = (door.width / 2, 0.08) if door.along_x else (0.08, door.width / 2)
        draw.rectangle(
            box(
                (
                    door.centre[0] - dx,
                    door.centre[1] - dz,
                    door.centre[0] + dx,
                    door.centre[1] + dz,
                )
            ),
            fill=(255, 255, 255),
        )
    for thing in home.things:
        draw.rectangle(box(thing.rect), fill=OBJECT_RGB[thing.colour], outline=(40, 40, 40))
        front = np.array(
            [(thing.rect[0] + thing.rect[2]) / 2, (thing.rect[1] + thing.rect[3]) / 2]
        ) + 0.2 * np.array(thing.facing)
        draw.text(pixel(thing.rect[0], thing.rect[3] + 0.02), thing.kind, fill=(0, 0, 0))
        draw.line(
            [
                pixel((thing.rect[0] + thing.rect[2]) / 2, (thing.rect[1] + thing.rect[3]) / 2),
                pixel(*front),
            ],
            fill=(128, 128, 128),
            width=2,
        )
    route = [pixel(p[0], p[2]) for p in episode.reference_path]
    draw.line(route, fill=(0, 0, 0), width=3)
    yaw = 2 * np.arctan2(episode.start_rotation[1], episode.start_rotation[3])
    sx, _, sz = episode.start_position
    draw.line(
        [pixel(sx, sz), pixel(sx - 0.45 * np.sin(yaw), sz - 0.45 * np.cos(yaw))],
        fill=(220, 0, 0),
        width=4,
    )
    for (px, pz), colour in ((route[0], (220, 0, 0)), (route[-1], (0, 0, 0))):
        draw.ellipse([px - 7, pz - 7, px + 7, pz + 7], fill=colour)
    for i, line in enumerate(lines):
        draw.text((4, size[1] - 14 * (len(lines) - i) - 2), line, fill=(0, 0, 0))
    with atomic_path(path) as temporary:
        image.save(temporary)


def _wrapped(text: str, width: int) -> list[str]:
    """``text`` in lines of at most ``width`` characters."""
    import textwrap

    return textwrap.wrap(text, width)

"""
The ``.glb`` of a home of generator 2: its surfaces and things with patterns and baked light, all
on one sheet of texture.

What language names stays as it is named: the walls have the colour of their room, and the part of
a thing that carries its colour is large. Everything else is drawn for each home: light, patterns,
wainscots, windows, curtains, pictures, rugs, clutter, door leaves and the designs of the things.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from sim_bridge.homes import atlas
from sim_bridge.homes.colours import OBJECT_RGB, WALL_RGB
from sim_bridge.homes.designs import DESIGNS, Books, Box, Drum, Spot
from sim_bridge.homes.furnish import KIND, Thing
from sim_bridge.homes.gltf import Part, glb_bytes, triangulated
from sim_bridge.homes.light import Light, corner, floor_shadows, room_light, shadow
from sim_bridge.homes.mesh import SIDES, SLAB_M, Vector
from sim_bridge.homes.plan import WALL_THICKNESS_M, Door, Plan, Rect, Room, Wall
from sim_bridge.homes.textures import (
    FLOORS,
    WALLS,
    book_spines,
    dull,
    floor_pattern,
    noise,
    strip_pattern,
    wall_pattern,
)

TEXELS_PER_M = 40.0
MOST_TEXELS = 900_000
COARSE_M = 0.08
"""Distance of the places at which the light on a surface is worked out, metres."""

DARKEST, BRIGHTEST, STRIP = 0.3, 1.3, (16, 24)
"""Brightness in the first and last row of a strip of paint, and its rows and columns."""

Colour = np.ndarray
"""RGB, float [3] from 0 to 255."""

PAINTS: dict[str, tuple[int, int, int]] = {
    "wood": (128, 88, 54),
    "metal": (140, 143, 148),
    "brass": (176, 140, 70),
    "pillow": (236, 234, 228),
    "white": (238, 238, 236),
    "black": (26, 26, 28),
    "screen": (38, 46, 60),
    "glass": (176, 192, 200),
    "water": (176, 208, 216),
    "leaf": (52, 112, 46),
    "fire": (246, 140, 30),
    "hand": (110, 110, 110),
}
"""Paints that are no thing's own colour."""

GLOWING = {"glow", "fire"}
TRIMS = ((236, 236, 232), (216, 206, 186), (58, 50, 46), (178, 144, 104), (112, 112, 116))
FLOOR_RGB = (
    (150, 118, 84),
    (172, 150, 122),
    (104, 74, 52),
    (160, 158, 152),
    (120, 126, 132),
    (196, 184, 164),
    (84, 82, 84),
    (176, 128, 86),
    (134, 142, 128),
    (148, 116, 112),
)
WOODEN = {"wardrobe", "shelf", "clock", "cabinet", "table", "desk", "piano", "box", "barrel"}
WOVEN = {"sofa", "bed", "chair", "coat rack", "stool"}


@dataclass(frozen=True)
class Style:
    """What the rooms of a home have in common."""

    trim: Colour
    leaf: Colour
    ceiling: Colour
    floors: tuple[str, ...]
    walls: tuple[str, ...]
    saturation: float
    level: float
    wainscots: float
    pictures: float
    clutter: float
    curtains: float
    rugs: float
    day: bool


def _draw_style(rng: np.random.Generator) -> Style:
    trims = np.array(TRIMS, float)
    ceilings = np.array(
        [(244, 243, 240), (236, 232, 222), (226, 230, 234), (186, 160, 128)], float
    )
    return Style(
        trim=trims[rng.integers(len(trims))],
        leaf=np.array([*TRIMS, (128, 92, 62)], float)[rng.integers(len(trims) + 1)],
        ceiling=ceilings[rng.choice(4, p=[0.4, 0.3, 0.2, 0.1])],
        floors=tuple(rng.choice(FLOORS, 2, replace=False).tolist()),
        walls=tuple(rng.choice(WALLS, 3, replace=False).tolist()),
        saturation=float(rng.uniform(0.75, 1.15)),
        level=float(rng.uniform(0.8, 1.06)),
        wainscots=float(rng.choice([0.0, 0.0, 0.4, 0.8])),
        pictures=float(rng.uniform(0.0, 0.9)),
        clutter=float(rng.uniform(0.0, 1.0)),
        curtains=float(rng.uniform(0.0, 1.0)),
        rugs=float(rng.uniform(0.0, 0.8)),
        day=bool(rng.random() < 0.75),
    )


def shaded_glb(rng: np.random.Generator, plan: Plan, things: Sequence[Thing]) -> bytes:
    """The ``.glb`` of a furnished home; ``rng`` draws what has no name."""
    style = _draw_style(rng)
    area = sum(_room_area(plan, room) for room in plan.rooms)
    mesh = Shaded(rng, min(TEXELS_PER_M, float(np.sqrt(MOST_TEXELS / area))))
    for room in plan.rooms:
        windows = _windows(rng, plan, room)
        # Light comes from a little before the glass.
        shining = [_before(wall, at, 1.6, 0.4) for wall, at in windows] if style.day else []
        level = float(np.clip(style.level * rng.uniform(0.86, 1.14), 0.74, 1.12))
        light = room_light(rng, plan, room, level, shining)
        mesh.lights.append(light)
        inside = [t for t in things if t.room == room.index]
        _floor(mesh, rng, style, room, inside, light)
        _ceiling(mesh, plan, style, room, light)
        _walls(mesh, rng, plan, style, room, inside, windows)
        for thing in inside:
            _thing(mesh, rng, style, thing)
    for door in plan.doors:
        _opening(mesh, plan, door, style.trim)
    for leaf in plan.leaves:
        x0, z0, x1, z1 = leaf.rect
        paint = mesh.paint(style.leaf, leaf.room)
        mesh.box((x0, 0.01, z0), (x1, plan.door_height - 0.03, z1), paint, leaf.room)
        _handles(mesh, leaf.rect, leaf.room)
    x0, z0, x1, z1 = plan.outline
    mesh.slab((x0, -SLAB_M, z0), (x1, 0.0, z1))
    return mesh.glb()


class Shaded:
    """
    Polygons with places in pictures, and polygons of one paint that are lit when all are there.
    """

    def __init__(self, rng: np.random.Generator, per_m: float) -> None:
        self.rng, self.per_m = rng, per_m
        self.lights: list[Light] = []
        self._pictures: list[np.ndarray] = []
        self._quads: list[tuple[Sequence[Vector], int, Sequence[Sequence[float]]]] = []
        self._painted: list[tuple[Sequence[Vector], int, int, float]] = []

    def picture(self, image: np.ndarray) -> int:
        """Add a picture (float [h, w, 3], 0 to 255) and return its number."""
        self._pictures.append(np.clip(np.rint(image), 0, 255).astype(np.uint8))
        return len(self._pictures) - 1

    def quad(
        self,
        corners: Sequence[Vector],
        picture: int,
        texels: Sequence[Sequence[float]],
    ) -> None:
        """A polygon with the places of its corners in a picture, in texels."""
        self._quads.append((corners, picture, texels))

    def paint(self, rgb: Colour, room: int, style: str = "plain") -> int:
        """A strip of paint under the light of a room, dark to bright, and its number."""
        shades = np.linspace(DARKEST, BRIGHTEST, STRIP[0])[:, None, None]
        pattern = strip_pattern(self.rng, style, STRIP)
        return self.picture(np.asarray(rgb) * self.lights[room].tint * shades * pattern)

    def painted(self, corners: Sequence[Vector], paint: int, room: int, shade: float) -> None:
        """A polygon of one paint; ``shade``: a factor to its light, below 0 if it glows itself."""
        self._painted.append((corners, paint, room, shade))

    def box(
        self,
        low: Sequence[float],
        high: Sequence[float],
        paint: int,
        room: int,
        shade: float = 1.0,
    ) -> None:
        """A box; its underside shows where it hangs above the floor."""
        ends = low, high
        for side, corners in SIDES:
            face = [(ends[i][0], ends[j][1], ends[k][2]) for i, j, k in corners]
            self.painted(face, paint, room, shade * (0.5 + side / 2))
        (x0, y0, z0), (x1, y1, z1) = ends
        self.painted([(x0, y1, z1), (x1, y1, z1), (x1, y1, z0), (x0, y1, z0)], paint, room, shade)
        if y0 > 0.05:
            under = [(x0, y0, z0), (x1, y0, z0), (x1, y0, z1), (x0, y0, z1)]
            self.painted(under, paint, room, shade * 0.7)

    def drum(
        self,
        centre: Sequence[float],
        y: tuple[float, float],
        radius: tuple[float, float],
        sides: int,
        paint: int,
        room: int,
        shade: float = 1.0,
    ) -> None:
        """An upright round part, closed above, and below where it hangs above the floor."""
        angles = (np.arange(sides + 1) + 0.5) * (2 * np.pi / sides)
        unit = np.stack([np.cos(angles), -np.sin(angles)], axis=1)
        low, high = (
            [(centre[0] + r * c, h, centre[1] + r * s) for c, s in unit.tolist()]
            for h, r in zip(y, radius)
        )
        for i in range(sides):
            self.painted([low[i], low[i + 1], high[i + 1], high[i]], paint, room, shade)
            top = [(centre[0], y[1], centre[1]), high[i], high[i + 1]]
            self.painted(top, paint, room, shade)
            if y[0] > 0.05:
                under = [(centre[0], y[0], centre[1]), low[i + 1], low[i]]
                self.painted(under, paint, room, shade * 0.7)

    def slab(self, low: Sequence[float], high: Sequence[float]) -> None:
        """The sides and the underside of the floor."""
        grey = self.picture(np.full((4, 4, 3), 118.0))
        ends = low, high
        for _, corners in SIDES:
            face = [(ends[i][0], ends[j][1], ends[k][2]) for i, j, k in corners]
            self.quad(face, grey, [(2, 2)] * 4)
        (x0, y, z0), (x1, _, z1) = ends
        self.quad([(x0, y, z0), (x1, y, z0), (x1, y, z1), (x0, y, z1)], grey, [(2, 2)] * 4)

    def glb(self) -> bytes:
        """Light the paints, lay out the sheet and write the file."""
        sheet, at = atlas.pack(self._pictures)
        size = np.array(sheet.shape[1::-1], float)
        corners = [c for c, *_ in self._quads]
        uv = [((np.array(t) + at[p]) / size).tolist() for _, p, t in self._quads]
        if self._painted:
            corners += [c for c, *_ in self._painted]
            uv += self._lit(at, size)
        return glb_bytes(
            [Part("home", atlas.jpeg_bytes(sheet), *triangulated(list(zip(corners, uv))))]
        )

    def _lit(self, at: np.ndarray, size: np.ndarray) -> list[list[list[float]]]:
        """Places on the sheet of the corners of the painted polygons."""
        padded = np.array([[*c, c[-1]][:4] for c, *_ in self._painted], np.float64)
        paints, rooms = (np.array([p[i] for p in self._painted]) for i in (1, 2))
        shades = np.array([p[3] for p in self._painted])
        normals = np.cross(padded[:, 1] - padded[:, 0], padded[:, 2] - padded[:, 0])
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        bright = np.zeros(padded.shape[:2])
        for room, light in enumerate(self.lights):
            here = rooms == room
            bright[here] = light.at(padded[here], normals[here][:, None])
        near_floor = corner(padded[..., 1], 0.3, 0.25)
        bright = np.where(shades[:, None] < 0, 1.15, bright * near_floor * shades[:, None])
        row = (np.clip(bright, DARKEST, BRIGHTEST) - DARKEST) / (BRIGHTEST - DARKEST)
        v = 0.5 + row * (STRIP[0] - 1)
        # As wide a part of the pattern as the face is long, 8 texels to a metre or so.
        across = np.linalg.norm(padded[:, 1] - padded[:, 0], axis=1)
        start = 1 + 7 * (np.arange(len(padded)) % 3) / 2
        stop = np.minimum(start + np.clip(12 * across, 2, 14), STRIP[1] - 1)
        u = np.stack([start, stop, stop, start], axis=1)
        places = (np.stack([u, v], axis=2) + at[paints][:, None]) / size
        return [p[: len(c)].tolist() for p, (c, *_) in zip(places, self._painted)]


def _room_area(plan: Plan, room: Room) -> float:
    """Square metres of floor and walls."""
    x0, z0, x1, z1 = room.rect
    return (x1 - x0) * (z1 - z0) + 2 * (x1 - x0 + z1 - z0) * plan.wall_height


def _before(wall: Wall, along: float, y: float, out: float) -> tuple[float, float, float]:
    """A point before a wall."""
    across = wall.at + wall.normal * out
    return (along, y, across) if wall.along_x else (across, y, along)


def _jittered(
    rng: np.random.Generator, rgb: Sequence[int], name: str, saturation: float
) -> Colour:
    """A colour a little different each time; white, grey and black stay without hue."""
    plain = name in ("white", "grey", "black")
    colour = np.array(rgb, float) + rng.uniform(-9, 9, 1 if plain else 3)
    grey = colour.mean()
    return np.clip(grey + (colour - grey) * (1.0 if plain else saturation), 0, 255)


# ---------------------------------------------------------------- surfaces


def _floor(
    mesh: Shaded,
    rng: np.random.Generator,
    style: Style,
    room: Room,
    things: Sequence[Thing],
    light: Light,
) -> None:
    """The floor of a room with its rug and the shadows of what stands on it."""
    x0, z0, x1, z1 = room.rect
    shape = round((z1 - z0) * mesh.per_m), round((x1 - x0) * mesh.per_m)
    colour = np.array(FLOOR_RGB[int(rng.integers(len(FLOOR_RGB)))]) * rng.uniform(0.85, 1.1)
    kind = style.floors[int(rng.random() < 0.35)]
    image = colour * floor_pattern(rng, kind, shape, mesh.per_m)
    if not room.hallway and rng.random() < style.rugs:
        _rug(rng, image, mesh.per_m)
    coarse = max(2, round((z1 - z0) / COARSE_M)), max(2, round((x1 - x0) / COARSE_M))
    z = (z0 + (np.arange(coarse[0]) + 0.5) * (z1 - z0) / coarse[0])[:, None]
    x = (x0 + (np.arange(coarse[1]) + 0.5) * (x1 - x0) / coarse[1])[None]
    points = np.stack([x + 0 * z, np.zeros(coarse), z + 0 * x], axis=-1)
    lit = light.at(points, np.array([0.0, 1.0, 0.0])) * floor_shadows(x, z, things, light)
    for distance in (x - x0, x1 - x, z - z0, z1 - z):
        lit = lit * corner(distance, 0.22, 0.18)
    picture = mesh.picture(image * _smooth(lit, shape) * light.tint)
    corners = [(x0, 0.0, z1), (x1, 0.0, z1), (x1, 0.0, z0), (x0, 0.0, z0)]
    mesh.quad(corners, picture, [(0, shape[0]), shape[::-1], (shape[1], 0), (0, 0)])


def _smooth(lit: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Light at coarse places as factors [H, W, 1]."""
    lit = np.asarray(lit, np.float32)
    return np.asarray(cv2.resize(lit, shape[::-1], interpolation=cv2.INTER_LINEAR))[..., None]


def _rug(rng: np.random.Generator, image: np.ndarray, per_m: float) -> None:
    """A rug in dull colours, square or oval, in the middle of a floor."""
    high, wide = (n * float(rng.uniform(0.35, 0.7)) for n in image.shape[:2])
    row, column = (
        (n - size) * float(rng.uniform(0.25, 0.75)) for n, size in zip(image.shape, (high, wide))
    )
    y, x = np.ogrid[: image.shape[0], : image.shape[1]]
    v, u = (y - row - high / 2) / (high / 2), (x - column - wide / 2) / (wide / 2)
    oval = rng.random() < 0.3
    out = np.sqrt(u * u + v * v) if oval else np.maximum(abs(u), abs(v))
    body, edge = dull(rng), dull(rng)
    tuft = 1 + noise(rng, image.shape[:2], (1.5, 1.5), 0.05)[..., None]
    if rng.random() < 0.4:
        tuft = tuft * np.where((x // max(2, round(0.12 * per_m))) % 2, 1.0, 0.8)[..., None]
    image[:] = np.where((out < 1)[..., None], edge, image)
    image[:] = np.where((out < 0.86)[..., None], body * tuft, image)


def _ceiling(mesh: Shaded, plan: Plan, style: Style, room: Room, light: Light) -> None:
    """The ceiling of a room, with the disc of its lamp."""
    x0, z0, x1, z1 = room.rect
    y = plan.wall_height
    shape = max(2, round((z1 - z0) * 8)), max(2, round((x1 - x0) * 8))
    z = (z0 + (np.arange(shape[0]) + 0.5) * (z1 - z0) / shape[0])[:, None]
    x = (x0 + (np.arange(shape[1]) + 0.5) * (x1 - x0) / shape[1])[None]
    points = np.stack([x + 0 * z, np.full(shape, y), z + 0 * x], axis=-1)
    lit = light.at(points, np.array([0.0, -1.0, 0.0]))
    for distance in (x - x0, x1 - x, z - z0, z1 - z):
        lit = lit * corner(distance, 0.2, 0.25)
    picture = mesh.picture(style.ceiling * np.clip(lit, 0.4, 1.05)[..., None] * light.tint)
    corners = [(x0, y, z0), (x1, y, z0), (x1, y, z1), (x0, y, z1)]
    mesh.quad(corners, picture, [(0, 0), (shape[1], 0), shape[::-1], (0, shape[0])])
    lamp = light.sources[0]
    glow = mesh.paint(np.array([250.0, 246.0, 232.0]), room.index)
    mesh.drum((lamp[0], lamp[2]), (y - 0.07, y - 0.01), (0.14, 0.18), 8, glow, room.index, -1.0)


def _windows(rng: np.random.Generator, plan: Plan, room: Room) -> list[tuple[Wall, float]]:
    """The outer walls of a room that have a window, and where along them."""
    found = []
    for wall in room.walls:
        wide = wall.high - wall.low
        if _faces_out(plan, wall) and not room.hallway and wide > 2.4 and rng.random() < 0.6:
            found.append((wall, float(rng.uniform(wall.low + 1.1, wall.high - 1.1))))
    return found


def _faces_out(plan: Plan, wall: Wall) -> bool:
    """Whether the other side of a wall is the outside of the house."""
    x0, z0, x1, z1 = plan.outline
    low, high = (z0, z1) if wall.along_x else (x0, x1)
    behind = wall.at - wall.normal * WALL_THICKNESS_M / 2
    return abs(behind - (low if wall.normal > 0 else high)) < WALL_THICKNESS_M


class Canvas:
    """The picture of a wall, painted on in metres along it and above the floor."""

    def __init__(self, image: np.ndarray, per_m: float, low: float, height: float) -> None:
        self.image, self.per_m, self.low, self.height = image, per_m, low, height

    def part(self, a: float, b: float, y0: float, y1: float) -> np.ndarray:
        """The texels of a rectangle."""
        rows, columns = self.image.shape[:2]
        u0, u1 = (round((at - self.low) * self.per_m) for at in (a, b))
        v0, v1 = (round((self.height - at) * self.per_m) for at in (y1, y0))
        return self.image[
            min(max(v0, 0), rows - 1) : max(v1, v0 + 1, 1),
            min(max(u0, 0), columns - 1) : max(u1, u0 + 1, 1),
        ]


def _walls(
    mesh: Shaded,
    rng: np.random.Generator,
    plan: Plan,
    style: Style,
    room: Room,
    things: Sequence[Thing],
    windows: Sequence[tuple[Wall, float]],
) -> None:
    """The walls of a room, each a picture that its faces show a part of."""
    colour = _jittered(rng, WALL_RGB[room.colour], room.colour, style.saturation)
    pattern = style.walls[int(rng.integers(len(style.walls)))]
    wainscot = float(rng.uniform(0.7, 1.05)) if rng.random() < style.wainscots else 0.0
    lower = style.trim if rng.random() < 0.6 and style.trim.mean() > 180 else colour * 0.68
    height, per_m, light = plan.wall_height, mesh.per_m, mesh.lights[room.index]
    for wall in room.walls:
        shape = round(height * per_m), round((wall.high - wall.low) * per_m)
        canvas = Canvas(colour * wall_pattern(rng, pattern, shape, per_m), per_m, wall.low, height)
        if wainscot:
            part = canvas.part(wall.low, wall.high, 0.0, wainscot)
            part[:] = lower * wall_pattern(rng, "boards", part.shape[:2], per_m)
            canvas.part(wall.low, wall.high, wainscot, wainscot + 0.05)[:] = style.trim
        holes = plan.openings(room, wall)
        taken = [(a - 0.15, b + 0.15) for a, b in holes]
        for other, middle in windows:
            if other == wall:
                _window(rng, canvas, style, middle)
                taken.append((middle - 1.1, middle + 1.1))
        _wall_pictures(rng, canvas, style, wall, taken)
        canvas.part(wall.low, wall.high, 0.0, 0.09)[:] = style.trim
        for a, b in holes:
            # The frame is painted on the wall: it takes nothing from the opening.
            canvas.part(a - 0.09, b + 0.09, 0.0, plan.door_height + 0.09)[:] = style.trim
        lit = _wall_light(light, wall, height, things)
        picture = mesh.picture(canvas.image * _smooth(lit, shape) * light.tint)
        edges = [wall.low, *[e for hole in holes for e in hole], wall.high]
        faces = [(a, b, 0.0, height) for a, b in zip(edges[::2], edges[1::2]) if b - a > 1e-6]
        for a, b, y0, y1 in [*faces, *((a, b, plan.door_height, height) for a, b in holes)]:
            places = [(a, y0), (b, y0), (b, y1), (a, y1)]
            if wall.along_x != (wall.normal > 0):
                places = places[::-1]
            texels = [((at - wall.low) * per_m, (height - y) * per_m) for at, y in places]
            mesh.quad([_before(wall, at, y, 0.0) for at, y in places], picture, texels)


def _wall_light(light: Light, wall: Wall, height: float, things: Sequence[Thing]) -> np.ndarray:
    """Brightness of a wall at coarse places, from its top left."""
    long = wall.high - wall.low
    shape = max(2, round(height / COARSE_M)), max(2, round(long / COARSE_M))
    along = (wall.low + (np.arange(shape[1]) + 0.5) * long / shape[1])[None]
    y = (height * (1 - (np.arange(shape[0]) + 0.5) / shape[0]))[:, None]
    across = np.full(shape, wall.at)
    planes = [along + 0 * y, y + 0 * along, across]
    points = np.stack(planes if wall.along_x else planes[::-1], axis=-1)
    normal = np.array([0.0, 0.0, wall.normal] if wall.along_x else [wall.normal, 0.0, 0.0])
    lit = light.at(points, normal) * corner(y, 0.22, 0.2) * corner(height - y, 0.15, 0.25)
    lit = lit * corner(along - wall.low, 0.18, 0.2) * corner(wall.high - along, 0.18, 0.2)
    axis, side = (0, 1) if wall.along_x else (1, 0)
    for thing in things:
        near = min(abs(thing.rect[side] - wall.at), abs(thing.rect[side + 2] - wall.at))
        if near < 0.15:
            behind = (thing.rect[axis] - 0.06, -0.5, thing.rect[axis + 2] + 0.06, thing.height)
            lit = lit * shadow(along, y, behind, 0.3, 0.3)
    return np.asarray(lit)


def _window(rng: np.random.Generator, canvas: Canvas, style: Style, middle: float) -> None:
    """A window with what is outside, and its curtains."""
    half, low, high = float(rng.uniform(0.45, 0.75)), float(rng.uniform(0.8, 1.05)), 2.05
    canvas.part(middle - half - 0.07, middle + half + 0.07, low - 0.07, high + 0.07)[:] = (
        style.trim
    )
    glass = canvas.part(middle - half, middle + half, low, high)
    sky, ground = ((206, 226, 246), (150, 172, 142)) if style.day else ((26, 32, 52), (14, 16, 22))
    share = np.linspace(0, 1, glass.shape[0])[:, None, None] ** 2
    glass[:] = np.array(sky) * (1 - share) + np.array(ground) * share
    if rng.random() < 0.7:
        canvas.part(middle - 0.02, middle + 0.02, low, high)[:] = style.trim
    if rng.random() < 0.4:
        canvas.part(middle - half, middle + half, 1.5, 1.54)[:] = style.trim
    if rng.random() < style.curtains:
        cloth, bottom = dull(rng), 0.1 if rng.random() < 0.5 else low - 0.1
        for a, b in (
            (middle - half - 0.25, middle - half + 0.1),
            (middle + half - 0.1, middle + half + 0.25),
        ):
            part = canvas.part(a, b, bottom, high + 0.15)
            folds = 1 + 0.14 * np.sin(np.arange(part.shape[1]) * 1.9 + rng.uniform(0, 6))
            part[:] = cloth * folds[None, :, None]


def _wall_pictures(
    rng: np.random.Generator,
    canvas: Canvas,
    style: Style,
    wall: Wall,
    taken: list[tuple[float, float]],
) -> None:
    """Framed pictures where the wall is free."""
    for _ in range(2):
        half, tall = float(rng.uniform(0.15, 0.45)), float(rng.uniform(0.15, 0.35))
        if rng.random() >= style.pictures or wall.high - wall.low < 2 * half + 0.4:
            continue
        middle = float(rng.uniform(wall.low + half + 0.15, wall.high - half - 0.15))
        a, b = middle - half, middle + half
        if any(a < high and b > low for low, high in taken):
            continue
        taken.append((a - 0.1, b + 0.1))
        y = float(rng.uniform(1.45, 1.65))
        canvas.part(a - 0.04, b + 0.04, y - tall - 0.04, y + tall + 0.04)[:] = dull(rng) * 0.5
        inside = canvas.part(a, b, y - tall, y + tall)
        coarse = np.array([[dull(rng) for _ in range(4)] for _ in range(3)], np.float32)
        inside[:] = cv2.resize(coarse, inside.shape[1::-1], interpolation=cv2.INTER_LINEAR)


def _opening(mesh: Shaded, plan: Plan, door: Door, trim: Colour) -> None:
    """Threshold, jambs and lintel of an opening, as deep as the wall."""
    half, deep = door.width / 2, WALL_THICKNESS_M / 2
    x, z = door.centre
    dx, dz = (half, deep) if door.along_x else (deep, half)
    x0, z0, x1, z1, h = x - dx, z - dz, x + dx, z + dz, plan.door_height
    room = door.rooms[0]
    paint = mesh.paint(trim, room)
    mesh.painted([(x0, 0.0, z1), (x1, 0.0, z1), (x1, 0.0, z0), (x0, 0.0, z0)], paint, room, 0.8)
    mesh.painted([(x0, h, z0), (x1, h, z0), (x1, h, z1), (x0, h, z1)], paint, room, 0.8)
    if door.along_x:
        jambs = (
            [(x0, 0.0, z1), (x0, 0.0, z0), (x0, h, z0), (x0, h, z1)],
            [(x1, 0.0, z0), (x1, 0.0, z1), (x1, h, z1), (x1, h, z0)],
        )
    else:
        jambs = (
            [(x0, 0.0, z0), (x1, 0.0, z0), (x1, h, z0), (x0, h, z0)],
            [(x1, 0.0, z1), (x0, 0.0, z1), (x0, h, z1), (x1, h, z1)],
        )
    for jamb in jambs:
        mesh.painted(jamb, paint, room, 0.9)


def _handles(mesh: Shaded, rect: Rect, room: int) -> None:
    """A bar on both faces of a door leaf, flush with what it may take of the room."""
    x0, z0, x1, z1 = rect
    paint = mesh.paint(np.array(PAINTS["metal"], float), room)
    cx, cz = (x0 + x1) / 2, (z0 + z1) / 2
    if x1 - x0 > z1 - z0:
        mesh.box((cx - 0.06, 0.98, z0 - 0.006), (cx + 0.06, 1.02, z1 + 0.006), paint, room)
    else:
        mesh.box((x0 - 0.006, 0.98, cz - 0.06), (x1 + 0.006, 1.02, cz + 0.06), paint, room)


# ---------------------------------------------------------------- things


class Placed:
    """A thing's own axes: from shares of its width and depth to the floor of the home."""

    def __init__(self, thing: Thing) -> None:
        x0, z0, x1, z1 = thing.rect
        self.centre, self.front = thing.centre, np.array(thing.facing, float)
        self.right = np.array([self.front[1], -self.front[0]])
        spans = (x1 - x0, z1 - z0)
        self.width, self.depth = spans if thing.facing[0] == 0 else spans[::-1]
        wide, deep, high = KIND[thing.kind].size
        self.stretch = thing.height / high
        self.shrink = min(self.width / wide, self.depth / deep)

    def at(self, w: float, d: float) -> list[float]:
        """The point (x, z) at shares of width and depth."""
        point = self.centre + self.right * ((w - 0.5) * self.width)
        return (point + self.front * ((d - 0.5) * self.depth)).tolist()

    def span(self, part: Box | Books) -> tuple[list[float], list[float]]:
        """The low and the high corner (x, y, z) of a box."""
        a, b = self.at(part.w0, part.d0), self.at(part.w1, part.d1)
        y0, y1 = part.y0 * self.stretch, part.y1 * self.stretch
        return (
            [min(a[0], b[0]), y0, min(a[1], b[1])],
            [max(a[0], b[0]), y1, max(a[1], b[1])],
        )


def _thing(mesh: Shaded, rng: np.random.Generator, style: Style, thing: Thing) -> None:
    """The parts of a thing in one of the designs of its kind, and the clutter on it."""
    design = DESIGNS[thing.kind][thing.design % len(DESIGNS[thing.kind])]
    rgb = _jittered(
        rng, OBJECT_RGB[thing.colour], thing.colour, min(1.0, 0.5 + style.saturation / 2)
    )
    named = {
        "dark": np.full(3, 72.0) if thing.colour == "black" else rgb * 0.62,
        "dial": np.full(3, 244.0 if thing.colour != "white" else 44.0),
        "glow": rgb,
        **{name: np.array(paint, float) for name, paint in PAINTS.items()},
    }
    weave = "wood" if thing.kind in WOODEN else "fabric" if thing.kind in WOVEN else "plain"
    own = mesh.paint(rgb, thing.room, weave)
    strips: dict[str, int] = {}

    def paint_of(paint: str | float) -> tuple[int, float]:
        """The strip of a paint and the factor to its light."""
        if not isinstance(paint, str):
            return own, paint
        if paint not in strips:
            strips[paint] = mesh.paint(
                named[paint], thing.room, "wood" if paint == "wood" else "plain"
            )
        return strips[paint], -1.0 if paint in GLOWING else 1.0

    placed = Placed(thing)
    for part in design:
        if isinstance(part, Box):
            paint, shade = paint_of(part.paint)
            mesh.box(*placed.span(part), paint, thing.room, shade)
        elif isinstance(part, Drum):
            paint, shade = paint_of(part.paint)
            y = part.y0 * placed.stretch, part.y1 * placed.stretch
            radii = part.r0 * placed.shrink, part.r1 * placed.shrink
            mesh.drum(placed.at(part.w, part.d), y, radii, part.sides, paint, thing.room, shade)
        elif isinstance(part, Books):
            if rng.random() < 0.3 + 0.7 * style.clutter:
                _books(mesh, rng, placed, part, thing)
        else:
            _clutter(mesh, rng, style, placed, part, thing.room)


def _books(
    mesh: Shaded, rng: np.random.Generator, placed: Placed, row: Books, thing: Thing
) -> None:
    """A row of books: their backs on a picture, a plain box behind."""
    w1 = row.w0 + (row.w1 - row.w0) * float(rng.uniform(0.5, 1.0))
    low, high = placed.span(row._replace(w1=w1))
    light = mesh.lights[thing.room]
    texels = (8, max(6, round((w1 - row.w0) * placed.width * 40)))
    spines = book_spines(rng, texels) * 0.8 * light.tint
    dark = mesh.paint(np.array([120.0, 112.0, 100.0]), thing.room)
    mesh.box(low, high, dark, thing.room, 0.8)
    # Just before the box, so that neither hides the other by halves.
    left, right = (np.array(placed.at(w, row.d1)) + placed.front * 0.004 for w in (row.w0, w1))
    y0, y1 = low[1], high[1]
    corners = [(left[0], y0, left[1]), (right[0], y0, right[1])]
    corners += [(right[0], y1, right[1]), (left[0], y1, left[1])]
    places = [(0, texels[0]), (texels[1], texels[0]), (texels[1], 0), (0, 0)]
    mesh.quad(corners, mesh.picture(spines), places)


def _clutter(
    mesh: Shaded, rng: np.random.Generator, style: Style, placed: Placed, spot: Spot, room: int
) -> None:
    """A few books, cups and small boxes on a surface."""
    count = int(rng.binomial(3, style.clutter))
    cells = rng.permutation(3)[:count]
    for cell in cells:
        w0 = spot.w0 + (spot.w1 - spot.w0) * cell / 3
        w1 = w0 + (spot.w1 - spot.w0) / 3
        w, d = float(rng.uniform(0.35, 0.65)), float(rng.uniform(0.3, 0.7))
        x, z = placed.at(w0 + (w1 - w0) * w, spot.d0 + (spot.d1 - spot.d0) * d)
        paint, y = mesh.paint(dull(rng), room), spot.y * placed.stretch
        most = min((w1 - w0) * placed.width * 0.35, (spot.d1 - spot.d0) * placed.depth * 0.3)
        if rng.random() < 0.4:
            radius = min(most, float(rng.uniform(0.03, 0.06)))
            top = y + float(rng.uniform(0.08, 0.22))
            mesh.drum((x, z), (y, top), (radius, radius), 6, paint, room)
        else:
            a, b = (
                min(most, float(rng.uniform(0.06, 0.14))),
                min(most, float(rng.uniform(0.05, 0.1))),
            )
            high = y + float(rng.uniform(0.03, 0.16))
            mesh.box((x - a, y, z - b), (x + a, high, z + b), paint, room)

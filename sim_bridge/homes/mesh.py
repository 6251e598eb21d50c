"""
Triangles of a home and the bytes of its ``.glb``.

Houses are rendered without lights, so every face carries its own shade. Plain faces take their
colour from one small palette texture, so that a home is a handful of meshes: the palette, and one
per floor or wall pattern. Written with struct and numpy: a home takes milliseconds.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np

from sim_bridge.homes.colours import OBJECT_RGB, WALL_RGB, shaded
from sim_bridge.homes.furnish import Thing
from sim_bridge.homes.gltf import Part, Polygon, glb_bytes, png_bytes, triangulated
from sim_bridge.homes.plan import (
    DOOR_HEIGHT_M,
    WALL_HEIGHT_M,
    WALL_THICKNESS_M,
    Door,
    Plan,
    Room,
    Wall,
)

SLAB_M = 0.199
"""Thickness of the floor slab, metres: habitat's navmesh floor then comes to lie at y = 0.001."""

RGB = tuple[int, int, int]
Vector = tuple[float, float, float]

# Faces of a box: brightness, what a soft light from above and one side would give (world: x, y up,
# z), and corners, counter-clockwise from outside; 0 is the low end of an axis, 1 the high one.
SIDES = (
    (1.0, ((1, 0, 1), (1, 0, 0), (1, 1, 0), (1, 1, 1))),
    (0.92, ((0, 0, 0), (0, 0, 1), (0, 1, 1), (0, 1, 0))),
    (0.84, ((0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1))),
    (0.78, ((1, 0, 0), (0, 0, 0), (0, 1, 0), (1, 1, 0))),
)
TOP = (1.0, ((0, 1, 1), (1, 1, 1), (1, 1, 0), (0, 1, 0)))
BOTTOM = (0.55, ((0, 0, 0), (1, 0, 0), (1, 0, 1), (0, 0, 1)))


class Mesh:
    """Triangles by material, in world coordinates (y up), as they are drawn."""

    def __init__(self) -> None:
        self.colours: dict[RGB, int] = {}
        self.patterns: list[tuple[str, bytes]] = []
        self._quads: dict[int, list[Polygon]] = {}
        self._plain: list[tuple[Sequence[Vector], int]] = []

    def quad(self, corners: Sequence[Vector], rgb: RGB) -> None:
        """A plain quadrilateral (or triangle), counter-clockwise seen from its front."""
        self._plain.append((corners, self.colours.setdefault(rgb, len(self.colours))))

    def pattern(self, name: str, png: bytes) -> int:
        """Register a repeating texture and return its number."""
        self.patterns.append((name, png))
        return len(self.patterns) - 1

    def textured(
        self, corners: Sequence[Vector], uv: Sequence[tuple[float, float]], pattern: int
    ) -> None:
        """A quadrilateral with a registered texture."""
        self._quads.setdefault(pattern, []).append((corners, uv))

    def box(
        self, low: Vector, high: Vector, rgb: RGB, *, top: bool = True, bottom: bool = False
    ) -> None:
        """
        A box with shaded sides; its underside only if ``bottom`` (for parts that hang above the
        floor).
        """
        ends = low, high
        for shade, corners in (*SIDES, *((TOP,) if top else ()), *((BOTTOM,) if bottom else ())):
            face = [(ends[i][0], ends[j][1], ends[k][2]) for i, j, k in corners]
            self.quad(face, shaded(rgb, shade))

    def drum(
        self,
        centre: tuple[float, float],
        y: tuple[float, float],
        radius: tuple[float, float],
        rgb: RGB,
        sides: int = 10,
        *,
        bottom: bool = False,
    ) -> None:
        """
        An upright cylinder, or cone part with ``radius`` (lower, upper), closed at the top; at the
        bottom if ``bottom``.
        """
        angles = np.arange(sides + 1) * (2 * np.pi / sides)
        c, s = np.cos(angles), np.sin(angles)
        ring = [
            [
                (float(centre[0] + r * c[i]), h, float(centre[1] - r * s[i]))
                for i in range(sides + 1)
            ]
            for h, r in zip(y, radius)
        ]
        for i in range(sides):
            shade = 0.89 + 0.11 * float(np.cos(angles[i] + np.pi / sides - 0.9))
            self.quad([ring[0][i], ring[0][i + 1], ring[1][i + 1], ring[1][i]], shaded(rgb, shade))
            if radius[1] > 0:
                self.quad([(centre[0], y[1], centre[1]), ring[1][i], ring[1][i + 1]], rgb)
            if bottom:
                self.quad(
                    [(centre[0], y[0], centre[1]), ring[0][i + 1], ring[0][i]], shaded(rgb, 0.6)
                )

    def glb(self) -> bytes:
        """The binary glTF, see ``glb_bytes``."""
        parts = [("palette", *self._painted())]
        parts += [(*self.patterns[k], quads) for k, quads in sorted(self._quads.items())]
        return glb_bytes([Part(n, image, *triangulated(faces)) for n, image, faces in parts])

    def _painted(self) -> tuple[bytes, list[Polygon]]:
        """The palette of all plain colours as a PNG, and the plain faces with places in it."""
        columns, rows = 16, 1
        while columns * rows < len(self.colours):
            rows *= 2
        palette = np.zeros((rows * columns, 3), np.uint8)
        palette[: len(self.colours)] = np.array(list(self.colours), np.uint8)
        where = [
            ((i % columns + 0.5) / columns, (i // columns + 0.5) / rows)
            for i in range(len(self.colours))
        ]
        faces: list[Polygon] = [(c, [where[k]] * len(c)) for c, k in self._plain]
        return png_bytes(palette.reshape(rows, columns, 3)), faces


def _jittered(rng: np.random.Generator, rgb: RGB, name: str) -> RGB:
    """``rgb`` a little different each time; white, grey and black stay without hue."""
    jitter = rng.integers(-7, 8, size=1 if name in ("white", "grey", "black") else 3)
    red, green, blue = np.clip(np.array(rgb) + jitter, 0, 255)
    return int(red), int(green), int(blue)


def _tile(rng: np.random.Generator, rgb: RGB, style: str) -> np.ndarray:
    """
    A 32 x 32 texture of one square metre in shades of ``rgb``: "planks", "tiles", "speckle",
    "stripes" or "bricks".
    """
    image = np.ones((32, 32))
    if style == "planks":
        image *= np.repeat(rng.choice([0.94, 1.0, 1.05], size=4), 8)[:, None]
        image[::8] = 0.8
        for row in range(4):
            image[row * 8 : row * 8 + 8, int(rng.integers(32))] = 0.82
    elif style == "tiles":
        image[::16] = image[:, ::16] = 0.8
    elif style == "speckle":
        image = np.kron(rng.choice([0.94, 1.0, 1.06], size=(16, 16)), np.ones((2, 2)))
    elif style == "stripes":
        image[:, :8] = image[:, 16:24] = 0.93
    elif style == "bricks":
        image[::8] = 0.85
        image[1:8, 0] = image[9:16, 16] = image[17:24, 0] = image[25:, 16] = 0.85
    return np.clip(np.round(image[:, :, None] * np.array(rgb)), 0, 255).astype(np.uint8)


def home_glb(rng: np.random.Generator, plan: Plan, things: Sequence[Thing]) -> bytes:
    """
    The ``.glb`` of a furnished home; ``rng`` draws what has no name: floors, patterns, trims,
    windows.
    """
    mesh = Mesh()
    trim: RGB = [(58, 58, 64), (92, 94, 100), (216, 206, 186), (178, 144, 104)][
        int(rng.integers(4))
    ]
    floors: list[RGB] = [
        (150, 118, 84),
        (172, 150, 122),
        (126, 100, 78),
        (160, 158, 152),
        (140, 146, 150),
        (186, 172, 150),
    ]
    for room in plan.rooms:
        _room(mesh, rng, plan, room, trim, floors[int(rng.integers(len(floors)))])
    for door in plan.doors:
        _opening(mesh, door, trim)
    for thing in things:
        _thing(mesh, rng, thing)
    x0, z0, x1, z1 = plan.outline
    # The slab's top are the floors of the rooms.
    mesh.box((x0, -SLAB_M, z0), (x1, 0.0, z1), (120, 118, 114), top=False, bottom=True)
    return mesh.glb()


def _room(
    mesh: Mesh, rng: np.random.Generator, plan: Plan, room: Room, trim: RGB, floor: RGB
) -> None:
    """Floor, ceiling, walls with their openings, base boards and windows of a room."""
    x0, z0, x1, z1 = room.rect
    floor = shaded(floor, float(rng.uniform(0.92, 1.05)))
    style = ("planks", "tiles", "speckle")[int(rng.integers(3))]
    texture = mesh.pattern(f"floor_{room.index}", png_bytes(_tile(rng, floor, style)))
    corners = [(x0, 0.0, z1), (x1, 0.0, z1), (x1, 0.0, z0), (x0, 0.0, z0)]
    mesh.textured(corners, [(x, z) for x, _, z in corners], texture)
    mesh.quad([(x, WALL_HEIGHT_M, z) for x, _, z in corners[::-1]], (244, 243, 240))
    colour = _jittered(rng, WALL_RGB[room.colour], room.colour)
    pattern = ("plain", "plain", "stripes", "bricks")[int(rng.integers(4))]
    # Walls across x are lighter than those along it.
    paints = {along_x: shaded(colour, 0.9 if along_x else 1.0) for along_x in (False, True)}
    textures = {
        along_x: mesh.pattern(name, png_bytes(_tile(rng, paints[along_x], pattern)))
        for along_x, name in ((False, f"wall_{room.index}x"), (True, f"wall_{room.index}z"))
        if pattern != "plain"
    }
    for wall in room.walls:
        holes = plan.openings(room, wall)
        edges = [wall.low, *[e for hole in holes for e in hole], wall.high]
        paint, wallpaper = paints[wall.along_x], textures.get(wall.along_x)
        for a, b in zip(edges[::2], edges[1::2]):
            if b - a > 1e-6:
                _wall_face(mesh, wall, a, b, 0.0, WALL_HEIGHT_M, paint, texture=wallpaper)
                _wall_face(mesh, wall, a, b, 0.0, 0.09, trim, out=0.006)
        top = DOOR_HEIGHT_M
        for a, b in holes:
            _wall_face(mesh, wall, a, b, top, WALL_HEIGHT_M, paint, texture=wallpaper)
            # The frame is painted on the wall: it takes nothing from the opening.
            _wall_face(mesh, wall, a - 0.09, a, 0.0, top + 0.09, trim, out=0.01)
            _wall_face(mesh, wall, b, b + 0.09, 0.0, top + 0.09, trim, out=0.01)
            _wall_face(mesh, wall, a, b, top, top + 0.09, trim, out=0.01)
        if _faces_out(plan, wall) and not room.hallway and wall.high - wall.low > 2.4:
            _window(mesh, rng, wall)


def _wall_face(
    mesh: Mesh,
    wall: Wall,
    a: float,
    b: float,
    y0: float,
    y1: float,
    rgb: RGB,
    *,
    texture: int | None = None,
    out: float = 0.0,
) -> None:
    """A part of a wall from ``a`` to ``b`` along it, ``out`` metres before it."""
    c = wall.at + wall.normal * out
    if wall.along_x:
        corners = [(a, y0, c), (b, y0, c), (b, y1, c), (a, y1, c)]
    else:
        corners = [(c, y0, b), (c, y0, a), (c, y1, a), (c, y1, b)]
    corners = corners if wall.normal > 0 else corners[::-1]
    if texture is None:
        mesh.quad(corners, rgb)
    else:
        along = 0 if wall.along_x else 2
        mesh.textured(corners, [(p[along], -p[1]) for p in corners], texture)


def _window(mesh: Mesh, rng: np.random.Generator, wall: Wall) -> None:
    """A painted window somewhere on the wall, in most cases."""
    if rng.random() < 0.6:
        middle = float(rng.uniform(wall.low + 1.1, wall.high - 1.1))
        frame, glass = (236, 236, 236), (196, 222, 240)
        _wall_face(mesh, wall, middle - 0.66, middle + 0.66, 0.94, 2.06, frame, out=0.008)
        _wall_face(mesh, wall, middle - 0.6, middle - 0.02, 1.0, 2.0, glass, out=0.016)
        _wall_face(mesh, wall, middle + 0.02, middle + 0.6, 1.0, 2.0, glass, out=0.016)


def _faces_out(plan: Plan, wall: Wall) -> bool:
    """Whether the other side of a wall is the outside of the house."""
    x0, z0, x1, z1 = plan.outline
    low, high = (z0, z1) if wall.along_x else (x0, x1)
    behind = wall.at - wall.normal * WALL_THICKNESS_M / 2
    return abs(behind - (low if wall.normal > 0 else high)) < WALL_THICKNESS_M


def _opening(mesh: Mesh, door: Door, trim: RGB) -> None:
    """Threshold, jambs and lintel of an opening, as deep as the wall."""
    half, deep = door.width / 2, WALL_THICKNESS_M / 2
    x, z = door.centre
    dx, dz = (half, deep) if door.along_x else (deep, half)
    x0, z0, x1, z1, h = x - dx, z - dz, x + dx, z + dz, DOOR_HEIGHT_M
    mesh.quad([(x0, 0.0, z1), (x1, 0.0, z1), (x1, 0.0, z0), (x0, 0.0, z0)], shaded(trim, 1.25))
    mesh.quad([(x0, h, z0), (x1, h, z0), (x1, h, z1), (x0, h, z1)], shaded(trim, 0.8))
    if door.along_x:
        mesh.quad([(x0, 0.0, z1), (x0, 0.0, z0), (x0, h, z0), (x0, h, z1)], trim)
        mesh.quad([(x1, 0.0, z0), (x1, 0.0, z1), (x1, h, z1), (x1, h, z0)], shaded(trim, 0.9))
    else:
        mesh.quad([(x0, 0.0, z0), (x1, 0.0, z0), (x1, h, z0), (x0, h, z0)], trim)
        mesh.quad([(x1, 0.0, z1), (x0, 0.0, z1), (x0, h, z1), (x1, h, z1)], shaded(trim, 0.9))


PAINTS: dict[str, RGB] = {
    "wood": (128, 88, 54),
    "metal": (90, 92, 96),
    "pillow": (240, 240, 240),
    "hand": (128, 128, 128),
}
BOXES: dict[str, tuple[tuple[float, float, float, float, float, float, str | float], ...]] = {
    "wardrobe": (
        (0, 1, 0.0, 2.0, 0, 0.96, 1.0),
        (0.02, 0.49, 0.08, 1.94, 0.96, 0.985, 0.92),
        (0.51, 0.98, 0.08, 1.94, 0.96, 0.985, 0.92),
        (0.42, 0.46, 0.95, 1.2, 0.985, 1, "dark"),
        (0.54, 0.58, 0.95, 1.2, 0.985, 1, "dark"),
    ),
    "shelf": (
        (0, 1, 0.0, 1.8, 0, 0.1, "dark"),
        (0, 0.07, 0.0, 1.8, 0.1, 1, 1.0),
        (0.93, 1, 0.0, 1.8, 0.1, 1, 1.0),
        *((0.07, 0.93, y, y + 0.1, 0.1, 1, 1.0) for y in (0.0, 0.42, 0.84, 1.26, 1.7)),
    ),
    "fridge": (
        (0, 1, 0.0, 1.75, 0, 0.96, 1.0),
        (0, 1, 1.14, 1.17, 0.96, 0.97, "dark"),
        (0.84, 0.9, 0.75, 1.05, 0.96, 1, "metal"),
        (0.84, 0.9, 1.25, 1.5, 0.96, 1, "metal"),
    ),
    "clock": (
        (0, 1, 0.0, 1.95, 0, 0.97, 1.0),
        (0.14, 0.86, 1.46, 1.82, 0.97, 0.985, "dial"),
        (0.47, 0.53, 1.62, 1.78, 0.985, 1, "hand"),
        (0.5, 0.72, 1.61, 1.66, 0.985, 1, "hand"),
    ),
    "cabinet": (
        (0, 1, 0.06, 1.0, 0, 0.96, 1.0),
        (0.03, 0.49, 0.1, 0.92, 0.96, 0.98, 0.88),
        (0.51, 0.97, 0.1, 0.92, 0.96, 0.98, 0.88),
    ),
    "table": (
        (0, 1, 0.6, 0.76, 0, 1, 1.0),
        *(
            (w, w + 0.08, 0.0, 0.6, d, d + 0.11, "dark")
            for w, d in product((0.03, 0.89), (0.04, 0.85))
        ),
    ),
    "chair": (
        (0, 1, 0.4, 0.52, 0, 1, 1.0),
        (0, 1, 0.52, 1.0, 0, 0.16, 1.0),
        *(
            (w, w + 0.12, 0.0, 0.4, d, d + 0.12, "dark")
            for w, d in product((0.04, 0.84), (0.04, 0.84))
        ),
    ),
    "sofa": (
        (0, 1, 0.05, 0.45, 0, 1, 1.0),
        (0, 1, 0.45, 0.9, 0, 0.28, 1.0),
        (0, 0.12, 0.45, 0.65, 0.28, 1, 0.9),
        (0.88, 1, 0.45, 0.65, 0.28, 1, 0.9),
    ),
    "bed": (
        (0, 1, 0.1, 0.55, 0.06, 1, 1.0),
        (0, 1, 0.0, 1.0, 0, 0.06, "wood"),
        (0.1, 0.45, 0.55, 0.68, 0.08, 0.26, "pillow"),
        (0.55, 0.9, 0.55, 0.68, 0.08, 0.26, "pillow"),
    ),
    "box": ((0, 1, 0.0, 0.8, 0, 1, 1.0), (0.44, 0.56, 0.79, 0.806, 0, 1, "dark")),
}
"""
The parts of a thing: fractions (from, to) of its width, right of the front's left; heights in
metres; fractions of its depth from back to front; and a paint of that name or a shade of its
colour.
"""
DRUMS: dict[str, tuple[tuple[float, float, float, float, int, bool, str | float], ...]] = {
    "lamp": (
        (0.0, 0.05, 0.2, 0.2, 10, False, "dark"),
        (0.05, 1.0, 0.035, 0.035, 6, False, "dark"),
        (0.95, 1.65, 0.275, 0.17, 10, True, 1.0),
    ),
    "column": ((0.0, WALL_HEIGHT_M, 0.0, 0.0, 12, False, 1.0),),
    "barrel": (
        (0.0, 0.5, 0.27, 0.325, 10, False, 1.0),
        (0.5, 1.0, 0.325, 0.27, 10, False, 1.0),
        (0.46, 0.54, 0.33, 0.33, 10, False, "dark"),
    ),
}
"""
Round parts: heights (from, to) and radii (below, above; 0: half the width) in metres, the number
of sides, whether it is closed below, and the paint.
"""


def _thing(mesh: Mesh, rng: np.random.Generator, thing: Thing) -> None:
    """The parts of a piece of furniture; the part that carries its colour is large."""
    rgb = _jittered(rng, OBJECT_RGB[thing.colour], thing.colour)
    paints = {
        "dark": shaded(rgb, 0.62) if thing.colour != "black" else (70, 70, 74),
        "dial": (250, 250, 245) if thing.colour != "white" else (40, 40, 40),
        **PAINTS,
    }

    def paint(name: str | float) -> RGB:
        return paints[name] if isinstance(name, str) else shaded(rgb, name)

    x0, z0, x1, z1 = thing.rect
    centre, front = thing.centre, np.array(thing.facing)
    right = np.array([front[1], -front[0]])
    width, depth = (x1 - x0, z1 - z0) if front[0] == 0 else (z1 - z0, x1 - x0)
    for w0, w1, y0, y1, d0, d1, name in BOXES.get(thing.kind, ()):
        a, b = (
            centre + right * (w - 0.5) * width + front * (d - 0.5) * depth
            for w, d in ((w0, d0), (w1, d1))
        )
        low, high = np.minimum(a, b).tolist(), np.maximum(a, b).tolist()
        mesh.box((low[0], y0, low[1]), (high[0], y1, high[1]), paint(name), bottom=y0 > 0.05)
    for y0, y1, lower, upper, sides, bottom, name in DRUMS.get(thing.kind, ()):
        radius = (lower or width / 2, upper or width / 2)
        mesh.drum(tuple(centre.tolist()), (y0, y1), radius, paint(name), sides, bottom=bottom)

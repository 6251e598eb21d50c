"""
Triangles of a home and the bytes of its ``.glb``.

Houses are rendered without lights, so every face carries its own shade. Plain faces take their
colour from one small palette texture, so that a home is a handful of meshes: the palette, and one
per floor or wall pattern. Written with struct and numpy: a home takes milliseconds.
"""

import json
import struct
import zlib
from collections.abc import Sequence

import numpy as np

from sim_bridge.homes.colours import OBJECT_RGB, WALL_RGB, shaded
from sim_bridge.homes.furnish import Thing
from sim_bridge.homes.plan import DOOR_HEIGHT_M, WALL_HEIGHT_M, WALL_THICKNESS_M, Door, Plan, Room

SLAB_M = 0.199
"""Thickness of the floor slab, metres: habitat's navmesh floor then comes to lie at y = 0.001."""

RGB = tuple[int, int, int]
Vector = tuple[float, float, float]
_Polygon = tuple[Sequence[Vector], Sequence[tuple[float, float]]]

# Brightness of a face by the axis it faces (world: x, y up, z): what a soft light from above and
# one side would give.
_SHADE = {(0, 1): 1.0, (0, -1): 0.92, (1, 1): 1.0, (1, -1): 0.55, (2, 1): 0.84, (2, -1): 0.78}
_WOOD: RGB = (128, 88, 54)
_METAL: RGB = (90, 92, 96)


class Mesh:
    """Triangles by material, in world coordinates (y up), as they are drawn."""

    def __init__(self) -> None:
        self.colours: dict[RGB, int] = {}
        self.patterns: list[tuple[str, bytes]] = []
        self._quads: dict[int, list[_Polygon]] = {}
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
        (x0, y0, z0), (x1, y1, z1) = low, high
        self.quad(
            [(x1, y0, z1), (x1, y0, z0), (x1, y1, z0), (x1, y1, z1)], shaded(rgb, _SHADE[0, 1])
        )
        self.quad(
            [(x0, y0, z0), (x0, y0, z1), (x0, y1, z1), (x0, y1, z0)], shaded(rgb, _SHADE[0, -1])
        )
        self.quad(
            [(x0, y0, z1), (x1, y0, z1), (x1, y1, z1), (x0, y1, z1)], shaded(rgb, _SHADE[2, 1])
        )
        self.quad(
            [(x1, y0, z0), (x0, y0, z0), (x0, y1, z0), (x1, y1, z0)], shaded(rgb, _SHADE[2, -1])
        )
        if top:
            self.quad(
                [(x0, y1, z1), (x1, y1, z1), (x1, y1, z0), (x0, y1, z0)], shaded(rgb, _SHADE[1, 1])
            )
        if bottom:
            self.quad(
                [(x0, y0, z0), (x1, y0, z0), (x1, y0, z1), (x0, y0, z1)],
                shaded(rgb, _SHADE[1, -1]),
            )

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
        """
        The binary glTF, file axes z up: ``world = (x, z, -y)`` of the file, as in Matterport3D
        scenes.
        """
        columns = 16
        rows = 1
        while columns * rows < len(self.colours):
            rows *= 2
        palette = np.zeros((rows * columns, 3), np.uint8)
        palette[: len(self.colours)] = np.array(list(self.colours), np.uint8)
        where = [
            ((i % columns + 0.5) / columns, (i // columns + 0.5) / rows)
            for i in range(len(self.colours))
        ]
        plain: list[_Polygon] = [(c, [where[k]] * len(c)) for c, k in self._plain]
        parts = [("palette", png_bytes(palette.reshape(rows, columns, 3)), plain)]
        parts += [
            (self.patterns[k][0], self.patterns[k][1], quads)
            for k, quads in sorted(self._quads.items())
        ]
        blob = bytearray()
        views: list[dict[str, int]] = []
        accessors: list[dict[str, object]] = []

        def view(data: bytes, target: int | None = None) -> int:
            views.append(
                {"buffer": 0, "byteOffset": len(blob), "byteLength": len(data)}
                | ({"target": target} if target else {})
            )
            blob.extend(data + b"\0" * (-len(data) % 4))
            return len(views) - 1

        gltf: dict[str, list[object]] = {
            "nodes": [],
            "meshes": [],
            "materials": [],
            "textures": [],
            "images": [],
        }
        for i, (name, png, polygons) in enumerate(parts):
            sizes = np.array([len(corners) for corners, _ in polygons])
            points = np.array([p for corners, _ in polygons for p in corners], np.float32)
            file_points = np.stack([points[:, 0], -points[:, 2], points[:, 1]], axis=1)
            uv = np.array([p for _, uvs in polygons for p in uvs], np.float32)
            first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
            quads = first[sizes == 4]
            indices = np.concatenate(
                [(first[:, None] + [0, 1, 2]).ravel(), (quads[:, None] + [0, 2, 3]).ravel()]
            )
            big = len(points) > 65535
            accessors.append(
                {
                    "bufferView": view(file_points.tobytes(), 34962),
                    "componentType": 5126,
                    "count": len(points),
                    "type": "VEC3",
                }
            )
            accessors[-1] |= {
                "min": file_points.min(axis=0).tolist(),
                "max": file_points.max(axis=0).tolist(),
            }
            accessors.append(
                {
                    "bufferView": view(uv.tobytes(), 34962),
                    "componentType": 5126,
                    "count": len(uv),
                    "type": "VEC2",
                }
            )
            accessors.append(
                {
                    "bufferView": view(
                        indices.astype(np.uint32 if big else np.uint16).tobytes(), 34963
                    )
                }
            )
            accessors[-1] |= {
                "componentType": 5125 if big else 5123,
                "count": len(indices),
                "type": "SCALAR",
            }
            gltf["images"].append({"bufferView": view(png), "mimeType": "image/png"})
            gltf["textures"].append({"source": i})
            texture = {
                "baseColorTexture": {"index": i},
                "metallicFactor": 0.0,
                "roughnessFactor": 1.0,
            }
            gltf["materials"].append(
                {"name": name, "pbrMetallicRoughness": texture, "doubleSided": False}
            )
            primitive = {
                "attributes": {"POSITION": 3 * i, "TEXCOORD_0": 3 * i + 1},
                "indices": 3 * i + 2,
                "material": i,
                "mode": 4,
            }
            gltf["meshes"].append({"name": name, "primitives": [primitive]})
            gltf["nodes"].append({"name": name, "mesh": i})
        document = {
            "asset": {"version": "2.0", "generator": "janusvln houses"},
            "scene": 0,
            "scenes": [{"nodes": list(range(len(parts)))}],
            **gltf,
        }
        document |= {
            "accessors": accessors,
            "bufferViews": views,
            "buffers": [{"byteLength": len(blob)}],
        }
        text = json.dumps(document, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        head = struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + len(blob))
        return (
            head
            + struct.pack("<I4s", len(text), b"JSON")
            + text
            + struct.pack("<I4s", len(blob), b"BIN\0")
            + bytes(blob)
        )


def png_bytes(image: np.ndarray) -> bytes:
    """An 8 bit RGB image [H, W, 3] as the bytes of a PNG file."""
    height, width, _ = image.shape
    rows = np.concatenate(
        [np.zeros((height, 1), np.uint8), image.reshape(height, width * 3)], axis=1
    ).tobytes()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows, 9))
        + chunk(b"IEND", b"")
    )


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
    slab: RGB = (120, 118, 114)
    # Its top are the floors of the rooms.
    mesh.box((x0, -SLAB_M, z0), (x1, 0.0, z1), slab, top=False, bottom=True)
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
    mesh.textured(corners, [(p[0], p[2]) for p in corners], texture)
    mesh.quad(
        [
            (x0, WALL_HEIGHT_M, z0),
            (x1, WALL_HEIGHT_M, z0),
            (x1, WALL_HEIGHT_M, z1),
            (x0, WALL_HEIGHT_M, z1),
        ],
        (244, 243, 240),
    )
    wall = _jittered(rng, WALL_RGB[room.colour], room.colour)
    pattern = ("plain", "plain", "stripes", "bricks")[int(rng.integers(4))]
    shades = {axis: shaded(wall, s) for axis, s in (("x", 1.0), ("z", 0.9))}
    textures: dict[str, int] = {}
    if pattern != "plain":
        textures = {
            axis: mesh.pattern(f"wall_{room.index}{axis}", png_bytes(_tile(rng, rgb, pattern)))
            for axis, rgb in shades.items()
        }
    for axis, at, normal in (("z", z0, 1), ("z", z1, -1), ("x", x0, 1), ("x", x1, -1)):
        low, high = (x0, x1) if axis == "z" else (z0, z1)
        holes = sorted(_holes(plan, room, axis, at))
        edges = [low, *[e for hole in holes for e in hole], high]

        def face(
            a: float,
            b: float,
            y0: float,
            y1: float,
            rgb: RGB | None = None,
            out: float = 0.0,
            *,
            axis: str = axis,
            at: float = at,
            normal: int = normal,
        ) -> None:
            c = at + normal * out
            if axis == "z":
                p = [(a, y0, c), (b, y0, c), (b, y1, c), (a, y1, c)]
                p = p if normal > 0 else p[::-1]
                uv = [(q[0], -q[1]) for q in p]
            else:
                p = [(c, y0, b), (c, y0, a), (c, y1, a), (c, y1, b)]
                p = p if normal > 0 else p[::-1]
                uv = [(q[2], -q[1]) for q in p]
            if rgb is None and textures:
                mesh.textured(p, uv, textures[axis])
            else:
                mesh.quad(p, rgb or shades[axis])

        for a, b in zip(edges[::2], edges[1::2]):
            if b - a > 1e-6:
                face(a, b, 0.0, WALL_HEIGHT_M)
                face(a, b, 0.0, 0.09, trim, 0.006)
        for a, b in holes:
            face(a, b, DOOR_HEIGHT_M, WALL_HEIGHT_M)
            # The frame is painted on the wall: it takes nothing from the opening.
            face(a - 0.09, a, 0.0, DOOR_HEIGHT_M + 0.09, trim, 0.01)
            face(b, b + 0.09, 0.0, DOOR_HEIGHT_M + 0.09, trim, 0.01)
            face(a, b, DOOR_HEIGHT_M, DOOR_HEIGHT_M + 0.09, trim, 0.01)
        outer = (
            abs(at - normal * WALL_THICKNESS_M / 2 - _outline(plan, axis, normal))
            < WALL_THICKNESS_M
        )
        if outer and not room.hallway and high - low > 2.4 and rng.random() < 0.6:
            middle = float(rng.uniform(low + 1.1, high - 1.1))
            face(middle - 0.66, middle + 0.66, 0.94, 2.06, (236, 236, 236), 0.008)
            face(middle - 0.6, middle - 0.02, 1.0, 2.0, (196, 222, 240), 0.016)
            face(middle + 0.02, middle + 0.6, 1.0, 2.0, (196, 222, 240), 0.016)


def _outline(plan: Plan, axis: str, normal: int) -> float:
    """
    Where the outer face of the house lies on the side that a wall with this normal may belong to.
    """
    x0, z0, x1, z1 = plan.outline
    return {("z", 1): z0, ("z", -1): z1, ("x", 1): x0, ("x", -1): x1}[axis, normal]


def _holes(plan: Plan, room: Room, axis: str, at: float) -> list[tuple[float, float]]:
    """Openings (from, to) in the wall of ``room`` that lies at coordinate ``at`` of ``axis``."""
    holes = []
    for index in plan.doors_of[room.index]:
        door = plan.doors[index]
        along, across = (
            (door.centre[0], door.centre[1]) if door.along_x else (door.centre[1], door.centre[0])
        )
        if door.along_x == (axis == "z") and abs(across - at) < WALL_THICKNESS_M:
            holes.append((along - door.width / 2, along + door.width / 2))
    return holes


def _opening(mesh: Mesh, door: Door, trim: RGB) -> None:
    """Threshold, jambs and lintel of an opening, as deep as the wall."""
    half, deep = door.width / 2, WALL_THICKNESS_M / 2
    x, z = door.centre
    dx, dz = (half, deep) if door.along_x else (deep, half)
    x0, z0, x1, z1, h = x - dx, z - dz, x + dx, z + dz, DOOR_HEIGHT_M
    mesh.quad([(x0, 0.0, z1), (x1, 0.0, z1), (x1, 0.0, z0), (x0, 0.0, z0)], shaded(trim, 1.25))
    mesh.quad([(x0, h, z0), (x1, h, z0), (x1, h, z1), (x0, h, z1)], shaded(trim, 0.8))
    if door.along_x:
        mesh.quad([(x0, 0.0, z1), (x0, 0.0, z0), (x0, h, z0), (x0, h, z1)][::1], trim)
        mesh.quad([(x1, 0.0, z0), (x1, 0.0, z1), (x1, h, z1), (x1, h, z0)], shaded(trim, 0.9))
    else:
        mesh.quad([(x0, 0.0, z0), (x1, 0.0, z0), (x1, h, z0), (x0, h, z0)], trim)
        mesh.quad([(x1, 0.0, z1), (x0, 0.0, z1), (x0, h, z1), (x1, h, z1)], shaded(trim, 0.9))


def _thing(mesh: Mesh, rng: np.random.Generator, thing: Thing) -> None:
    """The parts of a piece of furniture; the part that carries its colour is large."""
    rgb = _jittered(rng, OBJECT_RGB[thing.colour], thing.colour)
    dark = shaded(rgb, 0.62) if thing.colour != "black" else (70, 70, 74)
    x0, z0, x1, z1 = thing.rect
    cx, cz = (x0 + x1) / 2, (z0 + z1) / 2
    fx, fz = thing.facing
    width, depth = (x1 - x0, z1 - z0) if fx == 0 else (z1 - z0, x1 - x0)

    def part(
        w0: float, w1: float, y0: float, y1: float, d0: float, d1: float, colour: RGB = rgb
    ) -> None:
        """
        A box given by fractions along the width (right of the front's left), heights in metres,
        fractions of depth from back to front.
        """
        a = (
            np.array([cx, cz])
            + np.array([fz, -fx]) * (w0 - 0.5) * width
            + np.array([fx, fz]) * (d0 - 0.5) * depth
        )
        b = (
            np.array([cx, cz])
            + np.array([fz, -fx]) * (w1 - 0.5) * width
            + np.array([fx, fz]) * (d1 - 0.5) * depth
        )
        low, high = np.minimum(a, b), np.maximum(a, b)
        mesh.box(
            (float(low[0]), y0, float(low[1])),
            (float(high[0]), y1, float(high[1])),
            colour,
            bottom=y0 > 0.05,
        )

    kind = thing.kind
    if kind == "lamp":
        mesh.drum((cx, cz), (0.0, 0.05), (0.2, 0.2), dark)
        mesh.drum((cx, cz), (0.05, 1.0), (0.035, 0.035), dark, sides=6)
        mesh.drum((cx, cz), (0.95, 1.65), (0.275, 0.17), rgb, bottom=True)
    elif kind == "wardrobe":
        part(0, 1, 0.0, 2.0, 0, 0.96)
        part(0.02, 0.49, 0.08, 1.94, 0.96, 0.985, shaded(rgb, 0.92))
        part(0.51, 0.98, 0.08, 1.94, 0.96, 0.985, shaded(rgb, 0.92))
        part(0.42, 0.46, 0.95, 1.2, 0.985, 1, dark)
        part(0.54, 0.58, 0.95, 1.2, 0.985, 1, dark)
    elif kind == "shelf":
        part(0, 1, 0.0, 1.8, 0, 0.1, dark)
        part(0, 0.07, 0.0, 1.8, 0.1, 1)
        part(0.93, 1, 0.0, 1.8, 0.1, 1)
        for y in (0.0, 0.42, 0.84, 1.26, 1.7):
            part(0.07, 0.93, y, y + 0.1, 0.1, 1)
    elif kind == "fridge":
        part(0, 1, 0.0, 1.75, 0, 0.96)
        part(0, 1, 1.14, 1.17, 0.96, 0.97, dark)
        part(0.84, 0.9, 0.75, 1.05, 0.96, 1, _METAL)
        part(0.84, 0.9, 1.25, 1.5, 0.96, 1, _METAL)
    elif kind == "clock":
        part(0, 1, 0.0, 1.95, 0, 0.97)
        dial = (250, 250, 245) if thing.colour not in ("white",) else (40, 40, 40)
        part(0.14, 0.86, 1.46, 1.82, 0.97, 0.985, dial)
        part(0.47, 0.53, 1.62, 1.78, 0.985, 1, (128, 128, 128))
        part(0.5, 0.72, 1.61, 1.66, 0.985, 1, (128, 128, 128))
    elif kind == "column":
        mesh.drum((cx, cz), (0.0, WALL_HEIGHT_M), (width / 2, width / 2), rgb, sides=12)
    elif kind == "cabinet":
        part(0, 1, 0.06, 1.0, 0, 0.96)
        part(0.03, 0.49, 0.1, 0.92, 0.96, 0.98, shaded(rgb, 0.88))
        part(0.51, 0.97, 0.1, 0.92, 0.96, 0.98, shaded(rgb, 0.88))
    elif kind == "table":
        part(0, 1, 0.6, 0.76, 0, 1)
        for a in (0.03, 0.89):
            for b in (0.04, 0.85):
                part(a, a + 0.08, 0.0, 0.6, b, b + 0.11, dark)
    elif kind == "chair":
        part(0, 1, 0.4, 0.52, 0, 1)
        part(0, 1, 0.52, 1.0, 0, 0.16)
        for a in (0.04, 0.84):
            for b in (0.04, 0.84):
                part(a, a + 0.12, 0.0, 0.4, b, b + 0.12, dark)
    elif kind == "sofa":
        part(0, 1, 0.05, 0.45, 0, 1)
        part(0, 1, 0.45, 0.9, 0, 0.28)
        part(0, 0.12, 0.45, 0.65, 0.28, 1, shaded(rgb, 0.9))
        part(0.88, 1, 0.45, 0.65, 0.28, 1, shaded(rgb, 0.9))
    elif kind == "bed":
        part(0, 1, 0.1, 0.55, 0.06, 1)
        part(0, 1, 0.0, 1.0, 0, 0.06, _WOOD)
        part(0.1, 0.45, 0.55, 0.68, 0.08, 0.26, (240, 240, 240))
        part(0.55, 0.9, 0.55, 0.68, 0.08, 0.26, (240, 240, 240))
    elif kind == "box":
        part(0, 1, 0.0, 0.8, 0, 1)
        part(0.44, 0.56, 0.79, 0.806, 0, 1, dark)
    elif kind == "barrel":
        mesh.drum((cx, cz), (0.0, 0.5), (0.27, 0.325), rgb)
        mesh.drum((cx, cz), (0.5, 1.0), (0.325, 0.27), rgb)
        mesh.drum((cx, cz), (0.46, 0.54), (0.33, 0.33), dark)
    else:
        raise AssertionError(f"no shape for a {kind}")

"""
A ``.glb`` as plain arrays in the world frame: one vertex table, one triangle table, and the
textures, ready to draw or to walk on.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from janusvln_ros.errors import InputError, require


class Look(NamedTuple):
    """What meshes must share to be drawn in one call: ``size`` of their images, None without."""

    size: tuple[int, int] | None
    double_sided: bool
    alpha_cutoff: float


Piece = tuple[NDArray, NDArray, NDArray, NDArray, int]
"""Positions, uv, colours, faces and the texture layer of a mesh."""


@dataclass(frozen=True)
class Batch:
    """
    Triangles ``[first, first + count)`` of a scene that are drawn in one call.

    ``textures``: uint8 [L, H, W, 4], top row first, one layer per material, or None where only
    vertex colours count.
    """

    first: int
    count: int
    textures: NDArray[np.uint8] | None
    double_sided: bool
    alpha_cutoff: float
    """Fragments with less alpha (0 to 1) are not drawn; 0 draws all."""


@dataclass(frozen=True, eq=False)
class Scene:
    """
    A static scene, world frame, metres, y up.

    ``positions`` float32 [V, 3]; ``uv`` float32 [V, 2] (glTF: origin at the top left of the
    image); ``colors`` uint8 [V, 4]; ``layers`` int32 [V] into its batch's textures; ``triangles``
    int32 [T, 3], counter-clockwise seen from the front, ordered by batch.
    """

    path: Path
    positions: NDArray[np.float32]
    uv: NDArray[np.float32]
    colors: NDArray[np.uint8]
    layers: NDArray[np.int32]
    triangles: NDArray[np.int32]
    batches: tuple[Batch, ...]


CACHED_SCENES = 2
"""
Scenes that are kept, read, drawn and walked on: episodes come home by home, and a simulator that
runs for hours must not grow with each.
"""


def load_scene(path: str | Path, up: str = "z") -> Scene:
    """
    Read the ``.glb`` at ``path``; ``up`` names the axis of the file that points up (``"z"``: world
    = (x, z, -y); ``"y"``: unchanged).

    The last few scenes are kept, so that many environments share one; a file that changed on disk
    is read again.

    Raises:
        InputError: no such file, not a ``.glb`` that can be read, or nothing to see in it.
    """
    path = Path(path)
    try:
        stat = path.stat()
    except OSError as error:
        raise InputError(
            f"the scene {path} cannot be opened ({error.strerror}): check the scene's "
            "path and data_dir"
        ) from error
    return _read(path, up, (path.resolve(), stat.st_mtime_ns, stat.st_size))


@lru_cache(maxsize=CACHED_SCENES)
def _read(path: Path, up: str, version: tuple[Path, int, int]) -> Scene:
    """Read a scene; ``version`` tells the file from others that were at this path."""
    import trimesh

    try:
        file = trimesh.load_scene(path, process=False)
    except Exception as error:  # trimesh raises whatever its parsers stumble over
        raise InputError(
            f"the scene {path} cannot be read as .glb ({type(error).__name__}: "
            f"{error}): export it again as glTF 2.0 binary"
        ) from error
    pieces: dict[Look, list[Piece]] = {}
    images: dict[Look, dict[int, tuple[int, Any]]] = {}
    for node in file.graph.nodes_geometry:
        transform, name = file.graph[node]
        mesh = file.geometry[name]
        if isinstance(mesh, trimesh.Trimesh) and len(mesh.faces):  # not points and lines
            image, look, piece = _piece(mesh, transform, up)
            # trimesh hands out one image object per image of the file, so shared textures are
            # stored once.
            layers = images.setdefault(look, {})
            layer, _ = layers.setdefault(id(image), (len(layers), image))
            pieces.setdefault(look, []).append((*piece, layer))
    require(pieces, f"the scene {path} holds no triangles: give a .glb with a mesh")

    batches, tables, vertices, first = [], [], 0, 0
    for look, group in pieces.items():
        for positions, uv, colors, faces, layer in group:
            layer_V = np.full(len(positions), layer)
            tables.append((positions, uv, colors, layer_V, faces + vertices))
            vertices += len(positions)
        textures = None
        if look.size is not None:
            textures = np.stack(
                [np.asarray(image.convert("RGBA")) for _, image in images[look].values()]
            )
        count = sum(len(faces) for *_, faces, _ in group)
        batches.append(Batch(first, count, textures, look.double_sided, look.alpha_cutoff))
        first += count
    positions, uv, colors, layers_V, triangles = map(np.concatenate, zip(*tables))
    require(
        np.isfinite(positions).all(),
        f"the scene {path} has vertices that are not finite: export it again",
    )
    return Scene(
        path,
        positions.astype(np.float32),
        uv.astype(np.float32),
        colors.astype(np.uint8),
        layers_V.astype(np.int32),
        triangles.astype(np.int32),
        tuple(batches),
    )


def _piece(
    mesh: Any, transform: NDArray[np.float64], up: str
) -> tuple[Any | None, Look, tuple[NDArray, NDArray, NDArray, NDArray]]:
    """
    A trimesh mesh in the world: its base colour image (PIL) or None, its look, and its positions
    [V, 3], uv [V, 2], colours [V, 4] and faces [F, 3].
    """
    to_world = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], float) if up == "z" else np.eye(3)
    linear = to_world @ transform[:3, :3]
    positions = np.asarray(mesh.vertices) @ linear.T + to_world @ transform[:3, 3]
    # a mirrored instance keeps its outside outside
    faces = np.asarray(mesh.faces)[:, :: -1 if np.linalg.det(linear) < 0 else 1]
    image, color, double_sided, cutoff = _material(mesh)
    uv = getattr(mesh.visual, "uv", None)
    if image is None or uv is None:
        image, uv = None, np.zeros((len(positions), 2))
    # trimesh turns glTF's top-left origin over
    uv = np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1)
    colors = np.broadcast_to(color, (len(positions), 4))
    look = Look(None if image is None else image.size, double_sided, cutoff)
    return image, look, (positions, uv, colors, faces)


def _material(mesh: Any) -> tuple[Any | None, NDArray, bool, float]:
    """
    Base colour image (PIL) or None, colour uint8 [4] or [V, 4], whether both sides show, and the
    alpha cutoff of a trimesh mesh.
    """
    if mesh.visual.kind == "vertex":
        return None, np.asarray(mesh.visual.vertex_colors), False, 0.0
    material: Any = getattr(mesh.visual, "material", None)
    factor = getattr(material, "baseColorFactor", None)
    color = np.full(4, 255, np.uint8) if factor is None else np.asarray(factor, np.uint8)
    cutoff = 0.0
    if getattr(material, "alphaMode", None) == "MASK":
        cutoff = 0.5 if material.alphaCutoff is None else float(material.alphaCutoff)
    image = getattr(material, "baseColorTexture", None)
    return image, color, bool(getattr(material, "doubleSided", False)), cutoff

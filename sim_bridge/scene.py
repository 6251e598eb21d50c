"""
A ``.glb`` as plain arrays in the world frame: one vertex table, one triangle table, and the
textures, ready to draw or to walk on.
"""

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from janusvln_ros.errors import InputError


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


CACHED_SCENES = 8
_cache: OrderedDict[tuple[Any, ...], Scene] = OrderedDict()
_lock = Lock()


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
    key = (path.resolve(), stat.st_mtime_ns, stat.st_size, up)
    with _lock:
        if key in _cache:
            _cache.move_to_end(key)
            return _cache[key]
    scene = _read(path, up)
    with _lock:
        _cache[key] = scene
        while len(_cache) > CACHED_SCENES:
            _cache.popitem(last=False)
    return scene


def _read(path: Path, up: str) -> Scene:
    import trimesh

    try:
        file = trimesh.load_scene(path, process=False)
    except Exception as error:  # trimesh raises whatever its parsers stumble over
        raise InputError(
            f"the scene {path} cannot be read as .glb ({type(error).__name__}: "
            f"{error}): export it again as glTF 2.0 binary"
        ) from error
    to_world = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], float) if up == "z" else np.eye(3)

    pieces: dict[tuple[Any, ...], list[tuple[NDArray, NDArray, NDArray, NDArray, int]]] = {}
    images: dict[tuple[Any, ...], dict[int, tuple[int, Any]]] = {}
    for node in file.graph.nodes_geometry:
        transform, name = file.graph[node]
        mesh = file.geometry[name]
        if not isinstance(mesh, trimesh.Trimesh) or len(mesh.faces) == 0:
            continue  # points and lines
        linear = to_world @ transform[:3, :3]
        positions = np.asarray(mesh.vertices) @ linear.T + to_world @ transform[:3, 3]
        faces = np.asarray(mesh.faces)
        if np.linalg.det(linear) < 0:
            faces = faces[:, ::-1]  # a mirrored instance keeps its outside outside
        image, color, double_sided, cutoff = _material(mesh)
        uv = getattr(mesh.visual, "uv", None)
        if image is None or uv is None:
            image, uv = None, np.zeros((len(positions), 2))
        key = (image.size if image is not None else None, double_sided, cutoff)
        layer = 0
        if image is not None:
            # trimesh hands out one image object per image of the file, so shared textures are
            # stored once.
            layer, _ = images.setdefault(key, {}).setdefault(
                id(image), (len(images.get(key, {})), image)
            )
        # trimesh turns glTF's top-left origin over
        uv = np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1)
        pieces.setdefault(key, []).append(
            (positions, uv, np.broadcast_to(color, (len(positions), 4)), faces, layer)
        )
    if not pieces:
        raise InputError(f"the scene {path} holds no triangles: give a .glb with a mesh")

    tables: list[list[NDArray]] = [[], [], [], [], []]
    batches, vertices, first = [], 0, 0
    for key, group in pieces.items():
        count = 0
        for positions, uv, color, faces, layer in group:
            for table, rows in zip(
                tables, (positions, uv, color, np.full(len(positions), layer), faces + vertices)
            ):
                table.append(rows)
            vertices += len(positions)
            count += len(faces)
        layers = [np.asarray(image.convert("RGBA")) for _, image in images.get(key, {}).values()]
        batches.append(Batch(first, count, np.stack(layers) if layers else None, key[1], key[2]))
        first += count
    positions, uv, colors, layers_V, triangles = (np.concatenate(table) for table in tables)
    if not np.isfinite(positions).all():
        raise InputError(f"the scene {path} has vertices that are not finite: export it again")
    return Scene(
        path,
        positions.astype(np.float32),
        uv.astype(np.float32),
        colors.astype(np.uint8),
        layers_V.astype(np.int32),
        triangles.astype(np.int32),
        tuple(batches),
    )


def _material(mesh: Any) -> tuple[Any | None, NDArray, bool, float]:
    """
    Base colour image (PIL) or None, colour uint8 [4] or [V, 4], whether both sides show, and the
    alpha cutoff of a trimesh mesh.
    """
    white = np.full(4, 255, np.uint8)
    if mesh.visual.kind == "vertex":
        return None, np.asarray(mesh.visual.vertex_colors), False, 0.0
    material = getattr(mesh.visual, "material", None)
    if material is None:
        return None, white, False, 0.0
    factor = getattr(material, "baseColorFactor", None)
    cutoff = 0.0
    if getattr(material, "alphaMode", None) == "MASK":
        cutoff = 0.5 if material.alphaCutoff is None else float(material.alphaCutoff)
    color = white if factor is None else np.asarray(factor, np.uint8)
    return (
        getattr(material, "baseColorTexture", None),
        color,
        bool(getattr(material, "doubleSided", False)),
        cutoff,
    )

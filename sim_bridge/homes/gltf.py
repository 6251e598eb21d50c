"""
The ``.glb`` of a home from triangles and pictures. Written with struct and numpy: it takes
milliseconds.
"""

import json
import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

GL_FLOAT, GL_USHORT, GL_UINT, GL_VERTICES, GL_INDICES = 5126, 5123, 5125, 34962, 34963

Polygon = tuple[Sequence[tuple[float, float, float]], Sequence[tuple[float, float]]]
"""Three or four corners (x, y, z) of the world and their places (u, v) in a picture."""


class Part(NamedTuple):
    """
    Triangles that share a picture: ``image`` is a PNG or JPEG file, ``points`` float32 [V, 3] in
    the file's axes, ``uv`` float32 [V, 2], ``indices`` three per triangle.
    """

    name: str
    image: bytes
    points: np.ndarray
    uv: np.ndarray
    indices: np.ndarray


def glb_bytes(parts: Sequence[Part]) -> bytes:
    """
    The binary glTF, file axes z up: ``world = (x, z, -y)`` of the file, as in Matterport3D
    scenes.
    """
    blob = bytearray()
    views: list[dict[str, int]] = []

    def view(data: bytes, **target: int) -> int:
        views.append({"buffer": 0, "byteOffset": len(blob), "byteLength": len(data), **target})
        blob.extend(data + b"\0" * (-len(data) % 4))
        return len(views) - 1

    accessors: list[dict[str, object]] = []
    images: list[dict[str, object]] = []
    for _, image, points, uv, indices in parts:
        vertices = {"componentType": GL_FLOAT, "count": len(points)}
        accessors += [
            {"bufferView": view(points.tobytes(), target=GL_VERTICES), **vertices}
            | {"type": "VEC3", "min": points.min(axis=0).tolist()}
            | {"max": points.max(axis=0).tolist()},
            {"bufferView": view(uv.tobytes(), target=GL_VERTICES), **vertices} | {"type": "VEC2"},
            {"bufferView": view(indices.tobytes(), target=GL_INDICES)}
            | {"componentType": GL_UINT if indices.itemsize == 4 else GL_USHORT}
            | {"count": len(indices), "type": "SCALAR"},
        ]
        kind = "png" if image.startswith(b"\x89PNG") else "jpeg"
        images.append({"bufferView": view(image), "mimeType": f"image/{kind}"})
    names = [part.name for part in parts]
    document = {
        "asset": {"version": "2.0", "generator": "janusvln houses"},
        "scene": 0,
        "scenes": [{"nodes": list(range(len(parts)))}],
        "nodes": [{"name": name, "mesh": i} for i, name in enumerate(names)],
        "meshes": [{"name": n, "primitives": [_primitive(i)]} for i, n in enumerate(names)],
        "materials": [_material(i, name) for i, name in enumerate(names)],
        "textures": [{"source": i} for i in range(len(parts))],
        "images": images,
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(blob)}],
    }
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    return b"".join(
        (
            struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + len(blob)),
            struct.pack("<I4s", len(text), b"JSON"),
            text,
            struct.pack("<I4s", len(blob), b"BIN\0"),
            blob,
        )
    )


def triangulated(polygons: Sequence[Polygon]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Triangles and quadrilaterals as glTF has them: points float32 [V, 3] in the file's axes, uv
    float32 [V, 2], and three indices per triangle.
    """
    sizes = np.array([len(corners) for corners, _ in polygons])
    points = np.array([p for corners, _ in polygons for p in corners], np.float32)
    uv = np.array([p for _, uvs in polygons for p in uvs], np.float32)
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    quads = first[sizes == 4]
    indices = np.concatenate(
        [(first[:, None] + [0, 1, 2]).ravel(), (quads[:, None] + [0, 2, 3]).ravel()]
    )
    file_points = np.stack([points[:, 0], -points[:, 2], points[:, 1]], axis=1)
    return file_points, uv, indices.astype(np.uint32 if len(points) > 65535 else np.uint16)


def _primitive(i: int) -> dict[str, object]:
    return {
        "attributes": {"POSITION": 3 * i, "TEXCOORD_0": 3 * i + 1},
        "indices": 3 * i + 2,
        "material": i,
        "mode": 4,
    }


def _material(i: int, name: str) -> dict[str, object]:
    return {
        "name": name,
        "pbrMetallicRoughness": {
            "baseColorTexture": {"index": i},
            "metallicFactor": 0.0,
            "roughnessFactor": 1.0,
        },
        "doubleSided": False,
    }


def png_bytes(image: np.ndarray) -> bytes:
    """An 8 bit RGB image [H, W, 3] as the bytes of a PNG file."""
    height, width, _ = image.shape
    rows = np.pad(image.reshape(height, width * 3), ((0, 0), (1, 0))).tobytes()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows, 9))
        + chunk(b"IEND", b"")
    )

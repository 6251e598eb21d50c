"""
RGB and depth of a scene by OpenGL without a window (EGL): unlit, trilinear mipmaps, back faces
culled, as habitat-sim draws a stage without lights.

Works on a graphics card and on a CPU (Mesa's llvmpipe). A GL context belongs to one thread, so
each thread has one renderer, shared by its environments.
"""

import contextlib
import importlib
import math
import os
import threading
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from janusvln_ros.errors import InputError
from sim_bridge.scene import CACHED_SCENES, Scene

NEAR_M, FAR_M = 0.01, 1000.0

VERTEX_SHADER = """
#version 330
uniform mat4 to_clip;
in vec3 position;
in vec2 uv;
in vec4 color;
in int layer;
out vec2 at;
out vec4 tint;
flat out float slice;
void main() {
    gl_Position = to_clip * vec4(position, 1.0);
    at = uv;
    tint = color;
    slice = float(layer);
}
"""

# gl_FragCoord.w is 1 / clip w, and clip w is the distance along the optical axis.
FRAGMENT_SHADER = """
#version 330
#define TEXTURED {textured}
#define CUTOFF {cutoff}
uniform sampler2DArray image;
in vec2 at;
in vec4 tint;
flat in float slice;
layout(location = 0) out vec4 rgba;
layout(location = 1) out float depth;
void main() {{
    rgba = tint;
#if TEXTURED
    rgba *= texture(image, vec3(at, slice));
#endif
#if CUTOFF
    if (rgba.a < CUTOFF / 255.0) discard;
#endif
    depth = 1.0 / gl_FragCoord.w;
}}
"""


class Renderer:
    """
    One GL context and the scenes uploaded to it.

    Belongs to the thread and the process that made it.
    """

    def __init__(self) -> None:
        """
        Open a context.

        Raises:
            InputError: no EGL or no OpenGL 3.3 here; the sentence names the packages to install.
        """
        # Mesa's software renderer shares the symbols of its LLVM with all that is loaded after it.
        # The LLVM in triton, a part of torch's builds for NVIDIA cards, would take them for its
        # own and end the process by a segmentation fault: where it is installed it is loaded
        # first.
        with contextlib.suppress(ImportError):
            importlib.import_module("triton")
        import moderngl

        self._moderngl = moderngl
        self._owner = (os.getpid(), threading.get_ident())
        try:
            options: dict[str, Any] = {"require": 330, "standalone": True, "backend": "egl"}
            self._context = moderngl.create_context(**options)
        except Exception as error:  # the loader raises plain Exception and OSError
            raise InputError(
                f"no OpenGL 3.3 context without a window ({error}): install EGL, on "
                "Debian and Ubuntu 'apt install libegl1 libgl1 libgl1-mesa-dri'"
            ) from error
        self._context.enable_only(moderngl.DEPTH_TEST)
        # Images leave the context with the top row first (the projection turns y over), which
        # makes front faces clockwise for GL.
        self._context.front_face = "cw"
        self._context.cull_face = "back"
        self._programs: dict[tuple[bool, int], Any] = {}
        self._targets: dict[tuple[int, int], Any] = {}
        self._scenes: OrderedDict[int, tuple[Scene, list[tuple[Any, Any, bool]], list[Any]]] = (
            OrderedDict()
        )

    @property
    def device(self) -> str:
        """What draws: the GL renderer string, e.g. ``llvmpipe (...)`` on a CPU."""
        return str(self._context.info["GL_RENDERER"])

    def check_thread(self) -> None:
        """
        Raise ``RuntimeError`` unless called from the thread and the process that made this
        renderer.
        """
        pid, thread = self._owner
        if os.getpid() != pid:
            raise RuntimeError(
                "this environment was made before a fork, which its GL context did "
                "not survive: make environments in the child process"
            )
        if threading.get_ident() != thread:
            raise RuntimeError(
                "this environment was made in another thread, to which its GL context "
                "belongs: use it there, or make one in this thread"
            )

    def render(
        self,
        scene: Scene,
        eye: ArrayLike,
        rotation: ArrayLike,
        *,
        width: int,
        height: int,
        focal_length: float,
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """
        Draw ``scene`` from ``eye`` [3] with the camera turned by ``rotation`` [4] x y z w
        (identity looks along -z).

        Returns:
            RGB uint8 [H, W, 3] and depth float32 [H, W]: metres along the optical axis, not
            clipped, 0 where nothing was hit.
        """
        self.check_thread()
        batches = self._upload(scene)
        target = self._target(width, height)
        target.use()
        target.clear()
        matrix = np.ascontiguousarray(
            clip_matrix(eye, rotation, width, height, focal_length).T, np.float32
        ).tobytes()
        for program in self._programs.values():
            program["to_clip"].write(matrix)
        for array, texture, double_sided in batches:
            if double_sided:
                self._context.disable(self._moderngl.CULL_FACE)
            else:
                self._context.enable(self._moderngl.CULL_FACE)
            if texture is not None:
                texture.use(0)
            array.render()
        rgb = np.empty((height, width, 3), np.uint8)
        depth = np.empty((height, width), np.float32)
        target.read_into(rgb, components=3, alignment=1)
        target.read_into(depth, components=1, attachment=1, dtype="f4")
        return rgb, depth

    def _target(self, width: int, height: int) -> Any:
        """A framebuffer of this size: RGBA 8 bit, depth float32 in metres, z-buffer."""
        size, context = (width, height), self._context
        if size not in self._targets:
            self._targets[size] = context.framebuffer(
                [context.renderbuffer(size, 4), context.renderbuffer(size, 1, dtype="f4")],
                context.depth_renderbuffer(size),
            )
        return self._targets[size]

    def _program(self, textured: bool, cutoff: int) -> Any:
        if (textured, cutoff) not in self._programs:
            fragment = FRAGMENT_SHADER.format(textured=int(textured), cutoff=f"{cutoff}")
            self._programs[textured, cutoff] = self._context.program(
                vertex_shader=VERTEX_SHADER, fragment_shader=fragment
            )
        return self._programs[textured, cutoff]

    def _upload(self, scene: Scene) -> list[tuple[Any, Any, bool]]:
        """
        The vertex array, texture and two-sidedness of each batch of ``scene``; uploaded once,
        dropped when four other scenes were drawn since.
        """
        if id(scene) in self._scenes:
            self._scenes.move_to_end(id(scene))
            return self._scenes[id(scene)][1]
        context = self._context
        table = np.zeros(
            len(scene.positions),
            [("position", "f4", 3), ("uv", "f4", 2), ("color", "u1", 4), ("layer", "i4")],
        )
        table["position"], table["uv"], table["color"], table["layer"] = (
            scene.positions,
            scene.uv,
            scene.colors,
            scene.layers,
        )
        vertices = context.buffer(table.tobytes())
        resources: list[Any] = [vertices]
        batches: list[tuple[Any, Any, bool]] = []
        for batch in scene.batches:
            program = self._program(batch.textures is not None, round(batch.alpha_cutoff * 255))
            texture = None
            if batch.textures is not None:
                layers, height, width, _ = batch.textures.shape
                texture = context.texture_array(
                    (width, height, layers), 4, batch.textures.tobytes()
                )
                texture.build_mipmaps()
                texture.filter = (self._moderngl.LINEAR_MIPMAP_LINEAR, self._moderngl.LINEAR)
                resources.append(texture)
            indices = context.buffer(
                scene.triangles[batch.first : batch.first + batch.count].tobytes()
            )
            names = {"position": "3f4", "uv": "2f4", "color": "4f1", "layer": "1i4"}
            # A program without texture has no use for some attributes, and GL drops those: pad
            # over them.
            layout = " ".join(
                form if name in program else f"{int(form[0]) * int(form[2])}x1"
                for name, form in names.items()
            )
            array = context.vertex_array(
                program,
                [(vertices, layout, *[name for name in names if name in program])],
                index_buffer=indices,
            )
            resources += [indices, array]
            batches.append((array, texture, batch.double_sided))
        self._scenes[id(scene)] = (scene, batches, resources)
        while len(self._scenes) > CACHED_SCENES:
            _, (_, _, old) = self._scenes.popitem(last=False)
            for resource in reversed(old):
                resource.release()
        return batches


def clip_matrix(
    eye: ArrayLike, rotation: ArrayLike, width: int, height: int, focal_length: float
) -> NDArray[np.float64]:
    """
    World to clip space [4, 4], column vectors, y turned over so that row 0 of the image is its top
    row.
    """
    x, y, z, w = np.asarray(rotation, float) / math.sqrt(float(np.dot(rotation, rotation)))
    to_world = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    view = np.eye(4)
    view[:3, :3] = to_world.T
    view[:3, 3] = -to_world.T @ np.asarray(eye, float)
    projection = np.array(
        [
            [2 * focal_length / width, 0, 0, 0],
            [0, -2 * focal_length / height, 0, 0],
            [0, 0, -(FAR_M + NEAR_M) / (FAR_M - NEAR_M), -2 * FAR_M * NEAR_M / (FAR_M - NEAR_M)],
            [0, 0, -1, 0],
        ]
    )
    return projection @ view


of_thread = threading.local()


def thread_renderer() -> Renderer:
    """
    The renderer of the calling thread, made on first use and shared by all its environments.

    Raises:
        InputError: no OpenGL without a window here.
    """
    renderer = getattr(of_thread, "renderer", None)
    if renderer is None or renderer._owner[0] != os.getpid():
        renderer = of_thread.renderer = Renderer()
    return renderer

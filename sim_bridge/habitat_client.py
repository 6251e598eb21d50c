"""
``NavEnv`` over a simulator in another process: habitat-sim in its own Python, started, watched and
if need be restarted from here.
"""

import contextlib
import dataclasses
import io
import json
import logging
import math
import mmap
import os
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from janusvln_ros.actions import Action
from janusvln_ros.data.top_down_map import TopDownMap
from janusvln_ros.errors import FailedError, InputError, require
from janusvln_ros.limits import limit
from janusvln_ros.schema import typed
from sim_bridge import habitat_server
from sim_bridge.habitat_server import (
    DisconnectedError,
    ProtocolError,
    receive,
    send,
    shared_size,
    take_shared,
)
from sim_bridge.nav_env import NO_SCENE, EnvSettings, NavEnv, Pose, SetupError, setting

LOG = logging.getLogger(__name__)
LAST_WORDS_LINES = 30
PYTHON_VARIABLE = "JANUSVLN_HABITAT_PYTHON"
HOW_TO_MAKE_ONE = (
    "make an interpreter with 'conda create -n habitat -c conda-forge -c aihabitat python=3.9 "
    "habitat-sim=0.3.3 headless' and give its bin/python as 'python' or in "
    f"{PYTHON_VARIABLE} (docs/simulation.md)"
)

CANNOT_DRAW = re.compile(
    r"unable to find (CUDA|EGL) device|unable to create windowless context"
    r"|failed to create OpenGL context|failed to make platform current|no EGL devices"
    r"|cannot (get|initialize) .*EGL|EGL_(NOT_INITIALIZED|BAD_\w+)|DISPLAY not detected"
    r"|GLX context does not support|cannot open shared object file.*lib(EGL|GL)"
    r"|lib(EGL|GL)[^ ]*: cannot open shared object",
    re.IGNORECASE,
)
"""What habitat-sim says before it ends where it cannot draw."""

CANNOT_READ_SCENE = re.compile(
    r"cannot (load|open|import)|openData\(\)|openFile\(\)|Importer::|could not (load|open)"
    r"|failed to (load|open)|ESP_CHECK failed.*(load|open|find)",
    re.IGNORECASE,
)
"""What its importers say of a damaged file."""

LAST_LINES_OF_A_READER = 3
"""So few lines before the end they say it: a texture that was skipped is no reason to end."""


@dataclass(frozen=True)
class HabitatSettings:
    """
    How Habitat is started and for how long it is waited for: by these names the options of
    ``make_env``, ``env.options`` of a rollout, the parameters of ``sim_bridge`` and the arguments
    of the graph ``simulation``.

    Raises:
        InputError: a value is out of its range.
    """

    python: str = setting(
        "", f"Habitat's interpreter; empty: as the environment variable {PYTHON_VARIABLE} says."
    )
    command: str = setting(
        "",
        "What to start in place of Habitat's 'python habitat_server.py', such as that in a "
        "container; --socket PATH is appended.",
    )
    gpu: int = setting(
        0, "Graphics card on which Habitat draws, -1 where there is none.", (-1, 63)
    )
    start_timeout: float = setting(
        120.0, "Seconds within which Habitat must have started.", (0.1, 3600.0)
    )
    load_timeout: float = setting(
        300.0, "Seconds within which Habitat must have loaded a scene.", (0.1, 3600.0)
    )
    request_timeout: float = setting(
        60.0, "Seconds within which Habitat must answer anything else.", (0.1, 3600.0)
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, limits = getattr(self, field.name), field.metadata["limits"]
            if limits:
                require(
                    limits[0] <= value <= limits[1],
                    f"{field.name} is {value}: give {limits[0]:g} to {limits[1]:g}",
                )

    def words(self) -> list[str]:
        """
        The command that starts the server, without its socket.

        Raises:
            InputError: no interpreter is named.
        """
        if self.command:
            return shlex.split(self.command)
        return [self.interpreter(), str(Path(habitat_server.__file__).resolve())]

    def interpreter(self) -> str:
        """
        The path of Habitat's Python.

        Raises:
            InputError: none is named.
        """
        python = self.python or os.environ.get(PYTHON_VARIABLE)
        if not python:
            raise SetupError(
                "Habitat's Python is not known: give its path as 'python' (evaluate: --set "
                f"env.options.python=PATH, graphs: python:=PATH) or in the environment variable "
                f"{PYTHON_VARIABLE}; {HOW_TO_MAKE_ONE}"
            )
        return python


def habitat_settings(options: Mapping[str, Any]) -> HabitatSettings:
    """
    The settings of Habitat that are among ``options``; ``command`` may be a list of words.

    Raises:
        InputError: one is unknown, of the wrong type or out of its range.
    """
    told = dict(options)
    if isinstance(told.get("command"), list | tuple):
        told["command"] = shlex.join(map(str, told["command"]))
    for name in ("python", "command"):
        if isinstance(told.get(name), Path):
            told[name] = str(told[name])
    return HabitatSettings(**typed(HabitatSettings, told, "backend habitat"))


class SimulatorError(FailedError):
    """
    The simulator's process crashed, hung or talked nonsense, and did so again when it was
    restarted. The message ends with its last words.
    """


class Server:
    """One server process and the connection to it."""

    def __init__(self, command: Sequence[str], start_timeout: float) -> None:
        self.connection: socket.socket | None = None
        self._lines: deque[str] = deque(maxlen=LAST_WORDS_LINES)
        with contextlib.ExitStack() as undo, socket.socket(socket.AF_UNIX) as listener:
            self.folder = Path(tempfile.mkdtemp(prefix="janusvln-"))  # for this user alone
            undo.callback(shutil.rmtree, self.folder)
            address = str(self.folder / "simulator")
            listener.bind(address)
            listener.listen(1)
            try:
                self.process = subprocess.Popen(
                    [*command, "--socket", address],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # a group, so that nothing of a wrapper is left
                )
            except (OSError, ValueError) as problem:
                reason = getattr(problem, "strerror", None) or problem
                raise SetupError(
                    f"{command[0]} cannot be started ({reason}); {HOW_TO_MAKE_ONE}"
                ) from problem
            undo.pop_all()
            undo.callback(self.stop)
            self._output = self.process.stdout or io.BytesIO()
            # of a line without end, pieces
            pieces = iter(partial(self._output.readline, 4096), b"")
            lines = (line.decode(errors="replace").rstrip()[:500] for line in pieces)
            self._reader = threading.Thread(target=self._lines.extend, args=(lines,), daemon=True)
            self._reader.start()
            try:
                self.connection = self._accept(listener, start_timeout)
            except (DisconnectedError, TimeoutError) as error:
                raise type(error)(f"{said(self.last_line())}, and {error}") from None
            undo.pop_all()

    def _accept(self, listener: socket.socket, timeout: float) -> socket.socket:
        listener.settimeout(0.2)
        for _ in range(max(int(timeout / 0.2), 1)):
            with contextlib.suppress(TimeoutError):
                return listener.accept()[0]
            if self.process.poll() is not None:
                raise DisconnectedError(
                    f"it ended with status {self.process.returncode} before it connected"
                )
        raise TimeoutError(
            f"it did not connect within {timeout:g} s (raise start_timeout if it is only slow)"
        )

    def _await_end(self) -> None:
        # one that crashed closes its connection a moment before it is gone
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(0.3)
            self._reader.join(1.0)

    def last_line(self) -> str:
        """The last line that the process wrote; empty if there is none."""
        self._await_end()
        return next((line.strip() for line in reversed(self._lines.copy()) if line.strip()), "")

    def line_about(self, words: re.Pattern[str], last: int = LAST_WORDS_LINES) -> str:
        """The first of the ``last`` lines in which ``words`` are found; empty if there is none."""
        self._await_end()
        lines = [line.strip() for line in self._lines.copy() if line.strip()]
        return next((line for line in lines[-last:] if words.search(line)), "")

    def last_words(self) -> str:
        """The last lines that the process wrote, and how it ended."""
        self._await_end()
        status = self.process.returncode
        ended = (
            "still running"
            if status is None
            else f"killed by signal {-status}"
            if status < 0
            else f"ended with status {status}"
        )
        return f"({ended}) its last words:\n" + "\n".join(f"  | {line}" for line in self._lines)

    def stop(self, patience: float = 0.0) -> None:
        """
        Close the connection; end the process, by force if it does not go within ``patience``
        seconds; remove the socket.
        """
        if self.connection is not None:
            self.connection.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(patience)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(1.0)
        if not self._reader.is_alive():
            self._output.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class HabitatEnv(NavEnv):
    """
    ``NavEnv`` over ``habitat_server.py``.

    If the process crashes, hangs or sends garbage, that is logged with its last words, it is
    started anew, put where the agent was, and asked once more; if that fails too,
    ``SimulatorError`` is raised. ``restarts`` counts.
    """

    def __init__(
        self,
        settings: EnvSettings,
        habitat: HabitatSettings,
        *,
        scene: str | Path | None = None,
        data_dir: str | Path = "data",
    ) -> None:
        """
        Start the server, as ``habitat`` says; for the rest see ``make_env``.

        Raises:
            SetupError: no interpreter is named, or it cannot run Habitat.
            InputError: the scene cannot be loaded.
            SimulatorError: it starts but crashes, or its protocol is of another version.
        """
        super().__init__(settings, data_dir)
        self.restarts = 0
        self.habitat = habitat
        self._command = habitat.words()
        # of no name, so that nothing is left of it whoever is killed
        pixels = settings.width * settings.height
        self._most = 7 * pixels + limit("REPLY_MB") * 1_000_000
        self._descriptor = os.memfd_create("janusvln-pictures")
        os.truncate(self._descriptor, shared_size((3 * pixels, 1), (pixels, 4)))
        self._memory = mmap.mmap(self._descriptor, 0)
        self.server: Server | None = None
        self._closed = False
        self._scene: Path | None = None
        try:
            self._start()
            if scene is not None:
                self._load(Path(scene))
        except BaseException:
            self.close()
            raise

    def _load(self, path: Path) -> None:
        if path == self._scene:
            return
        require(
            path.is_file(), f"the scene {path} is not there: check the scene's path and data_dir"
        )
        check_scene(path)
        self._scene, self._position, self._seen = None, None, None
        reply = self._ask(_load_request(path), self.habitat.load_timeout)
        surface = str(reply["navmesh"])
        level = logging.WARNING if "anew" in surface else logging.INFO
        LOG.log(level, "scene %s loaded, walkable surface %s", path, surface)
        self._scene = path

    def mount(self, *, camera_height: float, tilt: float, hfov: float) -> None:
        """See ``NavEnv``: Habitat's sensors are fixed when it starts."""
        raise InputError(
            "habitat cannot mount its camera anew: give env.camera_height, env.tilt and env.hfov "
            "for the whole run, or use the backend houses"
        )

    def _put(self, position: NDArray[np.float64], rotation: NDArray[np.float64]) -> None:
        self._ask(_state_request(position, rotation))

    def _move(self, action: Action) -> tuple[Pose, bool]:
        reply = self._ask({"kind": "step", "action": int(action)})
        pose = reply["position"], reply["rotation"]
        return pose, reply["collided"] and action == Action.MOVE_FORWARD

    def _draw(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        shape = (self.settings.height, self.settings.width)
        reply = self._ask({"kind": "render"})
        rgb, depth = reply["rgb"], reply["depth"]
        pictures = [(p.dtype.str[1:], p.shape) for p in (rgb, depth) if isinstance(p, np.ndarray)]
        if pictures != [("u1", (*shape, 3)), ("f4", shape)]:
            raise SimulatorError(
                f"the simulator sent pictures of other shapes or types than {shape}: "
                "is it the habitat_server.py of this release?"
            )
        return rgb, depth

    def is_navigable(self, p: ArrayLike) -> bool:
        """See ``NavEnv``."""
        point = _list(p)
        asked = {"kind": "is_navigable", "p": point}
        return all(map(math.isfinite, point)) and bool(self._ask(asked)["value"])

    def snap_point(self, p: ArrayLike) -> NDArray[np.float64] | None:
        """See ``NavEnv``."""
        if not np.isfinite(np.asarray(p, float)).all():
            return None
        place: NDArray[np.float64] | None = self._ask({"kind": "snap_point", "p": _list(p)})[
            "value"
        ]
        return place

    def geodesic_distance(self, a: ArrayLike, b: ArrayLike) -> float:
        """See ``NavEnv``."""
        ends = {"a": _list(a), "b": _list(b)}
        if not np.isfinite([*ends.values()]).all():
            return math.inf
        return float(self._ask({"kind": "geodesic_distance", **ends})["value"])

    def expert_action(self, target: ArrayLike, radius: float) -> Action:
        """See ``NavEnv``: habitat-sim's greedy geodesic follower, without its memory."""
        request = {"kind": "expert_action", "target": _list(target), "radius": [float(radius)]}
        action: Action = self._ask(request)["value"]
        return action

    def top_down_map(self) -> TopDownMap:
        """See ``NavEnv``."""
        reply = self._ask({"kind": "top_down_map"})
        x, z = map(float, reply["origin"])
        return TopDownMap(reply["navigable"], (x, z), reply["resolution"])

    def close(self) -> None:
        """See ``NavEnv``: ends the process."""
        self._closed = True
        if self.server is not None:
            self.server.stop(patience=10.0)
            self.server = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _ask(self, request: Mapping[str, Any], timeout: float | None = None) -> dict[str, Any]:
        """
        Send a request and return the reply; on a failure of the process restart it, restore the
        state and ask once more.
        """
        require(not self._closed, "this environment is closed: make another one")
        require(self._scene is not None or request["kind"] == "load", NO_SCENE)
        kind, timeout = request["kind"], timeout or self.habitat.request_timeout
        try:
            return self._exchange(request, timeout)
        except (OSError, ProtocolError) as error:
            self._blame_input(request)
            self.restarts += 1
            LOG.warning("%s; restarting it", self._failed(error, f"on {kind}"))
        self._start()
        try:
            return self._exchange(request, timeout)
        except (OSError, ProtocolError) as error:
            self._blame_input(request)
            raise self._failed(error, f"on {kind}, twice in a row") from error

    def _blame_input(self, request: Mapping[str, Any]) -> None:
        """
        Where the process ended on what the user has to mend, say so; starting it again would not
        help.

        Raises:
            SetupError: it cannot draw.
            InputError: it cannot read the scene.
        """
        if self.server is None or request["kind"] not in ("hello", "load"):
            return
        if told := self.server.line_about(CANNOT_DRAW):
            self.close()
            raise cannot_draw(self.habitat.gpu, told)
        told = self.server.line_about(CANNOT_READ_SCENE, LAST_LINES_OF_A_READER)
        if (
            told
            and request["kind"] == "load"
            and self.server.process.returncode != -signal.SIGKILL
        ):
            self.server.stop()
            self.server = None
            raise _unreadable(request["scene"], told)

    def _exchange(
        self, request: Mapping[str, Any], timeout: float, descriptors: Sequence[int] = ()
    ) -> dict[str, Any]:
        connection = self.server and self.server.connection
        if not connection:
            raise DisconnectedError("the simulator is not running")
        connection.settimeout(timeout)
        send(connection, dict(request), descriptors)
        try:
            reply = receive(connection, timeout, most=self._most)
        except TimeoutError as error:
            raise TimeoutError(f"no answer within {timeout:g} s") from error
        if reply.get("ok") is True:
            return self._checked(str(request["kind"]), reply)
        if reply.get("ok") is not False or not isinstance(reply.get("error"), str):
            raise ProtocolError(f"a reply without 'ok' and 'error': {str(reply)[:200]}")
        require(not reply.get("bad_input"), reply["error"])
        if request["kind"] == "load":
            raise _unreadable(str(request["scene"]), reply["error"])
        if request["kind"] == "hello":
            raise self._unusable(said(reply["error"]))
        raise ProtocolError(f"the simulator reports {reply['error']}")

    def _checked(self, kind: str, reply: Mapping[str, Any]) -> dict[str, Any]:
        """
        What a reply to a request of that kind says.

        Raises:
            ProtocolError: a value is missing, or none that a simulator can mean.
        """
        values = {key: take_shared(self._memory, value) for key, value in reply.items()}
        for key, meaning in MEANINGS.get(kind, {}).items():
            if key not in values:
                raise ProtocolError(f"a reply without 'ok' and 'error': {kind} has no {key!r}")
            try:
                values[key] = meaning(values[key])
            except (TypeError, ValueError, OverflowError) as error:
                raise ProtocolError(f"it answered {kind} with {key} {error}") from error
        return values

    def _unusable(self, what: str) -> SetupError:
        """What is wrong with the interpreter, and how to make one."""
        return SetupError(f"{self._command[0]} cannot run Habitat: {what}; {HOW_TO_MAKE_ONE}")

    def _failed(self, error: BaseException, when: str) -> SimulatorError:
        """Stop the process and tell the whole story."""
        words = ""
        if self.server is not None:
            words = self.server.last_words()
            self.server.stop()
            self.server = None
        return SimulatorError(f"the simulator {self._command[:2]} failed {when}: {error} {words}")

    def _start(self) -> None:
        """Start the process, greet it, and put the agent where it was."""
        first = not self.versions
        try:
            self.server = Server(self._command, self.habitat.start_timeout)
        except OSError as problem:  # includes time-outs
            if first:
                raise self._unusable(str(problem)) from problem
            raise SimulatorError(
                f"the simulator {self._command[:2]} did not start: {problem}"
            ) from problem
        hello = {
            "kind": "hello",
            "settings": dataclasses.asdict(self.settings),
            "up": self.settings.up,
            "gpu": self.habitat.gpu,
        }
        step: Mapping[str, Any] = hello
        try:
            reply = self._exchange(hello, self.habitat.start_timeout, [self._descriptor])
            if self._scene is not None:
                step = _load_request(self._scene)
                self._exchange(step, self.habitat.load_timeout)
            if self._position is not None:
                step = _state_request(self._position, self._rotation)
                self._exchange(step, self.habitat.request_timeout)
        except (OSError, ProtocolError) as problem:
            self._blame_input(step)
            if first and isinstance(problem, DisconnectedError) and self.server is not None:
                last, status = self.server.last_line(), self.server.process.returncode
                raise self._unusable(
                    f"{said(last)}, and ended with status {status} before it was ready"
                ) from problem
            raise self._failed(problem, "while starting") from problem
        except InputError:
            self.close()
            raise
        self.versions = {"python": reply["python"], **reply["versions"]}


def check_scene(path: Path) -> None:
    """
    Find a damaged or unfinished ``.glb`` before a simulator stumbles over it.

    Raises:
        InputError: the file is no binary glTF 2.0, or cut short.
    """
    if path.suffix != ".glb":
        return
    with path.open("rb") as file:
        head = file.read(20)
        try:
            magic, version, total, size, kind = struct.unpack("<4sIII4s", head)
            text = file.read(size) if size <= total else b""
            damage = (
                f"it begins with {head[:12]!r}"
                if magic != b"glTF" or kind != b"JSON"
                else f"it is of version {version}"
                if version != 2
                else f"it should have {total} bytes"
                if total > path.stat().st_size
                else ""
            )
            if not damage:
                json.loads(text)
        except (struct.error, ValueError) as error:
            damage = f"its header cannot be read ({error})"
    require(
        not damage,
        f"the scene {path} ({path.stat().st_size} bytes) is no whole .glb file: {damage}; "
        "download or generate it again",
    )


def _unreadable(scene: str, words: str) -> InputError:
    return InputError(
        f"habitat-sim cannot load the scene {scene} ({said(words)}): download or generate the "
        "file again"
    )


def cannot_draw(gpu: int, told: str) -> SetupError:
    """That habitat-sim found no way to draw, and which setting to change."""
    remedy = (
        "set gpu to -1 where there is no graphics card for CUDA, or to the number of another one "
        "(evaluate: --set env.options.gpu=-1, graphs: gpu:=-1)"
        if gpu >= 0
        else "install EGL (apt install libegl1 libgl1 libgl1-mesa-dri), or set gpu to the number "
        "of a graphics card"
    )
    return SetupError(f"habitat-sim cannot draw with gpu {gpu} ({said(told)}): {remedy}")


def said(words: str) -> str:
    """What somebody said, for a sentence."""
    return f"it said {words!r}" if words else "it said nothing"


def _load_request(scene: Path) -> dict[str, Any]:
    return {"kind": "load", "scene": str(scene.resolve())}


def _state_request(position: NDArray[np.float64], rotation: NDArray[np.float64]) -> dict[str, Any]:
    return {"kind": "set_state", "position": _list(position), "rotation": _list(rotation)}


def _list(p: ArrayLike) -> list[float]:
    return [float(v) for v in np.asarray(p, float)]


def _floats(value: Any, count: int) -> NDArray[np.float64]:
    plain = isinstance(value, np.ndarray) or all(type(v) in (int, float) for v in value)
    array = np.array(value if plain else math.nan, float)
    if array.shape != (count,) or not np.isfinite(array).all():
        raise ValueError(f"{value!r:.80}, not {count} numbers")
    return array


def _rotation(value: Any) -> NDArray[np.float64]:
    rotation = _floats(value, 4)
    if not 0.9 < np.linalg.norm(rotation) < 1.1:
        raise ValueError(f"{value!r:.80}, no unit quaternion")
    return rotation


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError(f"{value!r:.80}, not true or false")
    return value


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError(f"{value!r:.80}, not a text")
    return value


def _place(value: Any) -> NDArray[np.float64] | None:
    return None if value is None else _floats(value, 3)


def _distance(value: Any) -> float:
    if value is None:
        return math.inf
    (distance,) = _floats([value], 1)
    if distance < 0:
        raise ValueError(f"{value!r:.80}, less than nothing")
    return float(distance)


def _action(value: Any) -> Action:
    if type(value) is not int or value not in [*Action]:
        raise ValueError(f"{value!r:.80}, which is no action")
    return Action(value)


def _picture(value: Any) -> NDArray[Any]:
    if not isinstance(value, np.ndarray):
        raise ValueError(f"{value!r:.80}, not a picture")
    return value


def _cells(value: Any) -> NDArray[np.bool_]:
    if not isinstance(value, np.ndarray) or value.dtype != bool or value.ndim != 2:
        raise ValueError(f"{value!r:.80}, not rows of true and false")
    return value


def _positive(value: Any) -> float:
    (size,) = _floats([value], 1)
    if size <= 0:
        raise ValueError(f"{value!r:.80}, not a positive number")
    return float(size)


def _versions(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError(f"{value!r:.80}, not names with versions")
    return {str(name): str(version)[:80] for name, version in value.items()}


MEANINGS: Mapping[str, Mapping[str, Callable[[Any], Any]]] = {
    "hello": {"python": _text, "versions": _versions},
    "load": {"navmesh": _text},
    "step": {"position": partial(_floats, count=3), "rotation": _rotation, "collided": _flag},
    "render": {"rgb": _picture, "depth": _picture},
    "is_navigable": {"value": _flag},
    "snap_point": {"value": _place},
    "geodesic_distance": {"value": _distance},
    "expert_action": {"value": _action},
    "top_down_map": {
        "navigable": _cells,
        "origin": partial(_floats, count=2),
        "resolution": _positive,
    },
}
"""What the values of a reply mean, by the kind of request; ValueError where they mean nothing."""

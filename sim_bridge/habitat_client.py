"""
``NavEnv`` over a simulator in another process: habitat-sim in its own Python, started, watched and
if need be restarted from here.
"""

import contextlib
import dataclasses
import io
import logging
import math
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from janusvln_ros.actions import Action
from janusvln_ros.data.top_down_map import TopDownMap
from janusvln_ros.errors import InputError, require
from sim_bridge import habitat_server
from sim_bridge.habitat_server import DisconnectedError, ProtocolError, receive, send
from sim_bridge.nav_env import NO_SCENE, EnvSettings, NavEnv, Pose

LOG = logging.getLogger(__name__)
LAST_WORDS_LINES = 30
REPLY_KEYS = {
    "load": ("navmesh",),
    "step": ("position", "rotation", "collided"),
    "render": ("rgb", "depth"),
    "is_navigable": ("value",),
    "snap_point": ("value",),
    "geodesic_distance": ("value",),
    "expert_action": ("value",),
    "top_down_map": ("navigable", "origin", "resolution"),
}


class SimulatorError(RuntimeError):
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
            self.process = subprocess.Popen(
                [*command, "--socket", address],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            undo.pop_all()
            undo.callback(self.stop)
            self._output = self.process.stdout or io.BytesIO()
            said = (line.decode(errors="replace").rstrip()[:500] for line in self._output)
            self._reader = threading.Thread(target=self._lines.extend, args=(said,), daemon=True)
            self._reader.start()
            try:
                self.connection = self._accept(listener, start_timeout)
            except (DisconnectedError, TimeoutError) as error:
                raise type(error)(f"{error} {self.last_words()}") from None
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
        raise TimeoutError(f"it did not connect within {timeout:.0f} s")

    def last_words(self) -> str:
        """The last lines that the process wrote, and how it ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            # one that crashed closes its connection a moment before it is gone
            self.process.wait(0.3)
            self._reader.join(1.0)
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
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join(1.0)
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
        *,
        scene: str | Path | None = None,
        data_dir: str | Path = "data",
        python: str | None = None,
        command: Sequence[str] | None = None,
        gpu: int = 0,
        start_timeout: float = 120.0,
        load_timeout: float = 300.0,
        request_timeout: float = 60.0,
    ) -> None:
        """
        Start the server.

        Args:
            settings, scene, data_dir: see ``make_env``. python: Habitat's interpreter; without
            it the environment variable ``JANUSVLN_HABITAT_PYTHON``. command: what to start instead
            of ``python habitat_server.py``, e.g. in a container; ``--socket PATH`` is appended.
            gpu: the graphics card on which Habitat draws, -1 for none. start_timeout,
            load_timeout, request_timeout: seconds after which the process counts as hung: until it
            connects, on loading a scene, on all else.

        Raises:
            InputError: no interpreter is named, it cannot be started, or the scene cannot be
                loaded.
            SimulatorError: it starts but crashes, or its protocol is of another version.
        """
        super().__init__(settings, data_dir)
        self.restarts = 0
        self.versions: dict[str, str] = {}
        if command is None:
            python = python or os.environ.get("JANUSVLN_HABITAT_PYTHON")
            if not python:
                raise InputError(
                    "Habitat's Python is not known: give its path as option 'python' "
                    "or in the environment variable JANUSVLN_HABITAT_PYTHON"
                )
            command = [python, str(Path(habitat_server.__file__).resolve())]
        self._command, self._gpu = list(command), gpu
        self._start_timeout, self._load_timeout = start_timeout, load_timeout
        self._request_timeout = request_timeout
        self.server: Server | None = None
        self._closed = False
        self._scene: Path | None = None
        self._start()
        if scene is not None:
            self._load(Path(scene))

    def _load(self, path: Path) -> None:
        if path == self._scene:
            return
        require(
            path.is_file(), f"the scene {path} is not there: check the scene's path and data_dir"
        )
        self._scene, self._position, self._seen = None, None, None
        reply = self._ask(_load_request(path), self._load_timeout)
        LOG.info("scene %s loaded, walkable surface %s", path, reply.get("navmesh"))
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
        try:
            pose = _floats(reply["position"], 3), _floats(reply["rotation"], 4)
        except (TypeError, ValueError) as error:
            raise SimulatorError(f"the simulator answered a step with {reply!r}") from error
        return pose, bool(reply["collided"]) and action == Action.MOVE_FORWARD

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
        return all(map(math.isfinite, point)) and bool(
            self._ask({"kind": "is_navigable", "p": point})["value"]
        )

    def snap_point(self, p: ArrayLike) -> NDArray[np.float64] | None:
        """See ``NavEnv``."""
        if not np.isfinite(np.asarray(p, float)).all():
            return None
        value = self._ask({"kind": "snap_point", "p": _list(p)})["value"]
        return None if value is None else _floats(value, 3)

    def geodesic_distance(self, a: ArrayLike, b: ArrayLike) -> float:
        """See ``NavEnv``."""
        ends = {"a": _list(a), "b": _list(b)}
        if not np.isfinite([*ends.values()]).all():
            return math.inf
        value = self._ask({"kind": "geodesic_distance", **ends})["value"]
        return math.inf if value is None else float(value)

    def expert_action(self, target: ArrayLike, radius: float) -> Action:
        """See ``NavEnv``: habitat-sim's greedy geodesic follower, without its memory."""
        request = {"kind": "expert_action", "target": _list(target), "radius": [float(radius)]}
        return Action(self._ask(request)["value"])

    def top_down_map(self) -> TopDownMap:
        """See ``NavEnv``."""
        reply = self._ask({"kind": "top_down_map"})
        x, z = reply["origin"]
        return TopDownMap(reply["navigable"], (float(x), float(z)), float(reply["resolution"]))

    def close(self) -> None:
        """See ``NavEnv``: ends the process."""
        self._closed = True
        if self.server is not None:
            self.server.stop(patience=10.0)
            self.server = None

    def _ask(self, request: Mapping[str, Any], timeout: float | None = None) -> dict[str, Any]:
        """
        Send a request and return the reply; on a failure of the process restart it, restore the
        state and ask once more.
        """
        require(not self._closed, "this environment is closed: make another one")
        require(self._scene is not None or request["kind"] == "load", NO_SCENE)
        kind, timeout = request["kind"], timeout or self._request_timeout
        try:
            return self._exchange(request, timeout)
        except (OSError, ProtocolError) as error:
            self.restarts += 1
            LOG.warning("%s; restarting it", self._failed(error, f"on {kind}"))
        self._start()
        try:
            return self._exchange(request, timeout)
        except (OSError, ProtocolError) as error:
            raise self._failed(error, f"on {kind}, twice in a row") from error

    def _exchange(self, request: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        connection = self.server and self.server.connection
        if not connection:
            raise DisconnectedError("the simulator is not running")
        connection.settimeout(timeout)
        send(connection, dict(request))
        try:
            reply = receive(connection, timeout)
        except TimeoutError as error:
            raise TimeoutError(f"no answer within {timeout:g} s") from error
        missing = [key for key in REPLY_KEYS.get(str(request["kind"]), ()) if key not in reply]
        if reply.get("ok") is True and not missing:
            return reply
        if reply.get("ok") is not False or not isinstance(reply.get("error"), str):
            raise ProtocolError(f"a reply without 'ok' and 'error': {str(reply)[:200]}")
        require(not reply.get("bad_input"), reply["error"])
        raise ProtocolError(f"the simulator reports {reply['error']}")

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
        try:
            self.server = Server(self._command, self._start_timeout)
        except (FileNotFoundError, PermissionError) as problem:
            raise InputError(
                f"{self._command[0]} cannot be started ({problem.strerror}): give the "
                "path of Habitat's Python"
            ) from problem
        except OSError as problem:  # includes time-outs
            raise SimulatorError(
                f"the simulator {self._command[:2]} did not start: {problem}"
            ) from problem
        hello = {
            "kind": "hello",
            "settings": dataclasses.asdict(self.settings),
            "up": self.settings.up,
            "gpu": self._gpu,
        }
        try:
            reply = self._exchange(hello, self._start_timeout)
            if self._scene is not None:
                self._exchange(_load_request(self._scene), self._load_timeout)
            if self._position is not None:
                self._exchange(
                    _state_request(self._position, self._rotation), self._request_timeout
                )
        except (OSError, ProtocolError) as problem:
            raise self._failed(problem, "while starting") from problem
        except InputError:
            self.close()
            raise
        self.versions = {"python": str(reply.get("python")), **reply.get("versions", {})}


def _load_request(scene: Path) -> dict[str, Any]:
    return {"kind": "load", "scene": str(scene.resolve())}


def _state_request(position: NDArray[np.float64], rotation: NDArray[np.float64]) -> dict[str, Any]:
    return {"kind": "set_state", "position": _list(position), "rotation": _list(rotation)}


def _list(p: ArrayLike) -> list[float]:
    return [float(v) for v in np.asarray(p, float)]


def _floats(value: Any, count: int) -> NDArray[np.float64]:
    array = np.array(value, float)
    if array.shape != (count,) or not np.isfinite(array).all():
        raise ValueError(f"{value!r} is not {count} numbers")
    return array

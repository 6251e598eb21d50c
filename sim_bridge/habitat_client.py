"""
``NavEnv`` over a simulator in another process: habitat-sim in its own Python, started, watched and
if need be restarted from here.
"""

import dataclasses
import logging
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
import yaml
from numpy.typing import ArrayLike, NDArray

from janusvln_ros.actions import Action
from janusvln_ros.data.episodes import Episode
from janusvln_ros.data.top_down_map import TopDownMap
from janusvln_ros.errors import InputError
from sim_bridge import habitat_server
from sim_bridge.habitat_server import DisconnectedError, ProtocolError, receive, send
from sim_bridge.nav_env import EnvSettings, Observation, scene_path

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


class _Server:
    """One server process and the connection to it."""

    def __init__(self, command: Sequence[str], start_timeout: float) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="janusvln-"))  # readable by this user alone
        self._lines: deque[str] = deque(maxlen=LAST_WORDS_LINES)
        self.process: subprocess.Popen[bytes] | None = None
        self.connection: socket.socket | None = None
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
                address = str(self.folder / "simulator")
                listener.bind(address)
                listener.listen(1)
                self.process = subprocess.Popen(
                    [*command, "--socket", address],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                )
                self._reader = threading.Thread(target=self._listen, daemon=True)
                self._reader.start()
                self._accept(listener, start_timeout)
        except (DisconnectedError, TimeoutError) as error:
            words = self.last_words()
            self.stop()
            raise type(error)(f"{error} {words}") from None
        except BaseException:
            self.stop()
            raise

    def _accept(self, listener: socket.socket, timeout: float) -> None:
        assert self.process is not None
        listener.settimeout(0.2)
        for _ in range(max(int(timeout / 0.2), 1)):
            try:
                self.connection, _ = listener.accept()
                return
            except TimeoutError:
                if self.process.poll() is not None:
                    raise DisconnectedError(
                        f"it ended with status {self.process.returncode} before it connected"
                    ) from None
        raise TimeoutError(f"it did not connect within {timeout:.0f} s")

    def _listen(self) -> None:
        assert self.process is not None and self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.append(line.decode(errors="replace").rstrip()[:500])

    def last_words(self) -> str:
        """The last lines that the process wrote, and how it ended."""
        if self.process is not None:
            try:
                # one that crashed closes its connection a moment before it is gone
                self.process.wait(0.3)
                self._reader.join(1.0)
            except subprocess.TimeoutExpired:
                pass
        status = None if self.process is None else self.process.returncode
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
        if self.process is not None:
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self._reader.join(1.0)
            if self.process.stdout is not None:
                self.process.stdout.close()
        self.process = self.connection = None
        shutil.rmtree(self.folder, ignore_errors=True)


class HabitatEnv:
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
        up: str = "z",
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
            settings, scene, data_dir, up: see ``make_env``. python: Habitat's interpreter; without
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
        self.settings = settings
        self.episode: Episode | None = None
        self.episode_over = True
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
        self._command, self._gpu, self._up, self._data_dir = list(command), gpu, up, Path(data_dir)
        self._start_timeout, self._load_timeout, self._request_timeout = (
            start_timeout,
            load_timeout,
            request_timeout,
        )
        self._server: _Server | None = None
        self._closed = False
        self._scene: Path | None = None
        self._position: NDArray[np.float64] | None = None
        self._rotation = np.array([0.0, 0.0, 0.0, 1.0])
        self._collided = False
        self._steps = 0
        self._seen: Observation | None = None
        self._revive(None)
        if scene is not None:
            self._load(Path(scene))

    def reset(self, episode: Episode) -> Observation:
        """See ``NavEnv``."""
        self._load(scene_path(self._data_dir, episode.scene_id))
        self.set_state(episode.start_position, episode.start_rotation)
        self.episode, self.episode_over, self._steps = episode, False, 0
        return self.observation()

    def step(self, action: Action) -> Observation:
        """See ``NavEnv``."""
        if self.episode is not None and self.episode_over:
            raise InputError("the episode is over: reset to the next one before stepping")
        if action not in list(Action):
            raise InputError(f"{action!r} is no action: give one of {[a.name for a in Action]}")
        if action != Action.STOP:
            reply = self._ask({"kind": "step", "action": int(action)})
            try:
                self._position, self._rotation = (
                    _floats(reply["position"], 3),
                    _floats(reply["rotation"], 4),
                )
                self._collided = bool(reply["collided"]) and action == Action.MOVE_FORWARD
            except (KeyError, TypeError, ValueError) as error:
                raise SimulatorError(f"the simulator answered a step with {reply!r}") from error
            self._seen = None
        elif self._collided:
            self._collided, self._seen = False, None
        self._steps += 1
        if self.episode is not None:
            self.episode_over = action == Action.STOP or self._steps >= self.settings.max_steps
        return self.observation()

    def observation(self) -> Observation:
        """See ``NavEnv``."""
        return self._seen if self._seen is not None else self.render()

    def render(self) -> Observation:
        """See ``NavEnv``."""
        if self._position is None:
            raise InputError(
                "the agent stands nowhere yet: reset to an episode or call set_state first"
            )
        reply = self._ask({"kind": "render"})
        rgb, depth, shape = (
            reply.get("rgb"),
            reply.get("depth"),
            (self.settings.height, self.settings.width),
        )
        pictures = [(p.dtype.str[1:], p.shape) for p in (rgb, depth) if isinstance(p, np.ndarray)]
        well_formed = pictures == [("u1", (*shape, 3)), ("f4", shape)]
        if not (isinstance(rgb, np.ndarray) and isinstance(depth, np.ndarray) and well_formed):
            raise SimulatorError(
                f"the simulator sent pictures of other shapes or types than {shape}: "
                "is it the habitat_server.py of this release?"
            )
        self._seen = Observation(
            rgb, depth, self._position.copy(), self._rotation.copy(), self._collided
        )
        return self._seen

    def set_state(self, position: ArrayLike, rotation: ArrayLike) -> None:
        """
        See ``NavEnv``.

        Raises:
            InputError: not three and four finite numbers, or a rotation of length 0.
        """
        p, q = np.array(position, float), np.array(rotation, float)
        if (
            p.shape != (3,)
            or q.shape != (4,)
            or not (np.isfinite(p).all() and np.isfinite(q).all() and np.linalg.norm(q) > 1e-6)
        ):
            raise InputError(
                f"position {position!r}, rotation {rotation!r}: give three finite "
                "numbers [x, y, z] and a quaternion [x, y, z, w]"
            )
        q = q / np.linalg.norm(q)
        self._ask({"kind": "set_state", "position": p.tolist(), "rotation": q.tolist()})
        self._position, self._rotation, self._collided, self._seen = p, q, False, None

    def is_navigable(self, p: ArrayLike) -> bool:
        """See ``NavEnv``."""
        return np.isfinite(np.asarray(p, float)).all() and bool(
            self._ask({"kind": "is_navigable", "p": _list(p)})["value"]
        )

    def snap_point(self, p: ArrayLike) -> NDArray[np.float64] | None:
        """See ``NavEnv``."""
        if not np.isfinite(np.asarray(p, float)).all():
            return None
        value = self._ask({"kind": "snap_point", "p": _list(p)})["value"]
        return None if value is None else _floats(value, 3)

    def geodesic_distance(self, a: ArrayLike, b: ArrayLike) -> float:
        """See ``NavEnv``."""
        if not (
            np.isfinite(np.asarray(a, float)).all() and np.isfinite(np.asarray(b, float)).all()
        ):
            return float("inf")
        value = self._ask({"kind": "geodesic_distance", "a": _list(a), "b": _list(b)})["value"]
        return float("inf") if value is None else float(value)

    def expert_action(self, target: ArrayLike, radius: float) -> Action:
        """See ``NavEnv``: habitat-sim's greedy geodesic follower, without its memory."""
        return Action(
            self._ask(
                {"kind": "expert_action", "target": _list(target), "radius": [float(radius)]}
            )["value"]
        )

    def top_down_map(self) -> TopDownMap:
        """See ``NavEnv``."""
        reply = self._ask({"kind": "top_down_map"})
        x, z = reply["origin"]
        return TopDownMap(reply["navigable"], (float(x), float(z)), float(reply["resolution"]))

    def close(self) -> None:
        """See ``NavEnv``: ends the process."""
        self._closed = True
        if self._server is not None:
            self._server.stop(patience=10.0)
            self._server = None

    def _load(self, path: Path) -> None:
        if path == self._scene:
            return
        if not path.is_file():
            raise InputError(f"the scene {path} is not there: check the scene's path and data_dir")
        self._scene, self._position, self._seen = None, None, None
        reply = self._ask({"kind": "load", "scene": str(path.resolve())}, self._load_timeout)
        LOG.info("scene %s loaded, walkable surface %s", path, reply.get("navmesh"))
        self._scene = path

    def _ask(self, request: Mapping[str, Any], timeout: float | None = None) -> dict[str, Any]:
        """
        Send a request and return the reply; on a failure of the process restart it, restore the
        state and ask once more.
        """
        if self._closed:
            raise InputError("this environment is closed: make another one")
        if self._scene is None and request["kind"] != "load":
            raise InputError(
                "no scene is loaded: give make_env a scene, or reset to an episode first"
            )
        try:
            return self._exchange(request, timeout or self._request_timeout)
        except (OSError, ProtocolError) as error:
            self._revive(error, str(request["kind"]))
        try:
            return self._exchange(request, timeout or self._request_timeout)
        except (OSError, ProtocolError) as error:
            raise self._failed(error, f"on {request['kind']}, twice in a row") from error

    def _exchange(self, request: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        if self._server is None or self._server.connection is None:
            raise DisconnectedError("the simulator is not running")
        connection = self._server.connection
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
        if reply.get("bad_input"):
            raise InputError(reply["error"])
        raise ProtocolError(f"the simulator reports {reply['error']}")

    def _failed(self, error: BaseException, when: str) -> SimulatorError:
        """Stop the process and tell the whole story."""
        words = ""
        if self._server is not None:
            words = self._server.last_words()
            self._server.stop()
            self._server = None
        return SimulatorError(f"the simulator {self._command[:2]} failed {when}: {error} {words}")

    def _revive(self, error: BaseException | None, request: str = "") -> None:
        """Start the process (again, after ``error``), greet it, and put the agent where it was."""
        if error is not None:
            self.restarts += 1
            LOG.warning("%s; restarting it", self._failed(error, f"on {request}"))
        try:
            self._server = _Server(self._command, self._start_timeout)
        except (FileNotFoundError, PermissionError) as problem:
            raise InputError(
                f"{self._command[0]} cannot be started ({problem.strerror}): give the "
                "path of Habitat's Python"
            ) from problem
        except OSError as problem:  # includes time-outs
            raise SimulatorError(
                f"the simulator {self._command[:2]} did not start: {problem}"
            ) from problem
        settings = dataclasses.asdict(self.settings)
        try:
            hello = {"kind": "hello", "settings": settings, "up": self._up, "gpu": self._gpu}
            reply = self._exchange(hello, self._start_timeout)
            if self._scene is not None:
                self._exchange(
                    {"kind": "load", "scene": str(self._scene.resolve())}, self._load_timeout
                )
            if self._position is not None:
                self._exchange(
                    {
                        "kind": "set_state",
                        "position": self._position.tolist(),
                        "rotation": self._rotation.tolist(),
                    },
                    self._request_timeout,
                )
        except (OSError, ProtocolError) as problem:
            raise self._failed(problem, "while starting") from problem
        except InputError:
            self.close()
            raise
        self.versions = {"python": str(reply.get("python")), **reply.get("versions", {})}


def settings_from_habitat_yaml(path: str | Path) -> dict[str, Any]:
    """
    The keywords of ``make_env`` that a configuration file of habitat-lab sets: camera, body,
    steps, sliding, step limit.

    Reads the layout of 0.2.x and 0.3.x (``habitat: ...``; they differ in their ``defaults`` lists
    only, which are not followed) and the older one in capitals of VLN-CE (``SIMULATOR: ...``).
    What the file does not say is left out.

    Raises:
        InputError: no such file, no YAML, or neither layout.
    """
    try:
        content = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise InputError(
            f"the configuration {path} cannot be opened ({error.strerror})"
        ) from error
    except yaml.YAMLError as error:
        raise InputError(f"the configuration {path} is no YAML: {error}") from error
    root = content if isinstance(content, dict) else {}

    def at(*keys: str) -> Any:
        value: Any = root
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    if isinstance(at("habitat"), dict):
        agents = at("habitat", "simulator", "agents") or {}
        name = next(iter(agents), "main_agent")
        agent, simulator = ("habitat", "simulator", "agents", name), ("habitat", "simulator")
        camera = (*agent, "sim_sensors", "rgb_sensor")
        places = {
            "width": (*camera, "width"),
            "height": (*camera, "height"),
            "hfov": (*camera, "hfov"),
            "position": (*camera, "position"),
            "agent_height": (*agent, "height"),
            "agent_radius": (*agent, "radius"),
            "forward_step": (*simulator, "forward_step_size"),
            "turn_step": (*simulator, "turn_angle"),
            "sliding": (*simulator, "habitat_sim_v0", "allow_sliding"),
            "max_steps": ("habitat", "environment", "max_episode_steps"),
        }
    elif isinstance(at("SIMULATOR"), dict):
        places = {
            "width": ("SIMULATOR", "RGB_SENSOR", "WIDTH"),
            "height": ("SIMULATOR", "RGB_SENSOR", "HEIGHT"),
            "hfov": ("SIMULATOR", "RGB_SENSOR", "HFOV"),
            "position": ("SIMULATOR", "RGB_SENSOR", "POSITION"),
            "agent_height": ("SIMULATOR", "AGENT_0", "HEIGHT"),
            "agent_radius": ("SIMULATOR", "AGENT_0", "RADIUS"),
            "forward_step": ("SIMULATOR", "FORWARD_STEP_SIZE"),
            "turn_step": ("SIMULATOR", "TURN_ANGLE"),
            "sliding": ("SIMULATOR", "HABITAT_SIM_V0", "ALLOW_SLIDING"),
            "max_steps": ("ENVIRONMENT", "MAX_EPISODE_STEPS"),
        }
    else:
        raise InputError(
            f"the configuration {path} has neither 'habitat:' nor 'SIMULATOR:' at its "
            "top: give a configuration of habitat-lab"
        )
    found = {name: at(*place) for name, place in places.items()}
    position = found.pop("position")
    if isinstance(position, (list, tuple)) and len(position) == 3:
        found["camera_height"] = position[1]
    return {name: value for name, value in found.items() if value is not None}


def _list(p: ArrayLike) -> list[float]:
    return [float(v) for v in np.asarray(p, float)]


def _floats(value: Any, count: int) -> NDArray[np.float64]:
    array = np.array(value, float)
    if array.shape != (count,) or not np.isfinite(array).all():
        raise ValueError(f"{value!r} is not {count} numbers")
    return array

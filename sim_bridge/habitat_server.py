#!/usr/bin/env python3
"""
A simulator in a process of its own, on the other end of a local socket.

habitat-sim's conda builds need a Python that ROS 2 does not have; this file runs in *that* Python
(3.9 with habitat-sim 0.2.4, newer with 0.3.x). It needs numpy, which Habitat brings along, and
nothing of this package: copy it into Habitat's container if that has no view of the package.
``sim_bridge.habitat_client`` starts it as ``python habitat_server.py --socket PATH`` and talks to
it; it ends when the client does.

Protocol, version 1. The client listens, the server connects; then strictly one request, one reply.
A message is a header (magic, version, two lengths), a JSON object and the bytes of the arrays,
which the JSON refers to as ``{"$array": [dtype, shape]}`` in order. Nothing is unpickled or
evaluated, only known types of array are accepted, and lengths are checked before anything is read.
Requests have ``kind``; replies have ``ok`` and, if that is false, ``error`` (a sentence) and
``bad_input``.

``--backend houses`` serves the built-in simulator instead (it needs this package): the tests of
client and protocol run over it.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import socket
import struct
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np

PROTOCOL_VERSION = 1
HEADER = struct.Struct("<4sHHIQ")  # magic, version, 0, bytes of JSON, bytes of arrays
MAGIC = b"JNAV"
MAX_JSON_BYTES = 1 << 20
MAX_ARRAY_BYTES = 1 << 29
MAX_ARRAYS = 16
DTYPES = {"u1": np.uint8, "f4": np.float32, "f8": np.float64, "b1": np.bool_}
MAX_DEPTH_M = 10.0
ACTIONS = {1: "move_forward", 2: "turn_left", 3: "turn_right"}


class ProtocolError(RuntimeError):
    """
    The other side sent something that is no message of this protocol, or of another version of it.
    """


class DisconnectedError(ConnectionError):
    """The other side is gone."""


def send(connection: socket.socket, message: Dict[str, Any]) -> None:
    """
    Send one message: a dictionary of JSON values and numpy arrays (at any depth).

    Raises:
        ProtocolError: the message is too large or holds an array of another type.
        DisconnectedError, socket.timeout: it could not be sent.
    """
    chunks: List[bytes] = []

    def encode(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            name = value.dtype.str[1:]
            if name not in DTYPES:
                raise ProtocolError("an array of type {} cannot be sent".format(value.dtype))
            chunks.append(np.ascontiguousarray(value, value.dtype.newbyteorder("<")).tobytes())
            return {"$array": [name, list(value.shape)]}
        if isinstance(value, dict):
            return {key: encode(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [encode(item) for item in value]
        if isinstance(value, np.generic):
            return value.item()
        return value

    text = json.dumps(encode(message)).encode()
    size = sum(len(chunk) for chunk in chunks)
    if len(text) > MAX_JSON_BYTES or size > MAX_ARRAY_BYTES or len(chunks) > MAX_ARRAYS:
        raise ProtocolError("a message of {} + {} bytes is too large".format(len(text), size))
    try:
        connection.sendall(
            b"".join([HEADER.pack(MAGIC, PROTOCOL_VERSION, 0, len(text), size), text] + chunks)
        )
    except socket.timeout:
        raise
    except OSError as error:
        raise DisconnectedError(str(error)) from error


def receive(connection: socket.socket, timeout: Optional[float] = None) -> Dict[str, Any]:
    """
    Receive one message within ``timeout`` seconds in all (None: wait for ever); the counterpart of
    ``send``.

    Raises:
        ProtocolError: what arrives is no message, is too large, or is of another version.
        DisconnectedError: the other side closed the connection.
        socket.timeout: time is up.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    magic, version, _, text_size, size = HEADER.unpack(_read(connection, HEADER.size, deadline))
    if magic != MAGIC:
        raise ProtocolError("received {!r} where a message should begin".format(magic))
    if version != PROTOCOL_VERSION:
        raise ProtocolError(
            "the other side speaks version {} of the protocol, this side {}: use the "
            "habitat_server.py of this release".format(version, PROTOCOL_VERSION)
        )
    if text_size > MAX_JSON_BYTES or size > MAX_ARRAY_BYTES:
        raise ProtocolError(
            "a message of {} + {} bytes is announced, more than is allowed".format(text_size, size)
        )
    text, data = (
        _read(connection, text_size, deadline),
        memoryview(_read(connection, size, deadline)),
    )
    offset, arrays = 0, 0

    def decode(value: Any) -> Any:
        nonlocal offset, arrays
        if isinstance(value, list):
            return [decode(item) for item in value]
        if not isinstance(value, dict):
            return value
        if "$array" not in value:
            return {key: decode(item) for key, item in value.items()}
        name, shape = value["$array"]
        arrays += 1
        if (
            name not in DTYPES
            or len(shape) > 4
            or arrays > MAX_ARRAYS
            or not all(type(n) is int and 0 <= n <= 1 << 20 for n in shape)
        ):
            raise ProtocolError(
                "an array of type {!r} and shape {!r} is not allowed".format(name, shape)
            )
        dtype = np.dtype("<" + name)
        count = math.prod(shape)
        if count * dtype.itemsize > size - offset:
            raise ProtocolError("an array of shape {} is longer than its data".format(shape))
        array = np.frombuffer(data, dtype, count, offset).reshape(shape)
        offset += count * dtype.itemsize
        return array

    try:
        message = decode(json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        raise ProtocolError(
            "a message cannot be read ({}: {})".format(type(error).__name__, error)
        ) from error
    if not isinstance(message, dict) or offset != size:
        raise ProtocolError("a message is not an object, or does not account for all its data")
    return message


def _read(connection: socket.socket, count: int, deadline: Optional[float]) -> bytearray:
    buffer = bytearray(count)
    view, done = memoryview(buffer), 0
    while done < count:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise socket.timeout("time is up")
            connection.settimeout(left)
        else:
            connection.settimeout(None)
        try:
            got = connection.recv_into(view[done:])
        except socket.timeout:
            raise
        except OSError as error:
            raise DisconnectedError(str(error)) from error
        if got == 0:
            raise DisconnectedError("the connection was closed")
        done += got
    return buffer


class BadRequestError(ValueError):
    """The request asks for something that cannot be; the sentence goes to the user."""


class HabitatSimulator:
    """
    habitat-sim, used directly (without habitat-lab), so that its version's configuration files do
    not matter here.
    """

    def __init__(self, settings: Dict[str, Any], up: str, gpu: int) -> None:
        import habitat_sim

        if up != "z":
            raise BadRequestError(
                "habitat-sim takes a bare .glb as z up; for one with y up write a "
                ".stage_config.json beside it and give that as the scene"
            )
        self.habitat_sim = habitat_sim
        self.settings, self.gpu = settings, gpu
        self.sim: Any = None
        self.follower: Tuple[Any, Any] = (None, None)
        self.navmesh = ""

    def versions(self) -> Dict[str, str]:
        """Names and versions of what simulates."""
        return {"habitat_sim": str(getattr(self.habitat_sim, "__version__", "unknown"))}

    def load(self, scene: str) -> Dict[str, Any]:
        """Load a scene, given by its path; tells where its walkable surface came from."""
        habitat_sim, settings = self.habitat_sim, self.settings
        simulator = habitat_sim.SimulatorConfiguration()
        simulator.scene_id = scene
        simulator.gpu_device_id = self.gpu
        simulator.allow_sliding = bool(settings["sliding"])
        simulator.enable_physics = False
        simulator.load_semantic_mesh = False
        sensors = []
        for uuid, kind in (
            ("rgb", habitat_sim.SensorType.COLOR),
            ("depth", habitat_sim.SensorType.DEPTH),
        ):
            sensor = habitat_sim.CameraSensorSpec()
            sensor.uuid = uuid
            sensor.sensor_type = kind
            sensor.resolution = [int(settings["height"]), int(settings["width"])]
            sensor.position = [0.0, float(settings["camera_height"]), 0.0]
            sensor.hfov = float(settings["hfov"])
            sensors.append(sensor)
        agent = habitat_sim.agent.AgentConfiguration()
        agent.height = float(settings["agent_height"])
        agent.radius = float(settings["agent_radius"])
        agent.sensor_specifications = sensors
        agent.action_space = {
            name: habitat_sim.agent.ActionSpec(
                name,
                habitat_sim.agent.ActuationSpec(
                    amount=float(
                        settings["forward_step" if name == "move_forward" else "turn_step"]
                    )
                ),
            )
            for name in ACTIONS.values()
        }
        configuration = habitat_sim.Configuration(simulator, [agent])
        self.follower = (None, None)
        if self.sim is None:
            self.sim = habitat_sim.Simulator(configuration)
        else:
            self.sim.reconfigure(configuration)
        self._prepare_navmesh(scene)
        return {"navmesh": self.navmesh}

    def _prepare_navmesh(self, scene: str) -> None:
        """
        Keep the surface that came with the scene, unless it says that it was made for an agent of
        another size; without one, make it.
        """
        pathfinder, settings = self.sim.pathfinder, self.settings
        beside = Path(scene).with_suffix(".navmesh")  # which not every version loads by itself
        if not pathfinder.is_loaded and beside.is_file():
            pathfinder.load_nav_mesh(str(beside))
        made_for = getattr(pathfinder, "nav_mesh_settings", None) if pathfinder.is_loaded else None
        fits = made_for is None or (
            abs(made_for.agent_radius - settings["agent_radius"]) < 1e-4
            and abs(made_for.agent_height - settings["agent_height"]) < 1e-4
        )
        if pathfinder.is_loaded and fits:
            self.navmesh = "from file"
            return
        wanted = self.habitat_sim.nav.NavMeshSettings()
        wanted.set_defaults()
        wanted.agent_radius = float(settings["agent_radius"])
        wanted.agent_height = float(settings["agent_height"])
        if not self.sim.recompute_navmesh(pathfinder, wanted):
            raise BadRequestError("habitat-sim found no floor to walk on in this scene")
        self.navmesh = "computed"

    def set_state(self, position: List[float], rotation: List[float]) -> None:
        """Put the agent at a position [x, y, z] with a rotation [x, y, z, w]."""
        state = self.habitat_sim.AgentState()
        state.position = np.array(position, np.float32)
        state.rotation = self.habitat_sim.utils.common.quat_from_coeffs(
            np.array(rotation, np.float32)
        )
        self.sim.get_agent(0).set_state(state, True)

    def act(self, action: int) -> bool:
        """Carry out action 1, 2 or 3; whether it collided."""
        return bool(self.sim.get_agent(0).act(ACTIONS[action]))

    def pose(self) -> Tuple[List[float], List[float]]:
        """Position [x, y, z] and rotation [x, y, z, w] of the agent."""
        state = self.sim.get_agent(0).get_state()
        rotation = self.habitat_sim.utils.common.quat_to_coeffs(state.rotation)
        return [float(v) for v in state.position], [float(v) for v in rotation]

    def render(self) -> Tuple[np.ndarray, np.ndarray]:
        """RGB uint8 [H, W, 3] and depth float32 [H, W], metres."""
        seen = self.sim.get_sensor_observations()
        depth = np.minimum(np.asarray(seen["depth"], np.float32), np.float32(MAX_DEPTH_M))
        return np.ascontiguousarray(np.asarray(seen["rgb"], np.uint8)[..., :3]), depth

    def is_navigable(self, p: List[float]) -> bool:
        """Whether the agent can stand at a point."""
        return bool(self.sim.pathfinder.is_navigable(np.array(p, np.float32)))

    def snap_point(self, p: List[float]) -> Optional[List[float]]:
        """The navigable point nearest to a point, if any."""
        found = [float(v) for v in self.sim.pathfinder.snap_point(np.array(p, np.float32))]
        return None if any(math.isnan(v) for v in found) else found

    def geodesic_distance(self, a: List[float], b: List[float]) -> float:
        """Length of the shortest path, inf if there is none."""
        path = self.habitat_sim.nav.ShortestPath()
        path.requested_start = np.array(a, np.float32)
        path.requested_end = np.array(b, np.float32)
        return float(path.geodesic_distance) if self.sim.pathfinder.find_path(path) else math.inf

    def expert_action(self, target: List[float], radius: float) -> int:
        """The follower's next action toward a target, 0 within the radius."""
        if self.follower[0] != radius:
            # Without its guard against thrashing the follower remembers nothing, so that the label
            # is a function of the state.
            follower = self.sim.make_greedy_follower(
                0,
                radius,
                stop_key=0,
                forward_key="move_forward",
                left_key="turn_left",
                right_key="turn_right",
                fix_thrashing=False,
            )
            self.follower = (radius, follower)
        try:
            chosen = self.follower[1].next_action_along(np.array(target, np.float32))
        except self.habitat_sim.errors.GreedyFollowerError as error:
            raise BadRequestError(
                "no way leads from {} to {}: choose a target on the agent's island".format(
                    self.pose()[0], target
                )
            ) from error
        return (
            0
            if chosen == 0 or chosen is None
            else {name: number for number, name in ACTIONS.items()}[chosen]
        )

    def top_down_map(self) -> Tuple[np.ndarray, List[float], float]:
        """Navigable bool [rows along z, columns along x], origin [x, z], metres per cell."""
        resolution = 0.05
        position, _ = self.pose()
        low, _ = self.sim.pathfinder.get_bounds()
        plan = self.sim.pathfinder.get_topdown_view(resolution, position[1])
        return np.asarray(plan, bool), [float(low[0]), float(low[2])], resolution


class HousesSimulator:
    """The built-in simulator behind the same calls."""

    def __init__(self, settings: Dict[str, Any], up: str, gpu: int) -> None:
        from sim_bridge.houses import HousesEnv
        from sim_bridge.nav_env import EnvSettings

        self.make: Callable[[str], Any] = lambda scene: HousesEnv(
            EnvSettings(**dict(settings, up=up)), scene=scene
        )
        self.env: Any = None

    def versions(self) -> Dict[str, str]:
        """Names and versions of what simulates."""
        from importlib.metadata import version

        return {"moderngl": version("moderngl")}

    def load(self, scene: str) -> Dict[str, Any]:
        """Load a scene, given by its path; tells where its walkable surface came from."""
        self.env = self.make(scene)
        return {"navmesh": "computed"}

    def set_state(self, position: List[float], rotation: List[float]) -> None:
        """Put the agent at a position [x, y, z] with a rotation [x, y, z, w]."""
        self.env.set_state(position, rotation)

    def act(self, action: int) -> bool:
        """Carry out action 1, 2 or 3; whether it collided."""
        from janusvln_ros.actions import Action

        return bool(self.env.step(Action(action)).collided)

    def pose(self) -> Tuple[List[float], List[float]]:
        """Position [x, y, z] and rotation [x, y, z, w] of the agent."""
        seen = self.env.observation()
        return seen.position.tolist(), seen.rotation.tolist()

    def render(self) -> Tuple[np.ndarray, np.ndarray]:
        """RGB uint8 [H, W, 3] and depth float32 [H, W], metres."""
        seen = self.env.observation()
        return seen.rgb, seen.depth

    def is_navigable(self, p: List[float]) -> bool:
        """Whether the agent can stand at a point."""
        return bool(self.env.is_navigable(p))

    def snap_point(self, p: List[float]) -> Optional[List[float]]:
        """The navigable point nearest to a point, if any."""
        found = self.env.snap_point(p)
        return None if found is None else found.tolist()

    def geodesic_distance(self, a: List[float], b: List[float]) -> float:
        """Length of the shortest path, inf if there is none."""
        return float(self.env.geodesic_distance(a, b))

    def expert_action(self, target: List[float], radius: float) -> int:
        """The follower's next action toward a target, 0 within the radius."""
        return int(self.env.expert_action(target, radius))

    def top_down_map(self) -> Tuple[np.ndarray, List[float], float]:
        """Navigable bool [rows along z, columns along x], origin [x, z], metres per cell."""
        plan = self.env.top_down_map()
        return plan.navigable, list(plan.origin), plan.resolution


def numbers(request: Dict[str, Any], name: str, count: int) -> List[float]:
    """
    ``count`` finite numbers of the request.

    Raises:
        BadRequestError: they are not.
    """
    value = request.get(name)
    if (
        isinstance(value, list)
        and len(value) == count
        and all(type(v) in (int, float) and math.isfinite(v) for v in value)
    ):
        return [float(v) for v in value]
    raise BadRequestError("{} is {!r}: give {} finite numbers".format(name, value, count))


def answer(backend: Any, request: Dict[str, Any]) -> Dict[str, Any]:
    """
    Carry out one request on ``backend`` (``HabitatSimulator`` or ``HousesSimulator``) and return
    the reply without ``ok``.
    """
    kind = request.get("kind")
    if kind == "load":
        return backend.load(str(request.get("scene")))
    if kind == "set_state":
        backend.set_state(numbers(request, "position", 3), numbers(request, "rotation", 4))
        return {}
    if kind == "step":
        if request.get("action") not in (1, 2, 3):
            raise BadRequestError("action is {!r}: give 1, 2 or 3".format(request.get("action")))
        collided = backend.act(request["action"])
        position, rotation = backend.pose()
        return {"collided": collided, "position": position, "rotation": rotation}
    if kind == "render":
        rgb, depth = backend.render()
        return {"rgb": rgb, "depth": depth}
    if kind == "is_navigable":
        return {"value": backend.is_navigable(numbers(request, "p", 3))}
    if kind == "snap_point":
        return {"value": backend.snap_point(numbers(request, "p", 3))}
    if kind == "geodesic_distance":
        distance = backend.geodesic_distance(numbers(request, "a", 3), numbers(request, "b", 3))
        return {"value": distance if math.isfinite(distance) else None}
    if kind == "expert_action":
        return {
            "value": backend.expert_action(
                numbers(request, "target", 3), numbers(request, "radius", 1)[0]
            )
        }
    if kind == "top_down_map":
        navigable, origin, resolution = backend.top_down_map()
        return {"navigable": navigable, "origin": origin, "resolution": resolution}
    raise BadRequestError("request {!r} is not known".format(kind))


def serve(connection: socket.socket, make_backend: Callable[[Dict[str, Any]], Any]) -> None:
    """
    Answer requests until the client goes.

    The first one is ``hello`` with the settings; an error in a request is reported and does not
    end the service.
    """
    backend: Any = None
    while True:
        try:
            request = receive(connection)
        except DisconnectedError:
            return
        try:
            if request.get("kind") == "hello":
                backend = make_backend(request)
                reply = {"python": platform.python_version(), "versions": backend.versions()}
            elif backend is None:
                raise BadRequestError("the first request must be hello")
            else:
                reply = answer(backend, request)
            reply["ok"] = True
        except Exception as error:  # whatever a simulator raises is for the client to report
            traceback.print_exc()
            bad_input = isinstance(error, BadRequestError) or type(error).__name__ == "InputError"
            text = str(error) if bad_input else "{}: {}".format(type(error).__name__, error)
            reply = {"ok": False, "error": text[:4000], "bad_input": bad_input}
        send(connection, reply)


def main(arguments: Optional[List[str]] = None) -> int:
    """Connect to the client's socket and serve it."""
    parser = argparse.ArgumentParser(
        description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--socket", required=True, help="the unix socket on which the client listens"
    )
    parser.add_argument("--backend", choices=["habitat", "houses"], default="habitat")
    options = parser.parse_args(arguments)
    simulators = {"habitat": HabitatSimulator, "houses": HousesSimulator}
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(options.socket)

    def make_backend(hello: Dict[str, Any]) -> Any:
        return simulators[options.backend](hello["settings"], hello["up"], int(hello["gpu"]))

    serve(connection, make_backend)
    return 0


if __name__ == "__main__":
    sys.exit(main())

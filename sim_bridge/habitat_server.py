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

Pictures do not go through the socket: with ``hello`` the client passes a file descriptor of memory
that has no name, so that nothing is left of it whoever is killed. ``{"$shared": [dtype, shape,
offset]}`` refers to an array in it. A client that passes none gets the pictures as other arrays.
"""

from __future__ import annotations

import argparse
import array
import contextlib
import json
import math
import mmap
import os
import platform
import socket
import struct
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

PROTOCOL_VERSION = 1
HEADER = struct.Struct("<4sHHIQ")  # magic, version, 0, bytes of JSON, bytes of arrays
MAGIC = b"JNAV"
MAX_JSON_BYTES = 1 << 20
MAX_ARRAY_BYTES = 1 << 29
MAX_ARRAYS = 16
DTYPES = {"u1": np.uint8, "f4": np.float32, "f8": np.float64, "b1": np.bool_}
ALIGNMENT = 64  # bytes, of arrays in shared memory
MAX_DEPTH_M = 10.0
MAP_RESOLUTION_M = 0.05
ACTIONS = {1: "move_forward", 2: "turn_left", 3: "turn_right"}
NEEDED = ("Simulator", "SimulatorConfiguration", "CameraSensorSpec", "Configuration", "agent")
"""Names by which a habitat_sim that can be used is known."""

NAVMESH_SETTINGS = (
    "cell_size",
    "cell_height",
    "agent_height",
    "agent_radius",
    "agent_max_climb",
    "agent_max_slope",
    "region_min_size",
    "region_merge_size",
    "edge_max_len",
    "edge_max_error",
    "verts_per_poly",
    "detail_sample_dist",
    "detail_sample_max_error",
    "filter_low_hanging_obstacles",
    "filter_ledge_spans",
    "filter_walkable_low_height_spans",
)
"""What a walkable surface depends on, as ``NavMeshSettings`` names it."""


class ProtocolError(RuntimeError):
    """
    The other side sent something that is no message of this protocol, or of another version of it.
    """


class DisconnectedError(ConnectionError):
    """The other side is gone."""


def send(
    connection: socket.socket, message: Dict[str, Any], descriptors: Sequence[int] = ()
) -> None:
    """
    Send one message: a dictionary of JSON values and numpy arrays (at any depth), and with it open
    files, which the other side gets as ``descriptors`` of its own.

    Raises:
        ProtocolError: the message is too large or holds an array of another type.
        DisconnectedError, socket.timeout: it could not be sent.
    """
    chunks: List[bytes] = []

    def encode(value: Any) -> Any:  # what JSON does not know
        if isinstance(value, np.ndarray):
            name = value.dtype.str[1:]
            if name not in DTYPES:
                raise ProtocolError("an array of type {} cannot be sent".format(value.dtype))
            chunks.append(np.ascontiguousarray(value, value.dtype.newbyteorder("<")).tobytes())
            return {"$array": [name, list(value.shape)]}
        if isinstance(value, np.generic):
            return value.item()
        raise TypeError("{!r} cannot be sent".format(value))

    text = json.dumps(message, default=encode).encode()
    size = sum(len(chunk) for chunk in chunks)
    if len(text) > MAX_JSON_BYTES or size > MAX_ARRAY_BYTES or len(chunks) > MAX_ARRAYS:
        raise ProtocolError("a message of {} + {} bytes is too large".format(len(text), size))
    header = HEADER.pack(MAGIC, PROTOCOL_VERSION, 0, len(text), size)
    try:
        if descriptors:
            passed = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
            header = header[connection.sendmsg([header], [passed]) :]
        connection.sendall(b"".join([header, text] + chunks))
    except socket.timeout:
        raise
    except OSError as error:
        raise DisconnectedError(str(error)) from error


def receive(
    connection: socket.socket,
    timeout: Optional[float] = None,
    descriptors: Optional[List[int]] = None,
    most: int = MAX_ARRAY_BYTES,
) -> Dict[str, Any]:
    """
    Receive one message within ``timeout`` seconds in all (None: wait for ever), with at most
    ``most`` bytes of arrays; the counterpart of ``send``. Open files that come with it are added
    to ``descriptors``, or closed.

    Raises:
        ProtocolError: what arrives is no message, is too large, or is of another version.
        DisconnectedError: the other side closed the connection.
        socket.timeout: time is up.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    header = _read(connection, HEADER.size, deadline, descriptors)
    magic, version, _, text_size, size = HEADER.unpack(header)
    if magic != MAGIC:
        raise ProtocolError("received {!r} where a message should begin".format(magic))
    if version != PROTOCOL_VERSION:
        raise ProtocolError(
            "the other side speaks version {} of the protocol, this side {}: use the "
            "habitat_server.py of this release".format(version, PROTOCOL_VERSION)
        )
    if text_size > MAX_JSON_BYTES or size > most:
        raise ProtocolError(
            "a message of {} + {} bytes is announced, more than is allowed ({} + {})".format(
                text_size, size, MAX_JSON_BYTES, most
            )
        )
    text = _read(connection, text_size, deadline)
    arrays = _Arrays(memoryview(_read(connection, size, deadline)))
    try:
        message = json.loads(text, object_hook=arrays.take)
    except (ValueError, TypeError, RecursionError) as error:
        raise ProtocolError(
            "a message cannot be read ({}: {})".format(type(error).__name__, error)
        ) from error
    if not isinstance(message, dict) or arrays.offset != size:
        raise ProtocolError("a message is not an object, or does not account for all its data")
    return message


class _Arrays:
    """The bytes of a message's arrays, which its JSON refers to in order."""

    def __init__(self, data: memoryview) -> None:
        self.data, self.offset, self.count = data, 0, 0

    def take(self, value: Dict[str, Any]) -> Any:
        """An object of the JSON, or the next array where it stands for one."""
        if "$array" not in value:
            return value
        name, shape = value["$array"]
        self.count += 1
        if (
            name not in DTYPES
            or len(shape) > 4
            or self.count > MAX_ARRAYS
            or not all(type(n) is int and 0 <= n <= 1 << 20 for n in shape)
        ):
            raise ProtocolError(
                "an array of type {!r} and shape {!r} is not allowed".format(name, shape)
            )
        dtype, count = np.dtype("<" + name), math.prod(shape)
        if count * dtype.itemsize > len(self.data) - self.offset:
            raise ProtocolError("an array of shape {} is longer than its data".format(shape))
        array = np.frombuffer(self.data, dtype, count, self.offset).reshape(shape)
        self.offset += count * dtype.itemsize
        return array


def _read(
    connection: socket.socket,
    count: int,
    deadline: Optional[float],
    descriptors: Optional[List[int]] = None,
) -> bytearray:
    buffer = bytearray(count)
    view, done = memoryview(buffer), 0
    while done < count:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise socket.timeout("time is up")
        connection.settimeout(left)
        try:
            if descriptors is None:
                got = connection.recv_into(view[done:])
            else:
                room = socket.CMSG_SPACE(array.array("i").itemsize)
                got, passed, _, _ = connection.recvmsg_into([view[done:]], room)
                for level, kind, data in passed:
                    if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                        whole = len(data) - len(data) % array.array("i").itemsize
                        descriptors.extend(array.array("i", data[:whole]))
        except socket.timeout:
            raise
        except OSError as error:
            raise DisconnectedError(str(error)) from error
        if got == 0:
            raise DisconnectedError("the connection was closed")
        done += got
    return buffer


def shared_size(*arrays: Tuple[int, int]) -> int:
    """Bytes of shared memory for arrays of so many elements of so many bytes."""
    return sum(-(-count * size // ALIGNMENT) * ALIGNMENT for count, size in arrays)


def put_shared(memory: mmap.mmap, arrays: Dict[str, np.ndarray]) -> Dict[str, Any]:
    """
    Copy ``arrays`` into shared memory and return what tells the other side where they are; the
    arrays themselves where the memory is too small for them.
    """
    if shared_size(*((a.size, a.itemsize) for a in arrays.values())) > len(memory):
        return dict(arrays)
    told, offset = {}, 0
    for name, values in arrays.items():
        dtype = values.dtype.newbyteorder("<")
        place = np.frombuffer(memory, dtype, values.size, offset).reshape(values.shape)
        if values.flags.c_contiguous:
            np.copyto(place, values)
        else:  # the colours of an RGBA picture: plane by plane, since rows of three are slow
            for channel in range(values.shape[-1]):
                np.copyto(place[..., channel], values[..., channel])
        told[name] = {"$shared": [values.dtype.str[1:], list(values.shape), offset]}
        offset += shared_size((values.size, values.itemsize))
    return told


def take_shared(memory: mmap.mmap, value: Any) -> Any:
    """
    Return a copy of the array in shared memory that ``value`` refers to, or ``value`` itself.

    Raises:
        ProtocolError: it refers to no array in this memory.
    """
    if not isinstance(value, dict) or "$shared" not in value:
        return value
    try:
        name, shape, offset = value["$shared"]
        if name not in DTYPES or not 0 <= len(shape) <= 4 or min([0, *shape]) < 0:
            raise ValueError("an array of type {!r} and shape {!r}".format(name, shape))
        place = np.frombuffer(memory, np.dtype("<" + name), math.prod(shape), offset)
    except (TypeError, ValueError, OverflowError) as error:
        raise ProtocolError(
            "{!r} is not in the shared memory ({})".format(value, error)
        ) from error
    return place.reshape(shape).copy()


class BadRequestError(ValueError):
    """The request asks for something that cannot be; the sentence goes to the user."""


def filled(target: Any, **values: Any) -> Any:
    """``target``, one of habitat-sim's own structures, with these attributes."""
    for name, value in values.items():
        setattr(target, name, value)
    return target


class HabitatSimulator:
    """
    habitat-sim, used directly (without habitat-lab), so that its version's configuration files do
    not matter here.
    """

    def __init__(self, settings: Dict[str, Any], up: str, gpu: int) -> None:
        import habitat_sim

        missing = [name for name in NEEDED if not hasattr(habitat_sim, name)]
        if missing:
            raise ImportError(
                "the habitat_sim at {} has no {}".format(
                    getattr(habitat_sim, "__file__", None) or list(habitat_sim.__path__),
                    missing[0],
                )
            )
        if up != "z":
            raise BadRequestError(
                "habitat-sim takes a bare .glb as z up; for one with y up write a "
                ".stage_config.json beside it and give that as the scene"
            )
        self.habitat_sim = habitat_sim
        self.settings, self.gpu = settings, gpu
        self.sim: Any = None
        self.follower: Tuple[Any, Any] = (None, None)

    def versions(self) -> Dict[str, str]:
        """Names and versions of what simulates."""
        return {"habitat_sim": str(getattr(self.habitat_sim, "__version__", "unknown"))}

    def load(self, scene: str) -> Dict[str, Any]:
        """Load a scene, given by its path; tells where its walkable surface came from."""
        habitat_sim, settings = self.habitat_sim, self.settings
        simulator = filled(
            habitat_sim.SimulatorConfiguration(),
            scene_id=scene,
            gpu_device_id=self.gpu,
            allow_sliding=bool(settings["sliding"]),
            enable_physics=False,
            load_semantic_mesh=False,
        )
        sensors = [
            filled(
                habitat_sim.CameraSensorSpec(),
                uuid=uuid,
                sensor_type=kind,
                resolution=[int(settings["height"]), int(settings["width"])],
                position=[0.0, float(settings["camera_height"]), 0.0],
                # Euler angles, radians: a turn about +x lifts the view.
                orientation=[-math.radians(float(settings["tilt"])), 0.0, 0.0],
                hfov=float(settings["hfov"]),
            )
            for uuid, kind in (
                ("rgb", habitat_sim.SensorType.COLOR),
                ("depth", habitat_sim.SensorType.DEPTH),
            )
        ]
        forward, turn = float(settings["forward_step"]), float(settings["turn_step"])
        amounts = {"move_forward": forward, "turn_left": turn, "turn_right": turn}
        specification, actuation = habitat_sim.agent.ActionSpec, habitat_sim.agent.ActuationSpec
        agent = filled(
            habitat_sim.agent.AgentConfiguration(),
            height=float(settings["agent_height"]),
            radius=float(settings["agent_radius"]),
            sensor_specifications=sensors,
            action_space={
                name: specification(name, actuation(amount=amount))
                for name, amount in amounts.items()
            },
        )
        configuration = habitat_sim.Configuration(simulator, [agent])
        self.follower = (None, None)
        try:
            if self.sim is None:
                self.sim = habitat_sim.Simulator(configuration)
            else:
                self.sim.reconfigure(configuration)
            return {"navmesh": self._prepare_navmesh(scene)}
        except Exception:
            # what is half loaded is no ground for the next scene
            broken, self.sim = self.sim, None
            if broken is not None:
                broken.close()
            raise

    def _prepare_navmesh(self, scene: str) -> str:
        """
        Keep the surface that came with the scene, unless it was made by other settings than these,
        as habitat-lab does; without one, make it. Tells which, and what differs.
        """
        pathfinder = self.sim.pathfinder
        beside = Path(scene).with_suffix(".navmesh")  # which not every version loads by itself
        if not pathfinder.is_loaded and beside.is_file():
            pathfinder.load_nav_mesh(str(beside))
        wanted = self.habitat_sim.nav.NavMeshSettings()
        wanted.set_defaults()
        size = {name: float(self.settings[name]) for name in ("agent_radius", "agent_height")}
        filled(wanted, **size)
        why = "computed"
        if pathfinder.is_loaded:
            differs = navmesh_differences(getattr(pathfinder, "nav_mesh_settings", None), wanted)
            if not differs:
                return "from file"
            why = "computed anew, since the one on disk has {}".format(", ".join(differs))
        elif beside.is_file():
            why = "computed anew, since {} cannot be read".format(beside.name)
        if not self.sim.recompute_navmesh(pathfinder, wanted):
            raise BadRequestError("habitat-sim found no floor to walk on in this scene")
        return why

    def set_state(self, position: List[float], rotation: List[float]) -> None:
        """Put the agent at a position [x, y, z] with a rotation [x, y, z, w]."""
        quaternion = self.habitat_sim.utils.common.quat_from_coeffs
        state = filled(
            self.habitat_sim.AgentState(),
            position=np.array(position, np.float32),
            rotation=quaternion(np.array(rotation, np.float32)),
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
        return np.asarray(seen["rgb"], np.uint8)[..., :3], depth

    def is_navigable(self, p: List[float]) -> bool:
        """Whether the agent can stand at a point."""
        return bool(self.sim.pathfinder.is_navigable(np.array(p, np.float32)))

    def snap_point(self, p: List[float]) -> Optional[List[float]]:
        """The navigable point nearest to a point, if any."""
        found = [float(v) for v in self.sim.pathfinder.snap_point(np.array(p, np.float32))]
        return None if any(math.isnan(v) for v in found) else found

    def geodesic_distance(self, a: List[float], b: List[float]) -> float:
        """Length of the shortest path, inf if there is none."""
        path = filled(
            self.habitat_sim.nav.ShortestPath(),
            requested_start=np.array(a, np.float32),
            requested_end=np.array(b, np.float32),
        )
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
        low, _ = self.sim.pathfinder.get_bounds()
        plan = self.sim.pathfinder.get_topdown_view(MAP_RESOLUTION_M, self.pose()[0][1])
        return np.asarray(plan, bool), [float(low[0]), float(low[2])], MAP_RESOLUTION_M


def navmesh_differences(made_by: Any, wanted: Any) -> List[str]:
    """
    Where settings of a walkable surface differ, as in "cell_size 0.1 instead of 0.05"; what this
    version of habitat-sim does not tell counts as equal.
    """
    pairs = (
        (name, getattr(made_by, name, None), getattr(wanted, name, None))
        for name in NAVMESH_SETTINGS
    )
    return [
        "{} {:g} instead of {:g}".format(name, has, needs)
        for name, has, needs in pairs
        if has is not None and needs is not None and abs(has - needs) > 1e-4
    ]


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


def set_state(backend: Any, request: Dict[str, Any]) -> Dict[str, Any]:
    """Put the agent somewhere; there is nothing to tell."""
    backend.set_state(numbers(request, "position", 3), numbers(request, "rotation", 4))
    return {}


def step(backend: Any, request: Dict[str, Any]) -> Dict[str, Any]:
    """Carry out an action and tell where it led."""
    if request.get("action") not in (1, 2, 3):
        raise BadRequestError("action is {!r}: give 1, 2 or 3".format(request.get("action")))
    collided = backend.act(request["action"])
    position, rotation = backend.pose()
    return {"collided": collided, "position": position, "rotation": rotation}


def finite(value: float) -> Optional[float]:
    """A distance for JSON, which knows no infinity."""
    return value if math.isfinite(value) else None


ANSWERS: Dict[Any, Callable[[Any, Dict[str, Any]], Dict[str, Any]]] = {
    "load": lambda backend, r: backend.load(str(r.get("scene"))),
    "set_state": set_state,
    "step": step,
    "render": lambda backend, r: dict(zip(("rgb", "depth"), backend.render())),
    "is_navigable": lambda backend, r: {"value": backend.is_navigable(numbers(r, "p", 3))},
    "snap_point": lambda backend, r: {"value": backend.snap_point(numbers(r, "p", 3))},
    "geodesic_distance": lambda backend, r: {
        "value": finite(backend.geodesic_distance(numbers(r, "a", 3), numbers(r, "b", 3)))
    },
    "expert_action": lambda backend, r: {
        "value": backend.expert_action(numbers(r, "target", 3), numbers(r, "radius", 1)[0])
    },
    "top_down_map": lambda backend, r: dict(
        zip(("navigable", "origin", "resolution"), backend.top_down_map())
    ),
}
"""What is answered to each kind of request."""


def answer(backend: Any, request: Dict[str, Any]) -> Dict[str, Any]:
    """
    Carry out one request on ``backend``, a simulator such as ``HabitatSimulator``, and return the
    reply without ``ok``.
    """
    if request.get("kind") not in ANSWERS:
        raise BadRequestError("request {!r} is not known".format(request.get("kind")))
    return ANSWERS[request["kind"]](backend, request)


def serve(connection: socket.socket, make_backend: Callable[[Dict[str, Any]], Any]) -> None:
    """
    Answer requests until the client goes.

    The first one is ``hello`` with the settings; an error in a request is reported and does not
    end the service.
    """
    backend: Any = None
    memory: Optional[mmap.mmap] = None
    while True:
        descriptors: List[int] = []
        try:
            request = receive(connection, descriptors=descriptors)
        except DisconnectedError:
            return
        try:
            for descriptor in descriptors:
                memory = mmap.mmap(descriptor, 0)
                os.close(descriptor)
            if request.get("kind") == "hello":
                backend = make_backend(request)
                reply = {"python": platform.python_version(), "versions": backend.versions()}
            elif backend is None:
                raise BadRequestError("the first request must be hello")
            else:
                reply = answer(backend, request)
                if memory is not None and request["kind"] == "render":
                    reply = put_shared(memory, reply)
            reply["ok"] = True
        except Exception as error:  # whatever a simulator raises is for the client to report
            traceback.print_exc()
            bad_input = isinstance(error, BadRequestError)
            text = str(error) if bad_input else "{}: {}".format(type(error).__name__, error)
            reply = {"ok": False, "error": text[:4000], "bad_input": bad_input}
        send(connection, reply)


def main(simulator: Callable[[Dict[str, Any], str, int], Any] = HabitatSimulator) -> int:
    """Connect to the client's socket and serve it a ``simulator``, of its settings, up and gpu."""
    parser = argparse.ArgumentParser(
        description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--socket", required=True, help="the unix socket on which the client listens"
    )
    options = parser.parse_args()
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(options.socket)
    with contextlib.suppress(DisconnectedError):
        serve(
            connection, lambda hello: simulator(hello["settings"], hello["up"], int(hello["gpu"]))
        )
    with contextlib.suppress(OSError):  # a client that was killed could not tidy up
        Path(options.socket).unlink()
        Path(options.socket).parent.rmdir()
    return 0


if __name__ == "__main__":
    sys.exit(main())

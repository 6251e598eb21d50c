"""
Client and protocol of the habitat backend, over a server of the built-in simulator and over
servers that misbehave.
"""

import ast
import contextlib
import json
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest

from janusvln_ros.actions import Action
from janusvln_ros.data.episodes import read_episodes
from janusvln_ros.errors import InputError
from janusvln_ros.geometry import rotation_of_yaw
from sim_bridge import habitat_client, habitat_lab, habitat_server, make_env
from sim_bridge.habitat_client import SimulatorError, check_scene
from sim_bridge.habitat_server import (
    NAVMESH_SETTINGS,
    DisconnectedError,
    ProtocolError,
    navmesh_differences,
    put_shared,
    receive,
    send,
    shared_size,
    take_shared,
)
from sim_bridge.nav_env import NavEnv, SetupError

SERVER = Path(habitat_server.__file__)
ROOT = SERVER.parents[1]
SMALL = {"width": 32, "height": 24}
POSE = ([5.5, 0.001, 4.5], rotation_of_yaw(0.7))


@pytest.fixture(autouse=True)
def package_is_importable(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def remote(house_a, habitat):
    env = make_env(
        "habitat",
        scene=house_a,
        data_dir=habitat,
        command=[sys.executable, str(Path(__file__).with_name("houses_server.py"))],
        **SMALL,
    )
    yield env
    env.close()


def misbehaving(tmp_path, body, **options):
    """
    An environment over a server that runs ``body`` with ``answer(request)`` at hand for what an
    honest server would reply.
    """
    script = tmp_path / "server.py"
    script.write_text(
        "import os, socket, sys, time\nfrom pathlib import Path\nimport numpy as np\n"
        # as on Habitat's side: without this package
        f"sys.path.insert(0, {str(SERVER.parent)!r})\nfrom habitat_server import *\n"
        "c = socket.socket(socket.AF_UNIX)\nc.connect(sys.argv[-1])\n"
        f"here = Path({str(tmp_path)!r})\nruns = here / "
        "'runs'\nruns.write_text((runs.read_text() if runs.exists() else '') + 'x')\n"
        "def honest():\n"
        "    r = receive(c)\n"
        "    k = {'hello': {'python': '3', 'versions': {}}, 'load': {'navmesh': 'x'}, "
        "'set_state': {}}.get(r['kind'])\n"
        "    if k is None: return r\n"
        "    send(c, {'ok': True, **k})\n" + textwrap.dedent(body)
    )
    return make_env(
        "habitat",
        command=[sys.executable, str(script)],
        **{**SMALL, "request_timeout": 3.0, **options},
    )


# Over the honest server


def test_it_is_a_nav_env(remote):
    assert isinstance(remote, NavEnv)
    assert "moderngl" in remote.versions


def test_everything_is_as_without_a_process_between(remote, house_a, habitat):
    local = make_env("houses", scene=house_a, data_dir=habitat, **SMALL)
    episode = read_episodes(habitat, "r2r", "val_unseen").episodes[0]
    for a, b in (
        (remote.reset(episode), local.reset(episode)),
        *((remote.step(Action(n)), local.step(Action(n))) for n in (1, 2, 1, 1, 3, 1)),
    ):
        np.testing.assert_array_equal(a.rgb, b.rgb)
        np.testing.assert_array_equal(a.depth, b.depth)
        np.testing.assert_allclose(a.position, b.position, atol=1e-12)
        np.testing.assert_allclose(a.rotation, b.rotation, atol=1e-12)
        assert a.collided == b.collided
        assert remote.expert_action(episode.goal_position, 0.25) == local.expert_action(
            episode.goal_position, 0.25
        )
    rng = np.random.default_rng(0)
    for p, q in rng.uniform((-1, 0, -1), (12, 0.5, 10), (6, 2, 3)):
        assert remote.is_navigable(p) == local.is_navigable(p)
        assert remote.geodesic_distance(p, q) == local.geodesic_distance(p, q)
        snapped, expected = remote.snap_point(p), local.snap_point(p)
        assert (snapped is None) == (expected is None)
        if expected is not None:
            np.testing.assert_allclose(snapped, expected)
    np.testing.assert_array_equal(remote.top_down_map().navigable, local.top_down_map().navigable)
    assert remote.top_down_map().origin == local.top_down_map().origin
    remote.step(Action.STOP)
    assert remote.episode_over
    with pytest.raises(InputError, match="episode is over"):
        remote.step(Action.STOP)


def test_bad_input_is_the_users_and_costs_no_restart(remote, tmp_path):
    remote.set_state(*POSE)
    with pytest.raises(InputError, match="no way"):
        remote.expert_action([100.0, 0.0, 100.0], 0.25)
    with pytest.raises(InputError, match="position"):
        remote.set_state([float("inf"), 0, 0], POSE[1])
    assert not remote.is_navigable([float("nan"), 0, 0])
    assert remote.geodesic_distance([float("nan"), 0, 0], POSE[0]) == np.inf
    assert remote.restarts == 0


def test_a_killed_server_is_restarted_where_the_agent_was(remote, caplog):
    remote.set_state(*POSE)
    remote.step(Action.MOVE_FORWARD)
    before = remote.render()
    os.kill(remote.server.process.pid, signal.SIGKILL)
    after = remote.render()
    assert remote.restarts == 1
    assert "killed by signal 9" in caplog.text
    np.testing.assert_array_equal(after.rgb, before.rgb)
    np.testing.assert_allclose(after.position, before.position)


def test_the_server_ends_with_its_client_and_leaves_nothing(remote):
    process, folder = remote.server.process, remote.server.folder
    assert folder.stat().st_mode & 0o077 == 0, "the socket is this user's alone"
    remote.close()
    assert process.returncode == 0
    assert not folder.exists()
    with pytest.raises(InputError, match="closed"):
        remote.is_navigable(POSE[0])


# Over servers that misbehave


def test_a_crash_is_reported_with_its_last_words(tmp_path, house_a):
    with pytest.raises(
        SimulatorError, match=r"(?s)twice in a row.*status 7.*CUDA is out of sorts"
    ):
        body = (
            "while honest() is None: pass\nprint('CUDA is out of sorts', file=sys.stderr, "
            "flush=True)\nos._exit(7)"
        )
        env = misbehaving(tmp_path, body, scene=house_a)
        env.is_navigable(POSE[0])
    assert (tmp_path / "runs").read_text() == "xx"


def test_a_server_that_never_connects_is_given_up(tmp_path):
    (tmp_path / "server.py").write_text("import time\ntime.sleep(100)")
    with pytest.raises(SetupError, match=r"it said nothing.*did not connect within 0.5 s"):
        make_env(
            "habitat", command=[sys.executable, str(tmp_path / "server.py")], start_timeout=0.5
        )


def test_a_hang_is_ended_by_the_time_out(tmp_path, house_a):
    env = misbehaving(
        tmp_path,
        "while honest() is None: pass\ntime.sleep(100)",
        scene=house_a,
        request_timeout=0.4,
    )
    with pytest.raises(SimulatorError, match="no answer within"):
        env.is_navigable(POSE[0])


def test_a_message_that_trickles_in_does_not_outlive_the_time_out(tmp_path, house_a):
    body = (
        "while honest() is None: pass\nwhile True:\n    c.sendall(HEADER.pack(MAGIC, 1, "
        "0, 100000, 0)[:1])\n    time.sleep(0.15)"
    )
    env = misbehaving(tmp_path, body, scene=house_a, request_timeout=0.4)
    with pytest.raises(SimulatorError, match="no answer within"):
        env.is_navigable(POSE[0])


@pytest.mark.parametrize(
    "body, words",
    [
        (
            "c.sendall(b'Traceback (most recent call last): oh dear' * 3)",
            "where a message should begin",
        ),
        ("c.sendall(HEADER.pack(MAGIC, 1, 0, 10, 1 << 60))", "more than is allowed"),
        ("c.sendall(HEADER.pack(MAGIC, 1, 0, 5, 0) + b'{{{{{')", "cannot be read"),
        ("send(c, {'ok': True})", "a reply without"),
        ("send(c, {'answer': 42})", "a reply without"),
        ("c.close()", "connection was closed"),
    ],
)
def test_garbage_is_refused(tmp_path, house_a, body, words):
    env = misbehaving(
        tmp_path, f"while honest() is None: pass\n{body}\ntime.sleep(100)", scene=house_a
    )
    with pytest.raises(SimulatorError, match=f"(?s){words}"):
        env.is_navigable(POSE[0])


def test_pictures_of_the_wrong_shape_are_refused(tmp_path, house_a):
    body = (
        "while honest() is None: pass\nsend(c, {'ok': True, 'rgb': np.zeros((2, 2, 3), "
        "np.uint8), 'depth': np.zeros((2, 2), np.float32)})\nc.recv(1)"
    )
    env = misbehaving(tmp_path, body, scene=house_a)
    env.set_state(*POSE)
    with pytest.raises(SimulatorError, match="pictures"):
        env.render()
    env.close()


def test_another_version_of_the_protocol_is_named(tmp_path):
    with pytest.raises(SimulatorError, match="speaks version 2"):
        misbehaving(
            tmp_path,
            "receive(c)\nc.sendall(HEADER.pack(MAGIC, 2, 0, 2, 0) + b'{}')\ntime.sleep(100)",
        )


# What the user has to mend is one sentence, at once, without a restart


def sentence(problem):
    """The message, which is one line and tells how Habitat is installed."""
    text = str(problem.value)
    assert "\n" not in text and "Traceback" not in text
    return text


def test_a_python_that_is_not_there_is_named(monkeypatch):
    monkeypatch.delenv("JANUSVLN_HABITAT_PYTHON", raising=False)
    with pytest.raises(SetupError, match="JANUSVLN_HABITAT_PYTHON"):
        make_env("habitat")
    with pytest.raises(SetupError, match="/no/such/python"):
        make_env("habitat", python="/no/such/python")


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (None, "cannot be started.*Is a directory|cannot be started.*[Pp]ermission"),
        ("not executable", "cannot be started.*[Pp]ermission"),
        ("\0\1\2\3", "cannot be started"),
        ("#!/bin/sh\nexit 0\n", "said nothing.*status 0"),
        ("#!/bin/sh\necho unknown option --socket; exit 2\n", "unknown option.*status 2"),
        ("#!/bin/sh\nyes\n", "did not connect within"),
        ("#!/bin/sh\nkill -ILL $$\n", "status -4"),
        (
            f"#!/bin/sh\nexec {sys.executable} -S -c 'import numpy'\n",
            "ModuleNotFoundError: No module named 'numpy'.*status 1",
        ),
    ],
)
def test_a_program_that_is_no_python_with_habitat_is_named_with_what_it_said(
    tmp_path, program, words
):
    path = tmp_path / "python"
    if program is None:
        path.mkdir()
    else:
        path.write_text(program)
        path.chmod(0o644 if program == "not executable" else 0o755)
    with pytest.raises(SetupError, match=words) as problem:
        make_env("habitat", python=str(path), start_timeout=2.0)
    assert str(path) in sentence(problem) and "conda create" in sentence(problem)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (None, "No module named 'habitat_sim'"),
        ("import numpy_of_another_age", "No module named 'numpy_of_another_age'"),
        ("raise ImportError('libEGL.so.1: cannot open shared object file')", "libEGL.so.1"),
        ("", "has no Simulator"),  # a folder of that name, such as the source's
    ],
)
def test_an_interpreter_without_habitat_is_named_with_what_it_said(
    tmp_path, monkeypatch, module, words
):
    if module is not None:
        (tmp_path / "habitat_sim.py").write_text(module)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    with pytest.raises(SetupError, match=words) as problem:
        make_env("habitat", python=sys.executable, **SMALL)
    assert sys.executable in sentence(problem) and "conda create" in sentence(problem)


def test_an_interpreter_that_crashes_while_it_imports_is_named(tmp_path):
    body = "receive(c)\nprint('Illegal instruction', flush=True)\nos._exit(132)"
    with pytest.raises(SetupError, match=r"Illegal instruction.*132") as problem:
        misbehaving(tmp_path, body)
    assert "conda create" in sentence(problem)
    assert (tmp_path / "runs").read_text() == "x"


MAGNUM = "Platform::WindowlessEglApplication::tryCreateContext(): "


@pytest.mark.parametrize(
    ("said", "gpu", "remedy"),
    [
        (f"{MAGNUM}unable to find CUDA device 0 among 1 EGL devices in total", 0, "gpu to -1"),
        (f"{MAGNUM}unable to find EGL device for CUDA device 1", 1, "gpu to -1"),
        ("WindowlessContext: Unable to create windowless context", 0, "gpu to -1"),
        (f"{MAGNUM}cannot get default EGL display: EGL_BAD_PARAMETER", -1, "install EGL"),
        ("DISPLAY not detected. For headless systems, compile with --headless", -1, "install EGL"),
    ],
)
def test_where_it_cannot_draw_the_setting_to_change_is_named(tmp_path, house_a, said, gpu, remedy):
    last = "WindowlessContext: Unable to create windowless context"
    words = f"print({said!r} + chr(10) + {last!r}, flush=True)"
    body = f"honest()\nreceive(c)\n{words}\nos._exit(1)"
    with pytest.raises(SetupError, match=remedy) as problem:
        misbehaving(tmp_path, body, scene=house_a, gpu=gpu)
    assert f"gpu {gpu}" in sentence(problem) and said in sentence(problem)
    assert (tmp_path / "runs").read_text() == "x", "it is not started again"


@pytest.mark.parametrize(
    "body",
    [
        "send(c, {'ok': False, 'error': 'RuntimeError: no mesh in it', 'bad_input': False})",
        "print('Trade::GltfImporter::openData(): no mesh in it', flush=True)\nos._exit(1)",
    ],
)
def test_a_scene_that_it_cannot_load_is_bad_input_at_once(tmp_path, house_a, body):
    with pytest.raises(InputError, match=r"cannot load the scene.*no mesh in it") as problem:
        misbehaving(tmp_path, f"honest()\nreceive(c)\n{body}\nhonest()", scene=house_a)
    assert str(house_a) in sentence(problem)
    assert (tmp_path / "runs").read_text() == "x"


def test_a_crash_after_a_texture_was_skipped_is_not_the_scenes_fault(tmp_path, house_a):
    body = (
        "print('Cannot load texture 3 so skipping', flush=True)\n"
        "print('a', 'b', 'c', 'd', sep=chr(10), flush=True)\nos._exit(1)"
    )
    with pytest.raises(SimulatorError, match="twice in a row"):
        misbehaving(tmp_path, f"honest()\nreceive(c)\n{body}", scene=house_a)


def test_the_next_scene_is_loaded_after_one_that_was_broken(tmp_path, house_a, habitat):
    folder = tmp_path / "scene_datasets"
    folder.mkdir()
    for name in ("broken.glb", "whole.glb"):
        (folder / name).write_bytes(house_a.read_bytes())
    body = (
        "honest()\nreceive(c)\n"
        "send(c, {'ok': False, 'error': 'RuntimeError: no', 'bad_input': False})\n"
        "while honest() is None: pass\n"
        "send(c, {'ok': True, 'rgb': np.full((24, 32, 3), 7, np.uint8), "
        "'depth': np.ones((24, 32), np.float32)})\nc.recv(1)"
    )
    env = misbehaving(tmp_path, body, data_dir=tmp_path)
    episode = read_episodes(habitat, "r2r", "val_unseen").episodes[0]
    with pytest.raises(InputError, match=r"broken\.glb"):
        env.reset(replace(episode, scene_id="broken.glb"))
    assert (env.reset(replace(episode, scene_id="whole.glb")).rgb == 7).all()
    assert (tmp_path / "runs").read_text() == "x" and env.restarts == 0
    env.close()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        lambda data: b"<html>404</html>" * 10,
        lambda data: data[:20] + b"{]" + data[22:],
        lambda data: data[:4] + b"\1\0\0\0" + data[8:],
    ],
)
def test_a_damaged_file_is_named_before_any_simulator_sees_it(tmp_path, house_a, damage):
    scene = tmp_path / "damaged.glb"
    scene.write_bytes(damage(house_a.read_bytes()))
    with pytest.raises(InputError, match=r"damaged.glb \(\d+ bytes\) is no whole .glb") as problem:
        check_scene(scene)
    assert sentence(problem)
    check_scene(house_a)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gqu": 0}, "gqu.*did you mean 'gpu'"),
        ({"gpu": "first"}, "gpu.*'first'"),
        ({"gpu": -2}, "gpu is -2: give -1 to 63"),
        ({"load_timeout": 0.0}, "load_timeout is 0"),
    ],
)
def test_a_setting_that_cannot_be_is_named(options, words):
    with pytest.raises(InputError, match=words):
        make_env("habitat", python="python", **options)


# Pictures in shared memory


def test_pictures_do_not_go_through_the_socket_and_belong_to_who_asked(remote, monkeypatch):
    remote.set_state(*POSE)
    received = []
    monkeypatch.setattr(
        habitat_client,
        "receive",
        lambda *given, **named: received.append(receive(*given, **named)) or received[-1],
    )
    first = remote.render()
    assert "$shared" in received[-1]["rgb"] and "$shared" in received[-1]["depth"]
    before = first.rgb.copy()
    remote.step(Action.TURN_LEFT)
    assert not np.array_equal(remote.render().rgb, before)
    np.testing.assert_array_equal(first.rgb, before)


def test_a_server_that_was_given_no_memory_sends_pictures_as_before(tmp_path, house_a):
    body = (
        "while honest() is None: pass\nsend(c, {'ok': True, 'rgb': np.full((24, 32, 3), 7, "
        "np.uint8), 'depth': np.ones((24, 32), np.float32)})\nc.recv(1)"
    )
    env = misbehaving(tmp_path, body, scene=house_a)
    env.set_state(*POSE)
    assert (env.render().rgb == 7).all()
    env.close()


def test_arrays_come_out_of_shared_memory_as_they_were_put_in():
    rgba = np.random.default_rng(0).integers(0, 255, (6, 5, 4)).astype(np.uint8)
    depth = np.linspace(0, 1, 30, dtype=np.float32).reshape(6, 5)
    memory = mmap.mmap(-1, shared_size((90, 1), (30, 4)))
    told = put_shared(memory, {"rgb": rgba[..., :3], "depth": depth})
    np.testing.assert_array_equal(take_shared(memory, told["rgb"]), rgba[..., :3])
    np.testing.assert_array_equal(take_shared(memory, told["depth"]), depth)
    large = {"rgb": np.zeros((60, 50, 3), np.uint8)}
    assert put_shared(memory, large)["rgb"] is large["rgb"], "what does not fit is sent"


@pytest.mark.parametrize(
    "place",
    [
        ["u1", [1 << 20], 0],
        ["u1", [4], -1],
        ["u1", [-4], 0],
        ["u1", [4], 1 << 70],
        ["O", [1], 0],
        ["u1", 4, 0],
        ["f4", [2, "x"], 0],
        [[], [1], 0],
        "everything",
    ],
)
def test_a_place_outside_the_shared_memory_is_refused(place):
    with pytest.raises(ProtocolError, match="not in the shared memory"):
        take_shared(mmap.mmap(-1, 64), {"$shared": place})


def test_a_killed_client_leaves_no_process_and_no_file(tmp_path, house_a):
    script = (
        "import sys, time\nfrom sim_bridge import make_env\n"
        f"env = make_env('habitat', scene={str(house_a)!r}, command=[sys.executable, "
        f"{str(Path(__file__).with_name('houses_server.py'))!r}], width=32, height=24)\n"
        f"env.set_state({POSE[0]!r}, {[float(v) for v in POSE[1]]!r})\nenv.render()\n"
        "print(env.server.process.pid, flush=True)\ntime.sleep(100)\n"
    )
    client = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    server = int(client.stdout.readline())
    client.kill()
    client.communicate()
    for _ in range(200):
        if not Path(f"/proc/{server}").exists():
            break
        time.sleep(0.05)
    assert not Path(f"/proc/{server}").exists()
    assert list(tmp_path.iterdir()) == []


# The wire


@pytest.fixture
def wire():
    a, b = socket.socketpair()
    yield a, b
    a.close()
    b.close()


def test_messages_arrive_as_they_were_sent(wire):
    message = {
        "kind": "x",
        "numbers": [1, 2.5, None, True],
        "nested": {
            "image": np.arange(24, dtype=np.uint8).reshape(2, 4, 3),
            "list": [np.array([1.5, -2.0], np.float32)],
        },
        "empty": np.zeros((0, 3)),
        "mask": np.array([[True, False]]),
    }
    thread = threading.Thread(target=send, args=(wire[0], message))
    thread.start()
    got = receive(wire[1], 5.0)
    thread.join()
    assert got["numbers"] == message["numbers"] and got["kind"] == "x"
    for a, b in (
        (got["nested"]["image"], message["nested"]["image"]),
        (got["nested"]["list"][0], message["nested"]["list"][0]),
        (got["empty"], message["empty"]),
        (got["mask"], message["mask"]),
    ):
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_array_equal(a, b)


def frame(text, data=b""):
    return struct.pack("<4sHHIQ", b"JNAV", 1, 0, len(text), len(data)) + text + data


@pytest.mark.parametrize(
    "sent",
    [
        frame(b'{"a": {"$array": ["O", [1]]}}', bytes(8)),
        frame(b'{"a": {"$array": ["u1", [9]]}}', bytes(8)),
        frame(b'{"a": {"$array": ["u1", [-1]]}}', bytes(8)),
        frame(b'{"a": {"$array": ["u1", [1048576, 1048576, 1048576, 1048576]]}}'),
        frame(b'{"a": {"$array": ["u1", [1, 1, 1, 1, 1]]}}', bytes(1)),
        frame(b'{"a": {"$array": "u1"}}'),
        frame(b'{"a": {"$array": [["u1"], [1]]}}', bytes(1)),
        frame(b'{"a": {"$array": ["u1", 7]}}', bytes(7)),
        frame(b"{}", bytes(3)),
        frame(b"[1]"),
        frame(b"\xff\xfe"),
        frame(b"[" * 100_000),
    ],
)
def test_a_malformed_message_is_an_error_and_nothing_worse(wire, sent):
    wire[0].sendall(sent)
    with pytest.raises(ProtocolError):
        receive(wire[1], 5.0)


def test_random_bytes_never_do_more_than_raise(wire):
    rng = np.random.default_rng(0)
    for _ in range(200):
        a, b = socket.socketpair()
        good = bytearray(frame(b'{"a": {"$array": ["u1", [4]]}}', bytes(4)))
        for at in rng.integers(0, len(good), 3):
            good[at] = rng.integers(0, 256)
        a.sendall(good)
        a.close()
        with contextlib.suppress(ProtocolError, DisconnectedError):
            receive(b, 5.0)
        b.close()


def test_what_is_too_large_is_not_sent(wire, monkeypatch):
    monkeypatch.setattr(habitat_server, "MAX_ARRAY_BYTES", 100)
    with pytest.raises(ProtocolError, match="too large"):
        send(wire[0], {"a": np.zeros(101, np.uint8)})
    with pytest.raises(ProtocolError, match="cannot be sent"):
        send(wire[0], {"a": np.array([object()])})


def test_a_request_with_bad_values_is_answered_and_not_obeyed():
    for request in (
        {"kind": "step", "action": 9},
        {"kind": "set_state", "position": [0, 0], "rotation": [0, 0, 0, 1]},
        {"kind": "exec"},
        {},
    ):
        with pytest.raises(habitat_server.BadRequestError):
            habitat_server.answer(
                mock.Mock(spec=["set_state", "act"], set_state=pytest.fail, act=pytest.fail),
                request,
            )


# Habitat's side


@pytest.mark.parametrize("file", [SERVER, Path(habitat_lab.__file__)])
def test_what_runs_in_habitats_python_is_3_9_and_needs_only_numpy(file):
    tree = ast.parse(file.read_text(), feature_version=(3, 9))
    at_import = {
        name.name.split(".")[0]
        for node in tree.body
        if isinstance(node, ast.Import)
        for name in node.names
    }
    at_import |= {
        node.module.split(".")[0] for node in tree.body if isinstance(node, ast.ImportFrom)
    }
    assert at_import <= {"numpy", *sys.stdlib_module_names}


STAND_IN = """
# habitat_sim's documented names and types, over the built-in simulator: whether our server calls
# them rightly, not what Habitat answers.
import json
import types
import numpy as np
from sim_bridge import make_env
from janusvln_ros.actions import Action

__version__ = "0.2.4"
class Bag:
    def __init__(self, **k): self.__dict__.update(k)
class SimulatorConfiguration(Bag): pass
class CameraSensorSpec(Bag): pass
class AgentState(Bag): pass
class Configuration:
    def __init__(self, sim_cfg, agents): self.sim_cfg, self.agents = sim_cfg, agents
class SensorType: COLOR, DEPTH = "color", "depth"
class ActuationSpec:
    def __init__(self, amount): self.amount = amount
class ActionSpec:
    def __init__(self, name, actuation=None): self.name, self.actuation = name, actuation
agent = types.SimpleNamespace(
    AgentConfiguration=Bag, ActionSpec=ActionSpec, ActuationSpec=ActuationSpec
)
class ShortestPath(Bag): geodesic_distance = np.inf
class NavMeshSettings(Bag):
    def set_defaults(self):
        self.cell_size, self.cell_height, self.agent_max_climb = 0.05, 0.2, 0.2
        self.agent_radius, self.agent_height, self.agent_max_slope = 0.1, 1.5, 45.0
nav = types.SimpleNamespace(ShortestPath=ShortestPath, NavMeshSettings=NavMeshSettings)
class GreedyFollowerError(RuntimeError): pass
errors = types.SimpleNamespace(GreedyFollowerError=GreedyFollowerError)
utils = types.SimpleNamespace(common=types.SimpleNamespace(
    quat_from_coeffs=lambda c: Bag(coeffs=np.array(c)), quat_to_coeffs=lambda q: q.coeffs))

class Simulator:
    def __init__(self, cfg): self.reconfigure(cfg)
    def reconfigure(self, cfg):
        body, (rgb, depth) = cfg.agents[0], cfg.agents[0].sensor_specifications
        assert (rgb.uuid, rgb.sensor_type) == ("rgb", "color")
        assert (depth.uuid, depth.sensor_type) == ("depth", "depth")
        steps = {n: s.actuation.amount for n, s in body.action_space.items()}
        self.env = make_env(
            "houses", scene=cfg.sim_cfg.scene_id, sliding=cfg.sim_cfg.allow_sliding,
            width=rgb.resolution[1], height=rgb.resolution[0], hfov=rgb.hfov,
            camera_height=rgb.position[1], tilt=-np.degrees(rgb.orientation[0]),
            agent_height=body.height, agent_radius=body.radius,
            forward_step=steps["move_forward"], turn_step=steps["turn_left"])
        self.pathfinder = self
        self.is_loaded = False
    def load_nav_mesh(self, path):
        made_by = NavMeshSettings()
        made_by.set_defaults()
        made_by.__dict__.update(json.load(open(path)))
        self.nav_mesh_settings, self.is_loaded = made_by, True
    def close(self): pass
    def recompute_navmesh(self, pathfinder, settings):
        assert (settings.agent_radius, settings.agent_height) == (0.1, 1.5)
        self.is_loaded = True
        return True
    def get_agent(self, number): return self
    def set_state(self, state, reset_sensors):
        self.env.set_state(state.position.astype(float), state.rotation.coeffs.astype(float))
    def get_state(self):
        o = self.env.observation()
        rotation = Bag(coeffs=o.rotation.astype(np.float32))
        return AgentState(position=o.position.astype(np.float32), rotation=rotation)
    def act(self, name):
        actions = {"move_forward": Action(1), "turn_left": Action(2), "turn_right": Action(3)}
        return self.env.step(actions[name]).collided
    def get_sensor_observations(self):
        o = self.env.render()
        opaque = np.full((*o.rgb.shape[:2], 1), 255, np.uint8)
        return {"rgb": np.concatenate([o.rgb, opaque], axis=2), "depth": o.depth}
    def is_navigable(self, p): return self.env.is_navigable(p)
    def snap_point(self, p):
        q = self.env.snap_point(p)
        return np.full(3, np.nan, np.float32) if q is None else q.astype(np.float32)
    def find_path(self, path):
        start, end = path.requested_start, path.requested_end
        path.geodesic_distance = self.env.geodesic_distance(start, end)
        return np.isfinite(path.geodesic_distance)
    def make_greedy_follower(
        self, agent_id, goal_radius, *, stop_key, forward_key, left_key, right_key, fix_thrashing
    ):
        keys = [stop_key, forward_key, left_key, right_key]
        def along(goal):
            try: return keys[self.env.expert_action(goal, goal_radius)]
            except ValueError as e: raise GreedyFollowerError(str(e))
        return types.SimpleNamespace(next_action_along=along)
    def get_bounds(self): return np.array([self.env.mesh.origin, self.env.mesh.origin + 20])
    def get_topdown_view(self, resolution, height): return np.ones((4, 6), bool)
"""


def test_habitats_side_calls_what_habitat_documents(tmp_path, house_a, habitat, monkeypatch):
    (tmp_path / "habitat_sim.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    episode = read_episodes(habitat, "r2r", "val_unseen").episodes[0]
    env = make_env("habitat", data_dir=habitat, python=sys.executable, gpu=-1, **SMALL)
    local = make_env("houses", data_dir=habitat, **SMALL)
    assert env.versions["habitat_sim"] == "0.2.4"
    np.testing.assert_allclose(env.reset(episode).rgb, local.reset(episode).rgb, atol=2)
    for _ in range(30):
        action = env.expert_action(episode.goal_position, 0.25)
        seen, expected = env.step(action), local.step(action)
        np.testing.assert_allclose(seen.position, expected.position, atol=1e-3)
        assert seen.collided == expected.collided
    assert seen.rgb.shape == (24, 32, 3)
    assert env.is_navigable(seen.position)
    assert env.snap_point([100.0, 0, 0]) is None
    assert env.geodesic_distance(seen.position, episode.goal_position) == pytest.approx(
        local.geodesic_distance(seen.position, episode.goal_position), abs=0.01
    )
    assert env.geodesic_distance(seen.position, [100.0, 0, 0]) == np.inf
    assert env.top_down_map().navigable.shape == (4, 6)
    with pytest.raises(InputError, match="no way"):
        env.expert_action([100.0, 0, 0], 0.25)
    assert env.restarts == 0
    env.close()
    with pytest.raises(InputError, match="y up"):
        make_env("habitat", up="y", python=sys.executable, **SMALL)


@pytest.mark.parametrize(
    ("made_by", "told"),
    [
        ({}, "from file"),
        ({"cell_size": 0.1}, "cell_size 0.1 instead of 0.05"),
        ({"cell_height": 0.05}, "cell_height 0.05 instead of 0.2"),
        ({"agent_max_climb": 0.3}, "agent_max_climb 0.3 instead of 0.2"),
        ({"agent_max_slope": 30.0}, "agent_max_slope 30 instead of 45"),
        ({"agent_radius": 0.2}, "agent_radius 0.2 instead of 0.1"),
        (
            {"agent_height": 0.88, "cell_size": 0.1},
            "cell_size 0.1 instead of 0.05, agent_height 0.88 instead of 1.5",
        ),
    ],
)
def test_a_surface_made_by_other_settings_is_made_anew_and_says_why(
    tmp_path, house_a, monkeypatch, caplog, made_by, told
):
    (tmp_path / "habitat_sim.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    scene = tmp_path / "house.glb"
    scene.write_bytes(house_a.read_bytes())
    scene.with_suffix(".navmesh").write_text(json.dumps(made_by))
    with caplog.at_level("INFO"):
        make_env("habitat", scene=scene, python=sys.executable, **SMALL).close()
    assert told in caplog.text
    warned = [record for record in caplog.records if record.levelname == "WARNING"]
    assert bool(warned) == bool(made_by)


def test_every_setting_of_a_surface_counts_and_what_a_version_does_not_tell_does_not():
    same = dict.fromkeys(NAVMESH_SETTINGS, 1.0)
    assert navmesh_differences(SimpleNamespace(**same), SimpleNamespace(**same)) == []
    for name in NAVMESH_SETTINGS:
        other = SimpleNamespace(**{**same, name: 2.0})
        assert navmesh_differences(other, SimpleNamespace(**same)) == [f"{name} 2 instead of 1"]
    assert navmesh_differences(SimpleNamespace(), SimpleNamespace(**same)) == []
    assert navmesh_differences(None, SimpleNamespace(**same)) == []

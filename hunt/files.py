"""Damaged files of every kind that is read."""

import gzip
import io
import json
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from hypothesis import strategies as st
from PIL import Image

from hunt.families import family
from hunt.mutations import CHANGES, changed, damaged
from janusvln_ros.data.bags import BagWriter, message_types, open_bag
from janusvln_ros.data.drives import Topics, odometry_moments, recorded_moments
from janusvln_ros.data.episodes import (
    Episode,
    GroundTruth,
    read_episodes,
    read_ground_truth,
    write_episodes,
    write_ground_truth,
)
from janusvln_ros.data.journal import read_lines
from janusvln_ros.data.playback import spoken, suggested
from janusvln_ros.data.samples import TrajectorySet
from janusvln_ros.data.top_down_map import TopDownMap
from janusvln_ros.data.trajectories import read_trajectories
from janusvln_ros.errors import InputError
from janusvln_ros.files import share_dir
from janusvln_ros.graph.composition import parse_parameters, resolve
from janusvln_ros.model.checkpoint import (
    JanusVLN,
    as_dtype,
    end_tokens,
    generation,
    tensor_types,
    write_weights,
)
from janusvln_ros.model.config import JanusVLNConfig
from janusvln_ros.policy.identity import checkpoint_digest
from janusvln_ros.policy.tokenizer import load_tokenizer
from janusvln_ros.rollout.manifest import claim
from janusvln_ros.rollout.settings import load_settings
from janusvln_ros.rollout.shards import finished
from janusvln_ros.training.cache import read_picture
from janusvln_ros.training.encoders import Views
from sim_bridge.habitat_client import check_scene, meant
from sim_bridge.habitat_server import ProtocolError, receive, send
from sim_bridge.scene import load_scene

PLACE = Path(tempfile.mkdtemp(prefix="janusvln-hunt-"))
TINY = Path(__file__).parents[1] / "test" / "data" / "model" / "tiny"
S = 1_000_000_000


def put(name: str, data: bytes) -> Path:
    """Write a file in a folder of this process, alone there."""
    folder = PLACE / "case"
    shutil.rmtree(folder, ignore_errors=True)
    path = folder / name
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return path


def written(name: str, write: Callable[[Path], object]) -> bytes:
    """The bytes of a file that ``write`` makes."""
    path = put(name, b"")
    path.unlink()
    write(path)
    return path.read_bytes()


# bags ----------------------------------------------------------------------------------------

TYPES = message_types().types


def _header(ns: int) -> Any:
    stamp = TYPES["builtin_interfaces/msg/Time"](sec=ns // S, nanosec=ns % S)
    return TYPES["std_msgs/msg/Header"](stamp=stamp, frame_id="x")


def _messages() -> list[tuple[str, int, Any]]:
    """A drive of a second: two pictures, odometry, words."""
    image, text = TYPES["sensor_msgs/msg/CompressedImage"], TYPES["std_msgs/msg/String"]
    rows: list[tuple[str, int, Any]] = [("/instruction", S, text(data="go on"))]
    for n in range(4):
        at = S + n * S // 4
        rows.append(("/image/compressed", at, image(_header(at), "jpeg", JPEG_PIXELS)))
        rows.append(("/odom", at, _odometry(at, 0.1 * n)))
    return rows


def _odometry(ns: int, x: float) -> Any:
    zero, point = (
        TYPES["geometry_msgs/msg/Vector3"](0.0, 0.0, 0.0),
        TYPES["geometry_msgs/msg/Point"],
    )
    turn = TYPES["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0)
    pose, none = TYPES["geometry_msgs/msg/Pose"](point(x, 0.0, 0.0), turn), np.zeros(36)
    twist = TYPES["geometry_msgs/msg/Twist"](zero, zero)
    return TYPES["nav_msgs/msg/Odometry"](
        _header(ns),
        "base",
        TYPES["geometry_msgs/msg/PoseWithCovariance"](pose, none),
        TYPES["geometry_msgs/msg/TwistWithCovariance"](twist, none),
    )


def encoded_picture(kind: str) -> bytes:
    """A small picture in a file format."""
    buffer = io.BytesIO()
    pixels = np.arange(24 * 32 * 3, dtype=np.uint32).reshape(24, 32, 3) % 251
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, kind)
    return buffer.getvalue()


PICTURES = {kind: encoded_picture(kind) for kind in ("PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP")}
JPEG_PIXELS = np.frombuffer(PICTURES["JPEG"], np.uint8)


def _mcap(path: Path) -> None:
    with BagWriter(path) as writer:
        for topic, at, message in _messages():
            writer.write_message(topic, at, message)


def _mcap_with(compression: Any) -> Callable[[Path], None]:
    from mcap.writer import Writer

    def write(path: Path) -> None:
        with path.open("wb") as stream:
            writer = Writer(stream, compression=compression, enable_crcs=False)
            writer.start(profile="ros2", library="")
            schema = writer.register_schema("std_msgs/msg/String", "ros2msg", b"string data")
            channel = writer.register_channel("/instruction", "cdr", schema)
            cdr = message_types().serialize_cdr(
                TYPES["std_msgs/msg/String"](data="go on"), "std_msgs/msg/String"
            )
            for n in range(5):
                writer.add_message(channel, n, bytes(cdr), n)
            writer.finish()

    return write


def _sqlite(path: Path) -> None:
    from rosbags.rosbag2 import StoragePlugin, Writer

    folder = path.parent / "written"
    with Writer(folder, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connections: dict[str, Any] = {}
        for topic, at, message in _messages():
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=message_types())
            writer.write(connections[topic], at, message_types().serialize_cdr(message, kind))
    shutil.copy(next(folder.glob("*.db3")), path)
    shutil.copy(folder / "metadata.yaml", path.parent / "metadata.yaml")


def read_bag(path: Path) -> None:
    """Everything that is made of a bag."""
    with open_bag(path) as bag:
        for message in bag.messages():
            try:
                bag.decode(message)
            except InputError:
                continue
        suggested(bag, {"image": "/image", "camera_info": "/camera_info", "odom": "/odom"})
        for use in (spoken, recorded_moments, lambda b: odometry_moments(b, Topics(), "go")):
            try:
                use(bag)
            except InputError:
                continue
        assert isinstance(bag.held, str) and isinstance(bag.damage, str | None)


def _bags() -> None:
    from mcap.writer import CompressionType

    kinds = {
        "mcap": ("bag.mcap", written("bag.mcap", _mcap)),
        "mcap-plain": ("bag.mcap", written("bag.mcap", _mcap_with(CompressionType.NONE))),
        "mcap-lz4": ("bag.mcap", written("bag.mcap", _mcap_with(CompressionType.LZ4))),
        "sqlite": ("bag.db3", written("bag.db3", _sqlite)),
    }
    metadata = (PLACE / "case" / "metadata.yaml").read_bytes()
    packed = zstandard.ZstdCompressor().compress(kinds["sqlite"][1])
    kinds["sqlite-zstd"] = ("bag.db3.zstd", packed)
    for name, (file, data) in kinds.items():
        family(f"bag-{name}", damaged(data))(lambda case, file=file: read_bag(put(file, case)))

    @family("bag-metadata", damaged(metadata))
    def check_metadata(case: bytes) -> None:
        path = put("bag_0.db3", kinds["sqlite"][1])
        (path.parent / "metadata.yaml").write_bytes(case)
        read_bag(path.parent)


_bags()


# data sets -----------------------------------------------------------------------------------

EPISODE = Episode(
    *("1", "1", "houses/h1/h1.glb", (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0), (3.0, 0.0, 0.0), 3.0),
    "Go to the door.",
    ((0.0, 0.0, 0.0), (3.0, 0.0, 0.0)),
    3.0,
)


def _packed(write: Callable[[Path], object]) -> st.SearchStrategy[bytes]:
    """Damaged texts, packed again, and damaged packings."""
    data = written("x.json.gz", write)
    text = gzip.decompress(data)
    return st.one_of(
        CHANGES.map(lambda c: gzip.compress(changed(text, c), mtime=0)),
        damaged(data),
    )


@family("episodes", _packed(lambda path: write_episodes(path, [EPISODE])))
def check_episodes(case: bytes) -> None:
    """An episode file; what it holds is used as collecting and evaluating do."""
    path = put("datasets/r2r/val_unseen/val_unseen.json.gz", case)
    for episode in read_episodes(path.parents[3], "r2r", "val_unseen").episodes:
        assert ".." not in episode.scene and "/" not in episode.episode_id
        json.dumps([episode.instruction, episode.scene, dict(episode.info)]).encode()


TRUTH = {"1": GroundTruth((1, 1, 0), ((0.0, 0.0, 0.0),), 2)}


@family("ground-truth", _packed(lambda path: write_ground_truth(path, TRUTH)))
def check_truth(case: bytes) -> None:
    """A ground truth file."""
    read_ground_truth(put("x_gt.json.gz", case))


ANNOTATION = {"id": 1, "video": "images/a", "instructions": ["Go."], "actions": [-1, 1, 2]}


@family("annotations", damaged(json.dumps([{**ANNOTATION, "labels": [1, 1, 0]}]).encode()))
def check_annotations(case: bytes) -> None:
    """A trajectory's annotations beside its pictures."""
    path = put("annotations.json", case)
    (path.parent / "images/a/rgb").mkdir(parents=True)
    for n in range(3):
        (path.parent / f"images/a/rgb/{n:03d}.jpg").write_bytes(b"")
    for trajectory in read_trajectories(path.parent, rejected=[]):
        assert all(path.parent in frame.parents for frame in trajectory.frames)
        assert trajectory.targets


LINE = {"id": "1", "source": "r2r", "video": "a", "instruction": "Go.", "folder": "images"}
LINE |= {"frames": ["0.jpg", "1.jpg"], "targets": [1, 0], "actions": [-1, 1]}


@family("training-set", damaged((json.dumps(LINE) + "\n" + json.dumps(LINE) + "\n").encode()))
def check_set(case: bytes) -> None:
    """A training set, every trajectory of it."""
    trajectories = TrajectorySet(put("set.jsonl", case))
    for number in range(len(trajectories)):
        item = trajectories[number]
        assert len(item.frames) == len(item.targets) == trajectories.lengths[number]


JOURNAL = {"scene": "a", "episode_id": 1, "instruction": "Go.", "result": {}, "path": [[0.0, 1.0]]}


@family("journal", damaged((json.dumps(JOURNAL) + "\n").encode() * 2))
def check_journal(case: bytes) -> None:
    """A journal, as resuming reads it."""
    path = put("journal_0.jsonl", case)
    for _ in read_lines(path):
        pass
    finished(path.parent)


MANIFEST = {"seed": 1, "data": {"sha256": "ab"}, "settings": {"split": "val", "rules": [1, 2.5]}}


@family("manifest", damaged(json.dumps(MANIFEST).encode()))
def check_manifest(case: bytes) -> None:
    """The manifest of a run that is resumed."""
    claim(put("manifest.json", case).parent, MANIFEST)


def _pictures() -> None:
    for kind, data in PICTURES.items():
        name = f"picture.{kind.lower()}"
        family(f"picture-{kind.lower()}", damaged(data))(
            lambda case, name=name: read_picture(put(name, case), 28)
        )


_pictures()
MAP = TopDownMap(np.ones((4, 5), bool), (0.0, 1.0), 0.05)


@family("map", damaged(written("map.npz", MAP.save)))
def check_map(case: bytes) -> None:
    """The map of a floor."""
    TopDownMap.load(put("map.npz", case))


def _views(path: Path) -> None:
    np.save(path, np.zeros((1, 2, 28, 28, 3), np.uint8))


@family("views", damaged(written("frames.npy", _views)))
def check_views(case: bytes) -> None:
    """Views to train encoders on, of which the pictures are damaged."""
    folder = put("frames.npy", case).parent
    for name, shape in {
        "depth": (2, 2),
        "poses": (3,),
        "cameras": (3,),
        "shares": (2, 2, 1),
    }.items():
        np.save(folder / f"{name}.npy", np.zeros((1, 2, *shape), np.float32))
    (folder / "names.txt").write_text("what:floor")
    Views.load(folder)


def _scene(path: Path) -> None:
    import trimesh

    box = trimesh.creation.box()
    box.visual = trimesh.visual.TextureVisuals(
        uv=np.zeros((8, 2)), image=Image.fromarray(np.zeros((4, 4, 3), np.uint8))
    )
    path.write_bytes(trimesh.Scene(box).export(file_type="glb"))


@family("scene", damaged(written("scene.glb", _scene)))
def check_glb(case: bytes) -> None:
    """A scene, for habitat-sim and for the built-in simulator."""
    path = put("scene.glb", case)
    try:
        check_scene(path)
    finally:
        load_scene(path)


# settings ------------------------------------------------------------------------------------

ROBOT = (share_dir() / "config" / "robots" / "scan_base.yaml").read_bytes()


@family("robot-file", damaged(ROBOT))
def check_robot(case: bytes) -> None:
    """The parameter file of a robot."""
    resolve("real", {"robot": str(put("mine.yaml", case))})


@family(
    "param",
    st.lists(damaged(b"sim_bridge.frame_rate:=15.0").map(lambda b: b.decode(errors="replace"))),
)
def check_parameters(case: list[str]) -> None:
    """What ``--param`` is given."""
    parse_parameters(case)


@family("settings", damaged((share_dir() / "config" / "eval" / "houses.yaml").read_bytes()))
def check_settings(case: bytes) -> None:
    """A settings file of a rollout."""
    load_settings(str(put("mine.yaml", case)))


@family("recipe", damaged((share_dir() / "config" / "train" / "tiny.yaml").read_bytes()))
def check_recipe(case: bytes) -> None:
    """A recipe of training."""
    from janusvln_ros.training.recipes import load_recipe

    load_recipe(str(put("mine.yaml", case)), [])


# checkpoints ---------------------------------------------------------------------------------


def read_checkpoint(folder: Path) -> None:
    """What is read of a checkpoint before its weights, which are not."""
    import torch

    checkpoint_digest(folder)
    config = JanusVLNConfig.from_pretrained(folder)
    as_dtype(config.dtype)
    end_tokens(config)
    generation(folder, config)
    tensor_types(folder)
    tokenizer = load_tokenizer(folder)
    tokenizer.encode("walk past the sofa")
    # a network of the sizes of any published one is made in no time; larger ones would take it
    if config.text.num_hidden_layers + config.spatial.depth + config.spatial.dino_depth < 16:
        with torch.device("meta"):
            JanusVLN(config)


def _checkpoints() -> None:
    import torch

    weights = {"a": torch.zeros(3, 2), "b.c": torch.zeros(5)}
    whole = PLACE / "whole"
    write_weights(weights, whole, 10**9)
    shards = PLACE / "shards"
    write_weights(weights, shards, 24)
    files = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]
    for name in files:
        shutil.copy(TINY / name, whole / name)
        shutil.copy(TINY / name, shards / name)

    def check(folder: Path, name: str, case: bytes) -> None:
        shutil.rmtree(PLACE / "case", ignore_errors=True)
        shutil.copytree(folder, PLACE / "case")
        (PLACE / "case" / name).write_bytes(case)
        read_checkpoint(PLACE / "case")

    for name in [*files, "model.safetensors"]:
        family(f"checkpoint-{name}", damaged((whole / name).read_bytes()))(
            lambda case, name=name: check(whole, name, case)
        )
    index = "model.safetensors.index.json"
    family("checkpoint-index", damaged((shards / index).read_bytes()))(
        lambda case: check(shards, index, case)
    )


_checkpoints()


# the simulator's wire ------------------------------------------------------------------------

REPLIES: dict[str, dict[str, Any]] = {
    "hello": {"ok": True, "python": "3.9", "versions": {"habitat_sim": "0.3.3"}},
    "load": {"ok": True, "navmesh": "made anew"},
    "step": {"ok": True, "position": [0.0, 0, 1], "rotation": [0, 0, 0, 1.0], "collided": False},
    "snap_point": {"ok": True, "value": [0.0, 0.5, 1.0]},
    "geodesic_distance": {"ok": True, "value": 2.5},
    "expert_action": {"ok": True, "value": 1},
    "render": {
        "ok": True,
        "rgb": np.zeros((2, 2, 3), np.uint8),
        "depth": np.zeros((2, 2), np.float32),
    },
    "top_down_map": {
        "ok": True,
        "navigable": np.ones((2, 2), bool),
        "origin": [0.0, 1.0],
        "resolution": 0.05,
    },
}


def _wire(message: dict[str, Any]) -> bytes:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send(ours, message)
        return theirs.recv(1 << 20)


def _answers() -> st.SearchStrategy[list[Any]]:
    """A kind of request, and the bytes of a damaged reply (as text, so that JSON has it)."""
    return st.one_of(
        *(
            damaged(_wire(reply)).map(lambda data, kind=kind: [kind, data.decode("latin-1")])
            for kind, reply in REPLIES.items()
        )
    )


@family("habitat-reply", _answers())
def check_reply(case: list[Any]) -> None:
    """A reply of the simulator's process: read, or refused as no message of the protocol."""
    kind, data = case
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            theirs.sendall(data.encode("latin-1"))
        try:
            meant(kind, receive(ours, 1.0, most=1 << 20))
        except (ProtocolError, ConnectionError):
            return

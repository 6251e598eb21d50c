import hashlib
import io
import json
import struct

import pytest
from PIL import Image

from sim_bridge.homes.dataset import SPLITS, home_name, home_seed
from sim_bridge.homes.episodes import make_episodes, make_home

GENERATOR_1 = {
    ("train", 0): ("8598c026cf3d0a1f", "943635d42342b48a"),
    ("train", 7): ("c20ce6b5291c85ce", "7a3aaaf5b837baf0"),
    ("val_seen", 0): ("8598c026cf3d0a1f", "75d4f26e0cebb9c6"),
    ("val_seen", 7): ("c20ce6b5291c85ce", "1c012426d17f301f"),
    ("val_unseen", 0): ("114cccc7028c3eb2", "284f97eb6cd9ebd4"),
    ("val_unseen", 7): ("ee803325d3812421", "ceb6370358aa1bad"),
    ("val_memory", 0): ("114cccc7028c3eb2", "9a53d45888eec273"),
    ("val_memory", 7): ("ee803325d3812421", "eab30091ab44f922"),
}
"""Digests of a scene and of its first episodes, by split and home, from before generator 2."""

GENERATOR_2 = {
    ("train2", 0): ("732754ea47a89e61", "e6eadf63ce37e190"),
    ("train2", 7): ("80386221e760356a", "bc54c8c3bc77098a"),
    ("val_seen2", 0): ("732754ea47a89e61", "354897c5e8d37a66"),
    ("val_seen2", 7): ("80386221e760356a", "49e0ab898ba973e6"),
    ("val_unseen2", 0): ("89f539cdd7a372ab", "63253602cbd4b780"),
    ("val_unseen2", 7): ("a1b386a66fad4bb5", "d6a5003753acc6a3"),
    ("val_memory2", 0): ("89f539cdd7a372ab", "95894ecbde3ad69f"),
    ("val_memory2", 7): ("a1b386a66fad4bb5", "0135bf437965e38f"),
}
"""The same of generator 2: whoever changes them makes a generator 3."""


def content(glb, pictures_too=True):
    """
    What a ``.glb`` holds: its JSON and its data, pictures as pixels, since the bytes of a PNG
    depend on the zlib that packed it.
    """
    size = struct.unpack("<I", glb[12:16])[0]
    document, blob = json.loads(glb[20 : 20 + size]), glb[28 + size :]
    pictures = {image["bufferView"] for image in document["images"]}
    parts = []
    for i, view in enumerate(document["bufferViews"]):
        data = blob[view["byteOffset"] :][: view["byteLength"]]
        if i not in pictures:
            parts.append(data)
        elif pictures_too:
            parts.append(Image.open(io.BytesIO(data)).tobytes())
        del view["byteOffset"], view["byteLength"]
    del document["buffers"]
    return json.dumps(document, sort_keys=True).encode() + b"".join(parts)


def digests(split, index):
    """Of the scene and of the episodes of a home of a split, seed 0."""
    drawn = SPLITS[split]
    seed = home_seed(0, drawn.family, index)
    home = make_home(home_name(drawn.family, index), seed, (4, 12), drawn.generator)
    episodes = make_episodes(
        home,
        3,
        drawn.stream,
        unseen=drawn.unseen,
        memory_only=drawn.memory_only,
        held_out=drawn.held_out,
    )
    told = json.dumps(
        [
            [e.start_position, e.start_rotation, e.reference_path, e.instruction, e.info]
            + [truth.actions, truth.locations]
            for e, truth in episodes
        ]
    ).encode()
    # light on the pictures of generator 2 is computed, and may be rounded otherwise elsewhere
    scene = content(home.glb, pictures_too=drawn.generator == 1)
    return tuple(hashlib.sha256(data).hexdigest()[:16] for data in (scene, told))


def test_every_home_of_generator_2_differs_in_its_looks_from_one_of_generator_1():
    seed = home_seed(0, "house", 0)
    first, second = (make_home("house_00000", seed, (4, 5), g) for g in (1, 2))
    assert (first.generator, second.generator) == (1, 2)
    assert [room.rect for room in first.plan.rooms] == [room.rect for room in second.plan.rooms]
    assert content(first.glb) != content(second.glb) and first.things != second.things


@pytest.mark.parametrize("split, index", GENERATOR_1)
def test_homes_and_episodes_of_generator_1_are_what_they_always_were(split, index):
    assert digests(split, index) == GENERATOR_1[split, index]


@pytest.mark.parametrize("split, index", GENERATOR_2)
def test_homes_and_episodes_of_generator_2_are_what_they_were(split, index):
    assert digests(split, index) == GENERATOR_2[split, index]

"""A checkpoint is told from every other by its digest, however large it is."""

import numpy as np
from safetensors.numpy import save_file

from janusvln_ros import digests
from janusvln_ros.policy.identity import checkpoint_digest


def test_checkpoint_digest_sees_every_file_that_decides(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"1")
    first = checkpoint_digest(tmp_path)
    (tmp_path / "notes.md").write_text("not part of it")
    assert checkpoint_digest(tmp_path) == first
    (tmp_path / "model.safetensors").write_bytes(b"2")
    assert checkpoint_digest(tmp_path) != first


def test_every_tensor_of_a_large_file_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(digests, "WHOLE_BYTES", 1000)
    weights = {name: np.zeros(5000, np.float32) for name in ("a", "b")}
    found = set()
    for change in (None, ("a", 0), ("a", 2500), ("b", 0), ("b", 4999)):
        changed = {name: tensor.copy() for name, tensor in weights.items()}
        if change:
            changed[change[0]][change[1]] = 1.0
        save_file(changed, tmp_path / "model.safetensors")
        found.add(checkpoint_digest(tmp_path))
    assert len(found) == 5


def test_large_file_that_is_no_safetensors_counts_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(digests, "WHOLE_BYTES", 10)
    found = set()
    for last in b"12":
        (tmp_path / "model.safetensors").write_bytes(bytes(5000) + bytes([last]))
        found.add(checkpoint_digest(tmp_path))
    assert len(found) == 2


def test_of_a_large_scene_or_bag_size_beginning_and_end_count_and_of_text_all(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(digests, "WHOLE_BYTES", 10)
    monkeypatch.setattr(digests, "PARTS", 2)
    monkeypatch.setattr(digests, "PART_BYTES", 100)

    def digest(name, content):
        (tmp_path / name).write_bytes(content)
        return digests.file_digest(tmp_path / name)

    plain = bytes(5000)
    middle, first, last = plain[:2500] + b"1" + plain[2501:], b"1" + plain[1:], plain[1:] + b"1"
    assert len({digest("a.glb", one) for one in (plain, bytes(5001), first, last)}) == 4
    assert digest("a.glb", middle) == digest("a.glb", plain)
    assert digest("a.json", middle) != digest("a.json", plain)

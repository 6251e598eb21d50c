"""What frozen encoders make of a set is computed once, however many processes train on it."""

import errno
import os
import threading
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from janusvln_ros.errors import InputError
from janusvln_ros.rollout.shards import Cluster
from janusvln_ros.training import cache
from janusvln_ros.training.cache import array_on_disk
from janusvln_ros.training.dual import encoding_order


def make(path: Path, started, made) -> None:
    def fill(array):
        with open(made, "a") as log:
            log.write(f"{os.getpid()}\n")
        array[:] = np.arange(6)

    started.wait()
    assert array_on_disk(path, (6,), np.float16, fill).tolist() == list(range(6))


def test_processes_that_want_one_array_make_it_once(tmp_path):
    context = get_context("fork")
    started = context.Barrier(3)
    processes = [
        context.Process(target=make, args=(tmp_path / "features.npy", started, tmp_path / "made"))
        for _ in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len((tmp_path / "made").read_text().splitlines()) == 1


def test_what_is_there_is_read_where_nothing_can_be_written(tmp_path, monkeypatch):
    path = tmp_path / "features.npy"
    array_on_disk(path, (2,), np.float16, lambda array: array.fill(3))

    def read_only(where):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(where))

    monkeypatch.setattr(cache, "file_lock", read_only)
    assert array_on_disk(path, (2,), np.float16, lambda array: array.fill(9)).tolist() == [3, 3]


@pytest.mark.parametrize("left", [0, 20, 140])
def test_an_array_that_was_copied_in_part_is_told_and_how_it_is_made_anew(tmp_path, left):
    path = tmp_path / "features.npy"
    array_on_disk(path, (64,), np.float16, lambda array: array.fill(3))
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(InputError, match=r"features\.npy is damaged.*delete the folder"):
        array_on_disk(path, (64,), np.float16, lambda array: array.fill(3))


def test_an_array_whose_making_failed_is_made_by_the_next(tmp_path):
    def broken(array):
        array[:3] = 1
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        array_on_disk(tmp_path / "features.npy", (6,), np.float16, broken)
    assert not (tmp_path / "features.npy").exists() and not list(tmp_path.glob("*.npy"))
    assert (
        array_on_disk(
            tmp_path / "features.npy", (6,), np.float16, lambda array: array.fill(2)
        ).tolist()
        == [2] * 6
    )


def test_a_process_waits_while_another_one_fills(tmp_path):
    filling, finish, seen = threading.Event(), threading.Event(), []

    def slow(array):
        filling.set()
        finish.wait(30)
        array[:] = 7

    def late():
        seen.append(
            array_on_disk(
                tmp_path / "a.npy", (2,), np.float16, lambda array: array.fill(1)
            ).tolist()
        )

    first = threading.Thread(
        target=array_on_disk, args=(tmp_path / "a.npy", (2,), np.float16, slow)
    )
    first.start()
    filling.wait(30)
    second = threading.Thread(target=late)
    second.start()
    second.join(0.2)
    assert second.is_alive() and not seen
    finish.set()
    first.join(30)
    second.join(30)
    assert seen == [[7, 7]]


@pytest.mark.parametrize("sets, world", [(1, 1), (2, 2), (3, 2), (5, 4), (2, 4)])
def test_every_process_encodes_all_sets_and_they_begin_apart(sets, world):
    orders = [encoding_order(sets, Cluster(rank, world, rank)) for rank in range(world)]
    assert all(sorted(order) == list(range(sets)) for order in orders)
    assert len({order[0] for order in orders}) == min(sets, world)

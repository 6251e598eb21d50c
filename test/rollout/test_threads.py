"""Threads of workers: a share of the cores, unless somebody says otherwise."""

import os

import pytest

from janusvln_ros.errors import InputError
from janusvln_ros.rollout import threads


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in (*threads.COMPUTING, threads.RENDERING):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(threads, "cores", lambda: 8)


@pytest.mark.parametrize(("processes", "each"), [(1, 8), (2, 4), (3, 2), (8, 1), (16, 1)])
def test_workers_share_the_cores_and_none_goes_without(processes, each):
    assert threads.share_of(processes) == each


def test_what_is_given_wins_over_the_environment_and_that_over_the_share(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads.share_of(2) == 3 and threads.share_of(2, 1) == 1


@pytest.mark.parametrize("given", [0, -1, 5000])
def test_an_impossible_number_is_named(given):
    with pytest.raises(InputError, match=f"--threads is {given}"):
        threads.share_of(1, given)


@pytest.mark.parametrize(("count", "beside"), [(1, "0"), (4, "4")])
def test_computing_and_drawing_are_both_told(count, beside, monkeypatch):
    torch = pytest.importorskip("torch")
    told = []
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    threads.use(count)
    assert {os.environ[name] for name in threads.COMPUTING} == {str(count)} and told == [count]
    assert os.environ[threads.RENDERING] == beside

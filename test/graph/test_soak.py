"""
What the soak calls unsafe, growth and drift; the drive itself is in test_random_faults.py.
"""

import subprocess
import sys

import pytest

pytest.importorskip("rclpy")

from janusvln_ros.graph.soak import BRAKING, PROMISE, Growth, RestWatch, drift, resident_bytes


def test_motion_is_unsafe_only_after_the_promise_and_the_braking_and_is_counted_once():
    watch = RestWatch()
    watch.truth(0.0, 0.3, 0.0)
    watch.must_rest(10.0, "disarm")
    watch.truth(10.0 + PROMISE + BRAKING - 0.01, 0.3, 0.0)
    assert not watch.unsafe
    for t in (10.9, 11.0, 11.1):
        watch.truth(t, 0.0, 0.2)
    assert len(watch.unsafe) == 1 and "disarm" in watch.unsafe[0]
    watch.must_rest(20.0, "e-stop")
    watch.may_move()
    watch.truth(30.0, 0.3, 0.0)
    watch.must_rest(40.0, "cancel")
    watch.truth(50.0, 0.01, 0.0)
    assert len(watch.unsafe) == 1


def test_growth_begins_after_the_warm_up_of_each_life():
    growth = Growth(warm_up=10.0)
    for t, size in ((0, 100), (9, 900), (10, 1000), (20, 1200), (30, 1100)):
        growth.look(t, size)
    assert growth.worst == 200
    growth.restart(loading=True)
    for t, size in ((30, 50), (90, 90_000)):
        growth.look(t, size)
    assert growth.worst == 200
    growth.restart()
    for t, size in ((91, 50), (105, 3000), (110, 3100)):
        growth.look(t, size)
    assert growth.worst == 200


def test_drift_compares_the_ends():
    assert drift([1.0] * 5) == 0.0
    assert drift([1.0] * 50 + [3.0] * 50) == 2.0


def test_resident_memory_of_a_process_and_of_none():
    import os

    assert resident_bytes(os.getpid()) > 1_000_000 and resident_bytes(2**30) == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--hours", "0"], "--hours is 0.0"),
        (["--faults", "earthquake"], "'earthquake'"),
        (["--every", "0"], "--every"),
        (["--size", "big"], "argument --size: 'big'"),
    ],
)
def test_a_wrong_option_is_named(words, told):
    done = subprocess.run(
        [sys.executable, "-m", "janusvln_ros.cli.main", "soak", *words],
        capture_output=True,
        text=True,
    )
    assert (
        done.returncode == 2
        and told in done.stderr
        and "Traceback" not in done.stderr
        and done.stdout == ""
    )

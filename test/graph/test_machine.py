"""What the doctor says of the machine that it runs on. Pure: no card and no disk is needed."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from janusvln_ros.files import share_dir
from janusvln_ros.graph.machine import (
    MACHINE_CHECKS,
    SEGMENT_BYTES,
    Machine,
    examine_machine,
    fit_told,
    look,
    memory,
    runs_on,
    segment_bytes,
    shared_memory,
)
from janusvln_ros.policy import default_checkpoint

CARD = {"name": "Thor", "free": 60e9, "total": 128e9, "capability": [11, 0]}
TORCH = {"version": "2.13.0", "cuda": "13.0", "cards": [CARD], "built_for": ["sm_110"]}
WELL = Machine(
    python=(3, 12, 3),
    torch=TORCH,
    egl={"renderer": "llvmpipe"},
    card=True,
    disk={"/home/robot": 50 * 10**9},
    rmw="rmw_fastrtps_cpp",
)

FAULTS = [
    ({"python": (3, 9, 2)}, "Python", "fail", "3.9.2"),
    ({"torch": TORCH | {"built_for": ["sm_90", "sm_120"]}}, "torch", "fail", "sm_110"),
    ({"torch": TORCH | {"problem": "no kernel image"}}, "torch", "fail", "no kernel image"),
    ({"torch": {"version": "2.13.0+cpu", "cards": []}}, "torch", "warn", "sees no card"),
    ({"torch": {"problem": "libcudart.so.12 is missing"}}, "torch", "fail", "libcudart"),
    ({"torch": None}, "torch", "skip", "part:=brain"),
    ({"egl": {"problem": "no device"}}, "EGL", "warn", "no device"),
    ({"egl": None}, "EGL", "skip", "not installed"),
    ({"disk": {"/": 50 * 10**9, "/home": 10**8}}, "disk", "fail", "/home"),
    ({"disk": {"/": 10**9}}, "disk", "warn", "1.0 GB"),
    ({"ros_problem": "ROS 2 is not there"}, "ROS 2", "fail", "not there"),
    ({"rmw": "rmw_strange"}, "ROS 2", "warn", "rmw_strange"),
    (
        {"variables": {"ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF"}},
        "discovery",
        "fail",
        "no node finds",
    ),
    ({"variables": {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LAN"}}, "discovery", "fail", "LAN"),
    ({"variables": {"ROS_DOMAIN_ID": "240"}}, "discovery", "fail", "240"),
    ({"variables": {"ROS_DOMAIN_ID": "robot"}}, "discovery", "fail", "robot"),
    ({"variables": {"ROS_LOCALHOST_ONLY": "1"}}, "discovery", "warn", "other computers"),
    ({"variables": {"ROS_STATIC_PEERS": "10.0.0.2,10.0.0.3"}}, "discovery", "fail", "10.0.0.2,"),
]


def found(machine):
    return {finding.name: finding for finding in examine_machine(machine)}


def test_a_machine_that_is_well_passes_every_check():
    assert {f.status for f in examine_machine(WELL)} == {"pass"}, examine_machine(WELL)


@pytest.mark.parametrize(("changes", "name", "status", "word"), FAULTS)
def test_a_fault_of_the_machine_is_named_by_its_check(changes, name, status, word):
    finding = found(replace(WELL, **changes))[name]
    assert finding.status == status and word in finding.detail, finding
    assert finding.remedy or status == "skip"


def test_every_check_of_the_machine_is_in_this_table():
    assert {name for _, name, _, _ in FAULTS} == set(MACHINE_CHECKS)


@pytest.mark.parametrize(
    ("built_for", "capability", "runs"),
    [
        (["sm_80", "sm_90"], (9, 0), True),
        (["sm_80"], (8, 7), True),  # a later card of the same major version
        (["sm_90"], (8, 9), False),
        (["sm_80"], (9, 0), False),
        (["sm_80", "compute_80"], (11, 0), True),  # compiled on the card
        (["sm_100a", "sm_120"], (11, 0), False),  # a cu128 wheel on Thor
        (["sm_100a"], (10, 0), True),
        ([], (8, 0), False),
    ],
)
def test_a_build_runs_on_cards_that_its_kernels_are_for(built_for, capability, runs):
    assert runs_on(built_for, capability) is runs


def test_pictures_must_fit_into_the_shared_memory_segment():
    raw, small = SimpleNamespace(data=bytes(921_600)), SimpleNamespace(data=bytes(40_000))
    told = shared_memory(WELL, raw, raw=True)
    assert told.status == "warn" and "fastdds_shm.xml" in told.remedy
    assert "compressed" in told.remedy
    assert shared_memory(WELL, small, raw=False).status == "pass"
    assert shared_memory(replace(WELL, segment=2**24), raw, raw=True).status == "pass"
    assert shared_memory(replace(WELL, rmw="rmw_cyclonedds_cpp"), raw, raw=True).status == "skip"
    assert shared_memory(WELL, None, raw=True).status == "skip"


def test_a_checkpoint_that_does_not_fit_is_refused_with_what_would():
    fits = {"use": "int4 with 8 + 48 frames", "need": "14 GB", "room": "the GPU"}
    assert memory(fits).status == "pass" and "int4 with 8 + 48" in memory(fits).detail
    told = memory({"problem": "24 GB: int4 with 8 + 32 frames would fit"})
    assert told.status == "fail" and "would fit" in told.detail and told.remedy
    assert memory(None).status == "skip"


@pytest.mark.slow
def test_what_fits_is_asked_of_the_policys_own_rule():
    shipped, full = default_checkpoint(), Path(__file__).parents[2] / "benchmarks/configs/full"
    small = {"device": "cpu", "precision": "float32", "window": [1, 2], "memory": "dual"}
    assert "float32 with 1 + 2 frames" in memory(fit_told(str(shipped), small)).detail
    huge = {"device": "cpu", "precision": "float32", "window": [8, 100_000], "memory": "dual"}
    assert memory(fit_told(str(full), huge)).status == "fail"


def test_the_segment_is_that_of_the_users_profile():
    assert segment_bytes(str(share_dir() / "config/fastdds_shm.xml")) == 16777216
    assert segment_bytes(None) == segment_bytes("/nowhere.xml") == SEGMENT_BYTES


@pytest.mark.slow
def test_this_machine_is_looked_at_with_torch_in_a_process_of_its_own():
    import sys

    before = set(sys.modules)
    machine = look({"ROS_DOMAIN_ID": "7"})()
    assert "torch" not in set(sys.modules) - before
    assert machine.torch["version"] and machine.disk and found(machine)["Python"].status == "pass"
    json.dumps([finding._asdict() for finding in examine_machine(machine)])

"""The middleware has room for pictures in shared memory, by what it is really told."""

import os
import subprocess
import sys

import pytest

from janusvln_ros.graph.processes import (
    PROFILE_VARIABLES,
    middleware_environment,
    shipped_profile,
)

SEGMENT_BYTES = 16 * 2**20
"""What `shipped_profile` asks for."""

SHARED = """
import struct, rclpy
from rclpy.utilities import get_rmw_implementation_identifier
rclpy.init()
node = rclpy.create_node("seen")
print(get_rmw_implementation_identifier())
mine = {line.split()[-1] for line in open("/proc/self/maps")}
for path in sorted(path for path in mine if path.startswith("/dev/shm/")):
    held = open(path, "rb").read()
    asked = [ms for ms in (100, 1000) if struct.pack("<II", ms, ms // 3) in held]
    print(path, len(held), *asked)
"""


def shared_memory(environment):
    """
    Pieces of shared memory of a node of its own: path, bytes, and where it is a port the
    milliseconds in which its listeners have to answer (in Fast DDS' memory before a third of it).
    """
    pytest.importorskip("rclpy", reason="needs ROS 2")
    words = [sys.executable, "-c", SHARED]
    told = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    middleware, *pieces = told.stdout.splitlines()
    if not middleware.startswith("rmw_fastrtps"):
        pytest.skip(f"{middleware} has no such segment")
    return [(path, *map(int, figures)) for path, *figures in map(str.split, pieces)]


def largest_segment(environment):
    """Bytes of the largest piece of shared memory of a node of its own."""
    return max((size for _, size, *_ in shared_memory(environment)), default=0)


def answer_times(environment):
    """
    Milliseconds in which the listeners of a node of its own have to answer, by each of its ports.
    """
    return {told[0] for _, _, *told in shared_memory(environment) if told}


@pytest.fixture
def unset(monkeypatch):
    for name in PROFILE_VARIABLES:
        monkeypatch.setenv(name, "")  # so that what a test sets is taken back
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.ros
def test_a_node_that_we_start_has_room_for_raw_pictures(unset, ros_domain):
    environment = middleware_environment(ros_domain, localhost=True)
    assert largest_segment(environment) > SEGMENT_BYTES
    without = {k: v for k, v in environment.items() if k not in PROFILE_VARIABLES}
    assert largest_segment(without) < SEGMENT_BYTES


@pytest.mark.ros
def test_whoever_sends_to_a_node_of_ours_that_was_killed_is_held_up_for_a_tenth_of_a_second(
    unset, ros_domain
):
    environment = middleware_environment(ros_domain, localhost=True)
    assert 100 in answer_times(environment)
    without = {k: v for k, v in environment.items() if k not in PROFILE_VARIABLES}
    assert 1000 in answer_times(without)  # a port that several share may be an older node's


@pytest.mark.ros
def test_the_doctor_names_the_variable_that_this_middleware_reads(unset, ros_domain):
    pytest.importorskip("rclpy", reason="needs ROS 2")
    environment = middleware_environment(ros_domain, localhost=True)
    words = "import rclpy; rclpy.init(); from janusvln_ros.graph import machine as m;"
    told = subprocess.run(
        [sys.executable, "-c", f"{words} print(m.profile_variable())"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    (other,) = set(PROFILE_VARIABLES) - {told.stdout.strip()}
    del environment[other]
    assert largest_segment(environment) > SEGMENT_BYTES


@pytest.mark.parametrize("name", PROFILE_VARIABLES)
def test_a_profile_that_the_user_has_chosen_wins_by_either_name(unset, name):
    unset.setenv(name, "/mine.xml")
    environment = middleware_environment(None, localhost=False)
    assert [environment[other] for other in PROFILE_VARIABLES] == ["/mine.xml"] * 2


def test_a_profile_by_each_name_is_left_as_it_is(unset):
    for name in PROFILE_VARIABLES:
        unset.setenv(name, f"/{name}.xml")
    environment = middleware_environment(None, localhost=False)
    assert [environment[name] for name in PROFILE_VARIABLES] == [
        f"/{name}.xml" for name in PROFILE_VARIABLES
    ]


@pytest.mark.parametrize("chosen", [None, *PROFILE_VARIABLES])
def test_a_launch_tells_its_nodes_the_same(unset, chosen):
    launch = pytest.importorskip("launch", reason="needs ROS 2's launch")
    actions = pytest.importorskip("launch.actions", reason="needs ROS 2's launch")
    from janusvln_ros.graph.launching import describe

    if chosen:
        unset.setenv(chosen, "/mine.xml")
    context = launch.LaunchContext()
    for entity in describe("robot").entities:
        if isinstance(entity, actions.SetEnvironmentVariable):
            entity.execute(context)
    wanted = "/mine.xml" if chosen else str(shipped_profile())
    assert [os.environ[name] for name in PROFILE_VARIABLES] == [wanted] * 2

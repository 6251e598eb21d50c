"""How much memory is free: what the kernel says, and what a container is held to."""

import pytest

from janusvln_ros.model.room import machine_room

MEMINFO = "MemTotal:       16000 kB\nMemFree:          500 kB\nMemAvailable:    8000 kB\n"


@pytest.fixture
def system(tmp_path):
    """A function that writes files, by their paths below the root, and returns the root."""

    def write(**files):
        for name, text in {"proc/meminfo": MEMINFO, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def test_free_is_what_can_be_had_without_swapping(system):
    room = machine_room(system())
    assert (room.total, room.free) == (16000 * 1024, 8000 * 1024)


def test_a_group_is_held_to_its_limit_less_what_it_uses_but_files(system):
    files = {
        "proc/self/cgroup": "0::/robot/policy\n",
        "sys/fs/cgroup/robot/policy/memory.max": "max\n",
        "sys/fs/cgroup/robot/policy/memory.current": "1000000\n",
        "sys/fs/cgroup/robot/memory.max": "4000000\n",
        "sys/fs/cgroup/robot/memory.current": "3000000\n",
        "sys/fs/cgroup/robot/memory.stat": "anon 1500000\ninactive_file 1400000\n",
    }
    room = machine_room(system(**files))
    assert (room.total, room.free) == (4_000_000, 2_400_000)


def test_a_container_that_sees_its_own_group_as_the_root(system):
    files = {
        "proc/self/cgroup": "4:memory:/docker/1234\n0::/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "5000000\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "1000000\n",
        "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 500000\n",
    }
    assert machine_room(system(**files)).free == 4_500_000


def test_a_limit_beyond_the_machine_is_none(system):
    files = {
        "proc/self/cgroup": "4:memory:/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "1000000\n",
    }
    room = machine_room(system(**files))
    assert (room.total, room.free) == (16000 * 1024, 8000 * 1024)


def test_where_the_kernel_says_nothing_there_is_no_limit(tmp_path):
    assert machine_room(tmp_path).free > 10**15

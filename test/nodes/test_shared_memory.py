"""What the middleware leaves in shared memory: private, and cleared of the dead."""

import fcntl
import os

import pytest

from janusvln_ros.nodes.shared_memory import NEW_S, clear_dead, keep_private

DEAD, ALIVE = "fastrtps_0123456789abcdef", "fastrtps_fedcba9876543210"


@pytest.fixture
def segments(tmp_path):
    """A folder with the segments of a participant that is dead and of one that lives."""
    for name in (DEAD, ALIVE, f"{DEAD}_el", f"{ALIVE}_el", "fastrtps_port7400_el", "others"):
        (tmp_path / name).write_bytes(b"x" * 100)
        (tmp_path / name).chmod(0o644)
        os.utime(tmp_path / name, (1.0, 1.0))
    handle = os.open(tmp_path / f"{ALIVE}_el", os.O_RDWR)
    fcntl.flock(handle, fcntl.LOCK_EX)
    yield tmp_path
    os.close(handle)


def test_segments_of_the_dead_go_and_those_of_the_living_stay(segments):
    assert clear_dead(segments) == 1
    assert {path.name for path in segments.iterdir()} == {
        ALIVE,
        f"{ALIVE}_el",
        "fastrtps_port7400_el",
        "others",
    }
    assert clear_dead(segments) == 0


def test_a_segment_that_may_not_be_locked_yet_stays(segments):
    os.utime(segments / f"{DEAD}_el")
    assert NEW_S > 0 and clear_dead(segments) == 0 and (segments / DEAD).exists()


def test_nobody_else_can_read_what_is_sent_and_links_are_not_followed(segments):
    (segments / "fastrtps_link").symlink_to(segments / "others")
    keep_private(segments)
    modes = {p.name: p.stat().st_mode & 0o777 for p in segments.iterdir() if not p.is_symlink()}
    assert modes.pop("others") == 0o644 and set(modes.values()) == {0o600}

"""The process of the bridge: what it needs to begin, and what it says where it cannot."""

import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("janusvln_msgs", reason="needs the interfaces: scripts/build_msgs.sh")

pytestmark = pytest.mark.ros


class Bridge:
    """A bridge in a process of its own with small pictures; what it says is read line by line."""

    def __init__(self, domain, *words, **environment):
        code = "from janusvln_ros.graph.executables import sim_bridge; sim_bridge()"
        words = ["--ros-args", "-p", "image_width:=64", "-p", "image_height:=48", *words]
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *words],
            env={**os.environ, "ROS_DOMAIN_ID": str(domain), **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said = []

    def until(self, words):
        """Read until a line holds ``words``."""
        for line in self.process.stderr:
            self.said.append(line)
            if words in line:
                return
        raise AssertionError(f"{words!r} was not said: {self.said}")

    def ended(self):
        """Exit code and the rest of what it said."""
        rest = self.process.communicate(timeout=60)[1]
        return self.process.returncode, "".join(self.said) + rest


@pytest.fixture
def bridge(ros_domain):
    """``bridge(*ros_arguments, **environment)``: started, and ended with the test."""
    started = []

    def start(*words, **environment):
        started.append(Bridge(ros_domain, *words, **environment))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.wait()


def names(prefix):
    """ROS arguments of a bridge with clock, transforms and frames of its own."""
    words = ["-r", f"__ns:=/{prefix}", "-r", f"/clock:=/{prefix}/clock"]
    words += ["-r", f"/tf:=/{prefix}/tf", "-r", f"/tf_static:=/{prefix}/tf_static"]
    return [*words, "-p", f"frame_prefix:={prefix}/"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["dataset:=r2r", "data_dir:=nowhere"], "there is no folder nowhere; name the folder"),
        (["data_dir:={file}"], "houses cannot be written to {file}"),
        (["hfov:=wide", "data_dir:={new}"], "parameter 'hfov' is 'wide'"),
        (["split:=test", "data_dir:={new}"], "houses have no split 'test'"),
        (["episode_id:=first", "data_dir:={new}"], "has no episode 'first': it counts from '1'"),
    ],
)
def test_data_that_cannot_be_had_end_it_with_one_sentence_and_code_2(
    bridge, tmp_path, words, sentence
):
    (tmp_path / "file").write_text("")
    places = {"file": str(tmp_path / "file"), "new": str(tmp_path / "new")}
    code, said = bridge(*[w for word in words for w in ("-p", word.format(**places))]).ended()
    assert code == 2 and said.startswith("error: ") and said.count("\n") == 1
    assert sentence.format(**places) in said


def test_houses_are_made_on_first_use_in_the_users_data_folder_and_only_one(bridge, tmp_path):
    first = bridge(XDG_DATA_HOME=str(tmp_path))
    first.until("lockstep in houses/unseen_00000")
    folder = tmp_path / "janusvln_ros"
    assert [p.name for p in folder.rglob("*.glb")] == ["unseen_00000.glb"]
    assert any(f"making house 1 of 1 of val_unseen in {folder}" in line for line in first.said)
    first.process.send_signal(signal.SIGINT)
    assert first.ended()[0] == 0
    again = bridge(XDG_DATA_HOME=str(tmp_path))
    again.until("lockstep in houses/unseen_00000")
    assert not any("making" in line for line in again.said)


def test_a_signal_while_a_house_is_made_ends_it_at_once_with_0(bridge, tmp_path):
    begun = bridge("-p", f"data_dir:={tmp_path}", "-p", "episode_id:='500'")
    begun.until("making house")
    for _ in range(2):
        begun.process.send_signal(signal.SIGINT)
    since = time.monotonic()
    code, said = begun.ended()
    assert code == 0 and "Traceback" not in said
    assert time.monotonic() - since < 20  # it would be a minute


@pytest.mark.slow
def test_a_second_simulation_on_the_same_clock_gives_way_and_says_what_it_needs(bridge, one_house):
    data = ["-p", f"data_dir:={one_house}"]
    first = bridge(*data, "-r", "__ns:=/r1")
    first.until("lockstep in")
    time.sleep(5.5)  # it is no longer new
    code, said = bridge(*data, "-r", "__ns:=/r2").ended()
    assert code == 1
    assert "error: /r1/sim_bridge publishes the time on /clock too" in said
    assert "clock:=/NAME/clock" in said
    assert first.process.poll() is None


@pytest.mark.slow
def test_two_simulations_with_clocks_of_their_own_live_side_by_side(bridge, one_house):
    data = ["-p", f"data_dir:={one_house}"]
    both = [bridge(*data, *names(name)) for name in ("r1", "r2")]
    for each in both:
        each.until("lockstep in")
    time.sleep(1.5)  # several times the period of the clock
    assert [each.process.poll() for each in both] == [None, None]

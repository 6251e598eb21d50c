"""The bag subcommands as a user meets them."""

import json

import cv2
import imageio_ffmpeg
import pytest

from janusvln_ros.cli.main import main
from janusvln_ros.data.bags import BagWriter
from janusvln_ros.data.trajectories import read_trajectories

ACTIONS = [1, 1, 2, 1, 3, 1]


@pytest.fixture
def drive(bags, tmp_path):
    return bags.write_drive(tmp_path / "drive.mcap", ACTIONS, size=(48, 64))


def test_import_twice_gives_one_trajectory(drive, tmp_path, capsys):
    for _ in range(2):
        assert (
            main(
                [
                    "import-bag",
                    str(drive),
                    "--out",
                    str(tmp_path / "out"),
                    "--scene",
                    "kitchen",
                    "--json",
                ]
            )
            == 0
        )
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["kept"] == 1 and report["episodes"][0]["steps"] == len(ACTIONS) + 1
    (trajectory,) = read_trajectories(tmp_path / "out")
    assert trajectory.actions == (-1, *ACTIONS)


def test_two_bags_with_one_name_are_two_drives(bags, tmp_path, capsys):
    for k, actions in enumerate((ACTIONS, ACTIONS[::-1])):
        bag = bags.write_drive(tmp_path / str(k) / "drive.mcap", actions, size=(48, 64))
        assert main(["import-bag", str(bag), "--out", str(tmp_path / "out")]) == 0
    found = list(read_trajectories(tmp_path / "out"))
    assert {t.actions for t in found} == {(-1, *ACTIONS), (-1, *ACTIONS[::-1])}
    assert len({t.frames[0].parent for t in found}) == 2


def test_import_of_nothing_useful_fails_and_says_why(bags, tmp_path, capsys):
    bag = bags.write_drive(tmp_path / "drive.mcap", [1], size=(48, 64))
    assert main(["import-bag", str(bag), "--out", str(tmp_path / "out")]) == 1
    assert "not kept: too short" in capsys.readouterr().out


def test_video_shows_every_picture_and_png_the_whole_path(drive, tmp_path, capsys):
    assert main(["render", str(drive), "--out", str(tmp_path / "v.mp4")]) == 0
    reader = imageio_ffmpeg.read_frames(str(tmp_path / "v.mp4"))
    meta = next(reader)
    assert (
        meta["size"] == (640 + 480, 480)
        and meta["codec"].startswith("h264")
        and sum(1 for _ in reader) > 50
    )
    assert main(["render", str(drive), "--out", str(tmp_path / "end.png")]) == 0
    assert cv2.imread(str(tmp_path / "end.png")).shape == (480, 640 + 480, 3)


def test_render_refuses_other_formats(drive, capsys):
    assert main(["render", str(drive), "--out", "x.gif"]) == 2
    assert "must be .mp4 or .png" in capsys.readouterr().err


def clocks(bags, path):
    """A drive whose camera counts since its start and whose base since 1970."""
    base = 1_700_000_000 * 10**9
    with BagWriter(path) as writer:
        for n in range(1, 61):
            writer.write_message("/image", base + n * 10**8, bags.image(n * 10**8, n, 48, 64))
            pose = (0.05 * n, 0.0, 0.0)
            odometry = bags.odometry(base + n * 10**8, *pose)
            writer.write_message("/odom", base + n * 10**8, odometry)
    return path


def test_recording_times_are_the_way_out_in_every_command(bags, tmp_path, capsys):
    bag = str(clocks(bags, tmp_path / "drive.mcap"))
    words = [bag, "--instruction", "go on", "--uncalibrated", "--out"]
    replay = ["--boundaries", "odom", "--precision", "float32"]
    out = tmp_path / "out"
    assert main(["import-bag", *words, str(out)]) == 2
    said = capsys.readouterr().err
    assert "/image has stamps from 0.100 to 6.000 s" in said and "--time log" in said
    assert "/odom has stamps from 1700000000.100 to 1700000006.000 s" in said
    assert main(["replay", *words, str(out), *replay]) == 2
    assert "--time log" in capsys.readouterr().err and not out.exists()
    picture = str(tmp_path / "end.png")
    assert main(["render", bag, "--instruction", "go on", "--out", picture]) == 0
    said = capsys.readouterr().err
    assert "no path is drawn" in said and "--time log" in said

    assert main(["import-bag", *words, str(out), "--time", "log"]) == 0
    assert main(["replay", *words, str(tmp_path / "again"), *replay, "--time", "log"]) == 0
    capsys.readouterr()
    assert main(["render", bag, "--out", picture, "--time", "log"]) == 0
    assert "warning" not in capsys.readouterr().err


def test_drift_beyond_the_limit_and_impossible_limits_are_told(drive, tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")]
    assert main(["import-bag", str(drive), *out, "--max-drift", "0.001"]) == 1
    assert "not kept: its steps end" in capsys.readouterr().out
    assert main(["import-bag", str(drive), *out, "--max-drift", "-1"]) == 2
    assert main(["import-bag", str(drive), *out, "--cmd-vel-timeout", "0"]) == 2
    assert "--cmd-vel-timeout is 0.0" in capsys.readouterr().err


def test_missing_bag_is_a_sentence(capsys):
    for command in ("replay", "import-bag", "render"):
        assert main([command, "/no/such/bag"]) == 2
        assert capsys.readouterr().err.strip() == "error: bag /no/such/bag does not exist"

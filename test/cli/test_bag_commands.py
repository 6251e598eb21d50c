"""The bag subcommands as a user meets them."""

import json

import cv2
import imageio_ffmpeg
import pytest

from janusvln_ros.cli.main import main
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


def test_missing_bag_is_a_sentence(capsys):
    for command in ("replay", "import-bag", "render"):
        assert main([command, "/no/such/bag"]) == 2
        assert capsys.readouterr().err.strip() == "error: bag /no/such/bag does not exist"

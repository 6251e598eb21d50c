"""A recorded drive decided on again: the same frames, the same memories, the same decisions."""

import json
from pathlib import Path

import numpy as np
import pytest

from janusvln_ros.actions import Action
from janusvln_ros.cli.main import main
from janusvln_ros.data.bags import BagWriter, open_bag
from janusvln_ros.data.drives import Moment, Topics, recorded_moments
from janusvln_ros.errors import InputError
from janusvln_ros.policy import Navigator, default_checkpoint
from janusvln_ros.rollout.replay import agreement, bag_camera, replay

S = 10**9
SIZE = (48, 64)


def picture(bags, n):
    rng = np.random.default_rng(n)
    message = bags.image(n * S, n, *SIZE)
    message.data = rng.integers(0, 256, SIZE[0] * SIZE[1] * 3, dtype=np.uint8)
    return message


@pytest.fixture(scope="module")
def navigator():
    return Navigator.from_pretrained(default_checkpoint())


@pytest.fixture(scope="module")
def lockstep_bag(bags, tmp_path_factory, navigator):
    """
    Two episodes as a lockstep run records them: a frame per step, one of them without a decision,
    and what the policy decided.
    """
    path = tmp_path_factory.mktemp("bag") / "lockstep.mcap"
    with BagWriter(path) as writer:
        writer.write_message("/camera_info", 0, bags.camera_info(0, *SIZE))
        for episode, frames in ((3, range(1, 8)), (4, range(10, 15))):
            navigator.reset("go to the red door")
            for step, n in enumerate(frames):
                message = picture(bags, n)
                writer.write_message("/image", n * S, message)
                action = navigator.step(message.data.reshape(*SIZE, 3)).action
                writer.write_message(
                    "/policy/decision", n * S, bags.decision(n * S, step, int(action), episode)
                )
            writer.write_message("/image", (frames[-1] + 1) * S, picture(bags, frames[-1] + 1))
    return path


def test_lockstep_bag_replays_to_the_same_decisions(lockstep_bag, navigator):
    with open_bag(lockstep_bag) as bag:
        moments = recorded_moments(bag)
        results = list(replay(bag, navigator, moments, Topics(), bag_camera(bag, Topics(), False)))
    assert len(results) == 12
    assert [r.decision.action for r in results] == [m.recorded for m in moments]


def test_memories_are_emptied_between_episodes(lockstep_bag, navigator):
    with open_bag(lockstep_bag) as bag:
        moments = recorded_moments(bag)
        seen = [
            len(navigator.spatial_frames)
            for _ in replay(bag, navigator, moments, Topics(), lambda rgb: rgb)
        ]
    assert seen == [1, 2, 3, 4, 5, 6, 7, 1, 2, 3, 4, 5]


def test_frame_that_is_not_in_the_bag_is_passed_over_and_counted(lockstep_bag, navigator):
    with open_bag(lockstep_bag) as bag:
        moments = [Moment(999 * S, 3, 0, "go", Action.STOP), *recorded_moments(bag)]
        assert (
            len(list(replay(bag, navigator, moments, Topics(), lambda rgb: rgb)))
            == len(moments) - 1
        )


def test_agreement_counts_each_action_and_text_that_is_no_action():
    def moment(action):
        return Moment(0, 0, 0, "", action)

    forward, left = Action.MOVE_FORWARD, Action.TURN_LEFT
    result = agreement(
        [
            (moment(forward), forward),
            (moment(forward), None),
            (moment(left), forward),
            (moment(None), left),
        ],
        parts=3,
    )
    assert (
        result["decisions"] == 4
        and result["compared"] == 3
        and result["agreement"] == pytest.approx(1 / 3)
    )
    assert (
        result["confusion"]["MOVE_FORWARD"]["NO_ACTION"] == 1
        and result["confusion"]["TURN_LEFT"]["MOVE_FORWARD"] == 1
    )
    assert result["over_time"] == [1.0, 0.0, 0.0]


def test_bag_without_camera_info_is_refused_unless_told_otherwise(bags, tmp_path):
    with BagWriter(tmp_path / "a.mcap") as writer:
        writer.write_message("/image", 0, picture(bags, 1))
    with open_bag(tmp_path / "a.mcap") as bag:
        with pytest.raises(InputError, match="no camera_info"):
            bag_camera(bag, Topics(), uncalibrated=False)
        assert bag_camera(bag, Topics(), uncalibrated=True)(
            np.zeros((*SIZE, 3), np.uint8)
        ).shape == (*SIZE, 3)


def test_the_camera_of_a_bag_is_fitted_to_its_frames(bags, tmp_path):
    height, width = SIZE
    with BagWriter(tmp_path / "a.mcap") as writer:
        writer.write_message("/camera_info", 0, bags.camera_info(0, 4 * height, 4 * width))
        writer.write_message("/image", 0, picture(bags, 1))
    with open_bag(tmp_path / "a.mcap") as bag:
        frame = np.zeros((*SIZE, 3), np.uint8)
        assert bag_camera(bag, Topics(), uncalibrated=False)(frame).shape == (*SIZE, 3)


def test_a_bag_whose_camera_info_is_of_another_shape_is_refused(bags, tmp_path):
    height, width = SIZE
    with BagWriter(tmp_path / "a.mcap") as writer:
        writer.write_message("/camera_info", 0, bags.camera_info(0, height, 2 * width))
        writer.write_message("/image", 0, picture(bags, 1))
    with (
        open_bag(tmp_path / "a.mcap") as bag,
        pytest.raises(InputError, match="camera_info is for 128 x 48"),
    ):
        bag_camera(bag, Topics(), uncalibrated=False)


def run(capsys, *words):
    code = main(["replay", *map(str, words), "--json"])
    out = capsys.readouterr().out
    return code, json.loads(out) if out else None


def test_same_bag_gives_the_same_bytes_and_passes_its_own_gate(lockstep_bag, tmp_path, capsys):
    code, first = run(capsys, lockstep_bag, "--out", tmp_path / "a", "--min-agreement", 1)
    assert (
        code == 0
        and first["agreement"] == 1.0
        and first["decisions"] == 12
        and first["missing_frames"] == 0
    )
    code, second = run(
        capsys,
        lockstep_bag,
        "--out",
        tmp_path / "b",
        "--against",
        tmp_path / "a" / "decisions.mcap",
        "--min-agreement",
        1,
    )
    assert code == 0 and second["agreement"] == 1.0
    assert (tmp_path / "a" / "decisions.mcap").read_bytes() == (
        tmp_path / "b" / "decisions.mcap"
    ).read_bytes()
    assert all(Path(file).stat().st_size for file in second["files"].values())


def test_report_and_decisions_say_which_policy_decided(bags, lockstep_bag, tmp_path, capsys):
    _, result = run(capsys, lockstep_bag, "--out", tmp_path / "a")
    about = result["about"]
    assert about["checkpoint"] == "janusvln-tiny" and len(about["checkpoint_digest"]) == 64
    assert {"prompt", "seed", "version", "git", "memory", "decoding"} <= about.keys()
    with open_bag(tmp_path / "a" / "decisions.mcap") as bag:
        assert bag.about == about
    again = tmp_path / "again.mcap"
    told = about | {"checkpoint_digest": "another", "seed": "7"}
    with open_bag(lockstep_bag) as bag, BagWriter(again, told) as writer:
        for m in bag.messages():
            writer.write(m.topic, m.msgtype, m.log_time, m.cdr)
    assert main(["replay", str(again), "--out", str(tmp_path / "b")]) == 0
    said = capsys.readouterr().err
    assert "recorded with another policy: checkpoint_digest another, now" in said
    report = json.loads((tmp_path / "b" / "agreement.json").read_text())
    assert report["recorded_about"]["seed"] == report["about"]["seed"] == "7"


def test_gate_fails_when_decisions_changed(bags, lockstep_bag, tmp_path, capsys):
    run(capsys, lockstep_bag, "--out", tmp_path / "a")
    changed = tmp_path / "changed.mcap"
    with open_bag(tmp_path / "a" / "decisions.mcap") as bag, BagWriter(changed) as writer:
        for n, message in enumerate(bag.messages(["/policy/decision"])):
            body = bag.decode(message)
            stamp = body.header.stamp.sec * S + body.header.stamp.nanosec
            other = bags.decision(
                stamp, body.step, (body.action + 1) % 4 if n == 0 else body.action, body.episode_id
            )
            writer.write_message("/policy/decision", message.log_time, other)
    code, result = run(
        capsys,
        lockstep_bag,
        "--out",
        tmp_path / "b",
        "--against",
        changed,
        "--min-agreement",
        0.99,
    )
    assert code == 1 and result["agreement"] == pytest.approx(11 / 12)


def test_decisions_of_another_bag_are_no_measure(bags, lockstep_bag, tmp_path, capsys):
    with BagWriter(tmp_path / "other.mcap") as writer:
        writer.write_message("/policy/decision", 0, bags.decision(77, 0, 1))
    assert (
        main(
            [
                "replay",
                str(lockstep_bag),
                "--out",
                str(tmp_path / "a"),
                "--against",
                str(tmp_path / "other.mcap"),
            ]
        )
        == 2
    )
    assert "it is of another bag" in capsys.readouterr().err


def test_drive_by_hand_is_decided_on_at_every_step_of_its_motion(bags, tmp_path, capsys):
    bag = bags.write_drive(tmp_path / "drive.mcap", [1, 1, 2, 1], size=SIZE)
    code, result = run(capsys, bag, "--boundaries", "odom", "--out", tmp_path / "out")
    assert code == 0 and result["decisions"] == 5 and result["compared"] == 5
    assert [
        result["per_action"][a]["recorded"] for a in ("MOVE_FORWARD", "TURN_LEFT", "STOP")
    ] == [3, 1, 1]


def test_bag_without_decisions_says_which_boundaries_to_use(bags, tmp_path, capsys):
    bag = bags.write_drive(tmp_path / "drive.mcap", [1])
    assert main(["replay", str(bag), "--out", str(tmp_path / "out")]) == 2
    assert (
        "use --boundaries odom or interval" in capsys.readouterr().err
        and not (tmp_path / "out").exists()
    )

"""
DAgger: the published scheme gives the published traces; its faults are not repeated, and each
difference has a test of its own.
"""

import json
import random
from pathlib import Path

import pytest

from janusvln_ros.data.episodes import GroundTruth
from janusvln_ros.data.trajectories import actions_before, merge, read_trajectories
from janusvln_ros.rollout.dagger import (
    NO_LIMIT,
    PublishedMixture,
    PublishedWorker,
    expert_share,
    judge,
)
from janusvln_ros.rollout.engine import DirectEngine
from janusvln_ros.rollout.settings import DaggerSection, ExpertSection, Settings

CASES = [
    c["name"]
    for c in json.loads((Path(__file__).parents[1] / "data/rollout/loops.json").read_text())[
        "dagger"
    ]
]


def mixture(model, truth, dagger, seed):
    return PublishedMixture(model, dagger, ExpertSection(), truth, lambda _: random.Random(seed))


def replay(toy, name):
    """
    Drive a recorded case; return the recording, the drive, the model, the mixture and the result.
    """
    case = next(c for c in toy.loops["dagger"] if c["name"] == name)
    options = case["options"]
    dagger = DaggerSection(
        **{k: options[k] for k in ("p", "data_it", "num_future_steps", "force_expert")}
    )
    episode = toy.episode(12, case["reference_path"], heading=case["heading_deg"])
    model = toy.Agent(case["script"], options["num_history"])
    truth = {"12": GroundTruth((1,) * options["len_gt_actions"], (), 0)}
    driver = mixture(model, truth, dagger, options["python_random_seed"])
    drive = DirectEngine(toy.Env(), driver, NO_LIMIT).run(episode)
    return case, drive, model, driver, judge(episode, drive, driver)


@pytest.mark.parametrize("name", CASES)
def test_published_scheme_gives_the_published_trace(toy, name):
    case, drive, model, _, result = replay(toy, name)
    assert drive.actions == case["executed_actions"]
    written = actions_before(drive.actions, len(drive.actions))
    assert written == case["annotation"][0]["actions"]
    assert model.all_calls == case["model_calls"]
    expected = case["metrics"]
    assert result["save"] == expected["save"]
    for key in (
        "success",
        "step_id",
        "ref_actions_len",
        "accumulated_error",
        "model_success",
        "force_episode_end",
    ):
        assert result[key] == expected[key], key
    assert result["distance_to_goal"] == pytest.approx(expected["distance_to_goal"], abs=1e-12)
    assert result["relative_pl"] == pytest.approx(expected["pl"], abs=1e-12)


@pytest.mark.parametrize("name", ["stop_early", "always_left", "beta_half", "beta_half_future2"])
def test_frames_at_which_the_expert_drives_leave_no_gap_in_memory_unlike_bug_13(toy, name):
    _, drive, agent, _, _ = replay(toy, name)
    asked = [call[0] for call in agent.all_calls]
    assert agent.seen, "the expert drives in this case"
    assert sorted(asked + agent.seen) == agent.frames == list(range(len(drive.actions)))
    assert agent.led_here == [None, *drive.actions[:-1]], "it is told what was really executed"


def test_text_that_is_no_action_hands_over_to_the_expert_and_is_never_executed_as_stop(toy):
    case, drive, _, driver, _ = replay(toy, "garbage_text")
    assert case["script"] == ["hello"]
    assert drive.actions.count(0) == 1 and not driver.model_success


def test_drive_does_not_depend_on_which_episodes_came_before_unlike_the_seed_per_rank(
    toy, tmp_path
):
    from janusvln_ros.rollout.agents import episode_random

    first, second = toy.episode(1, [[0, 0], [6, 0]]), toy.episode(2, [[0, 0], [6, 0]])
    assert (
        episode_random(0, first, "dagger").random() == episode_random(0, first, "dagger").random()
    )
    assert (
        len(
            {
                episode_random(seed, e, "dagger").random()
                for seed in (0, 1)
                for e in (first, second)
            }
        )
        == 4
    )


def test_expert_share_falls_from_round_to_round():
    assert [expert_share(0.5, n) for n in range(4)] == [1.0, 0.5, 0.25, 0.125]
    assert expert_share(0.0, 0) == expert_share(0.0, 3) == 0.0


def test_published_worker_keeps_frames_of_kept_drives_only(toy, tmp_path):
    case = next(c for c in toy.loops["dagger"] if c["name"] == "detour")
    kept, dropped = (
        toy.episode(12, case["reference_path"]),
        toy.episode(13, [[0, 0], [3, 0], [6, 0]]),
    )
    truth = {e.episode_id: GroundTruth((1,) * 30, (), 30) for e in (kept, dropped)}
    driver = mixture(toy.Agent(case["script"]), truth, DaggerSection(), 0)
    engine = DirectEngine(toy.Env(), driver, NO_LIMIT)
    worker = PublishedWorker(Settings(dataset="r2r"), engine, driver, tmp_path, 0)
    worker.run(kept)
    driver.model = toy.Agent(["expert"])
    worker.run(dropped)
    worker.close()
    lines = merge(tmp_path)
    assert [line["result"]["save"] for line in lines] == [1, 0]
    (found,) = read_trajectories(tmp_path)
    assert (
        found.video == case["annotation"][0]["video"]
        and list(found.actions) == case["annotation"][0]["actions"]
    )
    assert len(found.frames) == case["n_saved_frames"]
    assert [str(found.frames[i].relative_to(tmp_path)) for i in (0, -1)] == case[
        "saved_files_first_last"
    ]

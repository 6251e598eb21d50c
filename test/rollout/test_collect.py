"""Collection: labels are the expert's at every state that was visited, whoever drove."""

import pytest

from janusvln_ros.actions import Action
from janusvln_ros.data.trajectories import merge, read_trajectories
from janusvln_ros.errors import InputError
from janusvln_ros.rollout.agents import ExpertAgent, LabelledMixture
from janusvln_ros.rollout.collect import CollectJob, LabelledWorker
from janusvln_ros.rollout.engine import DirectEngine
from janusvln_ros.rollout.settings import Rules, load_settings

ZIGZAG = [[0, 0], [3, 0], [3, 3], [6, 3]]


def mixture(toy, other, beta, missed_stops=8):
    return LabelledMixture(ExpertAgent(0.5, 1.8), other, beta, 1, missed_stops)


def drive(toy, agent):
    visited = []
    engine = DirectEngine(toy.Env(), agent, Rules())
    found = engine.run(
        toy.episode(1, ZIGZAG),
        lambda observation, action: visited.append((observation.position, int(action))),
    )
    return found, visited


def test_without_noise_the_expert_drives_and_labels_are_what_was_executed(toy):
    agent = mixture(toy, None, 1.0)
    found, _ = drive(toy, agent)
    assert (
        found.actions == agent.labels and found.status == "stopped" and found.distances[-1] < 0.5
    )


def test_noise_changes_what_is_executed_but_not_the_labels(toy):
    agent = mixture(toy, None, 0.7)
    found, visited = drive(toy, agent)
    assert len(agent.labels) == len(found.actions) == len(visited)
    share = sum(a != b for a, b in zip(found.actions, agent.labels)) / len(agent.labels)
    assert 0.05 < share < 0.4
    # Replaying the follower over the very same states gives the very same labels.
    env, expert = toy.Env(), ExpertAgent(0.5, 1.8)
    observation = env.reset(toy.episode(1, ZIGZAG))
    expert.reset(env.episode, env)
    for (position, action), label in zip(visited, agent.labels):
        assert list(observation.position) == list(position)
        assert expert.act(observation) == label
        observation = env.step(Action(action))


def test_every_state_near_the_end_is_labelled_stop_and_a_missed_stop_is_kept(toy):
    agent = mixture(toy, toy.Agent(["TURN_LEFT"]), 0.0, missed_stops=4)
    env = toy.Env()
    found = DirectEngine(env, agent, Rules()).run(toy.episode(1, [[0, 0], [0.3, 0]]))
    assert agent.labels == [0] * 5 and found.actions == [2, 2, 2, 2, 0]


def test_driver_that_stops_too_early_or_writes_nonsense_is_overruled(toy):
    for script in (["STOP"], ["hello"]):
        agent = mixture(toy, toy.Agent(script), 0.0)
        found, _ = drive(toy, agent)
        assert found.actions == agent.labels and found.status == "stopped"


def test_driver_watches_every_frame_at_which_the_expert_drives(toy):
    model = toy.Agent(["TURN_LEFT", "TURN_RIGHT"])
    agent = mixture(toy, model, 0.5)
    found, _ = drive(toy, agent)
    assert model.seen and model.all_calls and model.frames == list(range(len(found.actions)))
    assert model.led_here == [None, *found.actions[:-1]], "it is told what was really executed"


@pytest.fixture
def worker(toy):
    """Make a worker over the toy world in place of a simulator."""

    def make(out, other, beta, changes=(), env=None):
        settings = load_settings("houses", changes)

        def engine(settings, data_dir, agent):
            return DirectEngine(env or toy.Env(), agent, settings.rules)

        return LabelledWorker(settings, out, out, 0, other, beta, {}, engine)

    return make


def test_trajectory_on_disk_is_the_drive(toy, worker, tmp_path):
    made = worker(tmp_path, None, 0.8)
    made.run(toy.episode(5, ZIGZAG))
    made.close()
    merge(tmp_path)
    (found,) = read_trajectories(tmp_path)
    assert found.video == "images/scA_houses_000005"
    assert list(found.labels) == made.agent.labels and found.labels[-1] == 0
    assert len(found.frames) == len(found.actions) == len(found.labels) and found.actions[0] == -1


def test_expert_drive_that_never_arrives_is_dropped_but_a_models_is_kept_with_its_labels(
    toy, worker, tmp_path
):
    changes = ["rules.max_steps=12"]
    expert = worker(tmp_path / "expert", None, 1.0, changes)
    expert.run(toy.episode(5, [[0, 0], [9, 0]]))
    expert.close()
    (line,) = merge(tmp_path / "expert")
    assert (
        line["annotation"] is None
        and line["result"]["save"] == 0
        and line["result"]["status"] == "step_limit"
    )
    model = worker(tmp_path / "model", toy.Agent(["TURN_LEFT"]), 0.0, changes)
    model.run(toy.episode(5, [[0, 0], [9, 0]]))
    model.close()
    merge(tmp_path / "model")
    (found,) = read_trajectories(tmp_path / "model")
    assert len(found.frames) == 12 and found.actions == (-1, *[2] * 11) and 0 not in found.labels


def test_episode_without_a_way_to_the_goal_is_skipped_and_three_in_a_row_stop_the_run(
    toy, worker, tmp_path
):
    class Islands(toy.Env):
        def expert_action(self, target, radius):
            raise InputError("no way leads there")

    made = worker(tmp_path, None, 1.0, env=Islands())
    made.run(toy.episode(1, ZIGZAG))
    made.run(toy.episode(2, ZIGZAG))
    with pytest.raises(InputError, match="three episodes in a row"):
        made.run(toy.episode(3, ZIGZAG))
    made.close()
    assert [line["result"]["error"] for line in merge(tmp_path)] == ["no way leads there"] * 2


def test_noise_must_be_a_probability_below_one(tmp_path):
    with pytest.raises(InputError, match="probability"):
        CollectJob(tmp_path, load_settings("houses"), tmp_path, 1.0)

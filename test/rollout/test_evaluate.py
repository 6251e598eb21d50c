"""
The evaluation loop gives the published result lines; its faults are not repeated, and each
difference has a test of its own.
"""

import json
import pickle
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from janusvln_ros.actions import Action
from janusvln_ros.data.episodes import write_episodes
from janusvln_ros.data.journal import Journal, read_lines
from janusvln_ros.errors import InputError
from janusvln_ros.evaluation.metrics import Thresholds
from janusvln_ros.rollout.agents import OracleStopAgent, RandomAgent
from janusvln_ros.rollout.engine import DirectEngine
from janusvln_ros.rollout.evaluate import (
    EvaluateJob,
    EvaluateWorker,
    merge,
    told,
)
from janusvln_ros.rollout.settings import Rules, Settings, load_settings
from janusvln_ros.rollout.shards import Cluster, run_sharded

PUBLISHED = (
    "scene_id",
    "episode_id",
    "success",
    "spl",
    "os",
    "ne",
    "steps",
    "episode_instruction",
)
NAMES = [
    c["name"]
    for c in json.loads((Path(__file__).parents[1] / "data/rollout/loops.json").read_text())[
        "eval"
    ]
]


@dataclass
class ToyJob:
    """An evaluation in the toy world, through the real worker, journal and sharding."""

    toy: type
    out: Path
    agent: object
    rules: Rules = field(default_factory=Rules)
    settings: Settings = field(default_factory=lambda: Settings(sharding="published"))
    max_steps: int = 500

    def open(self, shard, device):
        engine = DirectEngine(self.toy.Env(self.max_steps), self.agent, self.rules)
        return EvaluateWorker(self.out, shard, engine, Thresholds(), {}, AsWritten())


class AsWritten(dict):
    """Tells every agent the episode's own text."""

    def __missing__(self, key):
        return key.instruction


WORLD = json.loads((Path(__file__).parents[1] / "data/rollout/loops.json").read_text())["world"][
    "episodes_for_eval"
]


NOTES = {
    "agent": "toy",
    "dataset": "toy",
    "split": "all",
    "thresholds": {"success": 3.0, "near": 1.0},
}


def replay(toy, name, out, episodes):
    """
    Run a recorded case; return the recording, the agent, and the lines in the order in which they
    were written.
    """
    case = next(c for c in toy.loops["eval"] if c["name"] == name)
    options = case["options"]
    rank, world = options.get("rank", 0), options.get("world", 1)
    agent = toy.Agent(case["script"])
    for line in options.get("resume", ()):
        with Journal(out / "journal_0.jsonl") as journal:
            key = {
                "scene_id": f"mp3d/{line['scene_id']}/{line['scene_id']}.glb",
                "episode_id": line["episode_id"],
                "instruction": line["episode_instruction"],
            }
            journal.append({**key, "result": line, "path": []})
    job = ToyJob(toy, out, agent, Rules(options.get("max_steps", 400), "stop"))
    merges = run_sharded(job, episodes, 1, Cluster(rank, world))
    assert merges == (rank == 0)
    return case, agent, [line["result"] for line in read_lines(out / f"journal_{rank}.jsonl")]


@pytest.mark.parametrize("name", NAMES)
def test_loop_gives_the_published_result_lines(toy, toy_episodes, tmp_path, name):
    case, agent, lines = replay(toy, name, tmp_path, toy_episodes)
    expected = case["result_json_lines"]
    assert [list(line)[: len(PUBLISHED)] for line in lines] == [list(PUBLISHED)] * len(expected)
    for line, other in zip(lines, expected, strict=True):
        for key in PUBLISHED:
            same = pytest.approx(other[key], abs=1e-12) if key in ("ne", "spl") else other[key]
            assert line[key] == same and type(line[key]) is type(other[key]), key
    if name != "max_steps":  # the forced STOP needs no answer, see below
        # The recording leaves out the last calls of a long case.
        assert agent.all_calls[: len(case["model_calls"])] == case["model_calls"]
        assert (
            len(agent.all_calls)
            == sum(line["calls"] for line in lines if "calls" in line)
            >= len(case["model_calls"])
        )
        if case["image_ids_of_call_12"] is not None:
            assert agent.image_ids[12] == case["image_ids_of_call_12"]


def test_model_is_not_asked_for_the_answer_that_the_forced_stop_discards_unlike_bug_5(
    toy, toy_episodes, tmp_path
):
    case, agent, lines = replay(toy, "max_steps", tmp_path, toy_episodes)
    limit = case["options"]["max_steps"]
    assert {line["steps"] for line in lines} == {limit + 1} and {
        line["status"] for line in lines
    } == {"step_limit"}
    recorded = [call for call in case["model_calls"] if call[0] < limit]
    assert agent.all_calls[: len(recorded)] == recorded and len(agent.all_calls) == limit * len(
        lines
    )


def test_garbage_is_reported_and_by_default_stops_nothing_unlike_bug_5(
    toy, toy_episodes, tmp_path
):
    _, _, lines = replay(toy, "garbage_stops", tmp_path / "stop", toy_episodes)
    assert {line["status"] for line in lines} == {"not_understood"} and not any(
        line["chose_stop"] for line in lines
    )
    episode = toy.episode(1, [[0, 0], [1, 0]])
    drive = DirectEngine(toy.Env(), toy.Agent(["MOVE_FORWARD", "stop"]), Rules()).run(episode)
    assert (
        drive.actions == [1]
        and not drive.stopped
        and drive.status == "not_understood"
        and drive.calls == 2
    )


def test_finished_run_can_be_resumed_and_its_files_are_valid_unlike_bug_3(
    toy, toy_episodes, tmp_path
):
    for _ in range(2):
        agent = toy.Agent(["expert"])
        assert run_sharded(ToyJob(toy, tmp_path, agent), toy_episodes, 1, Cluster())
        merge(tmp_path, toy_episodes, 0, NOTES)
    assert agent.all_calls == []
    lines = [json.loads(text) for text in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [line["episode_id"] for line in lines] == [1, 2, 3, 4, 5]


def test_one_process_without_torchrun_is_enough_and_an_empty_rank_is_fine_unlike_bug_4(
    toy, toy_episodes, tmp_path
):
    assert not run_sharded(
        ToyJob(toy, tmp_path, toy.Agent(["expert"])), toy_episodes, 1, Cluster(7, 8)
    )
    assert run_sharded(
        ToyJob(toy, tmp_path, toy.Agent(["expert"])), toy_episodes, 1, Cluster(0, 1)
    )
    assert merge(tmp_path, toy_episodes, 0, NOTES)["success_rate"] == 1.0


def test_results_do_not_depend_on_the_number_of_ranks(toy, toy_episodes, tmp_path):
    texts = []
    for world in (1, 2, 3):
        out = tmp_path / str(world)
        for rank in range(world - 1, -1, -1):
            run_sharded(
                ToyJob(toy, out, RandomAgent(3, (0.05, 0.5, 0.25, 0.2))),
                toy_episodes,
                1,
                Cluster(rank, world),
            )
        merge(out, toy_episodes, 0, NOTES)
        texts.append((out / "results.jsonl").read_text())
    assert texts[0] == texts[1] == texts[2] and len(texts[0].splitlines()) == 5


def test_run_with_other_number_of_ranks_goes_on_with_what_is_missing(toy, toy_episodes, tmp_path):
    run_sharded(ToyJob(toy, tmp_path, toy.Agent(["expert"])), toy_episodes, 1, Cluster(1, 2))
    agent = toy.Agent(["expert"])
    run_sharded(ToyJob(toy, tmp_path, agent), toy_episodes, 1, Cluster(0, 1))
    assert sum(call[0] == 0 for call in agent.all_calls) == 3
    merge(tmp_path, toy_episodes, 0, NOTES)
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 5


class Broken:
    """An agent that fails the first ``times`` times it is asked."""

    def __init__(self, times):
        self.left, self.calls = times, 0

    def reset(self, episode, env):
        self.calls = 0

    def act(self, observation, executed=None):
        self.left -= 1
        if self.left >= 0:
            raise OSError("the server is gone")
        self.calls += 1
        return Action.STOP


def test_episode_that_fails_is_tried_again_and_then_counts_as_a_failure_with_its_reason(
    toy, toy_episodes, tmp_path, capsys
):
    run_sharded(ToyJob(toy, tmp_path, Broken(3)), toy_episodes, 1, Cluster())
    summary = merge(tmp_path, toy_episodes, 2, NOTES)
    lines = [json.loads(text) for text in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines] == [
        "error",
        "stopped",
        "stopped",
        "stopped",
        "stopped",
    ]
    assert (
        "the server is gone" in lines[0]["error"]
        and "the server is gone" in capsys.readouterr().err
    )
    assert (summary["episodes"], summary["errors"], summary["rejected"]) == (5, 1, 2)


def test_run_in_which_everything_fails_is_stopped_instead_of_reported_as_zero(
    toy, toy_episodes, tmp_path
):
    with pytest.raises(RuntimeError, match="three episodes in a row"):
        run_sharded(ToyJob(toy, tmp_path, Broken(100)), toy_episodes, 1, Cluster())


def test_simulators_limit_and_collisions_end_a_drive(toy):
    episode = toy.episode(1, [[0, 0], [9, 0]])
    drive = DirectEngine(toy.Env(5), toy.Agent(["MOVE_FORWARD"]), Rules()).run(episode)
    assert drive.status == "simulator_limit" and len(drive.actions) == 5 and not drive.stopped

    class Wall(toy.Env):
        def step(self, action):
            observation = super().step(
                Action.TURN_LEFT if action == Action.MOVE_FORWARD else action
            )
            observation.collided = action == Action.MOVE_FORWARD
            return observation

    drive = DirectEngine(
        Wall(), toy.Agent(["MOVE_FORWARD", "MOVE_FORWARD", "TURN_LEFT"]), Rules(30, max_blocked=3)
    ).run(episode)
    assert drive.status == "step_limit", "a turn in between begins the count anew"
    drive = DirectEngine(Wall(), toy.Agent(["MOVE_FORWARD"]), Rules(max_blocked=3)).run(episode)
    assert (
        drive.status == "blocked" and drive.actions == [1, 1, 1] and drive.collided == [True] * 3
    )


def test_distance_that_is_not_a_number_is_a_fault_and_not_a_result(toy):
    class Lost(toy.Env):
        def geodesic_distance(self, a, b):
            return float("nan")

    with pytest.raises(RuntimeError, match="not a number"):
        DirectEngine(Lost(), toy.Agent(["STOP"]), Rules()).run(toy.episode(1, [[0, 0], [9, 0]]))


def test_goal_out_of_reach_fails_and_is_counted_while_means_stay_finite(
    toy, toy_episodes, tmp_path
):
    class Island(toy.Env):
        def geodesic_distance(self, a, b):
            return (
                float("inf") if self.episode.episode_id == "2" else super().geodesic_distance(a, b)
            )

    agent = toy.Agent(["expert"])
    worker = EvaluateWorker(
        tmp_path, 0, DirectEngine(Island(), agent, Rules()), Thresholds(), {}, AsWritten()
    )
    for episode in toy_episodes:
        worker.run(episode)
    worker.close()
    summary = merge(tmp_path, toy_episodes, 0, NOTES)
    assert (
        summary["unreachable"] == 1
        and summary["success_rate"] == pytest.approx(0.8)
        and np.isfinite(summary["navigation_error"])
    )


def test_what_the_checkpoint_may_not_understand_is_driven_and_counted(toy, toy_episodes, tmp_path):
    verdicts = dict(zip((e.instruction for e in toy_episodes), ("noise", "doubtful")))
    worker = EvaluateWorker(
        tmp_path,
        0,
        DirectEngine(toy.Env(), toy.Agent(["expert"]), Rules()),
        Thresholds(),
        {},
        AsWritten(),
        verdict=lambda text: verdicts.get(text, "understood"),
    )
    for episode in toy_episodes:
        worker.run(episode)
    worker.close()
    summary = merge(tmp_path, toy_episodes, 0, NOTES)
    assert (summary["noise"], summary["doubtful"]) == (1, 1) and summary["success_rate"] == 1
    assert summary["by_understanding"]["noise"]["episodes"] == 1
    text = json.loads((tmp_path / "results.jsonl").read_text().splitlines()[0])
    assert text["understanding"] == verdicts.get(text["instruction_given"], "understood")


def test_oracle_stops_exactly_where_the_goal_is_near(toy):
    early = DirectEngine(toy.Env(), OracleStopAgent(toy.Agent(["STOP"]), 1.0), Rules(20)).run(
        toy.episode(1, [[0, 0], [2, 0]])
    )
    assert early.actions == [2] * 20 + [0] and early.status == "step_limit", (
        "the agent's own STOP becomes a turn"
    )
    straight = DirectEngine(
        toy.Env(), OracleStopAgent(toy.Agent(["MOVE_FORWARD"]), 1.0), Rules()
    ).run(toy.episode(1, [[0, 0], [2, 0]]))
    assert straight.actions == [1] * 5 + [0] and straight.distances[-1] == pytest.approx(0.75)


def test_random_agent_repeats_for_a_seed_and_differs_between_episodes_and_seeds(toy):
    def drive(seed, number):
        return (
            DirectEngine(toy.Env(), RandomAgent(seed, (0.02, 0.4, 0.3, 0.28)), Rules(60))
            .run(toy.episode(number, [[0, 0], [9, 0]]))
            .actions
        )

    assert drive(1, 1) == drive(1, 1)
    assert len({tuple(drive(s, n)) for s in (1, 2) for n in (1, 2)}) == 4


NOWHERE = Path("no data is read")


def test_swapped_instructions_are_another_episodes_and_do_not_change_with_order(toy_episodes):
    given = told(toy_episodes, "swapped", 1, NOWHERE)
    assert sorted(given.values()) == sorted(e.instruction for e in toy_episodes)
    assert all(given[e.identity] != e.instruction for e in toy_episodes)
    assert told(toy_episodes[::-1], "swapped", 1, NOWHERE) == given
    assert set(told(toy_episodes, "removed", 1, NOWHERE).values()) == {""}
    with pytest.raises(InputError, match="different texts"):
        told([replace(e, instruction="same") for e in toy_episodes], "swapped", 1, NOWHERE)


@pytest.mark.parametrize("form", ["lower", "upper", "typo", "synonyms", "please"])
def test_another_form_of_an_instruction_follows_from_its_text_and_the_seed(toy_episodes, form):
    text = "Turn right and go through the door into the blue room. Stop at the red lamp."
    episodes = [replace(e, instruction=text) for e in toy_episodes]
    given = told(episodes, form, 1, NOWHERE)
    assert len(given) == len(episodes) and set(given.values()) != {text}
    assert told(episodes[::-1], form, 1, NOWHERE) == given
    assert len(set(given.values())) == 1


@dataclass(frozen=True)
class HandedIn:
    """An engine from above this room, as a worker process gets it."""

    note: str

    def __call__(self, settings, data_dir, agent):
        return self.note, settings, data_dir, agent


def test_engine_handed_in_is_made_in_the_worker_for_its_settings_data_and_agent(
    toy_episodes, tmp_path
):
    folder = tmp_path / "datasets" / "r2r" / "val_unseen"
    write_episodes(folder / "val_unseen.json.gz", toy_episodes)
    settings = load_settings("r2r")
    job = EvaluateJob(tmp_path, settings, tmp_path, "random", engine=HandedIn("graph"))
    worker = pickle.loads(pickle.dumps(job)).open(3, None)
    assert worker.engine[:3] == ("graph", settings, tmp_path)
    assert isinstance(worker.engine[3], RandomAgent)

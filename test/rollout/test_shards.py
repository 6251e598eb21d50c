"""
Sharding, manifests and worker processes: every episode once, and never under another run's name.
"""

import json
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from janusvln_ros.data.episodes import Episode
from janusvln_ros.data.journal import Journal, journal_path
from janusvln_ros.errors import InputError
from janusvln_ros.rollout.manifest import claim, read_manifest
from janusvln_ros.rollout.settings import Settings
from janusvln_ros.rollout.shards import (
    Cluster,
    Progress,
    choose,
    finished,
    run_sharded,
    share,
)


def episodes(*scenes: str) -> list[Episode]:
    point = (0.0, 0.0, 0.0)
    return [
        Episode(
            str(i),
            str(i),
            f"x/{s}/{s}.glb",
            point,
            (0.0, 0.0, 0.0, 1.0),
            point,
            3.0,
            f"go {i}",
            (point,),
            1.0,
        )
        for i, s in enumerate(scenes)
    ]


@pytest.mark.parametrize("how", ["published", "balanced"])
@pytest.mark.parametrize("shards", [1, 2, 3, 7, 20])
def test_every_episode_belongs_to_exactly_one_shard(how, shards):
    all_of_them = episodes(*"baabbcabca")
    taken = [e for shard in range(shards) for e in share(all_of_them, shard, shards, how)]
    assert sorted(e.episode_id for e in taken) == sorted(e.episode_id for e in all_of_them)


def test_published_shards_take_every_nth_episode_of_each_scene_in_order():
    taken = share(episodes(*"baabb"), 1, 2, "published")
    assert [(e.scene, e.episode_id) for e in taken] == [("a", "2"), ("b", "3")]


def test_balanced_shards_are_equally_long_where_scenes_have_one_episode_each():
    lengths = [len(share(episodes(*"abcdefgh"), shard, 3)) for shard in range(3)]
    assert max(lengths) - min(lengths) <= 1
    assert [len(share(episodes(*"abcdefgh"), shard, 3, "published")) for shard in range(3)] == [
        8,
        0,
        0,
    ]


def test_larger_choice_contains_the_smaller_one_and_repeats_for_a_seed():
    pool = episodes(*"abcdefghij")
    small, large = choose(pool, 3, 1), choose(pool, 6, 1)
    assert (
        len(small) == 3
        and {e.identity for e in small} <= {e.identity for e in large}
        and choose(pool, 3, 1) == small
    )
    assert choose(pool, 3, 2) != small and choose(pool, 99, 1) == pool == choose(pool, None, 1)
    with pytest.raises(InputError, match="1 or more"):
        choose(pool, 0, 1)


def test_resuming_under_another_manifest_is_refused_and_the_difference_named(tmp_path):
    claim(tmp_path, {"agent": "expert", "settings": {"seed": 1, "languages": ("en",)}})
    claim(tmp_path, {"agent": "expert", "settings": {"seed": 1, "languages": ("en",)}})
    with pytest.raises(InputError, match=r"settings\.seed was 1 and is 2"):
        claim(tmp_path, {"agent": "expert", "settings": {"seed": 2, "languages": ("en",)}})
    with pytest.raises(InputError, match=r"checkpoint_sha256 was null and is .abc"):
        claim(
            tmp_path,
            {
                "agent": "expert",
                "settings": {"seed": 1, "languages": ("en",)},
                "checkpoint_sha256": "abc",
            },
        )


def test_journals_of_an_unknown_run_are_refused(tmp_path):
    Journal(tmp_path / "journal_0.jsonl").close()
    with pytest.raises(InputError, match=r"without manifest\.json"):
        claim(tmp_path, {})


@pytest.mark.parametrize(
    ("variables", "reason"),
    [({"RANK": "2", "WORLD_SIZE": "2"}, "RANK is 2"), ({"RANK": "one"}, "must be numbers")],
)
def test_rank_that_makes_no_sense_is_an_error(monkeypatch, variables, reason):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=reason):
        Cluster.from_environment()


def test_place_is_read_from_torchruns_variables(monkeypatch):
    assert Cluster.from_environment() == Cluster(0, 1, 0)
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert Cluster.from_environment() == Cluster(5, 8, 1)


@dataclass(frozen=True)
class CountingJob:
    """Writes a line per episode; ``bad`` episodes end the worker in different ways."""

    out: Path
    bad: str = ""
    settings: Settings = field(default_factory=Settings)

    def open(self, shard, device):
        return CountingWorker(self, shard)


class CountingWorker:
    def __init__(self, job, shard):
        self.job, self.journal = job, Journal(job.out / f"journal_{shard}.jsonl")

    def run(self, episode):
        if episode.episode_id == "3" and self.job.bad:
            raise InputError("bad scene") if self.job.bad == "input" else ValueError("a fault")
        self.journal.append(episode.identity._asdict())

    def close(self):
        self.journal.close()


def test_episode_in_two_journals_is_counted_once(tmp_path):
    (tmp_path / "journal_0.jsonl").write_text(
        '{"scene_id": "a", "episode_id": 1, "instruction": "go"}\n'
    )
    (tmp_path / "journal_1.jsonl").write_text(
        '{"scene_id": "a", "episode_id": 1, "instruction": "go"}\n{"scene_id": "a", '
        '"episode_id": 2, "instruction": "g'
    )
    assert list(finished(tmp_path)) == [("a", "1", "go")]


def test_of_an_episode_in_two_journals_the_first_line_counts(tmp_path):
    for shard in range(3):
        line = {"scene_id": "a", "episode_id": 1, "instruction": "go", "steps": 5 + shard}
        (tmp_path / f"journal_{shard}.jsonl").write_text(json.dumps(line) + "\n")
    assert [line["steps"] for line in finished(tmp_path).values()] == [5]


@pytest.mark.parametrize(("bad", "error"), [("input", InputError), ("fault", ValueError)])
def test_failure_in_this_process_ends_the_run_and_it_goes_on_afterwards(tmp_path, bad, error):
    pool = episodes(*"aabbcc")
    with pytest.raises(error):
        run_sharded(CountingJob(tmp_path, bad), pool, 1, Cluster())
    assert len(finished(tmp_path)) == 3
    assert run_sharded(CountingJob(tmp_path), pool, 1, Cluster())
    assert len(finished(tmp_path)) == 6
    assert sum(len(p.read_text().splitlines()) for p in tmp_path.glob("journal_*")) == 6
    assert (
        json.loads((tmp_path / "journal_0.jsonl").read_text().splitlines()[3])["episode_id"] == "3"
    )


def test_what_a_kill_left_over_is_shared_evenly_among_the_processes(tmp_path, monkeypatch):
    pool = episodes(*"aabbccdd")
    with Journal(tmp_path / "journal_0.jsonl") as journal:
        for e in pool[:4]:
            journal.append(e.identity._asdict())
    shares = []
    monkeypatch.setattr(
        "janusvln_ros.rollout.shards.spawn_workers",
        lambda job, mine, progress: shares.extend(len(shard.episodes) for shard in mine),
    )
    monkeypatch.setattr("janusvln_ros.rollout.shards.Progress.update", lambda self: True)
    run_sharded(CountingJob(tmp_path), pool, 2, Cluster())
    assert shares == [2, 2]


def test_time_left_counts_what_this_run_does_not_what_was_done_before(tmp_path, capsys):
    todo = episodes("a", "a", "a", "a")
    with closing(Journal(journal_path(tmp_path, 0))) as journal:
        for done in todo[:3]:
            journal.append(done.identity._asdict())
    with closing(Progress(tmp_path, {e.identity for e in todo}, "resumed")):
        pass
    # three are in, and how long one takes is not known yet
    assert "3/4" in (shown := capsys.readouterr().err) and "?ep/s" in shown


def test_more_episodes_may_need_more_scenes_but_none_may_have_changed(tmp_path):
    first = claim(tmp_path, {"agent": "expert", "scenes": {"a": "1"}})
    assert claim(tmp_path, {"agent": "expert", "scenes": {"b": "2"}}) == first
    assert read_manifest(tmp_path)["scenes"] == {"a": "1", "b": "2"}
    with pytest.raises(InputError, match=r"scenes\.a was .1. and is .9"):
        claim(tmp_path, {"agent": "expert", "scenes": {"a": "9", "b": "2"}})


@pytest.mark.parametrize("content", ["", "[]", '{"agent": '])
def test_damaged_manifest_is_a_sentence(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(InputError, match="another --out"):
        claim(tmp_path, {"agent": "expert"})

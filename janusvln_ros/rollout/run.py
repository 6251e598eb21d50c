"""What every rollout command does around its job: data, episodes, manifest, processes."""

import dataclasses
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from tqdm import tqdm

from janusvln_ros.data.episodes import Episode, EpisodeSet, episodes_path, read_episodes
from janusvln_ros.data.left_out import counted, left_out_page
from janusvln_ros.errors import InputError
from janusvln_ros.files import atomic_write
from janusvln_ros.rollout.manifest import (
    READY,
    await_first_rank,
    check,
    claim,
    digests,
    read_manifest,
    run_digest,
    scene_digests,
    versions,
)
from janusvln_ros.rollout.settings import Settings, open_env
from janusvln_ros.rollout.shards import Cluster, Job, choose, run_sharded
from janusvln_ros.rollout.threads import cores, share_of, use
from sim_bridge.homes import check_generator, ensure_split
from sim_bridge.nav_env import scene_path


def read_split(settings: Settings, data_dir: Path) -> EpisodeSet:
    """
    Read the episodes of the settings, see `read_episodes`; houses must be of the generator that
    their split says.
    """
    if settings.dataset == "houses":
        check_generator(data_dir, settings.split)
    return read_episodes(
        data_dir,
        settings.dataset,
        settings.split,
        role=settings.role,
        languages=settings.languages,
    )


def generate_split(
    data_dir: Path, split: str, title: str, *, quiet: bool | None = False, **choices: Any
) -> Path:
    """
    Generate a split of the houses, or what of it is missing, and return its file.

    A bar with ``title`` is shown on stderr unless ``quiet`` (None: where stderr is no terminal);
    ``choices`` are those of `ensure_split`.
    """
    with tqdm(desc=title, unit="home", file=sys.stderr, disable=quiet) as bar:

        def progress(done: int, total: int) -> None:
            if bar.total is None:  # what was there before says nothing of how fast this run is
                bar.initial = done
            bar.total = total
            bar.update(done - bar.n)

        return ensure_split(data_dir, split, progress=progress, **choices)


def load_episodes(settings: Settings, data_dir: Path, cluster: Cluster) -> EpisodeSet:
    """
    Read the episodes of the settings; a split of the houses that is not there yet is generated (by
    rank 0).

    Raises:
        InputError: the data are missing or damaged, or none of the episodes can be used.
    """
    if (
        settings.dataset == "houses"
        and cluster.rank == 0
        and not episodes_path(data_dir, "houses", settings.split).is_file()
    ):
        title = f"generating houses of {settings.split} in {data_dir}, once"
        generate_split(data_dir, settings.split, title)
    found = read_split(settings, data_dir)
    if not found.episodes:
        page = left_out_page(counted(found.rejected), len(found.rejected), "episodes")
        raise InputError("\n".join((f"{found.path} holds no episode that can be used", *page)))
    return found


def check_scenes(data_dir: Path, episodes: list[Episode]) -> None:
    """
    Find out before the first step whether scene files are missing.

    Raises:
        InputError: the first missing file, and how many episodes need missing ones.
    """
    missing = {
        scene: path
        for scene in {e.scene_id for e in episodes}
        if not (path := scene_path(data_dir, scene)).is_file()
    }
    if missing:
        raise InputError(
            f"{missing[min(missing)]} is missing; "
            f"{sum(e.scene_id in missing for e in episodes)} of {len(episodes)} episodes "
            f"need one of {len(missing)} missing scenes"
        )


def simulator_versions(settings: Settings, data_dir: Path) -> dict[str, str]:
    """
    The versions of a simulator that runs in a process of its own, asked of itself: such as
    ``habitat_sim`` and its Python as ``habitat_python``; none for the built-in one.

    Raises:
        SetupError: it cannot be started.
    """
    if settings.backend != "habitat":
        return {}
    with closing(open_env(settings, data_dir)) as env:
        found = dict(env.versions)
    return {"habitat_python": found.pop("python"), **found}


def execute(
    job: Job,
    *,
    cluster: Cluster,
    workers: int,
    count: int | None,
    identity: dict[str, Any],
    title: str,
    devices: tuple[str, ...] = (),
    threads: int | None = None,
) -> tuple[EpisodeSet, list[Episode]] | None:
    """
    Prepare, claim the output folder and run the job over its episodes.

    Returns the episode file and the episodes of this run where the results are to be merged (rank
    0), None on other ranks. ``threads``: of each worker, see `share_of`. ``identity`` is what,
    beside settings, data and versions, makes this run another one.

    Raises:
        InputError: bad data, or the output folder belongs to another run.
        FailedError: a worker failed.
    """
    out, settings = job.out, job.settings
    each = share_of(workers * cluster.local_size, threads)
    use(each)
    if cluster.rank == 0:
        count_of = "1 worker" if workers == 1 else f"{workers} workers"
        print(
            f"{count_of} of {each} thread{'s' * (each > 1)} (cores: {cores()}; --threads T for "
            "another number)",
            file=sys.stderr,
        )
    await_first_rank(out, cluster, time.time())
    found = load_episodes(settings, job.data_dir, cluster)
    episodes = choose(found.episodes, count, settings.seed)
    check_scenes(job.data_dir, episodes)
    job.check(episodes)
    manifest = {
        **identity,
        "data": {"file": found.path.name, "sha256": found.digest},
        "settings": dataclasses.asdict(settings),
        "inputs": digests(job.data_dir, [found.path, *job.reads()]),
        "scenes": scene_digests(job.data_dir, episodes),
        "versions": versions(),
    }
    run = claim_or_check(job, manifest, cluster)
    job = dataclasses.replace(job, run=run)
    merges = run_sharded(job, episodes, workers, cluster, devices=devices, title=title, run=run)
    return (found, episodes) if merges else None


def claim_or_check(job: Job, manifest: dict[str, Any], cluster: Cluster) -> str:
    """
    Claim the output folder on rank 0; on every other rank check that it is claimed for this very
    run before a line is written. Return the digest of the run.

    Raises:
        InputError: the folder belongs to another run.
    """
    if cluster.rank == 0:
        simulator = simulator_versions(job.settings, job.data_dir)
        manifest["versions"] = manifest["versions"] | simulator
        run = claim(job.out, manifest)
        atomic_write(job.out / READY, "")
        return run
    # the simulator in its own process is asked once, by rank 0
    told = read_manifest(job.out)
    return run_digest(check(job.out, {**manifest, "versions": told["versions"] | versions()}))

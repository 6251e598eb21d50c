"""
What a run read is part of the run: ``manifest.json`` holds digests of every input, of settings,
checkpoint and code, and a folder belongs to the one run that its manifest tells of.
"""

import hashlib
import json
import platform
import time
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import janusvln_ros
import sim_bridge
from janusvln_ros import __version__
from janusvln_ros.data.episodes import Episode
from janusvln_ros.data.journal import JOURNALS, read_journals
from janusvln_ros.digests import file_digest
from janusvln_ros.documents import read_object
from janusvln_ros.errors import require
from janusvln_ros.files import atomic_write, file_lock, git_state
from janusvln_ros.rollout.shards import Cluster
from sim_bridge.nav_env import scene_path

FOREIGN = ("annotations*.json", "result.jsonl", "results.jsonl", "images")
"""What a run writes: where such a thing is without a manifest, it is somebody else's."""

READY = "ready"
"""The file by which rank 0 tells the others that data and manifest are there."""


@cache
def code_digest() -> str:
    """Twelve characters that change with any line of this package's code."""
    digest = hashlib.sha256()
    for package in (janusvln_ros, sim_bridge):
        root = Path(package.__path__[0])
        for path in sorted(root.rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def versions() -> dict[str, str]:
    """Return the versions that a result may depend on; ``code`` is `code_digest`."""
    found = {
        "janusvln_ros": __version__,
        "code": code_digest(),
        "python": platform.python_version(),
    }
    for package in ("torch", "transformers", "numpy", "moderngl"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "none"
    return found


def digests(data_dir: Path, paths: Iterable[Path]) -> dict[str, str | None]:
    """
    The digest of each file by its path relative to ``data_dir``; None for one that is not there,
    since it would have been read.
    """
    root = data_dir.absolute()
    return {
        str(path.absolute().relative_to(root)): file_digest(path) if path.is_file() else None
        for path in paths
    }


def scene_digests(data_dir: Path, episodes: Sequence[Episode]) -> dict[str, str | None]:
    """
    The digests of the scenes of these episodes, and of the navigation meshes beside them: None for
    one that is not there, since one that is added later changes the ways that are open.
    """
    scenes = [scene_path(data_dir, scene) for scene in sorted({e.scene_id for e in episodes})]
    return digests(data_dir, [*scenes, *(path.with_suffix(".navmesh") for path in scenes)])


def run_digest(manifest: dict[str, Any]) -> str:
    """
    Sixteen characters that stand for a run: all of its manifest but the scenes, which grow with
    the number of its episodes, and the commit, which `code_digest` is more exact than.
    """
    fixed = {key: value for key, value in manifest.items() if key not in ("scenes", "commit")}
    return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()[:16]


def claim(out: Path, manifest: dict[str, Any]) -> str:
    """
    Write ``manifest.json`` into a new output folder, or check that the one there is the same;
    return the digest that every line of the run carries.

    Scenes that the folder's earlier episodes did not need are added.

    Raises:
        InputError: the folder belongs to a run with another manifest (the difference is named), or
            holds results without one or of another run.
    """
    path = out / "manifest.json"
    # A round trip through JSON makes lists of tuples, as they come back from the file.
    new = json.loads(json.dumps({**manifest, "commit": git_state()}))
    with file_lock(path):
        if not path.is_file():
            require_unclaimed(out)
            atomic_write(path, json.dumps(new, indent=1, ensure_ascii=False) + "\n")
            return run_digest(new)
        old = check(out, new)
        scenes = {**old.get("scenes", {}), **new.get("scenes", {})}
        if scenes != old.get("scenes", {}):
            atomic_write(
                path, json.dumps({**old, "scenes": scenes}, indent=1, ensure_ascii=False) + "\n"
            )
    return run_digest(new)


def check(out: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """
    Check that the run in ``out`` is the one of ``manifest``, and return what is written there.

    Raises:
        InputError: it is another one (what differs is named), the manifest is damaged, or a
            journal has lines of another run.
    """
    old = read_manifest(out)
    different = list(_differences(old, json.loads(json.dumps(manifest))))
    require(
        not different,
        f"{out} belongs to another run, so it is not resumed: {'; '.join(different[:5])}. Choose "
        "another --out, or repeat that run's arguments",
    )
    ours = run_digest(old)
    others = sorted({str(line.get("run")) for line in read_journals(out)} - {ours})
    require(
        not others,
        f"{out} holds lines of another run ({', '.join(others)}, not {ours}): choose another "
        "--out",
    )
    return dict(old)


def read_manifest(out: Path) -> dict[str, Any]:
    """
    What the run in ``out`` is.

    Raises:
        InputError: there is no manifest, or it is damaged.
    """
    path = out / "manifest.json"
    require(
        path.is_file(),
        f"{path} is missing, so what the folder belongs to is unknown: choose another --out",
    )
    return read_object(path, "choose another --out")


def require_unclaimed(out: Path) -> None:
    """
    Go on only where ``out`` holds no results of anybody.

    Raises:
        InputError: it does, and without ``manifest.json`` nobody knows what they belong to.
    """
    found = next((p.name for name in (JOURNALS, *FOREIGN) for p in sorted(out.glob(name))), None)
    require(
        found is None,
        f"{out} holds {found} without manifest.json, so what it belongs to is unknown: choose "
        "another folder",
    )


def await_first_rank(out: Path, cluster: Cluster, started: float, limit: float = 3600.0) -> None:
    """
    On ranks other than 0: wait until rank 0 has prepared the data and written the manifest since
    ``started`` (seconds since the epoch).

    Raises:
        InputError: that did not happen within ``limit`` seconds.
    """
    ready = out / READY
    while cluster.rank > 0 and not (ready.is_file() and ready.stat().st_mtime >= started - 60):
        require(
            time.time() <= started + limit,
            f"rank 0 prepared nothing in {out} within {limit:.0f} s: is it one "
            "folder that all ranks see?",
        )
        time.sleep(0.2)


def _differences(old: dict[str, Any], new: dict[str, Any]) -> Iterable[str]:
    """What of a manifest differs; the scenes of both alone, and never the commit."""
    both = old.get("scenes", {}).keys() & new.get("scenes", {}).keys()
    old, new = (
        {key: value for key, value in manifest.items() if key != "commit"}
        | {"scenes": {name: manifest["scenes"][name] for name in sorted(both)}}
        for manifest in (
            {"scenes": {}, **old},
            {"scenes": {}, **new},
        )
    )
    yield from _changes(old, new)


def _changes(old: Any, new: Any, name: str = "") -> Iterable[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(k for k in new if k not in old)]:
            yield from _changes(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif old != new:
        yield f"{name} was {json.dumps(old)} and is {json.dumps(new)}"

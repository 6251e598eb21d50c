"""
Whether a run may go on in its output folder, and from where.

``<output>/state/`` holds the trainer's states (``checkpoint-STEP``) and ``run.json``: how many
samples an optimizer step takes, digests of all that the run reads, and versions (another one is
logged). A state that a kill or a full disk left incomplete is not gone on from, and neither is one
of another recipe, of other data or of other weights; another number of processes shares the same
samples.
"""

import json
import logging
import os
import re
import shutil
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from filelock import Timeout
from safetensors import SafetensorError, safe_open

from janusvln_ros.data.samples import TrajectorySet
from janusvln_ros.digests import file_digest
from janusvln_ros.documents import read_object, whole
from janusvln_ros.errors import InputError, require
from janusvln_ros.files import atomic_write, file_lock
from janusvln_ros.model.adapter import some
from janusvln_ros.model.checkpoint import find
from janusvln_ros.policy.identity import checkpoint_digest
from janusvln_ros.rollout.manifest import versions
from janusvln_ros.rollout.shards import Cluster
from janusvln_ros.training.cache import set_digest, size_and_time
from janusvln_ros.training.network import shipped
from janusvln_ros.training.recipes import Recipe, load_recipe, save_recipe

log = logging.getLogger(__name__)

STATE, CHECKPOINT, RUN_FILE = "state", "checkpoint", "run.json"

MAY_CHANGE = (
    "output",
    "overwrite",
    "save_steps",
    "keep",
    "eval_steps",
    "eval_samples",
    "logging_steps",
    "tensorboard",
    "workers",
    "threads",
    "batch",
    "accumulate",
    "gradient_checkpointing",
    "max_steps",
    "epochs",
    "deepspeed",
    "fsdp",
    "stream.producers",
    "stream.uses",
    "stream.keep",
    "stream.least",
    "stream.policy",
    "stream.expert_share",
)
"""Fields that may differ when a run is resumed; batch and accumulate by their product only."""


def claim(recipe: Recipe, cluster: Cluster) -> Recipe:
    """
    Write the recipe into its output folder, or check that the state there belongs to it; the first
    process does so before the others.

    Returns:
        ``recipe``, its samples shared among the processes that there are now.

    Raises:
        InputError: the folder holds the state or the checkpoint of another run, or a state that
            cannot be gone on from.
    """
    output = Path(recipe.output)
    state, told = last_state(output), _run_file(output)
    if state and recipe.overwrite and _other(recipe, output):
        state = None
    if state is None:
        _begin(recipe, output, cluster)
        told = {}
    else:
        others = _other(recipe, output)
        require(
            not others,
            f"{output} holds the state of another run ({'; '.join(others[:3])}): give another "
            "output=FOLDER, or overwrite=true to begin anew in this one",
        )
        log.info("going on with the run in %s", output)
    shared = _shared(recipe, cluster.world_size, told, _recipe_there(output))
    if cluster.rank == 0:
        reads, runs = inputs(recipe), versions()
        _check_inputs(told.get("inputs", {}), reads, output)
        run = {
            "samples": shared.batch * shared.accumulate * cluster.world_size,
            "processes": cluster.world_size,
            "inputs": reads,
            "versions": runs,
        }
        began = told.get("versions", runs)
        for name in runs:
            if began.get(name) != runs[name]:
                log.warning("another %s: %s, was %s", name, runs[name], began.get(name))
        save_recipe(recipe, output / "recipe.yaml")
        atomic_write(output / STATE / RUN_FILE, json.dumps(run, indent=1) + "\n")
    return shared


WAIT_S = 15.0
"""Seconds that a run waits for the one before it: loaders of one that was killed live on for 5."""


@contextmanager
def sole_run(output: Path, cluster: Cluster) -> Iterator[None]:
    """
    Hold an output folder, so that no other run writes there meanwhile; the first process does so
    for all of a run.

    Raises:
        InputError: another one holds it still after ``WAIT_S``.
    """
    lock = file_lock(output / STATE)
    try:
        if cluster.rank == 0:
            lock.acquire(timeout=WAIT_S)
    except Timeout as error:
        raise InputError(
            f"another process trains into {output}: wait until it ends, or give another "
            "output=FOLDER"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _recipe_there(output: Path) -> Recipe | None:
    path = output / "recipe.yaml"
    return load_recipe(str(path)) if path.is_file() else None


def _run_file(output: Path) -> dict[str, Any]:
    """What a run wrote of itself; nothing where it began before that was done."""
    path = output / STATE / RUN_FILE
    if not path.is_file():
        return {}
    told = read_object(path, "delete it, and give the number of processes that the run began with")
    if "samples" in told:
        whole(told["samples"], f"{path}: samples", 1)
    return told


def _other(recipe: Recipe, output: Path) -> list[str]:
    """In what a recipe differs from the one whose state an output folder holds."""
    there = _recipe_there(output)
    if there is None:
        return ["which one is not known, since recipe.yaml is gone"]
    before, now = _fields(asdict(there)), _fields(asdict(recipe))
    return [
        f"{name} was {before.get(name)!r}, now {now.get(name)!r}"
        for name in sorted(before.keys() | now.keys())
        if name not in MAY_CHANGE and before.get(name) != now.get(name)
    ]


def _fields(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """The fields of a recipe by name, those of a section as ``section.name``."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        inner = _fields(value, f"{name}.") if isinstance(value, dict) else {name: value}
        found |= {f"{above}{key}": kept for key, kept in inner.items()}
    return found


def _begin(recipe: Recipe, output: Path, cluster: Cluster) -> None:
    """Make room for a run that begins; InputError where something of another would be lost."""
    damaged = sorted(str(path) for path in (output / STATE).glob("damaged-*"))
    require(
        recipe.overwrite or not damaged,
        f"{output} has no whole state left to go on from ({damaged} cannot be read): give "
        "overwrite=true to begin anew, or another output=FOLDER",
    )
    require(
        recipe.overwrite or not (output / CHECKPOINT / "config.json").is_file(),
        f"{output} holds a finished checkpoint and no state to go on from: give another "
        "output=FOLDER, or overwrite=true to train anew and replace it in the end",
    )
    if recipe.overwrite and cluster.rank == 0:
        for left in (STATE, "stream"):
            shutil.rmtree(output / left, ignore_errors=True)


def _shared(
    recipe: Recipe, processes: int, told: Mapping[str, Any], there: Recipe | None
) -> Recipe:
    """
    The recipe with ``batch`` and ``accumulate`` such that a step takes the samples that it took
    when the run began (``told``), however many processes there are.
    """
    samples = told.get("samples") or recipe.batch * recipe.accumulate * processes
    if recipe.batch * recipe.accumulate * processes == samples:
        return recipe
    before = told.get("processes", processes)
    require(
        not (recipe.deepspeed or recipe.fsdp),
        f"{recipe.output} holds a state in pieces of {before} processes, now there are "
        f"{processes}: go on with {before}",
    )
    unchanged = there is not None and (there.batch, there.accumulate) == (
        recipe.batch,
        recipe.accumulate,
    )
    require(
        unchanged and samples % processes == 0,
        f"a step of the run in {recipe.output} takes {samples} samples ({before} processes), but "
        f"batch={recipe.batch} accumulate={recipe.accumulate} on {processes} processes are "
        f"{recipe.batch * recipe.accumulate * processes}: let their product be {samples}"
        + ("" if samples % processes == 0 else ", with a number of processes that divides it"),
    )
    share = samples // processes
    batch = max(b for b in range(1, min(recipe.batch, share) + 1) if share % b == 0)
    log.info(
        "%d processes share the %d samples of a step: batch=%d accumulate=%d",
        processes,
        samples,
        batch,
        share // batch,
    )
    return replace(recipe, batch=batch, accumulate=share // batch)


# ---------------------------------------------------------------- what a run reads


def inputs(recipe: Recipe) -> dict[str, str]:
    """
    A digest of each thing that a run reads, by what it is to the recipe: checkpoints by
    `policy.identity.checkpoint_digest`, sets by their text and by size and time of their pictures.
    """
    found = {
        field: _weights_digest(shipped(named))
        for field in ("model", "semantic_model", "spatial_model", "encoders", "tokenizer")
        if (named := getattr(recipe, field))
    }
    for field in ("data", "mirrored_data", "eval_data"):
        # one that is missing is named where it is opened
        for path in filter(os.path.isfile, getattr(recipe, field)):
            found[f"{field} {path}"] = set_digest(TrajectorySet(path), size_and_time)
    for field in ("views", "gate_views"):
        folder = Path(getattr(recipe, field) or ".")
        if getattr(recipe, field) and folder.is_dir():
            files = sorted(path for path in folder.iterdir() if path.suffix in (".npy", ".txt"))
            found[f"{field} {folder}"] = " ".join(
                f"{path.name} {size_and_time(path).decode()}" for path in files
            )
    return found


def _weights_digest(path: Path) -> str:
    return file_digest(path) if path.is_file() else checkpoint_digest(find(path))


def _check_inputs(before: Mapping[str, str], now: Mapping[str, str], output: Path) -> None:
    """Raise InputError where a run that goes on would read something else than at first."""
    changed = [name for name in now if name in before and before[name] != now[name]]
    require(
        not changed,
        f"{', '.join(changed[:3])}: not what the run in {output} began with, so a part of it "
        "would learn from something else: bring that back, give another output=FOLDER, or, if "
        f"only the times of files differ, delete {output / STATE / RUN_FILE}",
    )


# ---------------------------------------------------------------- states


def last_state(output: str | Path) -> str | None:
    """
    The newest whole state to go on from, or None. States that a kill left incomplete are removed;
    ones that are damaged are passed over and put aside as ``damaged-STEP``, which is logged.
    """
    folder = Path(output) / STATE
    steps = {
        int(path.name.removeprefix("checkpoint-")): path
        for path in (folder.iterdir() if folder.is_dir() else ())
        if re.fullmatch(r"checkpoint-\d+", path.name)
    }
    for step in sorted(steps, reverse=True):
        state = steps[step]
        if not (state / "trainer_state.json").is_file():
            shutil.rmtree(state, ignore_errors=True)
            continue
        fault = state_fault(state)
        if not fault:
            return str(state)
        aside = state.with_name(f"damaged-{step}")
        log.warning("%s is damaged (%s) and put aside as %s", state, fault, aside.name)
        shutil.rmtree(aside, ignore_errors=True)
        state.rename(aside)
    return None


def state_fault(state: Path) -> str:
    """
    What keeps a state from being gone on from: a file that is empty, cut off, missing or no such
    file at all; "" if nothing does. Weights are not read.
    """
    needed = ("model.safetensors", "optimizer.pt", "scheduler.pt")
    entries = {path.name: path for path in state.iterdir()}
    in_pieces = any(
        "fsdp" in name or (path.is_dir() and name not in needed) for name, path in entries.items()
    )
    if not in_pieces:
        for name in needed:
            if name not in entries or not entries[name].is_file():
                return f"{name} is missing"
        if not any(name.startswith("rng_state") for name in entries):
            return "rng_state.pth is missing"
    for path in sorted(path for path in state.rglob("*") if path.is_file()):
        try:
            _check_file(path, int(state.name.rpartition("-")[2]))
        except (ValueError, OSError, SafetensorError, zipfile.BadZipFile) as error:
            return f"{path.name}: {error}"
    return ""


def _check_file(path: Path, step: int) -> None:
    """Look whether a file of the state of ``step`` is whole; raises what its reader does."""
    if path.name == "trainer_state.json":
        told = read_object(path).get("global_step")
        require(told == step, f"its global_step is {told!r:.20}, not {step}")
    elif path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".safetensors":
        with safe_open(path, framework="pt"):
            pass
    elif path.suffix in (".pt", ".pth", ".bin"):
        with zipfile.ZipFile(path) as packed:
            names = packed.namelist()
        require(any(name.endswith("/data.pkl") for name in names), "it holds nothing")


def check_weights(state: Path, names: Collection[str]) -> None:
    """
    Go on only where a state holds every weight of the network that is trained; more than these may
    be there.

    Raises:
        InputError: it lacks some, which would stay as they were at first.
    """
    with safe_open(state / "model.safetensors", framework="pt") as file:
        absent = sorted(set(names) - set(file.keys()))
    require(
        not absent,
        f"{state} lacks {len(absent)} weights of the network ({some(absent, 3)}): it was written "
        "by another version or for another network; give another output=FOLDER",
    )

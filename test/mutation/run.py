"""
Put small mistakes into what must not be wrong, one at a time, and see whether a test notices.

  python test/mutation/run.py                    200 mistakes drawn with seed 1, and the fixed ones
  python test/mutation/run.py --count 50 --seed 7 --only protocol/moving

Every mistake is made in a copy of the tree and judged by the tests that should see it
(`targets.yaml`); a run of them that hangs has noticed. Mistakes that change nothing that could be
seen are listed with the reason in `equivalent.yaml` and not drawn. Exit 1 where a fixed mistake
or more than 5 % of the drawn ones survive.
"""

import argparse
import os
import queue
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from operators import mutants

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PASSES = 0.95
"""Share of the drawn mistakes that tests must notice."""
PATIENCE = 5.0
"""A run of tests that takes so many times as long as without a mistake hangs."""


@dataclass(frozen=True)
class Mistake:
    """A mistake in the file of ``module`` (in ``janusvln_ros``), and the tests that see it."""

    name: str
    module: str
    source: str
    tests: tuple[str, ...]


def read_yaml(name: str):
    return yaml.safe_load((HERE / f"{name}.yaml").read_text())


def path_of(module: str) -> Path:
    return Path("janusvln_ros") / f"{module}.py"


def fixed() -> list[Mistake]:
    """The mistakes of `fixed.yaml`."""
    found = []
    for item in read_yaml("fixed"):
        source = (ROOT / path_of(item["file"])).read_text()
        assert source.count(item["old"]) == 1, f"{item['name']}: {item['file']} has another text"
        source = source.replace(item["old"], item["new"])
        found.append(Mistake(item["name"], item["file"], source, tuple(item["tests"])))
    return found


def possible() -> list[Mistake]:
    """Every mistake of the operators in the targets, without those that change nothing."""
    same = {(e["file"], e["function"], e["before"], e["after"]) for e in read_yaml("equivalent")}
    found = []
    for module, target in read_yaml("targets").items():
        source = (ROOT / path_of(module)).read_text()
        wanted = target.get("functions")
        for m in mutants(source):
            inside = any(f"{m.function}.".startswith(f"{name}.") for name in wanted or [])
            if (wanted and not inside) or (module, m.function, m.before, m.after) in same:
                continue
            name = f"{m.operator}: {m.before!r} -> {m.after!r}"
            place = f"{path_of(module)}:{m.line} {m.function}"
            tests = tuple(target["tests"])
            found.append(Mistake(f"{place}: {name}", module, m.applied(source), tests))
    return found


def copy_tree(to: Path) -> Path:
    """What git tracks, and what it would, below ``to``."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.check_output(listed, cwd=ROOT, text=True).split("\0"):
        if name and (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)
    return to


def seconds_of_tests(tree: Path, tests: Iterable[str], limit: float) -> float | None:
    """Seconds that the tests take, which pass; None where one fails, or all take too long."""
    environment = {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    # of a file and its folder pytest runs the file alone, unless it may run it twice
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--keep-duplicates", *tests]
    command += ["-p", "no:cacheprovider"]
    begin = time.monotonic()
    with subprocess.Popen(
        command,
        cwd=tree,
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            return None
    return time.monotonic() - begin if code == 0 else None


def survives(mistake: Mistake, tree: Path, usual: dict[tuple[str, ...], float]) -> bool:
    """Whether the tests pass with the mistake in the copy ``tree``."""
    path = tree / path_of(mistake.module)
    right = path.read_text()
    try:
        path.write_text(mistake.source)
        limit = PATIENCE * usual[mistake.tests] + 10
        return seconds_of_tests(tree, mistake.tests, limit) is not None
    finally:
        path.write_text(right)


def judge(mistakes: list[Mistake], workers: int) -> list[Mistake]:
    """Those that no test noticed."""
    with TemporaryDirectory(prefix="mutants-") as folder:
        trees: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for i in range(workers):
            trees.put(copy_tree(Path(folder) / str(i)))
        usual: dict[tuple[str, ...], float] = {}

        def with_tree(work):
            tree = trees.get()
            try:
                return work(tree)
            finally:
                trees.put(tree)

        def without(tests):
            seconds = with_tree(lambda tree: seconds_of_tests(tree, tests, 1800))
            assert seconds is not None, f"{' '.join(tests)}: fails without a mistake"
            usual[tests] = seconds

        def one(number_and_mistake):
            number, mistake = number_and_mistake
            lives = with_tree(lambda tree: survives(mistake, tree, usual))
            word = "SURVIVES" if lives else "noticed"
            print(f"{number}/{len(mistakes)} {word} {mistake.name}", flush=True)
            return lives

        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(without, {m.tests for m in mistakes}))
            lives = list(pool.map(one, enumerate(mistakes, 1)))
    return [m for m, alive in zip(mistakes, lives) if alive]


def main() -> int:
    """Draw, judge, and print what survived."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=200, help="how many are drawn")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--only", default="", help="beginning of a place, as protocol/moving")
    args = parser.parse_args()
    chosen = [m for m in possible() if m.module.startswith(args.only)]
    drawn = random.Random(args.seed).sample(chosen, min(args.count, len(chosen)))
    known = [m for m in fixed() if m.module.startswith(args.only)]
    begin = time.monotonic()
    alive = judge(known + drawn, args.workers)
    minutes = (time.monotonic() - begin) / 60
    missed = [m for m in alive if m in drawn]
    killed = len(drawn) - len(missed)
    print(
        f"\n{len(known) - (len(alive) - len(missed))} of {len(known)} fixed mistakes and {killed} "
        f"of {len(drawn)} drawn from {len(chosen)} (seed {args.seed}) noticed; "
        f"{minutes:.1f} minutes"
    )
    print(*(f"survives: {m.name}" for m in alive), sep="\n")
    return int(len(alive) > len(missed) or killed < PASSES * len(drawn))


if __name__ == "__main__":
    sys.exit(main())

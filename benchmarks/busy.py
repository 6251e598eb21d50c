"""
What other work on the same computer does to the promise that a robot stops in time, and what gives
it back.

    python benchmarks/busy.py [--loops 6] [--trials 3] [--means nothing ...] [--json FILE]

Beside so many busy loops, each in a session of its own, the continuous simulator drives; in
mid-motion `policy` or `motion` is killed (-9). Columns: seconds from the kill of `policy` to the
last velocity other than zero, and from the kill of `motion`, which leaves the base to its own
time-out of 0.2 s, to standstill by odometry; the worst of the trials. Rows: what was done for
`motion` and for what drives the base. The program that measures runs before everything else where
that is allowed; what is not allowed is left out, and said.

On Linux with autogroups (/proc/sys/kernel/sched_autogroup_enabled) a process's nice value counts
within its session only: `renice` does nothing against work of another terminal.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from two_computers import time_to_zero

from janusvln_ros.files import atomic_write

ROBOT = ("motion", "sim_bridge")
"""What must be in time on a robot: `motion`, and what drives the base."""

ATTEMPTS = 8
"""Drives that are begun before it is said that none can be."""

ENDED_S = 3.0
"""Seconds after a kill in which everything has come to rest."""

STANDSTILL = 0.01
"""Metres and radians a second."""


def nothing(pid: int) -> None:
    """Leave a process as it is."""


def nicer(pid: int) -> None:
    """What 'renice -n -10' does."""
    os.setpriority(os.PRIO_PROCESS, pid, -10)


def nicer_session(pid: int) -> None:
    """The same for the process's session as a whole."""
    Path(f"/proc/{pid}/autogroup").write_text("-10")


def real_time(pid: int) -> None:
    """What 'chrt --all-tasks --rr --pid 50' does."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setscheduler(int(task.name), os.SCHED_RR, os.sched_param(50))


MEANS: dict[str, Callable[[int], None]] = {
    "nothing": nothing,
    "renice -n -10": nicer,
    "echo -10 > /proc/PID/autogroup": nicer_session,
    "chrt --all-tasks --rr 50": real_time,
}


@contextlib.contextmanager
def loops(count: int) -> Iterator[None]:
    """``count`` processes that never wait, as long as the block runs."""
    words = [sys.executable, "-c", "while True: sum(range(10**6))"]
    running = [subprocess.Popen(words, start_new_session=True) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def trial(killed: str, means: Callable[[int], None], data: str) -> float | None:
    """
    Seconds from the kill of a node in mid-motion to rest, see the module; None where it never
    drove: what comes too late is not driven on.
    """
    from geometry_msgs.msg import Twist
    from nav_msgs.msg import Odometry

    from janusvln_ros.graph.composition import resolve
    from janusvln_ros.graph.connection import GraphTimeoutError
    from janusvln_ros.graph.private import private_graph
    from janusvln_ros.graph.processes import NodeEndedError

    given = {"mode": "continuous", "data_dir": data, "split": "val_unseen"}
    # a robot's scanner is a computer of its own
    specs = resolve("simulation", given, {"motion": {"range_source": "none"}})
    sent: list[tuple[float, bool]] = []
    moved: list[tuple[float, bool]] = []
    at: list[float] = []
    with (
        tempfile.TemporaryDirectory() as logs,
        private_graph(specs, Path(logs)) as (client, processes),
    ):
        pids = {name: process.pid for name, process in processes.running.items()}

        def take(message: Twist) -> None:
            sent.append((time.monotonic(), bool(message.linear.x or message.angular.z)))
            if not at and len(sent) > 10 and all(moving for _, moving in sent[-5:]):
                os.kill(pids[killed], signal.SIGKILL)
                at.append(time.monotonic())

        def feel(message: Odometry) -> None:
            twist = message.twist.twist
            fast = max(abs(twist.linear.x), abs(twist.angular.z)) > STANDSTILL
            moved.append((time.monotonic(), fast))

        client.node.create_subscription(Twist, "cmd_vel", take, 50)
        client.node.create_subscription(Odometry, "odom", feel, 50)
        client.wait_ready(600.0)
        for name in ROBOT:
            means(pids[name])
        with contextlib.suppress(PermissionError):
            real_time(os.getpid())
        try:
            # late inputs refuse arming, and end steps: try again
            for _ in range(ATTEMPTS):
                with contextlib.suppress(NodeEndedError, GraphTimeoutError):
                    episode = client.reset("")
                    client.arm()
                    client.drive(episode, episode.instruction, 40, patience=120.0)
                if at:
                    break
                client.linger(lambda: False, 1.0)
            client.alive = lambda: None
            client.linger(lambda: False, ENDED_S)
        finally:
            # whatever is started next would have it too
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    if not at:
        return None
    rest = time_to_zero(list(map(list, moved if killed == "motion" else sent)), at[0], at[0] + 60)
    if rest is None:
        raise SystemExit(f"it still moved {ENDED_S} s after {killed} was killed")
    return rest


def worst(trials: list[float | None]) -> str:
    """A cell of the table."""
    rests = [rest for rest in trials if rest is not None]
    idle = f"{len(trials) - len(rests)} of {len(trials)} never drove"
    return ", ".join([f"{max(rests):.3f}"] * bool(rests) + [idle] * (len(rests) < len(trials)))


def main() -> None:
    """Measure, print the table, and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--loops", type=int, default=6)
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--means", nargs="*", choices=MEANS, default=list(MEANS), help="rows")
    parser.add_argument("--data", default="data")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    print(f"| beside {args.loops} busy loops | policy killed, s | motion killed, s |", flush=True)
    print("|---|---|---|")
    for name in args.means:
        means = MEANS[name]
        with loops(args.loops):
            try:
                row: dict[str, Any] = {"means": name} | {
                    killed: [trial(killed, means, args.data) for _ in range(args.trials)]
                    for killed in ("policy", "motion")
                }
            except PermissionError as error:
                print(f"| {name} | not allowed here: {error.strerror} | |", flush=True)
                continue
        rows.append(row)
        print(f"| {name} | {worst(row['policy'])} | {worst(row['motion'])} |", flush=True)
    if args.json:
        atomic_write(args.json, json.dumps({"loops": args.loops, "rows": rows}) + "\n")


if __name__ == "__main__":
    main()

"""
Brain and body apart: how a lossy, slow or broken link between two computers shows in a drive.

    python benchmarks/two_computers.py [--steps 20] [--data DIR] [--json FILE]

Two network namespaces stand for the two computers, each with a shared memory, a host name and a
machine id of its own: ``body`` has camera, base and motion (the continuous simulator), ``brain``
the policy. Between them a relay hands every Ethernet frame on after a delay, or loses it, in both
directions (netem is not in every kernel). For each link the same episode is driven twice: to its
end, and until the link is cut in mid-motion for three seconds. Needs root and ip (iproute2), and
says so where it cannot run.

Columns: how the drive ended; decisions per second; seconds from the cut to zero velocity on
cmd_vel; how that drive ended. Delays are one way; loss is that of single Ethernet frames.
"""

import argparse
import contextlib
import fcntl
import heapq
import json
import os
import queue
import random
import select
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

LINKS = {
    "0ms": (0.0, 0.0),
    "20ms": (0.02, 0.0),
    "50ms": (0.05, 0.0),
    "1%": (0.0, 0.01),
    "5%": (0.0, 0.05),
    "20ms+1%": (0.02, 0.01),
}
"""Seconds of delay one way, and share of frames that are lost."""

SIDES = {"body": ("sim_bridge", "motion"), "brain": ("policy",)}
"""Which nodes run on which computer."""

CUT_S = 3.0
"""Seconds for which the link is cut."""

FRAME_BYTES = 65_536


def tap(name: str) -> int:
    """Make a TAP interface (kernel: networking/tuntap) and return the file of its other end."""
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(end, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x1002))  # TAP, no header
    return end


class Relay:
    """
    A cable between two interfaces that can be made worse while it is in use. ``delay`` in seconds
    one way, ``loss`` a share of frames, ``cut``: nothing passes.
    """

    def __init__(self, interfaces: tuple[str, str]):
        self.ends = [tap(name) for name in interfaces]
        self.delay = self.loss = 0.0
        self.cut = False
        self.passed = self.bytes = self.lost = 0

    def run(self) -> None:
        """Hand frames on, for ever."""
        chance, waiting = random.Random(0), list[tuple[float, int, int, bytes]]()
        number = 0
        while True:
            wait = max(0.0, waiting[0][0] - time.monotonic()) if waiting else 0.2
            for end in select.select(self.ends, [], [], min(wait, 0.2))[0]:
                frame = os.read(end, FRAME_BYTES)
                if self.cut or chance.random() < self.loss:
                    self.lost += 1
                    continue
                number += 1
                other = 1 - self.ends.index(end)
                heapq.heappush(waiting, (time.monotonic() + self.delay, number, other, frame))
            if self.cut:
                waiting.clear()  # what is under way is lost too
            while waiting and waiting[0][0] <= time.monotonic():
                _, _, other, frame = heapq.heappop(waiting)
                with contextlib.suppress(OSError):
                    os.write(self.ends[other], frame)
                    self.passed, self.bytes = self.passed + 1, self.bytes + len(frame)


def relay(interfaces: tuple[str, str]) -> None:
    """Run a relay that takes its settings, a JSON object a line, from stdin; answers counts."""
    cable = Relay(interfaces)
    threading.Thread(target=cable.run, daemon=True).start()
    print(json.dumps({"there": interfaces}), flush=True)
    for line in sys.stdin:
        vars(cable).update(json.loads(line))
        told = {"passed": cable.passed, "bytes": cable.bytes, "lost": cable.lost}
        print(json.dumps(told | {"at": time.monotonic()}), flush=True)


def run(*words: str) -> None:
    """Run a command that must succeed."""
    subprocess.run(words, check=True, capture_output=True)


@contextlib.contextmanager
def network(mark: str) -> Iterator[dict[str, str]]:
    """Namespaces for the two sides and the air between them; their names, by what they are."""
    spaces = {name: f"{mark}-{name}" for name in (*SIDES, "air")}
    with contextlib.ExitStack() as held:
        for space in spaces.values():
            run("ip", "netns", "add", space)
            held.callback(run, "ip", "netns", "del", space)
            run("ip", "-n", space, "link", "set", "lo", "up")
        yield spaces


def plug_in(spaces: dict[str, str], interfaces: list[str]) -> None:
    """Give each side its end of the cable, with an address."""
    for number, (side, name) in enumerate(zip(SIDES, interfaces), 1):
        run("ip", "-n", spaces["air"], "link", "set", name, "netns", spaces[side])
        run("ip", "-n", spaces[side], "addr", "add", f"10.77.0.{number}/24", "dev", name)
        run("ip", "-n", spaces[side], "link", "set", name, "up")
        run("ip", "-n", spaces[side], "route", "add", "default", "dev", name)  # multicast too


OWN = """
mount -t tmpfs tmpfs /dev/shm
hostname "$1"
echo "$1" | md5sum | cut -c1-32 > "$2/machine-id"
[ -e /etc/machine-id ] && mount --bind "$2/machine-id" /etc/machine-id
shift 2
exec "$@"
"""
"""What makes a namespace a computer of its own, before the command that follows."""


def computer(space: str, folder: Path, *words: str) -> "subprocess.Popen[str]":
    """Start this script with ``words`` on the computer of a network namespace."""
    folder.mkdir(parents=True)
    inside = ["unshare", "-m", "-u", "sh", "-ec", OWN, "sh", space, str(folder)]
    own = [sys.executable, str(Path(__file__).resolve()), *words]
    environment = dict(os.environ) | {
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path[1:])]),
    }
    return subprocess.Popen(
        ["ip", "netns", "exec", space, *inside, *own],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=(folder / "stderr.txt").open("w"),
        text=True,
        env=environment,
    )


def specs_of(side: str, data: str) -> list[Any]:
    """The nodes of one computer."""
    from janusvln_ros.graph.composition import resolve

    given = {"mode": "continuous", "data_dir": data, "split": "val_unseen"}
    # the scanner lives on the body, and shares two cores with everything else here
    slow = {"motion": {"range_timeout": 1.0}}
    return [spec for spec in resolve("simulation", given, slow) if spec.name in SIDES[side]]


def brain(data: str, folder: str) -> None:
    """The policy, until stdin ends."""
    from janusvln_ros.graph.processes import Processes, middleware_environment

    with Processes(specs_of("brain", data), Path(folder), middleware_environment(0, False)) as ran:
        while not select.select([sys.stdin], [], [], 0.2)[0]:
            ran.check()


def body(data: str, folder: str) -> None:
    """
    The robot and who tells it where to go. Each line of stdin asks for a drive: a JSON object with
    ``episode``, ``steps`` and ``cut``; each of stdout tells of one: "moving" where the link may be
    cut, and the outcome.
    """
    from janusvln_ros.graph.client import GraphClient
    from janusvln_ros.graph.processes import Processes, middleware_environment

    environment = middleware_environment(0, False)
    with Processes(specs_of("body", data), Path(folder), environment) as processes:
        client = GraphClient(environment, processes.check)
        try:
            client.wait_ready(600.0)
            print(json.dumps({"ready": True}), flush=True)
            for line in sys.stdin:
                print(json.dumps(drive(client, **json.loads(line))), flush=True)
        finally:
            client.close()


def drive(client: Any, episode: str, steps: int, cut: bool) -> dict[str, Any]:
    """One drive of at most ``steps`` decisions; figures in seconds."""
    from geometry_msgs.msg import Twist

    from janusvln_ros.graph.client import Outcome
    from janusvln_ros.graph.connection import GraphTimeoutError

    sent: list[tuple[float, bool]] = []  # when, and whether it was a velocity other than zero

    def take(message: Twist) -> None:
        moving = message.linear.x != 0.0 or message.angular.z != 0.0
        if cut and moving and not any(moved for _, moved in sent[-1:]) and len(sent) > 0:
            print(json.dumps({"moving": time.monotonic()}), flush=True)
        sent.append((time.monotonic(), moving))

    heard = client.node.create_subscription(Twist, "cmd_vel", take, 50)
    try:
        started = client.reset(episode)
        client.arm()
        begun = time.monotonic()
        try:
            outcome = client.drive(started, started.instruction, steps, patience=120.0)
        except GraphTimeoutError as error:
            outcome = Outcome("no answer", str(error), 0, 120.0)
        seconds = time.monotonic() - begun
        client.arm(False)
        client.linger(lambda: False, 0.5)
    finally:
        client.node.destroy_subscription(heard)
    code = outcome.code if outcome.code != "NONE" else "stopped by itself"
    told = {"code": code, "message": outcome.message, "steps": outcome.steps, "seconds": seconds}
    return told | {"sent": sent if cut else []}


class Lines:
    """The lines of a process, one JSON object each, as they come."""

    def __init__(self, process: "subprocess.Popen[str]", name: str):
        self.process, self.name = process, name
        self.queue: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.queue.put(line)

    def tell(self, **what: Any) -> None:
        """Send an object."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()

    def hear(self, wanted: Callable[[dict[str, Any]], bool], seconds: float) -> dict[str, Any]:
        """The next object that is ``wanted``."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(queue.Empty):
                told: dict[str, Any] = json.loads(self.queue.get(timeout=0.2))
                if wanted(told):
                    return told
            if self.process.poll() is not None:
                raise SystemExit(f"{self.name} ended with {self.process.returncode}")
        raise SystemExit(f"{self.name} said nothing for {seconds:.0f} s")


def cut_drive(robot: Lines, cable: Lines, **asked: Any) -> dict[str, Any]:
    """
    A drive whose link is cut in its second motion; with ``zero``, seconds to zero velocity. One
    that ends before is driven again, twice.
    """
    for _ in range(3):
        robot.tell(**asked, cut=True)
        for _ in range(2):
            told = robot.hear(lambda told: "moving" in told or "code" in told, 180.0)
            if "code" in told:
                break
        else:
            break
    else:
        return told | {"zero": None}
    time.sleep(0.2)
    cable.tell(cut=True)
    at = cable.hear(lambda told: True, 5.0)["at"]
    time.sleep(CUT_S)
    cable.tell(cut=False)
    cable.hear(lambda told: True, 5.0)
    told = robot.hear(lambda told: "code" in told, 180.0)
    told["zero"] = time_to_zero(told.pop("sent"), at, at + CUT_S)
    return told


def time_to_zero(sent: list[list[Any]], begun: float, end: float) -> float | None:
    """Seconds from ``begun`` to the first zero command that no other follows before ``end``."""
    during = [(at, moving) for at, moving in sent if begun <= at <= end]
    last = max((at for at, moving in during if moving), default=begun)
    stopped = [at for at, moving in during if not moving and at >= last]
    return stopped[0] - begun if stopped else None


def measure(
    name: str, link: tuple[float, float], robot: Lines, cable: Lines, **asked: Any
) -> dict[str, Any]:
    """A row of the table."""
    cable.tell(delay=link[0], loss=link[1], cut=False)
    before = cable.hear(lambda told: True, 5.0)
    robot.tell(**asked, cut=False)
    whole = robot.hear(lambda told: "code" in told, 180.0)
    cable.tell()
    after = cable.hear(lambda told: True, 5.0)
    row = {
        "link": name,
        "result": whole["code"],
        "message": whole["message"],
        "decisions": whole["steps"],
        "decisions_per_second": whole["steps"] / whole["seconds"],
        "kilobytes_per_second": (after["bytes"] - before["bytes"]) / 1e3 / whole["seconds"],
    }
    broken = cut_drive(robot, cable, **asked)
    cable.tell(delay=0.0, loss=0.0)
    cable.hear(lambda told: True, 5.0)
    return row | {
        "zero": broken["zero"],
        "cut_result": broken["code"],
        "cut_message": broken["message"],
    }


def possible() -> str | None:
    """Why this cannot run here, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root: run it with sudo"
    if not shutil.which("ip") or not shutil.which("unshare"):
        return "needs ip (iproute2) and unshare (util-linux)"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "needs /dev/net/tun"
    tried = subprocess.run(["unshare", "-n", "true"], capture_output=True)
    return "this system allows no network namespace" if tried.returncode else None


def measured(data: str, folder: Path, links: list[str], **asked: Any) -> Iterator[dict[str, Any]]:
    """The rows of drives that are ``asked`` for (episode, steps), as they come."""
    with contextlib.ExitStack() as held:
        spaces = held.enter_context(network(f"jv{os.getpid() % 10**5}"))

        def start(name: str, space: str, *words: str) -> Lines:
            process = computer(spaces[space], folder / f"{name}-own", *words)

            def end() -> None:
                assert process.stdin is not None
                with contextlib.suppress(OSError):
                    process.stdin.close()
                try:
                    process.wait(15)
                except (subprocess.TimeoutExpired, KeyboardInterrupt):
                    process.kill()  # the kernel then ends its nodes
                    process.wait()

            held.callback(end)
            return Lines(process, name)

        names = [f"{spaces['air'].removesuffix('-air')}{number}" for number in (1, 2)]
        cable = start("relay", "air", "--relay", *names)
        cable.hear(lambda told: "there" in told, 10.0)
        plug_in(spaces, names)
        for side in SIDES:
            (folder / side).mkdir()
        start("brain", "brain", "--brain", data, str(folder / "brain"))
        robot = start("body", "body", "--body", data, str(folder / "body"))
        robot.hear(lambda told: "ready" in told, 600.0)
        for name in links:
            yield measure(name, LINKS[name], robot, cable, **asked)


def page(rows: list[dict[str, Any]]) -> str:
    """The table of docs/robot.md."""
    lines = [
        "| link | drive | decisions | per second | kB/s | cut: to zero | cut: drive ends with |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        zero = "none" if row["zero"] is None else f"{row['zero']:.2f} s"
        lines.append(
            f"| {row['link']} | {row['result']} | {row['decisions']} | "
            f"{row['decisions_per_second']:.2f} | {row['kilobytes_per_second']:.0f} | {zero} | "
            f"{row['cut_result']} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, add_help=True)
    parser.add_argument("--steps", type=int, default=20, help="decisions of a drive at most")
    parser.add_argument("--episode", default="", help="of val_unseen (default: the first)")
    parser.add_argument("--data", default="", help="data folder (default: the user's own)")
    parser.add_argument("--links", nargs="+", default=list(LINKS), choices=list(LINKS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to a file")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep what the nodes said")
    parser.add_argument("--relay", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--brain", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--body", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    for part, function in (("relay", relay), ("brain", brain), ("body", body)):
        if (words := getattr(args, part)) is not None:
            function(tuple(words)) if part == "relay" else function(*words)  # type: ignore
            return
    if why := possible():
        print(f"not measured: {why}")
        return
    import tempfile

    from janusvln_ros.files import user_data_dir
    from sim_bridge.homes import ensure_split

    data = args.data or str(user_data_dir())
    ensure_split(Path(data), "val_unseen", homes=1, episodes_per_home=2, jobs=1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.logs or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        rows = []
        asked = {"episode": args.episode, "steps": args.steps}
        for row in measured(str(Path(data).resolve()), folder, args.links, **asked):
            rows.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
    print(page(rows))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

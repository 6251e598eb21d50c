"""
Nodes as separate processes: started with the right middleware settings, watched, and ended so that
none is left behind. No ROS import.
"""

import contextlib
import fcntl
import functools
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from types import TracebackType
from typing import IO

from janusvln_ros.errors import InputError, require
from janusvln_ros.files import share_dir
from janusvln_ros.graph.composition import PACKAGE, NodeSpec
from janusvln_ros.lifetime import end_with_parent

STOP_SECONDS = 1.2
"""
How long a node may take to end by itself before it is killed; with the killing it stays below 2 s.
"""

DOMAINS = range(102)
"""ROS domains whose ports lie below those that Linux gives to clients."""

FREE_DOMAINS = range(60, 80)
"""
ROS domains from which a demo picks: away from 0, where robots are, and with ports below those that
Linux gives to clients.
"""

PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
"""
Where Fast DDS is told the path of a profile: from 3 on (Kilted), and before (Humble, Jazzy). It
does not read the other's name, and does not say so.
"""

LAST_WORDS_LINES = 20

LIFE = "$ "
"""How the line of a log begins that says how a process was started."""


def last_words(lines: Sequence[str]) -> str:
    """
    What a node that printed ``lines`` said last: its sentence that begins with "error:" if it left
    with one, else its last lines.
    """
    sentences = [line for line in lines if line.startswith("error: ")]
    return sentences[-1] if sentences else "\n".join(lines[-LAST_WORDS_LINES:])


class NodeEndedError(Exception):
    """
    A node ended although nobody asked it to.

    ``code`` is its exit code (negative: the signal) and ``last_words`` the end of its log.
    """

    def __init__(self, name: str, code: int, last_words: str):
        what = (
            f"was killed by {signal.Signals(-code).name}"
            if code < 0
            else f"ended with exit code {code}"
        )
        super().__init__(f"node '{name}' {what}; its last words:\n{last_words or '(none)'}")
        self.name = name
        self.code = code
        self.last_words = last_words


@functools.cache
def signals_held() -> tuple[str, ...]:
    """
    Return what comes before the command of one of our nodes: it holds signals back until the node
    can take them, so that one which is told to end while Python still starts ends in peace. Empty
    where ``env`` is not that of GNU.
    """
    words = ("env", "--block-signal=INT,TERM")
    known = subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0
    return words if known else ()


def launch_prefix(spec: NodeSpec, told: Mapping[str, str]) -> str:
    """
    Return what launch is to put before the command of a node: the prefix that the user has told
    (``ros2 launch --launch-prefix``), if the node's executable matches the filter beside it, as
    launch matches it; else what holds signals back.
    """
    told_prefix, chosen = told.get("launch-prefix", ""), told.get("launch-prefix-filter", "")
    if told_prefix and re.match(chosen, spec.executable):
        return told_prefix
    return " ".join(signals_held()) if spec.package == PACKAGE else ""


def command(spec: NodeSpec, folder: Path) -> list[str]:
    """
    Return the command that runs a node, of ours with the Python that runs this one.

    ``folder`` is for files that the node reads when it starts.

    Raises:
        InputError: no installed package has an executable of that name.
    """
    if spec.package != PACKAGE:
        return [str(_foreign(spec)), *spec.arguments(folder)]
    found = [
        e
        for e in entry_points(group="console_scripts", name=spec.executable)
        if e.value.split(".")[0] == PACKAGE
    ]
    require(
        found,
        f"executable '{spec.executable}' is not installed: run 'pip install -e .' "
        "or source the workspace",
    )
    module, function = found[0].value.split(":")
    return [
        *signals_held(),
        sys.executable,
        "-c",
        f"import sys; from {module} import {function}; sys.exit({function}())",
        *spec.arguments(folder),
    ]


def _foreign(spec: NodeSpec) -> Path:
    """The program of a node of another package, where ROS 2 installs it."""
    for prefix in filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)):
        path = Path(prefix) / "lib" / spec.package / spec.executable
        if path.is_file():
            return path
    raise InputError(
        f"package '{spec.package}', which has the node '{spec.name}', is not installed: install "
        f"it (ros-$ROS_DISTRO-{spec.package.replace('_', '-')}) and source ROS 2"
    )


def middleware_environment(domain: int | None, localhost: bool) -> dict[str, str]:
    """
    The environment variables that a process of the graph needs: room for raw images in shared
    memory, the domain, and whom to talk to.

    What the user has set is kept, except where ``domain`` or ``localhost`` ask for something else.
    """
    environment = dict(os.environ)
    new, old = PROFILE_VARIABLES
    environment[new] = environment.get(new) or environment.get(old) or str(shipped_profile())
    environment[old] = environment.get(old) or environment[new]
    environment.setdefault("RCUTILS_COLORIZED_OUTPUT", "0")
    environment["PYTHONUNBUFFERED"] = "1"
    if domain is not None:
        environment["ROS_DOMAIN_ID"] = str(domain)
    if localhost:
        environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        environment["ROS_LOCALHOST_ONLY"] = "1"  # the older name of the same, for Humble
        if not os.environ.get("ROS_DISTRO", "").startswith("humble"):
            environment.pop("ROS_LOCALHOST_ONLY")
    return environment


def shipped_profile() -> Path:
    """The profile of Fast DDS that has room for raw images in shared memory."""
    return share_dir() / "config" / "fastdds_shm.xml"


def domain_ports(domain: int) -> range:
    """
    The UDP ports of a ROS domain on this machine (DDS-RTPS 9.6.1): discovery, then two per
    participant.
    """
    return range(7400 + 250 * domain, 7400 + 250 * (domain + 1))


def domain_owners(
    domain: int, proc: Path = Path("/proc/net"), shm: Path = Path("/dev/shm")
) -> set[int]:
    """
    User ids that have a socket or a shared-memory port open in ``domain`` on this machine; empty
    where the system does not tell.
    """
    owners, ports = set(), domain_ports(domain)
    for table in ("udp", "udp6"):
        with contextlib.suppress(OSError):
            for line in (proc / table).read_text().splitlines()[1:]:
                fields = line.split()
                if int(fields[1].rsplit(":", 1)[1], 16) in ports:
                    owners.add(int(fields[7]))
    with contextlib.suppress(OSError):
        for path in shm.glob("fastrtps_port*"):
            number = path.name.removeprefix("fastrtps_port")
            # our own left-over files do no harm, those of others cannot be opened
            if number.isdigit() and int(number) in ports and path.stat().st_uid != os.getuid():
                owners.add(path.stat().st_uid)
    return owners


def domains_in_use(proc: Path = Path("/proc/net"), shm: Path = Path("/dev/shm")) -> list[int]:
    """The ROS domains in which something on this machine has its ports open."""
    return [domain for domain in DOMAINS if domain_owners(domain, proc, shm)]


def own_folder() -> Path:
    """
    This user's own folder among the temporary ones, in which nobody else can have put a link.

    Raises:
        InputError: what has its name is somebody else's, open to others, or a link.
    """
    path = Path(tempfile.gettempdir()) / f"janusvln-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    told = path.lstat()
    require(
        stat.S_ISDIR(told.st_mode) and told.st_uid == os.getuid() and not told.st_mode & 0o077,
        f"{path} is not a folder of yours alone: remove it, or set TMPDIR to another place",
    )
    return path


@contextlib.contextmanager
def reserved_domain(wanted: int | None = None) -> Iterator[int]:
    """
    Hold a ROS domain that nobody on this machine uses, by a lock file that the kernel releases
    however the process ends.

    ``wanted`` asks for that one; else the first free one of ``FREE_DOMAINS`` is taken.

    Raises:
        InputError: the wanted domain is in use or out of range, or none is free.
    """
    require(
        wanted is None or 0 <= wanted <= 101,
        f"ROS domain {wanted} is out of range: give one from 0 to 101",
    )
    for domain in FREE_DOMAINS if wanted is None else [wanted]:
        path = own_folder() / f"ros-domain-{domain}.lock"
        # never deleted: a lock on a deleted file would not be seen by others
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            owners = domain_owners(domain)
        except OSError:
            owners = {-1}
        if owners:
            os.close(handle)
            continue
        try:
            yield domain
        finally:
            os.close(handle)
        return
    if wanted is not None:
        owners = domain_owners(wanted)
        who = (
            f"user id {', '.join(map(str, sorted(owners)))} has ports of it open"
            if owners
            else "another demo has reserved it"
        )
        raise InputError(
            f"ROS domain {wanted} is in use on this machine ({who}): give another with "
            "--domain, or leave it out and a free one is taken"
        )
    raise InputError(
        f"all ROS domains from {FREE_DOMAINS[0]} to {FREE_DOMAINS[-1]} are in use on "
        "this machine: stop a graph, or give a free one with --domain"
    )


def temporary_folder(held: contextlib.ExitStack) -> Path:
    """Return a new folder that goes when ``held`` is closed."""
    return Path(held.enter_context(tempfile.TemporaryDirectory(prefix="janusvln-ros-")))


class Processes:
    """
    Node processes that live and die together.

    Use as a context manager: whatever happens, leaving the block ends them all.

    Each node has a process group of its own, so that Ctrl-C in a terminal reaches only the parent,
    which then ends the nodes in order; if the parent is killed, the kernel sends the nodes
    SIGTERM. Start from the main thread: Linux ties that signal to the thread that started them.
    """

    def __init__(
        self, specs: Sequence[NodeSpec], log_dir: Path | None, environment: dict[str, str]
    ):
        self.specs = {spec.name: spec for spec in specs}
        self.log_dir = log_dir
        self.environment = environment
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._held = contextlib.ExitStack()

    def __enter__(self) -> "Processes":
        for spec in self.specs.values():
            for path in spec.files:
                require(
                    path.is_file(),
                    f"parameter file {path} of node '{spec.name}' is missing: "
                    "reinstall the package",
                )
        self._folder = self.log_dir or temporary_folder(self._held)
        try:
            for name in self.specs:
                self.run(name)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def run(self, name: str) -> None:
        """Start the node ``name`` of the specs, for the first time or again."""
        self.start(name, command(self.specs[name], self._folder))

    def start(self, name: str, words: Sequence[str]) -> None:
        """
        Start one process; its output goes to ``<log_dir>/<name>.log``, or to stderr without a log
        folder.
        """
        output: int | IO[bytes]
        if self.log_dir is None:
            output = sys.stderr.fileno()
        else:
            # what it said in its life before stays above
            mode = "ab" if name in self.running else "wb"
            output = self._held.enter_context((self.log_dir / f"{name}.log").open(mode))
            output.write(f"{LIFE}{shlex.join(words)}\n".encode())
            output.flush()
        parent = os.getpid()
        self.running[name] = subprocess.Popen(
            list(words),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=self.environment,
            start_new_session=True,
            preexec_fn=lambda: end_with_parent(parent, signal.SIGTERM),
        )

    def check(self) -> None:
        """
        Raise NodeEndedError if a node has ended; with several the first to be told of is one with
        an exit code other than 0.
        """
        ended = [
            (name, process.returncode)
            for name, process in self.running.items()
            if process.poll() is not None
        ]
        for name, code in sorted(ended, key=lambda item: item[1] == 0):
            raise NodeEndedError(name, int(code), self.last_words(name))

    def last_words(self, name: str) -> str:
        """What a node said last, see `last_words`."""
        if self.log_dir is None:
            return "(see above)"
        lines = (self.log_dir / f"{name}.log").read_text(errors="replace").splitlines()
        began = max(i for i, line in enumerate(lines) if line.startswith(LIFE))
        return last_words(lines[began + 1 :])

    def stop(self) -> None:
        """
        End every process: SIGINT to all, SIGKILL after ``STOP_SECONDS`` to whole groups; returns
        when none is left. A second Ctrl-C cannot interrupt it.
        """
        in_main = threading.current_thread() is threading.main_thread()
        held = signal.signal(signal.SIGINT, signal.SIG_IGN) if in_main else None
        try:
            for process in self.running.values():
                _signal_group(process, signal.SIGINT)
            end = time.monotonic() + STOP_SECONDS
            for process in self.running.values():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, end - time.monotonic()))
            for process in self.running.values():
                # the group, not only its leader: a node may have children of its own
                _signal_group(process, signal.SIGKILL)
                process.wait()
            self.running.clear()
            self._held.close()
        finally:
            if held is not None:
                signal.signal(signal.SIGINT, held)


def _signal_group(process: "subprocess.Popen[bytes]", number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)

"""
What the doctor looks at in the machine that it runs on. Pure checks over `Machine`; `look` gathers
it. What loads libraries that may end the process (torch, OpenGL) is tried in a process of its own.
No ROS import.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from janusvln_ros.files import user_data_dir
from janusvln_ros.graph.checks import FAIL, PASS, SKIP, WARN, Finding, Verdict
from janusvln_ros.graph.processes import PROFILE_VARIABLES, domains_in_use

PYTHONS = ((3, 10), (3, 15))
"""The first Python that works, and the first that is not known to."""

TESTED_RMW = ("rmw_fastrtps_cpp", "rmw_fastrtps_dynamic_cpp", "rmw_cyclonedds_cpp")

SEGMENT_BYTES = 512 * 1024
"""Fast DDS's own shared-memory segment, where no profile says another size."""

LEAST_DISK, LITTLE_DISK = 200 * 10**6, 2 * 10**9
"""Bytes without which logs and bags cannot be written, and under which it is worth a word."""

TRIAL_S = 120.0

TORCH_TRIAL = """
import json, torch
told = {"version": torch.__version__, "cuda": torch.version.cuda, "cards": []}
if torch.cuda.is_available():
    told["built_for"] = torch.cuda.get_arch_list()
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        card = {"name": torch.cuda.get_device_name(index), "free": free, "total": total}
        told["cards"].append(card | {"capability": torch.cuda.get_device_capability(index)})
    try:
        torch.ones(8, device="cuda").sum().item()
    except Exception as error:
        told["problem"] = str(error).splitlines()[0]
print(json.dumps(told))
"""

FIT_TRIAL = """
import json, sys, torch
from janusvln_ros.errors import InputError
from janusvln_ros.policy.fit import FrameWindow, JanusVLNConfig, fit
folder, device, window, asked = json.loads(sys.argv[1])
if device == "auto":
    device = "cuda" if torch.cuda.is_available() else "cpu"
try:
    config = JanusVLNConfig.from_pretrained(folder)
    kept = FrameWindow(*window) if window else None
    found = fit(config, torch.device(device), window=kept, **asked)
except InputError as error:
    print(json.dumps({"problem": str(error)}))
else:
    print(json.dumps({"use": str(found.use), "need": str(found.need), "room": found.device.name}))
"""

EGL_TRIAL = """
import json, moderngl
context = moderngl.create_context(standalone=True, backend="egl")
print(json.dumps({"renderer": context.info["GL_RENDERER"]}))
"""


@dataclass(frozen=True)
class Machine:
    """
    This machine.

    Attributes:
        python: its version.
        torch, egl: what a trial of each told; ``problem`` in it: why it does not work; None: it
            is not installed here.
        card: whether there is an NVIDIA card, whatever torch says.
        disk: free bytes by folder.
        rmw: the middleware; empty: no ROS.
        ros_problem: why ROS 2 or our messages do not import.
        variables: of the environment, as the user set them.
        segment: bytes of the shared-memory segment that the user's profile gives.
        profile_variable: where this Fast DDS is told of a profile.
        elsewhere: other ROS domains in use on this machine.
    """

    python: tuple[int, ...] = tuple(sys.version_info[:3])
    torch: Mapping[str, Any] | None = None
    egl: Mapping[str, Any] | None = None
    card: bool = False
    disk: Mapping[str, int] = field(default_factory=dict)
    rmw: str = ""
    ros_problem: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    segment: int = SEGMENT_BYTES
    profile_variable: str = PROFILE_VARIABLES[0]
    elsewhere: Sequence[int] = ()


def _python(machine: Machine) -> Verdict:
    told = ".".join(map(str, machine.python))
    if PYTHONS[0] <= machine.python[:2] < PYTHONS[1]:
        return Verdict(PASS, told)
    return Verdict(FAIL, f"this is Python {told}", "take 3.10 to 3.14")


def runs_on(built_for: Sequence[str], capability: Sequence[int]) -> bool:
    """
    Whether a build of torch for ``built_for`` (``sm_90``, ``compute_90``) has kernels for a card
    of this compute capability: binaries run on cards of their major version from their minor one
    on, intermediate code on any later card (CUDA programming guide, compatibility).
    """
    wanted = int(capability[0]), int(capability[1])
    for name in built_for:
        kind, _, digits = name.partition("_")
        if not (number := re.match(r"\d+", digits)):
            continue
        have = divmod(int(number[0]), 10)
        if kind == "compute" and have <= wanted:
            return True
        if kind == "sm" and have[0] == wanted[0] and have[1] <= wanted[1]:
            return True
    return False


def _torch(machine: Machine) -> Verdict:
    told = machine.torch
    if told is None:
        why = "torch is not installed here: the policy must run on another computer (part:=brain)"
        return Verdict(SKIP, why, "or pip install 'janusvln_ros[policy]'")
    if "version" not in told:
        return Verdict(FAIL, f"torch does not import: {told['problem']}", "install it again")
    named = f"torch {told['version']}"
    if not told["cards"]:
        if machine.card:
            why = f"{named} sees no card, though an NVIDIA card is there"
            return Verdict(WARN, why, "install a build for it (TORCH=cuda make setup)")
        return Verdict(PASS, f"{named}, no card")
    for card in told["cards"]:
        if not runs_on(told.get("built_for", ()), card["capability"]):
            major, minor = card["capability"]
            built = ", ".join(told.get("built_for", ())) or "nothing"
            why = f"{named} is built for {built}; {card['name']} is sm_{major}{minor}"
            return Verdict(FAIL, why, "install a build of torch for this card (NVIDIA's index)")
    if problem := told.get("problem"):
        return Verdict(FAIL, f"{named} runs no kernel: {problem}", "driver and build must match")
    cards = ", ".join(f"{c['name']} ({c['free'] / 1e9:.0f} GB free)" for c in told["cards"])
    return Verdict(PASS, f"{named} on {cards}")


def _egl(machine: Machine) -> Verdict:
    told = machine.egl
    if told is None:
        return Verdict(SKIP, "the simulator is not installed here: a robot needs none")
    if problem := told.get("problem"):
        remedy = "apt-get install libegl1 libgl1-mesa-dri, for simulations"
        return Verdict(WARN, f"EGL draws nothing: {problem}", remedy)
    return Verdict(PASS, f"EGL draws with {told['renderer']}")


def _disk(machine: Machine) -> Verdict:
    if not machine.disk:
        return Verdict(SKIP, "not told")
    folder, free = min(machine.disk.items(), key=lambda item: item[1])
    told = f"{free / 1e9:.1f} GB free in {folder}"
    if free < LEAST_DISK:
        return Verdict(FAIL, told, "make room: logs and bags cannot be written")
    if free < LITTLE_DISK:
        return Verdict(WARN, told, "make room before recording a bag")
    return Verdict(PASS, told)


def _ros(machine: Machine) -> Verdict:
    if machine.ros_problem:
        remedy = "run 'make setup', or source the workspace that has janusvln_msgs"
        return Verdict(FAIL, machine.ros_problem, remedy)
    named = machine.variables.get("ROS_DISTRO", "")
    if machine.rmw not in TESTED_RMW:
        why = f"{machine.rmw} is not among those that were tried ({', '.join(TESTED_RMW)})"
        return Verdict(WARN, why, "nodes of different middlewares may not hear each other")
    return Verdict(PASS, f"{machine.rmw}{' of ' if named else ''}{named}")


def _discovery(machine: Machine) -> Verdict:
    told = machine.variables
    reach = told.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET").upper()
    peers = [peer for peer in told.get("ROS_STATIC_PEERS", "").split(";") if peer]
    domain = told.get("ROS_DOMAIN_ID", "0")
    if reach not in ("SUBNET", "LOCALHOST", "OFF", "SYSTEM_DEFAULT"):
        why = f"ROS_AUTOMATIC_DISCOVERY_RANGE is {reach}"
        return Verdict(FAIL, why, "SUBNET for several computers, LOCALHOST for one")
    if reach == "OFF":
        why = "ROS_AUTOMATIC_DISCOVERY_RANGE is OFF: no node finds another"
        return Verdict(FAIL, why, "SUBNET for several computers, LOCALHOST for one")
    if not domain.isdigit() or int(domain) > 101:
        why = f"ROS_DOMAIN_ID is {domain}"
        return Verdict(FAIL, why, "a number from 0 to 101, the same on every computer")
    if told.get("ROS_LOCALHOST_ONLY", "0") not in ("", "0") and reach == "SUBNET":
        why = "ROS_LOCALHOST_ONLY is set: other computers are not heard"
        return Verdict(WARN, why, "unset it, and use ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST")
    if strange := [peer for peer in peers if "," in peer or " " in peer.strip()]:
        why = f"ROS_STATIC_PEERS holds {strange[0]!r}"
        return Verdict(FAIL, why, "separate addresses by semicolons")
    who = {"LOCALHOST": "this machine alone"}.get(reach, "this network")
    beside = f", and {', '.join(map(_address, peers))}" if peers else ""
    others = f"; other domains in use here: {', '.join(map(str, machine.elsewhere))}"
    return Verdict(PASS, f"domain {domain}, {who}{beside}{others if machine.elsewhere else ''}")


def _address(peer: str) -> str:
    try:
        return str(ip_address(peer.strip()))
    except ValueError:
        return f"{peer.strip()} (a name)"


MACHINE_CHECKS: Mapping[str, Callable[[Machine], Verdict]] = {
    "Python": _python,
    "torch": _torch,
    "EGL": _egl,
    "disk": _disk,
    "ROS 2": _ros,
    "discovery": _discovery,
}
"""Every check of this machine, by the name under which it is told."""


def examine_machine(machine: Machine) -> list[Finding]:
    """Every check's finding."""
    return [Finding(name, *check(machine)) for name, check in MACHINE_CHECKS.items()]


def shared_memory(machine: Machine, picture: Any | None, raw: bool) -> Finding:
    """
    Whether a picture fits into the shared-memory segment of a driver that is started from a shell
    like this one; ``picture``: a camera message, None: none came.
    """
    name = "shared memory"
    if not machine.rmw.startswith("rmw_fastrtps"):
        return Finding(name, SKIP, "only Fast DDS has a segment of fixed size")
    if picture is None:
        return Finding(name, SKIP, "no picture came")
    size, room = len(picture.data), machine.segment
    told = f"a picture is {size / 1e3:.0f} kB, the segment {room / 1e3:.0f} kB"
    if size < room:
        return Finding(name, PASS, told)
    remedy = (
        f"start the camera's driver with {machine.profile_variable}=.../config/fastdds_shm.xml"
        + (", or use transport:=compressed" if raw else "")
    )
    return Finding(name, WARN, f"{told}: frames are lost", remedy)


def fit_told(folder: str, parameters: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """
    Whether the checkpoint in ``folder`` fits into this machine as the policy's parameters ask
    (`janusvln_ros.policy.fit`): ``use``, ``need`` and ``room``, or ``problem``. None: no torch.
    """
    said = {name: parameters.get(name, "auto") for name in ("precision", "spatial_precision")}
    memory = parameters.get("memory", "auto")
    said |= {} if memory == "auto" else {"memory": memory}
    window = list(parameters.get("window", ()))
    told = [
        folder,
        parameters.get("device", "auto"),
        window if min(window, default=-1) >= 0 else 0,
    ]
    return _outcome(_trial("torch", FIT_TRIAL, json.dumps([*told, said])))


def memory(told: Mapping[str, Any] | None) -> Finding:
    """Whether the checkpoint fits, of what `fit_told` says; None: it is loaded elsewhere."""
    name = "memory"
    if told is None:
        return Finding(name, SKIP, "the checkpoint or torch is not on this machine")
    if problem := told.get("problem"):
        remedy = "set what would fit (precision, window), or end what else takes memory"
        return Finding(name, FAIL, problem, remedy)
    return Finding(name, PASS, f"{told['use']} takes {told['need']} of {told['room']}")


def segment_bytes(profile: str | None) -> int:
    """Bytes of the shared-memory segment that a profile of Fast DDS gives."""
    try:
        told = Path(profile or "").read_text()
    except OSError:
        return SEGMENT_BYTES
    found = re.search(r"<segment_size>\s*(\d+)\s*</segment_size>", told)
    return int(found[1]) if found else SEGMENT_BYTES


def profile_variable() -> str:
    """Which of `PROFILE_VARIABLES` the Fast DDS reads that this process has loaded."""
    new, old = PROFILE_VARIABLES
    with contextlib.suppress(OSError):
        if "libfastrtps.so" in Path("/proc/self/maps").read_text():  # its name before 3
            return old
    return new


def _trial(package: str, program: str, *words: str) -> "subprocess.Popen[str] | None":
    if find_spec(package) is None:
        return None
    return subprocess.Popen(
        [sys.executable, "-c", program, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _outcome(trial: "subprocess.Popen[str] | None") -> Mapping[str, Any] | None:
    if trial is None:
        return None
    try:
        out, err = trial.communicate(timeout=TRIAL_S)
    except subprocess.TimeoutExpired:
        trial.kill()
        trial.communicate()
        return {"problem": f"a trial did not end within {TRIAL_S:.0f} s"}
    lines = err.strip().splitlines() or [f"exit code {trial.returncode}"]
    return dict(json.loads(out.splitlines()[-1])) if out.strip() else {"problem": lines[-1]}


def look(variables: Mapping[str, str]) -> Callable[[], Machine]:
    """
    Begin to look at this machine; the function that is returned waits for the trials.

    ``variables``: the environment as the user has set it.
    """
    trials = _trial("torch", TORCH_TRIAL), _trial("moderngl", EGL_TRIAL)

    def machine() -> Machine:
        rmw, problem = _middleware()
        folders = {str(Path.cwd()), str(_existing(user_data_dir())), str(Path.home())}
        torch, egl = map(_outcome, trials)
        domain = int(number) if (number := variables.get("ROS_DOMAIN_ID", "0")).isdigit() else 0
        variable = profile_variable()
        return Machine(
            torch=torch,
            egl=egl,
            card=any(map(os.path.exists, ("/proc/driver/nvidia/version", "/dev/nvidiactl"))),
            disk={folder: shutil.disk_usage(folder).free for folder in sorted(folders)},
            rmw=rmw,
            ros_problem=problem,
            variables=dict(variables),
            segment=segment_bytes(variables.get(variable)),
            profile_variable=variable,
            elsewhere=[other for other in domains_in_use() if other != domain],
        )

    return machine


def _existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.parents) if place.is_dir())


def _middleware() -> tuple[str, str]:
    """The middleware's name, or why there is none."""
    from janusvln_ros.errors import InputError
    from janusvln_ros.graph.installed import require_ros

    try:
        require_ros()
    except InputError as error:
        return "", str(error)
    from rclpy.utilities import get_rmw_implementation_identifier

    return str(get_rmw_implementation_identifier()), ""

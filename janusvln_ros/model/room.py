"""How much memory a device has, and how much of it is free now."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from janusvln_ros.model.footprint import Room

SYSTEM = Path("/")
"""Where the kernel's files lie."""


def machine_room(system: Path = SYSTEM) -> Room:
    """
    The machine's memory: what the kernel says can be had without swapping, or less where a control
    group (a container, a service) is held to less.

    Where the kernel says nothing, there is no limit.

    Args:
        system: root of the file system with ``proc`` and ``sys``.
    """
    told = _table(system / "proc" / "meminfo")
    total = 1024 * told.get("MemTotal", 1 << 50)
    free = min(total, 1024 * told.get("MemAvailable", 1 << 50))
    for limit, used, stat, cached in _limits(system):
        most, now = _number(limit), _number(used)
        if most is not None and now is not None:
            # pages of files are given back when others are asked for
            room = max(0, most - now + _table(stat).get(cached, 0))
            total, free = min(total, most), min(free, room)
    return Room("this machine", total, free)


def rooms(device: torch.device) -> tuple[Room, Room | None]:
    """
    The memory of a device that is there, and the machine's where that is another.

    A GPU that shares the machine's memory (Jetson) is counted as the machine: there too files that
    were read only seem to take room.
    """
    machine = machine_room()
    if device.type != "cuda":
        return machine, None
    properties = torch.cuda.get_device_properties(device)
    if getattr(properties, "is_integrated", False):
        return replace(machine, name=f"this machine ({properties.name})", shared=True), machine
    free, total = torch.cuda.mem_get_info(device)
    return Room(f"the GPU ({properties.name})", total, free), machine


def _limits(system: Path) -> Iterator[tuple[Path, Path, Path, str]]:
    """
    Of this process's control group and those above it: the files of its limit, of what is in use
    and of its statistics, and which line there tells of the files' pages.
    """
    try:
        lines = (system / "proc" / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, own = line.split(":", 2)
        root = system / "sys" / "fs" / "cgroup"
        names = ("memory.max", "memory.current", "inactive_file")
        if "memory" in controllers.split(","):  # version 1
            root /= "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        elif controllers:
            continue
        group = root / own.strip("/")
        # seen from inside a container, its own group may be the root
        for path in {group, root, *(p for p in group.parents if root in p.parents)}:
            yield path / names[0], path / names[1], path / "memory.stat", names[2]


def _table(path: Path) -> Mapping[str, int]:
    """Lines of ``name: number`` or ``name number``; empty where there is no such file."""
    try:
        words = [line.replace(":", " ").split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {w[0]: int(w[1]) for w in words if len(w) > 1 and w[1].isdigit()}


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None  # "max": no limit

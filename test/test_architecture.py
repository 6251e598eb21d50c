"""
The arrows between the rooms only point downwards, and each room imports where its neighbours'
dependencies are missing.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

BOTTOM = {"actions", "errors", "files", "geometry"}
MAY_IMPORT = {
    "cli": {
        *("graph", "nodes", "training", "rollout", "evaluation", "policy", "data", "camera"),
        *("model", "protocol", "sim_bridge"),
    },
    "graph": {"nodes", "rollout", "protocol", "evaluation", "sim_bridge", "data", "camera"},
    "nodes": {"protocol", "policy", "data", "camera"},
    "training": {"policy", "model", "data", "rollout"},
    "rollout": {"policy", "sim_bridge", "evaluation", "data", "protocol", "camera"},
    "evaluation": {"data"},
    "sim_bridge": {"evaluation", "data"},
    "policy": {"model", "camera"},
    "data": {"camera", "protocol"},
    "protocol": set(),
    "camera": set(),
    "model": set(),
}


def room_of(module: str) -> str | None:
    parts = module.split(".")
    if parts[0] == "sim_bridge":
        return "sim_bridge"
    if parts[0] == "janusvln_ros" and len(parts) > 1 and parts[1] != "__version__":
        return parts[1]
    return None


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, (
                f"{path}: relative import; write the whole name, so that the arrow can be read"
            )
            found.add(node.module or "")
            found |= {
                f"{node.module}.{alias.name}"
                for alias in node.names
                if node.module == "janusvln_ros"
            }
    return found


def files(room: str) -> list[Path]:
    folder = ROOT / "sim_bridge" if room == "sim_bridge" else ROOT / "janusvln_ros" / room
    return sorted(folder.rglob("*.py"))


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_room_imports_only_the_rooms_below_it(room):
    assert files(room)
    allowed = MAY_IMPORT[room] | BOTTOM | {room}
    wrong = {
        str(p.relative_to(ROOT)): m
        for p in files(room)
        for m in imports(p)
        if (r := room_of(m)) and r not in allowed
    }
    assert not wrong


def test_only_nodes_and_the_bridge_node_import_ros():
    ros = {
        "rclpy",
        "janusvln_msgs",
        "sensor_msgs",
        "std_msgs",
        "geometry_msgs",
        "nav_msgs",
        "cv_bridge",
        "tf2_msgs",
    }
    places = [
        p
        for room in MAY_IMPORT
        if room not in ("nodes", "graph")
        for p in files(room)
        if p.name != "bridge_node.py"
    ]
    assert not {
        str(p.relative_to(ROOT)): m for p in places for m in imports(p) if m.split(".")[0] in ros
    }


def test_nodes_import_no_simulator():
    simulators = {"moderngl", "trimesh", "skfmm", "habitat", "habitat_sim"}
    assert not {
        str(p): m for p in files("nodes") for m in imports(p) if m.split(".")[0] in simulators
    }


@pytest.mark.parametrize(
    "room", ["actions", "model", "policy", "data", "evaluation", "rollout", "training"]
)
def test_room_imports_without_ros(room):
    block = (
        "import sys; sys.modules.update(dict.fromkeys(['rclpy', 'janusvln_msgs', "
        "'sensor_msgs', 'cv_bridge'])); "
    )
    subprocess.run(
        [sys.executable, "-c", f"{block}import janusvln_ros.{room}"], check=True, cwd=ROOT
    )

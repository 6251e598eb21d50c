"""
The rooms of CONTRIBUTING.md: imports only point downwards, lazy ones and names in strings too, and
each room imports where its neighbours' dependencies are missing.
"""

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("janusvln_ros", "sim_bridge")
ROS = re.compile(r"(rclpy|rcl_interfaces|cv_bridge|launch|launch_ros|[a-z0-9_]+_msgs)(\.|$)")
SIMULATORS = re.compile(r"(moderngl|trimesh|skfmm|habitat|habitat_sim|sim_bridge)(\.|$)")
NAME = re.compile(r"(janusvln_ros|sim_bridge)(\.[a-z_][a-z0-9_]*)+")


def table():
    """The table of rooms as {room: rooms it may import}; the bridge node is a row of its own."""
    page = (ROOT / "CONTRIBUTING.md").read_text()
    rooms = {}
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        found = re.fullmatch(r"`(?:janusvln_ros/([a-z]+)/|(sim_bridge)/)`", cells[0])
        if found and len(cells) == 3:
            own, _, node = cells[2].partition("(the node:")
            rooms[found[1] or found[2]] = set(re.findall(r"`([a-z_]+)`", own))
            if node:
                rooms["bridge_node"] = set(re.findall(r"`([a-z_]+)`", own + node))
    return rooms


ROOMS = table()


def room_of(module):
    """The room of a module's dotted name; None for the ground and for other packages."""
    parts = module.split(".")
    if parts[0] == "sim_bridge":
        return "sim_bridge"
    if parts[0] == "janusvln_ros" and len(parts) > 1 and parts[1] in ROOMS:
        return parts[1]
    return None


def modules():
    """Every module as (path, its own room)."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            bridge = path.name == "bridge_node.py"
            yield path, "bridge_node" if bridge else room_of(name)


@functools.cache
def imports(path):
    """
    What a module imports, inside functions too, and the names of modules in its strings (factories
    such as ``import_module("janusvln_ros.nodes.motion")``); docstrings are prose.
    """
    tree, found, prose = ast.parse(path.read_text()), set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            prose.add(node.value)
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write the whole name, so that the arrow can be read"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in prose:
            found |= {match[0] for match in NAME.finditer(node.value)}
    return found


def test_every_folder_is_a_room_of_the_table_and_every_room_is_there():
    folders = {p.name for p in (ROOT / "janusvln_ros").iterdir() if (p / "__init__.py").is_file()}
    assert folders | {"sim_bridge", "bridge_node"} == set(ROOMS)
    assert all(allowed <= set(ROOMS) for allowed in ROOMS.values())


def test_tests_lie_in_the_folder_of_the_room_that_they_test():
    folders = {p.relative_to(ROOT / "test").parts[0] for p in (ROOT / "test").rglob("test_*.py")}
    folders = {folder for folder in folders if not folder.endswith(".py")}
    assert folders - {"benchmarks", "mutation"} == set(ROOMS) - {"bridge_node"}


def test_rooms_import_only_rooms_below_them():
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path, room in modules()
        for name in imports(path)
        if (other := room_of(name))
        and other not in (ROOMS.get(room, set()) | {room})
        and not (room == "bridge_node" and other == "sim_bridge")
    }
    assert not wrong


def test_the_arrows_of_the_table_make_no_circle():
    below = {room: allowed - {room} for room, allowed in ROOMS.items()}
    while free := [room for room, allowed in below.items() if not allowed]:
        for room in free:
            below.pop(room)
        below = {room: allowed - set(free) for room, allowed in below.items()}
    assert not below


def test_modules_import_each_other_in_no_circle():
    names = {}
    for path, _ in modules():
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        names[name.removesuffix(".__init__")] = path
    waiting = {
        name: {
            other
            for other in imports(path)
            if other in names and other != name and not name.startswith(f"{other}.")
        }
        for name, path in names.items()
    }
    while free := [name for name, needed in waiting.items() if not needed]:
        for name in free:
            waiting.pop(name)
        waiting = {name: needed - set(free) for name, needed in waiting.items()}
    assert not waiting


def test_only_nodes_graph_and_the_bridge_node_import_ros():
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path, room in modules()
        if room not in ("nodes", "graph", "bridge_node")
        for name in imports(path)
        if ROS.match(name) and "/" not in name
    }
    assert not wrong


def test_nodes_import_no_simulator():
    assert not {
        f"{path}: {name}"
        for path, room in modules()
        if room == "nodes"
        for name in imports(path)
        if SIMULATORS.match(name)
    }


def test_all_other_rooms_import_where_ros_is_missing():
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path, room in modules()
        if room not in ("nodes", "graph", "bridge_node")
    ]
    block = (
        "import importlib, sys; "
        "sys.modules.update(dict.fromkeys(['rclpy', 'janusvln_msgs', 'sensor_msgs', 'launch'])); "
        f"[importlib.import_module(name) for name in {names}]"
    )
    subprocess.run([sys.executable, "-c", block], check=True, cwd=ROOT)

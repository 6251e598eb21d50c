"""What the pages name must be there: tests that hold promises, status codes, files."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_every_promise_names_tests_that_exist():
    rows = [
        line
        for line in (ROOT / "docs/reliability.md").read_text().splitlines()
        if line.startswith("|") and "`test_" in line
    ]
    sources = "\n".join(p.read_text() for p in (ROOT / "test").rglob("test_*.py"))
    defined = set(re.findall(r"def (test_\w+)\(", sources))
    named = {name for row in rows for name in re.findall(r"`(test_\w+)`", row)}
    assert len(rows) >= 25 and not named - defined, named - defined


def test_every_status_of_follow_instruction_is_explained_on_the_robot_page():
    from janusvln_ros.protocol.status import Code

    page = (ROOT / "docs/robot.md").read_text()
    assert not [name for name in vars(Code) if name.isupper() and f"`{name}`" not in page]


def test_every_python_file_that_a_page_names_exists():
    rooms = ("janusvln_ros", "sim_bridge", "launch", "benchmarks", "test")
    paths = [ROOT / "setup.py", *(path for room in rooms for path in (ROOT / room).rglob("*.py"))]
    files = ["/" + path.relative_to(ROOT).as_posix() for path in paths]
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")):
        for name in re.findall(r"`([\w/.]+\.py)`", page.read_text()):
            found = "NAME" in name or any(file.endswith(f"/{name}") for file in files)
            assert found, f"{page.name} names {name}"


def test_the_page_about_distributions_names_every_call_of_rclpy():
    rclpy = pytest.importorskip("rclpy", reason="which names are rclpy's is asked of rclpy")
    from rclpy.action import ActionClient, ActionServer
    from rclpy.action.client import ClientGoalHandle
    from rclpy.action.server import ServerGoalHandle
    from rclpy.client import Client
    from rclpy.clock import Clock
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.lifecycle import LifecycleNode
    from rclpy.publisher import Publisher
    from rclpy.task import Future

    kinds = (LifecycleNode, ActionServer, ActionClient, ClientGoalHandle, ServerGoalHandle)
    kinds += (Client, Clock, SingleThreadedExecutor, Publisher, Future, rclpy.time.Time)
    methods = {name for kind in kinds for name in dir(kind) if not name.startswith("_")}
    called, own = set(), set()
    for path in [*ROOT.glob("janusvln_ros/**/*.py"), *ROOT.glob("sim_bridge/**/*.py")]:
        ros = {"nodes", "graph"} & set(path.parts) or path.name == "bridge_node.py"
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                own.add(node.name)
            elif isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "rclpy":
                called |= {alias.name for alias in node.names}
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "rclpy":
                called.add(node.attr)
            elif ros and isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                called |= {node.func.attr} & methods
    page = (ROOT / "docs/distributions.md").read_text()
    named = set(re.findall(r"`([\w.]+)`", page))
    assert len(called - own) > 60
    missing = sorted(called - own - named)
    assert not missing, missing

"""What the pages name must be there: tests that hold promises, status codes, files."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def rows_of(page):
    """The cells of the rows of a page's tables, without their heads."""
    lines = (ROOT / page).read_text().splitlines()
    tables = [line for line in lines if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in tables]
    heads = {at - 1 for at, row in enumerate(rows) if set("".join(row)) <= set("-:")}
    return [row for at, row in enumerate(rows) if at not in heads and at - 1 not in heads]


@pytest.fixture(scope="module")
def defined():
    sources = "\n".join(p.read_text() for p in (ROOT / "test").rglob("test_*.py"))
    return set(re.findall(r"def (test_\w+)\(", sources))


def named_in(text):
    return set(re.findall(r"`(test_\w+)`", text))


def test_every_promise_names_tests_that_exist(defined):
    rows = [" ".join(row) for row in rows_of("docs/reliability.md") if named_in(" ".join(row))]
    named = set().union(*map(named_in, rows))
    assert len(rows) >= 25 and not named - defined, named - defined


def test_every_hazard_says_its_cause_what_mitigates_it_what_holds_that_and_what_remains(defined):
    rows = rows_of("docs/hazards.md")
    assert len(rows) >= 15
    for row in rows:
        assert len(row) == 5 and all(row), row
        assert named_in(row[3]) or row[3] == "none", f"{row[0]}: no test, and not said so"
        assert not named_in(row[3]) - defined, named_in(row[3]) - defined


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

"""What the pages name must be there: tests that hold promises, status codes, files."""

import re
from pathlib import Path

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

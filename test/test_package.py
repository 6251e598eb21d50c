"""What package managers read of this package."""

import ast
import re
import runpy
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import setuptools
import yaml

import janusvln_ros

ROOT = Path(__file__).resolve().parents[1]
MANIFESTS = ("package.xml", "msg/janusvln_msgs/package.xml")

OTHER_NAMES = {
    "cv2": ("opencv-python-headless", "python3-opencv"),
    "PIL": ("pillow", "python3-pil"),
    "yaml": ("pyyaml", "python3-yaml"),
    "skfmm": ("scikit-fmm", ""),
}
"""Modules whose package on PyPI, and rosdep key, are not called as they are."""

NOT_IMPORTED = {
    "setuptools": "of every ament_python package",
    "accelerate": "transformers' trainer needs it",
    "tensorboard": "transformers' trainer writes for it",
    "ros2launch": "the command 'ros2 launch'",
    "opengl": "moderngl renders with it",
}
OPTIONAL = {"torchao"}
"""Not for everybody: asked for by name where it is missing."""

ELSEWHERE = {"habitat", "habitat_sim"}
"""Imported by Habitat's own interpreter alone."""


@pytest.fixture
def setup_py(monkeypatch):
    """What ``setup.py`` tells setuptools."""
    told = {}
    monkeypatch.setattr(setuptools, "setup", told.update)
    monkeypatch.chdir(ROOT)
    runpy.run_path("setup.py")
    return told


@pytest.fixture
def imported():
    """Modules of others that our code imports, at the top or within functions."""
    found = set()
    for path in (p for room in ("janusvln_ros", "sim_bridge", "launch") for p in _sources(room)):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module.split(".")[0])
    return found - {"janusvln_ros", "sim_bridge"} - ELSEWHERE - set(sys.stdlib_module_names)


def _sources(room):
    return (ROOT / room).rglob("*.py")


def names(lines):
    """Package names of requirements, without versions, markers and comments."""
    found = (re.match(r"[A-Za-z0-9._-]+", line) for line in lines)
    return {match[0] for match in found if match}


def listed_in(file):
    return names((ROOT / "requirements" / file).read_text().splitlines())


def on_pypi(module):
    return OTHER_NAMES.get(module, (module.replace("_", "-"), ""))[0]


def depends(kind):
    root = ElementTree.parse(ROOT / "package.xml").getroot()
    return {element.text for element in root.findall(kind)}


@pytest.fixture
def requirements(setup_py):
    """Everything that ``setup.py`` asks of PyPI, tests aside."""
    extras = setup_py["extras_require"]
    wanted = [line for extra, lines in extras.items() if extra != "test" for line in lines]
    return names(setup_py["install_requires"] + wanted)


def test_setup_py_prints_nothing_where_colcon_reads_what_it_prints():
    code = (
        "from distutils.core import run_setup\n"
        "run_setup('setup.py', script_args=('--dry-run',), stop_after='config')"
    )
    code = f"import setuptools\n{code}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_both_ros_packages_have_the_version_of_the_python_package():
    for manifest in MANIFESTS:
        version = ElementTree.parse(ROOT / manifest).getroot().findtext("version")
        assert version == janusvln_ros.__version__, manifest


def test_both_ros_packages_name_a_page():
    for manifest in MANIFESTS:
        url = ElementTree.parse(ROOT / manifest).getroot().findtext("url")
        assert url and url.startswith("https://"), manifest


def test_the_version_is_the_one_that_the_package_says(setup_py):
    assert setup_py["version"] == janusvln_ros.__version__


def test_every_node_of_a_graph_has_an_executable_and_none_has_a_name_that_others_may_use(setup_py):
    scripts = dict(line.split(" = ") for line in setup_py["entry_points"]["console_scripts"])
    graphs = yaml.safe_load((ROOT / "config/graphs.yaml").read_text()).values()
    # one of another package has its executable there
    nodes = {node["node"] for graph in graphs for node in graph["nodes"] if "package" not in node}
    assert set(scripts) == {"janusvln", *(f"janusvln_{node}" for node in nodes)}


def test_setup_py_asks_for_what_is_imported_and_for_nothing_else(imported, requirements):
    ros = {name for name in depends("exec_depend") if not name.startswith("python3-")}
    wanted = {on_pypi(module) for module in imported - ros}
    assert wanted == requirements - set(NOT_IMPORTED)


def test_package_xml_names_the_ros_packages_that_are_imported_and_no_other(imported, requirements):
    ros = {module for module in imported if on_pypi(module) not in requirements}
    named = {name for name in depends("exec_depend") if not name.startswith("python3-")}
    assert ros == named - set(NOT_IMPORTED)


def test_rosdep_and_the_requirements_of_the_graph_bring_all_that_is_imported(
    imported, requirements
):
    keys = {name for name in depends("exec_depend") if name.startswith("python3-")}
    listed = listed_in("graph.txt") | listed_in("policy.txt")
    python = {module for module in imported if on_pypi(module) in requirements} - OPTIONAL
    key_of = {m: OTHER_NAMES.get(m, ("", f"python3-{m.replace('_', '-')}"))[1] for m in python}
    by_key = {module for module in python if key_of[module] in keys}
    assert {key_of[module] for module in by_key} == keys
    assert {on_pypi(module) for module in python - by_key} == listed


def test_what_only_the_policy_needs_is_the_extra_of_its_name(setup_py):
    policy = names(setup_py["extras_require"]["policy"])
    assert policy == listed_in("policy.txt") and "torch" in policy
    assert policy.isdisjoint(names(setup_py["install_requires"]) | listed_in("graph.txt"))


def test_the_graph_takes_numpy_and_opencv_of_the_distribution():
    # a NumPy 2 of pip's beside a cv_bridge that was built for NumPy 1 ends the process
    listed = listed_in("graph.txt") | listed_in("policy.txt")
    assert {"numpy", "opencv-python", "opencv-python-headless", "scipy"}.isdisjoint(listed)


def test_every_release_in_the_requirements_is_exact_and_covers_what_setup_py_asks(requirements):
    lines = [
        line.split(" #")[0].strip()
        for line in (ROOT / "requirements/base.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert not [line for line in lines if "==" not in line]
    assert requirements - {"setuptools"} <= names(lines)

"""What package managers read of this package."""

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


@pytest.fixture
def setup_py(monkeypatch):
    """What ``setup.py`` tells setuptools."""
    told = {}
    monkeypatch.setattr(setuptools, "setup", told.update)
    monkeypatch.chdir(ROOT)
    runpy.run_path("setup.py")
    return told


def test_setup_py_prints_nothing_where_colcon_reads_what_it_prints():
    code = (
        "from distutils.core import run_setup\n"
        "run_setup('setup.py', script_args=('--dry-run',), stop_after='config')"
    )
    code = f"import setuptools\n{code}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_both_ros_packages_have_the_version_of_the_python_package():
    for manifest in ("package.xml", "msg/janusvln_msgs/package.xml"):
        version = ElementTree.parse(ROOT / manifest).getroot().findtext("version")
        assert version == janusvln_ros.__version__, manifest


def test_the_version_is_the_one_that_the_package_says(setup_py):
    assert setup_py["version"] == janusvln_ros.__version__


def test_every_node_of_a_graph_has_an_executable_and_none_has_a_name_that_others_may_use(setup_py):
    scripts = dict(line.split(" = ") for line in setup_py["entry_points"]["console_scripts"])
    graphs = yaml.safe_load((ROOT / "config/graphs.yaml").read_text()).values()
    # one of another package has its executable there
    nodes = {node["node"] for graph in graphs for node in graph["nodes"] if "package" not in node}
    assert set(scripts) == {"janusvln", *(f"janusvln_{node}" for node in nodes)}

"""What package managers read of this package."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import janusvln_ros

ROOT = Path(__file__).resolve().parents[1]


def test_both_ros_packages_have_the_version_of_the_python_package():
    for manifest in ("package.xml", "msg/janusvln_msgs/package.xml"):
        version = ElementTree.parse(ROOT / manifest).getroot().findtext("version")
        assert version == janusvln_ros.__version__, manifest

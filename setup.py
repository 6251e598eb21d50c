"""Build of the ament_python package; also installs with plain pip where there is no ROS."""

import os
import re
from pathlib import Path

from setuptools import find_packages, setup

NAME = "janusvln_ros"
# Read here and not by setup.cfg's "attr:", for which setuptools prints a line that colcon, which
# reads what this file prints, takes for damage.
VERSION = re.search('__version__ = "(.+)"', Path(NAME, "__init__.py").read_text())[1]


def shared(folder: str) -> list[tuple[str, list[str]]]:
    """Every file under ``folder``, for ``share/janusvln_ros/`` with its subfolders kept."""
    files: dict[str, list[str]] = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            files.setdefault(f"share/{NAME}/{path.parent}", []).append(str(path))
    return list(files.items())


# Under 'colcon build' the nodes run with the virtual environment that is active now, not with the
# interpreter of colcon (docs.ros.org: Using Python packages, virtual environment).
venv = os.environ.get("VIRTUAL_ENV")
interpreter = {"build_scripts": {"executable": f"{venv}/bin/python3"}} if venv else {}

setup(
    name=NAME,
    version=VERSION,
    description="Vision-and-language navigation with dual implicit memory (JanusVLN) for ROS 2",
    license="Apache-2.0",
    packages=find_packages(include=["janusvln_ros*", "sim_bridge*"]),
    package_data={NAME: ["py.typed", "checkpoints/**/*"], "sim_bridge": ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/hook", ["resource/path.dsv"]),
        *shared("launch"),
        *shared("config"),
        *shared("msg/janusvln_msgs/msg"),
    ],
    python_requires=">=3.10",
    install_requires=[
        "setuptools",
        "numpy",
        "scipy",
        "filelock",
        "pillow",
        "opencv-python-headless",
        "pyyaml",
        "tqdm",
    ],
    # without any of these it is the body of a robot whose policy runs on another computer
    extras_require={
        "policy": ["torch>=2.5", "transformers>=5,<6", "safetensors", "tokenizers"]
        + ["huggingface-hub"],
        "sim": [
            "moderngl>=5.10",
            "trimesh",
            "scikit-fmm",
            "imageio-ffmpeg",
        ],
        "train": ["accelerate>=1.1", "tensorboard"],
        "bags": ["rosbags>=0.11", "mcap", "zstandard", "lz4", "matplotlib"],
        "quantize": ["torchao"],
        "test": ["pytest<9", "pytest-timeout", "pytest-xdist", "pytest-cov", "hypothesis"],
    },
    entry_points={
        "console_scripts": [
            "janusvln = janusvln_ros.cli.main:main",
            "janusvln_policy = janusvln_ros.graph.executables:policy",
            "janusvln_motion = janusvln_ros.graph.executables:motion",
            "janusvln_compressor = janusvln_ros.graph.executables:compressor",
            "janusvln_player = janusvln_ros.graph.executables:player",
            "janusvln_recorder = janusvln_ros.graph.executables:recorder",
            "janusvln_sim_bridge = janusvln_ros.graph.executables:sim_bridge",
        ]
    },
    options=interpreter,
    zip_safe=False,
)

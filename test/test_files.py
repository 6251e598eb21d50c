"""Paths that are built from what files and messages say stay where they belong."""

import ast
from pathlib import Path

import pytest

from janusvln_ros.errors import InputError
from janusvln_ros.files import inside, one_name

ROOT = Path(__file__).parents[1]
CODE = sorted((ROOT / "janusvln_ros").rglob("*.py")) + sorted((ROOT / "sim_bridge").rglob("*.py"))

LEAVES = ["..", "../x", "x/../../y", "a/..", "/etc/passwd", "//x", "", "/", ".", "./", None, 7]
NO_NAMES = ["a\0b", "a\nb", "\x1b[31m", "\ud800", "x" * 256, "ä" * 128, "a\u202eb"]


@pytest.mark.parametrize("name", [*LEAVES, *NO_NAMES, "ok/" + "x" * 256])
def test_a_path_that_leaves_its_folder_or_cannot_be_is_refused_by_name(tmp_path, name):
    with pytest.raises(InputError, match="the scene"):
        inside(tmp_path, name, "the scene")


@pytest.mark.parametrize("name", ["a", "mp3d/X/X.glb", "...", "a..b", "..a", " a ", "ä", "./a//b"])
def test_a_path_within_its_folder_is_taken_as_it_is(tmp_path, name):
    assert inside(tmp_path, name, "the scene") == tmp_path / name


@pytest.mark.parametrize("name", [*LEAVES, *NO_NAMES, "a/b", "/a"])
def test_a_name_with_more_than_one_part_names_no_folder(name):
    with pytest.raises(InputError, match="the episode"):
        one_name(name, "the episode")


def test_a_link_within_a_folder_is_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mp3d").symlink_to(tmp_path / "elsewhere")
    assert inside(tmp_path / "data", "mp3d/x.glb", "the scene").parent.is_dir()


FROM_DATA = {"episode_id", "scene_id", "trajectory_id", "scene", "video", "weight_map"}
"""Fields that come out of files and messages."""
KNOWN = [
    # a set may lie anywhere beside its pictures, which are only read
    "janusvln_ros/data/samples.py: self.path.resolve().parent / values['folder']",
    # arithmetic
    "janusvln_ros/evaluation/summary.py: "
    "sum((x['collisions'] for x in driven)) / moves['MOVE_FORWARD']",
]
KEEPERS = {"inside", "one_name", "scene_path", "video_name", "map_name"}


def from_data(node: ast.AST) -> bool:
    """Whether an expression holds a field that came from a file, past the functions that check."""
    if isinstance(node, ast.Call):
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        if name in KEEPERS:
            return False
    if isinstance(node, ast.Attribute) and node.attr in FROM_DATA:
        return True
    if isinstance(node, ast.Name) and node.id in FROM_DATA - {"scene"}:
        return True
    if isinstance(node, ast.Subscript) and isinstance(getattr(node.slice, "value", None), str):
        return True
    return any(from_data(child) for child in ast.iter_child_nodes(node))


JOINING = ("joinpath", "with_name", "with_stem")


def joined(tree: ast.AST):
    """What is appended to a path anywhere in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            yield node, node.right
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in JOINING:
            yield from ((node, argument) for argument in node.args)


def test_every_path_from_data_is_built_by_the_one_function_that_keeps_it_inside():
    found = []
    for path in CODE:
        for node, part in joined(ast.parse(path.read_text())):
            if from_data(part):
                found.append(f"{path.relative_to(ROOT)}: {ast.unparse(node)}")
    assert sorted(found) == sorted(KNOWN)

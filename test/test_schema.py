"""Settings from files: dataclasses are held strictly, and a mistake is named."""

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from janusvln_ros import schema
from janusvln_ros.errors import InputError


@dataclass(frozen=True)
class Inner:
    shares: tuple[float, float] = (0.5, 0.5)
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outer:
    name: str = "a"
    count: int = 1
    rate: float = 0.1
    on: bool = False
    way: Literal["left", "right"] = "left"
    files: list[str] = field(default_factory=list)
    languages: tuple[str, ...] | None = None
    inner: Inner = field(default_factory=Inner)


def changed(*changes, **values):
    return schema.build(Outer, schema.override(values, changes), "x.yaml")


def test_values_take_the_types_of_the_fields():
    assert changed() == Outer()
    assert changed("rate=1e-4", "files=a", "inner.shares=[0, 1]", "way=right") == Outer(
        rate=1e-4, files=["a"], inner=Inner((0.0, 1.0)), way="right"
    )
    assert changed("languages=[en, hi]", "inner.options.gpu=3", "name=", "rate=2") == Outer(
        languages=("en", "hi"), inner=Inner(options={"gpu": 3}), name="", rate=2.0
    )
    assert changed("languages=null", inner={"shares": [1, 0]}).inner.shares == (1.0, 0.0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("cuont=3", "x.yaml: unknown key 'cuont'; did you mean 'count'?"),
        ("zzzzzz=3", "unknown key 'zzzzzz'; known are name, count"),
        ("inner.share=1", "x.yaml: inner: unknown key 'share'"),
        ("count=many", "x.yaml: count is 'many', it must be of type int"),
        ("count=1.5", "it must be of type int"),
        ("count=true", "it must be of type int"),
        ("on=1", "it must be of type bool"),
        ("rate=fast", "rate is 'fast', it must be of type float"),
        ("rate=", "rate is None"),
        ("way=up", r"way is 'up', it must be one of \['left', 'right'\]"),
        ("files=3", r"files is 3, it must be of type list\[str\]"),
        ("files=[3]", "files is 3, it must be of type str"),
        ("inner.shares=[1, 2, 3]", r"shares is \[1, 2, 3\], it must be of type tuple"),
        ("inner=3", "inner is 3, not a section with keys"),
        ("count.x=3", "count is a value, not a section"),
        ("count", "write FIELD=VALUE"),
        ("count=[", "no YAML"),
    ],
)
def test_mistake_is_named_with_what_is_possible(change, says):
    with pytest.raises(InputError, match=says):
        changed(change, count=1)


def test_file_is_a_path_or_the_name_of_a_shipped_one(tmp_path):
    assert schema.read_yaml(schema.shipped("train", "tiny"))["memory"] == "dual"
    with pytest.raises(InputError, match=r"config/train has no tinny\.yaml; did you mean 'tiny'"):
        schema.shipped("train", "tinny")
    with pytest.raises(InputError, match=r"config/eval has no qqq\.yaml; known are houses, r2r"):
        schema.shipped("eval", "qqq")
    with pytest.raises(InputError, match="cannot be read"):
        schema.read_yaml(tmp_path / "absent.yaml")


@pytest.mark.parametrize(("text", "says"), [("[1", "no YAML"), ("3", "holds no keys")])
def test_damaged_file_is_named(tmp_path, text, says):
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(InputError, match=says):
        schema.read_yaml(tmp_path / "own.yaml")


def test_empty_file_has_no_keys(tmp_path):
    (tmp_path / "own.yaml").write_text("")
    assert schema.read_yaml(schema.shipped("eval", str(tmp_path / "own.yaml"))) == {}

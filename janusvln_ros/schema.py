"""
Settings from files: a dataclass is the schema, and its annotations are held strictly.

Whatever does not fit is an InputError that names the key, its value and what is possible.
"""

import difflib
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from janusvln_ros import documents
from janusvln_ros.errors import InputError, require
from janusvln_ros.files import share_dir

Section = TypeVar("Section")


def build(kind: type[Section], values: Any, name: str) -> Section:
    """
    Make the dataclass ``kind`` from a mapping, as YAML or JSON gives it; nested ones too.

    ``name`` is used in messages: the file, and the key inside it.

    Raises:
        InputError: ``values`` is no mapping, a key is unknown, or a value has the wrong type.
    """
    return kind(**typed(kind, values, name))


def typed(kind: type, values: Any, name: str) -> dict[str, Any]:
    """As `build`, but return the checked values by field, for fields that are made otherwise."""
    require(isinstance(values, Mapping), f"{name} is {values!r}, not a section with keys")
    kinds = get_type_hints(kind)
    if unknown := [key for key in values if key not in kinds]:
        raise InputError(f"{name}: unknown key {unknown[0]!r}; {suggestion(unknown[0], kinds)}")
    return {key: _value(kinds[key], value, f"{name}: {key}") for key, value in values.items()}


def suggestion(name: str, known: Collection[str]) -> str:
    """Which of the ``known`` names may have been meant, or all of them if none is near."""
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"


def shipped(folder: str, name: str) -> Path:
    """
    The YAML file at the path ``name``, or of that name in ``config/folder``.

    Raises:
        InputError: there is none of that name.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return path
    files = {file.stem: file for file in sorted((share_dir() / "config" / folder).glob("*.yaml"))}
    hint = suggestion(name, files)
    require(
        name in files,
        f"config/{folder} has no {name}.yaml; {hint} Your own must end in .yaml",
    )
    return files[name]


def read_yaml(path: Path) -> dict[str, Any]:
    """
    The keys of a YAML file; an empty one has none.

    Raises:
        InputError: it cannot be read, or is anything else.
    """
    try:
        values = documents.read_yaml(path) or {}
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    require(isinstance(values, dict), f"{path} holds no keys: write 'name: value' lines")
    return values


def override(values: dict[str, Any], changes: Iterable[str]) -> dict[str, Any]:
    """
    Set ``FIELD=VALUE`` for each of ``changes`` in ``values``, and return it.

    A value is YAML; a key in a section is written with dots (``rules.max_steps=300``).

    Raises:
        InputError: one that is not of this form.
    """
    for change in changes:
        key, equals, text = change.partition("=")
        require(equals, f"{change!r}: write FIELD=VALUE, as in seed=3")
        *sections, last = key.strip().replace("-", "_").split(".")
        section = values
        for name in sections:
            section = section.setdefault(name, {})
            require(isinstance(section, dict), f"{change!r}: {name} is a value, not a section")
        section[last] = documents.parse_yaml(text, f"the value of {change!r}")
    return values


def _value(kind: Any, value: Any, name: str) -> Any:
    """Return ``value`` as ``kind``, the annotation of a field."""
    origin, inner = get_origin(kind) or kind, get_args(kind)
    if origin in (UnionType, Union):  # X | None
        only = next(option for option in inner if option is not NoneType)
        return None if value is None else _value(only, value, name)
    if origin is Literal:
        require(value in inner, f"{name} is {value!r}, it must be one of {list(inner)}")
        return value
    if isinstance(kind, type) and is_dataclass(kind):
        return build(kind, value, name)
    if origin in (list, tuple):
        items = [value] if isinstance(value, str) else value
        if isinstance(items, list) and (inner[1:] in ((), (...,)) or len(items) == len(inner)):
            return origin(_value(inner[0], item, name) for item in items)
    if origin is float and isinstance(value, int | str) and not isinstance(value, bool):
        with suppress(ValueError):  # YAML 1.1 reads 1e-4 as text
            return float(value)
    if origin is str and value is None:  # 'name:' and 'name=' without a value
        return ""
    wanted = origin.__name__ if origin is kind else kind
    require(type(value) is origin, f"{name} is {value!r}, it must be of type {wanted}")
    return value

"""
Parameters of a node, declared once: name, default, range and meaning in one table; the shipped
YAML files are written from it.

``python -m janusvln_ros.nodes.parameters MODULE`` prints the file of the node in that module; a
test holds the two together.
"""

import difflib
import importlib
import json
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from janusvln_ros.errors import InputError, require

ROS_OWN = ("use_sim_time", "start_type_description_service")
"""Parameters that rclpy declares by itself."""


@dataclass(frozen=True)
class Param:
    """
    One parameter.

    ``low``/``high`` are inclusive bounds of a number, or of each number of a list; ``choices`` the
    values of a string; ``live`` ones may change at run time.
    """

    name: str
    default: bool | int | float | str | list[float] | list[int]
    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    live: bool = False


def problem(param: Param, value: Any) -> str | None:
    """The sentence that says what is wrong with ``value`` for ``param``, or None."""
    wanted = type(param.default)
    if isinstance(param.default, list):
        return _list_problem(param, param.default, value)
    if type(value) is not wanted:
        remedy = (
            f"write {float(value)} with a decimal point"
            if wanted is float and isinstance(value, int) and not isinstance(value, bool)
            else f"give a {wanted.__name__}"
        )
        return f"parameter '{param.name}' is {value!r} ({type(value).__name__}); {remedy}"
    if param.choices and value not in param.choices:
        return (
            f"parameter '{param.name}' is {value!r}; it must be one of {', '.join(param.choices)}"
        )
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        low = -float("inf") if param.low is None else param.low
        high = float("inf") if param.high is None else param.high
        # written so that NaN fails too
        if not (low <= value <= high and abs(value) < float("inf")):
            return (
                f"parameter '{param.name}' is {value!r}; it must lie from {param.low} to "
                f"{param.high}"
            )
    return None


def _list_problem(param: Param, default: list[Any], value: Any) -> str | None:
    count, whole = len(default), type(default[0]) is int
    if not isinstance(value, (list, tuple)) and not hasattr(value, "tolist"):
        return f"parameter '{param.name}' is {value!r}; it must be a list of {count} numbers"
    numbers = list(value)
    if not whole and len(numbers) == count and all(type(v) is int for v in numbers):
        return (
            f"parameter '{param.name}' is {numbers}; write its numbers with a decimal "
            f"point: {[float(v) for v in numbers]}"
        )
    kind, kinds = (int, "whole") if whole else (float, "finite")
    if len(numbers) != count or not all(
        isinstance(v, kind) and not isinstance(v, bool) and abs(v) < float("inf") for v in numbers
    ):
        return (
            f"parameter '{param.name}' is {numbers}; it must be a list of {count} {kinds} numbers"
        )
    low = -float("inf") if param.low is None else param.low
    high = float("inf") if param.high is None else param.high
    if not all(low <= v <= high for v in numbers):
        return (
            f"parameter '{param.name}' is {numbers}; each number must lie from {param.low} to "
            f"{param.high}"
        )
    return None


def declare(node: Any, table: Sequence[Param]) -> SimpleNamespace:
    """
    Declare ``table`` on ``node`` and return the values as attributes.

    Raises:
        InputError: a given value has the wrong type or lies outside its range, or a given name is
            no parameter of this node.
    """
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
    from rclpy.parameter import Parameter

    given = dict(getattr(node, "_parameter_overrides", {}))
    names = [param.name for param in table]
    for name in given:
        if name not in names and name not in ROS_OWN and not name.startswith("qos_overrides."):
            near = difflib.get_close_matches(name, names, 1)
            raise InputError(
                f"'{name}' is no parameter of node '{node.get_name()}'"
                + (f": did you mean '{near[0]}'?" if near else f"; it has {', '.join(names)}")
            )
    values = SimpleNamespace()
    for param in table:
        descriptor = ParameterDescriptor(
            description=param.description,
            read_only=not param.live,
            additional_constraints=", ".join(param.choices),
        )
        if isinstance(param.default, float) and param.low is not None and param.high is not None:
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(param.low), to_value=float(param.high))
            ]
        elif (
            isinstance(param.default, int)
            and not isinstance(param.default, bool)
            and param.low is not None
            and param.high is not None
        ):
            descriptor.integer_range = [
                IntegerRange(from_value=int(param.low), to_value=int(param.high), step=1)
            ]
        override = given.get(param.name)
        # to ROS, an empty list is no value
        require(
            override is None or override.type_ != Parameter.Type.NOT_SET,
            f"parameter '{param.name}' is empty; give a value, such as {param.default!r}, or "
            "leave it out",
        )
        if override is not None and (wrong := problem(param, override.value)):
            raise InputError(wrong)
        value = node.declare_parameter(param.name, param.default, descriptor).value
        setattr(values, param.name, list(value) if isinstance(param.default, list) else value)
    return values


def follow_changes(
    node: Any, table: Sequence[Param], values: SimpleNamespace, then: Callable[[], None]
) -> None:
    """
    Keep ``values`` up to date with changes of the live parameters, and call ``then`` after each.

    A wrong value is refused with its sentence.
    """
    from rcl_interfaces.msg import SetParametersResult

    by_name = {param.name: param for param in table}

    def check(changes: list[Any]) -> Any:
        for change in changes:
            if change.name in by_name and (wrong := problem(by_name[change.name], change.value)):
                return SetParametersResult(successful=False, reason=wrong)
        for change in changes:
            if change.name in by_name and by_name[change.name].live:
                setattr(values, change.name, change.value)
        then()
        return SetParametersResult(successful=True)

    node.add_on_set_parameters_callback(check)


def as_yaml(title: str, table: Sequence[Param]) -> str:
    """
    The table as a ROS parameter file with every description and range as a comment.

    ``title`` is its first line.
    """
    lines = [
        f"# {title}",
        "# Written by 'python -m janusvln_ros.nodes.parameters MODULE' from the node's own table.",
        "/**:",
        "  ros__parameters:",
    ]
    for param in table:
        limits = f" One of: {', '.join(param.choices)}." if param.choices else ""
        if param.low is not None and param.high is not None:
            limits = f" From {param.low} to {param.high}."
        if param.live:
            limits += " May be changed while running."
        lines += [f"    # {line}" for line in textwrap.wrap(param.description + limits, 93)]
        # JSON is YAML in which every text is quoted
        lines.append(f"    {param.name}: {json.dumps(param.default)}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    module = importlib.import_module(sys.argv[1])
    sys.stdout.write(as_yaml(module.TITLE, module.PARAMETERS))

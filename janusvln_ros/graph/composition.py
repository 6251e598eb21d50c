"""
Which nodes run together: ``config/graphs.yaml`` read once, for ``janusvln up`` and for the launch
files alike. No ROS import.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from janusvln_ros.errors import InputError
from janusvln_ros.files import share_dir

PACKAGE = "janusvln_ros"
"""The ROS package that holds every executable named here."""


@dataclass(frozen=True)
class Argument:
    """
    Something a user may give to a graph: ``sets`` parameters (node, name) to its value as
    ``kind``, ``remaps`` topics of nodes to it.
    """

    name: str
    default: str
    description: str
    choices: tuple[str, ...] = ()
    required: bool = False
    kind: type = str
    sets: tuple[tuple[str, str], ...] = ()
    remaps: Mapping[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class NodeSpec:
    """
    One node to start: executable (also its name), namespace, parameter files in order, parameters
    that win over them, and remaps from -> to.
    """

    executable: str
    namespace: str
    files: tuple[Path, ...]
    parameters: Mapping[str, Any]
    remaps: Mapping[str, str]

    def arguments(self) -> list[str]:
        """
        The command-line arguments after the executable, as any ROS 2 node takes them.

        Values are YAML, so strings are quoted.
        """
        words = ["--ros-args", "-r", f"__node:={self.executable}"]
        if self.namespace:
            words += ["-r", f"__ns:=/{self.namespace.strip('/')}"]
        for path in self.files:
            words += ["--params-file", str(path)]
        for name, value in self.parameters.items():
            words += ["-p", f"{name}:={parameter_text(value)}"]
        for old, new in self.remaps.items():
            words += ["-r", f"{old}:={new}"]
        return words


def parameter_text(value: Any) -> str:
    """
    A parameter's value as ``-p name:=value`` wants it: YAML in one line, with strings in double
    quotes.
    """
    return yaml.safe_dump(
        value,
        default_style='"' if isinstance(value, str) else None,
        default_flow_style=True,
        width=10**9,
    ).split("\n")[0]


def _declarations() -> dict[str, Any]:
    path = share_dir() / "config" / "graphs.yaml"
    return dict(yaml.safe_load(path.read_text()))


def graph_names() -> dict[str, str]:
    """Each graph's name and what it is."""
    return {name: graph["description"] for name, graph in _declarations().items()}


def graph_arguments(graph: str) -> list[Argument]:
    """
    The arguments of a graph.

    Raises:
        InputError: no such graph.
    """
    return [
        Argument(
            name,
            str(entry["default"]),
            str(entry["description"]),
            tuple(entry.get("choices", ())),
            bool(entry.get("required", False)),
            {"text": str, "int": int, "float": float}[entry.get("type", "text")],
            tuple(
                (target.split(".", 1)[0], target.split(".", 1)[1])
                for target in entry.get("sets", ())
            ),
            entry.get("remaps", {}),
        )
        for name, entry in _graph(graph)["arguments"].items()
    ]


def resolve(
    graph: str, given: Mapping[str, str], overrides: Mapping[str, Mapping[str, Any]] | None = None
) -> list[NodeSpec]:
    """
    The nodes of ``graph`` in the order in which they start.

    Args:
        graph: its name in ``config/graphs.yaml``.
        given: values for its arguments, as text; what is missing takes its default.
        overrides: further parameters per executable, which win over everything else.

    Raises:
        InputError: the graph or an argument is unknown, a required one is missing, or a value is
            none of the choices.
    """
    arguments = graph_arguments(graph)
    names = [a.name for a in arguments]
    for name in given:
        if name not in names:
            raise InputError(
                f"graph '{graph}' has no argument '{name}': it has {', '.join(names)}"
            )
    values = {a.name: str(given.get(a.name, a.default)) for a in arguments}
    if "robot" in values:
        # what the robot's file says of arguments holds where the user said nothing
        told = _robot_arguments(values["robot"], names)
        values.update(
            {
                name: value
                for name, value in told.items()
                if given.get(name, _default(arguments, name)) == _default(arguments, name)
            }
        )
    for a in arguments:
        if a.required and not values[a.name]:
            raise InputError(
                f"graph '{graph}' needs the argument '{a.name}' ({a.description}): "
                f"give {a.name}:=VALUE"
            )
        if a.choices and values[a.name] not in a.choices:
            raise InputError(
                f"argument '{a.name}' of graph '{graph}' is '{values[a.name]}': give "
                f"one of {', '.join(a.choices)}"
            )
    executables = [node["executable"] for node in _graph(graph)["nodes"]]
    for name in overrides or {}:
        if name not in executables:
            raise InputError(
                f"graph '{graph}' has no node '{name}': it has {', '.join(executables)}"
            )
    specs = []
    for node in _graph(graph)["nodes"]:
        name = node["executable"]
        if any(values[key] != wanted for key, wanted in node.get("when", {}).items()):
            continue
        files = tuple(
            _parameter_file(entry, values)
            for entry in node["parameters"]
            if isinstance(entry, str)
        )
        parameters: dict[str, Any] = {}
        for entry in node["parameters"]:
            if isinstance(entry, dict) and all(
                values[key] == wanted for key, wanted in entry.get("when", {}).items()
            ):
                parameters.update({key: value for key, value in entry.items() if key != "when"})
        remaps = dict(node.get("remap", {}))
        for a in arguments:
            value = values[a.name]
            for target, parameter in a.sets:
                if target == name and value:
                    parameters[parameter] = _typed(a, value)
            topics = a.remaps.get(name, [])
            if value and topics and topics[0] != value:
                remaps.update({topic: value + topic.removeprefix(topics[0]) for topic in topics})
        parameters.update((overrides or {}).get(name, {}))
        specs.append(NodeSpec(name, values.get("namespace", ""), files, parameters, remaps))
    return specs


def parse_assignments(words: Sequence[str]) -> dict[str, str]:
    """
    Read ``name:=value`` words as launch does.

    Raises:
        InputError: a word is not of that form.
    """
    pairs = [word.partition(":=") for word in words]
    for name, sign, _ in pairs:
        if not sign or not name:
            raise InputError(f"'{name}' is no argument: write NAME:=VALUE")
    return {name: value for name, _, value in pairs}


def parse_parameters(words: Sequence[str]) -> dict[str, dict[str, Any]]:
    """
    Read ``node.name:=value`` words into parameters per executable; a value is YAML, as in ``ros2
    param set``.

    Raises:
        InputError: a word is not of that form.
    """
    parameters: dict[str, dict[str, Any]] = {}
    for target, value in parse_assignments(words).items():
        node, dot, name = target.partition(".")
        if not dot or not node or not name:
            raise InputError(
                f"'{target}' names no parameter: write NODE.NAME:=VALUE, such as "
                "sim_bridge.frame_rate:=15.0"
            )
        parameters.setdefault(node, {})[name] = yaml.safe_load(value)
    return parameters


def _graph(graph: str) -> dict[str, Any]:
    declared = _declarations()
    if graph not in declared:
        raise InputError(f"graph '{graph}' is unknown: use one of {', '.join(declared)}")
    return dict(declared[graph])


def _parameter_file(entry: str, values: Mapping[str, str]) -> Path:
    """
    A parameter file of ``config/``; in place of ``{robot}`` the robot's own, shipped or the
    user's.
    """
    return robot_file(values["robot"]) if "{robot}" in entry else share_dir() / "config" / entry


def robot_file(robot: str) -> Path:
    """
    The parameter file of a robot: a name in ``config/robots/``, or a path that ends in ``.yaml``.

    Raises:
        InputError: there is no such file.
    """
    path = (
        Path(robot)
        if robot.endswith(".yaml")
        else share_dir() / "config" / "robots" / f"{robot}.yaml"
    )
    if not path.is_file():
        shipped = ", ".join(
            sorted(p.stem for p in (share_dir() / "config" / "robots").glob("*.yaml"))
        )
        raise InputError(
            f"robot '{robot}' has no parameter file: give one of {shipped}, or the "
            "path of your own (start from template.yaml)"
        )
    return path


def _robot_arguments(robot: str, names: Sequence[str]) -> dict[str, str]:
    """
    What a robot's file says of the graph's arguments, under ``arguments``: such as its topics.
    """
    section = yaml.safe_load(robot_file(robot).read_text()).get("arguments", {})
    told = {name: str(value) for name, value in section.get("ros__parameters", {}).items()}
    for name in told:
        if name not in names:
            raise InputError(
                f"{robot_file(robot)} gives the argument '{name}', which the graph "
                f"does not have: it has {', '.join(names)}"
            )
    return told


def _default(arguments: Sequence[Argument], name: str) -> str:
    return next(a.default for a in arguments if a.name == name)


def _typed(argument: Argument, value: str) -> Any:
    try:
        return argument.kind(value)
    except ValueError as error:
        raise InputError(
            f"argument '{argument.name}' is '{value}': give a number ({argument.description})"
        ) from error

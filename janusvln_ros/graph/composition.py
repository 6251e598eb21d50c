"""
Which nodes run together: ``config/graphs.yaml`` read once, for ``janusvln up`` and for the launch
files alike. No ROS import.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from janusvln_ros.data.bags import open_bag
from janusvln_ros.data.playback import suggested
from janusvln_ros.documents import parse_yaml, read_yaml
from janusvln_ros.errors import InputError, require
from janusvln_ros.files import share_dir

PACKAGE = "janusvln_ros"
"""The ROS package that holds every executable named here."""


def whole_numbers(text: str) -> list[int]:
    """
    Read "[8, 48]", "8,48" or "8 48".

    Raises:
        ValueError: something else than whole numbers.
    """
    return [int(word) for word in text.strip("[] ").replace(",", " ").split()]


KINDS: Mapping[str, Callable[[str], Any]] = {
    "text": str,
    "int": int,
    "float": float,
    "bool": bool,
    "ints": whole_numbers,
}
"""What an argument's value becomes, by the ``type`` it is declared with."""


@dataclass(frozen=True)
class Argument:
    """
    Something a user may give to a graph: ``sets`` parameters (node, name) to its value as
    ``kind``, ``remaps`` topics of nodes to it, and ``implies`` values of others. A bool is given
    as true or false, in any case of letters.
    """

    name: str
    default: str
    description: str
    choices: tuple[str, ...] = ()
    required: bool = False
    kind: Callable[[str], Any] = str
    sets: tuple[tuple[str, str], ...] = ()
    remaps: Mapping[str, list[str]] = field(default_factory=dict)
    implies: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class NodeSpec:
    """
    One node to start: name, namespace, parameter files in order, parameters that win over them,
    remaps from -> to, and the ROS package that it comes from.
    """

    name: str
    namespace: str
    files: tuple[Path, ...]
    parameters: Mapping[str, Any]
    remaps: Mapping[str, str]
    package: str = PACKAGE

    @property
    def executable(self) -> str:
        """
        The program that runs the node. Programs of all packages share one folder where pip
        installs them, so that a plain ``policy`` could be anybody's.
        """
        return f"janusvln_{self.name}" if self.package == PACKAGE else self.name

    @property
    def full_name(self) -> str:
        """The node's name with its namespace, which is also its enclave of SROS2."""
        return "/".join(["", *filter(None, self.namespace.split("/")), self.name])

    def arguments(self, folder: Path) -> list[str]:
        """
        Return the command-line arguments after the executable, as any ROS 2 node takes them.

        ``parameters`` go into a file of ``folder``, under the node's full name, as launch does
        it: so they win over whatever another file says, under whichever pattern (``-p`` would
        lose to one that names the node).
        """
        words = ["--ros-args", "-r", f"__node:={self.name}"]
        space = self.namespace.strip("/")
        files = self.files
        if space:
            words += ["-r", f"__ns:=/{space}"]
        words += ["--enclave", self.full_name]
        if self.parameters:
            path = folder / f"{self.name}.yaml"
            # JSON is YAML in which every text is quoted: "1" stays one
            told = {self.full_name: {"ros__parameters": self.parameters}}
            path.write_text(json.dumps(told, ensure_ascii=False))
            files += (path,)
        words += [word for path in files for word in ("--params-file", str(path))]
        words += [word for pair in self.remaps.items() for word in ("-r", ":=".join(pair))]
        return words


def _declarations() -> dict[str, Any]:
    return dict(yaml.safe_load((share_dir() / "config" / "graphs.yaml").read_text()))


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
            KINDS[entry.get("type", "text")],
            tuple(
                (target.split(".", 1)[0], target.split(".", 1)[1])
                for target in entry.get("sets", ())
            ),
            entry.get("remaps", {}),
            entry.get("implies", {}),
        )
        for name, entry in _graph(graph)["arguments"].items()
    ]


def resolve(
    graph: str, given: Mapping[str, str], overrides: Mapping[str, Mapping[str, Any]] | None = None
) -> list[NodeSpec]:
    """
    Return the nodes of ``graph`` in the order in which they start.

    Args:
        graph: its name in ``config/graphs.yaml``.
        given: values for its arguments, as text: what the user said, which wins over a robot's
            file even where it equals the default. What is missing or empty takes its default.
        overrides: further parameters per node, which win over everything else.

    Raises:
        InputError: the graph or an argument is unknown, a required one is missing, a value is
            none of the choices, or no node is left.
    """
    arguments = graph_arguments(graph)
    values = _values(graph, arguments, given)
    names = [node["node"] for node in _graph(graph)["nodes"]]
    for name in overrides or {}:
        require(
            name in names,
            f"graph '{graph}' has no node '{name}': it has {', '.join(names)}",
        )
    specs = [
        _node(node, arguments, values, (overrides or {}).get(node["node"], {}))
        for node in _graph(graph)["nodes"]
        if _holds(node, values)
    ]
    said = ", ".join(f"{name}:={value}" for name, value in given.items() if str(value))
    require(
        any(spec.package == PACKAGE for spec in specs),
        f"graph '{graph}' starts no node with {said}: leave one of these out",
    )
    return specs


def _values(graph: str, arguments: Sequence[Argument], given: Mapping[str, str]) -> dict[str, str]:
    """Every argument's value: what the user said, else the robot's file, else the default."""
    names = {a.name: a.default for a in arguments}
    for name in given:
        require(
            name in names, f"graph '{graph}' has no argument '{name}': it has {', '.join(names)}"
        )
    said = {name: str(value) for name, value in given.items() if str(value)}
    told = _robot_arguments(said.get("robot", names["robot"]), names) if "robot" in names else {}
    values = names | told | said
    for a in arguments:
        values |= a.implies.get(values[a.name], {})
    values |= said
    if values.get("bag"):
        values |= _bag_arguments(values) | said
    for a in arguments:
        if a.kind is bool:  # launch files write Python's True
            values[a.name] = values[a.name].lower() or a.default
        require(
            not (a.required and (not values[a.name])),
            f"graph '{graph}' needs the argument '{a.name}' ({a.description}): give "
            f"{a.name}:=VALUE",
        )
        choices = ("", "true", "false") if a.kind is bool else a.choices
        require(
            not choices or values[a.name] in choices,
            f"argument '{a.name}' of graph '{graph}' is '{values[a.name]}': give one of "
            f"{', '.join(filter(None, choices))}",
        )
    return values


def _holds(entry: Mapping[str, Any], values: Mapping[str, str]) -> bool:
    """Whether every argument of ``when`` has the value, or one of the values, that stand there."""
    return all(
        values[key] in (wanted if isinstance(wanted, list) else [wanted])
        for key, wanted in entry.get("when", {}).items()
    )


def _node(
    node: Mapping[str, Any],
    arguments: Sequence[Argument],
    values: Mapping[str, str],
    overrides: Mapping[str, Any],
) -> NodeSpec:
    name, listed = node["node"], node["parameters"]
    files = tuple(_parameter_file(entry, values) for entry in listed if isinstance(entry, str))
    parameters: dict[str, Any] = {}
    for entry in listed:
        if isinstance(entry, dict) and _holds(entry, values):
            parameters.update({key: value for key, value in entry.items() if key != "when"})
    remaps = dict(node.get("remap", {}))
    for a in arguments:
        value, topics = values[a.name], a.remaps.get(name, [])
        parameters.update(
            {p: _typed(a, value) for target, p in a.sets if value and target == name}
        )
        if value and topics and topics[0] != value:
            remaps.update({topic: value + topic.removeprefix(topics[0]) for topic in topics})
    parameters.update(overrides)
    space, package = values.get("namespace", ""), node.get("package", PACKAGE)
    return NodeSpec(name, space, files, parameters, remaps, package)


def parse_assignments(words: Sequence[str]) -> dict[str, str]:
    """
    Read ``name:=value`` words as launch does.

    Raises:
        InputError: a word is not of that form.
    """
    pairs = [word.partition(":=") for word in words]
    for name, sign, _ in pairs:
        require(sign and name, f"'{name}' is no argument: write NAME:=VALUE")
    return {name: value for name, _, value in pairs}


def parse_parameters(words: Sequence[str]) -> dict[str, dict[str, Any]]:
    """
    Read ``node.name:=value`` words into parameters per node; a value is YAML, as in ``ros2
    param set``.

    Raises:
        InputError: a word is not of that form.
    """
    parameters: dict[str, dict[str, Any]] = {}
    for target, value in parse_assignments(words).items():
        node, dot, name = target.partition(".")
        require(
            dot and node and name,
            f"'{target}' names no parameter: write NODE.NAME:=VALUE, such as "
            "sim_bridge.frame_rate:=15.0",
        )
        parameters.setdefault(node, {})[name] = parse_yaml(value, f"{target}:=")
    return parameters


def _graph(graph: str) -> dict[str, Any]:
    declared = _declarations()
    require(graph in declared, f"graph '{graph}' is unknown: use one of {', '.join(declared)}")
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


def _robot_arguments(robot: str, names: Collection[str]) -> dict[str, str]:
    """
    What a robot's file says of the graph's arguments, under ``arguments``: such as its topics.
    """
    try:
        content = read_yaml(robot_file(robot)) or {}
        listed = content.get("arguments", {}).get("ros__parameters", {}).items()
    except (OSError, AttributeError) as error:
        raise InputError(
            f"{robot_file(robot)} is no parameter file of ROS: start from template.yaml ({error})"
        ) from error
    told = {name: "" if value is None else str(value) for name, value in listed}
    for name in told:
        if name not in names:
            raise InputError(
                f"{robot_file(robot)} gives the argument '{name}', which the graph "
                f"does not have: it has {', '.join(names)}"
            )
    return told


def _bag_arguments(values: Mapping[str, str]) -> dict[str, str]:
    """What a bag says of the graph's arguments; a bag that cannot be read is the player's word."""
    try:
        with open_bag(values["bag"]) as bag:
            return suggested(bag, values)
    except InputError:
        return {}


def _typed(argument: Argument, value: str) -> Any:
    if argument.kind is bool:
        return value == "true"
    try:
        return argument.kind(value)
    except ValueError as error:
        raise InputError(
            f"argument '{argument.name}' is '{value}': give a number ({argument.description})"
        ) from error

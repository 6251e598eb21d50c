"""
A graph of ``config/graphs.yaml`` as a launch description; imported by ``launch/*.launch.py`` only,
where ROS 2's launch is there.
"""

from collections import deque
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from launch.actions import (
    DeclareLaunchArgument,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.event_handlers import OnProcessIO
from launch.logging import get_logger
from launch.substitutions import EnvironmentVariable
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from janusvln_ros.graph.composition import NodeSpec, graph_arguments, resolve
from janusvln_ros.graph.processes import (
    LAST_WORDS_LINES,
    PROFILE_VARIABLES,
    NodeEndedError,
    last_words,
    launch_prefix,
    shipped_profile,
)
from launch import LaunchDescription  # type: ignore[attr-defined]  # not our launch/

MISSPELT = 0.75
"""How much a name has to look like one of ours (``difflib``) to be taken for it."""


def launch_node(spec: NodeSpec, told: Mapping[str, str]) -> list[Any]:
    """
    One node as actions of launch: it, and before it what listens to what it says. ``told``: the
    launch configurations.

    When it ends by itself, everything ends, as with ``janusvln up``: in peace with exit code 0
    (the player at the end of its bag), else launch fails with the node's own sentence.

    Strings are marked as such: launch would read an episode's name "1" as a number.
    """
    values = {
        name: ParameterValue(value, value_type=str) if isinstance(value, str) else value
        for name, value in spec.parameters.items()
    }
    said: deque[str] = deque([""], maxlen=LAST_WORDS_LINES)

    def keep(event: Any) -> None:
        first, *others = event.text.decode(errors="replace").replace("\r", "").split("\n")
        said[-1] += first
        said.extend(others)

    def ended(event: Any, context: Any) -> Any:
        if context.is_shutdown:
            return None
        if event.returncode == 0:
            told = f"{spec.name} is done; the other nodes end too"
            return [LogInfo(msg=told), Shutdown(reason=told)]
        # launch ends everything, says this, and ends with 1
        raise NodeEndedError(spec.name, event.returncode, last_words(list(filter(None, said))))

    node = Node(
        package=spec.package,
        executable=spec.executable,
        name=spec.name,
        exec_name=spec.name,
        namespace=spec.namespace,
        parameters=[*map(str, spec.files), *([values] if values else [])],
        remappings=list(spec.remaps.items()),
        ros_arguments=["--enclave", spec.full_name],
        output="screen",
        emulate_tty=True,
        on_exit=ended,
        prefix=launch_prefix(spec, told),
    )
    heard = OnProcessIO(target_action=node, on_stdout=keep, on_stderr=keep)
    return [RegisterEventHandler(heard), node]


def describe(graph: str) -> LaunchDescription:
    """
    The launch description of ``graph``: its arguments, room in shared memory for raw images, and
    its nodes.
    """
    arguments = graph_arguments(graph)
    names = [a.name for a in arguments]
    said: dict[str, str] = {}

    def hear(context: Any) -> None:
        """Before the defaults are declared: what the user has said, which wins over any file."""
        told = context.launch_configurations
        said.update({name: told[name] for name in names if name in told})
        # launch takes any name, and a launch around this one has names of its own
        for name in told.keys() - names:
            if near := get_close_matches(name, names, 1, MISSPELT):
                get_logger("launch").warning(
                    f"{graph}.launch.py has no argument '{name}': did you mean {near[0]}:=?"
                )

    def nodes(context: Any) -> list[Any]:
        for name in names:
            if name not in said:  # or a second graph in this launch would take it for said
                context.launch_configurations.pop(name, None)
        told = context.launch_configurations
        return [action for spec in resolve(graph, said) for action in launch_node(spec, told)]

    # a profile that the user has chosen wins, by whichever name
    new, old = PROFILE_VARIABLES
    chosen = EnvironmentVariable(old, default_value=str(shipped_profile()))
    declared = [
        DeclareLaunchArgument(
            a.name,
            default_value=a.default,
            description=a.description,
            choices=list(a.choices) or None,
        )
        for a in arguments
    ]
    return LaunchDescription(
        [
            SetEnvironmentVariable(new, EnvironmentVariable(new, default_value=chosen)),
            SetEnvironmentVariable(
                old, EnvironmentVariable(old, default_value=EnvironmentVariable(new))
            ),
            OpaqueFunction(function=hear),
            *declared,
            OpaqueFunction(function=nodes),
        ]
    )

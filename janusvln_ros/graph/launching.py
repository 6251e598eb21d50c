"""
A graph of ``config/graphs.yaml`` as a launch description; imported by ``launch/*.launch.py`` only,
where ROS 2's launch is there.
"""

from typing import Any

from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from janusvln_ros.files import share_dir
from janusvln_ros.graph.composition import PACKAGE, NodeSpec, graph_arguments, resolve
from launch import LaunchDescription  # type: ignore[attr-defined]  # not our launch/


def launch_node(spec: NodeSpec) -> Node:
    """
    One node as an action of launch.

    Strings are marked as such: launch would read an episode's name "1" as a number.
    """
    values = {
        name: ParameterValue(value, value_type=str) if isinstance(value, str) else value
        for name, value in spec.parameters.items()
    }
    return Node(
        package=PACKAGE,
        executable=spec.executable,
        name=spec.name,
        namespace=spec.namespace,
        parameters=[*map(str, spec.files), *([values] if values else [])],
        remappings=list(spec.remaps.items()),
        output="screen",
        emulate_tty=True,
    )


def describe(graph: str) -> LaunchDescription:
    """
    The launch description of ``graph``: its arguments, room in shared memory for raw images, and
    its nodes.
    """
    arguments = graph_arguments(graph)

    def nodes(context: Any, *_: Any) -> list[Node]:
        return [
            launch_node(spec)
            for spec in resolve(
                graph, {a.name: LaunchConfiguration(a.name).perform(context) for a in arguments}
            )
        ]

    # a profile that the user has chosen wins
    profile = EnvironmentVariable(
        "FASTDDS_DEFAULT_PROFILES_FILE",
        default_value=str(share_dir() / "config" / "fastdds_shm.xml"),
    )
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
            SetEnvironmentVariable("FASTDDS_DEFAULT_PROFILES_FILE", profile),
            *declared,
            OpaqueFunction(function=nodes),
        ]
    )

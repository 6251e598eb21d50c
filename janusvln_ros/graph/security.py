"""
The SROS2 policy of a graph: what each of its nodes publishes, hears, serves and calls while it
runs, and nothing else. Enclaves are the nodes' full names, as `janusvln up` and launch pass them.
"""

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rclpy.action import (
    get_action_client_names_and_types_by_node,
    get_action_server_names_and_types_by_node,
)

from janusvln_ros.errors import InputError
from janusvln_ros.files import atomic_write

Uses = dict[tuple[str, str], set[str]]
"""Names by kind and verb, such as ("topics", "publish"): {"/cmd_vel"}."""

ITEMS = {"topics": "topic", "services": "service", "actions": "action"}
"""What the policy calls a single one of each kind."""

VERBS = (
    ("topics", "publish"),
    ("topics", "subscribe"),
    ("services", "reply"),
    ("services", "request"),
    ("actions", "execute"),
    ("actions", "call"),
)

OPERATOR = "janusvln_operator"
"""The node of `janusvln arm`, `go`, `watch`, `stop` and `status`; its enclave is /operator."""

OPERATOR_USES: Uses = {
    ("topics", "publish"): {"/rosout", "/parameter_events", "policy/client"},
    ("topics", "subscribe"): {
        "/parameter_events",
        "/clock",
        "/diagnostics",
        "policy/about",
        "policy/decision",
        "recorder/incident",
    },
    ("services", "request"): {
        "motion/arm",
        "policy/stop",
        *(f"{node}/get_state" for node in ("motion", "policy")),
    },
    ("actions", "call"): {"follow_instruction"},
}
"""What they use: they come and go, and each uses only a part."""

GLOBAL = ("/rosout", "/parameter_events", "/clock", "/diagnostics", "/tf", "/tf_static")
"""Names that stand in no namespace."""

HEAD = """ SROS2 policy: what each node may publish, hear, serve and call, and no more. Written by
     'janusvln secure FILE' from graphs that ran; with remaps or a namespace write your own. Use:
       ros2 security create_keystore keystore
       ros2 security generate_artifacts -k keystore -p policy.xml
       export ROS_SECURITY_KEYSTORE=$PWD/keystore
       export ROS_SECURITY_ENABLE=true ROS_SECURITY_STRATEGY=Enforce
"""


def used_by(node: Any, name: str, namespace: str) -> Uses:
    """What the node ``name`` uses by now, as far as ``node`` has discovered; full names."""
    told = (
        node.get_publisher_names_and_types_by_node(name, namespace),
        node.get_subscriber_names_and_types_by_node(name, namespace),
        node.get_service_names_and_types_by_node(name, namespace),
        node.get_client_names_and_types_by_node(name, namespace),
        get_action_server_names_and_types_by_node(node, name, namespace),
        get_action_client_names_and_types_by_node(node, name, namespace),
    )
    # an action's own topics and services come with its permission
    return {
        verb: {used for used, _ in pairs if "/_action/" not in used}
        for verb, pairs in zip(VERBS, told)
    }


def short(name: str, node: str, namespace: str) -> str:
    """A name as the policy has it: relative to the node (``~/``) or its namespace, if there."""
    space = namespace.rstrip("/")
    if name.startswith(f"{space}/{node}/"):
        return "~" + name.removeprefix(f"{space}/{node}")
    return name if name in GLOBAL else name.removeprefix(space + "/")


def read_policy(path: Path) -> dict[tuple[str, str], Uses]:
    """
    What a policy file allows, by node and namespace.

    Raises:
        InputError: it is none.
    """
    try:
        tree = ET.parse(path)
    except (ET.ParseError, OSError) as error:
        raise InputError(f"{path} is no SROS2 policy ({error}): give another file") from error
    return {
        (str(profile.get("node")), str(profile.get("ns"))): {
            (kind, verb): {
                (item.text or "").strip()
                for block in profile.findall(kind)
                if block.get(verb) == "ALLOW"
                for item in block.findall(ITEMS[kind])
            }
            for kind, verb in VERBS
        }
        for profile in tree.iter("profile")
    }


def write_policy(path: Path, profiles: Mapping[tuple[str, str], Uses]) -> None:
    """Write a policy: an enclave for each node of ``profiles`` (node, namespace)."""
    root = ET.Element("policy", version="0.2.0")
    root.append(ET.Comment(HEAD))
    enclaves = ET.SubElement(root, "enclaves")
    for (node, space), uses in sorted(profiles.items()):
        own = "operator" if node == OPERATOR else node
        enclave = ET.SubElement(enclaves, "enclave", path=f"{space.rstrip('/')}/{own}")
        listed = ET.SubElement(enclave, "profiles")
        profile = ET.SubElement(listed, "profile", ns=space, node=node)
        for kind, verb in VERBS:
            if not (names := uses.get((kind, verb))):
                continue
            block = ET.SubElement(profile, kind, {verb: "ALLOW"})
            for name in sorted({short(name, node, space) for name in names}):
                ET.SubElement(block, ITEMS[kind]).text = name
    ET.indent(root)
    text = ET.tostring(root, encoding="unicode")
    atomic_write(path, f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n')


def joined(
    first: Mapping[tuple[str, str], Uses], second: Mapping[tuple[str, str], Uses]
) -> dict[tuple[str, str], Uses]:
    """Everything that one of two policies allows."""
    return {
        key: {
            verb: {
                short(name, *key)
                for uses in (first.get(key, {}), second.get(key, {}))
                for name in uses.get(verb, ())
            }
            for verb in VERBS
        }
        for key in {**first, **second}
    }

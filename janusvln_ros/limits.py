"""
How much may be read: limits that keep a hostile or damaged file from taking the machine.

They are checked against what a file says of itself before anything of that size is allocated. Each
is raised by its environment variable, for who has larger files and trusts them.
"""

import os
from typing import NamedTuple

from janusvln_ros.errors import InputError, require


class Limit(NamedTuple):
    """A number that files may not pass, in which unit, and what it is of."""

    default: int
    unit: str
    what: str


LIMITS = {
    "PICTURE_PIXELS": Limit(1 << 25, "pixels", "a picture, before it is decoded"),
    "DOCUMENT_MB": Limit(
        256, "MB", "a JSON or YAML file in memory, where its size does not explain more"
    ),
    "BAG_MB": Limit(256, "MB", "one message or chunk of a bag, unpacked"),
    "BAG_EXPANSION": Limit(1000, "times", "a compressed bag unpacked, against its own size"),
    "LAYERS": Limit(256, "layers", "each part of a network that a config.json asks for"),
    "WIDTH": Limit(1 << 20, "numbers", "each width of such a network, and its vocabulary"),
    "FRAMES": Limit(1 << 14, "frames", "each window, history and answer of such a network"),
    "REPLY_MB": Limit(128, "MB", "a reply of the simulator beside its pictures"),
}
"""By name; the variable is ``JANUSVLN_MAX_`` and the name (``docs/reliability.md`` lists them)."""

PREFIX = "JANUSVLN_MAX_"


def limit(name: str) -> int:
    """
    The limit of that name, as it stands or as the environment has it.

    Raises:
        InputError: the variable holds no number from 1.
    """
    told = os.environ.get(PREFIX + name, "")
    if not told:
        return LIMITS[name].default
    require(
        told.isascii() and told.isdigit() and 0 < len(told) <= 15 and int(told) > 0,
        f"{PREFIX}{name} is {told!r:.40}: give a whole number of {LIMITS[name].unit} from 1",
    )
    return int(told)


def require_within(value: float, name: str, thing: str) -> None:
    """
    Go on only where ``value`` is within the limit ``name``.

    Raises:
        InputError: it is not; ``thing`` begins the sentence, which says how to raise the limit.
    """
    most = limit(name)
    if not value <= most:
        raise InputError(
            f"{thing} {value:,.0f} {LIMITS[name].unit}, more than the limit of {most:,}: if you "
            f"trust it, set {PREFIX}{name} higher"
        )

"""
Names of tensors: published ones and those of `Network`, both ways, and what becomes of each tensor
of a published checkpoint.

Published names follow transformers < 4.52. Ours differ in the first part only (`PREFIXES`). Some
published tensors have no part in the result and are read past; everything else must be there with
its exact shape, and nothing unknown may be there.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from janusvln_ros.errors import require
from janusvln_ros.model.config import JanusVLNConfig
from janusvln_ros.model.network import Network

Shape = tuple[int, ...]

PREFIXES = {
    "visual.": "vision.",
    "vggt.aggregator.": "spatial.",
    "merger.": "fusion.",
    "model.": "language.",
    "lm_head.": "lm_head.",
}
"""First part of a published name, and of ours."""

NEWER_PREFIXES = {"model.language_model.": "model.", "model.visual.": "visual."}
"""First part of a Qwen2.5-VL name since transformers 4.52, and of the published one."""


def published_name(ours: str) -> str:
    """The name that a parameter of `Network` has in a file."""
    return next(_replaced(ours, {own: published for published, own in PREFIXES.items()}))


def older_name(name: str) -> str:
    """
    The published name of a tensor that a file names in the layout of newer transformers; any other
    as it is.
    """
    return next(_replaced(name, NEWER_PREFIXES), name)


def our_name(name: str) -> str | None:
    """
    The parameter of `Network` that a file's tensor would be, in the published layout or in that of
    newer transformers; None if no part of the network has such names.
    """
    return next(_replaced(older_name(name), PREFIXES), None)


def _replaced(name: str, prefixes: Mapping[str, str]) -> Iterator[str]:
    """``name`` with each prefix that it has replaced."""
    return (new + name[len(old) :] for old, new in prefixes.items() if name.startswith(old))


def unused_reason(published: str, config: JanusVLNConfig) -> str | None:
    """Why a tensor of a published file is read past, or None if it is not one of those."""
    last = config.spatial.depth - 1
    reasons = {
        r"vggt\.(point|depth|camera|track)_head\.": (
            "VGGT's prediction heads, which navigation never calls"
        ),
        rf"vggt\.aggregator\.(frame|global)_blocks\.{last}\.": (
            "VGGT's last pair of blocks, which comes after the features that are used"
        ),
        r"vggt\.aggregator\.patch_embed\.mask_token$": "DINOv2's mask token, for its pretraining",
        r"classifier\.": "a 3-D grounding head, which navigation never calls",
        r".*\.inv_freq$": "rotary frequencies, which are computed",
    }
    if config.tie_word_embeddings:
        reasons[r"lm_head\.weight$"] = "tied to the embeddings"
    return next(
        (reason for pattern, reason in reasons.items() if re.match(pattern, published)), None
    )


@dataclass(frozen=True)
class Account:
    """
    What becomes of each tensor of a checkpoint, by published names.

    Attributes:
        used: shapes of the tensors that become parameters.
        unused: why each of the others is read past.
        missing, extra: names that the network needs and the file lacks, and the reverse.
        misshapen: shape in the file, and the one that is needed.
        read_past: numbers in all tensors that are read past, by reason.
    """

    used: dict[str, Shape]
    unused: dict[str, str]
    missing: list[str]
    extra: list[str]
    misshapen: dict[str, tuple[Shape, Shape]]
    read_past: dict[str, int]

    def check(self, name: str) -> None:
        """
        Raise InputError naming every tensor that is missing, unknown or misshapen, and what to do.
        """
        shapes = [
            f"{key} is {list(found)}, config.json asks for {list(wanted)}"
            for key, (found, wanted) in self.misshapen.items()
        ]
        kinds = (
            (
                self.missing,
                "lacks {} tensors ({}): copy all of its files again, every shard that "
                "model.safetensors.index.json names",
            ),
            (
                shapes,
                "has {} tensors of another shape ({}): config.json belongs to other weights; "
                "take both from one place",
            ),
            (
                self.extra,
                "has {} unknown tensors ({}): it is no JanusVLN checkpoint, or "
                "config.json gives too few layers",
            ),
        )
        problems = [said.format(len(names), some(names)) for names, said in kinds if names]
        require(not problems, f"the checkpoint {name} " + "; it ".join(problems))


def account(found: Mapping[str, Shape], network: Network) -> Account:
    """
    Hold the tensors of a file (shapes by their names, published or of newer transformers) against
    those that ``network`` needs; it may be on the meta device.
    """
    twice = sorted(
        name for name in found if name != older_name(name) and older_name(name) in found
    )
    found = {older_name(name): shape for name, shape in found.items() if name not in twice}
    needed = {published_name(key): tuple(t.shape) for key, t in network.state_dict().items()}
    if network.config.tie_word_embeddings:
        needed.pop("lm_head.weight")
    unused = {
        key: reason
        for key in found
        if key not in needed and (reason := unused_reason(key, network.config))
    }
    return Account(
        used={key: shape for key, shape in found.items() if needed.get(key) == shape},
        unused=unused,
        missing=sorted(set(needed) - set(found)),
        extra=sorted({*found, *twice} - set(needed) - set(unused)),
        misshapen={
            key: (found[key], shape)
            for key, shape in needed.items()
            if key in found and found[key] != shape
        },
        read_past={
            reason: sum(prod(found[key]) for key, why in unused.items() if why == reason)
            for reason in dict.fromkeys(unused.values())
        },
    )


def some(names: Sequence[str], most: int = 8) -> str:
    """The first names of a list in one line, and how many there are more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more

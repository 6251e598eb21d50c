"""
What people say about a way, beside the plain sentences that say the same: drawn without end from
the routes of generated homes, without a picture of them.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np

from janusvln_ros.data.episodes import is_unseen_text
from sim_bridge.homes.dataset import home_seed, mapped
from sim_bridge.homes.episodes import described_routes
from sim_bridge.homes.instruction import say, say_plainly
from sim_bridge.homes.language import Facts, told
from sim_bridge.homes.language.plain import mirrored, plain_parts

PLAIN_SHARE = 0.2
"""Of the texts, plain ones in any of their phrasings: they are to stay what they are."""

ROUTES = 8
"""Routes of a home."""


def routes(seed: int, homes: int, jobs: int = 1) -> list[Facts]:
    """
    What is true of some routes in each of ``homes`` homes drawn with ``seed``, which no data set
    has; worked out by ``jobs`` processes, the same for any number of them.
    """
    seeds = [home_seed(seed, "paraphrases", index) for index in range(homes)]
    with mapped(partial(described_routes, count=ROUTES, stream=0), seeds, jobs) as found:
        return [facts for some in found for facts in some]


def paraphrase(
    rng: np.random.Generator, facts: Sequence[Facts], *, held_out: bool = False
) -> tuple[str, str]:
    """
    Draw a route of ``facts``, as it is or in the mirror, and a text about it: what somebody says,
    and the plain sentences for what is said.

    Args:
        held_out: say at least one word or pattern that training has not; else none, nor a text
            that belongs to the unseen splits (`is_unseen_text`).
    """
    while True:
        route, mirror = facts[int(rng.integers(len(facts)))], bool(rng.integers(2))
        one = told(rng, route, held_out=held_out, mirrored=mirror)
        parts = plain_parts(one.content, route)
        parts = mirrored(parts) if mirror else parts
        said = one.text
        if not held_out and rng.random() < PLAIN_SHARE:
            said = say(rng, parts)
        if one.held_out if held_out else not (one.held_out or is_unseen_text(said)):
            return said, say_plainly(parts)

"""
What people say about a way, beside the plain sentences that say the same: drawn without end from
the routes of generated homes, without a picture of them, and for the episodes of a data set.
"""

import zlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from janusvln_ros.data.episodes import Episode, Identity, is_unseen_text
from janusvln_ros.errors import InputError
from janusvln_ros.rollout.tally import Scene, scene_of
from sim_bridge.homes.dataset import home_seed, mapped
from sim_bridge.homes.episodes import described_routes
from sim_bridge.homes.instruction import Part, say, say_plainly
from sim_bridge.homes.language import Facts, route_facts, told
from sim_bridge.homes.language.lexicon import HELD_OUT_WORDS
from sim_bridge.homes.language.plain import LIKE_FIRST_ROOM, mirrored, plain_parts
from sim_bridge.homes.plan import RedrawError

PLAIN_SHARE = 0.2
"""Of the texts, plain ones in any of their phrasings: they are to stay what they are."""

ROUTES = 8
"""Routes of a home."""

HELD_OUT = HELD_OUT_WORDS
"""Words that training does not say, by which it is judged."""

Ways = Sequence[Facts]
"""What is true of routes."""


def routes(seed: int, homes: int, jobs: int = 1) -> Ways:
    """
    What is true of some routes in each of ``homes`` homes drawn with ``seed``, which no data set
    has; worked out by ``jobs`` processes, the same for any number of them.
    """
    seeds = [home_seed(seed, "paraphrases", index) for index in range(homes)]
    with mapped(partial(described_routes, count=ROUTES, stream=0), seeds, jobs) as found:
        return [facts for some in found for facts in some]


def paraphrase(
    rng: np.random.Generator, facts: Ways, *, held_out: bool = False
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
            parts = parts if rng.integers(2) else tuple(map(of_any_kind, parts))
            said = say(rng, parts)
        if one.held_out if held_out else not (one.held_out or is_unseen_text(said)):
            return said, say_plainly(parts)


def of_any_kind(part: Part) -> Part:
    """
    ``part`` without the kind of a thing that is known by the colour of the first room, as
    generator 1 puts it as well ("the thing with the colour of the room where you started").
    """
    known_by_it = part.thing.endswith(LIKE_FIRST_ROOM)
    return replace(part, thing=f"thing{LIKE_FIRST_ROOM}") if known_by_it else part


def tell_plainly(rng: np.random.Generator, facts: Facts) -> str:
    """
    Plain sentences for something that may be said about a route, with details or without, in the
    usual words or in others; none that belongs to the unseen splits.
    """
    while True:
        parts = plain_parts(told(rng, facts).content, facts, details=bool(rng.integers(2)))
        text = say(rng, parts) if rng.integers(2) else say_plainly(parts)
        if not is_unseen_text(text):
            return text


RETOLD = ("retold", "retold_held_out", "retold_plainly")
"""
Ways to tell an episode in a generated home anew: as people may say it, the same with words or
patterns that training does not have, and the plain sentences for what the first of these says.
"""


def retold(
    data_dir: Path, episodes: Sequence[Episode], form: str, seed: int
) -> dict[Identity, str]:
    """
    Describe episodes anew in a ``form`` of `RETOLD`, drawn with the seed and their identities.

    Raises:
        InputError: an episode is in no generated home.
    """
    homes: dict[str, Scene | None] = {}
    texts: dict[Identity, str] = {}
    for episode in episodes:
        if episode.scene not in homes:
            homes[episode.scene] = scene_of(data_dir, episode)
        home = homes[episode.scene]
        if home is None:
            raise InputError(
                f"--instructions {form} describes ways in generated homes; episode "
                f"{episode.episode_id!r} is in {episode.scene}, of which nothing is known"
            )
        number = zlib.crc32(repr(episode.identity).encode())
        rng = np.random.default_rng([seed, number])
        texts[episode.identity] = _retold(rng, home, episode, form)
    return texts


def _retold(rng: np.random.Generator, home: Scene, episode: Episode, form: str) -> str:
    try:
        facts = route_facts(home.plan, home.things, episode)
    except RedrawError as error:
        raise InputError(
            f"the reference path of episode {episode.episode_id!r} does not fit its home "
            f"{episode.scene}: generate the houses again"
        ) from error
    odd = form == "retold_held_out"
    while True:
        one = told(rng, facts, held_out=odd)
        if one.held_out == odd:
            plain = form == "retold_plainly"
            return say_plainly(plain_parts(one.content, facts)) if plain else one.text

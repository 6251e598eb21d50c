"""
Who speaks and who listens on a topic, and what is wrong with that. Pure functions.

Types are written as ``package/msg/Name``.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

NAMED = 5
"""Topics or nodes that a sentence names; more are counted."""


NO_TOPIC = "; no topic of that type is published"
"""How a sentence ends that knows of nothing that was meant instead."""


class Endpoint(NamedTuple):
    """
    A publisher or a subscription of a topic: its node, its type, and why its quality of service
    does not match ours (empty: it does).
    """

    node: str
    kind: str
    mismatch: str = ""


def no_listener(
    topic: str, kind: str, listeners: Sequence[Endpoint], remedies: Mapping[str, str]
) -> str | None:
    """
    Why nobody hears what is published as ``kind`` on ``topic``, or None.

    ``remedies``: what to set so that listeners of another type are served.
    """
    if any(listener.kind == kind and not listener.mismatch for listener in listeners):
        return None
    if not listeners:
        return f"nobody listens to {topic} (0 listeners; {kind} is sent): is the base running?"
    count = "1 listener" if len(listeners) == 1 else f"{len(listeners)} listeners"
    same = [listener for listener in listeners if listener.kind == kind]
    if same:
        why = names(f"{listener.node}: {listener.mismatch}" for listener in same)
        return f"{topic} has {count} of {kind}, and its quality of service does not match ({why})"
    others = sorted({listener.kind for listener in listeners})
    sentence = (
        f"{topic} has {count} ({names(listener.node for listener in listeners)}) of "
        f"{names(others)}, but {kind} is sent"
    )
    set_to = [remedies[other] for other in others if other in remedies]
    return sentence + (f": set {set_to[0]}" if set_to else "")


def heard_by(topic: str, kind: str, listeners: Sequence[Endpoint]) -> str:
    """Who hears what is published as ``kind`` on ``topic``, and who does not."""
    here = [one for one in listeners if one.kind == kind and not one.mismatch]
    count = "1 listener" if len(here) == 1 else f"{len(here)} listeners"
    sentence = f"{topic} ({kind}) has {count}: {names(one.node for one in here)}"
    deaf = [f"{one.node}: {one.mismatch or one.kind}" for one in listeners if one not in here]
    return sentence + (f"; not heard by {names(deaf)}" if deaf else "")


def no_publisher(
    topic: str, kind: str, publishers: Sequence[Endpoint], topics: Mapping[str, Sequence[str]]
) -> str | None:
    """
    Why nothing of ``kind`` can arrive on ``topic``, or None.

    ``topics``: the types of every topic that somebody publishes, for what was meant instead.
    """
    if any(publisher.kind == kind and not publisher.mismatch for publisher in publishers):
        return None
    same = [publisher for publisher in publishers if publisher.kind == kind]
    if same:
        why = names(f"{publisher.node}: {publisher.mismatch}" for publisher in same)
        return f"nothing can arrive on {topic}: its quality of service does not match ({why})"
    if publishers:
        told = names(sorted({publisher.kind for publisher in publishers}))
        sentence = f"{topic} is published as {told}, not as {kind}"
    else:
        sentence = f"{topic} ({kind}) has no publisher"
    meant = sorted(name for name, kinds in topics.items() if kind in kinds and name != topic)
    sentence += f"; topics of that type: {names(meant)}" if meant else NO_TOPIC
    twin, transport = twin_of(topic)
    return sentence + (f"; {twin} is there: {transport}" if twin in topics else "")


def twin_of(topic: str) -> tuple[str, str]:
    """The same pictures in the other transport, and how to ask for it."""
    raw = topic.removesuffix("/compressed")
    if raw != topic:
        return raw, "image_transport: raw (transport:=raw)"
    return f"{topic}/compressed", "image_transport: compressed (transport:=compressed)"


def names(words: Iterable[str]) -> str:
    """Return words as a list of at most ``NAMED``, and how many there are more."""
    listed = list(words)
    more = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    return ", ".join(listed[:NAMED]) + more

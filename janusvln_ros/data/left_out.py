"""
What was read and is not used: never dropped without a word, always counted by its reason.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from janusvln_ros.errors import InputError

WRONG_TYPE = "a field has the wrong type"

NAMED = 3
"""How many of those left out for one reason are named."""


class LeftOut(str):
    """
    A sentence that says which thing is left out and why; ``reason`` is the same words for all that
    are left out for the same reason.
    """

    reason: str

    def __new__(cls, sentence: str, reason: str = "cannot be used") -> "LeftOut":
        """Make it of the whole sentence and the reason alone."""
        self = super().__new__(cls, sentence)
        self.reason = reason
        return self


class UnusableError(InputError):
    """One thing among many cannot be used: ``reason`` is what it is counted under."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


def usable(condition: object, reason: str, sentence: str) -> None:
    """
    Go on only where ``condition`` holds.

    Raises:
        UnusableError: it does not; counted under ``reason``, told by ``sentence``.
    """
    if not condition:
        raise UnusableError(reason, sentence)


def describe(name: str, error: Exception) -> LeftOut:
    """What ``error`` says about the thing called ``name``, which begins the sentence."""
    if isinstance(error, KeyError):
        return LeftOut(f"{name}{error} is missing", "a field is missing")
    reason = error.reason if isinstance(error, UnusableError) else "cannot be used"
    return LeftOut(f"{name}{error}", reason)


def counted(sentences: Iterable[str]) -> dict[str, Any]:
    """
    ``{"left_out": how many, "left_out_by_reason": {reason: {"count": how many, "first": the first
    sentences}}}``, the most frequent reason first.
    """
    groups: dict[str, list[str]] = {}
    for sentence in sentences:
        groups.setdefault(getattr(sentence, "reason", "cannot be used"), []).append(sentence)
    most_first = sorted(groups.items(), key=lambda group: -len(group[1]))
    return {
        "left_out": sum(map(len, groups.values())),
        "left_out_by_reason": {
            reason: {"count": len(group), "first": group[:NAMED]} for reason, group in most_first
        },
    }


def left_out_page(report: Mapping[str, Any], read: int, things: str) -> list[str]:
    """
    Lines for people about a report that holds what `counted` tells: how many of the ``read``
    ``things`` are left out, by reason, with the first of each; none where nothing is.
    """
    if not report["left_out"]:
        return []
    lines = [f"left out: {report['left_out']} of {read} {things}"]
    for reason, group in report["left_out_by_reason"].items():
        lines.append(f"  {group['count']} because {reason}")
        lines += [f"    {sentence}" for sentence in group["first"]]
    return lines


def refuse_any(sentences: Sequence[str], read: int, things: str) -> None:
    """
    Go on only where nothing was left out (``--strict``).

    Raises:
        InputError: something was; how much, and why.
    """
    if sentences:
        page = "\n".join(left_out_page(counted(sentences), read, things))
        raise InputError(f"--strict: something would be left out\n{page}")


def _wrong(item: Any, key: str, wanted: str) -> UnusableError:
    return UnusableError(WRONG_TYPE, f"{key} is {item[key]!r:.80}, it must be {wanted}")


def field(item: Any, key: str, kinds: type | tuple[type, ...], wanted: str) -> Any:
    """
    ``item[key]`` if it is of one of ``kinds``, which people call ``wanted``; True and False are no
    numbers.

    Raises:
        KeyError: there is none.
        UnusableError: it is of another type.
    """
    value = item[key]
    listed = kinds if isinstance(kinds, tuple) else (kinds,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in listed):
        raise _wrong(item, key, wanted)
    return value


def text(item: Any, key: str) -> str:
    """``item[key]``, which must be text; raises as `field`."""
    return str(field(item, key, str, "text"))


def identifier(item: Any, key: str) -> str:
    """``item[key]``, an id: text or a whole number, as text; raises as `field`."""
    return str(field(item, key, (int, str), "a whole number or text"))


def each(item: Any, key: str, fits: Callable[[Any], bool], wanted: str) -> list[Any]:
    """``item[key]``, a list in which every value ``fits``; raises as `field`."""
    values = field(item, key, (list, tuple), f"a list of {wanted}")
    if not all(map(fits, values)):
        bad = next(value for value in values if not fits(value))
        raise UnusableError(WRONG_TYPE, f"{key} holds {bad!r:.80}, it must be a list of {wanted}")
    return list(values)


def whole_numbers(item: Any, key: str) -> tuple[int, ...]:
    """``item[key]``, a list of whole numbers; raises as `field`."""
    return tuple(each(item, key, lambda value: type(value) is int, "whole numbers"))


def texts(item: Any, key: str) -> tuple[str, ...]:
    """``item[key]``, a list of texts; raises as `field`."""
    return tuple(each(item, key, lambda value: isinstance(value, str), "texts"))

"""What is hunted: each family draws cases and says what may come of one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

Check = Callable[[Any], object]


@dataclass(frozen=True)
class Family:
    """
    A kind of input.

    Attributes:
        name: to call it by.
        cases: draws one: bytes, or values that JSON has.
        check: takes one in as the package does; raises what a user would see, AssertionError where
            a promise is broken.
    """

    name: str
    cases: st.SearchStrategy[Any]
    check: Check


FAMILIES: dict[str, Family] = {}
"""By name. To add one, call `family` in a module that `load` imports."""


def family(name: str, cases: st.SearchStrategy[Any]) -> Callable[[Check], Check]:
    """Make a family of the function below: its argument is a case."""

    def add(check: Check) -> Check:
        FAMILIES[name] = Family(name, cases, check)
        return check

    return add


def load() -> dict[str, Family]:
    """All families; what they need is imported and made here, so that no case has to wait."""
    import hunt.files
    import hunt.machines
    import hunt.messages  # noqa: F401

    return FAMILIES

"""Words as they come from people, topics and files, on their way to the prompt."""

import unicodedata

from janusvln_ros.errors import require

MAX_INSTRUCTION = 4000
"""Characters of an instruction that a person or a topic may give at once."""


def clean_instruction(text: str, most: int | None = None) -> str:
    """
    Return ``text`` as the prompt gets it: as it is, but for control characters.

    White space stays, so that a published text is prompted as it was published; other control
    characters (escapes, bells, broken surrogates) become spaces.

    Raises:
        InputError: no letter, digit, mark or symbol is in it, or more than ``most`` characters.
    """
    require(
        most is None or len(text) <= most,
        f"the instruction has {len(text)} characters; at most {most} are allowed",
    )
    require(
        any(unicodedata.category(c)[0] in "LNPS" for c in text),
        "the instruction is empty: say where to go, for example 'walk to the table and stop'",
    )
    return "".join(
        " " if unicodedata.category(c) in ("Cc", "Cs") and not c.isspace() else c for c in text
    )

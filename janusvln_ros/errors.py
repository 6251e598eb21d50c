"""What a user is told of: input that can be mended, numbers that went bad, work that failed."""

import unicodedata

TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that turn the direction of writing (Unicode's bidirectional controls)."""


def printable(text: str) -> str:
    """
    Return ``text`` as a terminal may show it: control characters but line ends and tabs, broken
    surrogates, and marks that turn the direction of writing stand as their escapes.

    Names and instructions come from topics and files; as they are, they could move the cursor,
    change the colours or hide what follows.
    """
    return "".join(
        c
        if c in "\n\t" or not (unicodedata.category(c) in ("Cc", "Cs") or c in TURNING)
        else c.encode("unicode_escape", "surrogatepass").decode()
        for c in text
    )


class InputError(ValueError):
    """
    Bad input: the message names the thing, its value and the remedy, and is all that a user needs
    to see.

    The command line prints it as ``error: ...`` without a traceback and exits with 2; nodes log it
    and report it as a status. What it quotes is printable.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class NonFiniteError(ArithmeticError):
    """
    The network produced numbers that are not finite: no fault of the input.

    The message says which, and what may be the cause; nothing was remembered.
    """


class FailedError(RuntimeError):
    """
    What was asked could not be brought to its end, and no input is to blame: the message says why
    and how to go on. The command line prints it and exits with 1.
    """


EXTRAS = {
    **dict.fromkeys(("torch", "transformers", "safetensors", "tokenizers"), "policy"),
    "huggingface_hub": "policy",
    **dict.fromkeys(("moderngl", "trimesh", "skfmm"), "sim"),
    **dict.fromkeys(("rosbags", "mcap"), "bags"),
    **dict.fromkeys(("accelerate", "tensorboard"), "train"),
}
"""The extra of this package that brings a module which is not there for everybody."""


def lacking(error: ModuleNotFoundError) -> str | None:
    """
    One sentence about a module that is not installed and which extra brings it, or None where it
    is none of an extra.
    """
    extra = EXTRAS.get((error.name or "").partition(".")[0])
    if extra is None:
        return None
    told = f"{error.name} is not installed here: pip install 'janusvln_ros[{extra}]'"
    body = "; a robot's body needs none, its policy may run on another computer (part:=brain)"
    return told + (body if extra == "policy" else "")


def require(condition: object, sentence: str) -> None:
    """
    Go on only where ``condition`` holds.

    Raises:
        InputError: it does not; with ``sentence``.
    """
    if not condition:
        raise InputError(sentence)

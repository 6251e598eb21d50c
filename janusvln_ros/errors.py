"""What a user is told of: input that can be mended, numbers that went bad, work that failed."""


class InputError(ValueError):
    """
    Bad input: the message names the thing, its value and the remedy, and is all that a user needs
    to see.

    The command line prints it as ``error: ...`` without a traceback and exits with 2; nodes log it
    and report it as a status.
    """


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

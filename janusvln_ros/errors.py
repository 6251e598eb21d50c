"""The one exception for input that a user can mend."""


class InputError(ValueError):
    """
    Bad input: the message names the thing, its value and the remedy, and is all that a user needs
    to see.

    The command line prints it as ``error: ...`` without a traceback and exits with 2; nodes log it
    and report it as a status.
    """

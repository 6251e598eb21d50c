"""How steps and episodes end, as the interfaces name it; a test holds both to the messages."""

STAGES = ("preprocess", "spatial", "vision", "prefill", "decode", "total")
"""Stages of a decision that ``Decision`` tells the seconds of, in order."""


class Code:
    """Error codes of ``FollowInstruction``."""

    NONE, UNKNOWN = 0, 900
    INVALID_INSTRUCTION, NOT_ACTIVE, NO_FRAME, BAD_FRAME, NOT_UNDERSTOOD = 901, 902, 903, 904, 905
    INFERENCE_FAILED, STEP_LIMIT, TIME_LIMIT, BLOCKED, STEP_TIMEOUT = 906, 907, 908, 909, 910
    STALE, DISARMED, PREEMPTED, CANCELED, NO_PROGRESS = 911, 912, 913, 914, 915
    NO_MOTION_SERVER, NO_INSTRUCTION, UNTRUSTED, UNATTENDED, CLIENT_LOST = 916, 917, 918, 919, 920


class StepStatus:
    """Status of ``ExecuteStep``."""

    SUCCEEDED, BLOCKED, TIMEOUT, STALE, DISARMED, REFUSED, CANCELED, FAILED, UNTRUSTED = range(9)

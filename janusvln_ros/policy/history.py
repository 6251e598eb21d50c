"""Which frames the language model reads again at every step, in the released mode."""

import numpy as np

from janusvln_ros.errors import InputError


def sample_history(n_frames: int, num_history: int) -> list[int]:
    """
    Indices of the frames to read, oldest first, the current frame last.

    All frames while there are at most ``num_history`` earlier ones; after that ``num_history + 1``
    indices spread evenly from the first frame to the current one, each rounded down. Driving,
    DAgger and training data share this rule.

    Args:
        n_frames: frames of the episode so far, the current one included.
        num_history: most earlier frames to read; 0 reads the current frame alone.

    Raises:
        InputError: there is no frame, or ``num_history`` is negative.
    """
    if n_frames < 1 or num_history < 0:
        raise InputError(
            f"cannot choose {num_history} history frames out of {n_frames}: there must "
            "be a frame, and num_history must not be negative"
        )
    if n_frames - 1 <= num_history:
        return list(range(n_frames))
    if num_history == 0:
        return [n_frames - 1]
    return [int(i) for i in np.linspace(0, n_frames - 1, num_history + 1, dtype=int)]

"""What one step of the policy answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from janusvln_ros.actions import Action


@dataclass(frozen=True)
class Decision:
    """
    The answer to one frame, and how it came about.

    Attributes:
        action: what to do, or None where the text is no action: "did not understand" is not
            "arrived".
        text: the answer as text, special tokens left out.
        token_ids: the answer's tokens, the end token included if it was generated.
        scores: float32 [n_generated, vocabulary] after repetition penalty, on the CPU; None unless
            asked for. In constrained decoding one row for each place where the action words part.
        probabilities: of the four actions, summing to 1; None in free decoding.
        timings: seconds spent in ``preprocess``, ``spatial``, ``vision``, ``prefill``, ``decode``,
            and ``total``.
        spatial_tokens: float32 [P, 2C] of this frame, special tokens first, on the CPU; None
            unless asked for.
    """

    action: Action | None
    text: str
    token_ids: list[int]
    scores: Tensor | None = None
    probabilities: Mapping[Action, float] | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    spatial_tokens: Tensor | None = None

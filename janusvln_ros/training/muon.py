"""
Muon for the weight matrices of hidden layers, AdamW for all other parameters, as one optimizer.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class MuonAndAdamW(torch.optim.Optimizer):
    """
    `torch.optim.Muon` and `torch.optim.AdamW` behind one interface, so that the Trainer schedules
    and saves them together.

    Muon's updates are scaled to the size of AdamW's (``match_rms_adamw``), so one learning rate
    serves both.

    Args:
        groups: groups of parameters with ``lr`` and ``weight_decay``; ``muon``: True where all of
            them are matrices of hidden layers.
        betas: of AdamW.
    """

    def __init__(self, groups: list[dict[str, Any]], betas: tuple[float, float]) -> None:
        self.parts: list[torch.optim.Optimizer] = []
        matrices, others = (
            [group for group in groups if group["muon"] == kind] for kind in (True, False)
        )
        if matrices:
            self.parts.append(torch.optim.Muon(matrices, adjust_lr_fn="match_rms_adamw"))
        if others:
            self.parts.append(torch.optim.AdamW(others, betas=betas))
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Let the parts work on this optimizer's own groups and state."""
        start = 0
        for part in self.parts:
            end = start + len(part.param_groups)
            part.param_groups, part.state = self.param_groups[start:end], self.state
            start = end

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As every optimizer's."""
        super().load_state_dict(state_dict)
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Any:  # type: ignore[override]
        """One step of both. ``closure`` is called once where given; returns its loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

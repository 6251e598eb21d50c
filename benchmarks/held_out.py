"""
What checkpoints make of the drives of a stream that none of them was trained on:

    python benchmarks/held_out.py RUN CHECKPOINT [CHECKPOINT ...]
    python benchmarks/held_out.py RUN CHECKPOINT --spool 60

RUN is the output folder of a 'janusvln train tiny-stream'. Told are the action loss (cross entropy
among the four actions, changes and stops three times), the share of right actions, that where the
action changes, and that of missed STOPs: means over drives, and for every checkpoint after the
first the difference of its loss to the first's, paired by drive, with its 95 % interval. --spool N
looks at N drives of the expert in the run's spool instead, by how often training has used them:
what one pass is learned by heart.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from janusvln_ros.evaluation.intervals import bootstrap
from janusvln_ros.policy import Navigator
from janusvln_ros.training.dual import DualTask, collate_trajectories
from janusvln_ros.training.recipes import load_recipe
from janusvln_ros.training.run import set_attention
from janusvln_ros.training.spool import Spool, StoredDrive
from janusvln_ros.training.stream import drive_item

RECIPE = load_recipe("tiny-stream")
FIGURES = ("accuracy", "changes", "stop_missed")


class Judge:
    """A checkpoint that is asked what it would do at every frame of a drive."""

    def __init__(self, checkpoint: Path) -> None:
        navigator = Navigator.from_pretrained(checkpoint, decoding="constrained")
        self.tokenizer, model = navigator.tokenizer, navigator.model.float()
        set_attention(model, RECIPE)
        self.task = DualTask(model, self.tokenizer).eval()
        self.logits_BFAV = torch.zeros(())
        model.lm_head.register_forward_hook(self._keep)

    def _keep(self, _: torch.nn.Module, inputs: object, logits_BFAV: Tensor) -> None:
        self.logits_BFAV = logits_BFAV

    @torch.no_grad()
    def figures(self, drive: StoredDrive) -> list[float]:
        """Action loss and ``FIGURES`` of a drive, told as in its first pass."""
        item = drive_item(self.tokenizer, RECIPE, drive, 0)
        told = self.task(**collate_trajectories([item]))
        scores_F4 = self.logits_BFAV[0, :, 0, self.task.answers[:, 0]].log_softmax(-1)
        targets_F = item["targets"]
        losses_F = -scores_F4.numpy()[np.arange(len(targets_F)), targets_F]
        loss = np.average(losses_F, weights=item["weights"])
        return [float(loss), *(float(told[name]) for name in FIGURES)]


def show(name: str, rows: np.ndarray) -> None:
    """Print the means of figures, one row a drive."""
    loss, right, changes, missed = np.nanmean(rows, axis=0)
    print(
        f"{name:24} {len(rows):4} drives  loss {loss:.4f}  right {right:.4f}  "
        f"changes {changes:.4f}  stops missed {missed:.3f}",
        flush=True,
    )


def held_out(spool: Spool, checkpoints: list[Path]) -> None:
    """Print the figures of ``checkpoints`` on all drives of a spool."""
    first = np.zeros(0)
    for checkpoint in checkpoints:
        judge = Judge(checkpoint)
        rows = np.array([judge.figures(spool.read(t)) for t in spool.tickets()])
        show(checkpoint.name, rows)
        if len(first):
            apart = rows[:, 0] - first
            interval = ", ".join(f"{end:+.4f}" for end in bootstrap(apart.tolist()) or ())
            print(f"{'':24} loss against the first: {apart.mean():+.4f} [{interval}]")
        else:
            first = rows[:, 0]


def by_use(spool: Spool, checkpoint: Path, count: int) -> None:
    """Print its figures on drives of the expert in a spool, by how often they have been used."""
    judge, rows = Judge(checkpoint), defaultdict[int, list[list[float]]](list)
    tickets = spool.tickets()
    for i in np.random.default_rng(0).permutation(len(tickets)):
        looked_at = rows[tickets[i].used]
        drive = spool.read(tickets[i]) if len(looked_at) < count else None
        if drive is not None and drive.about["driver"] == "expert":
            looked_at.append(judge.figures(drive))
    for used in sorted(rows):
        show(f"used {used} times", np.array(rows[used]))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--spool", type=int, default=0, metavar="N")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.spool:
        by_use(Spool(args.run / "stream" / "spool"), args.checkpoints[0], args.spool)
    else:
        held_out(Spool(args.run / "stream" / "held_out"), args.checkpoints)


if __name__ == "__main__":
    main()

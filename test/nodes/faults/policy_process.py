"""The real policy node as a process of its own, with a model that always goes forward."""

from types import SimpleNamespace

from janusvln_ros.actions import Action
from janusvln_ros.nodes.policy import main


class Forward:
    spatial_frames = semantic_frames = ()
    memory_capacity = memory_bytes = 0

    def reset(self, instruction):
        pass

    def step(self, rgb, commit=True):
        return SimpleNamespace(
            action=Action.MOVE_FORWARD,
            text="MOVE_FORWARD",
            probabilities=None,
            timings={"total": 0.0},
        )


if __name__ == "__main__":
    main(navigator=lambda values: Forward())

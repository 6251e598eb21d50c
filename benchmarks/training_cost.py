"""
What a supervised step costs in training: dual memory (a whole trajectory in one pass) against
released (a sample per step), same network, same pictures.

    python benchmarks/training_cost.py    # the small network, 60-step trajectories
    python benchmarks/training_cost.py --model DIR_OR_JSON --frames 120 --repeats 5

Forward, backward and optimizer step; encoders frozen as published but run (no cached features).
Random weights unless a checkpoint folder is given. The released samples are those of the
trajectory's later half, where the history is full, as most of a long drive's samples are.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from janusvln_ros.model import JanusVLN, JanusVLNConfig
from janusvln_ros.policy.preprocess import resized_shape
from janusvln_ros.policy.prompt import dual_prefix_ids, sample_history
from janusvln_ros.policy.tokenizer import load_tokenizer
from janusvln_ros.training.dual import (
    DualTask,
    collate_trajectories,
    foresight,
    step_weights,
)
from janusvln_ros.training.recipes import load_recipe
from janusvln_ros.training.released import ReleasedTask, collate_samples
from janusvln_ros.training.trainer import freeze

ROOT = Path(__file__).resolve().parents[1]
INSTRUCTION = (
    "Turn left and go through the door into the blue room. Walk past the red table and "
    "stop at the green lamp."
)


def trajectory(
    tokenizer: PreTrainedTokenizerBase, instruction: str, frames: np.ndarray, targets: np.ndarray
) -> dict[str, Any]:
    """What `collate_trajectories` takes of a drive: pictures uint8 [F, h, w, 3], F targets."""
    return {
        "prompt": dual_prefix_ids(tokenizer, instruction),
        "targets": targets,
        "weights": step_weights(targets, 3.0, 4.0),
        "ahead": foresight(targets, len(targets)),
        "executed": targets,
        "frames": frames,
        "name": "a drive of noise",
    }


def seconds(task: torch.nn.Module, step: Callable[[], torch.Tensor], repeats: int) -> float:
    """Median time of forward, backward and optimizer step."""
    optimizer = torch.optim.AdamW([p for p in task.parameters() if p.requires_grad], lr=1e-4)
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        loss = step()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))


def main() -> None:
    """Time both and print one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=ROOT / "config/model/tiny.json")
    parser.add_argument("--tokenizer", type=Path, default=ROOT / "config/model/tiny")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument(
        "--samples", type=int, default=8, help="released samples per optimizer step"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = (
        JanusVLN.from_config(JanusVLNConfig.from_pretrained(args.model))
        if args.model.suffix == ".json"
        else JanusVLN.from_pretrained(args.model)
    )
    model = model.to(device).train()
    freeze(model, load_recipe("base"))
    tokenizer = load_tokenizer(args.tokenizer)
    rng = np.random.default_rng(0)
    height, width = resized_shape(480, 640, model.config.navigation.image_width)
    frames = rng.integers(0, 256, (args.frames, height, width, 3), dtype=np.uint8)
    targets = rng.integers(1, 4, args.frames).astype(np.int64)
    item = trajectory(tokenizer, INSTRUCTION, frames, targets)
    batch = {name: value.to(device) for name, value in collate_trajectories([item]).items()}
    later = np.linspace(max(8, args.frames // 2), args.frames - 1, args.samples).astype(int)
    samples = collate_samples(
        [
            {
                "frames": frames[sample_history(n + 1, 8)],
                "instruction": INSTRUCTION,
                "action": int(targets[n]),
            }
            for n in later
        ]
    )
    dual, released = DualTask(model, tokenizer), ReleasedTask(model, tokenizer)
    autocast = torch.autocast(device, dtype=torch.bfloat16)
    with autocast:
        dual_time = seconds(dual, lambda: dual(**batch)["loss"], args.repeats)
        released_time = seconds(released, lambda: released(**samples)["loss"], args.repeats)
    dual_rate, released_rate = args.frames / dual_time, args.samples / released_time
    print(
        json.dumps(
            {
                "device": device,
                "threads": torch.get_num_threads(),
                "frames": args.frames,
                "dual": {
                    "seconds_per_trajectory": round(dual_time, 4),
                    "supervised_steps_per_second": round(dual_rate, 2),
                },
                "released": {
                    "seconds_per_sample": round(released_time / args.samples, 4),
                    "supervised_steps_per_second": round(released_rate, 2),
                },
                "dual_over_released": round(dual_rate / released_rate, 2),
            }
        )
    )


if __name__ == "__main__":
    main()

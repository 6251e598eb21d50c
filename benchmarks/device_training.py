"""
One optimizer step of the published recipe on a GPU, with both memories: tokens per second and peak
of memory; for docs/performance.md.

  python benchmarks/device_training.py          # random weights of the published sizes
  python benchmarks/device_training.py --dry    # a small network on this CPU: does it run?

Does nothing else where there is no GPU. bfloat16, gradient checkpointing, AdamW: as
``config/train/base.yaml`` says, with ``memory=dual`` for the second. All layers of the language
model where the card has 130 GB or more, else four of them. ``released`` takes samples of nine
pictures, ``dual`` one trajectory; the second of two steps is timed.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import card, card_in_words, device_arguments, put_table, rows, where, write_json
from torch import nn
from training_cost import trajectory

from janusvln_ros.actions import Action
from janusvln_ros.cli.bench import INSTRUCTION, build_navigator, peak_memory
from janusvln_ros.policy import Navigator
from janusvln_ros.policy.preprocess import GROUP, resized_shape
from janusvln_ros.policy.prompt import leaf_ids
from janusvln_ros.training.dual import DualTask, collate_trajectories
from janusvln_ros.training.recipes import Recipe, load_recipe
from janusvln_ros.training.released import ReleasedTask, collate_samples
from janusvln_ros.training.run import set_attention
from janusvln_ros.training.trainer import freeze, parameter_groups

ALL_LAYERS_BYTES = 130 * 10**9
FEW_LAYERS = 4


def build(config: str, layers: int | None, device: str) -> Navigator:
    """Network and tokenizer of a config.json, with so many layers of the language model."""
    values = json.loads((Path(config) / "config.json").read_text())
    values["num_hidden_layers"] = layers or values["num_hidden_layers"]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(values))
        return build_navigator(folder, "dual", None, device, "bfloat16")


def batch_of(
    navigator: Navigator, memory: str, frames: int, samples: int
) -> tuple[nn.Module, dict[str, Any], int]:
    """A task, a batch of noise for it, and how many tokens of it the language model reads."""
    model, tokenizer, rng = navigator.model, navigator.tokenizer, np.random.default_rng(0)
    height, width = resized_shape(480, 640, model.config.navigation.image_width)
    picture_rows = (height // GROUP) * (width // GROUP)
    pictures = rng.integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    if memory == "released":
        task = ReleasedTask(model, tokenizer)
        shown = pictures[: model.config.navigation.num_history + 1]
        sample = {"frames": shown, "instruction": INSTRUCTION, "action": 1}
        ids, _ = task.ids_and_labels(INSTRUCTION, len(shown), picture_rows, Action.MOVE_FORWARD)
        return task, collate_samples([sample] * samples), samples * len(ids)
    targets = rng.integers(1, 4, frames).astype(np.int64)
    item = trajectory(tokenizer, INSTRUCTION, pictures, targets)
    tokens = len(item["prompt"]) + frames * (picture_rows + 2 + len(leaf_ids(tokenizer)))
    batch = {name: value.to(model.device) for name, value in collate_trajectories([item]).items()}
    return DualTask(model, tokenizer), batch, tokens


def optimizer_step(
    task: nn.Module, batch: dict[str, Any], recipe: Recipe, device: str
) -> dict[str, float]:
    """Two optimizer steps; the second's seconds, the losses before each, and the peak."""
    parameters = [p for p in task.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameter_groups(task, recipe), betas=(0.9, recipe.beta2))
    losses = []
    for _ in range(2):
        start = time.perf_counter()
        with torch.autocast(device.split(":")[0], dtype=torch.bfloat16):
            loss = task(**batch)["loss"]
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, recipe.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())  # waits for the device
    return {
        "seconds": time.perf_counter() - start,
        "loss": losses[0],
        "loss_after": losses[1],
        "peak_bytes": peak_memory(device),
        "trained": sum(p.numel() for p in parameters),
    }


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Both recipes, each with weights of its own."""
    layers = args.layers
    if layers is None and args.device != "cpu":
        whole = torch.cuda.get_device_properties(args.device).total_memory >= ALL_LAYERS_BYTES
        layers = None if whole else FEW_LAYERS
    result: dict[str, Any] = {"where": where(args.device), "recipes": {}}
    for memory in ("released", "dual"):
        recipe = load_recipe("base", [f"memory={memory}"])
        navigator = build(args.config, layers, args.device)
        model = navigator.model.train()
        freeze(model, recipe)
        model.language.gradient_checkpointing_enable({"use_reentrant": False})
        set_attention(model, recipe)
        if args.device != "cpu":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        task, batch, tokens = batch_of(navigator, memory, args.frames, args.samples)
        found: dict[str, Any] = optimizer_step(task.train(), batch, recipe, args.device)
        found |= {
            "layers": model.config.text.num_hidden_layers,
            "tokens": tokens,
            "tokens_per_second": tokens / found["seconds"],
            "card": card(args.device),
        }
        print(memory, found, flush=True)
        result["recipes"][memory] = found
        write_json(args.json, result)  # also of what is stopped half-way
        del navigator, model, task, batch
    return result


def table(result: dict[str, Any]) -> str:
    """The Markdown that goes into the docs."""
    lines = [
        [
            memory,
            found["layers"],
            f"{found['trained'] / 1e9:.2f} G",
            found["tokens"],
            f"{found['seconds']:.2f}",
            f"{found['tokens_per_second']:.0f}",
            f"{found['peak_bytes'] / 2**30:.1f} GiB",
            f"{found['loss']:.2f}, {found['loss_after']:.2f}",
            card_in_words(found["card"]),
        ]
        for memory, found in result["recipes"].items()
    ]
    header = [
        "`base`, memory", "layers", "trained", "tokens a step", "seconds a step",
        "tokens per second", "peak", "loss before, after", "card",
    ]  # fmt: skip
    return "\n".join(
        [
            rows(header, lines),
            "",
            f"{result['where']}, bfloat16, gradient checkpointing, random weights, `python",
            "benchmarks/device_training.py`.",
        ]
    )


def main() -> None:
    """Step, print the table, and put it into the docs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config", default="benchmarks/configs/full", help="folder of a config.json"
    )
    parser.add_argument("--layers", type=int, help="of the language model (what fits)")
    parser.add_argument("--frames", type=int, default=24, help="of the trajectory (24)")
    parser.add_argument("--samples", type=int, default=2, help="released samples a step (2)")
    small = {"config": "benchmarks/configs/mid", "layers": 2, "frames": 4, "samples": 1}
    if (args := device_arguments(parser, small)) is None:
        return
    result = measure(args)
    text = table(result)
    print(text)
    if not args.no_docs:
        put_table("device_training", text)


if __name__ == "__main__":
    main()

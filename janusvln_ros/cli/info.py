"""
Say what a checkpoint holds, how much memory it takes, and which GPUs it fits on.

CHECKPOINT is a folder or a hub id; a folder with only a config.json will do, since everything
follows from the sizes in it. Where weights are there, their files are read (headers only) and
tensors that are missing, unknown or misshapen are named.

  janusvln info benchmarks/configs/mid
  janusvln info JanusVLN_Base --memory dual --window 8 24

A frame is remembered by the spatial memory (geometry) and, with --memory dual, by the semantic
memory (the language model's); both are set aside once per episode and do not grow. "fits" means
that weights, memories and an estimate of the room to compute stay within the GPU's size (1 GB =
10^9 bytes).
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from janusvln_ros.cli.options import JSON, SIZE, SPATIAL_PRECISION, WINDOW, option
from janusvln_ros.cli.output import answer, say
from janusvln_ros.documents import CONFIG_FILE, read_network
from janusvln_ros.files import local_checkpoint

if TYPE_CHECKING:
    from janusvln_ros.model import JanusVLNConfig
    from janusvln_ros.model.config import Memory
    from janusvln_ros.model.footprint import Need
    from janusvln_ros.model.memory import SpatialPrecision
    from janusvln_ros.model.network import Network

PRECISIONS = ("float32", "bfloat16", "int8", "int4")
"""Rows of the table; float16 takes what bfloat16 does."""

OPTIONS = (
    option(
        "checkpoint",
        metavar="CHECKPOINT",
        help="checkpoint folder, hub id, or folder with a config.json",
    ),
    option(
        "--memory",
        choices=["released", "dual"],
        help="how the past is remembered (what the checkpoint was trained for)",
    ),
    WINDOW,
    SIZE,
    SPATIAL_PRECISION,
    JSON,
)


def run(args: argparse.Namespace) -> int:
    """Count and print."""
    # a wrong one is told before long imports; of an adapter alone the network's room knows more
    folder = (
        given if (given := Path(args.checkpoint)).is_file() else local_checkpoint(args.checkpoint)
    )
    if folder is not None and not any(folder.glob("adapter_*")):
        read_network(folder / CONFIG_FILE if folder.is_dir() else folder)
    if sys.stderr.isatty():  # the libraries that know the network take their time
        say(f"counting the network of {args.checkpoint}")
    result = describe(args.checkpoint, args.memory, args.window, args.size, args.spatial_precision)
    answer(args.json, result, as_text)
    return 0


def describe(
    checkpoint: str,
    memory: "Memory | None" = None,
    window: tuple[int, int] | None = None,
    size: tuple[int, int] = (640, 480),
    spatial_precision: "SpatialPrecision | None" = None,
) -> dict[str, Any]:
    """
    Everything that is printed, as one object; sizes in bytes.

    Raises:
        InputError: no checkpoint there, tensors that do not fit its config.json, or impossible
            options.
    """
    from janusvln_ros.model import footprint as sizes
    from janusvln_ros.model.lora import has_adapter
    from janusvln_ros.model.memory import FrameWindow
    from janusvln_ros.policy.fit import frame_size, windowed
    from janusvln_ros.policy.identity import REPHRASE_FOLDER, checkpoint_digest
    from janusvln_ros.policy.preprocess import resized_shape

    folder, config = _opened(checkpoint)
    config = windowed(config, FrameWindow(*window) if window else None)
    mode, kept = memory or config.navigation.memory, config.navigation.window
    frame = frame_size(config, size)
    height, width = resized_shape(size[1], size[0], config.navigation.image_width)
    network = sizes.on_paper(config)
    weights, parameters = _weights(folder, network), sizes.count_parameters(network)
    return {
        "checkpoint": str(checkpoint),
        "checkpoint_digest": checkpoint_digest(folder) if folder.is_dir() else None,
        "adapter": folder.is_dir() and has_adapter(folder),
        "trained": config.navigation.trained and weights["files"] > 0,
        "rephrases": (folder / REPHRASE_FOLDER).is_dir(),
        "memory": mode,
        "decoding": config.navigation.decoding,
        "window": [kept.initial, kept.window],
        "frame": {
            "pixels": list(size),
            "resized": [width, height],
            "patches": [frame.width, frame.height],
            "fused_tokens": frame.fused,
        },
        "parameters": {**parameters, "total": sum(parameters.values())},
        "weights": weights,
        "spatial_precision": spatial_precision,
        "precisions": {
            precision: _needs(
                sizes.needed(
                    config,
                    network,
                    frame,
                    mode,
                    sizes.Use(precision, kept, spatial_precision),
                    True,
                )
            )
            for precision in PRECISIONS
        },
    }


def _opened(checkpoint: str) -> "tuple[Path, JanusVLNConfig]":
    """Folder (or file of settings) and settings of a checkpoint, as its weights have them."""
    from janusvln_ros.model import JanusVLNConfig
    from janusvln_ros.model.checkpoint import find, stored_config

    folder = Path(checkpoint)
    folder = folder if folder.is_file() else find(checkpoint)
    read = stored_config if _has_weights(folder) else JanusVLNConfig.from_pretrained
    return folder, read(folder)


def _has_weights(folder: Path) -> bool:
    return folder.is_dir() and any(folder.glob("*.safetensors*"))


def _weights(folder: Path, network: "Network") -> dict[str, Any]:
    """What lies in the weight files of a folder, if there are any; they must fit the network."""
    from janusvln_ros.model.checkpoint import stored_account, weight_files
    from janusvln_ros.model.lora import read_adapter

    if not _has_weights(folder):
        return {"files": 0, "read_past": {}}
    read_adapter(folder)  # for what it says against being merged
    paths, result = weight_files(folder), stored_account(folder, network)
    return {
        "files": len(paths),
        "bytes_on_disk": sum(path.stat().st_size for path in paths),
        "read_past": result.read_past,
    }


def _needs(need: "Need") -> dict[str, Any]:
    """What a use takes on a GPU, and which ones have that much."""
    from janusvln_ros.model import footprint as sizes

    return {
        "weights": need.weights,
        "memories": need.memories,
        "memory_per_frame": need.per_frame,
        "working_estimate": need.working,
        "context_estimate": need.overhead,
        "total": need.total,
        "fits_gigabytes": [gb for gb in sizes.GPU_GIGABYTES if need.total <= gb * 10**9],
    }


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def as_text(result: dict[str, Any]) -> str:
    """The object of `describe` as a page for people."""
    from janusvln_ros.model.footprint import GPU_GIGABYTES, PART_NAMES

    frame, parameters, weights = result["frame"], result["parameters"], result["weights"]
    trained = "trained" if result["trained"] else "no trained weights"
    files = f"  {weights['files']} weight file(s), {_size(weights.get('bytes_on_disk', 0))}"
    sizes = [
        f"{width}x{height}" for width, height in map(frame.get, ("pixels", "resized", "patches"))
    ]
    initial, window = result["window"]
    stored = (
        f", spatial memory {result['spatial_precision']}" if result["spatial_precision"] else ""
    )
    lines = [
        f"{result['checkpoint']}: memory {result['memory']}, decoding "
        f"{result['decoding']}, {trained}"
        + (", instructions are said again first" if result["rephrases"] else ""),
        "",
        *(
            f"  {name:<20} {parameters[part] / 1e6:10,.2f} M parameters"
            for part, name in PART_NAMES.items()
        ),
        f"  {'total':<20} {parameters['total'] / 1e6:10,.2f} M",
        *([files] if weights["files"] else []),
        *(["  with a LoRA adapter, merged on loading"] if result["adapter"] else []),
        *([f"  digest {digest}"] if (digest := result["checkpoint_digest"]) else []),
        *(
            f"  read past: {count / 1e6:,.2f} M, {reason}"
            for reason, count in weights["read_past"].items()
        ),
        "",
        f"A frame of {sizes[0]} pixels becomes {sizes[1]}, {sizes[2]} "
        f"patches, {frame['fused_tokens']} fused tokens.",
        f"Remembered: the first {initial} and the last {window} frames.",
        "",
        f"  weights in   weights  memory/frame  memories  to compute*     total   fits on{stored}",
    ]
    for precision, need in result["precisions"].items():
        memories = sum(need["memories"].values())
        frame_bytes = sum(need["memory_per_frame"].values())
        compute = need["working_estimate"] + need["context_estimate"]
        fits = (
            f"{need['fits_gigabytes'][0]} GB and more"
            if need["fits_gigabytes"]
            else f"none up to {GPU_GIGABYTES[-1]} GB"
        )
        lines += [
            f"  {precision:<9}  {_size(need['weights']):>8}  {_size(frame_bytes):>12}  "
            f"{_size(memories):>8}  {_size(compute):>11}  {_size(need['total']):>8}   {fits}"
        ]
    lines += [
        "",
        "  * estimated, with a CUDA context. int8 and int4 are the layers of the "
        "language model, the rest is bfloat16.",
    ]
    return "\n".join(lines)

"""
Time the model step by step.

The network is built from a folder's config.json alone, with random weights: any size can be timed
before there is anything to download. Frames are noise; time does not depend on what they show.
Every step is one camera frame of an episode, so the memories fill as they would: the first figures
are those of a young episode, and from frame 57 on (8 + 48 frames remembered, by default) nothing
may grow.

  janusvln bench --config benchmarks/configs/mid --frames 60 --memory dual
  janusvln bench --config CHECKPOINT --device cuda --precision bfloat16 --json
  janusvln bench --config benchmarks/configs/full --write DIR

Stages: preprocess (resize, patches), spatial (geometry, with its memory), vision (what is there),
prefill (the language model reads), decode (the answer). On a GPU each stage waits for its own
work. --json prints one object: the seconds of every step in "frames", and "peak_memory_bytes"
(GPU: most allocated; CPU: most resident in this process, Python included).
"""

import argparse
import resource
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from janusvln_ros.cli.options import JSON, PRECISION, SIZE, SPATIAL_PRECISION, WINDOW, option
from janusvln_ros.cli.output import answer
from janusvln_ros.documents import read_object
from janusvln_ros.errors import require

if TYPE_CHECKING:
    from janusvln_ros.model.config import Decoding, Memory
    from janusvln_ros.policy import Navigator

SHOWN = (1, 10, 30, 57)
"""Frames that are printed, beside the last."""


OPTIONS = (
    option(
        "--config",
        required=True,
        metavar="DIR",
        help="folder with a config.json: sizes of the network (weights are not read)",
    ),
    option("--frames", type=int, default=60, metavar="N", help="steps of the episode (60)"),
    option(
        "--memory",
        choices=["released", "dual"],
        default="released",
        help="how the past is remembered (released)",
    ),
    option(
        "--decoding",
        choices=["free", "constrained"],
        help="how an answer is read (what config.json says)",
    ),
    option("--threads", type=int, metavar="T", help="CPU threads (torch's choice)"),
    option("--device", default="cpu", help="cpu, cuda or cuda:N (cpu)"),
    PRECISION,
    option(
        "--cuda-graphs",
        action="store_true",
        help="dual on a GPU: replay the language model from a recording once the window is full",
    ),
    SPATIAL_PRECISION,
    WINDOW,
    SIZE,
    option(
        "--write",
        type=Path,
        metavar="DIR",
        help="write a checkpoint of these sizes with random bfloat16 weights into the new folder "
        "DIR, and time nothing",
    ),
    option(
        "--warmup",
        type=int,
        default=2,
        metavar="N",
        help="steps of an episode before, not counted (2)",
    ),
    JSON,
)


def build_navigator(
    folder: str,
    memory: "Memory",
    decoding: "Decoding | None",
    device: str,
    precision: str,
    spatial_precision: str | None = None,
    window: tuple[int, int] | None = None,
    size: tuple[int, int] = (640, 480),
    **options: Any,
) -> "Navigator":
    """
    A `Navigator` with random weights of the sizes in ``folder``'s config.json, and a tokenizer
    made for it; arguments are those of `Navigator.from_pretrained`.

    Raises:
        InputError: no usable config.json there, a device or precision that is not to be had, or no
            room for it.
    """
    from janusvln_ros.model import JanusVLNConfig
    from janusvln_ros.model.memory import FrameWindow
    from janusvln_ros.model.synthetic import random_network
    from janusvln_ros.policy import Navigator, NavigatorOptions
    from janusvln_ros.policy.fit import fit
    from janusvln_ros.policy.navigator import as_device

    NavigatorOptions(memory, decoding, **options)
    config, target = JanusVLNConfig.from_pretrained(folder), as_device(device)
    found = fit(
        config,
        target,
        precision=precision,
        spatial_precision=spatial_precision,
        window=FrameWindow(*window) if window else None,
        memory=memory,
        size=size,
    )
    chosen = NavigatorOptions(
        memory,
        decoding,
        allow_untrained_memory=True,
        spatial_precision=found.spatial_precision,
        **options,
    )
    model = random_network(found.config, found.use.precision, target)
    navigator = Navigator(model, fitting_tokenizer(folder), chosen)
    navigator.fit = found
    return navigator


def fitting_tokenizer(folder: str) -> Any:
    """A tokenizer made for the sizes in ``folder``'s config.json, and for the prompts."""
    from janusvln_ros.policy import prompt as texts
    from janusvln_ros.policy.tokenizer import standin_tokenizer

    path = Path(folder)
    return standin_tokenizer(
        read_object(path / "config.json" if path.is_dir() else path),
        [texts.TASK, texts.CHOICES, texts.DUAL_SYSTEM, texts.DUAL_USER, INSTRUCTION],
    )


def write_checkpoint(folder: str, out: Path, memory: "Memory") -> dict[str, Any]:
    """
    Write a checkpoint with random weights of the sizes in ``folder``'s config.json, for one of the
    memories, into a new folder; what was written, in words and bytes.

    Raises:
        InputError: no usable config.json there, ``out`` holds something, or the disk has no room.
    """
    import shutil
    from dataclasses import replace

    from janusvln_ros.model import JanusVLNConfig
    from janusvln_ros.model.footprint import on_paper, weight_bytes
    from janusvln_ros.model.synthetic import write_random_checkpoint

    config = JanusVLNConfig.from_pretrained(folder)
    config = replace(config, navigation=replace(config.navigation, memory=memory))
    require(
        not out.exists() or not any(out.iterdir()),
        f"--write {out}: the folder holds something already; name a new one",
    )
    out.mkdir(parents=True, exist_ok=True)
    wanted, free = weight_bytes(on_paper(config), "bfloat16"), shutil.disk_usage(out).free
    require(
        wanted < 0.95 * free,
        f"--write {out}: the weights take {wanted / 1e9:.2f} GB, and {free / 1e9:.2f} GB of the "
        "disk are free: name a folder elsewhere",
    )
    write_random_checkpoint(config, out)
    fitting_tokenizer(folder).save_pretrained(out)
    files = list(out.glob("*.safetensors"))
    size = sum(file.stat().st_size for file in files)
    return {"checkpoint": str(out), "files": len(files), "bytes": size, "memory": memory}


INSTRUCTION = "walk past the sofa, turn left at the door and stop near the table."


def time_steps(
    navigator: "Navigator", frames: int, size: tuple[int, int] = (640, 480), warmup: int = 2
) -> list[dict[str, float]]:
    """
    Drive one episode of noise and return the timings of each step, in seconds, with its ``frame``
    number from 1.
    """
    import numpy as np
    from tqdm import tqdm

    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (8, size[1], size[0], 3), dtype=np.uint8)
    for count, disable in ((warmup, True), (frames, False)):
        navigator.reset(INSTRUCTION)
        numbers = tqdm(
            range(count), desc="steps", disable=disable or not sys.stderr.isatty(), file=sys.stderr
        )
        steps = [
            {"frame": i + 1, **navigator.step(pictures[i % len(pictures)]).timings}
            for i in numbers
        ]
    return steps


def peak_memory(device: str) -> int:
    """Most bytes that were in use: allocated on a GPU, else resident in this process."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def run(args: argparse.Namespace) -> int:
    """Build, drive, print."""
    import torch

    require(
        args.frames >= 1 and args.warmup >= 0 and (args.threads is None or args.threads >= 1),
        f"--frames {args.frames}, --warmup {args.warmup}, --threads "
        f"{args.threads}: there must be a frame, a thread, and no negative number",
    )
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.write is not None:
        written = write_checkpoint(args.config, args.write, args.memory)
        answer(args.json, written, written_page)
        return 0
    navigator = build_navigator(
        args.config,
        args.memory,
        args.decoding,
        args.device,
        args.precision or "auto",
        args.spatial_precision,
        args.window,
        args.size,
        cuda_graphs=args.cuda_graphs,
    )
    assert navigator.fit is not None
    result = {
        "config": args.config,
        "memory": args.memory,
        "decoding": navigator.decoding,
        "device": args.device,
        "precision": navigator.fit.use.precision,
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in navigator.model.parameters()),
        "frames": time_steps(navigator, args.frames, args.size, args.warmup),
        "memory_bytes": navigator.memory_bytes,
        "peak_memory_bytes": peak_memory(args.device),
    }
    answer(args.json, result, page)
    return 0


def written_page(result: dict[str, Any]) -> str:
    """What `write_checkpoint` wrote, in a line."""
    return (
        f"{result['checkpoint']}: random weights for memory {result['memory']}, "
        f"{result['bytes'] / 1e9:.2f} GB in {result['files']} file(s)"
    )


def page(result: dict[str, Any]) -> str:
    """The figures of a few frames, and of the last ten together."""
    steps = result["frames"]
    stages = [key for key in steps[0] if key != "frame"]
    rows = [
        f"{step['frame']:5}  " + "  ".join(f"{1000 * step[stage]:10.1f}" for stage in stages)
        for step in steps
        if step["frame"] in (*SHOWN, len(steps))
    ]
    last = [step["total"] for step in steps[-10:]]
    return "\n".join(
        [
            f"{result['parameters'] / 1e6:.1f} M parameters, memory {result['memory']}, decoding "
            f"{result['decoding']}, {result['device']}, {result['precision']}, "
            f"{result['threads']} threads",
            "frame  " + "  ".join(f"{stage:>10}" for stage in stages) + "   (milliseconds)",
            *rows,
            f"median of the last {len(last)} steps: {1000 * statistics.median(last):.1f} ms",
            f"memories {result['memory_bytes'] / 2**20:.1f} MiB, peak "
            f"{result['peak_memory_bytes'] / 2**20:.0f} MiB",
        ]
    )

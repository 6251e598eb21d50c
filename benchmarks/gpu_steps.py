"""
Seconds per step of the 7B + 1B network on a GPU, each stage beside the least that operations and
bytes allow; for docs/performance.md.

  python benchmarks/gpu_steps.py
      bfloat16, random weights, 60 frames of both memories: minutes
  python benchmarks/gpu_steps.py --teraflops 312 --terabytes 2.0
      the peak rates of another GPU than an H200

Does nothing where there is no GPU. The floor of a stage is the larger of its operations over the
peak rate and its bytes over the peak bandwidth (`step_work.py`).
"""

import argparse
import re
import statistics
from pathlib import Path

import torch
from step_work import Step, step_work

from janusvln_ros.cli.bench import build_navigator, time_steps
from janusvln_ros.files import atomic_write
from janusvln_ros.model.footprint import FrameSize
from janusvln_ros.policy import Navigator, NavigatorOptions
from janusvln_ros.policy.preprocess import patch_grid, resized_shape

DOCS = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
START, END = "<!-- gpu_steps: made by benchmarks/gpu_steps.py -->", "<!-- /gpu_steps -->"
STAGES = ("preprocess", "spatial", "vision", "prefill", "decode")


def main() -> None:
    """Measure both memories with one set of weights, print the table, and put it into the docs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config",
        default="benchmarks/configs/full",
        help="folder with a config.json (benchmarks/configs/full)",
    )
    parser.add_argument("--frames", type=int, default=62, help="steps of each memory (62)")
    parser.add_argument(
        "--frame",
        type=int,
        default=60,
        help="the step to report (60); the median of it and two steps on each side",
    )
    parser.add_argument(
        "--teraflops",
        type=float,
        default=989.0,
        help="peak bfloat16 rate of the GPU without sparsity, 10^12 per second (H200: 989)",
    )
    parser.add_argument(
        "--terabytes",
        type=float,
        default=4.8,
        help="peak bandwidth of its memory, 10^12 bytes per second (H200: 4.8)",
    )
    parser.add_argument("--device", default="cuda", help="cuda or cuda:N")
    parser.add_argument("--no-docs", action="store_true", help="print only")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU: nothing measured, docs left as they are")
        return
    first = build_navigator(args.config, "released", "constrained", args.device, "bfloat16")
    model, tokenizer = first.model, first.tokenizer
    navigation = model.config.navigation
    frame = FrameSize(*patch_grid(*resized_shape(480, 640, navigation.image_width)))
    lines = [
        f"| at frame {args.frame} | " + " | ".join(STAGES) + " | total |",
        "|---|" + "---|" * (len(STAGES) + 1),
    ]
    totals = {}
    for name, memory, graphs in (
        ("released", "released", False),
        ("dual", "dual", False),
        ("dual, CUDA graphs", "dual", True),
    ):
        torch.cuda.reset_peak_memory_stats()
        options = NavigatorOptions(
            memory, "constrained", allow_untrained_memory=True, cuda_graphs=graphs
        )
        navigator = Navigator(model, tokenizer, options)
        steps = time_steps(navigator, args.frames)
        near = steps[args.frame - 3 : args.frame + 2]
        medians = {
            stage: statistics.median(step[stage] for step in near) for stage in (*STAGES, "total")
        }
        totals[name] = medians["total"]
        lines.append(
            f"| {name} | "
            + " | ".join(f"{1000 * medians[stage]:.1f}" for stage in (*STAGES, "total"))
            + " |"
        )
        work = step_work(model.config, Step(frame, memory, navigation.window, args.frame))
        floor = {
            stage: w.seconds(args.teraflops * 1e12, args.terabytes * 1e12)
            for stage, w in work.items()
            if stage != "decode"
        }
        cells = [f"{1000 * floor[stage]:.1f}" if stage in floor else "" for stage in STAGES]
        lines.append(
            f"| floor of {name} | " + " | ".join(cells) + f" | {1000 * sum(floor.values()):.1f} |"
        )
        peak = torch.cuda.max_memory_allocated() / 2**30
        spatial = navigator.spatial.nbytes / 2**30 if navigator.spatial else 0.0
        print(
            f"{name}: peak {peak:.1f} GiB, memories "
            f"{navigator.memory_bytes / 2**30:.2f} GiB, of which spatial {spatial:.2f} "
            "GiB",
            flush=True,
        )
        lines.append(
            f"| memory of {name} | peak {peak:.1f} GiB | spatial {spatial:.2f} GiB |"
            + " |" * (len(STAGES) - 1)
        )
        del navigator
        torch.cuda.empty_cache()
    best = min(totals["dual"], totals["dual, CUDA graphs"])
    lines += [
        "",
        f"Milliseconds; `dual` is {totals['released'] / best:.1f} times faster than `released`.",
    ]
    where = f"{torch.cuda.get_device_name(args.device)}, torch {torch.__version__}"
    lines += [
        f"{where}, bfloat16, constrained decoding, random weights, `python\n"
        "benchmarks/gpu_steps.py`."
    ]
    text = "\n".join(lines)
    print(text)
    if not args.no_docs:
        atomic_write(
            DOCS,
            re.sub(
                re.escape(START) + ".*?" + re.escape(END),
                lambda _: f"{START}\n{text}\n{END}",
                DOCS.read_text(),
                flags=re.DOTALL,
            ),
        )


if __name__ == "__main__":
    main()

"""
Seconds per step of the 7B + 1B network on a GPU, each stage beside the least that operations and
bytes allow; for docs/performance.md.

  python benchmarks/gpu_steps.py
      bfloat16, random weights, 200 frames of both memories: minutes
  python benchmarks/gpu_steps.py --dry
      a small network on this machine's CPU, a few frames: does it run?

Does nothing else where there is no GPU. The floor of a stage is the larger of its operations and
its bytes over the rates that this very card reaches in a large matrix product and in a large copy
(`step_work.py`), measured in the same run.
"""

import argparse
import statistics
from typing import Any

import torch
from report import card, card_in_words, device_arguments, put_table, rows, where, write_json
from step_work import Rates, Step, measured_rates, step_work

from janusvln_ros.cli.bench import build_navigator, peak_memory, time_steps
from janusvln_ros.model.config import Memory
from janusvln_ros.model.footprint import FrameSize
from janusvln_ros.model.recording import Recorder, compiled_cuda_graph, cuda_graph
from janusvln_ros.policy import Navigator, NavigatorOptions
from janusvln_ros.policy.preprocess import patch_grid, resized_shape

STAGES = ("preprocess", "spatial", "vision", "prefill", "decode")
WAYS: dict[str, tuple[Memory, Recorder | None]] = {
    "released": ("released", None),
    "released, recorded": ("released", cuda_graph),
    "dual": ("dual", None),
    "dual, recorded": ("dual", cuda_graph),
    "dual, compiled and recorded": ("dual", compiled_cuda_graph),
}
"""Memory, and how the step is recorded."""


ATTENTION = "aten::_scaled_dot_product_"
"""How the operators begin among which PyTorch's SDPA chooses, one for each kernel that it has."""


def attention_of(navigator: Navigator) -> dict[str, int]:
    """Which kernels of SDPA two steps of a new episode ran, and how often."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        time_steps(navigator, 2, warmup=0)
    return {
        event.key.removeprefix(ATTENTION): event.count
        for event in seen.key_averages()
        if event.key.startswith(ATTENTION)
    }


def around(steps: list[dict[str, float]], frame: int) -> dict[str, float]:
    """Medians of the stages over the steps within 2 of ``frame`` (from 1)."""
    near = steps[max(0, frame - 3) : frame + 2]
    return {name: statistics.median(step[name] for step in near) for name in (*STAGES, "total")}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Drive every way with one set of weights; what is found, by way."""
    precision = "float32" if args.device == "cpu" else "bfloat16"
    first = build_navigator(args.config, "released", "constrained", args.device, precision)
    model, tokenizer = first.model, first.tokenizer
    navigation = model.config.navigation
    frame = FrameSize(*patch_grid(*resized_shape(480, 640, navigation.image_width)))
    rates = measured_rates(model.device, model.dtype)
    result: dict[str, Any] = {
        "where": where(args.device),
        "precision": precision,
        "frame": args.frame,
        "long": args.frames,
        "teraflops": rates.operations / 1e12,
        "terabytes": rates.bytes / 1e12,
        "ways": {},
    }
    for way, (memory, recorder) in WAYS.items():
        if args.device != "cpu":
            torch.cuda.reset_peak_memory_stats()
        options = NavigatorOptions(memory, "constrained", allow_untrained_memory=True)
        navigator = Navigator(model, tokenizer, options)
        if args.device != "cpu":
            navigator.recordings.recorder = recorder
        try:
            attention = {} if recorder else attention_of(navigator)
            # long only where it is to be seen that nothing grows
            long = recorder is cuda_graph
            steps = time_steps(navigator, args.frames if long else args.frame + 2)
        except Exception as error:  # whatever a compiler may raise; the other ways still count
            print(f"{way}: {type(error).__name__}: {error}", flush=True)
            del navigator
            continue
        step = Step(
            frame, memory, navigation.window, args.frame, number_bytes=model.dtype.itemsize
        )
        result["ways"][way] = {
            "seconds": around(steps, args.frame),
            "seconds_at_long": around(steps, args.frames - 2)["total"] if long else None,
            "floor": floors(step_work(model.config, step), rates),
            "peak_bytes": peak_memory(args.device),
            "attention": attention,
            "memory_bytes": navigator.memory_bytes,
            "spatial_bytes": navigator.spatial.nbytes if navigator.spatial else 0,
            "card": card(args.device),
        }
        print(way, result["ways"][way], flush=True)
        publish(result, args)  # also what is stopped half-way
        del navigator
    return result


def publish(result: dict[str, Any], args: argparse.Namespace) -> None:
    """Write what is known so far."""
    write_json(args.json, result)
    if not args.no_docs:
        put_table("gpu_steps", table(result))


def floors(work: dict[str, Any], rates: Rates) -> dict[str, float]:
    """Least seconds of each stage (deciding apart: constrained, it reads nothing more)."""
    return {
        stage: each.seconds(rates.operations, rates.bytes)
        for stage, each in work.items()
        if stage != "decode"
    }


def table(result: dict[str, Any]) -> str:
    """The Markdown that goes into the docs."""
    lines = []
    for way, found in result["ways"].items():
        seconds, floor, least = found["seconds"], found["floor"], sum(found["floor"].values())
        lines.append([way, *(f"{1000 * seconds[stage]:.1f}" for stage in (*STAGES, "total"))])
        cells = (f"{1000 * floor[stage]:.1f}" if stage in floor else "" for stage in STAGES)
        lines.append([f"floor of {way}", *cells, f"{1000 * least:.1f}"])
        long = found["seconds_at_long"]
        growth = f"{long / seconds['total']:.2f}" if long else "not run"
        lines.append(
            [
                f"of {way}",
                f"{seconds['total'] / least:.2f} x floor",
                f"frame {result['long']} / {result['frame']}: {growth}",
                f"peak {found['peak_bytes'] / 2**30:.1f} GiB",
                f"memories {found['memory_bytes'] / 2**30:.2f} GiB",
                f"spatial {found['spatial_bytes'] / 2**30:.2f} GiB",
                card_in_words(found["card"]),
            ]
        )
        if found["attention"]:
            kernels = (f"{name} {count}" for name, count in found["attention"].items())
            lines.append(
                [f"attention of {way}, two steps", ", ".join(kernels), *[""] * len(STAGES)]
            )
    return "\n".join(
        [
            rows([f"at frame {result['frame']}", *STAGES, "total"], lines),
            "",
            f"Milliseconds. {result['where']}, {result['precision']}, constrained decoding,",
            "random weights, `python benchmarks/gpu_steps.py`. Floors from this card's rates in",
            f"this run: {result['teraflops']:.3g} TFLOP/s in a matrix product, "
            f"{result['terabytes']:.3g} TB/s read and written.",
        ]
    )


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
    parser.add_argument("--frames", type=int, default=200, help="steps of each way (200)")
    parser.add_argument(
        "--frame",
        type=int,
        default=60,
        help="the step to report (60); the median of it and two steps on each side",
    )
    small = {"config": "config/model/tiny.json", "frames": 8, "frame": 5}
    if (args := device_arguments(parser, small)) is None:
        return
    print(table(measure(args)))


if __name__ == "__main__":
    main()

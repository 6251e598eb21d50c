"""
Seconds per step of the model beside the published way of computing the same, in one run; writes
the table of docs/performance.md.

  python benchmarks/model_steps.py                       # the figures to report: mid size
  python benchmarks/model_steps.py --frames 4 --no-docs  # does it run?

*Published style* is written anew from what the published code does at every step, with the weights
of the very same network: preprocess all pictures again; keys of the spatial memory kept before
norm and RoPE, joined with the current ones, normed and rotated again; evict by copying; one pair
of spatial blocks more than is used; all pictures through the vision tower, whose attention on a
CPU is, in the transformers 4.50 that the published code pins, one product over all patches of all
pictures under a mask of windows; the whole prompt through the language model; scores for every row
of it. It leaves out what transformers' generate() and the reading of files cost. Its answers must
equal those of ``released`` token by token, or nothing is reported. ``--new-vision`` gives it the
windowed attention of transformers 5 instead.
"""

import argparse
import contextlib
import platform
import statistics
import sys
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from report import put_table, write_json
from step_work import Rates, Step, measured_rates, step_work
from torch import Tensor
from tqdm import tqdm
from transformers import DynamicCache
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VLVisionAttention,
    apply_rotary_pos_emb_vision,
)

from janusvln_ros.cli.bench import INSTRUCTION, build_navigator
from janusvln_ros.model import JanusVLN, JanusVLNConfig
from janusvln_ros.model.footprint import FrameSize
from janusvln_ros.model.network import prompt_positions
from janusvln_ros.model.spatial import rotate
from janusvln_ros.policy import Navigator, NavigatorOptions
from janusvln_ros.policy.preprocess import (
    patch_grid,
    pixel_rows,
    resize,
    resized_shape,
    spatial_input,
)
from janusvln_ros.policy.prompt import released_prompt_ids, sample_history

STAGES = ("preprocess", "spatial", "vision", "prefill", "decode")


def masked_vision_attention(
    attention: Qwen2_5_VLVisionAttention,
    hidden_states: Tensor,
    cu_seqlens: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    **_: object,
) -> Tensor:
    """
    Attention of one layer of the vision tower over all patches [K, D] at once; a mask keeps the
    windows (or pictures) apart.

    Queries, keys and values have three dimensions and the mask one for all heads, as in
    transformers 4.50.0 (Qwen2_5_VLVisionSdpaAttention): torch has no fused kernel for that on a
    CPU and writes the scores out.
    """
    K = len(hidden_states)
    q_KNH, k_KNH, v_KNH = (
        attention.qkv(hidden_states).unflatten(-1, (3, attention.num_heads, -1)).unbind(1)
    )
    q_KNH, k_KNH = apply_rotary_pos_emb_vision(q_KNH, k_KNH, *position_embeddings)
    part_K = torch.bucketize(torch.arange(K), cu_seqlens[1:], right=True)
    q, k, v = (t.transpose(0, 1) for t in (q_KNH, k_KNH, v_KNH))
    out_NKH = F.scaled_dot_product_attention(
        q, k, v, attn_mask=(part_K[:, None] == part_K[None])[None]
    )
    return attention.proj(out_NKH.transpose(0, 1).flatten(1))


class PublishedStyle:
    """An episode computed as the published code computes it."""

    def __init__(self, model: JanusVLN, navigator: Navigator, new_vision: bool = False) -> None:
        self.new_vision = new_vision
        self.model, self.tokenizer = model, navigator.tokenizer
        self.navigation = model.config.navigation
        self.ends = navigator.generation.eos_token_ids

    def reset(self) -> None:
        """A new episode."""
        self.frames: list[np.ndarray] = []
        self.cache: list[tuple[Tensor, Tensor] | None] = [None] * (
            self.model.config.spatial.used_depth + 1
        )

    @torch.no_grad()
    def step(self, rgb: np.ndarray) -> tuple[list[int], dict[str, float]]:
        """One step: the answer's tokens, and the seconds of each stage."""
        model, times = self.model, {}
        begin = last = time.perf_counter()

        def lap(stage: str) -> None:
            nonlocal last
            now = time.perf_counter()
            times[stage], last = times.get(stage, 0.0) + now - last, now

        self.frames.append(rgb)
        chosen = sample_history(len(self.frames), self.navigation.num_history)
        resized = [resize(self.frames[i], self.navigation.image_width) for i in chosen]
        rows, grids = zip(*(pixel_rows(picture) for picture in resized))
        image = torch.from_numpy(spatial_input(resized[-1]))
        pixels = torch.from_numpy(np.concatenate(rows))
        lap("preprocess")
        geometry_MD = model.geometry(self.spatial(image), *image.shape[1:])
        lap("spatial")
        with (
            contextlib.nullcontext()
            if self.new_vision
            else patch.object(Qwen2_5_VLVisionAttention, "forward", masked_vision_attention)
        ):
            vision_MD = model.encode_vision(pixels, torch.tensor(grids))
        fused_MD = model.fuse(vision_MD, geometry_MD.repeat(len(chosen), 1))
        lap("vision")
        grid = (grids[0][1] // 2, grids[0][2] // 2)
        ids = released_prompt_ids(self.tokenizer, INSTRUCTION, len(chosen), grid[0] * grid[1])
        positions_3L, position = prompt_positions(ids, model.config.image_token_id, *grid)
        cache = DynamicCache()
        embeds_LD = model.embed(torch.tensor(ids), fused_MD)
        scores = self.read(embeds_LD, positions_3L, cache)
        lap("prefill")
        answer = [int(scores[-1].argmax())]
        while answer[-1] not in self.ends and len(answer) < self.navigation.max_new_tokens:
            embed_1D = model.language.embed_tokens(torch.tensor(answer[-1:]))
            scores = self.read(embed_1D, torch.full((3, 1), position), cache)
            answer.append(int(scores[-1].argmax()))
            position += 1
        lap("decode")
        return answer, {**times, "total": time.perf_counter() - begin}

    def read(self, embeds_LD: Tensor, positions_3L: Tensor, cache: DynamicCache) -> Tensor:
        """Scores of all rows [L, V]."""
        mask = {"full_attention": None}  # one row, or a causal sequence with nothing before it
        out = self.model.language(
            inputs_embeds=embeds_LD[None],
            position_ids=positions_3L[:, None],
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
        )
        return self.model.lm_head(out.last_hidden_state[0]).float()

    def spatial(self, image_3hw: Tensor) -> Tensor:
        """
        Spatial tokens [P, 2D] of the current frame; the raw keys of all remembered ones are normed
        and rotated again.
        """
        encoder = self.model.spatial
        x_BFPD, rope = encoder.embed(image_3hw[None, None], [self.cache[0] is None])
        pairs = list(zip(encoder.frame_blocks, encoder.global_blocks))
        outputs = []
        # the last pair's weights are not built: any pair costs the same
        for layer, (frame_block, global_block) in enumerate([*pairs, pairs[-1]]):
            frame_BFPD = x_BFPD = frame_block(x_BFPD, rope)
            attn = global_block.attn
            x_PD = global_block.norm1(x_BFPD)[0, 0]
            q_NPH, k_NPH, v_NPH = (
                attn.qkv(x_PD).unflatten(-1, (3, attn.heads, -1)).permute(1, 2, 0, 3)
            )
            k_NFPH, v_NFPH = k_NPH[:, None], v_NPH[:, None]
            if (cached := self.cache[layer]) is not None:
                k_NFPH, v_NFPH = (
                    torch.cat([cached[0], k_NFPH], dim=1),
                    torch.cat([cached[1], v_NFPH], dim=1),
                )
            self.cache[layer] = (k_NFPH, v_NFPH)
            q_NPH = rotate(attn.q_norm(q_NPH), *rope)
            keys_NFPH = rotate(attn.k_norm(k_NFPH), *rope)
            o_NPH = F.scaled_dot_product_attention(
                q_NPH[None], keys_NFPH.flatten(1, 2)[None], v_NFPH.flatten(1, 2)[None]
            )
            x_BFPD = global_block.finish(x_BFPD, o_NPH[None])
            outputs.append(torch.cat([frame_BFPD, x_BFPD], dim=-1)[0, 0])
        initial, window = self.navigation.initial_frames, self.navigation.window_frames
        if self.cache[0][0].shape[1] > initial + window:
            self.cache = [
                tuple(torch.cat([t[:, :initial], t[:, -window:]], dim=1) for t in pair)
                for pair in self.cache
            ]
        return outputs[-2]


def measure(args: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """
    Timings of every step, by way of computing.

    The ways take turns frame by frame, so that whatever disturbs one disturbs all.
    """
    released = build_navigator(args.config, "released", "free", "cpu", "float32")
    options = NavigatorOptions("dual", "constrained", allow_untrained_memory=True)
    dual = Navigator(released.model, released.tokenizer, options)
    baseline = PublishedStyle(released.model, released, args.new_vision)
    pictures = np.random.default_rng(0).integers(0, 256, (16, 480, 640, 3), dtype=np.uint8)
    result: dict[str, list[dict[str, float]]] = {"published style": [], "released": [], "dual": []}
    for warmup in (True, False):
        released.reset(INSTRUCTION)
        dual.reset(INSTRUCTION)
        baseline.reset()
        for t in tqdm(
            range(2 if warmup else max(args.frames, args.long)),
            desc="warm-up" if warmup else "steps",
            file=sys.stderr,
        ):
            rgb = pictures[t % len(pictures)]
            ours = released.step(rgb)
            steps = {"released": ours.timings, "dual": dual.step(rgb).timings}
            if t < args.frames:
                answer, steps["published style"] = baseline.step(rgb)
                if list(answer) != ours.token_ids:
                    raise SystemExit(
                        f"frame {t + 1}: published style answers {answer}, released "
                        f"{ours.token_ids}: the comparison would mean nothing"
                    )
            if not warmup:
                for way, timings in steps.items():
                    result[way].append(dict(timings))
    return result


def floors(args: argparse.Namespace, rates: Rates) -> dict[str, dict[str, float]]:
    """
    Least seconds of each stage of our two ways at frame ``args.frames``: the operations of
    `step_work.py`, attention included, over the rate of a large product on the same threads.
    """
    config = JanusVLNConfig.from_pretrained(args.config)
    navigation = config.navigation
    frame = FrameSize(*patch_grid(*resized_shape(480, 640, navigation.image_width)))
    found = {}
    for way in ("released", "dual"):
        step = Step(frame, way, navigation.window, args.frames, number_bytes=4)
        work = step_work(config, step)
        found[way] = {
            stage: work[stage].operations / rates.operations
            for stage in ("spatial", "vision", "prefill")
        }
    # free decoding reads the longest answer but its last word, one by one; constrained none
    decode = work["decode"].operations / rates.operations
    found["released"]["decode"] = (navigation.max_new_tokens - 1) * decode
    return found


def around(steps: list[dict[str, float]], frame: int, stage: str) -> float | None:
    """
    Median seconds of a stage over the steps within 2 of ``frame`` (from 1); None beyond the end.
    """
    near = steps[max(0, frame - 3) : frame + 2]
    return statistics.median(s[stage] for s in near) if len(steps) >= frame else None


def table(
    result: dict[str, list[dict[str, float]]], args: argparse.Namespace, rates: Rates
) -> str:
    """The Markdown that goes into the docs."""
    last = args.frames
    shown = sorted({f for f in (1, 10, 30, 57, last, args.long) if f <= max(last, args.long)})
    lines = [
        "| seconds per step at frame | " + " | ".join(map(str, shown)) + " |",
        "|---|" + "---|" * len(shown),
    ]
    for way, steps in result.items():
        cells = [
            f"{value:.3f}" if (value := around(steps, frame, "total")) is not None else ""
            for frame in shown
        ]
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"| at frame {last} | " + " | ".join(STAGES) + " | total | of published style |",
        "|---|" + "---|" * (len(STAGES) + 2),
    ]
    whole = around(result["published style"], last, "total")
    for way, steps in result.items():
        cells = [f"{around(steps, last, stage):.3f}" for stage in (*STAGES, "total")]
        lines.append(
            f"| {way} | " + " | ".join(cells) + f" | {around(steps, last, 'total') / whole:.2f} |"
        )
    for way, floor in floors(args, rates).items():
        cells = [
            f"{floor[stage]:.3f} ({around(result[way], last, stage) / floor[stage]:.1f} x)"
            if stage in floor
            else ""
            for stage in STAGES
        ]
        least = sum(floor.values())
        over = around(result[way], last, "total") / least
        lines.append(
            f"| floor of {way} | " + " | ".join(cells) + f" | {least:.3f} | {over:.2f} x |"
        )
    lines += [
        "",
        f"Floors: operations over the {rates.operations / 1e9:.0f} GFLOP/s of a large product in "
        "the same run.",
    ]
    if args.long > last:
        growth = [
            f"{way} "
            f"{around(result[way], args.long, 'total') / around(result[way], last, 'total'):.2f}"
            for way in ("released", "dual")
        ]
        lines += ["", f"Step time at frame {args.long} over frame {last}: {', '.join(growth)}."]
    where = (
        f"{platform.processor() or platform.machine()}, {args.threads} threads, torch "
        f"{torch.__version__}, float32"
    )
    lines += [
        "",
        f"`python benchmarks/model_steps.py --config {args.config} --frames "
        f"{args.frames} --long {args.long} --threads {args.threads}`; {where}.",
    ]
    lines += [
        "Medians over five steps. `released` and published style decode freely and "
        "gave the same tokens at every frame; `dual` is constrained."
    ]
    if args.new_vision:
        lines += [
            "Published style here has the windowed vision attention of transformers "
            "5, which the published code does not have."
        ]
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and put the table into the docs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config",
        default="benchmarks/configs/mid",
        help="folder with a config.json (benchmarks/configs/mid)",
    )
    parser.add_argument("--frames", type=int, default=60, help="steps of all three ways (60)")
    parser.add_argument(
        "--long",
        type=int,
        default=200,
        help="steps of our two ways, to see whether anything grows (200)",
    )
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (2)")
    parser.add_argument("--json", type=Path, help="also write all timings to this file")
    parser.add_argument(
        "--new-vision",
        action="store_true",
        help="published style with the vision attention of transformers 5",
    )
    parser.add_argument("--no-docs", action="store_true", help="print only")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    before = measured_rates(torch.device("cpu"), torch.float32)
    result = measure(args)
    after = measured_rates(torch.device("cpu"), torch.float32)
    text = table(result, args, max(before, after, key=lambda rates: rates.operations))
    print(text)
    write_json(args.json, result)
    if not args.no_docs:
        put_table("model_steps", text)


if __name__ == "__main__":
    main()

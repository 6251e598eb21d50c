"""
Training with the semantic memory: every step of whole trajectories in one masked pass.

First the trajectories, each perhaps once more with left and right exchanged (a second home and a
second way for the price of one), then the task.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, smooth_l1_loss
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase, TrainerCallback

from janusvln_ros.actions import Action
from janusvln_ros.data.episodes import is_unseen_text
from janusvln_ros.data.left_out import LeftOut
from janusvln_ros.data.samples import TrajectorySet
from janusvln_ros.errors import require
from janusvln_ros.model import JanusVLN
from janusvln_ros.model.memory import FrameWindow
from janusvln_ros.model.network import MERGE
from janusvln_ros.policy.instruction import WORD
from janusvln_ros.policy.preprocess import patch_grid, pixel_rows
from janusvln_ros.policy.prompt import dual_prefix_ids, executed_ids, frame_ids, leaf_ids
from janusvln_ros.rollout.shards import Cluster
from janusvln_ros.training.cache import FrameCache, read_pictures
from janusvln_ros.training.encoders import fused_tokens, images_of, vision_patches
from janusvln_ros.training.episode import (
    IGNORED,
    Episodes,
    action_loss,
    episode_pass,
    sample_window,
)
from janusvln_ros.training.recipes import Recipe

FORESIGHT = 8
"""How many actions ahead the helper head looks."""
UNKNOWN = -1
"""Steps that are left of a drive that was cut short."""

UNKNOWN_WORD = "\ufffd"
"""A text that no tokenizer has a word for: the replacement character."""

LONG_CONTEXT = 16384
"""Positions from which on a language model has room for jumps of positions in training."""


EXCHANGED = np.array([Action.STOP, Action.MOVE_FORWARD, Action.TURN_RIGHT, Action.TURN_LEFT])
"""What each action is in a mirror."""


def mirrored_actions(actions: np.ndarray) -> np.ndarray:
    """Left and right turns exchanged; negative numbers (no action) stay. int64, any shape."""
    return np.where(actions >= 0, EXCHANGED[np.maximum(actions, 0)], actions)


def mirrored_instruction(text: str) -> str:
    """
    The words "left" and "right" exchanged.

    For texts that use them for directions only, as those of the houses do.
    """
    exchange = {"left": "right", "right": "left", "Left": "Right", "Right": "Left"}
    return re.sub(r"\b[lL]eft\b|\b[rR]ight\b", lambda found: exchange[found.group()], text)


def drop_words(text: str, share: float, rng: np.random.Generator) -> str:
    """
    ``text`` with each word replaced by an unknown one (`UNKNOWN_WORD`) with a probability that is
    itself drawn, from 0 to twice ``share``: whole sentences are met as well as ruins.
    """
    probability = rng.uniform(0.0, 2.0 * share)
    return WORD.sub(
        lambda found: UNKNOWN_WORD if rng.random() < probability else found.group(), text
    )


def step_weights(targets: Sequence[int] | np.ndarray, change: float, stop: float) -> np.ndarray:
    """
    Weight of every step, float32: ``stop`` where the expert stops, ``change`` where its action
    differs from the one before, else 1.
    """
    actions = np.asarray(targets)
    weights = np.ones(len(actions), np.float32)
    weights[1:][actions[1:] != actions[:-1]] = change
    weights[actions == Action.STOP] = stop
    return weights


class Trajectories(Dataset[dict[str, Any]]):
    """
    Trajectories for `DualTask`: prompt ids, targets, weights, and either pictures or what frozen
    encoders made of them.

    Args:
        sets: the set files.
        mirrored_sets: sets taken with left and right exchanged, but for the texts that so become
            ones that are kept for unseen homes.
        model: settings of the pictures; with ``cached`` its encoders are run once over all of
            them.
        tokenizer: of the model.
        recipe: weights, cut, prompt.
        cached: keep resized pictures and the frozen encoders' output on disk (see `FrameCache`).

    Indices beyond the number of trajectories mean the same ones again, with other words dropped.
    """

    drawn_anew = True

    def __init__(
        self,
        sets: Sequence[TrajectorySet],
        model: JanusVLN,
        tokenizer: PreTrainedTokenizerBase,
        recipe: Recipe,
        cached: bool,
        mirrored_sets: Sequence[TrajectorySet] = (),
    ) -> None:
        self.sets = [*sets, *mirrored_sets]
        self.mirrored = [False] * len(sets) + [True] * len(mirrored_sets)
        self.tokenizer, self.recipe = tokenizer, recipe
        self.width = model.config.navigation.image_width
        self.index: list[tuple[int, int]] = []
        self.left_out: list[LeftOut] = []
        for s, trajectories in enumerate(self.sets):
            for i in range(len(trajectories)):
                reason = self._unfit(s, i)
                if reason is None:
                    self.index.append((s, i))
                else:
                    where = f"{trajectories.path}, trajectory {i}"
                    self.left_out.append(LeftOut(f"{where}: {reason}", reason))
        require(
            self.index,
            f"no trajectory of {[str(s.path) for s in self.sets]} has at most "
            f"longest={recipe.longest} frames: raise it",
        )
        self.caches: dict[int, FrameCache] = {}
        self.features: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for s in encoding_order(len(self.sets), Cluster.from_environment()) if cached else []:
            self.caches[s] = FrameCache(self.sets[s], self.width)
            self.features[s] = encode_set(self.caches[s], model, self.mirrored[s])

    def _unfit(self, s: int, i: int) -> str | None:
        """Why a trajectory is not taken; None for one that is."""
        trajectories, longest = self.sets[s], self.recipe.longest
        if longest and trajectories.lengths[i] > longest:
            return f"it has more than longest={longest} frames"
        if self.mirrored[s] and is_unseen_text(
            mirrored_instruction(trajectories.raw(i)["instruction"])
        ):
            return "its mirrored instruction is kept for unseen homes"
        return None

    @property
    def lengths(self) -> list[int]:
        """Frames of every trajectory, cut."""
        return [min(int(self.sets[s].lengths[i]), self.recipe.max_frames) for s, i in self.index]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, k: int) -> dict[str, Any]:
        times, k = divmod(k, len(self))
        s, i = self.index[k]
        mirrored, recipe, values = self.mirrored[s], self.recipe, self.sets[s].raw(i)
        n = min(len(values["targets"]), recipe.max_frames)
        targets, executed = (np.array(values[key], np.int64) for key in ("targets", "actions"))
        instruction = values["instruction"]
        if mirrored:
            targets, executed = mirrored_actions(targets), mirrored_actions(executed)
            instruction = mirrored_instruction(instruction)
        dice = np.random.default_rng([recipe.seed, times, k])
        nowhere = np.full((n, 2, 2), np.nan, np.float32)  # sets do not tell where routes lead
        item = labelled_item(self.tokenizer, recipe, instruction, targets, executed, nowhere, dice)
        item["name"] = f"{self.sets[s].path}, trajectory {values.get('video', values['id'])}"
        if self.features:
            start = int(self.caches[s].start[i])
            item["vision"], item["spatial"] = (
                np.array(array[start : start + n]) for array in self.features[s]
            )
        else:
            frames = read_pictures(self.sets[s].pictures(values)[:n], self.width)
            item["frames"] = np.ascontiguousarray(frames[:, :, ::-1]) if mirrored else frames
        return item


def labelled_item(
    tokenizer: PreTrainedTokenizerBase,
    recipe: Recipe,
    instruction: str,
    targets: np.ndarray,
    executed: np.ndarray,
    ways: np.ndarray,
    dice: np.random.Generator,
) -> dict[str, Any]:
    """
    What `collate_trajectories` takes of a trajectory beside its frames: prompt ids, and targets,
    weights, executed actions and ways (NaN: not known) of its first ``recipe.max_frames`` frames.
    ``dice`` drop words.
    """
    n = min(len(targets), recipe.max_frames)
    if recipe.word_dropout:
        instruction = drop_words(instruction, recipe.word_dropout, dice)
    return {
        "prompt": dual_prefix_ids(tokenizer, instruction),
        "targets": targets[:n],
        "weights": step_weights(targets, recipe.change_weight, recipe.stop_weight)[:n],
        "ahead": foresight(targets, n),
        "executed": executed[:n],
        "ways": ways[:n],
    }


def encoding_order(sets: int, cluster: Cluster) -> list[int]:
    """
    In which order a process goes through ``sets`` sets: each begins elsewhere, so that together
    they encode every set once.
    """
    first = cluster.rank * sets // cluster.world_size
    return [(first + k) % sets for k in range(sets)]


def foresight(targets: np.ndarray, n: int) -> np.ndarray:
    """
    What the helper head predicts at each of the first ``n`` steps: the next ``FORESIGHT`` targets
    after the current one, and in the last column the number of steps left; int64
    [n, FORESIGHT + 1]. Beyond the end is STOP; where targets end without one, nobody knows:
    IGNORED, and ``UNKNOWN`` steps.
    """
    ended = targets[-1] == int(Action.STOP)
    beyond = int(Action.STOP) if ended else IGNORED
    padded = np.concatenate([targets, np.full(FORESIGHT + 1, beyond)])
    rows = np.arange(n)[:, None] + np.arange(1, FORESIGHT + 1)
    left = (len(targets) - 1 - np.arange(n) if ended else np.full(n, UNKNOWN))[:, None]
    return np.concatenate([padded[rows], left], axis=1).astype(np.int64)


def encoder_digest(model: JanusVLN, part: str) -> str:
    """
    A name for one encoder, ``vision`` (without its merger) or ``spatial``: its weights and their
    type, its settings, and whether it is computed on a CPU.
    """
    settings = model.config.to_dict()["vision_config" if part == "vision" else "vggt_config"]
    about = json.dumps([settings, str(model.dtype), model.device.type], sort_keys=True)
    digest = hashlib.sha256(about.encode())
    for name, value in sorted(model.state_dict().items()):
        if name.startswith(f"{part}.") and not name.startswith("vision.merger."):
            digest.update(name.encode() + value.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


@torch.no_grad()
def vision_features(model: JanusVLN, frames_Fhw3: np.ndarray) -> np.ndarray:
    """
    The vision tower's patches before its merger, float32 [F, patches, width] in merge order, from
    resized pictures, uint8.
    """
    parts = (frames_Fhw3[i : i + 64] for i in range(0, len(frames_Fhw3), 64))
    return np.concatenate([vision_patches(model, part).float().cpu().numpy() for part in parts])


@torch.no_grad()
def spatial_features(model: JanusVLN, frames_Fhw3: np.ndarray) -> np.ndarray:
    """
    The spatial encoder's patch tokens of a whole trajectory, float32 [F, patches, 2 * embed_dim],
    seen with the model's own memory window.
    """
    images = images_of(frames_Fhw3)[None].to(model.device)
    tokens = model.spatial(images, model.config.navigation.window)[0]
    return np.asarray(tokens[:, model.config.spatial.num_special_tokens :].float().cpu().numpy())


def encode_set(
    cache: FrameCache, model: JanusVLN, mirrored: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """
    What both frozen encoders make of every frame of a set (or of its mirror image), float16:
    `vision_features` and, trajectory by trajectory, `spatial_features`.
    """
    config, window = model.config, model.config.navigation.window
    rows, columns = patch_grid(*cache.frames.shape[1:3])
    merged = (rows // MERGE * MERGE) * (columns // MERGE * MERGE)
    suffix = "-mirrored" if mirrored else ""

    def seen(frames: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(frames[:, :, ::-1]) if mirrored else frames

    return (
        cache.features(
            f"vision-{encoder_digest(model, 'vision')}{suffix}",
            (merged, config.vision.hidden_size),
            lambda frames: vision_features(model, seen(frames)),
        ),
        cache.features(
            f"spatial-{encoder_digest(model, 'spatial')}-{window.initial}-{window.window}{suffix}",
            (rows * columns, 2 * config.spatial.embed_dim),
            lambda frames: spatial_features(model, seen(frames)),
        ),
    )


def padded(rows: Sequence[Any], value: float) -> Tensor:
    """Arrays of different lengths as one tensor, filled up at their ends with ``value``."""
    tensors = [torch.as_tensor(row) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)


def collate_trajectories(items: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """
    Pad trajectories to one length: prompts with 0, frames with zeros, targets with -100, weights
    with 0, ways with NaN.
    """

    shapes = {item["frames"].shape[1:3]: item["name"] for item in items if "frames" in item}
    require(
        len(shapes) <= 1,
        f"pictures of {len(shapes)} shapes meet in a batch, which takes one: "
        + "; ".join(f"{columns}x{rows} (resized) in {n}" for (rows, columns), n in shapes.items())
        + ": give sets of one shape, or batch=1",
    )

    def pad(name: str, value: float = 0) -> Tensor:
        return padded([item[name] for item in items], value)

    batch = {
        "prompt": pad("prompt"),
        "prompt_lengths": torch.tensor([len(item["prompt"]) for item in items]),
        "targets": pad("targets", IGNORED),
        "weights": pad("weights"),
        "ahead": pad("ahead", IGNORED),
        "executed": pad("executed", -1),
        "ways": pad("ways", float("nan")),
    }
    return batch | {
        name: pad(name) for name in ("vision", "spatial", "frames") if name in items[0]
    }


class ForesightHead(nn.Module):
    """
    A throw-away head that guesses, from the state that decides, the next expert actions, how many
    steps are left, where the route leads, and which action led here.

    More to learn from each step: actions say where the way goes within two metres, its places
    which door and which thing are meant. The action that led here teaches the network to see its
    own motion, since actions are not in the memory.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, (FORESIGHT + 1) * len(Action) + 1 + 4),
        )

    def forward(
        self, hidden_BFD: Tensor, ahead_BFK: Tensor, executed_BF: Tensor, ways_BF22: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """
        The loss, a scalar: cross entropies of actions ahead and behind plus the errors of log(1 +
        steps left) and of both places, each drawn nearer as the logarithm does; mean over steps,
        then over trajectories. And its parts ``motion`` (the action behind) and ``way``.

        ``executed_BF``: the action that led to each frame, -1 where there was none. ``ways_BF22``:
        see `rollout.stream.ways`; NaN where that is not known.
        """
        actions = (FORESIGHT + 1) * len(Action)
        out_K, out_1, out_4 = self.head(hidden_BFD).float().split([actions, 1, 4], dim=-1)
        logits = out_K.unflatten(-1, (FORESIGHT + 1, len(Action)))
        ahead = _cross_entropy(logits[:, :, :-1], ahead_BFK[..., :-1], IGNORED).mean(-1)
        behind = _cross_entropy(logits[:, :, -1], executed_BF, -1)
        steps_left = ahead_BFK[..., -1]
        left = smooth_l1_loss(
            out_1[..., 0], torch.log1p(steps_left.clamp(min=0).float()), reduction="none"
        )
        left = left * (steps_left >= 0)
        known_BF = ways_BF22.isfinite().all(-1).all(-1)
        places_BF4 = drawn_near(ways_BF22.nan_to_num()).flatten(-2)
        way = smooth_l1_loss(out_4, places_BF4, reduction="none").sum(-1) * known_BF
        real = (steps_left != IGNORED).float()
        loss, motion, way = (
            ((part * real).sum(1) / real.sum(1)).mean()
            for part in (ahead + left + behind + way, behind, way)
        )
        return loss, {"motion": motion, "way": way}


def drawn_near(places_X2: Tensor) -> Tensor:
    """Places in the directions where they are, log(1 + metres) away instead of metres."""
    apart_X1 = places_X2.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    return places_X2 * (torch.log1p(apart_X1) / apart_X1)


def _cross_entropy(logits_XV: Tensor, targets_X: Tensor, ignored: int) -> Tensor:
    """Of every target by itself, with its leading dimensions."""
    return cross_entropy(
        logits_XV.flatten(0, -2), targets_X.flatten(), ignore_index=ignored, reduction="none"
    ).view(targets_X.shape)


class DualTask(nn.Module):
    """
    The network with the loss of ``memory: dual``; ``forward`` takes a batch of
    `collate_trajectories`.

    Args:
        model: the network.
        tokenizer: of the model.
        sample_windows: share of the batches with a drawn window and a jump of positions.
        guidance: weight of the helper head's loss; 0: there is none.
        curriculum_steps: steps over which the window of the semantic memory grows to its full
            size.
        frozen_spatial: the spatial encoder needs no gradient.
        seed: of the windows and channels that are drawn: once for each optimizer step, the same in
            all processes and however the step's samples are shared.
        channel_dropout: share of the channels of kept features that a training step leaves out.

    Attributes:
        step: optimizer steps so far; `StepTold` keeps it.
    """

    def __init__(
        self,
        model: JanusVLN,
        tokenizer: PreTrainedTokenizerBase,
        sample_windows: float = 0.0,
        guidance: float = 0.0,
        frozen_spatial: bool = True,
        curriculum_steps: int = 0,
        seed: int = 0,
        channel_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self.channel_dropout = channel_dropout
        self.seed, self.step = seed, 0
        self.sample_windows, self.guidance = sample_windows, guidance
        self.frozen_spatial, self.curriculum_steps = frozen_spatial, curriculum_steps
        words = [tokenizer.encode(action.name, add_special_tokens=False) for action in Action]
        self.answers = nn.Buffer(padded(words, IGNORED), persistent=False)
        self.foresight = ForesightHead(model.config.text.hidden_size) if guidance else None

    def fused(
        self, batch: dict[str, Tensor], window: FrameWindow
    ) -> tuple[Tensor, tuple[int, int]]:
        """Fused tokens [B, F, M, D] of a batch and the grid of merge groups."""
        model = self.model
        if "vision" in batch:
            B, frames, patches = batch["spatial"].shape[:3]
            _, columns = patch_grid(0, model.config.navigation.image_width)
            rows = patches // columns
            vision, spatial = (
                batch[name].flatten(0, 1).to(model.dtype) for name in ("vision", "spatial")
            )
            tokens = fused_tokens(model, vision, spatial, (rows, columns))
            tokens = tokens.unflatten(0, (B, frames))
        else:
            B, frames, height, width = batch["frames"].shape[:4]
            rows, columns = patch_grid(height, width)
            pictures = batch["frames"].cpu().numpy()
            pixels, grids = zip(*(pixel_rows(picture) for picture in np.concatenate(pictures)))
            vision = model.encode_vision(
                torch.from_numpy(np.concatenate(pixels)).to(model.device), torch.tensor(grids)
            )
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen_spatial):
                spatial = model.spatial(images_of(pictures).to(model.device), window)
            geometry = model.geometry(spatial.to(model.dtype), height, width)
            tokens = model.fuse(vision.unflatten(0, (B, frames, -1)), geometry)
        return tokens, (rows // MERGE, columns // MERGE)

    def dice(self) -> torch.Generator:
        """What this step draws from, anew at each call."""
        return torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)

    def next_window(self) -> tuple[FrameWindow, int]:
        """
        The window of this step and its jump of positions: the model's own, but in training growing
        at first, and drawn for some steps afterwards.
        """
        window, step = self.model.config.navigation.window, self.step
        if not self.training:
            return window, 0
        if step < self.curriculum_steps:
            share = step / self.curriculum_steps
            initial = round(share * window.initial)
            last = max(min(1, window.window), round(share * share * window.window))
            return FrameWindow(initial, last), 0
        dice = self.dice()
        if not self.sample_windows or float(torch.rand((), generator=dice)) >= self.sample_windows:
            return window, 0
        drawn, jump = sample_window(window, generator=dice)
        long = self.model.config.text.max_position_embeddings >= LONG_CONTEXT
        return drawn, jump if long else 0

    def fewer_channels(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """
        Features [B, F, patches, C] of the frozen encoders as this step is to see them: in training
        some channels are zero, and the others so much larger that the sum is expected to stay.
        """
        if not self.training or not self.channel_dropout or "vision" not in features:
            return features
        dice, kept = self.dice(), 1 - self.channel_dropout
        fewer = {}
        for name in ("vision", "spatial"):
            values = features[name]
            mask_C = (torch.rand(values.shape[-1], generator=dice) < kept) / kept
            fewer[name] = values * mask_C.to(values)
        return features | fewer

    def forward(
        self,
        prompt: Tensor,
        prompt_lengths: Tensor,
        targets: Tensor,
        weights: Tensor,
        ahead: Tensor,
        executed: Tensor,
        ways: Tensor,
        **frames: Tensor,
    ) -> dict[str, Tensor]:
        """
        ``loss`` and figures: ``accuracy``, ``changes`` (accuracy where the action changes),
        ``stop_missed`` and ``stop_false`` (shares).
        """
        model, navigation = self.model, self.model.config.navigation
        window, jump = self.next_window()
        fused, grid = self.fused(self.fewer_channels(frames), window)
        answers = torch.where(targets[..., None] >= 0, self.answers[targets.clamp(min=0)], IGNORED)
        before = None
        if navigation.action_memory == "executed":
            texts = [
                executed_ids(self.tokenizer, action)
                for action in (None, Action.MOVE_FORWARD, Action.TURN_LEFT, Action.TURN_RIGHT)
            ]
            before = torch.tensor(texts, device=targets.device)[executed.clamp(min=0)]
        episodes = Episodes(
            prompt,
            prompt_lengths,
            fused,
            answers,
            grid,
            frame_ids(self.tokenizer, grid[0] * grid[1]),
            leaf_ids(self.tokenizer),
            before,
        )
        remembered = window if navigation.semantic_memory else navigation.semantic_window
        hidden = episode_pass(model.language, episodes, remembered, jump)
        logits = model.lm_head(hidden)
        # Every trajectory counts the same, so that the loss does not depend on how trajectories
        # are dealt to processes.
        loss = action_loss(logits, answers, weights / weights.sum(dim=1, keepdim=True))
        figures = step_figures(logits[:, :, 0], self.answers[:, 0], targets)
        if self.foresight is not None:
            helper, parts = self.foresight(hidden[:, :, 0], ahead, executed, ways)
            parts |= {"action_loss": loss, "foresight": helper}
            figures |= {name: value.detach() for name, value in parts.items()}
            loss = loss + self.guidance * helper
        return {"loss": loss, **figures}


class StepTold(TrainerCallback):
    """Tells a task which optimizer step it is in."""

    def __init__(self, task: DualTask) -> None:
        self.task = task

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """See the class."""
        self.task.step = state.global_step


@torch.no_grad()
def step_figures(
    logits_BFV: Tensor, first_tokens_4: Tensor, targets_BF: Tensor
) -> dict[str, Tensor]:
    """
    Shares of right actions among the four, of missed stops and of false ones; NaN where there is
    nothing to count.
    """
    chosen = logits_BFV[..., first_tokens_4].argmax(-1)
    real = targets_BF >= 0
    right = (chosen == targets_BF) & real
    change = real.clone()
    change[:, 1:] &= targets_BF[:, 1:] != targets_BF[:, :-1]
    stop = targets_BF == int(Action.STOP)

    def share(what: Tensor, of: Tensor) -> Tensor:
        return (what & of).sum().float() / of.sum().float()

    stopped = chosen == int(Action.STOP)
    return {
        "accuracy": share(right, real),
        "changes": share(right, change),
        "stop_missed": share(~stopped, stop),
        "stop_false": share(stopped, real & ~stop),
    }

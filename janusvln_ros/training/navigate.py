"""
Learning to act: batches from trajectories and samples, the two losses, and the run of the stage
``navigate``.

`DualTask` learns every step of whole trajectories in one masked pass (``memory: dual``),
`ReleasedTask` one published sample at a time (``memory: released``). Both take the same set files
(`janusvln_ros.data.samples`).
"""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from janusvln_ros.actions import Action
from janusvln_ros.data.episodes import is_unseen_text
from janusvln_ros.data.samples import FrameSamples, TrajectorySet, history_indices
from janusvln_ros.errors import InputError
from janusvln_ros.files import atomic_write
from janusvln_ros.model import JanusVLN
from janusvln_ros.model.checkpoint import find
from janusvln_ros.model.dual import IGNORED, action_loss, episode_pass, sample_window
from janusvln_ros.model.janusvln import MERGE
from janusvln_ros.model.memory import FrameWindow
from janusvln_ros.model.released import sample_logits, sample_loss
from janusvln_ros.model.spatial import PATCH
from janusvln_ros.policy.preprocess import crop_to_groups, pixel_rows, resize
from janusvln_ros.policy.prompt import (
    dual_prefix_ids,
    executed_ids,
    frame_ids,
    leaf_ids,
    released_prompt_ids,
    training_sample,
)
from janusvln_ros.policy.tokenizer import load_tokenizer
from janusvln_ros.rollout.shards import Cluster
from janusvln_ros.training.attention import EPISODE_ATTENTION
from janusvln_ros.training.cache import FrameCache
from janusvln_ros.training.encoders import images_of, vision_patches
from janusvln_ros.training.mirror import mirrored_actions, mirrored_instruction
from janusvln_ros.training.network import build_model, finish, shipped
from janusvln_ros.training.recipes import Recipe
from janusvln_ros.training.trainer import fit, freeze

log = logging.getLogger(__name__)


# ---------------------------------------------------------------- dual: whole trajectories


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
    """

    def __init__(
        self,
        sets: Sequence[TrajectorySet],
        model: JanusVLN,
        tokenizer: PreTrainedTokenizerBase,
        recipe: Recipe,
        cached: bool,
        mirrored_sets: Sequence[TrajectorySet] = (),
    ) -> None:
        self.sets, self.mirrored = (
            [*sets, *mirrored_sets],
            [False] * len(sets) + [True] * len(mirrored_sets),
        )
        self.tokenizer, self.recipe, self.width = (
            tokenizer,
            recipe,
            model.config.navigation.image_width,
        )
        chosen = [
            (s, i)
            for s, t in enumerate(self.sets)
            for i in range(len(t))
            if not recipe.longest or t.lengths[i] <= recipe.longest
        ]
        self.index = [
            (s, i)
            for s, i in chosen
            if not (
                self.mirrored[s]
                and is_unseen_text(mirrored_instruction(self.sets[s].raw(i)["instruction"]))
            )
        ]
        if not self.index:
            raise InputError(
                f"no trajectory of {[str(s.path) for s in self.sets]} has at most "
                f"longest={recipe.longest} frames: raise it"
            )
        self.caches: dict[int, FrameCache] = {}
        self.features: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for s in encoding_order(len(self.sets), Cluster.from_environment()) if cached else []:
            self.caches[s] = FrameCache(self.sets[s], self.width)
            self.features[s] = encode_set(self.caches[s], model, self.mirrored[s])

    @property
    def lengths(self) -> list[int]:
        """Frames of every trajectory, cut."""
        return [min(int(self.sets[s].lengths[i]), self.recipe.max_frames) for s, i in self.index]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, k: int) -> dict[str, Any]:
        s, i = self.index[k]
        mirrored = self.mirrored[s]
        values = self.sets[s].raw(i)
        n = min(len(values["targets"]), self.recipe.max_frames)
        targets, executed, instruction = (
            np.array(values["targets"], np.int64),
            np.array(values["actions"][:n], np.int64),
            values["instruction"],
        )
        if mirrored:
            targets, executed, instruction = (
                mirrored_actions(targets),
                mirrored_actions(executed),
                mirrored_instruction(instruction),
            )
        item: dict[str, Any] = {
            "prompt": dual_prefix_ids(self.tokenizer, instruction),
            "targets": targets[:n],
            "weights": step_weights(targets, self.recipe.change_weight, self.recipe.stop_weight)[
                :n
            ],
            "ahead": foresight(targets, n),
            "executed": executed,
        }
        if self.features:
            start = int(self.caches[s].start[i])
            item["vision"], item["spatial"] = (
                np.array(array[start : start + n]) for array in self.features[s]
            )
        else:
            folder = (self.sets[s].path.resolve().parent / values["folder"]).resolve()
            frames = np.stack(
                [read_picture(folder / name, self.width) for name in values["frames"][:n]]
            )
            item["frames"] = np.ascontiguousarray(frames[:, :, ::-1]) if mirrored else frames
        return item


def encoding_order(sets: int, cluster: Cluster) -> list[int]:
    """
    In which order a process goes through ``sets`` sets: each begins elsewhere, so that together
    they encode every set once.
    """
    first = cluster.rank * sets // cluster.world_size
    return [(first + k) % sets for k in range(sets)]


FORESIGHT = 8
"""How many actions ahead the helper head looks."""


def foresight(targets: np.ndarray, n: int) -> np.ndarray:
    """
    What the helper head predicts at each of the first ``n`` steps: the next ``FORESIGHT`` targets
    after the current one (STOP beyond the end), and in the last column the number of steps left;
    int64 [n, FORESIGHT + 1].
    """
    padded = np.concatenate([targets, np.full(FORESIGHT + 1, int(Action.STOP))])
    rows = np.arange(n)[:, None] + np.arange(1, FORESIGHT + 1)
    return np.concatenate(
        [padded[rows], (len(targets) - 1 - np.arange(n))[:, None]], axis=1
    ).astype(np.int64)


def read_picture(path: Path, image_width: int) -> np.ndarray:
    """A picture resized as for the encoders, uint8 [h, w, 3]. Raises InputError."""
    try:
        with Image.open(path) as picture:
            return resize(np.asarray(picture.convert("RGB")), image_width)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read as a picture ({error}): make the training set "
            "anew, which leaves such trajectories out"
        ) from error


def encoder_digest(model: JanusVLN, part: str) -> str:
    """A name for the weights of one encoder, ``vision`` (without its merger) or ``spatial``."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if name.startswith(f"{part}.") and not name.startswith("vision.merger."):
            digest.update(name.encode() + value.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def encode_set(
    cache: FrameCache, model: JanusVLN, mirrored: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """
    What both frozen encoders make of every frame of a set (or of its mirror image), float16: the
    vision tower's patches before its merger, in merge order [N, patches, width], and the spatial
    patch tokens [N, patches, 2C], each trajectory seen with the model's own memory window.
    """
    navigation = model.config.navigation
    window = FrameWindow(navigation.initial_frames, navigation.window_frames)
    rows, columns = cache.frames.shape[1] // PATCH, cache.frames.shape[2] // PATCH
    patches = (rows // MERGE * MERGE) * (columns // MERGE * MERGE)
    was_training = model.training
    model.eval()

    @torch.no_grad()
    def vision(frames: np.ndarray) -> np.ndarray:
        cropped = [crop_to_groups(frame) for frame in frames]
        return np.concatenate(
            [
                vision_patches(model, np.stack(cropped[i : i + 64])).float().cpu().numpy()
                for i in range(0, len(cropped), 64)
            ]
        )

    @torch.no_grad()
    def spatial(frames: np.ndarray) -> np.ndarray:
        tokens = model.spatial(images_of(frames)[None].to(model.device), window)[0]
        return tokens[:, model.config.spatial.num_special_tokens :].float().cpu().numpy()

    def seen(encode: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
        return (
            (lambda frames: encode(np.ascontiguousarray(frames[:, :, ::-1])))
            if mirrored
            else encode
        )

    suffix = "-mirrored" if mirrored else ""
    spatial_name = (
        f"spatial-{encoder_digest(model, 'spatial')}-{window.initial}-{window.window}{suffix}"
    )
    result = (
        cache.features(
            f"vision-{encoder_digest(model, 'vision')}{suffix}",
            (patches, model.config.vision.hidden_size),
            seen(vision),
        ),
        cache.features(
            spatial_name, (rows * columns, 2 * model.config.spatial.embed_dim), seen(spatial)
        ),
    )
    model.train(was_training)
    return result


def collate_trajectories(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """
    Pad trajectories to one length: prompts with 0, frames with zeros, targets with -100, weights
    with 0.
    """

    def pad(arrays: Sequence[np.ndarray], value: float = 0) -> Tensor:
        longest = max(len(a) for a in arrays)
        return torch.from_numpy(
            np.stack(
                [
                    np.concatenate([a, np.full((longest - len(a), *a.shape[1:]), value, a.dtype)])
                    for a in arrays
                ]
            )
        )

    batch = {
        "prompt": pad([np.array(item["prompt"], np.int64) for item in items]),
        "prompt_lengths": torch.tensor([len(item["prompt"]) for item in items]),
        "targets": pad([item["targets"] for item in items], IGNORED),
        "weights": pad([item["weights"] for item in items]),
        "ahead": pad([item["ahead"] for item in items], IGNORED),
        "executed": pad([item["executed"] for item in items], -1),
    }
    for name in ("vision", "spatial", "frames"):
        if name in items[0]:
            batch[name] = pad([item[name] for item in items])
    return batch


class ForesightHead(nn.Module):
    """
    A throw-away head that guesses, from the state that decides, the next expert actions, how many
    steps are left, and which action led here.

    More to learn from each step; the last one teaches the network to see its own motion, since
    actions are not in the memory.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, (FORESIGHT + 1) * len(Action) + 1),
        )

    def forward(
        self, hidden_BTC: Tensor, ahead_BTK: Tensor, executed_BT: Tensor
    ) -> tuple[Tensor, Tensor]:
        """
        The loss, a scalar: cross entropies of actions ahead and behind plus the error of log(1 +
        steps left), mean over steps, then over trajectories; and the part of the action behind
        alone.

        ``executed_BT``: the action that led to each frame, -1 where there was none.
        """
        out = self.head(hidden_BTC).float()
        logits, before = (
            out[..., :-1].unflatten(-1, (FORESIGHT + 1, len(Action))).split([FORESIGHT, 1], dim=2)
        )
        motion = F.cross_entropy(
            before.flatten(0, 2), executed_BT.flatten(), ignore_index=-1, reduction="none"
        ).view(executed_BT.shape)
        actions = (
            F.cross_entropy(
                logits.flatten(0, 2),
                ahead_BTK[..., :-1].flatten(),
                ignore_index=IGNORED,
                reduction="none",
            )
            .view(logits.shape[:-1])
            .mean(-1)
        )
        left = F.smooth_l1_loss(
            out[..., -1], torch.log1p(ahead_BTK[..., -1].clamp(min=0).float()), reduction="none"
        )
        real = (ahead_BTK[..., -1] >= 0).float()
        loss, behind = (
            (part * real).sum(1) / real.sum(1) for part in (actions + left + motion, motion)
        )
        return loss.mean(), behind.mean()


class DualTask(nn.Module):
    """
    The network with the loss of ``memory: dual``; ``forward`` takes a batch of
    `collate_trajectories`.

    Args:
        model: the network.
        tokenizer: of the model.
        sample_windows: share of the batches with a drawn window and a jump of positions.
        guidance: weight of the helper head's loss; 0: there is none.
        curriculum_steps: passes over which the window of the semantic memory grows to its full
            size.
        frozen_spatial: the spatial encoder needs no gradient.
    """

    def __init__(
        self,
        model: JanusVLN,
        tokenizer: PreTrainedTokenizerBase,
        sample_windows: float = 0.0,
        guidance: float = 0.0,
        frozen_spatial: bool = True,
        curriculum_steps: int = 0,
    ) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self.sample_windows, self.guidance, self.frozen_spatial = (
            sample_windows,
            guidance,
            frozen_spatial,
        )
        answers = [tokenizer.encode(action.name, add_special_tokens=False) for action in Action]
        longest = max(map(len, answers))
        self.register_buffer(
            "answers",
            torch.tensor([a + [IGNORED] * (longest - len(a)) for a in answers]),
            persistent=False,
        )
        self.answers: Tensor
        self.leaf = leaf_ids(tokenizer)
        navigation = model.config.navigation
        self.window = FrameWindow(navigation.initial_frames, navigation.window_frames)
        self.action_memory, self.semantic_memory = (
            navigation.action_memory,
            navigation.semantic_memory,
        )
        self.curriculum_steps = curriculum_steps
        # kept with the state, so that a resumed run goes on where it was
        self.register_buffer("passes", torch.zeros((), dtype=torch.long))
        self.passes: Tensor
        self.foresight = ForesightHead(model.config.text.hidden_size) if guidance else None

    def fused(
        self, batch: dict[str, Tensor], window: FrameWindow
    ) -> tuple[Tensor, tuple[int, int]]:
        """Fused tokens [B, T, n, D] of a batch and the grid of merge groups."""
        model = self.model
        if "vision" in batch:
            B, T = batch["vision"].shape[:2]
            rows, columns = patch_grid(model, batch["spatial"].shape[2])
            vision = model.vision.merger(
                batch["vision"].flatten(0, 1).flatten(0, 1).to(model.dtype)
            ).unflatten(0, (B, T, -1))
            geometry = model.fusion(batch["spatial"].to(model.dtype).unflatten(2, (rows, columns)))
        else:
            frames = batch["frames"]
            B, T, height, width = frames.shape[:4]
            rows, columns = height // PATCH, width // PATCH
            pictures = frames.cpu().numpy()
            pixels = [pixel_rows(picture) for episode in pictures for picture in episode]
            grid = torch.tensor([g for _, g in pixels], device=model.device)
            vision = model.encode_vision(
                torch.from_numpy(np.concatenate([p for p, _ in pixels])).to(model.device), grid
            ).unflatten(0, (B, T, -1))
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen_spatial):
                tokens = model.spatial(images_of(pictures).to(model.device), window)
            geometry = model.geometry(tokens.to(model.dtype), height, width)
        return model.fuse(vision, geometry), (rows // MERGE, columns // MERGE)

    def forward(
        self,
        prompt: Tensor,
        prompt_lengths: Tensor,
        targets: Tensor,
        weights: Tensor,
        ahead: Tensor,
        executed: Tensor,
        **frames: Tensor,
    ) -> dict[str, Tensor]:
        """
        ``loss`` and figures: ``accuracy``, ``changes`` (accuracy where the action changes),
        ``stop_missed`` and ``stop_false`` (shares).
        """
        window, jump = self.window, 0
        passes = int(self.passes)
        if self.training:
            self.passes += 1
        if self.training and passes < self.curriculum_steps:
            share = passes / self.curriculum_steps
            window = FrameWindow(
                round(share * window.initial),
                max(min(1, window.window), round(share * share * window.window)),
            )
        elif self.training and self.sample_windows and float(torch.rand(())) < self.sample_windows:
            longest = self.model.config.text.max_position_embeddings
            window, jump = sample_window(self.window)
            if longest < 16384:
                jump = 0
        fused, grid = self.fused(frames, window)
        if not self.semantic_memory:
            window = FrameWindow(0, 0)
        answers = torch.where(targets[..., None] >= 0, self.answers[targets.clamp(min=0)], IGNORED)
        before = None
        if self.action_memory == "executed":
            texts = torch.tensor(
                [
                    executed_ids(self.tokenizer, None if a < 0 else Action(a))
                    for a in (-1, 1, 2, 3)
                ],
                device=targets.device,
            )
            before = texts[torch.where(executed > 0, executed, 0)]
        hidden = episode_pass(
            self.model.language,
            nn.Identity(),  # the helper wants the states, too
            prompt,
            prompt_lengths,
            fused,
            frame_ids(self.tokenizer, grid[0] * grid[1]),
            grid,
            self.leaf,
            answers,
            window,
            jump,
            before,
        )
        logits = self.model.lm_head(hidden)
        # Every trajectory counts the same, so that the loss does not depend on how trajectories
        # are dealt to processes.
        loss = action_loss(logits, answers, weights / weights.sum(dim=1, keepdim=True))
        figures = step_figures(logits[:, :, 0], self.answers[:, 0], targets)
        if self.foresight is not None:
            helper, motion = self.foresight(hidden[:, :, 0], ahead, executed)
            figures |= {
                "action_loss": loss.detach(),
                "foresight": helper.detach(),
                "motion": motion.detach(),
            }
            loss = loss + self.guidance * helper
        return {"loss": loss, **figures}


def patch_grid(model: JanusVLN, patches: int) -> tuple[int, int]:
    """Rows and columns of patches of a picture at the model's width."""
    columns = model.config.navigation.image_width // PATCH
    return patches // columns, columns


@torch.no_grad()
def step_figures(
    logits_BTV: Tensor, first_tokens_4: Tensor, targets_BT: Tensor
) -> dict[str, Tensor]:
    """
    Shares of right actions among the four, of missed stops and of false ones; NaN where there is
    nothing to count.
    """
    chosen = logits_BTV[..., first_tokens_4].argmax(-1)
    real = targets_BT >= 0
    right = (chosen == targets_BT) & real
    change = real.clone()
    change[:, 1:] &= targets_BT[:, 1:] != targets_BT[:, :-1]
    stop = targets_BT == int(Action.STOP)
    moving = real & ~stop

    def share(what: Tensor, of: Tensor) -> Tensor:
        return (what & of).sum().float() / of.sum().float()

    stopped = chosen == int(Action.STOP)
    return {
        "accuracy": share(right, real),
        "changes": share(right, change),
        "stop_missed": share(~stopped, stop),
        "stop_false": share(stopped, moving),
    }


# ---------------------------------------------------------------- released: one published sample
# per step


class Samples(Dataset[dict[str, Any]]):
    """
    Published samples for `ReleasedTask`: the pictures of history and current frame, the
    instruction, and the action.
    """

    def __init__(self, samples: FrameSamples, image_width: int, num_history: int) -> None:
        self.samples, self.width, self.num_history = samples, image_width, num_history

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def lengths(self) -> list[int]:
        """Pictures of every sample."""
        return self.samples.image_counts(self.num_history).tolist()

    def __getitem__(self, k: int) -> dict[str, Any]:
        item, frame = self.samples[k]
        shown = history_indices(frame + 1, self.num_history)
        frames = np.stack([read_picture(item.frames[i], self.width) for i in shown])
        return {
            "frames": frames,
            "instruction": item.instruction,
            "action": int(item.targets[frame]),
        }


class ReleasedTask(nn.Module):
    """
    The network with the published loss: cross entropy, mean over the supervised tokens of a
    sample, then over samples.

    All pictures go through the vision tower, the spatial encoder sees them one after the other
    from an empty memory that forgets nothing, and the geometry of the last one is added to every
    picture, as in the published training.
    """

    def __init__(
        self, model: JanusVLN, tokenizer: PreTrainedTokenizerBase, prompt: str = "training"
    ) -> None:
        super().__init__()
        self.model, self.tokenizer, self.prompt = model, tokenizer, prompt

    def ids_and_labels(
        self, instruction: str, images: int, tokens_per_image: int, action: Action
    ) -> tuple[list[int], list[int]]:
        """
        Ids and labels of a sample: the published ones, or the same answer behind the prompt that
        evaluation uses.
        """
        if self.prompt == "training":
            return training_sample(self.tokenizer, instruction, images, tokens_per_image, action)
        question = released_prompt_ids(
            self.tokenizer, instruction, images, tokens_per_image, "evaluation"
        )
        answer = self.tokenizer.encode(f"{action.name}<|im_end|>\n", add_special_tokens=False)
        return question + answer, [IGNORED] * len(question) + answer

    def sample(
        self, frames: np.ndarray, instruction: str, action: Action
    ) -> tuple[Tensor, Tensor]:
        """
        Scores [s, V] of the supervised tokens of one sample, and its labels [L]; ``frames`` uint8
        [k, h, w, 3], resized.
        """
        pixels = np.concatenate([pixel_rows(frame)[0] for frame in frames])
        tokens_per_image = len(pixels) // len(frames) // MERGE**2
        ids, labels = (
            torch.tensor(values, device=self.model.device)
            for values in self.ids_and_labels(instruction, len(frames), tokens_per_image, action)
        )
        images = images_of(frames).to(self.model.device)
        return sample_logits(
            self.model, images, torch.from_numpy(pixels).to(self.model.device), ids, labels
        ), labels

    def forward(
        self, frames: Sequence[Tensor], instructions: Sequence[str], actions: Sequence[int]
    ) -> dict[str, Tensor]:
        """``loss`` and ``accuracy`` (share of samples whose every token is right)."""
        scored = [
            self.sample(f.cpu().numpy(), text, Action(int(a)))
            for f, text, a in zip(frames, instructions, actions)
        ]
        loss = torch.stack([sample_loss(logits, labels) for logits, labels in scored]).mean()
        right = (
            torch.stack(
                [
                    (logits.argmax(-1) == labels[labels != IGNORED]).all()
                    for logits, labels in scored
                ]
            )
            .float()
            .mean()
        )
        return {"loss": loss, "accuracy": right.detach()}


def collate_samples(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Lists, since samples have different numbers of pictures."""
    return {
        "frames": [torch.from_numpy(item["frames"]) for item in items],
        "instructions": [item["instruction"] for item in items],
        "actions": [item["action"] for item in items],
    }


# ---------------------------------------------------------------- the run


def open_sets(paths: Sequence[str]) -> list[TrajectorySet]:
    """The set files of a recipe. Raises InputError: none named, or one that is empty."""
    if not paths:
        raise InputError(
            "the recipe names no data: give data=[FILE.jsonl, ...], made by 'janusvln data'"
        )
    sets = [TrajectorySet(path) for path in paths]
    for trajectories in sets:
        if not len(trajectories):
            raise InputError(
                f"{trajectories.path} holds no trajectory: see what 'janusvln data' "
                "reported about it"
            )
    return sets


def prepare(
    recipe: Recipe,
) -> tuple[JanusVLN, nn.Module, Any, Any, Callable[[Sequence[Any]], dict[str, Any]], Path]:
    """
    Network, task, training and evaluation data (None without ``eval_data``), collate function and
    tokenizer folder of a recipe.
    """
    model = build_model(recipe)
    folder = find(shipped(recipe.tokenizer or recipe.semantic_model or recipe.model))
    tokenizer = load_tokenizer(folder)
    model.train()
    freeze(model, recipe)
    if recipe.gradient_checkpointing:
        model.language.gradient_checkpointing_enable({"use_reentrant": False})
    model.vision.set_attn_implementation(recipe.attention)
    # On a CPU the mask of an episode is dearer than the pieces of this attention.
    pieces = (
        recipe.memory == "dual" and recipe.attention == "sdpa" and not torch.cuda.is_available()
    )
    model.language.set_attn_implementation(EPISODE_ATTENTION if pieces else recipe.attention)
    train_sets, eval_sets = (
        open_sets(recipe.data),
        open_sets(recipe.eval_data) if recipe.eval_data else [],
    )
    frozen = not (recipe.train_vision_tower or recipe.train_spatial_encoder)
    train: Any
    evaluation: Any
    collate: Callable[[Sequence[Any]], dict[str, Any]]
    task: nn.Module
    if recipe.memory == "dual":
        cached = frozen and recipe.cache_features
        train = Trajectories(
            train_sets,
            model,
            tokenizer,
            recipe,
            cached,
            open_sets(recipe.mirrored_data) if recipe.mirrored_data else [],
        )
        evaluation = (
            Trajectories(eval_sets, model, tokenizer, recipe, cached) if eval_sets else None
        )
        task = DualTask(
            model,
            tokenizer,
            recipe.sample_windows,
            recipe.guidance_weight,
            not recipe.train_spatial_encoder,
            recipe.curriculum_steps,
        )
        collate = collate_trajectories
    else:
        if recipe.mirrored_data:
            raise InputError(
                "mirrored_data is for whole trajectories (memory: dual): set mirrored_data=[]"
            )
        navigation = model.config.navigation
        train = Samples(FrameSamples(train_sets), navigation.image_width, navigation.num_history)
        evaluation = (
            Samples(FrameSamples(eval_sets), navigation.image_width, navigation.num_history)
            if eval_sets
            else None
        )
        task = ReleasedTask(model, tokenizer, recipe.prompt)
        collate = collate_samples
    if evaluation is not None and len(evaluation) > recipe.eval_samples:
        evaluation = torch.utils.data.Subset(
            evaluation,
            np.linspace(0, len(evaluation) - 1, recipe.eval_samples).astype(int).tolist(),
        )
    return model, task, train, evaluation, collate, folder


def train_navigation(recipe: Recipe, output: Path) -> dict[str, Any]:
    """Run the stage ``navigate``; see `janusvln_ros.training.run.train`."""
    model, task, train, evaluation, collate, tokenizer = prepare(recipe)
    trainer = fit(
        task, recipe, train, evaluation, collate, train.lengths if recipe.group_by_length else None
    )
    result: dict[str, Any] = {"steps": trainer.state.global_step, "samples": len(train)}
    history = trainer.state.log_history
    result["loss"] = next((entry["loss"] for entry in reversed(history) if "loss" in entry), None)
    result["evaluation"] = next(
        (
            {k: v for k, v in entry.items() if k.startswith("eval_")}
            for entry in reversed(history)
            if "eval_loss" in entry
        ),
        None,
    )
    if recipe.deepspeed or recipe.fsdp:  # the weights lie in pieces on all processes
        weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
        if trainer.is_world_process_zero():
            task.load_state_dict(
                {name: value.cpu() for name, value in weights.items()}, assign=True
            )
    if trainer.is_world_process_zero():
        model.eval()
        result["checkpoint"] = str(
            finish(model, recipe, output, trained=True, tokenizer=tokenizer)
        )
        atomic_write(output / "history.json", json.dumps(history, indent=1) + "\n")
        atomic_write(output / "result.json", json.dumps(result, indent=1) + "\n")
    else:
        result["checkpoint"] = str(output / "checkpoint")
    return result

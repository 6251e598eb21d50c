"""
Teaching the encoders of a small network to see, before it learns to navigate; the heads that do it
are thrown away.

A large network starts from encoders that others have pretrained: Qwen's vision tower, VGGT's
geometry. A small one has none, so this stage stands in for both, on views of generated homes with
known answers. The *spatial encoder* learns geometry, frame by frame with its memory: log depth of
every patch, where every patch lies in the coordinates of the first frame, and the pose relative to
the first frame. The *vision tower* learns what things are: for every patch, which shares of it are
walls of which colour, and things of which kind and colour. Neither ever sees an instruction or an
action. Afterwards both are frozen, as published.

`gate` measures, in homes that were not seen, whether the geometry is geometry: against the best
constant answer, and against a head that sees only the DINO part (one picture, no memory).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from janusvln_ros.errors import InputError, require
from janusvln_ros.model import JanusVLN
from janusvln_ros.model.network import MERGE
from janusvln_ros.model.spatial import PATCH
from janusvln_ros.policy.preprocess import pixel_rows, spatial_input
from janusvln_ros.rollout.views import SURFACES

THING_WEIGHT = 4.0
"""
How much more a patch counts that shows a thing. Nine of ten show floor, ceiling or wall, and a
tower that is taught all alike learns these and the colours, and no kind of thing in a home that it
has not seen.
"""


@dataclass(frozen=True)
class Views:
    """
    Walks through homes with known geometry; all arrays share W walks and F frames.

    Attributes:
        frames: uint8 [W, F, h, w, 3], resized as for the encoders.
        depth: float16 [W, F, r, c], mean log depth (log metres) of the pixels of a patch.
        poses: float32 [W, F, 3]: x, z (metres, world) and yaw (radians, left turns positive).
        cameras: float32 [W, F, 3]: height (metres), tilt (degrees, positive looks down) and
            horizontal field of view (degrees).
        shares: uint8 [W, F, r, c, K]: share of a patch's pixels, 255 = all, that shows each of
            ``names``.
        names: what the K shares are.
    """

    frames: np.ndarray
    depth: np.ndarray
    poses: np.ndarray
    cameras: np.ndarray
    shares: np.ndarray
    names: tuple[str, ...]

    @classmethod
    def load(cls, path: str | Path) -> "Views":
        """
        Read what `save` wrote; the pictures stay on disk until they are used. Raises InputError.
        """
        folder = Path(path)
        try:
            arrays = {
                name: np.load(folder / f"{name}.npy", mmap_mode="r")
                for name in ("frames", "depth", "poses", "cameras", "shares")
            }
            names = (folder / "names.txt").read_text().split("\n")
        # numpy reads a header as Python's source, and raises what Python does
        except Exception as error:
            raise InputError(
                f"{folder} holds no views ({error}): make them with 'janusvln data --views'"
            ) from error
        frames, shares = arrays["frames"], arrays["shares"]
        walks = frames.shape[:2]
        require(
            frames.dtype == np.uint8
            and frames.ndim == 5
            and all(array.shape[:2] == walks for array in arrays.values())
            and shares.shape[-1:] == (len(names),),
            f"{folder} holds views that do not fit each other: make them anew with 'janusvln data "
            "--views'",
        )
        return cls(**arrays, names=tuple(names))


def relative_poses(poses_BF3: Tensor) -> Tensor:
    """
    Poses (x, z, yaw) in the coordinates of each walk's first frame: [B, F, 4] = metres right,
    metres ahead, cos and sin of the turn to the left.

    An agent with yaw 0 looks along -z with +x to its right.
    """
    offset = poses_BF3[..., :2] - poses_BF3[:, :1, :2]
    yaw0 = poses_BF3[:, :1, 2]
    right = offset[..., 0] * yaw0.cos() - offset[..., 1] * yaw0.sin()
    ahead = -offset[..., 0] * yaw0.sin() - offset[..., 1] * yaw0.cos()
    turn = poses_BF3[..., 2] - yaw0
    return torch.stack([right, ahead, turn.cos(), turn.sin()], dim=-1)


def point_maps(log_depth_BFrc: Tensor, relative_BF4: Tensor, cameras_BF3: Tensor) -> Tensor:
    """
    Where the middle of every patch lies in the first frame's coordinates: [B, F, r, c, 3] =
    metres right, ahead, up, from the first camera, ahead and up level. Cameras as in `Views`.
    """
    rows, columns = log_depth_BFrc.shape[-2:]
    _, tilt, hfov = cameras_BF3.deg2rad()[..., None, None].unbind(2)
    tangent = (hfov / 2).tan()
    x = (torch.arange(columns) + 0.5) / columns * 2 - 1
    y = (torch.arange(rows) + 0.5) / rows * 2 - 1
    depth = log_depth_BFrc.exp()
    right, lift = depth * x * tangent, -depth * y[:, None] * tangent * rows / columns
    ahead, up = (
        depth * tilt.cos() + lift * tilt.sin(),
        lift * tilt.cos() - depth * tilt.sin(),
    )
    cos, sin = relative_BF4[..., 2, None, None], relative_BF4[..., 3, None, None]
    # A turn to the left by t carries the agent's ahead to (right, ahead) = (-sin t, cos t) of the
    # first frame.
    return torch.stack(
        [
            right * cos - ahead * sin + relative_BF4[..., 0, None, None],
            right * sin + ahead * cos + relative_BF4[..., 1, None, None],
            up,
        ],
        dim=-1,
    )


def small_head(width: int, answers: int) -> nn.Sequential:
    """A head with one hidden layer: [..., width] -> [..., answers]."""
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, 128), nn.GELU(), nn.Linear(128, answers)
    )


def spatial_loss(
    heads: nn.ModuleDict,
    tokens_BFPD: Tensor,
    special: int,
    depth_BFrc: Tensor,
    poses_BF3: Tensor,
    cameras_BF3: Tensor,
) -> dict[str, Tensor]:
    """
    Losses of the spatial encoder's tokens: ``depth`` (log metres, L1), ``point`` (metres, L1,
    shrunk with distance), ``pose`` (L1). ``heads`` are those of an `EncoderTask`.
    """
    relative = relative_poses(poses_BF3)
    points = point_maps(depth_BFrc, relative, cameras_BF3)
    patch = heads["patch"](tokens_BFPD[:, :, special:]).unflatten(2, depth_BFrc.shape[-2:])
    pose = heads["pose"](tokens_BFPD[:, :, 0])
    far = 1.0 + points.norm(dim=-1, keepdim=True)
    return {
        "depth": (patch[..., 0] - depth_BFrc).abs().mean(),
        "point": ((patch[..., 1:] - points).abs() / far).mean(),
        "pose": (pose - relative).abs().mean(),
    }


def share_loss(logits: Tensor, shares: Tensor, weights: Tensor) -> Tensor:
    """
    Mean cross entropy between predicted and true shares of a patch, by ``weights``: [..., K]
    logits, [..., K] shares that add up to about 1, [...] weights.
    """
    target = shares / shares.sum(-1, keepdim=True).clamp_min(1e-6)
    return -((target * F.log_softmax(logits, -1)).sum(-1) * weights).sum() / weights.sum()


def right_share(logits: Tensor, shares: Tensor, of: slice) -> Tensor:
    """
    Of the patches that mostly show one of the answers ``of``: how many are given that answer.
    """
    most, answer = shares.max(-1)
    asked = (most > 0.5) & (answer >= of.start) & (answer < of.stop)
    return (logits.argmax(-1) == answer)[asked].float().mean()


def merge_order(grid: np.ndarray) -> np.ndarray:
    """
    Reorder [..., r, c, K] row by row to the vision tower's patch order: 2 x 2 groups row by row,
    inside a group row by row: [..., r * c, K].
    """
    *lead, rows, columns, k = grid.shape
    groups = grid.reshape(*lead, rows // MERGE, MERGE, columns // MERGE, MERGE, k)
    return groups.swapaxes(-4, -3).reshape(*lead, rows * columns, k)


def vision_patches(model: JanusVLN, frames_Fhw3: np.ndarray) -> Tensor:
    """
    The vision tower's patch features before its merger: [F, r * c, width] in merge order, from
    uint8 [F, h, w, 3] (resized pictures).

    Raises:
        InputError: the tower's windows are smaller than the picture, so its patches would come in
            another order.
    """
    rows = [pixel_rows(frame) for frame in frames_Fhw3]
    grid = rows[0][1]
    window = model.config.vision.window_size
    require(
        len(model.vision.fullatt_block_indexes) >= len(model.vision.blocks)
        or max(grid) * PATCH <= window,
        f"vision_config.window_size {window} is smaller than a picture of "
        f"{grid[2] * PATCH}x{grid[1] * PATCH}: use full attention or a larger window",
    )
    pixels = torch.from_numpy(np.concatenate([pixel for pixel, _ in rows])).to(model.device)
    features = model.vision(
        pixels, grid_thw=torch.tensor([grid] * len(rows), device=model.device)
    ).last_hidden_state
    return features.unflatten(0, (len(rows), -1))


def fused_tokens(
    model: JanusVLN, vision: Tensor, spatial: Tensor, grid: tuple[int, int]
) -> Tensor:
    """The tokens [F, N, D] that a language model reads, of what the encoders made of F frames."""
    seen = model.vision.merger(vision.flatten(0, 1)).unflatten(0, (len(vision), -1))
    return model.fuse(seen, model.fusion(spatial.unflatten(1, grid)))


def images_of(frames: np.ndarray) -> Tensor:
    """The spatial encoder's input: float32 [..., 3, h, w] in [0, 1] from uint8 [..., h, w, 3]."""
    return torch.from_numpy(spatial_input(frames))


class ViewSamples(Dataset[dict[str, Any]]):
    """
    ``count`` stretches of ``frames`` consecutive frames from ``views``, half of them seen in a
    mirror, drawn at random but always the same for the same seed.
    """

    def __init__(self, views: Views, frames: int, count: int, seed: int) -> None:
        self.views, self.frames, self.count, self.seed = views, frames, count, seed
        require(
            frames <= views.frames.shape[1],
            f"walks of {views.frames.shape[1]} frames are too short for stretches "
            f"of {frames}: make longer views or lower encoder_frames",
        )

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng([self.seed, index])
        walk, begin = (
            rng.integers(self.views.frames.shape[0]),
            rng.integers(self.views.frames.shape[1] - self.frames + 1),
        )
        sample = {
            name: np.array(getattr(self.views, name)[walk, begin : begin + self.frames])
            for name in ("frames", "depth", "poses", "cameras", "shares")
        }
        return mirrored(sample) if rng.random() < 0.5 else sample


def mirrored(sample: dict[str, Any]) -> dict[str, Any]:
    """A stretch of `Views` as it is seen with left and right exchanged."""
    across = {
        name: np.ascontiguousarray(sample[name][:, :, ::-1])
        for name in ("frames", "depth", "shares")
    }
    return sample | across | {"poses": sample["poses"] * np.array([-1, 1, -1], np.float32)}


def collate_views(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Stack samples: float32 tensors, but ``frames`` uint8."""
    stacked = default_collate(list(samples))
    return {name: value if name == "frames" else value.float() for name, value in stacked.items()}


class EncoderTask(nn.Module):
    """
    A network and the throw-away heads that teach its encoders, ``vision`` and ``spatial`` or one
    of them; ``forward`` takes a batch of `collate_views` and returns the losses.
    """

    def __init__(
        self,
        model: JanusVLN,
        names: Sequence[str],
        pose_weight: float = 1.0,
        vision: bool = True,
        spatial: bool = True,
    ) -> None:
        super().__init__()
        self.model, self.pose_weight = model, pose_weight
        self.vision, self.spatial = vision, spatial
        self.n_what = sum(name.startswith("what:") for name in names)
        self.kinds = slice(len(SURFACES), self.n_what)
        walls = sum(name.startswith("colour:") and "thing" not in name for name in names)
        self.colours = slice(walls, len(names) - self.n_what)
        spatial_width = 2 * model.config.spatial.embed_dim
        vision_width = model.config.vision.hidden_size
        # depth and point of a patch (from the spatial tokens), pose of a frame (from its camera
        # token), shares of a patch (vision)
        self.heads = nn.ModuleDict(
            {
                "patch": small_head(spatial_width, 4),
                "pose": small_head(spatial_width, 4),
                "shares": nn.Sequential(
                    nn.LayerNorm(vision_width), nn.Linear(vision_width, len(names))
                ),
            }
        )

    def forward(
        self, frames: Tensor, depth: Tensor, poses: Tensor, cameras: Tensor, shares: Tensor
    ) -> dict[str, Tensor]:
        """
        ``loss`` and its parts, and of the patches that mostly show a thing the shares whose kind
        and colour are right; frames uint8 [B, F, h, w, 3], the rest as in `Views`.
        """
        pictures = frames.cpu().numpy()
        losses: dict[str, Tensor] = {}
        total = torch.zeros((), device=depth.device)
        if self.spatial:
            losses = spatial_loss(
                self.heads,
                self.model.spatial(images_of(pictures).to(depth.device)),
                self.model.config.spatial.num_special_tokens,
                depth,
                poses,
                cameras,
            )
            total = losses["depth"] + losses["point"] + self.pose_weight * losses["pose"]
        if self.vision:
            patches = vision_patches(self.model, pictures.reshape(-1, *pictures.shape[2:]))
            what, colour = self.heads["shares"](patches).float().tensor_split([self.n_what], -1)
            truth = merge_order(shares.cpu().numpy().reshape(-1, *shares.shape[2:])) / 255
            true = torch.from_numpy(truth).to(what).tensor_split([self.n_what], -1)
            weights = 1 + THING_WEIGHT * true[0][..., self.kinds].sum(-1)
            losses["what"] = share_loss(what, true[0], weights)
            losses["colour"] = share_loss(colour, true[1], weights)
            total = total + losses["what"] + losses["colour"]
            losses["kind_right"] = right_share(what, true[0], self.kinds)
            losses["colour_right"] = right_share(colour, true[1], self.colours)
        return {"loss": total, **{name: value.detach() for name, value in losses.items()}}


@torch.no_grad()
def encode_views(
    model: JanusVLN, views: Views, frames: int, stretches: int, seed: int
) -> dict[str, Tensor]:
    """
    Features and answers of ``stretches`` stretches of ``frames`` frames: ``spatial`` [n, F, P,
    2D], ``dino`` [n, F, r * c, D], ``depth``, ``relative``.
    """
    parts: list[dict[str, Tensor]] = []
    samples = ViewSamples(views, frames, stretches, seed)
    for start in range(0, stretches, 8):
        batch = collate_views([samples[i] for i in range(start, min(start + 8, stretches))])
        images = images_of(batch["frames"].numpy())
        dino = model.spatial.patch_embed(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        parts.append(
            {
                "spatial": model.spatial(images),
                "dino": dino,
                "depth": batch["depth"].flatten(2),
                "relative": relative_poses(batch["poses"]),
            }
        )
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def probe(
    features: Tensor, targets: Tensor, test_features: Tensor, steps: int = 400, seed: int = 0
) -> Tensor:
    """
    What a small head learns from frozen ``features`` [n, D] about ``targets`` [n, K]: its answers
    to ``test_features`` [m, D], [m, K].
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = small_head(features.shape[1], targets.shape[1])
        optimizer = torch.optim.AdamW(head.parameters(), lr=2e-3)
        for _ in range(steps):
            rows = torch.randint(len(features), (1024,))
            loss = (head(features[rows]) - targets[rows]).abs().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            return head(test_features)


def gate(
    model: JanusVLN,
    train: Views,
    test: Views,
    frames: int = 12,
    stretches: int = 160,
    seed: int = 1,
) -> dict[str, dict[str, float]]:
    """
    Is the spatial encoder geometric?

    Errors in the homes of ``test`` of heads of equal size, trained on ``train``, on three kinds of
    features.

    Returns:
        For each of ``constant`` (the median answer of each patch and each frame number), ``dino``
        (one picture, no memory; pose from the mean patch) and ``spatial``: ``depth`` (mean
        absolute error of log depth), ``position`` (metres, relative to the first frame) and
        ``turn`` (degrees).
    """
    model.eval()
    a = encode_views(model, train, frames, stretches, seed)
    b = encode_views(model, test, frames, stretches, seed + 1)
    special = model.config.spatial.num_special_tokens
    later = slice(1, None)  # the first frame's pose is always the same

    def errors(depth: Tensor, relative: Tensor) -> dict[str, float]:
        truth = b["relative"][:, later]
        difference = torch.atan2(relative[..., 3], relative[..., 2]) - torch.atan2(
            truth[..., 3], truth[..., 2]
        )
        turn = torch.atan2(difference.sin(), difference.cos()).abs()
        return {
            "depth": round(float((depth - b["depth"]).abs().mean()), 4),
            "position": round(float((relative[..., :2] - truth[..., :2]).norm(dim=-1).mean()), 4),
            "turn": round(float(torch.rad2deg(turn.mean())), 2),
        }

    shape = b["relative"][:, later].shape
    results = {
        "constant": errors(
            a["depth"].flatten(0, 1).median(dim=0).values,
            a["relative"][:, later].median(dim=0).values.expand(shape),
        )
    }
    for name, patches, camera in (
        ("dino", lambda d: d["dino"], lambda d: d["dino"].mean(dim=2)),
        ("spatial", lambda d: d["spatial"][:, :, special:], lambda d: d["spatial"][:, :, 0]),
    ):
        depth = probe(
            patches(a).flatten(0, 2), a["depth"].reshape(-1, 1), patches(b).flatten(0, 2)
        ).view(b["depth"].shape)
        pose = probe(
            camera(a)[:, later].flatten(0, 1),
            a["relative"][:, later].flatten(0, 1),
            camera(b)[:, later].flatten(0, 1),
        ).view(shape)
        results[name] = errors(depth, pose)
    return results

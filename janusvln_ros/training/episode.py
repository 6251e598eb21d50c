"""
A whole episode with all its leaves in one masked causal pass: the forward pass of training with
the semantic memory, equal to streaming it step by step (`janusvln_ros.model.dual`).

On a CPU a dense mask costs the full square. `episode_attention` takes a few rows of queries at a
time, with only the keys that some of them see: keys of later frames, of forgotten frames and of
other steps' questions are left out, which is more than half of them. Scores and shares are written
out, since torch's fused kernel takes twice as long backwards in bfloat16. The result is the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AttentionInterface, Qwen2_5_VLTextModel

from janusvln_ros.errors import require
from janusvln_ros.model.attention import additive_mask
from janusvln_ros.model.dual import FrameLayout
from janusvln_ros.model.memory import FrameWindow
from janusvln_ros.model.network import last_layer

IGNORED = -100
"""Label of what is not supervised."""


@dataclass(frozen=True)
class Episodes:
    """
    A batch of whole episodes, and the text around the frames of each.

    Attributes:
        prompt_BL: int64, ids of the prompts, padded at the end with any id.
        prompt_lengths_B: int64, their true lengths.
        fused_BFMD: fused tokens of all frames; shorter episodes are padded with any numbers at the
            end (nothing sees them).
        answers_BFA: int64, the right answer's tokens at every step; -100 where there is none
            (padding, short answers, unsupervised steps). Single-token actions: A = 1.
        grid: height and width of a frame in merge groups; M = height * width.
        frame_ids: ids of one frame's rows, placeholders where fused tokens go
            (``policy.prompt.frame_ids``); without the rows before it.
        question_ids: the leaf up to where the answer begins (``policy.prompt.leaf_ids``).
        executed_BFE: int64, ids of the text rows before each frame, only for
            ``action_memory="executed"``.
    """

    prompt_BL: Tensor
    prompt_lengths_B: Tensor
    fused_BFMD: Tensor
    answers_BFA: Tensor
    grid: tuple[int, int]
    frame_ids: Sequence[int]
    question_ids: Sequence[int]
    executed_BFE: Tensor | None = None

    @property
    def layout(self) -> FrameLayout:
        """Rows and positions of each frame."""
        before = 0 if self.executed_BFE is None else self.executed_BFE.shape[2]
        return FrameLayout(*self.grid, before=before)

    @property
    def leaf_rows(self) -> int:
        """Rows of a question and its answer, whose last token scores nothing and is not read."""
        return len(self.question_ids) + self.answers_BFA.shape[2] - 1


def episode_pass(
    language: Qwen2_5_VLTextModel, episodes: Episodes, window: FrameWindow, jump: int = 0
) -> Tensor:
    """
    Read whole episodes; gradients reach the language model and, through the fused tokens, the
    mergers.

    Args:
        language: transformers' text model.
        episodes: what is read.
        window: which frames are remembered; sample it in training (`sample_window`).
        jump: steps by which positions jump between the initial frames and all later ones, as if
            that many frames had been evicted.

    Returns:
        Hidden states [B, F, A, D] whose ``lm_head`` scores the answers: row a of a step scores its
        answer's token a, given the right ones before it.

    Raises:
        InputError: shapes that do not fit each other, or positions beyond the context.
    """
    _check(language, episodes, jump)
    device, rows = episodes.fused_BFMD.device, episodes.layout.rows
    frames, answer = episodes.answers_BFA.shape[1:]
    prompt, leaf = episodes.prompt_BL.shape[1], episodes.leaf_rows
    embeds_BLD = _embeddings(language, episodes)
    positions_3BL = _positions(episodes, window.initial, jump)
    mask_B1LL = episode_mask(
        episodes.prompt_lengths_B.to(device), prompt, frames, rows, leaf, window
    )
    next_F = prompt + torch.arange(1, frames + 1, device=device) * (rows + leaf)
    answers_R = (next_F[:, None] + torch.arange(-answer, 0, device=device)).flatten()
    if device.type == "cpu":
        # Small networks have few layers, so that the last one for the answers alone is worth it;
        # and a mask converted once instead of in every layer.
        mask_B1LL = additive_mask(mask_B1LL, embeds_BLD.dtype)
        x_BLD, rotation = embeds_BLD, language.rotary_emb(embeds_BLD, positions_3BL)
        for layer in language.layers[:-1]:
            x_BLD = layer(x_BLD, attention_mask=mask_B1LL, position_embeddings=rotation)
        hidden_BRD = last_layer(language, x_BLD, rotation, answers_R, mask_B1LL[:, :, answers_R])
    else:
        hidden_BRD = language(
            inputs_embeds=embeds_BLD,
            position_ids=positions_3BL,
            attention_mask={"full_attention": mask_B1LL},
            use_cache=False,
        ).last_hidden_state[:, answers_R]
    return hidden_BRD.unflatten(1, (frames, answer))


def _check(language: Qwen2_5_VLTextModel, episodes: Episodes, jump: int) -> None:
    fused, answers, prompts = episodes.fused_BFMD, episodes.answers_BFA, episodes.prompt_BL
    (height, width), layout = episodes.grid, episodes.layout
    require(
        fused.shape[2] == height * width
        and len(episodes.frame_ids) == height * width + 2
        and answers.shape[:2] == fused.shape[:2]
        and len(prompts) == len(fused),
        f"fused tokens {list(fused.shape)}, grid {episodes.grid}, {len(episodes.frame_ids)} "
        f"frame ids, answers {list(answers.shape)} and "
        f"prompts {list(prompts.shape)} do not fit: they share B and F, a frame "
        "has height * width tokens and two marks",
    )
    steps, limit = fused.shape[1] + jump, language.config.max_position_embeddings
    last = int(episodes.prompt_lengths_B.max()) + steps * layout.span + episodes.leaf_rows + 1
    require(
        last <= limit,
        f"{fused.shape[1]} frames with a jump of {jump} steps reach position {last}, the "
        f"language model takes {limit}: shorten them",
    )


def _embeddings(language: Qwen2_5_VLTextModel, episodes: Episodes) -> Tensor:
    """[B, L, D]: prompt, then per step executed | start | fused | end | question | answer."""
    fused_BFMD, answers_BFA = episodes.fused_BFMD, episodes.answers_BFA

    def text(ids: Tensor | Sequence[int]) -> Tensor:
        ids = torch.as_tensor(ids, device=fused_BFMD.device)
        return language.embed_tokens(ids).to(fused_BFMD.dtype)

    start, end, question = (
        text(ids).expand(*fused_BFMD.shape[:2], -1, -1)
        for ids in (episodes.frame_ids[:1], episodes.frame_ids[-1:], episodes.question_ids)
    )
    executed = [] if episodes.executed_BFE is None else [text(episodes.executed_BFE)]
    answer = text(answers_BFA[:, :, :-1].clamp(min=0))  # the last token scores nothing
    steps_BFLD = torch.cat([*executed, start, fused_BFMD, end, question, answer], dim=2)
    return torch.cat([text(episodes.prompt_BL), steps_BFLD.flatten(1, 2)], dim=1)


def _positions(episodes: Episodes, initial: int, jump: int) -> Tensor:
    """int64 [3, B, L]; frames from number ``initial`` on stand ``jump`` steps further."""
    device, layout = episodes.fused_BFMD.device, episodes.layout
    leaf_3L = (layout.span + torch.arange(episodes.leaf_rows)).expand(3, -1)
    step_3L = torch.cat([layout.positions(), leaf_3L], dim=1).to(device)
    number_F = torch.arange(episodes.fused_BFMD.shape[1], device=device)
    start_F = (number_F + jump * (number_F >= initial)) * layout.span
    start_BF = episodes.prompt_lengths_B.to(device)[:, None] + start_F
    prompt_L = torch.arange(episodes.prompt_BL.shape[1], device=device)
    steps_3BL = (start_BF[None, :, :, None] + step_3L[:, None, None]).flatten(2)
    return torch.cat([prompt_L.expand(3, len(start_BF), -1), steps_3BL], dim=2)


def episode_mask(
    prompt_lengths_B: Tensor,
    prompt_rows: int,
    frames: int,
    block_rows: int,
    leaf_rows: int,
    window: FrameWindow,
) -> Tensor:
    """
    What each row of an episode with all its leaves may see, bool [B, 1, L, L] with L = prompt_rows
    + frames * (block_rows + leaf_rows).

    Rows are the prompt (padded at its end to ``prompt_rows``) and then per frame its
    ``block_rows`` and its ``leaf_rows``. Rows of padding see themselves, so that no softmax is
    empty.
    """
    device, step = prompt_lengths_B.device, block_rows + leaf_rows
    row_L = torch.arange(prompt_rows + frames * step, device=device)
    is_prompt_L = row_L < prompt_rows
    within_L = row_L - prompt_rows
    frame_L = torch.where(is_prompt_L, -1, within_L // step)
    is_leaf_L = ~is_prompt_L & (within_L % step >= block_rows)

    causal_LL = row_L[:, None] >= row_L[None]
    same_leaf_LL = is_leaf_L[:, None] & (frame_L[:, None] == frame_L[None])
    visible_LL = causal_LL & (
        is_prompt_L[None] | (window.visible(frame_L, frame_L) & (~is_leaf_L[None] | same_leaf_LL))
    )
    padding_BL = is_prompt_L & (row_L >= prompt_lengths_B[:, None])
    itself_LL = torch.eye(len(row_L), dtype=torch.bool, device=device)
    return ((visible_LL & ~padding_BL[:, None]) | itself_LL)[:, None]


def sample_window(
    window: FrameWindow, max_jump: int = 400, generator: torch.Generator | None = None
) -> tuple[FrameWindow, int]:
    """
    A window no larger than ``window`` and a jump of positions, for one training batch, so that
    eviction and long distances are met.

    Initial frames are drawn from 2 and the window from 4 upwards (or from the given ones if these
    are smaller); half of the batches jump by up to ``max_jump`` steps.
    """

    def draw(low: int, high: int) -> int:
        return int(torch.randint(min(low, high), high + 1, (), generator=generator))

    drawn = FrameWindow(draw(2, window.initial), draw(4, window.window))
    return drawn, draw(1, max_jump) if max_jump > 0 and draw(0, 1) else 0


def action_loss(logits_BFAV: Tensor, answers_BFA: Tensor, weights_BF: Tensor) -> Tensor:
    """
    Cross entropy of the right answers, summed over an answer's tokens, averaged over steps by
    their weights; a scalar.

    Args:
        logits_BFAV: of the A tokens of the answer at each frame of each episode.
        answers_BFA: int64; tokens that are -100 do not count.
        weights_BF: not negative, e.g. more for a change of action or STOP. Steps without any label
            do not count.

    Returns:
        0 (with a gradient of 0) where nothing is supervised.
    """
    loss_BFA = cross_entropy(
        logits_BFAV.flatten(0, 2).float(),
        answers_BFA.flatten(),
        ignore_index=IGNORED,
        reduction="none",
    ).view(answers_BFA.shape)
    counted_BF = weights_BF.to(loss_BFA.dtype) * (answers_BFA != IGNORED).any(dim=2)
    least = torch.finfo(loss_BFA.dtype).tiny
    return (loss_BFA.sum(dim=2) * counted_BF).sum() / counted_BF.sum().clamp(min=least)


EPISODE_ATTENTION = "janusvln_episode"
"""
Name under which `episode_attention` is known to transformers; set it with
``language_model.set_attn_implementation``.
"""

QUERY_ROWS = 96
"""Rows of queries of one piece."""


def episode_attention(
    module: nn.Module,
    query_BNLH: Tensor,
    key_BGKH: Tensor,
    value_BGKH: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """
    Attention function for transformers: L rows of N query heads that see what ``attention_mask``
    (numbers to add, [B, 1, L, K], -inf for what is hidden) allows of the K keys of G heads.

    Returns:
        [B, L, N, H] and None (no attention weights).

    Raises:
        ValueError: there is no mask of that shape.
    """
    rows, keys = query_BNLH.shape[2], key_BGKH.shape[2]
    if attention_mask is None or attention_mask.shape[-2:] != (rows, keys):
        raise ValueError("episode attention needs the mask of a whole episode")
    groups = query_BNLH.shape[1] // key_BGKH.shape[1]
    scale = query_BNLH.shape[-1] ** -0.5 if scaling is None else scaling
    # Rows of the heads that share keys and values lie side by side, so that these need not be
    # copied.
    query_BGgLH = (query_BNLH * scale).unflatten(1, (-1, groups))
    outputs = []
    for start, end, columns, mask_B11RK in _pieces(attention_mask):
        k_BGKH, v_BGKH = key_BGKH.index_select(2, columns), value_BGKH.index_select(2, columns)
        query_BGRH = query_BGgLH[:, :, :, start:end].flatten(2, 3)
        scores_BGgRK = (query_BGRH @ k_BGKH.transpose(-1, -2)).unflatten(2, (groups, -1))
        shares_BGgRK = (scores_BGgRK + mask_B11RK).softmax(-1, dtype=torch.float32)
        out_BGRH = shares_BGgRK.to(v_BGKH.dtype).flatten(2, 3) @ v_BGKH
        outputs.append(out_BGRH.unflatten(2, (groups, -1)))
    return torch.cat(outputs, dim=3).flatten(1, 2).transpose(1, 2), None


def _pieces(mask_B1LK: Tensor) -> list[tuple[int, int, Tensor, Tensor]]:
    """
    First and last + 1 row, seen columns [K] and their mask [B, 1, 1, R, K] of each piece; worked
    out once for all layers, which are given the same mask.
    """
    known: list[tuple[int, int, Tensor, Tensor]] | None = getattr(mask_B1LK, "_pieces", None)
    if known is None:
        known = []
        for rows_B1RK in mask_B1LK.split(QUERY_ROWS, dim=2):
            start = known[-1][1] if known else 0
            columns = (rows_B1RK > float("-inf")).flatten(0, 2).any(dim=0).nonzero()[:, 0]
            seen = rows_B1RK.index_select(3, columns)[:, :, None]
            known.append((start, start + rows_B1RK.shape[2], columns, seen))
        mask_B1LK._pieces = known  # type: ignore[attr-defined]
    return known


AttentionInterface.register(EPISODE_ATTENTION, episode_attention)

"""
The semantic memory: the language model's keys and values of past frames, kept instead of read
again (arXiv 2509.22548, section 3.2).

An episode is one open chat::

    prompt | frame 0 | frame 1 | ... | frame t     each frame read once, never again
              \\leaf    \\leaf          \\leaf     question and answer, seen by nothing later

A frame is ``<|vision_start|>``, one fused token per merge group (appearance plus geometry of this
same frame), ``<|vision_end|>``. The prompt is always visible; of the frames those that
`FrameWindow` tells, the same rule as in the spatial memory. A leaf sees what its frame sees, and
its frame. Positions are given once: frame t + 1 begins one after the largest position of frame t,
as if there were no leaf.

Two ways to compute the same numbers:

* `read_prompt`, then per frame `read_frame` (and `SemanticMemory.commit`): streaming, for driving.
* `episode_pass`: a whole episode with all its leaves in one masked causal pass, for training;
  `action_loss` on its result.

Answers are not in the memory, or a cloned policy learns to repeat its last action. The ablation
``action_memory="executed"`` puts the question and the *executed* action before each frame
(``policy.prompt.executed_ids``): as the first ids of ``frame_ids`` with
``FrameLayout(before=...)`` when streaming, as ``executed_BTP`` in training. Other ablations need
no code: ``FrameWindow(0, 0)`` forgets everything but the current frame, and fused tokens without
``lam * spatial`` are a network without geometry.

Deeper layers still carry traces of evicted frames through frames that saw them: the window limits
cost, not the receptive field.

Shape letters: B episodes, T frames, n fused tokens of a frame, C channels of the language model, S
rows of one call, N remembered rows, Q rows of the question, A tokens of an answer, P rows before a
frame, V vocabulary, L layers, K key-value heads, D channels of a head.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel

from janusvln_ros.errors import InputError
from janusvln_ros.model.attention import MEMORY_ATTENTION, group_mask
from janusvln_ros.model.last_layer import last_layer
from janusvln_ros.model.memory import FrameWindow
from janusvln_ros.model.recording import RecordedCall

IGNORED = -100
"""Label of what is not supervised."""


@dataclass(frozen=True)
class FrameLayout:
    """
    Rows and positions of the pieces of an episode.

    Attributes:
        before: text rows in front of a frame (0; more with ``action_memory="executed"``).
        height, width: merge groups of a frame; its fused tokens go row by row.
    """

    height: int
    width: int
    before: int = 0

    @property
    def rows(self) -> int:
        """Rows that one frame takes in the memory."""
        return self.before + self.height * self.width + 2

    @property
    def span(self) -> int:
        """
        Positions that one frame takes: text rows one each, the picture as many as its longer side.
        """
        return self.before + max(self.height, self.width) + 2

    def positions(self) -> Tensor:
        """
        Positions of a frame's rows relative to its first one, int64 [3, rows] (time, height,
        width).
        """
        text = torch.arange(self.before + 1).expand(3, -1)
        y, x = torch.meshgrid(torch.arange(self.height), torch.arange(self.width), indexing="ij")
        picture = torch.stack([torch.zeros_like(y), y, x]).flatten(1) + self.before + 1
        return torch.cat([text, picture, torch.full((3, 1), self.span - 1)], dim=1)


class SemanticMemory:
    """
    Keys and values of the prompt and of the frames in the window, in buffers made once: ``[prompt
    | initial | ring | current | leaf]``.

    Committed frames lie side by side in any order, the current frame and its leaf always behind
    them, so that what is attended is one piece without gaps. Nothing that is remembered is written
    before `commit`: a step that fails or is taken back leaves no trace. The object is given to
    transformers' language model as ``past_key_values``.

    Args:
        config: of the language model.
        window: which frames to keep.
        layout: rows of one frame; all frames of an episode have one size.
        leaf_rows: most rows of question and answer together.
        prompt_rows: rows to set aside for the prompt; a longer prompt makes the buffers anew.
        dtype, device: of the buffers.
        cuda_graphs: replay the language model from a recording once the window is full (GPU only).
    """

    def __init__(
        self,
        config: Qwen2_5_VLTextConfig,
        window: FrameWindow,
        layout: FrameLayout,
        leaf_rows: int,
        prompt_rows: int = 256,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        cuda_graphs: bool = False,
    ) -> None:
        self.cuda_graphs = cuda_graphs
        self.config, self.window, self.layout, self.leaf_rows = config, window, layout, leaf_rows
        self._allocate(prompt_rows, dtype, device)
        self.reset()

    def _allocate(self, prompt_rows: int, dtype: torch.dtype, device: torch.device | str) -> None:
        heads = self.config.num_key_value_heads or self.config.num_attention_heads
        self.prompt_capacity = prompt_rows
        rows = prompt_rows + self.window.slots * self.layout.rows + self.leaf_rows
        shape = (
            self.config.num_hidden_layers,
            heads,
            rows,
            self.config.hidden_size // self.config.num_attention_heads,
        )
        self._recorded: dict[tuple[int, int, tuple[int, ...]], RecordedCall] = {}
        self.k_LKND = torch.zeros(shape, dtype=dtype, device=device)
        self.v_LKND = torch.zeros(shape, dtype=dtype, device=device)

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers: the same at every step."""
        return 2 * self.k_LKND.nbytes

    @property
    def groups(self) -> int:
        """Query heads to a key-value head."""
        return self.config.num_attention_heads // self.k_LKND.shape[1]

    @property
    def frames(self) -> list[int]:
        """Numbers of the remembered frames, ascending."""
        return self.window.frames(self.seen)

    @property
    def remembered_rows(self) -> int:
        """Rows of the prompt and of the committed frames."""
        return self.prompt_rows + min(self.seen, self.window.slots - 1) * self.layout.rows

    def reset(self) -> None:
        """Forget everything, the prompt too: a new episode begins."""
        self.seen = 0
        self.prompt_rows = 0
        self.current = False
        self._begin = self._end = 0
        self._mask: dict[tuple[int, int, tuple[int, ...]], Tensor] = {}

    def update(
        self, k_1KSD: Tensor, v_1KSD: Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """
        Called by each layer: put the S rows of this call behind what is there, return everything
        up to them, [1, K, N, D] each.
        """
        self.k_LKND[layer_idx, :, self._begin : self._end] = k_1KSD[0]
        self.v_LKND[layer_idx, :, self._begin : self._end] = v_1KSD[0]
        return self.k_LKND[layer_idx, None, :, : self._end], self.v_LKND[
            layer_idx, None, :, : self._end
        ]

    def commit(self) -> None:
        """
        Remember the frame that was read last; what it pushes out of the window is gone, and so is
        its leaf.

        Raises:
            InputError: no frame has been read since the last commit.
        """
        if not self.current:
            raise InputError("there is no frame to remember: read one before commit()")
        self.current = False
        full = self.window.slots - 1
        if self.seen >= full and self.window.window:
            rows = self.layout.rows
            source = self.prompt_rows + full * rows
            target = (
                self.prompt_rows
                + (self.window.initial + (self.seen - self.window.initial) % self.window.window)
                * rows
            )
            for buffer in (self.k_LKND, self.v_LKND):
                buffer[:, :, target : target + rows] = buffer[:, :, source : source + rows]
        self.seen += 1


def _own_visible(rows: int, tree_parents: tuple[int, ...]) -> Tensor:
    """
    What the rows of one call see of each other, bool [S, S]: causal, but tokens of the tree (the
    last rows) see only their ancestors there.
    """
    own = torch.ones(rows, rows, dtype=torch.bool).tril()
    stem = rows - len(tree_parents)
    own[stem:, stem:] = torch.eye(len(tree_parents), dtype=torch.bool)
    for i, parent in enumerate(tree_parents):
        if parent >= 0:
            own[stem + i, stem:] |= own[stem + parent, stem:]
    return own


def _run(
    language_model: Qwen2_5_VLTextModel,
    memory: SemanticMemory,
    begin: int,
    embeds_SC: Tensor,
    positions_3S: Tensor,
    tree_parents: tuple[int, ...] = (),
) -> Tensor:
    """Feed rows behind row ``begin`` of the memory and return their final hidden states [S, C]."""
    S, N, limit = (
        len(embeds_SC),
        begin + len(embeds_SC),
        language_model.config.max_position_embeddings,
    )
    if (rows := memory.k_LKND.shape[2]) < N:
        raise InputError(
            f"the answer needs {N - rows} rows more than the {memory.leaf_rows} set "
            "aside: make the memory with more leaf_rows"
        )
    if int(positions_3S.max()) >= limit:
        raise InputError(
            f"position {int(positions_3S.max())} is beyond the language model's "
            f"{limit}: shorten the instruction or begin a new episode"
        )
    memory._begin, memory._end = begin, N
    if language_model.config._attn_implementation != MEMORY_ATTENTION:
        language_model.set_attn_implementation(MEMORY_ATTENTION)
    chain = tree_parents == tuple(range(-1, len(tree_parents) - 1))
    mask: Tensor | None = None
    # One row, or rows that are all there is, need no mask; on a GPU plain causal rows have a
    # kernel of their own.
    if begin and S > 1 and (embeds_SC.device.type == "cpu" or not chain):
        key = (S, N, tree_parents)
        if key not in memory._mask:  # from the last slot on this is the same mask at every step
            visible_SN = torch.ones(S, N, dtype=torch.bool)
            visible_SN[:, begin:] = _own_visible(S, tree_parents)
            memory._mask = {
                key: group_mask(visible_SN.to(embeds_SC.device), memory.groups, embeds_SC.dtype)
            }
        mask = memory._mask[key]

    def read(embeds_SC: Tensor, positions_3S: Tensor) -> Tensor:
        # A mapping is taken as it stands; None means lower-right causal, see memory_attention.
        masks = {"full_attention": mask}
        return language_model(
            inputs_embeds=embeds_SC[None],
            position_ids=positions_3S[:, None],
            attention_mask=masks,
            past_key_values=memory,
            use_cache=True,
        ).last_hidden_state[0]

    positions_3S = positions_3S.to(embeds_SC.device)
    if not memory.cuda_graphs or memory.seen < memory.window.slots - 1 or S == 1:
        return read(embeds_SC, positions_3S)
    # From here on a frame always goes to the same rows, and sees the same ones.
    key = (S, begin, tree_parents)
    if key not in memory._recorded:
        if len(memory._recorded) >= 4:  # prompts of other lengths, from episodes before
            memory._recorded.clear()
        memory._recorded[key] = RecordedCall(read, embeds_SC, positions_3S)
    return memory._recorded[key](embeds_SC, positions_3S)


@torch.no_grad()
def read_prompt(
    language_model: Qwen2_5_VLTextModel, memory: SemanticMemory, prompt_ids: Sequence[int]
) -> None:
    """
    Begin an episode: empty the memory and read the system's turn and the instruction into it.

    Raises:
        InputError: the prompt is empty or longer than the language model's context.
    """
    if not prompt_ids:
        raise InputError("the prompt is empty: the semantic memory begins with the instruction")
    memory.reset()
    buffer = memory.k_LKND
    if memory.prompt_capacity < len(prompt_ids):
        if len(prompt_ids) >= language_model.config.max_position_embeddings:
            limit = language_model.config.max_position_embeddings
            raise InputError(
                f"the instruction makes a prompt of {len(prompt_ids)} tokens, the "
                f"language model takes {limit}: shorten it"
            )
        memory._allocate(len(prompt_ids), buffer.dtype, buffer.device)
    ids = torch.tensor(list(prompt_ids), device=buffer.device)
    _run(
        language_model,
        memory,
        0,
        language_model.embed_tokens(ids),
        torch.arange(len(ids)).expand(3, -1),
    )
    memory.prompt_rows = len(ids)


@torch.no_grad()
def read_frame(
    language_model: Qwen2_5_VLTextModel,
    memory: SemanticMemory,
    frame_ids: Sequence[int],
    fused_nC: Tensor,
    question_ids: Sequence[int] = (),
    tree_tokens: Sequence[int] = (),
    tree_parents: Sequence[int] = (),
    tree_depths: Sequence[int] = (),
) -> Tensor:
    """
    Read the current frame and ask about it, in one pass; the frame is remembered only by
    `SemanticMemory.commit`.

    Args:
        language_model: transformers' text model.
        memory: of this episode, after `read_prompt`.
        frame_ids: ids of the frame's rows; the fused tokens take the place of the last but one
            ``n`` (placeholders before the closing mark).
        fused_nC: the frame's fused tokens.
        question_ids: the leaf up to where the answer begins; empty only remembers (``observe``).
        tree_tokens, tree_parents, tree_depths: tokens to read behind the question, each after its
        parent (-1: the question), as
            `janusvln_ros.policy.decoding.ActionTree` gives them.

    Returns:
        Hidden states after the final norm, [1 + len(tree_tokens), C]: of the question's last row
        and of each token of the tree ([0, C] without a question). ``lm_head`` of them is all the
        scores there are.

    Raises:
        InputError: there is no prompt, the frame has another size than the memory was made for, or
            a position is beyond the context.
    """
    layout, n = memory.layout, len(fused_nC)
    if not memory.prompt_rows:
        raise InputError(
            "the semantic memory has no instruction yet: read_prompt() begins an episode"
        )
    if n != layout.height * layout.width or len(frame_ids) != layout.rows:
        raise InputError(
            f"this frame has {n} fused tokens in {len(frame_ids)} rows, the memory was "
            f"made for {layout.height}x{layout.width} in {layout.rows}: "
            "all frames of an episode must have one size"
        )
    ids = torch.tensor([*frame_ids, *question_ids, *tree_tokens], device=fused_nC.device)
    embeds_SC = language_model.embed_tokens(ids).to(fused_nC.dtype)
    embeds_SC[layout.rows - 1 - n : layout.rows - 1] = fused_nC

    first = memory.prompt_rows + memory.seen * layout.span
    leaf = [*range(len(question_ids)), *(len(question_ids) + d for d in tree_depths)]
    positions = torch.cat(
        [
            layout.positions() + first,
            (torch.tensor(leaf, dtype=torch.long) + first + layout.span).expand(3, -1),
        ],
        dim=1,
    )

    memory.current = False
    hidden_SC = _run(
        language_model, memory, memory.remembered_rows, embeds_SC, positions, tuple(tree_parents)
    )
    memory.current = True
    return hidden_SC[len(ids) - len(tree_tokens) - 1 :] if question_ids else hidden_SC[:0]


@torch.no_grad()
def read_answer(language_model: Qwen2_5_VLTextModel, memory: SemanticMemory, token: int) -> Tensor:
    """
    Free decoding: read one more token behind the leaf, return the hidden state [1, C] that scores
    the next.

    Raises:
        InputError: no frame has been read, or the answer is longer than the rows set aside.
    """
    if not memory.current:
        raise InputError("there is no open question: read a frame with one first")
    begin = memory._end
    leaf = begin - memory.remembered_rows - memory.layout.rows
    position = memory.prompt_rows + (memory.seen + 1) * memory.layout.span + leaf
    embeds = language_model.embed_tokens(torch.tensor([token], device=memory.k_LKND.device)).to(
        memory.k_LKND.dtype
    )
    return _run(language_model, memory, begin, embeds, torch.full((3, 1), position))


def episode_mask(
    prompt_lengths_B: Tensor,
    prompt_rows: int,
    frames: int,
    block_rows: int,
    leaf_rows: int,
    window: FrameWindow,
) -> Tensor:
    """
    What each row of an episode with all its leaves may see, bool [B, 1, R, R] with R = prompt_rows
    + frames * (block_rows + leaf_rows).

    Rows are the prompt (padded at its end to ``prompt_rows``) and then per frame its
    ``block_rows`` and its ``leaf_rows``. Rows of padding see themselves, so that no softmax is
    empty.
    """
    device = prompt_lengths_B.device
    within = torch.arange(frames * (block_rows + leaf_rows), device=device)
    frame_R = torch.cat(
        [torch.full((prompt_rows,), -1, device=device), within // (block_rows + leaf_rows)]
    )
    is_leaf_R = torch.cat(
        [
            torch.zeros(prompt_rows, dtype=torch.bool, device=device),
            within % (block_rows + leaf_rows) >= block_rows,
        ]
    )
    row_R = torch.arange(len(frame_R), device=device)

    causal_RR = row_R[:, None] >= row_R[None]
    is_prompt_R = frame_R < 0
    same_leaf_RR = is_leaf_R[:, None] & (frame_R[:, None] == frame_R[None])
    visible_RR = causal_RR & (
        is_prompt_R[None] | (window.visible(frame_R, frame_R) & (~is_leaf_R[None] | same_leaf_RR))
    )
    padding_BR = is_prompt_R & (row_R >= prompt_lengths_B[:, None])
    return (
        (visible_RR & ~padding_BR[:, None])
        | torch.eye(len(row_R), dtype=torch.bool, device=device)
    )[:, None]


def episode_pass(
    language_model: Qwen2_5_VLTextModel,
    lm_head: nn.Module,
    prompt_BL: Tensor,
    prompt_lengths_B: Tensor,
    fused_BTnC: Tensor,
    frame_ids: Sequence[int],
    grid: tuple[int, int],
    question_ids: Sequence[int],
    answers_BTA: Tensor,
    window: FrameWindow,
    jump: int = 0,
    executed_BTP: Tensor | None = None,
) -> Tensor:
    """
    Score the answer at every step of whole episodes in one masked causal pass; equal to streaming
    them step by step.

    This is the forward pass of training. Gradients reach the language model, ``lm_head`` and,
    through ``fused_BTnC``, the mergers.

    Args:
        language_model, lm_head: transformers' text model, and the layer that scores its hidden
        states. prompt_BL: int64, ids of the prompts, padded at the end with any id.
        prompt_lengths_B: int64, their true lengths. fused_BTnC: fused tokens of all frames;
        shorter episodes are padded with any numbers at the end (nothing sees them). frame_ids: ids
        of one frame's rows, placeholders where fused tokens go (``policy.prompt.frame_ids``);
        without the rows before it. grid: height and width of a frame in merge groups; n = height *
        width. question_ids: the leaf up to where the answer begins (``policy.prompt.leaf_ids``).
        answers_BTA: int64, the right answer's tokens at every step; -100 where there is none
        (padding, short answers, unsupervised
            steps). Single-token actions: A = 1.
        window: which frames are remembered; sample it in training (`sample_window`).
        jump: steps by which positions jump between the initial frames and all later ones, as if
            that many frames had been evicted.
        executed_BTP: int64, ids of the text rows before each frame, only for
            ``action_memory="executed"``.

    Returns:
        Logits [B, T, A, V]: row a of a step scores its answer's token a, given the right ones
        before it. Only these rows go through ``lm_head``.

    Raises:
        InputError: shapes that do not fit each other, or positions beyond the context.
    """
    B, T, n, _ = fused_BTnC.shape
    A, Q, P, device = (
        answers_BTA.shape[2],
        len(question_ids),
        0 if executed_BTP is None else executed_BTP.shape[2],
        fused_BTnC.device,
    )
    layout = FrameLayout(*grid, before=P)
    if (
        n != grid[0] * grid[1]
        or len(frame_ids) != n + 2
        or answers_BTA.shape[:2] != (B, T)
        or len(prompt_BL) != B
    ):
        raise InputError(
            f"fused tokens {list(fused_BTnC.shape)}, grid {grid}, {len(frame_ids)} "
            f"frame ids, answers {list(answers_BTA.shape)} and "
            f"prompts {list(prompt_BL.shape)} do not fit: they share B and T, a frame "
            "has height * width tokens and two marks"
        )
    last, limit = (
        int(prompt_lengths_B.max()) + (T + jump) * layout.span + Q + A,
        language_model.config.max_position_embeddings,
    )
    if last > limit:
        raise InputError(
            f"{T} frames with a jump of {jump} steps reach position {last}, the "
            f"language model takes {limit}: shorten them"
        )

    embed = language_model.embed_tokens
    dtype = fused_BTnC.dtype

    def text(ids: Tensor | Sequence[int]) -> Tensor:
        return embed(torch.as_tensor(ids, device=device)).to(dtype)

    # One step's rows: [executed | vision start | fused | vision end | question | answer but its
    # last token]
    open_BT1C, close_BT1C, question_BTQC = (
        text(ids).expand(B, T, -1, -1) for ids in (frame_ids[:1], frame_ids[-1:], question_ids)
    )
    pieces = [open_BT1C, fused_BTnC, close_BT1C, question_BTQC]
    if executed_BTP is not None:
        pieces.insert(0, text(executed_BTP))
    if A > 1:
        pieces.append(text(answers_BTA[:, :, :-1].clamp(min=0)))
    steps_BTRC = torch.cat(pieces, dim=2)
    embeds_BRC = torch.cat([text(prompt_BL), steps_BTRC.flatten(1, 2)], dim=1)

    leaf = Q + A - 1
    step_3R = torch.cat(
        [layout.positions(), (layout.span + torch.arange(leaf)).expand(3, -1)], dim=1
    ).to(device)
    number_T = torch.arange(T, device=device)
    start_BT = (
        prompt_lengths_B.to(device)[:, None]
        + (number_T + jump * (number_T >= window.initial)) * layout.span
    )
    prompt_3BL = torch.arange(prompt_BL.shape[1], device=device).expand(3, B, -1)
    positions_3BR = torch.cat(
        [prompt_3BL, (start_BT[None, :, :, None] + step_3R[:, None, None]).flatten(2)], dim=2
    )

    mask = episode_mask(
        prompt_lengths_B.to(device), prompt_BL.shape[1], T, layout.rows, leaf, window
    )
    answer_TA = (
        prompt_BL.shape[1]
        + number_T[:, None] * (layout.rows + leaf)
        + layout.rows
        + Q
        - 1
        + torch.arange(A, device=device)
    )
    if device.type == "cpu":
        # Small networks have few layers, so that the last one for the answers alone is worth it;
        # and a mask converted once instead of in every layer.
        mask = torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, float("-inf"))
        hidden_BRC, rotation = embeds_BRC, language_model.rotary_emb(embeds_BRC, positions_3BR)
        for layer in language_model.layers[:-1]:
            hidden_BRC = layer(hidden_BRC, attention_mask=mask, position_embeddings=rotation)
        answers_BSC = last_layer(
            language_model,
            hidden_BRC,
            rotation,
            answer_TA.flatten(),
            mask[:, :, answer_TA.flatten()],
        )
    else:
        hidden_BRC = language_model(
            inputs_embeds=embeds_BRC,
            position_ids=positions_3BR,
            attention_mask={"full_attention": mask},
            use_cache=False,
        ).last_hidden_state
        answers_BSC = hidden_BRC[:, answer_TA.flatten()]
    answer_BTAC = answers_BSC.unflatten(1, (T, A))
    return lm_head(answer_BTAC)


def action_loss(
    logits_BTAV: Tensor, answers_BTA: Tensor, weights_BT: Tensor | None = None
) -> Tensor:
    """
    Cross entropy of the right answers, summed over an answer's tokens, averaged over steps by
    their weights; a scalar.

    Args:
        logits_BTAV: from `episode_pass`.
        answers_BTA: int64; tokens that are -100 do not count.
        weights_BT: not negative, e.g. more for a change of action or STOP; None is 1 for every
            step. Steps without any label do not count.

    Returns:
        0 (with a gradient of 0) where nothing is supervised.
    """
    loss_BTA = F.cross_entropy(
        logits_BTAV.flatten(0, 2).float(),
        answers_BTA.flatten(),
        ignore_index=IGNORED,
        reduction="none",
    ).view(answers_BTA.shape)
    supervised_BT = (answers_BTA != IGNORED).any(dim=2)
    weights = (
        supervised_BT.to(loss_BTA.dtype)
        if weights_BT is None
        else weights_BT.to(loss_BTA.dtype) * supervised_BT
    )
    return (loss_BTA.sum(dim=2) * weights).sum() / weights.sum().clamp(
        min=torch.finfo(loss_BTA.dtype).tiny
    )


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

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

Here an episode is read as it comes: `read_prompt`, then per frame `read_frame` (and
`SemanticMemory.commit`). Training computes the same numbers for a whole episode with all its
leaves in one masked causal pass (`janusvln_ros.training.episode`).

Answers are not in the memory, or a cloned policy learns to repeat its last action. The ablation
``action_memory="executed"`` puts the question and the *executed* action before each frame
(``policy.prompt.executed_ids``): as the first ids of ``frame_ids`` with
``FrameLayout(before=...)``. Other ablations need no code: ``FrameWindow(0, 0)`` forgets everything
but the current frame, and fused tokens without ``lam * spatial`` are a network without geometry.

Deeper layers still carry traces of evicted frames through frames that saw them: the window limits
cost, not the receptive field.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from transformers import Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel

from janusvln_ros.errors import require
from janusvln_ros.model.attention import group_mask, tree_mask, use_memory_attention
from janusvln_ros.model.memory import FrameWindow
from janusvln_ros.model.network import (
    KeyValueCache,
    hidden_states,
    image_positions,
    on_device,
)
from janusvln_ros.model.recording import Recordings


@dataclass(frozen=True)
class FrameLayout:
    """
    Rows and positions of the pieces of an episode.

    Attributes:
        height, width: merge groups of a frame; its fused tokens go row by row.
        before: text rows in front of a frame (0; more with ``action_memory="executed"``).
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
        picture = image_positions(self.height, self.width, self.before + 1)
        return torch.cat([text, picture, torch.full((3, 1), self.span - 1)], dim=1)


Tree = tuple[int, ...]
"""Parents of the tokens of a tree of answers, see `janusvln_ros.model.attention.tree_mask`."""


class SemanticMemory(KeyValueCache):
    """
    Keys and values of the prompt and of the frames in the window, in buffers made once: ``[prompt
    | initial | ring | current | leaf]``.

    Committed frames lie side by side in any order, the current frame and its leaf always behind
    them, so that what is attended is one piece without gaps. Nothing that is remembered is written
    before `commit`: a step that fails or is taken back leaves no trace.

    Args:
        config: of the language model.
        window: which frames to keep.
        layout: rows of one frame; all frames of an episode have one size.
        leaf_rows: most rows of question and answer together.
        prompt_rows: rows to set aside for the prompt; a longer prompt makes the buffers anew.
        dtype, device: of the buffers.
        recordings: replay the language model from a recording of theirs once the window is full.

    Attributes:
        seen: frames committed in this episode.
        prompt_rows: rows of this episode's prompt.
        current: a frame has been read and not yet committed.
        begin, end: rows of the call that runs, or ran last.
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
        recordings: Recordings | None = None,
    ) -> None:
        self.recordings = Recordings() if recordings is None else recordings
        self.config, self.window, self.layout, self.leaf_rows = config, window, layout, leaf_rows
        self.allocate(prompt_rows, dtype, device)
        self.reset()

    def allocate(self, prompt_rows: int, dtype: torch.dtype, device: torch.device | str) -> None:
        """Make the buffers, with room for a prompt of ``prompt_rows``."""
        self.prompt_capacity = prompt_rows
        rows = prompt_rows + self.window.slots * self.layout.rows + self.leaf_rows
        super().__init__(self.config, rows, dtype, device)

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
        self.seen = self.prompt_rows = self.begin = self.end = 0
        self.current = False
        self._masks: dict[tuple[int, int, Tree], Tensor] = {}

    def mask(self, tree: Tree) -> Tensor:
        """
        What the rows of this call see of everything up to them, as `memory_attention` takes it:
        causal, but tokens of the ``tree`` (the last rows) see only their ancestors there.
        """
        key = (self.begin, self.end, tree)
        if key not in self._masks:  # from the last slot on this is the same mask at every step
            rows, stem = self.end - self.begin, self.end - len(tree)
            visible_LK = torch.ones(rows, self.end, dtype=torch.bool).tril(self.begin)
            visible_LK[stem - self.begin :, stem:] = tree_mask(tree)
            groups = self.config.num_attention_heads // self.k_BZNKH.shape[2]
            visible_LK = visible_LK.to(self.k_BZNKH.device)
            self._masks = {key: group_mask(visible_LK, groups, self.k_BZNKH.dtype)}
        return self._masks[key]

    def recorded(
        self,
        tree: Tree,
        embeds_LD: Tensor,
        positions_3L: Tensor,
        read: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        """
        ``read(embeds_LD, positions_3L)``, replayed from a recording once the window is full: from
        there on a frame always goes to the same rows, and sees the same ones.
        """
        (hidden_LD,) = self.recordings.run(
            lambda *inputs: (read(*inputs),),
            embeds_LD,
            positions_3L,
            key=("dual", self.k_BZNKH.data_ptr(), self.begin, self.end, tree),
            steady=self.seen >= self.window.slots - 1 and len(embeds_LD) > 1,
        )
        return hidden_LD

    def commit(self) -> None:
        """
        Remember the frame that was read last; what it pushes out of the window is gone, and so is
        its leaf.

        Raises:
            InputError: no frame has been read since the last commit.
        """
        require(self.current, "there is no frame to remember: read one before commit()")
        self.current = False
        full, rows = self.window.slots - 1, self.layout.rows
        if self.seen >= full and self.window.window:
            slot = self.window.initial + (self.seen - self.window.initial) % self.window.window
            source, target = self.prompt_rows + full * rows, self.prompt_rows + slot * rows
            for buffer in (self.k_BZNKH, self.v_BZNKH):
                buffer[..., target : target + rows, :] = buffer[..., source : source + rows, :]
        self.seen += 1


def _run(
    language: Qwen2_5_VLTextModel,
    memory: SemanticMemory,
    begin: int,
    embeds_LD: Tensor,
    positions_3L: Tensor,
    last: int,
    tree: Tree = (),
) -> Tensor:
    """
    Feed rows behind row ``begin`` of the memory, at positions up to ``last``, and return their
    final hidden states [L, D].
    """
    end, limit = begin + len(embeds_LD), language.config.max_position_embeddings
    require(
        end <= memory.capacity,
        f"the answer needs {end - memory.capacity} rows more than the {memory.leaf_rows} set "
        "aside: make the memory with more leaf_rows",
    )
    require(
        last < limit,
        f"position {last} is beyond the language model's "
        f"{limit}: shorten the instruction or begin a new episode",
    )
    memory.begin, memory.end = begin, end
    use_memory_attention(language)
    # One row, or rows that are all there is, need no mask; on a GPU plain causal rows have a
    # kernel of their own.
    chain = tree == tuple(range(-1, len(tree) - 1))
    masked = begin and len(embeds_LD) > 1 and (embeds_LD.device.type == "cpu" or not chain)
    mask = memory.mask(tree) if masked else None

    def read(embeds_LD: Tensor, positions_3L: Tensor) -> Tensor:
        return hidden_states(language, embeds_LD, positions_3L, memory, mask)

    return memory.recorded(tree, embeds_LD, positions_3L, read)


@lru_cache(maxsize=8)
def step_positions(layout: FrameLayout, leaf: tuple[int, ...], device: torch.device) -> Tensor:
    """
    Positions of a frame's rows and of its leaf's relative to the frame's first, int64 [3, L]; the
    leaf's as they are behind the frame. Not to be written to.
    """
    with torch.inference_mode(False):
        leaf_3L = (torch.tensor(leaf, dtype=torch.long) + layout.span).expand(3, -1)
        return torch.cat([layout.positions(), leaf_3L], dim=1).to(device)


@torch.no_grad()
def read_prompt(
    language: Qwen2_5_VLTextModel, memory: SemanticMemory, prompt_ids: Sequence[int]
) -> None:
    """
    Begin an episode: empty the memory and read the system's turn and the instruction into it.

    Raises:
        InputError: the prompt is empty or longer than the language model's context.
    """
    require(prompt_ids, "the prompt is empty: the semantic memory begins with the instruction")
    memory.reset()
    limit, buffer = language.config.max_position_embeddings, memory.k_BZNKH
    if memory.prompt_capacity < len(prompt_ids):
        require(
            len(prompt_ids) < limit,
            f"the instruction makes a prompt of {len(prompt_ids)} tokens, the "
            f"language model takes {limit}: shorten it",
        )
        memory.allocate(len(prompt_ids), buffer.dtype, buffer.device)
    embeds_LD = language.embed_tokens(torch.tensor(list(prompt_ids), device=buffer.device))
    rows = len(prompt_ids)
    positions_3L = torch.arange(rows, device=embeds_LD.device).expand(3, -1)
    _run(language, memory, 0, embeds_LD, positions_3L, rows - 1)
    memory.prompt_rows = len(prompt_ids)


@torch.no_grad()
def read_frame(
    language: Qwen2_5_VLTextModel,
    memory: SemanticMemory,
    frame_ids: Sequence[int],
    fused_MD: Tensor,
    question_ids: Sequence[int] = (),
    tree_tokens: Sequence[int] = (),
    tree_parents: Sequence[int] = (),
    tree_depths: Sequence[int] = (),
) -> Tensor:
    """
    Read the current frame and ask about it, in one pass; the frame is remembered only by
    `SemanticMemory.commit`.

    Args:
        language: transformers' text model.
        memory: of this episode, after `read_prompt`.
        frame_ids: ids of the frame's rows; the fused tokens take the place of the last but one
            ``M`` (placeholders before the closing mark).
        fused_MD: the frame's fused tokens.
        question_ids: the leaf up to where the answer begins; empty only remembers (``observe``).
        tree_tokens, tree_parents, tree_depths: tokens to read behind the question, each after its
            parent (-1: the question), as `janusvln_ros.policy.decoding.ActionTree` gives them.

    Returns:
        Hidden states after the final norm, [1 + len(tree_tokens), D]: of the question's last row
        and of each token of the tree ([0, D] without a question). ``lm_head`` of them is all the
        scores there are.

    Raises:
        InputError: there is no prompt, the frame has another size than the memory was made for, or
            a position is beyond the context.
    """
    layout, count = memory.layout, len(fused_MD)
    require(
        memory.prompt_rows,
        "the semantic memory has no instruction yet: read_prompt() begins an episode",
    )
    require(
        count == layout.height * layout.width and len(frame_ids) == layout.rows,
        f"this frame has {count} fused tokens in {len(frame_ids)} rows, the memory was "
        f"made for {layout.height}x{layout.width} in {layout.rows}: "
        "all frames of an episode must have one size",
    )
    ids = (*frame_ids, *question_ids, *tree_tokens)
    embeds_LD = language.embed_tokens(on_device(ids, fused_MD.device)).to(fused_MD.dtype)
    embeds_LD[layout.rows - 1 - count : layout.rows - 1] = fused_MD

    first = memory.prompt_rows + memory.seen * layout.span
    leaf = (*range(len(question_ids)), *(len(question_ids) + depth for depth in tree_depths))
    positions_3L = first + step_positions(layout, leaf, fused_MD.device)
    last = first + layout.span + max(leaf, default=-1)

    memory.current = False
    begin = memory.remembered_rows
    hidden_LD = _run(language, memory, begin, embeds_LD, positions_3L, last, tuple(tree_parents))
    memory.current = True
    return hidden_LD[len(ids) - len(tree_tokens) - 1 :] if question_ids else hidden_LD[:0]


@torch.no_grad()
def read_answer(language: Qwen2_5_VLTextModel, memory: SemanticMemory, token: int) -> Tensor:
    """
    Free decoding: read one more token behind the leaf, return the hidden state [1, D] that scores
    the next.

    Raises:
        InputError: no frame has been read, or the answer is longer than the rows set aside.
    """
    require(memory.current, "there is no open question: read a frame with one first")
    leaf = memory.end - memory.remembered_rows - memory.layout.rows
    position = memory.prompt_rows + (memory.seen + 1) * memory.layout.span + leaf
    buffer = memory.k_BZNKH
    embed_1D = language.embed_tokens(torch.tensor([token], device=buffer.device)).to(buffer.dtype)
    position_31 = torch.full((3, 1), position, device=buffer.device)
    return _run(language, memory, memory.end, embed_1D, position_31, position)
